"""`scl plan --calibrate`: measure one run of every kind in a study on this device, with random images.

On a CPU, as many processes measure at once as there will be runs, so that they slow each other down as the runs will.
On a GPU, one measures after the other, since they would not train at the same time; cost.py assumes that runs which
share a GPU take as long as one after the other.
"""

import importlib
import multiprocessing
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
import torch

from benchmarks.plan.machine import Place
from benchmarks.plan.measure import SAMPLE, measure
from benchmarks.plan.rates import Jobs, Measurements, Rate, Work
from scl import config, images
from scl.engine import gpu_lease
from scl.engine.io import RunFailed, json_sha256, sha256, write_json
from scl.engine.provenance import now, provenance
from scl.util.classes import FAILURES, describe_error
from scl.util.text import Report, duration, printable, say

START = {  # what the process of a job imports
    "train": ["benchmarks.cli", "scl.engine.train", "scl.util.shim", "timm"],
    "evaluate": ["benchmarks.cli", "benchmarks.evaluation.evaluate", "sklearn.metrics"],
}


def calibrate(works: list[Work], place: Place, folder: Path, *, report: Report = say) -> None:
    """Measure a run of each kind in `works`, and write the measurements to a file in `folder`.

    Measurements of other kinds in that file are kept. Kinds that fail are named and left out.
    """
    folder.mkdir(parents=True, exist_ok=True)
    kinds = {json_sha256(work.kind): work for work in reversed(works)}  # the first work of each
    at_once = 1 if place.gpus else place.slots
    began = time.perf_counter()
    report(f"measuring {len(kinds)} kinds of runs on {place.device}, {at_once} at once")
    with gpu_lease.lease(min(1, place.gpus), report=report) as leased:
        device = gpu_lease.torch_device(leased, report=report)
        rates = list(_measured([*reversed(kinds.values())], device, place.threads, at_once, report))
        made_by = provenance(device=device)
        devices = {"train": device, "evaluate": "cpu"}
        jobs = Jobs(**{job: _start_seconds(START[job], at_once, on) for job, on in devices.items()})
    about = {name: made_by[name] for name in ("device", "versions", "commit", "dirty")}
    path = folder / f"{json_sha256([about['device'], about['versions']])[:12]}.json"
    rates += _kept(path, rates)
    measured = Measurements(**about, runs_at_once=at_once, finished=now(), jobs=jobs, rates=rates)
    write_json(path, measured.model_dump())
    report(f"measured in {duration(time.perf_counter() - began)}; written to {path}")


def _kept(path: Path, rates: list[Rate]) -> list[Rate]:
    """The rates in the file at `path`, if there is one, that `rates` do not replace: of other kinds or threads."""
    replaced = [(rate.kind, rate.threads) for rate in rates]
    try:
        before = Measurements.model_validate_json(path.read_bytes()).rates
    except (OSError, ValueError):  # missing or of another version
        return []
    return [rate for rate in before if (rate.kind, rate.threads) not in replaced]


def _measured(works: list[Work], device: str, threads: int, at_once: int, report: Report) -> Iterator[Rate]:
    context = multiprocessing.get_context("spawn")  # CUDA does not survive a fork
    with (
        tempfile.TemporaryDirectory(prefix="scl-calibrate-") as folder,
        ProcessPoolExecutor(at_once, context, _start, (threads, sys.path, folder)) as pool,
    ):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # in the processes: Ctrl-C is left to this one
        measuring = [pool.submit(_measure, work, device) for work in works]
        try:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
            for work, one in zip(works, measuring):
                name, found = f"{work.run.stage} on {work.run.benchmark}", one.result()
                if isinstance(found, str):
                    report(f"  {name}: cannot be measured: {found}")
                    continue
                step, seconds = found.step_seconds, duration(found.assign_seconds)
                steps = f"{step:.4f} s per step of {found.batch_size}" if step else "no steps"
                report(f"  {name}: {steps}, {seconds} per assignment of {found.images:,} images")
                yield found
        except BrokenProcessPool:
            report("  all others cannot be measured: a process was killed, perhaps for lack of memory")
        except KeyboardInterrupt:
            for process in multiprocessing.active_children():
                process.kill()
            raise


def _start(threads: int, path: list[str], folder: str) -> None:
    sys.path[:] = path  # custom methods may be in the working directory
    tempfile.tempdir = folder
    torch.set_num_threads(threads)
    for module in START["train"]:  # not part of a measurement
        importlib.import_module(module)


def _measure(work: Work, device: str) -> Rate | str:
    """The rate, or the reason why there is none."""
    settings = config.complete(work.settings)
    with tempfile.TemporaryDirectory() as folder:
        _write_images(Path(folder), work, settings)
        settings = settings.model_copy(update={"protocol": "joint", "data": folder})
        try:
            rate, loading = measure(settings, device, images=work.fit), _loading_seconds(settings, device)
        except FAILURES as error:  # of a custom method, too
            message = str(error) if isinstance(error, (RunFailed, ValueError)) else ""
            return printable((message or describe_error(error)).splitlines()[0])
    # of the time to build the run, only that of loading grows with the images
    start, once = max(0.0, rate.start_seconds - loading), rate.once_seconds + loading
    return rate.model_copy(update={"start_seconds": start, "once_seconds": once})


def _loading_seconds(settings: config.RunSettings, device: str) -> float:
    """Seconds to read and verify the images of a run, and to compute their statistics."""
    began = time.perf_counter()
    images.load(settings.data, "joint", "fit", size=settings.image_size, device=device).statistics()
    return time.perf_counter() - began


def _write_images(folder: Path, work: Work, settings: config.RunSettings) -> None:
    """Write a prepared benchmark of random images, grouped by cluster, so that k-means converges as usual."""
    sample = max(SAMPLE, 2 * settings.training.batch_size, 10 * work.clusters)
    count, larger = min(work.fit + work.unlabeled, sample), settings.image_size
    random = np.random.default_rng(0)
    files = {}
    for size in {work.size, larger or work.size}:
        centers = random.integers(64, 192, (work.clusters, size, size, 3), np.uint8)
        noise = random.integers(-64, 64, (count, size, size, 3), np.int8)
        path = folder / ("images.npy" if size == work.size else f"images-{size}.npy")
        np.save(path, (centers[np.arange(count) % work.clusters] + noise).astype(np.uint8))
        files[size] = sha256(path)
    uses = {use: ["train"] for use in ("fit", "represent", "assign")}
    facts = {
        "images_sha256": files[work.size],
        "clusters": work.clusters,
        "size": [work.size] * 2,
        "larger": {"size": larger, "sha256": files[larger]} if larger and larger != work.size else None,
        "splits": {"train": [0, count]},
        "protocols": {"joint": uses},
    }
    write_json(folder / "benchmark.json", facts)


def _start_seconds(modules: list[str], at_once: int, device: str) -> float:
    """Seconds until `at_once` processes, started together, have imported what a job needs and started CUDA on a GPU."""
    began = time.perf_counter()
    start_cuda = f", torch; torch.zeros(1, device={device!r})" if device == "cuda" else ""
    command = [sys.executable, "-c", f"import {', '.join(modules)}{start_cuda}"]
    started = [subprocess.Popen(command, stderr=subprocess.DEVNULL) for _ in range(at_once)]
    for process in started:
        process.wait()
    return time.perf_counter() - began
