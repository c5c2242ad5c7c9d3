"""Limit, and the unit of cost: one thread decodes every crop of the pairs whole with simplejpeg.

Half of its CPU time a pair is one *decode unit*. The bytes were read and the plan was made before
the first batch, so that nothing but decoding is measured. Times the threads it bounds whoever
decodes whole pictures on a CPU.
"""

from __future__ import annotations

from collections.abc import Iterator

import simplejpeg

from benchmarks.case import Case, Served
from benchmarks.pairs import pair_config, works
from loaders.sets import open_sets

label = "limit: whole decode, one thread (2 units a pair)"


def batches(case: Case) -> Iterator[Served]:
    """Decode the pictures of every batch, one after the other."""
    planned = []
    for work in works(case, open_sets(pair_config(case))):
        crops = [crops.read(i) for i in range(len(work)) for crops in (work.template, work.search)]
        planned.append((work.plan.sample.tolist(), crops))
    for sample, crops in planned:
        for data in crops:
            simplejpeg.decode_jpeg(data, "RGB")
        yield Served(sample, None, None)
