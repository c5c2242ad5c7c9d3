"""`zip-tuned` with our region decode too: all of our kernel, in worker processes over a zip.

What is left between this and our ``cpu`` backend is threads against processes: a batch leaves a
worker in fresh shared memory, whose page faults are part of its cost.
"""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.case import Case, Served
from benchmarks.contestants import zip_tuned

label = "zip-region (zip-tuned with our region decode)"


def batches(case: Case) -> Iterator[Served]:
    """Batches of torch's DataLoader."""
    return zip_tuned.batches(case, by_region=True)
