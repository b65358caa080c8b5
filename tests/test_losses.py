"""Every loss against a double loop over its equation, in NumPy float64, for several sizes and temperatures."""

import math

import numpy as np
import pytest
import torch

from baselines.pica import partition_uncertainty
from baselines.scan import scan_loss, self_label_loss
from scl import losses
from scl.memory import InstanceMemory

SIZES = [(2, 2, 3), (7, 10, 4), (16, 20, 8), (12, 200, 16)]  # batch, clusters, dimensions


def unit(rng, *shape):
    x = rng.normal(size=shape)
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def simplex(rng, *shape):
    x = rng.gamma(1.0, size=shape) + 1e-3
    return x / x.sum(-1, keepdims=True)


def t(x):
    return torch.tensor(np.asarray(x), dtype=torch.float64)


def close(value, expected, tolerance=2e-5):  # losses are computed in float32: about seven digits
    assert value.ndim == 0
    assert float(value) == pytest.approx(expected, rel=tolerance, abs=tolerance)


@pytest.mark.parametrize("batch,_,dimensions", SIZES)
@pytest.mark.parametrize("temperature", [0.1, 0.5, 1.0])
@pytest.mark.parametrize("anchors", ["both", "first"])
def test_nt_xent(batch, _, dimensions, temperature, anchors):
    rng = np.random.default_rng(batch)
    z1, z2 = unit(rng, batch, dimensions), unit(rng, batch, dimensions)
    views = np.concatenate([z1, z2])
    terms = []
    for i in range(2 * batch if anchors == "both" else batch):
        positive = (i + batch) % (2 * batch)
        total = sum(math.exp(views[i] @ views[j] / temperature) for j in range(2 * batch) if j != i)
        terms.append(-math.log(math.exp(views[i] @ views[positive] / temperature) / total))
    close(losses.nt_xent(t(z1), t(z2), temperature, anchors=anchors), np.mean(terms))


@pytest.mark.parametrize("batch,clusters,_", SIZES)
def test_semantic_contrast(batch, clusters, _):
    rng = np.random.default_rng(1)
    p1, p2 = simplex(rng, batch, clusters), simplex(rng, batch, clusters)
    y = rng.integers(clusters, size=batch)
    expected = -sum(math.log(p[i, y[i]]) for p in (p1, p2) for i in range(batch)) / (2 * batch)
    close(losses.semantic_contrast(t(p1), t(p2), torch.tensor(y)), expected)


@pytest.mark.parametrize("batch,clusters,_", SIZES)
def test_clustering_consistency(batch, clusters, _):
    rng = np.random.default_rng(2)
    p1, p2, q1, q2 = (simplex(rng, batch, clusters) for _ in range(4))
    expected = 0.0
    for i in range(batch):
        one = sum(p1[i, k] * q2[i, k] for k in range(clusters))
        two = sum(p2[i, k] * q1[i, k] for k in range(clusters))
        expected -= 0.5 * (math.log(one) + math.log(two)) / batch
    close(losses.clustering_consistency(t(p1), t(p2), t(q1), t(q2)), expected)


@pytest.mark.parametrize("batch,clusters,_", SIZES)
def test_balance(batch, clusters, _):
    q = simplex(np.random.default_rng(3), batch, clusters)
    expected = math.log(clusters)
    for k in range(clusters):
        mean = sum(q[i, k] for i in range(batch)) / batch
        expected += mean * math.log(mean)
    close(losses.balance(t(q)), expected)


def test_balance_is_zero_when_even_and_log_k_when_collapsed():
    close(losses.balance(torch.eye(5).repeat(3, 1)), 0.0)
    close(losses.balance(torch.eye(5)[:1].repeat(8, 1)), math.log(5))


@pytest.mark.parametrize("batch,clusters,_", SIZES)
def test_consensus(batch, clusters, _):
    rng = np.random.default_rng(4)
    p1, p2, q1, q2 = (simplex(rng, batch, clusters) for _ in range(4))
    r = losses.consensus(*map(t, (p1, p2, q1, q2)))
    for i in range(batch):
        raw = [math.sqrt(p1[i, k] * q1[i, k] * p2[i, k] * q2[i, k]) for k in range(clusters)]
        np.testing.assert_allclose(r[i].numpy(), np.array(raw) / sum(raw), rtol=2e-5, atol=1e-7)


