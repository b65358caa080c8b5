"""The augmentations by their names in a configuration: each samples parameters and applies them.

`operation(images, generator, **parameters) -> images`. images: B x 3 x H x W in [0, 1], float32, on any device; the
input is not changed. All randomness comes from `generator`, on the same device; nothing waits for the device. Types and
ranges are checked by scl.augment.build; an operation raises ValueError for a parameter that does not fit the images.
Parameters are described by the lines `name: text` of a docstring. Defaults are torchvision's where it has the
operation.
"""

import functools
import math
from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import AfterValidator, Field
from torch import Tensor
from torch.nn.functional import interpolate, pad

from scl.augment import color, filters, geometry, randaugment

Chance = Annotated[float, Field(ge=0, le=1)]
Side = Annotated[int, Field(ge=1, le=1024)]  # pixels
Strength = Annotated[float, Field(ge=0, le=100)]
Pair = Annotated[tuple[float, float], Field(strict=False)]


def rising(least: float, most: float) -> AfterValidator:
    """Constraint on a Pair: both numbers within least .. most, the second not below the first."""

    def check(pair: tuple[float, float]) -> tuple[float, float]:
        if not least <= pair[0] <= pair[1] <= most:
            raise ValueError(f"must be two increasing numbers within {least} .. {most}, got {list(pair)}")
        return pair

    return AfterValidator(check)


def uniform(generator: torch.Generator, low: float, high: float, *shape: int) -> Tensor:
    """Uniform in [low, high), float32, on the generator's device."""
    return torch.rand(shape, generator=generator, device=generator.device).mul_(high - low).add_(low)


def chance(generator: torch.Generator, probability: float, batch: int) -> Tensor:
    """B booleans, true with `probability`."""
    return torch.rand(batch, generator=generator, device=generator.device) < probability


def random_resized_crop(
    images: Tensor,
    generator: torch.Generator,
    *,
    scale: Annotated[Pair, rising(1e-4, 1)] = (0.08, 1.0),
    ratio: Annotated[Pair, rising(0.01, 100)] = (3 / 4, 4 / 3),
    size: Side | None = None,
) -> Tensor:
    """Crop a random box and resize it to a square, as torchvision's RandomResizedCrop.

    scale: range of the area of the box, as a fraction of the image
    ratio: range of the width of the box divided by its height
    size: pixels per side of the result; null: the height of the image
    """
    boxes = crop_boxes(generator, images.shape, scale=scale, ratio=ratio)
    size = images.shape[2] if size is None else size
    return geometry.crop_resize(images, boxes, size=size)


def crop_boxes(
    generator: torch.Generator, shape: Sequence[int], *, scale: Pair, ratio: Pair, tries: int = 10
) -> Tensor:
    """B x 4 integers (top, left, height, width), with the distribution of torchvision's RandomResizedCrop.

    Area uniform in `scale`, ratio log-uniform; the first of `tries` that fits, else the largest centered box of an
    allowed ratio.
    """
    batch, _, height, width = shape
    least, most = (fraction * height * width for fraction in scale)
    area = uniform(generator, least, most, batch, tries)
    aspect = uniform(generator, math.log(ratio[0]), math.log(ratio[1]), batch, tries).exp_()
    sides = torch.stack([area / aspect, area * aspect], dim=1).sqrt_().round_()  # B x 2 x tries: height, width
    fits = (sides[:, 0] <= height) & (sides[:, 1] <= width) & (sides > 0).all(1)
    some, first = fits.any(1), fits.int().argmax(1)
    sides = sides.gather(2, first[:, None, None].expand(-1, 2, 1))  # B x 2 x 1
    closest = min(max(width / height, ratio[0]), ratio[1])
    box_height = torch.where(some, sides[:, 0, 0], min(height, round(width / closest)))
    box_width = torch.where(some, sides[:, 1, 0], min(width, round(height * closest)))
    spare = torch.stack([height - box_height, width - box_width])  # 2 x B
    place = uniform(generator, 0, 1, 2, batch) * (spare + 1)
    place = torch.minimum(place, spare + 0.5)  # a value just below spare + 1 may be rounded up to it
    corner = torch.where(some, place, spare / 2).floor()
    return torch.stack([*corner, box_height, box_width], dim=1)


def random_crop(
    images: Tensor,
    generator: torch.Generator,
    *,
    padding: Annotated[int, Field(ge=0, le=1024)] = 0,
    size: Side | None = None,
) -> Tensor:
    """Crop a random square window.

    padding: black pixels added on each side before cropping
    size: pixels per side of the window; null: the height of the image
    """
    batch, _, height, width = images.shape
    size = height if size is None else size
    spare = min(height, width) + 2 * padding - size
    if spare < 0:
        raise ValueError(f"size: a window of {size} does not fit into {height} x {width} padded by {padding}")
    if size == height + 2 * padding == width + 2 * padding:
        return images  # there is only one window
    places = [length + 2 * padding - size + 1 for length in (height, width)]
    top, left = (torch.randint(n, (batch,), generator=generator, device=images.device) for n in places)
    side = torch.full_like(top, size)
    padded = pad(images, [padding] * 4)
    return geometry.crop_resize(padded, torch.stack([top, left, side, side], dim=1), size=size)


def resize(images: Tensor, generator: torch.Generator, *, size: Side | None = None) -> Tensor:
    """Resize to a square, bilinear and antialiased.

    size: pixels per side; null: the height of the image
    """
    size = images.shape[2] if size is None else size
    if images.shape[2] == images.shape[3] == size:
        return images
    return interpolate(images, size=(size, size), mode="bilinear", antialias=True)


