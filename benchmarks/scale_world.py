"""What `scale` simulates over: plans of all epochs, sizes of data, and sums of a row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.scale_case import Node, ScaleCase, Storage
from benchmarks.scale_reads import Catalogue, plan_rows
from loaders.config import PairConfig
from loaders.mirror import PIECES
from loaders.sets import DataSets

__all__ = ["World", "startup_s", "totals"]

_ZIP_BYTES = 200  # of a member: two headers and its name twice


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class World:
    """What does not depend on the number of nodes.

    Attributes
    ----------
    case, sets, config, catalogue : see there
    epochs : rows (pairs, 2) of every epoch
    node : what a process can do
    index_bytes, jpeg_bytes, tar_bytes : of all data sets
    """

    case: ScaleCase
    sets: DataSets
    config: PairConfig
    catalogue: Catalogue
    epochs: list[npt.NDArray[np.int32]]
    node: Node
    index_bytes: int
    jpeg_bytes: int
    tar_bytes: int

    @classmethod
    def of(cls, case: ScaleCase, sets: DataSets, config: PairConfig, node: Node) -> World:
        """Plan every epoch."""
        catalogue = Catalogue.of(sets)
        rows = [
            plan_rows(sets, catalogue.base, config.seed, epoch, config.pairs_per_epoch)
            for epoch in range(case.epochs)
        ]
        manifests = [one.manifest for one in sets.sets]
        return cls(
            case=case,
            sets=sets,
            config=config,
            catalogue=catalogue,
            epochs=rows,
            node=node,
            index_bytes=sum(int(one.index["bytes"]) for one in manifests),
            jpeg_bytes=int(catalogue.size.sum()),
            tar_bytes=sum(shard.bytes for one in manifests for shard in one.shards),
        )

    @property
    def shown(self) -> tuple[int, ...]:
        """Epochs of which every figure is given, from 1."""
        return tuple(e for e in self.case.shown if e <= self.case.epochs)

    @property
    def zip_bytes(self) -> int:
        """All pictures in zips."""
        return self.jpeg_bytes + _ZIP_BYTES * len(self.catalogue.size)


def startup_s(nodes: int, storage: Storage, size: float) -> float:
    """Seconds until every node has read so many bytes from start to end."""
    rate = storage.node_mb_per_s
    if storage.connection_mb_per_s is not None:
        rate = min(rate, PIECES * storage.connection_mb_per_s)
    if storage.server_mb_per_s is not None:
        rate = min(rate, storage.server_mb_per_s / nodes)
    return size / (rate * 1e6)


def totals(
    case: ScaleCase,
    storage: Storage,
    size: float,
    number: float,
    seconds: npt.NDArray[np.float64],
    count: int,
    start_s: float,
) -> dict[str, Any]:
    """Sums over all epochs, the time and not the bytes of the start included."""
    busy = case.epochs * count * case.batch / case.demand
    whole = start_s + float(seconds.sum())
    paid = storage.cache == "disk"
    return {
        "bytes_fetched": float(size),
        "requests": float(number),
        "usd": float(number) / 1e3 * case.usd_per_1000_get if paid else None,
        "hours": whole / 3600,
        "wait_share": 1 - busy / whole,
    }
