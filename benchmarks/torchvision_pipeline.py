"""The standard pipeline that `scl bench` compares the engine with: PIL, torchvision transforms, loader processes, fp32
and NCHW. No result of a study comes from it.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset

from scl.util.shim import torchvision

T = torchvision.transforms


COUNTERPARTS: dict[str, Callable[..., Any]] = {  # operation of scl.augment: transform for side and parameters
    "random_resized_crop": lambda side, size=None, **given: T.RandomResizedCrop(size or side, **given),
    "random_crop": lambda side, size=None, padding=0: T.RandomCrop(size or side, padding),
    "resize": lambda side, size=None: T.Resize((size or side,) * 2),
    "flip": lambda side, probability=0.5: T.RandomHorizontalFlip(probability),
    "affine": lambda side, degrees=0.0, translate=0.0, scale=None, shear=0.0: T.RandomAffine(
        degrees, (translate, translate), scale, shear or None
    ),
    "color_jitter": lambda side, probability=1.0, **strengths: T.RandomApply([T.ColorJitter(**strengths)], probability),
    "grayscale": lambda side, probability=0.2: T.RandomGrayscale(probability),
    "blur": lambda side, kernel=3, sigma=(0.1, 2.0), probability=0.5: T.RandomApply(
        [T.GaussianBlur(kernel, tuple(sigma))], probability
    ),
    "scan_strong": lambda side, operations=4: T.RandAugment(operations),
}
AFTERWARDS: dict[str, Callable[..., Any]] = {  # of tensors
    "noise": lambda side, std=0.05: T.Lambda(lambda image: (image + std * torch.randn_like(image)).clamp_(0, 1)),
    "cutout": lambda side, largest=16, fill=0.45: T.RandomErasing(
        1.0, (1 / side**2, min(1.0, (largest / side) ** 2)), (1.0, 1.0), fill
    ),
}


def transform(spec, side: int):
    """Compose the operations of a configuration: PIL image -> 3 x side x side tensor in [0, 1]."""
    operations = [next(iter(entry.items())) for entry in spec]
    before, after = (
        [table[name](side, **(parameters or {})) for name, parameters in operations if name in table]
        for table in (COUNTERPARTS, AFTERWARDS)
    )
    return T.Compose([*before, T.ToTensor(), *after])


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


class OrdinaryTraining:
    """The network and loss of `trainer` (fp32, not compiled), fed by loader processes.

    trainer: a separate Trainer, modified here. names: augmentations of the views of an image, in order.
    """

    def __init__(self, trainer, names, *, workers: int):
        self.trainer, self.device = trainer, trainer.device
        trainer.method.to(memory_format=torch.contiguous_format)
        trainer.method.encoder.backbone = nn.Sequential(_NCHW(), trainer.method.encoder.backbone)
        transforms = {name: transform(spec, trainer.images.size) for name, spec in trainer.run.augment.items()}
        pixels = trainer.images.pixels[: trainer.method.pool(trainer.epoch)].cpu().numpy()
        self.loader = DataLoader(
            Views(pixels, transforms, names),
            batch_size=trainer.run.training.batch_size,
            shuffle=True,
            drop_last=True,
            num_workers=workers,
            pin_memory=self.device == "cuda",
        )

    def steps(self):
        """Train one step per iteration, endlessly. Close the generator to end the loader processes."""
        while True:
            for index, *views in self.loader:
                index, *views = (tensor.to(self.device, non_blocking=True) for tensor in (index, *views))
                self.trainer.learn(tuple(views), index)
                yield
