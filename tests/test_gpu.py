"""Tests on a GPU: losses and gradients equal the CPU's within the dtype's error, and runs finish and resume.

Skipped without CUDA. Everything here is small; speed is measured by `scl bench`.
"""

import copy
import json
import signal
from pathlib import Path

import pytest
import torch

from benchmarks.bench.count import count_step
from benchmarks.bench.subject import Plan, Subject
from benchmarks.study import load_study
from scl.config import complete, load_run
from scl.engine.checkpoint import Stop
from scl.engine.train import Trainer, train
from scl.memory import InstanceMemory

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")]

PAPER = Path(__file__).parent.parent / "config" / "paper.yaml"
CHAINS = {
    "scl": ["scl"],
    "simclr": ["simclr"],
    "pica": ["pica"],
    "scan": ["simclr", "scan"],
    "selflabel": ["simclr", "scan", "selflabel"],
}


@pytest.fixture
def exact():
    """float32 products without TF32, to compare with the CPU."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


@pytest.fixture
def on_cpu(tiny_study, tmp_path):
    """A function that returns a CPU trainer of the stage, past its warm-up, with views and index of one step."""

    def make(stage, **changes):
        plan = Plan(stage=stage, size=8, batch_size=32, images=(200,), clusters=(10,), precision="fp32")
        trainer = Subject(tiny_study(*CHAINS[stage]), plan, tmp_path, "cpu").trainer(**changes)
        index = torch.arange(32)
        return trainer, trainer.draw(index), index

    return make


def losses_and_gradients(method, views, index, device, dtype=torch.float32):
    torch.manual_seed(0)  # determines SCL's initial prototypes
    method = copy.deepcopy(method).to(device)
    method.zero_grad()
    with torch.autocast(device, dtype, enabled=dtype != torch.float32):
        terms = method.step(tuple(v.to(device) for v in views), index.to(device))
    total = sum(t.float() for t in terms.values())
    if total.requires_grad:
        total.backward()
    gradients = {n: p.grad.cpu() for n, p in method.named_parameters() if p.grad is not None}
    return {n: t.detach().float().cpu() for n, t in terms.items()}, gradients


def without_kinks(method):
    """Replace every ReLU: for inputs near zero, rounding turns its gradient on or off, an error of several percent."""
    for module in list(method.modules()):
        for name, child in module.named_children():
            if isinstance(child, torch.nn.ReLU):
                setattr(module, name, torch.nn.Softplus())


@pytest.mark.parametrize("stage", CHAINS)
def test_losses_and_gradients_are_those_of_the_cpu(stage, on_cpu, exact):
    trainer, views, index = on_cpu(stage)
    without_kinks(trainer.method)
    expected, slopes = losses_and_gradients(trainer.method, views, index, "cpu")
    terms, gradients = losses_and_gradients(trainer.method, views, index, "cuda")
    torch.testing.assert_close(terms, expected, rtol=1e-3, atol=1e-4)
    assert gradients.keys() == slopes.keys()
    for name, slope in slopes.items():
        assert (gradients[name] - slope).norm() <= 0.02 * slope.norm() + 1e-5, name


@pytest.mark.parametrize("stage", CHAINS)
def test_bf16_is_near_fp32(stage, on_cpu):
    trainer, views, index = on_cpu(stage)
    expected, slopes = losses_and_gradients(trainer.method, views, index, "cpu")
    terms, gradients = losses_and_gradients(trainer.method, views, index, "cuda", torch.bfloat16)
    assert gradients.keys() == slopes.keys()
    assert all(g.isfinite().all() for g in gradients.values())
    for name, value in expected.items():
        if name != "self_label":  # a threshold selects images, so rounding may select others
            assert float(terms[name]) == pytest.approx(float(value), rel=0.1, abs=0.1), name


def test_memory_sums_by_a_one_hot_product_as_the_cpu_does_by_addition(exact):
    generator = torch.Generator().manual_seed(0)
    memory = InstanceMemory(3000, 16, 50, momentum=0.5, temperature=0.1)
    memory.rows.copy_(torch.nn.functional.normalize(torch.randn(3000, 16, generator=generator), dim=1))
    memory.pseudo_classes.copy_(torch.randint(50, (3000,), generator=generator))
    z, index = memory.rows[:64].clone(), torch.randperm(3000, generator=generator)[:64]
    results = []
    for device in ("cpu", "cuda"):
        leaf = z.detach().to(device).requires_grad_()
        p = memory.to(device).similarity(leaf, index.to(device))
        p.clamp_min(1e-12).log().mean().backward()
        results.append((p.detach().cpu(), leaf.grad.cpu()))
    torch.testing.assert_close(results[1], results[0], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("stage", CHAINS)
def test_a_run_finishes_on_the_gpu_in_bf16(stage, tiny_study):
    study = tiny_study(*CHAINS[stage], training={"batch_size": 64, "precision": "auto"})
    for run in study.runs():
        record = json.loads(train(run.directory, gpus=1, report=lambda *_: None).read_text())
    assert record["device"] == torch.cuda.get_device_name() and record["peak_memory_bytes"] > 0
    assert record["precision"] == ("bf16" if torch.cuda.get_device_capability() >= (8, 0) else "fp32")


def test_a_stopped_run_resumes_on_the_gpu_where_it_was(tiny_study):
    [run] = tiny_study("scl").runs()
    settings = complete(load_run(run.directory))

    def trainer():
        return Trainer(settings, run.directory, device="cuda", report=lambda *_: None)

    stopped, stop = trainer(), Stop()
    stop.status = 128 + signal.SIGTERM
    with pytest.raises(SystemExit):
        stopped.fit(stop, checkpoint_seconds=300)
    resumed = trainer()
    assert resumed.restore() and (resumed.epoch, resumed.step_in_epoch) == (0, 1)
    for (name, a), b in zip(stopped.method.state_dict().items(), resumed.method.state_dict().values()):
        assert not torch.is_tensor(a) or (b.is_cuda and torch.equal(a, b)), name
    assert train(run.directory, gpus=1, report=lambda *_: None).exists()


def test_a_profile_has_the_kernels_of_a_step(tiny_study, tmp_path):
    """Launches and kernels are found within the step: if torch renamed its events, these counts would be zero."""
    plan = Plan(stage="scl", size=8, batch_size=32, images=(200,), clusters=(10,))
    result = count_step(Subject(tiny_study("scl"), plan, tmp_path, "cuda"), "H200")
    assert result["count"]["launches"] > 0 and result["count"]["kernels"] > 0
    scopes = result["time"]["scopes"]
    assert all(scopes[name]["seconds"] > 0 for name in ("augmentation", "network", "memory", "backward", "optimizer"))
    assert sum(row["seconds"] for row in scopes.values()) <= result["time"]["seconds"]
    assert {name for name, row in scopes.items() if row["products"]} >= {"network", "backward"}


@pytest.mark.parametrize("stage", ["scl", "simclr", "pica", "scan"])
def test_a_step_waits_for_nothing_on_the_device(stage, tmp_path):
    """With the network and augmentations of the paper's study; self-labeling checks whether any image is confident."""
    plan = Plan(stage=stage, size=32, batch_size=32, images=(200,), clusters=(10,))
    trainer = Subject(load_study(PAPER), plan, tmp_path, "cuda").trainer()
    loop = trainer.steps_of_epoch()
    next(loop)
    torch.cuda.set_sync_debug_mode("error")
    try:
        next(loop)
    finally:
        torch.cuda.set_sync_debug_mode("default")
