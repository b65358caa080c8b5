"""Measure how fast this device trains, from a few seconds of real steps, and estimate the time of an untrained run."""

import dataclasses
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from benchmarks.bench.subject import endless, pretend_trained, seconds_per_step
from benchmarks.plan.rates import Rate, epoch_steps, kind_of, kmeans_seconds, lengths, train_seconds, work_of
from benchmarks.study import Run, Study
from scl import config
from scl.config import RunSettings
from scl.engine import checkpoint
from scl.engine.assign import assignments, features, outputs
from scl.engine.clustering import kmeans
from scl.engine.identity import fingerprint
from scl.engine.io import Damaged
from scl.engine.prepared import describe
from scl.engine.train import planned_identity
from scl.engine.trainer import Trainer
from scl.images import Images
from scl.memory import InstanceMemory
from scl.method import Method
from scl.util.text import duration

SECONDS = 2.0  # of timed steps
PREPARATION = 4.0  # most seconds for `prepare` if it passes over the images; if it would take longer, it is skipped
SAMPLE, FIRST = 2_000, 64  # images whose assignment is timed, if that takes at most SECONDS; images for a first timing


@dataclass(frozen=True)
class Estimate:
    """The estimate for one stage. seconds: in total; it is computed from the other numbers."""

    stage: str
    epochs: float  # left
    steps: int  # per epoch
    seconds_per_step: float
    seconds: float

    def __str__(self) -> str:
        if not self.steps:
            return f"{self.stage} {duration(self.seconds)}"
        epochs, steps = f"epoch{'s' * (round(self.epochs) != 1)}", f"step{'s' * (self.steps != 1)}"
        each = f"{self.epochs:.0f} {epochs} of {self.steps} {steps} of {self.seconds_per_step:.3f} s"
        return f"{self.stage} {duration(self.seconds)} ({each})"


def estimate(study: Study, run: Run, device: str) -> Estimate:
    """Measure `run`, which is yet to be trained, with random weights. Its benchmark must be prepared."""
    settings = config.complete(study.settings(run))
    work = work_of(study, run, lengths(describe(settings.data)["splits"]))
    rate = measure(settings, device)
    seconds = train_seconds(work, rate) + kmeans_seconds(work, rate)
    if not settings.training.epochs:
        return Estimate(run.stage, 0, 0, 0.0, seconds)
    steps = epoch_steps(work, rate)
    done = _epochs_done(settings, run.directory, steps)
    seconds -= done * steps * rate.step_seconds
    return Estimate(run.stage, settings.training.epochs - done, steps, rate.step_seconds, seconds)


def measure(settings: RunSettings, device: str, *, images: int = 0) -> Rate:
    """Measure a run of these complete settings with random weights, on its prepared images.

    images: the number of images of the run, if the prepared ones are only a sample of them.
    """
    from sklearn.cluster import KMeans  # noqa: F401 its import is not part of an assignment

    training = settings.training
    with tempfile.TemporaryDirectory(prefix="scl-estimate-") as folder:
        alone = settings.model_copy(update={"after": None})
        trainer = Trainer(alone, Path(folder), device=device, report=lambda line: None)
        method, fit = trainer.method, trainer.images.fit
        weights, each = _sizes(method)
        forward = _forward_seconds(trainer)
        if training.epochs:
            _prepare(trainer, images, forward)
        return Rate(
            kind=kind_of(settings.method, trainer.facts["size"][0], settings.network, training),
            options=settings.options,
            benchmark=settings.benchmark,
            stage=settings.stage,
            images=fit,
            clusters=method.problem.clusters,
            threads=torch.get_num_threads(),
            batch_size=min(training.batch_size, method.pool(0)),
            assign_seconds=_assignment_seconds(trainer, forward) * fit / len(trainer.evaluated),
            step_seconds=_step_seconds(trainer) if training.epochs else 0.0,
            kmeans=method.clusters_by_kmeans,
            unlabeled=_unlabeled_share(method),
            weight_bytes=weights,
            image_bytes=each,
            feature_bytes=_outputs(trainer, 1).nbytes if method.clusters_by_kmeans else 0,
        )


