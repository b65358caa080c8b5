"""SCAN: Learning to Classify Images without Labels (van Gansbeke et al., ECCV 2020).

Paper: https://arxiv.org/abs/2005.12320. Two stages after SimCLR: clustering by nearest neighbors (`SCAN`), then
self-labeling (`SelfLabel`).
"""

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from scl.config import MethodOptions, Network
from scl.engine.precision import float32
from scl.images import Images
from scl.losses import TINY, entropy
from scl.method import Method, Problem, augmented
from scl.networks import projection_head


class ClusteringOptions(MethodOptions):
    """Defaults of the official CIFAR-10 configuration."""

    neighbors: int = Field(20, ge=1, le=10_000)
    """Nearest neighbors mined for each image; official."""
    entropy_weight: float = Field(5.0, ge=0, le=1e6)
    """Weight lambda of the entropy (equation 2); official."""
    projection_hidden: int = Field(512, ge=1, le=65_536)
    """Hidden units of the projection head, as in the SimCLR run this stage starts from; official."""
    projection: int = Field(128, ge=1, le=65_536)
    """Outputs of the projection head, as in that SimCLR run; neighbors are mined in them; official."""


class SCAN(Method):
    """Clustering step: an image and each of its nearest neighbors belong to the same cluster (section 2.2)."""

    version = 2
    Options = ClusteringOptions
    augmentations = ("strong",)
    follows = ("encoder", "projection")
    neighbors: Tensor

    def __init__(self, options: ClusteringOptions, problem: Problem, network: Network):
        super().__init__(options, problem, network)
        self.encoder = self.encoder_for(network)
        self.projection = projection_head(self.encoder.dimensions, options.projection_hidden, options.projection)
        self.projection.requires_grad_(False)  # used only to find neighbors
        self.head = nn.Linear(self.encoder.dimensions, problem.clusters)
        self.register_buffer("neighbors", torch.zeros(problem.images, options.neighbors + 1, dtype=torch.long))

    @torch.no_grad()
    def prepare(self, images: Images, generator: torch.Generator) -> None:
        """Mine the neighbors by SimCLR's outputs in float32: N x (1 + neighbors), each row starting with the image
        itself, as in the official code."""
        if self.options.neighbors >= images.fit:
            raise ValueError(f"options.neighbors: must be less than the number of images, {images.fit}; lower it")
        self.eval()
        device = images.pixels.device
        with float32(device.type):
            z = [
                F.normalize(self.projection(self.encoder(images.batch(index))), dim=1)
                for index in torch.arange(images.fit, device=device).split(512)
            ]
        self.neighbors.copy_(nearest(torch.cat(z), self.options.neighbors))

    def draw(self, images: Images, index: Tensor, augment: dict, generator: torch.Generator) -> tuple[Tensor, ...]:
        """The images and one neighbor of each, drawn uniformly from its row."""
        column = torch.randint(self.neighbors.shape[1], index.shape, generator=generator, device=index.device)
        neighbor = self.neighbors[index, column]
        return augmented(augment["strong"], (images.batch(index), images.batch(neighbor)), generator)

    def step(self, views: tuple[Tensor, ...], index: Tensor) -> dict[str, Tensor]:
        anchor, neighbor = (self.head(self.encoder(view)) for view in views)  # each with its own batch statistics
        consistency, spread = scan_loss(anchor, neighbor)
        return {"consistency": consistency, "entropy": -self.options.entropy_weight * spread}

    def assign(self, images: Tensor) -> Tensor:
        return self.head(self.encoder(images)).float().softmax(1)

    def arrays(self, images: Images) -> dict[str, np.ndarray]:
        """The mined neighbors, whose purity evaluation reports."""
        neighbors = self.neighbors.cpu().numpy()
        return {"neighbors": images.rows[neighbors].astype(np.int32), "neighbor_rows": images.rows[: len(neighbors)]}


def scan_loss(anchor_logits: Tensor, neighbor_logits: Tensor) -> tuple[Tensor, Tensor]:
    """The two sums of equation 2: - mean log <p(anchor), p(neighbor)> and H(mean p(anchor)) in nats, scalars.

    anchor_logits, neighbor_logits: B x K. The loss is the first minus lambda times the second.
    """
    anchor = anchor_logits.float().softmax(1)
    agreement = (anchor * neighbor_logits.float().softmax(1)).sum(1)  # B
    return -agreement.clamp(TINY, 1).log().mean(), entropy(anchor.mean(0))


def nearest(z: Tensor, count: int, *, chunk: int = 1024) -> Tensor:
    """Positions of each row itself, then of its `count` nearest rows by inner product: N x (count + 1).

    z: N x d unit rows. Never allocates more than chunk x N. Computed in float32 even under autocast: inner products of
    close neighbors differ by less than the precision of bfloat16.
    """
    rows, z = [], z.float()
    for own in torch.arange(len(z), device=z.device).split(chunk):
        with torch.autocast(z.device.type, enabled=False):
            similarity = z[own] @ z.T  # chunk x N
        similarity[own - own[0], own] = float("inf")  # itself first, even among duplicates
        rows.append(similarity.topk(count + 1, dim=1).indices)
    return torch.cat(rows)


class SelfLabelOptions(MethodOptions):
    """Defaults of the official CIFAR-10 configuration."""

    threshold: float = Field(0.99, ge=0, lt=1)
    """Confidence above which a prediction becomes a label; official."""
    balanced: bool = True
    """Whether classes are weighted by their inverse frequency among the labels of a batch; official."""


class SelfLabel(Method):
    """Self-labeling step: confident predictions on weak views are the labels of strong views (section 2.3)."""

    Options = SelfLabelOptions
    augmentations = ("weak", "strong")
    follows = ("encoder", "head")

    def __init__(self, options: SelfLabelOptions, problem: Problem, network: Network):
        super().__init__(options, problem, network)
        self.encoder = self.encoder_for(network)
        self.head = nn.Linear(self.encoder.dimensions, problem.clusters)

    def step(self, views: tuple[Tensor, ...], index: Tensor) -> dict[str, Tensor]:
        weak, strong = views
        with torch.no_grad():
            target = self.head(self.encoder(weak))
        torch.clear_autocast_cache()  # older versions of torch would reuse weights cast without a graph: no gradient
        loss = self_label_loss(target, self.head(self.encoder(strong)), self.options.threshold, self.options.balanced)
        if loss is None:
            self.count("steps with no confident image")
            return {"self_label": torch.zeros((), device=weak.device)}
        return {"self_label": loss}

    def assign(self, images: Tensor) -> Tensor:
        return self.head(self.encoder(images)).float().softmax(1)


def self_label_loss(weak_logits: Tensor, strong_logits: Tensor, threshold: float, balanced: bool) -> Tensor | None:
    """Cross-entropy of the strong view against the hard label of the weak view where its confidence > threshold.

    Logits: B x K. balanced: classes are weighted by the inverse of their frequency among the chosen images, normalized
    by the sum of the weights (official code). None if no image is confident (the official code crashes there).
    """
    confidence, label = weak_logits.detach().float().softmax(1).max(1)  # B
    chosen = confidence > threshold
    if not chosen.any():
        return None
    label, strong_logits = label[chosen], strong_logits[chosen].float()
    weight = None
    if balanced:
        frequency = label.bincount(minlength=strong_logits.shape[1])
        weight = torch.where(frequency > 0, len(label) / frequency.clamp_min(1), 1.0).to(strong_logits)
    return F.cross_entropy(strong_logits, label, weight=weight)
