"""`zip-tuned` with its zip on disk: Python's ``zipfile``, opened anew in every worker.

A handle that workers inherit shares its file offset with all of them, so one worker seeks while
another reads: they get bytes of other members. `zipfile` guards the offset by a lock that does not
reach beyond a process; its checks of header and CRC-32 then refuse what was read, and the run ends.
Opened in each worker it is right, and every worker holds the whole directory as Python objects:
memory and the time to the first batch grow with the members. It checks each member's CRC-32, as
`zipfile` always does; all else is that of `zip-tuned`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zipfile import ZipFile, ZipInfo

import numpy.typing as npt

from benchmarks.case import Case, Served
from benchmarks.contestants import zip_tuned

label = "zip-disk (zip-tuned, zip on disk opened per worker)"


class DiskZip:
    """A zip of stored members on disk, found by row of the index.

    Parameters
    ----------
    path : of the zip
    sizes : (N,) of the pictures by row; the zip has the same in the same order

    Raises
    ------
    DataError : if it has not
    """

    def __init__(self, path: Path, sizes: npt.NDArray[Any]) -> None:
        zip_tuned.directory(path, sizes)
        self._path = path
        self._opened: tuple[int, ZipFile, list[ZipInfo]] | None = None

    def read(self, row: int) -> bytes:
        """Encoded picture of a row, from this process's own handle."""
        if self._opened is None or self._opened[0] != os.getpid():
            archive = ZipFile(self._path)
            self._opened = os.getpid(), archive, archive.infolist()
        _, archive, infos = self._opened
        return archive.read(infos[row])


def batches(case: Case) -> Iterator[Served]:
    """Batches of torch's DataLoader."""
    return zip_tuned.batches(case, archive=DiskZip)
