"""The cost of a study as one mapping, which `scl plan --json` prints and benchmarks/plan/table.py shows."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from benchmarks.plan import sources, space
from benchmarks.plan.machine import Place, this_place
from benchmarks.plan.rates import Jobs, run_bytes, run_seconds
from benchmarks.plan.schedule import Job, makespan
from benchmarks.plan.sources import Measured, Sources
from benchmarks.plan.work import Work, counts_of, work_of
from benchmarks.state import State, Survey
from benchmarks.study import Run, Study

START_SECONDS, REPORT_SECONDS = 5.0, 5.0  # of snakemake before the first job; of tables, figures, and page (digits)
SCORE_SECONDS = 5e-7  # to score one image at one point of the curve, on a core of an AMD EPYC


@dataclass(frozen=True)
class RunCost:
    """The cost of one run.

    trains: whether it has epochs. left: whether it is yet to be trained. seconds: of its training, with the start of
    its process; None if unknown. scoring: seconds of its evaluation. space: (bytes of its folder, additional bytes
    while it trains); None if unknown.
    """

    run: Run
    trains: bool
    left: bool
    seconds: float | None
    scoring: float
    source: Measured | None
    space: tuple[int, int] | None


def plan_study(study: Study, survey: Survey, *, calibrate: bool = False) -> dict[str, Any]:
    """The cost of the study on this machine. calibrate: measure it first. Raises OSError if that cannot be written."""
    place = this_place(study.machine)
    if calibrate:
        from benchmarks.plan.calibrate import calibrate as measure  # imports torch

        counts = _counts(study)
        works = [work_of(study, run, known) for run in study.available_runs() if (known := counts[run.benchmark])]
        measure(works, place, sources.CALIBRATIONS)
    found = Sources(study, place, calibrations=sources.CALIBRATIONS, committed=sources.COMMITTED)
    return cost_of(study, survey, place, found)


def cost_of(study: Study, survey: Survey, place: Place, measured: Sources) -> dict[str, Any]:
    """The cost of the study at `place` according to these measurements."""
    counts = _counts(study)
    images = {name: sum(known.values()) if known else None for name, known in counts.items()}
    costs = list(_run_costs(study, survey, place, measured, counts))
    known = [(one.run.directory, *one.space) for one in costs if one.space]
    left = [one for one in costs if one.left]
    return {
        "title": study.title,
        "results": str(study.results),
        "runs": len(costs),
        "runs_left": len(left),
        "device": {"name": place.device, "gpus": place.gpus, "cores": place.cores}
        | {"runs_at_once": place.slots, "threads_per_run": place.threads},
        "downloads": space.downloads(study, survey),
        "disk": space.disk(study, survey, images, known, at_once=place.slots)
        | {"runs_of_unknown_size": sum(one.space is None for one in costs)},
        "rows": list(_rows(costs, place)),
        "gpu_hours": _hours(costs, place, on_gpu=True) if place.gpus else None,
        "core_hours": _hours(costs, place, on_gpu=False),
        "scoring_seconds": sum(one.scoring for one in costs),
        "wall_seconds": _wall_seconds(left, place, list(study.seeds)),
        "skipped": study.skipped,
    }


def _counts(study: Study) -> dict[str, dict[str, int] | None]:
    return {name: counts_of(study, name) for name in study.available}


def _run_costs(
    study: Study, survey: Survey, place: Place, measured: Sources, counts: dict[str, dict[str, int] | None]
) -> Iterator[RunCost]:
    rates: dict[tuple, Measured | None] = {}  # seeds share them
    for run in study.available_runs():
        key = run.benchmark, run.protocol, run.stage
        known, state = counts[run.benchmark], survey.state(run)
        work = work_of(study, run, known) if known else None
        if key not in rates:
            rates[key] = measured.find(work) if work else None
        yield _run_cost(study, run, work, state, rates[key], place, measured.jobs)


def _run_cost(
    study: Study, run: Run, work: Work | None, state: State, found: Measured | None, place: Place, jobs: Jobs
) -> RunCost:
    trains = study.settings(run).training.epochs > 0
    seconds, space, scoring = None, None, jobs.evaluate
    if work:
        scoring += SCORE_SECONDS * work.evaluated * (work.points + 1)
    if found and work:
        seconds = run_seconds(work, found.rate)
        every = study.machine.checkpoint_seconds
        space = run_bytes(work, found.rate, seconds=seconds, checkpoint_seconds=every)
        if seconds is not None:
            scale = 1.0 if place.gpu and trains else found.rate.threads / place.threads
            seconds = seconds * scale + jobs.train
    if state.record:
        seconds = state.record.seconds + jobs.train
    return RunCost(run, trains, state.record is None, seconds, scoring, found, space)


def _rows(costs: list[RunCost], place: Place) -> Iterator[dict[str, Any]]:
    """One row per benchmark and method, over protocols and seeds."""
    groups: dict[tuple[str, str], list[RunCost]] = {}
    for one in costs:
        groups.setdefault((one.run.benchmark, one.run.stage), []).append(one)
    for (benchmark, stage), group in groups.items():
        on_gpu = bool(place.gpus) and group[0].trains
        sources = {(one.source.mark, one.source.source) for one in group if one.source and one.seconds is not None}
        yield {
            "benchmark": benchmark,
            "method": stage,
            "runs": len(group),
            "runs_left": sum(one.left for one in group),
            "unit": "GPU-hours" if on_gpu else "core-hours",
            "hours": _hours(group, place, on_gpu=on_gpu),
            "seconds_per_run": _mean([one.seconds for one in group]),
            "sources": [{"mark": mark, "source": text} for mark, text in sorted(sources)],
        }


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None


def _hours(costs: list[RunCost], place: Place, *, on_gpu: bool) -> float | None:
    """GPU-hours of the runs that use a GPU, or core-hours of the others; None if one of them is unknown."""
    chosen = [one for one in costs if (bool(place.gpus) and one.trains) == on_gpu]
    if any(one.seconds is None for one in chosen):
        return None
    shares = 1 / place.runs_per_gpu if on_gpu else place.threads
    return sum(one.seconds or 0.0 for one in chosen) * shares / 3600


def _wall_seconds(left: list[RunCost], place: Place, seeds: list[int]) -> float | None:
    """Seconds until all runs that are left are trained, scored, and reported; None if the time of one is unknown.

    On a CPU, a run is scored on the cores that trained it; on a machine with GPUs, other cores are free for that.
    """
    if any(one.seconds is None for one in left):
        return None
    score = 0 if place.gpus else 1
    runs = [
        Job(one.run, one.run.after, (one.seconds or 0.0) + score * one.scoring, seeds.index(one.run.seed))
        for one in left
    ]
    return START_SECONDS + makespan(runs, place.slots) + REPORT_SECONDS
