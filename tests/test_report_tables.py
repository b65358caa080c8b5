"""The tables, from run folders of a study that never ran."""

import csv
import hashlib
import json
import re
from importlib import resources

import numpy as np
import pytest
from fake_study import (
    Study,
    benchmark,
    change,
    check_golden,
    finish,
    finish_all,
    lines_of,
    made_up,
    partial,
    texts_of,
    troubled,
)

from benchmarks.datasets.catalog import CATALOG, Downloads
from benchmarks.report.formats import interval, p_value
from benchmarks.report.published import load_context, load_published, published_for
from scl.engine.io import sha256
from scl.util.text import duration


@pytest.fixture
def study(tmp_path):
    return finish_all(Study(tmp_path / "smoke"))


def tables(study):
    """tables.md and tables.tex."""
    texts = texts_of(study)
    return texts["tables.md"], texts["tables.tex"]


def test_tables_are_as_expected(tmp_path):
    texts = texts_of(troubled(tmp_path))
    for name in ("tables.md", "tables.tex"):
        check_golden(texts[name], name)


class Noted(Study):
    def note(self, stage, benchmark):
        return "no official settings" if (stage, benchmark) == ("scan", "digits") else ""


def test_a_note_on_settings_is_below_the_table_of_its_benchmark(tmp_path):
    page = tables(finish_all(Noted(tmp_path / "noted")))[0]
    assert page.count("- SCAN (clustering step): no official settings") == 1
    digits = page[page.index("**digits † (joint)**") :]
    assert "no official settings" in digits[: digits.index("\n**")]


def test_images_that_are_not_the_published_ones_are_named_below_their_table(tmp_path):
    subset = {"cifar10": benchmark(), "digits": benchmark(subset=500)}
    downloads = Downloads(checksums={"cifar-10-python.tar.gz": {"sha256": 64 * "0"}})
    study = Study(tmp_path / "other", benchmarks=subset, downloads=downloads)
    page = tables(finish_all(study))[0]
    assert page.count("- Images: from an archive other than the published one") == 1
    digits = page[page.index("**digits † (joint)**") :]
    assert "- Images: a fixed subset of 500 images of Digits" in digits[: digits.index("\n**")]
    trial = Downloads(imagenet={"tar": "x.tar", "images_per_class": 20})
    study = Study(tmp_path / "trial", benchmarks={"imagenet10": benchmark()}, downloads=trial)
    assert study.images_note("imagenet10") == "20 images per class, where the published data set has 1300"


def test_the_mean_and_spread_are_those_of_the_seeds(study):
    values = [made_up(study.run("cifar10", "joint", "scl", seed)) * 100 for seed in (0, 1, 2)]
    line = next(line for line in tables(study)[0].splitlines() if line.startswith("| SCL ") and "GB" in line)
    assert f"{np.mean(values):.1f} ± {np.std(values, ddof=1):.1f}" in line
    assert re.search(r"\| 3 +\|", line)


def test_incomplete_seeds_are_never_averaged(study):
    for seed in (0, 1):
        (study.run("digits", "joint", "scl", seed).directory / "metrics.json").unlink()
    survivor = f"{made_up(study.run('digits', 'joint', 'scl', 2)) * 100:.1f}"
    for text in tables(study):
        rows = [line for line in text.splitlines() if "missing (1 of 3 done)" in line]
        assert len(rows) == 2 and not any(survivor in row for row in rows)  # overview and detail


@pytest.mark.parametrize(
    "changed, letter",
    [
        ({"commit": "feed"}, "ᵃ"),
        ({"dirty": True}, "ᵇ"),
        ({"images_sha256": "other"}, "ᶜ"),
        ({"device": "CPU"}, "ᵈ"),
        ({"versions": {"torch": "2.9.1"}}, "ᵈ"),
        ({"versions": {"torch": "2.13.0", "scikit-learn": "1.7.2"}}, "ᵈ"),
    ],
)
def test_mixed_runs_get_a_footnote(study, changed, letter):
    finish(study.run("digits", "joint", "pica", 1), **changed)
    text = tables(study)[0]
    assert any(letter in line for line in text.splitlines() if line.startswith("| PICA"))
    assert any(line.startswith(f"- {letter} ") for line in text.splitlines())


def test_runs_that_differ_in_nothing_get_no_footnote_and_unknown_packages_no_line(study):
    text = tables(study)[0]
    assert not re.search("[ᵃᵇᶜᵈᵉᵍʰ]", text) and "Packages" not in text


def test_the_versions_of_other_packages_are_named(study):
    for run in study.runs():
        finish(run, versions={"python": "3.12.1", "torch": "2.13.0", "scipy": "1.17.1", "pillow": None})
    assert "- Packages: python 3.12.1, scipy 1.17.1.\n" in tables(study)[0]


