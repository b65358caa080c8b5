"""Encoders, stems by image size, heads, and initialization, against loops and known images."""

import math

import numpy as np
import plain
import pytest
import torch
from torch import nn

from scl import networks
from scl.config import Network, read
from scl.networks import Encoder, Prototypes, backbone, projection_head

SMALL = Network(width=8, layers=[1, 1, 1])
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


class Seen(nn.Module):
    """Replaces a backbone and records its input."""

    def forward(self, images):
        self.images = images
        return images.flatten(1)


def encoder(network=SMALL, *, size=8):
    torch.manual_seed(0)
    return Encoder(network, size, mean=MEAN, std=STD)


def seen_by_backbone(images, network=SMALL):
    made = encoder(network)
    made.backbone = Seen()
    made(images)
    return made.backbone.images


# --- what the backbone sees -------------------------------------------------------------------------------------


def test_encoder_normalizes_each_channel():
    images = torch.rand(2, 3, 8, 8)
    seen = seen_by_backbone(images)
    for channel in range(3):
        expected = [(value - MEAN[channel]) / STD[channel] for value in images[:, channel].flatten().tolist()]
        np.testing.assert_allclose(seen[:, channel].flatten().numpy(), expected, rtol=1e-5, atol=1e-6)
    assert seen.is_contiguous(memory_format=torch.channels_last)


def test_encoder_normalizes_in_float32():
    """Even if views are bfloat16: near 0.5 its spacing is 0.004, a fiftieth of the standard deviation."""
    images = torch.full((1, 3, 8, 8), 0.5, dtype=torch.bfloat16)
    seen = seen_by_backbone(images)
    assert seen.dtype == torch.float32
    torch.testing.assert_close(seen[0, :, 0, 0], torch.tensor([0.5, 0.0, -1 / 3]), rtol=1e-5, atol=1e-6)


# --- the stem by image size -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "size, pooled, sides",
    [
        (8, False, [8, 8, 4, 2]),
        (32, False, [32, 32, 16, 8]),
        (33, True, [33, 16, 8, 4]),
        (64, True, [64, 32, 16, 8]),
        (96, True, [96, 48, 24, 12]),
    ],
)
def test_stem_of_small_images(size, pooled, sides):
    """A 3x3 convolution of stride 1; from 33 px on, also a 2x2 max-pool of stride 2; sides after it and each stage."""
    net = backbone(SMALL, size)
    assert (net.conv1.kernel_size, net.conv1.stride, net.conv1.padding) == ((3, 3), (1, 1), (1, 1))
    assert net.conv1.bias is None and net.conv1.out_channels == 8
    if pooled:
        assert (net.maxpool.kernel_size, net.maxpool.stride, net.maxpool.padding) == (2, 2, 0)
    else:
        assert isinstance(net.maxpool, nn.Identity)
    assert sides_of(net, size) == sides


def sides_of(net, size, channels=3):
    sides, stages = [], [net.conv1, net.layer1, net.layer2, net.layer3, getattr(net, "layer4", None)]
    hooks = [
        stage.register_forward_hook(lambda module, inputs, output: sides.append(output.shape[-1]))
        for stage in stages
        if stage is not None and not isinstance(stage, nn.Identity)
    ]
    with torch.no_grad():
        net.eval()(torch.zeros(1, channels, size, size))
    for hook in hooks:
        hook.remove()
    return sides


def test_stem_of_large_images():
    """From 97 px on, timm's stem: 7x7 of stride 2, then a 3x3 max-pool of stride 2."""
    net = backbone(Network(), 97, channels=2)
    assert (net.conv1.kernel_size, net.conv1.stride, net.conv1.in_channels) == ((7, 7), (2, 2), 2)
    assert (net.maxpool.kernel_size, net.maxpool.stride) == (3, 2)
    assert sides_of(net, 97, channels=2) == [49, 25, 13, 7, 4]
    assert backbone(Network(), 97).conv1.in_channels == 3
    assert net(torch.zeros(1, 2, 97, 97)).shape == (1, 512)
    assert starts_open(net)


@pytest.mark.parametrize("pool", [True, False])
@pytest.mark.parametrize("size", [32, 33])
def test_stem_pools_as_it_is_told(size, pool):
    assert isinstance(backbone(Network(width=8, layers=[1, 1, 1], pool=pool), size).maxpool, nn.MaxPool2d) == pool


