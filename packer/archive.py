"""Archives read in place: each process opens those that it reads, and holds a few of them open.

Zip files (stored or deflated members, `packer.zip_archive`) and plain tar files
(`packer.tar_archive`). Bytes are read by position, so threads that share an archive do not disturb
each other; a forked process starts without open archives, and none is ever pickled.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict

from packer.archive_tree import Archive
from packer.tar_archive import TarArchive
from packer.zip_archive import ZipArchive
from shards.errors import DataError

__all__ = ["opened"]

MAX_OPEN = 16  # archives that a process holds open
MAX_HELD = 128 << 20  # bytes of names and positions that it holds


class _Open:
    """Archives that this process has open, the last used last."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.archives: OrderedDict[tuple[str | int, ...], Archive] = OrderedDict()

    def get(self, path: str) -> Archive:
        try:
            facts = os.stat(path)  # noqa: PTH116 (called for every picture)
        except OSError as error:
            raise DataError(f"{path}: cannot be opened: {error.strerror}") from error
        key = (path, facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns)
        with self.lock:
            archive = self.archives.get(key)
            if archive is None:
                archive = self.archives[key] = _open(path)
                self._evict()
            else:
                self.archives.move_to_end(key)
        return archive

    def _evict(self) -> None:
        held = sum(archive.held for archive in self.archives.values())
        while len(self.archives) > 1 and (len(self.archives) > MAX_OPEN or held > MAX_HELD):
            held -= self.archives.popitem(last=False)[1].held


def _open(path: str) -> Archive:
    return ZipArchive(path) if path.lower().endswith(".zip") else TarArchive(path)


_of_this_process = _Open()


def _forget() -> None:
    """Start anew in a forked process: with files of its own, and a lock that nobody holds."""
    global _of_this_process
    _of_this_process = _Open()


os.register_at_fork(after_in_child=_forget)


def opened(path: str) -> Archive:
    """Return the archive of this file, opened once in every process.

    It is opened anew when the file has changed.

    Parameters
    ----------
    path : archive file, a real path

    Raises
    ------
    DataError : if it cannot be opened or is damaged
    """
    return _of_this_process.get(path)
