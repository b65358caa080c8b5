"""How long training will take: a few seconds of real steps on this device, times the steps that are left."""

import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.bench.subject import endless, pretend_trained
from benchmarks.study import Run, Study
from scl import config
from scl.config import RunSettings
from scl.engine import checkpoint
from scl.engine.assign import assignments
from scl.engine.identity import fingerprint
from scl.engine.io import Damaged
from scl.engine.train import planned_identity
from scl.engine.trainer import Trainer, curve_epochs
from scl.images import Images
from scl.util.text import duration

SECONDS, STEPS = 2.0, 30  # timed of each stage, whichever is reached first
SAMPLE = 2_000  # images whose assignment is timed


@dataclass(frozen=True)
class Estimate:
    """Of one stage. seconds: in all; the other numbers are what it is made from."""

    stage: str
    epochs: float  # left
    steps: int  # per epoch
    seconds_per_step: float
    seconds: float

    def __str__(self) -> str:
        if not self.steps:
            return f"{self.stage} {duration(self.seconds)}"
        each = f"{self.epochs:.0f} epochs of {self.steps} steps of {self.seconds_per_step:.3f} s"
        return f"{self.stage} {duration(self.seconds)} ({each})"


def estimate(study: Study, run: Run, device: str) -> Estimate:
    """Measure `run`, which is yet to be trained, with random weights. Its benchmark has to be prepared."""
    settings = config.complete(study.settings(run))
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="scl-estimate-") as folder:
        alone = settings.model_copy(update={"after": None})
        trainer = Trainer(alone, Path(folder), device=device, report=lambda line: None)
        setup = time.perf_counter() - began
        training = settings.training
        passes = len(curve_epochs(training)) if training.epochs else 1
        rest = setup + passes * _assignment_seconds(trainer)
        if not training.epochs:
            return Estimate(run.stage, 0, 0, 0.0, rest)
        pool = trainer.method.pool(0)
        full, rest_of_pool = divmod(pool, min(training.batch_size, pool))
        steps = full + (rest_of_pool > 0 and trainer.method.keeps_last_batch)
        each = _step_seconds(trainer)
        left = training.epochs - _epochs_done(settings, run.directory, steps)
        return Estimate(run.stage, left, steps, each, rest + left * steps * each)


def _step_seconds(trainer: Trainer) -> float:
    """Of a step after the warm-up, in the mean."""
    trainer.epoch = trainer.method.epoch = trainer.run.training.epochs - 1
    pretend_trained(trainer.method)
    trainer.method.train()
    loop = endless(trainer)
    for _ in range(2):  # untimed: memory is allocated, kernels are chosen
        next(loop)
    wait = torch.cuda.synchronize if trainer.device == "cuda" else lambda: None
    wait()
    began, count = time.perf_counter(), 0
    while count < STEPS and time.perf_counter() - began < SECONDS:
        next(loop)
        wait()
        count += 1
    return (time.perf_counter() - began) / count


def _assignment_seconds(trainer: Trainer) -> float:
    """Of one assignment of all images, by the time that a sample takes."""
    found = trainer.images
    count = min(len(found), max(SAMPLE, trainer.method.problem.clusters))
    sample = Images(found.pixels[:count], found.rows[:count], count)
    began = time.perf_counter()
    with torch.random.fork_rng(devices=[]):
        assignments(trainer.method, sample, sample, autocast=trainer.autocast, seed=0)
    return (time.perf_counter() - began) * len(found) / count


def _epochs_done(settings: RunSettings, directory: Path, steps: int) -> float:
    """Of an interrupted training, by its checkpoint."""
    path = directory / "checkpoint.pt"
    if not path.exists():
        return 0.0
    with suppress(Damaged):  # without the stage before there is no checkpoint of this run
        state = checkpoint.load(path, fingerprint=fingerprint(planned_identity(settings)), report=lambda line: None)
        return state["epoch"] + state["step_in_epoch"] / steps if state else 0.0
    return 0.0
