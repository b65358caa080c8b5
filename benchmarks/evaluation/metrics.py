"""Scores of a clustering against labels. The only place where an assignment meets a label.

ACC is the share of images whose cluster is matched with their class by the best one-to-one matching of clusters and
classes (Kuhn 1955; Yang et al., CVPR 2016 for its use in deep clustering). NMI and ARI are scikit-learn's.
"""

from __future__ import annotations

import numpy as np


def clustering_scores(labels, assignments, *, confidence=None, clusters: int | None = None) -> dict:
    """Scores of `assignments` (n cluster numbers, 0..K-1) given `labels` (n class numbers, 0..C-1).

    `clusters` is K, by default the largest assigned number + 1. K and C may differ and clusters may be empty: ACC
    matches min(K, C) of them, and the images of an unmatched cluster count as wrong. `confidence` (n values) is only
    averaged.

    Returns acc, nmi (arithmetic mean of the two entropies), nmi_geometric (scikit-learn's default before 0.22, with
    which PICA's numbers were made), ari, clusters_used, largest_share, smallest_share (of the n images, over all K
    clusters: an empty cluster has share 0), mean_confidence (or None).

    Raises ValueError for empty or unequal inputs, non-integers, an assignment outside 0..K-1, and a negative label:
    -1 marks an image without a label, and which images count is the caller's decision.
    """
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score  # takes a second to import

    labels, assignments = np.asarray(labels), np.asarray(assignments)
    clusters = _check(labels, assignments, clusters)
    if confidence is not None and np.shape(confidence) != labels.shape:
        raise ValueError(f"confidence must be {len(labels)} values, one per image, not {np.shape(confidence)}")
    sizes = np.bincount(assignments.astype(np.int64), minlength=clusters)
    return {
        "acc": matched_accuracy(labels, assignments),
        "nmi": float(normalized_mutual_info_score(labels, assignments)),
        "nmi_geometric": float(normalized_mutual_info_score(labels, assignments, average_method="geometric")),
        "ari": float(adjusted_rand_score(labels, assignments)),
        "clusters_used": int((sizes > 0).sum()),
        "largest_share": float(sizes.max() / len(labels)),
        "smallest_share": float(sizes.min() / len(labels)),
        "mean_confidence": None if confidence is None else float(np.asarray(confidence, np.float64).mean()),
    }


def matched_accuracy(labels: np.ndarray, assignments: np.ndarray) -> float:
    """ACC: share of images on the best one-to-one matching of clusters and classes."""
    from scipy.optimize import linear_sum_assignment  # here, because `scl plan` and Snakemake import this file too
    from sklearn.metrics.cluster import contingency_matrix

    table = contingency_matrix(assignments, labels)  # K' x C', counts, both without empty ones
    rows, columns = linear_sum_assignment(table, maximize=True)  # min(K', C') pairs
    return float(table[rows, columns].sum() / len(labels))


def neighbor_purity(labels, neighbors, rows) -> float | None:
    """Share of mined neighbors that have their image's label; None if no pair counts.

    `labels` (N) of the whole data set, `rows` (m) the images whose neighbors were mined and `neighbors` (m x k), both
    as rows of the data set. An image listed as its own neighbor does not count, nor does an unlabeled (-1) image.
    """
    labels, rows, neighbors = np.asarray(labels), np.asarray(rows), np.asarray(neighbors)
    if neighbors.ndim != 2 or len(neighbors) != len(rows):
        raise ValueError(f"neighbors must be {len(rows)} x k, one row per image, not {neighbors.shape}")
    for name, index in (("rows", rows), ("neighbors", neighbors)):
        if index.size and (index.min() < 0 or index.max() >= len(labels)):
            raise ValueError(f"{name} point outside the {len(labels)} images of the data set")
    own, other = labels[rows][:, None], labels[neighbors]  # m x 1, m x k
    counted = (neighbors != rows[:, None]) & (own >= 0) & (other >= 0)
    return float((own == other)[counted].mean()) if counted.any() else None


def _check(labels: np.ndarray, assignments: np.ndarray, clusters: int | None) -> int:
    """The number of clusters."""
    for name, values in (("labels", labels), ("assignments", assignments)):
        if values.ndim != 1:
            raise ValueError(f"{name} must be one number per image; their shape is {values.shape}")
        if values.size and values.dtype.kind not in "iu":
            raise ValueError(f"{name} must be integers, not {values.dtype}")
    if len(labels) != len(assignments):
        raise ValueError(f"{len(labels)} labels for {len(assignments)} assignments")
    if len(labels) == 0:
        raise ValueError("no image to score: labels and assignments are empty")
    if labels.min() < 0:
        raise ValueError(f"{(labels < 0).sum()} of {len(labels)} images have no label (-1); leave them out")
    if assignments.min() < 0:
        raise ValueError(f"cluster {assignments.min()} is negative; clusters are 0..K-1")
    used = int(assignments.max()) + 1
    clusters = used if clusters is None else clusters
    if used > clusters:
        raise ValueError(f"cluster {used - 1}, but there are only {clusters} clusters (0..{clusters - 1})")
    return clusters
