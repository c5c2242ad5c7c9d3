"""One model in training, in a process of its own, a block of steps at a time.

Started by `benchmarks.train` as ``python -m benchmarks.train_child``: the first line of stdin is a
`TrainCase` as JSON, each further one a block to make. Every line is answered by one of JSON.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.asked_process import answer_orders
from benchmarks.case import Case
from benchmarks.pairs import pair_config
from benchmarks.proc import cpu_s, machine_cpu_s
from benchmarks.train_feeds import FeedName, open_feed
from configs import strict
from loaders.batch import PairBatch, normalise
from loaders.sets import open_sets
from shards.errors import SiamstreamError
from tracker.compiled import compile_model
from tracker.models import ModelConfig, build
from tracker.training.config import TrainConfig
from tracker.training.meter import Meter, lag_of
from tracker.training.schedule import parameter_groups
from tracker.training.step import PHASES, Stepper
from tracker.training.world import World

__all__ = ["CONFIG", "Session", "TrainCase"]

CONFIG = "spm_alexnet.yaml"
STEPS_PER_EPOCH = 10_000  # as published, at 32 pairs; only the learning rate depends on it
NEVER = 1 << 62  # no line of metrics within a block
ALONE_BATCHES = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainCase:
    """What one process trains.

    Attributes
    ----------
    case : data, pairs of a batch, threads of torch and of the feed
    feed : where its batches come from
    width : of the model
    overrides : of the ``train:`` section of the published configuration
    fused : whether the optimiser is the trainer's own, or torch's default one
    device : ``cpu`` or ``cuda``
    """

    case: Case
    feed: FeedName
    width: float
    overrides: tuple[str, ...] = ()
    fused: bool = True
    device: str = "cpu"

    @staticmethod
    def read(facts: Mapping[str, Any]) -> TrainCase:
        """Case from what JSON makes of one."""
        case, overrides = Case(**facts["case"]), tuple(facts["overrides"])
        return TrainCase(**{**facts, "case": case, "overrides": overrides})


class PlainSGD(torch.optim.SGD):
    """Torch's SGD as it is by default, which cannot be told to leave a step out."""

    @property
    def found_inf(self) -> None:
        """Nothing: only a fused optimiser takes it."""

    @found_inf.setter
    def found_inf(self, _: Any) -> None:
        pass

    @found_inf.deleter
    def found_inf(self) -> None:
        pass


