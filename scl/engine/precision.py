"""The dtype a run computes in, chosen by what its device can do fast. Measured: docs/decisions/engine.md."""

import contextlib
from typing import Any

import torch


def choose(wanted: str, device: str) -> torch.dtype:
    """The dtype of `precision: auto | fp32 | bf16` on "cuda" or "cpu".

    auto is bf16 where the hardware multiplies it natively, else fp32: elsewhere bf16 is emulated and far slower.
    On CUDA that is from compute capability 8.0 (Ampere) on, on a CPU with AMX or AVX-512 BF16.
    """
    if wanted == "auto":
        fast = torch.cuda.get_device_capability() >= (8, 0) if device == "cuda" else _cpu_multiplies_bf16()
        wanted = "bf16" if fast else "fp32"
    return {"bf16": torch.bfloat16, "fp32": torch.float32}[wanted]


def _cpu_multiplies_bf16() -> bool:
    """torch's own look at the processor; it has no public name yet, so a version without it answers no."""
    asked = (getattr(torch.cpu, name, None) for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"))
    return any(ask() for ask in asked if ask)


def compute_in(dtype: torch.dtype) -> None:
    """fp32 means fp32: torch lets convolutions on a GPU from Ampere on round their inputs to TF32. Products in float32
    (neighbors, decisions) are never rounded, whatever the networks compute in."""
    torch.backends.cudnn.allow_tf32 = dtype != torch.float32
    torch.backends.cuda.matmul.allow_tf32 = False


def autocast(dtype: torch.dtype, device: str) -> contextlib.AbstractContextManager[Any]:
    """A context to compute in `dtype`: autocast, or nothing for float32."""
    return torch.autocast(device, dtype) if dtype != torch.float32 else contextlib.nullcontext()
