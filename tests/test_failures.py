"""Runs that themselves fail, in training, k-means, or evaluation, and images that cannot be prepared: failure.json
states why, and a retry that would fail again ends at once."""

import json
import os
import shutil

import pytest
import torch

from benchmarks.cli import main
from benchmarks.evaluation import evaluate
from benchmarks.overview import EVALUATION_LOG, KMEANS_LOG, Overview, log_of
from benchmarks.state import Survey
from benchmarks.status import describe_run
from benchmarks.study import load_study
from scl.engine import clustering, gpu_lease
from scl.engine.io import write_yaml_if_changed
from scl.engine.train import train
from scl.scl import SCL

pytestmark = pytest.mark.slow


class Hungry(SCL):
    """SCL on a GPU that is too small."""

    def step(self, views, index):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nMore lines")


class Unlucky(SCL):
    """SCL on a device that fails once."""

    def step(self, views, index):
        raise RuntimeError("CUDA error: unspecified launch failure")


class Uncompiled(SCL):
    """SCL where torch.compile finds no compiler."""

    def step(self, views, index):
        from torch._inductor.exc import InductorError, InvalidCxxCompiler

        raise InductorError(InvalidCxxCompiler(), None)


class Leaving(SCL):
    """SCL that exits the process with success."""

    def step(self, views, index):
        raise SystemExit(0)


class Wrong(SCL):
    """SCL whose step returns `made`, or the elements of the list `made` in turn."""

    made = None

    def step(self, views, index):
        super().step(views, index)
        return self.made.pop(0) if isinstance(self.made, list) else self.made


@pytest.fixture
def attempt(tiny_study, capsys):
    """A function that plans a variant of SCL and tries to train it: (status, output, failure.json, run state)."""

    def go(method="scl.scl.SCL", number=1, gpus=0, plan=True, flags=(), **block):
        block = {"method": method, "augment": {"view": [], "strong": []}, "training": {"epochs": 1}} | block
        study = tiny_study("scl", methods={"scl": block}, plan=plan)
        [run] = study.runs()
        status = main(["train", str(run.directory), "--gpus", str(gpus), "--attempt", str(number), *flags])
        path = run.directory / "failure.json"
        failure = json.loads(path.read_text()) if path.exists() else None
        return status, capsys.readouterr().err, failure, Survey(study).state(run)

    return go


def test_a_gpu_too_small_says_what_to_lower(attempt):
    status, told, failure, state = attempt("test_failures.Hungry")
    assert status == 1 and told.count("\n") == 1
    for words in ("out of GPU memory", "lower training.batch_size (now 64) or machine.runs_per_gpu"):
        assert words in told and words in failure["error"]
    assert failure["permanent"] and state.status == "failed" and "out of GPU memory" in state.reason


def test_a_machine_that_cannot_compile_says_what_to_change(attempt):
    status, told, failure, _ = attempt("test_failures.Uncompiled")
    assert status == 1 and told.count("\n") == 1 and "InvalidCxxCompiler: No working C++ compiler" in told
    assert "training.compile: torch.compile fails here" in told and "set compile: false" in failure["error"]


@pytest.mark.parametrize(
    "method, block", [("test_failures.Hungry", {}), ("scl.scl.SCL", {"training": {"epochs": 9, "learning_rate": 1e30}})]
)
def test_a_retry_of_what_fails_by_itself_ends_at_once(method, block, attempt):
    status, _, first, _ = attempt(method, **block)
    again, told, second, state = attempt(method, 2, **block)
    assert status == again == 1 and first == second and state.status == "failed"
    assert f"not tried again, it would fail as before: {first['error']}" in told
    assert attempt(method, 1, **block)[2]["time"] >= first["time"]  # a new start of the same command does try again


@pytest.mark.parametrize("command", ["kmeans", "evaluate"])
def test_the_next_step_of_a_run_that_was_not_trained_leaves_the_reason(command, attempt, tmp_path, capsys):
    failure = attempt("test_failures.Hungry")[2]
    run = tmp_path / "results" / "runs" / "tiny-digits" / "joint" / "scl" / "seed0"
    assert main([command, str(run)]) == 2 and "missing; train this run first" in capsys.readouterr().err
    assert json.loads((run / "failure.json").read_text()) == failure


def test_a_retry_of_what_may_pass_does_try(attempt):
    with pytest.raises(RuntimeError):
        attempt("test_failures.Unlucky")
    assert attempt("scl.scl.SCL", 2)[0] == 0


