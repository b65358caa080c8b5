"""What the baselines draw and when they use what: neighbors, heads, unlabeled images, confident images."""

import copy
import csv
import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from conftest import TINY_METHODS

from baselines.controls import Pixels
from baselines.pica import PICA, center
from baselines.scan import SCAN, SelfLabel, nearest
from baselines.simclr import SimCLR
from scl import augment
from scl import images as stored
from scl.config import Network
from scl.engine import clustering
from scl.engine.assign import features
from scl.engine.clustering import kmeans
from scl.engine.io import sha256
from scl.method import Problem
from scl.scl import SCL

TINY = Network(width=8, layers=[1, 1, 1])
PROBLEM = Problem(images=12, unlabeled=6, clusters=3, size=8, epochs=4, mean=(0.5,) * 3, std=(0.25,) * 3)


def build(cls, *, problem=PROBLEM, network=TINY, **options):
    torch.manual_seed(0)
    return cls(cls.Options(**options), problem, network)


class Positions:
    """Images whose pixels are their own position: what was drawn can be read off."""

    def batch(self, index):
        return index.float()[:, None, None, None].expand(-1, 3, 8, 8)


def identity(images, generator):
    return images


def drawn(views):
    return [view[:, 0, 0, 0].long() for view in views]


# --- SCAN -------------------------------------------------------------------------------------------------------


