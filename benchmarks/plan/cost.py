"""The cost of a study as one mapping, which `scl plan --json` prints and benchmarks/plan/table.py shows.

It is made from a list of jobs. A run has one or two: its training, on a GPU if it has epochs and there is one, and the
k-means after it, if its method needs one, on CPU cores while other runs train (rule `kmeans` of the Snakefile).
"""

import dataclasses
import heapq
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.plan import sources, space
from benchmarks.plan.machine import Place, this_place
from benchmarks.plan.rates import Work, counts_of, kmeans_seconds, run_bytes, train_seconds, work_of
from benchmarks.plan.sources import Measured, Sources, clustering_seconds
from benchmarks.state import State, Survey
from benchmarks.study import Run, Study

START_SECONDS, REPORT_SECONDS = 5.0, 5.0  # of snakemake before the first job; of tables, figures, and page (digits)
SCORE_SECONDS = 5e-7  # to score one image at one point of the curve, on a core of an AMD EPYC


@dataclass(frozen=True)
class Job:
    """The training of a run, or the k-means after it.

    name: unique. after: the name of the job that must be done before, or None. seconds: None if unknown. priority:
    lower starts earlier. left: whether it is yet to be done. scoring: seconds to evaluate the run, at its last job.
    """

    name: Any
    after: Any
    seconds: float | None
    priority: int = 0
    gpu: bool = False
    left: bool = True
    scoring: float = 0.0
    run: Run | None = None
    source: Measured | None = None


def plan_study(study: Study, survey: Survey, *, calibrate: bool = False) -> dict[str, Any]:
    """The cost of the study on this machine. calibrate: measure it first. Raises OSError if that cannot be written."""
    place = this_place(study.machine)
    if calibrate:
        from benchmarks.plan.calibrate import calibrate as measure  # imports torch

        works = _works(study, _counts(survey))
        measure([work for work in works.values() if work], place, sources.CALIBRATIONS)
    found = Sources(study, place, calibrations=sources.CALIBRATIONS, committed=sources.COMMITTED)
    return cost_of(study, survey, found)


def cost_of(study: Study, survey: Survey, measured: Sources) -> dict[str, Any]:
    """The cost of the study according to these measurements."""
    place, counts = measured.place, _counts(survey)
    works = _works(study, counts)
    jobs: list[Job] = []
    sizes: list[tuple[Path, int, int]] = []
    for run, work in works.items():
        found = measured.find(work) if work else None
        jobs += _jobs(study, run, survey.state(run), work, found, measured)
        if work and found:
            seconds, every = train_seconds(work, found.rate), study.machine.checkpoint_seconds
            if size := run_bytes(work, found.rate, seconds=seconds, checkpoint_seconds=every):
                sizes.append((run.directory, *size))
    return {
        "title": study.title,
        "results": str(study.results),
        "runs": len(works),
        "runs_left": len({job.run for job in jobs if job.left}),
        "device": {"name": place.device, "gpus": place.gpus, "cores": place.cores}
        | {"runs_at_once": place.slots, "threads_per_run": place.threads},
        "downloads": space.downloads(study, survey),
        "disk": space.disk(study, survey, counts, sizes, at_once=place.slots)
        | {"runs_of_unknown_size": len(works) - len(sizes)},
        "rows": list(_rows(jobs, place)),
        "gpu_hours": _hours(jobs, place, gpu=True) if place.gpus else None,
        "core_hours": _hours(jobs, place, gpu=False),
        "scoring_seconds": sum(job.scoring for job in jobs),
        "wall_seconds": _wall_seconds([job for job in jobs if job.left], place),
        "skipped": study.skipped,
    }


def _counts(survey: Survey) -> dict[str, dict[str, int] | None]:
    return {name: counts_of(survey, name) for name in survey.study.available}


def _works(study: Study, counts: dict[str, dict[str, int] | None]) -> dict[Run, Work | None]:
    """The work of every run, None if the number of its images is unknown."""
    runs = {run: counts[run.benchmark] for run in study.available_runs()}
    return {run: work_of(study, run, known) if known else None for run, known in runs.items()}


