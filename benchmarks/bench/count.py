"""`scl bench --count`: the work of one step, the resulting bound on a device, and where its time and memory go."""

import contextlib
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile, record_function
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.bench import DEVICES
from benchmarks.bench.subject import Subject
from scl.engine import trainer as engine
from scl.engine.outputs import peak_memory
from scl.engine.provenance import provenance
from scl.memory import InstanceMemory

LAUNCH_SECONDS = 5e-6  # between two launches of eager torch; an assumption, to be confirmed on a GPU
PRODUCTS = re.compile(r"conv|^aten::(|add|b|badd)mm$")  # convolutions and matrix products
SCOPES = ("augmentation", "network", "memory", "losses", "backward", "optimizer", "seeding", "rest")
NAMED_BY_TORCH = {  # part of the name of an event: its scope
    "ClassSums": "memory",  # forward and backward
    "autograd::engine": "backward",
    "Optimizer.": "optimizer",
}


def count_step(subject: Subject, device: str) -> dict[str, Any]:
    """Count and profile one step of the training loop, and bound it on `device`, one of DEVICES."""
    plan, gpu = subject.plan, subject.device == "cuda"
    before = torch.cuda.memory_allocated() if gpu else _status("VmRSS")
    trainer = subject.trainer(compile=False)
    index = torch.arange(plan.batch_size, device=subject.device) % trainer.method.pool(trainer.epoch)

    def step() -> None:
        trainer.learn(trainer.draw(index), index)

    step()  # the optimizer creates its state
    memory = memory_of(trainer, step, before)
    events, seconds = _profile(trainer, step)
    counted = count_work(step, events, gpu=gpu)
    return {
        "method": plan.stage,
        "size": plan.size,
        "batch_size": plan.batch_size,
        "precision": trainer.precision,
        **subject.about,
        **provenance(device=subject.device),
        "count": counted,
        "time": {"seconds": seconds, **times(events, gpu=gpu)},
        "memory": memory,
        "bound_on": device,
        "bounds": {precision: bound(counted, precision, DEVICES[device]) for precision in ("bf16", "fp32")},
    }


# --- work ----------------------------------------------------------------------------------------------------------


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


def count_work(work: Callable[[], Any], events: list[Any], *, gpu: bool) -> dict[str, Any]:
    """Operators, bytes and FLOPs of `work`; on a GPU also its kernels and launches, from its events.

    bytes: assuming that nothing is cached or fused. kernels: without copies and annotations.
    """
    with FlopCounterMode(display=False) as flops, _Traffic() as traffic:
        work()
    on_gpu = [event for event in events if event.device_type == DeviceType.CUDA and not event.is_user_annotation]
    on_cpu = [event for event in events if event.device_type == DeviceType.CPU]
    return {
        "operators": traffic.operators,
        "kernels": sum(not e.name.startswith(("Memcpy", "Memset")) for e in on_gpu) if gpu else None,
        "launches": sum("LaunchKernel" in e.name for e in on_cpu) if gpu else None,
        "bytes": traffic.bytes,
        "flops": flops.get_total_flops(),
    }


def bound(counted: dict[str, Any], precision: str, peaks: dict[str, float]) -> dict[str, Any]:
    """Minimum seconds per step by arithmetic, memory and launches, and the limit: the largest of them."""
    launches = counted["operators"] if counted["launches"] is None else counted["launches"]
    seconds = {
        "arithmetic": counted["flops"] / peaks[precision] / 1e12,
        "memory": counted["bytes"] / peaks["memory"] / 1e12,
        "launches": launches * LAUNCH_SECONDS,
    }
    limit = max(seconds, key=seconds.__getitem__)
    return {"seconds": seconds, "limit": limit, "bound_seconds": seconds[limit]}


# --- time ----------------------------------------------------------------------------------------------------------


def _profile(trainer: engine.Trainer, step: Callable[[], Any]) -> tuple[list[Any], float]:
    """Events of torch.profiler, and the seconds that a step took until the device was done."""
    cuda = trainer.device == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
    with _named_scopes(trainer), profile(activities=activities) as profiler:
        start = time.perf_counter()
        step()
        if cuda:
            torch.cuda.synchronize()
        seconds = time.perf_counter() - start
    return list(profiler.events() or []), seconds


