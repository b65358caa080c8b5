"""The losses of Semantic Contrastive Learning, one pure function per equation.

Numbers in brackets are the equations of docs/methods.md. Probabilities are B x K rows that sum to one, embeddings B x d
rows of unit length; losses are scalars in float32.
"""

import math
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

TINY = 1e-12  # keeps log() finite where a probability underflows; far below any that affects learning


def nt_xent(z1: Tensor, z2: Tensor, temperature: float, *, anchors: str = "both") -> Tensor:
    """[6] Normalized temperature-scaled cross-entropy of SimCLR (Chen et al., ICML 2020, equation 1).

    z1, z2: B x d, two views of the same images. The positive of an anchor is the other view of its image, its negatives
    are the other 2B - 2 views. anchors: "both" views (paper) or the "first" only (SCAN's official code). Computed in
    float32 even under autocast.
    """
    batch = len(z1)
    views = torch.cat([z1, z2])  # 2B x d
    queries = views if anchors == "both" else z1
    with torch.autocast(z1.device.type, enabled=False):
        similarity = (queries.float() @ views.float().T) / temperature  # A x 2B
    rows = torch.arange(len(queries), device=z1.device)
    similarity = similarity.masked_fill(rows[:, None] == torch.arange(2 * batch, device=z1.device), float("-inf"))
    return F.cross_entropy(similarity, (rows + batch) % (2 * batch))


def semantic_contrast(p1: Tensor, p2: Tensor, pseudo_classes: Tensor) -> Tensor:
    """[4] - mean over images and views of log p_y: the pseudo class against all other instances.

    p1, p2: B x K instance similarities of the two views (see `scl.memory`); pseudo_classes: B integers in 0..K-1.
    An image alone in its pseudo class (p_y = 0) has no positives and contributes nothing.
    """
    index = pseudo_classes[:, None]
    own = torch.cat([p1.gather(1, index), p2.gather(1, index)]).float()  # 2B x 1
    return -own.where(own > 0, 1).clamp_min(TINY).log().mean()


def clustering_consistency(p1: Tensor, p2: Tensor, q1: Tensor, q2: Tensor) -> Tensor:
    """[5] - 1/2 mean [ log sum_k p_k(v1) q_k(v2) + log sum_k p_k(v2) q_k(v1) ]: similarity and boundary agree.

    p: instance similarities, q: cluster decisions, B x K, of views 1 and 2.
    """
    return 0.5 * (agreement(p1, q2) + agreement(p2, q1))


def agreement(p: Tensor, q: Tensor) -> Tensor:
    """- mean log sum_k p_k q_k; p, q: B x K. With q of both views, it is the consistency of the warm-up [10]."""
    return -(p.float() * q.float()).sum(1).clamp_min(TINY).log().mean()


def entropy(p: Tensor) -> Tensor:
    """- sum p log p of one distribution (K), in nats."""
    p = p.float()
    return -(p * p.clamp_min(TINY).log()).sum()


def balance(q: Tensor) -> Tensor:
    """[7] log K - H(batch mean of q): zero if the batch spreads evenly over the clusters. q: B x K."""
    return math.log(q.shape[1]) - entropy(q.float().mean(0))


@torch.no_grad()
def consensus(s1: Tensor, s2: Tensor, q1: Tensor, q2: Tensor) -> Tensor:
    """[3] r_k ~ (product over both views of s_k q_k)^(1/2), normalized over k: B x K, no gradient."""
    product = cast(Tensor, sum(x.float().clamp_min(TINY).log() for x in (s1, s2, q1, q2)))  # B x K
    return torch.softmax(product / 2, dim=1)
