"""Deep Clustering by Semantic Contrastive Learning (Huang & Gong, BMVC 2022), to be read beside docs/methods.md.

Paper: https://arxiv.org/abs/2103.02662. There is no official code: the abstract specifies the semantic contrast, the
clustering consistency between instance similarities and decision boundaries, and the inference of classes on the fly
from their consensus. Everything else is a reconstruction; numbers in brackets are its equations in docs/methods.md.
"""

from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from scl import losses
from scl.config import MethodOptions, Network
from scl.memory import InstanceMemory
from scl.method import Method, Problem
from scl.networks import Prototypes, projection_head

Temperature = Annotated[float, Field(ge=0.001, le=1000)]
Weight = Annotated[float, Field(ge=0, le=1e6)]
Width = Annotated[int, Field(ge=1, le=65_536)]


class Options(MethodOptions):
    """All defaults are ours and the same on every benchmark: chosen on digits, kept after trials on a CIFAR-10 subset.
    Version 3 added `mean_similarities`, after trials on both. In trials with 50 and 200 clusters, `consistency: means`
    and a larger `balance_weight` prevented a collapse (docs/lab-notes.md)."""

    temperature: Annotated[float, Field(ge=0.02, le=1000)] = 0.07
    """Temperature tau of the instance similarities [2], whose exponentials underflow below 0.02; ours."""
    prototype_temperature: Temperature = 0.1
    """Temperature tau_c of the cluster decisions [1]; ours."""
    instance_temperature: Temperature = 0.5
    """Temperature tau_i of NT-Xent [6]; ours."""
    memory_momentum: float = Field(0.5, ge=0, lt=1)
    """Momentum mu of the memory [9]; ours."""
    instance_weight: Weight = 1.0
    """Weight of L_ins [6]; 0 leaves it out (ablation); ours."""
    semantic_weight: Weight = 1.0
    """Weight w_s of L_sem [4]; 0 leaves it out (ablation); ours."""
    consistency_weight: Weight = 1.0
    """Weight w_c of L_con [5]; ours."""
    balance_weight: Weight = 2.0
    """Weight w_b of L_bal [7]; ours."""
    consistency: Literal["joint", "means", "view"] = "joint"
    """What has to agree [5]: sums p and boundaries q, class means s and q, or q of both views (ablation); ours."""
    consensus: Literal["both", "boundaries", "similarities"] = "both"
    """What pseudo classes are inferred from [3]: q and s, q alone or s alone (ablations); ours."""
    mean_similarities: bool = True
    """Whether [3] uses class means s instead of sums p [2], which favor large classes (ablation); ours."""
    warm_up: float = Field(0.025, ge=0, le=1)
    """Fraction of the epochs, at least one epoch, before the memory is used [10]; ours."""
    prototypes: Literal["kmeans", "random"] = "kmeans"
    """Where prototypes start: at k-means centers of the memory after the warm-up [10], or at random; ours."""
    assignment: Literal["prototypes", "kmeans"] = "prototypes"
    """How images are assigned: by prototypes [11], or by k-means on h / |h| (ablation); ours."""
    projection_hidden: Width = 512
    """Hidden units of the projection head g; ours."""
    projection: Width = 128
    """Outputs d of the projection head; ours."""
    projection_norm: bool = True
    """Whether g has batch norms, without which a small network may start collapsed; ours."""
    kmeans_restarts: int = Field(10, ge=1, le=1000)
    """Restarts of each k-means; the one with the lowest inertia is kept; ours."""


