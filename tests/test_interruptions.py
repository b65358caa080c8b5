"""The table of interruptions in docs/running.md, row by row: interrupt a study, give the same command again, and
compare what it ends with, bit for bit, with a study that nothing disturbed.

Everything is done by real `snakemake` processes, in a session of their own, so that a signal can go to the whole group
as a terminal sends it. The trainings (SimCLR, then SCAN) are long enough to be met half-way.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import flow
import numpy as np
import pytest
import torch
import yaml
from archive_server import ArchiveServer
from conftest import TINY_METHODS
from fake_archives import build
from flow import ROOT, TINY, planned

from benchmarks.workflow import handle_sigterm_in_a_thread

pytestmark = [pytest.mark.workflow, pytest.mark.network]

EPOCHS = 150
STUDY = TINY | {
    "methods": {
        "simclr": TINY_METHODS["simclr"] | {"training": {"epochs": EPOCHS}},
        "scan": TINY_METHODS["scan"] | {"training": {"epochs": 3, "optimizer": "adam", "learning_rate": 0.001}},
    }
}
CIFAR10 = "cifar-10-python.tar.gz"


def start(folder, study, *flags, before=()):
    """Start the workflow in a process group of its own; Ctrl-C reaches it also where the tests run in the background.
    before: a command that starts it."""
    (folder / "study.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
    command = [
        *before,
        Path(sys.executable).with_name("snakemake"),
        "--snakefile",
        ROOT / "Snakefile",
        "--cores",
        "2",
        "--workflow-profile",
        ROOT / "profiles" / "default",
        "--configfile",
        "study.yaml",
        *flags,
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def end_of(process):
    output = process.communicate(timeout=600)[0]
    return process.returncode, output


def snakemake(folder, study, *flags):
    status, output = end_of(start(folder, study, *flags))
    assert "Traceback" not in output, output
    return status, output


def run_of(folder, stage="simclr"):
    return folder / "results" / "runs" / "tiny" / "joint" / stage / "seed0"


def wait_for_training(folder, process, epoch=5):
    """Until SimCLR's log shows an epoch, and well before its last."""
    log = folder / "results" / "logs" / "tiny" / "joint" / "simclr" / "seed0.log"
    while not (log.exists() and f"epoch {epoch * 3}/" in log.read_text()):
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.02)


def trainer_pids(folder):
    """Processes that train a run of this study."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            command, cwd = (path / "cmdline").read_bytes().split(b"\0"), os.readlink(path / "cwd")
        except OSError:
            continue
        if b"train" in command and b"benchmarks.cli" in command and cwd == str(folder):
            found.append(int(path.name))
    return found


def wait_for_end(pids):
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        time.sleep(0.05)


def outcome(folder):
    """What a study leaves behind, without times: arrays, weights, scores of every run, and the table's numbers."""
    found = {}
    for stage in ("simclr", "scan"):
        run = run_of(folder, stage)
        with np.load(run / "assignments.npz") as file:
            found |= {(stage, name): file[name].tobytes() for name in file.files}
        weights = torch.load(run / "weights.pt", weights_only=True)
        found |= {(stage, name): value.numpy().tobytes() for name, value in weights.items()}
        found[stage, "scores"] = json.loads((run / "metrics.json").read_text())["scores"]
        assert not (run / "failure.json").exists() and not [f for f in run.iterdir() if ".tmp" in f.name]
    assert "Runs: 2 of 2 planned are done." in (folder / "results" / "tables.md").read_text()
    assert not (folder / "results" / "partial").exists()
    return found


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    status, output = snakemake(folder, STUDY)
    assert status == 0, output
    return folder


def assert_the_same_command_finishes(folder, undisturbed, study=STUDY):
    status, output = snakemake(folder, study)
    assert status == 0, output
    assert outcome(folder) == outcome(undisturbed)
    status, output = snakemake(folder, study)
    assert status == 0 and "Nothing to be done" in output


def no_target_is_there(folder):
    """A target under its final name would make the same command say that there is nothing to do."""
    return not [
        name for name in ("tables.md", "claims.md", "runs.csv", "report") if (folder / "results" / name).exists()
    ]


def resumed(folder):
    return len(json.loads((run_of(folder) / "record.json").read_text())["attempts"]) == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM to the group"])
def test_a_signal_to_all_saves_and_the_same_command_resumes(number, tmp_path, undisturbed):
    process = start(tmp_path, STUDY)
    wait_for_training(tmp_path, process)
    os.killpg(process.pid, number)
    status, output = end_of(process)
    assert status != 0 and no_target_is_there(tmp_path), output
    assert (run_of(tmp_path) / "checkpoint.pt").exists() and not (run_of(tmp_path) / "record.json").exists()
    assert_the_same_command_finishes(tmp_path, undisturbed)
    assert resumed(tmp_path)


