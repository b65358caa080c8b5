"""SCL's step against naive NumPy loops over its equations, numbered as in docs/methods.md, section 1."""

import math

import numpy as np
import plain
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from scl import config, losses
from scl.config import Network
from scl.engine.train import Trainer
from scl.images import load
from scl.method import Problem
from scl.scl import SCL, Options

IMAGES, CLUSTERS, BATCH, EPOCHS = 60, 4, 16, 40
INDEX = torch.arange(100, 100 + BATCH) * 7 % IMAGES  # 16 different positions
ABLATIONS = {  # stage of config/ablation.yaml -> its change
    "no-semantic": {"semantic_weight": 0.0},
    "no-consistency": {"consistency": "view"},
    "consistency of means": {"consistency": "means"},
    "boundaries": {"consensus": "boundaries"},
    "similarities": {"consensus": "similarities"},
    "sums": {"mean_similarities": False},
    "similar sums": {"mean_similarities": False, "consensus": "similarities"},
    "no-instance": {"instance_weight": 0.0},
    "kmeans": {"assignment": "kmeans"},
}
WEIGHTS = {"semantic_weight": 0.7, "consistency_weight": 1.3, "balance_weight": 2.5, "instance_weight": 0.9}
TEMPERATURES = {"temperature": 0.2, "prototype_temperature": 0.3, "instance_temperature": 0.4}


def build(*, images=IMAGES, clusters=CLUSTERS, epoch=EPOCHS - 1, **options):
    """SCL with a memory of random unit rows and random pseudo classes; weights depend on no option."""
    options = {"prototypes": "random"} | options
    problem = Problem(
        images=images, unlabeled=0, clusters=clusters, size=8, epochs=EPOCHS, mean=(0.5,) * 3, std=(0.25,) * 3
    )
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
    """z of both views, which share a pass, and the unit prototypes: layer by layer in float64."""
    z = plain.projected(plain.features(method, torch.cat(views())), method.projection)
    return z[:BATCH], z[BATCH:], plain.unit(method.prototypes.weight.detach().double().numpy())


def naive(method):
    """q and p of both views, the pseudo classes and the unweighted terms of the loss [4]-[7]."""
    o = method.options
    z1, z2, prototypes = embedded(method)
    q1, q2 = (plain.decisions(z, prototypes, o.prototype_temperature) for z in (z1, z2))
    p1, p2 = (plain.similarities(z, INDEX, method.memory, o.temperature) for z in (z1, z2))
    s1, s2 = (plain.mean_similarities(z, INDEX, method.memory, o.temperature) for z in (z1, z2))
    y = {
        rule: plain.consensus(*four)
        for rule, four in {
            "both": (s1, s2, q1, q2),
            "boundaries": (q1, q2, q1, q2),
            "similarities": (s1, s2, s1, s2),
            "both, sums": (p1, p2, q1, q2),
            "similarities, sums": (p1, p2, p1, p2),
        }.items()
    }
    spread = plain.entropy_of_mean(np.concatenate([q1, q2]))
    semantic = {
        rule: -sum(math.log(p[i, k]) for p in (p1, p2) for i, k in enumerate(classes)) / (2 * BATCH)
        for rule, classes in y.items()
    }
    return {
        "y, warm-up": (q1 + q2).argmax(1).tolist(),
        **{f"y, {rule}": y[rule] for rule in y},
        **{f"semantic, {rule}": semantic[rule] for rule in y},
        "consistency, means": (plain.agreement(s1, q2) + plain.agreement(s2, q1)) / 2,
        "consistency, joint": (plain.agreement(p1, q2) + plain.agreement(p2, q1)) / 2,
        "consistency, view": plain.agreement(q1, q2),
        "balance": math.log(CLUSTERS) - spread,
        "instance": plain.nt_xent(z1, z2, o.instance_temperature),
    }


def terms_of(method):
    return {name: term.item() for name, term in method.step(views(), INDEX).items()}


