"""Which parameters are trained when, and how fast: the published schedule as pure functions.

Steps and epochs count from 0. In the first epochs ("heads") the optimiser has all parameters but
the backbone's; then a new one ("all") has every one. (PySiamTracking; SPM's configuration.)
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import nn

from tracker.training.config import TrainConfig

__all__ = ["BACKBONE", "Phase", "learning_rate", "make_optimizer", "parameter_groups", "phase"]

Phase = Literal["heads", "all"]

BACKBONE = "z_net."  # how the names of the backbone's parameters begin


def learning_rate(config: TrainConfig, step: int, epoch: int, steps_per_epoch: int) -> float:
    """Learning rate of a step.

    Parameters
    ----------
    config : lr, warm-up and how the rate falls
    step : number of the step, from the start of training
    epoch : that the step belongs to
    steps_per_epoch : of the run; the warm-up's and the cosine's step counts from the start, the
        published steps from the epochs

    Returns
    -------
    ``lr * lr_decay^k`` with k the number of `lr_steps` reached, or with ``cosine``
    ``lr_end + (lr - lr_end) * (1 + cos(pi * step / all steps)) / 2`` (Loshchilov and Hutter 2017,
    without restarts); during the warm-up times
    ``1 - (1 - step / warmup_steps) * (1 - 1 / warmup_divisor)``
    """
    if config.lr_schedule == "cosine":
        part = min(step / (config.epochs * steps_per_epoch), 1.0)
        rate = config.lr_end + (config.lr - config.lr_end) * (1 + math.cos(math.pi * part)) / 2
    else:
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
    """New optimiser over the parameters of a phase; `learning_rate` is set before every step.

    It is a fused one: one kernel for many parameters, which can leave a step out on the device.
    """
    groups = parameter_groups(model, phase, config.weight_decay)
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=config.lr, fused=True)
    optimizer = torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, fused=True)
    if config.momentum:
        # Else torch allocates them in the first step, and leaves them unset if that is left out.
        for parameter in (p for group in groups for p in group["params"]):
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer
