"""claims.md: what the runs support, statement by statement, and how far they are from what was published."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from benchmarks.evaluation.statistics import LEVEL, MINIMUM_FOR_INTERVAL, Comparison, seeds_for_sign_flip
from benchmarks.report.cells import MARKS, Cell, Grid, read_grid
from benchmarks.report.compare import Pair, pairs_of
from benchmarks.report.formats import p_value, points
from benchmarks.report.layout import code, escape_markdown
from benchmarks.report.published import Published, published_for
from benchmarks.report.tables import header, schedules
from scl.record import atomic

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


@dataclass(frozen=True)
class Statement:
    """A line of the claims. `subject` and `caution` hold names from outside, `finding` numbers and words of ours."""

    subject: str = ""
    finding: str = ""
    verdict: str = ""
    caution: str = ""

    def markdown(self) -> str:
        verdict = f"**{self.verdict}**." if self.verdict else ""
        caution = f" {escape_markdown(self.caution)}" if self.caution else ""
        return f"{escape_markdown(self.subject)}{self.finding}{verdict}{caution}"


def write_claims(study, folder: Path) -> Path:
    """Write and return `folder`/claims.md, from its runs.csv."""
    grid, path = read_grid(study, folder), folder / "claims.md"
    lines = [f"# What the runs support (study {code(study.results.name)})", ""]
    lines += [f"- {escape_markdown(header(study, grid)[0])}"]
    for title, rule, found in sections(study, grid):
        lines += ["", f"## {title}", "", rule, "", *(f"- {statement.markdown()}" for statement in found)]
    with atomic(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def sections(study, grid: Grid) -> list[tuple[str, str, list[Statement]]]:
    """(title, rule, statements) of the two parts of the claims; a part without statements says why."""
    pairs = [statement(pair) for pair in pairs_of(study, grid) if pair.benchmark not in study.skipped]
    none = "Nothing to compare: " + (
        "there is no other method." if study.reference else "the configuration names no `reference:` method."
    )
    published = list(published_statements(study, grid))
    return [
        ("Between methods", METHOD_OF_TESTING, pairs or [Statement(finding=none)]),
        (
            "Against published values",
            PUBLISHED_RULE,
            published or [Statement(finding="No finished cell has a published value.")],
        ),
    ]


def statement(pair: Pair) -> Statement:
    """'SCL vs SCAN on digits (joint): +3.2 points ACC [2.1, 4.3], p = 0.004 (...), n = 5: supported.'"""
    head = f"{pair.reference.title} vs {pair.other.title} on {pair.benchmark} ({pair.protocol}):"
    if pair.absence:
        return Statement(f"{head} not compared ({pair.absence}).")
    change = pair.acc.difference
    interval = f" [{points(change.low)}, {points(change.high)}]" if change.low is not None else ""
    others = f"NMI {points(pair.nmi.difference.mean)}, ARI {points(pair.ari.difference.mean)}"
    finding = f" {points(change.mean)} points ACC{interval}, {others}{_test(pair.acc, pair.p)}, n = {change.n}: "
    return Statement(head, finding, pair.verdict, _caution(pair.reference, pair.other))


def _test(comparison: Comparison, p: float | None) -> str:
    if p is None:
        return ""
    least = ", the least possible" if comparison.p_sign_flip <= comparison.smallest_sign_flip else ""
    return f", {p_value(p)} (exact {p_value(comparison.p_sign_flip)}{least})"


def _caution(*cells: Cell) -> str:
    marks = sorted({(cell.title, letter) for cell in cells for letter in cell.marks})
    return f"Caution: {'; '.join(f'{title}: {MARKS[letter]}' for title, letter in marks)}." if marks else ""


def published_statements(study, grid: Grid):
    """A statement for every complete cell beside which something is published."""
    for protocol, by_benchmark in grid.cells.items():
        for benchmark, by_stage in by_benchmark.items():
            for stage, cell in by_stage.items():
                published = published_for(study, stage, protocol, benchmark)
                if published and not cell.absence:
                    yield _beside(cell, published, f"{cell.title} on {benchmark} ({protocol})")


def _beside(cell: Cell, published: Published, head: str) -> Statement:
    geometric = published.nmi_average == "geometric"
    names = {
        "acc": "ACC",
        "nmi_geometric" if geometric else "nmi": "NMI (geometric)" if geometric else "NMI",
        "ari": "ARI",
    }
    parts = []
    for score, name in names.items():
        here, there = cell.summary(score), getattr(published, score.removesuffix("_geometric"))
        if here is not None and there is not None:
            parts.append(
                f"{name} {100 * here.mean:.1f} here, {100 * there:.1f} there ({points(here.mean - there)})"
            )
    kind = {"mean": "a mean", "best": "their best run beside our mean", "single": "a single value"}
    finding = (
        f" {', '.join(parts)}. {published.source}: {kind[published.statistic]}{schedules(cell, published)}."
    )
    return Statement(f"{head}, n = {len(cell.done)}:", finding, caution=_caution(cell))
