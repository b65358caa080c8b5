"""`make gpu-check` on the CPU with a tiny study: it stops at its limit, resumes without repeating, packs results."""

import json
import subprocess
import sys
import tarfile
import time
from types import SimpleNamespace

import pytest
import yaml
from conftest import TINY_METHODS
from flow import TINY

from benchmarks import cli
from benchmarks.bench import epoch, gpu_check
from benchmarks.bench.gpu_check import Stage, main, stages
from benchmarks.study import load_study
from scl.engine import trainer
from scl.engine.provenance import ROOT

METHODS = {stage: TINY_METHODS[stage] for stage in ("random", "simclr", "scl")}
METHODS["scl"] = METHODS["scl"] | {"after": "simclr"}
STUDY = TINY | {"seeds": 2, "methods": METHODS}


@pytest.fixture
def study(tmp_path, monkeypatch):
    """Write a tiny study to an empty working directory; return its file name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    write(tmp_path, STUDY)
    return "study.yaml"


def write(folder, study):
    (folder / "study.yaml").write_text(yaml.safe_dump(study, sort_keys=False))


def names_of(study, **changes):
    options = {"gpus": 0, "sizes": [32, 64], "quick": False} | changes
    return [stage.name for stage in stages(load_study(study), study, gpu_check.Path("out"), **options)]


def test_stages_and_their_order(study, tmp_path):
    """The most informative per second come first: the reference, the first seed, and whatever needs a GPU."""
    write(tmp_path, STUDY | {"reference": "scl", "benchmarks": STUDY["benchmarks"] | {"other": {"dataset": "digits"}}})
    runs = ["scl", "simclr", "random"]
    assert names_of(study) == [
        *("tests", "bench-scl-32", "count-scl-32", "plan", "bench-simclr-32"),
        *(f"tiny/joint/{stage}/0" for stage in runs),
        *("bench-scl-64", "bench-simclr-64", "epoch-scl", "epoch-simclr"),
        *(f"other/joint/{stage}/0" for stage in runs),
        *(f"{benchmark}/joint/{stage}/1" for benchmark in ("tiny", "other") for stage in runs),
    ]


@pytest.mark.parametrize("gpus", [0, 1])
def test_every_command_gets_the_devices(study, tmp_path, gpus):
    (tmp_path / "out").mkdir()
    todo = list(stages(load_study(study), study, gpu_check.Path("out"), gpus=gpus, sizes=[32], quick=True))
    assert all(str(gpus) in stage.command for stage in todo if stage.name not in ("tests", "plan"))
    for stage in todo:
        python, _, module, *arguments = stage.command
        assert python == sys.executable
        if module == "benchmarks.cli":
            assert cli.parser().parse_args(arguments).subcommand


def test_speed_is_measured_with_the_settings_of_a_benchmark_of_that_size(monkeypatch):
    """The campaign has no benchmark of 96 px, the full study does."""
    monkeypatch.chdir(ROOT)
    campaign = load_study("config/campaign.yaml")
    options = {"gpus": 0, "sizes": [32, 64, 96], "quick": False}
    named = {stage.name: stage for stage in stages(campaign, "campaign.yaml", gpu_check.Path("out"), **options)}
    sources = [named[f"bench-pica-{size}"].command[4] for size in (32, 64, 96)]
    assert sources == ["campaign.yaml", "campaign.yaml", str(ROOT / "config" / "paper.yaml")]
    other = campaign.model_copy(update={"network": campaign.network.model_copy(update={"width": 8})})
    named = {stage.name: stage for stage in stages(other, "mine.yaml", gpu_check.Path("out"), **options)}
    assert named["bench-pica-96"].command[4] == "mine.yaml"


def test_a_machine_without_a_gpu_is_refused(study, capsys, monkeypatch):
    """Otherwise, all GPU tests would be skipped and everything else would train on the CPU."""
    assert main(["--study", study]) == 2
    assert "no GPU visible; --gpus 0 tries everything on the CPU" in capsys.readouterr().err
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-pretended")
    assert main(["--study", study]) == 2
    assert "GPU GPU-pretended is there, but torch" in capsys.readouterr().err


def test_runs_that_are_done_are_left_out(study, monkeypatch):
    status = {"simclr": "done", "random": "skipped", "scl": "outdated"}
    states = SimpleNamespace(state=lambda run: SimpleNamespace(status=status[run.stage]))
    monkeypatch.setattr(gpu_check, "Survey", lambda study: states)
    runs = [name for name in names_of(study, sizes=[]) if name.startswith("tiny/")]
    assert runs == ["tiny/joint/scl/0", "tiny/joint/scl/1"]


def test_sigterm_interrupts_a_run_and_packs_the_results(study, tmp_path, monkeypatch, capsys):
    command = ["sh", "-c", "trap 'echo saved; exit 130' INT; sleep 0.5; kill -TERM $PPID; sleep 60 & wait"]
    monkeypatch.setattr(gpu_check, "stages", lambda *_, **__: iter([Stage("run", command, None)]))
    assert main(["--gpus", "0", "--study", study, "--out", "out"]) == gpu_check.STOPPED
    with tarfile.open(capsys.readouterr().out.strip()) as archive:
        assert archive.extractfile("out/logs/run.txt").read() == b"saved\n"


def test_a_stage_that_fails_is_tried_again_and_the_rest_goes_on(tmp_path, capsys):
    def stage(name, code):
        return Stage(name, [sys.executable, "-c", code], tmp_path / f"{name}.txt")

    todo = [stage("good", "print('fine')"), stage("bad", "print('wrong'); raise SystemExit(3)"), stage("last", "")]
    assert gpu_check.check(iter(todo), tmp_path, ["*"], 60) == 1
    assert (tmp_path / "good.txt").read_text() == "fine\n" and (tmp_path / "last.txt").exists()
    assert not (tmp_path / "bad.txt").exists() and (tmp_path / "logs" / "bad.txt").read_text() == "wrong\n"
    said = capsys.readouterr().err
    assert "bad: failed" in said and "1 failed" in said
    assert gpu_check.check(iter(todo), tmp_path, ["*"], 60) == 1
    said = capsys.readouterr().err
    assert "bad: failed" in said and "good" not in said and "last" not in said
    assert gpu_check.check(iter(todo), tmp_path, ["goo*", "la*"], 60) == 0


def test_what_failed_comes_last_in_the_next_call(tmp_path, capsys):
    """With the same code it will fail again, which is not worth GPU time."""
    todo = [Stage(name, [sys.executable, "-c", "raise SystemExit(3)"], tmp_path / name) for name in ("bad", "worse")]
    assert gpu_check.check(iter(todo), tmp_path, ["*"], 60) == 1
    todo += [Stage("good", [sys.executable, "-c", ""], tmp_path / "good")]
    capsys.readouterr()
    assert gpu_check.check(iter(todo), tmp_path, ["*"], 60) == 1
    said = capsys.readouterr().err.splitlines()
    assert [line.split(":")[0] for line in said] == ["good", "bad", "worse", "2 failed"]


def test_what_needs_images_that_cannot_be_prepared_is_left_out(tmp_path, capsys):
    """Each would try the download again."""

    def stage(name, status, images):
        return Stage(name, [sys.executable, "-c", f"raise SystemExit({status})"], tmp_path / name, tmp_path / images)

    (tmp_path / "there").touch()
    todo = [stage("a", 2, "missing"), stage("b", 0, "missing"), stage("c", 1, "there"), stage("d", 0, "there")]
    assert gpu_check.check(iter(todo), tmp_path, ["*"], 60) == 1
    assert sorted(path.name for path in (tmp_path / "logs").glob("*.txt")) == ["a.txt", "c.txt", "d.txt"]
    assert "could not be prepared; what needs it is left out" in capsys.readouterr().err


SLEEP = ["sh", "-c", "trap 'echo saved; exit 130' INT; sleep 60 & wait"]


def test_a_stage_that_hangs_leaves_time_for_the_others(tmp_path, monkeypatch, capsys):
    """It gets half of the time, which leaves the other half for another stage."""
    now, given = [100.0], {}

    def perform(stage, folder, seconds):
        given[stage.name] = seconds
        now[0] += seconds if stage.name == "hangs" else 1.0
        gpu_check.log_of(stage, folder).parent.mkdir(exist_ok=True)
        return "late" if stage.name == "hangs" else "done"

    monkeypatch.setattr(gpu_check, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(gpu_check, "perform", perform)
    todo = [Stage(name, [], tmp_path / name) for name in ("hangs", "last")]
    assert gpu_check.check(iter(todo), tmp_path, ["*"], 6.0) == 1 and given == {"hangs": 3.0, "last": 3.0}
    assert capsys.readouterr().err.splitlines()[0] == "hangs: failed after 3.0 s, half of --seconds"


def test_what_does_not_stop_is_killed_with_the_processes_it_started(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_check, "PATIENCE", 0.1)
    lock = tmp_path / "lock"
    command = ["sh", "-c", f"trap '' INT; flock {lock} sleep 600 & wait; sleep 600"]
    assert gpu_check.perform(Stage("deaf", command, None), tmp_path, 1.0) == "late"
    subprocess.run(["flock", lock, "true"], check=True, timeout=60)  # waits until the lock is free


def test_ctrl_c_between_two_stages_loses_nothing(study, tmp_path, monkeypatch, capsys):
    def interrupted(*_, **__):
        yield Stage("good", [sys.executable, "-c", ""], tmp_path / "out" / "good.txt")
        raise KeyboardInterrupt

    monkeypatch.setattr(gpu_check, "stages", interrupted)
    assert main(["--gpus", "0", "--study", study, "--out", "out"]) == gpu_check.STOPPED
    with tarfile.open(capsys.readouterr().out.strip()) as archive:
        assert "out/good.txt" in archive.getnames()


def test_a_run_is_interrupted_at_the_limit(tmp_path, capsys):
    todo = [Stage(name, SLEEP, None) for name in ("first", "second")]
    seconds = 5.0  # enough for the shell to start on a busy machine
    assert gpu_check.check(iter(todo), tmp_path, ["*"], seconds) == gpu_check.STOPPED
    assert (tmp_path / "logs" / "first.txt").read_text() == "saved\n"
    assert not (tmp_path / "logs" / "second.txt").exists()
    assert gpu_check.check(iter(todo), tmp_path, ["*"], 0.0) == gpu_check.STOPPED  # nothing is started
    assert "first: stopped" in capsys.readouterr().err


def test_the_archive_has_no_weights_and_no_features(study, tmp_path):
    run = tmp_path / "results" / "runs" / "tiny" / "joint" / "scl" / "seed0"
    run.mkdir(parents=True)
    for name in ("record.json", "weights.pt", "checkpoint.pt", "checkpoint.prev.pt"):
        (run / name).write_text("content")
    (run / "features").mkdir()
    (run / "features" / "1.npz").write_text("content")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "bench-scl-32.json").write_text("{}")
    (tmp_path / "results" / "calibration").mkdir()
    (tmp_path / "results" / "calibration" / "h200.json").write_text("{}")
    path = gpu_check.pack(load_study(study), gpu_check.Path("out"))
    with tarfile.open(path) as archive:
        files = {member.name for member in archive.getmembers() if member.isfile()}
    made = {"results/runs/tiny/joint/scl/seed0/record.json", "results/calibration/h200.json"}
    assert files == made | {"out/bench-scl-32.json"}


@pytest.mark.slow
def test_an_epoch_beside_its_estimate(study, tmp_path, monkeypatch):
    """For self-labeling, whose random head is confident of no image at the usual threshold. Only training is timed:
    git, which runs before it, takes 1,000 s here."""
    methods = {stage: TINY_METHODS[stage] for stage in ("simclr", "scan", "selflabel")}
    methods["selflabel"] = methods["selflabel"] | {"options": {"threshold": 0.99}}
    write(tmp_path, STUDY | {"methods": methods})
    late, clock, provenance = [0.0], time.perf_counter, trainer.provenance
    monkeypatch.setattr(time, "perf_counter", lambda: clock() + late[0])
    monkeypatch.setattr(trainer, "provenance", lambda **options: late.__setitem__(0, 1_000.0) or provenance(**options))
    result = epoch.compare(load_study(study), "selflabel", gpus=0)
    assert result["steps"] == 1 and result["images"] == 60 and result["method"] == "selflabel"
    assert all(result[name] > 0 for name in ("seconds", "estimated_seconds")) and json.dumps(result)
    assert result["counts"] == {}
    assert late == [1_000.0] and 0 < result["assignment_seconds"] < 1_000
