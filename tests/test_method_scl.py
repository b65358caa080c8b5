"""SCL's step against naive numpy loops over its equations (docs/methods.md, section 1), numbered as there."""

import math

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from scl import settings
from scl.contract import Problem
from scl.images import load
from scl.method import SCL, Options
from scl.settings import Network
from scl.train import Trainer

IMAGES, CLUSTERS, BATCH, EPOCHS = 60, 4, 16, 40
INDEX = torch.arange(100, 100 + BATCH) * 7 % IMAGES  # 16 different positions
ABLATIONS = {  # stage of config/ablation.yaml -> its change
    "no-semantic": {"semantic_weight": 0.0},
    "no-consistency": {"consistency": "view"},
    "boundaries": {"consensus": "boundaries"},
    "similarities": {"consensus": "similarities"},
    "no-instance": {"instance_weight": 0.0},
    "kmeans": {"assignment": "kmeans"},
}


def build(*, images=IMAGES, clusters=CLUSTERS, epoch=EPOCHS - 1, **options):
    """SCL with a memory of random unit rows and random pseudo classes; weights depend on no option."""
    options = {"prototypes": "random"} | options
    problem = Problem(images=images, unlabelled=0, clusters=clusters, size=8, epochs=EPOCHS, mean=(0.5,) * 3,
                      std=(0.25,) * 3)
    torch.manual_seed(1)
    method = SCL(Options(projection_hidden=32, projection=8, **options), problem, Network(width=8, layers=[1, 1, 1]))
    generator = torch.Generator().manual_seed(2)
    rows = torch.randn(images, 8, generator=generator)
    method.memory.rows.copy_(torch.nn.functional.normalize(rows, dim=1))
    method.memory.pseudo_classes.copy_(torch.randint(clusters, (images,), generator=generator))
    method.epoch = epoch
    return method.train()


def views(batch=BATCH):
    return tuple(torch.rand(2, batch, 3, 8, 8, generator=torch.Generator().manual_seed(3)))


def embedded(method):
    """z of both views and the unit prototypes, as numpy float64."""
    with torch.no_grad():
        z = method.embed(torch.cat(views())).double().numpy()
        prototypes = torch.nn.functional.normalize(method.prototypes.weight, dim=1).double().numpy()
    return z[:BATCH], z[BATCH:], prototypes


def decisions(z, prototypes, temperature):  # [1]
    q = np.zeros((len(z), len(prototypes)))
    for i in range(len(z)):
        weight = [math.exp(z[i] @ c / temperature) for c in prototypes]
        q[i] = [w / sum(weight) for w in weight]
    return q


def similarities(z, memory, temperature):  # [2]
    rows, classes = memory.rows.double().numpy(), memory.pseudo_classes.tolist()
    p = np.zeros((len(z), CLUSTERS))
    for b, i in enumerate(INDEX.tolist()):
        for j in range(IMAGES):
            if j != i:
                p[b, classes[j]] += math.exp(z[b] @ rows[j] / temperature)
        p[b] /= p[b].sum()
    return p


def consensus(p1, p2, q1, q2):  # [3]
    y = []
    for i in range(BATCH):
        r = [math.sqrt(p1[i, k] * q1[i, k] * p2[i, k] * q2[i, k]) for k in range(CLUSTERS)]
        y.append(int(np.argmax(np.array(r) / sum(r))))
    return y


def agreement(a, b):
    return -sum(math.log(sum(a[i, k] * b[i, k] for k in range(CLUSTERS))) for i in range(BATCH)) / BATCH


def naive(method):
    """q and p of both views, the pseudo classes and the unweighted terms of the loss [4]-[7]."""
    o = method.options
    z1, z2, prototypes = embedded(method)
    q1, q2 = (decisions(z, prototypes, o.prototype_temperature) for z in (z1, z2))
    p1, p2 = (similarities(z, method.memory, o.temperature) for z in (z1, z2))
    y = consensus(p1, p2, q1, q2)
    mean = np.concatenate([q1, q2]).mean(0)
    both = np.concatenate([z1, z2])
    instance = 0.0
    for i in range(2 * BATCH):
        others = [math.exp(both[i] @ both[j] / o.instance_temperature) for j in range(2 * BATCH) if j != i]
        instance -= math.log(math.exp(both[i] @ both[(i + BATCH) % (2 * BATCH)] / o.instance_temperature) / sum(others))
    return {
        "y": y, "by boundaries": (q1 * q2).argmax(1).tolist(), "by similarities": (p1 * p2).argmax(1).tolist(),
        "semantic": -sum(math.log(p[i, y[i]]) for p in (p1, p2) for i in range(BATCH)) / (2 * BATCH),
        "consistency": (agreement(p1, q2) + agreement(p2, q1)) / 2, "view consistency": agreement(q1, q2),
        "balance": math.log(CLUSTERS) + sum(m * math.log(m) for m in mean), "instance": instance / (2 * BATCH)}


