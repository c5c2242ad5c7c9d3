"""Bytes kept on disk between runs, shared by all processes of a machine without locks.

Beside each other lie, for every shard, a sparse file with the bytes that came, at the offsets that
they have in the shard, and a sparse file of sums: 16 bytes for each 512 of the shard with offset,
size and CRC-32C of the entry that begins there. Bytes are written before their sum, so what a
killed process or a power failure leaves is an entry whose sum is not right: a miss, no more. Two
processes that write the same entry write the same bytes. (One file an entry would cost eleven
times the CPU.)

Pairs are drawn from all over the data, so no entry is likelier to be read again than another: when
the cache is full, what other data left there is removed, and then nothing more is added. Data that
a running process uses stay: it holds a shared lock on a file beside them, which ends with it, and
who removes them needs that file's exclusive lock.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import shutil
import struct
import threading
import time
from collections import OrderedDict
from pathlib import Path

from shards.parts import crc32c
from shards.storage import Range

__all__ = ["ShardCache", "default_cache_dir"]

_SUM = struct.Struct("<QII")  # offset, size, CRC-32C
_SLOT_BYTES = 512  # entries of tars begin at multiples of it
_OPEN_SHARDS = 128
_LOCK_S = 10.0  # longest wait for a process that removes the same data just now
_LOG = logging.getLogger("siamstream.cache")


def default_cache_dir() -> Path:
    """``$XDG_CACHE_HOME/siamstream``, or ``~/.cache/siamstream``."""
    parent = os.environ.get("XDG_CACHE_HOME")
    return (Path(parent) if parent else Path.home() / ".cache") / "siamstream"


class ShardCache:
    """See the module. Safe to use by many threads and processes.

    Parameters
    ----------
    folder : of the cache, which holds those of all data
    limit_bytes : that all of it may take on disk, 0 for no cache; kept by up to eight processes
        that write at once, each one more may exceed it by 1/256
    """

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self._folder, self._limit = folder / "shards", limit_bytes
        self._reads = self._writes = limit_bytes > 0
        self._files: OrderedDict[tuple[str, str], _Files] = OrderedDict()
        self._lock = threading.Lock()
        self._locks: dict[str, _Use] = {}
        self._left = 0  # bytes to write before the folder is looked at again

    @property
    def writes(self) -> bool:
        """Whether entries are still added: not once the cache is full or the disk refused one."""
        return self._writes

    def use(self, data: str) -> None:
        """Tell that this process reads some data; others are removed first when it gets narrow.

        Parameters
        ----------
        data : what the content of its files depends on, as the SHA-256 of an index with its CRCs
        """
        if self._writes:
            try:
                if data not in self._locks:
                    self._locks[data] = _Use(self._lock_of(data))
                (self._folder / data).mkdir(parents=True, exist_ok=True)
                os.utime(self._folder / data)
            except OSError as error:
                self._give_up(error)

    def _lock_of(self, data: str) -> Path:
        return self._folder.parent / "locks" / data

    def has(self, data: str, one: Range) -> bool:
        """Tell whether there is an entry of a range; whether its bytes are right, `read` tells."""
        files = self._opened(data, one.file, write=False)
        return files is not None and _sum(files, one) is not None

    def read(self, data: str, one: Range) -> memoryview | None:
        """Bytes of a range; None if there are none, or they are damaged."""
        files = self._opened(data, one.file, write=False)
        if files is None:
            return None
        crc = _sum(files, one)
        if crc is None:
            return None
        try:
            found = memoryview(os.pread(files.data, one.size, one.offset))
        except OSError:
            return None
        return found if len(found) == one.size and crc32c(found) == crc else None

    def write(self, data: str, one: Range, content: memoryview) -> None:
        """Keep the bytes of a range; where the disk refuses, a warning says so, once."""
        if not self._writes:
            return
        try:
            self._make_room(one.size)
            files = self._opened(data, one.file, write=True) if self._writes else None
            if files is not None:
                total = _SUM.pack(one.offset, one.size, crc32c(content))
                _write_at(files.data, content, one.offset)
                _write_at(files.sums, total, one.offset // _SLOT_BYTES * _SUM.size)
        except OSError as error:
            self._give_up(error)

    def forget(self, data: str, one: Range) -> None:
        """Remove the entry of a range, if there is one."""
        files = self._opened(data, one.file, write=False)
        if files is not None and self._writes and _sum(files, one) is not None:
            try:
                _write_at(files.sums, bytes(_SUM.size), one.offset // _SLOT_BYTES * _SUM.size)
            except OSError as error:
                self._give_up(error)

    def _opened(self, data: str, file: str, write: bool) -> _Files | None:
        """Bytes and sums of a file; None if there are none, or for a file in a folder.

        Crops that are files of their own are not kept: each would be two files here.
        """
        if not self._reads or "/" in file:
            return None
        with self._lock:
            files = self._files.get((data, file))
            if files is not None:
                self._files.move_to_end((data, file))
                return files
        flags = os.O_RDWR if self._writes else os.O_RDONLY
        try:
            if write:  # also where somebody has removed the folder
                (self._folder / data).mkdir(parents=True, exist_ok=True)
            files = _Files(f"{self._folder}/{data}/{file}", flags | (os.O_CREAT if write else 0))
        except OSError:
            if write:
                raise
            return None
        with self._lock:
            self._files[data, file] = files
            while len(self._files) > _OPEN_SHARDS:
                self._files.popitem(last=False)  # closed once no thread uses it
        return files

    def close(self) -> None:
        """Let go of the files, and of the data: others may remove them."""
        with self._lock:
            self._files.clear()
            self._locks.clear()

    def _make_room(self, size: int) -> None:
        """Keep the limit: now and then look what is there, and remove what other data left."""
        with self._lock:
            self._left -= size
            if self._left >= 0:
                return
            full = self._limit - self._limit // 32
            held = _sizes(self._folder)
            for name, _ in sorted(held.items(), key=lambda item: item[1][1]):
                if sum(one for one, _ in held.values()) < full:
                    break
                if _remove_unused(self._folder / name, self._lock_of(name)):
                    del held[name]
            total = sum(one for one, _ in held.values())
            self._left = max(self._limit // 256, (full - total) // 16)
            if total < full:
                return
            self._writes = False
        _LOG.warning(
            "%s: the cache of remote data is full with %.1f GB: what is there is used, nothing is "
            "added (data.remote.cache_gb)",
            self._folder.parent,
            total / 1e9,
        )

    def _give_up(self, error: OSError) -> None:
        with self._lock:
            first, self._writes = self._writes, False
        if first:
            _LOG.warning(
                "%s: nothing more is kept in the cache of remote data: %s; going on without "
                "(free some space, or set data.remote.cache_dir and cache_gb)",
                self._folder.parent,
                error.strerror or type(error).__name__,
            )


class _Files:
    """Descriptors of a shard's bytes and sums, closed when nobody uses them any more."""

    __slots__ = ("data", "sums")

    def __init__(self, path: str, flags: int) -> None:
        self.data = self.sums = -1
        self.data = os.open(path, flags, 0o644)
        self.sums = os.open(f"{path}.sum", flags, 0o644)

    def __del__(self) -> None:
        for descriptor in (self.data, self.sums):
            if descriptor >= 0:
                os.close(descriptor)


