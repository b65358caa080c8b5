"""Text of `scl plan`, `scl status` and `scl doctor`: what a study plans, what is done, what is missing. Read-only."""

import shutil
from collections import Counter
from pathlib import Path

from benchmarks.datasets.catalog import archives_of
from benchmarks.state import State, Survey
from scl.engine import gpu_lease
from scl.engine.locks import is_locked
from scl.util.text import duration

COUNTED = {"outdated": "out of date", "damaged": "damaged", "failed": "failed", "stopped": "begun"}


def summarize_study(study, survey: Survey | None = None) -> str:
    """A few lines: what is planned and done, where results go, which benchmarks are skipped and why."""
    states = [state for state in (survey or Survey(study)).states().values() if state.status != "skipped"]
    counts = Counter("done" if state.record else state.status for state in states)
    others = "".join(f", {counts[status]} {words}" for status, words in COUNTED.items() if counts[status])
    benchmarks = {name: " and ".join(study.protocols_of(name)) for name in study.benchmarks}
    benchmarks |= {name: f"not run: {reason}" for name, reason in study.skipped.items()}
    return "\n".join(
        [
            f"{study.title or study.results}: {len(states)} runs, {counts['done']} of them trained{others}; "
            f"results in {study.results}",
            f"  {len(study.methods)} methods and stages: {', '.join(study.methods)}",
            f"  seeds: {', '.join(map(str, study.seeds))}",
            *(f"  {name}: {text}" for name, text in benchmarks.items()),
        ]
    )


def describe_states(study, survey: Survey) -> list[str]:
    """One line per run, in columns."""
    runs = [run for run in study.runs() if run.benchmark not in study.skipped]
    rows = [(run.benchmark, run.protocol, run.stage, f"seed {run.seed}") for run in runs]
    widths = [max(map(len, column)) for column in zip(*rows)][:3] + [0]
    return [
        f"  {'  '.join(f'{cell:{width}}' for cell, width in zip(row, widths))}  "
        f"{describe_state(study, run, survey.state(run))}"
        for row, run in zip(rows, runs)
    ]


def describe_state(study, run, state: State) -> str:
    """Status of a run as planned now: done, running, failed, stopped, not started, or why its results do not count."""
    if state.record:
        return f"done in {duration(state.record.seconds)}"
    if state.status == "failed":
        return f"failed: {state.reason}"
    log = log_of(study, run)
    last = (log.read_text(errors="replace").strip().splitlines() if log.exists() else [])[-1:]
    if is_locked(run.directory / ".lock"):
        return ": ".join(["running", *last])
    if state.status == "stopped":
        return f"stopped: {''.join(last)}"
    return "not started" if state.status == "missing" else state.reason


def log_of(study, run) -> Path:
    """Snakemake's log of the training of a run."""
    return study.results / "logs" / run.directory.relative_to(study.results / "runs").with_suffix(".log")


def missing(study) -> list[str]:
    """What would stop a run of this study on this machine, one line each; looks at files, not at the network."""
    import torch

    from benchmarks.check_images import missing_sources, unprepared

    problems = list(missing_sources(study))
    folder = study.downloads.archives
    places = [study.data / "archives", *([Path(folder).expanduser()] if folder else [])]
    for name in unprepared(study):
        files = [archive.file for archive in archives_of(study.dataset(name), study.downloads)]
        absent = [file for file in files if not any((place / file).exists() for place in places)]
        if absent:
            where = " or ".join(map(str, places))
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
    place = next(folder for folder in (study.results, *study.results.absolute().parents) if folder.exists())
    return [
        f"commit {made_by['commit']}{' (with changes)' if made_by['dirty'] else ''}",
        "versions " + ", ".join(f"{name} {version}" for name, version in made_by["versions"].items()),
        f"torch sees {torch.cuda.device_count()} GPUs (CUDA {torch.version.cuda}), {len(gpu_lease.visible())} visible; "
        f"torchvision {torchvision.__version__} imports; {torch.get_num_threads()} threads",
        f"{shutil.disk_usage(place).free / 1e9:.0f} GB free at {study.results}",
    ]
