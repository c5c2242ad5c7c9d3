"""Limit: the same ready-made batch again and again.

Bounds everything: what the measurement itself costs, without reading, decoding or moving a pixel.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from benchmarks.case import Case, Served
from loaders.batch import normalise

label = "limit: a ready-made batch"


def batches(case: Case) -> Iterator[Served]:
    """One batch of random pixels, under every batch's sample numbers."""
    generator = torch.Generator().manual_seed(case.seed)
    template, search = (
        torch.randint(0, 256, (case.batch_size, 3, side, side), generator=generator).byte()
        for side in (case.template_px, case.search_px)
    )
    if case.work == "plain":
        template, search = normalise(template), normalise(search)
    for start in case.starts():
        yield Served(list(range(start, start + case.batch_size)), template, search)
