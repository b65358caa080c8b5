"""Statistics of a study against cases worked by hand, SciPy, and rliable 1.2.0 (values pinned: it needs pandas < 3)."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from scipy import stats

from benchmarks.report.inference import (
    EXACT_UP_TO,
    detectable_difference,
    holm,
    normalized_mean,
    probability_of_improvement,
    sign_flip_p,
    smallest_p,
    stratified_bootstrap,
    t_interval,
    welch_error,
    welch_interval,
)

FIRST = {
    "a": np.array([0.6, 0.615, 0.586, 0.555, 0.577]),
    "b": np.array([0.6, 0.653, 0.717, 0.625, 0.619]),
    "c": np.array([0.724, 0.718, 0.705, 0.653, 0.699]),
}
SECOND = {
    "a": np.array([0.605, 0.503, 0.547, 0.475, 0.506]),
    "b": np.array([0.528, 0.608, 0.557, 0.634, 0.628]),
    "c": np.array([0.661, 0.544, 0.643, 0.668, 0.676]),
}


def test_t_interval_is_scipys():
    values = np.array([0.3, 0.1, -0.2, 0.5, 0.4])
    low, high = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    found = t_interval(values)
    assert (found.value, found.low, found.high) == pytest.approx((values.mean(), low, high))


def test_interval_of_one_value_is_nan():
    assert math.isnan(t_interval(np.array([0.5])).low)
    assert math.isnan(welch_interval(np.array([0.5]), np.array([0.5, 0.6])).low)
    assert math.isnan(normalized_mean({"a": np.array([0.5])}, {"a": 0.1}).low)
    assert math.isnan(detectable_difference(1.0, 0)) and math.isnan(detectable_difference(1.0, math.nan))


def test_welch_interval_by_hand():
    x, y = np.array([0.80, 0.85, 0.90]), np.array([0.70, 0.72, 0.80, 0.90])
    error = math.sqrt(x.var(ddof=1) / 3 + y.var(ddof=1) / 4)
    freedom = error**4 / ((x.var(ddof=1) / 3) ** 2 / 2 + (y.var(ddof=1) / 4) ** 2 / 3)
    half = stats.t.ppf(0.975, freedom) * error
    found = welch_interval(x, y)
    assert (found.low, found.high) == pytest.approx((found.value - half, found.value + half))
    assert found.value == pytest.approx(x.mean() - y.mean())


def test_interval_without_spread_is_the_difference():
    found = welch_interval(np.full(3, 0.7), np.full(4, 0.4))
    assert (found.low, found.value, found.high) == pytest.approx((0.3, 0.3, 0.3))


@pytest.mark.filterwarnings("error")
def test_welch_interval_of_one_group_without_spread():
    """SciPy warns about nearly identical values; the interval is that of the other group's mean."""
    values = np.array([0.4, 0.41, 0.45])
    found, other = welch_interval(np.full(3, 0.5), values), t_interval(values)
    assert (found.value, found.low, found.high) == pytest.approx(
        (0.5 - other.value, 0.5 - other.high, 0.5 - other.low), abs=1e-12
    )


def test_sign_flip_enumerates_all_signs():
    assert sign_flip_p(np.array([1.0, 2.0, 3.0])) == pytest.approx(2 / 8)
    assert sign_flip_p(np.array([3.0, -1.0])) == 1  # |sums| 4, 2, 2, 4; observed 2
    assert sign_flip_p(np.zeros(3)) == 1
    assert sign_flip_p(np.array([0.1, 0.2, -0.3])) == 1  # a sum of 5.6e-17 is a tie with 0


def test_stratified_sign_flip_weighs_each_benchmark_the_same():
    """Against a double loop over signs; the statistic is the mean of group means, regardless of group sizes."""
    groups = [np.array([0.3, 0.1]), np.array([-0.2, 0.5, 0.4, 0.1])]

    def statistic(flipped):
        return abs(flipped[:2].mean() + flipped[2:].mean()) / 2

    values = np.concatenate(groups)
    observed = statistic(values)
    hits = [statistic(values * signs) >= observed - 1e-12 for signs in itertools.product((1, -1), repeat=6)]
    assert sign_flip_p(*groups) == pytest.approx(np.mean(hits))


