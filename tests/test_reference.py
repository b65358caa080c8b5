"""Committed results are what the code makes from the committed runs; one command adds studies to them."""

import json
import re
import shutil
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
import yaml
from conftest import tiny_mapping
from fake_study import write_no_figures
from svg import assert_plots_the_same

from benchmarks import reference
from benchmarks.compose import resolve
from benchmarks.report import inference, render
from benchmarks.report.landscape import MARKERS, draw_landscape, write_landscape
from benchmarks.report.published import load_context
from benchmarks.report.runs import Unfinished
from benchmarks.single import run_single
from benchmarks.study import load_study, write_plan
from scl.engine.io import sha256

ROOT = Path(__file__).resolve().parent.parent
STUDIES = reference.studies(ROOT / reference.FOLDER)
EVERY_STUDY = pytest.mark.parametrize("folder", STUDIES, ids=lambda folder: folder.name)
SMOKE = ROOT / reference.FOLDER / "smoke"


def files(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def without_pictures(path):
    """The text of a page, without its images, whose compression differs between machines."""
    return re.sub(r"data:image/[^\"]+", "", path.read_text())


@pytest.fixture
def copy(tmp_path):
    """A function that copies a committed study without generated files; without clusters.json, it gets no page."""

    def make(folder, *left_out):
        made = shutil.ignore_patterns("*.md", "*.tex", "figures", "report", "runs.csv", *left_out)
        return shutil.copytree(folder, tmp_path / folder.name, ignore=made)

    return make


@pytest.fixture
def without_figures(monkeypatch):
    """Write reports with two empty figures, to save time."""
    monkeypatch.setattr(render, "write_figures", write_no_figures)


def test_several_studies_are_committed():
    assert {"digits", "ablation", "smoke"} <= {folder.name for folder in STUDIES}


@EVERY_STUDY
def test_committed_files_are_what_the_committed_runs_give(folder, copy):
    again = copy(folder)
    reference.remake(again)
    assert files(again) == files(folder), "run `make reference` and commit the result"
    for name in sorted(files(folder)):
        if name.endswith(".html"):
            assert without_pictures(again / name) == without_pictures(folder / name), f"{name}: run `make reference`"
        elif name.endswith(".svg"):
            assert_plots_the_same((again / name).read_text(), (folder / name).read_text())
        elif not name.endswith(".png"):
            assert (again / name).read_bytes() == (folder / name).read_bytes(), f"{name}: run `make reference`"


@EVERY_STUDY
def test_the_configuration_still_describes_the_committed_runs(folder):
    planned = resolve(ROOT / "config" / f"{folder.name}.yaml")
    assert yaml.safe_load((folder / "study.yaml").read_text()) == planned, "run the study again, or retire it"


def test_the_figure_of_published_results_is_what_the_code_draws(tmp_path):
    write_landscape(tmp_path / "published.svg")
    expected = (ROOT / "docs" / "published.svg").read_text()
    assert_plots_the_same((tmp_path / "published.svg").read_text(), expected)


def test_a_changed_statistic_shows(copy, monkeypatch):
    monkeypatch.setattr(inference, "LEVEL", 0.1)
    again = copy(SMOKE, "clusters.json")
    reference.remake(again)
    assert (again / "tables.md").read_text() != (SMOKE / "tables.md").read_text()
    expected = (SMOKE / "figures" / "scores.svg").read_text()
    with pytest.raises(AssertionError):
        assert_plots_the_same((again / "figures" / "scores.svg").read_text(), expected)
    assert_plots_the_same((again / "figures" / "curves.svg").read_text(), (SMOKE / "figures/curves.svg").read_text())


def test_a_changed_score_shows(copy, without_figures):
    again = copy(SMOKE, "clusters.json")
    path = again / "runs/digits/joint/scl/seed0/metrics.json"
    metrics = json.loads(path.read_text())
    metrics["scores"]["acc"] -= 0.01
    path.write_text(json.dumps(metrics))
    reference.remake(again)
    assert (again / "runs.csv").read_text() != (SMOKE / "runs.csv").read_text()
    assert (again / "tables.md").read_text() != (SMOKE / "tables.md").read_text()


def edit_history(run):
    (run / "history.csv").write_text("epoch,loss\n")


def edit_settings(run):
    record = json.loads((run / "record.json").read_text())
    record["identity"]["settings"]["training"]["epochs"] = 31
    (run / "record.json").write_text(json.dumps(record))


def remove_metrics(run):
    (run / "metrics.json").unlink()


@pytest.mark.parametrize(
    "spoil, reason",
    [
        (edit_history, "history.csv is damaged"),
        (edit_settings, "made with other settings .training.epochs."),
        (remove_metrics, "trained, not evaluated"),
    ],
)
def test_runs_that_are_not_those_of_the_study_are_refused(copy, spoil, reason):
    again = copy(SMOKE, "clusters.json")
    spoil(again / "runs/digits/joint/pica/seed1")
    with pytest.raises(ValueError, match=f"^{again}: 1 of 21 runs are not done.*pica seed 1 .*{reason}"):
        reference.remake(again)
    assert not (again / "tables.md").exists()


def test_images_prepared_on_this_machine_do_not_matter(copy, without_figures, monkeypatch, tmp_path):
    (tmp_path / "data" / "digits").mkdir(parents=True)
    (tmp_path / "data" / "digits" / "benchmark.json").write_text("{}")
    again = copy(SMOKE, "clusters.json")
    monkeypatch.chdir(tmp_path)
    reference.remake(again)
    assert (again / "runs.csv").read_bytes() == (SMOKE / "runs.csv").read_bytes()


@pytest.fixture
def mapping(digits, tmp_path, without_figures):
    """The configuration of a study of two controls, whose runs need no training."""
    methods = {
        "random": {"method": "baselines.controls.Random", "training": {"epochs": 0}},
        "kmeans": {"method": "baselines.controls.Pixels", "training": {"epochs": 0}},
    }
    return tiny_mapping(digits, tmp_path / "results" / "controls", methods, seeds=[0, 1], reference="kmeans")


def run_all(mapping):
    study = load_study(mapping)
    for run in study.runs():
        if run.benchmark not in study.skipped:
            run_single(study, run, gpus=0, threads=1, report=lambda line: None)


@pytest.mark.parametrize("few, kept", [(100, {"history.csv", "run.yaml", "clusters.json"}), (3, set())])
def test_a_finished_study_is_added_and_found(mapping, tmp_path, monkeypatch, few, kept):
    """Even if one of its benchmarks has no source."""
    monkeypatch.setattr(reference, "FEW", few)
    folder = tmp_path / "reference"
    (folder / "controls" / "old").mkdir(parents=True)
    mapping["benchmarks"]["imagenet10"] = {}
    run_all(mapping)
    added = reference.add(mapping, folder)
    assert added == folder / "controls" and reference.studies(folder) == [added]
    runs, of_every_run = added / "runs" / "tiny-digits" / "joint", {"record.json", "metrics.json"}
    assert files(runs / "random" / "seed1") == of_every_run | kept
    assert files(runs / "kmeans" / "seed1") == of_every_run | kept | {"clustering.json"}
    names = {"figures", "runs", "runs.csv", "study.yaml", "tables.md", "tables.tex", "claims.md"}
    assert {path.name for path in added.iterdir()} == names | ({"report"} if kept else set())
    assert [path.name for path in folder.iterdir()] == ["controls"]
    shutil.rmtree(tmp_path / "results")
    before = {name: (added / name).read_bytes() for name in files(added)}
    reference.remake(added)
    assert {name: (added / name).read_bytes() for name in files(added)} == before


def test_the_history_of_a_run_with_counted_steps_is_kept_in_a_large_study(mapping, tmp_path, monkeypatch):
    """Tables state the total number of steps."""
    monkeypatch.setattr(reference, "FEW", 3)
    run_all(mapping)
    run = load_study(mapping).runs()[0].directory
    record = json.loads((run / "record.json").read_text())
    (run / "history.csv").write_text("epoch,steps\n1,10\n")
    record["files"]["history.csv"] = sha256(run / "history.csv")
    (run / "record.json").write_text(json.dumps(record | {"counts": {"steps with no confident image": 7}}))
    (tmp_path / "reference").mkdir()
    added = reference.add(mapping, tmp_path / "reference")
    assert "steps with no confident image 7 of 10." in (added / "tables.md").read_text()
    assert [path.parent.name for path in added.rglob("history.csv")] == ["seed0"]


def test_an_unfinished_study_is_not_added(mapping, tmp_path):
    folder = tmp_path / "reference"
    (folder / "controls").mkdir(parents=True)
    with pytest.raises(Unfinished, match="4 of 4 runs are not done"):
        reference.add(mapping, folder)
    assert files(folder) == set()


def test_more_seeds_are_added_to_a_committed_study(mapping, tmp_path):
    """Only the committed files are left of the earlier runs."""
    folder = tmp_path / "reference"
    folder.mkdir()
    run_all(mapping | {"seeds": [0]})
    reference.add(mapping | {"seeds": [0]}, folder)
    shutil.rmtree(tmp_path / "results")
    run_all(mapping | {"seeds": [1]})
    write_plan(load_study(mapping), mapping)  # like Snakemake, writes a run.yaml for the committed runs, too
    with pytest.raises(Unfinished, match="2 of 6 runs are not done, such as tiny-digits joint random seed 2"):
        reference.add(mapping | {"seeds": [0, 1, 2]}, folder)
    rows = pd.read_csv(reference.add(mapping, folder) / "runs.csv")
    assert list(rows.seed) == [0, 1, 0, 1] and set(rows.status) == {"done"}


def test_a_wrong_name_is_one_line(capsys):
    with pytest.raises(SystemExit) as caught:
        reference.main(["config/no-such.yaml"])
    assert caught.value.code == 2 and capsys.readouterr().err.count("\n") == 1


def test_the_figure_of_published_results_has_every_value_with_its_statistic():
    context = load_context()
    figure = draw_landscape(context)
    drawn = Counter(line.get_marker() for panel in figure.axes for line in panel.lines)
    assert drawn == {MARKERS[name][1]: count for name, count in context.statistic.value_counts().items()}
    titles = {f"{row.benchmark} ({row.protocol})" for row in context.itertuples()}
    assert {panel.get_title() for panel in figure.axes} == titles
    names = {label.get_text().rsplit(" [", 1)[0] for panel in figure.axes for label in panel.get_yticklabels()}
    assert names == set(context.method)
    assert all(source in figure._supxlabel.get_text() for source in context.source)
