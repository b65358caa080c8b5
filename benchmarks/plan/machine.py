"""This machine as a study uses it: devices, and how runs share them. Imports no torch."""

import subprocess
from dataclasses import dataclass

from benchmarks.study import Machine
from scl.engine import gpu_lease
from scl.engine.provenance import cores, processor


@dataclass(frozen=True)
class Place:
    """Devices and how runs share them.

    cpu, gpu: names as in records, but without the CPU's instruction set, which only torch reports; gpu is "" if there
    is none. gpus: number of visible GPUs. slots: number of runs at once. threads: CPU threads of each run.
    """

    cpu: str
    gpu: str
    gpus: int
    cores: int
    slots: int
    threads: int
    runs_per_gpu: int

    @property
    def device(self) -> str:
        """The device that trains."""
        return self.gpu or self.cpu

    def is_same(self, device: str, *, trains: bool) -> bool:
        """Whether a recorded device is the one that a run uses here; a run that does not train uses the CPU."""
        if device.startswith("CPU: "):
            return not (self.gpu and trains) and (device == self.cpu or device.startswith(self.cpu + ", "))
        return device == self.gpu

    def is_like(self, device: str, *, trains: bool) -> bool:
        """Whether a recorded device is of the sort that a run uses here: a GPU or a CPU."""
        return device.startswith("CPU: ") != bool(self.gpu and trains)


def this_place(machine: Machine) -> Place:
    """The devices that a study would use here, without a limit on the command line."""
    visible, here = gpu_lease.visible(), cores()
    runs = slots(machine, here, len(visible))
    gpu = _gpu_name(visible[0]) if visible else ""
    cpu = processor().partition(", AVX")[0]  # torch adds its instruction set, where it is loaded
    return Place(cpu, gpu, len(visible), here, runs, threads(machine, here, len(visible), runs), machine.runs_per_gpu)


def slots(machine: Machine, cores: int, gpus: int) -> int:
    """Number of runs at once: as many as the GPUs take or, without GPUs, the cores."""
    return gpus * machine.runs_per_gpu or cores // (machine.threads or cores) or 1


def threads(machine: Machine, cores: int, gpus: int, slots: int) -> int:
    """CPU threads of each run; beside runs on GPUs, cores are left for k-means, so that no GPU waits for it."""
    if not gpus and machine.threads:
        return min(cores, machine.threads)
    return max(1, cores // (slots + bool(gpus)))


def _gpu_name(token: str) -> str:
    """The name as torch reports it, or the token if nvidia-smi does not know it."""
    query = ["nvidia-smi", f"--id={token}", "--query-gpu=name", "--format=csv,noheader"]
    try:
        return subprocess.run(query, capture_output=True, text=True, check=True, timeout=60).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return f"GPU {token}"
