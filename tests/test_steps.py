"""`step` and `assign` of the baselines as a whole, against loops over the published equations (tests/plain.py).

SCL's are in test_method_scl.py.
"""

import contextlib
import copy
import math

import numpy as np
import plain
import pytest
import torch

from baselines.controls import Pixels, Random
from baselines.pica import PICA, center
from baselines.scan import SCAN, SelfLabel
from baselines.simclr import SimCLR
from scl.config import Network
from scl.engine.seeding import Seeds
from scl.engine.trainer import Trainer
from scl.method import Method, Problem

BATCH, CLUSTERS = 12, 4
INDEX = torch.arange(BATCH)


def build(cls, *, network=None, **options):
    torch.manual_seed(0)
    problem = Problem(
        images=30, unlabeled=0, clusters=CLUSTERS, size=8, epochs=4, mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3)
    )
    method = cls(cls.Options(**options), problem, network or Network(width=8, layers=[1, 1, 1])).train()
    for name, layer in method.named_modules():
        if name.endswith("head"):  # so that decisions differ between images
            torch.nn.init.normal_(layer.weight, 0, 2)
            with torch.no_grad():
                layer.bias.copy_(-layer.weight @ torch.tensor(plain.features(method, *views(1)).mean(0)).float())
    return method


def views(count):
    """`count` views of images that each have a color."""
    generator = torch.Generator().manual_seed(3)
    colors = torch.rand(BATCH, 3, 1, 1, generator=generator)
    return tuple(colors * torch.rand(count, BATCH, 3, 8, 8, generator=generator))


def probabilities(method, head, images):
    return plain.softmax(plain.linear(plain.features(method, images), head))


def assert_terms(terms, expected):
    """Assert that the terms have these names and values, and that the loss is differentiable."""
    assert terms.keys() == expected.keys()
    for name, value in expected.items():
        assert terms[name].ndim == 0 and terms[name].requires_grad
        assert terms[name].item() == pytest.approx(value, rel=2e-4, abs=1e-5), name


def gradients(method, terms):
    """Names of the parameters that get a gradient from the sum of the terms."""
    sum(terms.values()).backward()
    return {name for name, p in method.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}


# --- SimCLR -----------------------------------------------------------------------------------------------------


def _simclr_step_reference(method, both):
    """Both views in one pass."""
    z = plain.projected(plain.features(method, torch.cat(both)), method.projection)
    o = method.options
    return {"instance": plain.nt_xent(z[:BATCH], z[BATCH:], o.temperature, o.anchors)}


@pytest.mark.parametrize("anchors", ["first", "both"])
@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_simclr_step(anchors, temperature):
    method = build(SimCLR, anchors=anchors, temperature=temperature, projection_hidden=24, projection=6)
    expected = _simclr_step_reference(method, views(2))
    terms = method.step(views(2), INDEX)
    assert_terms(terms, expected)
    assert {name.split(".")[0] for name in gradients(method, terms)} == {"encoder", "projection"}


@pytest.mark.parametrize("layer", ["projection", "encoder"])
def test_simclr_assign_is_normalized(layer):
    method = build(SimCLR, layer=layer, projection=6).eval()
    (images,) = views(1)
    h = plain.features(method, images)
    expected = plain.projected(h, method.projection) if layer == "projection" else plain.unit(h)
    with torch.no_grad():
        np.testing.assert_allclose(method.assign(images).numpy(), expected, rtol=1e-3, atol=1e-5)
    assert method.clusters_by_kmeans is True


# --- SCAN -------------------------------------------------------------------------------------------------------


def _scan_step_reference(method, anchor, neighbor):
    """Equation 2, its two sums computed separately; one pass for each of the two batches."""
    p, q = (probabilities(method, method.head, view) for view in (anchor, neighbor))
    return {"consistency": plain.agreement(p, q), "entropy": -method.options.entropy_weight * plain.entropy_of_mean(p)}


@pytest.mark.parametrize("weight", [5.0, 0.5])
def test_scan_step(weight):
    method = build(SCAN, neighbors=3, entropy_weight=weight)
    expected = _scan_step_reference(method, *views(2))
    terms = method.step(views(2), INDEX)
    assert_terms(terms, expected)
    assert {name.split(".")[0] for name in gradients(method, terms)} == {"encoder", "head"}


