"""One run at a time in a folder."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from pathlib import Path

import click

from shards.errors import MismatchError

__all__ = ["FolderLock"]

NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EINVAL)  # as some clusters mount disks


class FolderLock:
    """Keeps two runs out of one folder; the lock ends with the process, however that ends.

    Where the file system has no locks this is said, and the run goes on without.

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
        while not self._locked(self._handle):
            if time.monotonic() > deadline:
                self.__exit__()
                raise MismatchError(
                    f"{self._folder}: another process trains in this folder; wait for it, or "
                    "give another --out"
                )
            time.sleep(0.2)
        return self

    def _locked(self, handle: int) -> bool:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            click.echo(
                f"Warning: {self._folder}: no locks on this file system ({error.strerror}): make "
                "sure that no other run is started in this folder",
                err=True,
            )
        return True

    def __exit__(self, *_: object) -> None:
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None
