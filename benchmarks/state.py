"""The status of every planned run: the only place that decides whether a result counts.

A result counts if its record matches the run as planned (scl.engine.identity: settings, versions, images, initial
weights) and its files match the checksums of the record; all others are recreated. Nothing is written, and nothing
large is read: images and weights are hashed when a run loads them. Reasons name files, not folders, since runs.csv
publishes them.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from benchmarks.datasets.catalog import count_of, is_published
from benchmarks.datasets.prepare import CHANGED, is_changed, unlike
from benchmarks.evaluation import VERSION
from scl import config
from scl.engine import failures, features
from scl.engine.artifacts import ASSIGNMENTS, CLUSTERING, Record, Strict, damage, load, read
from scl.engine.identity import difference, identity_of
from scl.engine.io import Damaged
from scl.engine.prepared import describe

SMALL = (ASSIGNMENTS, "history.csv")  # files whose checksums are always compared

AGAIN = "the images are to be prepared again ({})"
CLUSTERED = "clustered"  # empty: tells Snakemake that clustering.json was written


class Scores(Strict):
    """Scores of the last epoch (benchmarks.evaluation.metrics)."""

    acc: float
    nmi: float
    nmi_geometric: float
    ari: float
    clusters_used: int
    largest_share: float
    smallest_share: float
    mean_confidence: float | None


class Point(Strict):
    """One point of a curve: the scores after an epoch."""

    epoch: int
    acc: float
    nmi: float
    ari: float


class Oracle(Strict):
    """The best epoch by labels."""

    acc: float
    epoch: int


class Scored(Strict):
    """What was scored, and the version of the evaluator."""

    fingerprint: str
    assignments_sha256: str
    labels_sha256: str | None
    evaluator: int


class Metrics(Strict):
    """metrics.json. dataset, folder: the source of the images (benchmarks.evaluation.evaluate); None in files of
    earlier versions."""

    scores: Scores | None
    per_epoch: list[Point]
    oracle: Oracle | None
    neighbor_purity: float | None
    reason: str | None = None
    dataset: str | None = None
    folder: str | None = None
    of: Scored


@dataclass(frozen=True)
class State:
    """status: done, trained (not evaluated), unclustered (trained, its features are kept for k-means), failed (in
    training or, with a record, in k-means or evaluation), stopped (has a checkpoint), missing, outdated, damaged,
    waiting (for an upstream stage, or images that cannot be prepared) or skipped. record and metrics are set only if
    they count."""

    status: str
    reason: str = ""
    record: Record | None = None
    metrics: Metrics | None = None

    @property
    def needs_kmeans(self) -> bool:
        """Whether it is trained and its features are to be clustered."""
        return bool(self.record and self.record.unclustered)


class Survey:
    """States of the runs of a study, each determined once.

    committed: the runs are copies without assignments and perhaps histories (benchmarks/reference.py). The files of a
    copy are checked as usual; the images are those of the record, whatever this machine has prepared.
    """

    def __init__(self, study, *, committed: bool = False):
        self.study, self.committed = study, committed
        self.state = cache(self._state)
        self.prepared = cache(self._prepared)
        self.changed = cache(lambda name, known: is_changed(study.benchmarks[name], known))

    def states(self) -> dict:
        """{run: State} of every planned run."""
        return {run: self.state(run) for run in self.study.runs()}

    def outdated(self) -> list[Path]:
        """Existing files that do not count, which Snakemake must recreate."""
        files = [self.study.data / name / "benchmark.json" for name in self.unprepared()]
        for run, state in self.states().items():
            if not state.record and state.status in ("damaged", "outdated", "waiting", "failed"):
                files.append(run.directory / "record.json")
            if state.needs_kmeans:
                files.append(run.directory / CLUSTERED)
            if state.status not in ("done", "skipped"):
                files.append(run.directory / "metrics.json")
        return [file for file in files if file.exists()]

    def unprepared(self) -> list[str]:
        """Benchmarks that are to be prepared, since they are not as configured and runs that are left need them."""
        left = {run.benchmark for run, state in self.states().items() if state.status not in ("done", "skipped")}
        return [name for name in self.study.benchmarks if name in left and not self._is_prepared(name)]

    def _is_prepared(self, benchmark: str) -> bool:
        facts, problem = self.prepared(benchmark)
        return facts is not None and not problem

    def _prepared(self, benchmark: str) -> tuple[dict | None, str]:
        """(contents of benchmark.json or None, why it must be prepared again or "")."""
        folder = self.study.data / benchmark
        if self.committed or not (folder / "benchmark.json").exists():
            return None, ""
        try:
            facts = describe(folder)
        except Damaged:
            return None, "benchmark.json is damaged"
        block, dataset = self.study.benchmarks[benchmark], self.study.dataset(benchmark)
        return facts, unlike(facts, block, dataset, self.study.downloads)

    def why_unprepared(self, benchmark: str) -> str:
        """Why the last attempt at preparing a benchmark that is not prepared failed, or ""."""
        folder = self.study.data / benchmark
        if self.committed or (folder / "benchmark.json").exists():
            return ""
        with suppress(Damaged):  # a damaged file says nothing, and the next attempt deletes it
            return _failure(folder / failures.NAME, self.study.benchmarks[benchmark])
        return ""

    def _state(self, run) -> State:
        if run.benchmark in self.study.skipped:
            return State("skipped", self.study.skipped[run.benchmark])
        planned = config.complete(self.study.settings(run))
        state = self._trained(run, planned)
        if state.record and not state.needs_kmeans:
            state = self._evaluated(run, state.record)
        if state.status == "done":
            return state
        try:
            failure = _failure(run.directory / failures.NAME, planned)
        except Damaged as error:
            return State("damaged", f"{failures.NAME} is {error}", state.record)
        return State("failed", failure, state.record) if failure else state

    def _trained(self, run, planned) -> State:
        try:
            record = load(run.directory)
        except Damaged as error:
            return State("damaged", f"record.json is {error}: train again")
        before = self.state(run.after) if run.after else None
        if before and not before.record:
            if before.status == "failed":
                return State("waiting", f"{run.after.stage}, on which it builds, failed")
            if record is not None:
                return State("waiting", f"{run.after.stage}, on which it builds, has to be trained again")
        if record is None:
            if (run.directory / "checkpoint.pt").exists():
                return State("stopped", "interrupted")
            failure = self.why_unprepared(run.benchmark)
            return State("waiting", f"no images: {failure}") if failure else State("missing", "not run")
        return self._checked(run, planned, record, before.record if before else None)

    def _checked(self, run, planned, record: Record, before: Record | None) -> State:
        facts, problem = self.prepared(run.benchmark)
        weights = before.files["weights.pt"] if before else None
        made = record.identity.model_dump()
        if problem and (facts is None or identity_of(planned, facts, weights)["images"] == made["images"]):
            return State("outdated", AGAIN.format(problem))
        if problem or facts is None:  # prepared for another study
            facts = _as_recorded(self.study, run.benchmark, record)
        identity = identity_of(planned, facts, weights)
        if changed := difference(identity, made):
            return State("outdated", f"{changed}: train again")
        names = [name for name in SMALL if not self.committed or (run.directory / name).exists()]
        for name, problem in damage(run.directory, record, names).items():
            return State("damaged", f"{name} is {problem}: train again")
        if record.unclustered:
            if features.lost(run.directory, record.unclustered, hashed=False):
                return State("damaged", f"{CLUSTERING} is not of this training, whose features are gone: train again")
            return State("unclustered", "trained, not clustered", record)
        return State("trained", "trained, not evaluated", record)

    def _evaluated(self, run, record: Record) -> State:
        try:
            metrics = read(run.directory / "metrics.json", Metrics)
        except Damaged as error:
            return State("trained", f"metrics.json is {error}: evaluate again", record)
        if metrics is None:
            return State("trained", "trained, not evaluated", record)
        facts = self.prepared(run.benchmark)[0] if self._is_prepared(run.benchmark) else None
        if facts is None and (problem := self._other_source(run.benchmark, metrics)):
            return State("outdated", AGAIN.format(problem))
        scored = Scored(
            fingerprint=record.fingerprint,
            assignments_sha256=record.files[ASSIGNMENTS],
            labels_sha256=facts.get("labels_sha256") if facts else metrics.of.labels_sha256,
            evaluator=VERSION,
        )
        if metrics.of == scored:
            return State("done", "", record, metrics)
        reason = "metrics.json is of another training, other labels or another version: evaluate again"
        return State("trained", reason, record)

    def _other_source(self, benchmark: str, metrics: Metrics) -> str:
        """How the source of images that are not prepared differs from that of scored ones; "" if it does not, if the
        user's images are on another machine, or if the scores are of an earlier version."""
        wanted = self.study.dataset(benchmark).name
        if metrics.dataset not in (None, wanted):
            return f"dataset: {metrics.dataset}, wanted {wanted}"
        return CHANGED if not self.committed and metrics.folder and self.changed(benchmark, metrics.folder) else ""


