"""Who is evaluated: trackers under a name, made in any process, and what decides their boxes."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from configs import strict
from shards.errors import MismatchError

if TYPE_CHECKING:  # they import torch
    from tracker.config import ModelConfig
    from tracker.follow import Tracker

__all__ = ["Entrant", "FromCheckpoint", "Opened", "default_name", "open_checkpoint"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Entrant:
    """A tracker to follow with: ``name`` of its results, what makes it, what decides them."""

    name: str
    make: Callable[[], Tracker]
    made_by: Mapping[str, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class FromCheckpoint:
    """Makes the tracker of a checkpoint, in any process.

    Parameters
    ----------
    path : as `tracker.files.open_model` takes it
    overrides : of settings, ``track.match.window=0.3``
    device : ``cpu`` or ``cuda``
    sha256 : of the file, which must not change while sequences are followed
    """

    path: Path
    overrides: tuple[str, ...]
    device: str
    sha256: str

    def __call__(self) -> Tracker:
        """Open the checkpoint; one CPU thread, with which results do not depend on the machine."""
        import cv2
        import torch

        from tracker.files import open_model
        from tracker.follow import make_tracker

        torch.set_num_threads(1)
        cv2.setNumThreads(1)
        found = open_model(self.path, self.overrides)
        if found.sha256 != self.sha256:
            raise MismatchError(f"{self.path}: has changed since the evaluation began; copy it")
        return make_tracker(found.model, device=self.device)


class Opened(NamedTuple):
    """A checkpoint that can be followed with: `make`, what decides its results, good `workers`."""

    make: FromCheckpoint
    made_by: dict[str, str]
    workers: int
    config: ModelConfig


def open_checkpoint(path: Path, overrides: tuple[str, ...], device: str) -> Opened:
    """Open a checkpoint once, to know that it is sound and what it is.

    Parameters
    ----------
    path, overrides : as `tracker.files.open_model` takes them
    device : ``auto``, ``cpu`` or ``cuda``

    Raises
    ------
    SiamstreamError, ConfigError : as `tracker.files.open_model` does, or if there is no such device
    """
    from tracker.files import open_model
    from tracker.follow import torch_device

    where = torch_device(device)
    found = open_model(path, overrides)
    track = strict.flat(strict.dump(found.config.track))
    return Opened(
        FromCheckpoint(path=path, overrides=overrides, device=str(where), sha256=found.sha256),
        {
            "checkpoint": found.sha256,
            "device": where.type,  # CPU and GPU round differently
            **{f"track.{key}": str(value) for key, value in track.items()},
        },
        len(os.sched_getaffinity(0)) if where.type == "cpu" else 1,
        found.config,
    )


def default_name(checkpoint: Path) -> str:
    """Name of a tracker: that of its file, or of the run that ``latest.pth`` is of.

    That of ``best.pth`` says so, as it is another tracker: ``run-best``.
    """
    path = checkpoint.absolute()
    of_run = {"latest.pth": path.parent.name, "best.pth": f"{path.parent.name}-best"}
    return of_run.get(path.name, path.stem)
