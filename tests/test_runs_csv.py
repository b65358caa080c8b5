"""runs.csv: a row for each planned run, with the reason if its result does not count."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from conftest import TINY_METHODS, tiny_mapping
from fake_study import METHODS, Study, change, fail, finish, finish_all, lines_of, made_up, partial, write

from benchmarks import cli
from benchmarks.evaluation.evaluate import evaluate_run
from benchmarks.report.render import write_report
from benchmarks.report.runs import collect, read_runs, row_of
from benchmarks.state import Survey
from scl.engine.identity import fingerprint


@pytest.fixture
def study(tmp_path):
    return finish_all(Study(tmp_path / "smoke"))


def row_at(study, *place):
    return SimpleNamespace(**row_of(study.run(*place), Survey(study)))


def test_one_row_per_planned_run_with_its_numbers(study):
    rows = lines_of(collect(study, study.results))
    assert len(rows) == 2 * 5 * 3 and {row["status"] for row in rows.values()} == {"done"}
    row = rows["cifar10", "joint", "scl", 1]
    assert float(row["acc"]) == made_up(study.run("cifar10", "joint", "scl", 1))
    assert (row["commit"], row["dirty"], row["torch"]) == ("0123456789abcdef", "False", "2.13.0")
    assert float(row["peak_memory_mb"]) == 2500


def test_chain_seconds_include_upstream_stages(study):
    row = row_at(study, "cifar10", "joint", "scan", 1)
    assert (row.seconds, row.chain_seconds) == (901, 901 + 3001)


def test_uncommitted_changes_of_an_upstream_stage_or_an_earlier_attempt_are_told(study):
    run = scan(study)
    attempt = {"started": "-", "commit": "0123456789abcdef", "device": "NVIDIA H200", "precision": "bf16"}
    change(run, "record.json", attempts=[attempt])
    assert row_at(study, "cifar10", "joint", "scan", 1).dirty is False
    change(run, "record.json", attempts=[attempt | {"dirty": True}, attempt | {"dirty": False}])
    assert row_at(study, "cifar10", "joint", "scan", 1).dirty is True
    change(run.after, "record.json", dirty=True)
    change(run, "record.json", attempts=[])
    assert row_at(study, "cifar10", "joint", "scan", 1).dirty is True


def test_what_is_written_is_read_again(study):
    collect(study, study.results)
    first = next(read_runs(study, study.results).itertuples())
    assert first.dirty is False and isinstance(first.seed, int)
    assert first.acc == made_up(study.run("cifar10", "joint", "pixels", 0)) and np.isnan(first.neighbor_purity)
    (study.results / "runs.csv").write_text("benchmark,acc\n")
    with pytest.raises(ValueError, match="collect the runs again"):
        read_runs(study, study.results)


def scan(study):
    return study.run("cifar10", "joint", "scan", 1)


def remove(study, name, stage="scan"):
    (study.run("cifar10", "joint", stage, 1).directory / name).unlink()


def identity(run, part, **changed):
    """Change a part of the identity in a run's record."""
    stated = json.loads((run.directory / "record.json").read_text())["identity"]
    stated[part] = stated[part] | changed if isinstance(stated[part], dict) else changed[part]
    change(run, "record.json", identity=stated, fingerprint=fingerprint(stated))


def cut_off(run, name):
    (run.directory / name).write_text("{")


SPOILED = {  # what happened to seed 1 of SCAN, or of SimCLR, from which it starts: the reason in its row
    "nothing was started": (lambda s: [remove(s, name) for name in ("record.json", "metrics.json")], "not run"),
    "not evaluated": (lambda s: remove(s, "metrics.json"), "trained, not evaluated"),
    "trained again, not evaluated again": (
        lambda s: change(scan(s), "metrics.json", of=metrics_of(s)["of"] | {"fingerprint": "another"}),
        "metrics.json is of another training",
    ),
    "scored by another version": (
        lambda s: change(scan(s), "metrics.json", of=metrics_of(s)["of"] | {"evaluator": 0}),
        "another version: evaluate again",
    ),
    "a setting changed": (
        lambda s: identity(scan(s), "settings", training={"epochs": 90}),
        "made with other settings (training.batch_size, training.compile, ",
    ),
    "an option changed": (
        lambda s: identity(scan(s), "settings", options={"neighbors": 3}),
        "made with other settings (options.entropy_weight, options.neighbors, ",
    ),
    "another version of the method": (
        lambda s: identity(scan(s), "settings", version=0),
        "made with other settings (version)",
    ),
    "another version of the engine": (
        lambda s: identity(scan(s), "engine", engine=0),
        "made by another version of the training loop",
    ),
    "other clusters": (lambda s: identity(scan(s), "images", clusters=5), "made on other images"),
    "other weights to start from": (lambda s: identity(scan(s), "weights", weights="x"), "made from other weights"),
    "assignments replaced": (
        lambda s: np.savez(scan(s).directory / "assignments.npz", rows=np.arange(3)),
        "assignments.npz is damaged",
    ),
    "assignments lost": (lambda s: remove(s, "assignments.npz"), "assignments.npz is missing"),
    "history cut off": (lambda s: cut_off(scan(s), "history.csv"), "history.csv is damaged"),
    "folder copied from another seed": (
        lambda s: identity(scan(s), "settings", seed=2),
        "made with other settings (seed)",
    ),
    "stage before outdated": (
        lambda s: identity(scan(s).after, "settings", version=0),
        "simclr, on which it builds, has to be trained again",
    ),
    "stage before lost": (
        lambda s: remove(s, "record.json", "simclr"),
        "simclr, on which it builds, has to be trained again",
    ),
    "stage before failed": (
        lambda s: (remove(s, "record.json"), remove(s, "record.json", "simclr"), fail(scan(s).after, "loss is nan")),
        "simclr, on which it builds, failed",
    ),
    "record cut off": (lambda s: cut_off(scan(s), "record.json"), "record.json is damaged (not JSON)"),
    "record of an older version": (
        lambda s: write(scan(s), "record.json", {"seed": 1}),
        "record.json is damaged or of another version (benchmark: missing)",
    ),
    "record of the stage before cut off": (
        lambda s: cut_off(scan(s).after, "record.json"),
        "simclr, on which it builds, has to be trained again",
    ),
    "metrics of an older version": (
        lambda s: change(scan(s), "metrics.json", of={}),
        "metrics.json is damaged or of another version",
    ),
}


