"""Outputs of a method for images, computed in the same way for every method."""

from collections.abc import Callable
from contextlib import AbstractContextManager

import numpy as np
import torch
from torch import Tensor

from scl.engine.io import RunFailed
from scl.images import Images
from scl.method import Method
from scl.networks import Encoder

Autocast = Callable[[], AbstractContextManager]
BATCH = 512
SAMPLE = 1_000  # images whose features are kept for a map


@torch.no_grad()
def outputs(
    method: Method,
    images: Images,
    *,
    autocast: Autocast,
    index: Tensor | None = None,
    function: Callable[[Tensor], Tensor] | None = None,
    advance: Callable[[int], object] = lambda count: None,
) -> np.ndarray:
    """`method.assign`, or another `function`, of the images at `index` (default: all), in evaluation mode: M x K or
    M x D, float32.

    advance: called with the number of images of each batch.
    """
    index = torch.arange(len(images)) if index is None else index
    function = function or method.assign
    training = method.training
    method.eval()
    parts = []
    for batch in index.to(images.pixels.device).split(BATCH):
        with autocast():
            parts.append(function(images.batch(batch)).float())
        advance(len(batch))
    method.train(training)
    return torch.cat(parts).cpu().numpy()


def assignments(method: Method, evaluated: Images, *, autocast: Autocast) -> tuple[np.ndarray, np.ndarray]:
    """The most probable cluster of every evaluated image (int64) and its probability (float32).

    Raises RunFailed if an output is not finite.
    """
    result = _finite(outputs(method, evaluated, autocast=autocast))
    return result.argmax(1).astype(np.int64), result.max(1).astype(np.float32)


def features(method: Method, fit: Images, evaluated: Images, *, autocast: Autocast) -> dict[str, np.ndarray]:
    """Features for k-means, M x D in float32: of the `evaluated` images and, if those differ, of the training images,
    to which it is `fitted`. Raises RunFailed if one is not finite."""
    found = {"evaluated": _finite(outputs(method, evaluated, autocast=autocast))}
    if evaluated is not fit:  # the unlabeled images come after the first fit.fit
        found["fitted"] = _finite(outputs(method, fit, autocast=autocast, index=torch.arange(fit.fit)))
    return found


def _finite(result: np.ndarray) -> np.ndarray:
    if not np.isfinite(result).all():
        raise RunFailed("the outputs of the trained method are not finite")
    return result


def sample(method: Method, evaluated: Images, *, autocast: Autocast) -> dict[str, np.ndarray]:
    """sample_rows [s] and sample_features [s, D] (float16) of at most SAMPLE evaluated images, evenly spaced.

    They are the features that k-means clusters or, for a method that predicts probabilities, those of its encoder; {}
    for a method without an encoder.
    """
    encoder = getattr(method, "encoder", None)
    if not isinstance(encoder, Encoder):
        return {}
    places = np.linspace(0, len(evaluated) - 1, min(SAMPLE, len(evaluated))).round().astype(np.int64)
    function = method.assign if method.clusters_by_kmeans else encoder
    found = outputs(method, evaluated, autocast=autocast, index=torch.from_numpy(places), function=function)
    most = np.finfo(np.float16).max
    return {"sample_rows": evaluated.rows[places], "sample_features": found.clip(-most, most).astype(np.float16)}
