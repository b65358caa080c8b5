"""PICA: alternating heads, perturbed copies, windows, and the Sobel input."""

import csv
import dataclasses
import math

import numpy as np
import pytest
import torch
from methods import PROBLEM, Positions, build, drawn, identity

from baselines.pica import PICA, center
from scl import augment
from scl.config import Network


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
    """As torchvision's Resize and CenterCrop, or the stored pixels if images are stored at that size."""
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
    """The original view of the configuration: resize, then random_crop; its pixels, at all 81 positions. (Interpolation
    uses other kernels for one image than for a thousand: they differed by 1.2e-6, windows by 0.7 or more.)"""
    spec = [{"resize": {"size": 40}}, {"random_crop": {"size": 32}}]
    images = torch.rand(1, 3, stored, stored)
    whole = images if stored == 40 else torch.nn.functional.interpolate(images, size=40, mode="bilinear")
    views = augment.build(spec, stored)(images.expand(1000, -1, -1, -1), torch.Generator().manual_seed(0))
    windows = whole[0].unfold(1, 32, 1).unfold(2, 32, 1).flatten(1, 2).transpose(0, 1)  # 81 x 3 x 32 x 32
    distances = torch.stack([(windows - view).abs().amax((1, 2, 3)) for view in views]).min(1)
    assert (distances.values < 1e-5).all() and len(distances.indices.unique()) == len(windows) == 81


def test_pica_official_network():
    """A ResNet with a 3x3 stem and a padded max-pool on Sobel responses, with torch's default initialization."""
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
    """The input of the backbone of PICA's encoder for normalized images."""
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
    """Dark on the left, bright on the right (or above and below): -4 times the step beside the edge in one channel,
    zero in the other."""
    images = torch.zeros(1, 3, 6, 6)
    images[..., 3:] = 0.5
    found = sobel(images.mT if turned else images)[0].round(decimals=9)
    across = (found[channel].T if turned else found[channel])[1:-1]  # without the border
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
    """200 digits in batches of 64: four steps per epoch; SimCLR, like SCAN's code, drops the last eight."""
    pica, simclr = train_all(tiny_study("pica", "simclr"))
    steps = {
        run.stage: [row["steps"] for row in csv.DictReader((run.directory / "history.csv").open())]
        for run in (pica, simclr)
    }
    assert steps == {"pica": ["4", "4"], "simclr": ["3", "3"]}


def test_a_last_batch_of_one_image_is_dropped(tiny_study, train_all):
    """Batch norm refuses it where the features are 1 x 1: a network of four layers on 8 px."""
    training = {"batch_size": 199, "curve_points": 1, "precision": "fp32"}
    (run,) = train_all(tiny_study("pica", network={"width": 8, "layers": [1, 1, 1, 1]}, training=training))
    assert [row["steps"] for row in csv.DictReader((run.directory / "history.csv").open())] == ["1", "1"]
