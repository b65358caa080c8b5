"""Checks before the first job is submitted to SLURM, so that nothing fails 245 times or waits forever."""

import getpass
import shutil
import subprocess
from pathlib import Path

from scl.util.text import say


def check(workflow, study, report=say) -> None:
    """Raise ValueError for anything that would fail or never end; without the slurm executor, do nothing.

    `report` gets a line about wasted resources: jobs of an earlier start, a setting without effect.
    """
    jobs = [job for job in workflow.dag.needrun_jobs() if not job.is_local]
    if workflow.executor_plugin.name != "slurm" or not jobs:
        return
    _check_status_command(workflow.executor_settings.status_command)
    limits = _partitions()
    for name, minutes in sorted({request for job in jobs for request in _requests(job.resources)}):
        _check_request(name, minutes, limits)
    earlier = _queued(jobs, workflow.workdir_init)
    if earlier:
        report(
            f"note: {len(earlier)} of these runs are in SLURM's queue from an earlier start; a second job of a run "
            f"waits for the first, with an idle GPU. If no other snakemake is running here: Ctrl-C, "
            f"`scancel {' '.join(earlier)}` (running ones save), then the same command"
        )
    if study.machine.runs_per_gpu > 1:
        report("note: machine.runs_per_gpu has no effect: SLURM assigns a whole GPU to every job (docs/running.md)")


def _check_status_command(command: str) -> None:
    """The plugin polls sacct, which needs an accounting database, or squeue."""
    done = _run("sacct", "--noheader", "--allocations")
    if command != "squeue" and done.returncode:
        raise ValueError(
            f"sacct: {_last_line(done)}, so the end of a job would go unnoticed; set `slurm-status-command: squeue` in "
            "the profile"
        )


def _requests(resources) -> list[tuple[str, int]]:
    """(partition, minutes) of a job; none if SLURM chooses the partition or another cluster is named."""
    if any(resources.get(key) for key in ("cluster", "clusters", "slurm_cluster")):
        return []
    names = str(resources.get("slurm_partition") or "").split(",")
    return [(name, int(resources.get("runtime") or 0)) for name in names if name]


def _partitions() -> dict[str, str]:
    """{partition: time limit as printed by sinfo}, including hidden ones."""
    done = _run("sinfo", "--all", "--noheader", "--format=%R|%l")
    if done.returncode:
        raise ValueError(f"sinfo: {_last_line(done)}; start where SLURM's commands work, such as on a login node")
    return dict(line.strip().split("|", 1) for line in done.stdout.splitlines() if "|" in line)


def _check_request(name: str, minutes: int, limits: dict[str, str]) -> None:
    if name not in limits:
        raise ValueError(
            f"slurm_partition: no partition {name!r}; sinfo lists {', '.join(sorted(limits))}: set one in the profile"
        )
    limit = _minutes(limits[name])
    if limit is not None and minutes > limit:
        raise ValueError(f"runtime: {minutes} minutes, but partition {name} allows {limit}; set less in the profile")


def _minutes(limit: str) -> int | None:
    """Minutes of [days-]hours:minutes:seconds or minutes:seconds, as printed by sinfo; None without a limit."""
    days, _, clock = limit.rpartition("-")
    parts = clock.split(":")
    if not all(part.isdigit() for part in (days or "0", *parts)):
        return None  # infinite, n/a
    hours, minutes, _ = ["0"] * (3 - len(parts)) + parts
    return int(days or 0) * 1440 + int(hours) * 60 + int(minutes)


def _queued(jobs, folder) -> list[str]:
    """IDs of this user's jobs, submitted from `folder`, that run the same as any of `jobs`."""
    comments = {f"rule_{job.rule.name}_wildcards_{'_'.join(job.wildcards)}" for job in jobs}  # as set by the plugin
    done = _run("squeue", f"--user={getpass.getuser()}", "--noheader", "--sort=i", "--format=%i|%k|%Z")
    rows = [line.strip().split("|", 2) for line in done.stdout.splitlines() if line.count("|") >= 2]
    return [number for number, comment, where in rows if comment in comments and Path(where) == Path(folder)]


def _run(*command) -> subprocess.CompletedProcess:
    if not shutil.which(command[0]):
        return subprocess.CompletedProcess(command, 127, "", "command not found")
    return subprocess.run(command, capture_output=True, text=True)


def _last_line(done) -> str:
    lines = (done.stderr.strip() or done.stdout.strip()).splitlines()
    return lines[-1].rpartition("error: ")[2] if lines else f"status {done.returncode}"
