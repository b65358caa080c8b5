"""`scl plan --calibrate`: measure one run of every kind in a study on this device, with random images.

As many processes measure at once as runs will share the device, so that they slow each other down as the runs will.
"""

import multiprocessing
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import numpy as np
import torch

from benchmarks.estimate import SAMPLE, measure
from benchmarks.plan.machine import Place
from benchmarks.plan.rates import Jobs, Measurements, Rate
from benchmarks.plan.work import Work
from scl import config
from scl.engine import gpu_lease
from scl.engine.io import RunFailed, json_sha256, sha256, write_json
from scl.engine.provenance import now, provenance
from scl.util.text import Report, duration, printable, say

START = {  # what the process of a job imports
    "train": "import benchmarks.cli, scl.engine.train, baselines.simclr",
    "evaluate": "import benchmarks.cli, benchmarks.evaluation.evaluate, sklearn.metrics",
}


def calibrate(works: list[Work], place: Place, folder: Path, *, report: Report = say) -> Path:
    """Measure a run of each kind in `works`, write the measurements to a file in `folder`, and return its path.

    Measurements of other kinds in that file are kept. Kinds that fail are named and left out.
    """
    kinds = list({json_sha256(work.kind): work for work in reversed(works)}.values())[::-1]
    at_once = place.runs_per_gpu if place.gpus else place.slots
    began = time.perf_counter()
    report(f"measuring {len(kinds)} kinds of runs on {place.device}, {at_once} at once")
    with gpu_lease.lease(min(1, place.gpus), report=report) as leased:
        device = gpu_lease.torch_device(leased, report=report)
        rates = list(_measured(kinds, device, place.threads, at_once, report))
        made_by = provenance(device=device)
    measured = Measurements(
        device=made_by["device"],
        versions=made_by["versions"],
        commit=made_by["commit"],
        dirty=made_by["dirty"],
        runs_at_once=at_once,
        finished=now(),
        jobs=Jobs(**{job: _start_seconds(code, at_once) for job, code in START.items()}),
        rates=rates,
    )
    key = json_sha256([measured.device, measured.versions])[:12]
    path = folder / f"{key}.json"
    report(f"measured in {duration(time.perf_counter() - began)}; written to {path}")
    return write(path, measured)


def write(path: Path, measured: Measurements) -> Path:
    """Write the measurements; those of other kinds or numbers of threads that the file already has are kept."""
    fresh = {_key(rate) for rate in measured.rates}
    try:
        kept = [r for r in Measurements.model_validate_json(path.read_bytes()).rates if _key(r) not in fresh]
    except (OSError, ValueError):  # missing or of another version
        kept = []
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, measured.model_copy(update={"rates": [*measured.rates, *kept]}).model_dump())
    return path


def _key(rate: Rate) -> str:
    return json_sha256([rate.kind, rate.threads])


def _measured(works: list[Work], device: str, threads: int, at_once: int, report: Report) -> Iterator[Rate]:
    context = multiprocessing.get_context("spawn")  # CUDA does not survive a fork
    with ProcessPoolExecutor(at_once, context, _start, (threads, sys.path)) as pool:
        settings = {pool.submit(_measure, config.complete(work.settings), work, device): work for work in works}
        for future in as_completed(settings):
            work, found = settings[future], future.result()
            name = f"{work.run.stage} on {work.run.benchmark}"
            if isinstance(found, Rate):
                step = (
                    f"{found.step_seconds:.4f} s per step of {found.batch_size}" if found.step_seconds else "no steps"
                )
                report(f"  {name}: {step}, {duration(found.assign_seconds)} per assignment of {found.images:,} images")
                yield found
            else:
                report(f"  {name}: cannot be measured: {found}")


def _start(threads: int, path: list[str]) -> None:
    sys.path[:] = path  # custom methods may be in the working directory
    torch.set_num_threads(threads)


def _measure(settings: config.RunSettings, work: Work, device: str) -> Rate | str:
    """The rate, or the reason why there is none."""
    with tempfile.TemporaryDirectory(prefix="scl-calibrate-") as name:
        folder, batch = Path(name), settings.training.batch_size
        images = min(work.fit + work.unlabeled, max(SAMPLE, 2 * batch, 10 * work.clusters))
        _write_images(folder, images, work, settings.image_size)
        try:
            return measure(settings.model_copy(update={"protocol": "joint", "data": name}), device)
        except (RunFailed, RuntimeError, ValueError) as error:  # RuntimeError: also out of memory
            return printable(str(error).splitlines()[0])


def _write_images(folder: Path, images: int, work: Work, larger: int | None) -> None:
    """Write a prepared benchmark of random images, grouped by cluster, so that k-means converges as usual."""
    random = np.random.default_rng(0)
    files = {}
    for size in {work.size, larger or work.size}:
        centers = random.integers(64, 192, (work.clusters, size, size, 3), np.uint8)
        noise = random.integers(-64, 64, (images, size, size, 3), np.int8)
        path = folder / ("images.npy" if size == work.size else f"images-{size}.npy")
        np.save(path, (centers[np.arange(images) % work.clusters] + noise).astype(np.uint8))
        files[size] = sha256(path)
    uses = {use: ["train"] for use in ("fit", "represent", "assign")}
    facts = {
        "images_sha256": files[work.size],
        "clusters": work.clusters,
        "size": [work.size] * 2,
        "larger": {"size": larger, "sha256": files[larger]} if larger and larger != work.size else None,
        "splits": {"train": [0, images]},
        "protocols": {"joint": uses},
    }
    write_json(folder / "benchmark.json", facts)


def _start_seconds(code: str, at_once: int) -> float:
    """Seconds until `at_once` processes, started together, have imported what a job needs."""
    began = time.perf_counter()
    started = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(at_once)]
    for process in started:
        process.wait()
    return time.perf_counter() - began
