"""Values that others published, beside ours: published.csv of this package.

Its `method` is the class that implements the same method here; a value is shown only beside runs of that
class, under the same protocol, on the whole of the same data set, with as many clusters as it has classes.
"""

from __future__ import annotations

from functools import cache
from importlib import resources

import pandas as pd

from benchmarks.datasets.catalog import dataset_named

RECONSTRUCTED = {
    "scl.scl.SCL": "reconstructed from the abstract of its paper (Huang & Gong, BMVC 2022); no number "
    "of the paper is known to this project, so none stands beside it."
}


@cache
def load_published() -> list:
    """The rows of published.csv. Scores are fractions, NaN where the source has none; epochs, 0 where unknown, are
    counted as here (PICA's 200 of two heads are 400); nmi_average is "" where the source does not say."""
    with resources.files("benchmarks.report").joinpath("published.csv").open(encoding="utf-8") as file:
        table = pd.read_csv(file).fillna({"nmi_average": "", "epochs": 0}).astype({"epochs": int})
    return list(table.itertuples(index=False, name="Published"))


def published_for(study, protocol: str, benchmark: str, stage: str):
    """The published result to set beside a cell: a mean over runs if there is one, else the best run; else None."""
    block = study.benchmarks[benchmark]
    dataset = block.dataset or benchmark
    if block.subset or (block.clusters and block.clusters != dataset_named(dataset).clusters):
        return None
    wanted = (study.methods[stage].method, protocol, dataset)
    found = [entry for entry in load_published() if (entry.method, entry.protocol, entry.benchmark) == wanted]
    return min(found, key=lambda entry: entry.statistic != "mean", default=None)
