"""Files that appear only when they are whole: a `Sink`, and the folder that is one.

`shards.bucket` has the other one, a prefix of a bucket.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
import shutil
import socket
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import BinaryIO, Protocol

from shards.atomic import commit, sync_folder
from shards.errors import MismatchError, StorageError
from shards.format import check_file_name

__all__ = ["FolderSink", "Sink", "machine", "sink_at", "sink_of", "storage_error"]


class Sink(Protocol):
    """A place where files appear only when they are whole. Small and picklable.

    ``str(sink)`` is the place as a user writes it.
    """

    def create(self, name: str) -> AbstractContextManager[BinaryIO]:
        """Open a file for writing and reading; on a clean exit it appears under its name."""

    def write(self, name: str, data: bytes) -> None:
        """Write a whole small file, in place of one of that name."""

    def write_new(self, name: str, data: bytes) -> bool:
        """Write a whole small file unless there is one of that name; say whether it was written."""

    def read(self, name: str) -> bytes | None:
        """Content of a file, or None if there is none of that name."""

    def sizes(self) -> dict[str, int]:
        """Sizes in bytes of the whole files, by name."""

    def entries(self) -> list[str]:
        """Names of everything that lies here but unfinished files, folders too, sorted."""

    def exists(self) -> bool:
        """Tell whether the place was made."""

    def remove(self, names: Iterable[str]) -> None:
        """Remove files; those that are not there are passed over."""

    def remove_all(self) -> None:
        """Remove everything that lies here, and the place itself."""

    def child(self, name: str) -> Sink:
        """Return a place below this one."""

    def hold(self, name: str, *, shared: bool) -> AbstractContextManager[bool]:
        """Keep other writers out, as far as this place can; gives whether it does."""

    def clean(self) -> None:
        """Remove what killed writers left; never what a living one is writing."""


class FolderSink:
    """A folder whose files appear only when they are complete.

    A file that is being written is called ``.part-<machine>-<process>-<random>-<name>`` and locked
    by its writer, so that `clean` can tell what a killed one left: on this machine (one kernel,
    whatever the container) the lock is gone; of other machines, whose locks may not be seen here,
    only what nobody has written to for an hour is taken as left.

    Parameters
    ----------
    folder : made when the first file is written
    """

    _MARK = ".part-"
    _OWNED = re.compile(r"\.part-([0-9a-f]{12})-[0-9]+-[0-9a-f]{8}-")
    _ABANDONED_S = 3600.0

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __str__(self) -> str:
        return str(self.folder)

    def _make(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise storage_error(error, self.folder) from error

    @contextmanager
    def create(self, name: str) -> Iterator[BinaryIO]:
        """Write a file under a temporary name; on a clean exit sync it and give it its own name.

        On an exception the temporary file is removed. Opened for reading too, so that it can be
        checked before it is committed. Of several writers of one name the last one wins.
        """
        final = self.folder / check_file_name(name)
        with self._temporary(final) as (temporary, handle):
            yield handle
            commit(handle, temporary, final)

    @contextmanager
    def _temporary(self, final: Path) -> Iterator[tuple[Path, BinaryIO]]:
        """Open a file under a name of its own, removed at the end if it is still there."""
        self._make()
        temporary = None
        try:
            temporary, handle = self._open(final.name)
            with handle:  # locked until the rename is done
                yield temporary, handle
        except OSError as error:
            raise storage_error(error, final) from error
        finally:
            if temporary is not None:
                with suppress(FileNotFoundError):
                    temporary.unlink()

    def _open(self, name: str) -> tuple[Path, BinaryIO]:
        while True:
            owner = f"{machine()}-{os.getpid()}-{os.urandom(4).hex()}"
            temporary = self.folder / f"{self._MARK}{owner}-{name}"
            handle = temporary.open("x+b")
            with suppress(OSError):  # where there are no locks, `clean` goes by time alone
                fcntl.flock(handle, fcntl.LOCK_EX)
            if os.fstat(handle.fileno()).st_nlink:
                return temporary, handle
            handle.close()  # `clean` of another process came between opening and locking it

    def write(self, name: str, data: bytes) -> None:
        """Write a whole small file."""
        with self.create(name) as handle:
            handle.write(data)

    def write_new(self, name: str, data: bytes) -> bool:
        """Write a whole small file unless there is one of that name.

        Raises
        ------
        StorageError : if it cannot be written, or the file system has no hard links
        """
        final = self.folder / check_file_name(name)
        with self._temporary(final) as (temporary, handle):
            handle.write(data)
            handle.flush()
            os.fsync(handle.fileno())
            try:
                final.hardlink_to(temporary)
            except FileExistsError:
                return False
            except OSError as error:
                if error.errno in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK):
                    raise StorageError(
                        f"{final}: this file system has no hard links, which keep machines that "
                        "begin a folder at once apart; give an --out on another one"
                    ) from error
                raise
            sync_folder(self.folder)
        return True

    def read(self, name: str) -> bytes | None:
        """Content of a file, or None if there is none of that name."""
        path = self.folder / check_file_name(name)
        try:
            return path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StorageError(f"{path}: cannot be read: {error.strerror or error}") from error

    def sizes(self) -> dict[str, int]:
        """Sizes of the whole files; listing them makes a network file system look again."""
        found = {}
        for one in self._list():
            with suppress(FileNotFoundError):  # removed in between
                if one.is_file():
                    found[one.name] = one.stat().st_size
        return found

    def entries(self) -> list[str]:
        """Names of all files and folders but unfinished files, sorted."""
        return sorted(one.name for one in self._list())

    def _list(self) -> list[os.DirEntry[str]]:
        try:
            with os.scandir(self.folder) as found:
                return [one for one in found if not one.name.startswith(self._MARK)]
        except FileNotFoundError:
            return []
        except NotADirectoryError as error:
            raise MismatchError(f"{self.folder} is a file; give a folder with --out") from error
        except OSError as error:
            raise StorageError(f"{self.folder}: cannot be listed: {error.strerror}") from error

    def exists(self) -> bool:
        """Tell whether the folder is there."""
        return self.folder.exists()

    def remove(self, names: Iterable[str]) -> None:
        """Remove files for good; those that are not there are passed over."""
        try:
            for name in names:
                (self.folder / check_file_name(name)).unlink(missing_ok=True)
            if self.folder.is_dir():
                sync_folder(self.folder)
        except OSError as error:
            raise storage_error(error, self.folder) from error

    def remove_all(self) -> None:
        """Remove the folder with everything in it."""
        try:
            if self.folder.exists():
                shutil.rmtree(self.folder)
        except OSError as error:
            raise storage_error(error, self.folder) from error

    def child(self, name: str) -> FolderSink:
        """Return a folder in this one."""
        return FolderSink(self.folder / name)

    @contextmanager
    def hold(self, name: str, *, shared: bool) -> Iterator[bool]:
        """Lock the folder by a file in it, against those that hold it in the other way.

        Processes of one machine see it; those of others where the file system passes locks on.

        Parameters
        ----------
        name : of the file
        shared : together with others that share it; otherwise alone

        Returns
        -------
        whether all other writers that hold it are kept out

        Raises
        ------
        StorageError : if others hold it, or the file system gives no locks and it is to be alone
        """
        self._make()
        try:
            lock = os.open(self.folder / name, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise storage_error(error, self.folder) from error
        where = self.folder.parent if self.folder.name.startswith(".") else self.folder
        try:
            try:
                fcntl.flock(lock, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise StorageError(
                    f"{where}: another packer is at work in this folder; wait for it, "
                    "or give another --out"
                ) from error
            except OSError as error:
                if not shared:  # who shares only keeps out those that would be alone
                    raise StorageError(
                        f"{where}: this file system gives no locks ({error.strerror}), so two "
                        "packers could meet; give an --out on another one"
                    ) from error
            yield not shared
        finally:
            os.close(lock)

    def clean(self) -> None:
        """Remove what killed writers left; never what a living one is writing."""
        for leftover in self.folder.glob(f"{self._MARK}*"):
            try:
                with leftover.open("rb") as handle:
                    if self._abandoned(leftover.name, handle):
                        leftover.unlink(missing_ok=True)
            except FileNotFoundError:
                continue  # finished or removed in between
            except OSError as error:
                raise storage_error(error, leftover) from error

    def _abandoned(self, name: str, handle: BinaryIO) -> bool:
        """Tell whether nobody writes an unfinished file; holds its lock from then on."""
        owned = self._OWNED.match(name)
        if owned is None:
            return True  # no writer calls its files so
        seen = True
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:
            seen = False
        if seen and owned[1] == machine():
            return True
        return self._now_s() - os.fstat(handle.fileno()).st_mtime > self._ABANDONED_S

    def _now_s(self) -> float:
        """Time by the clock of the file system, which all machines share."""
        with self._temporary(self.folder / "clock") as (_, handle):
            os.utime(handle.fileno())
            return os.fstat(handle.fileno()).st_mtime


@cache
def machine() -> str:
    """Twelve hexadecimal digits of this kernel since it was started, equal in its containers."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().replace("-", "")[:12]
    except OSError:  # no Linux: the name of the machine must do
        return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:12]


def sink_of(where: Path | Sink) -> Sink:
    """Sink of a folder; a sink is returned as it is."""
    return FolderSink(where) if isinstance(where, Path) else where


def sink_at(place: str | Path) -> Sink:
    """Sink of a place as a user gives it: a folder, or ``s3://bucket/prefix``.

    Raises
    ------
    StorageError : if it is a URL of another kind
    """
    text = str(place)
    if text.startswith("s3://"):
        from shards.bucket import BucketSink

        return BucketSink(text)
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*:/", text):
        raise StorageError(f"{text}: neither a folder nor s3://bucket/prefix")
    return FolderSink(Path(text))


def storage_error(error: OSError, path: Path) -> StorageError:
    """Turn an `OSError` of a write into one sentence that says what to do."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        advice = "the disk or quota is full: free some space and run the same command again"
    elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        advice = "no permission to write there"
    else:
        advice = error.strerror or type(error).__name__
    return StorageError(f"{path}: could not be written: {advice}")
