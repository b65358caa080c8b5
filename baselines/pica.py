"""PICA: Deep Semantic Clustering by Partition Confidence Maximization (Huang, Gong & Zhu, CVPR 2020)."""

from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from scl.config import MethodOptions, Network
from scl.images import Images
from scl.losses import balance
from scl.method import Method, Problem, augmented


def partition_uncertainty(p: Tensor, q: Tensor, balance_weight: float) -> Tensor:
    """Partition uncertainty index with the balance term (paper, equations 4-8; no temperature; scalar).

    p, q: B x K probabilities of the original and of the perturbed images. The K x K cosine similarities of their
    columns are the logits of a classification of each row against the diagonal, plus
    balance_weight * (log K - H(mean p)).
    """
    uncertainty, unbalance = partition_terms(p, q)
    return uncertainty + balance_weight * unbalance


def partition_terms(p: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
    """The two terms of `partition_uncertainty`: the cross-entropy against the diagonal and log K - H(mean p)."""
    p, q = p.float(), q.float()
    with torch.autocast(p.device.type, enabled=False):  # no temperature: bfloat16 would blur the cosines
        similarity = F.normalize(p, dim=0).T @ F.normalize(q, dim=0)  # K x K
    diagonal = torch.arange(p.shape[1], device=p.device)
    return F.cross_entropy(similarity, diagonal), balance(p)


class Options(MethodOptions):
    """Defaults of the official code."""

    balance_weight: float = Field(2.0, ge=0, le=1e6)  # lambda
    perturbations: int = Field(3, ge=1, le=100)  # perturbed copies of a batch
    overclusters: int = Field(70, ge=2, le=100_000)  # K of the over-clustering head; 700 for Tiny-ImageNet
    # pixels a side of which windows of the benchmark's size are seen; official: 40, 112
    resize: int | None = Field(None, ge=8, le=2048)


class PICA(Method):
    """Two heads trained alternately, a pass over the images each: over-clustering on even epochs, the target on odd
    ones. An epoch here is one such pass, so the official 200 epochs (of both heads) are 400."""

    version = 2
    Options = Options
    augmentations = ("original", "perturbed")
    uses_unlabeled = True
    keeps_last_batch = True
    zero_idle_gradients = True  # official code, torch 1.0.1: the head that is not trained moves on by its momentum

    def __init__(self, options: Any, problem: Problem, network: Network):
        super().__init__(options, problem, network)
        self.encoder = self.encoder_for(network)
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
        batch = images.batch(index)
        original = augment["original"](batch, generator)
        return original, *augmented(augment["perturbed"], (batch,) * self.options.perturbations, generator)

    def step(self, views: tuple[Tensor, ...], index: Tensor) -> dict[str, Tensor]:
        head = self.overclustering_head if self.overclusters_in(self.epoch) else self.head
        original, perturbed = views[0], torch.cat(views[1:])  # two passes: each has its own batch statistics
        p, q = (head(self.encoder(batch)).float().softmax(1) for batch in (original, perturbed))
        uncertainty, unbalance = partition_terms(p.repeat(self.options.perturbations, 1), q)
        return {"uncertainty": uncertainty, "balance": self.options.balance_weight * unbalance}

    def assign(self, images: Tensor) -> Tensor:
        """Of the central window of the resized image (official evaluation): B x K."""
        window = center(images, self.options.resize or self.problem.size, self.problem.size)
        return self.head(self.encoder(window)).float().softmax(1)


def center(images: Tensor, resized: int, size: int) -> Tensor:
    """The central square of `size` pixels a side, of images resized to `resized` (which may be less): B x 3 x S x S."""
    if images.shape[-1] != resized:
        images = F.interpolate(images, size=resized, mode="bilinear", antialias=True)
    size = min(size, resized)
    first = round((resized - size) / 2)  # as torchvision's CenterCrop
    return images[:, :, first : first + size, first : first + size]
