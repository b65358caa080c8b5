"""One run by hand (`scl run`): it makes only what is missing, and Snakemake accepts the results."""

import json
import os
import shutil
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import long_study
import pytest
import yaml
from conftest import TINY_METHODS
from flow import TINY, copy_of, outcome, planned, run_of, scl, snakemake, start_scl

from benchmarks import single
from benchmarks.cli import main
from benchmarks.datasets.prepare import prepare
from benchmarks.study import find_run, load_study
from scl.engine import gpu_lease
from scl.engine.locks import locked
from scl.engine.outputs import finish

STUDY = TINY | {"methods": {stage: TINY_METHODS[stage] for stage in ("random", "simclr", "scan", "selflabel")}}


def write(folder, study):
    (folder / "study.yaml").write_text(yaml.safe_dump(study, sort_keys=False))


def run_by_hand(folder, stage, how=scl):
    return how(folder, "run", f"tiny/joint/{stage}/0", "--study", "study.yaml", "--gpus", "0")


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    """A folder in which the last of three stages was run by hand."""
    folder = tmp_path_factory.mktemp("chain")
    write(folder, STUDY)
    done = run_by_hand(folder, "selflabel")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "results/runs/tiny/joint/selflabel/seed0/metrics.json\n"
    return folder


def test_runs_that_start_together_prepare_their_benchmark_once(tiny_study, tmp_path):
    study = tiny_study("random", data=tmp_path / "own")
    folder, began = study.data / "tiny-digits", threading.Event()

    def be_first():
        with locked(folder / ".lock", folder):
            began.set()
            time.sleep(0.3)
            assert not (folder / "benchmark.json").exists()  # the second waits
            prepare("tiny-digits", dataset="digits", folder=folder, archives=tmp_path, size=8, subset=200)
            return (folder / "benchmark.json").stat()

    with ThreadPoolExecutor() as pool:
        first = pool.submit(be_first)
        began.wait()
        single.run_single(study, study.runs()[0], gpus=0)
    assert os.path.samestat((folder / "benchmark.json").stat(), first.result())


@pytest.mark.workflow
@pytest.mark.xdist_group("chain")
def test_a_run_needs_one_command(chain):
    assert (run_of(chain, "selflabel") / "metrics.json").exists() and not run_of(chain, "random").exists()
    again = run_by_hand(chain, "selflabel")
    assert again.returncode == 0 and again.stderr == ""  # nothing is trained or printed


@pytest.mark.workflow
@pytest.mark.xdist_group("chain")
def test_what_counts_is_kept_and_what_does_not_is_made_again(chain, tmp_path):
    folder = copy_of(chain, tmp_path)
    (run_of(folder, "selflabel") / "metrics.json").unlink()
    assert run_by_hand(folder, "selflabel").stderr == ""  # only evaluated
    changed = STUDY["methods"]["scan"] | {"options": {"neighbors": 3}}
    write(folder, STUDY | {"methods": STUDY["methods"] | {"scan": changed}})
    done = run_by_hand(folder, "selflabel")
    said = [line for line in done.stderr.splitlines() if line.startswith("train ")]
    assert said == [f"train {stage} on tiny (joint), seed 0" for stage in ("scan", "selflabel")]
    assert outcome(run_of(folder, "selflabel")) != outcome(run_of(chain, "selflabel"))


@pytest.mark.workflow
@pytest.mark.xdist_group("chain")
def test_weights_that_were_not_copied_are_made_where_a_run_needs_them(chain, tmp_path):
    folder = copy_of(chain, tmp_path)
    for stage in ("simclr", "scan"):
        for name in ("weights.pt", "checkpoint.pt", "checkpoint.prev.pt"):
            (run_of(folder, stage) / name).unlink(missing_ok=True)
    shutil.move(folder / "data", tmp_path / "data")  # finished runs need no data either
    assert run_by_hand(folder, "selflabel").stderr == ""
    shutil.move(tmp_path / "data", folder / "data")
    shutil.rmtree(run_of(folder, "selflabel"))
    done = run_by_hand(folder, "selflabel")
    assert done.returncode == 0 and done.stderr.count("train ") == 3, done.stderr
    assert outcome(run_of(folder, "selflabel")) == outcome(run_of(chain, "selflabel"))


@pytest.mark.workflow
@pytest.mark.xdist_group("chain")
def test_snakemake_accepts_what_was_run_by_hand_and_the_other_way_round(chain, tmp_path):
    folder = copy_of(chain, tmp_path)
    jobs = planned(snakemake(folder, STUDY, "--dry-run"))
    assert (jobs["train"], jobs["evaluate"]) == (1, 3) and "prepare" not in jobs  # the control was not requested
    for stage in ("random", "simclr", "scan"):
        assert run_by_hand(folder, stage).returncode == 0
    assert set(planned(snakemake(folder, STUDY, "--dry-run"))) == {"collect", "report"}
    before = outcome(run_of(folder, "selflabel"))
    done = snakemake(folder, STUDY)
    assert done.returncode == 0 and "train selflabel" not in done.stdout + done.stderr
    for stage in STUDY["methods"]:
        assert run_by_hand(folder, stage).stderr == ""
    assert outcome(run_of(folder, "selflabel")) == before


