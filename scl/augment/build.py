"""Augmentation of a whole batch on its own device, from the list of operations in a configuration.

    augment = build([{"random_resized_crop": {"scale": [0.2, 1.0]}}, {"flip": {}}], size=32)
    views = augment(images, generator)

images: B x 3 x H x W in [0, 1], float32 or bfloat16; generator: on their device; each image gets its own parameters
from it. Why no library is used: docs/decisions/augmentation.md.
"""

import functools
import inspect
import re
from collections.abc import Callable
from typing import Any

import torch
from pydantic import Field, create_model
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
    """A list of {operation: {parameter: value}} -> a callable (images, generator) -> images that applies them in order.

    size: pixels per side of the images; if given, the operations are tried on a black image, so that a plan fails
    before its first run. Raises ValueError for unknown operations and parameters and for values of a wrong type or
    range.
    """
    if not isinstance(spec, list):
        raise ValueError(f"must be a list of operations, got {shown(spec)}")
    steps = [_step(entry) for entry in spec]

    @torch.no_grad()
    def augment(images: Tensor, generator: torch.Generator) -> Tensor:
        with torch.autocast(images.device.type, enabled=False):
            result = images.float().contiguous()  # color needs contiguous planes, and bfloat16 is too coarse for hue
            for function, parameters in steps:
                try:
                    result = function(result, generator, **parameters)
                except ValueError as error:
                    raise ValueError(f"{function.__name__}.{error}") from None
        return result.to(images.dtype)

    if size is not None:
        augment(torch.zeros(1, 3, size, size), torch.Generator().manual_seed(0))
    return augment


def _step(entry: Any) -> tuple[Callable[..., Tensor], dict[str, Any]]:
    """{operation: {parameter: value}} -> (function, parameters). Raises ValueError."""
    if not (isinstance(entry, dict) and len(entry) == 1):
        raise ValueError(f"must be one operation and its parameters, such as {{flip: {{}}}}, got {shown(entry)}")
    ((name, given),) = entry.items()
    if name not in OPERATIONS:
        raise ValueError(f"unknown operation {shown(name)}{did_you_mean(name, OPERATIONS)}")
    function = OPERATIONS[name]
    return function, dict(read(parameters_of(function), {} if given is None else given, name))


@functools.cache
def parameters_of(function: Callable[..., Tensor]) -> type[Settings]:
    """The parameters of an operation as a model, from its signature and the lines `name: text` of its docstring."""
    text = dict(re.findall(r"^(\w+): (.+)$", inspect.getdoc(function) or "", re.MULTILINE))
    parameters = [p for p in inspect.signature(function).parameters.values() if p.kind == p.KEYWORD_ONLY]
    fields: dict[str, Any] = {
        p.name: (p.annotation, Field(p.default, description=text.get(p.name))) for p in parameters
    }
    return create_model(function.__name__, __base__=Settings, **fields)
