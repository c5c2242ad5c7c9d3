"""Files put out of the page cache, and a count of what is in it."""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from shards.storage import storage_error

__all__ = ["Evicted", "evict", "resident_bytes"]

_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p]


@dataclass(frozen=True, kw_only=True, slots=True)
class Evicted:
    """What became of some files.

    Attributes
    ----------
    total : bytes of the files
    kept : bytes that are still in the page cache: another process maps them, or the file system
        does not let go of them
    """

    total: int
    kept: int

    @property
    def share(self) -> float:
        """Share of the bytes that are gone."""
        return 1 - self.kept / self.total if self.total else 1.0


def evict(paths: Iterable[Path]) -> Evicted:
    """Put files out of the page cache; what was not yet written to disk is written first.

    Parameters
    ----------
    paths : files, and folders of files

    Raises
    ------
    StorageError : if one cannot be opened or written
    """
    total = kept = 0
    for path in _files(paths):
        try:
            handle = os.open(path, os.O_RDONLY)
            try:
                os.fsync(handle)
                os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
                total += os.fstat(handle).st_size
                kept += _resident(handle)
            finally:
                os.close(handle)
        except OSError as error:
            raise storage_error(error, path) from error
    return Evicted(total=total, kept=kept)


def resident_bytes(paths: Iterable[Path]) -> int:
    """Bytes of files, and of folders of files, that are in the page cache, in whole pages."""
    total = 0
    for path in _files(paths):
        try:
            handle = os.open(path, os.O_RDONLY)
            try:
                total += _resident(handle)
            finally:
                os.close(handle)
        except OSError as error:
            raise storage_error(error, path) from error
    return total


def _files(paths: Iterable[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            yield from (file for file in path.rglob("*") if file.is_file())
        else:
            yield path


def _resident(handle: int) -> int:
    """Bytes of an open file in the page cache: ``mincore`` of a mapping of it."""
    size = os.fstat(handle).st_size
    if not size:
        return 0
    # a private mapping that may be written to, for ctypes takes no address of a read-only one
    with mmap.mmap(handle, size, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE) as mapped:
        found = np.zeros(-(-size // mmap.PAGESIZE), np.uint8)
        start = ctypes.c_char.from_buffer(mapped)
        failed = _LIBC.mincore(ctypes.addressof(start), size, found.ctypes.data)
        del start  # the mapping can be closed only without it
        if failed:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
    return min(size, int((found & 1).sum()) * mmap.PAGESIZE)