def test_nt_xent_is_in_float32_also_under_autocast():
    """A logit rounded to bfloat16 changes its exponential by several percent at a temperature of 0.1."""
    z1, z2 = torch.nn.functional.normalize(torch.randn(2, 16, 32, generator=torch.Generator().manual_seed(3)), dim=2)
    with torch.autocast("cpu", torch.bfloat16):
        found = losses.nt_xent(z1, z2, 0.1)
    assert torch.equal(found, losses.nt_xent(z1, z2, 0.1))


@pytest.mark.parametrize("images,clusters,dimensions", [(5, 2, 3), (40, 10, 8), (60, 200, 16)])
@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_instance_similarity(images, clusters, dimensions, temperature):
    rng = np.random.default_rng(5)
    memory = InstanceMemory(images, dimensions, clusters, momentum=0.5, temperature=temperature)
    rows, a = unit(rng, images, dimensions), rng.integers(clusters, size=images)
    memory.rows.copy_(torch.tensor(rows))
    memory.pseudo_classes.copy_(torch.tensor(a))
    index = rng.permutation(images)[:4]
    z = unit(rng, 4, dimensions)
    p = memory.similarity(torch.tensor(z, dtype=torch.float32), torch.tensor(index))
    for row, i in enumerate(index):
        weight = [math.exp(z[row] @ rows[j] / temperature) if j != i else 0.0 for j in range(images)]
        expected = [sum(w for w, k in zip(weight, a) if k == cluster) / sum(weight) for cluster in range(clusters)]
        np.testing.assert_allclose(p[row].numpy(), expected, rtol=1e-4, atol=1e-6)


def test_memory_update():
    rng = np.random.default_rng(6)
    memory = InstanceMemory(6, 4, 3, momentum=0.7, temperature=0.1)
    before = unit(rng, 6, 4)
    memory.rows.copy_(torch.tensor(before))
    z1, z2 = unit(rng, 2, 4), unit(rng, 2, 4)
    memory.update(torch.tensor([4, 1]), t(z1), t(z2), torch.tensor([2, 1]))
    for row, i in enumerate((4, 1)):
        fresh = (z1[row] + z2[row]) / np.linalg.norm(z1[row] + z2[row])
        mixed = 0.7 * before[i] + 0.3 * fresh
        np.testing.assert_allclose(memory.rows[i].numpy(), mixed / np.linalg.norm(mixed), rtol=1e-5)
    assert memory.pseudo_classes.tolist() == [3, 1, 3, 3, 2, 3]  # 3: in no class yet
    np.testing.assert_allclose(memory.rows[0].numpy(), before[0], rtol=1e-6)  # others are unchanged


@pytest.mark.parametrize("batch,clusters,_", SIZES)
def test_scan_loss(batch, clusters, _):
    rng = np.random.default_rng(7)
    a, b = rng.normal(size=(batch, clusters)) * 3, rng.normal(size=(batch, clusters)) * 3
    p = np.exp(a) / np.exp(a).sum(1, keepdims=True)
    q = np.exp(b) / np.exp(b).sum(1, keepdims=True)
    consistency = -sum(math.log(sum(p[i, k] * q[i, k] for k in range(clusters))) for i in range(batch)) / batch
    mean = [sum(p[i, k] for i in range(batch)) / batch for k in range(clusters)]
    found = scan_loss(t(a), t(b))
    close(found[0], consistency)
    close(found[1], -sum(m * math.log(m) for m in mean))


@pytest.mark.parametrize("balanced", [True, False])
def test_self_label_loss(balanced):
    rng = np.random.default_rng(8)
    weak, strong = rng.normal(size=(32, 5)) * 3, rng.normal(size=(32, 5))
    p = np.exp(weak) / np.exp(weak).sum(1, keepdims=True)
    chosen = [i for i in range(32) if p[i].max() > 0.8]
    assert 2 < len(chosen) < 32
    label = {i: int(p[i].argmax()) for i in chosen}
    count = {k: sum(label[i] == k for i in chosen) for k in range(5)}
    total = weights = 0.0
    for i in chosen:
        w = len(chosen) / count[label[i]] if balanced else 1.0
        total -= w * (strong[i, label[i]] - math.log(sum(math.exp(v) for v in strong[i])))
        weights += w
    close(self_label_loss(t(weak), t(strong), 0.8, balanced), total / weights)


