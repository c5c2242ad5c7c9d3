"""Limit: plan, read and check the bytes of every pair, decode nothing.

Bounds whoever reads the plan's pictures at random from the same storage.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from benchmarks.case import Case, Served
from benchmarks.pairs import pair_config, works
from loaders.sets import open_sets
from loaders.work import Work

label = "limit: read only (page cache, CRC)"


def batches(case: Case) -> Iterator[Served]:
    """Read the pictures of every batch in a pool of threads."""
    with ThreadPoolExecutor(case.threads) as pool:
        for work in works(case, open_sets(pair_config(case))):
            list(pool.map(lambda i, work=work: _read(work, i), range(len(work))))
            yield Served(work.plan.sample.tolist(), None, None)


def _read(work: Work, i: int) -> int:
    return len(work.template.read(i)) + len(work.search.read(i))
