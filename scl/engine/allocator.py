"""How the C library returns memory to the kernel. Measurements: docs/decisions/engine.md."""

import contextlib
import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # malloc.h
_NEVER = -1  # as a threshold; a number would be an int, of at most 2 GB


def keep_freed_memory() -> None:
    """Let glibc keep freed memory for this process's next allocations; does nothing where there is no glibc.

    By default it returns large blocks to the kernel when they are freed, so every training step pages in its
    activations again. Results do not change. The process keeps its peak memory until `return_freed_memory`.
    """
    _call("mallopt", _M_MMAP_MAX, 0)
    _call("mallopt", _M_TRIM_THRESHOLD, _NEVER)


def return_freed_memory() -> None:
    """Return free memory to the kernel, such as the activations of a finished training run."""
    _call("malloc_trim", 0)


def _call(name: str, *arguments: int) -> None:
    if sys.platform.startswith("linux"):
        with contextlib.suppress(OSError, AttributeError):  # another C library
            getattr(ctypes.CDLL(None), name)(*arguments)
