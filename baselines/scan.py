"""SCAN: Learning to Classify Images without Labels (van Gansbeke et al., ECCV 2020).

Two stages after SimCLR: clustering by nearest neighbors (`SCAN`), then self-labeling (`SelfLabel`).
"""

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from scl.config import MethodOptions, Network
from scl.images import Images
from scl.losses import TINY, entropy
from scl.method import Method, Problem, augmented
from scl.networks import projection_head


def scan_loss(anchor_logits: Tensor, neighbor_logits: Tensor, entropy_weight: float) -> Tensor:
    """BCE(<p(anchor), p(neighbor)>, 1) - entropy_weight * H(mean p(anchor)) (paper, equation 2; scalar).

    anchor_logits, neighbor_logits: B x K.
    """
    consistency, spread = scan_terms(anchor_logits, neighbor_logits)
    return consistency - entropy_weight * spread


def scan_terms(anchor_logits: Tensor, neighbor_logits: Tensor) -> tuple[Tensor, Tensor]:
    """The two terms of `scan_loss`: - mean log <p, p'> and H(mean p), in nats."""
    anchor = anchor_logits.float().softmax(1)
    agreement = (anchor * neighbor_logits.float().softmax(1)).sum(1)  # B
    return -agreement.clamp(TINY, 1).log().mean(), entropy(anchor.mean(0))


def self_label_loss(weak_logits: Tensor, strong_logits: Tensor, threshold: float, balanced: bool) -> Tensor | None:
    """Cross-entropy of the strong view against the hard label of the weak view where its confidence > threshold.

    Logits: B x K. balanced: classes weigh by the inverse of their frequency among the selected images, as the
    official code does (weights applied, then normalized by their sum, as torch's weighted cross-entropy does).
    None where no image passes the threshold (the official code crashes there).
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


class ClusteringOptions(MethodOptions):
    """Defaults of the official CIFAR-10 configuration."""

    neighbors: int = Field(20, ge=1, le=10_000)
    entropy_weight: float = Field(5.0, ge=0, le=1e6)
    projection_hidden: int = Field(512, ge=1, le=65_536)  # of the SimCLR run this stage starts from
    projection: int = Field(128, ge=1, le=65_536)


class SCAN(Method):
    """Clustering step: an image and one of its nearest neighbors belong to the same cluster."""

    version = 2
    Options = ClusteringOptions
    augmentations = ("strong",)
    follows = ("encoder", "projection")
    neighbors: Tensor

    def __init__(self, options: ClusteringOptions, problem: Problem, network: Network):
        super().__init__(options, problem, network)
        self.encoder = self.encoder_for(network)
        self.projection = projection_head(self.encoder.dimensions, options.projection_hidden, options.projection)
        self.projection.requires_grad_(False)  # serves the search for neighbors only
        self.head = nn.Linear(self.encoder.dimensions, problem.clusters)
        self.register_buffer("neighbors", torch.zeros(problem.images, options.neighbors + 1, dtype=torch.long))

    @torch.no_grad()
    def prepare(self, images: Images, generator: torch.Generator) -> None:
        """The 20 nearest neighbors of every image by inner product of SimCLR's outputs; the row begins with the
        image itself, as in the official code: N x 21. In float32 also under autocast."""
        if self.options.neighbors >= images.fit:
            raise ValueError(f"neighbors: {self.options.neighbors} of {images.fit} images cannot be found")
        self.eval()
        device = images.pixels.device
        with torch.autocast(device.type, enabled=False):
            z = torch.cat(
                [
                    F.normalize(self.projection(self.encoder(images.batch(index))), dim=1)
                    for index in torch.arange(images.fit, device=device).split(512)
                ]
            )  # N x 128
        self.neighbors.copy_(nearest(z, self.options.neighbors))

    def draw(self, images: Images, index: Tensor, augment: dict, generator: torch.Generator) -> tuple[Tensor, ...]:
        columns = self.neighbors.shape[1]
        column = torch.randint(columns, index.shape, generator=generator, device=index.device)
        neighbor = self.neighbors[index, column]  # uniformly one of 21, the image itself included
        return augmented(augment["strong"], (images.batch(index), images.batch(neighbor)), generator)

    def step(self, views: tuple[Tensor, ...], index: Tensor) -> dict[str, Tensor]:
        anchor, neighbor = (self.head(self.encoder(view)) for view in views)  # each with its own batch statistics
        consistency, spread = scan_terms(anchor, neighbor)
        return {"consistency": consistency, "entropy": -self.options.entropy_weight * spread}

    def assign(self, images: Tensor) -> Tensor:
        return self.head(self.encoder(images)).float().softmax(1)


def nearest(z: Tensor, count: int, *, chunk: int = 1024) -> Tensor:
    """Positions of each row itself, then of its `count` nearest rows by inner product: N x (count + 1).

    z: N x d unit rows. Never builds more than chunk x N. In float32 also under autocast: among close neighbors the
    inner products differ by less than bfloat16 can tell.
    """
    rows, z = [], z.float()
    for start in range(0, len(z), chunk):
        with torch.autocast(z.device.type, enabled=False):
            similarity = z[start : start + chunk] @ z.T  # chunk x N
        own = torch.arange(start, start + len(similarity), device=z.device)
        similarity[torch.arange(len(own), device=z.device), own] = float("inf")  # itself first, also among duplicates
        rows.append(similarity.topk(count + 1, dim=1).indices)
    return torch.cat(rows)


class SelfLabelOptions(MethodOptions):
    """Defaults of the official CIFAR-10 configuration."""

    threshold: float = Field(0.99, ge=0, lt=1)
    balanced: bool = True


class SelfLabel(Method):
    """Self-labeling step: confident predictions on weak views are the labels of strong views."""

    Options = SelfLabelOptions
    augmentations = ("weak", "strong")
    follows = ("encoder", "head")

    def __init__(self, options: SelfLabelOptions, problem: Problem, network: Network):
        super().__init__(options, problem, network)
        self.encoder = self.encoder_for(network)
        self.head = nn.Linear(self.encoder.dimensions, problem.clusters)

    def draw(self, images: Images, index: Tensor, augment: dict, generator: torch.Generator) -> tuple[Tensor, ...]:
        batch = images.batch(index)
        return augment["weak"](batch, generator), augment["strong"](batch, generator)

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
