"""Time the parts of one training step, in turns, so that changes in the load of the machine affect all of them:

  (a) augment   making the views of a batch, from the stored uint8 images
  (b) learn     forward, backward, optimizer step and memory, on existing views
  (c) step      the training loop itself: (a), (b) and its bookkeeping
  (d) standard  the standard pipeline: loader processes, PIL, torchvision, fp32, NCHW; same network, loss and views
  (e) tuned     the same with our precision and memory format (benchmarks/bench/rivals.py)

Ratios are taken within each round: c / b is the goodput, c / d and c / e are the gains. Images are random, unlabeled.
"""

import dataclasses
import math
import os
import statistics
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from scipy.stats import quantile_test
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.bench.count import peak, reset_peak
from benchmarks.bench.rivals import PEERS, StandardPipeline, peer_works
from benchmarks.bench.subject import Subject, endless, seconds_per_step, wait_for
from scl.engine import precision
from scl.engine.provenance import provenance, version_of
from scl.engine.trainer import Trainer
from scl.scl import SCL
from scl.util.text import duration

PARTS = ("augment", "learn", "step", "standard", "tuned")
PRODUCTS = 3  # matrix products in a row, for the peak


def measure(subject: Subject) -> dict[str, Any]:
    """Time all parts, peers and variants of one method, and return the result. Raises ValueError."""
    load = os.getloadavg()[0]
    measurement = Measurement(subject)
    measurement.run()
    return {
        "method": subject.plan.stage,
        **dataclasses.asdict(subject.plan),
        **subject.about,
        **provenance(device=subject.device),
        "peer_versions": {package: version_of(package) for package, _, _ in PEERS.values()},
        "load_before": load,
        "load_after": os.getloadavg()[0],
        **measurement.result(),
    }