@contextlib.contextmanager
def _named_scopes(trainer: engine.Trainer) -> Iterator[None]:
    """Name the parts of a step for the profiler; autograd and the optimizer name theirs themselves."""
    method: Any = trainer.method
    parts: list[tuple[Any, str, str]] = [
        (trainer, "draw", "augmentation"),
        (method, "step", "losses"),  # everything besides network and memory
        (method, "after_step", "memory"),
        (trainer.seeds, "generator", "seeding"),
        (engine, "seed_default_generators", "seeding"),
    ]
    parts += [(part, "forward", "network") for part in method.children() if not isinstance(part, InstanceMemory)]
    if isinstance(getattr(method, "memory", None), InstanceMemory):
        parts += [(method.memory, name, "memory") for name in ("similarity", "others", "update")]
    with contextlib.ExitStack() as patches:
        for owner, name, scope in parts:
            patches.enter_context(patch.object(owner, name, record_function(scope)(getattr(owner, name))))
        yield


def _scope_of(event: Any) -> str:
    """The innermost scope of an event of the profiler."""
    while event is not None:
        if event.name in SCOPES:
            return event.name
        for part, scope in NAMED_BY_TORCH.items():
            if part in event.name:
                return scope
        event = event.cpu_parent
    return "rest"


def times(events: list[Any], *, gpu: bool) -> dict[str, Any]:
    """Seconds by scope, with the share of products, and the other operators that take longest.

    On a CPU, the time of operators and of Python between them; on a GPU, that of the kernels that an operator launches.
    """
    scopes = {scope: {"seconds": 0.0, "products": 0.0} for scope in SCOPES}
    others: Counter[str] = Counter()
    for event in events:
        if event.device_type != DeviceType.CPU:
            continue
        if gpu:  # a kernel of the event's own name is the annotation of a scope on the GPU's time line
            seconds = sum(kernel.duration for kernel in event.kernels if kernel.name != event.name) / 1e6
        else:
            seconds = event.self_cpu_time_total / 1e6
        row = scopes[_scope_of(event)]
        row["seconds"] += seconds
        if PRODUCTS.search(event.name):
            row["products"] += seconds
        else:
            others[event.name] += seconds
    return {"scopes": scopes, "others": dict(others.most_common(8))}


# --- memory --------------------------------------------------------------------------------------------------------


def reset_peak(device: str) -> None:
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    else:
        with contextlib.suppress(OSError):  # Linux only
            Path("/proc/self/clear_refs").write_text("5")


def peak(device: str) -> int:
    """Peak memory in bytes since the reset, of tensors on the GPU or of this process."""
    return (_status("VmHWM") if device != "cuda" else 0) or peak_memory(device)


def _status(key: str) -> int:
    """Bytes of a line of /proc/self/status; 0 where there is none."""
    with contextlib.suppress(OSError):
        lines = Path("/proc/self/status").read_text().splitlines()
        return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(key + ":")), 0)
    return 0


def memory_of(trainer: engine.Trainer, step: Callable[[], Any], before: int) -> dict[str, int]:
    """Peak memory of a step in bytes, by content. "peak" is measured; all other items sum to it.

    trainer: after its first step; step: performs another; before: bytes in use before the trainer was built.
    """
    method: Any = trainer.method
    assert trainer.optimizer is not None
    memory = [b for part in method.children() if isinstance(part, InstanceMemory) for b in part.buffers()]
    state = [value for values in trainer.optimizer.state.values() for value in values.values()]
    known = {
        "images": [trainer.images.pixels],
        "weights and buffers": [
            t for t in (*method.parameters(), *method.buffers()) if all(t is not m for m in memory)
        ],
        "gradients": [p.grad for p in method.parameters() if p.grad is not None],
        "optimizer": list(filter(torch.is_tensor, state)),
        "instance memory": memory,
    }
    items = {"libraries": before, **{name: sum(t.nbytes for t in tensors) for name, tensors in known.items()}}
    own = {t.untyped_storage().data_ptr() for tensors in known.values() for t in tensors}
    saved: dict[int, int] = {}  # bytes by storage

    def keep(tensor: Tensor) -> Tensor:
        saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        step()
    items["saved for backward"] = sum(size for pointer, size in saved.items() if pointer not in own)
    reset_peak(trainer.device)
    step()
    measured = peak(trainer.device)
    return {**items, "temporary": measured - sum(items.values()), "peak": measured}
