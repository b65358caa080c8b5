"""Augmentations of a whole batch on its own device: `operation(images, generator, **parameters) -> images`.

images: B x 3 x H x W in [0, 1], float32 or bfloat16. Every image gets parameters of its own, and all randomness comes
from `generator`, which lives on the same device; nothing waits for the device. An operation here draws parameters;
what they do is in warps.py, colours.py and strong.py, which know no randomness. `build` makes a chain from a configuration:

    augment = build([{"random_resized_crop": {"scale": [0.2, 1.0]}}, {"flip": {}}, {"greyscale": {"probability": 0.2}}])
    views = augment(images, generator)
"""

import difflib
import inspect
import math
import types
import typing

import torch

from scl import colours, warps


def uniform(generator, low, high, *shape):
    """Uniform in [low, high), float32, on the generator's device."""
    return torch.rand(shape, generator=generator, device=generator.device).mul_(high - low).add_(low)


def chance(generator, probability, batch):
    """B booleans, true with `probability`."""
    if not 0 <= probability <= 1:
        raise ValueError(f"probability: {probability} is not in [0, 1]")
    return torch.rand(batch, generator=generator, device=generator.device) < probability


def _pair(name, values, *, least=0.0):
    low, high = values
    if not least < low <= high:
        raise ValueError(f"{name}: [{low}, {high}] must be rising and above {least:g}")
    return low, high


def _at_least(least, **values):
    for name, value in values.items():
        if value < least:
            raise ValueError(f"{name}: {value} is below {least:g}")


def random_resized_crop(
    images,
    generator,
    *,
    scale: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
    size: int | None = None,
):
    """A box of random area (share of the image) and aspect ratio, resized to size x size (default: the height)."""
    boxes = crop_boxes(generator, images.shape, scale=scale, ratio=ratio)
    size = images.shape[2] if size is None else size
    _at_least(1, size=size)
    return warps.crop_resize(images.float(), boxes, size=size).to(images.dtype)


def crop_boxes(generator, shape, *, scale, ratio, tries=10):
    """B x 4 whole numbers (top, left, height, width), drawn as torchvision's RandomResizedCrop draws them.

    Area uniform in `scale`, ratio log-uniform; the first of ten tries that fits, else the largest centred box whose
    ratio is allowed.
    """
    scale, ratio = _pair("scale", scale), _pair("ratio", ratio)
    batch, _, height, width = shape
    area = uniform(generator, *scale, batch, tries).mul_(height * width)
    aspect = uniform(generator, math.log(ratio[0]), math.log(ratio[1]), batch, tries).exp_()
    widths, heights = (area * aspect).sqrt_().round_(), (area / aspect).sqrt_().round_()
    fits = (widths > 0) & (widths <= width) & (heights > 0) & (heights <= height)
    first = fits.int().argmax(1, keepdim=True)
    some = fits.any(1)
    closest = min(max(width / height, ratio[0]), ratio[1])
    box_height = torch.where(some, heights.gather(1, first)[:, 0], min(height, round(width / closest)))
    box_width = torch.where(some, widths.gather(1, first)[:, 0], min(width, round(height * closest)))
    place = uniform(generator, 0, 1, 2, batch)
    spare_height, spare_width = height - box_height, width - box_width
    top = torch.where(some, (place[0] * (spare_height + 1)).floor(), (spare_height / 2).floor())
    left = torch.where(some, (place[1] * (spare_width + 1)).floor(), (spare_width / 2).floor())
    return torch.stack([top, left, box_height, box_width], dim=1)


def random_crop(images, generator, *, padding: int = 0, size: int | None = None):
    """A size x size window (default: the height) of the image padded with `padding` black pixels on each side."""
    batch, _, height, width = images.shape
    size = height if size is None else size
    _at_least(0, padding=padding)
    spare = min(height, width) + 2 * padding - size
    if size < 1 or spare < 0:
        raise ValueError(f"size: a window of {size} does not fit into {height} x {width} padded by {padding}")
    place = uniform(generator, 0, 1, 2, batch)
    top = (place[0] * (height + 2 * padding - size + 1)).long()
    left = (place[1] * (width + 2 * padding - size + 1)).long()
    return warps.shift_crop(images, top, left, size=size, padding=padding)


def flip(images, generator, *, probability: float = 0.5):
    """Left-right mirror image."""
    return colours.where(chance(generator, probability, len(images)), warps.mirror, images)


def affine(
    images,
    generator,
    *,
    degrees: float = 0.0,
    translate: float = 0.0,
    scale: tuple[float, float] = (1.0, 1.0),
    shear: float = 0.0,
):
    """Rotation within +-degrees, shift within +-translate (share of the side), zoom, shear along x within +-degrees.

    Bilinear, black outside. Unlike torchvision's RandomAffine the shift is not rounded to whole pixels.
    """
    _at_least(0, degrees=degrees, translate=translate, shear=shear)
    batch, _, height, width = images.shape
    angle, slant = uniform(generator, -degrees, degrees, batch), uniform(generator, -shear, shear, batch)
    shift = uniform(generator, -translate, translate, 2, batch)
    zoom = uniform(generator, *_pair("scale", scale), batch)
    matrices = warps.inverse_matrices(
        angle, shift[0] * width, shift[1] * height, zoom, slant, torch.zeros_like(slant)
    )
    return warps.warp(images.float(), matrices).to(images.dtype)


