"""Instance memory: a unit row and a pseudo class per image; similarities of a batch to all of them.

Numbers in brackets are the equations of docs/methods.md.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scl.engine.class_sums import ClassSums


class InstanceMemory(nn.Module):
    """rows: N x d unit rows; pseudo_classes: N integers in 0..K-1, or K for an image that has not been seen yet.

    They are buffers, so that checkpoints include them.
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

        z: M x d unit rows; index: their M positions in memory. One call for both views is cheaper than two calls.
        Returns M x K in float32 (float64 for float64 z) even under autocast, since exponentials of bfloat16 logits are
        off by several percent. Images not seen yet are excluded. No array is larger than N x M.
        """
        compute = torch.promote_types(z.dtype, torch.float32)
        with torch.autocast(z.device.type, enabled=False):
            sums = ClassSums.apply(
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

        index: M positions in memory. Does not wait for the GPU, unlike torch.bincount; atomic additions are acceptable
        for N values.
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
