"""Rows of `scale` for the indexed mode, in which the plan names every read in advance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.scale_cache import disk_cache, page_cache, since
from benchmarks.scale_case import MOST_PREFETCH, Storage
from benchmarks.scale_reads import Requests, batches_of, requests
from benchmarks.scale_steps import Flow, steps
from benchmarks.scale_world import World, startup_s, totals

__all__ = ["CacheKey", "Traces", "cache_key", "coalesced", "indexed_row", "joined", "traces_of"]

CacheKey = tuple[str, float, int]

_NO_TIME_S = 1e-7  # a step
_COALESCED_BATCHES = 400  # whose requests are put together by the loader's own rule


def coalesced(world: World, batch: int) -> Requests:
    """Requests of the first batches of rank 0, as one node would make them."""
    catalogue, total = world.catalogue, Requests(ranges=0, requests=0, wanted=0, fetched=0)
    batches = batches_of(world.epochs[0], world.case.gpus, batch)[:_COALESCED_BATCHES, 0]
    for rows in batches:
        kind = np.searchsorted(catalogue.base, rows, side="right")
        for dataset in range(1, len(catalogue.base)):
            for half in (0, 1):  # as `Planned.announce` tells storages: templates, then searches
                mine = rows[:, half][kind[:, half] == dataset]
                if len(mine):
                    total += requests(catalogue, mine)
    return total


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Traces:
    """What the nodes fetch, by epoch, and the sizes of requests in the stretches simulated.

    Attributes
    ----------
    bytes, requests, hits : (E,) of all nodes; `hits` in bytes of pictures that were needed
    stretch : by epoch shown, (S, world, P) bytes
    """

    bytes: npt.NDArray[np.float64]
    requests: npt.NDArray[np.float64]
    hits: npt.NDArray[np.float64]
    needed: npt.NDArray[np.float64]
    stretch: dict[int, npt.NDArray[np.float64]]

    @classmethod
    def empty(
        cls, epochs: int, shown: tuple[int, ...], part: slice, ranks: int, pictures: int
    ) -> Traces:
        """Nothing yet."""
        return cls(
            bytes=np.zeros(epochs),
            requests=np.zeros(epochs),
            hits=np.zeros(epochs),
            needed=np.zeros(epochs),
            stretch={e: np.zeros((part.stop - part.start, ranks, pictures)) for e in shown},
        )

    def add(
        self,
        fetched: npt.NDArray[np.int64],
        hits: npt.NDArray[np.int64],
        needed: npt.NDArray[np.int64],
    ) -> None:
        """Add a node: bytes (E, ...) of its reads that were fetched, sums (E,) of the others."""
        self.bytes[:] += fetched.sum(1)
        self.requests[:] += (fetched > 0).sum(1)
        self.hits[:] += hits
        self.needed[:] += needed


def _stretch(world: World, total_steps: int) -> slice:
    count = min(world.case.steps + MOST_PREFETCH, total_steps)
    first = (total_steps - count) // 2
    return slice(first, first + count)


def cache_key(storage: Storage) -> CacheKey:
    """What decides which reads are fetched: kind of cache, GB of its own, batches ahead."""
    return storage.cache, storage.cache_gb, storage.prefetch


def traces_of(world: World, nodes: int, storages: Sequence[Storage]) -> dict[CacheKey, Traces]:
    """What all nodes fetch in all epochs, by `cache_key`.

    Parameters
    ----------
    world : see there
    nodes : how many
    storages : whose caches are wanted
    """
    case, catalogue = world.case, world.catalogue
    ranks, picture = case.gpus * nodes, case.batch * 2
    count = case.steps_per_epoch(nodes)
    part = _stretch(world, count)
    by_epoch = (case.epochs, count * case.gpus * picture)
    caches: dict[CacheKey, Traces] = {
        cache_key(one): Traces.empty(case.epochs, world.shown, part, ranks, picture)
        for one in storages
    }
    batches = [batches_of(rows, ranks, case.batch) for rows in world.epochs]
    for node in range(nodes):
        mine = slice(node * case.gpus, (node + 1) * case.gpus)
        trace = np.concatenate([one[:, mine].reshape(-1) for one in batches])
        gap = since(trace)
        wanted, pages = catalogue.size[trace], catalogue.pages[trace]
        for (cache, cache_gb, prefetch), out in caches.items():
            if cache == "page":
                sizes, hit = pages, page_cache(gap, pages, case.memory_gb * 1e9)
            else:
                sizes = wanted
                hit = joined(gap, prefetch, case.gpus, picture)
                hit |= disk_cache(gap, trace, catalogue.disk_bytes, cache_gb * 1e9)
            out.add(
                np.where(hit, 0, sizes).reshape(by_epoch),
                np.where(hit, wanted, 0).reshape(by_epoch).sum(1),
                wanted.reshape(by_epoch).sum(1),
            )
            shaped = np.where(hit, 0, sizes).reshape(case.epochs, count, case.gpus, picture)
            for e in world.shown:
                out.stretch[e][:, mine] = shaped[e - 1, part]
    return caches


def joined(
    gap: npt.NDArray[np.int64], prefetch: int, gpus: int, pictures: int
) -> npt.NDArray[np.bool_]:
    """Reads that the same process has under way already: they join that request.

    Parameters
    ----------
    gap : (T,) as `since` gives them, of a node whose ranks read one batch after the other
    prefetch, gpus, pictures : batches ahead; ranks; pictures of a batch
    """
    at = np.arange(len(gap))
    near = gap <= prefetch * gpus * pictures
    before = np.where(near, at - np.where(near, gap, 0), 0)
    return np.asarray(near & (at // pictures % gpus == before // pictures % gpus))


def _flow(world: World, storage: Storage, demand: float | None, fewer: float) -> Flow:
    case, node = world.case, world.node
    return Flow(
        storage=storage,
        connections=storage.connections,
        gpus=case.gpus,
        prefetch=storage.prefetch,
        step_s=case.batch / demand if demand else 0.0,
        batch_s=case.batch * node.pair_us / 1e6,
        request_s=fewer * node.request_us / 1e6 if storage.cache == "disk" else 0.0,
    )


def indexed_row(
    world: World, nodes: int, storage: Storage, traces: Traces, put: Requests
) -> dict[str, Any]:
    """Row of a storage.

    Parameters
    ----------
    world, nodes, storage : see there
    traces : what is fetched with the storage's cache
    put : requests that the loader puts together to fewer, of a sample
    """
    case, shown = world.case, world.shown
    count = case.steps_per_epoch(nodes)
    warm = min(storage.prefetch, len(traces.stretch[shown[0]]) - 1)
    fewer = put.requests / put.ranges if storage.cache == "disk" else 1.0
    larger = put.fetched / put.wanted if storage.cache == "disk" else 1.0
    runs = {e: steps(_flow(world, storage, case.demand, fewer), traces.stretch[e]) for e in shown}
    free = steps(_flow(world, storage, None, fewer), traces.stretch[shown[-1]])
    free_s = free.span(warm) / (len(free.taken) - warm)
    step_s = {e: run.span(warm) / (len(run.taken) - warm) for e, run in runs.items()}
    epochs = [
        {
            "epoch": e,
            "reads": count * case.gpus * nodes * case.batch * 2,
            "bytes_needed": traces.needed[e - 1],
            "bytes_fetched": traces.bytes[e - 1] * larger,
            "requests": traces.requests[e - 1] * fewer,
            "hit_share": traces.hits[e - 1] / traces.needed[e - 1],
            "wait_share": runs[e].share(warm),
            "wait_s": runs[e].share(warm) * step_s[e] * count,
            "seconds": step_s[e] * count,
            "pairs_per_s_gpu": case.batch / step_s[e],
        }
        for e in shown
    ]
    every = np.interp(np.arange(1, case.epochs + 1), shown, [step_s[e] for e in shown]) * count
    first = float(runs[shown[0]].taken[0])
    start = startup_s(nodes, storage, world.index_bytes) + first
    return {
        "mode": "indexed",
        "storage": storage.name,
        "nodes": nodes,
        "gpus": case.gpus * nodes,
        "startup": {
            "seconds": start,
            "bytes": world.index_bytes * nodes,
            "memory_gb": 0.0,
        },
        "fits": True,
        "epochs": epochs,
        "total": totals(
            case,
            storage,
            traces.bytes.sum() * larger,
            traces.requests.sum() * fewer,
            every,
            count,
            start,
        ),
        # None: nothing in the model limits it
        "sustained_pairs_per_s_gpu": case.batch / free_s if free_s > _NO_TIME_S else None,
    }