def _scl_step_reference(method):
    """[8] and [10]: the weighted terms of the loss and the pseudo classes, with initialized prototypes."""
    o, e = method.options, naive(method)
    warm = method.epoch < max(1, round(o.warm_up * EPOCHS))
    terms = {"consistency": f"consistency, {'view' if warm else o.consistency}"}
    terms |= {"balance": "balance"} | ({"instance": "instance"} if o.instance_weight else {})
    rule = o.consensus + ", sums" * (not o.mean_similarities)
    terms |= {} if warm or not o.semantic_weight else {"semantic": f"semantic, {rule}"}
    return (
        {name: getattr(o, f"{name}_weight") * e[key] for name, key in terms.items()},
        e["y, warm-up" if warm else f"y, {rule}"],
    )


@pytest.mark.parametrize("epoch", [0, EPOCHS - 1])
@pytest.mark.parametrize("name", ["whole", *ABLATIONS, "no batch norm"])
def test_scl_step(name, epoch):
    """Each term with its weight, and the pseudo classes, during and after the warm-up, for every option."""
    options = WEIGHTS | TEMPERATURES | ABLATIONS.get(name, {}) | {"projection_norm": name != "no batch norm"}
    method = build(epoch=epoch, **options)
    method.memory.pseudo_classes[-3:] = CLUSTERS  # not seen yet
    expected, pseudo_classes = _scl_step_reference(method)
    terms = terms_of(method)
    assert terms.keys() == expected.keys()
    for term, value in terms.items():
        assert value == pytest.approx(expected[term], rel=2e-4, abs=1e-6), term
    index, z1, z2, found = method.seen
    assert found.tolist() == pseudo_classes and torch.equal(index, INDEX)
    for z, reference in zip((z1, z2), embedded(method)):
        np.testing.assert_allclose(z.numpy(), reference, rtol=1e-3, atol=1e-5)


def test_rules_of_consensus_differ_on_these_images():
    """Otherwise test_scl_step could not tell them apart."""
    rules = ("both", "boundaries", "similarities", "both, sums", "similarities, sums", "warm-up")
    expected = naive(build(**TEMPERATURES))
    assert len({str(expected[f"y, {rule}"]) for rule in rules}) == 6


@pytest.mark.parametrize(
    "warm_up, epochs", [(0.0, 1), (0.01, 1), (0.0374, 1), (0.06, 2), (0.07, 3), (0.125, 5), (1.0, 40)]
)
def test_warm_up_lasts_a_share_of_the_epochs(warm_up, epochs):
    """A fraction of 40 epochs, rounded to an integer, at least one."""
    method = build(warm_up=warm_up)
    lasting = []
    for method.epoch in range(EPOCHS):
        lasting.append(method.warming_up)
    assert lasting == [True] * epochs + [False] * (EPOCHS - epochs)


@pytest.mark.parametrize("epoch,warm", [(0, True), (4, True), (5, False), (39, False)])
def test_warm_up_uses_no_memory(epoch, warm):
    """[10] for an eighth of the epochs."""
    method = build(epoch=epoch, warm_up=0.125)
    method.memory.rows.fill_(math.nan)
    assert all(map(math.isfinite, terms_of(method).values())) == warm


def test_prototypes_start_at_the_kmeans_centers_of_the_memory():
    """[10] Until then, only instance contrast is trained; afterward, the pseudo classes are those of k-means."""
    method = build(prototypes="kmeans", warm_up=0.125, epoch=4)
    assert terms_of(method).keys() == {"instance"} and not method.placed
    corners = torch.eye(8)[torch.arange(IMAGES) % CLUSTERS]  # four groups that k-means cannot miss
    method.memory.rows.copy_(corners)
    method.epoch = 5
    assert terms_of(method).keys() == {"semantic", "consistency", "balance", "instance"} and method.placed
    centers = torch.nn.functional.normalize(method.prototypes.weight.detach(), dim=1)  # K x d
    torch.testing.assert_close(centers.sort(0).values, torch.eye(8)[:CLUSTERS].sort(0).values, atol=1e-5, rtol=0)
    assert (centers[method.memory.pseudo_classes] * corners).sum(1).min() > 0.999
    placed = method.prototypes.weight.detach().clone()
    method.step(views(), INDEX)
    assert torch.equal(method.prototypes.weight, placed)  # once, not at every step


