"""SCAN: neighbors and how they are sampled; self-labeling of confident images."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from conftest import TINY_METHODS
from methods import PROBLEM, Positions, build, drawn, identity

from baselines.controls import Pixels
from baselines.scan import SCAN, SelfLabel, nearest
from baselines.simclr import SimCLR
from scl import images as stored


def test_neighbors_are_those_of_features_in_float32():
    """Even if the networks compute in bfloat16."""
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
    scan.neighbors.copy_(torch.arange(12)[:, None].expand(-1, 3))  # every image is its own neighbor
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
    graphs = []  # a graph would hold every activation of the whole data set
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
    """Positions among the clustered images, here every second row, become rows; the image itself comes first."""
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
    for taken in ("rows", "assignments"):  # the second is a name that `scl kmeans` writes later
        monkeypatch.setattr(Pixels, "arrays", lambda self, images, taken=taken: {taken: images.rows})
        with pytest.raises(ValueError, match=f"baselines.controls.Pixels.arrays: {taken} is an array of the harness"):
            train_all(tiny_study("kmeans", results=f"refused {taken}"))


# --- self-labeling ---------------------------------------------------------------------------------------------


def test_self_label_counts_steps_without_a_confident_image():
    method = build(SelfLabel, threshold=0.999)
    torch.nn.init.zeros_(method.head.weight)
    torch.nn.init.zeros_(method.head.bias)  # all classes equally likely: no confident image
    views = torch.rand(2, 6, 3, 8, 8)
    for expected in (1, 2):
        (loss,) = method.step(tuple(views), torch.arange(6)).values()
        assert loss.item() == 0 and not loss.requires_grad  # so the loop does not update the weights
        assert method.counts == {"steps with no confident image": expected}
    with torch.no_grad():
        method.head.bias[0] = 100
    (loss,) = method.step(tuple(views), torch.arange(6)).values()
    assert loss.requires_grad and method.counts == {"steps with no confident image": 2}


def test_an_empty_mask_survives_the_loop_and_reaches_the_record(tiny_study, train_all):

    methods = {k: dict(TINY_METHODS[k]) for k in ("simclr", "scan", "selflabel")}
    methods["selflabel"] |= {"options": {"threshold": 0.9999}}
    study = tiny_study(methods=methods)
    train_all(study)
    run = study.run("tiny-digits", "joint", "selflabel", 0)
    counts = json.loads((run.directory / "record.json").read_text())["counts"]
    assert counts == {"steps with no confident image": 6}  # 2 epochs of 3 steps
    after, before = (torch.load(r.directory / "weights.pt", weights_only=True) for r in (run, run.after))
    assert all(torch.equal(after[k], before[k]) for k in before if k.startswith("head."))
