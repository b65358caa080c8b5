"""The training loop of every stage of every method.

Random streams are derived from (run, purpose, step), so a checkpoint holds no generator: on the CPU, with the same
number of threads, a resumed run is bit-identical to an uninterrupted one.
"""

import contextlib
import functools
import io
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scl import augment, config, images
from scl.config import RunSettings, Training
from scl.engine import allocator, artifacts, checkpoint, features, precision
from scl.engine import assign as assigning
from scl.engine.identity import fingerprint, identity_of
from scl.engine.io import RunFailed
from scl.engine.optimization import fill_idle_gradients, learning_rate, load_state, optimizer_of, start_momentum
from scl.engine.outputs import peak_memory
from scl.engine.prepared import describe
from scl.engine.progress import Progress
from scl.engine.provenance import now, provenance
from scl.engine.seeding import Seeds, seed_default_generators
from scl.engine.weights import read_weights
from scl.method import Method, Problem, check_terms
from scl.util.classes import find_class
from scl.util.text import Report, duration, say

CHECK_EVERY = 50  # steps between checks of the losses: each check waits for the device
# attributes of Trainer that a checkpoint holds as they are
STATE = ("epoch", "step_in_epoch", "term_names", "history", "curve", "seconds", "attempts")


class NonFinite(RunFailed):
    """A term of the loss is not finite; `where` names the term, epoch and step."""

    def __init__(self, term: str, value: float, epoch: int, step: int):
        super().__init__(
            f"the loss term '{term}' is {value} at epoch {epoch + 1}, step {step + 1}; "
            "try a lower learning rate or precision: fp32"
        )
        self.where = {"term": term, "epoch": epoch + 1, "step": step + 1}


def curve_epochs(training: Training) -> set[int]:
    """Epochs (counted from 1) after which assignments are kept: evenly spaced, the last included."""
    points = min(training.curve_points, training.epochs)
    return {math.ceil(training.epochs * (i + 1) / points) for i in range(points)}


