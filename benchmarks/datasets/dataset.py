"""What every reader returns: labels, splits, and a way to iterate over the images, before any pixel is decoded."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np

from benchmarks.datasets.catalog import Downloads
from scl.util.text import printable

# (row, name for messages, an encoded image or uint8 H x W x 3, or why it cannot be read)
Image = tuple[int, str, "bytes | np.ndarray | ValueError"]


@dataclass(frozen=True)
class Sources:
    """What a reader may read: verified archives, the user's folder, and the archives folder, where it may cache."""

    files: tuple[Path, ...]
    path: Path | None
    cache: Path
    downloads: Downloads


@dataclass(frozen=True)
class RawDataset:
    """A data set before preparation.

    splits: images per split, in row order. labels: int64 N (-1 = none), or None if there are no classes. images:
    called with the wanted rows (sorted int64), yields them in any order. names: of the images in the archive or folder,
    one per row. sources: for benchmark.json. official: whether it is the published data set. upright: whether to apply
    EXIF orientation. unreadable: {name: reason} of files that were left out. note: what the user should know.
    """

    splits: dict[str, int]
    labels: np.ndarray | None
    classes: list[str]
    images: Callable[[np.ndarray], Iterator[Image]]
    names: Sequence[str]
    sources: list[dict] = field(default_factory=list)
    official: bool = True
    upright: bool = False
    unreadable: dict[str, str] = field(default_factory=dict)
    note: str = ""


def ranges(splits: dict[str, int]) -> dict[str, tuple[int, int]]:
    """{split: (start, stop)} of consecutive splits."""
    stops = np.cumsum([0, *splits.values()]).tolist()
    return dict(zip(splits, pairwise(stops)))


def hash_order(names: Sequence[str]) -> list[str]:
    """`names` in the order of their SHA-256, so that the row of an image says nothing about its class."""
    return sorted(names, key=lambda name: hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest())


def refuse_duplicates(where: Path | str, names: Iterable[str]) -> None:
    """Raise ValueError if a name occurs twice in the archive or folder `where`, since it would be ambiguous."""
    for name, count in Counter(names).items():
        if count > 1:
            raise ValueError(f"{where}: holds {printable(name)} twice")


def labels_by_folder(names: Sequence[str], folders: Iterable[str]) -> np.ndarray:
    """int64 N: the position among `folders` of the first part of each name."""
    index = {folder: label for label, folder in enumerate(folders)}
    return np.asarray([index[name.partition("/")[0]] for name in names], dtype=np.int64)


def subset_rows(splits: dict[str, int], count: int) -> dict[str, np.ndarray]:
    """{split: sorted int64 rows} of `count` images, chosen without labels and the same on any machine.

    Each split contributes its share (largest remainder, at least one image): the rows with the smallest hashes, so that
    a smaller subset is, up to rounding, contained in a larger one.
    """
    total = sum(splits.values())
    if not len(splits) <= count <= total:
        among = f" in {len(splits)} splits" if len(splits) > 1 else ""
        raise ValueError(f"subset: {count} images cannot be drawn from {total}{among}")
    chosen = {}
    for (name, (start, stop)), share in zip(ranges(splits).items(), _shares(list(splits.values()), count)):
        by_hash = sorted(range(start, stop), key=lambda row: hashlib.sha256(f"subset {row}".encode()).digest())
        chosen[name] = np.sort(np.asarray(by_hash[:share], dtype=np.int64))
    return chosen


def _shares(sizes: list[int], count: int) -> list[int]:
    total = sum(sizes)
    shares = [max(1, count * size // total) for size in sizes]
    by_remainder = sorted(range(len(sizes)), key=lambda i: -(count * sizes[i] % total))
    while sum(shares) < count:
        for i in by_remainder:
            if sum(shares) < count and shares[i] < sizes[i]:
                shares[i] += 1
    while sum(shares) > count:
        shares[int(np.argmax(shares))] -= 1
    return shares