def _forward_seconds(trainer: Trainer) -> float:
    """Seconds to compute the outputs of one image, measured on a few."""
    first = min(FIRST, len(trainer.images))
    _outputs(trainer, first)  # allocates memory
    return seconds_per_step(lambda: _outputs(trainer, first), 0, trainer.device) / first


def _prepare(trainer: Trainer, images: int, forward: float) -> None:
    """Bring the method into the state of a typical step of its last epoch, in a run of at least this many images."""
    method = trainer.method
    if forward * len(trainer.images) <= PREPARATION:
        with trainer.autocast():
            method.prepare(trainer.images, trainer.seeds.generator("prepare", device=trainer.device))
    memory = getattr(method, "memory", None)
    if isinstance(memory, InstanceMemory) and images > len(memory.rows):  # every step compares its batch with all rows
        weights = {"momentum": memory.momentum, "temperature": memory.temperature}
        longer = InstanceMemory(images, memory.rows.shape[1], memory.clusters, **weights)
        method.memory = longer.to(memory.rows.device)
    pretend_trained(method)
    trainer.epoch = method.epoch = trainer.run.training.epochs - 1


def _outputs(trainer: Trainer, first: int) -> np.ndarray:
    return outputs(trainer.method, trainer.images, autocast=trainer.autocast, index=torch.arange(first))


def _step_seconds(trainer: Trainer) -> float:
    """Seconds of a step."""
    trainer.method.train()
    step = partial(next, endless(trainer))
    step()  # untimed: memory is allocated, kernels are chosen
    return seconds_per_step(step, SECONDS, trainer.device)


def _assignment_seconds(trainer: Trainer, forward: float) -> float:
    """Seconds of one assignment of all images, extrapolated from a sample."""
    images, method, device = trainer.evaluated, trainer.method, trainer.device
    count = min(len(images), max(FIRST, 10 * method.problem.clusters, min(SAMPLE, int(SECONDS / forward))))
    sample = Images(images.pixels[:count], images.rows[:count], count)

    def assign() -> None:
        if method.clusters_by_kmeans:
            found = features(method, sample, sample, autocast=trainer.autocast)["evaluated"]
            kmeans(found, found, method.problem.clusters, restarts=method.options.kmeans_restarts, seed=0)
        else:
            assignments(method, sample, autocast=trainer.autocast)

    with torch.random.fork_rng(devices=[]), threadpool_limits(torch.get_num_threads()):
        return seconds_per_step(assign, 0, device) * len(images) / count


def _unlabeled_share(method: Method) -> float:
    """Fraction of the unlabeled images that an epoch visits, averaged over two epochs."""
    problem = method.problem
    without = method.pool(0) + method.pool(1)
    method.problem = dataclasses.replace(problem, unlabeled=problem.unlabeled + problem.images)
    share = (method.pool(0) + method.pool(1) - without) / 2 / problem.images
    method.problem = problem
    return share


def _sizes(method: Method) -> tuple[int, int]:
    """(bytes of the weights of fixed size, bytes per image of those with one row per image)."""
    fixed, each, images = 0, 0, method.problem.images
    for tensor in method.state_dict().values():
        if torch.is_tensor(tensor):
            size = tensor.numel() * tensor.element_size()
            if tensor.dim() and len(tensor) == images:
                each += size // images
            else:
                fixed += size
    return fixed, each


def _epochs_done(settings: RunSettings, directory: Path, steps: int) -> float:
    """Epochs that an interrupted training has done, from its checkpoint."""
    path = directory / "checkpoint.pt"
    with suppress(Damaged):  # without the stage before there is no checkpoint of this run
        if path.exists():
            found = fingerprint(planned_identity(settings))
            if state := checkpoint.load(path, fingerprint=found, report=lambda line: None):
                return state["epoch"] + state["step_in_epoch"] / steps
    return 0.0
