"""Prepared images as one uint8 tensor on the device: no loader processes, no copies, no labels."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Images:
    """pixels: N x H x W x 3 uint8 on the device; rows: N positions in images.npy; fit: the first `fit` of them are
    clustered, the others serve representation only."""

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
        total, square, count = 0.0, 0.0, 0
        for chunk in self.pixels.split(512):
            values = chunk.reshape(-1, 3).double() / 255
            total, square, count = total + values.sum(0), square + values.square().sum(0), count + len(values)
        mean = total / count
        std = (square / count - mean.square()).clamp_min(1e-8).sqrt()
        return tuple(mean.tolist()), tuple(std.tolist())


def describe(folder) -> dict:
    """benchmark.json of a prepared benchmark. Raises ValueError naming the folder and the way out."""
    path = Path(folder) / "benchmark.json"
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise ValueError(f"{path}: missing; prepare it first (scl prepare {Path(folder).name})") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: damaged ({error}); delete {folder} and prepare it again") from None


def load(folder, protocol: str, use: str, *, device="cpu") -> Images:
    """The images that `protocol` gives to `use`: "fit", "represent" (fit first, then the others) or "assign".

    Raises ValueError for a protocol that the benchmark lacks, missing or empty images.
    """
    facts = describe(folder)
    if protocol not in facts["protocols"]:
        raise ValueError(f"{folder}: no protocol '{protocol}'; it has {', '.join(facts['protocols'])}")
    uses = facts["protocols"][protocol]
    first = uses["fit"] if use == "represent" else uses[use]
    splits = list(first) + [s for s in uses[use] if s not in first]
    stored = _open(Path(folder) / "images.npy")
    ranges = [facts["splits"][name] for name in splits]
    rows = np.concatenate([np.arange(start, stop) for start, stop in ranges])
    if len(rows) == 0 or len(stored) < rows.max() + 1:
        raise ValueError(f"{folder}/images.npy: {len(stored)} images where {protocol}/{use} needs {len(rows)}; "
                         f"delete the folder and prepare it again")
    pixels = torch.empty((len(rows), *stored.shape[1:]), dtype=torch.uint8, device=device)
    filled = 0
    for start, stop in ranges:
        for low in range(start, stop, 16384):
            part = np.array(stored[low:min(low + 16384, stop)])
            pixels[filled:filled + len(part)] = torch.from_numpy(part).to(device)
            filled += len(part)
    fit = sum(facts["splits"][s][1] - facts["splits"][s][0] for s in first)
    return Images(pixels, rows, fit)


def _open(path: Path) -> np.ndarray:
    try:
        stored = np.load(path, mmap_mode="r")
    except FileNotFoundError:
        raise ValueError(f"{path}: missing; delete {path.parent} and prepare it again") from None
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path}: not a readable array ({error}); delete {path.parent} and prepare it again") from None
    if stored.dtype != np.uint8 or stored.ndim != 4 or stored.shape[-1] != 3 or stored.shape[1] != stored.shape[2]:
        raise ValueError(f"{path}: expected uint8 N x H x H x 3, found {stored.dtype} {stored.shape}")
    if len(stored) == 0:
        raise ValueError(f"{path}: holds no image")
    return stored
