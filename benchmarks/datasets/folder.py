"""A user's own images: a folder of class sub-folders, or one without classes; sizes, modes and formats
mixed."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from benchmarks.datasets.catalogue import Dataset
from benchmarks.datasets.contents import Contents, Sources
from benchmarks.datasets.pieces import Piece, in_hash_order, piece_images

ENDINGS = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp"}


def read(dataset: Dataset, sources: Sources) -> Contents:
    """Contents of `sources.path`, in the order of the hashes of the relative names.

    If no image lies directly in the folder, its sub-folders are the classes (images may lie deeper in them);
    if all do, there are no classes; a mixture is refused. Hidden files and other file types are passed over.
    """
    root = sources.path
    if root is None or not root.is_dir():
        raise ValueError(f"{root or 'folder'}: is no folder of images; give the benchmark a `path:`")
    pieces = _find(root)
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
    index = {name: label for label, name in enumerate(classes)}
    labels = (
        np.asarray([index[piece.name.partition("/")[0]] for piece in pieces], dtype=np.int64)
        if classes
        else None
    )
    return Contents(
        {"all": len(pieces)}, labels, classes, lambda rows: piece_images(pieces, rows), upright=True
    )


def _find(root: Path) -> list[Piece]:
    pieces = []
    for folder, below, files in os.walk(root, followlinks=False):
        below[:] = [name for name in below if not name.startswith(".")]
        for name in files:
            path = Path(folder, name)
            if path.suffix.lower() in ENDINGS and not name.startswith("."):
                pieces.append(Piece(path.relative_to(root).as_posix(), path, 0, path.stat().st_size))
    return pieces
