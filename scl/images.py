"""Prepared images as one uint8 tensor on the device: no loader processes, no copies, no labels."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from scl.engine.identity import stored_at
from scl.engine.io import Damaged, set_aside
from scl.engine.prepared import describe

CHUNK = 32 * 2**20  # bytes read at a time


@dataclass(frozen=True)
class Images:
    """pixels: N x H x W x 3 uint8 on the device; rows: their N positions in images.npy; fit: the first `fit` of them
    are clustered, the others serve representation learning only."""

    pixels: Tensor
    rows: np.ndarray
    fit: int

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def size(self) -> int:
        return self.pixels.shape[1]

    def batch(self, index: Tensor) -> Tensor:
        """B x 3 x H x W in [0, 1], float32, channels-last in memory (the stored order)."""
        return self.pixels[index].permute(0, 3, 1, 2).float().div_(255)

    def statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation of each channel over all images, in [0, 1]."""
        total = square = torch.zeros(3, dtype=torch.float64, device=self.pixels.device)
        for chunk in self.pixels.split(512):
            values = chunk.reshape(-1, 3).double() / 255
            total, square = total + values.sum(0), square + values.square().sum(0)
        count = self.pixels.numel() // 3
        mean = total / count
        std = (square / count - mean.square()).clamp_min(1e-8).sqrt()
        return tuple(mean.tolist()), tuple(std.tolist())


def load(
    folder: str | Path,
    protocol: str,
    use: str,
    *,
    size: int | None = None,
    facts: dict | None = None,
    device: str = "cpu",
) -> Images:
    """The images that `protocol` assigns to `use`: "fit", "represent" (fit first, then the others) or "assign".

    size: pixels per side, if the benchmark is also stored at this size (default: its usual size). facts: contents of
    benchmark.json (default: read now), against whose checksum the bytes are verified. Raises ValueError for an unknown
    protocol, Damaged for images that are missing or differ from those that were prepared.
    """
    folder = Path(folder)
    facts = facts or describe(folder)
    if protocol not in facts["protocols"]:
        raise ValueError(f"{folder}: no protocol '{protocol}'; it has {', '.join(facts['protocols'])}")
    uses = facts["protocols"][protocol]
    first = uses["fit"] if use == "represent" else uses[use]
    ranges = [facts["splits"][name] for name in dict.fromkeys([*first, *uses[use]])]
    rows = [np.arange(start, stop) for start, stop in ranges]
    name, checksum = stored_at(facts, size)
    try:
        pixels = _verified(folder / name, ranges, checksum, device)
    except FileNotFoundError:
        set_aside(folder / "benchmark.json", "its images are missing")  # the completion marker: forces preparation
        raise Damaged(f"{folder / name}: missing; the same command prepares it again") from None
    except _Wrong as error:
        if describe(folder) != facts:
            raise Damaged(f"{folder}: was prepared again while it was loaded; give the same command again") from None
        damaged = set_aside(folder / name, str(error))
        set_aside(folder / "benchmark.json", "its images are damaged")
        raise damaged from None
    return Images(pixels, np.concatenate(rows), sum(map(len, rows[: len(first)])))


class _Wrong(Exception):
    """The file is not the one that was prepared."""


def _verified(path: Path, ranges: Sequence[Sequence[int]], checksum: str, device: str) -> Tensor:
    """The images in `ranges` (start, stop), concatenated; one pass over the file reads them and verifies all of it."""
    try:
        stored = np.load(path, mmap_mode="r")
    except (ValueError, EOFError) as error:
        raise _Wrong(f"not a readable array ({error})") from None
    if stored.dtype != np.uint8 or stored.ndim != 4 or stored.shape[-1] != 3 or stored.shape[1] != stored.shape[2]:
        raise _Wrong(f"expected uint8 N x H x H x 3, found {stored.dtype} {stored.shape}")
    needed = max(stop for _, stop in ranges)
    if len(stored) < needed:
        raise _Wrong(f"{len(stored)} images where {needed} are needed")
    places = np.cumsum([0, *(stop - start for start, stop in ranges)]).tolist()
    pixels = torch.empty((places[-1], *stored.shape[1:]), dtype=torch.uint8, device=device)
    at_a_time = max(1, CHUNK // stored[0].nbytes)
    with open(path, "rb") as file:
        digest = hashlib.sha256(file.read(stored.offset))
        for low in range(0, len(stored), at_a_time):
            chunk = np.empty((min(at_a_time, len(stored) - low), *stored.shape[1:]), np.uint8)
            file.readinto(chunk.data)
            digest.update(chunk.data)
            for place, (start, stop) in zip(places, ranges):
                a, b = max(start, low), min(stop, low + len(chunk))
                if a < b:
                    pixels[place + a - start : place + b - start] = torch.from_numpy(chunk[a - low : b - low])
        digest.update(file.read())
    if digest.hexdigest() != checksum:
        raise _Wrong("damaged (its checksum is not the one in benchmark.json)")
    return pixels
