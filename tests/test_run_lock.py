"""A run is trained by one process at a time."""

import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from benchmarks.cli import main
from benchmarks.single import run_single
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


@pytest.mark.slow
@pytest.mark.parametrize("by_hand", [True, False])
def test_a_run_is_not_evaluated_while_it_is_trained_again(by_hand, tiny_study, train_all, monkeypatch):
    """The evaluation could find the new assignments beside the old record, and would set them aside as damaged."""
    study = tiny_study("random")
    [run] = train_all(study)

    def attempt_once(attempt, what, why, **options):
        if (result := attempt()) is None:
            raise Waits(what)
        return result

    monkeypatch.setattr(locks, "wait_for", attempt_once)
    evaluate = partial(main, ["evaluate", str(run.directory)]) if by_hand else partial(run_single, study, run)
    with locks.locked(run.directory / ".lock", run.directory), pytest.raises(Waits, match="seed0"):
        evaluate()
    assert not (run.directory / "metrics.json").exists()
    evaluate()
    assert (run.directory / "metrics.json").exists()


def test_a_file_system_without_locks_is_said_and_used(tmp_path, monkeypatch):
    def no_locks(descriptor, operation):
        raise OSError(locks.errno.ENOLCK, "No locks available")

    monkeypatch.setattr(locks.fcntl, "flock", no_locks)
    said = []
    with locks.locked(tmp_path / ".lock", tmp_path, report=said.append):
        assert "No locks available" in said[0]
