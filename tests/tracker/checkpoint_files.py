"""Checkpoints for tests: as published, and as train.py writes them."""

from __future__ import annotations

import collections
import io
import pickle
import tarfile
from pathlib import Path

import torch

from configs import strict
from tracker.models import ModelConfig, build

NARROW = ModelConfig(init="random", width=0.0625, seed=3)


def published(
    path: Path, state: dict[str, torch.Tensor], *, epoch: int = 50, old: bool = False
) -> Path:
    """Write what mmcv wrote: wrapped, prefixed, with an optimiser; `old`: torch's first format."""
    content = {
        "meta": {"epoch": epoch, "iter": 2_000_000, "config": "model = dict()", "time": "Mon"},
        "state_dict": collections.OrderedDict((f"module.{k}", v) for k, v in state.items()),
        "optimizer": {
            "state": {140_123: {"momentum_buffer": None}},
            "param_groups": [{"lr": 1e-4, "momentum": 0, "params": [140_123]}],
        },
    }
    torch.save(content, path, _use_new_zipfile_serialization=not old)
    return path


def of_run(path: Path, config: ModelConfig, **changes) -> Path:
    """Write a checkpoint of train.py, of the weights that the configuration's seed gives."""
    content = {
        "format": 1,
        "meta": {"step": 120, "epoch": 2, "config": f"data: {{}}\nmodel: {as_item(config)}"},
        "state_dict": build(config).state_dict(),
        "stepper": {},
        "loader": {},
        "ranks": [],
    }
    torch.save({**content, **changes}, path)
    return path


def as_item(config: ModelConfig) -> str:
    """Dump a configuration as a section of a longer text."""
    return "\n  " + strict.dump(config).strip().replace("\n", "\n  ") + "\n"


class MakesFile:
    """Its pickle makes a file when it is executed."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


def with_code(folder: Path, kind: str, target: Path) -> Path:
    """Write a file whose pickle would make the file `target`."""
    path = folder / f"{kind}.pth"
    content = {"meta": MakesFile(target), "state_dict": {"a": torch.zeros(2)}}
    if kind == "plain":
        path.write_bytes(pickle.dumps(content, protocol=2))
    elif kind == "tar":
        with tarfile.open(path, "w") as tar:
            for name in ("sys_info", "storages", "tensors", "pickle"):
                data = pickle.dumps(MakesFile(target), protocol=2)
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=kind == "zip")
    return path
