"""What a training costs storage, on 1 to 64 nodes: simulated from the loader's own plans.

Question: how many bytes and requests go to a storage, how long do GPUs wait, and what do the
requests cost, by mode, storage and number of nodes? Method: indexes of the four data sets in their
true sizes are made without pictures; `loaders.plan` and `loaders.dealing` say which rows every
process reads in all epochs; a model of caches (`scale_cache`) and of queues (`scale_steps`) says
what comes from where and when. `scale_check` holds the same model against real runs.

Read counts, bytes and hits are those of every epoch and node; only stalls are simulated on a
stretch of the epochs shown, and time between those is interpolated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import result
from benchmarks.scale_case import (
    DATA,
    QUALITY_RATIO,
    STORAGES,
    ModeName,
    Node,
    ScaleCase,
    Storage,
)
from benchmarks.scale_indexed import cache_key, coalesced, indexed_row, traces_of
from benchmarks.scale_streamed import Sequences, sequential_row
from benchmarks.scale_world import World, startup_s, totals
from benchmarks.synthetic_index import synthetic
from loaders.config import PairConfig
from loaders.sets import DataSet, DataSets, open_sets

__all__ = ["data_facts", "simulate", "simulated_rows"]


COPY_BYTES = 8 << 20  # of one request that copies a zip from S3


def data_facts(sets: DataSets) -> list[dict[str, Any]]:
    """Sizes of the data sets, for a result."""

    def facts(one: DataSet) -> dict[str, Any]:
        jpeg = int(one.index.size.sum())
        return {
            "name": one.manifest.name,
            "frames": one.manifest.counts["frames"],
            "tracks": one.manifest.counts["tracks"],
            "shards": len(one.manifest.shards),
            "mean_jpeg_kb": jpeg / len(one.index) / 1e3,
            "jpeg_gb": jpeg / 1e9,
            "tar_gb": sum(shard.bytes for shard in one.manifest.shards) / 1e9,
            "index_mb": one.manifest.index["bytes"] / 1e6,
        }

    return [facts(one) for one in sets.sets]


def _zip_row(world: World, nodes: int, storage: Storage, mode: ModeName) -> dict[str, Any]:
    """Zips in the memory of every node: everything is read once, before the first batch.

    ``zip-memory`` is the loader's own, a copy in each process; ``zip-shared`` is one copy of a node
    that processes share by fork, as the published recipe has it.
    """
    case, size = world.case, world.zip_bytes
    needed = size * (case.gpus if mode == "zip-memory" else 1)
    fits = needed <= case.memory_gb * 1e9
    row: dict[str, Any] = {
        "mode": mode,
        "storage": storage.name,
        "nodes": nodes,
        "gpus": case.gpus * nodes,
        "startup": {"seconds": None, "bytes": size * nodes, "memory_gb": needed / 1e9},
        "fits": fits,
        "epochs": [],
        "total": None,
        "sustained_pairs_per_s_gpu": None,  # after the start its reads cost what a thread costs
    }
    if not fits:
        return row
    seconds = max(startup_s(nodes, storage, size), size / (world.node.preload_mb_per_s * 1e6))
    count = case.steps_per_epoch(nodes)
    busy = case.batch / case.demand
    step = max(busy, case.batch * world.node.pair_us / 1e6)
    reads = count * case.gpus * nodes * case.batch * 2
    epochs = [
        {
            "epoch": e, "reads": reads, "bytes_needed": reads * world.jpeg_bytes
            / len(world.catalogue.size), "bytes_fetched": 0.0, "requests": 0.0, "hit_share": 1.0,
            "wait_share": 1 - busy / step, "wait_s": count * (step - busy),
            "seconds": count * step, "pairs_per_s_gpu": case.batch / step,
        }
        for e in world.shown
    ]  # fmt: skip
    number = size * nodes / COPY_BYTES if storage.cache == "disk" else 0.0
    every = np.full(case.epochs, count * step)
    total = totals(case, storage, size * nodes, number, every, count, seconds)
    return {
        **row,
        "startup": {**row["startup"], "seconds": seconds},
        "epochs": epochs,
        "total": total,
    }


def _zip_sizes(world: World) -> dict[str, float]:
    """GB of all zips, and of the same crops at quality 95."""
    base = world.catalogue.base.tolist()
    parts = {
        one.manifest.name: float(world.catalogue.size[first:end].sum())
        for one, first, end in zip(world.sets.sets, base[:-1], base[1:], strict=True)
    }
    at_95 = sum(size / QUALITY_RATIO[name] for name, size in parts.items())
    return {"quality_90": world.zip_bytes / 1e9, "quality_95": at_95 / 1e9}


def _with_demands(rows: list[dict[str, Any]], demands: tuple[float, ...]) -> dict[str, Any]:
    """Row of the first demand, with what matters of the others."""
    found = [
        {
            "demand_pairs_per_s_gpu": demand,
            "wait_share": row["total"]["wait_share"],
            "hours": row["total"]["hours"],
        }
        for demand, row in sorted(zip(demands, rows, strict=True), key=lambda one: one[0])
        if row["fits"]
    ]
    return {**rows[0], "by_demand": found}


def simulated_rows(
    world: World, storages: tuple[Storage, ...], told: Callable[[str], None]
) -> Iterator[dict[str, Any]]:
    """Every mode on every storage, by number of nodes."""
    put = coalesced(world, world.case.batch)
    case = world.case
    demands = (case.demand, *(one for one in case.demands if one != case.demand))
    worlds = [replace(world, case=replace(case, demand=one)) for one in demands]
    zips: tuple[ModeName, ...] = ("zip-memory", "zip-shared")
    for nodes in case.nodes:
        told(f"{nodes} node(s)")
        traces = traces_of(world, nodes, storages)
        for storage in storages:
            found = traces[cache_key(storage)]
            rows = [indexed_row(one, nodes, storage, found, put) for one in worlds]
            yield _with_demands(rows, demands)
        streams = Sequences.of(world, nodes)
        for storage in storages:
            rows = [sequential_row(one, nodes, storage, streams) for one in worlds]
            yield _with_demands(rows, demands)
        for storage in storages:
            for mode in zips:
                rows = [_zip_row(one, nodes, storage, mode) for one in worlds]
                yield _with_demands(rows, demands)


def simulate(
    out: Path,
    case: ScaleCase,
    node: Node,
    checks: list[dict[str, Any]],
    command: str,
    told: Callable[[str], None],
) -> dict[str, Any]:
    """Simulate everything.

    Parameters
    ----------
    out : folder of the indexes without pictures
    case : what to simulate
    node : what a process can do
    checks : of the simulator against real runs, for the result
    command : that repeats it
    told : called with lines of progress

    Returns
    -------
    the result, as its JSON has it
    """
    run = result.start("scale", command)
    for one in DATA:
        told(f"index of {one.name}")
        synthetic(out, one)
    config = PairConfig(
        path=str(out), pairs_per_epoch=case.pairs_per_epoch, seed=case.seed, weights=case.weights
    )
    with closing(open_sets(config)) as sets:
        told(f"plans of {case.epochs} epochs")
        world = World.of(case, sets, config, node)
        rows = list(simulated_rows(world, STORAGES, told))
        data, zips = data_facts(sets), _zip_sizes(world)
    return {
        **run,
        "config": case.facts(),
        "data": data,
        "storages": [one.facts() for one in STORAGES],
        "calibration": node.facts(),
        "zips_gb": zips,
        "rows": rows,
        "checks": checks,
    }
