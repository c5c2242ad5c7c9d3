"""Ours without a GPU: libjpeg-turbo and OpenCV in one pool of threads."""

from __future__ import annotations

from collections.abc import Iterator

import loaders.cpu  # noqa: F401 (part of the imports, not of the first batch)
from benchmarks.case import Case, Served
from benchmarks.pairs import serve_loader

label = "siamstream cpu"


def batches(case: Case) -> Iterator[Served]:
    """Batches of `PairLoader` with the ``cpu`` backend."""
    return serve_loader(case, "cpu")
