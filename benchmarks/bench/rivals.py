"""What the engine is compared with; not used for the results of studies.

The standard pipeline: PIL, torchvision transforms, loader processes. Two rows: fp32 and NCHW, as in most code; and
tuned, with the precision and memory format of the engine. In both, memory is pinned on a GPU, and an epoch never ends,
so that loader processes are not restarted.
Peers: other libraries doing the work of parts (a) and (b), if they are installed.
"""

import contextlib
import copy
import importlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, RandomSampler

from baselines.simclr import SimCLR
from scl.augment import OPERATIONS, parameters_of
from scl.config import read
from scl.engine.optimization import optimizer_of
from scl.engine.provenance import version_of
from scl.engine.trainer import Trainer
from scl.networks import Encoder
from scl.util.shim import torchvision  # before lightly and kornia, which import it

Work = Callable[[], Any]
WARM_UP = 3  # batches per loader process
ENDLESS = 2**40  # images in an epoch of a loader, one permutation after another
OF_TENSORS = ("noise", "cutout")  # applied after conversion to a tensor
TORCHVISION: dict[str, Callable[..., Any]] = {  # operation of scl.augment: torchvision's, from all of its parameters
    "random_resized_crop": lambda T, side, size, **box: T.RandomResizedCrop(size or side, **box),
    "random_crop": lambda T, side, size, padding: T.RandomCrop(size or side, padding),
    "resize": lambda T, side, size: T.Resize((size or side,) * 2),
    "flip": lambda T, side, probability: T.RandomHorizontalFlip(probability),
    "affine": lambda T, side, **given: T.RandomAffine(*_affine(**given)),
    "color_jitter": lambda T, side, probability, **given: T.RandomApply([T.ColorJitter(**given)], probability),
    "grayscale": lambda T, side, probability: T.RandomGrayscale(probability),
    "blur": lambda T, side, kernel, sigma, probability: T.RandomApply([T.GaussianBlur(kernel, sigma)], probability),
    "scan_strong": lambda T, side, operations: T.RandAugment(operations),
    "noise": lambda T, side, std: T.Lambda(lambda image: (image + std * torch.randn_like(image)).clamp_(0, 1)),
    "cutout": lambda T, side, largest, fill: T.RandomErasing(1.0, _areas(largest / side, side), (1.0, 1.0), fill),
}
KORNIA: dict[str, Callable[..., Any]] = {  # the same for kornia
    "random_resized_crop": lambda K, side, size, **box: K.RandomResizedCrop((size or side,) * 2, **box),
    "random_crop": lambda K, side, size, padding: K.RandomCrop((size or side,) * 2, padding),
    "resize": lambda K, side, size: K.Resize((size or side,) * 2),
    "flip": lambda K, side, probability: K.RandomHorizontalFlip(p=probability),
    "affine": lambda K, side, **given: K.RandomAffine(*_affine(**given), p=1.0),
    "color_jitter": lambda K, side, probability, **given: K.ColorJitter(**given, p=probability),
    "grayscale": lambda K, side, probability: K.RandomGrayscale(p=probability),
    "blur": lambda K, side, kernel, sigma, probability: K.RandomGaussianBlur((kernel,) * 2, sigma, p=probability),
    "scan_strong": lambda K, side, operations: K.auto.RandAugment(n=operations, m=10),  # one policy per batch
    "noise": lambda K, side, std: K.RandomGaussianNoise(std=std, p=1.0),
    "cutout": lambda K, side, largest, fill: K.RandomErasing(_areas(largest / side, side), (1.0, 1.0), fill, p=1.0),
}


def _affine(degrees: float, translate: float, scale: tuple[float, float], shear: float) -> tuple[Any, ...]:
    """None where nothing is changed: both libraries would still sample a parameter."""
    return degrees, (translate, translate), scale if scale != (1.0, 1.0) else None, shear or None


def _areas(largest: float, side: int) -> tuple[float, float]:
    """Range of the areas of holes, as fractions of the image: one pixel to a square of `largest` times its side."""
    return 1 / side**2, min(1.0, largest**2)


def counterparts(table: dict[str, Callable[..., Any]], library, spec: list, side: int) -> Iterator[tuple[str, Any]]:
    """(name, transform) of each operation of a configuration, in a library."""
    for entry in spec:
        [(name, given)] = entry.items()
        yield name, table[name](library, side, **dict(read(parameters_of(OPERATIONS[name]), given or {}, name)))


def transform(spec: list, side: int, T=torchvision.transforms, to_tensor=None) -> Callable[..., Tensor]:
    """Compose the operations of a configuration: image -> 3 x side x side tensor in [0, 1].

    T: torchvision.transforms for PIL images, or its v2 with a `to_tensor`.
    """
    steps = [*counterparts(TORCHVISION, T, spec, side)]
    before, after = ([step for name, step in steps if (name in OF_TENSORS) is late] for late in (False, True))
    return T.Compose([*before, to_tensor or T.ToTensor(), *after])


class Views(Dataset):
    """Item i is (i, one view per transform). pixels: uint8, N x H x W x 3."""

    def __init__(self, pixels: np.ndarray, transforms: list[Callable[..., Tensor]]):
        self.pixels, self.transforms = pixels, transforms

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, position: int) -> tuple[Any, ...]:
        image = Image.fromarray(self.pixels[position])
        return position, *(transform(image) for transform in self.transforms)


