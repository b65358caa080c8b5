"""A user's own images: a folder of class sub-folders, or one without classes, of mixed sizes, modes and formats; or one
.npy file of an array."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.datasets.catalog import Dataset
from benchmarks.datasets.contents import Contents, Image, Sources
from benchmarks.datasets.pieces import Piece, file_piece, in_hash_order, piece_images
from benchmarks.datasets.pixels import MAX_BYTES
from scl.util.text import printable, say

ENDINGS = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp"}


def read(dataset: Dataset, sources: Sources) -> Contents:
    """Contents of `sources.path`: a folder, in the order of the hashes of the relative names, or a .npy file.

    If no image lies directly in the folder, its sub-folders are the classes (images may lie deeper in them);
    if all do, there are no classes; a mixture is refused. Hidden files and other file types are passed over, links
    are followed. Whatever would leave it open what belongs to which class is refused by a ValueError: one folder
    under two names (circles of links, too), links to nowhere, pipes and devices, names that are not UTF-8. Files that
    are too large or may not be read are left out (`Contents.unreadable`).
    """
    root = sources.path
    if root is not None and root.is_file() and root.suffix == ".npy":
        return _array(root)
    if root is None or not root.is_dir():
        raise ValueError(f"{root or 'folder'}: is no folder of images; give the benchmark a `path:`")
    pieces, folders = _find(root)
    if not pieces:
        raise ValueError(f"{root}: holds no images ({', '.join(sorted(ENDINGS))})")
    flat = [piece.name for piece in pieces if "/" not in piece.name]
    if flat and len(flat) < len(pieces):
        raise ValueError(
            f"{root}: has images both in sub-folders (classes) and beside them, such as {flat[0]}; "
            "move these into a class, or all images into one folder without classes"
        )
    pieces = in_hash_order(pieces)
    unreadable = {piece.name: why for piece in pieces if (why := _problem(piece))}
    pieces = [piece for piece in pieces if piece.name not in unreadable]
    if not pieces:
        raise ValueError(f"{root}: none of its {len(unreadable)} images can be read: {next(iter(unreadable.values()))}")
    classes = sorted({piece.name.partition("/")[0] for piece in pieces}) if not flat else []
    for name in sorted(folders.difference(classes)) if classes else []:
        say(f"{root / name}: holds no images, so it is no class")
    index = {name: label for label, name in enumerate(classes)}
    labels = np.asarray([index[piece.name.partition("/")[0]] for piece in pieces], dtype=np.int64) if classes else None
    return Contents(
        {"all": len(pieces)},
        labels,
        classes,
        lambda rows: piece_images(pieces, rows),
        upright=True,
        names=[piece.name for piece in pieces],
        unreadable=unreadable,
    )


def fingerprint(root: Path) -> str:
    """SHA-256 of the names, sizes and times of modification of the images in `root`: another one if an image was added,
    removed or changed. Raises ValueError or OSError as `read` does."""
    pieces = _find(root)[0] if root.is_dir() else [file_piece(root.name, root)]
    facts = sorted((piece.name, piece.size, piece.file.stat().st_mtime_ns) for piece in pieces)
    return hashlib.sha256(repr(facts).encode()).hexdigest()


def _array(path: Path) -> Contents:
    """Unlabeled images: uint8 N x H x W x 3. Their names are their rows."""
    try:
        images = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path}: not a readable .npy array: {error}") from None
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3 or not images.size:
        raise ValueError(f"{path}: {images.dtype} {images.shape}; images are uint8, N x H x W x 3")

    def read_rows(rows: np.ndarray) -> Iterator[Image]:
        return ((int(row), f"{path.name}: image {row}", np.asarray(images[row])) for row in rows)

    return Contents({"all": len(images)}, None, [], read_rows, names=[str(row) for row in range(len(images))])


def _problem(piece: Piece) -> str:
    """Why this file is left out before it is opened, "" if it is not."""
    if piece.size > MAX_BYTES:
        return f"{piece.size:,} bytes is too much for one image (at most {MAX_BYTES:,})"
    return "" if os.access(piece.file, os.R_OK) else "no permission to read it"


def _find(root: Path) -> tuple[list[Piece], set[str]]:
    """(images, sub-folders directly below `root`)"""
    pieces, folders, visited = [], set[str](), dict[tuple[int, int], Path]()
    for folder, below, files in os.walk(root, followlinks=True, onerror=_fail):
        below[:] = [name for name in below if not name.startswith(".")]
        _refuse_second_visit(Path(folder), visited)
        folders = folders or set(below)  # of the first, which is root
        for name in files:
            path = Path(folder, name)
            if name.startswith("."):
                continue
            if path.suffix.lower() in ENDINGS:
                pieces.append(file_piece(_utf8(path.relative_to(root), root), path))
            elif path.is_symlink() and not path.exists():
                file_piece(name, path)  # perhaps a class that is not mounted: raises ValueError
    return pieces, folders


def _fail(error: OSError) -> None:
    """os.walk would pass over a folder that it cannot read."""
    raise error


def _refuse_second_visit(folder: Path, visited: dict[tuple[int, int], Path]) -> None:
    found = folder.stat()
    first = visited.setdefault((found.st_dev, found.st_ino), folder)
    if first != folder:
        raise ValueError(
            f"{printable(folder)}: is the same folder as {printable(first)}, by a link; its images would count twice, "
            "so remove the link"
        )


def _utf8(name: Path, root: Path) -> str:
    text = name.as_posix()
    try:
        text.encode()
    except UnicodeEncodeError:
        shown = printable(os.fsencode(text).decode("utf-8", "backslashreplace"))
        raise ValueError(f"{printable(root)}: {shown}: this name is not UTF-8; rename it") from None
    return text