def test_a_stay_of_limited_time_saves_and_the_same_command_resumes(tmp_path, undisturbed):
    """`timeout -s INT 25m snakemake ...`, whose time is over (its alarm rings) in the middle of a training."""
    process = start(tmp_path, STUDY, before=("timeout", "-s", "INT", "25m"))
    wait_for_training(tmp_path, process)
    process.send_signal(signal.SIGALRM)
    status, output = end_of(process)
    assert status == 124 and no_target_is_there(tmp_path), output
    assert (run_of(tmp_path) / "checkpoint.pt").exists() and not (run_of(tmp_path) / "record.json").exists()
    assert_the_same_command_finishes(tmp_path, undisturbed)
    assert resumed(tmp_path)


def test_sigterm_does_not_hang_where_the_handler_needs_a_lock_that_is_held():
    """Snakemake's handler takes the scheduler's lock; the main thread may hold it when the signal comes."""
    lock, handled, before = threading.Lock(), threading.Event(), signal.getsignal(signal.SIGTERM)

    def exit_gracefully(*_):
        assert lock.acquire(timeout=2), "waiting for itself"
        lock.release()
        handled.set()

    try:
        signal.signal(signal.SIGTERM, exit_gracefully)
        handle_sigterm_in_a_thread()
        with lock:
            os.kill(os.getpid(), signal.SIGTERM)
        assert handled.wait(5)
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_second_ctrl_c_stops_at_once(tmp_path, undisturbed):
    process = start(tmp_path, STUDY)
    wait_for_training(tmp_path, process)
    os.killpg(process.pid, signal.SIGINT)
    os.killpg(process.pid, signal.SIGINT)
    assert end_of(process)[0] != 0 and no_target_is_there(tmp_path)
    assert_the_same_command_finishes(tmp_path, undisturbed)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_a_signal_to_snakemake_alone_lets_the_runs_finish(number, tmp_path, undisturbed):
    process = start(tmp_path, STUDY)
    wait_for_training(tmp_path, process)
    process.send_signal(number)
    assert end_of(process)[0] != 0 and no_target_is_there(tmp_path)
    assert not (run_of(tmp_path, "scan") / "record.json").exists()  # no more are started
    assert_the_same_command_finishes(tmp_path, undisturbed)
    assert len(json.loads((run_of(tmp_path) / "record.json").read_text())["attempts"]) <= 2


def unlock(folder, study):
    """What is to be done about a lock that is left: said by the same command, and never done by itself."""
    status, output = snakemake(folder, study)
    assert status != 0 and "snakemake --unlock" in output and "cannot be locked" in output, output
    assert no_target_is_there(folder)
    assert snakemake(folder, study, "--unlock")[0] == 0


def test_a_closed_terminal_leaves_a_lock(tmp_path, undisturbed):
    """SIGHUP: the runs save and stop."""
    process = start(tmp_path, STUDY)
    wait_for_training(tmp_path, process)
    pids = trainer_pids(tmp_path)
    os.killpg(process.pid, signal.SIGHUP)
    end_of(process)
    wait_for_end(pids)
    assert (run_of(tmp_path) / "checkpoint.pt").exists() and not (run_of(tmp_path) / "record.json").exists()
    unlock(tmp_path, STUDY)
    assert_the_same_command_finishes(tmp_path, undisturbed)
    assert resumed(tmp_path)


def test_kill_9_of_snakemake_leaves_orphans_that_nothing_trains_beside(tmp_path, undisturbed):
    process = start(tmp_path, STUDY)
    wait_for_training(tmp_path, process)
    pids = trainer_pids(tmp_path)
    process.kill()
    process.wait()
    assert pids and all(Path(f"/proc/{pid}").exists() for pid in pids)
    unlock(tmp_path, STUDY)
    assert_the_same_command_finishes(tmp_path, undisturbed)
    record = json.loads((run_of(tmp_path) / "record.json").read_text())
    assert record["attempts"][0]["epoch"] == 0 and all(
        a["epoch"] == EPOCHS for a in record["attempts"][1:]
    )  # trained once


def test_a_power_cut_costs_what_was_not_saved(tmp_path, undisturbed):
    process = start(tmp_path, STUDY | {"machine": {"threads": 1, "checkpoint_seconds": 0.2}})
    wait_for_training(tmp_path, process)
    pids = trainer_pids(tmp_path)
    for pid in (*pids, process.pid):
        os.kill(pid, signal.SIGKILL)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    wait_for_end(pids)
    unlock(tmp_path, STUDY)
    assert_the_same_command_finishes(tmp_path, undisturbed)