@pytest.mark.parametrize("device, marked", [("CPU: AMD EPYC, AVX512", True), ("NVIDIA H200", False)])
def test_threads_get_a_footnote_on_a_cpu_only(study, device, marked):
    for seed in study.seeds:
        finish(study.run("digits", "joint", "pica", seed), device=device, threads=1 + (seed == 2))
    text = tables(study)[0]
    assert any("ᵈ" in line for line in text.splitlines() if line.startswith("| PICA")) == marked
    assert ("CPU: AMD EPYC, AVX512, 2 threads (1 run)" in text) == marked
    assert lines_of(partial(study) / "runs.csv")["digits", "joint", "pica", 2]["threads"] == "2"


ATTEMPT = {"started": "now", "commit": "0123456789abcdef", "device": "NVIDIA H200", "precision": "bf16"}


def test_a_stage_or_an_attempt_at_another_commit_gets_a_footnote(study):
    for seed in study.seeds:
        change(study.run("digits", "joint", "simclr", seed), "record.json", commit="older")
        change(study.run("digits", "joint", "scl", seed), "record.json", attempts=[ATTEMPT | {"commit": "older"}])
    lines = [line for line in tables(study)[0].splitlines() if "ᵉ" in line and line.startswith("|")]
    assert [line.split()[1] for line in lines] == ["SCAN", "SCL", "SCAN", "SCL"]  # overview, digits


def test_a_run_started_on_another_device_gets_a_footnote(study):
    for seed in study.seeds:
        attempts = [ATTEMPT | {"device": "NVIDIA A100"}]
        change(study.run("digits", "joint", "pica", seed), "record.json", attempts=attempts)
    assert any("ᵈ" in line for line in tables(study)[0].splitlines() if line.startswith("| PICA"))
    assert lines_of(partial(study) / "runs.csv")["digits", "joint", "pica", 0]["other_devices"] == "NVIDIA A100 bf16"


def use(study, stage, seed, clusters):
    """Leave all but so many of the ten clusters of a run without images."""
    run = study.run("digits", "joint", stage, seed)
    scores = json.loads((run.directory / "metrics.json").read_text())["scores"]
    change(run, "metrics.json", scores=scores | {"clusters_used": clusters, "smallest_share": 0.0})


def test_empty_clusters_and_counted_events_are_reported(study):
    change(study.run("digits", "joint", "scan", 1), "record.json", counts={"empty_mask_steps": 3})
    for stage, seed, clusters in (("simclr", 1, 9), ("pica", 0, 9), ("pica", 2, 9), ("pica", 1, 8)):
        use(study, stage, seed, clusters)
    text = tables(study)[0]
    assert "- SCAN (clustering step), seed 1: empty_mask_steps 3." in text
    assert text.count("clusters empty") == 2
    assert "- SimCLR + k-means, seed 1; PICA, seeds 0, 2: 1 of 10 clusters empty." in text
    assert "- PICA, seed 1: 2 of 10 clusters empty." in text
    assert lines_of(partial(study) / "runs.csv")["digits", "joint", "pica", 1]["clusters"] == "10"


@pytest.mark.parametrize("clusters, marked", [(5, True), (6, False)])
def test_a_collapsed_run_is_marked(clusters, marked, study):
    use(study, "pica", 1, clusters)
    text = tables(study)[0]
    assert ("- ʰ a seed collapsed" in text) == marked
    assert any("ʰ" in line for line in text.splitlines() if line.startswith("| PICA")) == marked


@pytest.mark.parametrize(
    "low, high, text",
    [
        (-0.096, 0.0004, "−9.6 to +0.04"),  # "+0.0" would not show whether 0 is inside
        (-0.00005, 0.096, "−0.005 to +9.6"),
        (0.0, 0.1, "+0.0 to +10.0"),
        (-1e-9, 0.1, "+0.0 to +10.0"),  # rounding of floats
        (float("nan"), float("nan"), "–"),
    ],
)
def test_a_bound_near_zero_keeps_its_sign(low, high, text):
    assert interval(low, high) == text


def test_a_p_value_near_the_level_says_on_which_side_it_is():
    assert [p_value(p) for p in (0.0004, 0.0312, 0.0498, 0.0503)] == [
        "p < 0.001",
        "p = 0.031",
        "p = 0.0498",
        "p = 0.0503",
    ]


@pytest.mark.parametrize("skipped, marked", [(57, True), (56, False)])
def test_a_run_that_never_took_a_step_says_so(study, skipped, marked):
    """Such as self-labeling without a single confident image: its row is that of the previous stage."""
    run = study.run("digits", "joint", "scan", 1)
    history = run.directory / "history.csv"
    history.write_text("epoch,steps\n1,19\n2,38\n")
    files = json.loads((run.directory / "record.json").read_text())["files"] | {"history.csv": sha256(history)}
    change(run, "record.json", counts={"steps with no confident image": skipped}, files=files)
    text = tables(study)[0]
    assert f"- SCAN (clustering step), seed 1: steps with no confident image {skipped} of 57." in text
    assert ("learned nothing" in text) == marked
    assert any("ᵍ" in line for line in text.splitlines() if line.startswith("| SCAN")) == marked


