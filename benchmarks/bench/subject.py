"""What is measured, and how: steps of trainers of one method on random images, without labels."""

import dataclasses
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from baselines.scan import SelfLabel
from benchmarks.plan.rates import benchmark_of_size, size_of
from benchmarks.study import Study
from scl import config
from scl.engine.io import sha256, write_json
from scl.engine.trainer import Trainer
from scl.memory import InstanceMemory
from scl.scl import SCL

RANDOM_IMAGES = 10_000  # additional images are black: they cost the same and take no disk space
CONFIDENT = 1000.0  # times the weights of a random head


@dataclasses.dataclass(frozen=True)
class Plan:
    """What to measure. seconds: of steps in a row, at least one step; rounds: repetitions of all parts, in turns."""

    stage: str = "scl"
    size: int = 32
    batch_size: int = 256
    seconds: float = 0.5
    rounds: int = 3
    images: tuple[int, ...] = (10_000, 100_000)  # the first for all parts; all of them for the growth
    clusters: tuple[int, ...] = (10, 200)
    batch_factors: tuple[float, ...] = (0.25, 0.5, 2.0)
    workers: tuple[int, ...] = (0,)  # candidate numbers of loader processes of the standard pipeline; the best is used
    precision: str = "auto"
    compile: bool = False
    matrix: int = 2048  # side of the matrix product that gives the peak of the device

    def __post_init__(self) -> None:
        most = max((1.0, *self.batch_factors)) * self.batch_size
        if most > min(self.images):
            raise ValueError(
                f"--batch-size: {self.batch_size} makes batches of up to {most:.0f} images, but only "
                f"{min(self.images):,} are measured; lower it"
            )

    def variants(self) -> list[dict[str, int]]:
        """Sizes of the training loop: first that of all parts, then other batches, more clusters, more images, both."""
        sizes = [
            {"images": images, "clusters": clusters, "batch_size": self.batch_size}
            for images in self.images
            for clusters in self.clusters
        ]
        batches = (max(2, round(self.batch_size * factor)) for factor in self.batch_factors)
        return [sizes[0], *(sizes[0] | {"batch_size": batch} for batch in batches), *sizes[1:]]


class Subject:
    """Makes trainers of one method on random images, with the settings of the study's first benchmark of their size.

    If none has this size, the settings are those of its first benchmark; about: which one it is, and its size.
    """

    def __init__(self, study: Study, plan: Plan, folder: Path, device: str):
        self.study, self.plan, self.folder, self.device = study, plan, folder, device
        self.benchmark = benchmark_of_size(study, plan.size) or next(iter(study.benchmarks))
        self.about = {"benchmark": self.benchmark, "benchmark_size": size_of(study, self.benchmark)}
        self.checksum = write_images(folder / "images.npy", max(plan.images), size=plan.size, clusters=plan.clusters[0])

    def trainer(self, **changes) -> Trainer:
        """A trainer in its last epoch, with prototypes placed. changes: to sizes of the first variant or to
        settings of the training."""
        plan = self.plan
        changes = {**plan.variants()[0], "precision": plan.precision, "compile": plan.compile, **changes}
        images, clusters = changes.pop("images"), changes.pop("clusters")
        write_facts(self.folder, images, clusters=clusters, size=plan.size, checksum=self.checksum)
        run = self.study.settings(self.study.run(self.benchmark, "joint", plan.stage, 0))
        # random weights, as if it started from no other stage
        run = run.model_copy(update={"protocol": "joint", "data": str(self.folder), "after": None})
        run = run.model_copy(update={"training": run.training.model_copy(update=changes)})
        trainer = Trainer(config.complete(run), self.folder, device=self.device)
        if trainer.optimizer is None:
            raise ValueError(f"{plan.stage}: does not train, so there is nothing to measure")
        trainer.epoch = trainer.method.epoch = run.training.epochs - 1
        pretend_trained(trainer.method)
        trainer.method.train()
        return trainer


def write_images(path: Path, count: int, *, size: int, clusters: int) -> str:
    """Write random images, around one center per cluster, so that k-means converges as usual; returns the SHA-256."""
    random = np.random.default_rng(0)
    stored = np.lib.format.open_memmap(path, "w+", np.uint8, (count, size, size, 3))
    some = min(count, RANDOM_IMAGES)
    centers = random.integers(64, 192, (clusters, size, size, 3), np.uint8)
    noise = random.integers(-64, 64, (some, size, size, 3), np.int8)
    stored[:some] = centers[np.arange(some) % clusters] + noise
    stored.flush()
    return sha256(path)


def write_facts(
    folder: Path, images: int, *, clusters: int, size: int, checksum: str, larger: dict[str, Any] | None = None
) -> None:
    """Write benchmark.json of random images in `folder`, all of which are used for everything.

    It is read once, when a trainer is built. checksum: SHA-256 of images.npy; larger: as in benchmark.json.
    """
    uses = {use: ["train"] for use in ("fit", "represent", "assign")}
    facts = {"clusters": clusters, "splits": {"train": [0, images]}, "protocols": {"joint": uses}}
    facts |= {"images_sha256": checksum, "size": [size] * 2, "larger": larger}
    write_json(folder / "benchmark.json", facts)


def pretend_trained(method) -> None:
    """Bring a method with random weights into the state of a typical step after some epochs.

    The memory is full: unit rows and balanced classes, whereas a new one is all zero. Prototypes count as placed, at
    their random start: k-means runs once per run, so it is timed separately. A self-labeling head is confident about
    every image; a random one is confident about none and would have nothing to learn.
    """
    memory = getattr(method, "memory", None)
    if isinstance(memory, InstanceMemory):  # a custom method may mean something else by these names
        memory.rows.normal_()
        memory.rows.div_(memory.rows.norm(dim=1, keepdim=True))
        memory.pseudo_classes.random_(memory.clusters)
    if isinstance(method, SCL):
        method.placed = True
    if isinstance(method, SelfLabel):
        with torch.no_grad():
            method.head.weight.mul_(CONFIDENT)


def endless(trainer: Trainer) -> Iterator[None]:
    """Steps of the training loop with its checks of the losses, but without its other work at the end of an epoch."""
    while True:
        yield from trainer.steps_of_epoch()
        trainer._check_losses()
        trainer.step_in_epoch, trainer.epoch_losses, trainer.losses_checked = 0, [], 0


def seconds_per_step(work: Callable[[], Any], least: float, device: str, *, turn: int = 1) -> float:
    """Wall-clock seconds per step, over `least` seconds of steps but at least one step; waits for the device.

    turn: a multiple of this number of steps is timed, unless one step takes `least` seconds: loader processes that
    started together finish together, so their batches come in bursts.
    """
    wait_for(device)
    start, steps = time.perf_counter(), 0
    while True:
        work()
        steps += 1
        if time.perf_counter() - start >= least and (steps == 1 or steps % turn == 0):
            wait_for(device)
            return (time.perf_counter() - start) / steps


def wait_for(device: str) -> None:
    """Wait for a GPU, which runs asynchronously."""
    if device == "cuda":
        torch.cuda.synchronize()
