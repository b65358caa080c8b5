"""`scl run`: one run in this process, without Snakemake: prepare, train it and its upstream stages, k-means, score."""

from contextlib import nullcontext
from pathlib import Path

from benchmarks.datasets.prepare import prepare_for
from benchmarks.evaluation.evaluate import evaluate_run
from benchmarks.overview import KMEANS_LOG, log_of
from benchmarks.state import Survey, untrained_runs
from benchmarks.study import Run, Study, write_run
from scl import config
from scl.engine import allocator, failures, features, gpu_lease
from scl.engine.clustering import cluster_run
from scl.engine.locks import locked
from scl.engine.provenance import cores
from scl.engine.train import train
from scl.util.text import say


def run_single(
    study: Study, run: Run, *, gpus: int = 1, threads: int | None = None, leased: str | None = None, report=say
) -> Path:
    """Do the missing steps of `run` in order and return the path of its metrics.json.

    The same call resumes after an interruption, and Snakemake accepts the results. threads: by default
    `machine.threads` of the study, else all cores. leased: the CUDA_VISIBLE_DEVICES of a lease that the caller holds
    for all steps, "" for the CPU; by default, the steps that train take one. Raises ValueError for a skipped benchmark,
    and what `train` raises.
    """
    if run.benchmark in study.skipped:
        raise ValueError(f"{run.benchmark}: {study.skipped[run.benchmark]}")
    machine, survey = study.machine, Survey(study)
    if survey.state(run).status == "done":
        return run.directory / "metrics.json"
    facts, problem = survey.prepared(run.benchmark)
    if facts is None or problem:
        prepare_for(study, run.benchmark, again=False)  # another process may have just done it
    untrained, given = untrained_runs(Survey(study), run), leased is not None
    on_gpu = {step for step in untrained if study.settings(step).training.epochs}  # as in Snakemake
    lease = gpu_lease.lease(
        gpus if on_gpu else 0, required=machine.require_gpu, runs_per_gpu=machine.runs_per_gpu, report=report
    )
    # once for all steps: a process that has used a GPU cannot switch to another
    with nullcontext(leased) if given else lease as leased:
        for step in untrained:
            report(f"train {step.stage} on {step.benchmark} ({step.protocol}), seed {step.seed}")
            write_run(study, step)
            log_of(step.directory).unlink(missing_ok=True)  # of an earlier training by Snakemake
            train(
                step.directory,
                leased=leased if given or step in on_gpu else "",
                threads=threads or machine.threads or cores(),
                checkpoint_seconds=machine.checkpoint_seconds,
                require_gpu=machine.require_gpu,
                tensorboard=machine.tensorboard,
                exit_if_stopped=True,
                report=report,
            )
            allocator.return_freed_memory()  # this process may continue with something else, as in a notebook
    for step in chain_of(run):  # without the lease: on the CPU
        if not (step.directory / features.FOLDER).exists():
            continue
        report(f"k-means of {step.stage} on {step.benchmark} ({step.protocol}), seed {step.seed}")
        log_of(step.directory, KMEANS_LOG).unlink(missing_ok=True)
        cluster_run(step.directory, threads=threads or machine.threads or cores(), report=report)
    settings, lock = config.complete(study.settings(run)), run.directory / ".lock"
    with locked(lock, run.directory, report=report), failures.recorded(run.directory, settings):
        return evaluate_run(run.directory, study.data / run.benchmark)


def chain_of(run: Run) -> list[Run]:
    """The run and all stages before it, upstream first."""
    return [*(chain_of(run.after) if run.after else []), run]
