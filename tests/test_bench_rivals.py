"""`scl bench`: the rivals that our pipeline is compared with."""

import dataclasses
import sys
import types

import numpy as np
import pytest
import torch
from conftest import ONE_SIZE
from PIL import Image
from torch import nn

from benchmarks.bench import command, measure, rivals, table
from scl.augment import OPERATIONS


def test_rivals_are_timed_in_whole_turns_of_their_processes(subject, monkeypatch):
    measurement, turns = measure.Measurement(subject("simclr", **ONE_SIZE)), []
    monkeypatch.setattr(measure, "seconds_per_step", lambda work, least, device, turn=1: turns.append(turn))
    for name, workers in (("step", 0), ("tuned", 0), ("standard", 2)):
        measurement.rivals["standard"].workers = workers
        measurement.time(name)
    assert turns == [1, 1, 2]


def test_numbers_of_loader_processes_that_are_tried():
    assert command.worker_counts(16, quick=False) == (0, 1, 2, 4, 8, 16)
    assert command.worker_counts(6, quick=False) == (0, 1, 2, 4, 6)
    assert command.worker_counts(1, quick=False) == (0, 1)
    assert command.worker_counts(6, quick=True) == (6,)


def test_rivals_get_the_best_number_of_loader_processes(subject, monkeypatch):
    measurement = measure.Measurement(subject("simclr", workers=(0, 2, 4), **ONE_SIZE))
    seconds = {0: [4.0, 4.0], 2: [1.0, 5.0], 4: [3.0, 2.0]}  # with disturbances
    monkeypatch.setattr(measurement, "time", lambda name: seconds[measurement.rivals[name].workers].pop())
    assert measurement.choose_workers() == {0: 2, 2: 8, 4: 4}
    assert {name: rival.workers for name, rival in measurement.rivals.items()} == {"standard": 2, "tuned": 2}


def test_no_end_of_an_epoch_is_timed(subject):
    """The loader continues with the images in another order, where it would otherwise be drained and refilled."""
    rival = rivals.StandardPipeline(subject("simclr").trainer(), ["view"] * 2, tuned=True)
    batches = iter(rival.loader())
    epochs = [torch.cat([next(batches)[0] for _ in range(5)]).tolist() for _ in range(3)]  # 40 images in batches of 8
    assert [sorted(epoch) for epoch in epochs] == [list(range(40))] * 3 and epochs[0] != epochs[1] != epochs[2]


def test_a_number_of_loader_processes_that_fails_is_left_out(subject, monkeypatch, capsys):
    """Shared memory may be too small, as in a container: that must not make the whole measurement fail."""
    measurement = measure.Measurement(subject("simclr", workers=(0, 2, 4), **ONE_SIZE))

    def time(name):
        if workers := measurement.rivals[name].workers:
            raise RuntimeError(f"DataLoader worker (pid {workers}) is killed by signal: Bus error.\nShared memory")
        return 1.0

    monkeypatch.setattr(measurement, "time", time)
    assert measurement.choose_workers() == {0: 8}
    assert {name: rival.workers for name, rival in measurement.rivals.items()} == {"standard": 0, "tuned": 0}
    assert capsys.readouterr().out.count("left out: DataLoader worker (pid 4) is killed by signal: Bus error.\n") == 1
    measurement.plan = dataclasses.replace(measurement.plan, workers=(2,))
    with pytest.raises(RuntimeError, match="Bus error"):
        measurement.choose_workers()


def test_the_tuned_pipeline_has_every_advantage(subject):
    maker = subject("simclr", precision="bf16")
    tuned = rivals.StandardPipeline(maker.trainer(), ["view"] * 2, tuned=True, workers=2)
    plain = rivals.StandardPipeline(maker.trainer(precision="fp32"), ["view"] * 2, tuned=False, workers=2)
    assert (tuned.trainer.precision, plain.trainer.precision) == ("bf16", "fp32")
    for rival, memory_format in ((tuned, torch.channels_last), (plain, torch.contiguous_format)):
        weights = [p for p in rival.trainer.method.parameters() if p.dim() == 4 and p.shape[2] > 1]
        assert all(p.is_contiguous(memory_format=memory_format) for p in weights)
        seen, learn = [], rival.trainer.learn
        rival.trainer.learn = lambda views, index, seen=seen, learn=learn: seen.extend(views) or learn(views, index)
        stem = next(module for module in rival.trainer.method.modules() if isinstance(module, nn.Conv2d))
        stem.register_forward_pre_hook(lambda module, images, seen=seen: seen.extend(images))
        rival.train(torch.arange(8), torch.rand(8, 3, 8, 8), torch.rand(8, 3, 8, 8))
        assert len(seen) > 2 and all(images.is_contiguous(memory_format=memory_format) for images in seen)


