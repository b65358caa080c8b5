"""A study whose trainings (SimCLR, then SCAN) are long enough to be met half-way: what is interrupted and compared."""

import json
import time

import flow
from conftest import TINY_METHODS
from flow import TINY, outcome, planned, run_of, start

EPOCHS = 150
STUDY = TINY | {
    "methods": {
        "simclr": TINY_METHODS["simclr"] | {"training": {"epochs": EPOCHS}},
        "scan": TINY_METHODS["scan"] | {"training": {"epochs": 3, "optimizer": "adam", "learning_rate": 0.001}},
    }
}


def end_of(process):
    output = process.communicate(timeout=600)[0]
    return process.returncode, output


def snakemake(folder, study, *flags):
    status, output = end_of(start(folder, study, *flags))
    assert "Traceback" not in output, output
    return status, output


def log_of_training(folder):
    return folder / "results" / "logs" / "tiny" / "joint" / "simclr" / "seed0.log"


def wait_for_training(folder, process):
    """Until SimCLR's log shows an epoch (every tenth part is logged), and well before its last."""
    log = log_of_training(folder)
    while not (log.exists() and f"epoch {EPOCHS // 10}/" in log.read_text()):
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.02)


def ended(folder):
    """What the whole study leaves behind: the outcome of every run, and tables of both."""
    runs = {stage: run_of(folder, stage) for stage in STUDY["methods"]}
    for run in runs.values():
        assert not (run / "failure.json").exists() and not [f for f in run.iterdir() if ".tmp" in f.name]
    assert "Runs: 2 of 2 done." in (folder / "results" / "tables.md").read_text()
    assert not (folder / "results" / "partial").exists()
    return {stage: outcome(run) for stage, run in runs.items()}


def assert_the_same_command_finishes(folder, undisturbed, study=STUDY):
    status, output = snakemake(folder, study)
    assert status == 0, output
    assert ended(folder) == ended(undisturbed)
    status, output = snakemake(folder, study)
    assert status == 0 and "Nothing to be done" in output


def no_target_is_there(folder):
    """A target under its final name would make the same command say that there is nothing to do."""
    return not [
        name for name in ("tables.md", "claims.md", "runs.csv", "report") if (folder / "results" / name).exists()
    ]


def resumed(folder):
    return len(json.loads((run_of(folder) / "record.json").read_text())["attempts"]) == 2


def jobs_of(folder, study=STUDY) -> dict:
    """{rule: number of jobs} that a dry run plans."""
    return planned(flow.snakemake(folder, study, "--dry-run"))