@pytest.mark.parametrize("instance_weight", [1.0, 0.0])
def test_a_training_that_is_all_warm_up_learns_prototypes_from_a_random_start(instance_weight):
    """For example, with one epoch: k-means never initializes prototypes, but they are used to assign images."""
    method = build(prototypes="kmeans", warm_up=1.0, epoch=EPOCHS - 1, instance_weight=instance_weight)
    terms = method.step(views(), INDEX)
    assert method.placed and method.warming_up
    sum(terms.values()).backward()
    assert method.prototypes.weight.grad.abs().max() > 0


def test_a_warm_up_that_sees_fewer_images_than_clusters_says_so():
    method = build(prototypes="kmeans")
    method.memory.pseudo_classes[3:] = CLUSTERS
    with pytest.raises(
        ValueError, match="training.batch_size: the warm-up has seen 3 images, fewer than the 4 clusters"
    ):
        method.step(views(), INDEX)


def test_prototypes_are_the_unit_centers_of_sklearns_kmeans(monkeypatch):
    """For any memory; restarts from the options, the seed from torch's generator, over its full range."""
    import sklearn.cluster

    given = []

    def recorded(clusters, **arguments):
        given.append(arguments)
        return KMeans(clusters, **arguments)

    KMeans = sklearn.cluster.KMeans
    monkeypatch.setattr(sklearn.cluster, "KMeans", recorded)
    method = build(prototypes="kmeans", kmeans_restarts=3)
    torch.manual_seed(1)  # a seed whose numbers differ for ranges of 2^30, 2^31, and 2^32
    seed = int(torch.randint(2**31, (1,)))
    torch.manual_seed(1)
    method.step(views(), INDEX)
    assert given == [{"n_init": 3, "random_state": seed}] and seed > 2**30
    found = KMeans(CLUSTERS, n_init=3, random_state=seed).fit(method.memory.rows.numpy())
    np.testing.assert_allclose(method.prototypes.weight.detach().numpy(), plain.unit(found.cluster_centers_), rtol=1e-4)
    assert method.memory.pseudo_classes.tolist() == found.labels_.tolist()


def test_images_not_yet_in_the_memory_do_not_place_prototypes():
    """After a warm-up of one epoch whose last partial batch was dropped: no center at the origin."""
    from sklearn.cluster import KMeans

    method = build(prototypes="kmeans", kmeans_restarts=2)
    rows = method.memory.rows.clone()
    method.memory.rows[50:], method.memory.pseudo_classes[50:] = 0, CLUSTERS
    torch.manual_seed(1)
    seed = int(torch.randint(2**31, (1,)))
    torch.manual_seed(1)
    method.place_prototypes()
    found = KMeans(CLUSTERS, n_init=2, random_state=seed).fit(rows[:50].numpy())
    np.testing.assert_allclose(method.prototypes.weight.detach().numpy(), plain.unit(found.cluster_centers_), rtol=1e-4)
    assert method.memory.pseudo_classes.tolist() == found.labels_.tolist() + [CLUSTERS] * 10


@pytest.mark.parametrize("mean_similarities", [True, False])
@pytest.mark.parametrize("consensus", ["both", "similarities"])
def test_an_emptied_pseudo_class_can_come_back(consensus, mean_similarities):
    """[3] If no other image is in a class, p has no information on it, and the boundary decides."""
    method = build(consensus=consensus, mean_similarities=mean_similarities)
    method.memory.pseudo_classes[method.memory.pseudo_classes == 3] = 0
    z = torch.nn.functional.normalize(torch.randn(6, 8, generator=torch.Generator().manual_seed(5)), dim=1)
    index = torch.arange(6)
    p = method.memory.similarity(z, index)
    assert (p[:, 3] == 0).all()
    sure = torch.tensor([[1e-4, 1e-4, 1e-4, 1 - 3e-4]]).repeat(6, 1)
    assert method.reason(p, p, sure, sure, index).argmax(1).tolist() == [3] * 6
    assert (method.reason(p, p, sure.flip(1), sure.flip(1), index).argmax(1) != 3).all()


