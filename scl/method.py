"""Base class of all methods: turns images into cluster assignments and is never given a label.

To add a method, write a class like those in `baselines/` anywhere on the Python path and name it by its dotted path in
a configuration. `pytest tests/test_conformance.py --method my_file.MyMethod` checks it against everything that the
harness relies on.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from scl.config import MethodOptions, Network
from scl.images import Images
from scl.networks import Encoder
from scl.util.text import shown

COLUMNS = {"epoch", "epochs", "steps", "images", "loss", "learning_rate", "seconds"}  # of history.csv, plus the terms


@dataclass(frozen=True)
class Problem:
    """What a method may know about its task."""

    images: int  # clustered during training; they come first
    unlabeled: int  # additional images, allowed for representation learning only (STL-10)
    clusters: int
    size: int  # pixels per side
    epochs: int
    mean: tuple[float, ...]  # of the training images, per channel
    std: tuple[float, ...]


class Method(nn.Module):
    """A clustering method; its modules, parameters and buffers are saved, restored and moved to the device.

    Required: `assign` and, if the method trains, `step`. All other hooks and the class attributes have defaults. The
    training loop (scl/engine/trainer.py) calls the hooks in this order: `start_from`, `prepare`; `pool` in every epoch;
    `draw`, `step`, `after_step` for every batch; `assign` at the epochs of the curve and at the end; `arrays`.
    Shapes: B images per batch, N images in total, K clusters, D features; images are B x 3 x H x W in [0, 1].
    """

    version: ClassVar[int] = 1  # raise when the mathematics changes: finished runs are then trained again
    Options: ClassVar[type[MethodOptions]] = MethodOptions  # hyper-parameters; `self.options` is an instance
    augmentations: ClassVar[tuple[str, ...]] = ()  # names of the augmentations that a configuration must define
    follows: ClassVar[tuple[str, ...]] = ()  # sub-modules whose weights come from the run named by `after`
    uses_unlabeled: ClassVar[bool] = False  # also train on images allowed for representation learning only
    keeps_last_batch: ClassVar[bool] = False  # train on a last batch that is not full, unless it is a single image
    zero_idle_gradients: ClassVar[bool] = False  # see scl.engine.optimization.fill_idle_gradients

    def __init__(self, options: Any, problem: Problem, network: Network):
        """Build the modules: on the CPU, with torch's global generator seeded."""
        super().__init__()
        self.options, self.problem = options, problem
        self.epoch = 0  # set by the training loop, counted from 0
        self.counts: dict[str, int] = {}  # see `count`

    # --- required ------------------------------------------------------------------------------------------------

    def step(self, views: tuple[Tensor, ...], index: Tensor) -> dict[str, Tensor]:
        """Return the weighted loss terms by name: scalars whose sum is minimized; called under autocast.

        views: results of `draw`, B x 3 x H x W each; index: the B positions of their images.
        """
        raise TypeError(f"{type(self).__name__} does not train: its runs have epochs: 0")

    def assign(self, images: Tensor) -> Tensor:
        """Return B x K probabilities or, if `clusters_by_kmeans`, B x D features of unaugmented images.

        Called in evaluation mode, without gradients, under autocast.
        """
        raise NotImplementedError

    # --- optional ------------------------------------------------------------------------------------------------

    @staticmethod
    def image_size(options: Any) -> int | None:
        """Pixels per side of the images for `draw` and `assign`; None: the usual size, `problem.size`.

        Called when a run is planned; affects only benchmarks that are also stored at this size (their `larger_size`).
        """
        return None

    def start_from(self, weights: dict[str, Tensor]) -> None:
        """Load the sub-modules in `follows` from the weights of the run named by `after`; called on the CPU.

        Raises ValueError for weights that are missing or of other shapes.
        """
        for part in self.follows:
            taken = {k.removeprefix(part + "."): v for k, v in weights.items() if k.startswith(part + ".")}
            if not taken:
                raise ValueError(
                    f"{type(self).__name__} starts from a run that has '{part}'; the run named by "
                    f"'after' has only: {', '.join(sorted({k.split('.')[0] for k in weights}))}"
                )
            try:
                getattr(self, part).load_state_dict(taken)
            except RuntimeError as error:
                raise ValueError(
                    f"{type(self).__name__}: '{part}' of the preceding stage does not fit; give both "
                    f"stages the same network ({str(error).splitlines()[-1].strip()})"
                ) from None

    def prepare(self, images: Images, generator: torch.Generator) -> None:
        """Called on the device before the first epoch, not on resume, e.g. to find neighbors.

        images: all N for training; generator: on their device.
        """

    def pool(self, epoch: int) -> int:
        """Number of images that the epoch visits, counted from the first; by default all that the method may use."""
        return self.problem.images + (self.problem.unlabeled if self.uses_unlabeled else 0)

    def draw(self, images: Images, index: Tensor, augment: dict, generator: torch.Generator) -> tuple[Tensor, ...]:
        """The views of the images at the B positions `index`; by default one under each of `augmentations`, or two if
        there is only one.

        augment: {name: callable (images, generator) -> images}; generator: the only source of randomness.
        """
        batch = images.batch(index)  # B x 3 x H x W
        if len(self.augmentations) == 1:
            return augmented(augment[self.augmentations[0]], (batch, batch), generator)
        return tuple(augment[name](batch, generator) for name in self.augmentations)

    def after_step(self) -> None:
        """Called after the optimizer's step, e.g. to update a memory or an average of weights."""

    @property
    def clusters_by_kmeans(self) -> bool:
        """Whether `assign` returns features, for k-means fitted on the training images (option `kmeans_restarts`).

        May depend only on `self.options`: `clustered_by_kmeans` reads it before a method is built.
        """
        return False

    def arrays(self, images: Images) -> dict[str, np.ndarray]:
        """Additional arrays to keep in assignments.npz, by name; called once, after training.

        images: all N for training, whose `rows` are positions in the data set. Evaluation reports the purity of
        `neighbors` (n x k rows) of the images `neighbor_rows` (n rows).
        """
        return {}

    # --- helpers -------------------------------------------------------------------------------------------------

    def encoder_for(self, network: Network, kind: type[Encoder] = Encoder) -> Encoder:
        """An encoder for the images of this problem."""
        return kind(network, self.problem.size, mean=self.problem.mean, std=self.problem.std)

    def count(self, event: str) -> None:
        """Count an event worth reporting; counts are kept in checkpoints and shown in the record.

        For "steps ...", tables also give the total number of steps. "steps with no ..." are steps without an update.
        """
        self.counts[event] = self.counts.get(event, 0) + 1

    def get_extra_state(self) -> dict:
        return {"counts": dict(self.counts)}

    def set_extra_state(self, state: dict) -> None:
        self.counts = dict(state["counts"])


