"""clusters.json of a run: what its page shows about its clusters, small enough to be committed.

Sizes, confusion matrix and matching, the images to show of each cluster, and a 2-D map of the features of a sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
from pydantic import model_validator

from benchmarks.evaluation.metrics import matching
from scl.engine.artifacts import SAMPLE, Record, Strict, damage

FILE = "clusters.json"
MOST_SHOWN, LEAST_SHOWN, SHOWN = 12, 3, 600  # images per line of a gallery; in all clusters together, approximately
COMPONENTS, PERPLEXITY, ITERATIONS = 50, 30, 500  # the first of PCA, the others of t-SNE
SEED = 0
GRID = 1_000  # coordinates are integers below this


class Line(Strict):
    """Images of a cluster: why they are shown, their rows in the data set, their names."""

    kind: str
    rows: list[int]
    names: list[str]


class Map(Strict):
    """Images as points: coordinates (0 .. GRID - 1), cluster and class of each; labels is empty without labels."""

    x: list[int]
    y: list[int]
    clusters: list[int]
    labels: list[int]


class Clusters(Strict):
    """clusters.json. confusion: K x C, empty without labels; match: the class of each cluster, -1 for none; of: the
    evaluated files, as in metrics.json."""

    sizes: list[int]
    mean_confidence: float | None
    classes: list[str]
    confusion: list[list[int]]
    match: list[int]
    shown: list[list[Line]]
    map: Map | None = None
    of: dict[str, str | int | None] = {}

    @model_validator(mode="after")
    def _is_consistent(self) -> Clusters:
        count, classes = len(self.sizes), len(self.classes)
        shapes = {len(row) for row in self.confusion} <= {classes} and len(self.confusion) in (0, count)
        if not (shapes and len(self.match) == len(self.shown) == count and sum(self.sizes) > 0):
            raise ValueError("clusters and classes differ in number")
        drawn = [self.map.x, self.map.y, self.map.clusters, self.map.labels or self.map.x] if self.map else [[]]
        if len({len(values) for values in drawn}) > 1:
            raise ValueError("map: arrays differ in length")
        labels = [*self.match, *(self.map.labels if self.map else [])]
        if max(labels, default=-1) >= classes or (self.map and not set(self.map.clusters) <= set(range(count))):
            raise ValueError("names a class or a cluster that does not exist")
        return self

    @property
    def used(self) -> int:
        return sum(size > 0 for size in self.sizes)

    def share(self, size: int) -> float:
        """`size` images as a fraction of all."""
        return size / sum(self.sizes)

    def title(self, cluster: int) -> str:
        """The name of the class that a cluster is matched with, or ""."""
        return self.classes[self.match[cluster]] if self.match[cluster] >= 0 else ""


def clusters_of(
    arrays: dict,
    clusters: int,
    *,
    labels: np.ndarray | None = None,
    classes: Sequence[str] | None = None,
    names: Sequence[str] | None = None,
) -> Clusters:
    """Describe the assignments of a run (evaluate.read_assignments).

    labels [N] and names [N] cover the whole data set, by row; an image without a label has -1, but some of the
    described images must have one.
    """
    rows, assigned = arrays["rows"], arrays["assignments"].astype(int)
    confidence = arrays["confidence"] if arrays["confidence"].size else None
    own = np.full(len(rows), -1) if labels is None else labels[rows]  # [n]
    titles = [] if labels is None else [str(name) for name in classes or range(int(own.max()) + 1)]
    known = own >= 0
    confusion, pairs = matching(own[known], assigned[known], clusters=clusters, classes=len(titles))
    match = [-1] * clusters
    for cluster, label in pairs.tolist():
        match[cluster] = label
    lines = []
    for cluster in range(clusters):
        chosen = _chosen(np.flatnonzero(assigned == cluster), confidence, own, match[cluster], clusters)
        named = {kind: [_name(rows[i], names, own[i], titles) for i in found] for kind, found in chosen.items()}
        lines.append([Line(kind=kind, rows=rows[found].tolist(), names=named[kind]) for kind, found in chosen.items()])
    return Clusters(
        sizes=np.bincount(assigned, minlength=clusters).tolist(),
        mean_confidence=None if confidence is None else float(confidence.mean(dtype=float)),
        classes=titles,
        confusion=confusion.tolist() if titles else [],
        match=match,
        shown=lines,
    )


def _chosen(members: np.ndarray, confidence, labels, match: int, clusters: int) -> dict[str, np.ndarray]:
    """{kind: positions of chosen members}. Without confidence, images are in the order of the data set."""
    count = min(MOST_SHOWN, max(LEAST_SHOWN, SHOWN // clusters))
    if confidence is None:
        chosen = {"first images": members[:count]}
    else:
        members = members[np.argsort(-confidence[members], kind="stable")]
        chosen = {"most confident": members[:count], "least confident": members[count:][::-1][:count]}
    if match >= 0:
        chosen["misassigned"] = members[(labels[members] >= 0) & (labels[members] != match)][:count]
    return {kind: found for kind, found in chosen.items() if len(found)}


def _name(row: int, names: Sequence[str] | None, label: int, classes: list[str]) -> str:
    name = names[row] if names else f"row {row}"
    return f"{name} ({classes[label]})" if label >= 0 else name


def read_sample(directory: Path, record: Record) -> tuple[np.ndarray, np.ndarray] | None:
    """(rows [s], features [s, D]) that training kept; None for methods without an encoder, runs of earlier versions,
    and if the file is missing or damaged, since it is only used for the map."""
    if SAMPLE not in record.files or damage(directory, record, (SAMPLE,)):
        return None
    with np.load(directory / SAMPLE, allow_pickle=False) as file:
        return file["sample_rows"], file["sample_features"]


def map_of(rows: np.ndarray, features: np.ndarray, arrays: dict, labels: np.ndarray | None) -> Map | None:
    """Features [s, D] of the images in `rows` [s] as points: PCA, then t-SNE. None if there is nothing to draw."""
    values = features.astype(np.float32)
    if len(values) < 4 or not np.isfinite(values).all() or not np.ptp(values, axis=0).any():
        return None
    points = _embedded(values)
    low = points.min(axis=0)
    x, y = ((points - low) / max(np.ptp(points, axis=0).max(), 1e-12) * (GRID - 1)).round().astype(int).T.tolist()
    assigned = dict(zip(arrays["rows"].tolist(), arrays["assignments"].tolist()))
    own = [] if labels is None else labels[rows].tolist()
    return Map(x=x, y=y, clusters=[assigned[row] for row in rows.tolist()], labels=own)


def _embedded(features: np.ndarray) -> np.ndarray:
    """Coordinates [s, 2] by PCA and t-SNE; deterministic."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE  # takes a second to import
    from threadpoolctl import threadpool_limits

    reduced = PCA(min(COMPONENTS, *features.shape), random_state=SEED).fit_transform(features)
    start = reduced[:, :2] if reduced.shape[1] > 1 else np.repeat(reduced, 2, axis=1)
    start = (start / start[:, 0].std() * 1e-4).astype(np.float32)  # as scikit-learn's init="pca"
    perplexity = min(PERPLEXITY, (len(features) - 1) / 3)
    with threadpool_limits(1):  # several runs are evaluated at once, and competing threads would spin
        return TSNE(init=start, perplexity=perplexity, max_iter=ITERATIONS, random_state=SEED).fit_transform(reduced)


def agreement(assignments: Sequence[np.ndarray]) -> dict[str, float]:
    """Mean ARI and NMI over all pairs of assignments of the same images; {} for fewer than two."""
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score  # takes a second to import

    pairs = list(combinations(assignments, 2))
    scores = {"ARI": adjusted_rand_score, "NMI": normalized_mutual_info_score}
    return {name: float(np.mean([score(a, b) for a, b in pairs])) for name, score in scores.items()} if pairs else {}
