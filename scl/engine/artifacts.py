"""The files of a finished run as others read them: typed, checked, and damaged ones told apart from missing ones."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from scl.config import in_one_line
from scl.engine.identity import fingerprint
from scl.engine.io import Damaged, set_aside, sha256

WRITTEN = ("assignments.npz", "weights.pt", "history.csv")  # by a finished run, with their checksums in the record
Model = TypeVar("Model", bound=BaseModel)


class Strict(BaseModel):
    """Base of what is read from files: other types are refused."""

    model_config = ConfigDict(strict=True)


class Attempt(Strict):
    """One process that trained a run, from its start or from a checkpoint."""

    started: str
    commit: str
    device: str
    precision: str


class SeenImages(Strict):
    """The images that a run was given."""

    sha256: str
    clusters: int
    splits: dict[str, list[int]]


class Identity(Strict):
    """What a run is made from, as scl.engine.identity.identity_of has it."""

    settings: dict[str, Any]
    engine: int
    images: SeenImages
    weights: str | None


class Record(Strict):
    """record.json: what a training run was made from, with what, and what it took. Seconds and bytes."""

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
    identity: Identity
    fingerprint: str
    files: dict[str, str]
    counts: dict[str, int]
    attempts: list[Attempt]
    finished: str

    @model_validator(mode="after")
    def _is_one_run(self) -> "Record":
        if fingerprint(self.identity.model_dump()) != self.fingerprint:
            raise ValueError("its fingerprint is not that of its identity")
        if self.files.keys() != set(WRITTEN):
            raise ValueError(f"files: not the checksums of {', '.join(WRITTEN)}")
        return self


class Failure(Strict):
    """failure.json: why the last attempt at a run failed, and whether another attempt would fail the same way."""

    error: str
    kind: str
    permanent: bool
    config_sha256: str
    epoch: int | None = None
    step: int | None = None
    term: str | None = None


def read(path: Path, model: type[Model]) -> Model | None:
    """What `path` holds, None if there is no such file. Damaged, saying how, if it holds anything else."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Damaged(f"not readable ({error.strerror})") from None
    return parse(content, model)


def parse(content: bytes, model: type[Model]) -> Model:
    """What the bytes of a file hold. Damaged, saying how, if that is anything else."""
    try:
        return model.model_validate(json.loads(content))
    except ValidationError as error:
        raise Damaged(f"damaged or of another version ({in_one_line(error)})") from None
    except (ValueError, RecursionError):
        raise Damaged("damaged (not JSON)") from None


def damage(directory: Path, record: Record, names: Iterable[str] = WRITTEN) -> dict[str, str]:
    """Those of the files `names` of a finished run that are not what it wrote: {name: what is wrong}."""
    wrong = {}
    for name in names:
        try:
            if sha256(directory / name) != record.files.get(name):
                wrong[name] = "damaged (its checksum is not the recorded one)"
        except FileNotFoundError:
            wrong[name] = "missing"
        except OSError as error:
            wrong[name] = f"not readable ({error.strerror})"
    return wrong


def weights_of(directory: Path) -> tuple[bytes, str]:
    """The verified bytes of a finished run's weights, and their SHA-256.

    Raises Damaged if the run is not finished, or (with the file set aside) if they are not what it wrote.
    """
    path = directory / "weights.pt"
    try:
        record = read(directory / "record.json", Record)
    except Damaged as error:
        raise set_aside(directory / "record.json", error) from None
    if record is None or not path.exists():
        missing = path if record else directory / "record.json"
        raise Damaged(f"{missing}: missing; the stage this run starts from has to be trained first")
    content = path.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != record.files.get("weights.pt"):
        raise set_aside(path, "damaged (its checksum is not the recorded one)")
    return content, found