def test_a_method_cannot_end_a_run_as_if_it_were_done(attempt):
    status, told, failure, state = attempt("test_failures.Leaving")
    assert status == 2 and "ended the process (sys.exit)" in told and failure["permanent"] and state.status == "failed"


ONE = torch.zeros((), requires_grad=True)


@pytest.mark.parametrize(
    "made, problem",
    [
        (ONE, "expected {name: scalar}, got tensor"),
        ({}, "expected {name: scalar}, got {}"),
        ({"a": 0.0}, "expected {name: scalar}, got {'a': 0.0}"),
        ({"a": ONE[None]}, "the loss term 'a' has the shape [1]; return its mean"),
        ({"epoch": ONE}, "the loss term 'epoch' has the name of a column of history.csv; rename it"),
        ({"loss": ONE, "a": ONE}, "the loss term 'loss' has the name of a column of history.csv; rename it"),
        ([{"a": ONE}, {"b": ONE}], "returns the terms ['b'] after ['a']; keep them for an epoch"),
    ],
)
def test_wrong_terms_of_a_step_are_named(attempt, monkeypatch, made, problem):
    monkeypatch.setattr(Wrong, "made", made)
    status, told, failure, _ = attempt("test_failures.Wrong")
    assert status == 2 and f"Wrong.step: {problem}" in told and failure["permanent"]


def test_a_single_term_may_be_called_loss(attempt, monkeypatch):
    monkeypatch.setattr(Wrong, "made", {"loss": ONE})
    assert attempt("test_failures.Wrong")[0] == 0


def test_a_name_in_an_error_that_is_not_utf8_does_not_replace_the_error(attempt, monkeypatch):
    """Python represents such file names with lone surrogates."""

    def fail(*_):
        raise ValueError("cannot read " + os.fsdecode(b"caf\xe9"))

    monkeypatch.setattr(SCL, "step", fail)
    status, told, failure, _ = attempt()
    assert (status, failure["error"]) == (2, "cannot read caf\\udce9") and "cannot read caf" in told


def test_settings_that_changed_are_no_failure(attempt):
    diverging = {"training": {"epochs": 9, "learning_rate": 1e30}}
    assert attempt(**diverging)[3].status == "failed"
    assert attempt(number=2, training={"epochs": 2})[3].status == "trained"  # the first attempt was killed on startup


def test_a_gpu_that_is_required_and_absent_is_a_failure_on_record(attempt, monkeypatch):
    monkeypatch.setattr(gpu_lease, "visible", lambda: [])
    status, told, failure, _ = attempt(gpus=1, flags=["--require-gpu"])
    assert status == 2 and "1 GPU(s) asked for, 0 visible" in told and "1 GPU(s) asked for" in failure["error"]


def test_another_version_of_a_method_is_another_run(attempt, monkeypatch):
    assert attempt()[3].status == "trained"
    monkeypatch.setattr(SCL, "version", SCL.version + 1)
    status, told, _, state = attempt(plan=False)  # the plan is from the version before
    assert status == 2 and "its version has changed since this run was planned" in told
    assert state.status == "outdated" and state.reason == "made with other settings (version): train again"
    assert attempt()[3].status == "trained"


def test_another_default_of_an_option_is_another_run(attempt, monkeypatch):
    assert attempt()[3].status == "trained"

    class Options(SCL.Options):
        temperature: float = 0.08

    monkeypatch.setattr(SCL, "Options", Options)
    state = attempt(plan=False)[3]
    assert state.status == "outdated" and state.reason == "made with other settings (options.temperature): train again"


# --- k-means -----------------------------------------------------------------------------------------------------


@pytest.fixture
def unclustered(tiny_study, trained_simclr):
    """A study of SimCLR, trained and not clustered, and SCAN, not started."""
    study = tiny_study("simclr", "scan")
    shutil.copytree(trained_simclr, study.runs()[0].directory, dirs_exist_ok=True)
    return study


def kmeans(run, monkeypatch, error=None, *, attempt=1):
    """(exit status, failure.json) of `scl kmeans`; its k-means raises `error`, if one is given."""

    def fail(*arguments, **options):
        raise error

    with monkeypatch.context() as patch:
        if error:
            patch.setattr(clustering, "kmeans", fail)
        status = main(["kmeans", str(run.directory), "--attempt", str(attempt)])
    path = run.directory / "failure.json"
    return status, json.loads(path.read_text()) if path.exists() else None