@pytest.mark.workflow
@pytest.mark.xdist_group("chain")
def test_an_interrupted_run_resumes_with_the_same_command(tmp_path, undisturbed):
    """Stopped in the previous stage; the same command ends bit-equal to the uninterrupted study."""
    folder = tmp_path
    write(folder, long_study.STUDY)
    (folder / "gated.py").write_text(long_study.GATED)
    (folder / "gate").touch()
    process = run_by_hand(folder, "scan", how=start_scl)
    long_study.wait_for(process, process.logs[1], long_study.AT_THE_GATE)
    process.send_signal(signal.SIGTERM)
    error = process.communicate(timeout=600)[1]
    long_study.open_gate(folder)
    assert process.returncode == 143 and "Traceback" not in error, error
    assert (run_of(folder, "simclr") / "checkpoint.pt").exists() and not (
        run_of(folder, "simclr") / "record.json"
    ).exists()
    done = run_by_hand(folder, "scan")
    assert done.returncode == 0 and "resumed at epoch" in done.stderr
    assert outcome(run_of(folder, "scan")) == outcome(run_of(undisturbed, "scan"))
    record = json.loads((run_of(folder, "simclr") / "record.json").read_text())
    assert [attempt["epoch"] > 0 for attempt in record["attempts"]] == [False, True]


def test_a_run_that_fails_says_why(tmp_path):
    bad = STUDY["methods"]["simclr"] | {"training": {"epochs": 4, "learning_rate": 1.0e30}}
    write(tmp_path, STUDY | {"methods": STUDY["methods"] | {"simclr": bad}})
    done = run_by_hand(tmp_path, "scan")
    assert done.returncode == 1 and done.stderr.splitlines()[-1].startswith("scl: failed: the loss term")
    assert not run_of(tmp_path, "scan").exists()


def test_a_benchmark_without_a_source_is_refused(tmp_path):
    study = load_study(STUDY | {"benchmarks": {"imagenet10": {}}, "results": str(tmp_path / "results")})
    with pytest.raises(ValueError, match="imagenet10: no ImageNet source"):
        single.run_single(study, find_run(study, "imagenet10/joint/random/0"))


@pytest.mark.parametrize("stage,first", [("scan", "simclr"), ("kmeans", "kmeans")])
def test_a_signal_in_the_last_assignment_of_a_stage_stops_before_the_next(stage, first, tiny_study, monkeypatch):
    """The stage is complete and stays so, even if it has no epochs."""
    study, said = tiny_study("kmeans", "simclr", "scan"), []
    run, done = study.run("tiny-digits", "joint", stage, 0), finish

    def finish_late(trainer):
        os.kill(os.getpid(), signal.SIGTERM)
        return done(trainer)

    with monkeypatch.context() as patch:
        patch.setattr("scl.engine.train.finish", finish_late)
        with pytest.raises(SystemExit) as stopped:
            single.run_single(study, run, gpus=0, threads=1, report=said.append)
    assert stopped.value.code == 143 and said[-1].startswith(f"stopped by a signal; {first} is trained, and ")
    record = study.run("tiny-digits", "joint", first, 0).directory / "record.json"
    before = record.read_bytes()
    assert not (run.directory / "metrics.json").exists()
    single.run_single(study, run, gpus=0, threads=1, report=said.append)
    assert record.read_bytes() == before and (run.directory / "metrics.json").exists()


def test_a_signal_in_the_last_assignment_is_no_failure_to_snakemake(tiny_study, monkeypatch):
    """Snakemake deletes the outputs of a failed job, complete or not."""
    [run], done = tiny_study("scl").runs(), finish

    def finish_late(trainer):
        os.kill(os.getpid(), signal.SIGTERM)
        return done(trainer)

    monkeypatch.setattr("scl.engine.train.finish", finish_late)
    assert main(["train", str(run.directory), "--gpus", "0"]) == 0 and (run.directory / "record.json").exists()


def test_a_chain_trains_under_one_lease(tiny_study, tmp_path, monkeypatch):
    """A process that has used a GPU cannot switch to another, so it must not release it between two stages."""
    monkeypatch.setattr(gpu_lease, "visible", lambda: ["GPU-a", "GPU-b"])
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    study = tiny_study("kmeans", "simclr", "scan")
    trained = []

    def train(directory, *, leased, **_):
        with gpu_lease.lease(1, report=lambda line: None) as other:  # the GPU that another process would get meanwhile
            trained.append((directory.parent.name, leased, other))

    monkeypatch.setattr(single, "train", train)
    monkeypatch.setattr(single, "evaluate_run", lambda *_: None)
    for stage in ("scan", "kmeans"):
        single.run_single(study, study.run("tiny-digits", "joint", stage, 0), report=lambda line: None)
    assert trained == [("simclr", "GPU-a", "GPU-b"), ("scan", "GPU-a", "GPU-b"), ("kmeans", "", "GPU-a")]


def test_a_stage_without_epochs_is_on_the_cpu_in_a_chain_too(tiny_study, tmp_path, monkeypatch):
    """As in Snakemake; otherwise, results would differ in the last digits."""
    monkeypatch.setattr(gpu_lease, "visible", lambda: ["GPU-a"])
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    untrained = TINY_METHODS["simclr"] | {"training": {"epochs": 0}}
    study = tiny_study("simclr", "scan", methods=TINY_METHODS | {"simclr": untrained})
    trained = []
    monkeypatch.setattr(single, "train", lambda directory, *, leased, **_: trained.append(leased))
    monkeypatch.setattr(single, "evaluate_run", lambda *_: None)
    single.run_single(study, study.run("tiny-digits", "joint", "scan", 0), report=lambda line: None)
    assert trained == ["", "GPU-a"]
