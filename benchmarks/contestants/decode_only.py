"""Limit: read and decode as the ``cpu`` backend decides, region or whole; no warp, no colour."""

from __future__ import annotations

from collections.abc import Iterator
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
    """Batches of the backend alone."""
    backend = DecodeOnly(open_sets(pair_config(case)).crop_size, case.threads)
    return drive(case, backend)
