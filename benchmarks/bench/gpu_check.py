"""Everything that needs a GPU, in calls of any length that resume: `make gpu-check` (docs/running.md).

In this order: the GPU tests; `scl bench` of every trained method at every size; an epoch of every trained method
beside its estimate; every run of the study, one seed of every method before a second seed of any. Each is a separate
process and is skipped if its result exists. At the time limit, the current one is stopped as by `timeout -s INT`: a run
saves its checkpoint, everything else starts again in the next call. Needs no Snakemake.
"""

import argparse
import contextlib
import itertools
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterable, Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

from benchmarks.state import Survey
from benchmarks.study import Study, load_study
from scl.engine import features, gpu_lease
from scl.engine.io import atomic
from scl.engine.provenance import ROOT
from scl.util.text import duration, say

STOPPED = 124  # exit status, as of `timeout`
PATIENCE = 120.0  # seconds to save a checkpoint after SIGINT
HEAVY = ("weights.pt", "checkpoint*", features.FOLDER)  # not in the archive


class Stage(NamedTuple):
    """result: the file that `command` writes, or else that keeps its output; None for a run of the study."""

    name: str
    command: list[str]
    result: Path | None


def stages(study: Study, source: str, folder: Path, *, gpus: int, sizes: list[int], quick: bool) -> Iterator[Stage]:
    """All stages in order, without the runs that are done."""
    python, machine = [sys.executable, "-m"], ["--gpus", str(gpus)]
    yield Stage("tests", [*python, "pytest", "-rs", str(ROOT / "tests" / "test_gpu.py")], folder / "tests.txt")
    runs = sorted(study.runs(), key=lambda run: study.seeds.index(run.seed))
    first = runs[: len(study.methods)]  # of the first benchmark
    trained = [run.stage for run in first if study.settings(run).training.epochs]
    for size, stage in itertools.product(sizes, trained):
        result = folder / f"bench-{stage}-{size}.json"
        options = ["--method", stage, "--size", str(size), *machine, "--out", str(result)]
        options += ["--quick"] if quick else []
        yield Stage(result.stem, [*python, "benchmarks.cli", "bench", source, *options], result)
    for stage in trained:
        result = folder / f"epoch-{stage}.json"
        yield Stage(result.stem, [*python, "benchmarks.bench.epoch", source, stage, str(gpus), str(result)], result)
    survey = Survey(study)
    for run in runs:
        if survey.state(run).status not in ("done", "skipped"):
            name = f"{run.benchmark}/{run.protocol}/{run.stage}/{run.seed}"
            yield Stage(name, [*python, "benchmarks.cli", "run", name, "--study", source, *machine], None)


def check(todo: Iterable[Stage], folder: Path, only: list[str], seconds: float) -> int:
    """Perform the stages that match `only` and have no result; returns the exit status: 0, 1 if one failed, 124 at the
    limit of `seconds`."""
    ends, failed = time.monotonic() + seconds, 0
    for stage in todo:
        if (stage.result and stage.result.exists()) or not any(fnmatch(stage.name, pattern) for pattern in only):
            continue
        began = time.monotonic()
        outcome = perform(stage, folder, ends - began) if began < ends else "stopped"
        say(f"{stage.name}: {outcome} after {duration(time.monotonic() - began)}")
        if outcome == "stopped":
            say("the same command resumes")
            return STOPPED
        failed += outcome == "failed"
    if failed:
        say(f"{failed} failed: see {folder / 'logs'}; the same command tries them again")
    return min(failed, 1)


def perform(stage: Stage, folder: Path, seconds: float) -> str:
    """Run a stage for at most `seconds`; returns "done", "failed", or "stopped"."""
    log = folder / "logs" / f"{stage.name.replace('/', '-')}.txt"
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "w") as output:
        # in a separate session, so that Ctrl-C reaches it only once, from here
        child = subprocess.Popen(stage.command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            status = child.wait(timeout=max(0.0, seconds))
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            child.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(timeout=PATIENCE)
            child.kill()
            return "stopped"
    if status == 0 and stage.result and not stage.result.exists():
        with atomic(stage.result) as path:
            path.write_bytes(log.read_bytes())
    return "done" if status == 0 else "failed"


def pack(study: Study, folder: Path) -> Path:
    """Archive all results so far, without weights, checkpoints, and features; unpack it in the working directory."""
    path = folder.with_suffix(".tar.gz")
    with atomic(path) as temporary, tarfile.open(temporary, "w:gz") as archive:
        for part in filter(Path.exists, (folder, study.results / "runs")):
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
    for number in (signal.SIGINT, signal.SIGTERM):  # also where a shell started this with SIGINT ignored
        signal.signal(number, signal.default_int_handler)
    try:
        if given.gpus:
            if not (visible := gpu_lease.visible()):  # all tests would be skipped
                raise ValueError("no GPU visible; --gpus 0 tries everything on the CPU")
            gpu_lease.torch_device(visible[0], required=True)
        study = load_study(given.study)
        todo = stages(study, given.study, given.out, gpus=given.gpus, sizes=given.sizes, quick=given.quick)
        status = check(todo, given.out, given.only, given.seconds)
        print(pack(study, given.out))
    except (ValueError, OSError) as error:
        print(f"gpu-check: error: {error}", file=sys.stderr)
        return 2
    return status


if __name__ == "__main__":
    sys.exit(main())
