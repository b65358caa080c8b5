"""What the Snakefile needs to know: the files of a study and how its runs share this machine. No torch."""

import os
import shlex
import signal
import sys
import threading
from functools import cached_property
from pathlib import Path

from snakemake.io import ancient

from benchmarks.compose import find_base, resolve
from benchmarks.datasets.catalog import archives_of
from benchmarks.study import Study, load_study, plan_is_written, write_plan
from scl.engine import gpu_lease
from scl.util.yaml_file import load_yaml


class Workflow:
    """A study as Snakemake runs it. The main process looks, before any job, at what counts of what is there."""

    def __init__(self, config: dict, files, *, main_process: bool):
        """The study of the configuration given to Snakemake, or of config/paper.yaml. Raises ValueError or OSError
        before any job starts."""
        self.resolved = resolve(_source(config, files) or "config/paper.yaml")
        self.study = load_study(self.resolved)
        self.main_process, self.survey = main_process, None
        if main_process:
            from benchmarks.check import check_study  # which imports torch
            from benchmarks.state import Survey

            check_study(self.study)
            self.survey = Survey(self.study)

    @cached_property
    def outdated(self) -> list[str]:
        """Files that are there and have to be made again: results that do not count, tables of another plan."""
        if self.survey is None:
            return []
        files, table = self.survey.outdated(), self.study.results / "runs.csv"
        if table.exists() and not plan_is_written(self.study, self.resolved):
            files.append(table)
        return [str(file) for file in files]

    def force(self, workflow) -> None:
        """Have Snakemake make the outdated files again, as `--forcerun FILE ...` does. Called by input functions, which
        are evaluated before Snakemake decides what to run; a dry run says the same and changes nothing."""
        workflow.dag.forcefiles.update(self.outdated)

    def train_inputs(self, wildcards) -> dict:
        """The images of a run and the weights it starts from. Where its result counts, Snakemake is not to go by the
        times of these files; of a run that is made again it must know what comes first."""
        run = run_of(self.study, wildcards)
        inputs = {"images": str(self.study.data / run.benchmark / "benchmark.json")}
        if run.after:
            inputs["after"] = str(run.after.directory / "weights.pt")
        return _ancient_if(self.survey and self.survey.state(run).record, inputs)

    def evaluate_inputs(self, wildcards) -> dict:
        """The same of an evaluation."""
        run = run_of(self.study, wildcards)
        inputs = {
            name: str(run.directory / file)
            for name, file in (("record", "record.json"), ("assignments", "assignments.npz"))
        }
        inputs["benchmark"] = str(self.study.data / run.benchmark / "benchmark.json")
        return _ancient_if(self.survey and self.survey.state(run).status == "done", inputs)

    def start(self) -> None:
        """Write the plan: the study as resolved, and the settings of every run."""
        if self.main_process:
            handle_sigterm_in_a_thread()
            write_plan(self.study, self.resolved)


def handle_sigterm_in_a_thread() -> None:
    """Have Snakemake's handler of SIGTERM run in a thread of its own.

    It takes a lock that the interrupted code may hold (Snakemake 9.27.1, JobScheduler.exit_gracefully). In the main
    thread, where Python runs handlers, it would then wait for itself, and the workflow would hang for ever.
    """
    handler = signal.getsignal(signal.SIGTERM)
    if callable(handler):
        signal.signal(signal.SIGTERM, lambda *arguments: threading.Thread(target=handler, args=arguments).start())


def locked() -> str:
    """What to do about a lock of Snakemake in the working directory, "" if there is none."""
    if not any(Path(".snakemake/locks").glob("*")):
        return ""
    return (
        "This folder is locked: another snakemake is running in it, or one was killed. If none is running "
        "(`ps -C snakemake`), run `snakemake --unlock` with the same --configfile, then the same command again."
    )


def _ancient_if(counts, inputs: dict) -> dict:
    """The inputs of a job, their times ignored if its result counts."""
    return {name: ancient(path) for name, path in inputs.items()} if counts else inputs


