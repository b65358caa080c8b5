"""What became of one run, from the files in its folder: done, failed, or missing and why.

Reasons name files, never folders: they are published in runs.csv.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from datetime import datetime
from pathlib import Path

import yaml

from scl import settings
from scl.record import sha256

PLACE_OF_A_RUN = ("seed", "after", "data")  # keys of run.yaml in which the seeds of one cell may differ
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the same, many times faster
IDENTITY = ("benchmark", "protocol", "stage", "seed")
RECORD = (
    *IDENTITY,
    "options",
    "epochs",
    "seconds",
    "peak_memory_bytes",
    "device",
    "threads",
    "precision",
    "commit",
    "dirty",
    "versions",
    "config_sha256",
    "images_sha256",
    "started",
    "finished",
)


class Failed(ValueError):
    """The last attempt at a run ended with an error of its own, which the run wrote down."""


def record_of(run, planned=None) -> dict:
    """The record of a trained run. Raises Failed, or ValueError with the reason why it does not count.

    planned: the settings that it must have been trained with; None: those in its run.yaml.
    """
    try:
        if not (run.directory / "record.json").exists():
            raise ValueError("interrupted" if (run.directory / "checkpoint.pt").exists() else "not run")
        record = _json(run.directory / "record.json", RECORD)
        if any(record[name] != getattr(run, name) for name in IDENTITY):
            raise ValueError("record.json is that of another run")
        _check_settings(run, record, planned)
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
    where = ", ".join(
        f"{name} {told[name]}" for name in ("epoch", "step", "term") if told.get(name) is not None
    )
    error = " ".join(str(told.get("error", "")).split()) or "no reason given"
    return f"{error} ({where})" if where else error


def _check_before(run) -> None:
    """A run that was never started may be waiting for one that failed."""
    try:
        record_of(run.after)
    except Failed:
        raise ValueError(f"{run.after.stage}, on which it builds, failed") from None


def _check_settings(run, record: dict, planned) -> None:
    """What is planned must be what was trained; the record's options have the method's defaults filled in."""
    path, options = run.directory / "run.yaml", record["options"]
    if planned is None and not path.exists():
        return
    try:
        planned = planned or settings.load_run(run.directory)
    except ValueError as error:
        raise ValueError(str(error).replace(str(path), "run.yaml")) from None
    same_options = all(options.get(name) == value for name, value in planned.options.items())
    digest = settings.digest(dataclasses.replace(planned, options=options))
    if not same_options or digest != record["config_sha256"]:
        raise ValueError("run.yaml has changed since it was trained: train again")


def metrics_of(run, record: dict) -> dict:
    """The metrics of a trained run; ValueError if there are none, or those of another training."""
    if not (run.directory / "metrics.json").exists():
        raise ValueError("trained, not evaluated")
    metrics = _json(run.directory / "metrics.json", ("scores", "oracle"))
    of, stored = metrics.get("of", {}), run.directory / "assignments.npz"
    if any(of.get(name) != record[name] for name in ("finished", "config_sha256")):
        raise ValueError("metrics.json is that of another training: evaluate again")
    if stored.exists() and sha256(stored) != of["assignments_sha256"]:
        raise ValueError("assignments.npz has changed since it was evaluated: evaluate again")
    return metrics


def _json(path: Path, keys: tuple[str, ...]) -> dict:
    """The object in `path`; ValueError if it cannot be read or lacks one of `keys`."""
    try:
        content = json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise ValueError(f"{path.name} is not readable: make it again") from None
    lacking = [key for key in keys if key not in content]
    if lacking:
        raise ValueError(f"{path.name} lacks {', '.join(lacking)}: it is of another version, make it again")
    return content


def _check_chain(run, record: dict) -> None:
    """The stage before must not have been trained again since, or on other images.

    Its start decides: what a finished training leaves behind can be written again without training.
    """
    before = run.after and run.after.directory / "record.json"
    if not before or not before.exists():
        return
    earlier = _json(before, RECORD)
    if earlier["images_sha256"] != record["images_sha256"]:
        raise ValueError(f"{run.after.stage}, on which it builds, saw other images: train again")
    if datetime.fromisoformat(earlier["started"]) > datetime.fromisoformat(record["finished"]):
        raise ValueError(f"{run.after.stage}, on which it builds, was trained again since: train again")


def chain(run) -> list:
    """The run and those that it builds on, last first."""
    return [run] + (chain(run.after) if run.after is not None else [])


def records_before(run) -> list[dict]:
    """Records of the stages that a run builds on, as far as they are there, last first."""
    paths = [link.directory / "record.json" for link in chain(run)[1:]]
    return [_json(path, RECORD) for path in paths if path.exists()]


def settings_of(run) -> str:
    """Twelve digits that are equal for runs that differ in nothing but the seed; "" without run.yaml."""
    parts = []
    for link in chain(run):
        path = link.directory / "run.yaml"
        if not path.exists():
            return ""
        content = yaml.load(path.read_text(), Loader=LOADER)
        parts.append({key: value for key, value in content.items() if key not in PLACE_OF_A_RUN})
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]
