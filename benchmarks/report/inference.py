"""Statistics of a study: intervals and tests over the seeds of one benchmark, and over several benchmarks.

Scores of a method are arrays of one value per seed; over several benchmarks, {benchmark: array}. docs/statistics.md
explains each choice and simulates its size, power and coverage.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import optimize, stats

LEVEL = 0.05  # of the tests; intervals cover 1 - LEVEL
POWER = 0.8  # of the smallest detectable difference
RESAMPLES = 10_000
EXACT_UP_TO = 16  # values whose signs are all enumerated (65,536 sign vectors); beyond that they are sampled
SAMPLED_SIGNS = 100_000

Scores = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Estimate:
    """A value with its confidence interval (NaN where there are too few values)."""

    value: float
    low: float
    high: float


# --- one benchmark ---------------------------------------------------------------------------------------------------


def t_interval(values: np.ndarray) -> Estimate:
    """Mean and Student's t interval. n values; the interval is NaN for n < 2."""
    values = np.asarray(values, float)
    mean, n = float(values.mean()), len(values)
    if n < 2:
        return Estimate(mean, math.nan, math.nan)
    half = float(stats.t.ppf(1 - LEVEL / 2, n - 1) * values.std(ddof=1) / math.sqrt(n))
    return Estimate(mean, mean - half, mean + half)


