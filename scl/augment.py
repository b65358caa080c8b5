"""Augmentation of a whole batch on its own device, from a configuration's list of operations.

    augment = build([{"random_resized_crop": {"scale": [0.2, 1.0]}}, {"flip": {}}], size=32)
    views = augment(images, generator)

images: B x 3 x H x W in [0, 1], float32 or bfloat16; every image gets parameters of its own, all of them from
`generator`, a torch.Generator on the device of the images. The operations are in operations.py. Why they are
ours and not a library's: docs/decisions/augmentation.md.
"""

import inspect

import torch

from scl import operations
from scl.settings import convert
from scl.text import did_you_mean, shown

OPERATIONS = {
    function.__name__: function
    for function in (
        operations.random_resized_crop,
        operations.random_crop,
        operations.resize,
        operations.flip,
        operations.affine,
        operations.colour_jitter,
        operations.greyscale,
        operations.blur,
        operations.noise,
        operations.scan_strong,
        operations.cutout,
    )
}


def build(spec, size: int | None = None):
    """A list of {operation: {parameter: value}} -> a callable (images, generator) -> images, in that order.

    size: pixels a side of the images; with it the operations are tried at once, one after the other, on a black image
    of that size, so that a plan fails before its first run. Unknown operations and parameters, values of another type
    and values out of range raise ValueError.
    """
    steps = [_step(entry) for entry in convert(spec, list, "augmentation")]
    if size is not None:
        _try(steps, size)

    @torch.no_grad()
    def augment(images, generator):
        with torch.autocast(images.device.type, enabled=False):
            result = images.float().contiguous()  # colour works on planes, and bfloat16 is too coarse for hue
            for function, parameters in steps:
                result = function(result, generator, **parameters)
        return result.to(images.dtype)

    return augment


@torch.no_grad()
def _try(steps, size: int) -> None:
    image, generator = torch.zeros(1, 3, size, size), torch.Generator().manual_seed(0)
    for function, parameters in steps:
        try:
            image = function(image, generator, **parameters)
        except ValueError as error:
            raise ValueError(f"{function.__name__}.{error}") from None


def _step(entry):
    """{operation: {parameter: value}} -> (function, parameters), or ValueError."""
    entry = convert(entry, dict, "augmentation")
    if len(entry) != 1:
        raise ValueError(f"augmentation: expected one operation, got {shown(entry)}")
    ((name, given),) = entry.items()
    if name not in OPERATIONS:
        raise ValueError(f"augmentation: unknown operation '{name}'{did_you_mean(name, OPERATIONS)}")
    function = OPERATIONS[name]
    known = inspect.signature(function).parameters.values()
    hints = {
        parameter.name: parameter.annotation
        for parameter in known
        if parameter.kind == parameter.KEYWORD_ONLY
    }
    parameters = {}
    for key, value in convert({} if given is None else given, dict, name).items():
        if key not in hints:
            raise ValueError(f"{name}.{key}: unknown parameter{did_you_mean(key, hints)}")
        parameters[key] = convert(value, hints[key], f"{name}.{key}")
    return function, parameters
