"""What a finished run found: its clusters and, from the data folder, the images, their names and their labels."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from scipy.optimize import linear_sum_assignment

from benchmarks.evaluation.evaluate import read_assignments
from scl.engine.prepared import describe


@dataclass
class RunData:
    """rows, assignments, confidence, labels: one value per assigned image (confidence and labels may be None);
    images and names: of the whole data set, by row; clusters and classes: K, and the names of the C classes."""

    rows: np.ndarray
    assignments: np.ndarray
    confidence: np.ndarray | None
    clusters: int
    labels: np.ndarray | None = None
    classes: list[str] = field(default_factory=list)
    images: np.ndarray | None = None
    names: list[str] | None = None
    absence: str = ""  # why there are no images

    @cached_property
    def sizes(self) -> np.ndarray:
        return np.bincount(self.assignments, minlength=self.clusters)

    @cached_property
    def confusion(self) -> np.ndarray | None:
        """[K, C]: images of each cluster and class, without those that have no label; None without labels."""
        if self.labels is None or not self.classes or not (known := self.labels >= 0).any():
            return None
        table = np.zeros((self.clusters, len(self.classes)), int)
        np.add.at(table, (self.assignments[known], self.labels[known]), 1)
        return table

    @cached_property
    def match(self) -> dict[int, int]:
        """{cluster: class} of the one-to-one matching behind ACC; empty without labels."""
        if self.confusion is None:
            return {}
        clusters, classes = linear_sum_assignment(self.confusion, maximize=True)
        return dict(zip(clusters.tolist(), classes.tolist()))

    def summary(self) -> dict:
        """Quantities that need no labels."""
        shares = self.sizes / len(self.rows)
        confidence = float("nan") if self.confidence is None else float(self.confidence.mean(dtype=float))
        used = int((self.sizes > 0).sum())
        return {"used": used, "largest": shares.max(), "smallest": shares.min(), "confidence": confidence}


def read_run_data(directory: Path, record, folder: Path) -> RunData:
    """The assignments of a finished run, and what the data folder has for them if it holds the run's images.

    Raises OSError, ValueError or KeyError if assignments.npz is not readable.
    """
    arrays = read_assignments(directory / "assignments.npz")
    confidence = arrays["confidence"] if arrays["confidence"].size else None
    found = RunData(arrays["rows"], arrays["assignments"].astype(int), confidence, record.identity.images.clusters)
    try:
        facts = describe(folder)
        if facts["images_sha256"] != record.images_sha256:
            raise ValueError("the data folder holds other images than those of this run")
        found.images = np.load(folder / "images.npy", mmap_mode="r")
        if (folder / "image_names.json").exists():
            found.names = json.loads((folder / "image_names.json").read_text(encoding="utf-8"))
        if facts.get("labels_sha256"):
            found.labels = np.load(folder / "labels.npy", allow_pickle=False)[found.rows]
            found.classes = [str(name) for name in facts.get("classes") or range(int(found.labels.max()) + 1)]
    except (OSError, ValueError, IndexError) as error:
        found.absence = str(error)
    return found
