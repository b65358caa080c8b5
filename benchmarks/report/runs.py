"""The runs of a study as one table, runs.csv: one row per planned run, whatever became of it.

A result that does not count (benchmarks.state) is "missing", with the reason, so that no stale number reaches a report.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import cast

import pandas as pd

from benchmarks.state import State, Survey
from scl.engine.artifacts import Record
from scl.engine.io import atomic

STATUSES = ("done", "failed", "missing", "skipped")
TEXT, NUMBER, COUNT, FLAG = "object", "float64", "Int64", "boolean"
COLUMNS = {  # of runs.csv. Shares and scores are fractions, times seconds, memory 10^6 bytes
    "benchmark": TEXT,
    "protocol": TEXT,
    "stage": TEXT,
    "method": TEXT,  # title in tables
    "seed": "int64",
    "status": TEXT,  # one of STATUSES
    "reason": TEXT,  # why it is not done, or has no scores
    "acc": NUMBER,
    "nmi": NUMBER,
    "nmi_geometric": NUMBER,
    "ari": NUMBER,
    "clusters_used": COUNT,
    "largest_share": NUMBER,
    "smallest_share": NUMBER,
    "mean_confidence": NUMBER,
    "neighbor_purity": NUMBER,
    "oracle_acc": NUMBER,  # best kept epoch by labels: for display only
    "oracle_epoch": COUNT,
    "epochs": COUNT,
    "seconds": NUMBER,  # this stage
    "chain_seconds": NUMBER,  # with the stages that it builds on
    "peak_memory_mb": NUMBER,
    "device": TEXT,
    "threads": COUNT,
    "precision": TEXT,
    "commit": TEXT,
    "dirty": FLAG,
    "config_sha256": TEXT,
    "settings": TEXT,  # of the run and those it builds on, without the seed, hashed
    "other_commits": TEXT,  # of earlier attempts and the stages that it builds on, if not `commit`
    "other_devices": TEXT,  # of earlier attempts, with their precision, if not `device` and `precision`
    "images_sha256": TEXT,
    "torch": TEXT,
    "counts": TEXT,  # events that the method counted, e.g. steps that it had to skip
    "finished": TEXT,
}


class Unfinished(ValueError):
    """A study of which a run is neither done nor skipped for want of its data."""


def collect(study, folder: Path) -> Path:
    """Write and return `folder`/runs.csv. If that is the folder of the study's results, every run must be done, else
    Unfinished is raised; once they are, the report of a part of them is removed."""
    runs, path = runs_of(study), Path(folder) / "runs.csv"
    if path.parent == study.results:
        undone = runs[~runs.status.isin(["done", "skipped"])]
        if len(undone):
            first = undone.iloc[0]
            raise Unfinished(
                f"{len(undone)} of {len(runs)} runs are not done, such as {first.benchmark} {first.protocol} "
                f"{first.stage} seed {first.seed} ({first.reason}); the command that runs the study makes them"
            )
        shutil.rmtree(study.results / "partial", ignore_errors=True)
    with atomic(path) as temporary:
        runs.to_csv(temporary, index=False, lineterminator="\n", encoding="utf-8", errors="backslashreplace")
    return path


def read_runs(folder: Path) -> pd.DataFrame:
    """`folder`/runs.csv, in the study's order. ValueError if it is missing or of another version."""
    path = Path(folder) / "runs.csv"
    if not path.exists():
        raise ValueError(f"{path} is missing: collect the runs first")
    empty = {name: [""] for name, kind in COLUMNS.items() if kind != TEXT}
    try:
        runs = pd.read_csv(path, dtype=COLUMNS, keep_default_na=False, na_values=empty)
    except ValueError as error:
        raise ValueError(f"{path} cannot be read ({error}): collect the runs again") from None
    if set(runs.columns) != set(COLUMNS):
        raise ValueError(f"{path} has other columns than this version writes: collect the runs again")
    return runs.assign(dirty=runs.dirty.fillna(False).astype(bool))  # unknown without git


def runs_of(study) -> pd.DataFrame:
    """A row for each planned run, in the study's order, read from the folders of the runs."""
    survey = Survey(study)
    return pd.DataFrame([row_of(run, survey) for run in study.runs()], columns=list(COLUMNS), dtype=object)


def row_of(run, survey: Survey) -> dict:
    """The row of one planned run: values of COLUMNS, those of its result only if it is done."""
    state = survey.state(run)
    row = {name: getattr(run, name) for name in ("benchmark", "protocol", "stage", "seed")}
    status = state.status if state.status in STATUSES else "missing"
    done = status == "done"
    reason = (state.metrics.reason or "") if state.metrics else state.reason
    row |= {"method": run.title, "status": status, "reason": reason}
    return (_measured(run, state, survey) if done else {}) | row


def _measured(run, state: State, survey: Survey) -> dict:
    record, metrics, before = state.record, state.metrics, list[Record]()
    assert record and metrics  # of a done run, as are those of the stages before
    while run := run.after:
        before.append(cast(Record, survey.state(run).record))
    return (
        {name: value for name, value in record.model_dump().items() if name in COLUMNS}
        | (metrics.scores.model_dump() if metrics.scores else {})
        | {f"oracle_{name}": value for name, value in (metrics.oracle.model_dump() if metrics.oracle else {}).items()}
        | {
            "neighbor_purity": metrics.neighbor_purity,
            "chain_seconds": record.seconds + sum(earlier.seconds for earlier in before),
            "peak_memory_mb": record.peak_memory_bytes / 1e6,
            "torch": record.versions.get("torch") or "",
            "settings": settings_of([record, *before]),
            "other_commits": " ".join(_other_commits(record, before)),
            "other_devices": ", ".join(_other_devices(record)),
            "counts": ", ".join(f"{name} {count}" for name, count in record.counts.items()),
        }
    )


def settings_of(chain: list[Record]) -> str:
    """Twelve digits that are equal for runs that differ in nothing but the seed. chain: the run's record and those of
    the stages that it builds on, last first."""
    parts = [{k: v for k, v in record.identity.settings.items() if k != "seed"} for record in chain]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]


def _other_commits(record: Record, before: list[Record]) -> list[str]:
    return sorted({*(a.commit for a in record.attempts), *(r.commit for r in before)} - {record.commit})


def _other_devices(record: Record) -> list[str]:
    return sorted({f"{a.device} {a.precision}" for a in record.attempts} - {f"{record.device} {record.precision}"})