@pytest.mark.parametrize(
    "network, stages, dimensions",
    [
        (Network(), [2, 2, 2, 2], 512),
        (Network(backbone="resnet34", width=8), [3, 4, 6, 3], 64),
        (Network(width=8, layers=[1, 2, 1]), [1, 2, 1], 32),
        (Network(width=16, layers=[1, 1, 1, 2]), [1, 1, 1, 2], 128),
    ],
)
def test_stages_double_the_width(network, stages, dimensions):
    made = encoder(network, size=32)
    net, width = made.backbone, network.width
    layers = [net.layer1, net.layer2, net.layer3, net.layer4][: len(stages)]
    assert [len(layer) for layer in layers] == stages
    assert [layer[0].conv1.out_channels for layer in layers] == [width, 2 * width, 4 * width, 8 * width][: len(stages)]
    assert len(stages) == 4 or isinstance(net.layer4, nn.Identity)
    assert made.dimensions == dimensions
    assert made.eval()(torch.rand(2, 3, 32, 32)).shape == (2, dimensions)
    assert sides_of(net, 32) == [32, 32, 16, 8, 4][: len(stages) + 1]
    assert starts_open(net)


def starts_open(net):
    """The last batch norm of every block is initialized to 1, as in the official codes (timm's default is 0)."""
    return all((m.weight == 1).all() for m in net.modules() if isinstance(m, nn.BatchNorm2d))


def test_first_convolution_is_kaiming_normal_by_fan_out():
    torch.manual_seed(0)
    weight = backbone(Network(layers=[1, 1, 1]), 32).conv1.weight  # 64 x 3 x 3 x 3
    assert weight.std().item() == pytest.approx(math.sqrt(2 / (64 * 9)), rel=0.05)
    assert weight.mean().item() == pytest.approx(0, abs=0.005)
    assert weight.abs().max() > 2.5 * weight.std()  # not uniform


@pytest.mark.parametrize(
    "network, size, words",
    [
        ({"backbone": "vit_small_patch16_224"}, 32, "network.backbone: 'vit_small_patch16_224' is not a ResNet"),
        ({"backbone": "resnet19"}, 32, "network.backbone: 'resnet19' is not a ResNet"),
        ({"layers": [1, 1]}, 32, r"layers: must be the blocks of .* layers, .*got \[1, 1\]"),
        ({"layers": [1, 1, 1, 1, 1]}, 32, r"layers: must be the blocks of .* layers, .*got \[1, 1, 1, 1, 1\]"),
        ({"layers": [1, 0, 1]}, 32, r"layers\[1\]: must be greater than or equal to 1, got 0"),
        ({"layers": []}, 32, r"layers: must be the blocks of .* layers, .*got \[\]"),
        ({"width": 32}, 97, "width, layers, pool and pool_padding apply to images up to 96 px"),
        ({"width": 128}, 97, "apply to images up to 96 px"),
        ({"layers": [1, 1, 1]}, 97, "apply to images up to 96 px"),
        ({"pool_padding": 1}, 97, "apply to images up to 96 px"),
    ],
)
def test_check_refuses(network, size, words):
    with pytest.raises(ValueError, match=words):
        networks.check(read(Network, network), size)


@pytest.mark.parametrize(
    "network, size",
    [
        ({}, 8),
        ({}, 97),
        ({}, 224),
        ({"backbone": "resnet26"}, 32),
        ({"backbone": "resnet50"}, 32),
        ({"width": 32}, 96),
        ({"layers": [1, 1, 1]}, 96),
        ({"layers": [1, 1, 1, 1], "width": 16}, 32),
    ],
)
def test_check_allows(network, size):
    networks.check(Network(**network), size)


def test_check_asks_timm_only_about_unusual_names(monkeypatch):
    """Importing timm takes two seconds."""
    monkeypatch.setattr(networks, "_timm", lambda: pytest.fail("timm was asked"))
    for name in ("resnet18", "resnet34", "resnet50"):
        networks.check(Network(backbone=name), 32)
    with pytest.raises(ValueError, match="not a ResNet"):
        networks.check(Network(backbone="vgg16"), 32)


