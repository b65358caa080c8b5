"""Scores of a clustering against labels. The only place where an assignment meets a label.

ACC is the share of images whose cluster is matched with their class by the best one-to-one matching of
clusters and classes (Kuhn 1955; Yang et al., CVPR 2016 for its use in deep clustering). NMI and ARI are those of
scikit-learn (a test compares them), written out because its import is most of the time that a score takes.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.optimize import linear_sum_assignment


def clustering_scores(labels, assignments, *, confidence=None, clusters: int | None = None) -> dict:
    """Scores of `assignments` (n cluster numbers, 0..K-1) given `labels` (n class numbers, 0..C-1).

    `clusters` is K; without it, the largest assigned number + 1. K and C may differ and clusters may be
    empty: ACC matches min(K, C) of them and the images of an unmatched cluster count as wrong.
    `confidence` (n values) is only averaged.

    Returns acc, nmi (arithmetic average of the two entropies), nmi_geometric (scikit-learn's default before
    0.22, with which PICA's numbers were made), ari, clusters_used, largest_share, smallest_share (shares of
    the n images, over all K clusters: an empty cluster has share 0), mean_confidence (None without one).

    Raises ValueError for empty or unequal inputs, non-integers, an assignment outside 0..K-1, and a
    negative label: -1 marks an image without a label, and which images count is the caller's decision.
    """
    labels, assignments = _integers("labels", labels), _integers("assignments", assignments)
    _check(labels, assignments)
    used = int(assignments.max()) + 1
    clusters = used if clusters is None else int(clusters)
    if used > clusters:
        raise ValueError(
            f"an image is assigned to cluster {used - 1}, but there are only {clusters} clusters "
            f"(0..{clusters - 1})"
        )
    sizes = np.bincount(assignments, minlength=clusters)
    nmi, nmi_geometric = normalised_mutual_information(labels, assignments)
    return {
        "acc": matched_accuracy(labels, assignments),
        "nmi": nmi,
        "nmi_geometric": nmi_geometric,
        "ari": adjusted_rand_index(labels, assignments),
        "clusters_used": int((sizes > 0).sum()),
        "largest_share": float(sizes.max() / len(labels)),
        "smallest_share": float(sizes.min() / len(labels)),
        "mean_confidence": _mean_confidence(confidence, len(labels)),
    }


def matched_accuracy(labels: np.ndarray, assignments: np.ndarray) -> float:
    """ACC: share of images on the best one-to-one matching of clusters (rows) and classes (columns)."""
    table = contingency(labels, assignments)  # K' x C', both without empty ones
    rows, columns = linear_sum_assignment(table, maximize=True)  # min(K', C') pairs
    return float(table[rows, columns].sum() / len(labels))


def normalised_mutual_information(labels: np.ndarray, assignments: np.ndarray) -> tuple[float, float]:
    """I(labels; assignments) over the (arithmetic, geometric) average of the two entropies.

    (1, 1) for one class in one cluster, where both entropies are 0, else 0 where either is.
    """
    table = contingency(labels, assignments)  # K' x C'
    if 1 in table.shape:
        return (1.0, 1.0) if table.size == 1 else (0.0, 0.0)
    joint, clusters, classes = (counts / len(labels) for counts in (table, table.sum(1), table.sum(0)))
    row, column = joint.nonzero()
    met = joint[row, column]
    information = float((met * (np.log(met) - np.log(clusters[row]) - np.log(classes[column]))).sum())
    if information <= np.finfo(np.float64).eps:  # rounding
        return 0.0, 0.0
    entropies = [float(-(share * np.log(share)).sum()) for share in (clusters, classes)]
    return information / (sum(entropies) / 2), information / math.sqrt(math.prod(entropies))


def adjusted_rand_index(labels: np.ndarray, assignments: np.ndarray) -> float:
    """Agreement on pairs of images, adjusted for chance (Hubert & Arabie 1985); in whole numbers until the end."""
    table = contingency(labels, assignments)  # K' x C'
    pairs, clusters, classes = (
        sum(int(n) * (int(n) - 1) // 2 for n in counts.ravel())
        for counts in (table, table.sum(1), table.sum(0))
    )
    if pairs == clusters == classes:  # the same partition
        return 1.0
    total = math.comb(len(labels), 2)
    return 2 * (total * pairs - clusters * classes) / (total * (clusters + classes) - 2 * clusters * classes)


def contingency(labels: np.ndarray, assignments: np.ndarray) -> np.ndarray:
    """Counts, clusters in use x classes in use. An empty one can match nothing, so it is left out."""
    _, row = np.unique(assignments, return_inverse=True)
    _, column = np.unique(labels, return_inverse=True)
    table = np.zeros((row.max() + 1, column.max() + 1), dtype=np.int64)
    np.add.at(table, (row, column), 1)
    return table


def neighbour_purity(labels, neighbours, rows) -> float | None:
    """Share of mined neighbours that have their image's label.

    `labels` (N) of the whole data set, `rows` (m) the images whose neighbours were mined, as rows of the
    data set, `neighbours` (m x k) also rows of the data set. An image listed as its own neighbour does not
    count, nor does a pair with an unlabelled (-1) end. None if no pair is left.
    """
    labels, rows = np.asarray(labels), np.asarray(rows)
    neighbours = np.asarray(neighbours)  # m x k
    if neighbours.ndim != 2 or len(neighbours) != len(rows):
        raise ValueError(
            f"neighbours must be {len(rows)} x k, one line an image; their shape is {neighbours.shape}"
        )
    for name, index in (("rows", rows), ("neighbours", neighbours)):
        if index.size and (index.min() < 0 or index.max() >= len(labels)):
            raise ValueError(f"{name} point outside the {len(labels)} images of the data set")
    own, other = labels[rows][:, None], labels[neighbours]  # m x 1, m x k
    counted = (neighbours != rows[:, None]) & (own >= 0) & (other >= 0)
    return float((own == other)[counted].mean()) if counted.any() else None


def _integers(name: str, values) -> np.ndarray:
    values = np.asarray(values)
    if values.ndim != 1:
        raise ValueError(f"{name} must be one number an image; their shape is {values.shape}")
    if values.size and values.dtype.kind not in "iu":
        raise ValueError(f"{name} must be integers, not {values.dtype}")
    return values.astype(np.int64)


def _check(labels: np.ndarray, assignments: np.ndarray) -> None:
    if len(labels) != len(assignments):
        raise ValueError(f"{len(labels)} labels for {len(assignments)} assignments")
    if len(labels) == 0:
        raise ValueError("no image to score: labels and assignments are empty")
    if labels.min() < 0:
        raise ValueError(
            f"{int((labels < 0).sum())} of {len(labels)} images have no label (-1): "
            "leave them out of both arrays first"
        )
    if assignments.min() < 0:
        raise ValueError(f"cluster {int(assignments.min())} is negative: clusters are 0..K-1")


def _mean_confidence(confidence, count: int) -> float | None:
    if confidence is None:
        return None
    confidence = np.asarray(confidence, dtype=np.float64)
    if confidence.shape != (count,):
        raise ValueError(f"confidence must be {count} values, one an image; its shape is {confidence.shape}")
    return float(confidence.mean())
