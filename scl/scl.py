"""Deep Clustering by Semantic Contrastive Learning (Huang & Gong, BMVC 2022), to be read beside docs/methods.md.

There is no official code: the abstract fixes the semantic contrast, the clustering consistency between instance
similarities and decision boundaries, and that classes are reasoned on the fly by their consensus. Everything else
here is a reconstruction; numbers in brackets are the steps of docs/methods.md.
"""

from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from scl import losses
from scl.config import MethodOptions, Network
from scl.images import Images
from scl.memory import InstanceMemory
from scl.method import Method, Problem
from scl.networks import Prototypes, projection_head

Temperature = Annotated[float, Field(ge=0.001, le=1000)]
Weight = Annotated[float, Field(ge=0, le=1e6)]
Width = Annotated[int, Field(ge=1, le=65_536)]


class Options(MethodOptions):
    """All defaults are ours, fixed on digits and a CIFAR-10 subset, the same on every benchmark."""

    temperature: Temperature = 0.07  # tau, instance similarities
    prototype_temperature: Temperature = 0.1  # tau_c, cluster decisions
    instance_temperature: Temperature = 0.5  # tau_i, NT-Xent
    memory_momentum: float = Field(0.5, ge=0, le=1)  # mu
    instance_weight: Weight = 1.0  # 0 leaves L_ins out (ablation)
    semantic_weight: Weight = 1.0  # w_s
    consistency_weight: Weight = 1.0  # w_c
    balance_weight: Weight = 2.0  # w_b
    consistency: Literal["joint", "view"] = "joint"  # p against q, equation 5 | q against q (ablation)
    consensus: Literal["both", "boundaries", "similarities"] = "both"  # q alone, p alone: ablations
    warm_up: float = Field(0.025, ge=0, le=1)  # share of the epochs, at least one, before the memory is used
    prototypes: Literal["kmeans", "random"] = "kmeans"  # start at the k-means centers of the memory after the warm-up
    assignment: Literal["prototypes", "kmeans"] = "prototypes"  # kmeans: on h (ablation)
    projection_hidden: Width = 512
    projection: Width = 128  # d
    projection_norm: bool = True  # batch norm in g: without it a small network may start collapsed
    kmeans_restarts: int = Field(10, ge=1, le=1000)  # of the start of the prototypes, and where k-means assigns


