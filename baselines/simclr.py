"""SimCLR: A Simple Framework for Contrastive Learning of Visual Representations (Chen et al., ICML 2020), with k-means.

Paper: https://arxiv.org/abs/2002.05709. Settings are those of SCAN's pretext task (https://arxiv.org/abs/2005.12320).
"""

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
    """Defaults of SCAN's official pretext task, except for kmeans_restarts (ours)."""

    temperature: float = Field(0.1, ge=0.001, le=1000)
    """Temperature tau of NT-Xent (equation 1); official."""
    anchors: Literal["first", "both"] = "first"
    """Views that serve as anchors of NT-Xent: the first only (official) or both (paper)."""
    projection_hidden: int = Field(512, ge=1, le=65_536)
    """Hidden units of the projection head; official."""
    projection: int = Field(128, ge=1, le=65_536)
    """Outputs of the projection head; official."""
    layer: Literal["projection", "encoder"] = "projection"
    """Input of k-means: the 128-d projection (SCAN's authors on CIFAR-10) or encoder features (on ImageNet)."""
    kmeans_restarts: int = Field(10, ge=1, le=1000)
    """Restarts of k-means; the one with the lowest inertia is kept; ours."""


class SimCLR(Method):
    """Instance contrast between two views; clusters are k-means of the normalized features.

    Starts from random weights, or from a pretrained encoder where the configuration says `after`.
    """

    version = 2
    Options = Options
    augmentations = ("view",)
    follows = ("encoder",)
    uses_unlabeled = True
    clusters_by_kmeans = True

    def __init__(self, options: Any, problem: Problem, network: Network):
        super().__init__(options, problem, network)
        self.encoder = self.encoder_for(network)
        self.projection = projection_head(self.encoder.dimensions, options.projection_hidden, options.projection)

    def step(self, views: tuple[Tensor, ...], index: Tensor) -> dict[str, Tensor]:
        z1, z2 = F.normalize(self.projection(self.encoder(torch.cat(views))).float(), dim=1).chunk(2)
        return {"instance": nt_xent(z1, z2, self.options.temperature, anchors=self.options.anchors)}

    def assign(self, images: Tensor) -> Tensor:
        features = self.encoder(images)
        if self.options.layer == "projection":
            features = self.projection(features)
        return F.normalize(features.float(), dim=1)
