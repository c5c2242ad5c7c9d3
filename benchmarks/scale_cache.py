"""What is read from where: repeats within a trace of reads, page cache, disk cache.

A trace is the row of every read of a node, in order. The page cache is least-recently-used; its
hits are found without a queue, by the window that its size holds: a row is there if it was read
less than T reads ago, where the T first reads of the trace touch as many different bytes as the
cache holds. That is exact while the cache is not full, and close beyond (`tests` compare it with a
queue). The disk cache of remote data takes what comes until it is full, and then nothing more.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

__all__ = ["disk_cache", "page_cache", "since"]

Ints = npt.NDArray[np.int64]
NEVER = np.iinfo(np.int64).max
CACHE_SHARE = 31 / 32  # of its limit at which `loaders.cache.ShardCache` calls itself full


def since(trace: npt.NDArray[np.integer]) -> Ints:
    """Reads since the last one of the same row, (T,) int64; `NEVER` for the first."""
    order = np.argsort(trace, kind="stable")
    rows = trace[order]
    found = np.full(len(trace), NEVER, np.int64)
    again = np.flatnonzero(rows[1:] == rows[:-1])
    found[order[again + 1]] = order[again + 1] - order[again]
    return found


def page_cache(gap: Ints, sizes: Ints, capacity: float) -> npt.NDArray[np.bool_]:
    """Which reads find their bytes in a page cache.

    Parameters
    ----------
    gap : (T,) as `since` gives them
    sizes : (T,) bytes that each read takes in the cache
    capacity : bytes
    """
    held = np.cumsum(np.where(gap == NEVER, sizes, 0))
    window = int(np.searchsorted(held, capacity, side="right"))
    if window == len(gap):  # never full
        return np.asarray(gap != NEVER)
    return np.asarray(gap < window)


def disk_cache(
    gap: Ints,
    trace: npt.NDArray[np.integer],
    sizes: Callable[[npt.NDArray[np.integer]], Ints],
    limit: float,
) -> npt.NDArray[np.bool_]:
    """Which reads find their bytes in the disk cache of remote data.

    Parameters
    ----------
    gap : (T,) as `since` gives them
    trace : (T,) rows
    sizes : bytes that the entries of rows, which come in this order, take on disk
    limit : bytes; 0: no cache
    """
    fresh = trace[gap == NEVER]
    there = np.zeros(int(trace.max(initial=-1)) + 1, np.bool_)
    there[fresh[np.cumsum(sizes(fresh)) <= CACHE_SHARE * limit]] = True
    return np.asarray((gap != NEVER) & there[trace])
