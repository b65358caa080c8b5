"""Published results: published.csv, each row for the class that implements the same method here, and context.csv,
results of methods that are not implemented here."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pandas as pd

PUBLISHED, CONTEXT = (Path(__file__).with_name(name) for name in ("published.csv", "context.csv"))
STATISTICS = {"mean": "mean over runs", "best": "best run, here compared with a mean", "single": "single value"}
RECONSTRUCTED = {
    "scl.scl.SCL": "reconstructed from the abstract of its paper (Huang & Gong, BMVC 2022), whose reported numbers "
    "were not available for comparison."
}


@cache
def load_published() -> list:
    """The rows of published.csv. Scores are fractions, NaN where the source has none; epochs, 0 where unknown, are
    counted as here (PICA's 200 of two heads are 400); nmi_average is "" where the source does not say."""
    table = pd.read_csv(PUBLISHED).fillna({"nmi_average": "", "epochs": 0}).astype({"epochs": int})
    return list(table.itertuples(index=False, name="Published"))


def published_for(study, protocol: str, benchmark: str, stage: str):
    """The published result for a group: a mean over runs if there is one, else the best run, else None.

    Only for the same class and protocol, on exactly the published images, with as many clusters as classes.
    """
    dataset = study.dataset(benchmark)
    if study.images_note(benchmark) or study.benchmarks[benchmark].clusters not in (None, dataset.clusters):
        return None
    requested = (study.methods[stage].method, protocol, dataset.name)
    matches = [entry for entry in load_published() if (entry.method, entry.protocol, entry.benchmark) == requested]
    return min(matches, key=lambda entry: entry.statistic != "mean", default=None)


def published_scores(group) -> list[tuple[str, float, float]]:
    """(name, score here, published score) of each score that was published; NMI with the average of the source."""
    source = group.published
    nmi = ("NMI (geometric)", group.nmi_geometric) if source.nmi_average == "geometric" else ("NMI", group.nmi)
    scores = [("ACC", group.acc, source.acc), (*nmi, source.nmi), ("ARI", group.ari, source.ari)]
    return [score for score in scores if not pd.isna(score[1] - score[2])]


@cache
def load_context() -> pd.DataFrame:
    """The rows of context.csv in its order. Scores are fractions, NaN where the source has none; statistic is
    mean, best, single, or unknown; image_size is "" where the source does not say."""
    return pd.read_csv(CONTEXT, dtype={"image_size": str}).fillna({"image_size": ""})
