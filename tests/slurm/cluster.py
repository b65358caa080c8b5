"""A private SLURM on this machine: four fake GPUs, eight fake CPUs, and its own configuration."""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

SYSTEM_CONF = Path("/etc/slurm/slurm.conf")  # the plugin unsets SLURM_CONF within jobs, so it must be here
NEEDED = ("munged", "slurmctld", "slurmd", "sbatch")
CONF = """
ClusterName={name}
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort=26817
SlurmdPort=26818
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
TaskProlog={folder}/prolog
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=2,bf_interval=2
MinJobAge=3600
GresTypes=gpu
SlurmdParameters=config_overrides
NodeName={host} NodeAddr=127.0.0.1 CPUs=8 RealMemory=8000 Gres=gpu:a100:4 Feature=nvme
PartitionName=gpu Nodes=ALL MaxTime=1:00:00
PartitionName=cpu Nodes=ALL MaxTime=30
"""
# Emulates confined devices of a real node: each job sees its own GPU as number 0.
PROLOG = """#!/bin/sh
test -n "$CUDA_VISIBLE_DEVICES" && test -e {folder}/confined && echo export CUDA_VISIBLE_DEVICES=0
exit 0
"""
# An accounting database for the plugin's queries: answers with squeue, and fails while there is a file `outage`.
SACCT = """#!/bin/sh
test -e {folder}/outage && {{ echo "$@" >> {folder}/refused; echo "sacct: error: Connection refused" >&2; exit 1; }}
while [ $# -gt 1 ] && [ "$1" != --name ]; do shift; done
test "$1" = --name || exit 0
exec squeue --states=all --noheader --format="%i|%T" --name "$2"
"""
SACCTMGR = """#!/bin/sh
echo NAME
"""


def missing() -> str:
    """Why this machine cannot run a private SLURM, in one line; "" if it can."""
    if os.geteuid() != 0:
        return "make test-slurm: needs root (it starts SLURM's daemons and makes device nodes)"
    absent = [name for name in NEEDED if not shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin:/sbin")]
    if absent:
        return (
            f"make test-slurm: {', '.join(absent)} not found; apt-get install --no-install-recommends slurm-wlm munge"
        )
    if SYSTEM_CONF.exists() or SYSTEM_CONF.is_symlink():
        return f"make test-slurm: {SYSTEM_CONF} is there already; a machine with a SLURM of its own is left alone"
    return ""


class Cluster:
    def __init__(self, folder: Path):
        self.folder, self.name = folder, f"scltest{os.getpid()}"
        self.pid_files = [folder / f"{name}.pid" for name in ("slurmd", "slurmctld", "munged")]

    def __enter__(self):
        folder, host = self.folder, socket.gethostname().partition(".")[0]
        for name in ("state", "spool", "bin"):
            (folder / name).mkdir(parents=True)
        for number in range(4):  # without device nodes, SLURM does not set CUDA_VISIBLE_DEVICES
            os.mknod(folder / f"nvidia{number}", 0o600 | 0o020000, os.makedev(195, number))
        (folder / "munge.key").write_bytes(os.urandom(1024))
        (folder / "munge.key").chmod(0o400)
        (folder / "slurm.conf").write_text(CONF.format(folder=folder, host=host, name=self.name))
        (folder / "gres.conf").write_text(f"Name=gpu Type=a100 File={folder}/nvidia[0-3]\n")
        for script, text in (("prolog", PROLOG), ("bin/sacct", SACCT), ("bin/sacctmgr", SACCTMGR)):
            (folder / script).write_text(text.format(folder=folder))
            (folder / script).chmod(0o755)
        os.environ["PATH"] += ":/usr/sbin:/sbin"
        SYSTEM_CONF.parent.mkdir(exist_ok=True)
        SYSTEM_CONF.symlink_to(folder / "slurm.conf")
        try:
            self._start(folder)
        except BaseException:
            self.__exit__()
            raise
        return self

    def _start(self, folder):
        munge = {
            "key-file": "munge.key",
            "socket": "munge.socket",
            "pid-file": "munged.pid",
            "log-file": "munged.log",
            "seed-file": "munge.seed",
        }
        call("munged", "--force", *(f"--{option}={folder / file}" for option, file in munge.items()))
        call("slurmctld", "-f", folder / "slurm.conf")
        call("slurmd", "-f", folder / "slurm.conf")
        wait_for(lambda: "idle" in call("sinfo", "--noheader", "--format=%T"), 60, "a node that is idle")

    def __exit__(self, *_):
        """End the jobs, then the daemons (which would wait for them), and kill what remains of both."""
        with contextlib.suppress(OSError, AssertionError):  # after a start that failed halfway
            call("scancel", "--full", "--signal=KILL", "--user=root")
            wait_for(lambda: not call("squeue", "--noheader"), 30, "the end of all jobs")
        daemons = [int(file.read_text()) for file in self.pid_files if file.exists()]
        self._signal(signal.SIGTERM, daemons)
        with contextlib.suppress(AssertionError):
            wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in daemons), 15, "the end of the daemons")
        self._signal(signal.SIGKILL, [pid for pid in daemons if Path(f"/proc/{pid}").exists()] + self._left())
        SYSTEM_CONF.unlink(missing_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _signal(self, number, pids):
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def _left(self) -> list[int]:
        """Processes with this cluster's name or configuration in their environment."""
        marks, found = {f"SLURM_CLUSTER_NAME={self.name}", f"SLURM_CONF={self.folder}/slurm.conf"}, []
        for path in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if marks & set((path / "environ").read_bytes().decode(errors="replace").split("\0")):
                    found.append(int(path.name))
        return found

    def jobs(self, workdir: Path, state="") -> dict[str, str]:
        """{job number: the run it trains, or the comment of another job} of a study, in the order of submission;
        `state`: only jobs currently in that state."""
        rows = call("squeue", "--states=all", "--noheader", "--format=%i|%T|%k|%Z").splitlines()
        rows = sorted((row.split("|") for row in rows), key=lambda row: int(row[0]))
        return {
            number: comment.removeprefix("rule_train_wildcards_tiny_joint_")
            for number, its_state, comment, where in rows
            if where == str(workdir) and its_state in (state or its_state)
        }

    def job(self, number: str) -> dict[str, str]:
        """The fields that scontrol shows of a job."""
        return dict(re.findall(r"([\w/]+)=(\S*)", call("scontrol", "--details", "show", "job", number)))


def call(*command) -> str:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def wait_for(condition, seconds: float, what: str):
    """Wait for the condition to be true and return its value; AssertionError after `seconds`."""
    limit = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < limit, f"waited {seconds} s for {what}"
        time.sleep(0.3)
    return value
