"""The ``train:`` section of a run's configuration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, Lt

__all__ = ["TrainConfig"]


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """How long, in which steps and with which optimiser a model is trained.

    The defaults are the published schedule of SPM: stochastic gradient descent without momentum,
    50 epochs, the backbone from epoch 1 on.

    Parameters
    ----------
    epochs : of ``data.pairs_per_epoch`` pairs each
    batch_size : pairs of one step, all processes together
    optimizer : ``sgd`` as published, or ``adamw`` (Loshchilov and Hutter 2019), its betas torch's
    lr : learning rate after the warm-up
    momentum : of SGD; AdamW has none
    weight_decay : of weights; biases have none
    warmup_steps : over which the rate grows linearly; 0: no warm-up
    warmup_divisor : the first step's rate is `lr` / this
    lr_steps : epochs (from 0) from which on the rate is multiplied by `lr_decay` once more
    lr_decay : factor at each of `lr_steps`
    heads_only_epochs : epochs at the start in which the backbone stays as it is
    clip_norm : limit of the norm of all gradients together, the backbone's too; null: no limit
    amp : mixed precision; fp16 (with loss scaling) needs CUDA
    seed : of torch's random numbers; that of the pairs is ``data.seed``
    threads : of torch in one process; 0: the cores of the machine, shared among its processes
    checkpoint_every : steps between checkpoints, beside those at the end of each epoch; 0: none
    checkpoint_minutes : a checkpoint is also written when the last is this old; 0: never
    keep : checkpoints between epochs that are kept; those of epochs all are
    log_every : steps of one line of metrics
    """

    epochs: Annotated[int, Ge(1)] = 50
    batch_size: Annotated[int, Ge(1)] = 32
    optimizer: Literal["sgd", "adamw"] = "sgd"
    lr: Annotated[float, Gt(0), Le(100)] = 0.01
    momentum: Annotated[float, Ge(0), Lt(1)] = 0.0
    weight_decay: Annotated[float, Ge(0), Le(1)] = 1e-4
    warmup_steps: Annotated[int, Ge(0)] = 100
    warmup_divisor: Annotated[float, Ge(1), Le(1e6)] = 30.0
    lr_steps: tuple[Annotated[int, Ge(0)], ...] = (25, 45)
    lr_decay: Annotated[float, Gt(0), Le(1)] = 0.1
    heads_only_epochs: Annotated[int, Ge(0)] = 1
    clip_norm: Annotated[float, Gt(0)] | None = 20.0
    amp: Literal["off", "bf16", "fp16"] = "off"
    seed: Annotated[int, Ge(0), Lt(2**63)] = 7
    threads: Annotated[int, Ge(0)] = 0
    checkpoint_every: Annotated[int, Ge(0)] = 1000
    checkpoint_minutes: Annotated[float, Ge(0)] = 15.0
    keep: Annotated[int, Ge(1)] = 2
    log_every: Annotated[int, Ge(1)] = 10

    def __post_init__(self) -> None:
        if self.optimizer == "adamw" and self.momentum:
            raise ValueError(
                f"momentum {self.momentum} belongs to SGD; optimizer 'adamw' takes momentum 0"
            )
        if list(self.lr_steps) != sorted(set(self.lr_steps)):
            raise ValueError(f"lr_steps must grow, got {list(self.lr_steps)}")
