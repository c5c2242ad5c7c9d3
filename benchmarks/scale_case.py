"""What `python -m benchmarks scale` takes as given: data, storages, a node, prices; with sources.

All of it goes into the result, so that a reader can object to a number rather than to a curve.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt

from benchmarks.synthetic_index import Synthetic
from loaders.config import PUBLISHED_WEIGHTS, PairConfig
from loaders.remote import RemoteConfig

__all__ = [
    "DATA",
    "MODES",
    "MOST_PREFETCH",
    "NODES",
    "STORAGES",
    "ModeName",
    "Node",
    "ScaleCase",
    "Storage",
]

ModeName = Literal["indexed", "sequential", "zip-memory"]
MODES: tuple[ModeName, ...] = ("indexed", "sequential", "zip-memory")
NODES = (1, 2, 4, 8, 16, 32, 64)
FULL_EPOCHS = 50  # of the published training
MOST_PREFETCH = 16  # of the storages below

# Counts as packed with the default options: COCO's annotations but crowds and small ones; GOT-10k's
# 9,335 training sequences but 44, every frame; LaSOT's 1,120 training sequences, every third frame;
# TrackingNet's 30,132 training videos, every tenth frame. Together the 4.6 million crops of the
# published zips (35.7, 44.1, 26.7, 29.2 GB at quality 95, PySiamTracking's guide); quality 90 makes
# a crop smaller by 1.45. Categories: COCO 80, GOT-10k 480 that occur, LaSOT 70, TrackingNet 23.
QUALITY_RATIO = 1.45
DATA = (
    Synthetic(
        name="coco", tracks=850_000, mean=1, categories=80, even=False, kb=28.97, spread=1.1
    ),
    Synthetic(
        name="got10k", tracks=9_291, mean=136, categories=480, even=False, stride=1, kb=21.77,
        spread=1.1,
    ),
    Synthetic(
        name="lasot", tracks=1_120, mean=750, categories=70, even=True, stride=3, kb=19.64,
        spread=1.1,
    ),
    Synthetic(
        name="trackingnet", tracks=30_132, mean=43, categories=23, even=False, stride=10, kb=14.07,
        spread=1.1,
    ),
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Storage:
    """Where the bytes lie.

    Attributes
    ----------
    name, text : short, and for a reader
    cache : what keeps bytes on a node: the page cache, or the disk cache of remote data
    latency_ms : from a request to its first byte
    node_mb_per_s : of one node, all its processes together
    connection_mb_per_s : of one request; None: no limit of its own
    server_mb_per_s, server_requests_per_s : of all nodes together; None: grows with them
    cache_gb : of the disk cache of a node
    connections : requests of a process under way at once; 0: as many as are asked for
    prefetch : batches that the loader makes ahead
    """

    name: str
    text: str
    cache: Literal["page", "disk"]
    latency_ms: Annotated[float, Ge(0)]
    node_mb_per_s: Annotated[float, Gt(0)]
    connection_mb_per_s: float | None = None
    server_mb_per_s: float | None = None
    server_requests_per_s: float | None = None
    cache_gb: float = 0.0
    connections: int = 0
    prefetch: int = PairConfig().prefetch

    def facts(self) -> dict[str, Any]:
        """Every field, for a result."""
        return asdict(self)


_GBIT = 125.0  # MB/s
# A bucket answers at least 5,500 GET/s a prefix, and each data set is one; about 85 MB/s come on a
# connection (both: Amazon S3 User Guide, "Best practices design patterns: optimizing Amazon S3
# performance").
_S3 = {
    "cache": "disk", "latency_ms": 30.0, "node_mb_per_s": 10 * _GBIT, "connection_mb_per_s": 85.0,
    "server_requests_per_s": 4 * 5_500.0,
}  # fmt: skip


def _shared(gbit: float) -> tuple[Storage, Storage]:
    """A network file system with a link of its own for each node, and one that all share."""
    own = Storage(
        name=f"fs-{gbit:g}g-node",
        text=f"network file system, {gbit:g} Gbit/s into each node",
        cache="page",
        latency_ms=1.0,
        node_mb_per_s=gbit * _GBIT,
    )
    return own, Storage(
        name=f"fs-{gbit:g}g-shared",
        text=f"network file system, {gbit:g} Gbit/s out of its server for all nodes",
        cache="page",
        latency_ms=1.0,
        node_mb_per_s=gbit * _GBIT,
        server_mb_per_s=gbit * _GBIT,
    )


STORAGES = (
    Storage(
        name="nvme",
        text="a copy on each node's NVMe disk",
        cache="page",
        latency_ms=0.1,
        node_mb_per_s=3_000.0,
    ),
    *_shared(10),
    *_shared(1),
    Storage(
        name="s3",
        text="S3 with the loader's defaults",
        cache_gb=RemoteConfig().cache_gb,
        connections=RemoteConfig().connections,
        **_S3,  # type: ignore[arg-type]
    ),
    Storage(
        name="s3-tuned",
        text="S3 with data.prefetch=16, data.remote.connections=128 and a disk cache for all data "
        "(data.remote.cache_gb=150)",
        cache_gb=150.0,
        connections=128,
        prefetch=MOST_PREFETCH,
        **_S3,  # type: ignore[arg-type]
    ),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Node:
    """What one process of the loader can do, measured on this machine before anything is simulated.

    Attributes
    ----------
    stream_frames_per_s : frames that `sequential` reads from tars, one thread, page cache warm
    preload_mb_per_s : that ``zip-memory`` reads into memory, page cache warm
    """

    stream_frames_per_s: float
    preload_mb_per_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class ScaleCase:
    """What is simulated.

    Attributes
    ----------
    demand : pairs a second that a GPU takes
    gpus : of a node
    batch : pairs of a GPU's batch, as published
    prefetch : batches within which a process does not ask twice for a picture
    pairs_per_epoch, epochs : of the training
    shown : epochs of which every figure is given, from 1
    nodes : numbers of nodes
    steps : of an epoch whose stalls are simulated, from its middle; the others are like them
    page_cache_gb : of a node's memory
    usd_per_1000_get, usd_source : price of requests
    seed : of the sample stream
    """

    demand: Annotated[float, Gt(0)] = 1000.0
    gpus: Annotated[int, Ge(1)] = 8
    batch: Annotated[int, Ge(1)] = 8
    prefetch: Annotated[int, Ge(1)] = PairConfig().prefetch
    pairs_per_epoch: Annotated[int, Ge(1)] = 320_000
    epochs: Annotated[int, Ge(1)] = FULL_EPOCHS
    shown: tuple[int, ...] = (1, 2, 5, 10, 50)
    nodes: tuple[int, ...] = NODES
    steps: Annotated[int, Ge(1)] = 256
    page_cache_gb: Annotated[float, Ge(0)] = 64.0
    usd_per_1000_get: Annotated[float, Ge(0)] = 0.0004
    usd_source: str = (
        "list price of GET, S3 Standard, US East (N. Virginia), https://aws.amazon.com/s3/pricing/ "
        "as quoted in Amazon's own documentation of its solutions (stored copy, read 2026-11; the "
        "price page itself could not be read)"
    )
    seed: int = 7
    weights: dict[str, float] = field(default_factory=lambda: dict(PUBLISHED_WEIGHTS))

    def steps_per_epoch(self, nodes: int) -> int:
        """Steps of an epoch; the pairs beyond the last whole step are not drawn."""
        return self.pairs_per_epoch // (self.batch * self.gpus * nodes)

    def facts(self) -> dict[str, Any]:
        """Every field, for a result, under names with units."""
        facts = asdict(self)
        for name, long in (
            ("demand", "demand_pairs_per_s_gpu"),
            ("gpus", "gpus_per_node"),
            ("batch", "batch_per_gpu"),
            ("shown", "shown_epochs"),
        ):
            facts[long] = facts.pop(name)
        return facts
