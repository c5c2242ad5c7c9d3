"""Which parameters are trained when, and how fast: the published schedule as pure functions.

Steps and epochs count from 0. In the first epochs ("heads") the optimiser has all parameters but
the backbone's; then a new one ("all") has every one. (PySiamTracking; SPM's configuration.)
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import nn

from tracker.training.config import TrainConfig

__all__ = ["BACKBONE", "Phase", "learning_rate", "make_optimizer", "parameter_groups", "phase"]

Phase = Literal["heads", "all"]

BACKBONE = "z_net."  # how the names of the backbone's parameters begin


def learning_rate(config: TrainConfig, step: int, epoch: int) -> float:
    """Learning rate of a step.

    Parameters
    ----------
    config : lr, warm-up and steps
    step : number of the step, from the start of training
    epoch : that the step belongs to

    Returns
    -------
    ``lr * decay**n * warm``; n of `lr_steps` have been reached, and in the warm-up
    ``warm = 1 - (1 - step / warmup_steps) * (1 - 1 / warmup_divisor)``
    """
    rate = config.lr * config.lr_decay ** sum(epoch >= first for first in config.lr_steps)
    if step < config.warmup_steps:
        rate *= 1 - (1 - step / config.warmup_steps) * (1 - 1 / config.warmup_divisor)
    return rate


def phase(config: TrainConfig, epoch: int) -> Phase:
    """Which parameters an epoch trains."""
    return "heads" if epoch < config.heads_only_epochs else "all"


def parameter_groups(model: nn.Module, phase: Phase, weight_decay: float) -> list[dict[str, Any]]:
    """Groups of a phase: weights, which decay, and biases, which do not.

    A bias is a parameter whose name ends in "bias", or any of a batch normalisation (as in the
    published training). Names may begin with DistributedDataParallel's "module.".
    """
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    undecayed = {id(parameter) for norm in norms for parameter in norm.parameters()}
    weights: list[nn.Parameter] = []
    biases: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if phase == "heads" and name.removeprefix("module.").startswith(BACKBONE):
            continue
        decays = not name.endswith("bias") and id(parameter) not in undecayed
        (weights if decays else biases).append(parameter)
    groups: list[dict[str, Any]] = [
        {"params": weights, "weight_decay": weight_decay},
        {"params": biases, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def make_optimizer(model: nn.Module, config: TrainConfig, phase: Phase) -> torch.optim.Optimizer:
    """New optimiser over the parameters of a phase; `learning_rate` is set before every step."""
    groups = parameter_groups(model, phase, config.weight_decay)
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=config.lr)
    return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum)
