"""`scl bench`: how fast the engine is, and what limits it.

Four parts of one training step, measured in turns (a b c d a b c d ...) so that changes in the load of the machine
affect all of them:
  (a) augment   making the views of a batch, from the stored uint8 images
  (b) learn     forward, backward, optimizer step and memory, on existing views
  (c) step      the training loop itself: (a), (b) and its bookkeeping
  (d) ordinary  the standard pipeline: loader processes, PIL, torchvision, fp32, NCHW; same network, loss and views
c / b is the goodput, c / d the gain over the standard pipeline. Images are random, without labels.
"""

import contextlib
import dataclasses
import os
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.study import Study
from benchmarks.torchvision_pipeline import OrdinaryTraining
from scl import config
from scl.engine import gpu_lease
from scl.engine.io import sha256, write_json
from scl.engine.outputs import peak_memory
from scl.engine.provenance import cores, provenance
from scl.engine.train import Trainer

PARTS = {
    "augment": "(a) augmentation alone",
    "learn": "(b) forward, backward, optimizer alone",
    "step": "(c) the training loop",
    "ordinary": "(d) standard pipeline",
}
RANDOM_IMAGES = 10_000  # further images are black: they cost the same and take no disk space


@dataclasses.dataclass(frozen=True)
class Plan:
    """What to measure. steps: timed in a row; rounds: repetitions, whose median is reported."""

    stage: str = "scl"
    size: int = 32
    batch_size: int = 256
    steps: int = 2
    rounds: int = 3
    images: tuple[int, ...] = (10_000, 100_000)  # the first for parts a to d
    clusters: tuple[int, ...] = (10, 200)
    batch_factors: tuple[float, ...] = (0.25, 0.5, 2.0)
    workers: int = 2  # loader processes of part d
    precision: str = "auto"
    compile: bool = False


def plan_of(*, gpus: int, quick: bool, method: str, steps=None, rounds=None, workers=None, **settings) -> Plan:
    """The plan for the options of the command. Steps on a GPU are short, so more of them are timed."""
    usual = (1, 1) if quick else (30, 5) if gpus and gpu_lease.visible() else (1, 3)
    if quick:
        settings |= {"images": (1_000, 10_000), "batch_factors": (0.5,)}
    return Plan(
        stage=method,
        steps=steps or usual[0],
        rounds=rounds or usual[1],
        workers=min(8, cores()) if workers is None else workers,
        **settings,
    )


def bench(study: Study, plan: Plan, *, gpus: int = 1, threads: int = 1, report=print) -> dict:
    """Measure `plan` with the settings of `study` and return the result. Raises ValueError."""
    if plan.stage not in study.methods:
        raise ValueError(f"{plan.stage}: not a method of this study; it has {', '.join(study.methods)}")
    with gpu_lease.lease(gpus, report=report), tempfile.TemporaryDirectory(prefix="scl-bench-") as folder:
        torch.set_num_threads(threads)
        device = "cuda" if gpus and torch.cuda.is_available() else "cpu"
        subject = Subject(study, plan, Path(folder), device)
        load = os.getloadavg()
        parts, peak, growth = _measure(subject, report)
        speed = {name: part["images_per_second"] for name, part in parts.items()}
        return {
            "method": plan.stage,
            **dataclasses.asdict(plan),
            **provenance(device=device),
            "precision": subject.precision,
            "views": subject.views,
            "parts": parts,
            "peak_memory_bytes": peak,
            "ratios": {"goodput": speed["step"] / speed["learn"], "gain": speed["step"] / speed["ordinary"]},
            "growth": growth,
            "load_before": load[0],
            "load_after": os.getloadavg()[0],
        }


class Subject:
    """Makes trainers of one method on random images."""

    def __init__(self, study: Study, plan: Plan, folder: Path, device: str):
        self.study, self.plan, self.folder, self.device = study, plan, folder, device
        self.views: list[str] = []  # names of the augmentations of one image, in the order drawn
        self.precision = ""
        shape = (max(plan.images), plan.size, plan.size, 3)
        stored = np.lib.format.open_memmap(folder / "images.npy", "w+", np.uint8, shape)
        stored[:RANDOM_IMAGES] = np.random.default_rng(0).integers(0, 256, stored[:RANDOM_IMAGES].shape)
        stored.flush()
        self.checksum = sha256(folder / "images.npy")

    def trainer(self, *, images: int, clusters: int, batch_size: int, **training) -> Trainer:
        """A trainer in its last epoch. training: settings to override."""
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
        fill_memory(trainer.method)
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


def fill_memory(method) -> None:
    """Fill the memory as after some epochs: unit rows and even classes. A fresh one is all zero."""
    memory = getattr(method, "memory", None)
    if memory is not None:
        memory.rows.normal_()
        memory.rows.div_(memory.rows.norm(dim=1, keepdim=True))
        memory.pseudo_classes.random_(memory.clusters)


