"""SimCLR (Chen et al., ICML 2020) with k-means, in the recipe of SCAN's pretext task (van Gansbeke et al., 2020)."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from scl.contract import Method
from scl.losses import nt_xent
from scl.networks import projection_head
from scl.settings import check_choices, check_ranges


@dataclass(frozen=True)
class Options:
    """Defaults of SCAN's official pretext task, but for kmeans_restarts (ours)."""

    temperature: float = 0.1
    anchors: str = "first"  # official: the first view only | both: the paper's form
    projection_hidden: int = 512
    projection: int = 128
    layer: str = "projection"  # what k-means sees: projection (128-d, CIFAR-10) | encoder (512-d, ImageNet)
    kmeans_restarts: int = 10

    def __post_init__(self):
        check_choices(self, layer=("projection", "encoder"), anchors=("first", "both"))
        check_ranges(self, temperature=(0.001, 1000), projection_hidden=(1, 65_536), projection=(1, 65_536),
                     kmeans_restarts=(1, 1000))


class SimCLR(Method):
    """Instance contrast between two views; clusters are k-means of the normalised features."""

    version = 2
    Options = Options
    augmentations = ("view",)
    uses_unlabelled = True

    def __init__(self, options, problem, network):
        super().__init__(options, problem, network)
        self.encoder = self.encoder_for(network)
        self.projection = projection_head(self.encoder.dimensions, options.projection_hidden, options.projection)

    def pool(self, epoch):
        return self.problem.images + self.problem.unlabelled

    def step(self, views, index):
        z1, z2 = F.normalize(self.projection(self.encoder(torch.cat(views))).float(), dim=1).chunk(2)
        return {"instance": nt_xent(z1, z2, self.options.temperature, anchors=self.options.anchors)}

    @property
    def clusters_by_kmeans(self):
        return True

    def assign(self, images):
        features = self.encoder(images)
        if self.options.layer == "projection":
            features = self.projection(features)
        return F.normalize(features.float(), dim=1)
