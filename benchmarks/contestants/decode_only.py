"""Limit: read and decode as the ``cpu`` backend decides, region or whole; no warp, no colour.

Bounds our ``cpu`` backend and whoever else decodes so on as many threads: what is between this and
a loader is warp, colour, normalisation and moving pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

from benchmarks.case import Case, Served
from benchmarks.pairs import drive, pair_config
from loaders.cpu import CpuBackend
from loaders.sets import open_sets

label = "limit: read and region decode, as cpu does"


class DecodeOnly(CpuBackend):
    """The ``cpu`` backend up to the decoded region; its batches stay as they were allocated."""

    def _crop(self, half: Any, i: int) -> None:
        """Decode; this is where the limit ends."""
        self._bench.decode(half.crops, i, half.regions[i])


def batches(case: Case) -> Iterator[Served]:
    """Batches of the backend alone, without the pixels that it did not make."""
    backend = DecodeOnly(open_sets(pair_config(case)).crop_size, case.threads)
    with closing(drive(case, backend)) as driven:
        for served in driven:
            yield Served(served.sample, None, None)