def terms_of(method):
    return {name: term.item() for name, term in method.step(views(), INDEX).items()}


def test_the_step_is_the_equations():
    """[8]: each term with its weight, the pseudo classes by the consensus of both views, p and q."""
    weights = {"semantic_weight": 0.7, "consistency_weight": 1.3, "balance_weight": 2.5, "instance_weight": 0.9}
    method = build(temperature=0.2, prototype_temperature=0.3, instance_temperature=0.4, **weights)
    expected = naive(method)
    terms = terms_of(method)
    assert terms.keys() == {"semantic", "consistency", "balance", "instance"}
    for name, value in terms.items():
        assert value == pytest.approx(weights[f"{name}_weight"] * expected[name], rel=1e-4, abs=1e-6), name
    *_, pseudo_classes = method.seen
    assert pseudo_classes.tolist() == expected["y"] and len(set(expected["y"])) > 1
    assert expected["y"] != expected["by boundaries"]  # so the three rules can be told apart here
    assert expected["y"] != expected["by similarities"]


@pytest.mark.parametrize("epoch,warm", [(0, True), (4, True), (5, False), (39, False)])
def test_warm_up_uses_no_memory(epoch, warm):
    """[10] for an eighth of the epochs: view consistency of q, pseudo classes by q, and the memory is not read."""
    method = build(epoch=epoch, warm_up=0.125)
    expected = naive(method)
    method.memory.rows.fill_(math.nan)
    terms = terms_of(method)
    assert all(map(math.isfinite, terms.values())) == warm
    if warm:
        assert terms.keys() == {"consistency", "balance", "instance"}
        assert terms["consistency"] == pytest.approx(expected["view consistency"], rel=1e-4)
        z1, z2, prototypes = embedded(method)
        q = sum(decisions(z, prototypes, method.options.prototype_temperature) for z in (z1, z2))
        *_, pseudo_classes = method.seen
        assert pseudo_classes.tolist() == q.argmax(1).tolist()


def test_prototypes_start_at_the_kmeans_centres_of_the_memory():
    """[10] Until then only instance contrast learns; the pseudo classes are then those of k-means."""
    method = build(prototypes="kmeans", warm_up=0.125, epoch=4)
    assert terms_of(method).keys() == {"instance"} and not method.placed
    corners = torch.eye(8)[torch.arange(IMAGES) % CLUSTERS]  # four groups that k-means cannot miss
    method.memory.rows.copy_(corners)
    method.epoch = 5
    assert terms_of(method).keys() == {"semantic", "consistency", "balance", "instance"} and method.placed
    centres = torch.nn.functional.normalize(method.prototypes.weight.detach(), dim=1)  # K x d
    torch.testing.assert_close(centres.sort(0).values, torch.eye(8)[:CLUSTERS].sort(0).values, atol=1e-5, rtol=0)
    assert (centres[method.memory.pseudo_classes] * corners).sum(1).min() > 0.999
    placed = method.prototypes.weight.detach().clone()
    method.step(views(), INDEX)
    assert torch.equal(method.prototypes.weight, placed)  # once, not at every step


@pytest.mark.parametrize("name", ABLATIONS)
def test_an_ablation_changes_its_own_terms_only(name):
    reference, ablated = build(), build(**ABLATIONS[name])
    expected = naive(reference)
    before, after = terms_of(reference), terms_of(ablated)
    *_, pseudo_classes = ablated.seen
    gone, changed = before.keys() - after.keys(), {k for k in after if after[k] != before.get(k)}
    assert (gone, changed) == {
        "no-semantic": ({"semantic"}, set()), "no-instance": ({"instance"}, set()),
        "no-consistency": (set(), {"consistency"}), "boundaries": (set(), {"semantic"}),
        "similarities": (set(), {"semantic"}), "kmeans": (set(), set())}[name]
    if name == "no-consistency":
        assert after["consistency"] == pytest.approx(expected["view consistency"], rel=1e-4)
    rule = {"boundaries": "by boundaries", "similarities": "by similarities"}.get(name, "y")
    assert pseudo_classes.tolist() == expected[rule]
    assert ablated.clusters_by_kmeans == (name == "kmeans")


