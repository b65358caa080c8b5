"""From the run folders of a study to runs.csv: a row a planned run, whatever became of it.

A run counts as done only if its record, its metrics and the run that it builds on agree with one another;
what does not is "missing" with the reason, so that no stale number reaches a table.
"""

from __future__ import annotations

import csv
import dataclasses
import typing
from dataclasses import dataclass
from pathlib import Path

from benchmarks.report.state import Failed, chain, metrics_of, record_of, records_before, settings_of
from scl.record import atomic

STATUSES = ("done", "failed", "missing", "skipped")
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


def _measured(run, record: dict, metrics: dict) -> dict:
    scores, oracle = metrics["scores"] or {}, metrics["oracle"] or {}
    before = records_before(run)
    whole = len(before) == len(chain(run)) - 1
    return (
        {name: scores.get(name) for name in SCORES}
        | {name: record[name] for name in COPIED}
        | {
            "reason": metrics.get("reason") or "",
            "neighbour_purity": metrics.get("neighbour_purity"),
            "oracle_acc": oracle.get("acc"),
            "oracle_epoch": oracle.get("epoch"),
            "chain_seconds": record["seconds"] + sum(r["seconds"] for r in before) if whole else None,
            "peak_memory_mb": record["peak_memory_bytes"] / 1e6,
            "torch": record["versions"]["torch"],
            "settings": settings_of(run),
            "other_commits": " ".join(_other_commits(record, before)),
            "other_devices": ", ".join(_other_devices(record)),
            "counts": ", ".join(f"{name} {count}" for name, count in record.get("counts", {}).items()),
            "finished": record["finished"],
        }
    )


def _other_commits(record: dict, before: list[dict]) -> list[str]:
    attempts = [attempt["commit"] for attempt in record.get("attempts", [])]
    return sorted({*attempts, *(earlier["commit"] for earlier in before)} - {record["commit"]})


def _other_devices(record: dict) -> list[str]:
    attempts = [attempt for attempt in record.get("attempts", []) if "device" in attempt]
    return sorted({f"{a['device']} {a['precision']}" for a in attempts} - {f"{record['device']} {record['precision']}"})