def flip(images: Tensor, generator: torch.Generator, *, probability: Chance = 0.5) -> Tensor:
    """Mirror images horizontally.

    probability: chance that an image is mirrored
    """
    return color.where(chance(generator, probability, len(images)), lambda chosen: chosen.flip(3), images)


def affine(
    images: Tensor,
    generator: torch.Generator,
    *,
    degrees: Annotated[float, Field(ge=0, le=360)] = 0.0,
    translate: Chance = 0.0,
    scale: Annotated[Pair, rising(0.01, 100)] = (1.0, 1.0),
    shear: Annotated[float, Field(ge=0, le=89)] = 0.0,
) -> Tensor:
    """Rotate, shift, zoom and shear, bilinear, black outside.

    degrees: largest rotation to either side
    translate: largest shift along x and along y, as a fraction of the side; not rounded to pixels, unlike torchvision's
    scale: range of the zoom
    shear: largest shear along x to either side, in degrees
    """
    batch, _, height, width = images.shape
    angle, slant = uniform(generator, -degrees, degrees, batch), uniform(generator, -shear, shear, batch)
    shift = uniform(generator, -translate, translate, 2, batch)
    zoom = uniform(generator, *scale, batch)
    matrices = geometry.inverse_matrices(
        angle, shift[0] * width, shift[1] * height, zoom, slant, torch.zeros_like(slant)
    )
    return geometry.warp(images, matrices)


def color_jitter(
    images: Tensor,
    generator: torch.Generator,
    *,
    brightness: Strength = 0.0,
    contrast: Strength = 0.0,
    saturation: Strength = 0.0,
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.0,
    probability: Chance = 1.0,
) -> Tensor:
    """Change colors in a random order, as torchvision's ColorJitter.

    brightness: its factor is within 1 +- this
    contrast: its factor is within 1 +- this
    saturation: its factor is within 1 +- this
    hue: the hue is turned by at most this to either side, as a fraction of the circle
    probability: chance that an image is changed
    """
    batch = len(images)
    strengths = (brightness, contrast, saturation)
    blends = [uniform(generator, max(0.0, 1 - strength), 1 + strength, batch) for strength in strengths]
    factors = torch.stack([*blends, uniform(generator, -hue, hue, batch)], dim=1)
    order = uniform(generator, 0, 1, batch, 4).argsort(1)
    chosen = chance(generator, probability, batch)
    return color.where(chosen, color.jitter, images, factors, order)


def grayscale(images: Tensor, generator: torch.Generator, *, probability: Chance = 0.2) -> Tensor:
    """Convert images to gray.

    probability: chance that an image is changed
    """
    return color.where(chance(generator, probability, len(images)), color.gray, images)


def noise(images: Tensor, generator: torch.Generator, *, std: Strength = 0.05) -> Tensor:
    """Add normal noise to every value, clamped to [0, 1].

    std: standard deviation of the noise
    """
    values = torch.randn(images.shape, generator=generator, device=images.device)
    return values.mul_(std).add_(images).clamp_(0, 1)


def blur(
    images: Tensor,
    generator: torch.Generator,
    *,
    sigma: Annotated[Pair, rising(0.01, 1000)] = (0.1, 2.0),
    kernel: int = 3,
    probability: Chance = 0.5,
) -> Tensor:
    """Blur with a Gaussian of random width.

    sigma: range of the width, in pixels
    kernel: pixels per side to which the Gaussian is truncated, an odd number; SimCLR: a tenth of the image's side
    probability: chance that an image is blurred
    """
    smallest = min(images.shape[2:])
    if kernel < 1 or kernel % 2 == 0 or kernel // 2 >= smallest:
        raise ValueError(f"kernel: {kernel} must be odd and less than twice the side, {smallest}")
    batch = len(images)
    width = uniform(generator, *sigma, batch)
    function = functools.partial(filters.gaussian_blur, kernel=kernel)
    return color.where(chance(generator, probability, batch), function, images, width)


def scan_strong(
    images: Tensor, generator: torch.Generator, *, operations: Annotated[int, Field(ge=0, le=100)] = 4
) -> Tensor:
    """SCAN's strong augmentation: operations drawn from fourteen with replacement, each of random strength.

    operations: number of operations per image
    """
    batch, device = len(images), images.device
    kinds = torch.randint(len(randaugment.KINDS), (operations, batch), generator=generator, device=device)
    levels = uniform(generator, 0, 1, operations, batch)
    for kind, level in zip(kinds, levels, strict=True):
        images = randaugment.apply(images, kind, randaugment.strength(kind, level))
    return images


def cutout(images: Tensor, generator: torch.Generator, *, largest: Side = 16, fill: Chance = 0.45) -> Tensor:
    """Cut out one square hole per image, centered anywhere, as in SCAN.

    largest: pixels; a side is uniform in 1 .. largest, but reaches side // 2 to each side of the center (1: no hole)
    fill: gray of the hole; 0.45 is the mean of natural images (SCAN: their mean color)
    """
    batch, _, height, width = images.shape
    drawn = uniform(generator, 0, 1, 3, batch)
    reach = ((drawn[0] * largest).floor() + 1).div(2, rounding_mode="floor")
    rows, columns = (geometry.spans(at, reach, length=n) for at, n in ((drawn[1], height), (drawn[2], width)))
    hole = (rows[:, None, :, None] & columns[:, None, None]).float()  # B x 1 x H x W
    return torch.lerp(images, torch.full_like(hole, fill), hole)
