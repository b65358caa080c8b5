"""The runs of a study as one table, runs.csv: one row per planned run, whatever its status.

A result that does not count (benchmarks.state) is "missing", with the reason, so that no stale number is reported.
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
from scl.util.text import say

STATUSES = ("done", "failed", "missing", "skipped")
RUN = ["benchmark", "protocol", "stage", "seed"]  # name a run
TEXT, NUMBER, COUNT, FLAG = "object", "float64", "Int64", "boolean"
COLUMNS = {
    "benchmark": TEXT, "protocol": TEXT, "stage": TEXT, "method": TEXT, "seed": "int64",  # method: the title
    "status": TEXT, "reason": TEXT,  # one of STATUSES; why the run is not done or has no scores
    # scores of the last epoch and shares of images, as fractions
    "acc": NUMBER, "nmi": NUMBER, "nmi_geometric": NUMBER, "ari": NUMBER,
    "clusters": COUNT, "clusters_used": COUNT, "largest_share": NUMBER, "smallest_share": NUMBER,
    "mean_confidence": NUMBER, "neighbor_purity": NUMBER,
    "oracle_acc": NUMBER, "oracle_epoch": COUNT,  # the best evaluated epoch by labels: for display only
    # seconds of this stage, chain_seconds with its upstream stages; memory in 10^6 bytes
    "epochs": COUNT, "seconds": NUMBER, "chain_seconds": NUMBER, "peak_memory_mb": NUMBER,
    # dirty: the code of the run, of an earlier attempt, or of an upstream stage had uncommitted changes
    "device": TEXT, "threads": COUNT, "precision": TEXT, "commit": TEXT, "dirty": FLAG, "config_sha256": TEXT,
    "settings": TEXT,  # hash of the settings of the run and its upstream stages without the seed
    # of upstream stages (commits only) and earlier attempts, if they differ from those of the run
    "other_commits": TEXT, "other_devices": TEXT,
    "images_sha256": TEXT, "torch": TEXT, "packages": TEXT,  # versions of PyTorch, and of Python and other packages
    "counts": TEXT,  # events that the method counted, such as skipped steps
    "finished": TEXT,
}  # fmt: skip


class Unfinished(ValueError):
    """Some run of the study is neither done nor skipped."""


def collect(study, folder: Path, *, committed: bool = False) -> Path:
    """Write and return `folder`/runs.csv. committed: see Survey.

    In the results folder of the study, remove the partial report, or raise Unfinished if a run is not done. Elsewhere,
    say if the tables in the results folder are of an earlier state of the study.
    """
    runs, path = runs_of(study, Survey(study, committed=committed)), folder / "runs.csv"
    problem = unfinished(runs)
    if folder == study.results:
        if problem:
            raise Unfinished(problem)
        shutil.rmtree(study.results / "partial", ignore_errors=True)
    elif problem and (tables := study.results / "tables.md").exists():
        say(f"{tables} and the report beside it are of an earlier state; the current one is in {folder}: {problem}")
    with atomic(path) as temporary:
        temporary.write_bytes(csv_of(runs))
    return path


def unfinished(runs: pd.DataFrame) -> str:
    """How many of `runs` are neither done nor skipped, and which comes first; "" if there is none."""
    left = runs[~runs.status.isin(["done", "skipped"])]
    if left.empty:
        return ""
    first = left.iloc[0]
    return (
        f"{len(left)} of {len(runs)} runs are not done, such as {first.benchmark} {first.protocol} {first.stage} "
        f"seed {first.seed} ({first.reason}); run the study to finish them"
    )


def is_collected(study, folder: Path, survey: Survey | None = None) -> bool:
    """Whether `folder`/runs.csv contains the current results: copied ones may be older than it. survey: by default a
    new one."""
    return (folder / "runs.csv").read_bytes() == csv_of(runs_of(study, survey))


def csv_of(runs: pd.DataFrame) -> bytes:
    """The content of runs.csv."""
    return runs.to_csv(index=False, lineterminator="\n").encode("utf-8", "backslashreplace")


def read_runs(study, folder: Path) -> pd.DataFrame:
    """`folder`/runs.csv, in the study's order. ValueError if it is missing, of another version, or of other runs."""
    path = folder / "runs.csv"
    if not path.exists():
        raise ValueError(f"{path} is missing; collect the runs first")
    empty = {name: [""] for name, kind in COLUMNS.items() if kind != TEXT}
    try:
        runs = pd.read_csv(path, usecols=[*COLUMNS], dtype=COLUMNS, keep_default_na=False, na_values=empty)
    except ValueError as error:  # including a missing column of this version
        raise ValueError(f"{path} cannot be read ({error}); collect the runs again") from None
    planned = [tuple(getattr(run, key) for key in RUN) for run in study.runs()]
    if list(runs[RUN].itertuples(index=False, name=None)) != planned:
        raise ValueError(f"{path} has other runs than the study plans; collect the runs again")
    return runs.assign(dirty=runs.dirty.fillna(False).astype(bool))  # unknown without git


