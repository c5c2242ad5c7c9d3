"""Which bytes the loaders ask for: the plan's own rows, and the requests that they become."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from benchmarks.scale_cache import Ints
from loaders.plan import plan_batch
from loaders.remote import coalesce
from loaders.sets import DataSets
from shards.storage import Range

__all__ = ["PAGE", "Catalogue", "Requests", "batches_of", "plan_rows", "requests"]

PAGE = 4096
_SUM_SPAN = PAGE // 16 * 512  # bytes of a shard whose sums are one page of the disk cache
_CHUNK = 320_000


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Catalogue:
    """All rows of all data sets, one after the other.

    Attributes
    ----------
    base : (D + 1,) first row of each data set
    file, offset, size : (R,) int64, where a row's picture is
    pages : (R,) int64, bytes of the pages that hold it
    """

    base: Ints
    file: Ints
    offset: Ints
    size: Ints
    pages: Ints

    @classmethod
    def of(cls, sets: DataSets) -> Catalogue:
        """Catalogue of the data sets of a run."""
        indexes = [one.index for one in sets.sets]
        files = np.cumsum([0, *(int(one.file_code.max()) + 1 for one in indexes)])
        file = [one.file_code + first for one, first in zip(indexes, files[:-1], strict=True)]
        offset = np.concatenate([one.offset for one in indexes])
        size = np.concatenate([one.size for one in indexes]).astype(np.int64)
        return cls(
            base=np.cumsum([0, *map(len, indexes)]),
            file=np.concatenate(file).astype(np.int64),
            offset=offset,
            size=size,
            pages=((offset + size - 1) // PAGE - offset // PAGE + 1) * PAGE,
        )

    def disk_bytes(self, rows: npt.NDArray[np.integer]) -> Ints:
        """Bytes on disk of the pictures in the cache; of sums, a page where the first one lies."""
        span = self.file[rows] * (1 << 32) + self.offset[rows] // _SUM_SPAN
        _, first = np.unique(span, return_index=True)
        total: Ints = self.pages[rows]
        total[first] += PAGE
        return total


def plan_rows(
    sets: DataSets, base: Ints, seed: int, epoch: int, pairs: int
) -> npt.NDArray[np.int32]:
    """Rows (pairs, 2) of templates and searches of an epoch's first samples, from the plan."""
    out = np.empty((pairs, 2), np.int32)
    for first in range(0, pairs, _CHUNK):
        count = min(_CHUNK, pairs - first)
        plan = plan_batch(sets.tables, seed, epoch, first, count)
        start = base[plan.dataset]
        out[first : first + count, 0] = start + plan.template_row
        out[first : first + count, 1] = start + plan.search_row
    return out


def batches_of(rows: npt.NDArray[np.int32], world: int, batch: int) -> npt.NDArray[np.int32]:
    """Rows (K, world, batch, 2) of every rank's batches: rank r has samples r, r + world, ..."""
    steps = len(rows) // (world * batch)
    return rows[: steps * world * batch].reshape(steps, batch, world, 2).transpose(0, 2, 1, 3)


@dataclass(frozen=True, kw_only=True, slots=True)
class Requests:
    """Ranges that were asked for together, and the requests that the loader makes of them."""

    ranges: int
    requests: int
    wanted: int  # bytes
    fetched: int

    def __add__(self, other: Requests) -> Requests:
        return Requests(
            ranges=self.ranges + other.ranges,
            requests=self.requests + other.requests,
            wanted=self.wanted + other.wanted,
            fetched=self.fetched + other.fetched,
        )


def requests(catalogue: Catalogue, rows: npt.NDArray[np.integer]) -> Requests:
    """Requests of one `will_need` for these rows, by the loader's own rule."""
    ranges = {
        Range(f"{file:08d}", offset, size)
        for file, offset, size in zip(
            catalogue.file[rows].tolist(),
            catalogue.offset[rows].tolist(),
            catalogue.size[rows].tolist(),
            strict=True,
        )
    }
    runs = coalesce(ranges)
    return Requests(
        ranges=len(ranges),
        requests=len(runs),
        wanted=sum(one.size for one in ranges),
        fetched=sum(max(one.offset + one.size for one in run) - run[0].offset for run in runs),
    )
