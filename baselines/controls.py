"""Controls that bound the scale: chance below, k-means on raw pixels as the field's floor. Neither trains."""

import torch
from pydantic import Field
from torch import Tensor

from scl.config import MethodOptions, Network
from scl.method import Method, Problem


class Random(Method):
    """Every image goes to a cluster at random, evenly: what ACC, NMI and ARI are by chance."""

    def __init__(self, options: MethodOptions, problem: Problem, network: Network):
        super().__init__(options, problem, network)
        self.stream = torch.Generator().manual_seed(torch.initial_seed())  # the loop seeds it by name

    def assign(self, images: Tensor) -> Tensor:
        uniform = torch.rand(len(images), self.problem.clusters, generator=self.stream)
        return torch.softmax(uniform, dim=1).to(images.device)


class PixelOptions(MethodOptions):
    """kmeans_restarts: ours; the published rows do not say (one restart is enough for pixels, see the notes)."""

    kmeans_restarts: int = Field(10, ge=1, le=1000)


class Pixels(Method):
    """k-means on raw pixels in [0, 1] (published on all six benchmarks, PICA's Table 1)."""

    Options = PixelOptions

    @property
    def clusters_by_kmeans(self) -> bool:
        return True

    def assign(self, images: Tensor) -> Tensor:
        return images.flatten(1)  # B x 3HW
