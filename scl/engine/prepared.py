"""Read benchmark.json, the description of a prepared benchmark. No torch, so that evaluation starts fast."""

from pathlib import Path
from typing import Annotated

from pydantic import ConfigDict, Field, model_validator

from scl.engine.artifacts import Strict, read
from scl.engine.io import Damaged

Rows = Annotated[list[int], Field(min_length=2, max_length=2)]  # start, stop


class Roles(Strict):
    """Splits of a protocol: clustered, also allowed for representation learning, and evaluated."""

    fit: list[str]
    represent: list[str]
    assign: list[str]


class Larger(Strict):
    """The same images at a larger size, in images-<size>.npy."""

    size: int
    sha256: str


class Prepared(Strict):
    """The keys that the engine relies on; others are kept as they are."""

    model_config = ConfigDict(extra="allow")

    images_sha256: str
    clusters: int
    size: Rows
    larger: Larger | None = None
    splits: dict[str, Rows]
    protocols: dict[str, Roles]

    @model_validator(mode="after")
    def _splits_exist(self) -> "Prepared":
        for protocol, roles in self.protocols.items():
            if not {*roles.fit, *roles.represent, *roles.assign} <= self.splits.keys():
                raise ValueError(f"protocols.{protocol}: names a split that does not exist")
        return self


def describe(folder: str | Path) -> dict:
    """The contents of benchmark.json in `folder`. Raises Damaged if it is missing or damaged."""
    path = Path(folder) / "benchmark.json"
    try:
        found = read(path, Prepared)
    except Damaged as error:
        raise Damaged(f"{path}: {error}; rerun the study to prepare the benchmark again") from None
    if found is None:
        elsewhere = "" if Path(folder).is_absolute() else ", or give the command where the run was started"
        raise Damaged(f"{path}: missing; prepare it first (scl prepare {Path(folder).name}){elsewhere}")
    return found.model_dump()
