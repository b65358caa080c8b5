"""Other libraries on the same work, where they are installed: rows of `scl bench` beside parts (a) and (b)."""

import copy
import importlib.metadata
import importlib.util
from collections.abc import Callable
from typing import Any

import torch

from baselines.simclr import SimCLR
from benchmarks.bench.rivals import transform
from scl.util.shim import torchvision  # noqa: F401  before lightly and kornia, which import it

PEERS = {  # row: (label, package, part of ours that does the same work)
    "lightly": ("lightly's SimCLR step, fp32, NCHW", "lightly", "learn"),
    "lightly_tuned": ("lightly's SimCLR step, our precision, channels_last", "lightly", "learn"),
    "torchvision_v2": ("torchvision v2, image by image, one process", "torchvision", "augment"),
    "kornia": ("kornia, the batch at once", "kornia", "augment"),
}


class Unavailable(Exception):
    """A peer cannot do this work; the message is shown in its row."""


def version_of(package: str) -> str | None:
    """Installed version, or None."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def peer_works(trainer, names: list[str], views) -> dict[str, Callable[[], Any] | str]:
    """{row: a function that does the work once, or why it cannot}. names: of the augmentations of `views`, in order."""
    makers: dict[str, Callable[[], Callable[[], Any]]] = {
        "lightly": lambda: _lightly(trainer, views, tuned=False),
        "lightly_tuned": lambda: _lightly(trainer, views, tuned=True),
        "torchvision_v2": lambda: _torchvision_v2(trainer, names, len(views[0])),
        "kornia": lambda: _kornia(trainer, names, len(views[0])),
    }
    works: dict[str, Callable[[], Any] | str] = {}
    for row, make in makers.items():
        package = PEERS[row][1]
        if importlib.util.find_spec(package) is None:
            works[row] = "not installed"
            continue
        try:
            works[row] = make()
        except Unavailable as error:
            works[row] = str(error)
        except ImportError as error:
            works[row] = f"cannot be imported: {error}"
    return works


def _lightly(trainer, views, *, tuned: bool):
    """A step as in lightly's example of SimCLR, on existing views, with our encoder and optimizer settings."""
    method, training = trainer.method, trainer.run.training
    if not isinstance(method, SimCLR):
        raise Unavailable("only compared with SimCLR")
    from lightly.loss import NTXentLoss
    from lightly.models.modules import SimCLRProjectionHead

    encoder, options = copy.deepcopy(method.encoder), method.options
    head = SimCLRProjectionHead(encoder.dimensions, options.projection_hidden, options.projection, batch_norm=False)
    model = torch.nn.Sequential(encoder if tuned else encoder.backbone, head).to(trainer.device).train()
    memory_format = torch.channels_last if tuned else torch.contiguous_format
    model = model.to(memory_format=memory_format)  # type: ignore[call-overload] # not in stubs
    views = [view.to(memory_format=memory_format, copy=True) for view in views]
    criterion = NTXentLoss(temperature=options.temperature)
    optimizer = torch.optim.SGD(
        model.parameters(), training.learning_rate, training.momentum, weight_decay=training.weight_decay
    )

    def step():
        with torch.autocast(trainer.device, torch.bfloat16, enabled=tuned and trainer.precision == "bf16"):
            z0, z1 = (model(view) for view in views)
            loss = criterion(z0, z1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def _torchvision_v2(trainer, names, batch: int):
    """Views of a batch of uint8 tensors. v2 draws parameters once a call, so images are augmented one by one."""
    T = importlib.import_module("torchvision.transforms.v2")  # after the shim
    to_tensor = T.ToDtype(torch.float32, scale=True)
    chains = {name: transform(spec, trainer.images.size, T, to_tensor) for name, spec in trainer.run.augment.items()}
    images = trainer.images.pixels[:batch].cpu().permute(0, 3, 1, 2)
    return lambda: [torch.stack([chains[name](image) for image in images]) for name in names]


def _kornia(trainer, names, batch: int):
    """Views of a float batch on the device, every image with its own parameters."""
    import kornia.augmentation as K
    from kornia.augmentation.auto import RandAugment

    def chain(spec, side: int):
        made = [_KORNIA[name](K, RandAugment, side, **(given or {})) for entry in spec for name, given in entry.items()]
        return K.AugmentationSequential(*made, data_keys=["input"])

    unknown = {name for spec in trainer.run.augment.values() for entry in spec for name in entry} - _KORNIA.keys()
    if unknown:
        raise Unavailable(f"has no counterpart of {', '.join(sorted(unknown))}")
    chains = {name: chain(spec, trainer.images.size) for name, spec in trainer.run.augment.items()}
    index = torch.arange(batch, device=trainer.device)

    @torch.no_grad()
    def work():
        images = trainer.images.batch(index)
        return [chains[name](images) for name in names]

    return work


_KORNIA: dict[str, Callable[..., Any]] = {  # operation of scl.augment: kornia's, which takes probabilities as p
    "random_resized_crop": lambda K, R, side, size=None, **given: K.RandomResizedCrop((size or side,) * 2, **given),
    "random_crop": lambda K, R, side, size=None, padding=0: K.RandomCrop((size or side,) * 2, padding),
    "resize": lambda K, R, side, size=None: K.Resize((size or side,) * 2),
    "flip": lambda K, R, side, probability=0.5: K.RandomHorizontalFlip(p=probability),
    "affine": lambda K, R, side, degrees=0.0, translate=0.0, scale=None, shear=0.0: K.RandomAffine(
        degrees, (translate, translate), scale, shear or None, p=1.0
    ),
    "color_jitter": lambda K, R, side, probability=1.0, **strengths: K.ColorJitter(**strengths, p=probability),
    "grayscale": lambda K, R, side, probability=0.2: K.RandomGrayscale(p=probability),
    "blur": lambda K, R, side, kernel=3, sigma=(0.1, 2.0), probability=0.5: K.RandomGaussianBlur(
        (kernel, kernel), tuple(sigma), p=probability
    ),
    "scan_strong": lambda K, R, side, operations=4: R(n=operations, m=10),  # one policy per batch
    "noise": lambda K, R, side, std=0.05: K.RandomGaussianNoise(std=std, p=1.0),
    "cutout": lambda K, R, side, largest=16, fill=0.45: K.RandomErasing(
        (1 / side**2, min(1.0, (largest / side) ** 2)), (1.0, 1.0), fill, p=1.0
    ),
}
