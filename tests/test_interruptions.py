"""The table of interruptions in docs/running.md, row by row: interrupt a study, repeat the same command, and compare
the results, bit for bit, with those of an uninterrupted study.

`snakemake` processes run in separate sessions, so that a signal can go to the whole process group, as from a terminal.
test_moved_results.py covers what happens to files between two starts.
"""

import json
import os
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path

import flow
import numpy as np
import pytest
from archive_server import ArchiveServer
from conftest import TINY_METHODS
from fake_archives import build
from flow import TINY, outcome, run_of
from long_study import (
    EPOCHS,
    STUDY,
    assert_nothing_is_left_to_do,
    assert_the_same_command_finishes,
    end_of,
    ended,
    jobs_of,
    log_of_training,
    no_target_is_there,
    open_gate,
    resumed,
    snakemake,
    start,
    wait_for,
)

from benchmarks.workflow import handle_sigterm_in_a_thread

pytestmark = [pytest.mark.workflow, pytest.mark.network]

CIFAR10 = "cifar-10-python.tar.gz"


def trainer_pids(folder):
    """Processes that train a run of this study."""
    return pids_of(folder, "train")


def pids_of(folder, step):
    """Processes of `scl <step>` in this study."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            command, cwd = (path / "cmdline").read_bytes().split(b"\0"), os.readlink(path / "cwd")
            name = (path / "comm").read_text().strip()  # the name of a forked process
        except OSError:
            continue
        if (name == f"scl {step}" or command[1:4] == [b"-m", b"benchmarks.cli", step.encode()]) and cwd == str(folder):
            found.append(int(path.name))
    return found


def wait_for_end(pids):
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        time.sleep(0.05)


def test_sigterm_to_all_saves_and_the_same_command_resumes(tmp_path, undisturbed):
    process = start(tmp_path, STUDY)
    os.killpg(process.pid, signal.SIGTERM)
    status, output = end_of(process)
    assert status != 0 and no_target_is_there(tmp_path), output
    assert (run_of(tmp_path) / "checkpoint.pt").exists() and not (run_of(tmp_path) / "record.json").exists()
    assert_the_same_command_finishes(tmp_path, undisturbed)
    assert resumed(tmp_path)
    assert_nothing_is_left_to_do(tmp_path)


def test_a_stay_of_limited_time_saves_and_the_same_command_resumes(tmp_path, undisturbed):
    """`timeout -s INT 25m snakemake ...` expires (gets SIGALRM) during training, which is like Ctrl-C to Snakemake and
    its runs. Here nothing is forked."""
    process = start(tmp_path, STUDY, before=("timeout", "-s", "INT", "25m"))
    process.send_signal(signal.SIGALRM)
    status, output = end_of(process)
    assert status == 124 and no_target_is_there(tmp_path), output
    assert (run_of(tmp_path) / "checkpoint.pt").exists() and not (run_of(tmp_path) / "record.json").exists()
    assert_the_same_command_finishes(tmp_path, undisturbed)
    assert resumed(tmp_path)


def test_sigterm_does_not_hang_where_the_handler_needs_a_lock_that_is_held():
    """Snakemake's handler takes the scheduler's lock, which the main thread may hold when the signal arrives."""
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
    os.killpg(process.pid, signal.SIGINT)
    os.killpg(process.pid, signal.SIGINT)
    assert end_of(process)[0] != 0 and no_target_is_there(tmp_path)
    assert_the_same_command_finishes(tmp_path, undisturbed)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_a_signal_to_snakemake_alone_lets_the_runs_finish(number, tmp_path, undisturbed):
    process = start(tmp_path, STUDY)
    process.send_signal(number)
    time.sleep(0.3)  # so that Snakemake sees it before the run ends
    open_gate(tmp_path)
    assert end_of(process)[0] != 0 and no_target_is_there(tmp_path)
    assert not (run_of(tmp_path, "scan") / "record.json").exists()  # no more are started
    assert_the_same_command_finishes(tmp_path, undisturbed)
    assert len(json.loads((run_of(tmp_path) / "record.json").read_text())["attempts"]) <= 2


def unlock(folder, study):
    """Remove a stale lock as the same command advises, which never does so by itself."""
    status, output = snakemake(folder, study)
    assert status != 0 and "snakemake --unlock" in output and "cannot be locked" in output, output
    assert no_target_is_there(folder)
    assert snakemake(folder, study, "--unlock")[0] == 0


def test_a_closed_terminal_leaves_a_lock(tmp_path, undisturbed):
    """SIGHUP: the runs save and stop."""
    process = start(tmp_path, STUDY)
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
    pids = trainer_pids(tmp_path)
    process.kill()
    process.wait()
    assert pids and all(Path(f"/proc/{pid}").exists() for pid in pids)
    unlock(tmp_path, STUDY)
    log_of_training(tmp_path).unlink()
    process = flow.start(tmp_path, STUDY)
    wait_for(process, log_of_training(tmp_path), "another process is working on it")
    open_gate(tmp_path)
    assert end_of(process)[0] == 0 and ended(tmp_path) == ended(undisturbed)
    assert_nothing_is_left_to_do(tmp_path)
    record = json.loads((run_of(tmp_path) / "record.json").read_text())
    assert record["attempts"][0]["epoch"] == 0 and all(
        a["epoch"] == EPOCHS for a in record["attempts"][1:]
    )  # trained once


def test_a_power_cut_costs_what_was_not_saved(tmp_path, undisturbed):
    process = start(tmp_path, STUDY | {"machine": {"threads": 1, "checkpoint_seconds": 0.0}})
    pids = trainer_pids(tmp_path)
    for pid in (*pids, process.pid):
        os.kill(pid, signal.SIGKILL)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    wait_for_end(pids)
    unlock(tmp_path, STUDY)
    assert_the_same_command_finishes(tmp_path, undisturbed)
    assert resumed(tmp_path)


@pytest.mark.parametrize("retries", [0, 1])
def test_a_killed_run_is_tried_again_and_past_its_retries_by_the_same_command(retries, tmp_path, undisturbed):
    process = start(tmp_path, STUDY, "--retries", str(retries))
    for pid in trainer_pids(tmp_path):
        os.kill(pid, signal.SIGKILL)
    open_gate(tmp_path)
    status, output = end_of(process)
    assert (status == 0) == bool(retries), output
    assert retries or no_target_is_there(tmp_path)
    assert_the_same_command_finishes(tmp_path, undisturbed)
    assert_nothing_is_left_to_do(tmp_path)


SLOW_KMEANS = TINY_METHODS["simclr"] | {"options": {"kmeans_restarts": 40}}
CLUSTERED = TINY | {"methods": {"simclr": SLOW_KMEANS | {"training": {"epochs": 4, "curve_points": 4}}}}


@pytest.fixture(scope="module")
def clustered(tmp_path_factory):
    """The results of an uninterrupted study of one run whose k-means takes seconds."""
    folder = tmp_path_factory.mktemp("clustered")
    status, output = snakemake(folder, CLUSTERED)
    assert status == 0, output
    return outcome(run_of(folder))


@pytest.mark.parametrize(
    "number,target", [(signal.SIGTERM, "job"), (signal.SIGINT, "group"), (signal.SIGKILL, "snakemake")]
)
@pytest.mark.xdist_group("clustered")
def test_interrupted_clustering_is_made_up_for_without_training(number, target, tmp_path, clustered):
    process = flow.start(tmp_path, CLUSTERED, "--retries", "0")
    log = tmp_path / "results" / "logs" / "tiny" / "joint" / "simclr" / "seed0.kmeans.log"
    wait_for(process, log, "k-means 1/4")
    pids = pids_of(tmp_path, "kmeans")
    for pid in {"job": pids, "snakemake": [process.pid]}.get(target, []):
        os.kill(pid, number)
    if target == "group":
        os.killpg(process.pid, number)
    assert end_of(process)[0] != 0 and no_target_is_there(tmp_path)
    if target == "snakemake" and number == signal.SIGKILL:
        unlock(tmp_path, CLUSTERED)
    status, output = snakemake(tmp_path, CLUSTERED)
    assert status == 0 and "train simclr" not in output, output
    run = run_of(tmp_path)
    assert outcome(run) == clustered and not (run / "features").exists()
    assert len(json.loads((run / "record.json").read_text())["attempts"]) == 1


def test_a_loss_that_is_not_finite_stays_failed_is_said_and_can_be_mended(tmp_path, undisturbed):
    bad = STUDY["methods"]["scan"]["training"] | {"learning_rate": 1e30}
    study = STUDY | {"methods": STUDY["methods"] | {"scan": STUDY["methods"]["scan"] | {"training": bad}}}
    for _ in range(2):  # the same command tries again, fails again, and reports it
        status, output = snakemake(tmp_path, study)
        assert status != 0 and "scl: failed: the loss term" in output and "Nothing to be done" not in output
        assert "not tried again" in output  # by the profile's retry
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
        for folder in (tmp_path, tmp_path / "again"):  # the latter is not interrupted
            status, output = snakemake(folder, study)
            assert status == 0, output
            assert "Runs: 1 of 1 done." in (folder / "results" / "tables.md").read_text()
    shutil.rmtree(tmp_path / "data" / "archives")  # prepared data suffices on a machine without internet
    assert jobs_of(tmp_path, study) == {}
    assert "download" not in jobs_of(tmp_path, study | {"seeds": 2})
    place = Path("results", "runs", "cifar10", "joint", "random", "seed0")
    one, two = tmp_path / place, tmp_path / "again" / place
    with np.load(one / "assignments.npz") as this, np.load(two / "assignments.npz") as that:
        assert all(np.array_equal(this[name], that[name]) for name in that.files)
    assert json.loads((one / "metrics.json").read_text()) == json.loads((two / "metrics.json").read_text())
