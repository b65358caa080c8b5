"""progress.jsonl: one line per epoch while a run trains, even if it is interrupted; curves for TensorBoard."""

import csv
import json
import os

import pytest
from conftest import TINY_METHODS

from benchmarks import cli
from benchmarks.check import check_study
from benchmarks.single import run_single
from scl.engine import checkpoint, progress
from scl.engine.io import RunFailed
from scl.engine.progress import read_progress
from scl.engine.train import train
from scl.scl import SCL

pytestmark = pytest.mark.slow


class Failing(SCL):
    """SCL with a NaN term in the second step of its third epoch, with three steps per epoch."""

    def step(self, views, index):
        terms = super().step(views, index)
        self.count("steps")
        return terms | {"instance": terms["instance"] * (float("nan") if self.counts["steps"] == 8 else 1)}


def lines(run):
    return [json.loads(line) for line in (run.directory / progress.NAME).read_text().splitlines()]


def go(run, **options):
    return train(run.directory, gpus=0, report=lambda *_: None, **options)


def study_of(tiny_study, method="scl.scl.SCL", **rest):
    return tiny_study("scl", methods={"scl": TINY_METHODS["scl"] | {"method": method}}, **rest)


@pytest.fixture
def stopped(tiny_study, monkeypatch):
    """A run of three epochs that received a signal in the second one."""
    study = study_of(tiny_study)
    [run] = study.runs()
    monkeypatch.setattr(checkpoint.Stop, "requested", property(lambda stop: bool(read_progress(run.directory))))
    monkeypatch.setattr(checkpoint.Stop, "__enter__", lambda stop: setattr(stop, "status", 143) or stop)
    with pytest.raises(SystemExit):
        go(run)
    monkeypatch.undo()
    return study, run


def test_a_run_has_a_line_per_epoch_until_its_record_is_written(tiny_study, monkeypatch):
    [run] = study_of(tiny_study).runs()
    seen = []
    original = progress.Progress.close
    monkeypatch.setattr(progress.Progress, "close", lambda self: (seen.extend(lines(run)), original(self)))
    go(run)
    with open(run.directory / "history.csv") as file:
        history = [{name: float(cell) for name, cell in row.items() if cell} for row in csv.DictReader(file)]
    assert [line | row for line, row in zip(seen, history)] == seen and len(history) == 3
    assert {(line["epochs"], line["images"]) for line in seen} == {(3, 192)}  # 3 batches of 64 from 200 images
    assert not (run.directory / progress.NAME).exists() and (run.directory / "record.json").exists()


def test_a_failed_run_keeps_its_curve(tiny_study):
    [run] = study_of(tiny_study, "test_progress.Failing").runs()
    with pytest.raises(RunFailed):
        go(run)
    found = read_progress(run.directory)
    assert [line["epoch"] for line in found] == [1, 2] and all(line["loss"] > 0 for line in found)


def test_a_run_that_resumes_continues_its_lines_and_drops_those_after_its_checkpoint(stopped, monkeypatch):
    """Lines of epochs that are trained again are dropped, and so is one that a kill cut short."""
    _, run = stopped
    first = lines(run)
    assert [line["epoch"] for line in first] == [1]
    with open(run.directory / progress.NAME, "a") as file:
        file.write(json.dumps(first[0] | {"epoch": 2, "loss": -1}) + '\n{"epoch": 3, "lo')
    assert [line["epoch"] for line in read_progress(run.directory)] == [1, 2]
    seen = []
    monkeypatch.setattr(progress.Progress, "close", lambda self: seen.extend(lines(run)))
    go(run)
    assert [line["epoch"] for line in seen] == [1, 2, 3] and seen[0] == first[0] and seen[1]["loss"] > 0


LINE = {"epoch": 1, "epochs": 3, "images": 192, "loss": 1.5, "seconds": 2.0}


@pytest.mark.parametrize(
    "text", ["\xff", "[1]", '{"epoch": 1}', json.dumps(LINE).replace("seconds", "secojds"), "[" * 9999]
)
def test_lines_that_a_disk_has_spoiled_are_skipped(text, tmp_path):
    (tmp_path / progress.NAME).write_bytes(text.encode("latin-1") + b"\n" + json.dumps(LINE).encode() + b"\n")
    assert read_progress(tmp_path) == [LINE]


def test_incomplete_lines_are_skipped(tmp_path):
    whole = json.dumps(LINE)
    (tmp_path / progress.NAME).write_text(f"{whole[:20]}{whole}\n\n{whole}\n\0\n{whole[:-1]}")
    assert read_progress(tmp_path) == [LINE]
    assert read_progress(tmp_path / "nothing") == []


def test_training_goes_on_where_no_line_can_be_written(tiny_study):
    [run] = study_of(tiny_study).runs()
    (run.directory / progress.NAME).symlink_to("/dev/full")
    assert go(run).exists()


def test_tensorboard_is_given_the_curves_of_a_resumed_run_without_the_epochs_trained_twice(stopped):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from torch.utils.tensorboard import SummaryWriter

    _, run = stopped
    with SummaryWriter(str(run.directory)) as writer:
        for epoch in (1, 2):
            writer.add_scalar("loss", -1.0, epoch)
    go(run, tensorboard=True)
    found = EventAccumulator(str(run.directory)).Reload()
    assert [event.step for event in found.Scalars("loss")] == [1, 2, 3]
    assert [event.value > 0 for event in found.Scalars("loss")] == [False, True, True]
    assert {"loss", "instance", "learning_rate", "seconds"} < set(found.Tags()["scalars"])


def test_no_events_are_written_unless_asked_for(tiny_study):
    pytest.importorskip("tensorboard")
    study = tiny_study("random", "scl", machine={"tensorboard": True})
    run_single(study, study.runs()[1], gpus=0, report=lambda *_: None)
    go(study.runs()[0])
    events = [list(run.directory.glob("events.out.tfevents*")) for run in study.runs()]
    assert events[0] == [] and len(events[1]) == 1


def test_tensorboard_that_is_not_installed_is_an_error_before_any_run(tiny_study, monkeypatch, capsys):
    study = study_of(tiny_study, machine={"tensorboard": True})
    monkeypatch.setattr(progress, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"machine.tensorboard: tensorboard is not installed; pip install"):
        check_study(study)
    assert cli.main(["train", str(study.runs()[0].directory), "--gpus", "0", "--tensorboard"]) == 2
    assert "pip install" in capsys.readouterr().err
    assert os.path.exists(study.runs()[0].directory / "failure.json")
