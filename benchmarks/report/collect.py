"""From the run folders of a study to runs.csv: a row a planned run, whatever became of it.

A run counts as done only if its record, its metrics and the run that it builds on agree with one another;
what does not is "missing" with the reason, so that no stale number reaches a table.
"""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import json
import typing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import yaml

from benchmarks.evaluation.evaluate import read_json
from scl import settings
from scl.record import atomic, sha256

STATUSES = ("done", "failed", "missing", "skipped")
PLACE_OF_A_RUN = ("seed", "after", "data")      # keys of run.yaml in which the seeds of one cell may differ
SCORES = ("acc", "nmi", "nmi_geometric", "ari", "clusters_used", "largest_share", "smallest_share",
          "mean_confidence")


@dataclass(frozen=True)
class Row:
    """A line of runs.csv. Shares and scores are fractions, times seconds, memory 10^6 bytes."""

    benchmark: str
    protocol: str
    stage: str
    method: str                             # title in tables
    seed: int
    status: str                             # one of STATUSES
    reason: str = ""                        # why it is not done, or has no scores
    acc: float | None = None
    nmi: float | None = None
    nmi_geometric: float | None = None
    ari: float | None = None
    clusters_used: int | None = None
    largest_share: float | None = None
    smallest_share: float | None = None
    mean_confidence: float | None = None
    neighbour_purity: float | None = None
    oracle_acc: float | None = None         # best epoch by labels: for display only
    oracle_epoch: int | None = None
    epochs: int | None = None
    seconds: float | None = None            # this stage
    chain_seconds: float | None = None      # with the stages that it builds on
    peak_memory_mb: float | None = None
    device: str = ""
    precision: str = ""
    commit: str = ""
    dirty: bool | None = None
    config_sha256: str = ""
    settings: str = ""                      # run.yaml without seed and places, with those of its chain, hashed
    other_commits: str = ""                 # of earlier attempts and the stages that it builds on, if not `commit`
    images_sha256: str = ""
    torch: str = ""
    finished: str = ""