def test_sign_flip_of_many_values_is_sampled_and_never_zero():
    n = EXACT_UP_TO + 1
    assert 0 < sign_flip_p(np.ones(n)) < 1e-4
    values = np.arange(1.0, n + 1)
    values[::3] *= -1
    signs = np.array(list(itertools.product((1.0, -1.0), repeat=n)))
    exact = (abs(signs @ values) >= abs(values.sum())).mean()
    assert sign_flip_p(values) == pytest.approx(exact, abs=0.005)


@pytest.mark.parametrize("unit", [Fraction(1, 1000), Fraction(1, 10), Fraction(10**6, 7)])
def test_sign_flip_counts_ties_despite_rounding(unit):
    """Against sums of fractions: in floating point, 0.1 + 0.2 is not 0.3, and larger numbers are rounded more."""
    generator = np.random.default_rng(0)
    for _ in range(50):
        exactly = [int(number) * unit for number in generator.integers(-9, 10, size=6)]
        sums = [abs(sum(s * x for s, x in zip(signs, exactly))) for signs in itertools.product((1, -1), repeat=6)]
        found = sign_flip_p(np.array([float(x) for x in exactly]))
        assert found == sum(x >= abs(sum(exactly)) for x in sums) / 64


def test_smallest_p_is_reached():
    counts = (1, 3, 5, 16, 20)
    assert [sign_flip_p(np.ones(n)) for n in counts] == [smallest_p(n) for n in counts]


def test_detectable_difference_has_the_stated_power():
    """Against SciPy's noncentral t where that is reliable."""
    for n in (3, 5, 10, 60):
        shift = detectable_difference(2.0, n - 1) / 2.0
        critical = stats.t.ppf(0.975, n - 1)
        power = stats.nct.sf(critical, n - 1, shift) + stats.nct.cdf(-critical, n - 1, shift)
        assert power == pytest.approx(0.8, abs=1e-3)


@pytest.mark.parametrize("spreads", [(1.0, 1.0), (1.0, 0.1), (0.0, 2.0)])
def test_error_of_an_unpaired_difference_is_that_of_welchs_test(spreads):
    first, second = (spread * np.array([0.0, 1.0, 5.0]) for spread in spreads)
    error, freedom = welch_error(first, second)
    found = stats.ttest_ind(first, second, equal_var=False)
    assert freedom == pytest.approx(found.df)
    assert error * stats.t.ppf(0.975, freedom) == pytest.approx(
        found.confidence_interval().high - first.mean() + second.mean()
    )
    assert welch_error(np.ones(3), np.ones(3)) == (0, 4) and math.isnan(welch_error(np.ones(1), np.ones(3))[1])


def test_holm_by_hand():
    assert holm(np.array([0.01, 0.04, 0.03])) == pytest.approx([0.03, 0.06, 0.06])
    # sorted .01 .02 .03 .04 -> x4 x3 x2 x1 = .04 .06 .06 .04, made monotone
    assert holm(np.array([0.03, 0.01, 0.04, 0.02])) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm(np.array([0.9, 0.8])) == pytest.approx([1, 1])
    assert holm(np.array([])).size == 0


def test_probability_of_improvement_is_rliables():
    found = probability_of_improvement(FIRST, SECOND)
    assert found.value == pytest.approx(0.8133333333)
    assert (found.low, found.high) == pytest.approx((0.6267, 0.96), abs=0.015)


def test_probability_of_improvement_counts_ties_half():
    same = {"a": np.array([0.5, 0.6])}
    assert probability_of_improvement(same, same).value == 0.5


def test_normalized_mean_is_rliables():
    found = normalized_mean(FIRST, dict.fromkeys("abc", 0.1))
    assert found.value == pytest.approx(0.6034074074)
    assert (found.low, found.high) == pytest.approx((0.5870, 0.6210), abs=0.002)


def test_normalized_mean_at_chance_is_zero():
    assert normalized_mean({"a": np.full(3, 0.2), "b": np.full(3, 0.1)}, {"a": 0.2, "b": 0.1}).value == pytest.approx(0)


def test_bootstrap_resamples_each_group_by_itself():
    """With constant groups nothing varies; with pooled resampling it would."""
    found = stratified_bootstrap(lambda x, y: x.mean(-1) - y.mean(-1), [np.full(4, 1.0), np.full(4, 3.0)])
    assert (found.low, found.high) == (-2.0, -2.0)


def test_bootstrap_ignores_the_global_generator():
    np.random.seed(1)
    first = normalized_mean(FIRST, dict.fromkeys("abc", 0.1))
    np.random.seed(2)
    assert normalized_mean(FIRST, dict.fromkeys("abc", 0.1)) == first
