"""Encoders and heads shared by all methods: one backbone, with a stem that fits the image size."""

from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scl.config import Network
from scl.util.imports import gc_paused
from scl.util.text import shown

USUAL = ("resnet18", "resnet34", "resnet50")
MOST_PARAMETERS = 1_000_000_000  # the largest ResNet of timm has 936 million, resnet18 11 million


class Encoder(nn.Module):
    """f: B x 3 x H x W images in [0, 1] -> B x D features; the network normalizes its input.

    mean, std: per channel, of the training images. channels: number of channels that `preprocess` returns. Raises
    ValueError for a network that does not support images of this size.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, network: Network, size: int, *, mean: Sequence[float], std: Sequence[float], channels: int = 3
    ) -> None:
        super().__init__()
        check(network, size)  # check_study skips the networks of stages without epochs, which may have no encoder
        self.register_buffer("mean", torch.as_tensor(mean, dtype=torch.float32).view(1, -1, 1, 1))
        self.register_buffer("std", torch.as_tensor(std, dtype=torch.float32).view(1, -1, 1, 1))
        self.backbone = backbone(network, size, channels)
        self.dimensions = cast(int, self.backbone.num_features)
        if network.initialization == "torch":
            reset(self)

    def preprocess(self, images: Tensor) -> Tensor:
        """The input of the backbone: images normalized by channel, in float32."""
        return (images.to(self.mean.dtype) - self.mean) / self.std

    def forward(self, images: Tensor) -> Tensor:
        return self.backbone(self.preprocess(images).contiguous(memory_format=torch.channels_last))


def check(network: Network, size: int) -> None:
    """Raise ValueError for a network that cannot be built for images of `size` pixels per side.

    Networks other than the usual ones are built and run on torch's meta device, which requires importing timm.
    """
    name = network.backbone
    if name not in USUAL and not (name.startswith("resnet") and _timm().is_model(name)):
        raise ValueError(f"network.backbone: {shown(name)} is not a ResNet of timm (try resnet18 or resnet34)")
    if size > 96 and (network.width != 64 or network.layers or network.pool is False or network.pool_padding):
        raise ValueError(
            "network: width, layers, pool and pool_padding apply to images up to 96 px; leave them out for larger ones"
        )
    if name in USUAL and network.width <= 128 and max(network.layers or [0]) <= 8:
        return
    _timm()  # imported first: its own tensors must not be on the meta device
    problem = f"network.backbone: '{name}' cannot be used for images of {size} px (try {', '.join(USUAL)})"
    try:
        with torch.device("meta"):
            net = backbone(network, size)
            features = net(torch.zeros(2, 3, size, size))
    except (TypeError, ValueError, RuntimeError) as error:  # another timm family, with a different stem or input
        raise ValueError(f"{problem}: {error}") from None
    if features.shape != (2, net.num_features):
        raise ValueError(f"{problem}: it does not return {net.num_features} features")
    parameters = sum(parameter.numel() for parameter in net.parameters())
    if parameters > MOST_PARAMETERS:
        raise ValueError(f"network: {parameters:,} parameters; up to {MOST_PARAMETERS:,}: lower width or layers")


def backbone(network: Network, size: int, channels: int = 3) -> nn.Module:
    """A timm ResNet without a classifier for images of `size` pixels per side.

    Stem: up to 32 px, a 3x3 convolution with stride 1 and no pooling; up to 96 px, the same with a 2x2 max-pool; above
    that, the standard ImageNet stem.
    """
    small, width, stages = size <= 96, network.width, len(network.layers or "four")
    stem: dict[str, Any] = {}
    if small:
        # "deep" makes timm build everything after the stem for stem_width * 2 channels; the stem itself is replaced.
        stem = {"stem_type": "deep", "stem_width": width // 2, "channels": tuple(width * 2**i for i in range(stages))}
        if network.layers:
            stem["layers"] = tuple(network.layers)
    # zero_init_last=False: residual branches are not zero at the start, as in the official code
    net = _timm().create_model(network.backbone, num_classes=0, in_chans=channels, zero_init_last=False, **stem)
    if small:
        net.conv1 = nn.Conv2d(channels, width, 3, stride=1, padding=1, bias=False)
        nn.init.kaiming_normal_(net.conv1.weight, mode="fan_out", nonlinearity="relu")
        if stages == 3:
            net.layer4 = nn.Identity()
        pool = size > 32 if network.pool is None else network.pool
        net.maxpool = nn.MaxPool2d(2, padding=network.pool_padding) if pool else nn.Identity()
    return net


def _timm() -> Any:
    """Import timm only when a network is built: it takes two seconds."""
    with gc_paused():
        from scl.util.shim import torchvision  # noqa: F401  before timm, which imports it

        import timm  # isort: skip

    return timm


def projection_head(dimensions: int, hidden: int, out: int, *, normalized: bool = False) -> nn.Sequential:
    """g: Linear, ReLU, Linear (SimCLR, section 2; SCAN's official code).

    normalized: a batch norm after each linear layer (SimCLR v1's official code), which keeps a small network from
    starting collapsed.
    """
    if not normalized:
        return nn.Sequential(nn.Linear(dimensions, hidden), nn.ReLU(), nn.Linear(hidden, out))
    return nn.Sequential(
        nn.Linear(dimensions, hidden, bias=False),
        nn.BatchNorm1d(hidden),
        nn.ReLU(),
        nn.Linear(hidden, out, bias=False),
        nn.BatchNorm1d(out, affine=False),
    )


class Prototypes(nn.Module):
    """K learned unit vectors c_k; forward: cosines z . c_k, B x d -> B x K."""

    def __init__(self, dimensions: int, clusters: int):
        super().__init__()
        self.weight = nn.Parameter(F.normalize(torch.randn(clusters, dimensions), dim=1))

    def forward(self, z: Tensor) -> Tensor:
        return z @ F.normalize(self.weight, dim=1).T.to(z.dtype)


def reset(module: nn.Module) -> None:
    """Initialize convolutions and linear layers as torch does: uniform in +- 1 / sqrt(fan in).

    timm initializes a ResNet with a standard deviation of sqrt(2 / fan out) instead.
    """
    for layer in module.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            layer.reset_parameters()
