"""A file that grows by whole records, also while the disk takes none for a time."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

__all__ = ["Appender"]

MOST_BYTES = 1 << 22  # of records that wait
TELL_S = 60.0


class Appender:
    """Appends records to a file; to be closed.

    A record that the disk does not take is undone, so that no reader sees half of it, and waits:
    the next call tries again, in order. This is said, and is no error.

    Parameters
    ----------
    path : file, made if need be
    warn : told when records wait, and when they are written or lost
    clock : seconds

    Raises
    ------
    OSError : if the file cannot be opened
    """

    def __init__(
        self, path: Path, warn: Callable[[str], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.path, self._warn, self._clock = path, warn, clock
        self._waiting: deque[bytes] = deque()
        self._lost, self._told = 0, -TELL_S
        self._handle: int | None = None
        self._whole: int | None = None  # bytes before half a record that could not be undone yet
        self._open()

    def _open(self) -> int:
        if self._handle is None:
            self._handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
            if self._whole is not None and self._whole < os.fstat(self._handle).st_size:
                os.ftruncate(self._handle, self._whole)
            self._whole = None
        return self._handle

    def append(self, record: bytes) -> None:
        """Write a record, after those that wait."""
        self._waiting.append(record)
        late = len(self._waiting) - 1
        try:
            while self._waiting:
                self._write(self._waiting[0])
                self._waiting.popleft()
        except OSError as error:
            self._close()
            self._wait(error)
            return
        if late or self._lost:
            lost = f", {self._lost} are lost" if self._lost else ""
            self._warn(f"{self.path} is written again: {late} records came late{lost}")
            self._lost, self._told = 0, -TELL_S

    def _write(self, record: bytes) -> None:
        handle, left = self._open(), memoryview(record)
        before = os.fstat(handle).st_size
        try:
            while left:
                left = left[os.write(handle, left) :]
        except OSError:
            self._whole = before
            os.ftruncate(handle, before)
            raise

    def _wait(self, error: OSError) -> None:
        size = sum(map(len, self._waiting))
        while size > MOST_BYTES:
            size -= len(self._waiting.popleft())
            self._lost += 1
        if self._clock() - self._told >= TELL_S:
            self._told = self._clock()
            lost = f", {self._lost} are lost" if self._lost else ""
            self._warn(
                f"{self.path} could not be written: {error.strerror}; {len(self._waiting)} records "
                f"wait{lost}; free some space there: training goes on"
            )

    def _close(self) -> None:
        if self._handle is not None:
            handle, self._handle = self._handle, None
            with suppress(OSError):  # what it would say has been said by the write
                os.close(handle)

    def close(self) -> None:
        """Finish the file; records that still wait are lost, and this is said."""
        if self._waiting:
            last = self._waiting.pop()
            self._told = self._clock()
            self.append(last)
        if self._waiting:
            lost = len(self._waiting) + self._lost
            self._warn(f"{self.path}: the last {lost} records could not be written and are lost")
            self._waiting.clear()
        self._close()
