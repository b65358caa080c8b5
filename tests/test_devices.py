"""Leases never overlap, end with their process, and fail at once if a request cannot be met."""

import contextlib
import os
import random
import signal
import stat
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace

import pytest

from scl.engine import gpu_lease
from scl.engine import locks as locks_module

ROOT = Path(__file__).parent.parent

HOLDER = """
import sys, time
from pathlib import Path
from scl.engine.gpu_lease import lease
log, go, runs_per_gpu = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
with lease(1, required=True, runs_per_gpu=runs_per_gpu, report=lambda line: None) as token:
    start = time.monotonic()
    log.write_text(f"{token} {start}\\n")
    while not go.exists():
        time.sleep(0.02)
    time.sleep(0.2)
    log.write_text(f"{token} {start} {time.monotonic()}\\n")
"""


class Waits(Exception):
    """Raised instead of waiting."""


def refuse_to_wait(line):
    raise Waits(line)


@pytest.fixture(autouse=True)
def locks(tmp_path, monkeypatch):
    """The folder of the locks; CUDA_VISIBLE_DEVICES is restored however a test sets it, even within a lease."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    for name in ("SLURM_JOB_ID", "SLURM_STEP_ID"):  # the tests themselves may run within a job
        monkeypatch.delenv(name, raising=False)
    return tmp_path / f"gpu-locks-{os.getuid()}"


@pytest.fixture
def driver(tmp_path, monkeypatch):
    """Put a fake nvidia-smi that lists the given UUIDs on the PATH: driver("GPU-a", "GPU-b")."""
    folder = tmp_path / "bin"
    folder.mkdir()

    def pretend(*uuids, status=0, further=()):
        script = folder / "nvidia-smi"
        lines = "".join(f"echo '{line}'\n" for line in [*(f"{i}, {uuid}" for i, uuid in enumerate(uuids)), *further])
        script.write_text(f"#!/bin/sh\n{lines}exit {status}\n")
        script.chmod(0o755)

    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    pretend(status=9)  # as with a driver that does not respond
    return pretend


def wait_for(condition):
    """Poll until the condition holds; the limit only keeps a broken lock from hanging the tests."""
    limit = time.monotonic() + 60
    while not (value := condition()):
        assert time.monotonic() < limit, "nothing happened for a minute"
        time.sleep(0.02)
    return value


@contextlib.contextmanager
def holders(tmp_path, count, runs_per_gpu=1):
    """Start `count` processes that each lease one GPU and log; yield ([(process, log)], go)."""
    go = tmp_path / "go"
    started = []
    for number in range(count):
        log = tmp_path / f"{number}.log"
        arguments = [sys.executable, "-c", HOLDER, log, go, str(runs_per_gpu)]
        environment = os.environ | {"TMPDIR": str(tmp_path)}
        started.append((subprocess.Popen(arguments, cwd=ROOT, env=environment), log))
    try:
        yield started, go
    finally:
        for process, _ in started:
            process.kill()
            process.wait()


def running(started):
    """{log: token} for the processes that have logged a start."""
    return {log: log.read_text().split()[0] for _, log in started if log.exists() and log.read_text()}


def most_at_once(started, killed):
    """{token: largest number of simultaneous leases}; `killed`: end times of processes that could not log them."""
    events = defaultdict(list)
    for _, log in started:
        token, start, *end = log.read_text().split()
        events[token] += [(float(start), 1), (float(end[0]) if end else killed[log], -1)]
    most = {}
    for token, changes in events.items():
        level = highest = 0
        for _, change in sorted(changes):
            level += change
            highest = max(highest, level)
        most[token] = highest
    return most


def test_eight_processes_on_four_gpus_never_overlap_also_when_one_is_killed(tmp_path, driver, monkeypatch):
    driver("GPU-a", "GPU-b", "GPU-c", "GPU-d")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3")
    with holders(tmp_path, 8) as (started, go):
        first = wait_for(lambda: len(running(started)) >= 4 and running(started))
        assert sorted(first.values()) == ["0", "1", "2", "3"]
        victim, log = next((process, log) for process, log in started if log in first)
        killed = {log: time.monotonic()}
        victim.send_signal(signal.SIGKILL)
        after = wait_for(lambda: len(running(started)) >= 5 and running(started))  # none of the others has ended yet
        (heir,) = set(after) - set(first)
        assert after[heir] == first[log]
        go.touch()
        assert sorted(process.wait(60) for process, _ in started) == [-signal.SIGKILL] + [0] * 7
        assert most_at_once(started, killed) == {"0": 1, "1": 1, "2": 1, "3": 1}


def test_two_runs_a_gpu(tmp_path, driver):
    driver("GPU-a", "GPU-b")
    with holders(tmp_path, 6, runs_per_gpu=2) as (started, go):
        first = wait_for(lambda: len(running(started)) >= 4 and running(started))
        assert sorted(first.values()) == ["GPU-a", "GPU-a", "GPU-b", "GPU-b"]
        go.touch()
        assert [process.wait(60) for process, _ in started] == [0] * 6
        assert max(most_at_once(started, {}).values()) == 2


def test_every_gpu_gets_a_first_run_before_any_gets_a_second(monkeypatch):
    with contextlib.ExitStack() as stack:
        got = []
        for _ in range(4):
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "x,y")
            got.append(stack.enter_context(gpu_lease.lease(1, runs_per_gpu=2)))
        assert got == ["x", "y", "x", "y"]
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "x,y")
        with pytest.raises(Waits):
            stack.enter_context(gpu_lease.lease(1, runs_per_gpu=2, report=refuse_to_wait))


@pytest.mark.parametrize(
    "setting, expected",
    [
        ("2", ["2"]),
        ("2,3", ["2", "3"]),
        (" 2, 3 ", ["2", "3"]),
        ("GPU-fake-1", ["GPU-fake-1"]),
        ("", []),
        ("-1", []),
        ("NoDevFiles", []),
        ("0,-1,1", ["0"]),
        ("1,1", ["1"]),
        ("MIG-7c2f", ["MIG-7c2f"]),
    ],
)
def test_visible_follows_the_variable(monkeypatch, driver, setting, expected):
    driver("GPU-a", "GPU-b")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", setting)
    assert gpu_lease.visible() == expected


def test_visible_asks_the_driver_without_the_variable(driver, monkeypatch, tmp_path):
    assert gpu_lease.visible() == []  # nvidia-smi fails
    driver(*(f"GPU-{i}" for i in range(12)))
    assert gpu_lease.visible() == [f"GPU-{i}" for i in range(12)]
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpu_lease.visible() == []  # no nvidia-smi


def test_a_gpu_in_an_error_state_is_left_out(driver):
    driver("GPU-a", "[Unknown Error]", "GPU-c", further=["[N/A], GPU-d", "[N/A], [N/A]"])
    assert gpu_lease.visible() == ["GPU-a", "GPU-c"]


def test_lease_sets_the_token_as_found_and_puts_the_variable_back(locks, driver, monkeypatch):
    driver("GPU-a", "GPU-b")
    with gpu_lease.lease(0) as token:
        assert token == os.environ["CUDA_VISIBLE_DEVICES"] == "" and not locks.exists()
    assert "CUDA_VISIBLE_DEVICES" not in os.environ
    with gpu_lease.lease(1) as token:
        assert token == os.environ["CUDA_VISIBLE_DEVICES"] == "GPU-a"
    assert "CUDA_VISIBLE_DEVICES" not in os.environ
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,0")
    with gpu_lease.lease(2) as token:
        assert token == os.environ["CUDA_VISIBLE_DEVICES"] == "1,0"
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "1,0"


@pytest.mark.parametrize("other", ["GPU-aaaa-1", "GPU-aaaa"])
def test_an_index_and_a_uuid_of_one_gpu_exclude_each_other(driver, monkeypatch, other):
    driver("GPU-aaaa-1", "GPU-bbbb-2")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    with gpu_lease.lease(1):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", other)
        with pytest.raises(Waits), gpu_lease.lease(1, report=refuse_to_wait):
            pass


def test_slurm_jobs_that_all_see_their_gpu_as_0_do_not_wait_for_each_other(driver, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    driver("GPU-a")  # all that the first job's device cgroup exposes
    with gpu_lease.lease(1, report=refuse_to_wait):
        driver("GPU-b")
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
        with gpu_lease.lease(1, report=refuse_to_wait) as token:
            assert token == "0"


def test_without_nvidia_smi_gpu_0_of_one_slurm_job_or_step_is_not_gpu_0_of_another(driver, monkeypatch):
    def lease(job, step, **options):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
        for name, value in (("SLURM_JOB_ID", job), ("SLURM_STEP_ID", step)):
            monkeypatch.setenv(name, value) if value else monkeypatch.delenv(name, raising=False)
        return gpu_lease.lease(1, report=refuse_to_wait)

    with lease("17", "0"), lease("18", "0"), lease("17", "1"), lease("19", None), lease(None, None) as token:
        assert token == "0"
        for same in (("17", "0"), ("18", "0"), ("17", "1"), ("19", None), (None, None)):
            with pytest.raises(Waits), lease(*same):
                pass


def test_a_gpu_known_by_its_uuid_is_one_gpu_for_all_slurm_jobs(driver, monkeypatch):
    """If a node's GPUs are not confined, an interactive job must not take the GPU of a batch job."""
    driver("GPU-a", "GPU-b")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    with gpu_lease.lease(1):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
        monkeypatch.setenv("SLURM_JOB_ID", "18")
        with pytest.raises(Waits), gpu_lease.lease(1, report=refuse_to_wait):
            pass


