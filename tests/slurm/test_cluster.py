"""Studies through profiles/slurm on a real SLURM with four fake GPUs: `make test-slurm`, about eight minutes.

Not part of `make test`: it needs root and SLURM's daemons. The results of interrupted studies are compared, bit for
bit, with those of `snakemake` for the same configuration without SLURM and without interruptions.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from cluster import Cluster, call, missing, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.workflow]

ROOT = Path(__file__).resolve().parents[2]
EPOCHS = 300  # one step each: two minutes without a file `go`, seconds once it exists
STUDY = {
    "results": "results",
    "data": "data",
    "seeds": 5,
    "protocols": ["joint"],
    "benchmarks": {"tiny": {"dataset": "digits", "subset": 60, "size": 8}},
    "network": {"width": 8, "layers": [1, 1, 1]},
    "machine": {"threads": 1},
    "training": {"batch_size": 32, "curve_points": 1, "precision": "fp32"},
    "methods": {
        "slow": {
            "method": "slow.Slow",
            "training": {"epochs": EPOCHS},
            "options": {"kmeans_restarts": 1},
            "augment": {"view": [{"noise": {"std": 0.05}}]},
        }
    },
}
RUNS = [f"slow_{seed}" for seed in range(5)]
DIVERGING = STUDY["methods"]["slow"] | {"method": "slow.Diverging"}
SITE = ["--default-resources", "slurm_partition=gpu", "runtime=30", "mem_mb=500"]
SQUEUE = ["--slurm-status-command", "squeue"]
QUICK = ["--slurm-init-seconds-before-status-checks", "2", "--max-status-checks-per-second", "1", "--latency-wait", "5"]


@pytest.fixture(scope="session")
def cluster(tmp_path_factory):
    if reason := missing():
        pytest.exit(reason, returncode=2)
    for number in (signal.SIGTERM, signal.SIGHUP):  # or the daemons would outlive the tests
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda number, _: pytest.exit("stopped by a signal", returncode=128 + number))
    with Cluster(tmp_path_factory.mktemp("cluster") / "slurm") as running:
        yield running


class Folder:
    """A working directory with a study in which snakemake runs."""

    def __init__(self, path: Path, cluster, study=STUDY, environment=()):
        self.path, self.cluster, self.environment = path, cluster, os.environ | dict(environment)
        path.mkdir()
        (path / "study.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
        shutil.copy(Path(__file__).with_name("slow.py"), path)
        self.started = []

    def start(self, *flags, site=SITE):
        """Start snakemake in its own process group, which Ctrl-C reaches even if the tests run in the background;
        its output goes to the file `said`."""
        command = [
            sys.executable,
            "-m",
            "snakemake",
            "--snakefile",
            ROOT / "Snakefile",
            "--workflow-profile",
            ROOT / "profiles" / "slurm",
            "--configfile",
            "study.yaml",
            *site,
            *QUICK,
            *flags,
        ]
        self.said = self.path / f"said{len(self.started)}"
        with open(self.said, "w") as file:
            self.started.append(
                subprocess.Popen(
                    command,
                    cwd=self.path,
                    env=self.environment,
                    stdout=file,
                    stderr=file,
                    start_new_session=True,
                    preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
                )
            )
        return self.started[-1]

    def end(self, *flags, seconds=240, **options):
        """(status, output) of a snakemake started with these flags; without flags, of the one started last."""
        if flags or options:
            self.start(*flags, **options)
        status = self.started[-1].wait(seconds)
        assert "Traceback" not in self.said.read_text(), self.said.read_text()
        return status, self.said.read_text()

    def kill(self):
        for process in self.started:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)

    def run(self, name):
        """The folder of the run `name`, such as slow_0."""
        return self.path / "results" / "runs" / "tiny" / "joint" / name.replace("_", "/seed")

    def log(self, name):
        path = self.path / "results" / "logs" / "tiny" / "joint" / f"{name.replace('_', '/seed')}.log"
        return path.read_text() if path.exists() else ""

    def read(self, name, file="record.json"):
        return json.loads((self.run(name) / file).read_text())

    def training(self, *runs, words="epoch "):
        """Wait until the current attempt at each of these runs has logged an epoch, or the given words."""

        def all_there():
            assert self.started[-1].poll() is None, self.said.read_text()
            return all(words in self.log(run) for run in runs)

        wait_for(all_there, 200, f"{words!r} in the logs of {runs} in {self.path}")

    def full(self):
        """Wait until four runs are training and one is in the queue; returns the five, in that order."""
        running = wait_for(lambda: len(jobs := self.cluster.jobs(self.path, "RUNNING")) == 4 and jobs, 60, "four jobs")
        self.training(*running.values())
        return [*running.values(), *self.cluster.jobs(self.path, "PENDING").values()]

    def job_of(self, name):
        return next(number for number, what in self.cluster.jobs(self.path, "RUNNING").items() if what == name)

    def attempts(self, name):
        """The epochs at which the attempts at a run started."""
        return [attempt["epoch"] for attempt in self.read(name)["attempts"]]

    def profile(self):
        """The flags for the slurm profile with SITE and all commented keys enabled, except the one for squeue."""
        text = (ROOT / "profiles" / "slurm" / "config.yaml").read_text()
        text = re.sub(r"(?m)^( *)# (?!slurm-status-command)(?=[a-z_-]+: )", r"\1", text)
        for key, value in (pair.split("=") for pair in SITE[1:]):
            text = re.sub(rf"(?m)^  {key}: \w+", f"  {key}: {value}", text)
        (self.path / "site").mkdir()
        (self.path / "site" / "config.yaml").write_text(text)
        return "--workflow-profile", "site"

    def go(self):
        (self.path / "go").touch()


def outcome(run):
    """The results of a run, without times."""
    with np.load(run / "assignments.npz") as file:
        found = {name: file[name].tobytes() for name in file.files}
    weights = torch.load(run / "weights.pt", weights_only=True)
    return (
        found
        | {name: value.numpy().tobytes() for name, value in weights.items()}
        | {"scores": json.loads((run / "metrics.json").read_text())["scores"]}
    )


@pytest.fixture
def folder(tmp_path, cluster):
    """folder(name, ...) makes a Folder; its snakemake and its jobs are always ended afterward."""
    made = []

    def make(name, study=STUDY, **options):
        made.append(Folder(tmp_path / name, cluster, study, **options))
        return made[-1]

    yield make
    for one in made:
        one.kill()
        if left := [*cluster.jobs(one.path, "PENDING RUNNING COMPLETING")]:
            call("scancel", "--full", "--signal=KILL", *left)


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory, cluster):
    """{run: outcome}, from a study that starts right away and is awaited when needed."""
    folder = Folder(tmp_path_factory.mktemp("reference") / "undisturbed", cluster)
    folder.go()
    command = [
        sys.executable,
        "-m",
        "snakemake",
        "--snakefile",
        ROOT / "Snakefile",
        "--cores",
        "1",
        "--workflow-profile",
        ROOT / "profiles" / "default",
        "--configfile",
        "study.yaml",
    ]
    with open(folder.path / "said", "w") as file:
        process = subprocess.Popen(
            command, cwd=folder.path, stdout=file, stderr=file, env=folder.environment | {"CUDA_VISIBLE_DEVICES": ""}
        )

    def outcomes():
        assert process.wait(240) == 0, (folder.path / "said").read_text()
        return {run: outcome(folder.run(run)) for run in RUNS}

    yield outcomes
    process.kill()


def assert_finished(folder, undisturbed, runs=RUNS):
    for run in runs:
        assert outcome(folder.run(run)) == undisturbed()[run], f"{run} in {folder.path}"
        assert not (folder.run(run) / "failure.json").exists()
    assert f"Runs: {len(runs)} of {len(runs)} done." in (folder.path / "results" / "tables.md").read_text()


def test_a_wrong_partition_or_no_accounting_is_one_line_at_the_start(folder):
    here = folder("wrong")
    status, said = here.end(*SQUEUE, site=["--default-resources", "slurm_partition=gpus"])
    assert status == 2 and said.splitlines()[-1] == (
        "snakemake: error: slurm_partition: no partition 'gpus'; sinfo lists cpu, gpu: set one in the profile"
    )
    status, said = here.end(*SQUEUE, site=["--default-resources", "slurm_partition=cpu", "runtime=31"])
    assert status == 2 and "runtime: 31 minutes, but partition cpu allows 30" in said.splitlines()[-1]
    status, said = here.end(site=SITE)
    assert status == 2 and "set `slurm-status-command: squeue` in the profile" in said.splitlines()[-1]
    assert here.cluster.jobs(here.path) == {} and not list(here.path.glob(".snakemake/locks/*"))


def test_gpus_differ_cpus_are_threads_and_a_restarted_database_is_waited_for(folder, cluster, undisturbed):
    """With all suggestions of the profile, and with confined devices: every job sees its GPU as 0, and no lease waits
    for that of another."""
    slow = STUDY["methods"]["slow"] | {"training": {"epochs": EPOCHS // 4}}
    here = folder(
        "healthy",
        environment={"PATH": f"{cluster.folder}/bin:{os.environ['PATH']}"},
        study=STUDY
        | {
            "seeds": 2,
            "machine": {"threads": 2},
            "methods": {"random": {"method": "baselines.controls.Random"}, "slow": slow, "also": slow},
        },
    )
    (cluster.folder / "confined").touch()
    here.start(*here.profile(), site=[])
    wait_for(lambda: cluster.jobs(here.path), 60, "the first job")
    (cluster.folder / "outage").touch()
    refused = cluster.folder / "refused"  # by default the plugin forgets its jobs after five such failures
    wait_for(lambda: refused.exists() and len(refused.read_text().splitlines()) > 6, 60, "seven questions about jobs")
    (cluster.folder / "outage").unlink()
    on_gpus = ["slow_0", "slow_1", "also_0", "also_1"]
    here.training(*on_gpus)
    jobs = {what: cluster.job(number) for number, what in cluster.jobs(here.path).items()}
    four = [jobs[run] for run in on_gpus]
    assert [job["JobState"] for job in four] == ["RUNNING"] * 4
    assert sorted(job["GRES"] for job in four) == [f"gpu:a100:1(IDX:{index})" for index in range(4)]
    here.go()
    assert here.end()[0] == 0
    (cluster.folder / "confined").unlink()
    clustered = [f"rule_kmeans_wildcards_tiny_joint_{run}" for run in on_gpus]
    numbers = cluster.jobs(here.path)
    assert sorted(numbers.values()) == sorted([*jobs, *clustered])  # everything else runs locally
    for number, what in numbers.items():
        job, count = cluster.job(number), int(what in on_gpus)
        assert job["Partition"] == ("gpu" if count else "cpu") and job["TresPerJob"] == f"gres:gpu:a100:{count}", job
        assert (job["Features"], job["Account"], job["Nice"]) == ("nvme", "name", "100"), job
    for run, job in jobs.items():
        on_gpu = run in on_gpus
        assert job["CPUs/Task"] == str(here.read(run)["threads"]) == "2", job
        assert "waiting" not in here.log(run) and ("GPU 0 is there" in here.log(run)) == on_gpu


def test_scancel_requeue_and_time_limit_save_and_go_on_but_a_failure_of_its_own_is_final(folder, cluster, undisturbed):
    here = folder("interrupted", STUDY | {"seeds": 3})
    here.start(*SQUEUE, "--set-resources", "train:runtime=1 if wildcards.seed == '2' else 30")
    here.training(*RUNS[:3])
    there = folder("diverging", STUDY | {"seeds": 1, "methods": {"diverging": DIVERGING}})  # on the fourth GPU
    there.start(*SQUEUE, "--retries", "1")
    requeued, limited = here.job_of("slow_1"), here.job_of("slow_2")
    call("scancel", here.job_of("slow_0"))
    call("scontrol", "requeue", requeued)
    here.training(*RUNS[:3], words="resumed at")
    assert cluster.job(limited)["JobState"] == "TIMEOUT" and cluster.job(requeued)["Restarts"] == "1"
    here.go()
    assert here.end()[0] == 0
    assert_finished(here, undisturbed, RUNS[:3])
    assert all(len(at) == 2 and at[0] == 0 < at[1] for at in map(here.attempts, RUNS[:3]))

    assert there.end()[0] == 1 and list(cluster.jobs(there.path).values()) == ["diverging_0"] * 2
    assert "not tried again" in there.log("diverging_0") and there.read("diverging_0", "failure.json")["epoch"] == 1
    assert len(list(there.path.glob(".snakemake/slurm_logs/rule_train/*/*.log"))) == 2  # logs of failed jobs are kept


def test_ctrl_c_then_scancel_without_retries_then_the_same_command(folder, cluster, undisturbed):
    here = folder("stopped")
    process = here.start(*SQUEUE)
    *running, _ = here.full()
    os.killpg(process.pid, signal.SIGINT)
    wait_for(lambda: not cluster.jobs(here.path, "PENDING RUNNING COMPLETING"), 180, "an empty queue")
    assert all("saved: the same command resumes" in here.log(run) for run in running)
    assert here.end()[0] != 0
    shutil.rmtree(here.path / "results" / "logs")  # otherwise, an epoch there could be from the first start
    here.start(*SQUEUE, "--retries", "0")
    victim = here.full()[0]
    call("scancel", here.job_of(victim))
    here.go()
    assert here.end()[0] == 1 and not (here.path / "results" / "tables.md").exists()
    assert here.end(*SQUEUE)[0] == 0
    assert_finished(here, undisturbed)
    assert len(set(here.attempts(victim))) == len(here.attempts(victim)) == 3  # each began where the last one stopped


def test_a_killed_snakemake_and_its_jobs_train_nothing_twice(folder, cluster, undisturbed):
    here = folder("killed")
    process = here.start(*SQUEUE)
    here.full()
    process.kill()
    process.wait()
    before = cluster.jobs(here.path)
    status, said = here.end(*SQUEUE)
    assert status == 1 and "--unlock" in said
    assert here.end(*SQUEUE, "--unlock")[0] == 0
    here.start(*SQUEUE)
    wait_for(lambda: len(cluster.jobs(here.path)) == 10, 60, "the jobs of the second start")
    here.go()
    status, said = here.end()
    assert status == 0 and "note: 5 of these runs" in said and f"scancel {' '.join(before)}" in said
    assert_finished(here, undisturbed)
    for run in RUNS:  # the second job found all epochs done
        assert here.attempts(run)[0] == 0 and set(here.attempts(run)[1:]) <= {EPOCHS}
