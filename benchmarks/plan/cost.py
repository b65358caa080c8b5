"""The cost of a study as one mapping, which `scl plan --json` prints and benchmarks/plan/table.py shows.

It is computed from a list of jobs. A run has one or two: its training, on a GPU if it has epochs and there is one (and
it was not trained on a CPU), and the k-means after it, if its method needs one, on CPU cores while other runs train
(rule `kmeans` of the Snakefile).
"""

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

START_SECONDS, REPORT_SECONDS = 5.0, 5.0  # Snakemake before the first job; tables, figures, and page (on digits)


@dataclass(frozen=True)
class Job:
    """The training of a run, or the k-means after it.

    seconds: None if unknown. threads: of a training that is done, else None. left: whether it is yet to be done.
    source: of the measurement.
    """

    run: Run
    seconds: float | None
    kmeans: bool = False
    gpu: bool = False
    threads: int | None = None
    left: bool = True
    source: Measured | None = None

    @property
    def depth(self) -> int:
        """Number of jobs that must be done before this one."""
        depth, run = int(self.kmeans), self.run
        while run.after:
            depth, run = depth + 1, run.after
        return depth


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
            if size := run_bytes(work, found.rate, checkpoint_seconds=study.machine.checkpoint_seconds):
                sizes.append((run.directory, *size))
    left = [job for job in jobs if job.left]
    return {
        "title": study.title,
        "results": str(study.results),
        "runs": len(works),
        "runs_left": len({job.run for job in left}),
        "device": {"name": place.device, "gpus": place.gpus, "cores": place.cores}
        | {"runs_at_once": place.slots, "threads_per_run": place.threads},
        "downloads": space.downloads(study, survey),
        "disk": space.disk(study, survey, counts, sizes, at_once=place.slots)
        | {"runs_of_unknown_size": len(works) - len(sizes)},
        "rows": list(_rows(jobs, place)),
        "gpu_hours": _hours(jobs, place, gpu=True) if place.gpus else None,
        "core_hours": _hours(jobs, place, gpu=False),
        "wall_seconds": _wall_seconds(left, place),
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
    """The jobs of one run; finished ones cost the time they took."""
    place = measured.place
    gpu = bool(place.gpus) and study.settings(run).training.epochs > 0
    train: float | None = None
    kmeans: float | None = None  # unknown, which differs from 0
    if work and found:
        on_cores = found.rate.threads / place.threads
        shared = 1 if found.mark == "r" else place.runs_per_gpu  # at most: as if one trained after the other
        train = train_seconds(work, found.rate) * (shared if gpu else on_cores) + measured.start_seconds
        kmeans = kmeans_seconds(work, found.rate) * on_cores
    if state.record:
        clustering = clustering_seconds(state.record, run.directory)
        train = state.record.seconds - clustering + measured.start_seconds
        kmeans = (kmeans or None) if state.needs_kmeans else clustering
        gpu = gpu and not state.record.device.startswith("CPU: ")
    threads = state.record.threads if state.record else None
    yield Job(run, train, gpu=gpu, threads=threads, left=state.record is None, source=found)
    if kmeans != 0:
        yield Job(run, kmeans, kmeans=True, left=state.record is None or state.needs_kmeans, source=found)


def _rows(jobs: list[Job], place: Place) -> Iterator[dict[str, Any]]:
    """One row per benchmark and method, over protocols and seeds. hours: of training on GPUs, else of everything;
    core_hours: of all that takes no GPU; kmeans_core_hours: of the k-means beside GPUs."""
    groups = defaultdict(list)
    for job in jobs:
        groups[job.run.benchmark, job.run.stage].append(job)
    for (benchmark, stage), group in groups.items():
        gpu, runs = any(job.gpu for job in group), len({job.run for job in group})
        seconds = [job.seconds for job in group]
        sources = {(job.source.mark, job.source.source) for job in group if job.source and job.seconds is not None}
        yield {
            "benchmark": benchmark,
            "method": stage,
            "runs": runs,
            "runs_left": len({job.run for job in group if job.left}),
            "unit": "GPU-hours" if gpu else "core-hours",
            "hours": _hours(group, place, gpu=gpu),
            "core_hours": _hours(group, place, gpu=False),
            "kmeans_core_hours": _hours([job for job in group if job.kmeans], place, gpu=False) if gpu else 0.0,
            "seconds_per_run": None if None in seconds else sum(filter(None, seconds)) / runs,
            "sources": [{"mark": mark, "source": text} for mark, text in sorted(sources)],
        }


def _hours(jobs: list[Job], place: Place, *, gpu: bool) -> float | None:
    """GPU-hours of the jobs that use a GPU, or core-hours of the others; None if one of them is unknown."""
    jobs = [job for job in jobs if job.gpu == gpu]
    if any(job.seconds is None for job in jobs):
        return None
    devices = [1 / place.runs_per_gpu if gpu else job.threads or place.threads for job in jobs]
    return sum((job.seconds or 0.0) * count for job, count in zip(jobs, devices)) / 3600


def _wall_seconds(jobs: list[Job], place: Place) -> float | None:
    """Seconds until these jobs are done and the report is written; None if the time of one is unknown."""
    if any(job.seconds is None for job in jobs):
        return None
    cpu_slots = place.cores // place.threads - (place.slots if place.gpus else 0)
    return START_SECONDS + makespan(jobs, gpu_slots=place.slots, cpu_slots=max(1, cpu_slots)) + REPORT_SECONDS


def makespan(jobs: list[Job], *, gpu_slots: int, cpu_slots: int) -> float:
    """Seconds until all jobs are done, if each takes the first free slot and waits for the job it depends on."""
    free = {True: [0.0] * gpu_slots, False: [0.0] * cpu_slots}  # when each slot becomes free
    ends: dict[tuple[Run | None, bool], float] = {}
    for job in sorted(jobs, key=lambda job: job.depth):
        before = (job.run, False) if job.kmeans else (job.run.after, False)
        slots = free[job.gpu]
        start = max(min(slots), ends.get(before, 0.0))
        ends[job.run, job.kmeans] = start + (job.seconds or 0.0)
        slots[slots.index(min(slots))] = start + (job.seconds or 0.0)
    return max(ends.values(), default=0.0)
