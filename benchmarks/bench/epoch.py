"""Time an epoch of one method at the size of its study, and compare it with the estimate of benchmarks/plan/measure.py.

python -m benchmarks.bench.epoch STUDY METHOD GPUS FILE
"""

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.bench.subject import pretend_trained
from benchmarks.datasets.prepare import prepare_for
from benchmarks.plan.measure import estimate
from benchmarks.state import Survey
from benchmarks.study import Study, load_study
from scl import config
from scl.engine import gpu_lease
from scl.engine.checkpoint import Stop
from scl.engine.io import write_json
from scl.engine.outputs import peak_memory
from scl.engine.provenance import cores, provenance
from scl.engine.trainer import Trainer

EPOCHS = 3  # the first is SCL's warm-up, without its memory; the last is timed


def compare(study: Study, stage: str, *, gpus: int) -> dict[str, Any]:
    """Train `stage` from random weights on the first benchmark of the study, and time its last epoch and assignment.

    As in the estimate, the method is in the state of a typical step: otherwise self-labeling would find no confident
    image and skip its steps.
    """
    benchmark = study.available[0]
    facts, problem = Survey(study).prepared(benchmark)
    if facts is None or problem:
        prepare_for(study, benchmark)
    run = study.run(benchmark, study.protocols_of(benchmark)[0], stage, study.seeds[0])
    settings = config.complete(study.settings(run))
    shorter = settings.training.model_copy(update={"epochs": EPOCHS, "curve_points": 1})
    settings = settings.model_copy(update={"after": None, "training": shorter})
    with gpu_lease.lease(gpus) as leased, tempfile.TemporaryDirectory(prefix="scl-epoch-") as folder, Stop() as stop:
        torch.set_num_threads(study.machine.threads or cores())
        device = gpu_lease.torch_device(leased)
        estimated = estimate(study, run, device)
        trainer = Trainer(settings, Path(folder), device=device)
        pretend_trained(trainer.method)
        trainer.fit(stop, checkpoint_seconds=float("inf"))
        total = time.perf_counter() - trainer.clock  # the clock starts after git has returned the commit
        *_, before, end = (row["seconds"] for row in trainer.history)
        return {
            "method": stage,
            "benchmark": benchmark,
            "images": len(trainer.images),
            "batch_size": settings.training.batch_size,
            "precision": trainer.precision,
            **provenance(device=device),
            "steps": trainer.history[-1]["steps"],
            "estimated_seconds": estimated.steps * estimated.seconds_per_step,
            "seconds": end - before,
            "assignment_seconds": total - end,
            "counts": trainer.method.counts,
            "peak_memory_bytes": peak_memory(device),
        }


if __name__ == "__main__":
    source, method, devices, file = sys.argv[1:]
    result = compare(load_study(source), method, gpus=int(devices))
    write_json(file, result)
    print(result)
