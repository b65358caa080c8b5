"""How fast the engine is, and what bounds it: `scl bench`.

Four parts of one training step, measured in turns (a b c d a b c d ...) so that a change of the machine's load
meets them all:
  (a) augment   drawing a batch's views, from the stored uint8 images on
  (b) learn     forward, backward, optimizer step and memory on views that are already there
  (c) step      the training loop itself: (a), (b) and its own bookkeeping
  (d) ordinary  the pipeline of the field: loader processes, PIL, torchvision, fp32, NCHW; same network, loss, views
c / b is the goodput, c / d the gain over the ordinary pipeline. Images are random, labels there are none.
"""

import contextlib
import dataclasses
import json
import os
import resource
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
from scl.engine.outputs import CODE_ROOT
from scl.engine.provenance import cores, provenance
from scl.engine.train import Trainer

PARTS = {
    "augment": "(a) augmentation alone",
    "learn": "(b) forward, backward, optimizer alone",
    "step": "(c) the training loop",
    "ordinary": "(d) ordinary pipeline",
}
RANDOM_IMAGES = 10_000  # more than these are black: they cost the same and need no room on the disk


@dataclasses.dataclass(frozen=True)
class Plan:
    """What to measure. steps: timed at a stretch; rounds: repetitions, of which the median is reported."""

    stage: str = "scl"
    size: int = 32
    batch_size: int = 256
    steps: int = 2
    rounds: int = 3
    images: tuple[int, ...] = (10_000, 100_000)  # the first is the one of parts a to d
    clusters: tuple[int, ...] = (10, 200)
    batch_factors: tuple[float, ...] = (0.25, 0.5, 2.0)
    workers: int = 2  # loader processes of part d
    precision: str = "auto"
    compile: bool = False


def plan_of(options) -> Plan:
    """The plan that the options of the command ask for; a GPU's steps are short, so it gets more of them."""
    gpu = options.gpus and gpu_lease.visible()
    usual = (1, 1) if options.quick else (30, 5) if gpu else (1, 3)
    given: dict[str, Any] = {
        "steps": options.steps or usual[0],
        "rounds": options.rounds or usual[1],
        "workers": min(8, cores()) if options.workers is None else options.workers,
    }
    if options.quick:
        given |= {"images": (1_000, 10_000), "batch_factors": (0.5,)}
    return Plan(
        stage=options.method,
        size=options.size,
        batch_size=options.batch_size,
        precision=options.precision,
        compile=options.compile,
        **given,
    )


def bench(study: Study, plan: Plan, *, gpus: int = 1, threads: int = 1, report=print) -> dict:
    """Measure `plan` with the settings of `study`; returns what is written as JSON. Raises ValueError."""
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
            **provenance(CODE_ROOT, device=device),
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
        stored[:RANDOM_IMAGES] = np.random.default_rng(0).integers(
            0, 256, (min(len(stored), RANDOM_IMAGES), *shape[1:])
        )
        stored.flush()
        self.checksum = sha256(folder / "images.npy")

    def trainer(self, *, images: int, clusters: int, batch_size: int, **training) -> Trainer:
        """A trainer past its warm-up, of `images` images and `clusters` clusters; training: changes of settings."""
        data = self._data(images, clusters)
        first = next(iter(self.study.benchmarks))
        planned = self.study.run(first, "joint", self.plan.stage, 0)
        run = self._settings(planned, data)
        usual = {"precision": self.plan.precision, "compile": self.plan.compile, "batch_size": batch_size}
        run = run.model_copy(update={"training": run.training.model_copy(update=usual | training)})
        trainer = Trainer(config.complete(run), self.folder, device=self.device)
        if trainer.optimizer is None:
            raise ValueError(f"{self.plan.stage}: does not train, so there is nothing to measure")
        if planned.after:  # its weights are random ones
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
    """As after some epochs: unit rows and even classes, where a fresh memory is all zero."""
    memory = getattr(method, "memory", None)
    if memory is not None:
        memory.rows.normal_()
        memory.rows.div_(memory.rows.norm(dim=1, keepdim=True))
        memory.pseudo_classes.random_(memory.clusters)


