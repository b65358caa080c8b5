"""GPU-only code on a fake GPU (tests/fake_gpu.py): complete runs of every method, in which no step waits for the
device. tests/test_gpu.py uses a real one.
"""

import json
from pathlib import Path

import pytest
import torch
from fake_gpu import Waits, fake_gpu, waiting
from folders import digits, tiny_settings
from methods import build

from baselines.pica import PICA
from baselines.scan import SelfLabel
from baselines.simclr import SimCLR
from benchmarks.bench.subject import Plan, Subject
from benchmarks.cli import main
from benchmarks.study import load_study
from scl.config import Network, complete, load_run
from scl.engine.checkpoint import Stop
from scl.engine.train import train
from scl.engine.trainer import Trainer
from scl.scl import SCL

PAPER = Path(__file__).parent.parent / "config" / "paper.yaml"


@pytest.fixture(autouse=True)
def gpu(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    with fake_gpu():
        yield


@pytest.mark.parametrize(
    "mistake, told",
    [(lambda x: x.sum().item(), "_local_scalar_dense"), (lambda x: x + torch.ones(x.shape), "on the same device")],
)
def test_a_mistake_in_a_step_is_found(mistake, told, paper_trainer):
    trainer = paper_trainer("simclr")
    loop, step = trainer.steps_of_epoch(), trainer.method.step
    next(loop)
    trainer.method.step = lambda views, index: [mistake(views[0]), step(views, index)][1]
    with pytest.raises((Waits, RuntimeError), match=told), waiting("error"):
        next(loop)


@pytest.fixture
def paper_trainer(tmp_path):
    """A trainer for a stage of the paper's study, with all of its augmentations but a small network."""

    def make(stage):
        study = load_study(PAPER).model_copy(update={"network": Network(width=8, layers=[1, 1, 1])})
        plan = Plan(stage=stage, size=32, batch_size=8, images=(40,), clusters=(3,))
        return Subject(study, plan, tmp_path, "cuda").trainer()

    return make


@pytest.mark.parametrize("stage", ["scl", "simclr", "pica", "scan"])
def test_a_step_of_the_paper_waits_for_nothing(stage, paper_trainer):
    trainer = paper_trainer(stage)
    loop = trainer.steps_of_epoch()
    next(loop)  # copies tables to the device and draws the order of the images
    with waiting("error"):
        next(loop)
    assert all(p.grad.is_cuda for p in trainer.method.encoder.parameters())


def test_every_method_trains_and_only_where_it_has_to_waits(tiny_study, monkeypatch):
    """SCL's prototypes are initialized once by k-means on the CPU; self-labeling checks if any image is confident."""
    draw, learn, place_prototypes = Trainer.draw, Trainer.learn, SCL.place_prototypes

    def quiet_learn(trainer, *arguments):
        with waiting("default" if isinstance(trainer.method, SelfLabel) else "error"):
            learn(trainer, *arguments)

    def quiet_draw(trainer, index):
        with waiting("error"):
            return draw(trainer, index)

    def place(method):
        torch.cuda.set_sync_debug_mode("default")
        place_prototypes(method)
        torch.cuda.set_sync_debug_mode("error")

    monkeypatch.setattr(Trainer, "draw", quiet_draw)
    monkeypatch.setattr(Trainer, "learn", quiet_learn)
    monkeypatch.setattr(SCL, "place_prototypes", place)
    study = tiny_study(training={"batch_size": 64, "curve_points": 2, "precision": "auto"})
    for run in study.runs():
        record = json.loads(train(run.directory, gpus=1, report=lambda *_: None).read_text())
        assert (record["device"], record["precision"]) == ("fake GPU", "bf16")


ABLATIONS = [
    *((SCL, {name: 0.0}) for name in ("instance_weight", "semantic_weight", "consistency_weight", "memory_momentum")),
    *((SCL, {"consensus": consensus, "prototypes": "random"}) for consensus in ("boundaries", "similarities")),
    (SCL, {"consistency": "means"}),
    (SCL, {"consistency": "view", "mean_similarities": False, "assignment": "kmeans", "projection_norm": False}),
    (SCL, {"warm_up": 1.0}),
    (SimCLR, {"anchors": "both", "layer": "encoder"}),
    (PICA, {"sobel": True, "resize": 12, "perturbations": 1}),
    (SelfLabel, {"threshold": 0.0, "balanced": False}),
]


@pytest.mark.parametrize("cls, options", ABLATIONS)
def test_every_option_steps(cls, options):
    method = build(cls, **options).to("cuda", memory_format=torch.channels_last)
    index, views = torch.arange(12, device="cuda"), torch.rand(2, 12, 3, 8, 8, device="cuda").unbind()
    for method.epoch in (0, 3):  # during and after SCL's warm-up; both heads of PICA
        with torch.autocast("cuda", torch.bfloat16):
            torch.stack([*method.step(views, index).values()]).sum().backward()
        method.after_step()
    assert method.eval().assign(views[0]).is_cuda


@pytest.mark.parametrize(
    "stage, before, after",  # SGD, Adam
    [("simclr", "cuda", "cuda"), ("simclr", "cpu", "cuda"), ("pica", "cpu", "cuda"), ("pica", "cuda", "cpu")],
)
def test_a_stopped_run_resumes_on_either_device(stage, before, after, tiny_study):
    [run] = tiny_study(stage).runs()
    settings, stop = complete(load_run(run.directory)), Stop()
    first, second = (Trainer(settings, run.directory, device=d, report=lambda *_: None) for d in (before, after))
    stop.status = 143
    with pytest.raises(SystemExit):
        first.fit(stop, checkpoint_seconds=300)
    second.fit(Stop(), checkpoint_seconds=300)
    assert [group["fused"] for group in second.optimizer.param_groups] == [after == "cuda"]
    state = [value for values in second.optimizer.state.values() for value in values.values()]
    assert {x.device.type for x in (*second.method.state_dict().values(), *state) if torch.is_tensor(x)} == {after}


@pytest.mark.parametrize("method", ["simclr", "scl"])
def test_a_folder_is_clustered(method, tmp_path, monkeypatch, capsys):
    """The time is estimated first, which also runs steps on the GPU."""
    monkeypatch.chdir(tmp_path)
    tiny_settings(tmp_path / "tiny.yaml", precision="auto")
    digits(tmp_path / "photos", 24)
    options = ["--config", "tiny.yaml", "--epochs", "1", "--threads", "1", "--clusters", "3", "--method", method]
    assert main(["cluster", "photos", *options]) == 0 and "on fake GPU" in capsys.readouterr().err
    assert main(["assign", "photos-clusters", "photos", "--threads", "1"]) == 0
