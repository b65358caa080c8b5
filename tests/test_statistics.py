"""Statistics against worked cases, scipy, and the properties that the report relies on."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from benchmarks.report.aggregate import MINIMUM_FOR_INTERVAL, bootstrap_interval
from benchmarks.report.significance import (
    LEVEL,
    MEASURED,
    MINIMUM_SEEDS,
    difference,
    holm,
    paired_t,
    seeds_for_sign_flip,
    sign_flip,
    smallest_p,
    verdict,
)


def test_an_interval_needs_five_seeds():
    values = [0.1, 0.4, 0.2, 0.9, 0.3]
    assert np.isnan(bootstrap_interval(values[:4])).all()
    low, high = bootstrap_interval(values)
    assert 0.1 < low < np.mean(values) < high < 0.9


def test_the_bootstrap_has_a_separate_generator():
    values = [0.13, 0.41, 0.27, 0.93, 0.38]
    np.random.seed(1)
    first = bootstrap_interval(values)
    np.random.seed(2)
    assert bootstrap_interval(values) == first
    assert bootstrap_interval(values, seed=1) != first


def test_the_bootstrap_of_five_values_is_close_to_that_of_all_3125_resamples():
    values = [0.0, 1.0, 2.0, 5.0, 9.0]
    means = [np.mean(drawn) for drawn in itertools.product(values, repeat=5)]
    expected = tuple(np.quantile(means, [0.025, 0.975]))
    assert bootstrap_interval(values) == pytest.approx(expected, abs=0.21)  # means of whole numbers are 0.2 apart


def test_the_bootstrap_by_hand():
    """10,000 means of resamples from the generator of seed 0, and their quantiles 2.5 and 97.5 %."""
    values = np.random.default_rng(1).normal(size=12)
    drawn = np.random.default_rng(0).integers(12, size=(10_000, 12))
    means = [sum(values[row]) / 12 for row in drawn]
    assert bootstrap_interval(values) == pytest.approx(tuple(np.quantile(means, [0.025, 0.975])))


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
    values = np.arange(1.0, 18.0)  # beyond that 100,000 of them
    values[::3] *= -1
    signs = np.array(list(itertools.product((1.0, -1.0), repeat=17)))
    exact = (abs(signs @ values) >= abs(values.sum())).mean()
    assert sign_flip(values) == pytest.approx(exact, abs=0.005) and sign_flip(values) != exact


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
    assert holm([]).tolist() == []
    assert holm([0.0, 0.5]).tolist() == [0, 0.5]


def scores(by_seed):
    """What `difference` takes: ACC as given, NMI and ARI a half and a quarter of it."""
    acc = pd.Series(by_seed, dtype=float)
    return pd.DataFrame({"acc": acc, "nmi": acc / 2, "ari": acc / 4})


def measured(first, second):
    return dict(zip(MEASURED, difference(scores(first), scores(second)), strict=True))


def test_a_difference_is_of_the_seeds_that_both_have():
    found = measured({0: 0.9, 1: 0.8, 2: 0.7, 7: 0.1}, {2: 0.6, 1: 0.75, 0: 0.7})
    assert found["n"] == 3 and found["acc_sd"] == pytest.approx(np.std([0.2, 0.05, 0.1], ddof=1))
    assert (found["acc"], found["nmi"], found["ari"]) == pytest.approx((0.35 / 3, 0.35 / 6, 0.35 / 12))
    assert found["p_exact"] == smallest_p(3) == 0.25
    assert found["p_t"] == pytest.approx(stats.ttest_1samp([0.2, 0.05, 0.1], 0).pvalue)
    assert math.isnan(found["low"]) and math.isnan(found["high"])
    five = [0.1, 0.3, 0.2, 0.4, 0.2]
    found = measured(dict(enumerate(five)), dict.fromkeys(range(5), 0.0))
    assert (found["low"], found["high"]) == bootstrap_interval(five)


def test_a_difference_of_too_few_seeds_has_no_test():
    two, one = measured({0: 0.9, 1: 0.8}, {0: 0.7, 1: 0.7}), measured({4: 0.9}, {4: 0.7})
    assert two["n"] == 2 and math.isnan(two["p_t"]) and math.isnan(two["p_exact"]) and smallest_p(2) == 0.5
    assert one["n"] == 1 and math.isnan(one["acc_sd"])
    assert measured({0: 1.0}, {1: 1.0})["n"] == 0


def judged(differences, p=None, **options):
    """The verdict on differences against 0; p: adjusted, that of the t-test itself if left out."""
    return verdict(np.mean(differences), len(differences), paired_t(differences) if p is None else p,
                   sign_flip(differences), **options)  # fmt: skip


def test_verdicts():
    clear = [0.10, 0.11, 0.12]
    assert "too few seeds for the exact test" in judged(clear)
    assert judged(clear, 0.2) == "not supported"
    assert judged([0.1, 0.2], math.nan) == "too few seeds (2; a test needs 3)"
    many = np.array([0.10, 0.11, 0.12, 0.10, 0.13, 0.11, 0.12])
    assert judged(many) == "supported" and judged(-many) == "the reverse is supported"
    assert seeds_for_sign_flip() == 6 and seeds_for_sign_flip(0.01) == 8


def test_verdicts_at_the_level_itself():
    """p at the level is enough, for both tests; three seeds can just reach 0.25."""
    three = [0.10, 0.11, 0.12]
    assert sign_flip(three) == smallest_p(3) == 0.25
    assert judged(three, 0.25, level=0.25) == "supported"
    assert judged(three, 0.26, level=0.25) == "not supported"
    assert judged(three, 0.24, level=0.24) == "supported by the t-test alone (too few seeds for the exact test)"
    seven = [0.30, 0.31, 0.32, 0.30, -0.01, -0.01, 0.32]
    assert sign_flip(seven) == 0.0625
    assert judged(seven, 0.05) == "supported by the t-test alone"
    assert judged(seven, 0.05, level=0.0625) == "supported"


def test_levels_and_least_numbers_of_seeds():
    """What docs and tables say of them: 5 %, three seeds for a test, five for an interval."""
    assert (LEVEL, MINIMUM_SEEDS, MINIMUM_FOR_INTERVAL) == (0.05, 3, 5)
