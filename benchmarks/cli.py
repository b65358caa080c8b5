"""The `scl` command: every step of the workflow as a subcommand.

Exit status: 2 for invalid input (one line on stderr), 1 for a failed run, 128 + signal after a signal.
Subcommands import what they need, so that those without torch start at once.
"""

import argparse
import json
import os
import sys
from pathlib import Path

from benchmarks.bench import DEVICES
from benchmarks.cli_arguments import ALL_THREADS, Parser, Version, argument, flag, new_file, show, within
from benchmarks.cli_folder import ASSIGN, CLUSTER, assign, cluster
from benchmarks.cli_plan import PLAN, plan
from benchmarks.compose import resolve
from benchmarks.datasets.connection import plain_text
from benchmarks.study import REPORTED, find_run, load_study, report_mark
from scl import config
from scl.engine import failures
from scl.engine.io import RunFailed, write_json, write_yaml_if_changed
from scl.engine.locks import locked
from scl.util.imports import gc_paused
from scl.util.text import did_you_mean, printable


def main(arguments=None) -> int:
    if sys.stdout is None:  # closed, as by `scl ... >&-`
        sys.stdout = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    try:
        options = vars(parser().parse_args(arguments))
        subcommand = options.pop("subcommand")
        sys.path.insert(0, "")  # custom methods may be in the working directory
        subcommand(**options)
        sys.stdout.flush()
    except BrokenPipeError:  # `scl status | head`
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
    finally:
        discard_unwritten()
    return 0


