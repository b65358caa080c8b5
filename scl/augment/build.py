"""Augmentation of a whole batch on its own device, from a configuration's list of operations.

    augment = build([{"random_resized_crop": {"scale": [0.2, 1.0]}}, {"flip": {}}], size=32)
    views = augment(images, generator)

images: B x 3 x H x W in [0, 1], float32 or bfloat16; every image gets parameters of its own, all of them from
`generator`, a torch.Generator on the device of the images. The operations are in operations.py. Why they are
ours and not a library's: docs/decisions/augmentation.md.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import torch
from pydantic import create_model
from torch import Tensor

from scl.augment import operations
from scl.config import Settings, read
from scl.util.text import did_you_mean, shown

OPERATIONS: dict[str, Callable[..., Tensor]] = {
    function.__name__: function
    for function in (
        operations.random_resized_crop,
        operations.random_crop,
        operations.resize,
        operations.flip,
        operations.affine,
        operations.color_jitter,
        operations.grayscale,
        operations.blur,
        operations.noise,
        operations.scan_strong,
        operations.cutout,
    )
}


def build(spec: Any, size: int | None = None) -> Callable[[Tensor, torch.Generator], Tensor]:
    """A list of {operation: {parameter: value}} -> a callable (images, generator) -> images, in that order.

    size: pixels a side of the images; with it the operations are tried at once, one after the other, on a black image
    of that size, so that a plan fails before its first run. Unknown operations and parameters, values of another type
    and values out of range raise ValueError.
    """
    if not isinstance(spec, list):
        raise ValueError(f"must be a list of operations, got {shown(spec)}")
    steps = [_step(entry) for entry in spec]
    if size is not None:
        _try(steps, size)

    @torch.no_grad()
    def augment(images: Tensor, generator: torch.Generator) -> Tensor:
        with torch.autocast(images.device.type, enabled=False):
            result = images.float().contiguous()  # color works on planes, and bfloat16 is too coarse for hue
            for function, parameters in steps:
                result = function(result, generator, **parameters)
        return result.to(images.dtype)

    return augment


@torch.no_grad()
def _try(steps: list[tuple[Callable[..., Tensor], dict[str, Any]]], size: int) -> None:
    image, generator = torch.zeros(1, 3, size, size), torch.Generator().manual_seed(0)
    for function, parameters in steps:
        try:
            image = function(image, generator, **parameters)
        except ValueError as error:
            raise ValueError(f"{function.__name__}.{error}") from None


def _step(entry: Any) -> tuple[Callable[..., Tensor], dict[str, Any]]:
    """{operation: {parameter: value}} -> (function, parameters), or ValueError."""
    if not (isinstance(entry, dict) and len(entry) == 1):
        raise ValueError(f"must be one operation and its parameters, such as {{flip: {{}}}}, got {shown(entry)}")
    ((name, given),) = entry.items()
    if name not in OPERATIONS:
        raise ValueError(f"{shown(name)} is no operation{did_you_mean(name, OPERATIONS)}")
    function = OPERATIONS[name]
    return function, dict(read(parameters_of(function), {} if given is None else given, name))


@functools.cache
def parameters_of(function: Callable[..., Tensor]) -> type[Settings]:
    """The parameters of an operation as a model: names, types, ranges and defaults of its signature."""
    parameters = inspect.signature(function).parameters.values()
    fields: dict[str, Any] = {p.name: (p.annotation, p.default) for p in parameters if p.kind == p.KEYWORD_ONLY}
    return create_model(function.__name__, __base__=Settings, **fields)
