"""Scores of a clustering against labels. The only place where an assignment meets a label.

ACC is the fraction of images whose cluster is matched with their class by the best one-to-one matching of clusters and
classes (Kuhn 1955; Yang et al., CVPR 2016 for its use in deep clustering). NMI and ARI are scikit-learn's.
"""

from __future__ import annotations

import numpy as np


def clustering_scores(labels, assignments, *, clusters: int, confidence=None) -> dict:
    """Scores of `assignments` (n cluster numbers, 0..K-1) given `labels` (n class numbers, 0..C-1).

    `clusters` is K. K and C may differ and clusters may be empty: ACC matches min(K, C) of them, and the images of an
    unmatched cluster count as wrong. `confidence` (n values) is only averaged.

    Returns acc, nmi (arithmetic mean of the two entropies), nmi_geometric (scikit-learn's default before 0.22, with
    which PICA's numbers were computed), ari, clusters_used, largest_share, smallest_share (of the n images, over all K
    clusters: an empty cluster has share 0), mean_confidence (or None).

    Raises ValueError for no images, an assignment outside 0..K-1, and a negative label: -1 marks an image without a
    label, and which images count is the caller's decision.
    """
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score  # takes a second to import

    labels, assignments = np.asarray(labels), np.asarray(assignments)
    if not len(labels):
        raise ValueError("no image to score: labels and assignments are empty")
    if labels.min() < 0:
        raise ValueError(f"{(labels < 0).sum()} of {len(labels)} images have no label (-1); leave them out")
    if outside := [cluster for cluster in (assignments.min(), assignments.max()) if not 0 <= cluster < clusters]:
        raise ValueError(f"cluster {outside[0]}, but there are only {clusters} clusters (0..{clusters - 1})")
    table, pairs = matching(labels, assignments, clusters=clusters, classes=int(labels.max()) + 1)
    sizes = table.sum(axis=1)
    return {
        "acc": float(table[*pairs.T].sum() / len(labels)),
        "nmi": float(normalized_mutual_info_score(labels, assignments)),
        "nmi_geometric": float(normalized_mutual_info_score(labels, assignments, average_method="geometric")),
        "ari": float(adjusted_rand_score(labels, assignments)),
        "clusters_used": int((sizes > 0).sum()),
        "largest_share": float(sizes.max() / len(labels)),
        "smallest_share": float(sizes.min() / len(labels)),
        "mean_confidence": None if confidence is None else float(np.asarray(confidence, np.float64).mean()),
    }


def matching(
    labels: np.ndarray, assignments: np.ndarray, *, clusters: int, classes: int
) -> tuple[np.ndarray, np.ndarray]:
    """(images of each cluster and class [K, C], the best one-to-one matching as min(K, C) pairs [cluster, class])"""
    from scipy.optimize import linear_sum_assignment  # here, because `scl plan` and Snakemake import this file too

    table = np.zeros((clusters, classes), int)
    np.add.at(table, (assignments, labels), 1)
    return table, np.stack(linear_sum_assignment(table, maximize=True), axis=1)


def neighbor_purity(labels: np.ndarray, neighbors: np.ndarray, rows: np.ndarray) -> float | None:
    """Fraction of mined neighbors that have the label of their image; None if no pair counts.

    `labels` (N) of the whole data set, `rows` (m) the images whose neighbors were mined and `neighbors` (m x k), both
    as rows of the data set. An image listed as its own neighbor does not count, nor does an unlabeled (-1) image.
    Raises ValueError for invalid arrays, which a custom method may have kept.
    """
    if neighbors.ndim != 2 or rows.shape != (len(neighbors),):
        found = f"of the shapes {neighbors.shape} and {rows.shape}"
        raise ValueError(f"arrays of the method: neighbors: m x k with `neighbor_rows` of m expected, not {found}")
    for index in (rows, neighbors):
        if outside := [row for row in (index.min(initial=0), index.max(initial=0)) if not 0 <= row < len(labels)]:
            problem = f"{outside[0]} is no row of the {len(labels)} images"
            raise ValueError(f"arrays of the method: neighbors: {problem} of the data set (`images.rows`)")
    own, other = labels[rows][:, None], labels[neighbors]  # m x 1, m x k
    counted = (neighbors != rows[:, None]) & (own >= 0) & (other >= 0)
    return float((own == other)[counted].mean()) if counted.any() else None
