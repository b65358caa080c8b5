"""Everything that needs a GPU, in calls of any length that resume: `make gpu-check` (docs/running.md).

The GPU may be available for only a few minutes, so the stages that show most per second come first (see `stages`).
Each stage is a separate process and is skipped if its result exists. At the time limit, the current one receives
SIGINT: a run saves its checkpoint, everything else starts over in the next call. Does not need Snakemake.
"""

import argparse
import contextlib
import itertools
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterable, Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

from benchmarks.plan.rates import benchmark_of_size
from benchmarks.plan.sources import CALIBRATIONS
from benchmarks.state import Survey
from benchmarks.study import Run, Study, load_study
from scl.engine import features, gpu_lease
from scl.engine.io import atomic
from scl.engine.provenance import ROOT
from scl.util.text import duration, say

STOPPED = 124  # exit status, as of `timeout`
PATIENCE = 30.0  # seconds to save a checkpoint after SIGINT
HEAVY = ("weights.pt", "checkpoint*", features.FOLDER)  # not in the archive
FULL = ROOT / "config" / "paper.yaml"  # has images of 32, 64, and 96 px
DATA_SHEET = "H200"  # for the bound of `scl bench --count`


class Stage(NamedTuple):
    """result: the file that `command` writes, or else the file for its output; None for a run of the study.

    images: a file that exists once the images that the stage needs are prepared; None if it needs none.
    """

    name: str
    command: list[str]
    result: Path | None
    images: Path | None = None


def stages(study: Study, source: str, folder: Path, *, gpus: int, sizes: list[int], quick: bool) -> Iterator[Stage]:
    """All stages in order, without the runs that are done.

    The GPU tests; `scl bench` of the reference at the first size, and where its time goes; what the study will cost;
    `scl bench` of the other trained methods; one seed of every method on the first benchmark; `scl bench` at the other
    sizes; epochs compared with their estimates; the other runs. `scl bench` uses the settings of the study or, at sizes
    that only config/paper.yaml has, of that file.
    """
    python, machine, full = [sys.executable, "-m"], ["--gpus", str(gpus)], load_study(FULL)

    def bench(stage: str, size: int, *flags: str, name: str = "bench") -> Stage:
        result = folder / f"{name}-{stage}-{size}.json"
        options = ["--method", stage, "--size", str(size), *machine, "--out", str(result), *flags]
        elsewhere = benchmark_of_size(full, size) and alike(study, full, stage)
        settings = str(FULL) if elsewhere and not benchmark_of_size(study, size) else source
        return Stage(result.stem, [*python, "benchmarks.cli", "bench", settings, *options], result)

    def train(run: Run) -> Iterator[Stage]:
        if Survey(study).state(run).status not in ("done", "skipped"):
            name = f"{run.benchmark}/{run.protocol}/{run.stage}/{run.seed}"
            command = [*python, "benchmarks.cli", "run", name, "--study", source, *machine]
            yield Stage(name, command, None, images_of(run.benchmark))

    def images_of(benchmark: str) -> Path:
        return study.data / benchmark / "benchmark.json"

    yield Stage("tests", [*python, "pytest", "-rs", str(ROOT / "tests" / "test_gpu.py")], folder / "tests.txt")
    runs = in_order(study)
    first, others = runs[: len(study.methods)], runs[len(study.methods) :]
    trained = [run.stage for run in first if study.settings(run).training.epochs]
    speed = [bench(stage, size, *["--quick"] * quick) for size, stage in itertools.product(sizes, trained)]
    if speed:
        yield speed[0]
        yield bench(trained[0], sizes[0], "--count", DATA_SHEET, name="count")
    yield Stage("plan", [*python, "benchmarks.cli", "plan", source, "--calibrate"], folder / "plan.txt")
    yield from speed[1 : len(trained)]
    for run in first:
        yield from train(run)
    yield from speed[len(trained) :]
    for stage in trained:
        result = folder / f"epoch-{stage}.json"
        command = [*python, "benchmarks.bench.epoch", source, stage, str(gpus), str(result)]
        yield Stage(result.stem, command, result, images_of(study.available[0]))
    for run in others:
        yield from train(run)


def alike(study: Study, other: Study, stage: str) -> bool:
    """Whether a stage has the same method in both studies, and these have the same network."""
    mine, theirs = study.methods.get(stage), other.methods.get(stage)
    return study.network == other.network and bool(mine and theirs and mine.method == theirs.method)


def in_order(study: Study) -> list[Run]:
    """All runs: the first seed of every method, benchmark by benchmark, then the second seed, and so on.

    Among methods, the reference comes first, and those that need no GPU come last.
    """
    runs = study.runs()
    groups = list(dict.fromkeys((run.benchmark, run.protocol) for run in runs))

    def place(run: Run) -> tuple[int, int, bool, bool]:
        group, trains = groups.index((run.benchmark, run.protocol)), study.settings(run).training.epochs > 0
        return study.seeds.index(run.seed), group, not trains, run.stage != study.reference

    return sorted(runs, key=place)


