"""Cluster assignments of images, computed in the same way for every method."""

import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager

import numpy as np
import torch

from scl.engine.io import RunFailed
from scl.images import Images
from scl.method import Method
from scl.util.imports import gc_paused

Autocast = Callable[[], AbstractContextManager]


@torch.no_grad()
def outputs(
    method: Method,
    images: Images,
    *,
    autocast: Autocast,
    first: int | None = None,
    batch_size: int = 512,
    advance: Callable[[int], object] = lambda count: None,
) -> np.ndarray:
    """`method.assign` of all images, or of the `first` ones, in evaluation mode: M x K or M x D, float32.

    advance: called with the number of images of each batch.
    """
    count = len(images) if first is None else first
    training = method.training
    method.eval()
    device = images.pixels.device
    parts = []
    for start in range(0, count, batch_size):
        index = torch.arange(start, min(start + batch_size, count), device=device)
        with autocast():
            parts.append(method.assign(images.batch(index)).float())
        advance(len(index))
    method.train(training)
    return torch.cat(parts).cpu().numpy()


def assignments(
    method: Method, fit: Images, evaluated: Images, *, autocast: Autocast, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Cluster of every evaluated image (int64) and its probability (float32; empty after k-means).

    k-means is fitted on the training images and applied to the evaluated ones; `kmeans_restarts` is an option of the
    method. Raises RunFailed if an output is not finite.
    """
    result = outputs(method, evaluated, autocast=autocast)
    if not np.isfinite(result).all():
        raise RunFailed("the outputs of the trained method are not finite")
    if not method.clusters_by_kmeans:
        return result.argmax(1).astype(np.int64), result.max(1).astype(np.float32)
    # the unlabeled images come after the first fit.fit
    fitted = result if evaluated is fit else outputs(method, fit, autocast=autocast, first=fit.fit)
    clusters = kmeans(fitted, result, method.problem.clusters, restarts=method.options.kmeans_restarts, seed=seed)
    return clusters, np.empty(0, np.float32)


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
