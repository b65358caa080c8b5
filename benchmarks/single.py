"""One run in this process, without Snakemake: prepare, train what it builds on and itself, evaluate (`scl run`)."""

import difflib
from contextlib import nullcontext
from pathlib import Path

from benchmarks.datasets.prepare import prepare_for
from benchmarks.evaluation.evaluate import evaluate_run
from benchmarks.state import Survey
from benchmarks.status import log_of
from benchmarks.study import Run, Study, write_run
from scl.engine import gpu_lease
from scl.engine.provenance import cores
from scl.engine.train import train
from scl.util.text import say


def run_single(
    study: Study, run: Run, *, gpus: int = 1, threads: int | None = None, leased: str | None = None, report=say
) -> Path:
    """Do what `run` lacks, one step after the other, and return the path of its metrics.json.

    The same call resumes after an interruption, and Snakemake accepts the results. threads: by default
    `machine.threads` of the study, else all cores. leased: the CUDA_VISIBLE_DEVICES of a lease that the caller holds
    for all steps, "" for the CPU; by default one is taken for those that train. Raises ValueError if the benchmark is
    not available, and whatever `train` raises.
    """
    if run.benchmark in study.skipped:
        raise ValueError(f"{run.benchmark}: {study.skipped[run.benchmark]}")
    machine, survey = study.machine, Survey(study)
    if survey.state(run).status == "done":
        return run.directory / "metrics.json"
    facts, problem = survey.prepared(run.benchmark)
    if facts is None or problem:
        prepare_for(study, run.benchmark)
    untrained, given = untrained_runs(Survey(study), run), leased is not None
    steps = {step: study.settings(step).training.epochs > 0 for step in untrained}  # {run: on a GPU?}
    lease = gpu_lease.lease(
        gpus if any(steps.values()) else 0,
        required=machine.require_gpu,
        runs_per_gpu=machine.runs_per_gpu,
        report=report,
    )
    # once: a process that has used a GPU cannot change to another
    with nullcontext(leased) if given else lease as leased:
        for step, on_gpu in steps.items():
            report(f"train {step.stage} on {step.benchmark} ({step.protocol}), seed {step.seed}")
            write_run(study, step)
            log_of(study, step).unlink(missing_ok=True)  # an earlier training's; this one reports here
            train(
                step.directory,
                leased=leased if on_gpu or given else "",
                threads=threads or machine.threads or cores(),
                checkpoint_seconds=machine.checkpoint_seconds,
                require_gpu=machine.require_gpu,
                report=report,
            )
    return evaluate_run(run.directory, study.data / run.benchmark)


def untrained_runs(survey: Survey, run: Run, *, needs_weights: bool = False) -> list[Run]:
    """The runs to train, upstream first. Nothing upstream of a run whose result counts is needed."""
    counts = survey.state(run).record is not None
    if counts and not (needs_weights and not (run.directory / "weights.pt").exists()):
        return []
    return [*(untrained_runs(survey, run.after, needs_weights=True) if run.after else []), run]


def find_run(study: Study, name: str) -> Run:
    """The run BENCHMARK/PROTOCOL/STAGE/SEED of the study. Raises ValueError with the nearest known name."""
    planned = {f"{run.benchmark}/{run.protocol}/{run.stage}/{run.seed}": run for run in study.runs()}
    if name not in planned:
        near = difflib.get_close_matches(name, planned, n=1, cutoff=0)
        raise ValueError(
            f"{name}: not a run of this study; give BENCHMARK/PROTOCOL/STAGE/SEED, such as {''.join(near)}"
        )
    return planned[name]
