"""Statistics against worked cases, scipy, and the properties that the report relies on."""

import itertools
from fractions import Fraction

import numpy as np
import pytest
from scipy import stats

from benchmarks.evaluation.statistics import (
    bootstrap_interval,
    compare,
    holm,
    paired_t,
    seeds_for_sign_flip,
    sign_flip,
    summarise,
    verdict,
)


def test_the_spread_divides_by_n_minus_one():
    summary = summarise([1.0, 2.0, 4.0])
    assert summary.mean == pytest.approx(7 / 3)
    assert summary.sd == pytest.approx(np.sqrt(((4 / 3) ** 2 + (1 / 3) ** 2 + (5 / 3) ** 2) / 2))
    assert summary.n == 3


def test_two_seeds_have_a_spread():
    assert summarise([0.5, 0.7]).sd == pytest.approx(np.sqrt(0.02))


def test_one_seed_has_no_spread():
    summary = summarise([0.5])
    assert (summary.mean, summary.sd, summary.low, summary.high, summary.n) == (0.5, None, None, None, 1)


def test_an_interval_needs_five_seeds_for_of_three_it_would_be_their_range():
    values = [0.1, 0.4, 0.2, 0.9, 0.3]
    assert bootstrap_interval(values[:3]) == pytest.approx((0.1, 0.4))
    four, five = summarise(values[:4]), summarise(values)
    assert (four.low, four.high) == (None, None) and four.sd is not None
    assert (five.low, five.high) == bootstrap_interval(values) and 0.1 < five.low < five.mean < five.high < 0.9


@pytest.mark.parametrize("values", [[], [0.1, float("nan")]])
def test_nothing_and_nan_are_refused(values):
    with pytest.raises(ValueError, match="finite"):
        summarise(values)


def test_the_bootstrap_has_a_generator_of_its_own():
    values = [0.1, 0.4, 0.2, 0.9]
    np.random.seed(1)
    first = bootstrap_interval(values)
    np.random.seed(2)
    assert bootstrap_interval(values) == first
    assert bootstrap_interval(values, seed=1, draws=50) != bootstrap_interval(values, seed=2, draws=50)


def test_the_bootstrap_of_three_values_is_that_of_all_27_resamples():
    values = [0.0, 1.0, 5.0]
    means = [np.mean(drawn) for drawn in itertools.product(values, repeat=3)]
    low, high = bootstrap_interval(values, draws=200_000)
    assert low == pytest.approx(np.quantile(means, 0.025, method="inverted_cdf"))
    assert high == pytest.approx(np.quantile(means, 0.975, method="inverted_cdf"))


def test_the_bootstrap_by_hand():
    """10,000 means of resamples from the generator of seed 0, and their quantiles 2.5 and 97.5 %."""
    values = np.random.default_rng(1).normal(size=12)
    drawn = np.random.default_rng(0).integers(12, size=(10_000, 12))
    means = [sum(values[row]) / 12 for row in drawn]
    assert bootstrap_interval(values) == pytest.approx(tuple(np.quantile(means, [0.025, 0.975])))
    assert (summarise(values).low, summarise(values).high) == bootstrap_interval(values)
    assert bootstrap_interval(values, level=0.5) == pytest.approx(tuple(np.quantile(means, [0.25, 0.75])))


def test_sign_flip_counts_all_signs():
    assert sign_flip([1.0, 2.0, 3.0]) == pytest.approx(2 / 8)
    # |sums| of signs of (3, 1): 4, 2, 2, 4; observed 3 - 1 = 2
    assert sign_flip([3.0, -1.0]) == 1
    assert sign_flip([0.0, 0.0, 0.0]) == 1
    differences = [0.3, 0.1, -0.2, 0.5, 0.4]
    flips = [abs(np.dot(signs, differences)) for signs in itertools.product((1, -1), repeat=5)]
    assert sign_flip(differences) == pytest.approx(np.mean([flip >= 1.1 - 1e-9 for flip in flips]))


def test_sign_flip_of_many_seeds_is_sampled_and_never_zero():
    assert 0 < sign_flip(np.ones(40)) < 1e-4
    assert sign_flip(np.tile([1.0, -1.0], 20)) == 1


def test_sign_flip_counts_all_signs_up_to_sixteen_seeds():
    assert sign_flip(np.ones(16)) == 2 / 2**16
    signs = np.random.default_rng(0).choice((1.0, -1.0), size=(100_000, 17))  # beyond that 100,000 of them, of seed 0
    values = np.arange(1.0, 18.0)
    values[::3] *= -1
    hits = (abs(signs @ values) >= abs(values.sum())).sum()  # whole numbers: nothing is rounded
    assert 100 < hits < 100_000 and sign_flip(values) == (hits + 1) / 100_001


