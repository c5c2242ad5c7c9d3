"""Ours reading whole shards in order: pairs from a window of tracks, no random access.

For sources that cannot be asked for ranges. Its pairs are its own, so its pictures are others of
the same data; its window holds what the defaults of ``data.sequential`` say, and the first batch
waits until it is full.
"""

from __future__ import annotations

from collections.abc import Iterator

import loaders.cpu
import loaders.sequential  # noqa: F401 (part of the imports, not of the first batch)
from benchmarks.case import Case, Served
from benchmarks.pairs import serve_loader

label = "siamstream cpu, storage sequential"


def batches(case: Case) -> Iterator[Served]:
    """Batches of `PairLoader` that streams its shards."""
    return serve_loader(case, "cpu", storage="sequential")
