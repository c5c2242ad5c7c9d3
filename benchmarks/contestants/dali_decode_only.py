"""Limit: DALI decodes the regions that the plan's crops touch, as our ``dali`` backend does.

Bounds ``dali`` on a GPU and ``dali-cpu`` without one: what is between is warp, colour, reading and
handing over. Pictures were read and planned before the first batch.
"""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.case import Case, Served
from benchmarks.dali_decode import WHERE, decoded_pictures

label = f"limit: DALI decodes regions ({WHERE})"


def batches(case: Case) -> Iterator[Served]:
    """Batches of DALI's decoder alone."""
    return decoded_pictures(case, by_region=True)
