"""Training of one run, as a command does it: `train`.

Order of start-up, and why:
  1. lock the run's folder (an orphan of a killed workflow may still be at it: wait, then find it finished)
  2. stop if the run is done, or failed before in a way that a retry cannot mend
  3. lease a device, before anything touches CUDA
  4. put labels out of reach (of accidents: scl/engine/label_guard.py)
  5. load images and weights of the preceding stage, verified; make the method (scl.engine.trainer)
  6. a checkpoint of exactly this run, if there is one; epochs; checkpoints at intervals of time
  7. assignments, weights, history; the record last of all: it is the mark of being done
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import torch

from scl import config
from scl.config import RunSettings
from scl.engine import artifacts, checkpoint, gpu_lease
from scl.engine.artifacts import Failure, Record
from scl.engine.identity import fingerprint, identity_of
from scl.engine.io import Damaged, RunFailed, set_aside
from scl.engine.label_guard import labels_out_of_reach
from scl.engine.locks import locked
from scl.engine.outputs import OutOfMemory, finish, write_failure
from scl.engine.prepared import describe
from scl.engine.trainer import Trainer
from scl.util.text import Report, say


class FailedBefore(RunFailed):
    """An earlier attempt failed in a way that trying again cannot mend."""


def train(
    directory: str | Path,
    *,
    gpus: int = 1,
    threads: int = 1,
    checkpoint_seconds: float = 300.0,
    runs_per_gpu: int = 1,
    require_gpu: bool = False,
    attempt: int = 1,
    leased: str | None = None,
    report: Report = say,
) -> Path:
    """Train the run described by `directory`/run.yaml and write its files; returns the path of record.json.

    The same call resumes. attempt: 2 and more are retries, which end at once where the first failed for a reason of
    the run's own. leased: the CUDA_VISIBLE_DEVICES of a lease that the caller holds, "" for the CPU; by default the run
    leases for itself. Raises ValueError for bad input, NonFinite for a diverged loss (the last good checkpoint and
    failure.json stay), OutOfMemory, Damaged for files that have to be made again, and SystemExit (143 after SIGTERM,
    130 after Ctrl-C) with the state saved.
    """
    directory = Path(directory)
    run = config.load_run(directory)
    with locked(directory / ".lock", directory, report=report):
        _refuse_retry(directory, attempt)
        (directory / "failure.json").unlink(missing_ok=True)
        trainer = None
        try:
            config.check_planned(run)
            run = config.complete(run)
            if finished(directory, run, report=report):
                report(f"{directory}: already done")
                return directory / "record.json"
            lease = (
                gpu_lease.lease(gpus, runs_per_gpu=runs_per_gpu, required=require_gpu, report=report)
                if leased is None
                else contextlib.nullcontext(leased)
            )
            with lease as leased, labels_out_of_reach(run.data), checkpoint.Stop() as stop:
                torch.set_num_threads(threads)
                device = gpu_lease.of_lease(leased, required=require_gpu, report=report)
                with _explained(run, stop):
                    trainer = Trainer(run, directory, device=device, report=report)
                    trainer.fit(stop, checkpoint_seconds=checkpoint_seconds)
                    return finish(trainer)
        except Damaged:  # not a failure of this run's: the same command makes the file again
            raise
        except Exception as error:
            with contextlib.suppress(OSError):  # on a full disk
                write_failure(directory, error, run, trainer)
            raise


def _refuse_retry(directory: Path, attempt: int) -> None:
    with contextlib.suppress(Damaged):
        failure = artifacts.read(directory / "failure.json", Failure)
        if attempt > 1 and failure and failure.permanent:
            raise FailedBefore(f"{directory}: not tried again, it would fail as before: {failure.error}")


@contextlib.contextmanager
def _explained(run: RunSettings, stop: checkpoint.Stop) -> Iterator[None]:
    """What a method may end a run with, as an error that says what to do."""
    try:
        yield
    except SystemExit:
        if stop.requested:
            raise
        raise ValueError(
            f"{run.method}: ended the process (sys.exit) while it trained; raise an exception instead"
        ) from None
    except torch.OutOfMemoryError as error:
        peak = torch.cuda.max_memory_allocated() / 1e9 if torch.cuda.is_available() else 0
        raise OutOfMemory(
            f"out of GPU memory (peak {peak:.1f} GB): lower training.batch_size (now "
            f"{run.training.batch_size}) or machine.runs_per_gpu; {str(error).splitlines()[0]}"
        ) from error


def finished(directory: Path, run: RunSettings, *, report: Report = say) -> bool:
    """Whether `directory` holds the whole, undamaged result of exactly this run; what is damaged is set aside."""
    try:
        record = artifacts.read(directory / "record.json", Record)
    except Damaged as error:
        report(f"warning: {set_aside(directory / 'record.json', error)}")
        return False
    if record is None or record.fingerprint != fingerprint(planned_identity(run)):
        return False
    wrong = artifacts.damage(directory, record)
    for name, problem in wrong.items():
        report(f"warning: {set_aside(directory / name, problem)}")
    return not wrong


def planned_identity(run: RunSettings) -> dict:
    """The run's identity by recorded checksums. Raises ValueError if the images or the stage before are not there."""
    weights = artifacts.weights_of(Path(run.after))[1] if run.after else None
    return identity_of(run, describe(run.data), weights)