def test_scan_step_spreads_the_images():
    """Tests the sign of the entropy: the loss is smaller if the clusters are balanced."""
    method, losses = build(SCAN, neighbors=3), []
    with torch.no_grad():
        method.head.weight.zero_()
        for bias in (0.0, 3.0):
            method.head.bias.copy_(torch.tensor([bias, 0, 0, 0]))
            losses.append(method.step(views(2), INDEX)["entropy"].item())
    assert losses[0] == pytest.approx(-5 * math.log(CLUSTERS)) and losses[0] < losses[1]


# --- self-labeling ---------------------------------------------------------------------------------------------


def _self_label_step_reference(method, weak, strong):
    """Cross-entropy of the confident images, with classes weighted by inverse frequency; one pass for each view."""
    p, q = (probabilities(method, method.head, view) for view in (weak, strong))
    o = method.options
    labels = {i: max(range(CLUSTERS), key=lambda k: row[k]) for i, row in enumerate(p) if max(row) > o.threshold}
    weights = {i: len(labels) / list(labels.values()).count(y) if o.balanced else 1 for i, y in labels.items()}
    loss = -sum(weights[i] * math.log(q[i][y]) for i, y in labels.items()) / sum(weights.values())
    return {"self_label": loss}, labels


@pytest.mark.parametrize("balanced", [True, False])
def test_self_label_step(balanced):
    method = build(SelfLabel, threshold=0.7, balanced=balanced)
    expected, labels = _self_label_step_reference(method, *views(2))
    assert 3 < len(labels) < BATCH and len(set(labels.values())) > 1  # some are left out, and weights differ
    terms = method.step(views(2), INDEX)
    assert_terms(terms, expected)
    assert {name.split(".")[0] for name in gradients(method, terms)} == {"encoder", "head"} and method.counts == {}


# --- PICA -------------------------------------------------------------------------------------------------------


def _pica_step_reference(method, head, original, *perturbed):
    """Equations 4 to 8: each copy against its original; one pass for the originals and one for all copies."""
    p = np.concatenate([probabilities(method, head, original)] * len(perturbed))
    q = probabilities(method, head, torch.cat(perturbed))
    clusters, loss = p.shape[1], 0.0
    for a in range(clusters):
        cosines = [sum(p[:, a] * q[:, b]) / math.sqrt(sum(p[:, a] ** 2) * sum(q[:, b] ** 2)) for b in range(clusters)]
        loss -= math.log(math.exp(cosines[a]) / sum(math.exp(c) for c in cosines)) / clusters
    return {
        "uncertainty": loss,
        "balance": method.options.balance_weight * (math.log(clusters) - plain.entropy_of_mean(p)),
    }


@pytest.mark.parametrize("epoch, name", [(0, "overclustering_head"), (1, "head"), (2, "overclustering_head")])
@pytest.mark.parametrize("weight, perturbations", [(2.0, 3), (0.7, 1)])
def test_pica_step(epoch, name, weight, perturbations):
    method = build(PICA, overclusters=7, balance_weight=weight, perturbations=perturbations)
    method.epoch = epoch
    batch = views(1 + perturbations)
    expected = _pica_step_reference(method, getattr(method, name), *batch)
    terms = method.step(batch, INDEX)
    assert_terms(terms, expected)
    assert {name.split(".")[0] for name in gradients(method, terms)} == {"encoder", name}


def test_pica_step_spreads_the_images():
    """Tests the sign of the balance term: zero if the clusters are balanced, larger otherwise."""
    method, losses = build(PICA), []
    method.epoch = 1
    with torch.no_grad():
        method.head.weight.zero_()
        for bias in (0.0, 3.0):
            method.head.bias.copy_(torch.tensor([bias, 0, 0, 0]))
            losses.append(method.step(views(4), INDEX)["balance"].item())
    assert losses[0] == pytest.approx(0, abs=1e-6) and losses[0] < losses[1]


