"""One checkpoint in a file: written whole or not at all, read without executing anything.

It is a dictionary of tensors and plain values; its ``state_dict`` holds the model under the
published names, so it also serves as weights. `tracker.training.run_folder` says which ones a run
has, `tracker.training.resume` what they hold.
"""

from __future__ import annotations

import errno
import stat
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch

from shards.atomic import replace_file
from shards.errors import SiamstreamError
from tracker import weights

__all__ = ["CheckpointError", "NotRead", "NotWritten", "Unreadable", "check", "read", "write"]

FORMAT = 1
KEYS = ("meta", "state_dict", "stepper", "loader", "ranks")
PARTIAL = ".checkpoint.partial"  # one name, so that killed runs leave one such file at most
AGAIN_S = 1.0  # until a file that the system did not let us read is tried once more


class CheckpointError(SiamstreamError):
    """A checkpoint cannot be read or written, or is of another kind of run."""


class Unreadable(CheckpointError):
    """A checkpoint is missing or damaged.

    Parameters
    ----------
    path : of the checkpoint
    problem : what is wrong with it
    advice : what to try, if it is the one that was asked for

    Attributes
    ----------
    problem : with the path, without the advice
    """

    def __init__(self, path: Path, problem: str, advice: str = "") -> None:
        self.problem = f"{path}: {problem}"
        super().__init__(f"{self.problem}; {advice}" if advice else self.problem)


class NotRead(CheckpointError):
    """The system did not let us read a checkpoint, which may be whole."""

    def __init__(self, path: Path, cause: Exception) -> None:
        why = cause.strerror if isinstance(cause, OSError) else "there is not enough memory"
        super().__init__(
            f"{path}: cannot be read: {why or cause}; it may be whole, so nothing is done without "
            "it: start the same command again when it can be read, or move it away"
        )


class NotWritten(CheckpointError):
    """The disk did not take a checkpoint.

    Parameters
    ----------
    problem : what could not be written, and what the system said
    number : of the system's error
    """

    def __init__(self, problem: str, number: int | None) -> None:
        super().__init__(problem)
        self.number = number

    def __reduce__(self) -> tuple[type[NotWritten], tuple[str, int | None]]:
        """Make the error survive the way to other processes."""
        return NotWritten, (str(self), self.number)

    def because(self, consequence: str) -> NotWritten:
        """Return the same error that says what follows from it."""
        return NotWritten(f"{self}; {consequence}", self.number)

    def advice(self) -> str:
        """What to try."""
        match self.number:
            case errno.ENOSPC | errno.EDQUOT:
                return "free some space there, or raise the quota"
            case errno.EFBIG:
                return "raise the limit on the size of files (ulimit -f)"
            case errno.EROFS:
                return "mount that file system for writing again"
            case errno.EACCES | errno.EPERM:
                return "allow writing there"
        return "look after that disk"


class _Watched:
    """A file that keeps the error of a write, which torch reports as one of its own."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        try:
            return self._file.write(data)
        except OSError as error:
            self.error = self.error or error
            raise

    def flush(self) -> None:
        self._file.flush()


def write(path: Path, state: Mapping[str, Any]) -> None:
    """Write a checkpoint under its name only when all of it is on disk.

    Parameters
    ----------
    path : final name; a file that is there is replaced
    state : `KEYS`, of tensors, numbers, texts, lists and dictionaries

    Raises
    ------
    NotWritten : if the disk does not take it; the earlier checkpoints stay, nothing else does
    """
    watched: list[_Watched] = []

    def put(file: BinaryIO) -> None:
        watched.append(_Watched(file))
        torch.save({"format": FORMAT, **state}, watched[0])  # type: ignore[arg-type]

    try:
        replace_file(path, put, PARTIAL)
    except OSError as error:
        raise _not_written(path, error) from error
    except RuntimeError as error:
        cause = watched[0].error if watched else None
        if cause is None:
            raise
        raise _not_written(path, cause) from error


def _not_written(path: Path, cause: OSError) -> NotWritten:
    said = cause.strerror or str(cause)
    return NotWritten(f"{path}: this checkpoint could not be written: {said}", cause.errno)


def read(path: Path) -> dict[str, Any]:
    """Read a checkpoint to the CPU; tensors and plain values only (``weights_only``).

    Raises
    ------
    Unreadable : if it is missing or damaged
    NotRead : if the system does not let us read it, twice
    CheckpointError : if it is not a checkpoint of this program
    """
    state = _whole(path, lambda: torch.load(path, map_location="cpu", weights_only=True))
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


def check(path: Path) -> None:
    """Compare the checksums in a checkpoint, without loading it; raises as `read`."""
    _whole(path, lambda: None)


def _whole(path: Path, load: Callable[[], Any]) -> Any:
    """Load a file whose checksums fit; what is no damage is tried twice."""
    for last in (False, True):
        try:
            return _load(path, load)
        except (OSError, MemoryError) as error:
            if last:
                raise NotRead(path, error) from error
            time.sleep(AGAIN_S)
    raise AssertionError("the last try returns or raises")


def _load(path: Path, load: Callable[[], Any]) -> Any:
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        gone = f": it is a link to {path.readlink()}" if path.is_symlink() else ""
        raise Unreadable(path, f"no such checkpoint{gone}") from None
    if not stat.S_ISREG(mode):
        raise Unreadable(path, "not a file", "give a file in it")
    try:
        with path.open("rb") as file:
            if file.read(2) != b"PK":  # such files have no checksums, and are none of ours
                raise ValueError("not a zip")
        weights.check_zip(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what torch guesses about a damaged file
            return load()
    except weights.UNREADABLE as error:
        if _is_no_damage(error):
            raise
        if isinstance(error, RuntimeError) and "allocate memory" in str(error):  # torch's
            raise MemoryError from error
        raise Unreadable(
            path,
            f"damaged, or not a checkpoint ({type(error).__name__})",
            "delete it and start again from the one before",
        ) from error


def _is_no_damage(error: Exception) -> bool:
    """Whether the system failed; a damaged zip lets us seek to places that no file has (EINVAL)."""
    if isinstance(error, OSError):
        return error.errno not in (errno.EINVAL, None)
    return isinstance(error, MemoryError)
