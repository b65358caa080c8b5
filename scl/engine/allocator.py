"""How the C library returns memory to the kernel. Measurements: docs/decisions/engine.md."""

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # malloc.h
_NEVER = -1  # as a threshold; a number would be an int, of at most 2 GB


def keep_freed_memory() -> None:
    """Let glibc keep freed memory for this process's next allocations; does nothing where there is no glibc.

    By default it returns large blocks to the kernel as they are freed, so every training step pages its activations in
    again. Values do not change; the process keeps its peak memory until it ends.
    """
    if not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return
    mallopt(_M_MMAP_MAX, 0)
    mallopt(_M_TRIM_THRESHOLD, _NEVER)
