"""Measure how fast this device trains, by a few seconds of real steps, and estimate how long an untrained run takes."""

import dataclasses
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from benchmarks.bench.subject import endless, pretend_trained, wait_for
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

SECONDS, STEPS = 2.0, 30  # timed of each stage, whichever is reached first
SAMPLE, FIRST = 2_000, 64  # images whose assignment is timed, if that takes no longer than SECONDS; and before that


@dataclass(frozen=True)
class Estimate:
    """The estimate for one stage. seconds: in total; the other numbers are those that it is computed from."""

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

    torch.zeros(1, device=device)  # CUDA starts: that is part of the start of the process
    began, training = time.perf_counter(), settings.training
    with tempfile.TemporaryDirectory(prefix="scl-estimate-") as folder:
        alone = settings.model_copy(update={"after": None})
        trainer = Trainer(alone, Path(folder), device=device, report=lambda line: None)
        method, fit = trainer.method, trainer.images.fit
        start, forward = time.perf_counter() - began, _forward_seconds(trainer)
        once = _preparation_seconds(trainer, forward) if training.epochs else 0.0
        weights, each = _sizes(method)
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
            step_seconds=_step_seconds(trainer, images) if training.epochs else 0.0,
            start_seconds=start,
            once_seconds=once,
            kmeans=method.clusters_by_kmeans,
            unlabeled=_unlabeled_share(method),
            weight_bytes=weights,
            image_bytes=each,
            feature_bytes=_outputs(trainer, 1).nbytes if method.clusters_by_kmeans else 0,
        )


def _outputs(trainer: Trainer, first: int) -> np.ndarray:
    return outputs(trainer.method, trainer.images, autocast=trainer.autocast, first=first)


def _forward_seconds(trainer: Trainer) -> float:
    """Seconds to compute the outputs of one image, measured on a few."""
    count = min(FIRST, len(trainer.images))
    _outputs(trainer, count)  # allocates memory
    began = time.perf_counter()
    _outputs(trainer, count)
    return (time.perf_counter() - began) / count


def _preparation_seconds(trainer: Trainer, forward: float) -> float:
    """Seconds of what happens once per training: `prepare`, and the k-means that initializes prototypes."""
    method, began, passes = trainer.method, time.perf_counter(), 0.0
    if type(method).prepare is not Method.prepare:
        passes = forward * len(trainer.images)
        if passes <= 2 * SECONDS:  # else it counts as one pass over the images
            passes = 0.0
            with trainer.autocast():
                method.prepare(trainer.images, trainer.seeds.generator("prepare", device=trainer.device))
    pretend_trained(method)
    if getattr(method.options, "prototypes", None) == "kmeans":  # SCL
        method.place_prototypes()  # type: ignore[operator] # not of every method
    wait_for(trainer.device)
    return time.perf_counter() - began + passes


def _step_seconds(trainer: Trainer, images: int) -> float:
    """Mean seconds of a step after the warm-up, in a run of at least so many images."""
    trainer.epoch = trainer.method.epoch = trainer.run.training.epochs - 1
    _extend_memory(trainer.method, images)
    pretend_trained(trainer.method)
    trainer.method.train()
    loop = endless(trainer)
    began = time.perf_counter()
    for _ in range(2):  # untimed: memory is allocated, kernels are chosen
        next(loop)
        if time.perf_counter() - began > SECONDS:
            break
    wait_for(trainer.device)
    began, count = time.perf_counter(), 0
    while count < STEPS and time.perf_counter() - began < SECONDS:
        next(loop)
        count += 1
    wait_for(trainer.device)  # as in training, not after each step
    return (time.perf_counter() - began) / count


def _extend_memory(method: Method, images: int) -> None:
    """Give SCL a memory of `images` rows, however few images there are: every step compares its batch with all rows."""
    memory = getattr(method, "memory", None)
    if isinstance(memory, InstanceMemory) and images > len(memory.rows):
        weights = {"momentum": memory.momentum, "temperature": memory.temperature}
        longer = InstanceMemory(images, memory.rows.shape[1], memory.clusters, **weights)
        method.memory = longer.to(memory.rows.device)


def _assignment_seconds(trainer: Trainer, forward: float) -> float:
    """Seconds of one assignment of all images, extrapolated from a sample."""
    images, method = trainer.evaluated, trainer.method
    affordable = max(FIRST, 10 * method.problem.clusters, min(SAMPLE, int(SECONDS / forward)))
    count = min(len(images), affordable)
    sample = Images(images.pixels[:count], images.rows[:count], count)
    began = time.perf_counter()
    with torch.random.fork_rng(devices=[]), threadpool_limits(torch.get_num_threads()):
        if method.clusters_by_kmeans:
            found = features(method, sample, sample, autocast=trainer.autocast)["evaluated"]
            kmeans(found, found, method.problem.clusters, restarts=method.options.kmeans_restarts, seed=0)
        else:
            assignments(method, sample, autocast=trainer.autocast)
    return (time.perf_counter() - began) * len(images) / count


def _unlabeled_share(method: Method) -> float:
    """Fraction of the unlabeled images that an epoch visits, mean of two epochs."""
    problem = method.problem
    without = method.pool(0) + method.pool(1)
    method.problem = dataclasses.replace(problem, unlabeled=problem.unlabeled + problem.images)
    share = (method.pool(0) + method.pool(1) - without) / 2 / problem.images
    method.problem = problem
    return share


def _sizes(method: Method) -> tuple[int, int]:
    """(bytes of the weights of fixed size, bytes per image of those with a row per image)."""
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
    """Of an interrupted training, by its checkpoint."""
    path = directory / "checkpoint.pt"
    with suppress(Damaged):  # without the stage before there is no checkpoint of this run
        if path.exists():
            found = fingerprint(planned_identity(settings))
            if state := checkpoint.load(path, fingerprint=found, report=lambda line: None):
                return state["epoch"] + state["step_in_epoch"] / steps
    return 0.0
