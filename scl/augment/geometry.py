"""Geometric operations on a batch: deterministic, out of place; parameters are tensors with one row per image."""

import math

import torch
from torch import Tensor
from torch.nn.functional import grid_sample


def crop_resize(images: Tensor, boxes: Tensor, *, size: int) -> Tensor:
    """Crop every image to its own box and resize the crop to size x size, bilinear and antialiased.

    images: B x 3 x H x W; boxes: B x 4 (top, left, height, width) in pixels. Equal to torchvision's resized_crop with
    antialias on, which only matters where the crop is larger than `size`. Each axis is one small matrix product with a
    tent filter per row, so antialiasing costs nothing extra.
    """
    batch, channels, height, width = images.shape
    boxes = boxes.to(images.dtype)
    weights = _tents(boxes[:, :2], boxes[:, 2:], size=size, length=max(height, width))  # B x 2 x size x length
    rows, columns = weights[:, 0, :, :height], weights[:, 1, :, :width].transpose(1, 2)
    images = torch.bmm(images.reshape(batch, channels * height, width), columns)  # B x 3H x size
    return torch.matmul(rows[:, None], images.view(batch, channels, height, size))


def _tents(start: Tensor, extent: Tensor, *, size: int, length: int) -> Tensor:
    """B x 2 -> B x 2 x size x length: weights of `length` pixels in `size` outputs, each summing to one."""
    steps = torch.arange(max(size, length), device=start.device, dtype=start.dtype) + 0.5
    pixels, outputs = steps[:length], steps[:size, None]
    start, extent = start[:, :, None, None], extent[:, :, None, None]
    scale = extent / size
    distance = (pixels - (start + outputs * scale)).div_(scale.clamp(min=1.0)).abs_()
    inside = (pixels > start) & (pixels < start + extent)
    weights = distance.neg_().add_(1.0).clamp_(min=0.0).mul_(inside)
    return weights.div_(weights.sum(3, keepdim=True))


def inverse_matrices(
    angle: Tensor, shift_x: Tensor, shift_y: Tensor, scale: Tensor, shear_x: Tensor, shear_y: Tensor
) -> Tensor:
    """B x 2 x 3 matrices from output to input pixels, relative to the center.

    Six tensors of B: angles and shears in degrees, shifts in pixels, with the meaning and signs of RandomAffine.
    """
    turn, slant_x, slant_y = (value * (math.pi / 180) for value in (angle, shear_x, shear_y))
    a = torch.cos(turn - slant_y) / torch.cos(slant_y)
    b = -torch.cos(turn - slant_y) * torch.tan(slant_x) / torch.cos(slant_y) - torch.sin(turn)
    c = torch.sin(turn - slant_y) / torch.cos(slant_y)
    d = -torch.sin(turn - slant_y) * torch.tan(slant_x) / torch.cos(slant_y) + torch.cos(turn)
    # forward = shift, then scale * [[a, b], [c, d]], whose determinant is scale^2
    a, b, c, d = d / scale, -b / scale, -c / scale, a / scale
    first = torch.stack([a, b, -a * shift_x - b * shift_y], dim=1)
    second = torch.stack([c, d, -c * shift_x - d * shift_y], dim=1)
    return torch.stack([first, second], dim=1)


def warp(images: Tensor, matrices: Tensor, *, mode: str = "bilinear") -> Tensor:
    """Resample every image by its own inverse matrix, B x 2 x 3 (see inverse_matrices); black outside."""
    height, width = images.shape[2:]
    (a, b, c), (d, e, f) = (row.unbind(1) for row in matrices[:, :, :, None].unbind(1))  # B x 1 each
    x = torch.arange(width, device=images.device) - (width - 1) / 2
    y = torch.arange(height, device=images.device) - (height - 1) / 2
    from_x = (a * x)[:, None] + (b * y + c)[:, :, None]  # B x H x W
    from_y = (d * x)[:, None] + (e * y + f)[:, :, None]
    grid = torch.stack([from_x.mul_(2 / width), from_y.mul_(2 / height)], dim=3)
    return grid_sample(images, grid, mode=mode, padding_mode="zeros", align_corners=False)


def spans(center: Tensor, reach: Tensor, *, length: int) -> Tensor:
    """B x length booleans: [c - reach, c + reach), where c is the pixel at the fraction `center` in [0, 1)."""
    pixels = torch.arange(length, device=center.device)
    center, reach = (center * length).floor()[:, None], reach[:, None]
    return (pixels >= center - reach) & (pixels < center + reach)
