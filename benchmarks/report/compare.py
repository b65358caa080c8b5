"""Every method against the study's reference method: the tests behind claims and tables."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.evaluation.statistics import Comparison, compare, holm, verdict
from benchmarks.report.cells import Cell, Grid


@dataclass(frozen=True)
class Pair:
    """The reference against another method on one benchmark; `absence` if there is nothing to compare."""

    protocol: str
    benchmark: str
    reference: Cell
    other: Cell
    absence: str = ""
    acc: Comparison | None = None
    nmi: Comparison | None = None
    ari: Comparison | None = None
    p: float | None = None  # of ACC: paired t, adjusted by Holm over all pairs of the study

    @property
    def verdict(self) -> str:
        """What the seeds say on "the reference is better"."""
        return self.absence or verdict(self.acc, self.p)


def pairs_of(study, grid: Grid) -> list[Pair]:
    """All pairs, with p adjusted over those that have one. No `reference:` in the configuration: no pairs."""
    reference, pairs = study.reference, []
    for protocol, by_benchmark in grid.cells.items():
        for benchmark, by_stage in by_benchmark.items():
            if reference in by_stage:
                pairs += [
                    _pair(protocol, benchmark, by_stage[reference], cell)
                    for stage, cell in by_stage.items()
                    if stage != reference
                ]
    tested = [i for i, pair in enumerate(pairs) if pair.acc and pair.acc.p_paired_t is not None]
    for i, p in zip(tested, holm(pairs[i].acc.p_paired_t for i in tested)):
        pairs[i] = Pair(**(vars(pairs[i]) | {"p": p}))
    return pairs


def _pair(protocol: str, benchmark: str, reference: Cell, other: Cell) -> Pair:
    for cell in (reference, other):
        if cell.absence:
            return Pair(protocol, benchmark, reference, other, f"{cell.title}: {cell.absence}")
    if not reference.by_seed("acc").keys() & other.by_seed("acc").keys():
        return Pair(protocol, benchmark, reference, other, "no seed in common")
    scores = {
        score: compare(reference.by_seed(score), other.by_seed(score)) for score in ("acc", "nmi", "ari")
    }
    return Pair(protocol, benchmark, reference, other, **scores)
