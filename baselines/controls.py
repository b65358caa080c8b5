"""Controls that bound the scale: chance, and k-means on raw pixels as the usual lower bound. Neither trains."""

import torch
from pydantic import Field
from torch import Tensor

from scl.config import MethodOptions, Network
from scl.method import Method, Problem


class Random(Method):
    """Uniformly random assignments: chance levels of ACC, NMI and ARI."""

    def __init__(self, options: MethodOptions, problem: Problem, network: Network):
        super().__init__(options, problem, network)
        self.stream = torch.Generator().manual_seed(torch.initial_seed())  # seeded by the training loop

    def assign(self, images: Tensor) -> Tensor:
        uniform = torch.rand(len(images), self.problem.clusters, generator=self.stream)
        return torch.softmax(uniform, dim=1).to(images.device)


class PixelOptions(MethodOptions):
    """The default is ours: the published rows do not state it."""

    kmeans_restarts: int = Field(10, ge=1, le=1000)
    """Restarts of k-means; the one with the lowest inertia is kept; ours."""


class Pixels(Method):
    """k-means on raw pixels in [0, 1] (published on all six benchmarks, PICA's Table 1)."""

    Options = PixelOptions
    clusters_by_kmeans = True

    def assign(self, images: Tensor) -> Tensor:
        return images.flatten(1)  # B x 3HW
