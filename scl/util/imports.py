"""Large imports, made cheaper."""

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Import without the garbage collector, and leave what came out of its sight.

    torch, timm and scikit-learn make a million objects that stay; looking through them again and again is a fifth
    of the start of a run.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.freeze()
            gc.enable()
