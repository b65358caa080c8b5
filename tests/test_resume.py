"""A study that is killed, stopped, out of disk space, or given a damaged checkpoint ends bit-equal.

Every training run here is the command `scl train RUN --gpus 0 --checkpoint-seconds 0` in a separate process. One is
a real command; the others are forked from a server that has imported torch, which saves a dozen imports.
"""

import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY_METHODS, flip_a_bit, tiny_mapping
from forked import FORK

from benchmarks import cli
from benchmarks.evaluation.evaluate import evaluate_run
from benchmarks.study import load_study, write_plan
from scl.config import complete, load_run
from scl.engine import checkpoint
from scl.engine.identity import fingerprint
from scl.engine.train import planned_identity, train
from scl.engine.trainer import Trainer
from scl.scl import SCL

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("resume")]  # they share training runs

STAGES = ("scl", "simclr", "scan", "selflabel", "pica")
FINAL = ("weights.pt", "assignments.npz", "history.csv", "record.json")


class Diverging(SCL):
    """SCL whose semantic term is NaN in its 11th step: epoch 4, step 2."""

    def step(self, views, index):
        terms = super().step(views, index)
        self.count("steps")
        if self.counts["steps"] == 11:
            terms["semantic"] = terms["semantic"] * float("nan")
        return terms


def study_in(folder, digits, *stages, **changes):
    """A study of tiny runs in `folder`, long enough to be killed: 18 epochs of 3 steps for SCL, 4 otherwise."""
    methods = {s: dict(TINY_METHODS[s]) for s in stages}
    for stage, block in methods.items():
        block["training"] = {**block["training"], "epochs": 18 if stage == "scl" else 4}
        block.update(changes.get(stage, {}))
    mapping = tiny_mapping(digits, folder, methods, training={"batch_size": 64, "curve_points": 3})
    study = load_study(mapping)
    write_plan(study, mapping)
    return [run.directory for run in study.runs()]


def train_in_a_child(runs, log, kill_at=None, delay=0.0, seconds=0, number=signal.SIGKILL):
    """Train and cluster the runs in turn, as the commands do; send a signal (`number`) `delay` seconds after the
    `kill_at`-th rename of a finished file (a checkpoint takes two: the old one to .prev, the new one to its name)."""
    os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 1)
    os.dup2(1, 2)
    renames, replace = [], os.replace

    def counted(*names):
        replace(*names)
        renames.append(names)
        if len(renames) == kill_at:
            die = (os.getpid(), number)
            threading.Timer(delay, os.kill, die).start() if delay else os.kill(*die)

    os.replace = counted
    options = ["--gpus", "0", "--checkpoint-seconds", str(seconds)]
    sys.exit(max([cli.main(["train", str(run), *options]) or cli.main(["kmeans", str(run)]) for run in runs]))


def start(*arguments, **options):
    child = FORK.Process(target=train_in_a_child, args=arguments, kwargs=options)
    child.start()
    return child


def status_of(child):
    child.join()
    return child.exitcode


def outcome(run):
    """The results of a run, without times."""
    with np.load(run / "assignments.npz") as file:
        arrays = dict(file)
    with open(run / "history.csv") as file:
        history = [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]
    record = json.loads((run / "record.json").read_text())
    return torch.load(run / "weights.pt", weights_only=True), arrays, history, record["counts"]


def assert_equal(run, reference):
    weights, arrays, history, counts = outcome(run)
    expected_weights, expected_arrays, expected_history, expected_counts = outcome(reference)
    assert weights.keys() == expected_weights.keys() and arrays.keys() == expected_arrays.keys()
    assert [k for k in weights if not torch.equal(weights[k], expected_weights[k])] == []
    assert [k for k in arrays if not np.array_equal(arrays[k], expected_arrays[k])] == []
    assert history == expected_history and counts == expected_counts
    leftovers = [f.name for f in run.iterdir() if ".tmp" in f.name or f.name in ("failure.json", "features")]
    assert leftovers == []


