"""k-means on the features that a run has kept: `scl kmeans`, on the CPU while the GPU trains the next run.

It writes assignments.npz, then clustering.json, which completes the record of the run (scl.engine.artifacts.load), and
deletes the features last, so that the same command resumes after any interruption. Imports no torch.
"""

import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from scl import config
from scl.engine import artifacts, failures, features
from scl.engine.artifacts import KMeans, Record
from scl.engine.io import atomic, set_aside, sha256, write_json
from scl.engine.label_guard import forbid_label_access
from scl.engine.locks import locked
from scl.engine.provenance import provenance
from scl.util.imports import gc_paused
from scl.util.text import Report, duration, say

ARRAYS = ("rows", "assignments", "confidence", "epochs", "per_epoch")  # of assignments.npz, besides those of the method


def kmeans(fitted: np.ndarray, evaluated: np.ndarray, clusters: int, *, restarts: int, seed: int) -> np.ndarray:
    """Clusters (M, int64) of `evaluated` (M x D) by scikit-learn's k-means++ on `fitted`, best of `restarts`."""
    with gc_paused():
        from sklearn.cluster import KMeans
        from sklearn.exceptions import ConvergenceWarning

    model = KMeans(clusters, n_init=restarts, random_state=seed % 2**32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct images than clusters; the metrics show it
        model.fit(fitted)
    return model.predict(evaluated).astype(np.int64)


def cluster_run(directory: str | Path, *, threads: int = 1, attempt: int = 1, report: Report = say) -> Path:
    """Cluster the features of a trained run, write its assignments, and delete the features; returns the path of
    assignments.npz. If the assignments exist, only deletes the features. threads: CPU threads. attempt: 2 and more are
    retries, which end at once if failure.json records a permanent failure.

    Raises Damaged if the run is not trained or if its features are missing or, with the file set aside, damaged; the
    run is then trained again (scl.engine.train.finished).
    """
    directory = Path(directory)
    run = config.load_run(directory)
    with locked(directory / ".lock", directory, report=report):
        record, path = artifacts.read_record(directory), directory / artifacts.ASSIGNMENTS
        with failures.recorded(directory, run, attempt=attempt), forbid_label_access(run.data):
            damage = artifacts.damage(directory, record, (path.name,)).get(path.name)
            if path.name in record.files and not damage:
                report(f"{directory}: already has its assignments")
            elif not record.kmeans:
                raise set_aside(path, damage)
            else:
                _cluster(directory, record, record.kmeans, threads, report)
            features.remove(directory)
            return path


def _cluster(directory: Path, record: Record, settings: KMeans, threads: int, report: Report) -> None:
    with gc_paused():
        import sklearn.cluster  # noqa: F401 loads the OpenMP that is limited below
    from threadpoolctl import threadpool_limits

    began, curve = time.perf_counter(), list[np.ndarray]()
    further = features.load(directory, features.FURTHER, settings.files[features.FURTHER])
    epochs = sorted(int(Path(name).stem) for name in settings.files if name != features.FURTHER)
    with threadpool_limits(threads):
        for epoch in epochs:
            name = features.name_of(epoch)
            found = features.load(directory, name, settings.files[name])
            fitted, evaluated = found.get("fitted", found["evaluated"]), found["evaluated"]
            curve.append(kmeans(fitted, evaluated, settings.clusters, restarts=settings.restarts, seed=settings.seed))
            done = duration(time.perf_counter() - began)
            report(f"k-means {len(curve)}/{len(epochs)}: {len(fitted)} x {fitted.shape[1]} features, {done}")
    rows, final = further.pop("rows"), curve[-1]
    points = [(epoch, clusters) for epoch, clusters in zip(epochs, curve) if epoch]
    write_assignments(directory, rows, final, np.empty(0, np.float32), points, further)
    write_json(
        directory / artifacts.CLUSTERING,
        {
            "fingerprint": record.fingerprint,
            "features": settings.files,
            "files": {artifacts.ASSIGNMENTS: sha256(directory / artifacts.ASSIGNMENTS)},
            "seconds": time.perf_counter() - began,
            **provenance(device="cpu"),
            "threads": threads,
        },
    )


def write_assignments(
    directory: Path,
    rows: np.ndarray,
    final: np.ndarray,
    confidence: np.ndarray,
    curve: list[tuple[int, np.ndarray]],
    further: dict[str, Any],
) -> None:
    """Write assignments.npz. curve: (epoch, clusters of the n evaluated images); further: additional arrays of the
    method, under other names."""
    with atomic(directory / artifacts.ASSIGNMENTS) as path, open(path, "wb") as file:
        np.savez_compressed(
            file,
            rows=rows,
            assignments=final,
            confidence=confidence,
            epochs=np.array([epoch for epoch, _ in curve], np.int64),
            per_epoch=np.array([clusters for _, clusters in curve], np.int32).reshape(-1, len(final)),
            **further,
        )