def test_data_without_labels_say_so(study):
    for run in study.runs():
        change(run, "metrics.json", scores=None, oracle=None, reason="the data set has no labels", per_epoch=[])
    text = tables(study)[0]
    assert text.count("no labels") >= 10 and "5200" not in text and "86.7 min" in text


def test_one_seed_has_no_spread(tmp_path):
    study = finish_all(Study(tmp_path / "one", seeds=(0,), reference=None))
    text = tables(study)[0]
    assert f"{made_up(study.run('digits', 'joint', 'scl', 0)) * 100:.1f} " in text
    assert not any("±" in line for line in text.splitlines() if line.startswith("|"))


def test_nothing_done_and_nothing_planned_still_say_so(tmp_path):
    text = tables(Study(tmp_path / "none"))[0]
    assert "0 of 30 done; 30 missing" in text and text.count("not run") >= 20
    assert "No runs are planned" in tables(Study(tmp_path / "empty", benchmarks={}))[0]


# ---- published values ------------------------------------------------------------------------------------


def test_published_results_need_the_same_protocol_clusters_and_complete_data_set(tmp_path):
    study = Study(
        tmp_path,
        benchmarks={
            "cifar10": benchmark(),
            "part": benchmark(dataset="cifar10", subset=10000),
            "copy": benchmark(dataset="cifar10"),
            "ten": benchmark(dataset="cifar10", clusters=10),
            "fifty": benchmark(dataset="cifar10", clusters=50),
            "digits": benchmark(),
        },
    )
    assert published_for(study, "joint", "cifar10", "pica").acc == 0.645  # the mean, not the best run
    assert published_for(study, "joint", "copy", "pica").acc == 0.645
    assert published_for(study, "joint", "ten", "pica").acc == 0.645
    assert published_for(study, "joint", "fifty", "pica") is None
    assert published_for(study, "heldout", "cifar10", "pica") is None
    assert published_for(study, "joint", "part", "pica") is None
    assert published_for(study, "joint", "digits", "pica") is None
    assert published_for(study, "joint", "cifar10", "scl") is None


def test_published_results_need_the_published_images(tmp_path):
    names = {"cifar10": benchmark(), "imagenet10": benchmark()}
    trial = Downloads(
        imagenet={"tar": "x.tar", "images_per_class": 20}, checksums={"cifar-10-python.tar.gz": {"sha256": 64 * "0"}}
    )
    for name in names:
        assert published_for(Study(tmp_path, benchmarks=names), "joint", name, "pica")
        assert published_for(Study(tmp_path, benchmarks=names, downloads=trial), "joint", name, "pica") is None


def test_published_rows_are_whole():
    rows = load_published()
    assert len(rows) == 30 and not any(row.method.startswith("scl.") for row in rows)
    assert all(0 < row.acc < 1 and row.source and row.statistic in ("single", "mean", "best") for row in rows)
    assert len({row[:5] for row in rows}) == len(rows)


CONTEXT = {  # source: rows, and the start of the SHA-256 of their verified values
    "DCDC repository, table of results": (6, "5b161464366318ca"),
    "Contrastive Clustering (AAAI 2021), as quoted by a leaderboard and by the ProPos repository": (
        6,
        "4b6119927d7f41b9",
    ),
    "ProPos repository, table of main results, which quotes other papers (ResNet-18 to ResNet-34)": (
        23,
        "281df144ac3ffcda",
    ),
    "SPICE (IEEE TIP 2022) Table III, best of several runs": (27, "9a280cdcad62c80c"),
}


@pytest.mark.parametrize("source", CONTEXT)
def test_context_values_are_those_verified(source):
    with resources.files("benchmarks.report").joinpath("context.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["source"] == source]
    keys = ("method", "statistic", "protocol", "benchmark", "acc", "nmi", "ari")
    lines = "\n".join(",".join(row[key] for key in keys) for row in rows)
    assert (len(rows), hashlib.sha256(lines.encode()).hexdigest()[:16]) == CONTEXT[source]


def test_context_is_whole_and_apart_from_our_methods():
    rows = load_context()
    assert len(rows) == 62 and set(rows.source) == set(CONTEXT)
    assert not rows.duplicated(["method", "protocol", "benchmark"]).any()
    assert rows.acc.between(0, 1).all() and set(rows.benchmark) <= set(CATALOG)
    assert set(rows.statistic) <= {"mean", "best", "single", "unknown"} and "SCL" not in set(rows.method)


def test_a_reconstruction_is_called_one(study):
    assert "SCL: reconstructed from the abstract of its paper" in tables(study)[0]


@pytest.mark.parametrize(
    "seconds, text",
    [(float("nan"), "–"), (0.01, "< 0.1 s"), (4.26, "4.3 s"), (99, "99 s"), (120, "2.0 min"), (9000, "2.5 h")],
)
def test_durations(seconds, text):
    assert duration(seconds) == text
