"""The current state of every run of a study, shared by `scl plan`, `scl status`, and `snakemake -n`. Read-only."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.state import Metrics, Survey
from benchmarks.study import Run
from scl.engine.artifacts import load, read
from scl.engine.locks import is_locked
from scl.engine.progress import read_progress
from scl.util.text import duration

RECENT = 10  # epochs over which the speed is measured


@dataclass(frozen=True)
class RunNow:
    """The current state of a planned run.

    status: that of its State (benchmarks.state), "running" (in training), or "clustering". reason: why it failed or
    does not count. seconds: of training and k-means so far, None if it must be trained. log: Snakemake's log of the
    training, or of k-means or evaluation if that failed; None if there is none. epochs: lines of progress.jsonl.
    """

    run: Run
    status: str
    reason: str
    seconds: float | None
    log: Path | None
    epochs: list[dict[str, Any]]

    @property
    def name(self) -> str:
        return f"{self.run.benchmark} {self.run.protocol} {self.run.stage} seed {self.run.seed}"

    @property
    def epoch(self) -> dict[str, Any]:
        """The last line of its progress; {} before the end of the first epoch."""
        return self.epochs[-1] if self.epochs else {}

    @property
    def speed(self) -> tuple[float, float] | None:
        """(images per second, seconds left) according to the last epochs; None before the end of the first one."""
        if not self.epochs:
            return None
        before, *recent = [{"seconds": 0.0}, *self.epochs][-RECENT - 1 :]
        seconds, last = max(self.epochs[-1]["seconds"] - before["seconds"], 1e-9), recent[-1]
        rate = sum(line["images"] for line in recent) / seconds
        return rate, seconds / len(recent) * (last["epochs"] - last["epoch"])

    def as_json(self) -> dict[str, Any]:
        run, (rate, left) = self.run, self.speed or (None, None)
        return {
            "run": f"{run.benchmark}/{run.protocol}/{run.stage}/{run.seed}",
            "status": self.status,
            "reason": self.reason,
            "log": self.log and str(self.log),
            "seconds": self.seconds,
            **{name: self.epoch.get(name) for name in ("epoch", "epochs", "loss")},
            "images_per_second": rate,
            "seconds_left": left if self.status == "running" else None,
        }


KMEANS_LOG, EVALUATION_LOG = ".kmeans.log", ".evaluate.log"


def log_of(directory: Path, suffix: str = ".log") -> Path:
    """Snakemake's log of the training of the run in `directory`: <results>/runs/a/b/c/seed0 -> <results>/logs/...
    suffix: KMEANS_LOG or EVALUATION_LOG for those of its k-means and its evaluation."""
    runs = directory.parent.parent.parent.parent
    return runs.with_name("logs") / directory.relative_to(runs).with_suffix(suffix)


def describe_result(directory: Path) -> str:
    """Epochs, time, and scores of an evaluated run, with the path of its log or, without a log, of its folder."""
    record, metrics = load(directory), read(directory / "metrics.json", Metrics)
    assert record and metrics  # it is evaluated
    log = log_of(directory) if len(directory.parts) > 5 else None  # not for `scl evaluate .`
    scores = metrics.scores
    found = [f"{name.upper()} {100 * getattr(scores, name):.1f}" for name in ("acc", "nmi", "ari")] if scores else []
    epochs = f"{record.epochs} epochs in " if record.epochs else ""
    place = f"log: {log}" if log and log.exists() else directory
    return (
        f"{record.benchmark} {record.protocol} {record.stage} seed {record.seed}: "
        f"{epochs}{duration(record.seconds)}, {', '.join(found) or metrics.reason} ({place})"
    )


class Overview:
    """The current state of all runs of a study that are not skipped."""

    def __init__(self, study, survey: Survey | None = None):
        self.study, self.survey = study, survey or Survey(study)
        self.runs = [self._now(run) for run in study.available_runs()]

    def _now(self, run: Run) -> RunNow:
        state, log = self.survey.state(run), log_of(run.directory)
        status, reason, seconds = state.status, state.reason, None
        locked = is_locked(run.directory / ".lock")
        if state.record:
            seconds = state.record.seconds
            if state.needs_kmeans and locked:
                status = "clustering"
            elif status == "failed":
                log = log_of(run.directory, KMEANS_LOG if state.needs_kmeans else EVALUATION_LOG)
        elif locked:
            status, reason = "running", ""
        epochs = read_progress(run.directory) if status in ("running", "stopped", "failed") else []
        return RunNow(run, status, reason, seconds, log if log.exists() else None, epochs)

    def count(self, *statuses: str) -> int:
        return sum(now.status in statuses for now in self.runs)

    @property
    def totals(self) -> dict[str, int]:
        """Numbers of runs. Runs that are neither trained, running, nor failed count as left."""
        counts = {
            "trained": self.count("unclustered", "clustering", "trained", "done"),
            "running": self.count("running"),
            "failed": self.count("failed"),
        }
        return {"runs": len(self.runs), **counts, "left": len(self.runs) - sum(counts.values())}

    @property
    def is_over(self) -> bool:
        """Whether every run is done, has failed, starts from a failed one or has no images, and none is running."""
        untrained = {now.run for now in self.runs if now.status == "failed" and now.seconds is None}

        def blocked(run: Run) -> bool:
            if self.survey.why_unprepared(run.benchmark):
                return True
            return run.after is not None and (run.after in untrained or blocked(run.after))

        ended = ("done", "failed")
        return all(now.status in ended or (now.status != "running" and blocked(now.run)) for now in self.runs)

    def as_json(self) -> dict[str, Any]:
        return {
            "study": self.study.title or self.study.results.name,
            "results": str(self.study.results),
            "totals": self.totals,
            "skipped": self.study.skipped,
            "runs": [now.as_json() for now in self.runs],
        }


class Watcher:
    """Observes a study repeatedly, but re-determines the states of its runs only after a change in a folder."""

    def __init__(self, study):
        self.study, self.survey = study, Survey(study)
        self._seen = self._marks()

    def look(self) -> Overview:
        if (marks := self._marks()) != self._seen:
            self.survey, self._seen = Survey(self.study), marks
        return Overview(self.study, self.survey)

    def _marks(self) -> list[int]:
        """Modification times of the runs' folders, which change with every file, since files are renamed into place."""
        folders = [run.directory for run in self.study.runs()]
        return [folder.stat().st_mtime_ns if folder.exists() else 0 for folder in folders]
