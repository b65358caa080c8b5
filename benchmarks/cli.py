"""The `scl` command: everything that the workflow does, one verb at a time.

Bad input ends with one line on stderr and status 2, a diverged run with status 1, a stop by signal with 128 + signal.
Modules are imported by the verbs that need them, so that those without torch start at once.
"""

import argparse
import os
import sys
from pathlib import Path

from benchmarks.cli_folder import ASSIGN, CLUSTER, assign, cluster
from benchmarks.datasets.connection import plain_text
from scl import config
from scl.engine.io import RunFailed
from scl.util.imports import uncollected
from scl.util.text import did_you_mean, printable


def main(arguments=None) -> int:
    options = parser().parse_args(arguments)
    sys.path.insert(0, "")  # a method of the user's own may stand in the working directory
    try:
        return options.verb(options) or 0
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
        print("scl: interrupted; the same command goes on", file=sys.stderr)
        return 130


def in_one_line(error: Exception) -> str:
    """What to tell the user; an OSError of ours, which explains itself, without its number. What a URL or a file hands
    in, such as passwords and escape sequences, does not reach the terminal."""
    ours = error.strerror if isinstance(error, OSError) and not error.filename else None
    return printable(plain_text(ours or str(error)))


class _Parser(argparse.ArgumentParser):
    """One line for a wrong command, as for all bad input."""

    def error(self, message):
        self.exit(2, f"scl: error: {printable(message)} (see {self.prog} --help)\n")


def _within(least, most) -> dict:
    """Type of an argument: a number of the kind of `least`, from `least` to `most`."""

    def number(text: str):
        value = type(least)(text)
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"{text} is not within {least} .. {most}")
        return value

    return {"type": number}


def _new_file(text: str) -> Path:
    if Path(text).is_dir():
        raise argparse.ArgumentTypeError(f"{text} is a folder; name a file")
    return Path(text)


def show(text: str) -> None:
    """Print lines in which there is something from a configuration or another file."""
    print(printable(text, keep="\n"))


def parser() -> argparse.ArgumentParser:
    top = _Parser(prog="scl", description=__doc__.split("\n", 1)[0])
    verbs = top.add_subparsers(metavar="VERB", required=True)

    def verb(function, *positionals, **options):
        sub = verbs.add_parser(function.__name__, help=function.__doc__.split("\n", 1)[0], description=function.__doc__)
        for name, words in positionals:
            sub.add_argument(name, **words)
        for name, words in options.items():
            sub.add_argument(f"--{name.replace('_', '-')}", **words)
        sub.set_defaults(verb=function)

    study = ("study", {"nargs": "?", "default": "config/paper.yaml", "help": "configuration (default: %(default)s)"})
    one_study = {
        "study": {"default": "config/paper.yaml", "metavar": "FILE", "help": "configuration (default: %(default)s)"}
    }
    folder = ("run", {"type": Path, "help": "folder of the run, with its run.yaml"})
    verb(
        plan,
        study,
        show={
            "metavar": "BENCHMARK/PROTOCOL/STAGE",
            "help": "print the settings of this run instead, and where each value is set",
        },
    )
    verb(status, study)
    verb(download, ("file", {"help": "archive, as named in the catalog"}), **one_study)
    verb(prepare, ("benchmark", {"help": "name in the configuration"}), **one_study)
    verb(
        run,
        ("run", {"metavar": "BENCHMARK/PROTOCOL/STAGE/SEED", "help": "such as cifar10/joint/scl/0"}),
        **one_study,
        gpus={**_within(0, 16), "default": 1, "help": "0: on the CPU (default: %(default)s)"},
        threads={**_within(1, 1024), "help": "default: machine.threads of the study, or all cores"},
    )
    verb(
        train,
        folder,
        gpus={**_within(0, 16), "default": 1, "help": "0: on the CPU"},
        threads={**_within(1, 1024), "default": 1},
        checkpoint_seconds={**_within(0.0, 1e6), "default": 300.0},
        runs_per_gpu={**_within(1, 100), "default": 1},
        require_gpu={"action": "store_true"},
        attempt={**_within(1, 10_000), "default": 1, "help": "above 1: end at once if the run itself failed before"},
    )
    verb(evaluate, folder)
    verb(cluster, CLUSTER[0], **CLUSTER[1])
    verb(assign, ASSIGN[0], ASSIGN[1], **ASSIGN[2])
    verb(
        report,
        study,
        part={"choices": list(PARTS), "help": "one part only, of a finished study"},
        partial={"action": "store_true", "help": "into <results>/partial, whatever has been done"},
    )
    verb(doctor, study)
    verb(
        bench,
        study,
        method={"default": "scl", "help": "stage of the configuration (default: %(default)s)"},
        size={**_within(8, 1024), "default": 32, "help": "pixels a side (default: %(default)s)"},
        batch_size={**_within(2, 100_000), "default": 256},
        steps={**_within(1, 10**6), "help": "timed at a stretch"},
        rounds={**_within(1, 10**6), "help": "repetitions, of which the median counts"},
        gpus={**_within(0, 16), "default": 1, "help": "0: on the CPU"},
        threads={**_within(1, 1024), "help": "default: all cores"},
        workers={**_within(0, 1024), "help": "loader processes of part d"},
        precision={"choices": ["auto", "fp32", "bf16"], "default": "auto"},
        compile={"action": "store_true", "help": "torch.compile of the encoder"},
        quick={"action": "store_true", "help": "one round of one step, fewer images"},
        out={"type": _new_file, "help": "write the measurement here as JSON"},
    )
    return top