# --- heads ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("normalized", [False, True])
def test_projection_head_against_loops(normalized):
    torch.manual_seed(0)
    head = projection_head(6, 10, 4, normalized=normalized)
    h = torch.randn(7, 6)
    z = nn.functional.normalize(head(h), dim=1).detach().numpy()
    np.testing.assert_allclose(z, plain.projected(h.double().numpy(), head), rtol=1e-4, atol=1e-5)


def test_projection_head_layers():
    def shapes(head):
        return [(type(layer).__name__, [tuple(p.shape) for p in layer.parameters()]) for layer in head]

    linear = [("Linear", [(10, 6), (10,)]), ("ReLU", []), ("Linear", [(4, 10), (4,)])]
    assert shapes(projection_head(6, 10, 4)) == shapes(projection_head(6, 10, 4, normalized=False)) == linear
    assert shapes(projection_head(6, 10, 4, normalized=True)) == [
        ("Linear", [(10, 6)]),
        ("BatchNorm1d", [(10,), (10,)]),
        ("ReLU", []),
        ("Linear", [(4, 10)]),
        ("BatchNorm1d", []),
    ]


def test_prototypes_are_cosines():
    torch.manual_seed(0)
    prototypes = Prototypes(5, 3)
    torch.testing.assert_close(prototypes.weight.detach().norm(dim=1), torch.ones(3))  # K x d
    assert prototypes.weight.shape == (3, 5)
    with torch.no_grad():
        prototypes.weight.mul_(torch.tensor([[2.0], [0.5], [3.0]]))  # as when an optimizer step leaves the sphere
    z = nn.functional.normalize(torch.randn(4, 5), dim=1)
    c = plain.unit(prototypes.weight.detach().double().numpy())
    expected = [[sum(a * b for a, b in zip(row.tolist(), center)) for center in c] for row in z]
    np.testing.assert_allclose(prototypes(z).detach().numpy(), expected, rtol=1e-5, atol=1e-6)
    assert prototypes(z.double()).dtype == torch.float64


# --- initialization ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("initialization, gain", [("timm", math.sqrt(2)), ("torch", math.sqrt(1 / 3))])
def test_encoder_is_initialized_as_asked(initialization, gain):
    """timm: N(0, sqrt(2 / fan out)); torch: uniform in +- 1 / sqrt(fan in), standard deviation 1 / sqrt(3 fan in)."""
    made = encoder(Network(layers=[1, 1, 1], initialization=initialization), size=32)
    for layer in (made.backbone.conv1, made.backbone.layer2[0].conv2, made.backbone.layer3[0].conv1):
        out, channels_in, height, width = layer.weight.shape
        fan = height * width * (out if initialization == "timm" else channels_in)
        assert layer.weight.std().item() == pytest.approx(gain / math.sqrt(fan), rel=0.05)
        bounded = layer.weight.abs().max().item() <= 1 / math.sqrt(fan)
        assert bounded == (initialization == "torch")
    norm = made.backbone.bn1
    assert (norm.weight == 1).all() and (norm.bias == 0).all()


@pytest.mark.parametrize("padding, side", [(0, 6), (1, 7)])
def test_the_max_pool_of_the_stem_is_padded_as_asked(padding, side):
    """The official codes' networks have 7 x 7 features at the end for images of 96 px."""
    made = encoder(Network(width=8, pool_padding=padding), size=96)
    with torch.no_grad():
        features = made.backbone.forward_features(torch.zeros(1, 3, 96, 96))
    assert features.shape == (1, 64, side, side)


@pytest.mark.parametrize(
    "network, size, message",
    [
        (Network(backbone="resnet19"), 32, "'resnet19' is not a ResNet of timm"),
        (Network(backbone="resnetv2_50"), 32, "'resnetv2_50' cannot be used for images of 32 px"),
        (Network(width=32), 128, "width, layers, pool and pool_padding apply to images up to 96 px"),
    ],
)
def test_an_encoder_is_not_built_from_settings_that_do_not_apply(network, size, message):
    """A stage without epochs may have no network, so its settings are not checked earlier."""
    with pytest.raises(ValueError, match=f"network.*{message}"):
        Encoder(network, size, mean=(0.5,) * 3, std=(0.5,) * 3)


def test_checking_an_unusual_network_draws_no_random_number():
    torch.manual_seed(0)
    networks.check(Network(backbone="resnet26"), 32)
    drawn = torch.rand(1)
    torch.manual_seed(0)
    assert drawn == torch.rand(1)