def _source(config: dict, files):
    """What `config` was read from, if from one file alone; else `config`. Snakemake passes over keys given twice, so
    every file is read once more."""
    here = Path.cwd()
    files = [file.relative_to(here) if file.is_relative_to(here) else file for file in map(Path, files)]
    read = [load_yaml(file) for file in files]
    if read == [config]:
        return files[0]
    for file, one in zip(files, read):  # several files, or --config beside
        if "extends" in one and one["extends"] == config.get("extends"):
            config = config | {"extends": find_base(one["extends"], file.parent)}
    return config


def archives(study: Study, benchmark: str) -> list[str]:
    """The downloads that a benchmark is prepared from."""
    return [str(study.data / "archives" / a.file) for a in archives_of(study.dataset(benchmark), study.downloads)]


def run_of(study: Study, wildcards):
    return study.run(wildcards.benchmark, wildcards.protocol, wildcards.stage, int(wildcards.seed))


def metrics(study: Study) -> list[str]:
    return [str(run.directory / "metrics.json") for run in study.runs() if run.benchmark not in study.skipped]


def priority(study: Study, seed: int | None = None) -> int:
    """One seed of everything comes before a second of anything; what all runs of a benchmark need, with the first."""
    return len(study.seeds) - (study.seeds.index(seed) if seed is not None else 0)


def trains(study: Study, wildcards) -> bool:
    """Whether the stage has epochs; k-means and chance need no GPU."""
    return study.settings(run_of(study, wildcards)).training.epochs > 0


def shell_prefix(study: Study) -> str:
    """What every shell command starts with: bash's strict mode, which Snakemake's own prefix would have set (else a
    failure on the left of `| tee` is lost); `scl` is run by the interpreter that runs Snakemake, so that the workflow
    works in an environment that is not activated; $machine holds how a run behaves on this machine, $plan the
    study's file."""
    machine = study.machine
    flags = f"--checkpoint-seconds {machine.checkpoint_seconds} --runs-per-gpu {machine.runs_per_gpu}"
    flags += " --require-gpu" if machine.require_gpu else ""
    python, plan = (
        shlex.quote(str(path)).replace("{", "{{").replace("}", "}}")
        for path in (sys.executable, study.results / "study.yaml")
    )
    scl = f'scl() {{{{ {python} -m benchmarks.cli "$@"; }}}}'  # Snakemake formats it once more
    return f'set -euo pipefail; {scl}; machine="{flags}"; plan={plan}; '


CLUSTER_THREADS = 8  # of a run on a cluster where machine.threads says nothing: they feed one GPU


def share_machine(workflow, study: Study) -> int:
    """Limit concurrent runs to what the machine carries and return the threads of a run.

    Snakemake counts resources but assumes no limit where none is given: for a local run without `--resources gpu=N`
    the limit is the GPUs that are there, or as many CPU runs as the cores carry. On a cluster the scheduler limits
    (login nodes have no GPU), and a run has the threads that its job asked CPUs for.
    """
    if workflow.nodes is not None or workflow.remote_exec:  # submits jobs, or is within one
        threads = study.machine.threads or CLUSTER_THREADS
        return min(threads, _allotted_cpus() or threads) if workflow.remote_exec else threads
    limits = workflow.global_resources
    cores = limits["_cores"].value if "_cores" in limits and limits["_cores"].value else 8
    gpus = len(gpu_lease.visible())
    slots = gpus * study.machine.runs_per_gpu or cores // (study.machine.threads or cores) or 1
    if workflow.is_main_process and "gpu" not in limits:
        workflow.register_resource("gpu", slots)
    if "gpu" in limits:
        slots = limits["gpu"].value or 1
    if not gpus and study.machine.threads:
        return min(cores, study.machine.threads)
    return max(1, cores // slots)


def _allotted_cpus() -> int | None:
    """The CPUs of this SLURM job, however they were asked for; None outside of one."""
    allotted = os.environ.get("SLURM_CPUS_PER_TASK") or os.environ.get("SLURM_CPUS_ON_NODE")
    return int(allotted) if allotted else None
