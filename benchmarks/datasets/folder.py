"""A user's own images of mixed sizes, modes and formats: a folder with or without class sub-folders; or an array in a
.npy file."""

import hashlib
import os
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.datasets.catalog import Dataset
from benchmarks.datasets.dataset import Image, RawDataset, Sources, labels_by_folder
from benchmarks.datasets.pixels import HEIF, MAX_BYTES, from_bytes, reads_heif
from benchmarks.datasets.slices import FileSlice, in_hash_order, slice_images, whole_file
from scl.util.text import printable, say

ENDINGS = {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp"}
NOT_READ = {".avif", ".jxl", ".jp2", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".raf", ".rw2", ".psd", ".tga"}
IMAGES = ENDINGS.union(HEIF, NOT_READ)
NO_HEIF = "HEIC needs pillow-heif (pip install pillow-heif), or convert it to JPEG"
NO_PERMISSION = "no permission to read it"


def read(dataset: Dataset, sources: Sources) -> RawDataset:
    """The images of `sources.path`: a folder, in the order of the hashes of the relative names, or a .npy file.

    If no image is directly in the folder, its sub-folders are the classes (images may be nested deeper), except those
    of which no image can be decoded; else, or if all images are in one of them, there are no classes, and a note says
    so. Hidden files and other file types are skipped, links are followed. Raises ValueError for anything that makes the
    classes ambiguous or images unreadable: one folder under two names (including circular links), broken links, pipes
    and devices, folders without read permission, names that are not UTF-8. Files that are too large, without read
    permission, or in an unsupported format are left out (`RawDataset.unreadable`).
    """
    root = sources.path
    if root is not None and root.is_file() and root.suffix == ".npy":
        return _array(root)
    if root is None or not root.is_dir():
        raise ValueError(f"{root or 'folder'}: is not a folder of images; give the benchmark a `path:`")
    slices, folders = _find(root)
    if not slices:
        raise ValueError(f"{root}: holds no images ({', '.join(sorted(ENDINGS))})")
    flat = [name for name, *_ in slices if "/" not in name and Path(name).suffix.lower() not in NOT_READ]
    note = ""
    if flat and any("/" in name for name, *_ in slices):
        note = (
            f"{len(flat)} of {len(slices)} images, such as {flat[0]}, are in no sub-folder, so the sub-folders are not "
            "taken as classes and nothing is scored; for classes, move these images into sub-folders"
        )
    slices = in_hash_order(slices)
    unreadable = _unreadable(slices, classes=not flat)
    slices = [image for image in slices if image.name not in unreadable]
    if not slices:
        raise ValueError(f"{root}: none of its {len(unreadable)} images can be read: {next(iter(unreadable.values()))}")
    names = [image.name for image in slices]
    classes = [] if flat else sorted({name.partition("/")[0] for name in names})
    for name in sorted(folders.difference(classes)) if classes else []:
        readable = "readable " * any(image.startswith(f"{name}/") for image in unreadable)
        say(f"{root / name}: holds no {readable}images, so it is not a class")
    if len(classes) == 1:
        note = f"all images are in one sub-folder, {classes[0]}, so there is nothing to compare with"
        classes = []
    labels = labels_by_folder(names, classes) if classes else None
    return RawDataset(
        {"all": len(slices)},
        labels,
        classes,
        lambda rows: slice_images(slices, rows),
        names,
        upright=True,
        unreadable=unreadable,
        note=note,
    )


def fingerprint(root: Path) -> str:
    """SHA-256 of the names, sizes and modification times of the images in `root`, which changes if an image is added,
    removed or edited. Raises ValueError or OSError as `read` does."""
    images = _find(root)[0] if root.is_dir() else [whole_file(root.name, root)]
    facts = sorted((image.name, image.size, image.file.stat().st_mtime_ns) for image in images)
    return hashlib.sha256(repr(facts).encode()).hexdigest()


def readable_now(root: Path, unreadable: dict[str, str]) -> bool:
    """Whether a file that was left out can be read now, because a library was installed, permission was granted, or the
    disk works again: the fingerprint does not show that."""
    for name, why in unreadable.items():
        path = root / name
        if why in (NO_HEIF, NO_PERMISSION) and not _problem(FileSlice(name, path, 0, 0)):
            return True
        if why.startswith("cannot be read: ") and path.is_file():
            [(_, _, data)] = slice_images([whole_file(name, path)], np.arange(1))
            if isinstance(data, bytes):
                return True
    return False


def _array(path: Path) -> RawDataset:
    """Unlabeled images: uint8 N x H x W x 3. Their names are their rows."""
    try:
        images = np.load(path, mmap_mode="r", allow_pickle=False)
        if not isinstance(images, np.ndarray):
            raise ValueError("an .npz archive of several arrays")
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path}: not a readable .npy array: {error}") from None
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3 or not images.size:
        raise ValueError(f"{path}: {images.dtype} {images.shape}; images are uint8, N x H x W x 3")

    def read_rows(rows: np.ndarray) -> Iterator[Image]:
        return ((int(row), f"{path.name}, image {row}", np.asarray(images[row])) for row in rows)

    return RawDataset({"all": len(images)}, None, [], read_rows, [str(row) for row in range(len(images))])


