"""While a method trains, no file of labels can be opened by this process."""

import contextlib
import sys
from pathlib import Path

_on = False  # audit hooks cannot be removed, only silenced
_installed = False


@contextlib.contextmanager
def labels_out_of_reach():
    """Refuse to open any file whose name begins with 'labels' (PermissionError), however it is opened."""
    global _on, _installed
    if not _installed:
        sys.addaudithook(_refuse)
        _installed = True
    before, _on = _on, True
    try:
        yield
    finally:
        _on = before


def _refuse(event, arguments):
    if _on and event == "open" and isinstance(arguments[0], (str, bytes)):
        name = arguments[0].decode(errors="replace") if isinstance(arguments[0], bytes) else arguments[0]
        if Path(name).name.startswith("labels"):
            raise PermissionError(f"{name}: labels are out of reach while a method trains")
