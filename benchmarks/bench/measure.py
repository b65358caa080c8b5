"""Time the parts of one training step, in turns, so that changes in the load of the machine affect all of them:

  (a) augment   making the views of a batch, from the stored uint8 images
  (b) learn     forward, backward, optimizer step and memory, on existing views
  (c) step      the training loop itself: (a), (b) and its bookkeeping
  (d) standard  the standard pipeline: loader processes, PIL, torchvision, fp32, NCHW; same network, loss and views
  (e) tuned     the same with every advantage (benchmarks/bench/rivals.py)

Ratios are taken within each round: c / b is the goodput, c / d and c / e the gains. Images are random, without labels.
"""

import contextlib
import dataclasses
import math
import os
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from benchmarks.bench.breakdown import peak, reset_peak
from benchmarks.bench.count import step_flops
from benchmarks.bench.peers import PEERS, peer_works, version_of
from benchmarks.bench.plan import Plan
from benchmarks.bench.rivals import StandardPipeline
from benchmarks.bench.subject import Subject, endless, names_drawn, own_precision, subject_of
from benchmarks.study import Study
from scl.engine import precision
from scl.engine.provenance import provenance

PARTS = {
    "augment": "(a) augmentation alone",
    "learn": "(b) forward, backward, optimizer alone",
    "step": "(c) the training loop",
    "standard": "(d) standard pipeline, fp32, NCHW",
    "tuned": "(e) standard pipeline, tuned",
}
PRODUCTS = 3  # matrix products in a row, for the peak
Session = Callable[[], contextlib.AbstractContextManager[Callable[[], Any]]]  # gives a function that does one step


def bench(study: Study, plan: Plan, *, gpus: int = 1, threads: int = 1, report=print) -> dict:
    """Measure `plan` with the settings of `study` and return the result. Raises ValueError."""
    with subject_of(study, plan, gpus=gpus, threads=threads, report=report) as subject:
        load = os.getloadavg()[0]
        measured = _Measurement(subject, report)
        measured.run()
        return {
            "method": plan.stage,
            **dataclasses.asdict(plan),
            **provenance(device=subject.device),
            "peer_versions": {package: version_of(package) for _, package, _ in PEERS.values()},
            "load_before": load,
            "load_after": os.getloadavg()[0],
            **measured.result(),
        }


