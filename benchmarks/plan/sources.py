"""Find measurements of runs: finished runs of this working directory, calibrations, and committed measurements."""

import csv
import json
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from benchmarks.plan.machine import Place, without_instructions
from benchmarks.plan.rates import Measurements, Rate, Work, kind_of, kmeans_seconds, lengths, train_seconds, work_of
from benchmarks.study import Study, load_study
from scl.config import Network, RunSettings, Training
from scl.engine.artifacts import ASSIGNMENTS, Record, clustering, load
from scl.engine.io import Damaged
from scl.engine.provenance import ROOT, versions

CALIBRATIONS = Path("results/calibration")  # ignored by git, as all of results/
COMMITTED = ROOT / "results" / "reference"
JOBS = {"train": 1.57, "evaluate": 0.59}  # seconds to start without a calibration, from bench/plan.json


@dataclass(frozen=True)
class Measured:
    """A rate and where it comes from. mark: the letter of the source in the table."""

    rate: Rate
    mark: str
    source: str


class Sources:
    """The measurements that apply to the runs of a study at a place. Each kind of source is read only when needed."""

    def __init__(self, study: Study, place: Place, *, calibrations: Path, committed: Path):
        self.study, self.place, self.calibrations, self.committed = study, place, calibrations, committed
        self._found: dict[tuple, Measured | None] = {}

    def find(self, work: Work) -> Measured | None:
        """The best measurement for a run: records of this device, a calibration of it, or committed measurements."""
        key = work.run.benchmark, work.run.protocol, work.run.stage  # seeds share it
        if key not in self._found:
            self._found[key] = self._find(work)
        return self._found[key]

    def _find(self, work: Work) -> Measured | None:
        device = self.place.device if work.trains else self.place.cpu
        threads = None if device == self.place.gpu else self.place.threads
        here = [rate for name, rate in self.records if name == device]
        if found := _nearest(work, here, threads=threads):
            seconds = {train_seconds(work, rate) + kmeans_seconds(work, rate): rate for rate in found}
            typical = seconds[statistics.median_high(seconds)]
            return Measured(typical, "r", f"{len(found)} finished run{'s' * (len(found) > 1)} on this device")
        for measured in self.calibrated:
            if found := _nearest(work, measured.rates, threads=threads):
                return Measured(found[0], "c", f"calibration of this device on {measured.finished[:10]}")
        like = [one for one in self.published if one[0].startswith("CPU: ") == device.startswith("CPU: ")]
        for name, rates in sorted(like, key=lambda one: without_instructions(one[0]) != without_instructions(device)):
            if found := _nearest(work, rates, any_batch=True):
                return Measured(found[0], "m", f"measured on {name} (results/reference)")
        return None

    @cached_property
    def start_seconds(self) -> float:
        """Seconds to start the processes of a run."""
        return sum((self.calibrated[0].jobs if self.calibrated else JOBS).values())

    @cached_property
    def records(self) -> list[tuple[str, Rate]]:
        """(device, rate) of each finished run of this study and of others in the working directory."""
        plans = [self.study.results / "study.yaml", Path("results/study.yaml"), *Path("results").glob("*/study.yaml")]
        return [one for plan in sorted({path.absolute() for path in plans}) for one in recorded_rates(plan, self.study)]

    @cached_property
    def calibrated(self) -> list[Measurements]:
        """Calibrations of this device with the installed versions, newest first."""
        current = versions()
        here = [m for m in _files(self.calibrations) if (m.device, m.versions) == (self.place.device, current)]
        return sorted(here, key=lambda m: m.finished, reverse=True)

    @cached_property
    def published(self) -> list[tuple[str, list[Rate]]]:
        """(device, rates) of each committed file: of calibrations, then of `scl bench`."""
        folder = self.committed / "bench"
        return [*((m.device, m.rates) for m in _files(folder)), *_benched(folder, self.study)]


def _files(folder: Path) -> list[Measurements]:
    """The files of measurements in a folder; other files are skipped."""
    found = []
    for path in sorted(folder.glob("*.json")):
        try:
            found.append(Measurements.model_validate_json(path.read_bytes()))
        except (OSError, ValueError):
            continue
    return found


