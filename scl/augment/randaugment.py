"""SCAN's fourteen operations on a batch, deterministic: each image under its own operation and strength.

They form four families; within a family, the operation is only a parameter, so that little computation is wasted:
geometry is one affine resampling (nearest, as PIL's default, black outside), color is one blend, sharpness one filter,
and the rest are tables of 256 entries per channel, on 8-bit values as in PIL. Names, order and ranges are those of
data/augment.py in SCAN's official code (van Gansbeke et al., ECCV 2020).
"""

import functools
import math

import torch
from torch import Tensor

from scl.augment import color, filters, geometry

RANGES = {  # ordered by family
    "identity": (0.0, 0.0),
    "rotate": (-30.0, 30.0),  # degrees, counter-clockwise
    "shear_x": (-0.1, 0.1),
    "shear_y": (-0.1, 0.1),
    "translate_x": (-0.1, 0.1),  # fraction of the side
    "translate_y": (-0.1, 0.1),
    "color": (0.05, 0.95),  # 1 is the image
    "contrast": (0.05, 0.95),
    "brightness": (0.05, 0.95),
    "sharpness": (0.05, 0.95),
    "autocontrast": (0.0, 0.0),
    "equalize": (0.0, 0.0),
    "solarize": (0.0, 256.0),  # inverts values of at least this
    "posterize": (4.0, 8.0),  # bits kept, rounded down
}
KINDS = {name: number for number, name in enumerate(RANGES)}


@functools.cache
def _ranges(device: torch.device) -> Tensor:
    return torch.tensor(list(RANGES.values()), device=device)  # 14 x 2; cached, since a copy to a GPU waits for it


def strength(kind: Tensor, level: Tensor) -> Tensor:
    """The strength of operation kind[b] at level[b] in [0, 1] of its range."""
    low, high = _ranges(kind.device)[kind].unbind(1)
    return low + (high - low) * level


def apply(images: Tensor, kind: Tensor, value: Tensor) -> Tensor:
    """Operation kind[b] (a number of KINDS) with strength value[b] on image b. images: B x 3 x H x W."""
    images = images.clone()
    for first, last, function in (
        ("rotate", "translate_y", _move),
        ("color", "brightness", _tint),
        ("sharpness", "sharpness", lambda images, _, value: filters.adjust_sharpness(images, value)),
        ("autocontrast", "posterize", _look_up),
    ):
        member = (kind >= KINDS[first]) & (kind <= KINDS[last])
        images = color.where(member, function, images, kind, value, overwrite=True)
    return images


def _move(images: Tensor, kind: Tensor, value: Tensor) -> Tensor:
    height, width = images.shape[2:]
    amount = {name: torch.where(kind == KINDS[name], value, 0.0) for name in list(KINDS)[1:6]}
    angle = amount["rotate"] * (math.pi / 180)
    cosine, sine = torch.cos(angle), torch.sin(angle)
    # from output to input, about the center; PIL's shears leave the top left corner in place
    shift_x = amount["shear_x"] * (height / 2) + amount["translate_x"] * width
    shift_y = amount["shear_y"] * (width / 2) + amount["translate_y"] * height
    first = torch.stack([cosine, amount["shear_x"] - sine, shift_x], dim=1)
    second = torch.stack([amount["shear_y"] + sine, cosine, shift_y], dim=1)
    return geometry.warp(images, torch.stack([first, second], dim=1), mode="nearest")


def _tint(images: Tensor, kind: Tensor, value: Tensor) -> Tensor:
    blend = torch.where(kind == KINDS["contrast"], color.CONTRAST, color.BRIGHTNESS)
    return color.adjust(images, torch.where(kind == KINDS["color"], color.SATURATION, blend), value)


def _look_up(images: Tensor, kind: Tensor, value: Tensor) -> Tensor:
    levels = (images * 255).round_().long().flatten(2)  # B x 3 x HW
    counts = torch.zeros(*levels.shape[:2], 256, dtype=torch.int64, device=images.device)
    counts.scatter_add_(2, levels, torch.ones_like(levels))
    tables = _tables(counts, kind, value)
    return tables.gather(2, levels).view(images.shape)


def _tables(counts: Tensor, kind: Tensor, value: Tensor) -> Tensor:
    """B x 3 x 256: what each 8-bit value becomes, in [0, 1], by the counts of values in each channel."""
    levels = torch.arange(256, device=counts.device)
    kind, value = kind[:, None, None], value[:, None, None]
    used = counts > 0
    least, most = used.int().argmax(2, keepdim=True), 255 - used.flip(2).int().argmax(2, keepdim=True)
    stretched = ((levels - least) * 255 / (most - least)).floor().clamp(0, 255)
    stretched = torch.where(most > least, stretched, levels)
    below = counts.cumsum(2) - counts
    step = (below.gather(2, most)).div(255, rounding_mode="floor")  # all pixels but those of the greatest value
    flat = ((below + step.div(2, rounding_mode="floor")) / step.clamp(min=1)).floor().clamp(max=255)
    flat = torch.where(step > 0, flat, levels)
    solar = torch.where(levels < value, levels, 255 - levels)
    width = torch.exp2(8 - value.floor())
    coarse = (levels / width).floor() * width
    tables = torch.where(kind == KINDS["autocontrast"], stretched, coarse)
    tables = torch.where(kind == KINDS["equalize"], flat, tables)
    return torch.where(kind == KINDS["solarize"], solar, tables) / 255
