"""Checkpoints: written whole or not at all, read without executing anything, found again.

A run's folder has ``epoch_<N>.pth`` (after N epochs), ``step_<N>.pth`` (after N steps, the last
few) and ``latest.pth``, a link to the newest. A file is a dictionary of tensors and plain values;
its ``state_dict`` holds the model under the published names, so it also serves as weights.
"""

from __future__ import annotations

import fcntl
import os
import re
import time
import warnings
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import torch

from configs import strict
from shards.errors import MismatchError, SiamstreamError
from tracker import weights

__all__ = [
    "CheckpointError",
    "Checkpoints",
    "Due",
    "FolderLock",
    "random_state",
    "read",
    "same_config",
    "set_random",
    "write",
]

FORMAT = 1
KEYS = ("meta", "state_dict", "stepper", "loader", "ranks")


class CheckpointError(SiamstreamError):
    """A checkpoint cannot be read, or is of another kind of run."""


def write(path: Path, state: Mapping[str, Any]) -> None:
    """Write a checkpoint under its name only when all of it is on disk.

    Parameters
    ----------
    path : final name; a file that is there is replaced
    state : `KEYS`, of tensors, numbers, texts, lists and dictionaries

    Raises
    ------
    CheckpointError : if the disk does not take it; the earlier checkpoints stay
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("wb") as file:
            torch.save({"format": FORMAT, **state}, file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        _sync_folder(path.parent)
    except (OSError, RuntimeError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error).splitlines()[0]
        raise CheckpointError(
            f"{path}: this checkpoint could not be written: {reason}; free some space and start "
            "the same command again, it goes on from the last one"
        ) from error
    finally:
        partial.unlink(missing_ok=True)


def read(path: Path) -> dict[str, Any]:
    """Read a checkpoint to the CPU; tensors and plain values only (``weights_only``).

    Raises
    ------
    CheckpointError : if it is missing, damaged, or not a checkpoint of this program
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint")
    try:
        weights.check_zip(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what torch guesses about a damaged file
            state = torch.load(path, map_location="cpu", weights_only=True)
    except weights.UNREADABLE as error:
        raise CheckpointError(
            f"{path}: damaged, or not a checkpoint ({type(error).__name__}); delete it and start "
            "again from the one before"
        ) from error
    if not isinstance(state, dict) or any(key not in state for key in KEYS):
        raise CheckpointError(
            f"{path}: not a training checkpoint (no {', '.join(KEYS)}); to start from the weights "
            f"in it use --set model.init={path}"
        )
    if state.get("format") != FORMAT:
        raise CheckpointError(
            f"{path}: checkpoint format {state.get('format')}, this program reads {FORMAT}"
        )
    return dict(state)


class Checkpoints:
    """The checkpoints of one run's folder.

    Parameters
    ----------
    folder : of the run; need not exist
    keep : how many of those between epochs stay
    steps_per_epoch : puts both kinds in one order
    """

    def __init__(self, folder: Path, keep: int, steps_per_epoch: int) -> None:
        self.folder, self.keep, self.steps_per_epoch = folder, keep, steps_per_epoch

    def files(self) -> list[tuple[int, Path]]:
        """Checkpoints as (steps done, file), newest first."""
        found = []
        for path in self.folder.glob("*.pth") if self.folder.is_dir() else ():
            if match := re.fullmatch(r"(epoch|step)_(\d+)\.pth", path.name):
                unit = self.steps_per_epoch if match[1] == "epoch" else 1
                found.append((int(match[2]) * unit, path))
        return sorted(found, key=lambda item: (item[0], item[1].name), reverse=True)

    def choose(self, resume: str) -> tuple[Path | None, list[str]]:
        """Checkpoint that ``--resume`` means (None: start anew), and warnings.

        Raises
        ------
        MismatchError : if it is ``never``, but the folder has checkpoints of an earlier run
        CheckpointError : if there are checkpoints but all are damaged
        """
        if resume == "auto":
            return self.newest()
        if resume != "never":
            return Path(resume), []
        if files := self.files():
            raise MismatchError(
                f"{self.folder} holds a run of {files[0][0]:,} steps, which --resume never would "
                "mix with a new one; give another --out, or remove that folder"
            )
        return None, []

    def newest(self) -> tuple[Path | None, list[str]]:
        """Newest checkpoint that can be read, and a warning for each newer one that cannot.

        Raises
        ------
        CheckpointError : if there are checkpoints but all are damaged
        """
        skipped: list[str] = []
        for _, path in self.files():
            try:
                read(path)
            except CheckpointError as error:
                skipped.append(str(error))
            else:
                return path, [f"{text}; going on from {path.name}" for text in skipped]
        if skipped:
            raise CheckpointError(f"no checkpoint of {self.folder} can be read: {skipped[0]}")
        return None, []

    def refuse_newer(self, path: Path, step: int) -> None:
        """Refuse to go on from a checkpoint while the folder has later ones.

        Raises
        ------
        MismatchError : they would stand beside those of the new branch, and be taken for its newest
        """
        files = self.files()
        if files and files[0][0] > step:
            raise MismatchError(
                f"{path} is of step {step:,}, but {self.folder} goes on to step {files[0][0]:,}; "
                "give another --out, or delete the later checkpoints"
            )

    def write(self, state: Mapping[str, Any], step: int) -> Path:
        """Write the checkpoint after `step` steps, link it as the latest, drop old ones."""
        epochs, rest = divmod(step, self.steps_per_epoch)
        name = f"step_{step:08d}.pth" if rest else f"epoch_{epochs}.pth"
        path = self.folder / name
        write(path, state)
        link = self.folder / ".latest.partial"
        link.unlink(missing_ok=True)
        link.symlink_to(name)
        link.replace(self.folder / "latest.pth")
        between = [file for _, file in self.files() if file.name.startswith("step_")]
        for file in between[self.keep :]:
            file.unlink(missing_ok=True)
        return path


class FolderLock:
    """Keeps two runs out of one folder; the lock ends with the process, however that ends.

    Parameters
    ----------
    folder : of the run; made if need be
    wanted : False for ranks that do not write
    wait_s : how long to wait for the ranks of a killed run to end

    Raises
    ------
    MismatchError : if another run has it
    """

    def __init__(self, folder: Path, wanted: bool = True, wait_s: float = 15.0) -> None:
        self._folder, self._wanted, self._wait_s = folder, wanted, wait_s
        self._handle: int | None = None

    def __enter__(self) -> FolderLock:
        if not self._wanted:
            return self
        self._folder.mkdir(parents=True, exist_ok=True)
        self._handle = os.open(self._folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
        deadline = time.monotonic() + self._wait_s
        while True:
            try:
                fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    self.__exit__()
                    raise MismatchError(
                        f"{self._folder}: another process trains in this folder; wait for it, or "
                        "give another --out"
                    ) from None
                time.sleep(0.2)
            else:
                return self

    def __exit__(self, *_: object) -> None:
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


class Due:
    """When to write a checkpoint.

    Parameters
    ----------
    every : steps between two; 0: none for that reason
    minutes : age of the last one at which the next is wished for; 0: never
    steps_per_epoch : one is due at the end of every epoch
    clock : seconds
    """

    WISH = 1  # smaller than the number of a signal that ends a run

    def __init__(
        self,
        every: int,
        minutes: float,
        steps_per_epoch: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.every, self.age_s, self.steps_per_epoch = every, minutes * 60, steps_per_epoch
        self._clock, self._last = clock, clock()

    def wish(self) -> int:
        """`WISH` if the last checkpoint is old; all ranks must agree before they act on it."""
        return self.WISH if self.age_s and self._clock() - self._last >= self.age_s else 0

    def after(self, step: int) -> bool:
        """Whether one is due after so many steps, whatever the time."""
        return step % self.steps_per_epoch == 0 or (self.every > 0 and step % self.every == 0)

    def written(self) -> None:
        """Start to wait for the next."""
        self._last = self._clock()


def same_config(path: Path, then: str, now: str, free: Collection[str]) -> None:
    """Compare a checkpoint's configuration with that of the run that wants to go on from it.

    Parameters
    ----------
    path : of the checkpoint, for the message
    then, now : dumped configurations
    free : dotted keys that may differ, with all below them

    Raises
    ------
    MismatchError : listing what differs
    """
    before, after = strict.flat(then), strict.flat(now)
    differing = [
        f"{key} was {before.get(key)!r}, now {after.get(key)!r}"
        for key in {**before, **after}
        if before.get(key) != after.get(key)
        and not any(key == one or key.startswith(f"{one}.") for one in free)
    ]
    if differing:
        raise MismatchError(
            f"{path} is of another configuration: {'; '.join(differing)}; give another --out, or "
            "the same configuration"
        )


def random_state(device: torch.device) -> dict[str, torch.Tensor]:
    """Torch's random numbers of this process."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def set_random(state: Mapping[str, torch.Tensor], device: torch.device) -> None:
    """Restore `random_state`, as far as it was of a device of this type."""
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)


def _sync_folder(folder: Path) -> None:
    """Make a rename last through a power failure."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
