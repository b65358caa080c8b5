"""Where the time and the memory of a training step go: rows of `scl bench --count`."""

import contextlib
import functools
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch.autograd import DeviceType
from torch.profiler import record_function

from scl.engine import outputs, trainer

PRODUCTS = re.compile(r"conv|^aten::(|add|b|badd)mm$")  # convolutions and matrix products
SCOPES = ("augmentation", "network", "memory", "losses", "backward", "optimizer", "seeding", "rest")


@contextlib.contextmanager
def annotated(subject: Any) -> Iterator[None]:
    """Name the parts of a trainer's step for the profiler; autograd and the optimizer name theirs themselves."""
    method = subject.method
    parts: list[tuple[Any, str, str]] = [
        (subject, "draw", "augmentation"),
        (method, "step", "losses"),  # what is neither network nor memory
        (method, "after_step", "memory"),
        (subject.seeds, "generator", "seeding"),
        (trainer, "seed_default_generators", "seeding"),
    ]
    parts += [(module, "forward", "network") for name, module in method.named_children() if name != "memory"]
    if hasattr(method, "memory"):
        parts += [(method.memory, name, "memory") for name in ("similarity", "update")]
    with contextlib.ExitStack() as patches:
        for owner, name, scope in parts:
            patches.enter_context(patch.object(owner, name, _recorded(getattr(owner, name), scope)))
        yield


def _recorded(function: Callable[..., Any], scope: str) -> Callable[..., Any]:
    @functools.wraps(function)
    def recorded(*arguments: Any, **keywords: Any) -> Any:
        with record_function(scope):
            return function(*arguments, **keywords)

    return recorded


def scope_of(event: Any) -> str:
    """The innermost scope of an event of the profiler."""
    while event is not None:
        if event.name in SCOPES:
            return event.name
        if "ClassSums" in event.name:  # the memory's forward and backward
            return "memory"
        if event.name.startswith("autograd::engine"):
            return "backward"
        if event.name.startswith("Optimizer."):
            return "optimizer"
        event = event.cpu_parent
    return "rest"


def times(events: list[Any], *, gpu: bool) -> dict[str, Any]:
    """Seconds by scope, with the part of products, and the other operators that take longest.

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
        row = scopes[scope_of(event)]
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
    return (_status("VmHWM") if device != "cuda" else 0) or outputs.peak_memory(device)


def in_use(device: str) -> int:
    """Bytes in use now, of tensors on the GPU or of this process (0 if unknown)."""
    return torch.cuda.memory_allocated() if device == "cuda" else _status("VmRSS")


def _status(key: str) -> int:
    """Bytes of a line of /proc/self/status; 0 where there is none."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(key + ":"):
                return int(line.split()[1]) * 1024
    return 0


def bytes_of(subject: Any, learn: Callable[[], Any], before: int) -> dict[str, int]:
    """Peak memory of a step in bytes, by content. "peak" is measured; all other items sum to it.

    subject: a trainer after its first step; learn: does a step; before: bytes in use before the trainer was built.
    """
    method, state = subject.method, subject.optimizer.state.values()
    memory = list(method.memory.buffers()) if hasattr(method, "memory") else []
    known = {
        "images": [subject.images.pixels],
        "weights and buffers": [
            t for t in (*method.parameters(), *method.buffers()) if all(t is not m for m in memory)
        ],
        "gradients": [p.grad for p in method.parameters() if p.grad is not None],
        "optimizer": [value for values in state for value in values.values() if torch.is_tensor(value)],
        "instance memory": memory,
    }
    items = {"libraries": before, **{name: sum(t.nbytes for t in tensors) for name, tensors in known.items()}}
    own = {t.untyped_storage().data_ptr() for tensors in known.values() for t in tensors}
    saved: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        learn()
    items["saved for backward"] = sum(size for pointer, size in saved.items() if pointer not in own)
    reset_peak(subject.device)
    learn()
    measured = peak(subject.device)
    return {**items, "temporary": measured - sum(items.values()), "peak": measured}
