"""From the run folders of a study to runs.csv: a row a planned run, whatever became of it.

What does not count (benchmarks.state) is "missing" with the reason, so that no stale number reaches a table.
"""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import json
import shutil
import typing
from dataclasses import dataclass
from pathlib import Path

from benchmarks.state import State, Survey
from scl.record import atomic
from scl.run_files import Record

STATUSES = ("done", "failed", "missing", "skipped")
WHOLE = ("done", "skipped")
SCORES = (
    "acc",
    "nmi",
    "nmi_geometric",
    "ari",
    "clusters_used",
    "largest_share",
    "smallest_share",
    "mean_confidence",
)
COPIED = (  # from the record
    "epochs",
    "seconds",
    "device",
    "threads",
    "precision",
    "commit",
    "dirty",
    "config_sha256",
    "images_sha256",
)


@dataclass(frozen=True)
class Row:
    """A line of runs.csv. Shares and scores are fractions, times seconds, memory 10^6 bytes."""

    benchmark: str
    protocol: str
    stage: str
    method: str  # title in tables
    seed: int
    status: str  # one of STATUSES
    reason: str = ""  # why it is not done, or has no scores
    acc: float | None = None
    nmi: float | None = None
    nmi_geometric: float | None = None
    ari: float | None = None
    clusters_used: int | None = None
    largest_share: float | None = None
    smallest_share: float | None = None
    mean_confidence: float | None = None
    neighbour_purity: float | None = None
    oracle_acc: float | None = None  # best kept epoch by labels: for display only
    oracle_epoch: int | None = None
    epochs: int | None = None
    seconds: float | None = None  # this stage
    chain_seconds: float | None = None  # with the stages that it builds on
    peak_memory_mb: float | None = None
    device: str = ""
    threads: int | None = None
    precision: str = ""
    commit: str = ""
    dirty: bool | None = None
    config_sha256: str = ""
    settings: str = ""  # run.yaml without seed and places, with those of its chain, hashed
    other_commits: str = ""  # of earlier attempts and the stages that it builds on, if not `commit`
    other_devices: str = ""  # of earlier attempts, with their precision, if not `device` and `precision`
    images_sha256: str = ""
    torch: str = ""
    counts: str = ""  # events that the method counted, e.g. steps that it had to skip
    finished: str = ""

    @property
    def on_cpu(self) -> bool:
        return self.device.startswith("CPU")


class Unfinished(ValueError):
    """A study of which a run is neither done nor skipped for want of its data."""


def collect(study, folder: Path) -> Path:
    """Write and return `folder`/runs.csv. If that is the folder of the study's results, every run must be done, else
    Unfinished is raised; once they are, the report of a part of them is removed."""
    rows, path = rows_of(study), Path(folder) / "runs.csv"
    if path.parent == study.results:
        undone = [row for row in rows if row.status not in WHOLE]
        if undone:
            first = undone[0]
            raise Unfinished(
                f"{len(undone)} of {len(rows)} runs are not done, such as {first.benchmark} {first.protocol} "
                f"{first.stage} seed {first.seed} ({first.reason}); the command that runs the study makes them"
            )
        shutil.rmtree(study.results / "partial", ignore_errors=True)
    names = [field.name for field in dataclasses.fields(Row)]
    how = {"newline": "", "encoding": "utf-8", "errors": "backslashreplace"}
    with atomic(path) as temporary, temporary.open("w", **how) as file:
        writer = csv.DictWriter(file, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(map(dataclasses.asdict, rows))
    return path


def read_rows(folder: Path) -> list[Row]:
    """The rows of `folder`/runs.csv, in the study's order. ValueError if it is missing or of another version."""
    path = Path(folder) / "runs.csv"
    if not path.exists():
        raise ValueError(f"{path} is missing: collect the runs first")
    kinds = typing.get_type_hints(Row)
    with path.open(newline="", encoding="utf-8") as file:
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


def rows_of(study) -> list[Row]:
    """A row for each planned run, in the study's order."""
    found = Survey(study)
    return [row_of(run, found) for run in study.runs()]


def row_of(run, found: Survey) -> Row:
    """What became of one planned run."""
    state = found.state(run)
    status = state.status if state.status in STATUSES else "missing"
    row = Row(run.benchmark, run.protocol, run.stage, run.title, run.seed, status, reason=state.reason)
    return dataclasses.replace(row, **_measured(run, state, found)) if status == "done" else row


def _measured(run, state: State, found: Survey) -> dict:
    record, metrics, before = state.record, state.metrics, []
    while run.after:
        run = run.after
        before.append(found.state(run).record)
    scores, oracle = metrics.scores, metrics.oracle
    return (
        {name: getattr(scores, name, None) for name in SCORES}
        | {name: getattr(record, name) for name in COPIED}
        | {
            "reason": metrics.reason or "",
            "neighbour_purity": metrics.neighbour_purity,
            "oracle_acc": oracle and oracle.acc,
            "oracle_epoch": oracle and oracle.epoch,
            "chain_seconds": record.seconds + sum(earlier.seconds for earlier in before),
            "peak_memory_mb": record.peak_memory_bytes / 1e6,
            "torch": record.versions.get("torch") or "",
            "settings": settings_of([record, *before]),
            "other_commits": " ".join(_other_commits(record, before)),
            "other_devices": ", ".join(_other_devices(record)),
            "counts": ", ".join(f"{name} {count}" for name, count in record.counts.items()),
            "finished": record.finished,
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
