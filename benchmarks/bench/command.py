"""The command `scl bench`: measure what its options request on a leased device."""

import dataclasses
import tempfile
from pathlib import Path
from typing import Any

import torch

from benchmarks.bench import table
from benchmarks.bench.count import count_step
from benchmarks.bench.measure import measure
from benchmarks.bench.subject import Plan, Subject
from benchmarks.study import Study
from scl.engine import gpu_lease
from scl.engine.provenance import cores

IMAGES = 50_000  # for a step profiled by --count: the size of CIFAR-10's training set


def run_bench(study: Study, *, count: str | None, gpus: int, threads: int | None, **options) -> dict[str, Any]:
    """Measure, or bound one step on the device `count`; print and return the result. Raises ValueError."""
    plan = plan_of(gpus=gpus, **options)
    if plan.stage not in study.methods:
        raise ValueError(f"{plan.stage}: not a method of this study; it has {', '.join(study.methods)}")
    if count:
        plan = dataclasses.replace(plan, images=(IMAGES,))
    with gpu_lease.lease(gpus, report=print) as leased, tempfile.TemporaryDirectory(prefix="scl-bench-") as folder:
        torch.set_num_threads(threads or cores())
        subject = Subject(study, plan, Path(folder), gpu_lease.torch_device(leased, report=print))
        try:
            result = count_step(subject, count) if count else measure(subject)
        except torch.OutOfMemoryError:
            raise ValueError(f"--batch-size: {plan.batch_size} needs more memory than the GPU has; lower it") from None
    print(table.counted(result) if count else table.measured(result))
    return result


def plan_of(*, gpus: int, quick: bool, method: str, rounds=None, workers=None, **settings) -> Plan:
    """The plan for the options of the command."""
    on_gpu = bool(gpus and gpu_lease.visible())
    if quick:
        settings |= {"images": (1_000, 10_000), "batch_factors": (0.5,), "seconds": 0.0}
    return Plan(
        stage=method,
        rounds=rounds or (1 if quick else 6 if on_gpu else 3),
        workers=worker_counts(cores(), quick) if workers is None else (workers,),
        matrix=8192 if on_gpu else 2048,
        **settings,
    )


def worker_counts(available: int, quick: bool) -> tuple[int, ...]:
    """Numbers of loader processes to try: 0 (in the main process), powers of two up to the cores, and the cores.

    quick: only the number of cores.
    """
    powers = (2**i for i in range(available.bit_length()))
    return (available,) if quick else tuple(sorted({0, available, *powers}))