class SCL(Method):
    """Semantic Contrastive Learning: memory, prototypes and encoder are learned concurrently.

    Starts from a SimCLR encoder where the configuration says `after`, as SCAN does, otherwise from random weights.
    """

    version = 2
    Options = Options
    augmentations = ("view", "strong")
    follows = ("encoder",)

    def __init__(self, options: Any, problem: Problem, network: Network):
        super().__init__(options, problem, network)
        self.encoder = self.encoder_for(network)  # f
        self.projection = projection_head(
            self.encoder.dimensions, options.projection_hidden, options.projection, normalized=options.projection_norm
        )  # g
        self.prototypes = Prototypes(options.projection, problem.clusters)  # c_1..c_K
        self.memory = InstanceMemory(
            problem.images,
            options.projection,
            problem.clusters,
            momentum=options.memory_momentum,
            temperature=options.temperature,
        )
        self.placed = options.prototypes == "random"  # are the prototypes in place? Not a tensor: a GPU would be asked

    @property
    def warming_up(self) -> bool:
        return self.epoch < max(1, round(self.options.warm_up * self.problem.epochs))

    def draw(self, images: Images, index: Tensor, augment: dict, generator: torch.Generator) -> tuple[Tensor, ...]:
        """v1 under SimCLR's augmentation, v2 under SCAN's strong one: clusters are to outlast both."""
        batch = images.batch(index)  # B x 3 x H x W
        return augment["view"](batch, generator), augment["strong"](batch, generator)

    def embed(self, images: Tensor) -> Tensor:
        """z = g(h) / |g(h)| on the unit sphere: B x d."""
        return F.normalize(self.projection(self.encoder(images)).float(), dim=1)

    def decide(self, z: Tensor) -> Tensor:
        """[1] q_k = softmax_k(z . c_k / tau_c): B x K, in float32 also under autocast."""
        with torch.autocast(z.device.type, enabled=False):
            return torch.softmax(self.prototypes(z) / self.options.prototype_temperature, dim=1)

    @torch.no_grad()
    def place_prototypes(self) -> None:
        """[10] After the warm-up the prototypes start at the k-means centers of the memory (no label is involved)."""
        from sklearn.cluster import KMeans

        filled = self.memory.filled  # a warm-up of one epoch may have left a last partial batch out
        rows = self.memory.rows[filled]
        seed = int(torch.randint(2**31, (1,)))  # the loop seeds this stream by name
        found = KMeans(self.problem.clusters, n_init=self.options.kmeans_restarts, random_state=seed).fit(
            rows.cpu().numpy()
        )
        centers = torch.from_numpy(found.cluster_centers_).to(rows)  # K x d
        self.prototypes.weight.copy_(F.normalize(centers, dim=1))
        self.memory.pseudo_classes[filled] = torch.from_numpy(found.labels_).to(self.memory.pseudo_classes)
        self.placed = True

    def step(self, views: tuple[Tensor, ...], index: Tensor) -> dict[str, Tensor]:
        o = self.options
        if not self.warming_up and not self.placed:
            self.place_prototypes()
        z1, z2 = self.embed(torch.cat(views)).chunk(2)
        q1, q2 = self.decide(z1), self.decide(z2)
        terms = {}
        if o.instance_weight or not self.placed:
            terms["instance"] = o.instance_weight * losses.nt_xent(z1, z2, o.instance_temperature)
        if self.placed:
            terms["balance"] = o.balance_weight * losses.balance(torch.cat([q1, q2]))
        if self.warming_up:  # [10] the memory is not yet meaningful
            if self.placed:
                terms["consistency"] = o.consistency_weight * losses.agreement(q1, q2)
            pseudo_classes = (q1 + q2).argmax(1)
        else:
            p1, p2 = self.memory.similarity(torch.cat([z1, z2]), index.repeat(2)).chunk(2)
            pseudo_classes = self.reason(p1, p2, q1, q2).argmax(1)  # y
            if o.semantic_weight:
                terms["semantic"] = o.semantic_weight * losses.semantic_contrast(p1, p2, pseudo_classes)
            joint = o.consistency == "joint"
            terms["consistency"] = o.consistency_weight * (
                losses.clustering_consistency(p1, p2, q1, q2) if joint else losses.agreement(q1, q2)
            )
        self.seen = index, z1.detach(), z2.detach(), pseudo_classes
        return terms

    def after_step(self) -> None:
        self.memory.update(*self.seen)

    def reason(self, p1: Tensor, p2: Tensor, q1: Tensor, q2: Tensor) -> Tensor:
        """[3] The hypothesis of each image's class, by consensus of similarities and boundaries: B x K.

        A class without another image (p_k = 0) is not ruled out, or it could never gain one again: there q_k decides.
        """
        p1, p2 = p1.where(p1 > 0, q1), p2.where(p2 > 0, q2)
        if self.options.consensus == "boundaries":
            return losses.consensus(q1, q2, q1, q2)
        if self.options.consensus == "similarities":
            return losses.consensus(p1, p2, p1, p2)
        return losses.consensus(p1, p2, q1, q2)

    def get_extra_state(self) -> dict:
        return super().get_extra_state() | {"placed": self.placed}

    def set_extra_state(self, state: dict) -> None:
        super().set_extra_state(state)
        self.placed = state["placed"]

    @property
    def clusters_by_kmeans(self) -> bool:
        return self.options.assignment == "kmeans"

    def assign(self, images: Tensor) -> Tensor:
        """[11] q of the un-augmented image, or its features h where k-means assigns."""
        if self.clusters_by_kmeans:
            return F.normalize(self.encoder(images).float(), dim=1)
        return self.decide(self.embed(images))
