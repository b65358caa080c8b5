"""No step may wait for the device: on torch's meta device, which has no numbers to give, waiting is an error.

So this stands in for a GPU where there is none; tests/test_gpu.py asks one.
"""

import contextlib
import copy

import pytest
import torch

from benchmarks.bench import Plan, Subject

CHAINS = {"scl": ["scl"], "simclr": ["simclr"], "pica": ["pica"], "scan": ["simclr", "scan"]}


@pytest.fixture(autouse=True)
def without_autocast(monkeypatch):
    """It is not there on the meta device."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda *_: False)


def step_on_meta(trainer):
    index = torch.arange(32)
    views = trainer.draw(index)
    method = copy.deepcopy(trainer.method)
    method.placed = True  # SCL's prototypes, once a run, are placed by k-means on the CPU
    method = method.to("meta")
    terms = method.step(tuple(view.to("meta") for view in views), index.to("meta"))
    sum(terms.values()).backward()
    method.after_step()
    return method


@pytest.mark.parametrize("stage", CHAINS)
def test_a_step_asks_the_device_for_no_number(stage, tiny_study, tmp_path):
    plan = Plan(stage=stage, size=8, batch_size=32, images=(200,), clusters=(10,), precision="fp32")
    subject = Subject(tiny_study(*CHAINS[stage]), plan, tmp_path, "cpu")
    method = step_on_meta(subject.trainer(images=200, clusters=10, batch_size=32))
    assert all(p.grad.device.type == "meta" for p in method.encoder.parameters())


def test_a_step_that_asks_is_found(tiny_study, tmp_path):
    plan = Plan(stage="simclr", size=8, batch_size=32, images=(200,), clusters=(10,), precision="fp32")
    trainer = Subject(tiny_study("simclr"), plan, tmp_path, "cpu").trainer(images=200, clusters=10, batch_size=32)
    quiet = type(trainer.method).step
    trainer.method.__class__ = type(
        "Asking",
        (type(trainer.method),),
        {"step": lambda self, views, index: quiet(self, views, index) if views[0].sum() > 0 else {}},
    )
    with pytest.raises(RuntimeError):
        step_on_meta(trainer)
