"""The `scl` command: every step of the workflow as a subcommand.

Exit status: 2 for invalid input (one line on stderr), 1 for a failed run, 128 + signal after a signal.
Subcommands import what they need, so that those without torch start at once.
"""

import argparse
import os
import sys
from pathlib import Path

from benchmarks.cli_folder import ASSIGN, CLUSTER, assign, cluster
from benchmarks.datasets.connection import plain_text
from scl import config
from scl.engine.io import RunFailed, write_json
from scl.util.imports import gc_paused
from scl.util.text import did_you_mean, printable


def main(arguments=None) -> int:
    options = vars(parser().parse_args(arguments))
    subcommand = options.pop("subcommand")
    sys.path.insert(0, "")  # custom methods may be in the working directory
    try:
        subcommand(**options)
    except BrokenPipeError:  # `scl status | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (ValueError, OSError) as error:
        print(f"scl: error: {in_one_line(error)}", file=sys.stderr)
        return 2
    except RunFailed as error:
        print(f"scl: failed: {in_one_line(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("scl: interrupted; the same command resumes", file=sys.stderr)
        return 130
    return 0


def in_one_line(error: Exception) -> str:
    """The message of an error, without passwords of URLs, escape sequences and the number of our own OSErrors."""
    own = error.strerror if isinstance(error, OSError) and not error.filename else None
    return printable(plain_text(own or str(error)))


def show(text: str) -> None:
    """Print lines that may contain text from a configuration or another file."""
    print(printable(text, keep="\n"))


def load_study(path):
    from benchmarks.study import load_study

    return load_study(path)


# --- subcommands ---------------------------------------------------------------------------------------------------


def plan(study, show_run):
    """Check a configuration and print what it would run, without running it."""
    from benchmarks.check import check_study
    from benchmarks.show import describe_settings
    from benchmarks.status import summarize_study

    loaded = load_study(study)
    check_study(loaded)
    show(describe_settings(study, loaded, show_run) if show_run else summarize_study(loaded))


def status(study):
    """Print the status of every run: done, running (with its last line), stopped, failed, or not started."""
    from benchmarks.state import Survey
    from benchmarks.status import describe_states, summarize_study

    study = load_study(study)
    survey = Survey(study)
    show(summarize_study(study, survey))
    for line in describe_states(study, survey):
        print(printable(line))  # contains text of logs and failure.json


def download(file, study):
    """Download and verify one archive."""
    from benchmarks.datasets.catalog import archives_of
    from benchmarks.datasets.download import fetch

    study = load_study(study)
    archives = {a.file: a for name in study.benchmarks for a in archives_of(study.dataset(name), study.downloads)}
    if file not in archives:
        raise ValueError(f"{file}: not an archive of this study{did_you_mean(file, archives)}")
    print(fetch(archives[file], study.data / "archives", downloads=study.downloads))


def prepare(benchmark, study):
    """Write images.npy, labels.npy and benchmark.json of a benchmark, downloading what it needs."""
    from benchmarks.datasets.prepare import prepare_for

    study = load_study(study)
    if benchmark not in study.benchmarks:
        raise ValueError(f"{benchmark}: not a benchmark of this study{did_you_mean(benchmark, study.benchmarks)}")
    if benchmark in study.skipped:
        raise ValueError(f"{benchmark}: {study.skipped[benchmark]}")
    print(prepare_for(study, benchmark))


def run(run, study, gpus, threads):
    """Do one run without Snakemake: prepare its benchmark, train it and the stages it starts from, evaluate it.

    Steps that are done are skipped, and the same command resumes.
    """
    from benchmarks.check import check_study
    from benchmarks.study import find_run

    study = load_study(study)
    with gc_paused():
        from benchmarks.single import run_single
    planned = find_run(study, run)
    check_study(study)
    print(run_single(study, planned, gpus=gpus, threads=threads))


def train(run, **options):
    """Train one run as described by its run.yaml, or resume it."""
    with gc_paused():
        from scl.engine.train import train as train_run

    print(train_run(run, **options))


def evaluate(run):
    """Score the assignments of one trained run with the labels."""
    from benchmarks.evaluation.evaluate import evaluate_run

    print(evaluate_run(run, config.load_run(run).data))


def report(study, part, partial):
    """Write runs.csv, tables, figures, claims and the page from all runs with exactly the settings of the study.

    They go to <results>/partial if a run is missing or failed.
    """
    from benchmarks.report.runs import Unfinished, collect

    study = load_study(study)
    folder = study.results / "partial" if partial else study.results
    if part != "report":
        try:
            print(collect(study, folder))
        except Unfinished:
            if part:  # the workflow: a partial report must not be taken for its targets
                raise
            folder = study.results / "partial"
            print(collect(study, folder))
    if part != "collect":
        from benchmarks.report.render import write_report

        print(*write_report(study, folder), sep="\n")


def doctor(study):
    """Print versions, devices and free disk space of this machine, and what the study still needs."""
    from benchmarks.check import check_methods
    from benchmarks.status import describe_machine, missing, summarize_study

    study = load_study(study)
    check_methods(study)
    show("\n".join([*describe_machine(study, Path(__file__).resolve().parent.parent), summarize_study(study)]))
    problems = missing(study)
    show("\n".join(["missing:", *(f"  {line}" for line in problems)] if problems else ["nothing is missing"]))


def bench(study, out, **options):
    """Time augmentation, network, training loop, the standard torchvision pipeline, and other libraries."""
    study = load_study(study)
    with gc_paused():
        from benchmarks.bench import run_bench
        from benchmarks.check import check_methods
    check_methods(study)
    result = run_bench(study, **options)
    if out:
        write_json(out, result)
        print(out)


# --- command line --------------------------------------------------------------------------------------------------


class _Parser(argparse.ArgumentParser):
    """Reports a wrong command in one line, like all invalid input."""

    def error(self, message):
        self.exit(2, f"scl: error: {printable(message)} (see {self.prog} --help)\n")


def _within(least, most) -> dict:
    """Type of an argument: a number like `least`, from `least` to `most`."""

    def number(text: str):
        value = type(least)(text)
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"{text} is not within {least} .. {most}")
        return value

    return {"type": number, "metavar": "N" if isinstance(least, int) else "SECONDS"}


