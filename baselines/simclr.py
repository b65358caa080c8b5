"""SimCLR (Chen et al., ICML 2020) with k-means, in the recipe of SCAN's pretext task (van Gansbeke et al., 2020)."""

from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from scl.config import MethodOptions, Network
from scl.losses import nt_xent
from scl.method import Method, Problem
from scl.networks import projection_head


class Options(MethodOptions):
    """Defaults of SCAN's official pretext task, but for kmeans_restarts (ours)."""

    temperature: float = Field(0.1, ge=0.001, le=1000)
    anchors: Literal["first", "both"] = "first"  # official: the first view only | the paper's form
    projection_hidden: int = Field(512, ge=1, le=65_536)
    projection: int = Field(128, ge=1, le=65_536)
    layer: Literal["projection", "encoder"] = "projection"  # for k-means: 128-d (CIFAR-10) | 512-d (ImageNet)
    kmeans_restarts: int = Field(10, ge=1, le=1000)


class SimCLR(Method):
    """Instance contrast between two views; clusters are k-means of the normalized features.

    Starts from random weights, or from a pretrained encoder where the configuration says `after`.
    """

    version = 2
    Options = Options
    augmentations = ("view",)
    follows = ("encoder",)
    uses_unlabeled = True

    def __init__(self, options: Any, problem: Problem, network: Network):
        super().__init__(options, problem, network)
        self.encoder = self.encoder_for(network)
        self.projection = projection_head(self.encoder.dimensions, options.projection_hidden, options.projection)

    def pool(self, epoch: int) -> int:
        return self.problem.images + self.problem.unlabeled

    def step(self, views: tuple[Tensor, ...], index: Tensor) -> dict[str, Tensor]:
        z1, z2 = F.normalize(self.projection(self.encoder(torch.cat(views))).float(), dim=1).chunk(2)
        return {"instance": nt_xent(z1, z2, self.options.temperature, anchors=self.options.anchors)}

    @property
    def clusters_by_kmeans(self) -> bool:
        return True

    def assign(self, images: Tensor) -> Tensor:
        features = self.encoder(images)
        if self.options.layer == "projection":
            features = self.projection(features)
        return F.normalize(features.float(), dim=1)
