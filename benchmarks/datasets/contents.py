"""What every reader of a format hands over: labels, splits and a way to walk the images, before any pixel is
touched."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from benchmarks.datasets.catalog import Downloads
from scl.util.text import printable

# (row, name for error messages, an encoded image or uint8 H x W x 3)
Image = tuple[int, str, "bytes | np.ndarray"]


@dataclass(frozen=True)
class Sources:
    """What a reader may read: verified archives, a user's folder, the archives folder (to keep synsets
    in)."""

    files: tuple[Path, ...]
    path: Path | None
    cache: Path
    downloads: Downloads


@dataclass(frozen=True)
class Contents:
    """A data set as found.

    splits: images per split, in row order. labels: int64 N (-1 = none), or None if there are no classes at
    all. images: called with the rows wanted (sorted int64), yields them in any order. sources: for
    benchmark.json. official: whether it is the published data set. upright: whether EXIF orientation is to be
    applied. names: of the images, by row. unreadable: {name: why} of files that were left out.
    """

    splits: dict[str, int]
    labels: np.ndarray | None
    classes: list[str]
    images: Callable[[np.ndarray], Iterator[Image]]
    sources: list[dict] = field(default_factory=list)
    official: bool = True
    upright: bool = False
    names: Sequence[str] | None = None
    unreadable: dict[str, str] = field(default_factory=dict)

    @property
    def count(self) -> int:
        return sum(self.splits.values())

    def ranges(self) -> dict[str, tuple[int, int]]:
        """{split: (start, stop)}"""
        return ranges(self.splits)


def ranges(splits: dict[str, int]) -> dict[str, tuple[int, int]]:
    """{split: (start, stop)} of consecutive splits."""
    stops = np.cumsum([0, *splits.values()]).tolist()
    return {name: (stops[i], stops[i + 1]) for i, name in enumerate(splits)}


def hash_order(names: Sequence[str]) -> list[str]:
    """`names` in the order of their SHA-256, so that the place of an image says nothing about its class."""
    return sorted(names, key=lambda name: hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest())


def refuse_twice(where: Path | str, names: Iterable[str]) -> None:
    """ValueError if one of `names` occurs twice in the archive or folder `where`: which of the two is meant?"""
    for name, count in Counter(names).items():
        if count > 1:
            raise ValueError(f"{where}: holds {printable(name)} twice")


def subset_rows(splits: dict[str, int], count: int) -> dict[str, np.ndarray]:
    """{split: sorted int64 rows} of `count` images, drawn without a look at labels and the same on any
    machine.

    Each split gives its share (largest remainder, at least one image). Within a split the rows with the
    smallest hashes are taken, so that a smaller subset lies, up to rounding, within a larger one.
    """
    total = sum(splits.values())
    if not len(splits) <= count <= total:
        raise ValueError(
            f"subset: {count} images cannot be drawn from {total}"
            + (f" in {len(splits)} splits" if len(splits) > 1 else "")
        )
    shares = _shares(list(splits.values()), count)
    chosen = {}
    for (name, (start, stop)), share in zip(ranges(splits).items(), shares):
        drawn = sorted(range(start, stop), key=lambda row: hashlib.sha256(f"subset {row}".encode()).digest())[:share]
        chosen[name] = np.sort(np.asarray(drawn, dtype=np.int64))
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