def _new_file(text: str) -> Path:
    if Path(text).is_dir():
        raise argparse.ArgumentTypeError(f"{text} is a folder; name a file")
    return Path(text)


def _argument(name: str, text: str, **settings) -> tuple[str, dict]:
    """An argument with its help, which ends with the default."""
    return name, {"help": text + (" (default: %(default)s)" if "default" in settings else ""), **settings}


PAPER = {"default": "config/paper.yaml", "metavar": "FILE"}
STUDY = _argument("study", "configuration of the study", nargs="?", **PAPER)
STUDY_OPTION = _argument("--study", "configuration of the study", **PAPER)
RUN_FOLDER = _argument("run", "folder of the run, with its run.yaml", type=Path)
GPUS = _argument("--gpus", "GPUs to use; 0 for the CPU", default=1, **_within(0, 16))
FORM = "BENCHMARK/PROTOCOL/STAGE"
SHOW = _argument("--show", "print the settings of this run, and where each is set", dest="show_run", metavar=FORM)
BOUNDED = ["A100", "H100", "H200", "L4"]  # benchmarks/bench/count.py has their peaks
RUN_THREADS = _argument("--threads", "CPU threads (default: those of the study, else all cores)", **_within(1, 1024))
SUBCOMMANDS: dict = {  # function: [example, arguments of group "input", title of another group, its arguments, ...]
    plan: ["config/smoke.yaml --show digits/joint/scl", STUDY, "output", SHOW],
    status: ["config/smoke.yaml", STUDY],
    download: ["cifar-10-python.tar.gz", _argument("file", "archive, as named in the catalog"), STUDY_OPTION],
    prepare: ["cifar10", _argument("benchmark", "name in the configuration"), STUDY_OPTION],
    run: [
        "digits/joint/scl/0 --study config/smoke.yaml",
        _argument("run", "run of the study", metavar=f"{FORM}/SEED"),
        STUDY_OPTION,
        *("machine", GPUS, RUN_THREADS),
    ],
    train: [
        "results/smoke/runs/digits/joint/scl/seed0",
        RUN_FOLDER,
        "machine",
        GPUS,
        _argument("--threads", "CPU threads", default=1, **_within(1, 1024)),
        _argument("--runs-per-gpu", "runs that share a GPU", default=1, **_within(1, 100)),
        _argument("--require-gpu", "fail if no GPU is visible (default: warn)", action="store_true"),
        "interruptions",
        _argument("--checkpoint-seconds", "time between checkpoints", default=300.0, **_within(0.0, 1e6)),
        _argument("--attempt", "above 1: end at once if the run itself failed before", default=1, **_within(1, 10_000)),
    ],
    evaluate: ["results/smoke/runs/digits/joint/scl/seed0", RUN_FOLDER],
    cluster: CLUSTER,
    assign: ASSIGN,
    report: [
        "config/smoke.yaml --partial",
        STUDY,
        "output",
        _argument("--part", "only runs.csv, or all but it, of a finished study", choices=["collect", "report"]),
        _argument("--partial", "write to <results>/partial even if all runs are done", action="store_true"),
    ],
    doctor: ["config/smoke.yaml", STUDY],
    bench: [
        "config/smoke.yaml --method scl --size 32",
        STUDY,
        _argument("--method", "stage of the configuration", default="scl", metavar="STAGE"),
        _argument("--size", "side of the images in pixels", default=32, **_within(8, 1024)),
        _argument("--batch-size", "images per step", default=256, **_within(2, 100_000)),
        _argument("--precision", "of the training", default="auto", choices=["auto", "fp32", "bf16"]),
        _argument("--compile", "use torch.compile for the encoder (default: no)", action="store_true"),
        "measurement",
        _argument("--steps", "steps timed in a row (default: 50 on a GPU, else 1)", **_within(1, 10**6)),
        _argument(
            "--rounds", "repetitions, 6 or more for intervals (default: 6 on a GPU, else 3)", **_within(1, 10**6)
        ),
        _argument("--quick", "one round of one step, fewer images (default: no)", action="store_true"),
        _argument(
            "--count", "profile and count one step instead, and bound it on this GPU (default: no)", choices=BOUNDED
        ),
        _argument("--out", "JSON file for the result (default: none)", type=_new_file, metavar="FILE"),
        "machine",
        GPUS,
        _argument("--threads", "CPU threads (default: all cores)", **_within(1, 1024)),
        _argument("--workers", "loader processes (default: the best of several numbers)", **_within(0, 1024)),
    ],
}


def parser() -> argparse.ArgumentParser:
    top = _Parser(prog="scl", description=__doc__.split("\n", 1)[0])
    subparsers = top.add_subparsers(metavar="COMMAND", required=True)
    for function, (example, *arguments) in SUBCOMMANDS.items():
        name, text = function.__name__, function.__doc__
        epilog = f"example: scl {name} {example}"
        sub = subparsers.add_parser(name, help=text.split("\n", 1)[0], description=text, epilog=epilog)
        sub.set_defaults(subcommand=function)
        group = sub.add_argument_group("input")
        for argument in arguments:
            if isinstance(argument, str):
                group = sub.add_argument_group(argument)
            else:
                group.add_argument(argument[0], **argument[1])
    return top


if __name__ == "__main__":
    sys.exit(main())
