"""Sums of exponential similarities by pseudo class, with their gradient: the expensive part of SCL's memory.

Costs and alternatives: docs/decisions/engine.md.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


class ClassSums(torch.autograd.Function):
    """S_km = sum_{j != i_m, a_j = k} w_jm with w_jm = exp((z_m . m_j - 1) / tau), which cannot overflow.

    dS_km / dz_m is the sum over a_j = k of w_jm m_j / tau: backward scales w by the gradient of each row's class (a
    gather), then multiplies once. In total, that is two products and two passes over N x M; autograd's own graph takes
    six passes and holds four such arrays.
    """

    @staticmethod
    def forward(
        ctx: Any,
        z: Tensor,
        rows: Tensor,
        classes: Tensor,
        index: Tensor,
        clusters: int,
        temperature: float,
        spare: list[Tensor],
    ) -> Tensor:
        """z: M x d, rows: N x d, classes: N in 0..K, index: M. Returns K x M; rows of class K are ignored.

        spare: N x M arrays that may be overwritten; backward adds its own.
        """
        keys = (z / temperature).T.contiguous()  # d x M
        weights = _taken(spare, z, (len(rows), len(z)))  # N x M
        sums = z.new_zeros(clusters + 1, len(z))
        column = torch.arange(len(z), device=z.device)
        for part in _parts(rows):
            w = weights[part]
            torch.mm(rows[part], keys, out=w).sub_(1 / temperature).exp_()
            own = index - part.start  # the row of the image itself, if it is in this part
            inside = own.clamp(0, len(w) - 1)
            w[inside, column] = w[inside, column] * (inside != own)
            add_by_class(sums, classes[part], w)
        ctx.save_for_backward(weights, rows, classes)
        ctx.temperature, ctx.spare = temperature, spare
        return sums[:clusters]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        weights, rows, classes = ctx.saved_tensors
        gradient = F.pad(gradient, (0, 0, 0, 1))  # K + 1 x M
        dz = rows.new_zeros(weights.shape[1], rows.shape[1])
        for part in _parts(rows):
            dz += gradient.index_select(0, classes[part]).mul_(weights[part]).T @ rows[part]  # M x d
        ctx.spare[:] = [weights]
        return dz / ctx.temperature, None, None, None, None, None, None


def _taken(spare: list[Tensor], like: Tensor, shape: tuple[int, int]) -> Tensor:
    """An uninitialized array of `shape`: the one in `spare`, which is then empty, or a new one."""
    while spare:
        array = spare.pop()
        if (array.shape, array.dtype, array.device) == (shape, like.dtype, like.device):
            return array
    return like.new_empty(shape)


def _parts(rows: Tensor) -> list[slice]:
    """Slices of the rows whose similarities fit in a CPU's cache (2 MB for 512 columns); on a GPU, a single slice."""
    length = 1024 if rows.device.type == "cpu" else len(rows)
    return [slice(start, min(start + length, len(rows))) for start in range(0, len(rows), length)]


def add_by_class(sums: Tensor, classes: Tensor, weights: Tensor) -> None:
    """sums[k] += the sum of the rows of `weights` (n x M) of class k.

    On a GPU, by a product with one-hot classes, since atomic additions to a few addresses would be serialized.
    """
    if weights.device.type == "cpu":
        sums.index_add_(0, classes, weights)
    else:
        one_hot = classes == torch.arange(len(sums), device=classes.device)[:, None]  # K x n
        sums += one_hot.to(weights.dtype) @ weights
