"""Scalars and pictures for TensorBoard, in an event file that has whole records only.

TensorBoard's own writer has a thread that a full disk ends for good, with half a record in the file
behind which nothing is read. Here the training's thread appends each event at once.
"""

from __future__ import annotations

import io
import itertools
import os
import socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tracker.training.appender import Appender

__all__ = ["Board"]

# No two writers of a process share a file. Padded: TensorBoard reads files in the order of their
# names, and takes one with earlier steps that comes later for a training that began anew.
_numbers = itertools.count()


class Board:
    """One event file; to be closed.

    Parameters
    ----------
    folder : of TensorBoard's files; made if need be
    start : steps done before; what older files have of later steps is not shown
    warn : told when the disk takes nothing
    """

    def __init__(self, folder: Path, start: int, warn: Callable[[str], None]) -> None:
        # Slow to import, wanted here only.
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._event, self._writer = Event, RecordWriter
        folder.mkdir(parents=True, exist_ok=True)
        place = f"{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}.{next(_numbers):06d}"
        self._file = Appender(folder / f"events.out.tfevents.{place}", warn)
        self._add(start + 1, file_version="brain.Event:2")
        self._add(start + 1, session_log=SessionLog(status=SessionLog.START))

    def _add(self, step: int, **what: Any) -> None:
        event = self._event(wall_time=time.time(), step=step, **what)
        record = io.BytesIO()
        self._writer(record).write(event.SerializeToString())
        self._file.append(record.getvalue())

    def add_scalars(self, values: Mapping[str, float], step: int) -> None:
        """Add numbers by their names."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        rows = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        self._add(step, summary=Summary(value=rows))

    def add_image(self, name: str, pixels: Any, step: int, dataformats: str = "CHW") -> None:
        """Add a picture.

        Parameters
        ----------
        name : of the series
        pixels : array or tensor, uint8 0..255 or float 0..1
        step : that it shows
        dataformats : order of its axes: C, H, W
        """
        from torch.utils.tensorboard.summary import image

        made = image(name, pixels, dataformats=dataformats)  # type: ignore[no-untyped-call]
        self._add(step, summary=made)

    def close(self) -> None:
        """Finish the file."""
        self._file.close()