def metrics_of(study):
    return json.loads((scan(study).directory / "metrics.json").read_text())


@pytest.mark.parametrize("spoil, reason", SPOILED.values(), ids=SPOILED.keys())
def test_what_does_not_agree_is_missing_with_the_reason_and_has_no_score(study, spoil, reason):
    spoil(study)
    row = row_at(study, "cifar10", "joint", "scan", 1)
    assert row.status == "missing" and reason in row.reason and not hasattr(row, "acc")


def test_a_run_stopped_half_way_is_called_interrupted(study):
    remove(study, "record.json")
    (scan(study).directory / "checkpoint.pt").touch()
    assert row_at(study, "cifar10", "joint", "scan", 1).reason == "interrupted"


def test_a_failure_is_reported_in_one_line(study):
    remove(study, "record.json")
    fail(scan(study), "loss is\nnan", epoch=3, step=120, term="balance")
    row = row_at(study, "cifar10", "joint", "scan", 1)
    assert (row.status, row.reason) == ("failed", "loss is nan (epoch 3, step 120, term balance)")


def test_an_old_failure_beside_a_finished_run_does_not_count(study):
    fail(scan(study), "loss is nan")
    assert row_at(study, "cifar10", "joint", "scan", 1).status == "done"
    identity(scan(study), "settings", version=0)  # now the record is the old one
    assert row_at(study, "cifar10", "joint", "scan", 1).status == "failed"


def test_a_failure_of_other_settings_does_not_count(study):
    remove(study, "record.json")
    fail(scan(study), "loss is nan", config_sha256="of a higher learning rate")
    assert row_at(study, "cifar10", "joint", "scan", 1).reason == "not run"


def test_targets_of_the_workflow_are_made_of_whole_studies_only(study):
    remove(study, "record.json")
    with pytest.raises(ValueError, match="1 of 30 runs are not done, such as cifar10 joint scan seed 1 .not run."):
        collect(study, study.results)
    assert not (study.results / "runs.csv").exists()
    collect(study, partial(study))
    finish(scan(study))
    collect(study, study.results)
    assert not partial(study).exists()


def test_tables_that_are_older_than_a_partial_report_are_named(study, capsys):
    collect(study, partial(study))
    (study.results / "tables.md").touch()
    collect(study, partial(study))
    assert capsys.readouterr().err == ""
    remove(study, "record.json")
    collect(study, partial(study))
    told = capsys.readouterr().err
    assert f"{study.results / 'tables.md'} " in told and "1 of 30 runs are not done, such as cifar10" in told


@pytest.mark.parametrize("changed", [{"seeds": (0,)}, {"methods": {"pixels": METHODS["pixels"]}}])
def test_runs_of_another_plan_are_not_reported(study, changed):
    collect(study, study.results)
    with pytest.raises(ValueError, match="runs.csv has other runs than the study plans; collect the runs again"):
        write_report(replace(study, **changed), study.results)
    assert not (study.results / "tables.md").exists()


@pytest.fixture
def finished(tiny_study, train_all, tmp_path, monkeypatch):
    """A function that writes a.yaml, the configuration of a study that is trained and evaluated as without `changes`;
    returns its results."""
    study = tiny_study("random")
    for run in train_all(study):
        evaluate_run(run.directory, study.data / run.benchmark)
    monkeypatch.chdir(tmp_path)

    def configure(**changes):
        mapping = tiny_mapping(study.data, study.results, {"random": TINY_METHODS["random"]}, **changes)
        Path("a.yaml").write_text(yaml.safe_dump(mapping))
        return study.results

    return configure


def test_no_tables_are_made_from_a_runs_csv_of_an_earlier_state(finished, capsys):
    results = finished()
    assert cli.main(["report", "a.yaml", "--part", "collect"]) == 0
    assert cli.main(["report", "a.yaml", "--part", "report"]) == 0
    before = (results / "tables.md").read_bytes()
    finished(network={"width": 16}, title="another network")
    assert cli.main(["report", "a.yaml", "--part", "report"]) == 2
    assert "runs.csv is of an earlier state of the study; collect the runs again" in capsys.readouterr().err
    assert (results / "tables.md").read_bytes() == before


def test_a_skipped_benchmark_keeps_its_rows_with_the_reason(tmp_path):
    study = finish_all(Study(tmp_path / "s", skipped={"cifar10": "no ImageNet source"}))
    row = row_at(study, "cifar10", "joint", "scl", 0)
    assert (row.status, row.reason) == ("skipped", "no ImageNet source")