@pytest.fixture(scope="module")
def undisturbed(digits, tmp_path_factory):
    """The same runs, each trained without interruption and with only one checkpoint: {stage: folder}."""
    folder = tmp_path_factory.mktemp("undisturbed")
    runs = study_in(folder, digits, *STAGES)
    assert status_of(start(runs, folder / "log", seconds=300)) == 0, (folder / "log").read_text()
    return dict(zip(STAGES, runs))


def test_killed_ten_times_at_random_moments_a_study_ends_bit_equal(digits, tmp_path, undisturbed):
    runs, log = study_in(tmp_path, digits, *STAGES), tmp_path / "log"
    chance = random.Random(0)
    for kill in range(10):  # half of the kills have no delay: between the renames of a checkpoint or of the last files
        delay = chance.uniform(0.001, 0.05) if kill % 2 else 0.0
        assert status_of(start(runs, log, chance.randint(1, 24), delay)) == -signal.SIGKILL, log.read_text()
    assert status_of(start(runs, log)) == 0, log.read_text()
    assert log.read_text().count("resumed at") >= 8
    assert sum(len(json.loads((run / "record.json").read_text())["attempts"]) for run in runs) > len(runs)
    for stage, run in zip(STAGES, runs):
        assert_equal(run, undisturbed[stage])


@pytest.mark.parametrize("stage, written", [*(("simclr", n) for n in range(7)), ("pica", 0), ("pica", 1), ("pica", 5)])
def test_killed_among_the_last_files(stage, written, digits, tmp_path, undisturbed):
    """Between the last files of training and, for k-means, of clustering: a record never exists without its files."""
    [run] = study_in(tmp_path, digits, stage)
    before = 5 if stage == "simclr" else 1  # renames up to the last checkpoint: features of three epochs, a fourth file
    last = ["weights.pt", "history.csv", "sample.npz", "record.json"]
    in_order = [*last, "assignments.npz", "clustering.json"] if stage == "simclr" else ["assignments.npz", *last]
    assert status_of(start([run], tmp_path / "log", before + written, seconds=300)) == -signal.SIGKILL
    assert [name for name in in_order if (run / name).exists()] == in_order[:written]
    assert status_of(start([run], tmp_path / "log")) == 0
    assert len(json.loads((run / "record.json").read_text())["attempts"]) <= 2  # not trained again
    assert_equal(run, undisturbed[stage])


def test_killed_before_the_record_and_finished_on_a_device_that_rounds_otherwise(tiny_study, digits, monkeypatch):
    [run] = tiny_study("scl").runs()
    train(run.directory, gpus=0)
    (run.directory / "record.json").unlink()
    assign = Trainer.assign

    def rounded_otherwise(trainer):
        clusters, confidence = assign(trainer)
        return np.where(np.arange(len(clusters)) == 3, (clusters + 1) % 10, clusters), confidence

    monkeypatch.setattr(Trainer, "assign", rounded_otherwise)
    train(run.directory, gpus=0)
    metrics = json.loads(evaluate_run(run.directory, digits / "tiny-digits").read_text())
    assert metrics["per_epoch"][-1]["acc"] == metrics["scores"]["acc"]


def test_killed_anywhere_in_training_and_clustering_the_same_commands_end_bit_equal(digits, tmp_path, undisturbed):
    """Ten chains of SimCLR, k-means, and evaluation, each hit by one signal, four of them between two files."""
    chance, log, scores = random.Random(15), tmp_path / "log", []
    cli.main(["evaluate", str(undisturbed["simclr"])])
    moments = [*chance.sample(range(1, 30), 6), *chance.sample(range(30, 36), 4)]  # 30 to 35: among the last files
    for trial, moment in enumerate(moments):
        [run] = study_in(tmp_path / str(trial), digits, "simclr")
        number = chance.choice([signal.SIGKILL, signal.SIGTERM])
        status = status_of(start([run], log, moment, chance.choice([0.0, chance.uniform(0, 0.02)]), number=number))
        assert status in (-signal.SIGKILL, -signal.SIGTERM, 143, 0), log.read_text()
        assert status_of(start([run], log)) == 0, log.read_text()
        assert_equal(run, undisturbed["simclr"])
        assert cli.main(["evaluate", str(run)]) == 0
        scores.append(json.loads((run / "metrics.json").read_text())["scores"])
    assert scores == [json.loads((undisturbed["simclr"] / "metrics.json").read_text())["scores"]] * len(moments)