def colour_jitter(
    images,
    generator,
    *,
    brightness: float = 0.0,
    contrast: float = 0.0,
    saturation: float = 0.0,
    hue: float = 0.0,
    probability: float = 1.0,
):
    """torchvision's ColorJitter: factors in 1 +- strength (at least 0), hue within +-hue, in an order of its own."""
    _at_least(0, brightness=brightness, contrast=contrast, saturation=saturation, hue=hue)
    if hue > 0.5:
        raise ValueError(f"hue: {hue} is above 0.5, half the circle")
    batch = len(images)
    strengths = (brightness, contrast, saturation)
    factors = [uniform(generator, max(0.0, 1 - strength), 1 + strength, batch) for strength in strengths]
    factors = torch.stack([*factors, uniform(generator, -hue, hue, batch)], dim=1)
    order = uniform(generator, 0, 1, batch, 4).argsort(1)
    chosen = chance(generator, probability, batch)
    return colours.where(chosen, colours.jitter, images.float(), factors, order).to(images.dtype)


def greyscale(images, generator, *, probability: float = 0.2):
    """Three equal channels."""
    return colours.where(chance(generator, probability, len(images)), colours.grey, images)


def noise(images, generator, *, std: float = 0.05):
    """Normal noise on every value, clamped to [0, 1]."""
    _at_least(0, std=std)
    values = torch.randn(images.shape, generator=generator, device=images.device)
    return values.mul_(std).add_(images).clamp_(0, 1).to(images.dtype)


OPERATIONS = {
    function.__name__: function
    for function in (random_resized_crop, random_crop, flip, affine, colour_jitter, greyscale, noise)
}


def build(spec):
    """A list of {operation: {parameter: value}} -> a callable (images, generator) -> images that applies them in order.

    Unknown operations and parameters, values of another type and values out of range raise ValueError: each operation
    is tried on one small black image at once, so that a plan fails before its first run.
    """
    if not isinstance(spec, (list, tuple)):
        raise ValueError(f"augmentation: expected a list of operations, found {spec!r}")
    steps = [_step(entry) for entry in spec]

    @torch.no_grad()
    def augment(images, generator):
        with torch.autocast(images.device.type, enabled=False):
            result = images.float().contiguous()  # colour works on planes; bfloat16 is too coarse for hue
            for function, parameters in steps:
                result = function(result, generator, **parameters)
        return result.to(images.dtype)

    return augment


def _step(entry):
    """{operation: {parameter: value}} -> (function, parameters), or ValueError."""
    if not isinstance(entry, dict) or len(entry) != 1:
        raise ValueError(f"augmentation: expected one {{operation: {{parameter: value}}}}, found {entry!r}")
    ((name, parameters),) = entry.items()
    if name not in OPERATIONS:
        raise ValueError(f"augmentation: unknown operation '{name}'{_nearest(name, OPERATIONS)}")
    function, parameters = OPERATIONS[name], parameters or {}
    if not isinstance(parameters, dict):
        raise ValueError(f"{name}: expected {{parameter: value}}, found {parameters!r}")
    known = {
        key: p.annotation
        for key, p in inspect.signature(function).parameters.items()
        if p.kind == p.KEYWORD_ONLY
    }
    for key, value in parameters.items():
        if key not in known:
            raise ValueError(f"{name}: unknown parameter '{key}'{_nearest(key, known)}")
        if not _is_a(value, known[key]):
            raise ValueError(f"{name}: {key}: expected {_words(known[key])}, found {value!r}")
    try:
        function(torch.zeros(1, 3, 8, 8), torch.Generator().manual_seed(0), **parameters)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    return function, parameters


def _nearest(name, known):
    close = difflib.get_close_matches(str(name), list(known), n=1, cutoff=0.0)
    return f"; did you mean '{close[0]}'?" if close else "; it takes none"


def _is_a(value, wanted):
    if isinstance(wanted, types.UnionType):
        return any(_is_a(value, part) for part in typing.get_args(wanted))
    if typing.get_origin(wanted) is tuple:
        parts = typing.get_args(wanted)
        fits = isinstance(value, (list, tuple)) and len(value) == len(parts)
        return fits and all(_is_a(item, part) for item, part in zip(value, parts, strict=True))
    if isinstance(value, bool):
        return False
    if wanted is float:
        return isinstance(value, (int, float)) and math.isfinite(value)
    return isinstance(value, wanted)


def _words(wanted):
    return {float: "a number", int: "a whole number"}.get(
        wanted, str(wanted).replace("tuple", "").replace("float", "number").replace("int", "a whole number")
    )
