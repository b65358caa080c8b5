"""Checks before jobs go to SLURM, and the CPUs of a job, with fake commands. `make test-slurm` tests the same and more
on a real SLURM."""

import re
from types import SimpleNamespace

import pytest
import yaml
from flow import ROOT

from benchmarks import slurm
from benchmarks.workflow import share_machine


@pytest.fixture
def commands(tmp_path, monkeypatch):
    """Put only fake SLURM commands on the PATH: commands(sinfo="text") prints it, (sacct=1) fails with status 1."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    (tmp_path / "bin").mkdir()

    def pretend(**outcomes):
        for name, outcome in outcomes.items():
            script = tmp_path / "bin" / name
            lines = (
                f"echo '{name}: error: not today' >&2; exit {outcome}"
                if isinstance(outcome, int)
                else f"echo '{outcome}'"
            )
            script.write_text(f"#!/bin/sh\n{lines}\n")
            script.chmod(0o755)

    pretend(sacct="", squeue="", sinfo="gpu|1-00:00:00\nlong|infinite\nshort|30:00")
    return pretend


def workflow(executor="slurm", status_command="sacct", local=False, **resources):
    job = SimpleNamespace(
        is_local=local,
        resources={"slurm_partition": "gpu", "runtime": 60} | resources,
        rule=SimpleNamespace(name="train"),
        wildcards=["digits", "joint", "scl", "0"],
    )
    return SimpleNamespace(
        executor_plugin=SimpleNamespace(name=executor),
        workdir_init="/scratch/me",
        executor_settings=SimpleNamespace(status_command=status_command),
        dag=SimpleNamespace(needrun_jobs=lambda: [job]),
    )


def study(**machine):
    return SimpleNamespace(machine=SimpleNamespace(**({"threads": None, "runs_per_gpu": 1} | machine)))


def check(machine=None, **options):
    said = []
    slurm.check(workflow(**options), machine or study(), report=said.append)
    return said


@pytest.mark.parametrize(
    "resources",
    [
        {},
        {"runtime": 1440},
        {"slurm_partition": "long", "runtime": 10**6},
        {"slurm_partition": "short", "runtime": 30},
        {"slurm_partition": "gpu,long"},
        {"slurm_partition": None},
        {"slurm_partition": "there", "slurm_cluster": "other"},
    ],
)
def test_check_passes_in_silence(commands, resources):
    assert check(**resources) == []


@pytest.mark.parametrize(
    "resources, message",
    [
        (
            {"slurm_partition": "gpus"},
            "slurm_partition: no partition 'gpus'; sinfo lists gpu, long, short: set one in the profile",
        ),
        ({"slurm_partition": "gpu,gpus"}, "no partition 'gpus'"),
        ({"runtime": 1441}, "runtime: 1441 minutes, but partition gpu allows 1440; set less in the profile"),
        ({"slurm_partition": "short"}, "60 minutes, but partition short allows 30"),
    ],
)
def test_check_of_partition_and_time(commands, resources, message):
    with pytest.raises(ValueError) as error:
        check(**resources)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_check_of_the_accounting(commands):
    commands(sacct=1)
    with pytest.raises(ValueError, match="sacct: .*not today.*`slurm-status-command: squeue`"):
        check()
    assert check(status_command="squeue") == []


def test_check_without_slurm(commands, tmp_path):
    commands(sinfo=1)
    with pytest.raises(ValueError, match="sinfo: not today; start where"):
        check()
    (tmp_path / "bin" / "sinfo").unlink()
    with pytest.raises(ValueError, match="sinfo: command not found"):
        check()
    assert check(executor="local") == check(executor="dryrun") == check(local=True) == []


def test_check_names_the_jobs_of_an_earlier_start(commands):
    run = "rule_train_wildcards_digits_joint_scl"
    commands(squeue=f"7|{run}_0|/scratch/me\n8|{run}_0|/scratch/other\n9|{run}_1|/scratch/me\n10|(null)|/scratch/me")
    [line] = check()
    assert "note: 1 of these runs" in line and "`scancel 7`" in line


def test_check_says_that_gpus_are_not_shared(commands):
    [line] = check(machine=study(runs_per_gpu=3))
    assert "runs_per_gpu has no effect" in line


@pytest.mark.parametrize(
    "machine, environment, expected",
    [
        ({}, {}, 8),
        ({"threads": 2}, {}, 2),
        ({"threads": 2, "runs_per_gpu": 4}, {}, 2),
        ({"runs_per_gpu": 4}, {}, 8),
        ({}, {"SLURM_CPUS_PER_TASK": "8"}, 8),
        ({}, {"SLURM_CPUS_PER_TASK": "3", "SLURM_CPUS_ON_NODE": "4"}, 3),
        ({"threads": 2}, {"SLURM_CPUS_PER_TASK": "8"}, 2),
        ({}, {"SLURM_CPUS_ON_NODE": "4"}, 4),
    ],
)
def test_a_job_asks_for_as_many_cpus_as_its_run_has_threads(monkeypatch, machine, environment, expected):
    """On submission and within the job: there regardless of the node's CPUs, but never more than the job was given."""
    for name in ("SLURM_CPUS_PER_TASK", "SLURM_CPUS_ON_NODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    submits = SimpleNamespace(nodes=100, remote_exec=False, is_main_process=True, global_resources={})
    within = SimpleNamespace(
        nodes=None, remote_exec=True, is_main_process=False, global_resources={"_cores": SimpleNamespace(value=64)}
    )
    if not environment:
        assert share_machine(submits, study(**machine)) == expected
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "1")  # as in an interactive job from which snakemake was started
    assert share_machine(submits, study(**machine)) == (machine.get("threads") or 8)
    monkeypatch.delenv("SLURM_CPUS_PER_TASK")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert share_machine(within, study(**machine)) == expected


def test_profile_for_every_site():
    """With all optional lines uncommented, it is still a valid mapping, and has the lines of the default profile."""
    text = (ROOT / "profiles" / "slurm" / "config.yaml").read_text()
    profile = yaml.safe_load(re.sub(r"(?m)^( *)# (?=[a-z_-]+: )", r"\1", text))
    assert {"slurm_account", "gpu_model", "qos", "constraint", "slurm_extra"} < set(profile["default-resources"])
    assert set(profile["set-resources"]["train"]) == {"slurm_partition"} and profile["slurm-status-command"] == "squeue"
    default = yaml.safe_load((ROOT / "profiles" / "default" / "config.yaml").read_text())
    retries = {"default": default.pop("retries"), "slurm": profile.pop("retries")}
    assert {key: profile[key] for key in default} == default
    # without a time limit on jobs, an error that a second attempt repeats should be reported at once
    assert retries == {"default": 1, "slurm": 3}
