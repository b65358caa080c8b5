"""The dtype that a run computes in. Measurements: docs/decisions/engine.md."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch


def choose(requested: str, device: str) -> torch.dtype:
    """The dtype of `precision: auto | fp32 | bf16` on "cuda" or "cpu".

    auto is bf16 where the hardware multiplies it natively (CUDA from compute capability 8.0, CPUs with AMX or
    AVX-512 BF16), else fp32, because emulated bf16 is far slower.
    """
    if requested == "auto":
        fast = torch.cuda.get_device_capability() >= (8, 0) if device == "cuda" else _cpu_multiplies_bf16()
        requested = "bf16" if fast else "fp32"
    return {"bf16": torch.bfloat16, "fp32": torch.float32}[requested]


def _cpu_multiplies_bf16() -> bool:
    """Ask torch; the functions are private, so a version without them means no."""
    asked = (getattr(torch.cpu, name, None) for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"))
    return any(ask() for ask in asked if ask)


def compute_in(dtype: torch.dtype) -> None:
    """Turn off TF32, which torch allows for convolutions on Ampere and newer GPUs, if `dtype` is float32. Matrix
    products in float32 (neighbors, cluster probabilities) never use it."""
    torch.backends.cudnn.allow_tf32 = dtype != torch.float32
    torch.backends.cuda.matmul.allow_tf32 = False


@contextlib.contextmanager
def float32(device: str) -> Iterator[None]:
    """Context to compute in float32, convolutions included: without autocast and TF32."""
    before, torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.allow_tf32, False
    try:
        with torch.autocast(device, enabled=False):
            yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def autocast(dtype: torch.dtype, device: str) -> contextlib.AbstractContextManager[Any]:
    """Context to compute in `dtype`: autocast, or nothing for float32."""
    return torch.autocast(device, dtype) if dtype != torch.float32 else contextlib.nullcontext()