def collect(study) -> Path:
    """Write and return `<study.results>/runs.csv`."""
    path = study.results / "runs.csv"
    names = [field.name for field in dataclasses.fields(Row)]
    with atomic(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(dataclasses.asdict(row_of(run, study.skipped)) for run in study.runs())
    return path


def read_rows(study) -> list[Row]:
    """The rows of runs.csv, in the study's order. ValueError if it is missing or of another version."""
    path = study.results / "runs.csv"
    if not path.exists():
        raise ValueError(f"{path} is missing: collect the runs first")
    kinds = typing.get_type_hints(Row)
    with path.open(newline="") as file:
        reader = csv.DictReader(file)
        if set(reader.fieldnames or ()) != set(kinds):
            raise ValueError(f"{path} has other columns than this version writes: collect the runs again")
        return [Row(**{name: _parse(text, kinds[name]) for name, text in line.items()}) for line in reader]


def _parse(text: str, kind):
    if kind is str:
        return text
    if text == "":
        return None
    base = next((part for part in typing.get_args(kind) if part is not type(None)), kind)
    return text == "True" if base is bool else base(text)


def row_of(run, skipped: dict[str, str]) -> Row:
    """What became of one planned run."""
    row = Row(run.benchmark, run.protocol, run.stage, run.title, run.seed, "missing")
    if run.benchmark in skipped:
        return dataclasses.replace(row, status="skipped", reason=skipped[run.benchmark])
    try:
        record = record_of(run)
        metrics = metrics_of(run, record)
    except Failed as error:
        return dataclasses.replace(row, status="failed", reason=str(error))
    except ValueError as error:
        return dataclasses.replace(row, reason=str(error))
    return dataclasses.replace(row, status="done", **_measured(run, record, metrics))


class Failed(ValueError):
    """The last attempt at a run ended with an error of its own, which the run wrote down."""


def record_of(run) -> dict:
    """The record of a trained run. Raises Failed, or ValueError with the reason why it is not to be counted."""
    try:
        if not (run.directory / "record.json").exists():
            raise ValueError("interrupted" if (run.directory / "checkpoint.pt").exists() else "not run")
        record = _json(run.directory / "record.json")
        own = (run.benchmark, run.protocol, run.stage, run.seed)
        if tuple(record[name] for name in ("benchmark", "protocol", "stage", "seed")) != own:
            raise ValueError("record.json is that of another run")
        _check_settings(run, record)
    except ValueError as error:
        if failure := _failure(run.directory / "failure.json"):
            raise Failed(failure) from None
        if run.after is not None and str(error) == "not run":
            _check_before(run)
        raise
    _check_chain(run, record)
    return record


def _failure(path: Path) -> str | None:
    """Why the last attempt failed, in one line; None if it did not."""
    if not path.exists():
        return None
    try:
        told = json.loads(path.read_text())
    except json.JSONDecodeError:
        return "failure.json is not readable"
    where = ", ".join(f"{name} {told[name]}" for name in ("epoch", "step", "term") if told.get(name) is not None)
    error = " ".join(str(told.get("error", "")).split()) or "no reason given"
    return f"{error} ({where})" if where else error


def _check_before(run) -> None:
    """A run that was never started may be waiting for one that failed."""
    try:
        record_of(run.after)
    except Failed:
        raise ValueError(f"{run.after.stage}, on which it builds, failed") from None


def _check_settings(run, record: dict) -> None:
    """run.yaml must be what was trained. The record holds the options with the method's defaults filled in."""
    if not (run.directory / "run.yaml").exists():
        return
    planned, options = settings.load_run(run.directory), record["options"]
    same_options = all(options.get(name) == value for name, value in planned.options.items())
    digest = settings.digest(dataclasses.replace(planned, options=options))
    if not same_options or digest != record["config_sha256"]:
        raise ValueError("run.yaml has changed since it was trained: train again")


def metrics_of(run, record: dict) -> dict:
    """The metrics of a trained run; ValueError if there are none, or those of another training."""
    if not (run.directory / "metrics.json").exists():
        raise ValueError("trained, not evaluated")
    metrics = _json(run.directory / "metrics.json")
    of, stored = metrics.get("of", {}), run.directory / "assignments.npz"
    if any(of.get(name) != record[name] for name in ("finished", "config_sha256")):
        raise ValueError("metrics.json is that of another training: evaluate again")
    if stored.exists() and sha256(stored) != of["assignments_sha256"]:
        raise ValueError("assignments.npz has changed since it was evaluated: evaluate again")
    return metrics


def _json(path: Path) -> dict:
    return read_json(path, "train the run again")


def _check_chain(run, record: dict) -> None:
    """The stage before must not have been trained again since, or on other images."""
    before = run.after and run.after.directory / "record.json"
    if not before or not before.exists():
        return
    earlier = _json(before)
    if earlier["images_sha256"] != record["images_sha256"]:
        raise ValueError(f"{run.after.stage}, on which it builds, saw other images: train again")
    if datetime.fromisoformat(earlier["finished"]) > datetime.fromisoformat(record["finished"]):
        raise ValueError(f"{run.after.stage}, on which it builds, was trained again since: train again")


def chain(run) -> list:
    """The run and those that it builds on, last first."""
    return [run] + (chain(run.after) if run.after is not None else [])


def _measured(run, record: dict, metrics: dict) -> dict:
    scores, oracle = metrics["scores"] or {}, metrics["oracle"] or {}
    records = [_json(path) for path in _records(run.after)] if run.after is not None else []
    whole = run.after is None or len(records) == len(chain(run.after))
    return {name: scores.get(name) for name in SCORES} | {
        "reason": metrics.get("reason") or "",
        "neighbour_purity": metrics.get("neighbour_purity"),
        "oracle_acc": oracle.get("acc"),
        "oracle_epoch": oracle.get("epoch"),
        "chain_seconds": record["seconds"] + sum(r["seconds"] for r in records) if whole else None,
        "peak_memory_mb": record["peak_memory_bytes"] / 1e6,
        "torch": record["versions"]["torch"],
        "settings": settings_of(run),
        "other_commits": " ".join(_other_commits(record, records)),
    } | {name: record[name] for name in ("epochs", "seconds", "device", "precision", "commit", "dirty",
                                         "config_sha256", "images_sha256", "finished")}


def _other_commits(record: dict, before: list[dict]) -> list[str]:
    attempts = [attempt["commit"] for attempt in record.get("attempts", [])]
    return sorted({*attempts, *(earlier["commit"] for earlier in before)} - {record["commit"]})


def _records(run) -> list[Path]:
    return [path for path in (link.directory / "record.json" for link in chain(run)) if path.exists()]


def settings_of(run) -> str:
    """Twelve digits that are equal for runs that differ in nothing but the seed; "" without run.yaml."""
    parts = []
    for link in chain(run):
        path = link.directory / "run.yaml"
        if not path.exists():
            return ""
        content = yaml.safe_load(path.read_text())
        parts.append({key: value for key, value in content.items() if key not in PLACE_OF_A_RUN})
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]
