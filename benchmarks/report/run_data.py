"""What a page shows of a finished run: its clusters and, from the data folder, the images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.evaluation.clusters import FILE, Clusters, clusters_of
from benchmarks.evaluation.evaluate import names_of, read_assignments
from benchmarks.state import Metrics
from scl.engine.artifacts import Record, read
from scl.engine.io import Damaged
from scl.engine.prepared import describe


def read_clusters(directory: Path, record: Record, metrics: Metrics | None, folder: Path) -> Clusters:
    """clusters.json of a finished run; for runs evaluated by earlier versions, computed from the assignments, without a
    map, and without labels if the data folder does not contain the run's images.

    Raises OSError, ValueError, or KeyError if assignments.npz is needed but not readable.
    """
    try:
        found = read(directory / FILE, Clusters)
    except Damaged:
        found = None
    if found and metrics and found.of == metrics.of.model_dump():
        return found
    arrays, further = read_assignments(directory / "assignments.npz"), dict[str, Any]()
    try:
        facts = _facts(record, folder)
        further["names"] = names_of(folder, facts)
        if facts.get("labels_sha256"):
            further |= {"labels": np.load(folder / "labels.npy"), "classes": facts.get("classes")}
    except (OSError, ValueError):
        pass  # read_images says why
    return clusters_of(arrays, record.identity.images.clusters, **further)


def read_images(record: Record, folder: Path) -> tuple[np.ndarray | None, str]:
    """(the images in the data folder [N, H, W, 3] or None, why there are none)"""
    try:
        _facts(record, folder)
        return np.load(folder / "images.npy", mmap_mode="r"), ""
    except (OSError, ValueError) as error:
        return None, str(error)


def _facts(record: Record, folder: Path) -> dict:
    """benchmark.json. Raises ValueError if it is of other images than the run's."""
    facts = describe(folder)
    if facts["images_sha256"] != record.images_sha256:
        raise ValueError("the data folder contains other images than those of this run")
    return facts
