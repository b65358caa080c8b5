"""Optimizers as on a GPU, where one kernel updates all parameters: torch's fused ones also run on the CPU."""

import pandas as pd
import pytest
import torch

from scl.config import Training
from scl.engine import trainer
from scl.engine.optimization import load_state, optimizer_of, start_momentum


@pytest.fixture
def fused(monkeypatch):
    monkeypatch.setattr(
        trainer, "optimizer_of", lambda module, training, device: optimizer_of(module, training, "cuda")
    )


def test_every_method_trains_with_them(fused, tiny_study, train_all):
    for run in train_all(tiny_study()):
        assert (run.directory / "record.json").exists()


def test_scl_learns_the_same_with_them(tiny_study, train_all, monkeypatch, request):
    """Its prototypes get their first gradient after the warm-up, when all other parameters already have momentum."""

    def losses(results):
        *_, run = train_all(tiny_study("simclr", "scl", results=results))
        return pd.read_csv(run.directory / "history.csv").loss

    alone = losses("alone")
    request.getfixturevalue("fused")
    assert losses("fused").tolist() == pytest.approx(alone.tolist(), rel=1e-4)


@pytest.mark.parametrize("steps", [1, 3])
def test_momentum_of_a_late_parameter_starts_as_in_the_first_step(steps):
    """It starts at the gradient itself, including weight decay, whether or not the optimizer is fused."""
    found = []
    for device in ("cpu", "cuda"):
        module = torch.nn.ParameterList([torch.tensor([1.0, -2.0]), torch.tensor([3.0])])
        settings = {"optimizer": "sgd", "learning_rate": 0.1, "momentum": 0.9, "weight_decay": 0.01}
        optimizer = optimizer_of(module, Training(epochs=1, batch_size=2, **settings), device)
        for step in range(steps + 2):
            optimizer.zero_grad(set_to_none=True)
            (module[0].square().sum() + (module[1].sum() * 2 if step >= 2 else 0)).backward()
            start_momentum(optimizer)
            optimizer.step()
        assert optimizer.param_groups[0]["fused"] == (device == "cuda")
        found.append([p.detach().tolist() for p in module])
    assert found[0][0] == pytest.approx(found[1][0]) and found[0][1] == pytest.approx(found[1][1])
    assert found[0][1] != [3.0]


@pytest.mark.parametrize("kind", ["sgd", "adam"])
@pytest.mark.parametrize("before, after", [("cpu", "cuda"), ("cuda", "cpu")])
def test_a_state_of_another_device_is_continued_as_this_one_computes(kind, before, after):
    """A CPU's checkpoint states no fused kernels, a GPU's does; that is not part of what has been learned."""
    module, found = torch.nn.Linear(3, 2), []
    training = Training(epochs=1, batch_size=2, optimizer=kind, learning_rate=0.1)
    for device in (before, after):
        optimizer = optimizer_of(module, training, device)
        if found:
            load_state(optimizer, found[0].state_dict())
        module(torch.ones(2, 3)).square().mean().backward()
        optimizer.step()
        found.append(optimizer)
    assert [group["fused"] for group in found[1].param_groups] == [after == "cuda"]
    assert found[1].state.keys() == found[0].state.keys()
