"""Read the files of a run: typed, checked, and with damaged files distinguished from missing ones."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from scl.config import in_one_line
from scl.engine.io import Damaged, set_aside, sha256

ASSIGNMENTS, CLUSTERING, WEIGHTS = "assignments.npz", "clustering.json", "weights.pt"
WRITTEN = (ASSIGNMENTS, WEIGHTS, "history.csv")  # of a finished run; their checksums are in the record
SAMPLE = "sample.npz"  # optional: records of earlier versions lack it, and nothing but the page needs it
CHECKSUM_DIFFERS = "damaged (its checksum is not the recorded one)"
NO_FILE = (IsADirectoryError, NotADirectoryError)
Model = TypeVar("Model", bound=BaseModel)


class Strict(BaseModel):
    """Base of models read from JSON files: values of other types are refused."""

    model_config = ConfigDict(strict=True)


class Attempt(Strict):
    """A process that trained a run, from its start or from a checkpoint. dirty: None in records of earlier versions."""

    started: str
    commit: str
    dirty: bool | None = None
    device: str
    precision: str


class SeenImages(Strict):
    """The images that a run was trained on."""

    sha256: str
    clusters: int
    splits: dict[str, list[int]]


class Identity(Strict):
    """What a run is made from: scl.engine.identity.identity_of."""

    settings: dict[str, Any]
    engine: int
    images: SeenImages
    weights: str | None


class KMeans(Strict):
    """The input of `scl kmeans`. files: {name in features/: SHA-256}."""

    clusters: int
    restarts: int
    seed: int
    files: dict[str, str]


class Record(Strict):
    """record.json: what a run was made from, on what machine, and its cost (seconds, bytes). kmeans: set only if
    `scl kmeans` makes the assignments from features that training keeps; `seconds` in the file then excludes k-means.
    size: pixels per side of the images; None in records of earlier versions."""

    benchmark: str
    protocol: str
    stage: str
    seed: int
    epochs: int
    seconds: float
    peak_memory_bytes: int
    precision: str
    commit: str
    dirty: bool | None
    versions: dict[str, str | None]
    device: str
    threads: int
    config_sha256: str
    images_sha256: str
    size: int | None = None
    identity: Identity
    fingerprint: str
    files: dict[str, str]
    kmeans: KMeans | None = None
    counts: dict[str, int]
    attempts: list[Attempt]
    finished: str
    kmeans_commit: str | None = None  # not in the file: `load` adds it from clustering.json

    @property
    def unclustered(self) -> dict[str, str]:
        """The features that `scl kmeans` has yet to cluster: {name: SHA-256}. Requires a record from `load`, which adds
        what clustering.json says."""
        return self.kmeans.files if self.kmeans and ASSIGNMENTS not in self.files else {}

    @model_validator(mode="after")
    def _has_the_checksums(self) -> "Record":
        needed = set(WRITTEN[1:] if self.kmeans else WRITTEN)
        if self.files.keys() - {SAMPLE} != needed:
            raise ValueError(f"files: must hold the checksums of {', '.join(sorted(needed))}")
        return self


class Clustering(Strict):
    """clustering.json: what `scl kmeans` made from which features of which run, by what code, at what cost (s)."""

    fingerprint: str
    features: dict[str, str]
    files: dict[str, str]
    seconds: float
    threads: int
    commit: str | None = None
    dirty: bool | None = None
    versions: dict[str, str | None] = {}


def read(path: Path, model: type[Model]) -> Model | None:
    """Parse a JSON file; None if there is no such file. Raises Damaged, without the path, if it is not valid.

    Raises OSError if it cannot be read: a missing permission, or a disk that does not answer, must not cost a result.
    """
    try:
        return model.model_validate(json.loads(path.read_bytes()))
    except FileNotFoundError:
        return None
    except NO_FILE as error:
        raise Damaged(f"not readable ({error.strerror})") from None
    except ValidationError as error:
        raise Damaged(f"damaged or of another version ({in_one_line(error)})") from None
    except (ValueError, RecursionError):
        raise Damaged("damaged (not JSON)") from None


def load(directory: Path) -> Record | None:
    """The record of a trained run, None if there is none. If `scl kmeans` has clustered its features, `files` holds
    assignments.npz, `seconds` are those of both, and the version of scikit-learn is that of k-means. Raises Damaged,
    without the path, if record.json is not valid."""
    record = read(directory / "record.json", Record)
    if record and record.kmeans:
        made = clustering(directory, record.fingerprint)
        if made and made.features == record.kmeans.files:
            record.files |= made.files
            record.seconds += made.seconds
            record.dirty = made.dirty or record.dirty
            record.kmeans_commit = made.commit
            record.versions |= {name: made.versions[name] for name in made.versions if name == "scikit-learn"}
    return record


def clustering(directory: Path, fingerprint: str) -> Clustering | None:
    """clustering.json if it belongs to this run, else None."""
    try:
        made = read(directory / CLUSTERING, Clustering)
    except Damaged:
        return None
    return made if made and made.fingerprint == fingerprint and made.files.keys() == {ASSIGNMENTS} else None


def clustered(directory: Path, fingerprint: str, files: dict[str, str]) -> Clustering | None:
    """clustering.json if the run has undamaged assignments from these features, which are then no longer needed."""
    made = clustering(directory, fingerprint)
    return made if made and files.items() <= made.features.items() and not damage(directory, made) else None


def damage(directory: Path, record: Record | Clustering, names: Iterable[str] = WRITTEN) -> dict[str, str]:
    """Check files of a trained run against its record: {name: problem} of those that differ. OSError as in `read`."""
    wrong = {}
    for name in names:
        if name not in record.files:  # not clustered yet
            continue
        try:
            if sha256(directory / name) != record.files[name]:
                wrong[name] = CHECKSUM_DIFFERS
        except FileNotFoundError:
            wrong[name] = "missing"
        except NO_FILE as error:
            wrong[name] = f"not readable ({error.strerror})"
    return wrong


def read_record(directory: Path) -> Record:
    """The record of a trained run. Raises Damaged if it is missing or, with the file set aside, damaged."""
    path = directory / "record.json"
    try:
        record = load(directory)
    except Damaged as error:
        raise set_aside(path, error) from None
    if record is None:
        raise Damaged(f"{path}: missing; train this run first")
    return record


def assignments_of(directory: Path, record: Record) -> Path:
    """The path of a trained run's verified assignments.

    Raises Damaged if the run is not clustered or, with the file set aside, if the file is not what the run wrote.
    """
    path = directory / ASSIGNMENTS
    if path.name not in record.files:
        raise Damaged(f"{directory}: trained, not clustered; give `scl kmeans {directory}` first")
    for problem in damage(directory, record, (path.name,)).values():
        raise set_aside(path, problem)
    return path
