"""What is looked at before the first job goes to SLURM: whether the partition exists, and whether an end is noticed."""

import shutil
import subprocess


def check(workflow) -> None:
    """Raise ValueError, in one line, for what would fail or wait for ever; nothing without the slurm executor."""
    if workflow.executor_plugin.name != "slurm":
        return
    jobs = [job for job in workflow.dag.needrun_jobs() if not job.is_local]
    if jobs:
        _check_status_command(workflow.executor_settings)
        limits = _partitions()
        for name, minutes in sorted({request for job in jobs for request in _requests(job.resources)}):
            _check_request(name, minutes, limits)


def _check_status_command(settings) -> None:
    """How the plugin learns that a job has ended: `sacct`, which needs an accounting database, or `squeue`."""
    if settings.status_command == "squeue":
        return
    done = _run("sacct", "--noheader", "--allocations")
    if done.returncode:
        raise ValueError(f"sacct: {_last_line(done)}, so no job would ever be seen to end; set "
                         "`slurm-status-command: squeue` in the profile")


def _requests(resources):
    """(partition, minutes) of a job; none where SLURM chooses the partition or another cluster is named."""
    elsewhere = any(resources.get(key) for key in ("cluster", "clusters", "slurm_cluster"))
    names = "" if elsewhere else str(resources.get("slurm_partition") or "")
    return [(name, int(resources.get("runtime") or 0)) for name in names.split(",") if name]


def _partitions() -> dict[str, str]:
    """{partition: time limit as sinfo writes it}, those hidden from this user too."""
    done = _run("sinfo", "--all", "--noheader", "--format=%R|%l")
    if done.returncode:
        raise ValueError(f"sinfo: {_last_line(done)}; submit where SLURM's commands work (a login node)")
    return dict(line.strip().split("|", 1) for line in done.stdout.splitlines() if "|" in line)


def _check_request(name: str, minutes: int, limits: dict[str, str]) -> None:
    if name not in limits:
        raise ValueError(f"slurm_partition: there is no {name!r} here; set one of {', '.join(sorted(limits))} in the profile")
    limit = _minutes(limits[name])
    if limit is not None and minutes > limit:
        raise ValueError(f"runtime: {minutes} minutes are above the {limit:g} that partition {name} allows; set less in "
                         "the profile")


def _minutes(limit: str) -> float | None:
    """Of [days-]hours:minutes:seconds or minutes:seconds, as sinfo writes them; None without a limit."""
    days, _, clock = limit.rpartition("-")
    parts = clock.split(":")
    if not all(part.isdigit() for part in (days or "0", *parts)):
        return None  # infinite, n/a
    hours, minutes, seconds = ["0"] * (3 - len(parts)) + parts
    return int(days or 0) * 1440 + int(hours) * 60 + int(minutes) + int(seconds) / 60


def _run(*command) -> subprocess.CompletedProcess:
    if not shutil.which(command[0]):
        return subprocess.CompletedProcess(command, 127, "", "not found")
    return subprocess.run(command, capture_output=True, text=True)


def _last_line(done) -> str:
    lines = (done.stderr.strip() or done.stdout.strip()).splitlines()
    return lines[-1] if lines else f"status {done.returncode}"
