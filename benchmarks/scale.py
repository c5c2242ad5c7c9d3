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
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import result
from benchmarks.scale_case import DATA, QUALITY_RATIO, STORAGES, Node, ScaleCase, Storage
from benchmarks.scale_indexed import coalesced, indexed_row, traces_of
from benchmarks.scale_report import advice
from benchmarks.scale_streamed import sequential_rows
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


def _zip_row(world: World, nodes: int, storage: Storage) -> dict[str, Any]:
    """Zips in the memory of every node: everything is read once, before the first batch."""
    case, size = world.case, world.zip_bytes
    seconds = max(startup_s(nodes, storage, size), size / (world.node.preload_mb_per_s * 1e6))
    count = case.steps_per_epoch(nodes)
    step = case.batch / case.demand
    every = np.full(case.epochs, count * step)
    reads = count * case.gpus * nodes * case.batch * 2
    epochs = [
        {
            "epoch": e, "reads": reads, "bytes_needed": reads * world.jpeg_bytes
            / len(world.catalogue.size), "bytes_fetched": 0.0, "requests": 0.0, "hit_share": 1.0,
            "wait_share": 0.0, "wait_s": 0.0, "seconds": count * step,
            "pairs_per_s_gpu": case.demand,
        }
        for e in world.shown
    ]  # fmt: skip
    number = size * nodes / COPY_BYTES if storage.cache == "disk" else 0.0
    return {
        "mode": "zip-memory",
        "storage": storage.name,
        "nodes": nodes,
        "gpus": case.gpus * nodes,
        "startup": {
            "seconds": seconds,
            "bytes": size * nodes,
            "memory_gb": size / 1e9,
            "memory_gb_per_process_copies": size * case.gpus / 1e9,
            "memory_gb_quality_95": size * QUALITY_RATIO / 1e9,
        },
        "epochs": epochs,
        "total": totals(case, storage, size * nodes, number, every, count, seconds),
        "sustained_pairs_per_s_gpu": float(case.demand),  # as many as are asked for
    }


def simulated_rows(
    world: World, storages: tuple[Storage, ...], told: Callable[[str], None]
) -> Iterator[dict[str, Any]]:
    """Every mode on every storage, by number of nodes."""
    put = coalesced(world, world.case.batch)
    for nodes in world.case.nodes:
        told(f"{nodes} node(s)")
        traces = traces_of(world, nodes, storages)
        for storage in storages:
            found = traces[storage.cache, storage.cache_gb]
            yield indexed_row(world, nodes, storage, found, put)
        yield from sequential_rows(world, nodes, storages)
        for storage in storages:
            yield _zip_row(world, nodes, storage)


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
        data = data_facts(sets)
    found = {
        **run,
        "config": case.facts(),
        "data": data,
        "storages": [one.facts() for one in STORAGES],
        "calibration": {
            "stream_frames_per_s": node.stream_frames_per_s,
            "preload_mb_per_s": node.preload_mb_per_s,
        },
        "rows": rows,
        "checks": checks,
    }
    return {**found, "advice": advice(found)}