class StandardPipeline:
    """The network, loss and optimizer of `trainer`, fed by loader processes.

    trainer: a separate Trainer, modified here unless `tuned`. names: augmentations of the views of an image, in order.
    workers: number of loader processes, may be changed between sessions.
    """

    def __init__(self, trainer: Trainer, names: list[str], *, tuned: bool, workers: int = 0):
        self.trainer, self.device, self.tuned, self.workers = trainer, trainer.device, tuned, workers
        if not tuned:
            method: Any = trainer.method.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
            for encoder in method.modules():  # none, one or several in a custom method, by any name
                if isinstance(encoder, Encoder):
                    encoder.backbone.register_forward_pre_hook(lambda module, images: images[0].contiguous())
        pixels = trainer.images.pixels[: trainer.method.pool(trainer.epoch)].cpu().numpy()
        self.views = Views(pixels, [transform(trainer.run.augment[name], trainer.images.size) for name in names])

    def loader(self) -> DataLoader:
        return DataLoader(
            self.views,
            batch_size=self.trainer.run.training.batch_size,
            sampler=RandomSampler(self.views, num_samples=ENDLESS),  # at the end of an epoch, the queue would run empty
            num_workers=self.workers,
            pin_memory=self.device == "cuda",
        )

    @contextlib.contextmanager
    def session(self) -> Iterator[Work]:
        """A function that trains one step, for a `with` block; the loader processes end with it.

        They are restarted each time, since idle ones would prefetch while other parts are timed, and warmed up untimed.
        A step on a CPU takes seconds, so there only the last warm-up batch is trained on; meanwhile the queue fills.
        """
        with contextlib.closing(self._batches()) as batches:
            for left in reversed(range(WARM_UP * max(1, self.workers))):
                batch = next(batches)
                if self.device == "cuda" or left == 0:
                    self.train(*batch)
            yield lambda: self.train(*next(batches))

    def _batches(self):
        yield from self.loader()

    def train(self, index: Tensor, *views: Tensor) -> None:
        memory_format = torch.channels_last if self.tuned else torch.preserve_format
        moved = tuple(view.to(self.device, memory_format=memory_format, non_blocking=True) for view in views)
        self.trainer.learn(moved, index.to(self.device, non_blocking=True))
        self.trainer.epoch_losses.clear()


# --- peers ---------------------------------------------------------------------------------------------------------


def peer_works(trainer: Trainer, names: list[str], views: tuple[Tensor, ...]) -> dict[str, Work | str]:
    """{row: a function that does the work once, or why it cannot}. names: of the augmentations of `views`, in order."""
    works: dict[str, Work | str] = {}
    for row, (package, _, make) in PEERS.items():
        try:
            works[row] = make(trainer, names, views) if version_of(package) else "not installed"
        except ImportError as error:
            works[row] = f"cannot be imported: {error}"
    return works


def _lightly(trainer: Trainer, names: list[str], views: tuple[Tensor, ...], *, tuned: bool) -> Work | str:
    """A step as in lightly's SimCLR example, on existing views, with our encoder and optimizer settings."""
    method, training = trainer.method, trainer.run.training
    if not isinstance(method, SimCLR):
        return "only compared with SimCLR"
    from lightly.loss import NTXentLoss
    from lightly.models.modules import SimCLRProjectionHead

    encoder, options = copy.deepcopy(method.encoder), method.options
    head = SimCLRProjectionHead(encoder.dimensions, options.projection_hidden, options.projection, batch_norm=False)
    model = torch.nn.Sequential(encoder if tuned else encoder.backbone, head).to(trainer.device).train()
    memory_format = torch.channels_last if tuned else torch.contiguous_format
    model = model.to(memory_format=memory_format)  # type: ignore[call-overload] # not in stubs
    copies = [view.to(memory_format=memory_format, copy=True) for view in views]
    criterion = NTXentLoss(temperature=options.temperature)
    optimizer = optimizer_of(model, training, trainer.device)  # fused on a GPU, as ours

    def step() -> None:
        with torch.autocast(trainer.device, torch.bfloat16, enabled=tuned and trainer.precision == "bf16"):
            z0, z1 = (model(view) for view in copies)
            loss = criterion(z0, z1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def _torchvision_v2(trainer: Trainer, names: list[str], views: tuple[Tensor, ...]) -> Work | str:
    """Views of a batch of uint8 tensors on the CPU, in this process. v2 samples parameters once per call, so
    images are augmented one by one."""
    if trainer.device == "cuda":
        return "only compared on a CPU"
    v2 = importlib.import_module("torchvision.transforms.v2")  # after the shim

    side, to_tensor = trainer.images.size, v2.ToDtype(torch.float32, scale=True)
    chains = [transform(trainer.run.augment[name], side, v2, to_tensor) for name in names]
    images = trainer.images.pixels[: len(views[0])].cpu().permute(0, 3, 1, 2)
    return lambda: [torch.stack([chain(image) for image in images]) for chain in chains]


def _kornia(trainer: Trainer, names: list[str], views: tuple[Tensor, ...]) -> Work:
    """Views of a float batch on the device, every image with its own parameters."""
    import kornia.augmentation as K
    import kornia.augmentation.auto  # noqa: F401  K.auto

    steps = (counterparts(KORNIA, K, trainer.run.augment[name], trainer.images.size) for name in names)
    chains = [K.AugmentationSequential(*(step for _, step in chain), data_keys=["input"]) for chain in steps]
    index = torch.arange(len(views[0]), device=trainer.device)

    @torch.no_grad()
    def work() -> list[Tensor]:
        images = trainer.images.batch(index)
        return [chain(images) for chain in chains]

    return work


PEERS: dict[str, tuple[str, str, Callable[..., Work | str]]] = {  # row: package, part of ours that does the same work
    "lightly": ("lightly", "learn", partial(_lightly, tuned=False)),
    "lightly_tuned": ("lightly", "learn", partial(_lightly, tuned=True)),
    "torchvision_v2": ("torchvision", "augment", _torchvision_v2),
    "kornia": ("kornia", "augment", _kornia),
}
