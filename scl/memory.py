"""Instance memory: one unit row and one pseudo class an image; similarities of a batch to all of them."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class InstanceMemory(nn.Module):
    """rows: N x d unit rows; pseudo_classes: N integers. Saved with the weights, so a run resumes exactly."""

    def __init__(self, images: int, dimensions: int, clusters: int, *, momentum: float, temperature: float):
        super().__init__()
        self.clusters, self.momentum, self.temperature = clusters, momentum, temperature
        self.register_buffer("rows", torch.zeros(images, dimensions))
        self.register_buffer("pseudo_classes", torch.zeros(images, dtype=torch.long))

    def similarity(self, z: Tensor, index: Tensor) -> Tensor:
        """[2] p_k(x_i) = sum_{j != i, a_j = k} exp(z_i . m_j / tau) / sum_{j != i} exp(z_i . m_j / tau).

        z: B x d unit rows, index: B positions of the images in memory. Returns B x K, float32.
        Nothing larger than N x B is built: the sums over pseudo classes are one segmented sum of rows. The maximum
        of the exponent, 1 / tau, is subtracted first, so no term overflows.
        """
        batch = len(z)
        logits = (self.rows.to(z.dtype) @ z.T - 1) / self.temperature  # N x B
        logits[index, torch.arange(batch, device=z.device)] = float("-inf")  # j != i
        sums = torch.zeros(self.clusters, batch, dtype=torch.float32, device=z.device)
        sums = sums.index_add(0, self.pseudo_classes, logits.exp().float())  # K x B
        return (sums / sums.sum(0).clamp_min(1e-30)).T

    @torch.no_grad()
    def update(self, index: Tensor, z1: Tensor, z2: Tensor, pseudo_classes: Tensor) -> None:
        """[9] m_i <- normalise(mu m_i + (1 - mu) normalise(z_i(v1) + z_i(v2))), a_i <- y_i."""
        fresh = F.normalize((z1 + z2).float(), dim=1)  # B x d
        mixed = self.momentum * self.rows[index] + (1 - self.momentum) * fresh
        self.rows[index] = F.normalize(mixed, dim=1)
        self.pseudo_classes[index] = pseudo_classes
