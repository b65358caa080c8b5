"""STL-10: 113,000 images of 96 x 96 as raw bytes in a .tar.gz, streamed, never entirely in memory."""

import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from benchmarks.datasets.catalog import Dataset
from benchmarks.datasets.dataset import RawDataset, Sources, ranges
from scl.util.text import printable

SIDE = 96
IMAGE_BYTES = 3 * SIDE * SIDE
CHUNK = 200  # images, 5.5 MB
FOLDER = "stl10_binary"
PIXELS = {"train": "train_X.bin", "test": "test_X.bin", "unlabeled": "unlabeled_X.bin"}
LABELS = {"train": "train_y.bin", "test": "test_y.bin"}
SMALL = 1 << 20  # bytes; the label files have 8,000 at most


def read(dataset: Dataset, sources: Sources) -> RawDataset:
    """stl10_binary.tar.gz in the official order: train, test, unlabeled (label -1).

    The archive is read twice, first for labels and lengths: pixels may come before labels in it.
    """
    (path,) = sources.files
    lengths, small = _survey(path)
    missing = [name for name in PIXELS.values() if name not in lengths]
    missing += [name for name in (*LABELS.values(), "class_names.txt") if name not in small]
    if missing:
        raise ValueError(f"{path}: lacks {FOLDER}/{missing[0]}: is it stl10_binary.tar.gz?")
    try:
        classes = small["class_names.txt"].decode().split()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: {FOLDER}/class_names.txt is not UTF-8: {error}") from None
    splits, labels = {}, []
    for split, name in PIXELS.items():
        splits[split], rest = divmod(lengths[name], IMAGE_BYTES)
        if rest:
            raise ValueError(f"{path}: {name} does not hold a whole number of 3 x 96 x 96 images")
        labels.append(_labels(path, small, split, splits[split], len(classes)))
    names = [f"{PIXELS[split]}[{i}]" for split, count in splits.items() for i in range(count)]
    return RawDataset(splits, np.concatenate(labels), classes, lambda rows: _images(path, splits, rows), names)


def to_images(raw: bytes) -> np.ndarray:
    """uint8 N x 96 x 96 x 3 of raw bytes: each image is 3 planes, and each plane is stored column by column."""
    return np.frombuffer(raw, dtype=np.uint8).reshape(-1, 3, SIDE, SIDE).transpose(0, 3, 2, 1)


def _survey(path: Path) -> tuple[dict[str, int], dict[str, bytes]]:
    """({member: length}, {small member: its bytes})"""
    lengths, small = {}, {}
    with _members(path) as members:
        for name, length, file in members:
            if name in lengths:
                raise ValueError(f"{path}: holds {FOLDER}/{printable(name)} twice")
            lengths[name] = length
            if length <= SMALL and name not in PIXELS.values():
                small[name] = file.read()
    return lengths, small


def _labels(path, small, split, count, classes) -> np.ndarray:
    if split not in LABELS:
        return np.full(count, -1, dtype=np.int64)
    labels = np.frombuffer(small[LABELS[split]], dtype=np.uint8).astype(np.int64) - 1  # 1 .. 10 in the file
    if len(labels) != count or (count and not 0 <= labels.min() <= labels.max() < classes):
        raise ValueError(f"{path}: {LABELS[split]} does not hold {count} labels of {classes} classes")
    return labels


def _images(path: Path, splits: dict[str, int], rows: np.ndarray) -> Iterator:
    wanted = np.zeros(sum(splits.values()), dtype=bool)
    wanted[rows] = True
    starts = {PIXELS[split]: start for split, (start, _) in ranges(splits).items()}
    with _members(path) as members:
        for name, length, file in members:
            if name not in starts:
                continue
            for first in range(starts[name], starts[name] + length // IMAGE_BYTES, CHUNK):
                count = min(CHUNK, starts[name] + length // IMAGE_BYTES - first)
                images = to_images(file.read(count * IMAGE_BYTES))
                for row in first + np.flatnonzero(wanted[first : first + count]):
                    yield int(row), f"{path.name}: {name}, image {row - starts[name]}", images[row - first]


@contextmanager
def _members(path: Path) -> Iterator:
    """Yield an iterator of (name, length, file) over the regular members of the folder, in archive order."""

    def walk(tar):
        for entry in tar:
            folder, _, name = entry.name.removeprefix("./").rpartition("/")
            if entry.isreg() and folder == FOLDER:
                yield name, entry.size, tar.extractfile(entry)

    try:
        with tarfile.open(path, "r|gz") as tar:
            yield walk(tar)
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise ValueError(f"{path}: is not a valid .tar.gz archive: {error}") from error