@pytest.mark.parametrize("unit", [Fraction(1, 1000), Fraction(1, 10), Fraction(10**6, 7)])
def test_sign_flip_counts_ties_despite_rounding(unit):
    """Against sums of fractions: in floating point 0.1 + 0.2 is not 0.3, and large numbers are rounded more."""
    generator = np.random.default_rng(0)
    for _ in range(50):
        exactly = [int(number) * unit for number in generator.integers(-9, 10, size=6)]
        sums = [abs(sum(s * x for s, x in zip(signs, exactly))) for signs in itertools.product((1, -1), repeat=6)]
        assert sign_flip([float(x) for x in exactly]) == sum(x >= abs(sum(exactly)) for x in sums) / 64


def test_paired_t_is_scipys_on_pairs():
    first, second = np.array([0.7, 0.8, 0.75, 0.9]), np.array([0.6, 0.75, 0.76, 0.7])
    assert paired_t(first - second) == pytest.approx(stats.ttest_rel(first, second).pvalue)


def test_equal_differences_fall_back_on_the_exact_test():
    assert paired_t([0.1, 0.1, 0.1]) == pytest.approx(2 / 8)
    assert paired_t([0.0, 0.0, 0.0]) == 1
    nearly = [0.1, 0.1 + 1e-9, 0.1]  # differ by more than rounding
    assert paired_t(nearly) == pytest.approx(stats.ttest_1samp(nearly, 0).pvalue) and paired_t(nearly) < 0.01


def test_holm_worked_by_hand():
    # sorted .01 .02 .03 .04 -> x4 x3 x2 x1 = .04 .06 .06 .04, made increasing
    assert holm([0.03, 0.01, 0.04, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.9, 0.8]) == pytest.approx([1, 1])
    assert holm([]) == []
    assert holm([0.0, 0.5]) == [0, 0.5]


def test_comparison_uses_the_seeds_that_both_have():
    comparison = compare({0: 0.9, 1: 0.8, 2: 0.7, 7: 0.1}, {2: 0.6, 1: 0.75, 0: 0.7})
    assert comparison.seeds == (0, 1, 2)
    assert comparison.difference.mean == pytest.approx(0.35 / 3)
    assert comparison.p_sign_flip == comparison.smallest_sign_flip == 0.25
    assert comparison.p_paired_t == pytest.approx(stats.ttest_1samp([0.2, 0.05, 0.1], 0).pvalue)
    two, one = compare({0: 0.9, 1: 0.8}, {0: 0.7, 1: 0.7}), compare({4: 0.9}, {4: 0.7})
    assert (two.p_paired_t, two.p_sign_flip, two.smallest_sign_flip) == (None, None, 0.5)
    assert (one.seeds, one.smallest_sign_flip, one.difference.sd) == ((4,), 1.0, None)
    with pytest.raises(ValueError, match="no seed in common"):
        compare({0: 1.0}, {1: 1.0})


def two_methods(differences):
    return compare(dict(enumerate(differences)), dict.fromkeys(range(len(differences)), 0.0))


def test_verdicts():
    clear = two_methods([0.10, 0.11, 0.12])
    assert "too few seeds for the exact test" in verdict(clear, clear.p_paired_t)
    assert verdict(clear, 0.2) == "not supported"
    assert verdict(two_methods([0.1, 0.2]), None) == "too few seeds (2; a test needs 3)"
    many = two_methods([0.10, 0.11, 0.12, 0.10, 0.13, 0.11, 0.12])
    assert verdict(many, many.p_paired_t) == "supported"
    worse = two_methods([-0.10, -0.11, -0.12, -0.10, -0.13, -0.11, -0.12])
    assert verdict(worse, worse.p_paired_t) == "the reverse is supported"
    assert seeds_for_sign_flip() == 6 and seeds_for_sign_flip(0.01) == 8


def test_verdicts_at_the_level_itself():
    """p at the level is enough, for both tests; three seeds can just reach 0.25."""
    three = two_methods([0.10, 0.11, 0.12])
    assert three.p_sign_flip == three.smallest_sign_flip == 0.25
    assert verdict(three, 0.25, level=0.25) == "supported"
    assert verdict(three, 0.26, level=0.25) == "not supported"
    assert verdict(three, 0.24, level=0.24) == "supported by the t-test alone (too few seeds for the exact test)"
    seven = two_methods([0.30, 0.31, 0.32, 0.30, -0.01, -0.01, 0.32])
    assert seven.p_sign_flip == 0.0625
    assert verdict(seven, 0.05) == "supported by the t-test alone"
    assert verdict(seven, 0.05, level=0.0625) == "supported"


def test_levels_and_least_numbers_of_seeds():
    """What docs and tables say of them: 5 %, three seeds for a test, five for an interval."""
    from benchmarks.evaluation import statistics

    assert (statistics.LEVEL, statistics.MINIMUM_SEEDS, statistics.MINIMUM_FOR_INTERVAL) == (0.05, 3, 5)
    with pytest.raises(AttributeError):
        summarise([0.5]).mean = 1
    with pytest.raises(AttributeError):
        two_methods([0.1]).seeds = ()
