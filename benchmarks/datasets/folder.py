"""A user's own images: a folder of class sub-folders, or one without classes; sizes, modes and formats mixed."""

import os
from pathlib import Path

from benchmarks.datasets.catalog import Dataset
from benchmarks.datasets.dataset import RawDataset, Sources, labels_by_folder
from benchmarks.datasets.slices import FileSlice, in_hash_order, slice_images, whole_file
from scl.util.text import printable, say

ENDINGS = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp"}


def read(dataset: Dataset, sources: Sources) -> RawDataset:
    """The images of `sources.path`, in the order of the hashes of the relative names.

    If no image is directly in the folder, its sub-folders are the classes (images may be deeper in them); if all are,
    there are no classes; a mixture is refused. Hidden files and other file types are skipped, links are followed.
    Raises ValueError for whatever makes the classes ambiguous or images unreadable: one folder under two names
    (including circular links), broken links, pipes and devices, names that are not UTF-8.
    """
    root = sources.path
    if root is None or not root.is_dir():
        raise ValueError(f"{root or 'folder'}: is not a folder of images; give the benchmark a `path:`")
    slices, folders = _find(root)
    if not slices:
        raise ValueError(f"{root}: holds no images ({', '.join(sorted(ENDINGS))})")
    flat = [image.name for image in slices if "/" not in image.name]
    if flat and len(flat) < len(slices):
        raise ValueError(
            f"{root}: has images both in sub-folders (classes) and beside them, such as {flat[0]}; "
            "move these into a class, or all images into one folder without classes"
        )
    slices = in_hash_order(slices)
    names = [image.name for image in slices]
    classes = [] if flat else sorted({name.partition("/")[0] for name in names})
    for name in sorted(folders.difference(classes)) if classes else []:
        say(f"{root / name}: holds no images, so it is not a class")
    labels = labels_by_folder(names, classes) if classes else None
    return RawDataset(
        {"all": len(slices)}, labels, classes, lambda rows: slice_images(slices, rows), names, upright=True
    )


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
            if path.suffix.lower() in ENDINGS:
                slices.append(whole_file(_utf8(path.relative_to(root), root), path))
            elif path.is_symlink() and not path.exists():
                whole_file(name, path)  # perhaps a class that is not mounted: raises ValueError
    return slices, folders


def _fail(error: OSError) -> None:
    """os.walk would skip a folder that it cannot read."""
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