class TwoHeads(Method):
    """Two scalars, trained alternately like PICA's heads: the loss of epoch e is (e + 1) times head e % 2."""

    zero_idle_gradients = True

    def __init__(self):
        super().__init__(None, None, None)
        self.heads = torch.nn.Parameter(torch.tensor(1.0)), torch.nn.Parameter(torch.tensor(2.0))
        for number, head in enumerate(self.heads):
            self.register_parameter(f"head{number}", head)

    def step(self, views, index):
        return {"loss": (self.epoch + 1) * self.heads[self.epoch % 2]}


def adam_by_hand(start, gradients, rate=0.1):
    """Kingma & Ba, algorithm 1, with one gradient per step (None: the parameter is not yet trained)."""
    value, m, v, t = start, 0.0, 0.0, 0
    for g in gradients:
        if g is not None:
            t, m, v = t + 1, 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
            value -= rate * (m / (1 - 0.9**t)) / (math.sqrt(v / (1 - 0.999**t)) + 1e-8)
    return value


@pytest.mark.parametrize("resumed_before", [None, 7])
def test_an_idle_head_moves_on_as_under_torch_1_0(resumed_before):
    """Once trained, an idle head gets a gradient of zero: Adam still moves it by its momentum, and its second moment
    decays. A run resumed between two steps, without stored gradients, does the same."""
    method = TwoHeads()
    trainer = object.__new__(Trainer)
    trainer.method, trainer.autocast, trainer.epoch_losses = method, contextlib.nullcontext, []
    trainer.seeds, trainer.epoch, trainer.step_in_epoch = Seeds("x", "y", 0), 0, 0
    trainer.device = "cpu"
    trainer.optimizer = torch.optim.Adam(method.parameters(), lr=0.1)
    steps = [0, 0, 0, 1, 1, 1, 2, 2, 3, 3]  # the epoch of each step
    for number, method.epoch in enumerate(steps):
        if number == resumed_before:
            state = copy.deepcopy(trainer.optimizer.state_dict())
            trainer.optimizer = torch.optim.Adam(method.parameters(), lr=0.1)
            trainer.optimizer.load_state_dict(state)
            trainer.optimizer.zero_grad(set_to_none=True)
        trainer.learn((), torch.arange(1))
    first = [e + 1 if e % 2 == 0 else 0 for e in steps]
    second = [e + 1 if e % 2 == 1 else None if e == 0 else 0 for e in steps]
    expected = adam_by_hand(1.0, first), adam_by_hand(2.0, second)
    assert [head.item() for head in method.heads] == pytest.approx(expected, rel=1e-5)
    frozen = adam_by_hand(1.0, [g or None for g in first])
    assert abs(frozen - expected[0]) > 0.1  # so that the test can tell them apart


def test_pica_moves_its_idle_head_on():
    assert PICA.zero_idle_gradients and not Method.zero_idle_gradients


# --- assignments of all methods ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "cls, options", [(SCAN, {"neighbors": 3}), (SelfLabel, {}), (PICA, {}), (PICA, {"resize": 10})]
)
def test_assign_is_the_softmax_of_the_target_head(cls, options):
    method = build(cls, **options).eval()
    (images,) = views(1)
    seen = center(images, 10, 8) if "resize" in options else images
    with torch.no_grad():
        found = method.assign(images)
    np.testing.assert_allclose(found.numpy(), probabilities(method, method.head, seen), rtol=1e-3, atol=1e-6)
    assert method.clusters_by_kmeans is False


def test_random_assign_is_even_and_of_its_seed():
    torch.manual_seed(5)
    method, again = build(Random), build(Random)
    images = torch.rand(4000, 3, 1, 1)
    found = method.assign(images)
    assert found.shape == (4000, CLUSTERS) and torch.equal(found, again.assign(images))
    assert not torch.equal(found, method.assign(images))  # the random stream advances
    torch.testing.assert_close(found.sum(1), torch.ones(4000))
    assert found.argmax(1).bincount().sub(1000).abs().max() < 100  # 1000 per cluster, standard deviation 27


def test_pixels_assign_is_the_image():
    method = build(Pixels)
    (images,) = views(1)
    assert method.clusters_by_kmeans is True
    np.testing.assert_array_equal(method.assign(images).numpy(), [image.numpy().ravel() for image in images])
