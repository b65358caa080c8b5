"""Every method against the study's reference: differences on each benchmark (described), and the study's verdicts.

docs/statistics.md explains the tests; inference.py has their formulas.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from benchmarks.compose import chain
from benchmarks.report.aggregate import KEYS, rows_of
from benchmarks.report.inference import (
    LEVEL,
    detectable_difference,
    holm,
    sign_flip_p,
    smallest_p,
    t_interval,
    welch_error,
    welch_interval,
)

CHANCE = "baselines.controls.Random"  # the class of the chance row, which is not a competitor
MEASURED = ("n", "acc", "acc_sd", "low", "high", "nmi", "ari", "p", "detectable", "differences")
SCORES = ["acc", "nmi", "ari"]


@dataclass(frozen=True)
class Verdict:
    """The test of "the reference is better than `title`" over the benchmarks of a protocol.

    n: total number of differences. acc: mean over benchmarks of their mean differences. p: adjusted for all
    competitors. answer: supported, contradicted, not decided, or not run; reason says why there is no test, else "".
    reachable: whether n differences can reach the level at all. beside: the rows of `comparisons` on benchmarks that
    the test excludes because they were used for tuning.
    """

    protocol: str
    stage: str
    title: str
    reference: str
    benchmarks: tuple[str, ...]
    n: int = 0
    acc: float = math.nan
    p: float = math.nan
    detectable: float = math.nan
    reachable: bool = True
    answer: str = "not run"
    reason: str = ""
    beside: tuple = ()


def comparisons(study, runs: pd.DataFrame, groups: pd.DataFrame) -> pd.DataFrame:
    """One row per group (of `aggregate`) and the reference's on the same benchmark; none without a reference.

    reference and other are the groups, title is that of the other; absence says why they are not compared. tuned: see
    `Study.tuned`. paired: whether the two share an encoder. MEASURED: see `difference`. Skipped benchmarks are
    excluded.
    """
    rows, scores = [], dict(iter(runs.set_index("seed").groupby(KEYS)))
    ran = groups[~groups.benchmark.isin(list(study.skipped))]
    for (protocol, benchmark), part in ran.groupby(KEYS[:2], sort=False):
        others = {group.stage: group for group in rows_of(part)}
        reference = others.pop(study.reference, None)
        for stage, other in others.items() if reference else ():
            absence = next((f"{group.title}: {group.absence}" for group in (reference, other) if group.absence), "")
            first, second = (scores[protocol, benchmark, name] for name in (study.reference, stage))
            paired = share_encoder(study, study.reference, stage)
            row = {"protocol": protocol, "benchmark": benchmark, "stage": stage, "title": other.title,
                   "reference": reference, "other": other, "absence": absence, "tuned": study.tuned(benchmark),
                   "paired": paired}  # fmt: skip
            rows.append(row | ({} if absence else difference(first, second, paired=paired)))
    columns = [*KEYS, "title", "reference", "other", "absence", "tuned", "paired", *MEASURED]
    return pd.DataFrame(rows, columns=columns).astype({"tuned": bool, "paired": bool})


def share_encoder(study, first: str, second: str) -> bool:
    """Whether two stages are, or start from, the same trained stage: their runs of one seed then share its weights."""
    links = {name: block.after for name, block in study.methods.items()}
    return not set(chain(links, first, "after")).isdisjoint(chain(links, second, "after"))


def difference(first: pd.DataFrame, second: pd.DataFrame, *, paired: bool) -> dict:
    """MEASURED: first minus second over the seeds that both have, in fractions. Scores: SCORES, indexed by seed.

    differences: of ACC, one per seed. low, high: t interval of their mean; p: of the sign-flip test. Unpaired: Welch's
    interval and no p. detectable: the smallest difference that these seeds detect with the power of inference.POWER.
    """
    change = (first[SCORES] - second[SCORES]).dropna(subset="acc")
    acc, n = change.acc.to_numpy(float), len(change)
    if paired:
        error = acc.std(ddof=n > 1) / math.sqrt(n)
        interval, p, detectable = t_interval(acc), sign_flip_p(acc), detectable_difference(error, n - 1)
    else:
        x, y = (scores.acc[change.index].to_numpy(float) for scores in (first, second))
        interval, p, detectable = welch_interval(x, y), math.nan, detectable_difference(*welch_error(x, y))
    spread = {"acc_sd": change.acc.std(), "low": interval.low, "high": interval.high}
    return {"n": n, **change.mean(), **spread, "p": p, "detectable": detectable, "differences": acc}


def verdicts(study, pairs: pd.DataFrame) -> list[Verdict]:
    """One per protocol and competitor, from `comparisons`: a stratified sign-flip test, Holm over the competitors.

    Only benchmarks with labels and without hyper-parameter tuning are tested. A competitor whose runs are incomplete is
    not tested but counts in the adjustment.
    """
    chance = [stage for stage, block in study.methods.items() if block.method == CHANCE]
    found = []
    for _, part in pairs[~pairs.stage.isin(chance)].groupby("protocol", sort=False):
        competitors = [competitor for _, competitor in part.groupby("stage", sort=False)]
        tested = [_test(competitor, len(competitors)) for competitor in competitors]
        adjusted = holm(np.nan_to_num([verdict.p for verdict in tested], nan=1.0))
        for verdict, p in zip(tested, adjusted.tolist(), strict=True):
            if not verdict.reason:
                answer = "not decided" if p > LEVEL else "supported" if verdict.acc > 0 else "contradicted"
                verdict = replace(verdict, p=p, answer=answer)
            found.append(verdict)
    return found


def counted(pairs: pd.DataFrame) -> pd.DataFrame:
    """The rows of `comparisons` that a verdict is about: benchmarks with labels that were not used for tuning."""
    no_labels = [group.absence == "no labels" for group in pairs.other]
    return pairs[~pairs.tuned & ~np.array(no_labels, dtype=bool)]


def _test(competitor: pd.DataFrame, competitors: int) -> Verdict:
    """The verdict on one competitor, before the adjustment; competitor: its rows of one protocol."""
    rows, first = counted(competitor), competitor.iloc[0]
    beside = tuple(rows_of(competitor[competitor.tuned & (competitor.absence == "")]))
    names = first.protocol, first.stage, first.title, first.reference.title
    verdict = Verdict(*names, tuple(rows.benchmark), beside=beside)
    if rows.empty:
        tuned = ", ".join(competitor.benchmark[competitor.tuned])
        reason = f"hyper-parameters were chosen on every benchmark that was run ({tuned})" if tuned else "no labels"
        return replace(verdict, answer="not decided", reason=reason)
    if absent := [f"{row.benchmark}, {row.absence}" for row in rows_of(rows) if row.absence]:
        return replace(verdict, reason="; ".join(absent))
    groups = list(rows.differences)
    n, level = sum(map(len, groups)), LEVEL / competitors
    error = math.sqrt(sum(g.var(ddof=1) / len(g) if len(g) > 1 else math.nan for g in groups)) / len(groups)
    reachable = smallest_p(n) <= level
    detectable = detectable_difference(error, n - len(groups), level=level) if reachable else math.nan
    mean = float(np.mean([g.mean() for g in groups]))
    return replace(verdict, n=n, acc=mean, p=sign_flip_p(*groups), detectable=detectable, reachable=reachable)
