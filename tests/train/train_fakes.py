"""A tiny model and a loader of made-up pairs, so that a run takes milliseconds a step.

As a script this is ``train.py`` with both: ``torchrun train_fakes.py --config ...``. Environment
variables say what goes wrong in it: ``FAKE_FAIL=rank:step:kind`` (or ``rank:build:kind``), only
once if ``FAKE_ONCE`` names a file for that, with the time in the file ``FAKE_MARK``;
``FAKE_SLOW=seconds a step``. ``FAKE_LOG`` is a folder where every process writes what it gets.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

import train
from loaders.batch import PairBatch
from shards.errors import DataError, MismatchError
from shards.rng import uniforms
from tracker.models import InitReport

SIDE = 8
FULL_BYTES = 1000  # less than any checkpoint or record has


class TinyModel(nn.Module):
    """Backbone and two heads; noise from torch's generator stands for dropout."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.z_net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
            self.cm_head = nn.Linear(8, 5)
            self.fm_head = nn.Linear(8, 5)

    def forward(self, template, search, template_box, search_box, positive, sample, epoch):
        z, x = (self.z_net(one).mean(dim=(2, 3)) for one in (template, search))
        features = torch.cat([z, x], dim=1)
        features = features + 0.1 * torch.randn_like(features)
        terms = {}
        for name in ("cm", "fm"):
            out = getattr(self, f"{name}_head")(features)
            right = nn.functional.binary_cross_entropy_with_logits(out[:, 0], positive.float())
            terms[f"{name}_cls"] = right
            terms[f"{name}_reg"] = (out[:, 1:] - search_box / SIDE).abs().mean()
        return terms


class FakeLoader:
    """`PairLoader` without files; pair i of epoch e is a function of (e, i)."""

    data = "a"  # stands for the fingerprint of the data
    grid = "edge"

    def __init__(
        self, config, rank=0, world_size=1, device="cpu", *, batch_size=32, command=None
    ) -> None:
        self.config, self.rank, self.world_size = config, rank, world_size
        self.batch_size, self.device = batch_size, device
        self.epoch, self.consumed = 0, 0

    @property
    def steps_per_epoch(self) -> int:
        return self.config.pairs_per_epoch // self.batch_size

    def __enter__(self):
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        time.sleep(float(os.environ.get("FAKE_CLOSE_S", "0")))

    def __iter__(self):
        return self

    def __next__(self) -> PairBatch:
        step = self.epoch * self.steps_per_epoch + self.consumed // self.batch_size
        time.sleep(float(os.environ.get("FAKE_SLOW", "0")))
        poison = misbehave(self.rank, step)
        rows = uniforms(7, 50, self.epoch, self.consumed, self.batch_size, 4 + 6 * SIDE * SIDE)
        rows = torch.from_numpy(rows[self.rank :: self.world_size])
        pixels = (rows[:, 4:] * 255).to(torch.uint8).view(-1, 2, 3, SIDE, SIDE)
        boxes = rows[:, :4].float() * (float("nan") if poison else SIDE)
        first = self.consumed + self.rank
        batch = PairBatch(
            template=pixels[:, 0],
            search=pixels[:, 1],
            template_box=boxes,
            search_box=boxes,
            other_boxes=torch.zeros(len(rows), 0, 4),
            other_mask=torch.zeros(len(rows), 0, dtype=torch.bool),
            positive=rows[:, 0] < 0.8,
            sample=torch.arange(first, self.consumed + self.batch_size, self.world_size),
            epoch=self.epoch,
            stats={"wait_s": 0.0},
        )
        log(batch, self.rank, self.world_size, step)
        self.consumed += self.batch_size
        if self.consumed + self.batch_size > self.config.pairs_per_epoch:
            self.epoch, self.consumed = self.epoch + 1, 0
        return batch

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "consumed": self.consumed, "data": self.data}

    def load_state_dict(self, state, *, allow_data_change=False):
        changed = () if state["data"] == self.data else ("these are other data",)
        if changed and not allow_data_change:
            raise MismatchError(changed[0])
        self.epoch, self.consumed = state["epoch"], state["consumed"]
        return changed

    def describe(self) -> dict[str, Any]:
        return {
            "datasets": {"lasot": {"weight": 1.0, "index_sha256": self.data}},
            "missing": ["coco"],
            "warnings": ["no coco: going on with lasot 1"],
            "grid": self.grid,
            "storage": "fake",
            "backend": "fake",
        }


def limit_files(size: int) -> None:
    """Let the system refuse to write beyond a size of any file, as a full disk would."""
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))


def misbehave(rank: int, when: int | str) -> bool:
    """Do what FAKE_FAIL asks before a step (counted from 0); true: its batch is to be poisoned."""
    for one in os.environ.get("FAKE_FAIL", "").split():
        who, then, kind = one.split(":")
        if (int(who), then) != (rank, str(when)):
            continue
        if once := os.environ.get("FAKE_ONCE"):
            if Path(once).exists():
                continue
            Path(once).touch()
        if mark := os.environ.get("FAKE_MARK"):
            Path(mark).write_text(str(time.time()))
        match kind:
            case "nan":
                return True
            case "data":
                raise DataError("the shard is gone")
            case "bug":
                raise ZeroDivisionError("a bug")
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "full":
                limit_files(FULL_BYTES)
            case "space":
                limit_files(resource.RLIM_INFINITY)
            case _:
                os.kill(os.getpid(), getattr(signal, kind))
    return False


def log(batch: PairBatch, rank: int, world: int, step: int) -> None:
    """Write what this process trains on to its own file of the folder FAKE_LOG."""
    if folder := os.environ.get("FAKE_LOG"):
        facts = {"step": step, "rank": rank, "world": world, "epoch": batch.epoch}
        facts |= {"samples": batch.sample.tolist(), "pid": os.getpid(), "time_ns": time.time_ns()}
        with Path(folder, f"{os.getpid()}.jsonl").open("a") as file:
            file.write(json.dumps(facts) + "\n")


def fake_build(config) -> TinyModel:
    """Make the tiny model."""
    misbehave(int(os.environ.get("RANK", "0")), "build")
    return TinyModel(config.seed)


def use_fakes(patch=setattr) -> None:
    """Make train.py use the tiny model and the made-up pairs."""
    patch(train, "PairLoader", FakeLoader)
    patch(train, "build", fake_build)
    patch(train, "initialise", lambda model, config: InitReport(source="fake weights"))


if __name__ == "__main__":
    use_fakes()
    train.main()