def test_a_large_pseudo_class_wins_no_image_for_its_size():
    """[3] Between two classes around the same point, one with 50 times the images, the boundary decides."""
    index, q = torch.tensor([0, 1]), torch.tensor([[0.4, 0.6], [0.6, 0.4]])

    def classes(mean_similarities):
        method = build(images=102, clusters=2, mean_similarities=mean_similarities)
        method.memory.rows.copy_(torch.eye(8)[0])
        method.memory.pseudo_classes.copy_(torch.tensor([0] * 100 + [1] * 2))
        p = method.memory.similarity(torch.eye(8)[[0, 0]], index)
        return method.reason(p, p, q, q, index).argmax(1).tolist()

    assert classes(True) == [1, 0] and classes(False) == [0, 0]


def test_a_large_pseudo_class_attracts_no_boundary_for_its_size():
    """[5] Two classes around one point: with means any q is as good, with sums that of the large class is best."""
    index, even, large = torch.tensor([0, 1]), torch.tensor([[0.5, 0.5]] * 2), torch.tensor([[0.9, 0.1]] * 2)

    def preferred(consistency):
        method = build(images=102, clusters=2, consistency=consistency)
        method.memory.rows.copy_(torch.eye(8)[0])
        method.memory.pseudo_classes.copy_(torch.tensor([0] * 100 + [1] * 2))
        p = method.memory.similarity(torch.eye(8)[[0, 0]], index)
        similar = method.means(p, p, index) if consistency == "means" else (p, p)
        a, b = (losses.clustering_consistency(*similar, q, q).item() for q in (even, large))
        return "no class" if a == pytest.approx(b) else "the large one" if b < a else "the small one"

    assert (preferred("means"), preferred("joint")) == ("no class", "the large one")


def test_an_image_counts_neither_among_its_class_nor_its_similarities():
    """[3] Two classes of two equal rows, one with the image itself: s is equal for both, and the boundary decides."""
    method = build(images=4, clusters=2)
    method.memory.rows.copy_(torch.eye(8)[0])
    method.memory.pseudo_classes.copy_(torch.tensor([0, 0, 1, 1]))
    index, q = torch.tensor([0]), torch.tensor([[0.55, 0.45]])
    p = method.memory.similarity(torch.eye(8)[[0]], index)
    assert method.reason(p, p, q, q, index)[0].tolist() == pytest.approx([0.55, 0.45])


def test_the_image_itself_is_no_member_of_its_pseudo_class():
    memory = build(images=6, clusters=3).memory
    memory.pseudo_classes.copy_(torch.tensor([0, 0, 0, 1, 2, 3]))  # 3: not seen yet
    assert memory.others(torch.tensor([1, 3, 5])).tolist() == [[2, 1, 1], [3, 0, 1], [3, 1, 1]]


def test_an_image_alone_in_its_pseudo_class_has_no_positives():
    """[4] It contributes neither a value nor a gradient to the loss."""
    p = torch.tensor([[0.25, 0.75, 0.0]], requires_grad=True)
    alone, other = torch.tensor([2]), torch.tensor([0])
    assert losses.semantic_contrast(p, p, alone).item() == 0
    both = losses.semantic_contrast(p.repeat(2, 1), p.repeat(2, 1), torch.cat([alone, other]))
    assert both.item() == pytest.approx(math.log(4) / 2)
    both.backward()
    assert p.grad.isfinite().all()


@pytest.mark.parametrize("prototypes", ["kmeans", "random"])
def test_a_state_knows_whether_the_prototypes_are_in_place(prototypes):
    """A resumed run must not initialize them again."""
    method, resumed = build(prototypes=prototypes), build(prototypes=prototypes)
    assert method.placed == (prototypes == "random")
    method.step(views(), INDEX)
    method.count("event")
    resumed.load_state_dict(method.state_dict())
    assert resumed.placed and resumed.counts == {"event": 1}
    assert terms_of(resumed) == terms_of(method)


def test_until_the_prototypes_are_in_place_instance_contrast_learns_whatever_its_weight():
    method = build(prototypes="kmeans", epoch=0, instance_weight=0.0)
    assert terms_of(method) == {"instance": 0.0}


