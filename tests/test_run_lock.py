"""A run is trained by one process at a time."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from scl.engine import locks

ROOT = Path(__file__).parent.parent


class Waits(Exception):
    """Raised instead of waiting."""


def refuse_to_wait(line):
    raise Waits(line)


def test_a_run_is_trained_by_one_process_at_a_time(tmp_path):
    """An orphan holds the run; the new job waits for it, and continues when the orphan dies."""
    orphan_code = (
        "import sys, time\nfrom scl.engine.locks import locked\n"
        "with locked(sys.argv[1] + '/.lock', 'a run'):\n    print('held', flush=True)\n    time.sleep(600)"
    )
    run = tmp_path / "runs" / "seed0"
    command = [sys.executable, "-c", orphan_code, run]
    orphan = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert orphan.stdout.readline() == "held\n"
        with pytest.raises(Waits, match="seed0: another process is working on it"):
            with locks.locked(run / ".lock", run, report=refuse_to_wait):
                pass
        said = []

        def kill_the_orphan(line):
            said.append(line)
            orphan.kill()

        with locks.locked(run / ".lock", run, report=kill_the_orphan):
            assert orphan.wait(60) == -signal.SIGKILL
        assert len(said) == 2 and "waiting" in said[0] and "free after" in said[1]
        with locks.locked(run / ".lock", run, report=refuse_to_wait):
            pass
    finally:
        orphan.kill()
        orphan.communicate()


def test_a_file_system_without_locks_is_said_and_used(tmp_path, monkeypatch):
    def no_locks(descriptor, operation):
        raise OSError(locks.errno.ENOLCK, "No locks available")

    monkeypatch.setattr(locks.fcntl, "flock", no_locks)
    said = []
    with locks.locked(tmp_path / ".lock", tmp_path, report=said.append):
        assert "No locks available" in said[0]
