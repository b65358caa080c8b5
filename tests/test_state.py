"""Whether a result counts: runs of a real study, and changes around them."""

import json
import shutil

import numpy as np
import pytest
from conftest import TINY_METHODS, tiny_mapping
from PIL import Image

from benchmarks.datasets.prepare import prepare_for
from benchmarks.evaluation import evaluate
from benchmarks.report.runs import collect, runs_of
from benchmarks.state import Survey
from benchmarks.study import load_study, write_plan
from scl.engine.artifacts import Record, read
from scl.engine.io import sha256
from scl.engine.train import train

BENCHMARK = {"dataset": "digits", "subset": 200, "size": 8}


@pytest.fixture(scope="module")
def done(train_all, digits, tmp_path_factory):
    """The results of a trained and evaluated study."""
    methods = {stage: TINY_METHODS[stage] for stage in ("simclr", "scan")}
    mapping = tiny_mapping(digits, tmp_path_factory.mktemp("done"), methods, benchmarks={"tiny-digits": BENCHMARK})
    study = load_study(mapping)
    write_plan(study, mapping)
    for run in train_all(study):
        evaluate.evaluate_run(run.directory, digits / "tiny-digits")
    return study.results


@pytest.fixture
def study(done, tiny_study, digits, tmp_path):
    """A function that makes a study on copies of these results and their data."""
    data = tmp_path / "own"
    shutil.copytree(digits, data)
    shutil.copytree(done, tmp_path / "results")
    return lambda **changes: tiny_study(
        "simclr", "scan", data=data, benchmarks={"tiny-digits": BENCHMARK | changes}, plan=False
    )


def reasons(study):
    return {run.stage: state.reason for run, state in Survey(study).states().items()}


def test_what_was_trained_and_evaluated_counts(study):
    assert {state.status for state in Survey(study()).states().values()} == {"done"}
    assert Survey(study()).outdated() == []


@pytest.mark.parametrize(
    "change, words", [({"clusters": 5}, "clusters: 10, wanted 5"), ({"size": 12}, "size: [8, 8], wanted")]
)
def test_runs_on_a_benchmark_prepared_otherwise_do_not_count(change, words, study, tmp_path):
    other = study(**change)
    found = Survey(other)
    assert words in found.state(other.runs()[0]).reason
    assert (other.data / "tiny-digits" / "benchmark.json") in found.outdated()
    assert {file.name for file in found.outdated()} == {"benchmark.json", "record.json", "metrics.json"}
    with pytest.raises(ValueError, match="2 of 2 runs are not done"):
        collect(other, other.results)
    prepare_for(other, "tiny-digits")  # now the data is as requested, but the runs are still the old ones
    assert reasons(other)["simclr"] == "made on other images than those prepared now: train again"
    assert runs_of(other).acc.isna().all()
    prepare_for(study(), "tiny-digits")  # and back: the same images, so the same results count again
    assert set(runs_of(study()).status) == {"done"}


@pytest.mark.parametrize("other", [{"subset": 100}, {"clusters": 5}, {"size": 12}])
def test_results_count_while_another_study_has_prepared_the_folder_otherwise(other, study):
    prepare_for(study(**other), "tiny-digits")
    assert set(runs_of(study()).status) == {"done"} and Survey(study()).outdated() == []
    third = Survey(study(subset=60))  # neither of these images nor of the prepared ones
    assert {state.status for state in third.states().values()} == {"outdated", "waiting"}
    _, scan = study().runs()
    (scan.directory / "metrics.json").unlink()  # now the images are needed
    found = Survey(study())
    assert [state.status for state in found.states().values()] == ["done", "trained"]
    assert {file.name for file in found.outdated()} == {"benchmark.json"}
    prepare_for(study(), "tiny-digits")
    evaluate.evaluate_run(scan.directory, study().data / "tiny-digits")
    assert set(runs_of(study()).status) == {"done"}


def test_without_the_images_the_record_counts_and_other_clusters_images_or_sizes_do_not(study):
    shutil.rmtree(study().data)
    assert set(runs_of(study()).status) == {"done"}
    for change in ({"clusters": 5}, {"subset": 100}, {"subset": None}, {"size": 12}):
        assert "made on other images" in reasons(study(**change))["simclr"], change