class _Measurement:
    """All parts, peers and variants of one method: `run` times them, `result` sums up."""

    def __init__(self, subject: Subject, report):
        self.subject, self.plan, self.device, self.report = subject, subject.plan, subject.device, report
        self.trainer = trainer = subject.trainer(**subject.base)
        self.dtype = precision.choose(trainer.run.training.precision, self.device)
        index = torch.arange(self.plan.batch_size, device=self.device) % trainer.method.pool(trainer.epoch)
        self.names = names_drawn(trainer, index)
        self.once, self.peak_memory, loop = self._once()
        views = trainer.draw(index)
        self.flops = step_flops(subject.trainer(**subject.base, compile=False), views, index)
        self.rivals = {
            "standard": StandardPipeline(
                subject.trainer(**subject.base, precision="fp32", compile=False), self.names, tuned=False
            ),
            "tuned": StandardPipeline(subject.trainer(**subject.base), self.names, tuned=True),
        }

        def learn() -> None:
            trainer.learn(views, index)
            trainer.epoch_losses.pop()  # the loop would check it

        ours = {"augment": lambda: trainer.draw(index), "learn": learn, "step": lambda: next(loop)}
        self.peers = peer_works(trainer, self.names, views)
        self.variants = list(subject.variants())
        growth = {i: partial(next, endless(subject.trainer(**variant))) for i, variant in enumerate(self.variants)}
        installed = {name: peer for name, peer in self.peers.items() if not isinstance(peer, str)}
        in_process: dict[Any, Callable] = {**ours, **installed, **growth, "matrix": self._matrix_products()}
        self.sessions: dict[Any, Session] = {name: _always(work) for name, work in in_process.items()}
        self.sessions |= {name: rival.session for name, rival in self.rivals.items()}
        for work in in_process.values():
            _seconds(work, 3 if self.device == "cuda" else 1, self.device)  # allocates memory and chooses kernels

    def _once(self):
        """What happens once a run, outside the timed steps, and peak memory of a step in bytes."""
        method, once = self.trainer.method, {}
        if getattr(method.options, "prototypes", None) == "kmeans":  # SCL
            once["place_prototypes_seconds"] = _seconds(method.place_prototypes, 1, self.device)
        loop = endless(self.trainer)
        once["first_step_seconds"] = _seconds(lambda: next(loop), 1, self.device)  # includes compilation
        reset_peak(self.device)
        next(loop)
        return once, peak(self.device), loop

    def _matrix_products(self) -> Callable[[], Any]:
        a, b = (torch.randn(self.plan.matrix, self.plan.matrix, device=self.device, dtype=self.dtype) for _ in range(2))
        return lambda: [a @ b for _ in range(PRODUCTS)]

    def run(self) -> None:
        plan = self.plan
        self.sweep = self.choose_workers()
        self.times: dict[Any, list[float]] = {name: [] for name in self.sessions}  # seconds per step, by round
        names = list(self.sessions)
        for turn in range(plan.rounds):
            self.report(f"round {turn + 1} of {plan.rounds}: {plan.steps} steps of {plan.batch_size} images per part")
            for name in names[:: -1 if turn % 2 else 1]:  # to and fro, so that a drift of the load cancels
                steps = 1 if name == "torchvision_v2" else plan.steps  # always on the CPU
                self.times[name].append(self.time(self.sessions[name], steps))

    def time(self, session: Session, steps: int) -> float:
        """Seconds per step, under the TF32 switches of our precision: TF32 counts for both sides or for neither."""
        with own_precision(self.dtype), session() as step:
            return _seconds(step, steps, self.device)

    def choose_workers(self) -> dict[int, float]:
        """Give both rivals the number of loader processes that is best for the tuned one; images/s by number."""
        tuned, speeds = self.rivals["tuned"], {}
        for tuned.workers in self.plan.workers:
            self.report(f"tuned pipeline with {tuned.workers} loader processes")
            speeds[tuned.workers] = self.plan.batch_size / self.time(tuned.session, self.plan.steps)
        for rival in self.rivals.values():
            rival.workers = max(speeds, key=speeds.__getitem__)
        return speeds

    def result(self) -> dict:
        times, plan = self.times, self.plan
        peak = 2 * PRODUCTS * plan.matrix**3 / min(times["matrix"]) / 1e12

        def row(name, work: bool) -> dict:
            seconds = statistics.median(times[name])
            rate = self.flops / seconds / 1e12 if work else None
            return {
                "images_per_second": plan.batch_size / seconds,
                "seconds_per_step": seconds,
                "all": times[name],
                "tflops_per_second": rate,
                "share_of_peak": rate and rate / peak,
            }

        def peer(name) -> dict:
            problem, ours = self.peers[name], PEERS[name][2]
            if isinstance(problem, str):
                return {"problem": problem}
            return {**row(name, ours == "learn"), "ours": ours, "gain": ratio(times[name], times[ours])}

        return {
            "precision": self.trainer.precision,
            "views": self.names,
            "parts": {name: row(name, name != "augment") for name in PARTS},
            "ratios": {
                "goodput": ratio(times["learn"], times["step"]),
                "gain_standard": ratio(times["standard"], times["step"]),
                "gain_tuned": ratio(times["tuned"], times["step"]),
            },
            "peers": {name: peer(name) for name in self.peers},
            "loader_processes": self.rivals["tuned"].workers,
            "sweep": self.sweep,
            "flops_per_step": self.flops,
            "peak_tflops_per_second": peak,
            "peak_memory_bytes": self.peak_memory,
            "once": self.once,
            "growth": self._growth(),
        }

    def _growth(self) -> list[dict]:
        """Steps of the training loop for other batch sizes, numbers of images and clusters, relative to part (c)."""
        rows = []
        for variant, name in [(self.subject.base, "step"), *((v, i) for i, v in enumerate(self.variants))]:
            seconds = statistics.median(self.times[name])
            speed = {"images_per_second": variant["batch_size"] / seconds, "seconds_per_step": seconds}
            relative = ratio(self.times[name], self.times["step"])
            rows.append({**variant, **speed, "all": self.times[name], "relative": relative})
        return rows


def ratio(over: list[float], under: list[float]) -> dict[str, Any]:
    """Median of the ratios by round, with its 95 % interval by order statistics.

    With fewer than six rounds there is no such interval.
    """
    from scipy.stats import quantile_test

    ratios = [a / b for a, b in zip(over, under, strict=True)]
    bounds = quantile_test(ratios).confidence_interval(0.95)
    low, high = (None if math.isnan(bound) else float(bound) for bound in bounds)
    return {"median": statistics.median(ratios), "low": low, "high": high, "all": ratios}


def _always(work: Callable) -> Session:
    return lambda: contextlib.nullcontext(work)


def _seconds(work, steps: int, device: str) -> float:
    """Seconds per step, wall-clock, over several steps; waits for the device."""
    synchronize = torch.cuda.synchronize if device == "cuda" else lambda: None
    synchronize()
    start = time.perf_counter()
    for _ in range(steps):
        work()
    synchronize()
    return (time.perf_counter() - start) / steps
