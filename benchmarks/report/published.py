"""Values that others published, beside ours: published.csv of this package.

Its `method` is the class that implements the same method here; a value is shown only beside runs of that
class, under the same protocol, on the whole of the same data set, with as many clusters as it has classes.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from importlib import resources

from benchmarks.datasets.catalogue import dataset_named

RECONSTRUCTED = {
    "scl.method.SCL": "reconstructed from the abstract of its paper (Huang & Gong, BMVC 2022); no number "
    "of the paper is known to this project, so none stands beside it.",
}


@dataclass(frozen=True)
class Published:
    """One published result; scores are fractions, None where the source has none."""

    method: str
    title: str  # the method's name in the source
    statistic: str  # single | mean | best
    protocol: str
    benchmark: str
    acc: float | None
    nmi: float | None
    ari: float | None
    nmi_average: str  # geometric | "" where the source does not say
    epochs: int | None  # of the source's recipe, counted as here: PICA's 200 of two heads are 400
    source: str


def load_published() -> list[Published]:
    """All rows of published.csv."""
    text = resources.files("benchmarks.report").joinpath("published.csv").read_text(encoding="utf-8")
    entries = []
    for line in csv.DictReader(text.splitlines()):
        numbers = {name: float(line[name]) if line[name] else None for name in ("acc", "nmi", "ari")}
        epochs = int(line["epochs"]) if line["epochs"] else None
        entries.append(Published(**(line | numbers | {"epochs": epochs})))
    return entries


def published_for(study, stage: str, protocol: str, benchmark: str) -> Published | None:
    """The published result to set beside a cell: a mean over runs if there is one, else the best run."""
    block = study.benchmarks[benchmark]
    dataset = block.dataset or benchmark
    if block.subset or (block.clusters and block.clusters != dataset_named(dataset).clusters):
        return None
    found = [
        entry
        for entry in load_published()
        if (entry.method, entry.protocol, entry.benchmark) == (study.methods[stage].method, protocol, dataset)
    ]
    return min(found, key=lambda entry: entry.statistic != "mean", default=None)


def reconstruction_note(study, stage: str) -> str | None:
    """What a reader must be told of a method whose official form is not known."""
    return RECONSTRUCTED.get(study.methods[stage].method)