@pytest.mark.parametrize("happens", ["edited", "another folder", "another data set"])
def test_without_the_images_results_of_another_source_do_not_count(happens, train_all, tmp_path):
    for folder, value in [("photos", 0), ("other", 1)]:
        for label in "ab":
            (tmp_path / folder / label).mkdir(parents=True)
            Image.new("RGB", (8, 8), (value, 0, ord(label))).save(tmp_path / folder / label / "0.png")
    source = {"dataset": "folder", "path": str(tmp_path / "photos"), "clusters": 2, "size": 8}

    def study(**changes):
        benchmarks = {"mine": source | changes}
        methods = {"random": TINY_METHODS["random"]}
        return load_study(tiny_mapping(tmp_path / "data", tmp_path / "results", methods, benchmarks=benchmarks))

    prepare_for(study(), "mine")
    write_plan(study(), {})
    (run,) = train_all(study())
    evaluate.evaluate_run(run.directory, tmp_path / "data" / "mine")
    shutil.rmtree(tmp_path / "data")
    assert Survey(study()).state(run).status == "done"
    changes = {}
    if happens == "edited":
        (tmp_path / "photos" / "a" / "1.png").write_bytes((tmp_path / "other" / "a" / "0.png").read_bytes())
    elif happens == "another folder":
        changes = {"path": str(tmp_path / "other")}
    else:
        changes = {"dataset": "digits", "path": None, "subset": 2}
    (run,) = study(**changes).runs()
    assert "the images are to be prepared again" in Survey(study(**changes)).state(run).reason
    shutil.rmtree(tmp_path / "photos")  # it may be on another machine
    (run,) = study().runs()
    assert Survey(study()).state(run).status == "done"


def test_other_labels_are_scored_again_without_training(study):
    folder = study().data / "tiny-digits"
    labels = np.load(folder / "labels.npy")
    np.save(folder / "labels.npy", np.roll(labels, 1))
    facts = json.loads((folder / "benchmark.json").read_text())
    (folder / "benchmark.json").write_text(json.dumps(facts | {"labels_sha256": sha256(folder / "labels.npy")}))
    found = Survey(study())
    assert {state.status for state in found.states().values()} == {"trained"}
    assert {file.name for file in found.outdated()} == {"metrics.json"}


def test_another_version_of_the_evaluator_scores_again_without_training(study, monkeypatch):
    monkeypatch.setattr("benchmarks.state.VERSION", evaluate.VERSION + 1)
    assert {file.name for file in Survey(study()).outdated()} == {"metrics.json"}


def test_weights_trained_again_to_something_else_outdate_what_builds_on_them(study):
    simclr, scan = study().runs()
    record = read(simclr.directory / "record.json", Record)
    files = record.files | {"weights.pt": "other"}
    (simclr.directory / "record.json").write_text(json.dumps(record.model_dump() | {"files": files}))
    assert reasons(study())["scan"] == "made from other weights of the stage on which it builds: train again"


def test_a_damaged_identity_is_made_again(study):
    """Even by `scl run`, which, unlike Snakemake, does not delete the record first."""
    simclr, _ = study().runs()
    path = simclr.directory / "record.json"
    record = json.loads(path.read_text())
    record["identity"]["engine"] ^= 1
    path.write_text(json.dumps(record))
    assert Survey(study()).state(simclr).status != "done"
    train(simclr.directory, gpus=0, report=lambda line: None)
    assert Survey(study()).state(simclr).status == "done"


def test_results_may_be_moved(study, tiny_study, tmp_path):
    """Neither the folder of results nor that of data is part of a run's identity."""
    old = study()
    shutil.copytree(old.results, tmp_path / "moved")
    shutil.move(old.data, tmp_path / "data elsewhere")
    moved = tiny_study(
        "simclr", "scan", results="moved", data=tmp_path / "data elsewhere", benchmarks={"tiny-digits": BENCHMARK}
    )
    assert set(runs_of(moved).status) == {"done"}
