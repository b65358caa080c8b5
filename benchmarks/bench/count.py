"""`scl bench --count`: the work of one step and the bound that follows for a device; where its time and memory go."""

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.bench import breakdown
from benchmarks.bench.plan import Plan
from benchmarks.bench.subject import subject_of
from benchmarks.study import Study
from scl.engine.provenance import provenance

LAUNCH_SECONDS = 5e-6  # between two launches of eager torch; an assumption, to be confirmed on a GPU

IMAGES = 50_000  # of CIFAR-10, for training


@dataclasses.dataclass(frozen=True)
class Device:
    """Peaks by the vendor's data sheet: dense TFLOP/s by precision, memory in TB/s."""

    bf16: float
    fp32: float
    bandwidth: float


DEVICES = {
    "A100": Device(bf16=312, fp32=19.5, bandwidth=2.04),  # SXM, 80 GB
    "H100": Device(bf16=989, fp32=67, bandwidth=3.35),  # SXM
    "H200": Device(bf16=989, fp32=67, bandwidth=4.8),
    "L4": Device(bf16=121, fp32=30.3, bandwidth=0.3),
}


def step_flops(trainer, views, index) -> int:
    """FLOPs of forward and backward, two per multiply-add: convolutions and matrix products."""
    with FlopCounterMode(display=False) as counter:
        trainer.learn(views, index)
    return counter.get_total_flops()


class _Traffic(TorchDispatchMode):
    """Counts operators that compute something, and the bytes that they read and write."""

    def __init__(self) -> None:
        super().__init__()
        self.operators = self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not func.is_view and "empty" not in func.__name__:
            self.operators += 1
            for tensor in tree_leaves((args, kwargs, result)):
                if torch.is_tensor(tensor):  # an expanded one is smaller than its shape
                    size = tensor.numel() * tensor.element_size()
                    self.bytes += min(size, tensor.untyped_storage().nbytes())
        return result


def profiled(work: Callable[[], Any], device: str) -> tuple[list[Any], float]:
    """Events of torch.profiler, and the seconds that `work` took until the device was done."""
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device == "cuda" else [])]
    with profile(activities=activities) as profiler:
        start = time.perf_counter()
        work()
        if device == "cuda":
            torch.cuda.synchronize()
        seconds = time.perf_counter() - start
    return list(profiler.events() or []), seconds


def count_work(work: Callable[[], Any], events: list[Any], device: str) -> dict[str, Any]:
    """Operators, bytes and FLOPs of `work`; on a GPU its kernels and launches, too, by its events.

    bytes: if nothing stays in a cache and nothing is fused.
    """
    with FlopCounterMode(display=False) as flops, _Traffic() as traffic:
        work()
    kernels, launches = kernels_and_launches(events) if device == "cuda" else (None, None)
    return {
        "operators": traffic.operators,
        "kernels": kernels,
        "launches": launches,
        "bytes": traffic.bytes,
        "flops": flops.get_total_flops(),
    }


def kernels_and_launches(events: list[Any]) -> tuple[int, int]:
    """Kernels that ran on the GPU, without copies and annotations, and the launches by the CPU."""
    on_gpu = [event for event in events if event.device_type == DeviceType.CUDA]
    kernels = [e for e in on_gpu if not e.name.startswith(("Memcpy", "Memset")) and not e.is_user_annotation]
    return len(kernels), sum("LaunchKernel" in event.name for event in events if event.device_type == DeviceType.CPU)


def bound(counted: dict[str, Any], precision: str, device: Device) -> dict[str, Any]:
    """Least seconds of a step by arithmetic, by memory and by launches, and the limit: the largest of them."""
    launches = counted["operators"] if counted["launches"] is None else counted["launches"]
    seconds = {
        "arithmetic": counted["flops"] / getattr(device, precision) / 1e12,
        "memory": counted["bytes"] / device.bandwidth / 1e12,
        "launches": launches * LAUNCH_SECONDS,
    }
    limit = max(seconds, key=seconds.__getitem__)
    return {"seconds": seconds, "limit": limit, "bound_seconds": seconds[limit]}


def count(study: Study, plan: Plan, name: str, *, gpus: int = 1, threads: int = 1, report=print) -> dict[str, Any]:
    """Count and profile one step of the training loop on as many images as CIFAR-10 has for training, and bound it on
    the device `name`. Raises ValueError."""
    plan = dataclasses.replace(plan, images=(IMAGES,))
    with subject_of(study, plan, gpus=gpus, threads=threads, report=report) as subject:
        before = breakdown.in_use(subject.device)
        trainer = subject.trainer(**subject.base, compile=False)
        index = torch.arange(plan.batch_size, device=subject.device) % trainer.method.pool(trainer.epoch)

        def step() -> None:
            trainer.learn(trainer.draw(index), index)

        step()  # the optimizer makes its state
        memory = breakdown.bytes_of(trainer, step, before)
        with breakdown.annotated(trainer):
            events, seconds = profiled(step, subject.device)
        counted = count_work(step, events, subject.device)
        bounds = {"bf16": bound(counted, "bf16", DEVICES[name]), "fp32": bound(counted, "fp32", DEVICES[name])}
        return {
            "method": plan.stage,
            "size": plan.size,
            "batch_size": plan.batch_size,
            "precision": trainer.precision,
            **provenance(device=subject.device),
            "count": counted,
            "time": {"seconds": seconds, **breakdown.times(events, gpu=subject.device == "cuda")},
            "memory": memory,
            "bound_on": name,
            "bounds": bounds,
        }