def welch_error(first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
    """(standard error of the difference of two means, its degrees of freedom by Welch & Satterthwaite)."""
    if min(len(first), len(second)) < 2:
        return math.nan, math.nan
    parts = np.array([values.var(ddof=1) / len(values) for values in (first, second)])
    if not parts.any():
        return 0.0, float(len(first) + len(second) - 2)
    freedom = parts.sum() ** 2 / (parts**2 / (np.array([len(first), len(second)]) - 1)).sum()
    return float(np.sqrt(parts.sum())), float(freedom)


def welch_interval(first: np.ndarray, second: np.ndarray) -> Estimate:
    """Difference of two means and Welch's interval, for independent (unpaired) runs."""
    difference = float(np.mean(first) - np.mean(second))
    error, freedom = welch_error(first, second)
    half = float(stats.t.ppf(1 - LEVEL / 2, freedom)) * error
    return Estimate(difference, difference - half, difference + half)


def sign_flip_p(*groups: np.ndarray) -> float:
    """Two-sided p of the sign-flip test (Fisher 1935): under the null every difference is symmetric around 0.

    groups: paired differences, one array per benchmark. The statistic is the mean over groups of the groups' means, so
    benchmarks have equal weight. All sign vectors are enumerated up to 16 values; beyond that 100,000 are sampled and
    the observed one is counted, so that p is never 0 (Phipson & Smyth 2010).
    """
    weighted = np.concatenate([np.asarray(g, float) / (len(g) * len(groups)) for g in groups])
    scale = np.abs(weighted).max()
    if not scale:
        return 1.0
    weighted = weighted / scale  # so that values within 1e-9 count as ties
    observed, n = abs(weighted.sum()) - 1e-9, len(weighted)
    extreme = int((np.abs(_signs(n) @ weighted) >= observed).sum())
    return extreme / 2**n if n <= EXACT_UP_TO else (extreme + 1) / (SAMPLED_SIGNS + 1)


@lru_cache(maxsize=4)
def _signs(n: int) -> np.ndarray:
    """Sign vectors of n values: all 2^n, or SAMPLED_SIGNS random ones (always the same)."""
    if n <= EXACT_UP_TO:
        return 1.0 - 2.0 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
    return np.random.default_rng(0).integers(0, 2, (SAMPLED_SIGNS, n)) * 2.0 - 1.0


def smallest_p(n: int) -> float:
    """The smallest p that the sign-flip test of n values can give."""
    return 2 / 2**n if n <= EXACT_UP_TO else 1 / (SAMPLED_SIGNS + 1)


def detectable_difference(error: float, freedom: float, *, level: float = LEVEL) -> float:
    """The difference that a two-sided t-test at `level` detects with power POWER.

    error: standard error of the estimated difference; freedom: its degrees of freedom. NaN if there are none.
    """
    return _detectable_errors(freedom, level) * error if freedom > 0 else math.nan


@lru_cache(maxsize=1000)
def _detectable_errors(freedom: float, level: float) -> float:
    """The detectable difference in standard errors."""
    critical = stats.t.ppf(1 - level / 2, freedom)
    # power = E[P(|Z + shift| > critical * spread)] over the chi distribution of spread: scipy's noncentral t is NaN in
    # its tails, a sum over 10,000 quantiles is not
    spread = np.sqrt(stats.chi2.ppf((np.arange(10_000) + 0.5) / 10_000, freedom) / freedom)

    def missing_power(shift: float) -> float:
        bound = critical * spread
        return float(np.mean(stats.norm.sf(bound - shift) + stats.norm.cdf(-bound - shift))) - POWER

    return float(optimize.brentq(missing_power, 0.0, 10 * critical))


def holm(p_values: np.ndarray) -> np.ndarray:
    """p-values adjusted for testing them all (Holm 1979)."""
    p = np.asarray(p_values, float)
    order, adjusted = p.argsort(kind="stable"), np.empty_like(p)
    adjusted[order] = np.maximum.accumulate(np.minimum(1.0, np.arange(p.size, 0, -1) * p[order]))
    return adjusted


# --- over the benchmarks of a study ----------------------------------------------------------------------------------


def probability_of_improvement(first: Scores, second: Scores, *, resamples: int = RESAMPLES) -> Estimate:
    """P(a run of `first` scores higher than a run of `second`), mean over benchmarks (Agarwal et al. 2021).

    Ties count one half. The interval is a bootstrap stratified by benchmark.
    """
    names = sorted(first)

    def statistic(*drawn: np.ndarray) -> np.ndarray:
        return np.mean([_higher(drawn[i], drawn[i + len(names)]) for i in range(len(names))], axis=0)

    return stratified_bootstrap(
        statistic, [*(first[n] for n in names), *(second[n] for n in names)], resamples=resamples
    )


def _higher(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The fraction of pairs with x > y along the last axis, ties counting one half (Mann-Whitney U over n m)."""
    difference = x[..., :, None] - y[..., None, :]
    return ((difference > 0) + 0.5 * (difference == 0)).mean((-2, -1))


def normalized_mean(scores: Scores, chance: Mapping[str, float], *, resamples: int = RESAMPLES) -> Estimate:
    """Mean over benchmarks of (score - chance) / (1 - chance), with a bootstrap stratified by benchmark."""
    names = sorted(scores)
    normalized = [(np.asarray(scores[n], float) - chance[n]) / (1 - chance[n]) for n in names]
    return stratified_bootstrap(
        lambda *drawn: np.mean([g.mean(-1) for g in drawn], axis=0), normalized, resamples=resamples
    )


def stratified_bootstrap(statistic: Callable, groups: list[np.ndarray], *, resamples: int = RESAMPLES) -> Estimate:
    """`statistic(*groups)` and its percentile interval; each group is resampled separately. The generator is private.

    statistic: over the last axis of each group; an axis of resamples may precede it.
    """
    groups = [np.asarray(group, float) for group in groups]
    value = float(statistic(*groups))
    if min(map(len, groups)) < 2:
        return Estimate(value, math.nan, math.nan)
    rng = np.random.default_rng(0)
    sizes = np.array([len(group) for group in groups])
    places = rng.integers(np.repeat(sizes, sizes), size=(resamples, sizes.sum()))  # one call: a million are too slow
    drawn = [group[part] for group, part in zip(groups, np.split(places, sizes.cumsum()[:-1], axis=1))]
    low, high = np.quantile(statistic(*drawn), [LEVEL / 2, 1 - LEVEL / 2])
    return Estimate(value, float(low), float(high))