@pytest.mark.parametrize("workers, loaded", [(0, 3), (2, 6)])
def test_a_session_begins_with_three_batches_per_loader_process(subject, monkeypatch, workers, loaded):
    trainer = subject("simclr").trainer()
    rival = rivals.StandardPipeline(trainer, ["view"] * 2, tuned=True, workers=workers)
    batches, trained, make = [], [], rival._batches
    monkeypatch.setattr(rival, "_batches", lambda: (batches.append((*batch,)) or batch for batch in make()))
    monkeypatch.setattr(rival, "train", lambda *batch: trained.append(batch))
    with rival.session() as step:
        assert len(batches) == loaded and [batch[0] is trained[0][0] for batch in batches] == [False] * (loaded - 1) + [
            True
        ]
        step()
    assert len(batches) == loaded + 1 and trained[1][0] is batches[-1][0] and len(trained) == 2


def test_peers_that_are_not_installed_or_do_not_apply_are_rows(measured, monkeypatch):
    monkeypatch.setattr(rivals, "version_of", {"torchvision": "1", "kornia": "1"}.get)
    monkeypatch.setitem(sys.modules, "kornia", None)
    result = measured("simclr", rounds=2, **ONE_SIZE)
    rows = result["peers"]
    assert rows["lightly"] == rows["lightly_tuned"] == {"problem": "not installed"}
    assert rows["kornia"]["problem"].startswith("cannot be imported: ")
    row, ours = rows["torchvision_v2"], result["parts"]["augment"]
    assert row["ours"] == "augment" and row["share_of_peak"] is None
    assert row["gain"]["all"] == pytest.approx([a / b for a, b in zip(row["all"], ours["all"])])
    assert table.measured(result).count("not installed") == 2


def test_work_of_the_cpu_is_not_compared_on_a_gpu(subject, monkeypatch):
    monkeypatch.setattr(rivals, "version_of", {"torchvision": "1"}.get)
    trainer = subject("simclr").trainer()
    trainer.device = "cuda"
    assert rivals.peer_works(trainer, ["view"], ())["torchvision_v2"] == "only compared on a CPU"


def test_every_operation_has_its_counterparts():
    assert rivals.TORCHVISION.keys() == rivals.KORNIA.keys() == OPERATIONS.keys()


def fake_lightly(monkeypatch):
    """Only the parts that the comparison uses."""
    loss, modules = types.ModuleType("lightly.loss"), types.ModuleType("lightly.models.modules")
    loss.NTXentLoss = lambda temperature: lambda a, b: (a * b).sum() / temperature
    modules.SimCLRProjectionHead = lambda i, h, o, batch_norm: nn.Sequential(nn.Linear(i, h), nn.Linear(h, o))
    packages = [types.ModuleType(name) for name in ("lightly", "lightly.models")]
    for module in (*packages, loss, modules):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(rivals, "version_of", {"lightly": "1"}.get)


def test_lightly_trains_a_copy_of_our_network_with_our_settings(subject, monkeypatch):
    fake_lightly(monkeypatch)
    optimizers, make = [], torch.optim.SGD
    monkeypatch.setattr(torch.optim, "SGD", lambda *a, **k: optimizers.append(make(*a, **k)) or optimizers[-1])
    trainer = subject("simclr").trainer()
    optimizers.clear()
    index = torch.arange(8)
    works = rivals.peer_works(trainer, ["view", "view"], trainer.draw(index))
    before = [p.detach().clone() for p in trainer.method.parameters()]
    for name, optimizer in zip(("lightly", "lightly_tuned"), optimizers, strict=True):
        theirs = [p.detach().clone() for p in optimizer.param_groups[0]["params"]]
        works[name]()
        assert any(not torch.equal(a, b) for a, b in zip(theirs, optimizer.param_groups[0]["params"]))
        assert optimizer.defaults == trainer.optimizer.defaults  # fused on a GPU, as ours
    assert all(torch.equal(a, b) for a, b in zip(before, trainer.method.parameters()))
    pica = subject("pica").trainer()
    assert rivals.peer_works(pica, ["original"], pica.draw(index))["lightly"] == "only compared with SimCLR"


@pytest.mark.parametrize(
    "spec",
    [
        [
            {"random_resized_crop": {"scale": [0.2, 1.0]}},
            {"flip": {}},
            {"grayscale": {"probability": 0.2}},
            {"color_jitter": {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1, "probability": 0.8}},
        ],
        [{"random_crop": {"padding": 2}}, {"scan_strong": {"operations": 4}}, {"cutout": {"largest": 8}}],
        [
            {"affine": {"degrees": 10, "translate": 0.1, "scale": [0.9, 1.1], "shear": 5}},
            {"blur": {}},
            {"noise": {"std": 0.1}},
        ],
    ],
)
def test_the_torchvision_counterpart_of_every_operation(spec):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8))
    chain = rivals.transform(spec, 16)
    assert len(chain.transforms) == len(spec) + 1
    first, second = chain(image), chain(image)
    assert first.shape == (3, 16, 16) and first.min() >= 0 and first.max() <= 1
    assert not torch.equal(first, second)