def plan(options):
    """Check a configuration and say what it would run, without running it."""
    from benchmarks.check import check_study
    from benchmarks.status import summarize_study
    from benchmarks.study import load_study

    study = load_study(options.study)
    check_study(study)
    if options.show:
        from benchmarks.show import describe_settings

        return show(describe_settings(options.study, study, options.show))
    show(summarize_study(study))


def status(options):
    """What has become of every run: done, running (with its last line), stopped, failed, or not started."""
    from benchmarks.state import Survey
    from benchmarks.status import describe_states, summarize_study
    from benchmarks.study import load_study

    study = load_study(options.study)
    survey = Survey(study)
    show(summarize_study(study, survey))
    for line in describe_states(study, survey):
        print(printable(line))  # with what failure.json and the log say


def download(options):
    """Fetch and verify one archive."""
    from benchmarks.datasets.catalog import archives_of
    from benchmarks.datasets.download import fetch
    from benchmarks.study import load_study

    study = load_study(options.study)
    archives = {a.file: a for name in study.benchmarks for a in archives_of(study.dataset(name), study.downloads)}
    if options.file not in archives:
        raise ValueError(f"{options.file}: not an archive of this study{did_you_mean(options.file, archives)}")
    print(fetch(archives[options.file], study.data / "archives", downloads=study.downloads))


def prepare(options):
    """Lay down a benchmark as images.npy, labels.npy and benchmark.json, downloading what it needs."""
    from benchmarks.datasets.prepare import prepare_for
    from benchmarks.study import load_study

    study = load_study(options.study)
    name = options.benchmark
    if name not in study.benchmarks:
        raise ValueError(f"{name}: not a benchmark of this study{did_you_mean(name, study.benchmarks)}")
    if name in study.skipped:
        raise ValueError(f"{name}: {study.skipped[name]}")
    print(prepare_for(study, name))


def train(options):
    """Train one run, or go on with it; what it is stands in its run.yaml."""
    with uncollected():
        from scl.engine.train import train as train_run

    print(
        train_run(
            options.run,
            gpus=options.gpus,
            threads=options.threads,
            runs_per_gpu=options.runs_per_gpu,
            checkpoint_seconds=options.checkpoint_seconds,
            require_gpu=options.require_gpu,
            attempt=options.attempt,
        )
    )


def evaluate(options):
    """Score the assignments of one trained run with the labels."""
    from benchmarks.evaluation.evaluate import evaluate_run

    print(evaluate_run(options.run, config.load_run(options.run).data))


def run(options):
    """Make one run without Snakemake: prepare its benchmark, train what it builds on and itself, evaluate.

    Does only what is missing; the same command resumes.
    """
    from benchmarks.check import check_study
    from benchmarks.study import load_study

    study = load_study(options.study)
    with uncollected():
        from benchmarks.single import find_run, run_single
    planned = find_run(study, options.run)
    check_study(study)
    print(run_single(study, planned, gpus=options.gpus, threads=options.threads))


PARTS = {  # part -> (module, function), in the order of making
    "collect": ("benchmarks.report.runs", "collect"),
    "report": ("benchmarks.report.render", "write_report"),
}


def report(options):
    """Make runs.csv, tables, figures, claims and the page from the runs there are, with exactly these settings.

    Of a study of which a run is missing or failed they go into <results>/partial.
    """
    import importlib

    from benchmarks.report.runs import Unfinished
    from benchmarks.study import load_study

    study = load_study(options.study)
    folder = study.results / "partial" if options.partial else study.results
    for module, function in [PARTS[options.part]] if options.part else PARTS.values():
        make = getattr(importlib.import_module(module), function)
        try:
            made = make(study, folder)
        except Unfinished:
            if options.part:  # called by the workflow: a partial report must not take the names of its targets
                raise
            folder = study.results / "partial"
            made = make(study, folder)
        for path in made if isinstance(made, list) else [made]:
            print(path)


def doctor(options):
    """Look at this machine: versions, devices, room on the disk, and what the configuration still lacks."""
    from benchmarks.check import check_methods
    from benchmarks.status import describe_machine, missing, summarize_study
    from benchmarks.study import load_study

    study = load_study(options.study)
    check_methods(study)
    show("\n".join([*describe_machine(study, Path(__file__).resolve().parent.parent), summarize_study(study)]))
    found = missing(study)
    show("\n".join(["missing:", *(f"  {line}" for line in found)] if found else ["nothing is missing"]))


def bench(options):
    """Time augmentation, network, training loop and the field's ordinary pipeline, in images a second."""
    from benchmarks.study import load_study

    study = load_study(options.study)
    with uncollected():
        from benchmarks import bench as benching
        from benchmarks.check import check_methods
    check_methods(study)
    result = benching.bench(
        study, benching.plan_of(options), gpus=options.gpus, threads=options.threads or benching.cores()
    )
    print(benching.table(result))
    if options.out:
        print(benching.write(result, options.out))


if __name__ == "__main__":
    sys.exit(main())
