"""The ``train:`` section of a run's configuration."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, Lt

from configs.document import Contradiction

__all__ = ["FREE_KEYS", "EvaluateConfig", "TrainConfig", "free_keys"]

# Keys of a run's configuration that do not change what is computed, but for rounding: a run goes on
# in the same folder with other values.
FREE_KEYS = (
    "data.channels_last", "data.datasets", "data.max_bad_fraction", "data.path",
    "data.prefetch", "data.remote", "data.require_all", "data.storage", "data.threads",
    "data.timeout_s", "data.workers", "model.pretrained", "model.track", "train.channels_last",
    "train.checkpoint_every", "train.checkpoint_minutes", "train.compile", "train.device",
    "train.epochs", "train.evaluate", "train.keep", "train.keep_epochs", "train.log_every",
    "train.max_bad_steps", "train.pictures_every", "train.threads",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluateConfig:
    """Whether ``python -m tracker eval`` runs beside the training, and on what.

    Parameters
    ----------
    every : epochs between evaluations, the last epoch always included; 0: none
    dataset : that is followed through
    root : its folder; null: ``data/raw/<dataset>``, or ``$SIAMSTREAM_RAW/<dataset>``
    split : of the data set; null: as `tracker eval` has it
    device : of the evaluation, which runs in a process of its own; ``auto``: as `tracker eval`
    timeout_minutes : of one evaluation; one that takes longer is ended, with a warning
    """

    every: Annotated[int, Ge(0)] = 0
    dataset: Literal["otb", "lasot", "got10k", "trackingnet"] = "otb"
    root: str | None = None
    split: str | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"
    timeout_minutes: Annotated[float, Gt(0), Le(1e6)] = 240.0


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
    momentum : of SGD; must be 0 with ``adamw``
    weight_decay : of weights; biases and the parameters of batch normalisations have none
    warmup_steps : over which the rate grows linearly; 0: no warm-up
    warmup_divisor : the first step's rate is `lr` / this
    lr_schedule : ``steps`` as published; ``cosine`` falls from `lr` to `lr_end` by the last
        step
    lr_steps : epochs, counted from 0 and growing, from which on the rate is multiplied by
        `lr_decay` once more; for ``steps``
    lr_decay : factor at each of `lr_steps`
    lr_end : rate at the end of ``cosine``, at most `lr`
    heads_only_epochs : first epochs, in which all but the backbone is trained
    clip_norm : limit of the norm of all gradients together, the backbone's too; null: no limit
    amp : mixed precision; fp16 (with loss scaling) needs CUDA
    channels_last : memory layout of the network and its pictures
    compile : compile backbone, fusions and heads with torch.compile; the first steps take minutes
    device : ``auto``: CUDA where there is some, else the CPU. With CUDA each process takes the
        device of its local rank; ``CUDA_VISIBLE_DEVICES`` says which there are
    seed : of torch's random numbers; that of the pairs is ``data.seed``
    threads : of torch in one process; 0: the cores of the machine, shared among its processes
    checkpoint_every : steps between checkpoints, beside those at the end of each epoch; 0: none
    checkpoint_minutes : a checkpoint is also written when the last is this old; 0: never
    keep : how many checkpoints written between epochs are kept, the newest ones
    keep_epochs : checkpoints of epochs that are kept, beside the best; null: all
    max_bad_steps : steps in the whole run that may be left out because their gradients are not
        finite; 0: the first such step ends the run
    log_every : steps whose means make one line of metrics.jsonl, TensorBoard and the progress line
    pictures_every : steps between pictures of pairs with true and predicted boxes; 0: none
    evaluate : evaluation beside the training
    """

    epochs: Annotated[int, Ge(1), Le(10**6)] = 50
    batch_size: Annotated[int, Ge(1)] = 32
    optimizer: Literal["sgd", "adamw"] = "sgd"
    lr: Annotated[float, Gt(0), Le(100)] = 0.01
    momentum: Annotated[float, Ge(0), Lt(1)] = 0.0
    weight_decay: Annotated[float, Ge(0), Le(1)] = 1e-4
    warmup_steps: Annotated[int, Ge(0)] = 100
    warmup_divisor: Annotated[float, Ge(1), Le(1e6)] = 30.0
    lr_schedule: Literal["steps", "cosine"] = "steps"
    lr_steps: tuple[Annotated[int, Ge(0)], ...] = (25, 45)
    lr_decay: Annotated[float, Gt(0), Le(1)] = 0.1
    lr_end: Annotated[float, Ge(0), Le(100)] = 0.0
    heads_only_epochs: Annotated[int, Ge(0)] = 1
    clip_norm: Annotated[float, Gt(0)] | None = 20.0
    amp: Literal["off", "bf16", "fp16"] = "off"
    channels_last: bool = False
    compile: bool = False
    device: Literal["auto", "cpu", "cuda"] = "auto"
    seed: Annotated[int, Ge(0), Lt(2**63)] = 7
    threads: Annotated[int, Ge(0)] = 0
    checkpoint_every: Annotated[int, Ge(0)] = 1000
    checkpoint_minutes: Annotated[float, Ge(0)] = 15.0
    keep: Annotated[int, Ge(1)] = 2
    keep_epochs: Annotated[int, Ge(1)] | None = None
    max_bad_steps: Annotated[int, Ge(0)] = 0
    log_every: Annotated[int, Ge(1)] = 10
    pictures_every: Annotated[int, Ge(0)] = 0
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)

    def __post_init__(self) -> None:
        if self.optimizer == "adamw" and self.momentum:
            raise Contradiction(
                f"momentum {self.momentum} belongs to SGD; optimizer 'adamw' takes momentum 0",
                "momentum",
                "optimizer",
            )
        if list(self.lr_steps) != sorted(set(self.lr_steps)):
            raise Contradiction(f"lr_steps must grow, got {list(self.lr_steps)}", "lr_steps")
        if self.lr_schedule == "cosine" and self.lr_end > self.lr:
            raise Contradiction(
                f"lr_end {self.lr_end:g} is above lr {self.lr:g}; a cosine falls from lr to lr_end",
                "lr_end",
                "lr",
                "lr_schedule",
            )


def free_keys(config: TrainConfig) -> tuple[str, ...]:
    """Keys that may be others when a run goes on; a cosine's every rate depends on the epochs."""
    if config.lr_schedule == "cosine":
        return tuple(key for key in FREE_KEYS if key != "train.epochs")
    return FREE_KEYS
