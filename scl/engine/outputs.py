"""Write the files of a finished run, each atomically; the record last, as the completion marker."""

import csv
import resource
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from scl import config
from scl.config import RunSettings
from scl.engine import progress
from scl.engine.artifacts import WRITTEN
from scl.engine.identity import fingerprint
from scl.engine.io import atomic, sha256, write_json
from scl.engine.provenance import provenance

if TYPE_CHECKING:
    from scl.engine.trainer import Trainer


def now() -> str:
    """Current time in UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def finish(trainer: "Trainer") -> Path:
    """Write assignments, weights, history and record of a trained run; return the record's path."""
    directory, method = trainer.directory, trainer.method
    final, confidence = trainer.last_assignment or trainer.assign()
    trainer.save(optimizer=False)  # kept, so that deleted files can be written again without training
    _write_assignments(trainer, final, confidence)
    with atomic(directory / "weights.pt") as path:
        torch.save({k: v.cpu() for k, v in method.state_dict().items() if torch.is_tensor(v)}, path)
    _write_history(directory / "history.csv", trainer.history)
    write_json(directory / "record.json", _record(trainer))
    (directory / progress.NAME).unlink(missing_ok=True)
    return directory / "record.json"


def _write_assignments(trainer: "Trainer", final: np.ndarray, confidence: np.ndarray) -> None:
    arrays: dict[str, Any] = {
        "rows": trainer.evaluated.rows[: len(final)],
        "assignments": final,
        "confidence": confidence,
        "epochs": np.array([epoch for epoch, _ in trainer.curve], np.int64),
        "per_epoch": np.stack([a.numpy() for _, a in trainer.curve])
        if trainer.curve
        else np.empty((0, len(final)), np.int16),
    }
    further = trainer.method.arrays(trainer.images)
    if taken := sorted(arrays.keys() & further.keys()):
        raise ValueError(f"{trainer.run.method}.arrays: {taken[0]} is an array of the harness; choose another name")
    arrays |= further
    with atomic(trainer.directory / "assignments.npz") as path, open(path, "wb") as file:
        np.savez_compressed(file, **arrays)


def _write_history(path: Path, history: list[dict]) -> None:
    names = list(dict.fromkeys(name for row in history for name in row)) or ["epoch"]
    with atomic(path) as temporary, open(temporary, "w", newline="") as file:
        writer = csv.DictWriter(file, names, restval="")
        writer.writeheader()
        writer.writerows(history)


def peak_memory(device: str) -> int:
    """Peak memory in bytes: of the tensors on a GPU since fit() began, or of the whole process on a CPU."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _record(trainer: "Trainer") -> dict:
    run = trainer.run
    return {
        **run.model_dump(include={"benchmark", "protocol", "stage", "seed", "method", "options"}),
        "epochs": run.training.epochs,
        "seconds": trainer.seconds,
        "peak_memory_bytes": max(attempt["peak_memory_bytes"] for attempt in trainer.attempts),
        "precision": trainer.precision,
        **provenance(device=trainer.device),
        "config_sha256": config.digest(run),
        "images_sha256": trainer.facts["images_sha256"],
        "identity": trainer.identity,
        "fingerprint": fingerprint(trainer.identity),
        "files": {name: sha256(trainer.directory / name) for name in WRITTEN},
        "seeds": {purpose: trainer.seeds(purpose) for purpose in ("initial weights", "prepare", "kmeans")},
        "parameters": sum(p.numel() for p in trainer.method.parameters()),
        "counts": trainer.method.counts,
        "images": len(trainer.images),
        "evaluated": len(trainer.evaluated),
        "attempts": trainer.attempts,
        "started": trainer.attempts[0]["started"],
        "finished": now(),
    }


def write_failure(directory: Path, error: Exception, run: RunSettings, trainer: "Trainer | None" = None) -> None:
    """Write failure.json: why and where the run failed, and whether a retry can help. trainer: None if the run failed
    before training."""
    where = {"epoch": trainer.epoch + 1, "step": trainer.step_in_epoch + 1} if trainer else {}
    where |= getattr(error, "where", {})
    write_json(
        directory / "failure.json",
        {
            "error": str(error) or type(error).__name__,
            "kind": type(error).__name__,
            "permanent": not isinstance(error, (OSError, RuntimeError)),  # errors of disks and devices may pass
            "config_sha256": config.digest(run),
            "time": now(),
            **where,
        },
    )
