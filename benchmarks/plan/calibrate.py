"""`scl plan --calibrate`: measure one run of every kind in a study on this device, with random images.

On a CPU, as many processes measure at once as there will be runs, so that they slow each other down as the runs will.
On a GPU, they measure one after another, since they would not train at the same time; cost.py assumes that runs that
share a GPU take as long as if run in sequence.
"""

import importlib
import multiprocessing
import signal
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import torch

from benchmarks.bench.subject import write_facts, write_images
from benchmarks.plan.machine import Place
from benchmarks.plan.measure import SAMPLE, measure
from benchmarks.plan.rates import Measurements, Rate, Work
from scl import config
from scl.engine import gpu_lease
from scl.engine.io import RunFailed, json_sha256, write_json
from scl.engine.provenance import now, provenance
from scl.util.classes import FAILURES, describe_error
from scl.util.text import Report, duration, printable, say

IMPORTED = ["benchmarks.cli", "scl.engine.train", "scl.util.shim", "timm"]  # by a training process
EVALUATION = 0.4  # time to start the process of an evaluation, as a fraction of that of a training


def calibrate(works: list[Work], place: Place, folder: Path, *, report: Report = say) -> None:
    """Measure a run of each kind in `works`, and write the measurements to a new file in `folder`.

    Kinds that fail are named and left out.
    """
    folder.mkdir(parents=True, exist_ok=True)
    kinds: dict[str, Work] = {}
    for work in works:
        kinds.setdefault(json_sha256(work.kind), work)
    at_once = 1 if place.gpus else place.slots
    began = time.perf_counter()
    report(f"measuring {len(kinds)} kinds of runs on {place.device}, {at_once} at once")
    with gpu_lease.lease(min(1, place.gpus), report=report) as leased:
        device = gpu_lease.torch_device(leased, report=report)
        start, rates = _measured([*kinds.values()], device, place.threads, at_once, report)
        made_by = provenance(device=device)
    if not rates:  # nor was the start of a process
        report("nothing was measured, so nothing is written")
        return
    measured = Measurements(
        **{name: made_by[name] for name in ("device", "versions", "commit", "dirty")},
        runs_at_once=at_once,
        finished=now(),
        jobs={"train": start, "evaluate": EVALUATION * start},
        rates=rates,
    )
    path = folder / f"{measured.finished[:19].replace(':', '')}.json"
    write_json(path, measured.model_dump())
    report(f"measured in {duration(time.perf_counter() - began)}; written to {path}")


def _measured(works: list[Work], device: str, threads: int, at_once: int, report: Report) -> tuple[float, list[Rate]]:
    """(seconds that a process takes to start, the rates), measured in separate processes."""
    context = multiprocessing.get_context("spawn")  # CUDA does not survive a fork
    began, start, rates = time.perf_counter(), 0.0, []
    with (
        tempfile.TemporaryDirectory(prefix="scl-calibrate-") as folder,
        ProcessPoolExecutor(at_once, context, _start, (device, threads, sys.path, folder)) as pool,
    ):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # in the workers: this process handles Ctrl-C
        starting = [pool.submit(int) for _ in range(at_once)]  # each starts a process
        measuring = [pool.submit(_measure, work, device) for work in works]
        try:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
            for one in starting:
                one.result()
            start = time.perf_counter() - began
            for work, result in zip(works, measuring):
                name, found = f"{work.run.stage} on {work.run.benchmark}", result.result()
                if isinstance(found, str):
                    report(f"  {name}: cannot be measured: {found}")
                    continue
                step, seconds = found.step_seconds, duration(found.assign_seconds)
                steps = f"{step:.4f} s per step of {found.batch_size}" if step else "no steps"
                report(f"  {name}: {steps}, {seconds} per assignment of {found.images:,} images")
                rates.append(found)
        except BrokenProcessPool:
            report("  all others cannot be measured: a process was killed, perhaps for lack of memory")
        except KeyboardInterrupt:
            for process in multiprocessing.active_children():
                process.kill()
            raise
    return start, rates


def _start(device: str, threads: int, path: list[str], folder: str) -> None:
    """Do what a training process does before it trains; this is not part of a measurement."""
    sys.path[:] = path  # custom methods may be in the working directory
    tempfile.tempdir = folder
    torch.set_num_threads(threads)
    for module in IMPORTED:
        importlib.import_module(module)
    torch.zeros(1, device=device)  # starts CUDA


def _measure(work: Work, device: str) -> Rate | str:
    """The rate, or the reason why there is none."""
    settings = config.complete(work.settings)
    with tempfile.TemporaryDirectory() as folder:
        _write_images(Path(folder), work, settings)
        settings = settings.model_copy(update={"protocol": "joint", "data": folder})
        try:
            return measure(settings, device, images=work.fit)
        except FAILURES as error:  # including those of a custom method
            message = str(error) if isinstance(error, (RunFailed, ValueError)) else ""
            return printable((message or describe_error(error)).splitlines()[0])


def _write_images(folder: Path, work: Work, settings: config.RunSettings) -> None:
    """Write a prepared benchmark of random images."""
    count = min(work.fit + work.unlabeled, max(SAMPLE, 2 * settings.training.batch_size, 10 * work.clusters))
    checksum = write_images(folder / "images.npy", count, size=work.size, clusters=work.clusters)
    larger = None
    if side := settings.image_size:
        path = folder / f"images-{side}.npy"
        larger = {"size": side, "sha256": write_images(path, count, size=side, clusters=work.clusters)}
    write_facts(folder, count, clusters=work.clusters, size=work.size, checksum=checksum, larger=larger)
