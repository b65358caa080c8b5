"""What the baselines and k-means may use: points of the curve, unlabeled and held-out images."""

import copy
import json

import numpy as np
import pytest
import torch
from conftest import TINY_METHODS
from methods import build

from baselines.controls import Pixels
from baselines.pica import PICA
from baselines.scan import SCAN, SelfLabel
from baselines.simclr import SimCLR
from scl import images as stored
from scl.engine import clustering
from scl.engine.assign import features
from scl.engine.clustering import kmeans
from scl.engine.io import sha256
from scl.scl import SCL


def test_every_point_of_the_curve_has_one_kmeans(tiny_study, train_all, monkeypatch):
    """Intermediate points get as many restarts as the final one."""
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


# --- images that serve representation learning only --------------------------------------------------------------


def test_unlabeled_images_serve_representation_only():
    """As in the official codes: SimCLR and PICA's over-clustering head see all images, its target head does not."""
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


# --- the held-out protocol ---------------------------------------------------------------------------------------


def test_heldout_trains_on_train_and_evaluates_test(digits, tiny_study, train_all, tmp_path):
    """Rows are those of the test split; changed test images do not change any weight."""
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
    assert changed == {"kmeans", "simclr", "scan", "selflabel", "pica", "scl"}  # all but chance use the images
