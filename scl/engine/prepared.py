"""benchmark.json, the description of a prepared benchmark, as others read it. No torch: evaluation starts faster."""

from pathlib import Path
from typing import Annotated

from pydantic import ConfigDict, Field, model_validator

from scl.engine.artifacts import Strict, read
from scl.engine.io import Damaged

Rows = Annotated[list[int], Field(min_length=2, max_length=2)]  # start, stop


class Roles(Strict):
    """The splits that a protocol clusters, those allowed for representation learning too, and those it evaluates."""

    fit: list[str]
    represent: list[str]
    assign: list[str]


class Larger(Strict):
    """The same images once more, larger: in images-<size>.npy."""

    size: int
    sha256: str


class Prepared(Strict):
    """What is relied on; the other keys are kept as they are."""

    model_config = ConfigDict(extra="allow")

    images_sha256: str
    clusters: int
    size: Rows
    larger: Larger | None = None
    splits: dict[str, Rows]
    protocols: dict[str, Roles]

    @model_validator(mode="after")
    def _names_its_splits(self) -> "Prepared":
        for protocol, roles in self.protocols.items():
            if not {*roles.fit, *roles.represent, *roles.assign} <= self.splits.keys():
                raise ValueError(f"protocol {protocol} names a split that is not there")
        return self


def describe(folder: str | Path) -> dict:
    """The contents of benchmark.json in `folder`. Raises Damaged, naming the file, if it is missing or damaged."""
    path = Path(folder) / "benchmark.json"
    try:
        found = read(path, Prepared)
    except Damaged as error:
        raise Damaged(f"{path}: {error}; the command that runs the study prepares the benchmark again") from None
    if found is None:
        raise Damaged(f"{path}: missing; prepare it first (scl prepare {Path(folder).name})")
    return found.model_dump()