class Session:
    """Model, optimiser and feed, two steps of training done; to be closed.

    Parameters
    ----------
    what : is trained

    Raises
    ------
    SiamstreamError : if the data are not there, or the device cannot do what is asked for
    """

    def __init__(self, what: TrainCase) -> None:
        self.what, self.device, self.world = what, torch.device(what.device), World()
        torch.set_num_threads(what.case.threads)
        torch.backends.cudnn.benchmark = True
        published = ("train.heads_only_epochs=0", f"train.batch_size={what.case.batch_size}")
        self.config = strict.load(TrainConfig, CONFIG, (*published, *what.overrides), "train")
        self.stepper = self._stepper()
        self.feed, self._ahead = open_feed(
            what.feed, what.case, self.device, self.config.channels_last
        )
        self._step = 0
        try:
            first = self.block(1, warm_up=0)
            second = self.block(1, warm_up=0)
        except BaseException:
            self.close()
            raise
        self.facts = {
            "first_loss": first["loss"],
            "first_step_s": first["wall_s"],
            "step_s": second["wall_s"],
        }

    def _stepper(self) -> Stepper:
        """Trainer's step over a model of the case's width, with first weights of its seed."""
        what, config = self.what, self.config
        grid = open_sets(pair_config(what.case)).grid
        options = (f"model.width={what.width}", "model.init=random", f"model.grid={grid}")
        model = build(strict.load(ModelConfig, CONFIG, options, "model")).to(self.device)
        if config.channels_last:
            model.to(memory_format=torch.channels_last)
        if config.compile:
            compile_model(model)
        stepper = Stepper(model, config, self.device, STEPS_PER_EPOCH)
        if not what.fused:
            groups = parameter_groups(model, stepper.phase, config.weight_decay)
            stepper.optimizer = PlainSGD(groups, lr=config.lr, momentum=config.momentum)
        return stepper

    def block(self, steps: int, warm_up: int) -> dict[str, Any]:
        """Train for some steps.

        Batches that the feed made while nobody asked for them are thrown away first, and as many
        steps as `warm_up` says are not counted: what is counted begins as in the middle of an
        epoch. The device is waited for at both ends alone.

        Parameters
        ----------
        steps : counted
        warm_up : steps before

        Returns
        -------
        ``steps``, ``wall_s``, ``steps_per_s``, ``pairs_per_s``; milliseconds a step of ``wait``,
        the phases, and ``rest``; ``wait_share`` of the wall time; ``cpu_ms_per_pair`` of the whole
        process tree; ``others_cores_busy``; the mean ``loss``

        Raises
        ------
        SiamstreamError : if a loss is not finite
        """
        if self._step:
            for _ in range(self._ahead):
                next(self.feed)
        self._train(warm_up, self._meter())
        self._synchronise()
        root, meter = os.getpid(), self._meter()
        used, machine = cpu_s(root), machine_cpu_s()
        started = time.perf_counter()
        self._train(steps, meter)
        self._synchronise()
        wall_s = time.perf_counter() - started
        used, machine = cpu_s(root) - used, machine_cpu_s() - machine
        self._settle(meter, everything=True)
        means = meter.window(self.world).means
        found = {f"{name}_ms": float(means[f"{name}_ms"] or 0.0) for name in ("wait", *PHASES)}
        step_ms, pairs = 1e3 * wall_s / steps, steps * self.what.case.batch_size
        return {
            "steps": steps,
            "wall_s": wall_s,
            "steps_per_s": steps / wall_s,
            "pairs_per_s": pairs / wall_s,
            **found,
            "rest_ms": step_ms - sum(found.values()),
            "wait_share": found["wait_ms"] / step_ms,
            "cpu_ms_per_pair": 1e3 * used / pairs,
            "others_cores_busy": max(0.0, machine - used) / wall_s,
            "loss": means["loss"],
        }

    def alone(self, seconds: float) -> dict[str, Any]:
        """Take batches without training.

        Parameters
        ----------
        seconds : at least, and at least some batches more than are made ahead

        Returns
        -------
        ``pairs_per_s``, ``cpu_ms_per_pair``
        """
        for _ in range(self._ahead + 1):
            next(self.feed)
        self._synchronise()
        root, least = os.getpid(), self._ahead + ALONE_BATCHES
        used, taken, started = cpu_s(root), 0, time.perf_counter()
        while taken < least or time.perf_counter() - started < seconds:
            next(self.feed)
            taken += 1
        self._synchronise()
        wall_s, used = time.perf_counter() - started, cpu_s(root) - used
        pairs = taken * self.what.case.batch_size
        return {"pairs_per_s": pairs / wall_s, "cpu_ms_per_pair": 1e3 * used / pairs}

    def close(self) -> None:
        """End the feed's threads and processes."""
        self.feed.close()

    def _meter(self) -> Meter:
        return Meter(NEVER, self.what.case.batch_size, lag_of(self.device))

    def _train(self, steps: int, meter: Meter) -> None:
        """The loop of ``train.py``, but for lines of metrics and checkpoints."""
        for _ in range(steps):
            batch = next(self.feed)
            report = self.stepper(inputs_of(batch), self._step, batch.epoch)
            meter.add(report, self._step, batch.epoch, batch.stats["wait_s"])
            self._settle(meter, everything=False)
            self._step += 1

    def _settle(self, meter: Meter, *, everything: bool) -> None:
        _, left_out = meter.settle(self.world, everything=everything)
        if left_out:
            raise SiamstreamError(f"step {left_out[0].step + 1}: {left_out[0].found}, not finite")

    def _synchronise(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def inputs_of(batch: PairBatch) -> dict[str, Any]:
    """Arguments of the model's training step, as ``train.py`` makes them."""
    names = ("template_box", "search_box", "positive", "sample", "epoch")
    pixels = {"template": normalise(batch.template), "search": normalise(batch.search)}
    return {**pixels, **{name: getattr(batch, name) for name in names}}


if __name__ == "__main__":
    sys.exit(answer_orders(lambda facts: Session(TrainCase.read(facts))))
