"""One run at a time in a folder."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import time
from contextlib import suppress
from pathlib import Path

from shards.console import warn
from shards.errors import MismatchError

__all__ = ["FolderLock"]

NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EINVAL)  # as some clusters mount disks

LOST_MACHINE_S = 150.0  # a file server keeps a lost machine's locks for a while: NFS for 90 s


class FolderLock:
    """Keeps two runs out of one folder; the lock ends with the process, however that ends.

    The file tells who has it: a process of another machine may be lost with its machine, and then
    the file server takes a while to notice. Where the file system has no locks this is said, and
    the run goes on without.

    Parameters
    ----------
    folder : of the run; made if need be
    wanted : False for ranks that do not write
    wait_s : how long to wait for the ranks of a killed run to end; `LOST_MACHINE_S` longer for
        those of another machine

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
        begun, told = time.monotonic(), False
        while not self._locked(self._handle):
            waited_s, (holder, elsewhere) = time.monotonic() - begun, self._holder(self._handle)
            if waited_s > self._wait_s + (LOST_MACHINE_S if elsewhere else 0):
                self.__exit__()
                raise MismatchError(
                    f"{self._folder}: {holder} trains in this folder; wait for it, or give "
                    "another --out"
                )
            if waited_s > self._wait_s and not told:
                told = True
                warn(
                    f"{self._folder}: {holder} has this folder; waiting up to "
                    f"{LOST_MACHINE_S:g} s, as its machine may be lost"
                )
            time.sleep(0.2)
        with suppress(OSError):  # on a full disk; then the next one does not know who we are
            os.ftruncate(self._handle, 0)
            os.pwrite(self._handle, f"{socket.gethostname()} {os.getpid()}".encode(), 0)
        return self

    def _holder(self, handle: int) -> tuple[str, bool]:
        """Words for whoever has the lock, and whether that is a process of another machine."""
        host, _, pid = os.pread(handle, 1000, 0).decode(errors="replace").partition(" ")
        if not pid:
            return "another process", False
        return f"process {pid} of {host}", host != socket.gethostname()

    def _locked(self, handle: int) -> bool:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            warn(
                f"{self._folder}: no locks on this file system ({error.strerror}): make "
                "sure that no other run is started in this folder"
            )
        return True

    def __exit__(self, *_: object) -> None:
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None