def runs_of(study, survey: Survey | None = None) -> pd.DataFrame:
    """One row per planned run, in the study's order. survey: by default a new one."""
    survey = survey or Survey(study)
    return pd.DataFrame([row_of(run, survey) for run in study.runs()], columns=list(COLUMNS), dtype=object)


def row_of(run, survey: Survey) -> dict:
    """The row of one planned run: values of COLUMNS, those of its result only if it is done."""
    state = survey.state(run)
    status = state.status if state.status in STATUSES else "missing"
    reason = (state.metrics.reason or "") if state.metrics else state.reason
    row = {key: getattr(run, key) for key in RUN} | {"method": run.title, "status": status, "reason": reason}
    return (_measured(run, state, survey) if status == "done" else {}) | row


def _measured(run, state: State, survey: Survey) -> dict:
    record, metrics, upstream, folder = state.record, state.metrics, list[Record](), run.directory
    assert record and metrics  # of a done run, as are those of its upstream stages
    while run := run.after:
        upstream.append(cast(Record, survey.state(run).record))
    commits = {a.commit for a in record.attempts} | {r.commit for r in upstream}
    commits.add(record.kmeans_commit or record.commit)
    devices = {f"{a.device} {a.precision}" for a in record.attempts}
    dirty = any(one.dirty or any(a.dirty for a in one.attempts) for one in (record, *upstream))
    return {
        **{name: value for name, value in record.model_dump().items() if name in COLUMNS},
        "dirty": dirty or record.dirty,
        "clusters": record.identity.images.clusters,
        **(metrics.scores.model_dump() if metrics.scores else {}),
        **({"oracle_acc": metrics.oracle.acc, "oracle_epoch": metrics.oracle.epoch} if metrics.oracle else {}),
        "neighbor_purity": metrics.neighbor_purity,
        "chain_seconds": record.seconds + sum(earlier.seconds for earlier in upstream),
        "peak_memory_mb": record.peak_memory_bytes / 1e6,
        "torch": record.versions.get("torch") or "",
        "packages": ", ".join(f"{k} {v}" for k, v in record.versions.items() if v and k != "torch"),
        "settings": settings_of([record, *upstream]),
        "other_commits": " ".join(sorted(commits - {record.commit})),
        "other_devices": ", ".join(sorted(devices - {f"{record.device} {record.precision}"})),
        "counts": _counts(record.counts, folder / "history.csv"),
    }


def _counts(counts: dict[str, int], history: Path) -> str:
    """The counted events of a run; for those called "steps ...", also the total number of steps."""
    texts = []
    for name, count in counts.items():
        of_all = f" of {pd.read_csv(history).steps.sum()}" if name.startswith("steps ") else ""
        texts.append(f"{name} {count}{of_all}")
    return ", ".join(texts)


def settings_of(chain: list[Record]) -> str:
    """Twelve digits, equal for runs that differ only in the seed. chain: the record of the run, then upstream ones."""
    parts = [{k: v for k, v in record.identity.settings.items() if k != "seed"} for record in chain]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]