class SCL(Method):
    """Semantic Contrastive Learning: memory, prototypes and encoder are learned concurrently.

    Starts from a SimCLR encoder if the configuration says `after`, as SCAN does, otherwise from random weights.
    """

    version = 3
    Options = Options
    augmentations = ("view", "strong")  # v1 as in SimCLR, v2 as in SCAN: clusters should be invariant to both
    follows = ("encoder",)

    def __init__(self, options: Any, problem: Problem, network: Network):
        super().__init__(options, problem, network)
        d, K = options.projection, problem.clusters
        self.encoder = self.encoder_for(network)  # f
        self.projection = projection_head(
            self.encoder.dimensions, options.projection_hidden, d, normalized=options.projection_norm
        )  # g
        self.prototypes = Prototypes(d, K)  # c_1..c_K
        self.memory = InstanceMemory(
            problem.images, d, K, momentum=options.memory_momentum, temperature=options.temperature
        )  # m_1..m_N and a_1..a_N
        # whether prototypes are initialized; if all epochs are warm-up they never are, and learn from a random start
        self.placed = options.prototypes == "random" or self.warm_up_epochs >= problem.epochs

    @property
    def warm_up_epochs(self) -> int:
        return max(1, round(self.options.warm_up * self.problem.epochs))

    @property
    def warming_up(self) -> bool:
        return self.epoch < self.warm_up_epochs

    def embed(self, images: Tensor) -> Tensor:
        """z = g(h) / |g(h)| on the unit sphere: B x d."""
        return F.normalize(self.projection(self.encoder(images)).float(), dim=1)

    def decide(self, z: Tensor) -> Tensor:
        """[1] q_k = softmax_k(z . c_k / tau_c): B x K, in float32 even under autocast."""
        with torch.autocast(z.device.type, enabled=False):
            return torch.softmax(self.prototypes(z) / self.options.prototype_temperature, dim=1)

    def means(self, p1: Tensor, p2: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        """[3] s_k, the mean over the other images of a class where p_k is their sum, normalized over k: B x K each.

        Large classes win images by their size alone with p, and clusters become empty (docs/lab-notes.md).
        """
        others = self.memory.others(index).clamp_min(1)
        s1, s2 = (F.normalize(p / others, p=1, dim=1) for p in (p1, p2))
        return s1, s2

    @torch.no_grad()
    def reason(self, p1: Tensor, p2: Tensor, q1: Tensor, q2: Tensor, index: Tensor) -> Tensor:
        """[3] Hypotheses r about the classes of the images, by consensus of similarities and boundaries: B x K.

        For a class without other images, q_k replaces s_k; otherwise the class could never gain an image again.
        """
        if self.options.consensus == "boundaries":
            return losses.consensus(q1, q2, q1, q2)
        s1, s2 = self.means(p1, p2, index) if self.options.mean_similarities else (p1, p2)
        s1, s2 = s1.where(p1 > 0, q1), s2.where(p2 > 0, q2)
        if self.options.consensus == "similarities":
            return losses.consensus(s1, s2, s1, s2)
        return losses.consensus(s1, s2, q1, q2)

    def step(self, views: tuple[Tensor, ...], index: Tensor) -> dict[str, Tensor]:
        """[8] L = w_i L_ins + w_s L_sem + w_c L_con + w_b L_bal; without memory terms in the warm-up [10]."""
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
        if self.warming_up:
            y = (q1 + q2).argmax(1)
        else:
            p1, p2 = self.memory.similarity(torch.cat([z1, z2]), index.repeat(2)).chunk(2)
            y = self.reason(p1, p2, q1, q2, index).argmax(1)
            if o.semantic_weight:
                terms["semantic"] = o.semantic_weight * losses.semantic_contrast(p1, p2, y)
        if self.placed:
            if o.consistency == "view" or self.warming_up:
                agreement = losses.agreement(q1, q2)
            else:
                similar = self.means(p1, p2, index) if o.consistency == "means" else (p1, p2)
                agreement = losses.clustering_consistency(*similar, q1, q2)
            terms["consistency"] = o.consistency_weight * agreement
        self.seen = index, z1.detach(), z2.detach(), y  # for after_step
        return terms

    def after_step(self) -> None:
        """[9]"""
        self.memory.update(*self.seen)

    @torch.no_grad()
    def place_prototypes(self) -> None:
        """[10] Set the prototypes to the k-means centers of the memory, and its pseudo classes to the clusters."""
        from sklearn.cluster import KMeans

        filled = self.memory.filled  # a one-epoch warm-up may have dropped the last partial batch
        rows = self.memory.rows[filled]
        if len(rows) < self.problem.clusters:
            raise ValueError(
                f"training.batch_size: the warm-up has seen {len(rows)} images, fewer than the {self.problem.clusters} "
                "clusters; lower it"
            )
        seed = int(torch.randint(2**31, (1,)))  # the loop seeds the global stream for each step
        kmeans = KMeans(self.problem.clusters, n_init=self.options.kmeans_restarts, random_state=seed)
        kmeans.fit(rows.cpu().numpy())
        centers = torch.from_numpy(kmeans.cluster_centers_).to(rows)  # K x d
        self.prototypes.weight.copy_(F.normalize(centers, dim=1))
        self.memory.pseudo_classes[filled] = torch.from_numpy(kmeans.labels_).to(self.memory.pseudo_classes)
        self.placed = True

    @property
    def clusters_by_kmeans(self) -> bool:
        return self.options.assignment == "kmeans"

    def assign(self, images: Tensor) -> Tensor:
        """[11] q of the unaugmented image or, for k-means, its features h / |h|."""
        if self.clusters_by_kmeans:
            return F.normalize(self.encoder(images).float(), dim=1)
        return self.decide(self.embed(images))

    def get_extra_state(self) -> dict:
        return super().get_extra_state() | {"placed": self.placed}

    def set_extra_state(self, state: dict) -> None:
        super().set_extra_state(state)
        self.placed = state["placed"]