def test_no_gpu_is_the_cpu_with_one_line_unless_required(driver):
    said = []
    with gpu_lease.lease(1, report=said.append) as token:
        assert token == os.environ["CUDA_VISIBLE_DEVICES"] == ""
    assert said == ["warning: no GPU visible (nvidia-smi lists 0); using the CPU"]
    with pytest.raises(ValueError, match="0 visible"), gpu_lease.lease(1, required=True):
        pass


def test_a_machine_without_a_gpu_is_told_so_without_a_warning(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))  # no nvidia-smi
    said = []
    with gpu_lease.lease(1, report=said.append):
        pass
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # set by the user or a scheduler
    with gpu_lease.lease(1, report=said.append):
        pass
    told = "warning: no GPU visible (CUDA_VISIBLE_DEVICES is ''); using the CPU"
    assert said == ["no GPU found; using the CPU", told]


def test_a_full_gpu_says_what_to_lower():
    """Also in `scl cluster`, which has options for neither the batch size nor the number of runs."""
    import torch

    from scl.engine.train import OutOfMemory, _explain_errors

    run = SimpleNamespace(training=SimpleNamespace(batch_size=512))
    told = r"lower training.batch_size \(now 512\) or machine.runs_per_gpu, or the image size; no memory"
    with pytest.raises(OutOfMemory, match=told), _explain_errors(run, SimpleNamespace(requested=False)):
        raise torch.OutOfMemoryError("no memory\nmore lines")