def test_a_failed_kmeans_says_why_keeps_its_training_and_can_be_mended(unclustered, monkeypatch, capsys):
    simclr, scan = unclustered.runs()
    status, failure = kmeans(simclr, monkeypatch, ValueError("no clusters"))
    assert status == 2 and failure["error"] == "no clusters" and failure["permanent"]
    assert main(["evaluate", str(simclr.directory)]) == 2  # which leaves the reason
    log = log_of(simclr.directory, KMEANS_LOG)
    log.parent.mkdir(parents=True)
    for path in (log, log_of(simclr.directory)):
        path.touch()
    survey = Survey(unclustered)
    assert survey.state(simclr).status == "failed" and survey.state(simclr).record  # it need not be trained again
    assert survey.state(scan).status == "missing"  # it starts from weights, which exist
    now, later = Overview(unclustered).runs
    assert describe_run(now) == f"failed: no clusters; log: {log}"
    assert describe_run(later) == "not started" and Overview(unclustered).totals["failed"] == 1
    capsys.readouterr()
    assert kmeans(simclr, monkeypatch, attempt=2) == (1, failure)
    assert "not tried again, it would fail as before: no clusters" in capsys.readouterr().err
    assert kmeans(simclr, monkeypatch) == (0, None)
    assert Survey(unclustered).state(simclr).status == "trained"


def test_a_kmeans_whose_failure_may_pass_is_tried_again(unclustered, monkeypatch):
    simclr, _ = unclustered.runs()
    status, failure = kmeans(simclr, monkeypatch, OSError("disk"))
    assert status == 2 and not failure["permanent"]
    assert kmeans(simclr, monkeypatch, attempt=2) == (0, None)


def test_snakemake_makes_the_clusters_of_a_failed_kmeans_again_not_its_training(unclustered, monkeypatch):
    simclr, _ = unclustered.runs()
    kmeans(simclr, monkeypatch, ValueError("no clusters"))
    for name in ("clustered", "metrics.json"):
        (simclr.directory / name).touch()
    assert Survey(unclustered).outdated() == [simclr.directory / "clustered", simclr.directory / "metrics.json"]


def test_a_damaged_failure_of_a_kmeans_does_not_cost_the_training(unclustered):
    simclr, _ = unclustered.runs()
    (simclr.directory / "failure.json").write_text("{")
    state = Survey(unclustered).state(simclr)
    assert state.record and "failure.json is damaged" in state.reason
    assert describe_run(Overview(unclustered).runs[0]) == state.reason


# --- evaluation and images -----------------------------------------------------------------------------------------


def test_a_failed_evaluation_says_why_until_it_succeeds(tiny_study, monkeypatch):
    study = tiny_study("random")
    [run] = study.runs()
    train(run.directory, gpus=0)

    def fail(*arguments, **options):
        raise ValueError("no scores today")

    with monkeypatch.context() as patch:
        patch.setattr(evaluate, "_scores", fail)
        assert main(["evaluate", str(run.directory)]) == 2
    state = Survey(study).state(run)
    assert (state.status, state.reason) == (
        "failed",
        "no scores today",
    ) and state.record  # it need not be trained again
    log = log_of(run.directory, EVALUATION_LOG)
    log.parent.mkdir(parents=True)
    log.touch()
    assert describe_run(Overview(study).runs[0]) == f"failed: no scores today; log: {log}"
    assert main(["evaluate", str(run.directory)]) == 0 and Survey(study).state(run).status == "done"


@pytest.mark.parametrize(
    "dataset, command", [("folder", ["prepare", "mine"]), ("stl10", ["download", "stl10_binary.tar.gz"])]
)
def test_runs_without_images_say_why_unless_others_are_asked_for(dataset, command, here):
    (here / "images").mkdir()
    for name in ("a.png", "b.png"):
        (here / "images" / name).write_text("no image")
    (here / "stl10_binary.tar.gz").write_text("no archive")
    block = {"dataset": dataset, "clusters": 2} | ({"path": "images"} if dataset == "folder" else {})
    mapping = {"results": "results", "data": "data", "seeds": [0], "protocols": ["joint"]}
    mapping |= {"benchmarks": {"mine": block}, "downloads": {"archives": "."}}
    mapping |= {"methods": {"random": {"method": "baselines.controls.Random"}}}
    write_yaml_if_changed("study.yaml", mapping)
    assert main([*command, "--study", "study.yaml"]) == 2
    overview = Overview(load_study("study.yaml"))
    [now] = overview.runs
    assert overview.is_over  # `scl status --watch` ends
    assert describe_run(now).startswith("no images: ") and ("a.png" in now.reason or "stl10_binary" in now.reason)
    other = load_study(mapping | {"benchmarks": {"mine": block | {"clusters": 3}}})
    assert describe_run(Overview(other).runs[0]) == "not started" and not Overview(other).is_over