def clustered_by_kmeans(method_class: type[Method], options: Any) -> bool:
    """`clusters_by_kmeans` of a planned run of this class, without building its networks."""
    planned = method_class.__new__(method_class)
    planned.__dict__["options"] = options
    return bool(planned.clusters_by_kmeans)


def check_terms(terms: Any, where: str, before: list[str]) -> None:
    """Raise ValueError if what a step has returned is not a dict of scalar loss terms.

    before: names of the terms of the previous step of this epoch, if there is one.
    """
    if not (isinstance(terms, dict) and terms and all(map(torch.is_tensor, terms.values()))):
        raise ValueError(f"{where}: expected {{name: scalar}}, got {shown(terms)}")
    for name, value in terms.items():
        if value.dim():
            raise ValueError(f"{where}: the loss term '{name}' has the shape {list(value.shape)}; return its mean")
        if name in COLUMNS and list(terms) != ["loss"]:  # the only term is the loss
            raise ValueError(f"{where}: the loss term '{name}' has the name of a column of history.csv; rename it")
    if before and before != list(terms):
        raise ValueError(f"{where}: returns the terms {list(terms)} after {before}; keep them for an epoch")


def augmented(
    augment: Callable[..., Tensor], batches: tuple[Tensor, ...], generator: torch.Generator
) -> tuple[Tensor, ...]:
    """Augment each batch (B x 3 x H x W), every image with its own parameters.

    On a GPU in one call, since launching small kernels takes longer than running them; on a CPU one batch at a time, so
    that it stays in cache.
    """
    if generator.device.type == "cpu":
        return tuple(augment(batch, generator) for batch in batches)
    return augment(torch.cat(batches), generator).chunk(len(batches))