def _measure(subject: Subject, report):
    """Return (parts, peak memory of part c in bytes, growth)."""
    plan = subject.plan
    base = {"images": plan.images[0], "clusters": plan.clusters[0], "batch_size": plan.batch_size}
    trainer = subject.trainer(**base)
    subject.precision = trainer.precision
    index = torch.arange(plan.batch_size, device=subject.device) % trainer.method.pool(trainer.epoch)
    subject.views = _names_drawn(trainer, index)
    views = trainer.draw(index)
    loop = endless(trainer)
    first = _several(lambda: next(loop), 1, subject.device)["seconds"]  # includes compilation
    _reset_peak_memory(subject.device)
    next(loop)
    peak = _peak_memory(subject.device)
    fp32 = subject.trainer(**base, precision="fp32", compile=False)
    ordinary = OrdinaryTraining(fp32, subject.views, workers=plan.workers)
    variants = list(_variants(base, plan))
    works: dict[Any, Any] = {
        "augment": lambda: trainer.draw(index),
        "learn": lambda: trainer.learn(views, index),
        "step": lambda: next(loop),
    }
    variant_works = {i: partial(next, endless(subject.trainer(**variant))) for i, variant in enumerate(variants)}
    for work in (*works.values(), *variant_works.values()):
        work()  # untimed: allocates memory and chooses kernels
    times: dict[Any, list[dict]] = {name: [] for name in (*PARTS, *variant_works)}
    for turn in range(plan.rounds):
        report(f"round {turn + 1} of {plan.rounds}: {plan.steps} steps of {plan.batch_size} images per part")
        for name, work in works.items():
            times[name].append(_several(work, plan.steps, subject.device))
        times["ordinary"].append(_ordinary_round(ordinary, plan.steps, subject.device))
        for name, work in variant_works.items():
            times[name].append(_several(work, plan.steps, subject.device))
        trainer.epoch_losses.clear()
    parts = {name: _summary(times[name], plan.batch_size) for name in PARTS}
    parts["step"]["first_step_seconds"] = first
    growth = [{**base, **_summary(times["step"], plan.batch_size)}]
    growth += [{**variant, **_summary(times[i], variant["batch_size"])} for i, variant in enumerate(variants)]
    for row in growth:
        row["relative"] = row["seconds_per_step"] / growth[0]["seconds_per_step"]
    return parts, peak, growth


def _variants(base: dict, plan: Plan):
    """Variants of part c: other batch sizes, more images, more clusters, both."""
    for factor in plan.batch_factors:
        yield base | {"batch_size": max(2, round(plan.batch_size * factor))}
    for images in plan.images:
        for clusters in plan.clusters:
            if (images, clusters) != (base["images"], base["clusters"]):
                yield base | {"images": images, "clusters": clusters}


def endless(trainer):
    """Steps of the training loop, without what it does at the end of an epoch (assignments, history)."""
    while True:
        yield from trainer.steps_of_epoch()
        trainer.step_in_epoch, trainer.epoch_losses, trainer.losses_checked = 0, [], 0


def _names_drawn(trainer, index) -> list[str]:
    """Names of the augmentations of one image, in the order of its views."""
    names, augment = [], trainer.augment

    def record(name, images, generator):
        names.append(name)
        return augment[name](images, generator)

    trainer.augment = {name: partial(record, name) for name in augment}
    trainer.draw(index[:2])
    trainer.augment = augment
    return names


def _several(work, steps: int, device: str) -> dict:
    """Seconds per step, wall-clock and CPU time of this process, over several steps; waits for the device."""
    synchronize = torch.cuda.synchronize if device == "cuda" else lambda: None
    synchronize()
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(steps):
        work()
    synchronize()
    return {"seconds": (time.perf_counter() - wall) / steps, "cpu_seconds": (time.process_time() - cpu) / steps}


def _ordinary_round(ordinary: OrdinaryTraining, steps: int, device: str) -> dict:
    """Use fresh loader processes (idle ones would prefetch during the other parts); one step is untimed."""
    with contextlib.closing(ordinary.steps()) as loop:
        next(loop)
        return _several(lambda: next(loop), steps, device)


def _summary(times: list[dict], batch: int) -> dict:
    seconds = statistics.median(t["seconds"] for t in times)
    return {
        "images_per_second": batch / seconds,
        "seconds_per_step": seconds,
        "all": [t["seconds"] for t in times],
        "cpu_seconds_per_step": statistics.median(t["cpu_seconds"] for t in times),
    }


def _reset_peak_memory(device: str) -> None:
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    else:
        with contextlib.suppress(OSError):  # Linux only
            Path("/proc/self/clear_refs").write_text("5")


def _peak_memory(device: str) -> int:
    """Peak memory in bytes since the reset, of tensors on the GPU or of this process."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines() if device != "cuda" else ():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) * 1024
    return peak_memory(device)


def table(result: dict) -> str:
    """The result as text."""
    ratios, views = result["ratios"], ", ".join(result["views"])
    how = f"{result['precision']}{', compiled' if result['compile'] else ''}; {result['device']}"
    return "\n".join(
        [
            f"{result['method']}, {result['size']} px, batch {result['batch_size']}, views: {views}; {how}",
            f"{result['threads']} threads, machine load {result['load_before']:.1f} to {result['load_after']:.1f}",
            *(
                f"  {PARTS[name]:42} {part['images_per_second']:10.1f} images/s  {part['seconds_per_step']:9.4f} s/step"
                for name, part in result["parts"].items()
            ),
            f"goodput c/b {ratios['goodput']:.3f}, gain c/d {ratios['gain']:.2f} "
            f"(d with {result['workers']} loader processes), peak memory {result['peak_memory_bytes'] / 1e6:.0f} MB",
            "  images (N)  clusters (K)  batch   images/s     s/step   relative",
            *(
                f"  {row['images']:10}  {row['clusters']:12}  {row['batch_size']:5}  {row['images_per_second']:9.1f}"
                f"  {row['seconds_per_step']:9.4f}  {row['relative']:9.3f}"
                for row in result["growth"]
            ),
        ]
    )
