"""Bytes kept on disk between runs, shared by all processes of a machine without locks.

One file an entry, ``ranges/<2 hex>/<30 hex>``: the bytes and their CRC-32C. An entry appears by a
rename, whole or not at all, so a killed process leaves at most a file in ``unfinished/``, which a
later one removes. The name says what the bytes are of; two processes that write the same entry
write the same bytes. Each of the 256 folders may hold its share of the limit: now and then a writer
lists the folder that it wrote to and removes what was not read for longest. A reader whose entry
vanishes or is damaged has missed, no more.
"""

from __future__ import annotations

import errno
import hashlib
import itertools
import logging
import os
import time
from pathlib import Path

from shards.index import crc32c

__all__ = ["RangeCache", "default_cache_dir"]

FOLDERS = 256
ABANDONED_S = 3600.0  # after so long an unfinished file belongs to a killed process
_FRESH_S = 600.0  # an entry read again within this time is not marked again
_CRC_BYTES = 4
_LOG = logging.getLogger("siamstream.cache")


def default_cache_dir() -> Path:
    """``$XDG_CACHE_HOME/siamstream``, or ``~/.cache/siamstream``."""
    parent = os.environ.get("XDG_CACHE_HOME")
    return (Path(parent) if parent else Path.home() / ".cache") / "siamstream"


class RangeCache:
    """See the module. Safe to use by many threads and processes.

    Parameters
    ----------
    folder : of the cache; made if absent
    limit_bytes : that all entries together may take, 0 for no cache. Up to four processes that
        write keep it; each one more may exceed it by a sixteenth for a while
    """

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self._ranges, self._unfinished = folder / "ranges", folder / "unfinished"
        self._share = limit_bytes // FOLDERS
        self._reads = self._writes = limit_bytes > 0
        self._number = itertools.count()
        self._left = [0] * FOLDERS  # bytes to write before the folder is looked at again
        if self._writes:
            try:
                for number in range(FOLDERS):
                    (self._ranges / f"{number:02x}").mkdir(parents=True, exist_ok=True)
                self._unfinished.mkdir(exist_ok=True)
                _remove_abandoned(self._unfinished)
            except OSError as error:
                self._give_up(error)

    @property
    def writes(self) -> bool:
        """Whether entries are still kept: not without a limit, nor after the disk refused one."""
        return self._writes

    @staticmethod
    def name(data: str, file: str, offset: int, size: int) -> str:
        """Name of an entry.

        Parameters
        ----------
        data : what the file's content depends on, such as the SHA-256 of an index with its CRCs
        file, offset, size : the range
        """
        text = f"{data}\0{file}\0{offset}\0{size}"
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    def _path(self, name: str) -> str:
        return f"{self._ranges}/{name[:2]}/{name[2:]}"

    def has(self, name: str, size: int) -> bool:
        """Tell whether there is an entry of that size, and mark it as wanted."""
        if not self._reads:
            return False
        path = self._path(name)
        try:
            found = os.stat(path)  # noqa: PTH116 (a Path costs more than the call)
            if found.st_mtime < time.time() - _FRESH_S and self._writes:
                os.utime(path)
        except OSError:
            return False
        return found.st_size == size + _CRC_BYTES

    def read(self, name: str, size: int) -> memoryview | None:
        """Bytes of an entry; None if there is none, or it was damaged and is removed."""
        if not self._reads:
            return None
        try:
            with open(self._path(name), "rb", buffering=0) as handle:  # noqa: PTH123
                data = memoryview(handle.read(size + _CRC_BYTES + 1))
        except OSError:
            return None
        if len(data) == size + _CRC_BYTES:
            content = data[:size]
            if crc32c(content) == int.from_bytes(data[size:], "little"):
                return content
        self.forget(name)
        return None

    def forget(self, name: str) -> None:
        """Remove an entry, if it is there."""
        try:
            os.unlink(self._path(name))  # noqa: PTH108
        except FileNotFoundError:
            return
        except OSError as error:
            self._give_up(error)

    def write(self, name: str, data: memoryview) -> None:
        """Keep bytes. Where the disk refuses, a warning says so once, and nothing more is kept."""
        if not self._writes or len(data) + _CRC_BYTES > self._share:
            return
        part = f"{self._unfinished}/{name}.{os.getpid()}.{next(self._number)}.part"
        try:
            try:
                with open(part, "wb", buffering=0) as handle:  # noqa: PTH123
                    if os.writev(handle.fileno(), [data, _crc_bytes(data)]) != len(data) + 4:
                        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os.rename(part, self._path(name))  # noqa: PTH104
            except OSError:
                Path(part).unlink(missing_ok=True)
                raise
            self._count(int(name[:2], 16), len(data) + _CRC_BYTES)
        except OSError as error:
            self._give_up(error)

    def _count(self, number: int, size: int) -> None:
        self._left[number] -= size
        if self._left[number] < 0:
            held = _evict(f"{self._ranges}/{number:02x}", self._share)
            self._left[number] = max(self._share // 16, (self._share - held) // 4)

    def _give_up(self, error: OSError) -> None:
        if self._writes:
            self._writes = False
            _LOG.warning(
                "%s: nothing more is kept in the cache of remote data: %s; going on without "
                "(free some space, or set data.remote.cache_dir and cache_gb)",
                self._ranges.parent,
                error.strerror or type(error).__name__,
            )


def _crc_bytes(data: memoryview) -> bytes:
    return crc32c(data).to_bytes(_CRC_BYTES, "little")


def _evict(folder: str, share: int) -> int:
    """Keep a folder below its share: down to 3/4 of it where it is above. Bytes that it holds."""
    found = []
    with os.scandir(folder) as entries:
        for entry in entries:
            try:
                facts = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue  # another process removed it
            found.append((facts.st_mtime_ns, facts.st_size, entry.path))
    held = sum(size for _, size, _ in found)
    if held <= share * 15 // 16:
        return held
    for _, size, path in sorted(found):
        if held <= share * 3 // 4:
            break
        Path(path).unlink(missing_ok=True)
        held -= size
    return held


def _remove_abandoned(folder: Path) -> None:
    """Remove what killed processes left."""
    before = time.time() - ABANDONED_S
    with os.scandir(folder) as entries:
        for entry in entries:
            try:
                if entry.stat(follow_symlinks=False).st_mtime < before:
                    Path(entry.path).unlink(missing_ok=True)
            except FileNotFoundError:
                continue
