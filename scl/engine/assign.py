"""Weights and images -> assignments: the same few lines for every method."""

import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager

import numpy as np
import torch

from scl.engine.io import RunFailed
from scl.images import Images
from scl.method import Method
from scl.util.imports import uncollected

Autocast = Callable[[], AbstractContextManager]


@torch.no_grad()
def outputs(
    method: Method, images: Images, *, autocast: Autocast, first: int | None = None, batch_size: int = 512
) -> np.ndarray:
    """`method.assign` of all images, or of the `first` so many, un-augmented and in evaluation mode: M x K or M x D,
    float32."""
    count = len(images) if first is None else first
    training = method.training
    method.eval()
    device = images.pixels.device
    parts = []
    for start in range(0, count, batch_size):
        index = torch.arange(start, min(start + batch_size, count), device=device)
        with autocast():
            parts.append(method.assign(images.batch(index)).float())
    method.train(training)
    return torch.cat(parts).cpu().numpy()


def assignments(
    method: Method, fit: Images, evaluated: Images, *, autocast: Autocast, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Cluster of every evaluated image (int64) and its probability (float32; empty where k-means assigns).

    k-means (scikit-learn) is fitted on the training images to cluster and applied to the evaluated ones, the best of
    `kmeans_restarts` starts, an option of the method.
    """
    result = outputs(method, evaluated, autocast=autocast)
    if not np.isfinite(result).all():
        raise RunFailed("the outputs of the trained method are not finite")
    if not method.clusters_by_kmeans:
        return result.argmax(1).astype(np.int64), result.max(1).astype(np.float32)
    same = evaluated is fit
    fitted = result if same else outputs(method, fit, autocast=autocast, first=fit.fit)  # unlabeled ones come after
    found = kmeans(fitted, result, method.problem.clusters, restarts=method.options.kmeans_restarts, seed=seed)
    return found, np.empty(0, np.float32)


def kmeans(fitted: np.ndarray, evaluated: np.ndarray, clusters: int, *, restarts: int, seed: int) -> np.ndarray:
    """k-means++ of scikit-learn, the best of `restarts` by inertia, fitted on the first array, applied to the
    second: M integers."""
    with uncollected():
        from sklearn.cluster import KMeans
        from sklearn.exceptions import ConvergenceWarning

    model = KMeans(clusters, n_init=restarts, random_state=seed % 2**32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct images than clusters: shown by metrics
        model.fit(fitted)
    return model.predict(evaluated).astype(np.int64)
