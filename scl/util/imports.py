"""Faster large imports."""

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def gc_paused() -> Iterator[None]:
    """Pause garbage collection during imports, then freeze the new objects.

    torch, timm and scikit-learn create a million permanent objects; scanning them repeatedly takes a fifth of the
    start-up time of a run.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.freeze()
            gc.enable()
