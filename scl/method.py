"""What a method is: two verbs, `step` and `assign`, and a word on what it draws and what it prepares.

A method turns images into cluster assignments and is given no label. To add one, write a class like those in
`baselines/` anywhere on the Python path and name it by its dotted path in a configuration; the conformance tests
(`pytest tests/test_conformance.py --method my_file.MyMethod`) check it against everything the harness relies on.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from scl.config import MethodOptions, Network
from scl.images import Images
from scl.networks import Encoder


@dataclass(frozen=True)
class Problem:
    """What a method may know: how many images (those to cluster come first), how many clusters, how long."""

    images: int  # images to cluster while training
    unlabeled: int  # further images, allowed for representation learning only (STL-10)
    clusters: int
    size: int  # pixels a side
    epochs: int
    mean: tuple[float, ...]  # of the training images, by channel
    std: tuple[float, ...]


class Method(nn.Module):
    """Base of all methods. Subclasses set the class attributes and write `step` and `assign`."""

    version: ClassVar[int] = 1  # raise when the mathematics changes: finished runs are then trained again
    Options: ClassVar[type[MethodOptions]] = MethodOptions  # a class of your own derived from it: hyper-parameters
    augmentations: ClassVar[tuple[str, ...]] = ()  # names of the augmentations a configuration must give
    follows: ClassVar[tuple[str, ...]] = ()  # parts (sub-modules) taken from the run this stage starts from
    uses_unlabeled: ClassVar[bool] = False
    keeps_last_batch: ClassVar[bool] = False  # train on a last batch that is not full, or drop it
    zero_idle_gradients: ClassVar[bool] = False  # see scl.engine.trainer.fill_idle_gradients

    def __init__(self, options: Any, problem: Problem, network: Network):
        super().__init__()
        self.options, self.problem = options, problem
        self.epoch = 0
        self.counts: dict[str, int] = {}  # events worth reporting; saved in checkpoints, shown in the record

    def encoder_for(self, network: Network) -> Encoder:
        return Encoder(network, self.problem.size, mean=self.problem.mean, std=self.problem.std)

    @staticmethod
    def image_size(options: Any) -> int | None:
        """Pixels a side of the images that `draw` and `assign` want, where the benchmark is stored at them (its
        larger_size); else they get the benchmark's usual size, `problem.size`, as do all methods that return None."""
        return None

    # --- before and while training ---------------------------------------------------------------------------

    def prepare(self, images: Images, generator: torch.Generator) -> None:
        """Once before the first epoch, with the weights of the preceding stage loaded: neighbors, memory."""

    def pool(self, epoch: int) -> int:
        """How many images this epoch visits, counted from the first: by default those to cluster."""
        return self.problem.images

    def draw(self, images: Images, index: Tensor, augment: dict, generator: torch.Generator) -> tuple[Tensor, ...]:
        """The views of the images at positions `index` (B): by default two under the first augmentation."""
        batch = images.batch(index)  # B x 3 x H x W
        return augmented(augment[self.augmentations[0]], (batch, batch), generator)

    def step(self, views: tuple[Tensor, ...], index: Tensor) -> dict[str, Tensor]:
        """The weighted terms of the loss, scalars; the loop minimizes their sum."""
        raise TypeError(f"{type(self).__name__} does not train: its runs have epochs: 0")

    def after_step(self) -> None:
        """Once the optimizer has used the gradients of a step: memories, averages of weights."""

    # --- after training --------------------------------------------------------------------------------------

    def assign(self, images: Tensor) -> Tensor:
        """B x K probabilities or, where `clusters_by_kmeans`, B x D features of un-augmented images."""
        raise NotImplementedError

    @property
    def clusters_by_kmeans(self) -> bool:
        """Whether `assign` gives features, clustered by k-means fitted on the training images."""
        return False

    # --- chain of stages -------------------------------------------------------------------------------------

    def start_from(self, weights: dict[str, Tensor]) -> None:
        """Load the parts named in `follows` from the weights of the preceding stage. Raises ValueError."""
        for part in self.follows:
            own = {k: v for k, v in weights.items() if k.startswith(part + ".")}
            if not own:
                raise ValueError(
                    f"{type(self).__name__} starts from a run that has '{part}'; the run named by "
                    f"'after' has only: {', '.join(sorted({k.split('.')[0] for k in weights}))}"
                )
            module = getattr(self, part)
            try:
                module.load_state_dict({k.removeprefix(part + "."): v for k, v in own.items()})
            except RuntimeError as error:
                raise ValueError(
                    f"{type(self).__name__}: '{part}' of the preceding stage does not fit; give both "
                    f"stages the same network ({str(error).splitlines()[-1].strip()})"
                ) from None

    def get_extra_state(self) -> dict:
        return {"counts": dict(self.counts)}

    def set_extra_state(self, state: dict) -> None:
        self.counts = dict(state["counts"])

    def count(self, event: str) -> None:
        self.counts[event] = self.counts.get(event, 0) + 1


def augmented(
    augment: Callable[..., Tensor], batches: tuple[Tensor, ...], generator: torch.Generator
) -> tuple[Tensor, ...]:
    """Each batch (B x 3 x H x W) under the augmentation, every image with parameters of its own.

    On a GPU in one call, for a view is hundreds of small kernels whose launches take longer than their work; on a
    CPU one after the other, so that a batch stays in its cache.
    """
    if generator.device.type == "cpu":
        return tuple(augment(batch, generator) for batch in batches)
    return augment(torch.cat(batches), generator).chunk(len(batches))
