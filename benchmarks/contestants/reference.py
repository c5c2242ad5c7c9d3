"""The judge of the other backends, slow and obvious; it makes fewer pairs."""

from __future__ import annotations

from collections.abc import Iterator

import loaders.reference  # noqa: F401 (part of the imports, not of the first batch)
from benchmarks.case import Case, Served
from benchmarks.pairs import serve_loader

label = "siamstream reference (Pillow, NumPy)"


def batches(case: Case) -> Iterator[Served]:
    """Batches of `PairLoader` with the ``reference`` backend."""
    return serve_loader(case, "reference")
