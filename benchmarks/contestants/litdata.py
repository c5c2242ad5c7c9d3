"""LitData: chunks of 64 MB, read by number in worker processes; decode and augmentation are ours.

`StreamingDataset` on a local folder, which it reads in place. Its own loader reads chunk after
chunk, which no plan of pairs can follow, so torch's DataLoader does.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import litdata
from litdata.streaming.cache import Cache

from benchmarks import worker_batches
from benchmarks.case import Case, Served
from benchmarks.peer_forms import Pictures, form_folder
from benchmarks.worker_batches import Read

label = f"LitData {litdata.__version__} (by number, DataLoader), simplejpeg and our kernel"


def write(pictures: Pictures, folder: Path) -> None:
    """Write chunks, and their index."""
    cache = Cache(str(folder), chunk_bytes="64MB")
    for number in range(len(pictures)):
        cache[number] = pictures[number]
    cache.done()
    cache.merge()


def opened(folder: str) -> Read:
    """Open the chunks in a worker."""
    dataset: Any = litdata.StreamingDataset(folder)
    return lambda number: dataset[number]


def batches(case: Case) -> Iterator[Served]:
    """Batches of torch's DataLoader."""
    folder = form_folder(case.data, case.derived_folder, "litdata")
    return worker_batches.serve(case, functools.partial(opened, str(folder)))