def _measure(subject: Subject, report):
    """(parts, peak bytes of part c, growth)."""
    plan = subject.plan
    base = {"images": plan.images[0], "clusters": plan.clusters[0], "batch_size": plan.batch_size}
    trainer = subject.trainer(**base)
    subject.precision = trainer.precision
    index = torch.arange(plan.batch_size, device=subject.device) % trainer.method.pool(trainer.epoch)
    subject.views = _names_drawn(trainer, index)
    views = trainer.draw(index)
    loop = endless(trainer)
    first = clock(lambda: next(loop), subject.device)["seconds"]  # with compiling, if that is on
    with _peak_memory(subject.device) as peak:
        next(loop)
    ordinary = OrdinaryTraining(
        subject.trainer(**base, precision="fp32", compile=False), subject.views, workers=plan.workers
    )
    others = {tuple(v.items()): endless(subject.trainer(**v)) for v in _variants(base, plan)}
    works = {
        "augment": lambda: trainer.draw(index),
        "learn": lambda: trainer.learn(views, index),
        "step": lambda: next(loop),
    }
    for work in (*works.values(), *(lambda other=other: next(other) for other in others.values())):
        work()  # once untimed: memory is allocated, kernels are chosen
    times: dict[Any, list[dict]] = {name: [] for name in (*PARTS, *others)}
    for turn in range(plan.rounds):
        report(f"round {turn + 1} of {plan.rounds}: {plan.steps} steps of {plan.batch_size} images a part")
        for name, work in works.items():
            times[name].append(_several(work, plan.steps, subject.device))
        times["ordinary"].append(_ordinary_round(ordinary, plan.steps, subject.device))
        for key, other in others.items():
            times[key].append(_several(lambda other=other: next(other), plan.steps, subject.device))
        trainer.epoch_losses.clear()
    parts = {name: _summary(times[name], plan.batch_size) for name in PARTS}
    parts["step"]["first_step_seconds"] = first
    growth = [{**base, **_summary(times["step"], plan.batch_size), "relative": 1.0}]
    for key in others:
        variant = dict(key)
        summary = _summary(times[key], variant["batch_size"])
        growth.append({**variant, **summary, "relative": summary["seconds_per_step"] / growth[0]["seconds_per_step"]})
    return parts, peak(), growth


def _variants(base: dict, plan: Plan):
    """What part c is repeated with: another batch size, more images, more clusters, both."""
    for factor in plan.batch_factors:
        yield base | {"batch_size": max(2, round(plan.batch_size * factor))}
    for images in plan.images:
        for clusters in plan.clusters:
            if (images, clusters) != (base["images"], base["clusters"]):
                yield base | {"images": images, "clusters": clusters}


def endless(trainer):
    """The loop's steps without the ends of its epochs (assignments, history)."""
    while True:
        yield from trainer.steps_of_epoch()
        trainer.step_in_epoch, trainer.epoch_losses, trainer.losses_checked = 0, [], 0


def _names_drawn(trainer, index) -> list[str]:
    names, augment = [], trainer.augment

    def noted(name, images, generator):
        names.append(name)
        return augment[name](images, generator)

    trainer.augment = {name: partial(noted, name) for name in augment}
    trainer.draw(index[:2])
    trainer.augment = augment
    return names


def clock(work, device: str) -> dict:
    """Seconds by the clock and of this process's CPU time, with nothing of `work` left to do on the device."""
    synchronize(device)
    begin, cpu = time.perf_counter(), time.process_time()
    work()
    synchronize(device)
    return {"seconds": time.perf_counter() - begin, "cpu_seconds": time.process_time() - cpu}


def synchronize(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def _several(work, steps: int, device: str) -> dict:
    whole = clock(lambda: [work() for _ in range(steps)], device)
    return {name: seconds / steps for name, seconds in whole.items()}


def _ordinary_round(ordinary: OrdinaryTraining, steps: int, device: str) -> dict:
    """Fresh loader processes (idle ones would prefetch during the other parts), one step untimed."""
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


@contextlib.contextmanager
def _peak_memory(device: str):
    """Yields a function: the bytes in use at the worst moment of the block, on the GPU or of this process."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    else:
        with contextlib.suppress(OSError):  # Linux: forget the peak of before
            Path("/proc/self/clear_refs").write_text("5")
    found: list[int] = []
    yield lambda: found[0]
    found.append(torch.cuda.max_memory_allocated() if device == "cuda" else _resident_peak())


def _resident_peak() -> int:
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def table(result: dict) -> str:
    """The measurement for the eye."""
    ratios, views = result["ratios"], ", ".join(result["views"])
    how = f"{result['precision']}{', compiled' if result['compile'] else ''}; {result['device']}"
    lines = [
        f"{result['method']}, {result['size']} px, batch {result['batch_size']}, views: {views}; {how}",
        f"{result['threads']} threads, load of the machine {result['load_before']:.1f} to {result['load_after']:.1f}",
    ]
    lines += [
        f"  {PARTS[name]:42} {part['images_per_second']:10.1f} images/s  {part['seconds_per_step']:9.4f} s a step"
        for name, part in result["parts"].items()
    ]
    memory = f"peak memory {result['peak_memory_bytes'] / 1e6:.0f} MB"
    lines += [
        f"goodput c/b {ratios['goodput']:.3f}, gain c/d {ratios['gain']:.2f} "
        f"(d with {result['workers']} loader processes), {memory}"
    ]
    lines += ["  images (N)  clusters (K)  batch   images/s   s a step   relative"]
    lines += [
        f"  {row['images']:10}  {row['clusters']:12}  {row['batch_size']:5}  {row['images_per_second']:9.1f}"
        f"  {row['seconds_per_step']:9.4f}  {row['relative']:9.3f}"
        for row in result["growth"]
    ]
    return "\n".join(lines)


def write(result: dict, path) -> Path:
    """The measurement as JSON, whole or not at all."""
    write_json(Path(path), json.loads(json.dumps(result)))
    return Path(path)
