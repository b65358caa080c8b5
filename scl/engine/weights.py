"""weights.pt of a trained run: written after training, verified when it is loaded, restored if it is damaged."""

import contextlib
import hashlib
from pathlib import Path
from typing import Any

import torch

from scl.engine import artifacts, checkpoint
from scl.engine.artifacts import CHECKSUM_DIFFERS, WEIGHTS
from scl.engine.io import Damaged, atomic, set_aside, sha256
from scl.util.text import Report, say


def write_weights(directory: Path, state: dict[str, Any]) -> None:
    """Write the tensors of a method's state."""
    with atomic(directory / WEIGHTS) as path:
        _save(state, path)


def _save(state: dict[str, Any], path: Path) -> None:
    torch.save({name: value.cpu() for name, value in state.items() if torch.is_tensor(value)}, path)


def read_weights(directory: Path, *, report: Report = say) -> tuple[bytes, str]:
    """The verified bytes of a trained run's weights, and their SHA-256. Damaged weights are restored here, from the
    checkpoint after the last epoch: Snakemake cannot retrain this run while the job of another one needs them.

    Raises Damaged if the run is not trained or, with the file set aside, if the weights cannot be restored.
    """
    path, record = directory / WEIGHTS, artifacts.read_record(directory)
    content, checksum = _read(path)
    if checksum != record.files[WEIGHTS]:
        _restore(path, record, report)
        content, checksum = _read(path)
    if checksum != record.files[WEIGHTS]:
        raise set_aside(path, CHECKSUM_DIFFERS)
    return content, checksum


def _read(path: Path) -> tuple[bytes, str]:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise Damaged(f"{path}: missing; train this run again") from None
    return content, hashlib.sha256(content).hexdigest()


class _Different(Exception):
    """The weights in the checkpoint are not the recorded ones."""


def _restore(path: Path, record: artifacts.Record, report: Report) -> None:
    """Write the recorded weights again if the checkpoint has them, else leave the file as it is."""
    last, quiet = path.with_name("checkpoint.pt"), lambda line: None  # its message would be about training
    state = checkpoint.load(last, fingerprint=record.fingerprint, report=quiet)
    if not state:
        return
    with contextlib.suppress(_Different), atomic(path) as temporary:
        _save(state["method"], temporary)
        if sha256(temporary) != record.files[WEIGHTS]:
            raise _Different
        report(f"warning: {path}: {CHECKSUM_DIFFERS}; restoring it from the checkpoint")
