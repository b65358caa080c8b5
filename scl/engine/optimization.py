"""Optimizers and learning rates."""

import math
from typing import Any

import torch

from scl.config import Training


def optimizer_of(module: torch.nn.Module, training: Training, device: str) -> torch.optim.Optimizer:
    """SGD or Adam for the parameters that are trained."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    fused = device == "cuda"  # one kernel for all parameters instead of several for each
    common: dict[str, Any] = {"lr": training.learning_rate, "weight_decay": training.weight_decay, "fused": fused}
    if training.optimizer == "sgd":
        return torch.optim.SGD(parameters, momentum=training.momentum, **common)
    return torch.optim.Adam(parameters, **common)


def load_state(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load the optimizer's state from a checkpoint; whether it is fused still depends on this device."""
    for group, saved in zip(optimizer.param_groups, state["param_groups"]):
        saved["fused"] = group["fused"]
    optimizer.load_state_dict(state)


def learning_rate(training: Training, epoch: int) -> float:
    """Learning rate of an epoch: constant, or a half cosine from learning_rate down to final_learning_rate."""
    low, high = training.final_learning_rate, training.learning_rate
    if training.schedule == "constant":
        return high
    return low + (high - low) * (1 + math.cos(math.pi * epoch / training.epochs)) / 2


def start_momentum(optimizer: torch.optim.Optimizer) -> None:
    """Initialize the momentum of parameters that get their first gradient later than others, like SCL's prototypes.

    torch's fused SGD fails on them (TypeError, torch 2.11 and 2.13). From zero, the first momentum is the gradient, as
    in torch.
    """
    for group in optimizer.param_groups:
        for parameter in group["params"] if group["fused"] and group.get("momentum") else ():
            if parameter.grad is not None and optimizer.state[parameter].get("momentum_buffer") is None:
                optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)


def fill_idle_gradients(optimizer: torch.optim.Optimizer) -> None:
    """Set zero gradients for parameters that the loss does not reach but that were trained, as torch did before 2.0.

    Adam then still moves such a parameter by its momentum and decays its second moment; without a gradient it would
    not change. The optimizer's state tells which parameters have been trained, even after a resume.
    """
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if parameter.grad is None and parameter in optimizer.state:
                parameter.grad = torch.zeros_like(parameter)