def _problem(image: FileSlice) -> str:
    """Why a file is left out before it is opened, "" if it is not."""
    ending = Path(image.name).suffix.lower()
    if ending in NOT_READ:
        return f"{ending[1:].upper()} is not read here; convert it to JPEG"
    if ending in HEIF and not reads_heif():
        return NO_HEIF
    if image.size > MAX_BYTES:
        return f"{image.size:,} bytes is too much for one image (at most {MAX_BYTES:,})"
    return "" if os.access(image.file, os.R_OK) else NO_PERMISSION


def _unreadable(slices: list[FileSlice], *, classes: bool) -> dict[str, str]:
    """{name: reason} of files that are left out before the others are decoded. classes: also all images of a sub-folder
    of which none can be decoded; to know that, one of every other sub-folder is decoded."""
    unreadable = {image.name: why for image in slices if (why := _problem(image))}
    readable, failed = set[str](), dict[str, str]()
    for image in slices if classes else ():
        folder = image.name.partition("/")[0]
        if folder in readable or image.name in unreadable:
            continue
        [(_, _, data)] = slice_images([image], np.arange(1))
        try:
            if isinstance(data, ValueError):
                raise data
            assert isinstance(data, bytes)
            with warnings.catch_warnings(action="ignore"):  # as in write_images
                from_bytes(data, 8, name=image.name)
            readable.add(folder)
        except ValueError as error:
            failed[image.name] = str(error).removeprefix(f"{image.name}: ")
    return unreadable | {name: why for name, why in failed.items() if name.partition("/")[0] not in readable}


def _find(root: Path) -> tuple[list[FileSlice], set[str]]:
    """(images, sub-folders directly below `root`)"""
    slices, folders, visited = [], set[str](), dict[tuple[int, int], Path]()
    for folder, below, files in os.walk(root, followlinks=True, onerror=_fail):
        below[:] = [name for name in below if not name.startswith(".")]
        _refuse_second_visit(Path(folder), visited)
        folders = folders or set(below)  # of the first, which is root
        for name in files:
            path = Path(folder, name)
            if name.startswith("."):
                continue
            if path.suffix.lower() in IMAGES:
                slices.append(whole_file(_utf8(path.relative_to(root), root), path))
            elif path.is_symlink() and not path.exists():
                whole_file(name, path)  # perhaps a class that is not mounted: raises ValueError
    return slices, folders


def _fail(error: OSError) -> None:
    """Raise the error: os.walk would silently skip a folder that it cannot read."""
    if isinstance(error, PermissionError):
        place = printable(error.filename)
        raise ValueError(f"{place}: no permission to read this folder; change that, or move it elsewhere") from error
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
