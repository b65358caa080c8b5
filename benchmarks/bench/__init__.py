"""`scl bench`: how fast the engine is, what limits it, and how others compare on the same work."""

from benchmarks.bench import table
from benchmarks.bench.count import count as count_step
from benchmarks.bench.measure import bench
from benchmarks.bench.plan import Plan, plan_of
from benchmarks.bench.subject import Subject, endless
from scl.engine.provenance import cores

__all__ = ["Plan", "Subject", "bench", "count_step", "endless", "plan_of", "run_bench"]


def run_bench(study, *, count: str | None, gpus: int, threads: int | None, **options) -> dict:
    """Print and return the result of the command. count: the device to bound, None to measure."""
    plan, machine = plan_of(gpus=gpus, **options), {"gpus": gpus, "threads": threads or cores()}
    if count:
        result = count_step(study, plan, count, **machine)
        print(table.counted(result))
    else:
        result = bench(study, plan, **machine)
        print(table.measured(result))
    return result
