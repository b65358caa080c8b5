"""A user's own images: a folder of class sub-folders, or one without classes; sizes, modes and formats
mixed."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from benchmarks.datasets.catalog import Dataset
from benchmarks.datasets.contents import Contents, Sources
from benchmarks.datasets.pieces import Piece, file_piece, in_hash_order, piece_images
from scl.util.text import printable, say

ENDINGS = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp"}


def read(dataset: Dataset, sources: Sources) -> Contents:
    """Contents of `sources.path`, in the order of the hashes of the relative names.

    If no image lies directly in the folder, its sub-folders are the classes (images may lie deeper in them);
    if all do, there are no classes; a mixture is refused. Hidden files and other file types are passed over, links
    are followed. Whatever would leave it open what belongs to which class is refused by a ValueError: one folder
    under two names (circles of links, too), links to nowhere, pipes and devices, names that are not UTF-8.
    """
    root = sources.path
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
    classes = sorted({piece.name.partition("/")[0] for piece in pieces}) if not flat else []
    for name in sorted(folders.difference(classes)) if classes else []:
        say(f"{root / name}: holds no images, so it is no class")
    index = {name: label for label, name in enumerate(classes)}
    labels = np.asarray([index[piece.name.partition("/")[0]] for piece in pieces], dtype=np.int64) if classes else None
    return Contents({"all": len(pieces)}, labels, classes, lambda rows: piece_images(pieces, rows), upright=True)


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
