"""A study (SimCLR, then SCAN) that waits halfway through its first training run, for tests of interruptions."""

import json
import time

import flow
from conftest import TINY_METHODS
from flow import TINY, outcome, planned, run_of

EPOCHS, AT_THE_GATE = 4, "epoch 2/4"
GATED = """
import signal
import time
from pathlib import Path

from baselines.simclr import SimCLR


class Gated(SimCLR):
    def step(self, views, index):
        while self.epoch == 2 and Path("gate").exists() and not self.is_stopping():
            time.sleep(0.01)
        return super().step(views, index)

    def is_stopping(self):  # whether scl.engine.checkpoint.Stop, which handles signals, has seen one
        return signal.getsignal(signal.SIGTERM).__self__.requested
"""
"""SimCLR that waits in its third epoch as long as there is a file `gate`, or until it gets a signal."""
SIMCLR = TINY_METHODS["simclr"] | {"method": "gated.Gated", "training": {"epochs": EPOCHS}}
STUDY = TINY | {
    "methods": {
        "simclr": SIMCLR,
        "scan": TINY_METHODS["scan"] | {"training": {"epochs": 3, "optimizer": "adam", "learning_rate": 0.001}},
    }
}


def end_of(process):
    output = process.communicate(timeout=600)[0]
    return process.returncode, output


def snakemake(folder, study, *flags):
    (folder / "gated.py").write_text(GATED)
    status, output = end_of(flow.start(folder, study, *flags))
    assert "Traceback" not in output, output
    return status, output


def start(folder, study, *flags, **options):
    """Start the study with the gate closed, wait until its training waits there, and return the process."""
    (folder / "gated.py").write_text(GATED)
    (folder / "gate").touch()
    log = log_of_training(folder)
    log.unlink(missing_ok=True)
    process = flow.start(folder, study, *flags, **options)
    wait_for(process, log, AT_THE_GATE)
    return process


def log_of_training(folder):
    return folder / "results" / "logs" / "tiny" / "joint" / "simclr" / "seed0.log"


def wait_for(process, log, text):
    """Wait until the file `log` contains the text."""
    while not (log.exists() and text in log.read_text()):
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)


def open_gate(folder):
    (folder / "gate").unlink()


def ended(folder):
    """The results of the whole study: the outcome of every run, and the tables."""
    runs = {stage: run_of(folder, stage) for stage in STUDY["methods"]}
    for run in runs.values():
        assert not (run / "failure.json").exists() and not [f for f in run.iterdir() if ".tmp" in f.name]
    assert "Runs: 2 of 2 done." in (folder / "results" / "tables.md").read_text()
    assert not (folder / "results" / "partial").exists()
    return {stage: outcome(run) for stage, run in runs.items()}


def assert_the_same_command_finishes(folder, undisturbed, study=STUDY):
    (folder / "gate").unlink(missing_ok=True)
    status, output = snakemake(folder, study)
    assert status == 0, output
    assert ended(folder) == ended(undisturbed)


def assert_nothing_is_left_to_do(folder):
    status, output = snakemake(folder, STUDY)
    assert status == 0 and "Nothing to be done" in output


def no_target_is_there(folder):
    """Whether no target exists under its final name: the same command would then report that there is nothing to do."""
    return not [
        name for name in ("tables.md", "claims.md", "runs.csv", "report") if (folder / "results" / name).exists()
    ]


def resumed(folder):
    return len(json.loads((run_of(folder) / "record.json").read_text())["attempts"]) == 2


def jobs_of(folder, study=STUDY) -> dict:
    """{rule: number of jobs} planned by a dry run."""
    return planned(flow.snakemake(folder, study, "--dry-run"))
