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

ModeName = Literal["indexed", "sequential", "zip-memory", "zip-shared"]
MODES: tuple[ModeName, ...] = ("indexed", "sequential", "zip-memory", "zip-shared")
NODES = (1, 2, 4, 8, 16, 32, 64)
FULL_EPOCHS = 50  # of the published training
MOST_PREFETCH = 16  # of the storages below

# Counts as packed with the default options: COCO's annotations but crowds and small ones; GOT-10k's
# 9,335 training sequences but 44, every frame; LaSOT's 1,120 training sequences, every third frame;
# TrackingNet's 30,132 training videos, every tenth frame. Together the 4.6 million crops of the
# published zips (35.7, 44.1, 26.7, 29.2 GB at quality 95, PySiamTracking's guide). Categories: COCO
# 80, GOT-10k 480 that occur, LaSOT 70, TrackingNet 23.
#
# Bytes at quality 90 over those at 95: our own measure on real crops, docs/MIGRATING.md ("Sizes"),
# of whole shards; headers weigh the same in both, so of pictures alone it is a little less.
QUALITY_RATIO = {"coco": 0.73, "got10k": 0.73, "lasot": 0.74, "trackingnet": 0.75}
_KB_95 = {"coco": 42.0, "got10k": 31.57, "lasot": 28.48, "trackingnet": 20.4}  # published / crops


def _kb(name: str) -> float:
    return round(_KB_95[name] * QUALITY_RATIO[name], 2)


DATA = (
    Synthetic(
        name="coco", tracks=850_000, mean=1, categories=80, even=False, kb=_kb("coco"),
        spread=1.1,
    ),
    Synthetic(
        name="got10k", tracks=9_291, mean=136, categories=480, even=False, stride=1,
        kb=_kb("got10k"), spread=1.1,
    ),
    Synthetic(
        name="lasot", tracks=1_120, mean=750, categories=70, even=True, stride=3,
        kb=_kb("lasot"), spread=1.1,
    ),
    Synthetic(
        name="trackingnet", tracks=30_132, mean=43, categories=23, even=False, stride=10,
        kb=_kb("trackingnet"), spread=1.1,
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
# A bucket answers at least 5,500 GET/s a prefix, and each data set is one, of which that with the
# largest weight is the first at its limit; about 85 MB/s come on a connection (both rates: Amazon
# S3 User Guide, "Best practices design patterns: optimizing Amazon S3 performance").
_S3 = {
    "cache": "disk", "latency_ms": 30.0, "node_mb_per_s": 10 * _GBIT, "connection_mb_per_s": 85.0,
    "server_requests_per_s": 5_500.0 / max(PUBLISHED_WEIGHTS.values()),
}  # fmt: skip


# Of one file system that all nodes share: Amazon EFS answers 35,000 reads a second (User Guide,
# "Amazon EFS performance specifications": General Purpose, Bursting). Other servers differ.
_SERVER_READS_PER_S = 35_000.0


def _network(gbit: float) -> tuple[Storage, Storage]:
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
        text=f"network file system, {gbit:g} Gbit/s and "
        f"{_SERVER_READS_PER_S:,.0f} reads/s out of its server for all nodes",
        cache="page",
        latency_ms=1.0,
        node_mb_per_s=gbit * _GBIT,
        server_mb_per_s=gbit * _GBIT,
        server_requests_per_s=_SERVER_READS_PER_S,
    )


STORAGES = (
    Storage(
        name="nvme",
        text="a copy on each node's NVMe disk",
        cache="page",
        latency_ms=0.1,
        node_mb_per_s=3_000.0,
    ),
    *_network(10),
    *_network(1),
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
    pair_us : CPU time of one thread to plan and announce a pair and to read and check both
        pictures, page cache warm
    request_us : CPU time that a request to a server takes beyond that, of `benchmarks remote`
    """

    stream_frames_per_s: float
    preload_mb_per_s: float
    pair_us: float = 0.0
    request_us: float = 0.0

    def facts(self) -> dict[str, Any]:
        """Every figure, for a result."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class ScaleCase:
    """What is simulated.

    Attributes
    ----------
    demand : pairs a second that a GPU takes; an assumption, so others are shown beside it
    gpus : of a node
    batch : pairs of a GPU's batch, as published
    pairs_per_epoch, epochs : of the training
    shown : epochs of which every figure is given, from 1
    nodes : numbers of nodes
    steps : of an epoch whose stalls are simulated, from its middle; the others are like them
    memory_gb : of a node that is left for data in every mode: page cache, windows of a stream, zips
    usd_per_1000_get, usd_source : price of requests
    seed : of the sample stream
    """

    demand: Annotated[float, Gt(0)] = 1000.0
    gpus: Annotated[int, Ge(1)] = 8
    batch: Annotated[int, Ge(1)] = 8
    pairs_per_epoch: Annotated[int, Ge(1)] = 320_000
    epochs: Annotated[int, Ge(1)] = FULL_EPOCHS
    shown: tuple[int, ...] = (1, 2, 5, 10, 50)
    nodes: tuple[int, ...] = NODES
    steps: Annotated[int, Ge(1)] = 256
    memory_gb: Annotated[float, Ge(0)] = 256.0
    usd_per_1000_get: Annotated[float, Ge(0)] = 0.0004
    usd_source: str = (
        "list price of GET, S3 Standard, US East (N. Virginia), https://aws.amazon.com/s3/pricing/ "
        "as quoted in Amazon's own documentation of its solutions (stored copy, read 2026-11; the "
        "price page itself could not be read)"
    )
    seed: int = 7
    weights: dict[str, float] = field(default_factory=lambda: dict(PUBLISHED_WEIGHTS))

    @property
    def demands(self) -> tuple[float, ...]:
        """Pairs a second for which waits are given: a quarter of `demand`, it, four times it."""
        return (self.demand / 4, self.demand, self.demand * 4)

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
        return {**facts, "demands_pairs_per_s_gpu": list(self.demands)}