def test_a_gpu_that_torch_cannot_use_is_said_and_refused_where_one_is_required(monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    said = []
    assert gpu_lease.torch_device("GPU-a", report=said.append) == "cpu" and "cannot use it" in said[0]
    with pytest.raises(ValueError, match="GPU GPU-a is there, but torch"):
        gpu_lease.torch_device("GPU-a", required=True)
    assert gpu_lease.torch_device("", required=True, report=said.append) == "cpu" and len(said) == 1
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert gpu_lease.torch_device("GPU-a") == "cuda"


def test_an_index_counts_as_nvidia_smi_does(driver):
    driver("GPU-a", "GPU-b")
    with gpu_lease.lease(1):
        assert os.environ["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    assert "CUDA_DEVICE_ORDER" not in os.environ


def test_gpus_that_are_not_there_are_refused_at_once(driver, monkeypatch):
    driver("GPU-a", "GPU-b")
    with pytest.raises(ValueError, match="3 GPU.* 2 visible"), gpu_lease.lease(3):
        pass
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    with pytest.raises(ValueError, match="GPU 7.*lists 2"), gpu_lease.lease(1):
        pass


def test_waiting_for_two_gpus_holds_neither_and_draws_no_random_number(driver, monkeypatch):
    driver("GPU-a", "GPU-b")
    said = []

    def while_waiting(line):
        said.append(line)
        if len(said) == 1:  # the free GPU is still available to anyone
            with gpu_lease.lease(1, report=refuse_to_wait) as token:
                assert token == "GPU-b"
            blocker.close()

    blocker = contextlib.ExitStack()
    blocker.enter_context(gpu_lease.lease(1))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    state = random.getstate()
    with gpu_lease.lease(2, report=while_waiting) as tokens:
        assert tokens == "GPU-a,GPU-b"
    assert random.getstate() == state
    assert "waiting for 2 of 2 GPUs" in said[0] and "2 of 2 GPUs: free after" in said[1]


def test_the_folder_of_the_locks_is_private(locks, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "x")
    locks.mkdir()
    locks.chmod(0o777)
    with gpu_lease.lease(1):
        assert stat.S_IMODE(locks.stat().st_mode) == 0o700 and [p.name for p in locks.iterdir()] == ["x.0"]


@pytest.mark.parametrize("kind", ["file", "link"])
def test_a_folder_of_the_locks_that_cannot_be_used_is_named(kind, locks, tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "x")
    if kind == "file":
        locks.write_text("")
    else:
        (tmp_path / "mine").mkdir(mode=0o755)
        locks.symlink_to(tmp_path / "mine")
    with pytest.raises(ValueError, match=rf"{locks}: .*; remove it, or set TMPDIR to a local folder"):
        gpu_lease.lease(1).__enter__()
    assert kind == "file" or stat.S_IMODE((tmp_path / "mine").stat().st_mode) == 0o755


def test_a_lock_file_removed_by_a_cleaner_is_not_taken_for_a_lease(locks, monkeypatch):
    """A lock on an unlinked file protects nothing: the lease tries again."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "x")
    flock = locks_module.fcntl.flock

    def cleaned_meanwhile(descriptor, operation):
        flock(descriptor, operation)
        (locks / "x.0").unlink()

    monkeypatch.setattr(locks_module.fcntl, "flock", cleaned_meanwhile)
    with pytest.raises(Waits), gpu_lease.lease(1, report=refuse_to_wait):
        pass


def test_devices_and_record_are_free_of_torch():
    code = "import sys, scl.engine.gpu_lease, scl.engine.io; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
