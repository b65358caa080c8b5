"""What there is and what is missing: the words behind `scl plan`, `scl status` and `scl doctor`. Changes no file."""

import shutil
from collections import Counter
from pathlib import Path

from benchmarks.datasets.catalog import archives_of
from benchmarks.state import State, Survey
from scl.engine import gpu_lease
from scl.engine.locks import is_locked
from scl.util.text import duration

WORTH_SAYING = {"outdated": "out of date", "damaged": "damaged", "failed": "failed", "stopped": "begun"}


def summarize_study(study, survey: Survey | None = None) -> str:
    """A few lines: what is planned, what is done, where it goes, what is left out and why."""
    states = [state for state in (survey or Survey(study)).states().values() if state.status != "skipped"]
    counts = Counter("done" if state.record else state.status for state in states)
    others = "".join(f", {counts[name]} {words}" for name, words in WORTH_SAYING.items() if counts[name])
    lines = [
        f"{study.title or study.results}: {len(states)} runs, {counts['done']} of them trained{others}; "
        f"results in {study.results}",
        f"  {len(study.methods)} methods and stages: {', '.join(study.methods)}",
        f"  seeds: {', '.join(map(str, study.seeds))}",
    ]
    for name in study.benchmarks:
        reason = study.skipped.get(name)
        lines.append(
            f"  {name}: not run: {reason}" if reason else f"  {name}: {' and '.join(study.protocols_of(name))}"
        )
    return "\n".join(lines)


def describe_states(study, survey: Survey) -> list[str]:
    """A line a run."""
    runs = [run for run in study.runs() if run.benchmark not in study.skipped]
    widths = [max((len(getattr(run, name)) for run in runs), default=0) for name in ("benchmark", "protocol", "stage")]
    return [
        f"  {run.benchmark:{widths[0]}}  {run.protocol:{widths[1]}}  {run.stage:{widths[2]}}  seed {run.seed}  "
        f"{describe_state(study, run, survey.state(run))}"
        for run in runs
    ]


def describe_state(study, run, state: State) -> str:
    """One line on a run, as the study plans it now: "done ...", "running: ...", "failed: ...", "stopped: ...", "not
    started", or why what is there does not count."""
    if state.record:
        return f"done in {duration(state.record.seconds)}"
    if state.status == "failed":
        return f"failed: {state.reason}"
    log = log_of(study, run)
    last = (log.read_text(errors="replace").strip().splitlines() if log.exists() else [])[-1:]
    if is_locked(run.directory / ".lock"):
        return "".join(["running", *(f": {line}" for line in last)])
    if state.status == "stopped":
        return f"stopped: {''.join(last)}"
    return "not started" if state.status == "missing" else state.reason


def log_of(study, run) -> Path:
    """The file to which Snakemake writes the output of a run's training."""
    return study.results / "logs" / run.directory.relative_to(study.results / "runs").with_suffix(".log")


def missing(study) -> list[str]:
    """What would stop a run of this study on this machine, a line each; looks at files, never at the network."""
    found = []
    downloads, folder = study.downloads, study.downloads.archives
    if folder and not Path(folder).is_dir():
        found.append(f"downloads.archives: {folder} is not a folder")
    source = downloads.imagenet.tar if not downloads.imagenet.remote else None
    for key, path in (("tar", source), ("folder", downloads.imagenet.folder)):
        if path and not Path(path).exists():
            found.append(f"downloads.imagenet.{key}: {path} does not exist")
    for name, block in study.benchmarks.items():
        if name in study.skipped or (study.data / name / "benchmark.json").exists():
            continue
        if block.path and not Path(block.path).is_dir():
            found.append(f"benchmarks.{name}.path: {block.path} is not a folder")
        places = [study.data / "archives", *([Path(folder)] if folder else [])]
        absent = [
            a.file
            for a in archives_of(study.dataset(name), downloads)
            if not any((p / a.file).exists() for p in places)
        ]
        if absent:
            found.append(
                f"benchmarks.{name}: to be downloaded: {', '.join(absent)} (not in {' or '.join(map(str, places))})"
            )
    return found + _missing_gpus(study.machine)


def _missing_gpus(machine) -> list[str]:
    import torch

    visible = gpu_lease.visible()
    if visible and not torch.cuda.is_available():
        return [
            f"{len(visible)} GPUs are visible, but torch {torch.__version__} cannot use them: it is a build without "
            "CUDA, or for a newer driver (docs/running.md)"
        ]
    if machine.require_gpu and not visible:
        return ["machine.require_gpu: true, and no GPU is visible"]
    return []


def describe_machine(study, root: Path) -> list[str]:
    """Commit, versions, devices and room on the disk."""
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
