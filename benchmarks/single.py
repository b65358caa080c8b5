"""`scl run`: one run in this process, without Snakemake: prepare, train it and its upstream stages, k-means, score."""

from collections.abc import Collection
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
from scl.engine.provenance import cores
from scl.engine.train import train
from scl.util.text import say


def run_single(
    study: Study, run: Run, *, gpus: int = 1, threads: int | None = None, leased: str | None = None, report=say
) -> Path:
    """Do the missing steps of `run` one after the other and return the path of its metrics.json.

    The same call resumes after an interruption, and Snakemake accepts the results. threads: by default
    `machine.threads` of the study, else all cores. leased: the CUDA_VISIBLE_DEVICES of a lease that the caller holds
    for all steps, "" for the CPU; by default one is taken for those that train. Raises ValueError for a skipped
    benchmark, and what `train` raises.
    """
    if run.benchmark in study.skipped:
        raise ValueError(f"{run.benchmark}: {study.skipped[run.benchmark]}")
    machine, survey = study.machine, Survey(study)
    if survey.state(run).status == "done":
        return run.directory / "metrics.json"
    facts, problem = survey.prepared(run.benchmark)
    if facts is None or problem:
        prepare_for(study, run.benchmark, again=False)  # another process may just have done it
    untrained, given = untrained_runs(Survey(study), run), leased is not None
    steps = {step: study.settings(step).training.epochs > 0 for step in untrained}  # {run: on a GPU?}
    lease = gpu_lease.lease(
        gpus if any(steps.values()) else 0,
        required=machine.require_gpu,
        runs_per_gpu=machine.runs_per_gpu,
        report=report,
    )
    # once for all steps: a process that has used a GPU cannot switch to another
    with nullcontext(leased) if given else lease as leased:
        for step, on_gpu in steps.items():
            report(f"train {step.stage} on {step.benchmark} ({step.protocol}), seed {step.seed}")
            write_run(study, step)
            log_of(step.directory).unlink(missing_ok=True)  # of an earlier training by Snakemake
            train(
                step.directory,
                leased=leased if on_gpu or given else "",
                threads=threads or machine.threads or cores(),
                checkpoint_seconds=machine.checkpoint_seconds,
                require_gpu=machine.require_gpu,
                tensorboard=machine.tensorboard,
                exit_if_stopped=True,
                report=report,
            )
            allocator.return_freed_memory()  # this process may go on to something else, as in a notebook
    for step in to_cluster(Survey(study), run, trained=steps):  # without the lease: on the CPU
        report(f"k-means of {step.stage} on {step.benchmark} ({step.protocol}), seed {step.seed}")
        log_of(step.directory, KMEANS_LOG).unlink(missing_ok=True)
        cluster_run(step.directory, threads=threads or machine.threads or cores(), report=report)
    with failures.recorded(run.directory, config.complete(study.settings(run))):
        return evaluate_run(run.directory, study.data / run.benchmark)


def to_cluster(survey: Survey, run: Run, *, trained: Collection[Run] = ()) -> list[Run]:
    """The runs of the chain whose features are kept for k-means, upstream first.

    trained: by this call, so that they count, whatever has happened to the images of a folder meanwhile.
    """
    earlier = to_cluster(survey, run.after, trained=trained) if run.after else []
    counts = run in trained or survey.state(run).record is not None
    kept = counts and (run.directory / features.FOLDER).exists()
    return [*earlier, run] if kept else earlier
