"""Differences, verdicts, and claims.md, from run folders of a study that never ran."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from fake_study import (
    METHODS,
    MORE,
    SCL,
    Study,
    benchmark,
    block,
    change,
    check_golden,
    claims_of,
    decisive,
    finish_all,
    groups_of,
    made_up,
    pairs_of,
    texts_of,
    troubled,
)
from scipy import stats

from benchmarks.report.claims import across_benchmarks
from benchmarks.report.inference import EXACT_UP_TO, detectable_difference, holm, sign_flip_p, welch_error
from benchmarks.report.significance import comparisons, difference, share_encoder, verdicts


@pytest.fixture(scope="module")
def study(decisive_study):
    return decisive_study.study


@pytest.fixture(scope="module")
def collected(decisive_study):
    """The runs and groups of this study."""
    return decisive_study.runs, decisive_study.groups


@pytest.fixture(scope="module")
def pairs(decisive_study):
    return decisive_study.pairs


@pytest.fixture(scope="module")
def claims(decisive_study):
    return decisive_study.claims


def verdict_of(study, stage, pairs=None):
    found = verdicts(study, pairs_of(study) if pairs is None else pairs)
    return next(verdict for verdict in found if verdict.stage == stage)


def differences(study, name, other):
    """SCL minus another stage on one benchmark, one number per seed."""
    return np.subtract(*([made_up(study.run(name, "joint", s, seed)) for seed in study.seeds] for s in ("scl", other)))


def test_claims_are_as_expected(tmp_path, claims):
    check_golden(claims, "claims-decisive.md")
    check_golden(claims_of(troubled(tmp_path)), "claims.md")


# ---- one benchmark ---------------------------------------------------------------------------------------


def scores(by_seed):
    """Input of `difference`: ACC as given, NMI and ARI a half and a quarter of it."""
    acc = pd.Series(by_seed, dtype=float)
    return pd.DataFrame({"acc": acc, "nmi": acc / 2, "ari": acc / 4})


def measured(first, second, *, paired=True):
    return difference(scores(first), scores(second), paired=paired)


def test_difference_is_of_the_seeds_that_both_have():
    found = measured({0: 0.9, 1: 0.8, 2: 0.7, 7: 0.1}, {2: 0.6, 1: 0.75, 0: 0.7})
    by_seed = [0.2, 0.05, 0.1]
    assert found["n"] == 3 and found["acc_sd"] == pytest.approx(np.std(by_seed, ddof=1))
    assert (found["acc"], found["nmi"], found["ari"]) == pytest.approx((0.35 / 3, 0.35 / 6, 0.35 / 12))
    assert (found["low"], found["high"]) == pytest.approx(stats.ttest_1samp(by_seed, 0).confidence_interval(0.95))
    assert found["p"] == 0.25 and found["differences"] == pytest.approx(by_seed)


def test_difference_unpaired_is_welchs():
    x, y = [0.9, 0.8, 0.7, 0.85], [0.6, 0.75, 0.7, 0.5]
    found = measured(dict(enumerate(x)), dict(enumerate(y)), paired=False)
    expected = stats.ttest_ind(x, y, equal_var=False).confidence_interval(0.95)
    assert (found["low"], found["high"]) == pytest.approx(expected) and math.isnan(found["p"])
    assert found["acc"] == pytest.approx(np.mean(x) - np.mean(y))


def test_difference_of_one_seed_has_no_interval():
    found = measured({4: 0.9}, {4: 0.7})
    assert found["n"] == 1 and math.isnan(found["low"]) and math.isnan(found["detectable"]) and found["p"] == 1


def test_stages_of_one_chain_share_an_encoder(study):
    shared = [stage for stage in study.methods if share_encoder(study, "scl", stage)]
    assert shared == ["simclr", "scan", "scl", "no-semantic"]  # pica, pixels, and random do not


def test_description_of_a_benchmark(study, claims):
    lines = claims.splitlines()
    by_seed = differences(study, "stl10", "scan")
    low, high = stats.ttest_1samp(by_seed, 0).confidence_interval(0.95)
    line = next(line for line in lines if line.startswith("- stl10 (joint), SCL − SCAN (clustering step)"))
    assert f"+{100 * by_seed.mean():.1f} points ACC (+{100 * low:.1f} to +{100 * high:.1f})" in line
    assert f"exact p = {sign_flip_p(by_seed):.3f}" in line and "unpaired" not in line
    assert "unpaired" in next(line for line in lines if line.startswith("- stl10 (joint), SCL − PICA"))
    found = [line for line in lines if "no difference found" in line]
    assert found and all("−0.5" in line or "(−" in line for line in found)  # the interval contains 0


# ---- verdicts --------------------------------------------------------------------------------------------


def test_verdict_is_a_stratified_test_over_the_benchmarks_that_count(study, pairs):
    competitors = ("pixels", "simclr", "scan", "pica", "no-semantic")  # without random, the chance level
    groups = {stage: [differences(study, name, stage) for name in ("cifar100-20", "stl10")] for stage in competitors}
    adjusted = dict(zip(competitors, holm(np.array([sign_flip_p(*groups[stage]) for stage in competitors]))))
    found = {verdict.stage: verdict for verdict in verdicts(study, pairs)}
    assert list(found) == list(competitors)
    for stage, verdict in found.items():
        assert verdict.benchmarks == ("cifar100-20", "stl10") and verdict.n == 10
        assert verdict.acc == pytest.approx(np.mean([g.mean() for g in groups[stage]]))
        assert verdict.p == pytest.approx(adjusted[stage])
        assert [pair.benchmark for pair in verdict.beside] == ["cifar10", "digits"]
    assert found["scan"].answer == "supported" and found["no-semantic"].answer == "not decided"


def test_verdict_against_the_reference_is_contradicted(study, collected):
    other = replace(study, reference="scan")
    found = verdict_of(other, "scl", comparisons(other, *collected))
    assert found.answer == "contradicted" and found.acc < 0


def test_subset_of_a_data_set_used_for_tuning_has_no_verdict(tmp_path):
    study = decisive(tmp_path, seeds=(0, 1), benchmarks={"ten": benchmark(dataset="cifar10", subset=10_000)})
    found = verdict_of(study, "scan")
    assert found.answer == "not decided" and found.benchmarks == () and "chosen on every benchmark" in found.reason
    assert "- No verdict (joint): hyper-parameters were chosen on every benchmark that was run (ten)." in claims_of(
        study
    )


@pytest.mark.parametrize(
    "name, tuned, marked", [("stl10", True, True), ("cifar10", False, False), ("cifar10", None, True)]
)
def test_a_configuration_says_what_was_tuned_on(tmp_path, name, tuned, marked):
    study = decisive(tmp_path, seeds=(0, 1), benchmarks={name: benchmark(tuned=tuned)})
    assert (verdict_of(study, "scan").benchmarks == ()) == marked
    assert (f"{name} † (joint)" in claims_of(study)) == marked


def test_incomplete_competitor_is_not_run_and_still_counts_for_the_adjustment(study, pairs, tmp_path):
    before = verdict_of(study, "scan", pairs)
    study = decisive(tmp_path)
    (study.run("stl10", "joint", "pica", 2).directory / "metrics.json").unlink()
    pairs = pairs_of(study)
    found = verdict_of(study, "pica", pairs)
    assert found.answer == "not run" and found.reason == "stl10, PICA: missing (4 of 5 done)" and math.isnan(found.p)
    assert verdict_of(study, "scan", pairs).p == before.p


def test_too_few_differences_for_any_verdict_say_so(tmp_path):
    study = decisive(tmp_path, seeds=(0, 1), benchmarks={"stl10": benchmark()})
    found = verdict_of(study, "pixels")
    assert found.answer == "not decided" and math.isnan(found.detectable) and not found.reachable
    assert "with so few differences the test cannot reach the level" in claims_of(study)


def test_one_seed_of_many_benchmarks_reaches_the_level_without_a_spread(tmp_path):
    methods = {"scan": METHODS["scan"], "simclr": METHODS["simclr"], "scl": SCL}
    benchmarks = {name: benchmark(dataset="stl10") for name in "abcdef"}
    study = decisive(tmp_path, seeds=(0,), methods=methods, benchmarks=benchmarks)
    rows = pairs_of(study)
    rows = rows[rows.stage == "scan"]
    found = verdict_of(study, "scan", rows)
    assert found.reachable and math.isnan(found.detectable) and found.p == 2 / 2**6


def test_detectable_difference_is_of_the_adjusted_level(study, pairs):
    found = verdict_of(study, "no-semantic", pairs)
    groups = [differences(study, name, "no-semantic") for name in found.benchmarks]
    error = math.sqrt(sum(g.var(ddof=1) / 5 for g in groups)) / 2
    critical = stats.t.ppf(1 - 0.05 / 5 / 2, 8)  # 10 differences, 2 means
    assert stats.nct.sf(critical, 8, found.detectable / error) == pytest.approx(0.8, abs=2e-3)


def test_without_a_reference_nothing_is_compared(tmp_path):
    study = finish_all(Study(tmp_path / "none", reference=None))
    assert claims_of(study).count("names no `reference:`") == 2


# ---- descriptions across benchmarks -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "methods, skipped, reason",
    [
        ({"scl": SCL}, {}, "there is no other method"),
        ({"scl": SCL, "random": MORE["random"]}, {}, "the only other method is chance"),
        ({"scl": SCL, "random": MORE["random"]}, {"stl10": "no source"}, "no benchmark was run"),
    ],
)
def test_why_there_is_nothing_to_test(tmp_path, methods, skipped, reason):
    methods = {"simclr": METHODS["simclr"]} | methods if skipped else methods
    methods = {name: block(one.title, one.method) for name, one in methods.items()}
    study = Study(tmp_path / "study", {"stl10": benchmark()}, methods=methods, skipped=skipped)
    claims = claims_of(finish_all(study))
    assert f"- Nothing to test: {reason}.\n" in claims
    assert (f"- Nothing to compare: {reason}.\n" in claims) == ("chance" not in reason)


def test_descriptions_are_over_the_benchmarks_that_count(study, collected, pairs):
    table, names = across_benchmarks(study, collected[1], pairs)["joint"], ("cifar100-20", "stl10")
    assert table.caption == "ACC over cifar100-20, stl10 (joint)"
    rows = {row[0].text: dict(zip(table.columns, (cell.text for cell in row))) for row in table.rows}

    def accs(stage, name):
        return [made_up(study.run(name, "joint", stage, seed)) for seed in study.seeds]

    higher = [np.mean([x > y for x in accs("scl", n) for y in accs("no-semantic", n)]) for n in names]
    chance = {name: np.mean(accs("random", name)) for name in names}
    normalized = np.mean([(np.mean(accs("scl", n)) - c) / (1 - c) for n, c in chance.items()])
    assert rows["without semantic contrast"]["P(improvement)"].startswith(f"{100 * np.mean(higher):.1f} (")
    assert rows["SCL"]["normalized ACC"].startswith(f"{100 * normalized:.1f} (")
    assert rows["SCL"]["average rank"] == "1.0" and rows["random"]["average rank"] == "7.0"


def test_descriptions_without_chance_or_with_incomplete_rows(tmp_path):
    study = decisive(tmp_path, methods=METHODS, benchmarks={"stl10": benchmark()}, seeds=(0, 1))
    (study.run("stl10", "joint", "pica", 1).directory / "metrics.json").unlink()
    runs, groups = groups_of(study)
    table = across_benchmarks(study, groups, comparisons(study, runs, groups))["joint"]
    assert table.columns == ["Method", "P(improvement)", "average rank"] and "left out" in table.notes[1]
    assert [cell.text for row in table.rows for cell in row[1:] if row[0].text == "PICA"] == ["–", "–"]


# ---- published values, cautions --------------------------------------------------------------------------


def test_an_interval_in_which_no_resample_differs_is_left_out(study, collected, pairs):
    """Five seeds that are all above five others do not prove that the probability is exactly 1."""
    rows = {row[0].text: row[1].text for row in across_benchmarks(study, collected[1], pairs)["joint"].rows}
    assert (
        rows["random"] == "100.0 (–)"
        and rows["without semantic contrast"].endswith(")")
        and " to " in rows["without semantic contrast"]
    )


def test_many_seeds_have_a_sampled_p_and_one_seed_has_none(tmp_path):
    keys = {"benchmarks": {"stl10": benchmark()}, "methods": {"simclr": METHODS["simclr"], "scl": SCL}}
    for seeds, told in (((0,), "n = 1."), (range(EXACT_UP_TO + 1), "n = 17, sampled p < 0.001.")):
        study = decisive(tmp_path / str(len(seeds)), seeds=tuple(seeds), **keys)
        [line] = [line for line in claims_of(study).splitlines() if line.startswith("- stl10 (joint), SCL − SimCLR")]
        assert line.endswith(told)


def test_picas_nmi_is_compared_with_the_average_it_was_made_with(study, claims):
    ours = 100 * np.mean([made_up(study.run("cifar10", "joint", "pica", s), "nmi_geometric") for s in study.seeds])
    line = next(line for line in claims.splitlines() if line.startswith("- cifar10 (joint), PICA"))
    assert f"NMI (geometric) {ours:.1f} here, 56.1 published" in line and "400 epochs there, 100 here" in line


def test_a_comparison_across_commits_carries_a_caution(tmp_path):
    study = finish_all(Study(tmp_path / "mixed", benchmarks={"digits": benchmark()}))
    change(study.run("digits", "joint", "pica", 0), "record.json", commit="feed")
    lines = [line for line in claims_of(study).splitlines() if "Caution" in line]
    assert len(lines) == 1 and "Caution for PICA: seeds trained at different commits." in lines[0]


@pytest.fixture(scope="module")
def from_scratch(tmp_path_factory):
    """An ablation like config/ablation-scratch.yaml: no shared encoder, data used for tuning, 60 seeds."""
    methods = {
        "scl": block("SCL", "scl.scl.SCL", semantic_weight=1.0),
        "no-semantic": block("without semantic contrast", "scl.scl.SCL", semantic_weight=0.0),
    }
    folder = tmp_path_factory.mktemp("scratch") / "ablation-scratch"
    return finish_all(Study(folder, benchmarks={"digits": benchmark()}, methods=methods, seeds=(*range(20, 80),)))


def test_what_unpaired_rows_of_unequal_spread_detect_is_more_than_half_their_interval():
    found = measured({0: 0.5, 1: 0.6, 2: 0.7}, {0: 0.3, 1: 0.3, 2: 0.31}, paired=False)
    assert found["detectable"] > (found["high"] - found["low"]) / 2


def test_an_unpaired_ablation_on_tuned_data_states_welch_and_what_it_detects_but_no_verdict(from_scratch):
    scores = {
        stage: [100 * made_up(from_scratch.run("digits", "joint", stage, seed)) for seed in from_scratch.seeds]
        for stage in from_scratch.methods
    }
    found = stats.ttest_ind(scores["scl"], scores["no-semantic"], equal_var=False).confidence_interval(0.95)
    mean = np.mean(scores["scl"]) - np.mean(scores["no-semantic"])
    detectable = detectable_difference(*welch_error(*map(np.array, (scores["scl"], scores["no-semantic"]))))
    text = claims_of(from_scratch)
    between = f"{found.low:+.1f} to {found.high:+.1f}".replace("-", "−")
    [line] = [line for line in text.splitlines() if line.startswith("- digits † (joint), SCL − without")]
    assert f"{mean:+.1f} points ACC ({between})" in line and found.low > 0
    assert f"n = 60, unpaired, Welch's interval; detectable: {detectable:.1f}." in line and "p =" not in line
    [line] = [line for line in text.splitlines() if line.startswith("- The semantic contrast contributes")]
    assert "**not decided** (hyper-parameters were chosen on every benchmark" in line
    assert f"digits † {mean:+.1f} (Welch's interval {between}; detectable: {detectable:.1f})" in line
    assert "P(improvement)" not in text and "**supported**" not in text


def test_an_unpaired_row_has_no_spread_of_differences(from_scratch):
    table = texts_of(from_scratch)["tables.md"].split("**ACC difference to SCL")[1]
    [row] = [line for line in table.splitlines() if line.startswith("| without semantic contrast")]
    assert "±" not in row and "ᶠ" in row