@pytest.mark.parametrize("name", ABLATIONS)
def test_an_ablation_changes_its_own_terms_only(name):
    reference, ablated = build(), build(**ABLATIONS[name])
    before, after = terms_of(reference), terms_of(ablated)
    gone, changed = before.keys() - after.keys(), {k for k in after if after[k] != before.get(k)}
    assert (gone, changed) == {
        "no-semantic": ({"semantic"}, set()),
        "no-instance": ({"instance"}, set()),
        "no-consistency": (set(), {"consistency"}),
        "consistency of means": (set(), {"consistency"}),
        "boundaries": (set(), {"semantic"}),
        "similarities": (set(), {"semantic"}),
        "sums": (set(), {"semantic"}),
        "similar sums": (set(), {"semantic"}),
        "kmeans": (set(), set()),
    }[name]
    assert ablated.clusters_by_kmeans == (name == "kmeans") and not reference.clusters_by_kmeans


def test_kmeans_in_place_of_prototypes_sees_the_features():
    method = build(assignment="kmeans").eval()
    images = views()[0]
    with torch.no_grad():
        found = method.assign(images).numpy()
    np.testing.assert_allclose(found, plain.unit(plain.features(method, images)), rtol=1e-3, atol=1e-6)


def test_assign_is_the_decision_of_each_image():
    """[11] softmax of the cosines to the prototypes, in evaluation mode."""
    method = build(**TEMPERATURES).eval()
    images = views()[0]
    z = plain.projected(plain.features(method, images), method.projection)
    with torch.no_grad():
        found = method.assign(images).numpy()
    np.testing.assert_allclose(found, plain.decisions(z, embedded(method)[2], 0.3), rtol=1e-3, atol=1e-6)


def test_decisions_stay_in_float32_under_autocast():
    method = build()
    z = torch.nn.functional.normalize(torch.randn(5, 8), dim=1)
    with torch.no_grad():
        plainly = method.decide(z)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(method.decide(z), plainly)


def test_views_are_drawn_under_two_augmentations():
    """v1 as in SimCLR, v2 strong, both of the same image."""

    class Positions:
        def batch(self, index):
            return index.float()

    augment = {"view": lambda batch, generator: batch + 100, "strong": lambda batch, generator: batch + 200}
    one, two = build().draw(Positions(), torch.tensor([4, 2]), augment, torch.Generator())
    assert one.tolist() == [104, 102] and two.tolist() == [204, 202]


def test_the_memory_changes_after_the_step_and_only_for_its_batch():
    """[9], with the embeddings and pseudo classes of the step."""
    method = build(memory_momentum=0.7)
    rows, classes = method.memory.rows.clone(), method.memory.pseudo_classes.clone()
    z1, z2, _ = embedded(method)
    expected = naive(method)["y, both"]
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
    """Records the largest number of elements of any tensor created inside."""

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
    assert images * BATCH <= largest.values < images * clusters  # the memory and activations are below this, too


def test_assignment_is_the_decision_on_the_image_as_it_is(tiny_study, train_all):
    """[11] from the files of a run: argmax of q for images.npy / 255, without augmentation, in evaluation mode."""
    study = tiny_study("scl")
    (run,) = train_all(study)
    run_settings = config.complete(config.load_run(run.directory))
    trainer = Trainer(run_settings, run.directory, device="cpu", report=lambda *_: None)
    method = trainer.method
    method.load_state_dict(torch.load(run.directory / "weights.pt", weights_only=True), strict=False)
    method.eval()
    pixels = load(run_settings.data, "joint", "assign").pixels.numpy() / np.float32(255)
    with torch.no_grad():
        z = method.embed(torch.tensor(pixels).permute(0, 3, 1, 2)).double().numpy()
        prototypes = torch.nn.functional.normalize(method.prototypes.weight, dim=1).double().numpy()
    q = plain.decisions(z, prototypes, method.options.prototype_temperature)
    files = np.load(run.directory / "assignments.npz")
    np.testing.assert_array_equal(files["assignments"], q.argmax(1))
    np.testing.assert_allclose(files["confidence"], q.max(1), rtol=1e-3)