def discard_unwritten() -> None:
    """Drop output that cannot be written: Python would retry at exit, and change the exit status."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def in_one_line(error: Exception) -> str:
    """The message of an error, without URL passwords, escape sequences, and the errno of our own OSErrors."""
    own = error.strerror if isinstance(error, OSError) and not error.filename else None
    return printable(plain_text(own or str(error)))


# --- subcommands ---------------------------------------------------------------------------------------------------


def status(study, watch, as_json):
    """Print the status of every run: done, running (epoch, loss, speed), stopped, failed (log), or not started."""
    from benchmarks.overview import Overview
    from benchmarks.status import describe_runs, summarize_study

    if watch and (as_json or not sys.stdout.isatty()):
        raise ValueError("--watch: only on a terminal and without --json; `scl status` prints once")
    study = load_study(study)
    if watch:
        from benchmarks.watch import watch_study

        return watch_study(study)
    overview = Overview(study)
    if as_json:
        return print(json.dumps(overview.as_json(), indent=2))
    show(summarize_study(overview), *map(printable, describe_runs(overview)))  # with text of logs and failure.json


def download(file, study):
    """Download and verify one archive."""
    from benchmarks.datasets.prepare import fetch_for

    print(fetch_for(load_study(study), file))


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
    """Do one run without Snakemake: prepare its benchmark, train it and the stages it starts from, cluster, evaluate.

    Steps that are done are skipped, and the same command resumes.
    """
    study = load_study(study)
    with gc_paused():
        from benchmarks.check import check_study
        from benchmarks.single import run_single
    planned = find_run(study, run)
    check_study(study)
    print(run_single(study, planned, gpus=gpus, threads=threads))


def train(run, **options):
    """Train one run as described by its run.yaml, or resume it."""
    with gc_paused():
        from scl.engine.train import train as train_run

    print(train_run(run, **options))


def kmeans(run, **options):
    """Cluster the features that one trained run has kept, if its method is clustered by k-means."""
    from scl.engine.clustering import cluster_run

    print(cluster_run(run, **options))


def evaluate(run):
    """Score the assignments of one trained run with the labels, and print the scores in percent."""
    from benchmarks.evaluation.evaluate import evaluate_run
    from benchmarks.overview import describe_result
    from scl.engine.artifacts import assignments_of, read_record

    settings = config.load_run(run)
    with locked(run / ".lock", run):
        assignments_of(run, read_record(run))  # if there are none, failure.json keeps the reason
        with failures.recorded(run, settings):
            evaluate_run(run, settings.data)
    show(describe_result(run))


def report(study, part, partial, gallery):
    """Write runs.csv, tables, figures, claims and the page from all runs with exactly the settings of the study.

    They go to <results>/partial if a run is missing or failed. With --gallery, only the page of one run is written.
    """
    from benchmarks.report.runs import Unfinished, collect, is_collected

    resolved = resolve(study)
    study = load_study(resolved)
    if gallery:
        from benchmarks.report.render import add_gallery

        return print(add_gallery(study, gallery, partial=partial))
    folder = study.results / "partial" if partial else study.results
    if part != "report":
        try:
            print(collect(study, folder))
        except Unfinished:
            if part:  # the workflow: a partial report must not be mistaken for its targets
                raise
            folder = study.results / "partial"
            print(collect(study, folder))
    elif (folder / "runs.csv").exists() and not is_collected(study, folder):
        raise ValueError(f"{folder / 'runs.csv'} is of an earlier state of the study; collect the runs again")
    (folder / REPORTED).unlink(missing_ok=True)  # until all is written
    if part != "collect":
        from benchmarks.report.render import write_report

        print(*write_report(study, folder), sep="\n")
        write_yaml_if_changed(folder / REPORTED, report_mark(resolved))


def doctor(study):
    """Print versions, devices and free disk space of this machine, and what the study still needs."""
    from benchmarks.check import check_methods
    from benchmarks.overview import Overview
    from benchmarks.status import describe_machine, missing, summarize_study

    study = load_study(study)
    check_methods(study)
    show(*describe_machine(study, Path(__file__).resolve().parent.parent), summarize_study(Overview(study)))
    problems = missing(study)
    show("missing:" if problems else "nothing is missing", *(f"  {line}" for line in problems))


def bench(study, out, **options):
    """Time augmentation, network, training loop, the standard torchvision pipeline, and other libraries."""
    study = load_study(study)
    with gc_paused():
        from benchmarks.bench.command import run_bench
        from benchmarks.check import check_methods
    check_methods(study)
    result = run_bench(study, **options)
    if out:
        write_json(out, result)
        print(out)


# --- command line --------------------------------------------------------------------------------------------------


PAPER = {"default": "config/paper.yaml", "metavar": "FILE"}
STUDY = argument("study", "configuration of the study", nargs="?", **PAPER)
STUDY_OPTION = argument("--study", "configuration of the study", **PAPER)
RUN_FOLDER = argument("run", "folder of the run, with its run.yaml", type=Path)
GPUS = argument("--gpus", "GPUs to use; 0 for the CPU", default=1, **within(0, 16))
FORM = "BENCHMARK/PROTOCOL/STAGE"
RUN_THREADS = argument("--threads", "CPU threads (default: those of the study, else all cores)", **within(1, 1024))
ONE_THREAD = argument("--threads", "CPU threads", default=1, **within(1, 1024))
ATTEMPT = argument("--attempt", "above 1: end at once if the run itself failed before", default=1, **within(1, 10_000))
SUBCOMMANDS: dict = {  # function: [example, arguments of group "input", title of another group, its arguments, ...]
    plan: ["config/smoke.yaml --calibrate", STUDY, *PLAN],
    status: [
        "config/smoke.yaml --watch",
        STUDY,
        "output",
        flag("--watch", "show bars until the study ends, or Ctrl-C"),
        argument("--json", "print as JSON (default: as text)", dest="as_json", action="store_true"),
    ],
    download: ["cifar-10-python.tar.gz", argument("file", "archive, as named in the catalog"), STUDY_OPTION],
    prepare: ["cifar10", argument("benchmark", "name in the configuration"), STUDY_OPTION],
    run: [
        "digits/joint/scl/0 --study config/smoke.yaml",
        argument("run", "run of the study", metavar=f"{FORM}/SEED"),
        STUDY_OPTION,
        *("machine", GPUS, RUN_THREADS),
    ],
    train: [
        "results/smoke/runs/digits/joint/scl/seed0",
        RUN_FOLDER,
        "machine",
        GPUS,
        ONE_THREAD,
        argument("--runs-per-gpu", "runs that share a GPU", default=1, **within(1, 100)),
        argument("--require-gpu", "fail if no GPU is visible (default: warn)", action="store_true"),
        flag("--tensorboard", "write the curves for TensorBoard too"),
        "interruptions",
        argument("--checkpoint-seconds", "time between checkpoints", default=300.0, **within(0.0, 1e6, "SECONDS")),
        ATTEMPT,
    ],
    kmeans: [
        "results/smoke/runs/digits/joint/simclr/seed0",
        RUN_FOLDER,
        *("machine", ONE_THREAD),
        *("interruptions", ATTEMPT),
    ],
    evaluate: ["results/smoke/runs/digits/joint/scl/seed0", RUN_FOLDER],
    cluster: CLUSTER,
    assign: ASSIGN,
    report: [
        "config/smoke.yaml --partial",
        STUDY,
        "output",
        argument("--part", "only runs.csv, or all but it, of a finished study", choices=["collect", "report"]),
        argument("--partial", "write to <results>/partial even if all runs are done", action="store_true"),
        argument("--gallery", "only add the images of this run to its page (default: none)", metavar=f"{FORM}/SEED"),
    ],
    doctor: ["config/smoke.yaml", STUDY],
    bench: [
        "config/smoke.yaml --method scl --size 32",
        STUDY,
        argument("--method", "stage of the configuration", default="scl", metavar="STAGE"),
        argument("--size", "side of the images in pixels", default=32, **within(8, 1024)),
        argument("--batch-size", "images per step", default=256, **within(2, 100_000)),
        argument("--precision", "of the training", default="auto", choices=["auto", "fp32", "bf16"]),
        flag("--compile", "use torch.compile for the encoder"),
        "measurement",
        argument("--rounds", "repetitions, 6 or more for intervals (default: 6 on a GPU, else 3)", **within(1, 10**6)),
        flag("--quick", "one round of one step, fewer images"),
        argument("--count", "profile one step instead, and bound it on this GPU (default: none)", choices=[*DEVICES]),
        argument("--out", "JSON file for the result (default: none)", type=new_file, metavar="FILE"),
        "machine",
        GPUS,
        ALL_THREADS,
        argument("--workers", "loader processes (default: the best of several numbers)", **within(0, 1024)),
    ],
}


def parser() -> argparse.ArgumentParser:
    top = Parser(prog="scl", description=__doc__.split("\n", 1)[0])
    top.add_argument("--version", action=Version, help="print the versions of scl and torch, then exit")
    subparsers = top.add_subparsers(metavar="COMMAND", required=True)
    for function, (example, *arguments) in SUBCOMMANDS.items():
        name, text = function.__name__, function.__doc__
        epilog = f"example: scl {name} {example}"
        sub = subparsers.add_parser(name, help=text.split("\n", 1)[0], description=text, epilog=epilog)
        sub.set_defaults(subcommand=function)
        group = sub.add_argument_group("input")
        for entry in arguments:
            if isinstance(entry, str):
                group = sub.add_argument_group(entry)
            else:
                group.add_argument(entry[0], **entry[1])
    return top


if __name__ == "__main__":
    sys.exit(main())
