"""`scl run`: a study where Snakemake is not (a borrowed machine, a notebook server): the same commands, run by run.

It knows less than Snakemake: no clusters, no rerun of what a changed file upstream would concern beyond a run's own
settings and images. What it adds is a limit of time, so that a study can be spread over several short stays on a GPU.
"""

import contextlib
import dataclasses
import signal
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.datasets.prepare import prepare_for
from benchmarks.report.runs import row_of
from benchmarks.state import Survey
from benchmarks.study import Run, Study
from scl import devices
from scl.record import cores
from scl.text import printable

POLL = 0.2  # seconds between looks at the running jobs


@dataclasses.dataclass
class Job:
    """A run in work: its commands, one after the other, all into the run's log."""

    run: Run
    commands: list[list[str]]
    log: Path
    process: subprocess.Popen | None = None
    failed: bool = False

    def advance(self) -> bool:
        """Start the next command once the present one has ended; False when there is nothing left to do."""
        if self.process and self.process.poll() is None:
            return True
        self.failed = self.failed or bool(self.process and self.process.returncode)
        if self.failed or not self.commands:
            return False
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(self.commands.pop(0), stdout=log, stderr=subprocess.STDOUT)
        return True

    def stop(self) -> None:
        """Let training save itself (SIGTERM) and start nothing after it."""
        self.commands = []
        if self.process and self.process.poll() is None:
            self.process.terminate()


def run_study(study: Study, *, jobs: int, gpus: int, threads: int, minutes: float | None = None, report=print) -> bool:
    """Prepare, train and evaluate what is missing, one seed of everything before a second of anything.

    jobs: runs side by side. gpus: of each run (0: on the CPU). minutes: then running trainings save themselves and
    stop, and the same call goes on; a failing run stops only those that start from it. Returns whether all is done.
    Raises ValueError or OSError if a benchmark cannot be prepared.
    """
    deadline = time.monotonic() + (60 * minutes if minutes is not None else float("inf"))
    order = [run for run in by_seed(study) if run.benchmark not in study.skipped]
    survey = Survey(study)
    done = {run.directory for run in order if survey.state(run).status == "done"}
    wanted = [run for run in order if run.directory not in done]
    for name in dict.fromkeys(run.benchmark for run in wanted):
        facts, problem = survey.prepared(name)
        if problem or facts is None:
            prepare_for(study, name)
    report(f"{len(wanted)} runs to do, {jobs} at a time with {threads} threads each")
    running: list[Job] = []
    with _stopping_children(running):
        while wanted or running:
            if time.monotonic() > deadline:
                report(f"the {minutes:g} minutes are over: saving {len(running)} runs; the same command goes on")
                break
            for job in [job for job in running if not job.advance()]:
                running.remove(job)
                report(_ended(study, job))
                if not job.failed:
                    done.add(job.run.directory)
            wanted = _possible(wanted, done | {job.run.directory for job in running})
            ready = [run for run in wanted if run.after is None or run.after.directory in done]
            for run in ready[:jobs - len(running)]:
                report(f"{_name(run)}: started")
                wanted.remove(run)
                running.append(_job(study, run, gpus, threads))
                running[-1].advance()
            time.sleep(POLL)
    return len(done) == len(order)


def _possible(wanted: list[Run], there: set[Path]) -> list[Run]:
    """Those whose preceding stage is there or still to come; the others start from a run that failed."""
    there, possible = set(there), []
    for run in wanted:  # a stage comes after the one it starts from
        if run.after is None or run.after.directory in there:
            possible.append(run)
            there.add(run.directory)
    return possible


def by_seed(study: Study) -> list[Run]:
    """The study's runs seed by seed, each after the one it starts from."""
    return sorted(study.runs(), key=lambda run: study.seeds.index(run.seed))


def slots(study: Study, *, cpu: bool = False) -> tuple[int, int, int]:
    """(runs side by side, GPUs of each, threads of each) that this machine carries; cpu: leave its GPUs alone."""
    machine, available = study.machine, cores()
    gpus = 0 if cpu else len(devices.visible())
    jobs = gpus * machine.runs_per_gpu or max(1, available // (machine.threads or available))
    threads = machine.threads if machine.threads and not gpus else max(1, available // jobs)
    return jobs, int(gpus > 0), min(available, threads)


def _job(study: Study, run: Run, gpus: int, threads: int) -> Job:
    machine, log = study.machine, log_of(study, run)
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_bytes(b"")
    command = [sys.executable, "-m", "benchmarks.cli"]
    on_gpu = gpus if study.settings(run).training.epochs else 0
    flags = ["--gpus", on_gpu, "--threads", threads, "--checkpoint-seconds", machine.checkpoint_seconds,
             "--runs-per-gpu", machine.runs_per_gpu, *(["--require-gpu"] if machine.require_gpu and on_gpu else [])]
    return Job(run, [[*command, "train", str(run.directory), *map(str, flags)],
                     [*command, "evaluate", str(run.directory)]], log)


def log_of(study: Study, run: Run) -> Path:
    """Where the training of a run is written down, by Snakemake and here alike."""
    return study.results / "logs" / run.directory.relative_to(study.results / "runs").with_suffix(".log")


def _name(run: Run) -> str:
    return f"{run.benchmark} {run.protocol} {run.stage} seed {run.seed}"


def _ended(study: Study, job: Job) -> str:
    row = row_of(job.run, Survey(study))
    if row["status"] == "done":
        score = f", ACC {100 * row['acc']:.1f}" if "acc" in row else ""
        return f"{_name(job.run)}: done in {row['seconds'] / 60:.1f} min{score}"
    lines = job.log.read_text(errors="replace").strip().splitlines()
    return printable(f"{_name(job.run)}: {row['status']}: {row['reason']} ({lines[-1] if lines else 'no output'})")


@contextlib.contextmanager
def _stopping_children(running: list[Job]):
    """However the block is left (SIGTERM and SIGHUP raise SystemExit in it), its jobs save themselves and end."""
    def leave(number, frame):
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGHUP)
              if signal.getsignal(number) is not signal.SIG_IGN}
    try:
        yield
    finally:
        for job in running:
            job.stop()
        for job in running:
            if job.process:
                job.process.wait()
        for number, handler in before.items():
            signal.signal(number, handler)
