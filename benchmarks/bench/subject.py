"""Trainers of one method on random images, without labels."""

import contextlib
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from baselines.scan import SelfLabel
from benchmarks.bench.plan import Plan
from benchmarks.study import Study
from scl import config
from scl.engine import gpu_lease, precision
from scl.engine.io import sha256, write_json
from scl.engine.trainer import Trainer

RANDOM_IMAGES = 10_000  # further images are black: they cost the same and take no disk space
CONFIDENT = 1000.0  # times the weights of a random head


class Subject:
    """Makes trainers of one method on random images."""

    def __init__(self, study: Study, plan: Plan, folder: Path, device: str):
        self.study, self.plan, self.folder, self.device = study, plan, folder, device
        shape = (max(plan.images), plan.size, plan.size, 3)
        stored = np.lib.format.open_memmap(folder / "images.npy", "w+", np.uint8, shape)
        stored[:RANDOM_IMAGES] = np.random.default_rng(0).integers(0, 256, stored[:RANDOM_IMAGES].shape)
        stored.flush()
        self.checksum = sha256(folder / "images.npy")
        self.base = {"images": plan.images[0], "clusters": plan.clusters[0], "batch_size": plan.batch_size}

    def variants(self):
        """Variants of the training loop: other batch sizes, more images, more clusters, both."""
        for factor in self.plan.batch_factors:
            yield self.base | {"batch_size": max(2, round(self.plan.batch_size * factor))}
        for images in self.plan.images:
            for clusters in self.plan.clusters:
                if (images, clusters) != (self.base["images"], self.base["clusters"]):
                    yield self.base | {"images": images, "clusters": clusters}

    def trainer(self, *, images: int, clusters: int, batch_size: int, **training) -> Trainer:
        """A trainer in its last epoch, with prototypes placed. training: settings to override."""
        data = self._data(images, clusters)
        planned = self.study.run(next(iter(self.study.benchmarks)), "joint", self.plan.stage, 0)
        run = self._settings(planned, data)
        usual = {"precision": self.plan.precision, "compile": self.plan.compile, "batch_size": batch_size}
        run = run.model_copy(update={"training": run.training.model_copy(update=usual | training)})
        trainer = Trainer(config.complete(run), self.folder, device=self.device)
        if trainer.optimizer is None:
            raise ValueError(f"{self.plan.stage}: does not train, so there is nothing to measure")
        if planned.after:  # with random weights
            before = Trainer(config.complete(self._settings(planned.after, data)), self.folder, device="cpu")
            trainer.method.start_from(before.method.state_dict())
        trainer.epoch = trainer.method.epoch = run.training.epochs - 1
        pretend_trained(trainer.method)
        trainer.method.train()
        return trainer

    def _settings(self, planned, data: Path):
        return self.study.settings(planned).model_copy(update={"protocol": "joint", "data": str(data), "after": None})

    def _data(self, images: int, clusters: int) -> Path:
        folder = self.folder / f"{images}-{clusters}"
        if not folder.exists():
            folder.mkdir()
            (folder / "images.npy").symlink_to(self.folder / "images.npy")
            uses = {use: ["train"] for use in ("fit", "represent", "assign")}
            facts: dict[str, Any] = {"clusters": clusters, "splits": {"train": [0, images]}}
            facts |= {"protocols": {"joint": uses}, "images_sha256": self.checksum, "size": [self.plan.size] * 2}
            write_json(folder / "benchmark.json", facts)
        return folder


@contextlib.contextmanager
def own_precision(dtype: torch.dtype | None = None) -> Iterator[None]:
    """Restore torch's TF32 switches after the block, in which they are those of a run in `dtype`.

    They are global and every Trainer sets them, so without this a part would be timed under those of another.
    """
    backends: tuple[Any, ...] = (torch.backends.cudnn, torch.backends.cuda.matmul)
    before = [backend.allow_tf32 for backend in backends]
    try:
        if dtype:
            precision.compute_in(dtype)
        yield
    finally:
        for backend, allowed in zip(backends, before):
            backend.allow_tf32 = allowed


@contextlib.contextmanager
def subject_of(study: Study, plan: Plan, *, gpus: int, threads: int, report) -> Iterator[Subject]:
    """A subject on a leased device, in a temporary folder. Raises ValueError."""
    if plan.stage not in study.methods:
        raise ValueError(f"{plan.stage}: not a method of this study; it has {', '.join(study.methods)}")
    with (
        gpu_lease.lease(gpus, report=report) as leased,
        tempfile.TemporaryDirectory(prefix="scl-bench-") as folder,
        own_precision(),
    ):
        torch.set_num_threads(threads)
        yield Subject(study, plan, Path(folder), gpu_lease.torch_device(leased, report=report))


def pretend_trained(method) -> None:
    """Bring a method with random weights into the state of a usual step after some epochs.

    The memory is full: unit rows and even classes, where a fresh one is all zero. Prototypes count as placed, at their
    random start: k-means happens once a run, so it is timed apart from the steps. A self-labeling head is confident of
    every image, where a random one is of none, so that there would be nothing to learn.
    """
    memory = getattr(method, "memory", None)
    if memory is not None:
        memory.rows.normal_()
        memory.rows.div_(memory.rows.norm(dim=1, keepdim=True))
        memory.pseudo_classes.random_(memory.clusters)
    if hasattr(method, "placed"):
        method.placed = True
    if isinstance(method, SelfLabel):
        with torch.no_grad():
            method.head.weight.mul_(CONFIDENT)


def endless(trainer):
    """Steps of the training loop with its checks of the losses, without what else it does at the end of an epoch."""
    while True:
        yield from trainer.steps_of_epoch()
        trainer._check_losses()
        trainer.step_in_epoch, trainer.epoch_losses, trainer.losses_checked = 0, [], 0


def names_drawn(trainer, index) -> list[str]:
    """Names of the augmentations of one image, in the order of its views."""
    names, augment = [], trainer.augment

    def record(name, images, generator):
        names.append(name)
        return augment[name](images, generator)

    trainer.augment = {name: partial(record, name) for name in augment}
    trainer.draw(index[:2])
    trainer.augment = augment
    return names
