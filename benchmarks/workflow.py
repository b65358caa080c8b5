"""What the Snakefile needs to know: the files of a study and how its runs share this machine. No torch."""

import shlex
import sys
from pathlib import Path

from benchmarks.compose import found_base, resolve
from benchmarks.datasets.catalogue import archives_of
from benchmarks.study import Study, load_study, write_plan
from scl import devices
from scl.yaml_file import load_yaml


def open_study(config: dict, files, *, main_process: bool) -> Study:
    """The study of the configuration given to Snakemake, or of config/paper.yaml; its plan is written by the main
    process alone. Raises ValueError or OSError before any job starts."""
    resolved = resolve(_source(config, files) or "config/paper.yaml")
    study = load_study(resolved)
    if main_process:
        from benchmarks.check import check_study  # which imports torch

        check_study(study)
        write_plan(study, resolved)
    return study


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
            config = config | {"extends": found_base(one["extends"], file.parent)}
    return config


def archives(study: Study, benchmark: str) -> list[str]:
    """The downloads that a benchmark is prepared from."""
    return [str(study.data / "archives" / a.file) for a in archives_of(study.dataset(benchmark), study.downloads)]


def preparation(study: Study, benchmark: str) -> dict:
    """What a prepared benchmark depends on: if any of it changes, it is prepared again."""
    block = study.benchmarks[benchmark]
    return {"dataset": study.dataset(benchmark).name, "size": block.size, "subset": block.subset,
            "clusters": block.clusters, "path": block.path}


def run_of(study: Study, wildcards):
    return study.run(wildcards.benchmark, wildcards.protocol, wildcards.stage, int(wildcards.seed))


def train_inputs(study: Study, wildcards) -> dict:
    """A run depends on its settings, on the images and on the weights it starts from."""
    run = run_of(study, wildcards)
    inputs = {"settings": run.directory / "run.yaml", "images": study.data / run.benchmark / "benchmark.json"}
    if run.after:
        inputs["after"] = run.after.directory / "weights.pt"
    return {name: str(path) for name, path in inputs.items()}


def metrics(study: Study) -> list[str]:
    return [str(run.directory / "metrics.json") for run in study.runs() if run.benchmark not in study.skipped]


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
    python, plan = (shlex.quote(str(path)).replace("{", "{{").replace("}", "}}")
                    for path in (sys.executable, study.results / "study.yaml"))
    scl = f'scl() {{{{ {python} -m benchmarks.cli "$@"; }}}}'  # Snakemake formats it once more
    return f'set -euo pipefail; {scl}; machine="{flags}"; plan={plan}; '


def share_machine(workflow, study: Study) -> int:
    """Limit concurrent runs to what the machine carries and return the threads of a run.

    Snakemake counts resources but assumes no limit where none is given: for a local run without `--resources gpu=N`
    the limit is the GPUs that are there, or as many CPU runs as the cores carry. Under a cluster executor nothing
    is limited: login nodes have no GPU.
    """
    limits = workflow.global_resources
    local = workflow.nodes is None
    cores = limits["_cores"].value if "_cores" in limits and limits["_cores"].value else 8
    if not local:
        return 8
    gpus = len(devices.visible())
    slots = gpus * study.machine.runs_per_gpu or cores // (study.machine.threads or cores) or 1
    if workflow.is_main_process and "gpu" not in limits:
        workflow.register_resource("gpu", slots)
    if "gpu" in limits:
        slots = limits["gpu"].value or 1
    if not gpus and study.machine.threads:
        return min(cores, study.machine.threads)
    return max(1, cores // slots)
