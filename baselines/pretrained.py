"""A pretrained ResNet from timm: k-means on its features without training, and a start for other stages (`after`).

Never part of the comparison on the six benchmarks, where every method starts from random weights.
"""

import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from scl.config import MethodOptions, Network
from scl.engine.io import sha256
from scl.images import Images
from scl.method import Method, Problem
from scl.util.shim import torchvision  # noqa: F401  before timm, which imports it
from scl.util.text import did_you_mean, printable, say

import timm  # isort: skip

FILES = (".safetensors", ".pth", ".pt", ".bin")
PLAIN = tuple(f"resnet{depth}{stem}" for depth in (18, 34, 50, 26, 101, 152) for stem in ("", "d"))
HEAD = ("fc.weight", "fc.bias")
WITH_LABELS = re.compile(r"in(1|12|21|22)k|ig1b")  # ImageNet classes, Instagram hashtags
SMALLEST = 97  # pixels per side: smaller images get another stem


@dataclass(frozen=True)
class Weights:
    """A backbone's weights. labels: a phrase that says whether they were trained with labels."""

    name: str
    backbone: str
    state: dict[str, Tensor]
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)  # ImageNet's, as for most weights of timm and torchvision
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    labels: str = "the file does not say whether labels were used"


def read_weights(weights: str) -> Weights:
    """Weights by timm name, such as resnet50.a1_in1k, which timm downloads, or from a local file (.safetensors, or .pth
    that torch.load can read with weights_only). Raises a one-line ValueError."""
    if Path(weights).suffix in FILES or Path(weights).is_file():
        return _from_file(Path(weights))
    return _by_name(weights)


def _from_file(path: Path) -> Weights:
    if not path.is_file():
        raise ValueError(f"weights: {path}: no such file")
    try:
        state = timm.models.load_state_dict(str(path), weights_only=True)
        state = {key: value for key, value in state.items() if torch.is_tensor(value) and key not in HEAD}
    except Exception as error:  # any type: the file may be something else entirely
        reason = printable((str(error) or type(error).__name__).splitlines()[0])[:200]
        raise ValueError(
            f"weights: {path}: not readable as weights (.safetensors, or .pth with weights_only): {reason}"
        ) from None
    for backbone in PLAIN:
        if _shapes(state) == _shapes(_on_meta(backbone).state_dict()):
            return Weights(path.name, backbone, state)
    raise ValueError(f"weights: {path}: not of a ResNet of timm or torchvision ({', '.join(PLAIN)}); give another file")


def _by_name(name: str) -> Weights:
    family = name.partition(".")[0]
    if family not in PLAIN:
        raise ValueError(f"weights: {name!r} is neither a file nor a plain ResNet of timm{did_you_mean(name, PLAIN)}")
    try:
        config = timm.get_pretrained_cfg(name)
    except RuntimeError:  # an unknown tag
        config = None
    if config is None or not config.has_weights or config.tag is None:
        known = did_you_mean(name, timm.list_pretrained(f"{family}.*"))
        raise ValueError(f"weights: timm has no pretrained weights {name!r}{known}")
    full_name = f"{config.architecture}.{config.tag}"
    say(f"weights: {full_name}, from timm's cache or the network")
    logging.getLogger("huggingface_hub").setLevel(logging.CRITICAL)  # it logs a line for each retry
    try:
        state = timm.create_model(full_name, pretrained=True, num_classes=0).state_dict()
    except Exception as error:  # network, hub or disk: the type depends on the library in use
        raise ValueError(
            f"weights: {full_name} cannot be fetched ({type(error).__name__}): is there a network? Else download its "
            "file on another machine and give that file"
        ) from None
    unknown = f"timm's tag, {config.tag!r}, does not say whether labels were used"
    labels = "made with labels" if WITH_LABELS.search(config.tag) else unknown
    return Weights(full_name, family, state, config.mean, config.std, labels)


def _on_meta(backbone: str) -> torch.nn.Module:
    with torch.device("meta"):
        return timm.create_model(backbone, num_classes=0)


def _shapes(state: dict[str, Tensor]) -> dict[str, torch.Size]:
    """Shapes by name, without the batch counters, which old files lack."""
    return {key: value.shape for key, value in state.items() if not key.endswith("num_batches_tracked")}


class Options(MethodOptions):
    weights: str
    """A timm model name, such as `resnet50.a1_in1k`, or a file (.safetensors or .pth)."""
    sha256: str | None = None
    """SHA-256 of the file; another file is refused. By default it is not checked."""
    kmeans_restarts: int = Field(10, ge=1, le=1000)
    """Restarts of k-means; the one with the lowest inertia is kept."""


class Pretrained(Method):
    """k-means on the normalized features of a pretrained backbone (images of 97 px or more)."""

    Options = Options
    clusters_by_kmeans = True

    def __init__(self, options: Any, problem: Problem, network: Network):
        super().__init__(options, problem, network)
        if problem.size < SMALLEST:
            raise ValueError(f"weights: images of {problem.size} px; pretrained weights need {SMALLEST} px or more")
        self.backbone, self.encoder = network.backbone, self.encoder_for(network)

    def prepare(self, images: Images, generator: torch.Generator) -> None:
        path = self.options.weights
        if self.options.sha256 and sha256(path) != self.options.sha256:
            raise ValueError(f"weights: {path}: has changed since this run was planned; plan it again")
        weights = read_weights(path)
        if weights.backbone != self.backbone:
            raise ValueError(f"weights: {weights.name} is a {weights.backbone}; network.backbone: {self.backbone}")
        self.encoder.backbone.load_state_dict(weights.state, strict=False)  # names and shapes have been compared
        self.encoder.mean.copy_(torch.tensor(weights.mean).view(1, 3, 1, 1))
        self.encoder.std.copy_(torch.tensor(weights.std).view(1, 3, 1, 1))

    def assign(self, images: Tensor) -> Tensor:
        return F.normalize(self.encoder(images).float(), dim=1)