def test_kmeans_in_place_of_prototypes_sees_the_features():
    method = build(assignment="kmeans").eval()
    images = views()[0]
    with torch.no_grad():
        h = method.encoder(images)
        torch.testing.assert_close(method.assign(images), h / h.norm(dim=1, keepdim=True))


def test_the_memory_changes_after_the_step_and_only_for_its_batch():
    """[9], with the embeddings and pseudo classes of the step."""
    method = build(memory_momentum=0.7)
    rows, classes = method.memory.rows.clone(), method.memory.pseudo_classes.clone()
    z1, z2, _ = embedded(method)
    expected = naive(method)["y"]
    method.step(views(), INDEX)
    assert torch.equal(method.memory.rows, rows) and torch.equal(method.memory.pseudo_classes, classes)
    method.after_step()
    for b, i in enumerate(INDEX.tolist()):
        fresh = (z1[b] + z2[b]) / np.linalg.norm(z1[b] + z2[b])
        mixed = 0.7 * rows[i].double().numpy() + 0.3 * fresh
        np.testing.assert_allclose(method.memory.rows[i].numpy(), mixed / np.linalg.norm(mixed), rtol=1e-4, atol=1e-6)
    assert method.memory.pseudo_classes[INDEX].tolist() == expected
    others = torch.ones(IMAGES, dtype=torch.bool).index_fill_(0, INDEX, False)
    assert torch.equal(method.memory.rows[others], rows[others])
    assert torch.equal(method.memory.pseudo_classes[others], classes[others])


def test_no_gradient_flows_through_pseudo_classes_or_memory():
    method = build()
    sum(method.step(views(), INDEX).values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in method.parameters())
    assert not any(buffer.requires_grad for buffer in method.buffers())
    index, z1, z2, pseudo_classes = method.seen
    assert not (z1.requires_grad or z2.requires_grad or pseudo_classes.requires_grad)


class Largest(TorchDispatchMode):
    """Remembers the most values that any tensor made inside had."""

    def __init__(self):
        super().__init__()
        self.values = 0

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        made = function(*arguments, **(keywords or {}))
        self.values = max([self.values, *(t.numel() for t in tree_leaves(made) if isinstance(t, torch.Tensor))])
        return made


def test_no_tensor_of_images_by_clusters_by_batch():
    images, clusters = 2000, 50
    method = build(images=images, clusters=clusters)
    index = torch.randperm(images)[:BATCH]
    with Largest() as largest:
        sum(method.step(views(), index).values()).backward()
        method.after_step()
    assert images * BATCH <= largest.values < images * clusters  # memory and activations are smaller than this too


def test_assignment_is_the_decision_on_the_image_as_it_is(tiny_study, train_all):
    """[11], from the files of a run: argmax of q of images.npy / 255, without augmentation, in evaluation mode."""
    study = tiny_study("scl")
    (run,) = train_all(study)
    config = settings.complete(settings.load_run(run.directory))
    trainer = Trainer(config, run.directory, device="cpu", report=lambda *_: None)
    method = trainer.method
    method.load_state_dict(torch.load(run.directory / "weights.pt", weights_only=True), strict=False)
    method.eval()
    pixels = load(config.data, "joint", "assign").pixels.numpy() / np.float32(255)
    with torch.no_grad():
        z = method.embed(torch.tensor(pixels).permute(0, 3, 1, 2)).double().numpy()
        prototypes = torch.nn.functional.normalize(method.prototypes.weight, dim=1).double().numpy()
    q = decisions(z, prototypes, method.options.prototype_temperature)
    files = np.load(run.directory / "assignments.npz")
    np.testing.assert_array_equal(files["assignments"], q.argmax(1))
    np.testing.assert_allclose(files["confidence"], q.max(1), rtol=1e-3)
