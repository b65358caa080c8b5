"""The fake GPU of the tests refuses what CUDA refuses, detects all waiting, and executes everything else."""

import pytest
import torch
from fake_gpu import Waits, fake_gpu, waiting


@pytest.fixture(autouse=True)
def gpu():
    with fake_gpu():
        yield


REFUSED = {
    "operands": lambda x: x + torch.ones(4),
    "product": lambda x: torch.nn.functional.linear(x, torch.ones(2, 4)),
    "joined": lambda x: torch.cat([x, torch.ones(4)]),
    "mask": lambda x: torch.where(torch.ones(4) > 0, x, 0.0),
    "gathered": lambda x: x.gather(0, torch.zeros(4, dtype=torch.long)),
    "assigned": lambda x: x.__setitem__(x.long(), torch.ones(4)),
    "indices of the GPU on the CPU": lambda x: torch.ones(4)[x.long()],
    "generator": lambda x: torch.rand(4, generator=torch.Generator(), device=x.device),
    "generator of the GPU": lambda x: torch.randint(4, (4,), generator=torch.Generator("cuda")),
    "numpy": lambda x: x.numpy(),
    "layout of gradients": lambda x: fused_step(torch.ones(3, 2, device="cuda").T),
}
WAITS = {
    "item": lambda x: x.sum().item(),
    "bool": lambda x: bool(x.sum() > 0),
    "tolist": lambda x: x.tolist(),
    "cpu": lambda x: x.cpu(),
    "nonzero": lambda x: x.nonzero(),
    "mask": lambda x: x[x > 0],
    "mask assigned": lambda x: x.__setitem__(x > 0, x),
    "indices of the CPU": lambda x: x[torch.arange(2)],
    "unique": lambda x: x.unique(),
    "equal": lambda x: torch.equal(x, x),
    "one_hot": lambda x: torch.nn.functional.one_hot(x.long()),
    "bincount": lambda x: x.long().bincount(),
    "repeat_interleave": lambda x: torch.repeat_interleave(x, x.long()),
    "from the CPU": lambda x: torch.ones(3).to(x.device),
    "copied from the CPU": lambda x: x.copy_(torch.ones(4)),
    "list": lambda x: torch.tensor([1.0, 2.0], device=x.device),
}
SOUND = {
    "number": lambda x: x * 2 + torch.tensor(1.0),
    "mask set to a number": lambda x: x.clone().__setitem__(x > 0, 1.0),
    "drawn": lambda x: torch.rand(4, generator=torch.Generator("cuda"), device="cuda"),
    "copied without waiting": lambda x: torch.ones(4).to("cuda", non_blocking=True),
    "indices": lambda x: x.clone().index_add_(0, x.long(), x)[x.long()],
}


def fused_step(gradient):
    weight = torch.nn.Parameter(torch.ones(2, 3, device="cuda"))
    weight.grad = gradient
    torch.optim.SGD([weight], lr=0.1, fused=True).step()


@pytest.mark.parametrize("mistake", REFUSED)
def test_what_cuda_refuses_is_found(mistake):
    with pytest.raises((RuntimeError, TypeError)):
        REFUSED[mistake](torch.zeros(4, device="cuda"))


@pytest.mark.parametrize("wait", WAITS)
def test_whatever_waits_is_found(wait):
    x = torch.zeros(4, device="cuda")
    with pytest.raises((Waits, RuntimeError)), waiting("error"):
        WAITS[wait](x)


@pytest.mark.parametrize("case", SOUND)
def test_what_cuda_does_at_once_is_done(case):
    x = torch.arange(4.0, device="cuda")
    with waiting("error"):
        assert getattr(SOUND[case](x), "is_cuda", True)