def untrained_runs(survey: Survey, run, *, needs_weights: bool = False) -> list:
    """The runs to train, upstream first. A run whose result counts needs nothing upstream."""
    counts = survey.state(run).record is not None
    if counts and not (needs_weights and not (run.directory / "weights.pt").exists()):
        return []
    return [*(untrained_runs(survey, run.after, needs_weights=True) if run.after else []), run]


def _as_recorded(study, benchmark: str, record: Record) -> dict:
    """Facts about images that no longer exist: from the record, with the clusters of the configuration, and without
    splits if their size or number differs from the configuration."""
    recorded, block, dataset = record.identity.images, study.benchmarks[benchmark], study.dataset(benchmark)
    published = dataset.clusters if is_published(dataset, study.downloads) else None
    count = sum(stop - start for start, stop in recorded.splits.values())
    wanted = None if dataset.user_path else block.subset or count_of(dataset, study.downloads)
    fits = record.size in (None, block.size or dataset.size, block.larger_size) and count in (wanted or count, 0)
    return {
        "images_sha256": recorded.sha256,
        "splits": recorded.splits if fits else {},
        "clusters": block.clusters or published or recorded.clusters,
    }


def _failure(path: Path, planned) -> str:
    """Why the last attempt with the planned settings failed, in one line, or "". Raises Damaged."""
    failure = read(path, failures.Failure)
    if failure is None or failure.config_sha256 != config.digest(planned):
        return ""
    place = {name: getattr(failure, name) for name in ("epoch", "step", "term")}
    where = ", ".join(f"{name} {value}" for name, value in place.items() if value is not None)
    return " ".join((f"{failure.error} ({where})" if where else failure.error).split())
