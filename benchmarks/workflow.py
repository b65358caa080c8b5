"""What the Snakefile needs: the files of a study, and how its runs share this machine. No torch at import."""

import logging
import os
import shlex
import signal
import sys
import threading
from functools import cached_property
from pathlib import Path
from typing import NoReturn

from snakemake.io import ancient
from snakemake.logging import logger
from snakemake_interface_logger_plugins.common import LogEvent

from benchmarks import slurm
from benchmarks.cli import in_one_line
from benchmarks.compose import find_base, resolve
from benchmarks.datasets.catalog import archives_of
from benchmarks.overview import Overview
from benchmarks.plan import machine
from benchmarks.state import CLUSTERED, Survey, untrained_runs
from benchmarks.status import summarize_study
from benchmarks.study import Run, Study, is_reported, load_study, write_plan
from scl.config import options_of
from scl.engine import gpu_lease
from scl.util.classes import find_class
from scl.util.imports import gc_paused
from scl.util.text import say
from scl.util.yaml_file import load_yaml

LISTED = 50  # jobs that a dry run lists


class Workflow:
    """A study as Snakemake runs it. Before any job, the main process determines which existing results count."""

    def __init__(self, workflow, config: dict):
        """Load and check the study given to Snakemake, or config/paper.yaml; exit with one line if it is invalid."""
        self.workflow, self.survey = workflow, None
        try:
            self.resolved = resolve(_source(config, workflow.configfiles) or "config/paper.yaml")
            self.study = load_study(self.resolved)
            if workflow.is_main_process:
                with gc_paused():
                    from benchmarks.check import check_study  # imports torch

                survey = Survey(self.study)
                check_study(self.study, survey)
                self.survey = survey
        except (ValueError, OSError) as error:  # not WorkflowError, which would blame a line of the Snakefile
            _exit(error)
        self.threads = share_machine(workflow, self.study)
        if self.survey:
            for handler in logger.handlers:
                if handler.name == "DefaultStreamHandler":  # not the log file
                    handler.addFilter(self._is_shown)
            say(summarize_study(Overview(self.study, self.survey)))
            if any(Path(".snakemake/locks").glob("*")):
                say(LOCKED)

    def _is_shown(self, record: logging.LogRecord) -> bool:
        """Filter messages: hide the selection and end of jobs, and the jobs of a long dry run (-p shows them). Keep the
        start of jobs, failures with their logs, and counts."""
        event = getattr(record, "event", None)
        if event == LogEvent.JOB_INFO and self.workflow.dryrun and not self.workflow.output_settings.printshellcmds:
            return len(self.workflow.dag) <= LISTED
        return event not in (LogEvent.JOB_STARTED, LogEvent.JOB_FINISHED) and record.msg != "Select jobs to execute..."

    def start(self) -> None:
        """Before the first job: check SLURM, and write the resolved study and the settings of every run."""
        try:
            slurm.check(self.workflow, self.study)
        except ValueError as error:
            _exit(error)
        if self.survey:
            handle_sigterm_in_a_thread()
            write_plan(self.study, self.resolved)

    @cached_property
    def outdated(self) -> list[str]:
        """Existing files to recreate: results that do not count, tables of another plan or of other results."""
        if self.survey is None:
            return []
        files, table = self.survey.outdated(), self.study.results / "runs.csv"
        if table.exists() and not (is_reported(self.study, self.resolved) and self._is_collected()):
            files.append(table)
        return [str(file) for file in files]

    def _is_collected(self) -> bool:
        from benchmarks.report.runs import is_collected  # imports pandas

        return is_collected(self.study, self.study.results, self.survey)

    def force(self) -> None:
        """Have Snakemake recreate the outdated files, like `--forcerun FILE ...`. Called by input functions, which
        Snakemake evaluates before it decides what to run, even in a dry run."""
        self.workflow.dag.forcefiles.update(self.outdated)

    def run(self, wildcards) -> Run:
        return self.study.run(wildcards.benchmark, wildcards.protocol, wildcards.stage, int(wildcards.seed))

    def gpus(self, wildcards) -> int:
        """0 for methods without epochs, such as k-means on pixels."""
        return int(self.study.settings(self.run(wildcards)).training.epochs > 0)

    def by_kmeans(self, run: Run) -> bool:
        """Whether the run is clustered by k-means, after its training; imports its method."""
        from scl.method import clustered_by_kmeans  # imports torch

        settings = self.study.settings(run)
        method = find_class(settings.method)
        return clustered_by_kmeans(method, options_of(method, settings.options, f"{run.stage}.options"))

    def priority(self, wildcards) -> int:
        """First what all runs of a benchmark need, then one seed of everything before a second seed of anything."""
        seeds = self.study.seeds
        return 3 * (len(seeds) - (seeds.index(int(wildcards.seed)) if hasattr(wildcards, "seed") else -1))

    def kmeans_priority(self, wildcards) -> int:
        """Lower than that of jobs that need a GPU."""
        return self.priority(wildcards) - 1

    def train_priority(self, wildcards) -> int:
        """Runs without a GPU come after k-means; otherwise all of them would keep their features at the same time."""
        return self.priority(wildcards) - (0 if self.gpus(wildcards) else 2)

    def metrics(self) -> list[str]:
        return [str(run.directory / "metrics.json") for run in self.study.available_runs()]

    def prepare_inputs(self, wildcards) -> list:
        """The downloads that a benchmark is prepared from."""
        self.force()
        archives = archives_of(self.study.dataset(wildcards.benchmark), self.study.downloads)
        return ancient([str(self.study.data / "archives" / archive.file) for archive in archives])

    def train_inputs(self, wildcards) -> dict:
        """The images of a run and the weights it starts from; see `_kept`."""
        self.force()
        run = self.run(wildcards)
        inputs = {"images": str(self.study.data / run.benchmark / "benchmark.json")}
        if run.after:
            inputs["after"] = str(run.after.directory / "weights.pt")
        requested = str(run.directory / "weights.pt") in self.workflow.dag.targetfiles
        return _kept(self.survey and run not in self.untrained and not requested, inputs)

    @cached_property
    def untrained(self) -> set[Run]:
        """The runs to train: those without a result that counts, and those whose missing weights they need."""
        assert self.survey
        return {step for run in self.study.runs() for step in untrained_runs(self.survey, run)}

    def kmeans_inputs(self, wildcards) -> dict:
        """The record of a trained run, which names the features that it has kept."""
        run = self.run(wildcards)
        state = self.survey and self.survey.state(run)
        counts = state and state.record and not state.needs_kmeans
        return _kept(counts, {"record": str(run.directory / "record.json")})

    def evaluate_inputs(self, wildcards) -> dict:
        run = self.run(wildcards)
        inputs = {
            "record": str(run.directory / "record.json"),
            "benchmark": str(self.study.data / run.benchmark / "benchmark.json"),
        }
        if self.by_kmeans(run):
            inputs["clustered"] = str(run.directory / CLUSTERED)
        return _kept(self.survey and self.survey.state(run).status == "done", inputs)

    def collect_inputs(self, wildcards) -> list[str]:
        self.force()
        return self.metrics()

    def shell_prefix(self) -> str:
        """Prefix of every shell command: bash's strict mode (as in Snakemake's own prefix), `scl` run by Snakemake's
        interpreter (so that the environment need not be activated), and the variables $machine (how a run uses this
        machine) and $plan (the file of the study). As params, these would make runs out of date."""
        machine = self.study.machine
        flags = f"--checkpoint-seconds {machine.checkpoint_seconds} --runs-per-gpu {machine.runs_per_gpu}"
        flags += " --require-gpu" * machine.require_gpu + " --tensorboard" * machine.tensorboard
        python, plan = (
            shlex.quote(str(path)).replace("{", "{{").replace("}", "}}")
            for path in (sys.executable, self.study.results / "study.yaml")
        )
        scl = f'scl() {{{{ {python} -m benchmarks.cli "$@"; }}}}'  # Snakemake formats it once more
        return f'set -euo pipefail; {scl}; machine="{flags}"; plan={plan}; '


