"""Train one run, as `scl train` does. Order of start-up, and why:

1. lock the run's folder: an orphan of a killed workflow may still be training it; wait, then find it finished
2. stop if the run is done, or failed before in a way that a retry cannot fix
3. lease a device, before anything touches CUDA
4. forbid access to labels (against accidents: scl/engine/label_guard.py)
5. load images and weights of the upstream run, verified; build the method (scl.engine.trainer)
6. load a checkpoint of exactly this run, if any; train; save checkpoints at time intervals
7. write assignments (or keep features, which `scl kmeans` clusters: scl/engine/clustering.py), weights and history; the
   record last, as the completion marker
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import torch

from scl import config
from scl.config import RunSettings
from scl.engine import artifacts, checkpoint, failures, features, gpu_lease
from scl.engine.identity import fingerprint, identity_of
from scl.engine.io import Damaged, RunFailed, set_aside
from scl.engine.label_guard import forbid_label_access
from scl.engine.locks import locked
from scl.engine.outputs import finish
from scl.engine.prepared import describe
from scl.engine.trainer import Trainer
from scl.engine.weights import read_weights
from scl.util.text import Report, say


class OutOfMemory(RunFailed):
    """The run does not fit into the memory of its GPU."""


def train(
    directory: str | Path,
    *,
    gpus: int = 1,
    threads: int = 1,
    checkpoint_seconds: float = 300.0,
    runs_per_gpu: int = 1,
    require_gpu: bool = False,
    tensorboard: bool = False,
    attempt: int = 1,
    leased: str | None = None,
    exit_if_stopped: bool = False,
    report: Report = say,
) -> Path:
    """Train the run described by `directory`/run.yaml and write its files; return the path of record.json.

    The same call resumes. attempt: 2 and more are retries, which end at once if the failure was permanent.
    leased: CUDA_VISIBLE_DEVICES of a lease that the caller holds, "" for the CPU; by default the run leases for itself.
    exit_if_stopped: also raise SystemExit if the signal came too late to stop the training, for callers that would
    continue with the next stage. By default, the path is returned, because Snakemake deletes the output of failed jobs.
    Raises ValueError for bad input, NonFinite for a diverged loss (the last good checkpoint and failure.json stay),
    OutOfMemory, Damaged for files that must be recreated, and, once saved, SystemExit (SIGTERM: 143, Ctrl-C: 130).
    """
    directory = Path(directory)
    run = config.load_run(directory)
    with locked(directory / ".lock", directory, report=report), failures.recorded(directory, run, attempt=attempt):
        config.check_planned(run)
        run = config.complete(run)
        if finished(directory, run, report=report):
            report(f"{directory}: already done")
            return directory / "record.json"
        own = gpu_lease.lease(gpus, runs_per_gpu=runs_per_gpu, required=require_gpu, report=report)
        lease = own if leased is None else contextlib.nullcontext(leased)
        with lease as leased, forbid_label_access(run.data), checkpoint.Stop() as stop:
            torch.set_num_threads(threads)
            device = gpu_lease.torch_device(leased, required=require_gpu, report=report)
            with _explain_errors(run, stop):
                trainer = Trainer(run, directory, device=device, report=report)
                trainer.fit(stop, checkpoint_seconds=checkpoint_seconds, tensorboard=tensorboard)
                record = finish(trainer)
        if stop.requested and exit_if_stopped:
            report(f"stopped by a signal; {run.stage} is trained, and the same command goes on from there")
            raise SystemExit(stop.status)
        return record


@contextlib.contextmanager
def _explain_errors(run: RunSettings, stop: checkpoint.Stop) -> Iterator[None]:
    """Turn sys.exit(), a full GPU and a failing torch.compile into errors that say what to do."""
    try:
        yield
    except SystemExit:
        if stop.requested:
            raise
        raise ValueError(f"{run.method}: ended the process (sys.exit); raise an exception instead") from None
    except torch.OutOfMemoryError as error:
        peak = torch.cuda.max_memory_allocated() / 1e9 if torch.cuda.is_available() else 0
        raise OutOfMemory(
            f"out of GPU memory (peak {peak:.1f} GB): lower training.batch_size (now "
            f"{run.training.batch_size}) or machine.runs_per_gpu, or the image size; {str(error).splitlines()[0]}"
        ) from error
    except RuntimeError as error:
        if not type(error).__module__.startswith(("torch._dynamo.", "torch._inductor.")):  # imported if they fail
            raise
        raise RunFailed(
            f"training.compile: torch.compile fails here: {str(error).splitlines()[0]}; set compile: false, or install "
            "a C++ compiler if that is missing"
        ) from error


def finished(directory: Path, run: RunSettings, *, report: Report = say) -> bool:
    """Whether `directory` holds the undamaged results of exactly this run; damaged files are set aside."""
    if not (directory / "record.json").exists():
        return False
    try:
        record = artifacts.read_record(directory)
    except Damaged as error:
        report(f"warning: {error}")
        return False
    wanted = fingerprint(planned_identity(run, report=report))
    if not record.fingerprint == fingerprint(record.identity.model_dump()) == wanted:
        return False
    damaged = artifacts.damage(directory, record)
    for name, problem in damaged.items():
        report(f"warning: {set_aside(directory / name, problem)}")
    return not damaged and not features.lost(directory, record.unclustered)


def planned_identity(run: RunSettings, *, report: Report = say) -> dict:
    """The run's identity: images by their recorded checksum, weights of the upstream run verified (scl.engine.weights).

    Raises Damaged if the images or the upstream run are missing.
    """
    weights = read_weights(Path(run.after), report=report)[1] if run.after else None
    return identity_of(run, describe(run.data), weights)
