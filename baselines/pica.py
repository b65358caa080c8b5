"""PICA: Deep Semantic Clustering by Partition Confidence Maximisation (Huang, Gong & Zhu, CVPR 2020).

Paper: https://raymond-sci.github.io/projects/huang2020pica. Official code: https://github.com/Raymond-sci/PICA.
"""

from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from scl.config import MethodOptions, Network
from scl.images import Images
from scl.losses import balance
from scl.method import Method, Problem, augmented
from scl.networks import Encoder


class Options(MethodOptions):
    """Defaults of the official code, except for `resize` and `sobel`, which it always sets."""

    balance_weight: float = Field(2.0, ge=0, le=1e6)
    """Weight lambda of the balance term; official."""
    perturbations: int = Field(3, ge=1, le=100)
    """Perturbed copies of every batch; official."""
    overclusters: int = Field(70, ge=2, le=100_000)
    """Clusters of the over-clustering head; official (the paper has 700 on Tiny-ImageNet)."""
    resize: int | None = Field(None, ge=8, le=2048)
    """Pixels per side of the images from which windows are cropped; official: 40 (32 px), 112 (96 px); null: none."""
    sobel: bool = False
    """Whether the network sees Sobel responses of the gray image (official) or RGB, as the other methods do."""


class PICA(Method):
    """Two heads trained alternately: over-clustering in even epochs, the target in odd ones.

    An epoch is one pass over the images for one head, so the official 200 epochs (of both heads) are 400.
    """

    version = 2
    Options = Options
    augmentations = ("original", "perturbed")
    uses_unlabeled = True
    keeps_last_batch = True
    zero_idle_gradients = True  # official code, torch 1.0.1: momentum moves the head that is not being trained

    def __init__(self, options: Any, problem: Problem, network: Network):
        super().__init__(options, problem, network)
        self.encoder = self.encoder_for(network, SobelEncoder if options.sobel else Encoder)
        self.overclustering_head = nn.Linear(self.encoder.dimensions, options.overclusters)
        self.head = nn.Linear(self.encoder.dimensions, problem.clusters)

    @staticmethod
    def image_size(options: Any) -> int | None:
        return options.resize

    @staticmethod
    def overclusters_in(epoch: int) -> bool:
        return epoch % 2 == 0

    def pool(self, epoch: int) -> int:
        """The over-clustering head also sees the unlabeled images (STL-10)."""
        return self.problem.images + (self.problem.unlabeled if self.overclusters_in(epoch) else 0)

    def draw(self, images: Images, index: Tensor, augment: dict, generator: torch.Generator) -> tuple[Tensor, ...]:
        """The original view, then the perturbed ones."""
        batch = images.batch(index)
        original = augment["original"](batch, generator)
        return original, *augmented(augment["perturbed"], (batch,) * self.options.perturbations, generator)

    def step(self, views: tuple[Tensor, ...], index: Tensor) -> dict[str, Tensor]:
        head = self.overclustering_head if self.overclusters_in(self.epoch) else self.head
        original, perturbed = views[0], torch.cat(views[1:])  # two passes: each has its own batch statistics
        p, q = (head(self.encoder(batch)).float().softmax(1) for batch in (original, perturbed))
        uncertainty, unbalance = partition_uncertainty(p.repeat(self.options.perturbations, 1), q)
        return {"uncertainty": uncertainty, "balance": self.options.balance_weight * unbalance}

    def assign(self, images: Tensor) -> Tensor:
        """B x K, of the central window of the resized image (official evaluation)."""
        window = center(images, self.options.resize or self.problem.size, self.problem.size)
        return self.head(self.encoder(window)).float().softmax(1)


def partition_uncertainty(p: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
    """The two terms of the loss (equations 4-8): partition uncertainty and balance log K - H(mean p), scalars.

    p, q: B x K probabilities of the original and of the perturbed images. The K x K cosine similarities of their
    columns are the logits of a classification of each row against the diagonal, without temperature.
    """
    p, q = p.float(), q.float()
    with torch.autocast(p.device.type, enabled=False):  # without temperature, bfloat16 would blur the cosines
        similarity = F.normalize(p, dim=0).T @ F.normalize(q, dim=0)  # K x K
    diagonal = torch.arange(p.shape[1], device=p.device)
    return F.cross_entropy(similarity, diagonal), balance(p)


def center(images: Tensor, resized: int, size: int) -> Tensor:
    """The center square, `size` pixels per side, of images resized to `resized` (may be smaller): B x 3 x S x S."""
    if images.shape[-1] != resized:
        images = F.interpolate(images, size=resized, mode="bilinear", antialias=True)
    size = min(size, resized)
    first = round((resized - size) / 2)  # as in torchvision's CenterCrop
    return images[:, :, first : first + size, first : first + size]


HORIZONTAL = [[1.0, 0.0, -1.0], [2.0, 0.0, -2.0], [1.0, 0.0, -1.0]]
VERTICAL = [[1.0, 2.0, 1.0], [0.0, 0.0, 0.0], [-1.0, -2.0, -1.0]]


class SobelEncoder(Encoder):
    """An encoder that sees horizontal and vertical Sobel responses of the normalized gray image, B x 2 x H x W."""

    filters: Tensor

    def __init__(self, *arguments: Any, **keywords: Any):
        super().__init__(*arguments, **keywords, channels=2)
        self.register_buffer("filters", torch.tensor([[HORIZONTAL], [VERTICAL]]), persistent=False)

    def preprocess(self, images: Tensor) -> Tensor:
        gray = super().preprocess(images).mean(1, keepdim=True)
        return F.conv2d(gray, self.filters.to(gray.dtype), padding=1)
