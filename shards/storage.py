"""Byte ranges in: a `Storage` returns the bytes of ranges of named files.

It is told in advance which ranges will be needed. The way out, files that appear only when they are
whole, is `shards.sink`; a folder's can be imported from here too.

`LocalStorage` reads with ``pread``, not through a memory map. The page cache is shared by all
processes of a machine either way and the cost is the same (a copy of 35 KB against nine page
faults), but a map of a file that is cut short under a running process kills it with SIGBUS; a read
is merely too short, and that is an error which can name the sample.
"""

from __future__ import annotations

import os
import resource
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

from shards.errors import MissingBytes, StorageError
from shards.format import check_crop_file
from shards.sink import FolderSink, storage_error

__all__ = [
    "FolderSink",
    "Forgetting",
    "LocalStorage",
    "MemoryStorage",
    "Range",
    "Refetching",
    "Storage",
    "storage_error",
]

_PRELOAD_BLOCK = 16 << 20


class Range(NamedTuple):
    """A run of bytes in one file of a storage."""

    file: str
    offset: int
    size: int


class Storage(Protocol):
    """What every source of bytes offers."""

    def size(self, file: str) -> int:
        """Size of a file in bytes."""

    def read_many(self, ranges: Sequence[Range]) -> list[memoryview]:
        """Bytes of each range, in order. Valid at least as long as they are referenced."""

    def will_need(self, ranges: Sequence[Range]) -> None:
        """Tell that these ranges will be read soon."""


@runtime_checkable
class Refetching(Protocol):
    """A storage whose bytes may have been damaged on their way, or where they were kept."""

    def refetch(self, one: Range) -> memoryview:
        """Bytes of a range once more, from where they come from."""


@runtime_checkable
class Forgetting(Protocol):
    """A storage that keeps something for what it was told would be needed."""

    def forget(self, ranges: Sequence[Range]) -> None:
        """Take back what `will_need` was told once for each: nobody will read them."""


class _Open:
    """A file that is open for reading; closed when the last who reads it lets go of it."""

    __slots__ = ("fd", "stat")

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.stat = os.fstat(fd)

    def __del__(self) -> None:
        os.close(self.fd)


