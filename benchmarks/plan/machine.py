"""This machine as a study uses it: devices, and how runs share them. Imports no torch."""

import subprocess
from dataclasses import dataclass

from benchmarks.study import Machine
from scl.engine import gpu_lease
from scl.engine.provenance import cores, processor


@dataclass(frozen=True)
class Place:
    """Devices and how runs share them.

    cpu, gpu: names as in records; gpu is "" if there is none. gpus: number of visible GPUs. slots: number of runs at
    once. threads: CPU threads of each run.
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


def this_place(machine: Machine) -> Place:
    """The devices that a study would use here, without a limit on the command line. Where torch is loaded, the name of
    the CPU is that of records: it includes the instruction set."""
    visible, here = gpu_lease.visible(), cores()
    runs = slots(machine, here, len(visible))
    gpu = _gpu_name(visible[0]) if visible else ""
    share = threads(machine, here, len(visible), runs)
    return Place(processor(), gpu, len(visible), here, runs, share, machine.runs_per_gpu)


def without_instructions(device: str) -> str:
    """The name of a device without the instruction set of a CPU."""
    return device.partition(", ")[0]


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
