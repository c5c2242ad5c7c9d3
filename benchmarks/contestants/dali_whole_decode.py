"""Limit: DALI decodes the plan's pictures whole, as most loaders on DALI do.

Bounds loaders on DALI that crop after decoding. On a GPU it is also the other candidate for the
best rate of decoding, for its JPEG engine may be faster on whole pictures than regions are.
Pictures were read and planned before the first batch.
"""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.case import Case, Served
from benchmarks.dali_decode import WHERE, decoded_pictures

label = f"limit: DALI decodes whole pictures ({WHERE})"


def batches(case: Case) -> Iterator[Served]:
    """Batches of DALI's decoder alone."""
    return decoded_pictures(case, by_region=False)
