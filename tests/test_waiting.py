"""No step may wait for the device: on torch's meta device, which has no numbers to give, waiting is an error.

So this stands in for a GPU where there is none; tests/test_gpu.py asks one.
"""

import contextlib
import copy
import dataclasses
import types
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks.bench.subject import Plan, Subject
from benchmarks.study import load_study
from scl.augment import randaugment
from scl.engine.optimization import optimizer_of

PAPER = Path(__file__).parent.parent / "config" / "paper.yaml"
RANDOM = ("rand", "randn", "randint")  # what takes a generator, and the meta device has none


class Copied(Exception):
    """A copy to the device that the CPU waits for, which the meta device does not mind."""


class NoCopies(TorchDispatchMode):
    """Raises Copied for what meta tensors allow but a GPU would wait for."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if func.overloadpacket in (torch.ops.aten._to_copy, torch.ops.aten.copy_):
            source = args[1] if func.overloadpacket is torch.ops.aten.copy_ else args[0]
            if result.is_meta and source.device.type == "cpu" and source.dim():
                raise Copied(func)
        if func.overloadpacket in (torch.ops.aten.index_put_, torch.ops.aten.index_put) and args[2].numel() > 1:
            if any(torch.is_tensor(index) and index.dtype == torch.bool for index in tree_leaves(args[1])):
                raise Copied(func)  # looks for the true ones
        return result


@pytest.fixture(autouse=True)
def meta(monkeypatch):
    """A context in which a step on the meta device must not wait."""
    # there is no autocast on the meta device
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda *_: False)
    for name in RANDOM:
        sample = getattr(torch, name)
        monkeypatch.setattr(torch, name, lambda *a, generator=None, sample=sample, **k: sample(*a, **k))
    make = torch.tensor

    def tensor(data, *arguments, device=None, **keywords):
        if device is not None and torch.device(device).type == "meta":
            raise Copied(data)
        return make(data, *arguments, device=device, **keywords)

    monkeypatch.setattr(torch, "tensor", tensor)
    # randaugment copies its table to a device once a process
    table, original = make([*randaugment.RANGES.values()], device="meta"), randaugment._ranges
    monkeypatch.setattr(randaugment, "_ranges", lambda device: table if device.type == "meta" else original(device))


def step_on_meta(trainer):
    """Draw, forward, backward, optimizer and memory, all on the meta device."""
    trainer.autocast = contextlib.nullcontext
    trainer.method = copy.deepcopy(trainer.method).to("meta")
    trainer.images = dataclasses.replace(trainer.images, pixels=trainer.images.pixels.to("meta"))
    trainer.optimizer = optimizer_of(trainer.method, trainer.run.training, trainer.device)
    trainer.seeds = lambda *_: 0
    trainer.seeds.generator = lambda *_, **__: types.SimpleNamespace(device=torch.device("meta"))
    index = torch.arange(32, device="meta")
    with NoCopies():
        trainer.learn(trainer.draw(index), index)
    return trainer


@pytest.fixture
def trainer_of(tmp_path):
    """A trainer of a stage of the paper's study, with all of its augmentations."""

    def make(stage):
        plan = Plan(stage=stage, size=32, batch_size=32, images=(64,), clusters=(10,), precision="fp32")
        subject = Subject(load_study(PAPER), plan, tmp_path, "cpu")
        return subject.trainer()

    return make


@pytest.mark.parametrize("stage", ["scl", "simclr", "pica", "scan"])
def test_a_step_asks_the_device_for_no_number(stage, trainer_of):
    method = step_on_meta(trainer_of(stage)).method
    assert all(p.grad.device.type == "meta" for p in method.encoder.parameters())


WAITS = {
    "item": lambda x: x.sum().item(),
    "bool": lambda x: bool(x.sum() > 0),
    "float": lambda x: float(x[0]),
    "tolist": lambda x: x.tolist(),
    "numpy": lambda x: x.numpy(),
    "cpu": lambda x: x.cpu(),
    "to": lambda x: x.to("cpu"),
    "nonzero": lambda x: x.nonzero(),
    "where": lambda x: torch.where(x > 0),
    "mask": lambda x: x[x > 0],
    "mask assigned": lambda x: x.__setitem__(x > 0, x),
    "unique": lambda x: x.unique(),
    "equal": lambda x: torch.equal(x, x),
    "one_hot": lambda x: torch.nn.functional.one_hot(x.long()),
    "repeat_interleave": lambda x: torch.repeat_interleave(x, x.long()),
    "from the CPU": lambda x: torch.ones(3).to(x.device),
    "copied from the CPU": lambda x: x.copy_(torch.ones(4)),
    "list": lambda x: torch.tensor([1.0, 2.0], device=x.device),
}


@pytest.mark.parametrize("wait", WAITS)
def test_whatever_waits_is_found(wait):
    with pytest.raises((RuntimeError, NotImplementedError, TypeError, Copied)), NoCopies():
        WAITS[wait](torch.zeros(4, device="meta"))


def test_a_step_that_asks_is_found(trainer_of):
    trainer = trainer_of("simclr")
    quiet = type(trainer.method).step
    trainer.method.__class__ = type(
        "Asking",
        (type(trainer.method),),
        {"step": lambda self, views, index: quiet(self, views, index) if views[0].sum() > 0 else {}},
    )
    with pytest.raises(RuntimeError, match="meta"):
        step_on_meta(trainer)
