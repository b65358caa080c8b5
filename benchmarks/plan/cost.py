"""The cost of a study as one mapping, which `scl plan --json` prints and benchmarks/plan/table.py shows.

A run has one or two jobs: its training, on a GPU if it has epochs and there is one, and the k-means after it, if its
method needs one, on CPU cores while other runs train (the rule `cluster` of the Snakefile).
"""

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from benchmarks.plan import sources, space
from benchmarks.plan.machine import Place, this_place
from benchmarks.plan.rates import Jobs, kmeans_seconds, run_bytes, train_seconds
from benchmarks.plan.sources import Measured, Sources, clustering_seconds
from benchmarks.plan.work import Work, counts_of, work_of
from benchmarks.state import State, Survey
from benchmarks.study import Run, Study

START_SECONDS, REPORT_SECONDS = 5.0, 5.0  # of snakemake before the first job; of tables, figures, and page (digits)
SCORE_SECONDS = 5e-7  # to score one image at one point of the curve, on a core of an AMD EPYC


@dataclass(frozen=True)
class RunCost:
    """The cost of one run.

    trains: whether it has epochs. train: seconds of its training, with the start of its process. kmeans: seconds of the
    k-means after it, 0 if there is none. Both are None if unknown. scoring: seconds of its evaluation. space: (bytes of
    its folder, additional bytes while it trains); None if unknown.
    """

    run: Run
    state: State
    trains: bool
    train: float | None
    kmeans: float | None
    scoring: float
    source: Measured | None
    space: tuple[int, int] | None

    @property
    def left(self) -> bool:
        """Whether it is yet to be trained or clustered."""
        return self.state.record is None or self.state.status == "unclustered"

    @property
    def seconds(self) -> float | None:
        return _total([self.train, self.kmeans])


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
    rows = list(_rows(costs, place))
    core_hours = [row["hours"] for row in rows if row["unit"] == "core-hours"]
    return {
        "title": study.title,
        "results": str(study.results),
        "runs": len(costs),
        "runs_left": sum(one.left for one in costs),
        "device": {"name": place.device, "gpus": place.gpus, "cores": place.cores}
        | {"runs_at_once": place.slots, "threads_per_run": place.threads},
        "downloads": space.downloads(study, survey),
        "disk": space.disk(study, survey, images, known, at_once=place.slots)
        | {"runs_of_unknown_size": sum(one.space is None for one in costs)},
        "rows": rows,
        "gpu_hours": _total(row["hours"] for row in rows if row["unit"] == "GPU-hours") if place.gpus else None,
        "core_hours": _total([*core_hours, *(row["kmeans_core_hours"] for row in rows)]),
        "scoring_seconds": sum(one.scoring for one in costs),
        "wall_seconds": _wall_seconds(costs, place, study.seeds),
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
    train, kmeans, space, scoring = None, None, None, jobs.evaluate
    if work:
        scoring += SCORE_SECONDS * work.evaluated * (work.points + 1)
    if found and work:
        train, kmeans = train_seconds(work, found.rate), kmeans_seconds(work, found.rate)
        every = study.machine.checkpoint_seconds
        space = run_bytes(work, found.rate, seconds=train, checkpoint_seconds=every)
        scale = found.rate.threads / place.threads
        kmeans *= scale
        if train is not None:
            train = train * (1.0 if place.gpus and trains else scale) + jobs.train
    if state.record:
        clustering = clustering_seconds(state.record, run.directory)
        train = state.record.seconds - clustering + jobs.train
        if state.status != "unclustered":
            kmeans = clustering
    return RunCost(run, state, trains, train, kmeans, scoring, found, space)


def _rows(costs: list[RunCost], place: Place) -> Iterator[dict[str, Any]]:
    """One row per benchmark and method, over protocols and seeds. hours: with the k-means, or on a GPU without."""
    groups: dict[tuple[str, str], list[RunCost]] = {}
    for one in costs:
        groups.setdefault((one.run.benchmark, one.run.stage), []).append(one)
    for (benchmark, stage), group in groups.items():
        gpu, seconds = bool(place.gpus) and group[0].trains, _total(one.seconds for one in group)
        sources = {(one.source.mark, one.source.source) for one in group if one.source and one.seconds is not None}
        if gpu:
            hours = _hours(_total(one.train for one in group), 1 / place.runs_per_gpu)
        else:
            hours = _hours(seconds, place.threads)
        yield {
            "benchmark": benchmark,
            "method": stage,
            "runs": len(group),
            "runs_left": sum(one.left for one in group),
            "unit": "GPU-hours" if gpu else "core-hours",
            "hours": hours,
            "kmeans_core_hours": _hours(_total(one.kmeans for one in group), place.threads) if gpu else 0.0,
            "seconds_per_run": None if seconds is None else seconds / len(group),
            "sources": [{"mark": mark, "source": text} for mark, text in sorted(sources)],
        }


def _total(values: Iterable[float | None]) -> float | None:
    """The sum, None if one of them is unknown."""
    total = 0.0
    for value in values:
        if value is None:
            return None
        total += value
    return total


def _hours(seconds: float | None, devices: float) -> float | None:
    return None if seconds is None else seconds * devices / 3600


# --- time ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Job:
    """name: unique. after: the name of the job that must be done before, or None. priority: lower starts earlier."""

    name: Any
    after: Any
    seconds: float
    priority: int = 0
    gpu: bool = False


def _wall_seconds(costs: list[RunCost], place: Place, seeds: list[int]) -> float | None:
    """Seconds until all runs that are left are trained, clustered, scored, and reported; None if the time of one is
    unknown. Priorities are those of the Snakefile.

    On a CPU, a run is scored on the cores that trained it; on a machine with GPUs, other cores are free for that.
    """
    jobs = []
    for one in costs:
        if not one.left:
            continue
        if one.train is None or one.kmeans is None:
            return None
        run, priority, score = one.run, 3 * seeds.index(one.run.seed), 0.0 if place.gpus else one.scoring
        if one.state.record is None:
            seconds = one.train + (0.0 if one.kmeans else score)
            gpu = bool(place.gpus) and one.trains
            jobs.append(Job(run, run.after, seconds, priority + (0 if one.trains else 2), gpu))
        if one.kmeans:
            jobs.append(Job((run, "k-means"), run, one.kmeans + score, priority + 1))
    at_once = max(1, place.cores // place.threads)
    return START_SECONDS + makespan(jobs, at_once=at_once, on_gpus=place.slots) + REPORT_SECONDS


def makespan(jobs: list[Job], *, at_once: int, on_gpus: int) -> float:
    """Seconds until all jobs are done, at most `at_once` at the same time and `on_gpus` of those that need a GPU."""
    names = {job.name for job in jobs}
    waiting: dict[Any, list[int]] = {}
    ready: dict[bool, list[tuple[int, int]]] = {True: [], False: []}  # needs a GPU: heap of (priority, position)
    for position, job in enumerate(jobs):
        if job.after in names:
            waiting.setdefault(job.after, []).append(position)
        else:
            heapq.heappush(ready[job.gpu], (job.priority, position))
    running: list[tuple[float, int]] = []  # heap of (end, position)
    clock, gpus = 0.0, on_gpus
    while running or any(ready.values()):
        while len(running) < at_once and (able := [heap for gpu, heap in ready.items() if heap and (gpus or not gpu)]):
            position = heapq.heappop(min(able))[1]
            gpus -= jobs[position].gpu
            heapq.heappush(running, (clock + jobs[position].seconds, position))
        clock, done = heapq.heappop(running)
        gpus += jobs[done].gpu
        for position in waiting.get(jobs[done].name, ()):
            heapq.heappush(ready[jobs[position].gpu], (jobs[position].priority, position))
    return clock
