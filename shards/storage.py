"""Byte ranges in, atomic files out.

Reading: a `Storage` returns the bytes of ranges of named files and is told in advance which ranges
will be needed. Writing: a `FolderSink` gives a file its final name only when it is complete and on
disk, so a reader never meets half a file.
"""

from __future__ import annotations

import errno
import mmap
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol

from shards.errors import StorageError
from shards.format import check_file_name

__all__ = ["FolderSink", "LocalStorage", "Range", "Storage", "storage_error"]


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


class LocalStorage:
    """Files of one folder by memory map: all processes of a machine share the page cache.

    Parameters
    ----------
    folder : the data set's folder
    max_maps : files mapped at once; the least recently used are let go first
    """

    def __init__(self, folder: Path, max_maps: int = 256) -> None:
        self._folder = folder
        self._max_maps = max_maps
        self._maps: OrderedDict[str, mmap.mmap] = OrderedDict()
        self._lock = threading.Lock()

    def _map(self, file: str) -> mmap.mmap:
        with self._lock:
            found = self._maps.get(file)
            if found is not None:
                self._maps.move_to_end(file)
                return found
            path = self._folder / check_file_name(file)
            try:
                with path.open("rb") as handle:
                    found = mmap.mmap(handle.fileno(), 0, prot=mmap.PROT_READ)
            except (OSError, ValueError) as error:  # ValueError: an empty file cannot be mapped
                raise StorageError(f"{path}: cannot be read: {error}") from error
            found.madvise(mmap.MADV_RANDOM)
            self._maps[file] = found
            while len(self._maps) > self._max_maps:
                self._maps.popitem(last=False)  # closed once no view of it is left
            return found

    def size(self, file: str) -> int:
        """Size of a file in bytes."""
        return len(self._map(file))

    def read_many(self, ranges: Sequence[Range]) -> list[memoryview]:
        """Views of the mapped files; nothing is copied.

        Raises
        ------
        StorageError : if a file is absent or shorter than a range needs
        """
        return [self._view(one) for one in ranges]

    def _view(self, one: Range) -> memoryview:
        mapped = self._map(one.file)
        if one.offset < 0 or one.size < 0 or one.offset + one.size > len(mapped):
            raise StorageError(
                f"{self._folder / one.file}: bytes {one.offset} to {one.offset + one.size} are "
                f"needed, the file has {len(mapped)}; it is truncated or of another packing: "
                "run 'python -m shards verify' on its folder"
            )
        return memoryview(mapped)[one.offset : one.offset + one.size]

    def will_need(self, ranges: Sequence[Range]) -> None:
        """Ask the kernel to read these pages ahead."""
        page = mmap.PAGESIZE
        for one in ranges:
            start = one.offset // page * page
            mapped = self._map(one.file)
            if start < len(mapped):
                mapped.madvise(mmap.MADV_WILLNEED, start, one.offset - start + one.size)


class FolderSink:
    """A folder whose files appear only when they are complete.

    Parameters
    ----------
    folder : made if absent
    """

    _MARK = ".part-"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise storage_error(error, folder) from error

    @contextmanager
    def create(self, name: str) -> Iterator[BinaryIO]:
        """Write a file under a temporary name; on a clean exit sync it and give it its own name.

        On an exception the temporary file is removed. Opened for reading too, so that it can be
        checked before it is committed.
        """
        final = self.folder / check_file_name(name)
        temporary = self.folder / f"{self._MARK}{os.getpid()}-{threading.get_ident()}-{name}"
        try:
            with temporary.open("w+b") as handle:
                yield handle
                handle.flush()
                os.fsync(handle.fileno())
            temporary.replace(final)
            self._sync_folder()
        except OSError as error:
            raise storage_error(error, final) from error
        finally:
            with suppress(FileNotFoundError):
                temporary.unlink()

    def _sync_folder(self) -> None:
        handle = os.open(self.folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    def write(self, name: str, data: bytes) -> None:
        """Write a whole small file."""
        with self.create(name) as handle:
            handle.write(data)

    def clean(self) -> None:
        """Remove what killed writers left. Only for the one process that owns the folder."""
        for leftover in self.folder.glob(f"{self._MARK}*"):
            leftover.unlink(missing_ok=True)


def storage_error(error: OSError, path: Path) -> StorageError:
    """Turn an `OSError` of a write into one sentence that says what to do."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        advice = "the disk or quota is full: free some space and run the same command again"
    elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        advice = "no permission to write there"
    else:
        advice = error.strerror or type(error).__name__
    return StorageError(f"{path}: could not be written: {advice}")
