"""Groups of runs: the seeds of one method on one benchmark under one protocol, summarized in one row each."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, cast

import numpy as np
import pandas as pd

from benchmarks.report.inference import t_interval
from benchmarks.report.published import published_for

KEYS = ["protocol", "benchmark", "stage"]
SCORES = ("acc", "nmi", "nmi_geometric", "ari", "oracle_acc")
FOOTNOTES = {
    "a": "seeds trained at different commits",
    "b": "trained with uncommitted code changes",
    "c": "runs on this benchmark used different images",
    "d": "seeds or attempts differ in device, precision, PyTorch or scikit-learn version, or number of CPU threads",
    "e": "an earlier attempt, an upstream stage, or k-means was run at another commit",
    "f": "shares no encoder with the reference: unpaired, with Welch's interval",
    "g": "a seed learned nothing: none of its steps changed a weight",
    "h": "a seed collapsed: at least half of its clusters are empty",
}
NO_UPDATE = re.compile(r"steps with no [^,]* (\d+) of \1\b")  # see Method.count


def aggregate(study, runs: pd.DataFrame) -> pd.DataFrame:
    """One row per group of KEYS, protocol by protocol in the order of `runs`.

    planned and n count the seeds planned and done. Scores (SCORES, their standard deviations `<score>_sd` with n - 1,
    the t interval acc_low .. acc_high) and mean times are NaN unless every planned seed has them: incomplete groups are
    never averaged. epochs is that of all done runs, 0 without any. absence says why there is no ACC; accuracies maps
    seed to ACC; footnotes holds keys of FOOTNOTES; published is the published result or None.
    """
    runs = runs.iloc[pd.factorize(runs.protocol)[0].argsort(kind="stable")]
    done = runs[runs.status == "done"]
    images = done.groupby(KEYS[:2]).images_sha256.nunique()
    by_group = runs.groupby(KEYS, sort=False)
    groups = by_group.agg(
        title=("method", "first"), planned=("status", "size"), peak_memory=("peak_memory_mb", "max"),
        epochs=("epochs", "max"), seconds=("seconds", "mean"), chain_seconds=("chain_seconds", "mean"),
        n=("status", lambda status: (status == "done").sum()),
    )  # fmt: skip
    groups["accuracies"] = [cast(Any, group.set_index("seed").acc.dropna().to_dict()) for _, group in by_group]
    groups["absence"] = [absence(group) for _, group in by_group]
    groups["footnotes"] = [
        footnotes(group[group.status == "done"], images.get(key[:2], 0) > 1) for key, group in by_group
    ]
    groups["published"] = [published_for(study, *key) for key in groups.index]
    groups["epochs"] = groups.epochs.fillna(0)
    times = ["seconds", "chain_seconds"]
    groups[times] = groups[times].where(groups.n == groups.planned)
    for score in SCORES:
        complete = (groups.absence == "") & (by_group[score].count() == groups.planned)
        groups[score] = by_group[score].mean().where(complete)
        groups[f"{score}_sd"] = by_group[score].std().where(complete)
    complete = groups.acc.notna()
    intervals = [t_interval(np.array([*values.values()])) for values in groups.accuracies[complete]]
    groups.loc[complete, "acc_low"] = [interval.low for interval in intervals]
    groups.loc[complete, "acc_high"] = [interval.high for interval in intervals]
    return groups.reset_index()


def rows_of(table: pd.DataFrame) -> Iterator[Any]:
    """The rows, with the columns as attributes, typed as Any because pandas cannot know their types."""
    return table.itertuples()


def absence(group: pd.DataFrame) -> str:
    """Why a group has no mean to print; "" if it has one."""
    counts = group.status.value_counts()
    done = counts.get("done", 0)
    if counts.get("skipped") == len(group):
        return f"not run: {group.reason.iloc[0]}"
    if done < len(group):
        word = "failed" if "failed" in counts else "missing" if done else "not run"
        return f"{word} ({done} of {len(group)} done)" if done else word
    return "" if group.acc.notna().any() else "no labels"


def footnotes(done: pd.DataFrame, images_differ: bool) -> str:
    """The keys of FOOTNOTES that apply to the done runs of a group."""
    machines = done[["device", "precision", "torch"]].assign(
        sklearn=done.packages.str.extract(r"scikit-learn ([^,]+)", expand=False),  # k-means
        threads=done.threads.where(on_cpu(done)),  # on a GPU they do not affect results
    )
    applies = {
        "a": done.commit.nunique() > 1,
        "b": done.dirty.any(),
        "c": images_differ and len(done),
        "d": len(machines.drop_duplicates()) > 1 or (done.other_devices != "").any(),
        "e": (done.other_commits != "").any(),
        "g": done.counts.map(NO_UPDATE.search).any(),
        "h": (done.clusters_used <= done.clusters / 2).any(),
    }
    return "".join(letter for letter, does in applies.items() if does)


def on_cpu(runs: pd.DataFrame) -> pd.Series:
    """Which runs were trained on a CPU."""
    return runs.device.str.startswith("CPU").astype(bool)
