"""Snakemake and `scl` in separate processes without the startup time: forked from one that has imported everything.

Starting Snakemake takes two seconds, starting a job one to two, nearly all of it for imports; the tests do so hundreds
of times. A forked process leads its own process group, which its jobs belong to; signals reach them in the same way,
and they end with the same status. Unlike a started process, it skips fsync (which only matters in a power failure),
Snakemake does not wait up to a second before it exits, and estimates time no steps (warm.py).

    pytest -> server of multiprocessing -> Snakemake -> bash -> job_client.py, which waits for the job
                                                    \\-> job server -> job
"""

import atexit
import contextlib
import json
import multiprocessing
import multiprocessing.connection
import multiprocessing.forkserver
import os
import select
import shlex
import signal
import socket
import sys
import tempfile
import threading
import time
from pathlib import Path
from unittest import mock

ROOT = Path(__file__).resolve().parent.parent
CLIENT = Path(__file__).with_name("job_client.py")
CPU_ONLY = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
FORK = multiprocessing.get_context("forkserver")
FORK.set_forkserver_preload(
    [
        "pytest",
        "scl.engine.train",
        "scl.scl",
        "baselines.scan",
        "baselines.simclr",
        "baselines.pica",
        "baselines.controls",
        "benchmarks.check",
        "benchmarks.single",
        "benchmarks.status",
        "benchmarks.workflow",
        "benchmarks.slurm",
        "benchmarks.report.render",
        "matplotlib.backends.backend_svg",
        "matplotlib.backends.backend_agg",
        "sklearn.cluster",
        "sklearn.datasets",
        "scl.util.shim",
        "timm",
        "snakemake.cli",
        "snakemake.executors.local",
        "warm",
    ]
)
if "warm" not in sys.modules:  # not in processes forked from the server
    at_start = {
        "PYTHONPATH": str(CLIENT.parent),  # to find `warm`: the server silently skips missing modules
        "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",  # a fork copies the page tables, which are small with huge
        "PYTHONMALLOC": "malloc",  # pages, where the machine has them
        "OMP_NUM_THREADS": "1",  # a process with threads must not be forked
    }
    with mock.patch.dict(os.environ, at_start):
        multiprocessing.forkserver.ensure_running()
POLLING = threading.Lock()  # start() polls all processes: the status of one that two threads poll is lost (255)


class Process:
    """A command of Snakemake or `scl`, as `subprocess.Popen` would have started it: leader of its own process group."""

    def __init__(self, command, arguments, folder, *, merged=False):
        """command: 'snakemake' or 'scl'. merged: standard error goes to standard output."""
        self._own = tempfile.TemporaryDirectory(prefix=f"{command}-")
        self.logs = [Path(self._own.name, name) for name in (("out", "out") if merged else ("out", "err"))]
        self._process = FORK.Process(target=_run, args=(command, list(map(str, arguments)), str(folder), *self.logs))
        with POLLING:
            self._process.start()
        self.pid = self._process.pid
        while not self.logs[1].exists() and self.poll() is None:  # until it leads its process group, as after Popen
            time.sleep(0.001)

    @property
    def returncode(self):
        with POLLING:
            return self._process.exitcode

    def poll(self):
        return self.returncode

    def wait(self, timeout=600):
        multiprocessing.connection.wait([self._process.sentinel], timeout)
        assert self.returncode is not None, f"still running after {timeout} s"
        return self.returncode

    def send_signal(self, number):
        os.kill(self.pid, number)

    def kill(self):
        self._process.kill()

    def communicate(self, timeout=600):
        """Wait for the end; return (standard output, standard error or "")."""
        self.wait(timeout)
        output, error = self.logs
        return output.read_text(), error.read_text() if error != output else ""


def _run(command, arguments, folder, out, err):
    """The process itself."""
    os.setsid()
    for target, file in ((1, out), (2, err)):
        os.dup2(os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT), target)
    if command == "scl":
        _become_job(arguments, folder, os.environ | CPU_ONLY)
    _become(folder, os.environ | CPU_ONLY)
    sys.executable = _start_job_server(out.parent)
    sys.argv = [str(Path(sys.prefix) / "bin" / "snakemake"), *arguments]
    from snakemake.cli import main

    try:
        sys.exit(main(arguments))
    finally:
        for thread in threading.enumerate():
            if isinstance(thread, threading.Timer):  # of Snakemake's rate limit for jobs: exit would wait for it
                thread.cancel()


def _become(folder, environment):
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)


def _become_job(arguments, folder, environment):
    """Run an `scl` command as `python -m benchmarks.cli` does, and exit with its status."""
    _become(folder, environment)
    Path("/proc/self/comm").write_text(f"scl {arguments[0]}"[:15])
    sys.argv = [str(ROOT / "benchmarks" / "cli.py"), *arguments]
    sys.path.insert(0, folder)
    from benchmarks.cli import main

    sys.exit(main(arguments))


def _start_job_server(folder):
    """Fork the job server; return the path of the script that replaces Python for the jobs."""
    address, python = folder / "jobs", folder / "python"
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(str(address))
    listener.listen(64)
    ended, alive = os.pipe()  # only Snakemake holds `alive`: programs that it starts do not inherit it
    if os.fork() == 0:
        os.close(alive)
        _serve_jobs(listener, ended)
    os.close(ended)
    words = [getattr(sys, "_base_executable", sys.executable), "-I", "-S", str(CLIENT), str(address)]
    python.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
    python.chmod(0o755)
    return str(python)


def _serve_jobs(listener, ended):
    """Fork every job that a client requests and report its exit status; jobs outlive Snakemake, as usual."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    waiting, jobs = [listener, ended], {}
    while waiting or jobs:
        for ready in select.select([*waiting, *jobs], [], [])[0]:
            if ready == ended:
                waiting = []
            elif ready == listener:
                client = listener.accept()[0]
                job = _fork_job(client, [listener.fileno(), ended, *jobs])
                jobs[os.pidfd_open(job)] = job, client
            else:
                job, client = jobs.pop(ready)
                os.close(ready)
                status = os.waitstatus_to_exitcode(os.waitpid(job, 0)[1])
                with contextlib.suppress(OSError), client:  # the client was killed
                    client.send(str(status).encode())
    os._exit(0)


def _fork_job(client, of_server):
    """Fork the requested job; return its process ID."""
    message, files, _, _ = socket.recv_fds(client, 2**20, 3)
    job = os.fork()
    if job == 0:
        for target, file in enumerate(files):
            os.dup2(file, target)
        for descriptor in (client.fileno(), *files, *of_server):
            os.close(descriptor)
        asked = json.loads(message)
        _exit_with(lambda: _become_job(asked["arguments"], asked["folder"], asked["environment"]))
    for file in files:
        os.close(file)
    return job


def _exit_with(function):
    """Run `function` and exit as Python does after a program, without the pending work of the parent processes."""
    status = 1
    try:
        function()
    except SystemExit as stopped:
        status = stopped.code or 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        atexit._run_exitfuncs()
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)