class Trainer:
    """One run in memory: `fit` trains it, `save` and `restore` write and read its checkpoint."""

    def __init__(self, run: RunSettings, directory: Path, *, device: str, report: Report = say):
        self.run, self.directory, self.device, self.report = run, directory, device, report
        self.started = now()
        self.seeds = Seeds(run.benchmark, run.stage, run.seed)
        method_class = find_class(run.method)
        self.facts = describe(run.data)  # read once: the benchmark may be prepared again while the run trains
        self.images = self._load_images("represent" if method_class.uses_unlabeled else "fit")
        uses = self.facts["protocols"][run.protocol]
        same = uses["assign"] == uses["fit"] and len(self.images) == self.images.fit
        self.evaluated = self.images if same else self._load_images("assign")
        weights, checksum = read_weights(Path(run.after), report=report) if run.after else (None, None)
        self.identity = identity_of(run, self.facts, checksum)
        self.method = self._build(method_class, weights)
        self.augment = {name: augment.build(spec, self.images.size) for name, spec in run.augment.items()}
        dtype = precision.choose(run.training.precision, device)
        precision.compute_in(dtype)
        if device == "cpu":
            allocator.keep_freed_memory()
        self.precision = "bf16" if dtype == torch.bfloat16 else "fp32"
        self.autocast = functools.partial(precision.autocast, dtype, device)
        self.optimizer = optimizer_of(self.method, run.training, device) if run.training.epochs else None
        self.epoch, self.step_in_epoch, self.seconds = 0, 0, 0.0
        self.term_names: list[str] = []
        self.history: list[dict[str, Any]] = []
        self.curve: list[tuple[int, Tensor | str]] = []  # assignments or, for k-means, the SHA-256 of kept features
        self.attempts: list[dict[str, Any]] = []
        # after the last epoch, if this process trained it
        self.last_assignment: tuple[np.ndarray, np.ndarray] | None = None
        self.epoch_losses: list[Tensor] = []  # of the current epoch: one small tensor per step, on the device
        self.losses_checked = 0

    def _load_images(self, use: str) -> images.Images:
        run = self.run
        return images.load(run.data, run.protocol, use, size=run.image_size, facts=self.facts, device=self.device)

    def _build(self, method_class: type[Method], weights: bytes | None) -> Method:
        clusters = self.facts["clusters"]
        if clusters > self.images.fit:
            raise ValueError(f"{self.run.data}: {clusters} clusters cannot be found in {self.images.fit} images")
        mean, std = self.images.statistics()
        problem = Problem(
            images=self.images.fit,
            unlabeled=len(self.images) - self.images.fit,
            clusters=clusters,
            size=self.facts["size"][0],
            epochs=self.run.training.epochs,
            mean=mean,
            std=std,
        )
        options = config.options_of(method_class, self.run.options, f"{self.run.stage}.options")
        torch.manual_seed(self.seeds("initial weights"))
        method = method_class(options, problem, self.run.network)
        if weights:
            method.start_from(torch.load(io.BytesIO(weights), map_location="cpu", weights_only=True))
        method = method.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload] # not in stubs
        if self.run.training.compile and hasattr(method, "encoder"):
            method.encoder.compile()
        return method

    # --- the loop --------------------------------------------------------------------------------------------

    def fit(self, stop: checkpoint.Stop, *, checkpoint_seconds: float, tensorboard: bool = False) -> None:
        """Train the remaining epochs; if `stop.requested` (a signal), save and raise SystemExit."""
        resumed = self.restore()
        made_by = provenance(device=self.device)
        self.attempts.append(
            {"started": self.started, "epoch": self.epoch, "precision": self.precision, "peak_memory_bytes": 0}
            | {name: made_by[name] for name in ("commit", "dirty", "device")}
        )
        if self.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        self.clock = time.perf_counter() - self.seconds
        if not resumed:
            with self.autocast():
                self.method.prepare(self.images, self.seeds.generator("prepare", device=self.device))
        self.method.train()
        saved = time.perf_counter()
        lines = map(self._progress_line, self.history)
        with contextlib.closing(Progress(self.directory, lines, tensorboard=tensorboard)) as progress:
            while self.epoch < self.run.training.epochs:
                for _ in self.steps_of_epoch():
                    late = time.perf_counter() - saved > checkpoint_seconds
                    if late or stop.requested:
                        self.save()
                        saved = time.perf_counter()
                    if stop.requested:
                        self.report(f"stopped by a signal in epoch {self.epoch + 1}; saved: the same command resumes")
                        raise SystemExit(stop.status)
                self._end_epoch(progress)

    def steps_of_epoch(self) -> Iterator[None]:
        """Train the remaining steps of this epoch; yields after each."""
        self.method.epoch = self.epoch
        assert self.optimizer is not None  # there are epochs
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.run.training, self.epoch)
        pool = self.method.pool(self.epoch)
        batch = min(self.run.training.batch_size, pool)
        partial = self.method.keeps_last_batch and pool % batch > 1  # batch norm fails on one image of 1 x 1 features
        steps = pool // batch + partial
        order = torch.randperm(pool, generator=self.seeds.generator("order", self.epoch)).to(self.device)
        while self.step_in_epoch < steps:
            index = order[self.step_in_epoch * batch : (self.step_in_epoch + 1) * batch]  # B
            self.learn(self.draw(index), index)
            self.step_in_epoch += 1
            if len(self.epoch_losses) - self.losses_checked >= CHECK_EVERY:
                self._check_losses()
            yield

    def draw(self, index: Tensor) -> tuple[Tensor, ...]:
        """The augmented views of the images at `index` for this step."""
        generator = self.seeds.generator("step", self.epoch, self.step_in_epoch, "views", device=self.device)
        return self.method.draw(self.images, index, self.augment, generator)

    def learn(self, views: tuple[Tensor, ...], index: Tensor) -> None:
        """Forward, backward and optimizer step; never waits for the device."""
        seed_default_generators(self.seeds("step", self.epoch, self.step_in_epoch, "layers"), self.device)
        with self.autocast():
            terms = self.method.step(views, index)
        check_terms(terms, f"{type(self.method).__name__}.step", self.term_names if self.step_in_epoch else [])
        self.term_names = list(terms)
        values = torch.stack([t.float() for t in terms.values()])
        loss = values.sum()
        if loss.requires_grad:  # not if a step has nothing to learn from, e.g. an empty self-label mask
            assert self.optimizer is not None
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            if self.method.zero_idle_gradients:
                fill_idle_gradients(self.optimizer)
            start_momentum(self.optimizer)
            self.optimizer.step()
        self.method.after_step()
        self.epoch_losses.append(values.detach())

    def _check_losses(self) -> None:
        """Raise NonFinite for the first term that is not finite; one synchronization for many steps."""
        checked = self.losses_checked
        if checked < len(self.epoch_losses):
            values = torch.stack(self.epoch_losses[checked:]).cpu()  # steps x terms
            if bad := (~values.isfinite()).nonzero().tolist():
                step, term = bad[0]
                raise NonFinite(self.term_names[term], values[step, term].item(), self.epoch, checked + step)
        self.losses_checked = len(self.epoch_losses)

    def _end_epoch(self, progress: Progress) -> None:
        self._check_losses()
        means = torch.stack(self.epoch_losses).mean(0).tolist() if self.epoch_losses else []
        terms = dict(zip(self.term_names, means))
        self.seconds = time.perf_counter() - self.clock
        row = {"epoch": self.epoch + 1, "steps": len(self.epoch_losses), "loss": sum(means), **terms}
        row |= {"learning_rate": learning_rate(self.run.training, self.epoch), "seconds": self.seconds}
        self.history.append(row)
        progress.add(self._progress_line(row))
        self.epoch, self.step_in_epoch = self.epoch + 1, 0
        self.epoch_losses, self.losses_checked = [], 0
        if self.epoch in curve_epochs(self.run.training):
            self._add_to_curve()
        self._report_epoch(terms)

    def _add_to_curve(self) -> None:
        if self.method.clusters_by_kmeans:
            self.curve.append((self.epoch, self.keep_features()))
            return
        result = self.assign()
        self.last_assignment = result if self.epoch == self.run.training.epochs else None
        self.curve.append((self.epoch, torch.from_numpy(result[0]).int()))

    def assign(self) -> tuple[np.ndarray, np.ndarray]:
        """(assignments, confidence) of the evaluated images with the current weights."""
        return assigning.assignments(self.method, self.evaluated, autocast=self.autocast)

    def keep_features(self) -> str:
        """Keep the features of this epoch for `scl kmeans`; returns the SHA-256 of their file."""
        found = assigning.features(self.method, self.images, self.evaluated, autocast=self.autocast)
        return features.keep(self.directory, features.name_of(self.epoch), found)

    def _progress_line(self, row: dict[str, Any]) -> dict[str, Any]:
        """A row of the history, with the number of epochs of the run and of images in this epoch."""
        images = min(self.method.pool(row["epoch"] - 1), row["steps"] * self.run.training.batch_size)
        return {**row, "epochs": self.run.training.epochs, "images": images}

    def _report_epoch(self, terms: dict[str, float]) -> None:
        epochs = self.run.training.epochs
        seconds = self.seconds / self.epoch * (epochs - self.epoch)
        left = f", about {duration(seconds)} left" if self.epoch < epochs else ""
        if self.epoch == 1 or self.epoch == epochs or self.epoch % max(1, epochs // 50) == 0:
            named = ", ".join(f"{name} {value:.3f}" for name, value in terms.items())
            self.report(f"epoch {self.epoch}/{epochs}  {named}  {duration(self.seconds)} done{left}")

    # --- checkpoints -----------------------------------------------------------------------------------------

    def save(self, *, optimizer: bool = True) -> None:
        """Save a checkpoint; raises NonFinite instead if a loss is not finite. optimizer: include its state."""
        self._check_losses()
        self.seconds = time.perf_counter() - self.clock
        self.attempts[-1]["peak_memory_bytes"] = peak_memory(self.device)
        checkpoint.save(
            self.directory / "checkpoint.pt",
            {
                "fingerprint": fingerprint(self.identity),
                "method": self.method.state_dict(),
                "optimizer": self.optimizer.state_dict() if self.optimizer and optimizer else None,
                "epoch_losses": torch.stack(self.epoch_losses).cpu() if self.epoch_losses else None,
                **{name: getattr(self, name) for name in STATE},
            },
        )

    def restore(self) -> bool:
        """Load the checkpoint of exactly this run, if there is one; return whether there was."""
        path = self.directory / "checkpoint.pt"
        state = checkpoint.load(path, fingerprint=fingerprint(self.identity), report=self.report)
        if state is None or self._features_lost(state):
            return False
        self.method.load_state_dict(state["method"])
        if self.optimizer and state["optimizer"]:
            load_state(self.optimizer, state["optimizer"])
        for name in STATE:
            setattr(self, name, state[name])
        losses = state["epoch_losses"]
        self.epoch_losses = [] if losses is None else list(losses.to(self.device))
        self.losses_checked = len(self.epoch_losses)
        self.report(
            f"resumed at epoch {self.epoch + 1}, step {self.step_in_epoch + 1}, "
            f"after {duration(self.seconds)} of training"
        )
        return True

    def _features_lost(self, state: dict[str, Any]) -> bool:
        """Whether features of earlier epochs are neither kept nor clustered: their points of the curve are missing."""
        if not self.method.clusters_by_kmeans:
            return False
        directory, files = self.directory, {features.name_of(epoch): checksum for epoch, checksum in state["curve"]}
        trained = state["epoch"] == self.run.training.epochs
        if trained and artifacts.clustered(directory, fingerprint(self.identity), files):
            return False
        lost = features.lost(directory, files)
        if lost:
            name = directory / features.FOLDER / lost[0]
            self.report(f"{name}: missing or damaged; training starts from the beginning")
        return bool(lost)
