"""From a run's assignments and the data set's labels to metrics.json and clusters.json: the step that sees labels.

Nothing flows back: the scores are those of the last epoch; the curve and its best epoch by labels ("oracle") are for
display only.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import numpy as np

from benchmarks.datasets.prepare import read_names
from benchmarks.evaluation import VERSION, clusters
from benchmarks.evaluation.metrics import clustering_scores, neighbor_purity
from scl.engine.artifacts import ASSIGNMENTS, assignments_of, read_record
from scl.engine.io import Damaged, set_aside, sha256, write_json
from scl.engine.prepared import describe


def evaluate_run(directory, data_folder) -> Path:
    """Score the run in `directory` with the labels in `data_folder`; write its clusters.json, then its metrics.json;
    return the latter.

    Reads record.json and assignments.npz of the run, benchmark.json and labels.npy of the data. Images without a label
    (-1) are left out and counted as "unlabeled"; without any label, "scores" is null and "reason" says so. "of" states
    what was scored by which version, "dataset" (its name in the catalog) and "folder" (the fingerprint of a user's
    images) where the images came from, so that outdated metrics are recognized (benchmarks.state).

    Raises ValueError if the images of the run or their splits are not those in `data_folder`, Damaged (with the file
    set aside) if a file of the run is not what training wrote.
    """
    directory, data_folder = Path(directory), Path(data_folder)
    record = read_record(directory)
    benchmark = describe(data_folder)
    seen, count, classes = record.identity.images, benchmark["clusters"], benchmark.get("classes")
    if (record.images_sha256, seen.splits) != (benchmark["images_sha256"], benchmark["splits"]):
        raise ValueError(f"{directory}: trained on other images than those in {data_folder}; train the run again")
    if seen.clusters != count:
        made = f"found {seen.clusters} clusters, not the {count} of {data_folder}"
        raise ValueError(f"{directory}: {made}; train the run again")
    arrays = read_assignments(assignments_of(directory, record))
    metrics = {
        "images": len(arrays["rows"]),
        "classes": len(classes) if classes else None,
        "clusters": count,
        "dataset": benchmark.get("dataset"),
        "folder": benchmark.get("fingerprint"),
        "of": {
            "fingerprint": record.fingerprint,
            "assignments_sha256": record.files[ASSIGNMENTS],
            "labels_sha256": benchmark.get("labels_sha256"),
            "evaluator": VERSION,
        },
    }
    labels = _labels(data_folder, benchmark, arrays["rows"])
    scored = _scores(labels, arrays, count)
    found = clusters.clusters_of(arrays, count, labels=labels, classes=classes, names=_names(data_folder))
    if sample := clusters.read_sample(directory, record):
        found.map = clusters.map_of(*sample, arrays, labels)
    write_json(directory / clusters.FILE, found.model_dump() | {"of": metrics["of"]}, compact=True)
    write_json(directory / "metrics.json", scored | metrics)
    return directory / "metrics.json"


def read_assignments(path: Path) -> dict[str, np.ndarray]:
    """assignments.npz: rows [n], assignments [n], confidence [n or 0], epochs [E], per_epoch [E, n], ..."""
    with np.load(path, allow_pickle=False) as stored:
        arrays = dict(stored)
    if len(arrays["epochs"]) and not np.array_equal(arrays["per_epoch"][-1], arrays["assignments"]):
        raise ValueError(f"{path}: the assignments are not those of the last epoch; train the run again")
    return arrays


def clusters_by_row(directory: Path) -> np.ndarray:
    """The clusters of a run's images in the order of the data set [n]. Raises what read_assignments does."""
    arrays = read_assignments(directory / ASSIGNMENTS)
    return arrays["assignments"][np.argsort(arrays["rows"])]


def _names(data_folder: Path) -> list[str] | None:
    """The names of the images, by row; None, which changes no score, if they are damaged."""
    with suppress(Damaged):
        return read_names(data_folder)
    return None


def _labels(data_folder: Path, benchmark: dict, rows: np.ndarray) -> np.ndarray | None:
    """The labels as prepared, None if none of the images in `rows` has one. Raises Damaged if they are missing or
    changed, with them and benchmark.json set aside, so that the benchmark is prepared again."""
    path, listed = data_folder / "labels.npy", benchmark.get("labels_sha256")
    if not listed:
        return None
    if not path.exists():
        set_aside(data_folder / "benchmark.json", "its labels are missing")
        raise Damaged(f"{path} is missing, though benchmark.json lists it; the same command prepares it again")
    if sha256(path) != listed:
        set_aside(data_folder / "benchmark.json", "its labels are damaged")
        raise set_aside(path, "damaged (its checksum is not the one in benchmark.json)")
    labels = np.load(path, allow_pickle=False)
    return labels if (labels[rows] >= 0).any() else None


def _scores(labels: np.ndarray | None, arrays: dict, clusters: int) -> dict:
    if labels is None:
        empty = dict.fromkeys(("scores", "oracle", "neighbor_purity", "unlabeled"))
        return empty | {"reason": "the data set has no labels", "per_epoch": []}
    truth = labels[arrays["rows"]]
    labeled = truth >= 0
    truth = truth[labeled]
    confidence = arrays["confidence"][labeled] if arrays["confidence"].size else None
    curve = []
    for epoch, assigned in zip(arrays["epochs"], arrays["per_epoch"], strict=True):
        scores = clustering_scores(truth, assigned[labeled], clusters=clusters)
        curve.append({"epoch": int(epoch)} | {name: scores[name] for name in ("acc", "nmi", "ari")})
    best = max(curve, key=lambda point: point["acc"], default=None)
    mined = arrays.get("neighbors", np.empty(0)).size
    if mined and "neighbor_rows" not in arrays:
        raise ValueError("arrays of the method: neighbors: `neighbor_rows` is missing, the rows of their images")
    return {
        "scores": clustering_scores(truth, arrays["assignments"][labeled], confidence=confidence, clusters=clusters),
        "per_epoch": curve,
        "oracle": best and {"acc": best["acc"], "epoch": best["epoch"]},
        "neighbor_purity": neighbor_purity(labels, arrays["neighbors"], arrays["neighbor_rows"]) if mined else None,
        "unlabeled": int((~labeled).sum()),
    }
