"""progress.jsonl: one line per epoch while a run trains, so that its curve can be read before it ends or if it fails.

history.csv is the final form; this file is removed once the record is written. It is the only file that is appended to:
incomplete lines are skipped when reading, and a run that resumes rewrites the file from its history.
"""

import contextlib
import json
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

NAME = "progress.jsonl"
KEYS = ("epoch", "epochs", "images", "loss", "seconds")  # of every line
NOT_CURVES = ("epoch", "epochs", "steps", "images")


class Progress:
    """Writes the epochs of a run to progress.jsonl and, on request, as scalars for TensorBoard beside it.

    A full disk does not stop the run here, but at its next checkpoint, with a message.
    """

    def __init__(self, directory: Path, epochs: Iterable[dict[str, Any]], *, tensorboard: bool = False):
        """epochs: those of the checkpoint, if training resumes; they replace what the file holds.

        Raises ValueError if TensorBoard is requested but not installed.
        """
        self.path, done = directory / NAME, list(epochs)
        self._write("w", done)
        self._events: Any = None
        if tensorboard:
            require_tensorboard()
            from torch.utils.tensorboard import SummaryWriter

            self._events = SummaryWriter(str(directory), purge_step=len(done) + 1)

    def add(self, epoch: dict[str, Any]) -> None:
        """epoch: numbers by name, not tensors."""
        self._write("a", [epoch])
        if self._events:
            for name, value in epoch.items():
                if name not in NOT_CURVES:
                    self._events.add_scalar(name, value, epoch["epoch"])

    def close(self) -> None:
        if self._events:
            self._events.close()

    def _write(self, mode: str, epochs: Iterable[dict[str, Any]]) -> None:
        lines = "".join(json.dumps(epoch) + "\n" for epoch in epochs)
        with contextlib.suppress(OSError), open(self.path, mode, encoding="utf-8") as file:
            file.write(lines)


def read_progress(directory: Path) -> list[dict[str, Any]]:
    """The epochs of a run that is not finished, oldest first; [] if there are none. Incomplete and damaged lines
    are skipped."""
    epochs = []
    with contextlib.suppress(OSError), open(directory / NAME, encoding="utf-8", errors="replace") as file:
        for line in file:
            with contextlib.suppress(ValueError, TypeError, KeyError, RecursionError):
                epoch = json.loads(line)
                if all(type(epoch[key]) in (int, float) for key in KEYS):
                    epochs.append(epoch)
    return epochs


def require_tensorboard() -> None:
    """Raise ValueError if TensorBoard is not installed."""
    if find_spec("tensorboard") is None:
        raise ValueError(
            'machine.tensorboard: tensorboard is not installed; pip install -e ".[tensorboard]" -c constraints.txt'
        )
