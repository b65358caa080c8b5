"""Crash-safe checkpoints: after a kill or a corrupt file, resume from the last valid state.

A checkpoint is one line (format, SHA-256 and length of what follows) and the bytes of torch.save. The previous
one is kept beside it as `<name>.prev<suffix>`. `Stop` turns the signals to stop into a flag to poll.
"""

import contextlib
import hashlib
import io
import os
import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from scl.engine.io import Damaged, atomic, set_aside
from scl.util.text import Report, say

_FORMAT = "scl-checkpoint-1"


def save(path: str | Path, state: dict[str, Any]) -> None:
    """Write `state` to `path` atomically; the checkpoint that was there becomes the previous one.

    state: a dict of tensors, numbers, strings, None, and lists, tuples and dicts of them (all that weights_only
    loads; TypeError for others). state["fingerprint"], a string, identifies the run that the state belongs to.
    Needs disk space for three checkpoints and memory for one. OSError if the disk is full.
    """
    path, buffer = Path(path), io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    if others := torch.serialization.get_unsafe_globals_in_checkpoint(buffer):
        raise TypeError(f"a checkpoint holds tensors, numbers, strings, lists and dicts only, not {', '.join(others)}")
    payload = buffer.getbuffer()
    with atomic(path) as tmp:
        with open(tmp, "wb") as file:
            file.write(f"{_FORMAT} {hashlib.sha256(payload).hexdigest()} {len(payload)}\n".encode())
            file.write(payload)
            file.flush()
            os.fsync(file.fileno())  # before the rename below, so that a full disk leaves both checkpoints
        if path.exists():  # killed between this and the last rename: load() finds the previous one
            os.replace(path, previous(path))


def previous(path: str | Path) -> Path:
    """Path of the previous checkpoint: checkpoint.pt -> checkpoint.prev.pt."""
    path = Path(path)
    return path.with_name(f"{path.stem}.prev{path.suffix}")


def load(path: str | Path, *, fingerprint: str, report: Report = say) -> dict[str, Any] | None:
    """The newest valid state with this fingerprint, from `path` or the previous checkpoint, on the CPU; None if none.

    A damaged file is renamed to `<name>.damaged`, a state with another fingerprint is left alone; `report`
    gets a line on each, and one if the previous checkpoint is used. OSError if a file cannot be read.
    """
    path, dropped = Path(path), False
    for candidate in filter(Path.exists, (path, previous(path))):
        try:
            state = _read(candidate)
        except Damaged as error:
            report(f"warning: {set_aside(candidate, f'damaged ({error})')}")
        else:
            if state["fingerprint"] == fingerprint:
                if candidate != path:
                    report(f"resuming from the previous checkpoint, {candidate}")
                return state
            report(f"{candidate}: ignored; it belongs to another configuration, other data or other code")
        dropped = True
    if dropped:
        report(f"{path.parent}: no usable checkpoint; training starts from the beginning")
    return None


def _read(path: Path) -> dict[str, Any]:
    with open(path, "rb") as file:
        header = file.readline(200).split()
        payload = file.read()
    if len(header) != 3 or header[0] != _FORMAT.encode():
        raise Damaged("its first line is not that of a checkpoint")
    if hashlib.sha256(payload).hexdigest().encode() != header[1]:
        raise Damaged("its checksum differs")
    try:
        return torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
    except Exception as error:  # such as a file from another version of torch
        raise Damaged(f"torch.load: {error}") from error


class Stop:
    """While open, SIGTERM, SIGHUP and the first Ctrl-C only set a flag; the loop polls it between steps.

    status: the exit status to leave with: 143 after SIGTERM, 130 after Ctrl-C, 129 after SIGHUP; None before.
    A second Ctrl-C raises KeyboardInterrupt at once. Signals that were ignored stay ignored (nohup, a run in
    the background of a script), and the former handlers are restored at the end. Outside the main
    thread, where Python allows no handlers, nothing changes.
    """

    def __init__(self) -> None:
        self.status: int | None = None
        self._before: dict[signal.Signals, Any] = {}

    @property
    def requested(self) -> bool:
        return self.status is not None

    def __enter__(self) -> "Stop":
        here = threading.current_thread() is threading.main_thread()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP) if here else ():
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.status = self.status or 128 + number
        with contextlib.suppress(OSError):  # after SIGHUP the terminal may be gone
            os.write(2, f"{signal.Signals(number).name}: saving after this step, then stopping\n".encode())
