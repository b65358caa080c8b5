"""How long runs take side by side."""

import heapq
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Job:
    """name: unique. after: the name of the job that must be done before, or None. priority: lower starts earlier."""

    name: Any
    after: Any
    seconds: float
    priority: int = 0


def makespan(jobs: list[Job], slots: int) -> float:
    """Seconds until all jobs are done in `slots` equal slots, each of which takes the next job that is ready."""
    names = {job.name for job in jobs}
    waiting: dict[Any, list[int]] = {}
    ready: list[tuple[int, int]] = []  # (priority, position)
    for position, job in enumerate(jobs):
        if job.after in names:
            waiting.setdefault(job.after, []).append(position)
        else:
            heapq.heappush(ready, (job.priority, position))
    running: list[tuple[float, int]] = []  # (end, position)
    clock = 0.0
    while ready or running:
        while ready and len(running) < slots:
            position = heapq.heappop(ready)[1]
            heapq.heappush(running, (clock + jobs[position].seconds, position))
        clock, done = heapq.heappop(running)
        for position in waiting.get(jobs[done].name, ()):
            heapq.heappush(ready, (jobs[position].priority, position))
    return clock