def _jobs(
    study: Study, run: Run, state: State, work: Work | None, found: Measured | None, measured: Sources
) -> Iterator[Job]:
    """The jobs of one run; what is done costs what it took. The priorities are those of the Snakefile."""
    place, trains = measured.place, study.settings(run).training.epochs > 0
    gpu, priority = bool(place.gpus) and trains, 3 * study.seeds.index(run.seed)
    train, kmeans, scoring = None, None, measured.jobs.evaluate
    if work:
        scoring += SCORE_SECONDS * work.evaluated * (work.points + 1)
    if work and found:
        on_cores = found.rate.threads / place.threads
        kmeans = kmeans_seconds(work, found.rate) * on_cores
        if (seconds := train_seconds(work, found.rate)) is not None:
            shared = place.runs_per_gpu if found.rate.alone else 1  # at most: as if one trained after the other
            train = seconds * (shared if gpu else on_cores) + measured.jobs.train
    if state.record:
        clustering = clustering_seconds(state.record, run.directory)
        train = state.record.seconds - clustering + measured.jobs.train
        kmeans = (kmeans or None) if state.needs_kmeans else clustering  # None: not measured
    clusters = kmeans != 0  # None: not known either
    about: dict[str, Any] = {"run": run, "source": found}
    first, left = priority if trains else priority + 2, state.record is None
    yield Job(run, run.after, train, first, gpu, left, scoring=0.0 if clusters else scoring, **about)
    if clusters:
        left = left or state.needs_kmeans
        yield Job((run, "k-means"), run, kmeans, priority + 1, left=left, scoring=scoring, **about)


def _rows(jobs: list[Job], place: Place) -> Iterator[dict[str, Any]]:
    """One row per benchmark and method, over protocols and seeds. hours: of training on GPUs, else of everything."""
    groups = defaultdict(list)
    for job in jobs:
        assert job.run
        groups[job.run.benchmark, job.run.stage].append(job)
    for (benchmark, stage), group in groups.items():
        gpu, runs, seconds = group[0].gpu, len({job.run for job in group}), [job.seconds for job in group]
        sources = {(job.source.mark, job.source.source) for job in group if job.source and job.seconds is not None}
        yield {
            "benchmark": benchmark,
            "method": stage,
            "runs": runs,
            "runs_left": len({job.run for job in group if job.left}),
            "unit": "GPU-hours" if gpu else "core-hours",
            "hours": _hours(group, place, gpu=gpu),
            "kmeans_core_hours": _hours(group, place, gpu=False) if gpu else 0.0,
            "seconds_per_run": None if None in seconds else sum(filter(None, seconds)) / runs,
            "sources": [{"mark": mark, "source": text} for mark, text in sorted(sources)],
        }


def _hours(jobs: list[Job], place: Place, *, gpu: bool) -> float | None:
    """GPU-hours of the jobs that use a GPU, or core-hours of the others; None if one of them is unknown."""
    seconds = [job.seconds for job in jobs if job.gpu == gpu]
    devices = 1 / place.runs_per_gpu if gpu else place.threads
    return None if None in seconds else sum(filter(None, seconds), 0.0) * devices / 3600


def _wall_seconds(jobs: list[Job], place: Place) -> float | None:
    """Seconds until these jobs are done, their runs scored, and all is reported; None if the time of one is unknown.

    On a CPU, a run is scored on the cores that trained it; on a machine with GPUs, other cores are free for that.
    """
    if any(job.seconds is None for job in jobs):
        return None
    if not place.gpus:
        jobs = [dataclasses.replace(job, seconds=(job.seconds or 0.0) + job.scoring) for job in jobs]
    at_once = max(1, place.cores // place.threads)
    return START_SECONDS + makespan(jobs, at_once=at_once, on_gpus=place.slots) + REPORT_SECONDS


def makespan(jobs: list[Job], *, at_once: int, on_gpus: int) -> float:
    """Seconds until all jobs are done, at most `at_once` at the same time and `on_gpus` of those that need a GPU."""
    names = {job.name for job in jobs}
    waiting: dict[Any, list[int]] = defaultdict(list)
    ready: dict[bool, list[tuple[int, int]]] = {True: [], False: []}  # needs a GPU: heap of (priority, position)
    for position, job in enumerate(jobs):
        if job.after in names:
            waiting[job.after].append(position)
        else:
            heapq.heappush(ready[job.gpu], (job.priority, position))
    running: list[tuple[float, int]] = []  # heap of (end, position)
    clock, gpus = 0.0, on_gpus
    while running or any(ready.values()):
        while len(running) < at_once and (able := [heap for gpu, heap in ready.items() if heap and (gpus or not gpu)]):
            position = heapq.heappop(min(able))[1]
            gpus -= jobs[position].gpu
            heapq.heappush(running, (clock + (jobs[position].seconds or 0.0), position))
        clock, done = heapq.heappop(running)
        gpus += jobs[done].gpu
        for position in waiting[jobs[done].name]:
            heapq.heappush(ready[jobs[position].gpu], (jobs[position].priority, position))
    return clock
