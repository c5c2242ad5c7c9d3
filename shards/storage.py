"""Byte ranges in: a `Storage` returns the bytes of ranges of named files.

It is told in advance which ranges will be needed. The way out, files that appear only when they are
whole, is `shards.sink`; a folder's can be imported from here too.
"""

from __future__ import annotations

import mmap
import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

from shards.errors import StorageError
from shards.format import check_crop_file
from shards.sink import FolderSink, storage_error

__all__ = ["FolderSink", "LocalStorage", "Range", "Refetching", "Storage", "storage_error"]


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
            path = self._folder / check_crop_file(file)
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