class Measurement:
    """`run` times everything, alternating between parts; `result` summarizes it.

    works: functions that do one step, by name; variants of the training loop are named by their positions in the plan.
    rivals: the pipelines that start loader processes first, by name. times: seconds per step, by name and round. first:
    seconds of the first typical step.
    """

    def __init__(self, subject: Subject):
        self.plan, self.device = subject.plan, subject.device
        self.trainer = trainer = subject.trainer()
        index = torch.arange(self.plan.batch_size, device=self.device) % trainer.method.pool(trainer.epoch)
        self.names = names_drawn(trainer, index)
        if not self.names:
            raise ValueError(
                f"{self.plan.stage}: makes its views without augmentations, so there is nothing to compare; only "
                "--count measures it"
            )
        loop = endless(trainer)
        self.once, self.first, self.peak_memory = self._once(loop)
        views = trainer.draw(index)
        plain = subject.trainer(precision="fp32", compile=False)
        with FlopCounterMode(display=False) as flops:  # it cannot see inside a compiled network
            plain.learn(views, index)
        self.flops = flops.get_total_flops()
        self.rivals = {
            "standard": StandardPipeline(plain, self.names, tuned=False),
            "tuned": StandardPipeline(subject.trainer(), self.names, tuned=True),
        }
        self.peers = peer_works(trainer, self.names, views)
        self.variants = self.plan.variants()
        loops = {i: endless(subject.trainer(**self.variants[i])) for i in range(1, len(self.variants))}

        def learn() -> None:
            trainer.learn(views, index)
            trainer.epoch_losses.pop()  # the loop would check it

        self.works: dict[Any, Callable[[], Any]] = {
            "augment": lambda: trainer.draw(index),
            "learn": learn,
            "step": partial(next, loop),
            **{name: work for name, work in self.peers.items() if not isinstance(work, str)},
            **{i: partial(next, steps) for i, steps in loops.items()},
            "matrix": self._matrix_products(),
        }
        self.times: dict[Any, list[float]] = {name: [] for name in self.works}

    def _once(self, loop: Iterator[None]) -> tuple[dict[str, float], float, int]:
        """Seconds of what happens once per run, outside the timed steps; seconds and peak memory in bytes of a step."""
        method = self.trainer.method
        once = {}
        if isinstance(method, SCL) and method.options.prototypes == "kmeans":
            once["place_prototypes_seconds"] = seconds_per_step(method.place_prototypes, 0, self.device)
        once["first_step_seconds"] = seconds_per_step(partial(next, loop), 0, self.device)  # includes compilation
        reset_peak(self.device)
        seconds = seconds_per_step(partial(next, loop), 0, self.device)
        return once, seconds, peak(self.device)

    def _matrix_products(self) -> Callable[[], Any]:
        shape, dtype = (self.plan.matrix, self.plan.matrix), precision.choose(self.trainer.precision, self.device)
        a, b = (torch.randn(shape, device=self.device, dtype=dtype) for _ in range(2))

        def work() -> None:
            for _ in range(PRODUCTS):
                torch.mm(a, b)
            wait_for(self.device)  # else a thousand of these long kernels would be queued before the clock is read

        return work

    def expected_seconds(self) -> float:
        """Time that `run` will take if every part and every rival is as fast as our own step.

        Before the rounds, each part does one step; every session of a rival begins with one.
        """
        rounds, timed = self.plan.rounds, max(self.plan.seconds, self.first)
        sessions = 2 * len(self.plan.workers) + len(self.rivals) * rounds
        return len(self.works) * (self.first + rounds * timed) + sessions * (self.first + timed)

    def run(self) -> None:
        print(f"a step takes {duration(self.first)}; in all about {duration(self.expected_seconds())}")
        # TF32 counts for both sides or for neither, though a trainer in fp32 turns it off for the whole process
        precision.compute_in(precision.choose(self.trainer.precision, self.device))
        for work in self.works.values():
            for _ in range(3 if self.device == "cuda" else 1):  # allocates memory and chooses kernels
                work()
        self.sweep = self.choose_workers()
        self.times |= {name: [] for name in self.rivals}
        plan, names = self.plan, list(self.times)
        for turn in range(plan.rounds):
            print(f"round {turn + 1} of {plan.rounds}")
            for name in names[:: -1 if turn % 2 else 1]:  # back and forth, so that a drift of the load cancels
                self.times[name].append(self.time(name))

    def time(self, name: Any) -> float:
        """Seconds per step."""
        if not (rival := self.rivals.get(name)):
            return seconds_per_step(self.works[name], self.plan.seconds, self.device)
        with rival.session() as step:
            return seconds_per_step(step, self.plan.seconds, self.device, turn=max(1, rival.workers))

    def choose_workers(self) -> dict[int, float]:
        """Give both rivals the number of loader processes that is best for the tuned one, by the faster of two timings
        each; return images/s by number."""
        speeds = {}
        for workers in self.plan.workers:
            print(f"tuned pipeline with {workers} loader processes")
            self.rivals["tuned"].workers = workers
            try:
                speeds[workers] = self.plan.batch_size / min(self.time("tuned"), self.time("tuned"))
            except RuntimeError as error:  # torch's, if shared memory is too small for the batches of so many
                if not speeds:
                    raise
                print(f"  left out: {str(error).splitlines()[0]}")
        for rival in self.rivals.values():
            rival.workers = max(speeds, key=speeds.__getitem__)
        return speeds

    def result(self) -> dict[str, Any]:
        times = self.times
        self.peak = 2 * PRODUCTS * self.plan.matrix**3 / min(times["matrix"]) / 1e12
        return {
            "precision": self.trainer.precision,
            "views": self.names,
            "parts": {name: self._row(name, counted=name != "augment") for name in PARTS},
            "ratios": {
                "goodput": ratio(times["learn"], times["step"]),
                "gain_standard": ratio(times["standard"], times["step"]),
                "gain_tuned": ratio(times["tuned"], times["step"]),
            },
            "peers": {name: self._peer(name) for name in self.peers},
            "loader_processes": self.rivals["tuned"].workers,
            "sweep": self.sweep,
            "flops_per_step": self.flops,
            "peak_tflops_per_second": self.peak,
            "peak_memory_bytes": self.peak_memory,
            "once": self.once,
            "growth": [
                {**variant, **self._speed(name, variant["batch_size"]), "relative": ratio(times[name], times["step"])}
                for name, variant in zip(["step", *range(1, len(self.variants))], self.variants)
            ],
        }

    def _speed(self, name: Any, batch_size: int) -> dict[str, Any]:
        seconds = statistics.median(self.times[name])
        return {"images_per_second": batch_size / seconds, "seconds_per_step": seconds, "all": self.times[name]}

    def _row(self, name: str, *, counted: bool) -> dict[str, Any]:
        """counted: whether its FLOPs are those of the FLOP counter."""
        row = self._speed(name, self.plan.batch_size)
        rate = self.flops / row["seconds_per_step"] / 1e12 if counted else None
        return {**row, "tflops_per_second": rate, "share_of_peak": rate and rate / self.peak}

    def _peer(self, name: str) -> dict[str, Any]:
        problem, ours = self.peers[name], PEERS[name][1]
        if isinstance(problem, str):
            return {"problem": problem}
        gain = ratio(self.times[name], self.times[ours])
        return {**self._row(name, counted=ours == "learn"), "ours": ours, "gain": gain}


def names_drawn(trainer: Trainer, index: Tensor) -> list[str]:
    """Names of the augmentations of one image, in the order of its views."""
    names: list[str] = []

    def record(name, images, generator):
        names.extend([name] * (len(images) // len(index)))  # on a GPU, one call makes several views
        return images

    augment = {name: partial(record, name) for name in trainer.augment}
    trainer.method.draw(trainer.images, index, augment, torch.Generator(trainer.device))
    return names


def ratio(over: list[float], under: list[float]) -> dict[str, Any]:
    """Median of the ratios over the rounds, with its 95% interval from order statistics.

    With fewer than six rounds there is no such interval.
    """
    ratios = [a / b for a, b in zip(over, under, strict=True)]
    bounds = quantile_test(ratios).confidence_interval(0.95)
    low, high = (None if math.isnan(bound) else float(bound) for bound in bounds)
    return {"median": statistics.median(ratios), "low": low, "high": high, "all": ratios}
