"""Every method against the study's reference method, seed by seed: the tests behind claims and tables.

Two tests of the differences: Student's paired t (assumes that they are about normal) and the exact sign-flip
permutation test (Fisher 1935; Good 2005, section 3), which assumes only that they are symmetric around 0 if the methods
are equal, but whose p is at least 2 / 2^n. Paired tests over seeds follow Bouthillier et al., "Accounting for variance
in machine learning benchmarks" (MLSys 2021). What n seeds are too few for is NaN.
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from scipy import stats

from benchmarks.report.aggregate import KEYS, bootstrap_interval, rows_of

LEVEL = 0.05  # of the tests; the intervals cover 1 - LEVEL
MINIMUM_SEEDS = 3  # for a test: at n = 2, t has 1 degree of freedom
MEASURED = ("n", "acc", "acc_sd", "low", "high", "nmi", "ari", "p_t", "p_exact")


def comparisons(study, runs: pd.DataFrame, groups: pd.DataFrame) -> pd.DataFrame:
    """One row per group (of `aggregate`) and the reference's on the same benchmark; none without a reference.

    reference and other are the groups, title is that of the other; absence says why they are not compared. n, acc,
    acc_sd, low, high, nmi, ari: of the differences, reference minus other, over the seeds. p_t and p_exact: of ACC,
    two-sided; p: p_t adjusted by Holm's method over all rows; verdict: on "the reference is better".
    """
    rows, scores = [], dict(iter(runs.set_index("seed").groupby(KEYS)))
    for (protocol, benchmark), part in groups.groupby(KEYS[:2], sort=False):
        others = {group.stage: group for group in rows_of(part)}
        reference = others.pop(study.reference, None)
        for stage, other in others.items() if reference else ():
            absent = next((f"{group.title}: {group.absence}" for group in (reference, other) if group.absence), "")
            both = (scores[protocol, benchmark, name] for name in (study.reference, stage))
            measured = [math.nan] * len(MEASURED) if absent else difference(*both)
            rows.append((protocol, benchmark, stage, other.title, reference, other, absent, *measured))
    pairs = pd.DataFrame(rows, columns=[*KEYS, "title", "reference", "other", "absence", *MEASURED])
    tested = pairs.p_t.dropna()
    pairs["p"] = pd.Series(holm(tested), tested.index, dtype=float)
    pairs["verdict"] = [pair.absence or verdict(pair.acc, int(pair.n), pair.p, pair.p_exact) for pair in rows_of(pairs)]
    return pairs


def difference(first: pd.DataFrame, second: pd.DataFrame) -> tuple[float, ...]:
    """MEASURED: first minus second over the seeds that both have. Scores: acc, nmi, ari, indexed by seed."""
    scores = ["acc", "nmi", "ari"]
    change = (first[scores] - second[scores]).dropna(subset="acc")
    acc, enough = change.acc, len(change) >= MINIMUM_SEEDS
    tests = (paired_t(acc), sign_flip(acc)) if enough else (math.nan, math.nan)
    return len(acc), acc.mean(), acc.std(), *bootstrap_interval(acc), change.nmi.mean(), change.ari.mean(), *tests


def paired_t(differences) -> float:
    """Two-sided p of Student's t for paired values (Student 1908).

    Equal differences leave t undefined (two methods that ignore the seed): the exact test replaces it.
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

    test = stats.permutation_test(
        (scaled,), total, permutation_type="samples", n_resamples=100_000, rng=np.random.default_rng(0)
    )
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
    """The number of seeds from which the exact test can reach `level` (6 for 0.05)."""
    return math.ceil(math.log2(2 / level))


def verdict(mean: float, n: int, p: float, p_exact: float, *, level: float = LEVEL) -> str:
    """Whether a mean difference over n seeds supports "the first is better"; the adjusted p of the paired t decides.

    Says so where the exact test disagrees or n is too small for it.
    """
    if math.isnan(p):
        return f"too few seeds ({n}; a test needs {MINIMUM_SEEDS})"
    if p > level:
        return "not supported"
    answer = "supported" if mean > 0 else "the reverse is supported"
    if smallest_p(n) > level:
        return f"{answer} by the t-test alone (too few seeds for the exact test)"
    return answer if p_exact <= level else f"{answer} by the t-test alone"