class _Use:
    """The shared lock of data, until nobody refers to it or the process ends."""

    __slots__ = ("_descriptor",)

    def __init__(self, path: Path) -> None:
        self._descriptor = -1
        path.parent.mkdir(parents=True, exist_ok=True)
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        until = time.monotonic() + _LOCK_S
        while True:
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.01)
            except OSError:  # a file system without locks: nobody can remove anything either
                return
            else:
                return

    def __del__(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)


def _remove_unused(folder: Path, lock: Path) -> bool:
    """Remove data, unless a process uses them; tell whether they are gone."""
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        with lock.open("ab") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
    except OSError:  # in use, or there is nothing that could tell
        return False
    return not folder.exists()


def _sum(files: _Files, one: Range) -> int | None:
    """CRC of the entry of a range, if there is one."""
    try:
        found = os.pread(files.sums, _SUM.size, one.offset // _SLOT_BYTES * _SUM.size)
    except OSError:
        return None
    if len(found) != _SUM.size:
        return None
    offset, size, crc = _SUM.unpack(found)
    return int(crc) if (offset, size) == (one.offset, one.size) else None


def _write_at(descriptor: int, content: memoryview | bytes, offset: int) -> None:
    if os.pwrite(descriptor, content, offset) != len(content):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _sizes(folder: Path) -> dict[str, tuple[int, float]]:
    """Bytes on disk, and time of the last use, of the data below a folder."""
    found = {}
    for child in os.scandir(folder):
        try:
            files = [one.stat() for one in os.scandir(child.path)]
            found[child.name] = (sum(one.st_blocks * 512 for one in files), child.stat().st_mtime)
        except (FileNotFoundError, NotADirectoryError):
            continue  # removed by another process
    return found
