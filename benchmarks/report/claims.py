"""What the runs support, statement by statement, and how far they are from what was published; plain texts."""

from __future__ import annotations

from typing import NamedTuple

import pandas as pd

from benchmarks.report.aggregate import KEYS, MARKS, MINIMUM_FOR_INTERVAL, rows_of
from benchmarks.report.formats import p_value, points
from benchmarks.report.significance import LEVEL, seeds_for_sign_flip, smallest_p
from benchmarks.report.tables import schedules

METHOD_OF_TESTING = (
    "Differences are taken seed by seed. In brackets: 95 % percentile bootstrap interval of their mean, "
    f"which is too narrow for a few seeds; fewer than {MINIMUM_FOR_INTERVAL} are too few for an interval. "
    "p: paired t-test, two-sided, adjusted by Holm's method over all statements below; it decides at "
    f"{LEVEL}. The exact sign-flip test beside it assumes less, but its p is at least 2 / 2^n for n seeds, "
    f"so that it needs {seeds_for_sign_flip()} seeds to agree."
)
PUBLISHED_RULE = (
    "Only the same protocol on the whole of the same data set, with as many clusters as it has classes. A "
    "published value is one number, so nothing is tested; its schedule, network and image size may differ "
    "from those here."
)
STATISTICS = {"mean": "a mean", "best": "their best run beside our mean", "single": "a single value"}


class Statement(NamedTuple):
    """A line of the claims. `subject` and `caution` hold names from outside, `finding` numbers and words of ours."""

    subject: str = ""
    finding: str = ""
    verdict: str = ""
    caution: str = ""


def sections(study, runs: pd.DataFrame, cells: pd.DataFrame, pairs: pd.DataFrame) -> list[tuple[str, str, list]]:
    """(title, rule, statements) of the two parts of the claims; a part without statements says why."""
    compared = [statement(pair) for pair in rows_of(pairs) if pair.benchmark not in study.skipped]
    why = "there is no other method" if study.reference else "the configuration names no `reference:` method"
    groups = dict(iter(runs.groupby(KEYS)))
    published = [beside_published(cell, groups[cell.protocol, cell.benchmark, cell.stage])
                 for cell in rows_of(cells) if cell.published and not cell.absence]  # fmt: skip
    return [
        ("Between methods", METHOD_OF_TESTING, compared or [Statement(finding=f"Nothing to compare: {why}.")]),
        ("Against published values", PUBLISHED_RULE,
         published or [Statement(finding="No finished cell has a published value.")]),
    ]  # fmt: skip


def statement(pair) -> Statement:
    """'SCL vs SCAN on digits (joint): +3.2 points ACC [2.1, 4.3], p = 0.004 (...), n = 5: supported.'"""
    head = f"{pair.reference.title} vs {pair.other.title} on {pair.benchmark} ({pair.protocol}):"
    if pair.absence:
        return Statement(f"{head} not compared ({pair.absence}).")
    n = int(pair.n)
    interval = "" if pd.isna(pair.low) else f" [{points(pair.low)}, {points(pair.high)}]"
    test = "" if pd.isna(pair.p) else f", {p_value(pair.p)} (exact {p_value(pair.p_exact)}"
    test += test and f"{', the least possible' if pair.p_exact <= smallest_p(n) else ''})"
    others = f"NMI {points(pair.nmi)}, ARI {points(pair.ari)}"
    finding = f" {points(pair.acc)} points ACC{interval}, {others}{test}, n = {n}: "
    return Statement(head, finding, pair.verdict, _caution(pair.reference, pair.other))


def beside_published(cell, runs: pd.DataFrame) -> Statement:
    """A complete cell and what is published for it; runs: those of the cell."""
    there = cell.published
    nmi = ("NMI (geometric)", cell.nmi_geometric) if there.nmi_average == "geometric" else ("NMI", cell.nmi)
    scores = [("ACC", cell.acc, there.acc), (*nmi, there.nmi), ("ARI", cell.ari, there.ari)]
    parts = [f"{name} {100 * ours:.1f} here, {100 * theirs:.1f} there ({points(ours - theirs)})"
             for name, ours, theirs in scores if not pd.isna(ours - theirs)]  # fmt: skip
    finding = f" {', '.join(parts)}. {there.source}: {STATISTICS[there.statistic]}{schedules(cell, runs)}."
    head = f"{cell.title} on {cell.benchmark} ({cell.protocol}), n = {cell.n}:"
    return Statement(head, finding, caution=_caution(cell))


def _caution(*cells) -> str:
    marks = sorted({(cell.title, letter) for cell in cells for letter in cell.marks})
    return f"Caution: {'; '.join(f'{title}: {MARKS[letter]}' for title, letter in marks)}." if marks else ""
