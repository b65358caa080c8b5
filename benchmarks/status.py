"""Text of `scl plan`, `scl status` and `scl doctor`: what a study plans, what is done, what is missing. Read-only."""

import shutil
from pathlib import Path

from benchmarks.check_images import archive_folders, existing, missing_sources
from benchmarks.datasets.catalog import archives_of
from benchmarks.overview import Overview, RunNow
from benchmarks.state import Survey
from scl.engine import gpu_lease
from scl.util.text import duration


def summarize_study(overview: Overview) -> str:
    """A few lines: what is planned and done, where results go, which benchmarks are skipped and why."""
    study, totals = overview.study, overview.totals
    counts = {status: overview.count(status) for status in ("running", "outdated", "damaged", "failed", "stopped")}
    counts["out of date"] = counts.pop("outdated")
    others = "".join(f", {count} {status}" for status, count in counts.items() if count)
    benchmarks = {name: " and ".join(study.protocols_of(name)) for name in study.benchmarks}
    benchmarks |= {name: f"not run: {reason}" for name, reason in study.skipped.items()}
    return "\n".join(
        [
            f"{study.title or study.results}: {totals['runs']} runs, {totals['trained']} of them trained{others}; "
            f"results in {study.results}",
            f"  {len(study.methods)} methods and stages: {', '.join(study.methods)}",
            f"  seeds: {', '.join(map(str, study.seeds))}",
            *(f"  {name}: {text}" for name, text in benchmarks.items()),
        ]
    )


def describe_runs(overview: Overview) -> list[str]:
    """One line per run, in columns."""
    rows = [(now.run.benchmark, now.run.protocol, now.run.stage, f"seed {now.run.seed}") for now in overview.runs]
    widths = [max(map(len, column)) for column in zip(*rows)][:3] + [0]
    return [
        f"  {'  '.join(f'{cell:{width}}' for cell, width in zip(row, widths))}  {describe_run(now)}"
        for row, now in zip(rows, overview.runs)
    ]


def describe_run(now: RunNow) -> str:
    """Status of a run as planned now: done, running, failed, stopped, not started, or why its results do not count."""
    if now.status == "clustering":
        return "trained, being clustered"
    if now.status in ("trained", "done"):
        return f"done in {duration(now.seconds)}"
    if now.status == "failed":
        return f"failed: {now.reason}" + (f"; log: {now.log}" if now.log else "")
    if now.status in ("running", "stopped"):
        return ": ".join(filter(None, [now.status, ", ".join(describe_progress(now)) or _last_line(now.log)]))
    return "not started" if now.status == "missing" else now.reason


def describe_progress(now: RunNow) -> list[str]:
    """Epoch and loss of an unfinished run, speed if it is running; [] before the end of its first epoch."""
    if now.speed is None:
        return []
    rate, left = now.speed
    speed = [f"{rate:,.0f} images/s", f"{duration(left)} left"] if now.status == "running" else []
    return [f"epoch {now.epoch['epoch']}/{now.epoch['epochs']}", f"loss {now.epoch['loss']:.3f}", *speed]


def _last_line(log: Path | None) -> str:
    lines = log.read_text(errors="replace").strip().splitlines() if log else []
    return lines[-1] if lines else ""


def missing(study) -> list[str]:
    """What would stop a run of this study on this machine, one line each; looks at files, not at the network."""
    import torch

    names, folders = Survey(study).unprepared(), archive_folders(study)
    problems = list(missing_sources(study, names))
    where = " or ".join(map(str, folders))
    for name in names:
        files = [archive.file for archive in archives_of(study.dataset(name), study.downloads)]
        if absent := [file for file in files if not any((folder / file).exists() for folder in folders)]:
            problems.append(f"benchmarks.{name}: to be downloaded: {', '.join(absent)} (not in {where})")
    visible = gpu_lease.visible()
    if visible and not torch.cuda.is_available():
        problems.append(
            f"{len(visible)} GPUs are visible, but torch {torch.__version__} cannot use them: it is a build without "
            "CUDA, or for a newer driver (docs/running.md)"
        )
    elif study.machine.require_gpu and not visible:
        problems.append("machine.require_gpu: true, but no GPU is visible")
    return problems


def describe_machine(study, root: Path) -> list[str]:
    """Commit, versions, devices and free disk space."""
    from scl.engine.provenance import provenance
    from scl.util.shim import torchvision

    import torch  # isort: skip

    made_by = provenance(root, device="cpu")
    return [
        f"commit {made_by['commit']}{' (with changes)' if made_by['dirty'] else ''}",
        "versions " + ", ".join(f"{name} {version}" for name, version in made_by["versions"].items()),
        f"torch sees {torch.cuda.device_count()} GPUs (CUDA {torch.version.cuda}), {len(gpu_lease.visible())} visible; "
        f"torchvision {torchvision.__version__} imports; {torch.get_num_threads()} threads",
        f"{shutil.disk_usage(existing(study.results)).free / 1e9:.0f} GB free at {study.results}",
    ]
