"""Instance memory: a unit row and a pseudo class per image; similarities of a batch to all of them.

Costs and alternatives: docs/decisions/engine.md. Numbers in brackets are the equations of docs/methods.md.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class InstanceMemory(nn.Module):
    """rows: N x d unit rows; pseudo_classes: N integers in 0..K-1, or K for an image that has not been seen yet.

    Buffers, so that a resumed run has them.
    """

    rows: Tensor
    pseudo_classes: Tensor

    def __init__(self, images: int, dimensions: int, clusters: int, *, momentum: float, temperature: float):
        super().__init__()
        self.clusters, self.momentum, self.temperature = clusters, momentum, temperature
        self.register_buffer("rows", torch.zeros(images, dimensions))
        self.register_buffer("pseudo_classes", torch.full((images,), clusters))
        self.spare: list[Tensor] = []  # the N x M weights of the last step, to reuse their memory pages

    @property
    def filled(self) -> Tensor:
        """Which images have been seen: N booleans."""
        return self.pseudo_classes < self.clusters

    def similarity(self, z: Tensor, index: Tensor) -> Tensor:
        """[2] p_k(x_i) = sum_{j != i, a_j = k} exp(z_i . m_j / tau) / sum_{j != i} exp(z_i . m_j / tau).

        z: M x d unit rows; index: their M positions in memory. Both views in one call are cheaper than two calls.
        Returns M x K in float32 (float64 for such z) also under autocast, since exponentials of logits in bfloat16 are
        off by percents. Images not seen yet are left out. Nothing larger than N x M is built.
        """
        compute = torch.promote_types(z.dtype, torch.float32)
        with torch.autocast(z.device.type, enabled=False):
            sums = _ClassSums.apply(
                z.to(compute),
                self.rows.to(compute),
                self.pseudo_classes,
                index,
                self.clusters,
                self.temperature,
                self.spare,
            )  # K x M
        return (sums / sums.sum(0).clamp_min(1e-30)).T

    def others(self, index: Tensor) -> Tensor:
        """How many other images each pseudo class has, |{j != i, a_j = k}|: M x K in float32.

        index: M positions in memory. Nothing waits for a GPU, as torch.bincount would; N additions may be atomic there.
        """
        counts = self.rows.new_zeros(self.clusters + 1)
        counts.index_add_(0, self.pseudo_classes, self.rows.new_ones(len(self.rows)))
        own = F.one_hot(self.pseudo_classes[index], self.clusters + 1)
        return (counts - own)[:, : self.clusters]

    @torch.no_grad()
    def update(self, index: Tensor, z1: Tensor, z2: Tensor, pseudo_classes: Tensor) -> None:
        """[9] m_i <- normalize(mu m_i + (1 - mu) normalize(z_i(v1) + z_i(v2))), a_i <- y_i."""
        fresh = F.normalize((z1 + z2).float(), dim=1)  # B x d
        mixed = self.momentum * self.rows[index] + (1 - self.momentum) * fresh
        self.rows[index] = F.normalize(mixed, dim=1)
        self.pseudo_classes[index] = pseudo_classes


class _ClassSums(torch.autograd.Function):
    """S_km = sum_{j != i_m, a_j = k} w_jm with w_jm = exp((z_m . m_j - 1) / tau), which cannot overflow.

    dS_km / dz_m is the sum over a_j = k of w_jm m_j / tau: backward weighs w by the gradient of each row's class (a
    gather) and multiplies once. That makes two products and two passes over N x M in all; autograd's own graph takes
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
        """z: M x d, rows: N x d, classes: N in 0..K, index: M. Returns K x M; rows of class K count nowhere.

        spare: N x M arrays that may be overwritten; backward puts its own there.
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
            _add_by_class(sums, classes[part], w)
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
    """An array of `shape` with any content: the one in `spare`, which is then empty, or a new one."""
    while spare:
        array = spare.pop()
        if (array.shape, array.dtype, array.device) == (shape, like.dtype, like.device):
            return array
    return like.new_empty(shape)


def _parts(rows: Tensor) -> list[slice]:
    """The rows in parts whose similarities fit in a CPU's cache (2 MB for 512 columns); on a GPU all at once."""
    length = 1024 if rows.device.type == "cpu" else len(rows)
    return [slice(start, min(start + length, len(rows))) for start in range(0, len(rows), length)]


def _add_by_class(sums: Tensor, classes: Tensor, weights: Tensor) -> None:
    """sums[k] += the sum of the rows of `weights` (n x M) of class k.

    On a GPU by a product with one-hot classes, since atomic additions to few addresses would queue.
    """
    if weights.device.type == "cpu":
        sums.index_add_(0, classes, weights)
    else:
        one_hot = classes == torch.arange(len(sums), device=classes.device)[:, None]  # K x n
        sums += one_hot.to(weights.dtype) @ weights
