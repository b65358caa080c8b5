"""Write the files of a finished run, each atomically; the record last, as the completion marker."""

import csv
import resource
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch

from scl import config
from scl.engine import artifacts, features, progress
from scl.engine.assign import sample
from scl.engine.clustering import ARRAYS, write_assignments
from scl.engine.identity import fingerprint
from scl.engine.io import atomic, sha256, write_json
from scl.engine.provenance import now, provenance
from scl.engine.weights import write_weights

if TYPE_CHECKING:
    from scl.engine.trainer import Trainer


def finish(trainer: "Trainer") -> Path:
    """Write weights, history and record of a trained run, and its assignments or what `scl kmeans` makes them from;
    return the record's path."""
    directory, method = trainer.directory, trainer.method
    kmeans = None
    if method.clusters_by_kmeans:
        if not trainer.run.training.epochs:
            trainer.curve = [(0, trainer.keep_features())]
        trainer.save(optimizer=False)  # kept, so that deleted files can be restored without training
        kmeans = _for_kmeans(trainer)
    else:
        final, confidence = trainer.last_assignment or trainer.assign()
        trainer.save(optimizer=False)
        curve = [(epoch, clusters.numpy()) for epoch, clusters in trainer.curve if torch.is_tensor(clusters)]
        if curve:  # a checkpoint of the last epoch may be from a device that rounds differently
            curve[-1] = (trainer.epoch, final)
        rows = trainer.evaluated.rows[: len(final)]
        write_assignments(directory, rows, final, confidence, curve, _further(trainer))
    write_weights(directory, method.state_dict())
    _write_history(directory / "history.csv", trainer.history)
    _write_sample(trainer)
    write_json(directory / "record.json", _record(trainer, kmeans))
    if not kmeans or artifacts.clustered(directory, fingerprint(trainer.identity), kmeans["files"]):
        features.remove(directory)  # from an earlier training: of another method, or of the same one and clustered
    (directory / progress.NAME).unlink(missing_ok=True)
    return directory / "record.json"


def _further(trainer: "Trainer") -> dict[str, np.ndarray]:
    """The method's own arrays for assignments.npz."""
    further = trainer.method.arrays(trainer.images)
    if taken := sorted(further.keys() & {*ARRAYS}):
        raise ValueError(f"{trainer.run.method}.arrays: {taken[0]} is an array of the harness; choose another name")
    return further


def _for_kmeans(trainer: "Trainer") -> dict[str, Any]:
    """What the record tells `scl kmeans` (scl.engine.artifacts.KMeans)."""
    files = {features.name_of(epoch): cast(str, checksum) for epoch, checksum in trainer.curve}
    method, directory = trainer.method, trainer.directory
    made = artifacts.clustered(directory, fingerprint(trainer.identity), files)
    if made:  # another machine may round the arrays of the method differently
        files = made.features
    else:
        further = {"rows": trainer.evaluated.rows, **_further(trainer)}
        files[features.FURTHER] = features.keep(directory, features.FURTHER, further)
    return {
        "clusters": method.problem.clusters,
        "restarts": method.options.kmeans_restarts,
        "seed": trainer.seeds("kmeans"),
        "files": files,
    }


def _write_sample(trainer: "Trainer") -> None:
    arrays = sample(trainer.method, trainer.evaluated, autocast=trainer.autocast)
    if not arrays:
        (trainer.directory / artifacts.SAMPLE).unlink(missing_ok=True)  # written by other code
        return
    with atomic(trainer.directory / artifacts.SAMPLE) as path, open(path, "wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]  # mypy takes ** for allow_pickle


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


def _record(trainer: "Trainer", kmeans: dict[str, Any] | None) -> dict:
    run = trainer.run
    names = (*(artifacts.WRITTEN[1:] if kmeans else artifacts.WRITTEN), artifacts.SAMPLE)
    written = [name for name in names if (trainer.directory / name).exists()]
    return {
        **run.model_dump(include={"benchmark", "protocol", "stage", "seed", "method", "options"}),
        "epochs": run.training.epochs,
        "seconds": trainer.seconds,
        "peak_memory_bytes": max(attempt["peak_memory_bytes"] for attempt in trainer.attempts),
        "precision": trainer.precision,
        **provenance(device=trainer.device),
        "config_sha256": config.digest(run),
        "images_sha256": trainer.facts["images_sha256"],
        "size": trainer.images.size,
        "identity": trainer.identity,
        "fingerprint": fingerprint(trainer.identity),
        "files": {name: sha256(trainer.directory / name) for name in written},
        "kmeans": kmeans,
        "seeds": {purpose: trainer.seeds(purpose) for purpose in ("initial weights", "prepare", "kmeans")},
        "parameters": sum(p.numel() for p in trainer.method.parameters()),
        "counts": trainer.method.counts,
        "images": len(trainer.images),
        "evaluated": len(trainer.evaluated),
        "attempts": trainer.attempts,
        "started": trainer.attempts[0]["started"],
        "finished": now(),
    }