def _may_open() -> int:
    """Files that one storage keeps open: an eighth of what the process may, at most 1,024."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 1024 if soft == resource.RLIM_INFINITY else max(1, min(1024, soft // 8))


class LocalStorage:
    """Files of one folder: all processes of a machine share the page cache.

    Parameters
    ----------
    folder : the data set's folder
    max_open : files kept open at once, the least recently used are closed first; 0: an eighth of
        what the process may open, at most 1,024
    """

    def __init__(self, folder: Path, max_open: int = 0) -> None:
        self._folder = folder
        self._max_open = max_open or _may_open()
        self._files: OrderedDict[str, _Open] = OrderedDict()
        self._lock = threading.Lock()

    def _file(self, name: str) -> _Open:
        with self._lock:
            found = self._files.get(name)
            if found is not None:
                self._files.move_to_end(name)
                return found
        path = self._folder / check_crop_file(name)
        try:
            found = _Open(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
        except FileNotFoundError as error:
            reason = "cannot be read: it is not there"
            raise MissingBytes(f"{path}: {reason}", reason) from error
        except OSError as error:
            raise _unreadable(path, error) from error
        # Pairs are drawn at random: what follows a range is not wanted.
        os.posix_fadvise(found.fd, 0, 0, os.POSIX_FADV_RANDOM)
        with self._lock:  # not while opening, which a slow storage may make long
            self._files[name] = found
            while len(self._files) > self._max_open:
                self._files.popitem(last=False)
        return found

    def size(self, file: str) -> int:
        """Size of a file in bytes."""
        opened = self._file(file)  # held, so that nobody closes it meanwhile
        return os.fstat(opened.fd).st_size

    def read_many(self, ranges: Sequence[Range]) -> list[memoryview]:
        """Copies of the ranges.

        Raises
        ------
        MissingBytes : if a file is absent or shorter than a range needs
        StorageError : if it cannot be read
        """
        return [memoryview(self._read(one)) for one in ranges]

    def _read(self, one: Range) -> bytes:
        file, end = self._file(one.file), one.offset + one.size
        _check(self._folder, one)
        data = b""
        try:
            # A size that is far too large must not be asked for: it would be allocated first.
            if end <= file.stat.st_size:
                data = os.pread(file.fd, one.size, one.offset)
                while len(data) < one.size:  # a read may be interrupted
                    more = os.pread(file.fd, one.size - len(data), one.offset + len(data))
                    if not more:
                        break
                    data += more
            if len(data) < one.size:
                raise _too_short(self._folder, one, os.fstat(file.fd).st_size)
        except OSError as error:
            raise _unreadable(self._folder / one.file, error) from error
        return data

    def will_need(self, ranges: Sequence[Range]) -> None:
        """Ask the kernel to read these ranges ahead; what is wrong is told to who reads them."""
        for one in ranges:
            with suppress(StorageError, OSError):
                opened = self._file(one.file)  # held, so that nobody closes it meanwhile
                os.posix_fadvise(opened.fd, one.offset, one.size, os.POSIX_FADV_WILLNEED)

    def close(self) -> None:
        """Close the files that nobody reads just now; a later read opens its file again."""
        with self._lock:
            self._files.clear()

    def changed(self, file: str) -> str:
        """What has happened to a file while it was open, in words; empty if nothing shows."""
        with self._lock:
            opened = self._files.get(file)
        path = self._folder / check_crop_file(file)
        try:
            now = path.stat()
        except OSError as error:
            return f"the file is gone: {error.strerror}"
        if opened is None:
            return ""
        then = opened.stat
        if (now.st_dev, now.st_ino) != (then.st_dev, then.st_ino):
            return "another file has taken its place since it was opened"
        if (now.st_size, now.st_mtime_ns) != (then.st_size, then.st_mtime_ns):
            return "the file was written to since it was opened"
        return ""


class MemoryStorage:
    """Whole files, read once into this process's memory: the published recipe's way with zips.

    Any form of a data set may be read so. Threads share the bytes, processes do not.

    Parameters
    ----------
    folder : the data set's folder
    files : names of its files
    heard : called whenever some bytes have come

    Raises
    ------
    MissingBytes : if a file is absent
    StorageError : if it cannot be read
    """

    def __init__(
        self, folder: Path, files: Iterable[str], heard: Callable[[], None] = lambda: None
    ) -> None:
        self._folder = folder
        self._data = {name: self._whole(folder / check_crop_file(name), heard) for name in files}

    @staticmethod
    def _whole(path: Path, heard: Callable[[], None]) -> memoryview:
        try:
            with path.open("rb", buffering=0) as handle:
                data = memoryview(bytearray(os.fstat(handle.fileno()).st_size))
                done = 0
                while done < len(data):
                    read = handle.readinto(data[done : done + _PRELOAD_BLOCK])
                    if not read:
                        raise MissingBytes(f"{path}: cut short while it was read, at byte {done}")
                    done += read
                    heard()
                return data.toreadonly()
        except FileNotFoundError as error:
            reason = "cannot be read: it is not there"
            raise MissingBytes(f"{path}: {reason}", reason) from error
        except OSError as error:
            raise _unreadable(path, error) from error

    def _file(self, name: str) -> memoryview:
        found = self._data.get(name)
        if found is None:
            path = self._folder / check_crop_file(name)
            raise MissingBytes(f"{path}: not one of the {len(self._data):,} files in memory")
        return found

    def size(self, file: str) -> int:
        """Size of a file in bytes."""
        return len(self._file(file))

    def read_many(self, ranges: Sequence[Range]) -> list[memoryview]:
        """Views of the files in memory; errors as those of `LocalStorage`."""
        return [self._view(one) for one in ranges]

    def _view(self, one: Range) -> memoryview:
        data = self._file(one.file)
        _check(self._folder, one)
        if one.offset + one.size > len(data):
            raise _too_short(self._folder, one, len(data))
        return data[one.offset : one.offset + one.size]

    def will_need(self, ranges: Sequence[Range]) -> None:
        """Nothing: all of it is there."""

    def close(self) -> None:
        """Let go of the memory, but for what somebody still refers to."""
        self._data = {}


def _check(folder: Path, one: Range) -> None:
    if one.offset < 0 or one.size < 0:
        raise StorageError(f"{folder / one.file}: no range: {one.size} bytes from {one.offset} on")


def _too_short(folder: Path, one: Range, size: int) -> MissingBytes:
    reason = (
        f"bytes {one.offset} to {one.offset + one.size} are needed, the file has {size}; it is "
        "truncated or of another packing"
    )
    return MissingBytes(
        f"{folder / one.file}: {reason}: run 'python -m shards verify' on its folder", reason
    )


def _unreadable(path: Path, error: OSError) -> StorageError:
    return StorageError(f"{path}: cannot be read: {error.strerror or error}")
