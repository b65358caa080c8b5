"""Color operations on a batch in [0, 1]: deterministic, out of place; parameters are tensors with one row per image.

Parameters have the same meaning as in torchvision's transforms.v2.functional, against which they are tested.
"""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)  # rows of `factors`, entries of `order`


def luminance(images: Tensor) -> Tensor:
    """B x 3 x H x W -> B x H x W: gray by ITU-R 601."""
    red, green, blue = images.unbind(1)
    return (red * 0.2989).add_(green, alpha=0.587).add_(blue, alpha=0.114)


def gray(images: Tensor) -> Tensor:
    """B x 3 x H x W: three equal channels."""
    return luminance(images)[:, None].expand(images.shape)


def can_sync(images: Tensor) -> bool:
    """Whether code may branch on values: not on a GPU, which would stall, nor when compiling."""
    return images.device.type == "cpu" and not torch.compiler.is_compiling()


def where(
    mask: Tensor, function: Callable[..., Tensor], images: Tensor, *parameters: Tensor, overwrite: bool = False
) -> Tensor:
    """function(images, *parameters) for images where mask (B) is true, the others unchanged. Parameters: B rows each.

    On the CPU only the selected images are computed, in place if `overwrite`. On a GPU, where counting them would stall
    the stream, all are computed and then selected.
    """
    if not can_sync(images):
        return torch.where(mask[:, None, None, None], function(images, *parameters), images)
    rows = mask.nonzero()[:, 0]
    if len(rows) == len(mask):
        return function(images, *parameters)
    result = images if overwrite else images.clone()
    if len(rows):
        chosen = function(images.index_select(0, rows), *(parameter[rows] for parameter in parameters))
        result.index_copy_(0, rows, chosen)
    return result


def adjust_hue(images: Tensor, shift: Tensor) -> Tensor:
    """Shift the hue of image b by shift[b] of a full circle, in [-0.5, 0.5].

    In HSV each channel is minimum + chroma * tent(hue); saturation and value are never computed.
    """
    red, green, blue = images.unbind(1)  # B x H x W each
    low, high = images.amin(1), images.amax(1)
    chroma = high - low
    is_red, is_green = (high.clone().eq_(red), high.eq_(green))  # 0 or 1: on a CPU, torch.where costs five times lerp
    # hue in sixths of the circle, times chroma; gray pixels have chroma 0 and no hue
    hue = torch.lerp((red - green).add_(chroma, alpha=4), (blue - red).add_(chroma, alpha=2), is_green)
    hue = hue.lerp_(green - blue, is_red).div_(chroma.clamp(min=1e-8)).add_(shift[:, None, None] * 6)
    hue = hue.sub_((hue / 6).floor_(), alpha=6)  # into [0, 6)
    red = (hue - 3).abs_().sub_(1)  # lowest around cyan, 3; green and blue are highest around 2 and 4
    green, blue = (hue - 2).abs_().neg_().add_(2), (hue - 4).abs_().neg_().add_(2)
    tents = torch.stack([red, green, blue], dim=1).clamp_(0, 1)
    return tents.mul_(chroma[:, None]).add_(low[:, None])


def _weights(kind: Tensor, factor: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Weights of the image, its gray and its mean gray in a blend (the rest is black); shapes as kind."""
    rest = 1 - factor
    return factor, rest * (kind == SATURATION), rest * (kind == CONTRAST)


def _blend_(images: Tensor, weights: Iterable[Tensor]) -> Tensor:
    """Blend in place by three weights of B each, clamped to [0, 1]."""
    own, to_gray, to_mean = (weight[:, None, None] for weight in weights)
    gray_plane = luminance(images)
    mean = gray_plane.mean((1, 2), keepdim=True)
    added = torch.addcmul(mean * to_mean, gray_plane, to_gray)  # B x H x W
    return images.mul_(own[:, None]).add_(added[:, None]).clamp_(0, 1)


def adjust(images: Tensor, kind: Tensor, factor: Tensor) -> Tensor:
    """Change brightness, contrast or saturation of image b, as kind[b] says, by factor[b] >= 0."""
    return _blend_(images.clone(), _weights(kind, factor))


def jitter(images: Tensor, factors: Tensor, order: Tensor) -> Tensor:
    """Change brightness, contrast, saturation and hue (columns of factors: B x 4), each image in its own order.

    order: B x 4, a permutation of the four per row. Blends are cheap and hue is expensive: it is computed once for all
    images, and the blend in slot j of the order before it if hue comes later, else after it.
    """
    shift, by_slot = factors[:, HUE], factors.gather(1, order)  # B, B x 4
    turn = (order == HUE).int().argmax(1)  # B: the slot of hue
    sort = can_sync(images)
    if sort:  # by that slot, so that the images to blend are one slice, and no others are computed
        turn, rows = turn.sort()
        images = images.index_select(0, rows)  # five times faster than images[rows]
        shift, by_slot, order = shift[rows], by_slot[rows], order[rows]
        ends = [0, *torch.bincount(turn, minlength=4).cumsum(0).tolist()]  # rows with turn < j end at ends[j]
    else:
        images = images.clone()
    slots, turn = torch.arange(4, device=images.device), turn[:, None]
    before = _weights(order, torch.where(slots < turn, by_slot, 1.0))
    after = _weights(order, torch.where(slots > turn, by_slot, 1.0))
    for slot in (0, 1, 2):
        chosen = slice(ends[slot + 1] if sort else 0, None)
        _blend_(images[chosen], [weight[chosen, slot] for weight in before])
    images = adjust_hue(images, shift)
    for slot in (1, 2, 3):
        chosen = slice(0, ends[slot] if sort else None)
        _blend_(images[chosen], [weight[chosen, slot] for weight in after])
    return images.index_select(0, rows.argsort()) if sort else images