def _benched(folder: Path, study: Study) -> Iterator[tuple[str, list[Rate]]]:
    """Steps timed by `scl bench`, which uses the standard network and times no assignments."""
    for path in sorted(folder.glob("*.json")):
        try:
            found = json.loads(path.read_bytes())
            training = Training(epochs=1, batch_size=found["batch_size"], compile=found["compile"])
            rate = Rate(
                kind=kind_of(study.methods[found["stage"]].method, found["size"], Network(), training),
                options={},
                benchmark="",
                stage=found["stage"],
                images=found["images"][0],
                clusters=found["clusters"][0],
                threads=found["threads"],
                batch_size=found["batch_size"],
                step_seconds=found["parts"]["step"]["seconds_per_step"],
            )
            yield found["device"], [rate]
        except (OSError, ValueError, KeyError, TypeError, IndexError):  # other files, other studies
            continue


# --- finished runs -------------------------------------------------------------------------------------------------


def recorded_rates(plan: Path, study: Study) -> Iterator[tuple[str, Rate]]:
    """(device, rate) of the finished runs beside the study.yaml of a study. study: used if that file does not exist
    yet, as after `scl run`."""
    try:
        study = load_study(plan) if plan.exists() else study
    except (ValueError, OSError):  # from another version
        return
    for path in sorted((plan.parent / "runs").glob("*/*/*/*/record.json")):
        try:
            record = load(path.parent)
            if record and ASSIGNMENTS in record.files:
                yield record.device, _rate_of(record, path.parent, study)
        except (Damaged, OSError, ValueError, KeyError, TypeError):  # damaged, from another version, not in the study
            continue


def clustering_seconds(record: Record, directory: Path) -> float:
    """Seconds of the k-means after training that `record` counts."""
    made = clustering(directory, record.fingerprint) if record.kmeans and ASSIGNMENTS in record.files else None
    return made.seconds if made else 0.0


def _rate_of(record: Record, directory: Path, study: Study) -> Rate:
    """All seconds of training are attributed to its steps or, without steps, to its assignment."""
    settings = RunSettings.model_validate({"data": "", **record.identity.settings})
    run = study.run(record.benchmark, record.protocol, record.stage, record.seed)
    work = work_of(study, run, lengths(record.identity.images.splits), settings)
    with open(directory / "history.csv", newline="") as file:
        steps = sum(int(row["steps"]) for row in csv.DictReader(file))
    if work.trains and not steps:
        raise ValueError(f"{directory}: its history has no steps")
    unlabeled = None
    batch = min(settings.training.batch_size, work.fit + work.unlabeled)
    if steps and work.unlabeled:
        unlabeled = max(0.0, (steps * batch / settings.training.epochs - work.fit) / work.unlabeled)
    assigned = clustering_seconds(record, directory) if steps else record.seconds
    weights = directory / "weights.pt"
    return Rate(
        kind=work.kind,
        options=settings.options,
        benchmark=run.benchmark,
        stage=run.stage,
        images=work.fit,
        clusters=record.identity.images.clusters,
        threads=record.threads,
        batch_size=batch,
        step_seconds=(record.seconds - assigned) / steps if steps else 0.0,
        assign_seconds=assigned / work.points * work.fit / work.evaluated,
        kmeans="kmeans_restarts" in settings.options,
        unlabeled=unlabeled,
        weight_bytes=weights.stat().st_size if weights.exists() else None,
    )


# --- choice --------------------------------------------------------------------------------------------------------


def _nearest(work: Work, rates: list[Rate], *, threads: int | None = None, any_batch: bool = False) -> list[Rate]:
    """The rates of the same kind that are most similar to a run. threads: required number, None for any."""

    def applies(rate: Rate) -> bool:
        free = {"batch_size": None} if any_batch else {}
        known = not (work.unlabeled and work.trains) or rate.unlabeled is not None
        return known and threads in (None, rate.threads) and rate.kind | free == work.kind | free

    def distance(rate: Rate) -> tuple:
        batch = rate.kind.get("batch_size") != work.kind.get("batch_size")
        return batch, rate.benchmark != work.run.benchmark, rate.stage != work.run.stage, abs(rate.images - work.fit)

    same = [rate for rate in rates if applies(rate)]
    nearest = min(map(distance, same), default=None)
    return [rate for rate in same if distance(rate) == nearest]