def check(todo: Iterable[Stage], folder: Path, only: list[str], seconds: float) -> int:
    """Perform the stages that match `only` and have no result; returns the exit status: 0, 1 if one failed, 124 at the
    limit of `seconds`. Stages that failed in an earlier call come last."""
    ends, failed = time.monotonic() + seconds, 0
    again: list[Stage] = []
    missing: set[Path] = set()  # images that could not be prepared
    for stage in itertools.chain(todo, again):
        if (stage.result and stage.result.exists()) or not any(fnmatch(stage.name, pattern) for pattern in only):
            continue
        if failure_of(stage, folder).exists() and stage not in again:
            again.append(stage)
            continue
        if stage.images in missing:
            continue
        began = time.monotonic()
        left = ends - began
        # a stage that hangs must not use up the call; a run resumes
        most = left if stage.result is None else min(left, seconds / 2)
        outcome = perform(stage, folder, most) if left > 0 else "stopped"
        reason = ""
        if outcome == "late":
            outcome, reason = ("stopped", "") if most == left else ("failed", ", half of --seconds")
        say(f"{stage.name}: {outcome} after {duration(time.monotonic() - began)}{reason}")
        if outcome == "stopped":
            say("the same command resumes")
            return STOPPED
        if outcome == "failed":
            failed += 1
            failure_of(stage, folder).touch()
            if stage.images and not stage.images.exists():
                missing.add(stage.images)
                say(f"{stage.images.parent}: could not be prepared; what needs it is left out")
    if failed:
        say(f"{failed} failed: see {folder / 'logs'}; the same command tries them again")
    return min(failed, 1)


def log_of(stage: Stage, folder: Path) -> Path:
    return folder / "logs" / f"{stage.name.replace('/', '-')}.txt"


def failure_of(stage: Stage, folder: Path) -> Path:
    """An empty file beside the log of a stage that failed."""
    return log_of(stage, folder).with_suffix(".failed")


def perform(stage: Stage, folder: Path, seconds: float) -> str:
    """Run a stage for at most `seconds`; returns "done", "failed", "late", or, after Ctrl-C, "stopped"."""
    log = log_of(stage, folder)
    log.parent.mkdir(parents=True, exist_ok=True)
    failure_of(stage, folder).unlink(missing_ok=True)
    with open(log, "w") as output:
        # in a separate session, so that Ctrl-C reaches it only once, from here
        child = subprocess.Popen(stage.command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            status = child.wait(timeout=max(0.0, seconds))
        except (subprocess.TimeoutExpired, KeyboardInterrupt) as error:
            child.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired, KeyboardInterrupt):
                child.wait(timeout=PATIENCE)
            with contextlib.suppress(ProcessLookupError):  # including the processes that it has started
                os.killpg(child.pid, signal.SIGKILL)
            return "late" if isinstance(error, subprocess.TimeoutExpired) else "stopped"
    if status == 0 and stage.result and not stage.result.exists():
        with atomic(stage.result) as path:
            path.write_bytes(log.read_bytes())
    return "done" if status == 0 else "failed"


def pack(study: Study, folder: Path) -> Path:
    """Archive all results so far, without weights, checkpoints, and features; unpack it in the working directory."""
    path = folder.with_suffix(".tar.gz")
    with atomic(path) as temporary, tarfile.open(temporary, "w:gz") as archive:
        for part in filter(Path.exists, (folder, study.results / "runs", CALIBRATIONS)):
            archive.add(part, filter=lambda item: None if any(map(Path(item.name).match, HEAVY)) else item)
    return path


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="gpu-check", description=__doc__.splitlines()[0])
    parser.add_argument(
        "only", nargs="*", default=["*"], help="names of stages, e.g. tests 'bench-*-32' (default: all)"
    )
    parser.add_argument("--study", default="config/campaign.yaml", help="configuration (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=540.0, help="time limit of this call (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("results/gpu-check"), help="folder (default: %(default)s)")
    parser.add_argument("--gpus", type=int, default=1, help="GPUs to use; 0 for the CPU (default: %(default)s)")
    parser.add_argument("--sizes", type=int, nargs="+", default=[32, 64, 96], help="pixels (default: 32 64 96)")
    parser.add_argument("--quick", action="store_true", help="call scl bench with --quick (default: no)")
    given = parser.parse_args(arguments)
    for number in (signal.SIGINT, signal.SIGTERM):  # even if a shell started this with SIGINT ignored
        signal.signal(number, signal.default_int_handler)
    try:
        if given.gpus:
            if not (visible := gpu_lease.visible()):  # all tests would be skipped
                raise ValueError("no GPU visible; --gpus 0 tries everything on the CPU")
            gpu_lease.torch_device(visible[0], required=True)
        else:
            os.environ["CUDA_VISIBLE_DEVICES"] = ""  # for the stages without an option --gpus
        study = load_study(given.study)
        todo = stages(study, given.study, given.out, gpus=given.gpus, sizes=given.sizes, quick=given.quick)
        try:
            status = check(todo, given.out, given.only, given.seconds)
        except KeyboardInterrupt:  # between two stages
            status = STOPPED
        print(pack(study, given.out))
    except (ValueError, OSError) as error:
        print(f"gpu-check: error: {error}", file=sys.stderr)
        return 2
    return status


if __name__ == "__main__":
    sys.exit(main())