def test_self_label_loss_without_a_confident_image_is_none():
    assert self_label_loss(torch.zeros(4, 3), torch.zeros(4, 3), 0.99, True) is None
    assert self_label_loss(torch.zeros(4, 2), torch.zeros(4, 2), 0.5, True) is None  # at the threshold is not above it


@pytest.mark.parametrize("batch,clusters,_", SIZES)
def test_partition_uncertainty(batch, clusters, _):
    rng = np.random.default_rng(9)
    p, q = simplex(rng, batch, clusters), simplex(rng, batch, clusters)
    cosine = [
        [
            sum(p[i, a] * q[i, b] for i in range(batch)) / math.sqrt(sum(p[:, a] ** 2) * sum(q[:, b] ** 2))
            for b in range(clusters)
        ]
        for a in range(clusters)
    ]
    uncertainty = (
        -sum(math.log(math.exp(cosine[a][a]) / sum(math.exp(c) for c in cosine[a])) for a in range(clusters)) / clusters
    )
    mean = p.mean(0)
    found = partition_uncertainty(t(p), t(q))
    close(found[0], uncertainty)
    close(found[1], math.log(clusters) + (mean * np.log(mean)).sum())


@pytest.mark.parametrize("clusters", [10, 20, 200])
@pytest.mark.parametrize("name", ["semantic", "consistency", "balance", "instance"])
def test_gradients_by_finite_differences(name, clusters):
    """SCL's losses with respect to the embeddings; float32 inside, hence the coarse step and tolerance."""
    generator = torch.Generator().manual_seed(0)
    memory = InstanceMemory(30, 6, clusters, momentum=0.5, temperature=0.5)
    memory.rows.copy_(torch.nn.functional.normalize(torch.randn(30, 6, generator=generator), dim=1))
    memory.pseudo_classes.copy_(torch.randint(clusters, (30,), generator=generator))
    prototypes = torch.nn.functional.normalize(torch.randn(clusters, 6, generator=generator), dim=1)
    index, y = torch.arange(5), memory.pseudo_classes[10:15]

    def loss(z):
        z1, z2 = torch.nn.functional.normalize(z, dim=1).chunk(2)
        q1, q2 = (torch.softmax(v @ prototypes.T / 0.5, 1) for v in (z1, z2))
        p1, p2 = memory.similarity(z1, index), memory.similarity(z2, index)
        return {
            "semantic": lambda: losses.semantic_contrast(p1, p2, y),
            "balance": lambda: losses.balance(q1),
            "consistency": lambda: losses.clustering_consistency(p1, p2, q1, q2),
            "instance": lambda: losses.nt_xent(z1, z2, 0.5),
        }[name]()

    z = torch.randn(10, 6, generator=generator, requires_grad=True)
    loss(z).backward()
    for place in [(0, 0), (3, 2), (4, 5), (1, 1)]:
        step = torch.zeros_like(z)
        step[place] = 1e-2
        with torch.no_grad():
            slope = (loss(z + step) - loss(z - step)) / 2e-2
        assert float(z.grad[place]) == pytest.approx(float(slope), rel=0.03, abs=2e-4)


def test_degenerate_batches_stay_finite():
    """One cluster for all images, a pseudo class without members, a batch smaller than K, a memory of equal rows."""
    memory = InstanceMemory(8, 4, 20, momentum=0.5, temperature=0.1)
    memory.rows.copy_(torch.eye(4)[:1].repeat(8, 1))  # all the same, all in class 0
    memory.pseudo_classes.zero_()
    z = torch.eye(4)[:2].clone().requires_grad_()
    p = memory.similarity(z, torch.tensor([0, 1]))
    q = torch.eye(20)[:1].repeat(2, 1)
    y = torch.tensor([7, 0])  # class 7 has no member
    total = losses.semantic_contrast(p, p, y) + losses.clustering_consistency(p, p, q, q) + losses.balance(p)
    total.backward()
    assert total.isfinite() and z.grad.isfinite().all()
