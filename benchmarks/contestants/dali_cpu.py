"""Ours on DALI's CPU operators: the graph of ``dali``, for tests of it without a GPU."""

from __future__ import annotations

from collections.abc import Iterator

import loaders.dali  # noqa: F401 (part of the imports, not of the first batch)
from benchmarks.case import Case, Served
from benchmarks.pairs import serve_loader

label = "siamstream dali-cpu"


def batches(case: Case) -> Iterator[Served]:
    """Batches of `PairLoader` with the ``dali-cpu`` backend."""
    return serve_loader(case, "dali-cpu")
