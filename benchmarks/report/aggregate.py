"""The cells of the tables: the runs of one method on one benchmark under one protocol, over the seeds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import numpy as np
import pandas as pd
from scipy import stats

from benchmarks.report.published import published_for

KEYS = ["protocol", "benchmark", "stage"]
SCORES = ("acc", "nmi", "nmi_geometric", "ari", "oracle_acc")
MINIMUM_FOR_INTERVAL = 5  # the bootstrap of 2 or 3 values only gives their range; see bootstrap_interval
MARKS = {
    "a": "seeds trained by different commits",
    "c": "trained with uncommitted changes of the code",
    "d": "not all runs on this benchmark used the same images",
    "e": "seeds, or attempts at one, trained on different devices, in different precisions, by different versions of "
    "PyTorch or, on a CPU, with different numbers of threads",
    "f": "an earlier attempt, or a stage that it builds on, was trained by another commit",
}


def aggregate(study, runs: pd.DataFrame) -> pd.DataFrame:
    """One row per cell, protocol by protocol in the order of `runs`, and what its runs have in common.

    planned and n count seeds, planned and done. Scores (SCORES, their deviations `<score>_sd` with n - 1, the interval
    acc_low .. acc_high) and mean times are NaN unless every planned seed has them: a part is never averaged.
    Epochs of the done runs (mean, fewest, most) are 0 without any. absence
    says why there is no ACC, accuracies are those of the seeds, marks letters of MARKS, published what others report.
    """
    runs = runs.iloc[pd.factorize(runs.protocol)[0].argsort(kind="stable")]
    done = runs[runs.status == "done"]
    images = done.groupby(KEYS[:2]).images_sha256.nunique()
    groups = runs.groupby(KEYS, sort=False)
    cells = groups.agg(title=("method", "first"), planned=("status", "size"), peak_memory=("peak_memory_mb", "max"),
                       epochs=("epochs", "mean"), first_epochs=("epochs", "min"), last_epochs=("epochs", "max"),
                       seconds=("seconds", "mean"), chain_seconds=("chain_seconds", "mean"))  # fmt: skip
    cells["n"] = [int((group.status == "done").sum()) for _, group in groups]
    cells["accuracies"] = [cast(Any, group.set_index("seed").acc.dropna().to_dict()) for _, group in groups]
    cells["absence"] = [absence(group) for _, group in groups]
    cells["marks"] = [marks(group[group.status == "done"], images.get(key[:2], 0) > 1) for key, group in groups]
    cells["published"] = [published_for(study, *key) for key in cells.index]
    counts, times = ["epochs", "first_epochs", "last_epochs"], ["seconds", "chain_seconds"]
    cells[counts] = cells[counts].fillna(0)
    cells[times] = cells[times].where(cells.n == cells.planned)
    for score in SCORES:
        whole = (cells.absence == "") & (groups[score].count() == cells.planned)
        cells[score], cells[f"{score}_sd"] = groups[score].mean().where(whole), groups[score].std().where(whole)
    intervals = [bootstrap_interval(list(found.values())) for found in cells.accuracies]
    for i, name in enumerate(("acc_low", "acc_high")):
        cells[name] = pd.Series([found[i] for found in intervals], cells.index, dtype=float).where(cells.acc.notna())
    return cells.reset_index()


def rows_of(table: pd.DataFrame) -> Iterator[Any]:
    """The rows, each with the columns as attributes, whose types pandas cannot know."""
    return table.itertuples()


def absence(group: pd.DataFrame) -> str:
    """Why the runs of a cell have no mean to print; "" if they have one."""
    counts = group.status.value_counts()
    done = counts.get("done", 0)
    if counts.get("skipped") == len(group):
        return f"not run: {group.reason.iloc[0]}"
    if done < len(group):
        word = "failed" if "failed" in counts else "missing" if done else "not run"
        return f"{word} ({done} of {len(group)} done)" if done else word
    return "" if group.acc.notna().any() else "no labels"


def marks(done: pd.DataFrame, images_differ: bool) -> str:
    """Letters of MARKS that hold for the finished runs of a cell."""

    def differ(rows: pd.DataFrame, *names: str) -> bool:
        return len(rows[list(names)].drop_duplicates()) > 1

    holds = {
        "a": differ(done, "commit"),
        "c": done.dirty.any(),
        "d": images_differ and len(done),
        "e": differ(done, "device", "precision", "torch")
        or (done.other_devices != "").any()
        or differ(done[on_cpu(done)], "threads"),  # on a GPU the threads of the CPU change no result
        "f": (done.other_commits != "").any(),
    }
    return "".join(letter for letter in MARKS if holds[letter])


def on_cpu(runs: pd.DataFrame) -> pd.Series:
    """Which runs were trained on a CPU."""
    return runs.device.str.startswith("CPU").astype(bool)


def bootstrap_interval(values, *, seed: int = 0) -> tuple[float, float]:
    """95 % percentile bootstrap interval of the mean (Efron & Tibshirani 1993, chapter 13), with its own generator.

    (NaN, NaN) below MINIMUM_FOR_INTERVAL values. With few values it is too narrow: for normal ones it covers the true
    mean in 51, 75, 81, 85, 87 and 91 % of the cases at n = 2, 3, 4, 5, 6 and 10, not in 95 % (simulated), and of 2 or
    3 it is nothing but the lowest and the highest. It shows the spread of the seeds; significance.py decides.
    """
    if len(values) < MINIMUM_FOR_INTERVAL:
        return float("nan"), float("nan")
    found = stats.bootstrap((np.asarray(values, dtype=float),), np.mean, n_resamples=10_000, method="percentile",
                            rng=np.random.default_rng(seed))  # fmt: skip
    low, high = map(float, found.confidence_interval)
    return low, high
