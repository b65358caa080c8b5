"""What `scl status` and `scl doctor` report on a study and a machine, and that they change nothing."""

import json

import pytest
import torch
from conftest import TINY_METHODS

from benchmarks import cli
from benchmarks.check import check_study
from benchmarks.datasets.catalog import Downloads
from benchmarks.overview import Overview
from benchmarks.status import describe_run, missing, summarize_study
from scl.config import complete, digest
from scl.engine import gpu_lease
from scl.engine.locks import locked

pytestmark = pytest.mark.slow


def state(study, stage="scl", seed=0):
    run = study.run("tiny-digits", "joint", stage, seed)
    return next(describe_run(now) for now in Overview(study).runs if now.run == run)


def test_a_run_is_not_started_running_stopped_failed_or_done(tiny_study, train_all):
    study = tiny_study("scl")
    [run] = study.runs()
    assert state(study) == "not started"
    log = study.results / "logs" / "tiny-digits" / "joint" / "scl" / "seed0.log"
    log.parent.mkdir(parents=True)
    log.write_text("epoch 1/3  1.0 min done, about 2.0 min left\n")
    with locked(run.directory / ".lock", run.directory):
        assert state(study) == "running: epoch 1/3  1.0 min done, about 2.0 min left"
    (run.directory / "checkpoint.pt").touch()
    assert state(study).startswith("stopped: epoch 1/3")
    failure = {"error": "the loss is nan", "kind": "NonFinite", "permanent": True, "epoch": 2}
    config = digest(complete(study.settings(run)))
    (run.directory / "failure.json").write_text(json.dumps(failure | {"config_sha256": config}))
    assert state(study) == f"failed: the loss is nan (epoch 2); log: {log}"
    (run.directory / "checkpoint.pt").unlink()
    train_all(study)
    assert state(study).startswith("done in") and "1 runs, 1 of them trained" in summarize_study(Overview(study))


def test_what_was_trained_otherwise_does_not_count_as_done(tiny_study, train_all):
    train_all(tiny_study("random", "scl"))
    changed = TINY_METHODS | {"scl": TINY_METHODS["scl"] | {"options": {"temperature": 0.2}}}
    before = (tiny_study("scl").runs()[0].directory / "run.yaml").read_bytes()
    study = tiny_study("random", "scl", methods=changed, plan=False)
    assert state(study, "random").startswith("done in")
    assert state(study) == "made with other settings (options.temperature): train again"
    assert "2 runs, 1 of them trained, 1 out of date" in summarize_study(Overview(study))
    assert study.runs()[1].directory.joinpath("run.yaml").read_bytes() == before


def test_what_is_missing_is_named_with_its_key(tiny_study, tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_lease, "visible", lambda: [])
    mine = {"dataset": "folder", "path": "~nobody-of-that-name/images", "clusters": 3}
    benchmarks = {"cifar10": {}, "imagenet10": {}, "mine": mine}
    downloads = {"archives": str(tmp_path / "nowhere"), "imagenet": {"tar": "~nobody-of-that-name/no.tar"}}
    study = tiny_study(
        "random",
        benchmarks=benchmarks,
        downloads=downloads,
        machine={"require_gpu": True},
        plan=False,
        data=tmp_path / "data",
    )
    assert isinstance(study.downloads, Downloads)
    found = "\n".join(missing(study))
    for words in (
        "downloads.archives: ",
        "downloads.imagenet.tar: ",
        "benchmarks.mine.path: ",
        "cifar-10-python.tar.gz",
        "machine.require_gpu: true",
    ):
        assert words in found
    assert missing(tiny_study("random")) == []


def test_images_that_are_to_be_prepared_are_checked_beside_other_images_and_old_scores(tiny_study, digits, tmp_path):
    benchmarks = {"tiny-digits": {"dataset": "digits", "subset": 1798, "size": 8}}
    for data in (digits, tmp_path / "none"):
        study = tiny_study("random", benchmarks=benchmarks, data=data)
        (run,) = study.runs()
        (run.directory / "metrics.json").write_text("of another version")
        with pytest.raises(ValueError, match="benchmarks.tiny-digits.subset: "):
            check_study(study)


def test_a_gpu_that_torch_cannot_use_is_missing(tiny_study, monkeypatch):
    monkeypatch.setattr(gpu_lease, "visible", lambda: ["GPU-a"])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "torch" in missing(tiny_study("random"))[0]


@pytest.mark.parametrize("verb", ["plan", "status", "doctor"])
def test_looking_changes_no_file(verb, tiny_study, tmp_path, capsys):
    path = tiny_study("scl").results / "study.yaml"
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
    assert cli.main([verb, str(path)]) == 0
    assert "1 runs, 0 of them trained" in capsys.readouterr().out
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")} == before


def test_a_damaged_failure_is_not_one(tiny_study, tmp_path):
    """Otherwise, `--watch` would end at once on a study that has not started."""
    study = tiny_study("random", data=tmp_path / "own")
    (run,) = study.runs()
    for folder, status in ((study.data / run.benchmark, "missing"), (run.directory, "damaged")):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "failure.json").write_text("damaged")
        overview = Overview(study)
        assert [now.status for now in overview.runs] == [status] and not overview.is_over
