"""Limit: DALI's own reader of WebDataset tars and its decoder, on the same tars; nothing after.

Bounds loaders that stream tars into DALI: reading in storage order, a shuffle buffer, whole
decodes. Its pairs are its own: two pictures that lie near each other in the order of its buffer,
of all data sets as they come, without the plan's weights.
"""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.case import Case, Served
from benchmarks.dali_decode import WHERE, decoded_tars

label = f"limit: DALI reads tars and decodes ({WHERE})"


def batches(case: Case) -> Iterator[Served]:
    """Batches of DALI's reader and decoder."""
    return decoded_tars(case)