@pytest.mark.parametrize("retries", [0, 1])
def test_a_killed_run_is_tried_again_and_past_its_retries_by_the_same_command(retries, tmp_path, undisturbed):
    process = start(tmp_path, STUDY, "--retries", str(retries))
    wait_for_training(tmp_path, process)
    for pid in trainer_pids(tmp_path):
        os.kill(pid, signal.SIGKILL)
    status, output = end_of(process)
    assert (status == 0) == bool(retries), output
    assert retries or no_target_is_there(tmp_path)
    assert_the_same_command_finishes(tmp_path, undisturbed)


def test_a_loss_that_is_not_finite_stays_failed_is_said_and_can_be_mended(tmp_path, undisturbed):
    bad = STUDY["methods"]["scan"]["training"] | {"learning_rate": 1e30}
    study = STUDY | {"methods": STUDY["methods"] | {"scan": STUDY["methods"]["scan"] | {"training": bad}}}
    for _ in range(2):  # the same command tries again, fails again, and says so
        status, output = snakemake(tmp_path, study)
        assert status != 0 and "scl: failed: the loss term" in output and "Nothing to be done" not in output
        assert "not tried again" in output  # by the retry of the profile
        assert no_target_is_there(tmp_path)
        assert "failed" in (tmp_path / "results" / "partial" / "tables.md").read_text()
    assert ", 1 failed" in snakemake(tmp_path, study, "--dry-run")[1]
    assert_the_same_command_finishes(tmp_path, undisturbed)


@pytest.mark.parametrize("small_disk", ["1500k"], indirect=True)
def test_a_full_disk_stops_with_the_file_and_once_there_is_room_the_same_command_finishes(small_disk, undisturbed):
    status, output = snakemake(small_disk, STUDY)
    assert status != 0 and "No space left on device" in output, output
    assert no_target_is_there(small_disk)
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    assert_the_same_command_finishes(small_disk, undisturbed)


def test_a_dead_server_costs_its_benchmark_until_it_is_back(tmp_path, undisturbed):
    archives = tmp_path / "archives"
    archives.mkdir()
    checksums = build(archives)
    study = STUDY | {"benchmarks": {"cifar10": {"size": 8}}, "methods": {"random": TINY_METHODS["random"]}}
    with ArchiveServer(archives) as server:
        server.faults = {f"a/{CIFAR10}": {"404"}}
        downloads = {"mirrors": {CIFAR10: [server.url(CIFAR10)]}, "checksums": {CIFAR10: checksums[CIFAR10]}}
        study |= {"downloads": downloads}
        (tmp_path / "again").mkdir()
        status, output = snakemake(tmp_path, study)
        assert status != 0 and "could not be downloaded from 127.0.0.1" in output and no_target_is_there(tmp_path)
        server.faults = {}
        for folder in (tmp_path, tmp_path / "again"):  # the latter is not disturbed
            status, output = snakemake(folder, study)
            assert status == 0, output
            assert "Runs: 1 of 1 planned are done." in (folder / "results" / "tables.md").read_text()
    shutil.rmtree(tmp_path / "data" / "archives")  # prepared data is enough, for a machine without internet
    assert jobs_of(tmp_path, study) == {}
    assert "download" not in jobs_of(tmp_path, study | {"seeds": 2})
    place = Path("results", "runs", "cifar10", "joint", "random", "seed0")
    one, two = tmp_path / place, tmp_path / "again" / place
    with np.load(one / "assignments.npz") as this, np.load(two / "assignments.npz") as that:
        assert all(np.array_equal(this[name], that[name]) for name in that.files)
    assert json.loads((one / "metrics.json").read_text()) == json.loads((two / "metrics.json").read_text())


# --- files that changed under a study -------------------------------------------------------------------------------


def copy_of(undisturbed, tmp_path):
    shutil.copytree(undisturbed, tmp_path / "copy", copy_function=shutil.copy2)
    return tmp_path / "copy"


def test_damaged_weights_of_the_stage_before_are_never_used(tmp_path, undisturbed):
    folder = copy_of(undisturbed, tmp_path)
    weights = run_of(folder) / "weights.pt"
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    shutil.rmtree(run_of(folder, "scan"))  # so that they are loaded
    status, output = snakemake(folder, STUDY)
    assert status != 0 and "weights.pt: damaged" in output and "set aside as weights.pt.damaged" in output
    assert_the_same_command_finishes(folder, undisturbed)