def test_neighbors_are_those_of_features_in_float32():
    """Also where the networks compute in bfloat16."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (300, 8, 8, 3), generator=generator, dtype=torch.uint8)
    images = stored.Images(pixels, np.arange(300), 300)
    scan = build(SCAN, problem=dataclasses.replace(PROBLEM, images=300))
    scan.prepare(images, None)
    expected = scan.neighbors.clone()
    with torch.autocast("cpu", torch.bfloat16):
        scan.prepare(images, None)
    assert torch.equal(scan.neighbors, expected)


def test_scan_draws_uniformly_among_21_the_image_itself_included():
    count = 4000
    scan = build(SCAN, problem=dataclasses.replace(PROBLEM, images=count))
    scan.neighbors.copy_((torch.arange(count)[:, None] + torch.arange(21)) % count)
    index = torch.arange(count).flip(0)
    anchor, neighbor = drawn(scan.draw(Positions(), index, {"strong": identity}, torch.Generator().manual_seed(0)))
    assert torch.equal(anchor, index)
    column = (neighbor - anchor) % count
    frequency = torch.bincount(column, minlength=21)
    assert len(frequency) == 21
    expected = count / 21
    assert ((frequency - expected) ** 2 / expected).sum() < 45.3  # chi-squared, 20 degrees of freedom, p = 0.001


def test_scan_augments_both_images_strongly_and_apart():
    scan = build(SCAN, neighbors=2)
    scan.neighbors.copy_(torch.arange(12)[:, None].expand(-1, 3))  # the neighbor is the image itself
    calls = []

    def strong(images, generator):
        calls.append(len(images))
        return images + torch.rand(len(images), 1, 1, 1, generator=generator)

    one, two = scan.draw(Positions(), torch.arange(12), {"strong": strong}, torch.Generator().manual_seed(0))
    assert calls == [12, 12] and (one != two).any()


@pytest.mark.parametrize("chunk", [3, 7, 1024])
def test_nearest_against_brute_force(chunk):
    z = np.random.default_rng(0).normal(size=(40, 5)).astype(np.float32)
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    found = nearest(torch.tensor(z), 6, chunk=chunk).numpy()
    assert found.shape == (40, 7)
    for i in range(40):
        others = sorted((j for j in range(40) if j != i), key=lambda j: -float(z[i] @ z[j]))
        assert found[i].tolist() == [i, *others[:6]]


def test_nearest_puts_the_image_itself_first_among_duplicates():
    z = torch.nn.functional.normalize(torch.randn(10, 4, generator=torch.Generator().manual_seed(0)), dim=1)
    z[3:8] = z[3]  # five copies of one image
    found = nearest(z, 4)
    assert found[:, 0].tolist() == list(range(10))
    for row in range(3, 8):
        assert set(found[row].tolist()) == set(range(3, 8))


def test_nearest_is_exact_under_autocast():
    angle = torch.arange(50) * 1e-3  # neighbors on a circle: inner products of 1 - 5e-7, all 1 in bfloat16
    z = torch.stack([angle.cos(), angle.sin()], dim=1)
    with torch.autocast("cpu", torch.bfloat16):
        found = nearest(z, 2)
    assert set(found[20].tolist()) == {19, 20, 21}


def test_scan_starts_from_the_outputs_of_simclr():
    """Neighbors are those of SimCLR's normalized outputs, in evaluation mode; the clustering head is new."""
    simclr, scan = build(SimCLR), build(SCAN, neighbors=3)
    scan.start_from(simclr.state_dict())
    pixels = torch.randint(0, 256, (12, 8, 8, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    images = stored.Images(pixels, np.arange(12), 12)
    scan.train()
    graphs = []  # would hold every activation of the whole data set
    hook = scan.encoder.register_forward_hook(lambda *_: graphs.append(torch.is_grad_enabled()))
    scan.prepare(images, torch.Generator())
    hook.remove()
    assert graphs == [False]
    simclr.eval()
    with torch.no_grad():
        z = torch.nn.functional.normalize(simclr.projection(simclr.encoder(images.batch(torch.arange(12)))), dim=1)
    assert torch.equal(scan.neighbors, nearest(z, 3))
    assert not any(p.requires_grad for p in scan.projection.parameters())
    assert all(p.requires_grad for p in scan.encoder.parameters())


def test_scan_asks_for_no_more_neighbors_than_there_are():
    images = stored.Images(torch.zeros(12, 8, 8, 3, dtype=torch.uint8), np.arange(12), 12)
    build(SCAN, neighbors=11).prepare(images, torch.Generator())
    with pytest.raises(ValueError, match="options.neighbors: must be less than the number of images, 12; lower it"):
        build(SCAN, neighbors=12).prepare(images, torch.Generator())


def test_scan_keeps_its_neighbors_as_rows_of_the_data_set():
    """Positions among the images that are clustered, here every second row, become rows; the image itself first."""
    scan = build(SCAN, neighbors=2)
    scan.neighbors.copy_((torch.arange(12)[:, None] + torch.arange(3)) % 12)
    images = stored.Images(torch.zeros(18, 8, 8, 3, dtype=torch.uint8), np.arange(0, 36, 2), 12)
    kept = scan.arrays(images)
    assert kept.keys() == {"neighbors", "neighbor_rows"}
    assert kept["neighbor_rows"].tolist() == list(range(0, 24, 2))
    assert kept["neighbors"].tolist() == [[2 * i, (2 * i + 2) % 24, (2 * i + 4) % 24] for i in range(12)]


def test_arrays_of_a_method_are_kept_beside_those_of_the_harness(tiny_study, train_all, monkeypatch):
    (run,) = train_all(tiny_study("kmeans"))
    assert "mine" not in np.load(run.directory / "assignments.npz").files
    monkeypatch.setattr(Pixels, "arrays", lambda self, images: {"mine": images.rows * 2})
    (run,) = train_all(tiny_study("kmeans", results="other"))
    kept = np.load(run.directory / "assignments.npz")
    assert kept["mine"].tolist() == list(range(0, 400, 2)) and len(kept["assignments"]) == 200
    monkeypatch.setattr(Pixels, "arrays", lambda self, images: {"rows": images.rows})
    with pytest.raises(ValueError, match="baselines.controls.Pixels.arrays: rows is an array of the harness"):
        train_all(tiny_study("kmeans", results="refused"))


# --- self-labeling ---------------------------------------------------------------------------------------------


def test_self_label_counts_steps_without_a_confident_image():
    method = build(SelfLabel, threshold=0.999)
    torch.nn.init.zeros_(method.head.weight)
    torch.nn.init.zeros_(method.head.bias)  # every class equally likely: nobody is confident
    views = torch.rand(2, 6, 3, 8, 8)
    for expected in (1, 2):
        (loss,) = method.step(tuple(views), torch.arange(6)).values()
        assert loss.item() == 0 and not loss.requires_grad  # so the loop leaves the weights alone
        assert method.counts == {"steps with no confident image": expected}
    with torch.no_grad():
        method.head.bias[0] = 100
    (loss,) = method.step(tuple(views), torch.arange(6)).values()
    assert loss.requires_grad and method.counts == {"steps with no confident image": 2}


def test_an_empty_mask_survives_the_loop_and_reaches_the_record(tiny_study, train_all):
    from conftest import TINY_METHODS

    methods = {k: dict(TINY_METHODS[k]) for k in ("simclr", "scan", "selflabel")}
    methods["selflabel"] |= {"options": {"threshold": 0.9999}}
    study = tiny_study(methods=methods)
    train_all(study)
    run = study.run("tiny-digits", "joint", "selflabel", 0)
    counts = json.loads((run.directory / "record.json").read_text())["counts"]
    assert counts == {"steps with no confident image": 6}  # 2 epochs of 3 steps
    after, before = (torch.load(r.directory / "weights.pt", weights_only=True) for r in (run, run.after))
    assert all(torch.equal(after[k], before[k]) for k in before if k.startswith("head."))


# --- PICA -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "epoch,trained,resting",
    [(0, "overclustering_head", "head"), (1, "head", "overclustering_head"), (2, "overclustering_head", "head")],
)
def test_pica_alternates_its_heads(epoch, trained, resting):
    pica = build(PICA, overclusters=5)
    pica.epoch = epoch
    sum(pica.step(tuple(torch.rand(4, 6, 3, 8, 8)), torch.arange(6)).values()).backward()
    assert getattr(pica, trained).weight.grad.abs().sum() > 0
    assert getattr(pica, resting).weight.grad is None
    assert all(p.grad is not None for p in pica.encoder.parameters())


def test_pica_draws_the_original_once_and_three_perturbed_copies():
    pica = build(PICA)
    augment = {"original": identity, "perturbed": lambda images, generator: images + 100}
    views = drawn(pica.draw(Positions(), torch.tensor([4, 2]), augment, torch.Generator()))
    assert [v.tolist() for v in views] == [[4, 2]] + [[104, 102]] * 3


@pytest.mark.parametrize(
    "stored, resized, size, first",
    [(32, 40, 32, 4), (96, 112, 96, 8), (112, 112, 96, 8), (64, 75, 64, 6), (32, 32, 32, 0), (32, 20, 32, 0)],
)
def test_pica_evaluates_the_central_window(stored, resized, size, first):
    """torchvision's Resize and CenterCrop; stored pixels where the images are stored at that size."""
    images = torch.rand(2, 3, stored, stored)
    whole = (
        images
        if stored == resized
        else torch.nn.functional.interpolate(images, size=resized, mode="bilinear", antialias=True)
    )
    window = center(images, resized, size)
    assert torch.equal(window, whole[:, :, first : first + size, first : first + size])
    assert window.shape[-1] == min(size, resized)


@pytest.mark.parametrize("stored", [40, 32])
def test_pica_sees_every_window_of_the_resized_image(stored):
    """The original view in the configuration: resize, then random_crop; exact pixels, all 81 places."""
    spec = [{"resize": {"size": 40}}, {"random_crop": {"size": 32}}]
    images = torch.rand(1, 3, stored, stored)
    whole = images if stored == 40 else torch.nn.functional.interpolate(images, size=40, mode="bilinear")
    views = augment.build(spec, stored)(images.expand(2000, -1, -1, -1), torch.Generator().manual_seed(0))
    places = {(y, x): whole[0, :, y : y + 32, x : x + 32] for y in range(9) for x in range(9)}
    found = {min(places, key=lambda place: (places[place] - view).abs().max()) for view in views[:500]}
    assert all(min((window - view).abs().max() for window in places.values()) < 1e-6 for view in views[:100])
    assert len(found) == 81 and views.shape[2:] == (32, 32)


def test_pica_official_network():
    """ResNet of one pass of a 3x3 stem with a padded max-pool on Sobel responses, initialized by torch's defaults."""
    problem = dataclasses.replace(PROBLEM, size=32)
    network = Network(backbone="resnet18", pool=True, pool_padding=1, initialization="torch")
    pica = build(PICA, problem=problem, network=network, sobel=True)
    first, pool = pica.encoder.backbone.conv1, pica.encoder.backbone.maxpool
    assert (first.in_channels, first.stride, pool.kernel_size, pool.padding) == (2, (1, 1), 2, 1)
    layers = [m for m in pica.modules() if isinstance(m, (torch.nn.Conv2d, torch.nn.Linear))]
    assert len(layers) == 22  # 20 convolutions and the two heads
    for layer in layers:  # uniform in +- 1 / sqrt(fan in)
        fan = layer.weight[0].numel()
        assert layer.weight.std().item() == pytest.approx(1 / math.sqrt(3 * fan), rel=0.1)
        assert layer.weight.abs().max().item() <= 1 / math.sqrt(fan)


def sobel(images):
    """What the backbone of PICA's encoder sees of normalized images."""
    encoder = build(PICA, sobel=True).encoder
    return encoder.double().preprocess(images.double() * encoder.std + encoder.mean)


def test_sobel_against_loops():
    """PICA's kernels as cross-correlations of the mean of the channels, with zeros outside."""
    images = torch.randn(2, 3, 5, 7, generator=torch.Generator().manual_seed(0))
    found = sobel(images)
    gray = np.pad(images.double().mean(1).numpy(), ((0, 0), (1, 1), (1, 1)))
    horizontal = [[1, 0, -1], [2, 0, -2], [1, 0, -1]]
    assert found.shape == (2, 2, 5, 7)
    for b, y, x in np.ndindex(2, 5, 7):
        window = gray[b, y : y + 3, x : x + 3]
        across = sum(horizontal[i][j] * window[i, j] for i in range(3) for j in range(3))
        down = sum(horizontal[j][i] * window[i, j] for i in range(3) for j in range(3))
        assert found[b, :, y, x].tolist() == pytest.approx([across, down], abs=1e-6)


@pytest.mark.parametrize("turned, channel", [(False, 0), (True, 1)])
def test_sobel_of_an_edge(turned, channel):
    """Dark on the left, bright on the right (or above and below): - 4 times the step beside the edge in one
    channel, nothing in the other."""
    images = torch.zeros(1, 3, 6, 6)
    images[..., 3:] = 0.5
    found = sobel(images.mT if turned else images)[0].round(decimals=9)
    across = (found[channel].T if turned else found[channel])[1:-1]  # but for the border
    assert (across[:, [2, 3]] == -2).all() and not across[:, [1, 4]].any() and not found[1 - channel][1:-1, 1:-1].any()


def test_sobel_is_the_input_of_picas_backbone_and_no_weight():
    plain, pica = build(PICA), build(PICA, sobel=True)
    assert (plain.encoder.backbone.conv1.in_channels, pica.encoder.backbone.conv1.in_channels) == (3, 2)
    assert pica.state_dict().keys() == plain.state_dict().keys()
    images, seen = torch.rand(2, 3, 8, 8), []
    pica.encoder.backbone.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    assert pica.encoder(images).shape == (2, 32)
    assert torch.equal(seen[0], pica.encoder.preprocess(images)) and seen[0].shape == (2, 2, 8, 8)
    assert seen[0].is_contiguous(memory_format=torch.channels_last)


def test_pica_trains_on_a_last_batch_that_is_not_full(tiny_study, train_all):
    """200 digits in batches of 64: four steps an epoch; SimCLR, as SCAN's code, drops the last eight."""
    pica, simclr = train_all(tiny_study("pica", "simclr"))
    steps = {
        run.stage: [row["steps"] for row in csv.DictReader((run.directory / "history.csv").open())]
        for run in (pica, simclr)
    }
    assert steps == {"pica": ["4", "4"], "simclr": ["3", "3"]}


def test_every_point_of_the_curve_has_one_kmeans(tiny_study, train_all, monkeypatch):
    """As many starts on the way as at the end."""
    asked = []
    monkeypatch.setattr(
        clustering,
        "kmeans",
        lambda *arrays, restarts, seed: asked.append(restarts) or kmeans(*arrays, restarts=restarts, seed=seed),
    )
    methods = copy.deepcopy(TINY_METHODS)
    methods["simclr"]["options"]["kmeans_restarts"] = 3
    train_all(tiny_study("simclr", methods=methods))
    assert asked == [3, 3]


# --- images that may only be looked at --------------------------------------------------------------------------


def test_unlabeled_images_serve_representation_only():
    """As in the official codes: SimCLR sees all, PICA's over-clustering head too, its target head does not."""
    assert [build(SimCLR).pool(epoch) for epoch in (0, 1)] == [18, 18]
    assert [build(PICA).pool(epoch) for epoch in (0, 1, 2)] == [18, 12, 18]
    assert SimCLR.uses_unlabeled and PICA.uses_unlabeled
    for cls in (SCAN, SelfLabel, SCL):
        method = build(cls, **({"neighbors": 2} if cls is SCAN else {}))
        assert not cls.uses_unlabeled and [method.pool(epoch) for epoch in (0, 1)] == [12, 12]


def test_images_to_cluster_come_first(tmp_path):
    splits = {"train": [0, 4], "test": [4, 10], "unlabeled": [10, 15]}
    heldout = {"fit": ["train"], "represent": ["train", "unlabeled"], "assign": ["test"]}
    np.save(tmp_path / "images.npy", np.zeros((15, 8, 8, 3), np.uint8))
    facts = {
        "splits": splits,
        "protocols": {"heldout": heldout},
        "clusters": 2,
        "size": [8, 8],
        "images_sha256": sha256(tmp_path / "images.npy"),
    }
    (tmp_path / "benchmark.json").write_text(json.dumps(facts))
    seen = {use: stored.load(tmp_path, "heldout", use) for use in ("fit", "represent", "assign")}
    assert seen["represent"].rows.tolist() == [0, 1, 2, 3, 10, 11, 12, 13, 14] and seen["represent"].fit == 4
    assert seen["fit"].rows.tolist() == [0, 1, 2, 3] and seen["assign"].rows.tolist() == [4, 5, 6, 7, 8, 9]


def test_kmeans_is_fitted_on_the_images_to_cluster_alone():
    rng = np.random.default_rng(0)
    fit = np.concatenate([rng.integers(0, 20, (12, 8, 8, 3)), rng.integers(200, 256, (6, 8, 8, 3))])  # 6 unlabeled
    other = rng.integers(0, 20, (9, 8, 8, 3))
    pixels = build(Pixels, kmeans_restarts=3)
    represent = stored.Images(torch.tensor(fit.astype(np.uint8)), np.arange(18), 12)
    evaluated = stored.Images(torch.tensor(other.astype(np.uint8)), np.arange(9), 9)
    kept = features(pixels, represent, evaluated, autocast=torch.no_grad)
    flat = [
        torch.tensor(a).permute(0, 3, 1, 2).reshape(len(a), -1).numpy().astype(np.float32) / 255
        for a in (fit[:12], other)
    ]
    np.testing.assert_array_equal(kept["fitted"], flat[0])
    np.testing.assert_array_equal(kept["evaluated"], flat[1])


@pytest.mark.parametrize("layer,dimensions", [("projection", 16), ("encoder", 32)])
def test_simclr_gives_kmeans_the_layer_that_is_named(layer, dimensions):
    simclr = build(SimCLR, layer=layer, projection=16).eval()
    with torch.no_grad():
        features = simclr.assign(torch.rand(5, 3, 8, 8))
    assert features.shape == (5, dimensions)
    torch.testing.assert_close(features.norm(dim=1), torch.ones(5))


# --- the protocol that holds the test images out ----------------------------------------------------------------


def test_heldout_trains_on_train_and_evaluates_test(digits, tiny_study, train_all, tmp_path):
    """Rows are those of the test split; other test images leave every weight as it was."""
    import shutil

    facts = stored.describe(digits / "tiny-digits")
    start, stop = facts["splits"]["test"]
    shutil.copytree(digits, tmp_path / "other")
    path = tmp_path / "other" / "tiny-digits" / "images.npy"
    images = np.load(path)
    images[start:stop] = 255 - images[start:stop]
    np.save(path, images)
    (path.parent / "benchmark.json").write_text(json.dumps(facts | {"images_sha256": sha256(path)}))
    one = tiny_study(protocols=["heldout"], results="one")
    two = tiny_study(protocols=["heldout"], results="two", data=tmp_path / "other")
    changed = set()
    for run, twin in zip(train_all(one), train_all(two)):
        weights = [torch.load(r.directory / "weights.pt", weights_only=True) for r in (run, twin)]
        assert all(torch.equal(weights[0][k], weights[1][k]) for k in weights[0]), run.stage
        assigned = [np.load(r.directory / "assignments.npz") for r in (run, twin)]
        assert assigned[0]["rows"].tolist() == list(range(start, stop)), run.stage
        if any((assigned[0][name] != assigned[1][name]).any() for name in ("assignments", "confidence")):
            changed.add(run.stage)
        if run.stage == "scan":
            rows = assigned[0]["neighbors"]
            assert rows.shape == (facts["splits"]["train"][1], 21) and rows.max() < start
    assert changed == {"kmeans", "simclr", "scan", "selflabel", "pica", "scl"}  # all but chance look at the images