def _exit(error: Exception) -> NoReturn:
    say(f"snakemake: error: {in_one_line(error)}")
    raise SystemExit(2) from None


LOCKED = (
    "This folder is locked: another snakemake is running in it, or one was killed. If none is running "
    "(`ps -C snakemake`), run `snakemake --unlock` with the same --configfile, then the same command again."
)


def handle_sigterm_in_a_thread() -> None:
    """Run Snakemake's SIGTERM handler in a separate thread.

    It takes a lock that the interrupted code may hold (Snakemake 9.27.1, JobScheduler.exit_gracefully). In the main
    thread, where Python runs handlers, it would deadlock.
    """
    handler = signal.getsignal(signal.SIGTERM)
    if callable(handler):
        signal.signal(signal.SIGTERM, lambda *arguments: threading.Thread(target=handler, args=arguments).start())


def _kept(counts, inputs: dict) -> dict:
    """The inputs of a job. If its result counts, only those that exist, as ancient: Snakemake must not recreate it
    because an input is newer, or missing (another job may make it). Otherwise Snakemake must know what comes first."""
    return {name: ancient(path) for name, path in inputs.items() if Path(path).exists()} if counts else inputs


def _source(config: dict, files):
    """The file that `config` was read from if there is only one, else `config`. Every file is read again, since
    Snakemake ignores duplicate keys."""
    here = Path.cwd()
    files = [file.relative_to(here) if file.is_relative_to(here) else file for file in map(Path, files)]
    read = [load_yaml(file) for file in files]
    if read == [config]:
        return files[0]
    for file, one in zip(files, read):  # several files, or also --config
        if "extends" in one and one["extends"] == config.get("extends"):
            config = config | {"extends": find_base(one["extends"], file.parent)}
    return config if files or not config else {"extends": "config/paper.yaml"} | config


CLUSTER_THREADS = 8  # of a run on a cluster where machine.threads is not set: enough for one GPU


def share_machine(workflow, study: Study) -> int:
    """Limit concurrent runs to the capacity of the machine and return the threads of a run.

    Snakemake does not limit a resource by default. For a local run without `--resources gpu=N` the limit is the number
    of visible GPUs, or the number of CPU runs that the cores can hold. On a cluster the scheduler sets the limit (login
    nodes have no GPU), and a run has as many threads as its job requests CPUs.
    """
    if workflow.nodes is not None or workflow.remote_exec:  # submits jobs, or is inside one
        threads = study.machine.threads or CLUSTER_THREADS
        return min(threads, _allotted_cpus() or threads) if workflow.remote_exec else threads
    limits = workflow.global_resources
    cores = limits["_cores"].value if "_cores" in limits and limits["_cores"].value else 8
    gpus = len(gpu_lease.visible())
    slots = machine.slots(study.machine, cores, gpus)
    if workflow.is_main_process and "gpu" not in limits:
        workflow.register_resource("gpu", slots)
    if "gpu" in limits:
        slots = limits["gpu"].value or 1
        gpus = gpus if limits["gpu"].value else 0
    return machine.threads(study.machine, cores, gpus, slots)


def _allotted_cpus() -> int | None:
    """The CPUs of this SLURM job, however they were requested; None outside a job."""
    allotted = os.environ.get("SLURM_CPUS_PER_TASK") or os.environ.get("SLURM_CPUS_ON_NODE")
    return int(allotted) if allotted else None
