"""MosaicML Streaming: MDS shards, read by number in worker processes; the rest of the work is ours.

`LocalDataset` is its reader for shards on a local disk: the same format and code as
`StreamingDataset` below the download, without its blocks of shared memory.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import streaming

from benchmarks import worker_batches
from benchmarks.case import Case, Served
from benchmarks.peer_forms import Pictures, form_folder
from benchmarks.worker_batches import Read

label = f"MosaicML Streaming {streaming.__version__} (MDS, DataLoader), simplejpeg and our kernel"


def write(pictures: Pictures, folder: Path) -> None:
    """Write MDS shards of 64 MB, not compressed."""
    with streaming.MDSWriter(
        out=str(folder), columns={"jpg": "bytes"}, size_limit=1 << 26, exist_ok=True
    ) as writer:
        for number in range(len(pictures)):
            writer.write({"jpg": pictures[number]})


def opened(folder: str) -> Read:
    """Open the shards in a worker."""
    dataset: Any = streaming.LocalDataset(folder)
    return lambda number: dataset[number]["jpg"]


def batches(case: Case) -> Iterator[Served]:
    """Batches of torch's DataLoader."""
    folder = form_folder(case.data, case.derived_folder, "mosaic-streaming")
    return worker_batches.serve(case, functools.partial(opened, str(folder)))
