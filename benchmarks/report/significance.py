"""Every method against the study's reference method, seed by seed: the tests behind claims and tables.

Two tests of the differences: Student's paired t (assumes that they are about normal) and the exact sign-flip
permutation test (Fisher 1935; Good 2005, section 3), which assumes only that they are symmetric around 0 if the methods
are equal, but cannot go below 2 / 2^n. Paired tests over seeds follow Bouthillier et al., "Accounting for variance in
machine learning benchmarks" (MLSys 2021). A handful of seeds is a small sample: what n cannot carry is NaN.
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from scipy import stats

from benchmarks.report.aggregate import KEYS, bootstrap_interval, rows_of

LEVEL = 0.05  # of the tests; the intervals cover 1 - LEVEL
MINIMUM_SEEDS = 3  # a test of fewer differences is not worth printing: t has 1 degree of freedom at n = 2
MEASURED = ("n", "acc", "acc_sd", "low", "high", "nmi", "ari", "p_t", "p_exact")


def comparisons(study, runs: pd.DataFrame, cells: pd.DataFrame) -> pd.DataFrame:
    """One row for each cell (of `aggregate`) and the reference's on the same benchmark; none without a reference.

    title is that of the other, reference and other are the cells; absence says why they are not compared. n, acc,
    acc_sd, low, high, nmi, ari: of the differences, reference minus other, over the seeds. p_t and p_exact: of ACC,
    two-sided; p: p_t adjusted by Holm's method over all rows; verdict: on "the reference is better".
    """
    found, groups = [], dict(iter(runs.set_index("seed").groupby(KEYS)))
    for (protocol, benchmark), group in cells.groupby(KEYS[:2], sort=False):
        by_stage = {cell.stage: cell for cell in rows_of(group)}
        reference = by_stage.pop(study.reference, None)
        for stage, other in by_stage.items() if reference else ():
            place = (protocol, benchmark, stage, other.title, reference, other)
            absent = next((f"{cell.title}: {cell.absence}" for cell in (reference, other) if cell.absence), "")
            both = (groups[protocol, benchmark, name] for name in (study.reference, stage))
            found.append((*place, absent, *([math.nan] * len(MEASURED) if absent else difference(*both))))
    pairs = pd.DataFrame(found, columns=[*KEYS, "title", "reference", "other", "absence", *MEASURED])
    tested = pairs.p_t.dropna()
    pairs["p"] = pd.Series(holm(tested), tested.index, dtype=float)
    pairs["verdict"] = [pair.absence or verdict(pair.acc, int(pair.n), pair.p, pair.p_exact)
                        for pair in rows_of(pairs)]  # fmt: skip
    return pairs


def difference(first: pd.DataFrame, second: pd.DataFrame) -> tuple[float, ...]:
    """MEASURED of two methods' scores (acc, nmi, ari, indexed by seed), over the seeds of both: first minus second."""
    scores = ["acc", "nmi", "ari"]
    change = (first[scores] - second[scores]).dropna(subset="acc")
    acc, enough = change.acc, len(change) >= MINIMUM_SEEDS
    tests = (paired_t(acc), sign_flip(acc)) if enough else (math.nan, math.nan)
    return len(acc), acc.mean(), acc.std(), *bootstrap_interval(acc), change.nmi.mean(), change.ari.mean(), *tests


def paired_t(differences) -> float:
    """Two-sided p of Student's t for paired values (Student 1908).

    Equal differences leave t undefined (two methods that ignore the seed): the exact test stands in.
    """
    if np.ptp(differences) <= 1e-12:
        return sign_flip(differences)
    return float(stats.ttest_1samp(differences, 0.0).pvalue)


def sign_flip(differences) -> float:
    """Two-sided p of the mean under random signs: all 2^n of them up to n = 16, beyond that 100,000 of them.

    The sampled form counts the observed signs too, so that p is never 0 (Phipson & Smyth 2010).
    """
    scaled = np.asarray(differences, dtype=float)
    scaled = scaled / (abs(scaled).max() or 1.0)

    def total(values, axis):
        return values.sum(axis=axis).round(9)  # ties count, despite rounding

    test = stats.permutation_test((scaled,), total, permutation_type="samples", vectorized=True, n_resamples=100_000,
                                  rng=np.random.default_rng(0))  # fmt: skip
    return float(test.pvalue)


def holm(p_values) -> np.ndarray:
    """p adjusted for testing them all (Holm 1979): the k-th smallest of m times m - k + 1, made monotone."""
    p = np.asarray(p_values, dtype=float)
    order, adjusted = p.argsort(kind="stable"), np.empty_like(p)
    adjusted[order] = np.maximum.accumulate(np.minimum(1.0, np.arange(p.size, 0, -1) * p[order]))
    return adjusted


def smallest_p(n: int) -> float:
    """The smallest p that the exact test of n seeds can give."""
    return 2 / 2**n


def seeds_for_sign_flip(level: float = LEVEL) -> int:
    """How many seeds the exact test needs before it can reach `level` (6 for 0.05)."""
    return math.ceil(math.log2(2 / level))


def verdict(mean: float, n: int, p: float, p_exact: float, *, level: float = LEVEL) -> str:
    """What a mean difference over n seeds says on "the first is better": p of the paired t, adjusted, decides.

    Where n is too small for the exact test to agree or disagree, the words say so.
    """
    if math.isnan(p):
        return f"too few seeds ({n}; a test needs {MINIMUM_SEEDS})"
    if p > level:
        return "not supported"
    answer = "supported" if mean > 0 else "the reverse is supported"
    if smallest_p(n) > level:
        return f"{answer} by the t-test alone (too few seeds for the exact test)"
    return answer if p_exact <= level else f"{answer} by the t-test alone"