def test_sigterm_saves_and_the_same_command_resumes(digits, tmp_path, undisturbed):
    [run] = study_in(tmp_path, digits, "scl")
    command = [sys.executable, "-m", "benchmarks.cli", "train", str(run), "--gpus", "0"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    child = subprocess.Popen(
        command,
        cwd=Path(cli.__file__).parent.parent,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    for line in child.stdout:
        if line.startswith("epoch 1/"):
            child.terminate()
            break
    said = child.stdout.read()
    assert child.wait() == 143 and "saved: the same command resumes" in said
    assert (run / "checkpoint.pt").exists() and not (run / "record.json").exists()
    assert status_of(start([run], tmp_path / "log")) == 0
    assert "resumed at epoch" in (tmp_path / "log").read_text()
    assert_equal(run, undisturbed["scl"])


def test_a_damaged_checkpoint_costs_one_checkpoint(digits, tmp_path, undisturbed):
    [run] = study_in(tmp_path, digits, "scl")
    assert status_of(start([run], tmp_path / "log", 41)) == -signal.SIGKILL
    flip_a_bit(run / "checkpoint.pt")
    assert status_of(start([run], tmp_path / "log")) == 0
    said = (tmp_path / "log").read_text()
    assert "its checksum differs" in said and "resuming from the previous checkpoint" in said
    assert_equal(run, undisturbed["scl"])


@pytest.mark.parametrize("seconds", [0, 300])
def test_a_diverged_run_fails_by_name_and_the_study_goes_on(seconds, digits, tmp_path, undisturbed):
    runs = study_in(tmp_path, digits, "scl", "simclr", scl={"method": "test_resume.Diverging"})
    log = tmp_path / "log"
    assert status_of(start(runs, log, seconds=seconds)) == 1  # the status of the failed run; the next one is trained
    failure = json.loads((runs[0] / "failure.json").read_text())
    assert (failure["term"], failure["epoch"], failure["step"]) == ("semantic", 4, 2)
    assert "scl: failed: the loss term 'semantic' is nan at epoch 4, step 2" in log.read_text()
    assert [name for name in FINAL if (runs[0] / name).exists()] == []
    assert_equal(runs[1], undisturbed["simclr"])
    if seconds == 0:
        identity = planned_identity(complete(load_run(runs[0])))
        state = checkpoint.load(runs[0] / "checkpoint.pt", fingerprint=fingerprint(identity))
        assert (state["epoch"], state["step_in_epoch"]) == (3, 1)  # the last good state, before the failed step
        assert all(v.isfinite().all() for v in state["method"].values() if torch.is_tensor(v) and v.is_floating_point())


@pytest.mark.parametrize("small_disk", ["4m"], indirect=True)
@pytest.mark.parametrize("room, seconds", [(1400, 0), (900, 300), (450, 300)])
def test_a_full_disk_stops_cleanly_and_goes_on_once_there_is_room(
    room, seconds, small_disk, digits, tmp_path, undisturbed
):
    """room in kB: enough for two of the three checkpoints, for the last checkpoint but not the weights, for neither."""
    [run] = study_in(small_disk, digits, "scl")
    ballast, log = small_disk / "ballast", tmp_path / "log"
    ballast.write_bytes(bytes(shutil.disk_usage(small_disk).free - room * 1000))
    assert status_of(start([run], log, seconds=seconds)) == 2
    assert "No space left on device" in log.read_text() and "Traceback" not in log.read_text()
    assert not (run / "record.json").exists() and not [f.name for f in run.iterdir() if ".tmp" in f.name]
    ballast.unlink()
    assert status_of(start([run], log)) == 0
    assert_equal(run, undisturbed["scl"])
