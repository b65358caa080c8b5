"""The statements of SCL's abstract: which rows answer them, and what is reported if none does."""

from dataclasses import replace

import pytest
from fake_study import METHODS, SCL, Study, benchmark, block, claims_of, decisive, pairs_of

from benchmarks.report.claims import gains, statements
from benchmarks.report.significance import comparisons, verdicts
from scl.config import Training


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


def statements_of(study, pairs):
    return {found.text: found.verdicts for found in statements(study, verdicts(study, pairs))}


def test_statements_take_the_verdicts_of_their_rows(study, pairs, claims):
    found = {text: [(v.stage, v.answer) for v in of_text] for text, of_text in statements_of(study, pairs).items()}
    assert found == {
        "SCL is above SimCLR + k-means": [("simclr", "supported")],
        "SCL is above SCAN": [("scan", "supported")],
        "SCL is above PICA": [("pica", "supported")],
        "The semantic contrast contributes": [("no-semantic", "not decided")],
        "The consistency condition contributes": [],
        "The consensus contributes": [],
    }
    assert "- The consensus contributes: **not run** (no row of this study)." in claims
    assert "- SCL is above PICA, row PICA (joint): **supported**" in claims


def test_statements_are_of_scl_only(study, collected):
    other = replace(study, reference="pica")
    assert statements_of(other, comparisons(other, *collected)) == {}


@pytest.mark.parametrize(
    "after, options, statement",
    [
        ("simclr", {"semantic_weight": 0.0}, "semantic contrast"),
        ("simclr", {"semantic_weight": 1.0, "consistency": "view"}, "consistency condition"),
        ("simclr", {"semantic_weight": 1.0, "consensus": "similarities"}, "consensus"),
        (None, {"semantic_weight": 0.0}, None),
        ("simclr", {"semantic_weight": 0.0, "balance_weight": 1.0}, None),
        ("simclr", {"semantic_weight": 0.5}, None),  # reduced but not removed
        ("simclr", {}, None),  # the default, which the reference states explicitly
    ],
)
def test_ablation_removes_one_part_and_changes_nothing_else(tmp_path, after, options, statement):
    other = block("other", "scl.scl.SCL", after=after, **options)
    methods = {"simclr": METHODS["simclr"], "scl": SCL, "no-semantic": other}
    study = decisive(tmp_path, methods=methods, benchmarks={"stl10": benchmark()}, seeds=(0,))
    found = [
        text for text, answers in statements_of(study, pairs_of(study)).items() if "contributes" in text and answers
    ]
    assert found == [f"The {statement} contributes"] * bool(statement)


def test_an_ablation_with_another_schedule_on_one_benchmark_answers_no_statement(study, pairs, monkeypatch):
    def settings(self, run, own=Study.settings):
        longer = (run.benchmark, run.stage) == ("stl10", "no-semantic")
        return own(self, run).model_copy(update={"training": Training(epochs=400)} if longer else {})

    assert statements_of(study, pairs)["The semantic contrast contributes"]
    monkeypatch.setattr(Study, "settings", settings)
    assert statements_of(study, pairs)["The semantic contrast contributes"] == []


def test_a_row_of_skipped_benchmarks_is_no_missing_row(tmp_path):
    study = decisive(tmp_path, benchmarks={"imagenet10": benchmark()}, skipped={"imagenet10": "no ImageNet source"})
    text = claims_of(study)
    assert "- SCL is above PICA: **not run** (every benchmark is skipped)." in text
    assert "- The consensus contributes: **not run** (no row of this study)." in text
    assert "\n- Not run: imagenet10 (no ImageNet source).\n" in text


def test_gains_are_listed_by_classes_and_images(study, pairs):
    line = gains(study, pairs)[0][0]
    assert line.startswith("over SimCLR + k-means (joint): digits † +")
    places = [line.index(part) for part in ("10 clusters, 13,000", "10 clusters, 60,000", "20 clusters, 60,000")]
    assert places == sorted(places)


@pytest.mark.parametrize(
    "changed, reason",
    [
        ({}, "too few complete rows"),
        ({"benchmarks": {"stl10": benchmark()}}, "no two benchmarks that differ in them"),
        ({"methods": {"pixels": METHODS["pixels"], "scl": SCL}}, "no row of this study"),
    ],
)
def test_the_reason_for_no_gains_is_that_of_the_study(study, pairs, changed, reason):
    pairs = pairs[pairs.stage.isin(changed.get("methods", study.methods))]
    pairs = pairs[pairs.benchmark.isin(changed.get("benchmarks", study.benchmarks))]
    if not changed:
        pairs = pairs.assign(absence=pairs.absence.where(pairs.benchmark == "stl10", "missing"))
    assert gains(replace(study, **changed), pairs) == ([], reason)


def test_more_complete_rows_of_one_benchmark_would_have_no_gains_either(study, pairs):
    """As in a partial report on a study with one benchmark."""
    pairs = pairs[pairs.benchmark == "stl10"].assign(absence="missing")
    found = gains(replace(study, benchmarks={"stl10": benchmark()}), pairs)
    assert found == ([], "no two benchmarks that differ in them")


def test_gains_count_the_images_that_are_trained_on(tmp_path):
    study = decisive(tmp_path, protocols=("heldout",), benchmarks={n: benchmark() for n in ("cifar10", "stl10")})
    assert "(10 clusters, 5,000 images), cifar10 † " in gains(study, pairs_of(study))[0][0]
