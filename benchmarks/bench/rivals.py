"""The standard pipeline that the engine is compared with: PIL, torchvision transforms, loader processes.

Two rows: fp32 and NCHW, as most codes have it; and the same with every advantage (precision and memory format of the
engine, pinned memory, persistent loader processes). No result of a study comes from it.
"""

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset

from scl.util.shim import torchvision

COUNTERPARTS: dict[str, Callable[..., Any]] = {  # operation of scl.augment: transform for T, side and parameters
    "random_resized_crop": lambda T, side, size=None, **given: T.RandomResizedCrop(size or side, **given),
    "random_crop": lambda T, side, size=None, padding=0: T.RandomCrop(size or side, padding),
    "resize": lambda T, side, size=None: T.Resize((size or side,) * 2),
    "flip": lambda T, side, probability=0.5: T.RandomHorizontalFlip(probability),
    "affine": lambda T, side, degrees=0.0, translate=0.0, scale=None, shear=0.0: T.RandomAffine(
        degrees, (translate, translate), scale, shear or None
    ),
    "color_jitter": lambda T, side, probability=1.0, **strengths: T.RandomApply(
        [T.ColorJitter(**strengths)], probability
    ),
    "grayscale": lambda T, side, probability=0.2: T.RandomGrayscale(probability),
    "blur": lambda T, side, kernel=3, sigma=(0.1, 2.0), probability=0.5: T.RandomApply(
        [T.GaussianBlur(kernel, tuple(sigma))], probability
    ),
    "scan_strong": lambda T, side, operations=4: T.RandAugment(operations),
}
AFTERWARDS: dict[str, Callable[..., Any]] = {  # of tensors
    "noise": lambda T, side, std=0.05: T.Lambda(lambda image: (image + std * torch.randn_like(image)).clamp_(0, 1)),
    "cutout": lambda T, side, largest=16, fill=0.45: T.RandomErasing(
        1.0, (1 / side**2, min(1.0, (largest / side) ** 2)), (1.0, 1.0), fill
    ),
}
WARM_UP = 3  # batches per loader process


def transform(spec, side: int, T=torchvision.transforms, to_tensor=None):
    """Compose the operations of a configuration: image -> 3 x side x side tensor in [0, 1].

    T: torchvision.transforms for PIL images, or its v2 with a `to_tensor`.
    """
    operations = [next(iter(entry.items())) for entry in spec]
    before, after = (
        [table[name](T, side, **(parameters or {})) for name, parameters in operations if name in table]
        for table in (COUNTERPARTS, AFTERWARDS)
    )
    return T.Compose([*before, to_tensor or T.ToTensor(), *after])


class Views(Dataset):
    """Item i is (i, one view per name in `names`). pixels: uint8, N x H x W x 3."""

    def __init__(self, pixels: np.ndarray, transforms: dict, names):
        self.pixels, self.transforms, self.names = pixels, transforms, names

    def __len__(self):
        return len(self.pixels)

    def __getitem__(self, position):
        image = Image.fromarray(self.pixels[position])
        return position, *(self.transforms[name](image) for name in self.names)


class _NCHW(nn.Module):
    def forward(self, images):
        return images.contiguous()


class StandardPipeline:
    """The network, loss and optimizer of `trainer`, fed by loader processes.

    trainer: a separate Trainer, modified here unless `tuned`. names: augmentations of the views of an image, in order.
    workers: number of loader processes, may be changed between sessions.
    """

    def __init__(self, trainer, names, *, tuned: bool, workers: int = 0):
        self.trainer, self.device, self.tuned, self.workers = trainer, trainer.device, tuned, workers
        if not tuned:
            trainer.method.to(memory_format=torch.contiguous_format)
            trainer.method.encoder.backbone = nn.Sequential(_NCHW(), trainer.method.encoder.backbone)
        transforms = {name: transform(spec, trainer.images.size) for name, spec in trainer.run.augment.items()}
        pixels = trainer.images.pixels[: trainer.method.pool(trainer.epoch)].cpu().numpy()
        self.views = Views(pixels, transforms, names)

    def loader(self) -> DataLoader:
        return DataLoader(
            self.views,
            batch_size=min(self.trainer.run.training.batch_size, len(self.views)),
            shuffle=True,
            drop_last=True,
            num_workers=self.workers,
            pin_memory=self.device == "cuda",
            persistent_workers=self.tuned and self.workers > 0,
        )

    @contextlib.contextmanager
    def session(self) -> Iterator[Callable[[], None]]:
        """A function that trains one step, for a `with` block; the loader processes end with it.

        They are started anew, as idle ones would prefetch while other parts are timed, and warmed up untimed. A step on
        a CPU takes seconds, so there only the last batch of the warm-up is trained on; meanwhile the queue fills.
        """
        with contextlib.closing(self._batches()) as batches:
            for left in reversed(range(WARM_UP * max(1, self.workers))):
                batch = next(batches)
                if self.device == "cuda" or left == 0:
                    self.train(*batch)
            yield lambda: self.train(*next(batches))

    def _batches(self):
        loader = self.loader()
        while True:
            yield from loader

    def train(self, index, *views) -> None:
        to_device = partial(torch.Tensor.to, device=self.device, non_blocking=True)
        if self.tuned:
            views = tuple(to_device(view, memory_format=torch.channels_last) for view in views)
        else:
            views = tuple(to_device(view) for view in views)
        self.trainer.learn(views, to_device(index))
        self.trainer.epoch_losses.clear()
