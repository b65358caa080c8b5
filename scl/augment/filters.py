"""Blur and sharpen a batch: deterministic, out of place; parameters are tensors with one row per image."""

import torch
from torch import Tensor
from torch.nn.functional import pad


def gaussian_blur(images: Tensor, sigma: Tensor, *, kernel: int) -> Tensor:
    """torchvision's gaussian_blur: sigma[b] pixels, truncated to kernel x kernel (odd), reflected at the border.

    images: B x 3 x H x W. The kernel differs between images, so each axis is a matrix product with a band matrix.
    """
    batch, channels, height, width = images.shape
    reach = kernel // 2
    rows = _bands(sigma, length=height, reach=reach).transpose(1, 2)  # B x H x H + 2 reach
    columns = _bands(sigma, length=width, reach=reach)  # B x W + 2 reach x W
    images = pad(images, [reach] * 4, mode="reflect")
    images = torch.bmm(images.view(batch, -1, width + 2 * reach), columns)
    return torch.matmul(rows[:, None], images.view(batch, channels, height + 2 * reach, width))


def _bands(sigma: Tensor, *, length: int, reach: int) -> Tensor:
    """B x (length + 2 reach) x length: weights of padded pixels in output pixels; columns sum to one."""
    pixels = torch.arange(-reach, length + reach, device=sigma.device)
    distance = pixels[:, None] - torch.arange(length, device=sigma.device)
    weights = torch.exp(-0.5 * (distance / sigma[:, None, None]) ** 2) * (distance.abs() <= reach)
    return weights / weights.sum(1, keepdim=True)


def adjust_sharpness(images: Tensor, factor: Tensor) -> Tensor:
    """Sharpen image b by factor[b]: 0 smooths, 1 changes nothing, above 1 sharpens; as in PIL, the border is kept."""
    inner = images[:, :, 1:-1, 1:-1]
    smooth = images[:, :, :-2] + images[:, :, 1:-1] + images[:, :, 2:]
    smooth = smooth[..., :-2] + smooth[..., 1:-1] + smooth[..., 2:]
    smooth = smooth.add_(inner, alpha=4).div_(13)  # the center weighs 5, its neighbors 1
    result = images.clone()
    result[:, :, 1:-1, 1:-1] += (inner - smooth).mul_((factor - 1)[:, None, None, None])
    return result.clamp_(0, 1)
