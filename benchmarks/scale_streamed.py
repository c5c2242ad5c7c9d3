"""Rows of `scale` for ``data.storage: sequential``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.scale_case import MOST_PREFETCH, Storage
from benchmarks.scale_steps import Flow, stream_steps
from benchmarks.scale_stream import Streamed, page_hits, read_epoch
from benchmarks.scale_world import World, startup_s, totals

__all__ = ["Sequences", "sequential_row"]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Sequences:
    """What does not depend on storage and demand; what ranks of one node read stands for all.

    Where a data set has fewer shards than there are ranks, one rank is looked at.

    Attributes
    ----------
    read : of the ranks looked at
    ranks : these
    hits : (E,) share of the bytes of each epoch that the page cache of a node has
    """

    read: Streamed
    ranks: list[int]
    hits: npt.NDArray[np.float64]

    @classmethod
    def of(cls, world: World, nodes: int) -> Sequences:
        """Read a stretch of the first epoch, and fill the page cache in all."""
        case, count = world.case, world.case.steps_per_epoch(nodes)
        total, sources = case.gpus * nodes, world.sets.sets
        fewest = min(len(one.manifest.shards) for one in sources)
        ranks = list(range(case.gpus if total <= fewest else 1))
        stretch = min(count, case.steps + MOST_PREFETCH)
        read = read_epoch(sources, world.config, 0, ranks, total, case.batch, stretch)
        kept = np.rint(read.whole(read.kept, read.half, count)).astype(np.int64)
        hits = page_hits(
            sources, world.config, case.epochs, ranks, total, kept,
            max(0.0, case.memory_gb * 1e9 - _windows_gb(world) * 1e9),
            alike=case.gpus // len(ranks),
        )  # fmt: skip
        return cls(read=read, ranks=ranks, hits=hits)


def _windows_gb(world: World) -> float:
    return world.case.gpus * world.config.sequential.window_mb / 1e3


def sequential_row(
    world: World, nodes: int, storage: Storage, streams: Sequences
) -> dict[str, Any]:
    """Row of a storage."""
    case, count = world.case, world.case.steps_per_epoch(nodes)
    read, total = streams.read, case.gpus * nodes
    many = total / len(streams.ranks)  # ranks that each looked at stands for
    hits = streams.hits if storage.cache == "page" else np.zeros(case.epochs)
    needed, opened = (
        float(read.whole(one.sum(), one[: len(one) // 2].sum(), count)) * many
        for one in (read.sizes, read.opened)
    )
    fetched = needed * (1 - hits)
    seconds = {e: _epoch_s(world, nodes, storage, read, 1 - hits[e - 1]) for e in world.shown}
    free = _epoch_s(world, nodes, storage, read, 1 - hits[world.shown[-1] - 1], demand=False)
    busy = count * case.batch / case.demand
    pictures = count * total * case.batch * 2
    epochs = [
        {
            "epoch": e,
            "reads": pictures,
            "bytes_needed": pictures * world.jpeg_bytes / len(world.catalogue.size),
            "bytes_fetched": fetched[e - 1],
            "requests": opened if storage.cache == "disk" else fetched[e - 1] / (1 << 20),
            "hit_share": hits[e - 1],
            "wait_share": 1 - busy / seconds[e],
            "wait_s": seconds[e] - busy,
            "seconds": seconds[e],
            "pairs_per_s_gpu": count * case.batch / seconds[e],
        }
        for e in world.shown
    ]
    every = np.interp(np.arange(1, case.epochs + 1), world.shown, [seconds[e] for e in world.shown])
    number = opened * case.epochs if storage.cache == "disk" else float(fetched.sum()) / (1 << 20)
    copies = case.gpus if storage.cache == "disk" else 1  # each process fetches an index itself
    index = world.index_bytes * copies
    start = startup_s(nodes, storage, index)
    return {
        "mode": "sequential",
        "storage": storage.name,
        "nodes": nodes,
        "gpus": total,
        "startup": {
            "seconds": start,
            "bytes": index * nodes,
            "memory_gb": _windows_gb(world),
        },
        "fits": _windows_gb(world) <= case.memory_gb,
        "epochs": epochs,
        "total": totals(case, storage, fetched.sum(), number, every, count, start),
        "sustained_pairs_per_s_gpu": count * case.batch / free,
    }


def _epoch_s(
    world: World,
    nodes: int,
    storage: Storage,
    read: Streamed,
    share: float,
    demand: bool = True,
) -> float:
    """Seconds of an epoch: its windows filled, a stretch of it, and the rest like the stretch.

    Each rank looked at stands for as many ranks of all nodes, and its node for the others.
    """
    case = world.case
    count, (first, ranks) = case.steps_per_epoch(nodes), read.sizes.shape
    # The server of all nodes is as busy as if all ranks were here: it has a share of its rate.
    part = ranks / (case.gpus * nodes)
    flow = Flow(
        storage=scaled(storage, ranks / case.gpus, part),
        connections=1,
        gpus=ranks,
        prefetch=storage.prefetch,
        step_s=case.batch / case.demand if demand else 0.0,
    )
    run = stream_steps(
        flow,
        read.sizes * share,
        read.frames,
        read.opened,
        world.node.stream_frames_per_s,
    )
    half = max(1, first // 2)  # windows are full by then
    each = run.span(half) / (first - half) if first > half else flow.step_s
    return float(run.taken[-1] + flow.step_s + (count - first) * each)


def scaled(storage: Storage, of_node: float, of_all: float) -> Storage:
    """A storage with these shares of the rates of a node and of all nodes."""
    facts = storage.facts()
    facts["node_mb_per_s"] *= of_node
    for name in ("server_mb_per_s", "server_requests_per_s"):
        if facts[name] is not None:
            facts[name] *= of_all
    return Storage(**facts)
