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
SAMPLE = 1_000  # images whose features are kept for a map


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
    index = torch.arange(len(images) if first is None else first, device=images.pixels.device)
    return _forward(method, method.assign, images, index, autocast, batch_size, advance)


@torch.no_grad()
def _forward(
    method: Method,
    function: Callable[[Tensor], Tensor],
    images: Images,
    index: Tensor,
    autocast: Autocast,
    batch_size: int = 512,
    advance: Callable[[int], object] = lambda count: None,
) -> np.ndarray:
    training = method.training
    method.eval()
    parts = []
    for batch in index.split(batch_size):
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
    """Features for k-means, M x D in float32: of the `evaluated` images and, where these are others, of the training
    images, on which it is `fitted`. Raises RunFailed if one is not finite."""
    found = {"evaluated": _finite(outputs(method, evaluated, autocast=autocast))}
    if evaluated is not fit:  # the unlabeled images come after the first fit.fit
        found["fitted"] = _finite(outputs(method, fit, autocast=autocast, first=fit.fit))
    return found


def _finite(result: np.ndarray) -> np.ndarray:
    if not np.isfinite(result).all():
        raise RunFailed("the outputs of the trained method are not finite")
    return result


def sample(method: Method, evaluated: Images, *, autocast: Autocast) -> dict[str, np.ndarray]:
    """sample_rows [s] and sample_features [s, D] (float16) of at most SAMPLE evaluated images, evenly spaced.

    They are the features that k-means sees or, for a method that predicts probabilities, those of its encoder; {} for a
    method without an encoder.
    """
    encoder = getattr(method, "encoder", None)
    if not isinstance(encoder, Encoder):
        return {}
    places = np.linspace(0, len(evaluated) - 1, min(SAMPLE, len(evaluated))).round().astype(np.int64)
    index = torch.from_numpy(places).to(evaluated.pixels.device)
    function = method.assign if method.clusters_by_kmeans else encoder
    most = np.finfo(np.float16).max
    found = _forward(method, function, evaluated, index, autocast).clip(-most, most).astype(np.float16)
    return {"sample_rows": evaluated.rows[places], "sample_features": found}