def test_a_number_of_clusters_changed_half_way_never_mixes(tmp_path, undisturbed):
    """Whatever is interrupted after the change, no run of the old clusters counts, and none of them is in a table."""
    folder = copy_of(undisturbed, tmp_path)
    fewer = STUDY | {"benchmarks": {"tiny": TINY["benchmarks"]["tiny"] | {"clusters": 5}}}
    process = start(folder, fewer)
    wait_for_training(folder, process)
    os.killpg(process.pid, signal.SIGTERM)
    assert end_of(process)[0] != 0
    command = [sys.executable, "-m", "benchmarks.cli", "report", "study.yaml"]
    subprocess.run(command, cwd=folder, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=True, capture_output=True)
    partial = (folder / "results" / "partial" / "tables.md").read_text()
    assert "0 of 2 planned are done" in partial
    status, output = snakemake(folder, fewer)
    assert status == 0, output
    clusters = json.loads((run_of(folder, "scan") / "metrics.json").read_text())["clusters"]
    assert clusters == 5
    assert_the_same_command_finishes(folder, undisturbed)  # and back again


def test_a_dry_run_of_another_plan_changes_nothing(tmp_path, undisturbed):
    folder = copy_of(undisturbed, tmp_path)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if ".snakemake" not in path.parts}
    other = STUDY | {"training": STUDY["training"] | {"batch_size": 16}, "seeds": 2}
    status, output = snakemake(folder, other, "--dry-run")
    assert status == 0 and "train simclr on tiny (joint), seed 1" in output and "2 out of date" not in output
    (folder / "study.yaml").write_bytes((undisturbed / "study.yaml").read_bytes())
    after = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if ".snakemake" not in path.parts}
    assert {p for p in after if after[p] != before.get(p)} <= {folder / "study.yaml"} and before.keys() == after.keys()
    assert snakemake(folder, STUDY)[1].count("Nothing to be done") == 1


WEIGHTS = ("weights.pt", "checkpoint.pt", "checkpoint.prev.pt")


def carry(undisturbed, tmp_path, *without):
    """Results as they arrive on another machine, with the times of the copying; without: names left behind."""
    folder = tmp_path / "moved"
    shutil.copytree(
        undisturbed, folder, copy_function=shutil.copyfile, ignore=shutil.ignore_patterns(".snakemake", *without)
    )
    return folder


def jobs_of(folder, study=STUDY) -> dict:
    """{rule: number of jobs} that a dry run plans."""
    return planned(flow.snakemake(folder, study, "--dry-run"))


def test_results_copied_with_data_newer_or_without_data_are_not_made_again(tmp_path, undisturbed):
    folder = carry(undisturbed, tmp_path)
    for path in [
        *(folder / "data" / "tiny").iterdir(),
        run_of(folder) / "weights.pt",
        run_of(folder) / "assignments.npz",
    ]:
        os.utime(path)
    assert not {"prepare", "train", "evaluate"} & jobs_of(folder).keys()
    shutil.rmtree(folder / "data")
    assert not {"prepare", "train", "evaluate"} & jobs_of(folder).keys()
    status, output = snakemake(folder, STUDY)
    assert status == 0 and outcome(folder) == outcome(undisturbed)


def test_results_copied_without_weights_are_not_made_again_until_a_further_stage_needs_them(tmp_path, undisturbed):
    folder = carry(undisturbed, tmp_path, *WEIGHTS)
    assert not {"prepare", "train", "evaluate"} & jobs_of(folder).keys()
    further = STUDY | {"methods": STUDY["methods"] | {"selflabel": TINY_METHODS["selflabel"]}}
    assert jobs_of(folder, further)["train"] == 3  # with SimCLR, whose weights SCAN needs
    assert jobs_of(carry(undisturbed, tmp_path / "all"), further)["train"] == 1


def test_copied_results_on_other_images_are_made_again(tmp_path, undisturbed):
    folder = carry(undisturbed, tmp_path, "data")
    other = STUDY | {"benchmarks": {"tiny": {"dataset": "digits", "subset": 61, "size": 8}}}
    (folder / "study.yaml").write_text(yaml.safe_dump(other))
    assert flow.scl(folder, "prepare", "tiny", "--study", "study.yaml").returncode == 0
    assert jobs_of(folder, other)["train"] == 2


def test_a_run_begun_elsewhere_resumes_from_its_copied_checkpoint(tmp_path, undisturbed):
    process = start(tmp_path, STUDY)
    wait_for_training(tmp_path, process)
    os.killpg(process.pid, signal.SIGINT)
    end_of(process)
    folder = carry(tmp_path, tmp_path.parent / f"{tmp_path.name}-elsewhere", "data", "partial")
    assert_the_same_command_finishes(folder, undisturbed)
    assert resumed(folder)
