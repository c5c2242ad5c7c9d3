"""The model of `scale` against small real runs on this machine.

Some hundred pictures a second are read by real loaders in fresh processes: from disk with an empty
page cache, over a server that answers 30 ms late with few and with many connections, through a
narrow link, from the disk cache, as a stream, and into memory. The model gets the same index, plan
and settings, the rates of `Node` and the time of a first batch that is decoded from a warm page
cache; everything else it has to know by itself.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from benchmarks import result
from benchmarks.memory import repeated_pictures
from benchmarks.paced import Paced
from benchmarks.page_cache import evict
from benchmarks.remote import paced_run
from benchmarks.scale_cache import disk_cache, page_cache, since
from benchmarks.scale_case import Node, Storage
from benchmarks.scale_indexed import joined
from benchmarks.scale_reads import Catalogue, Requests, batches_of, plan_rows, requests
from benchmarks.scale_steps import Flow, steps
from benchmarks.scale_stream import read_epoch
from benchmarks.slow_server import slow_server
from loaders.sequential import open_source_streams
from loaders.sets import DataSets, open_sets
from loaders.streaming import Progress, ShardStream
from loaders.works import Planned
from shards.format import INDEX_NAME
from shards.storage import MemoryStorage

__all__ = ["CHECK_GB", "Fetch", "check", "measure_node", "predict", "request_us"]

CHECK_GB = 0.3
_RATE, _BATCHES, _WINDOW = 100.0, 30, 8
_DELAY_MS = 30.0
_SETTLE_S = 3.0
_GONE = 0.99  # share of the shards' bytes that has to leave the page cache
_CALIBRATION_PAIRS, _CALIBRATION_BATCH = 640, 8
_REMOTE = Path(__file__).parent / "results" / "remote.json"
_TRIES = 3  # of a rate, whose best is taken
_LOCAL = Storage(name="local", text="", cache="page", latency_ms=0.1, node_mb_per_s=1_000.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Fetch:
    """What the model says of a run.

    Attributes
    ----------
    bytes, requests : that go to the storage
    wait_share : of the counted time
    first_s : until the bytes of the first batch are there
    """

    bytes: float
    requests: float
    wait_share: float
    first_s: float


def predict(sets: DataSets, paced: Paced, storage: Storage) -> Fetch:
    """What one process of the loader will fetch, and how long its consumer will wait.

    Parameters
    ----------
    sets : data of the run
    paced : the run
    storage : with an empty cache; ``cache_gb`` is as much as the cache takes
    """
    catalogue = Catalogue.of(sets)
    pairs = paced.announced * paced.batch_size
    rows = batches_of(plan_rows(sets, catalogue.base, paced.seed, 0, pairs), 1, paced.batch_size)
    trace = rows.reshape(-1)
    gap = since(trace)
    if storage.cache == "page":
        hit, sizes = page_cache(gap, catalogue.pages[trace], np.inf), catalogue.pages[trace]
    else:
        hit = joined(gap, paced.prefetch, 1, 2 * paced.batch_size)
        hit |= disk_cache(gap, trace, catalogue.disk_bytes, storage.cache_gb * 1e9)
        sizes = catalogue.size[trace]
    fetched = np.where(hit, 0, sizes).reshape(len(rows), 1, -1)
    flow = Flow(
        storage=storage,
        connections=storage.connections,
        gpus=1,
        prefetch=paced.prefetch,
        step_s=paced.batch_size / paced.pairs_per_s,
    )
    run = steps(flow, fetched[: 1 + paced.warmup + paced.batches].astype(float))
    total = Requests(ranges=0, requests=0, wanted=0, fetched=0)
    for k, batch in enumerate(rows[:, 0]):
        for half in (0, 1):
            missed = batch[:, half][~hit.reshape(len(rows), -1, 2)[k, :, half]]
            if len(missed):
                total += requests(catalogue, missed)
    return Fetch(
        bytes=float(fetched.sum()) if storage.cache == "page" else float(total.fetched),
        requests=float(total.requests),
        wait_share=run.share(1 + paced.warmup),
        first_s=float(run.taken[0]),
    )


def measure_node(folder: Path) -> Node:
    """Rates of this machine that the model takes as given; the page cache is warm."""
    files = _shards(folder)
    for file in files:
        file.read_bytes()
    config = _paced(folder, storage="sequential").config()
    source, chosen = open_source_streams(config, None, Progress())
    stream = chosen.sets[0].shards
    try:
        with closing(stream.read(0)) as begun:  # type: ignore[type-var]
            next(begun)  # what is imported on the way is imported now
        frames_per_s = max(_frames_per_s(stream) for _ in range(_TRIES))
    finally:
        source.abort()
    few = files[: max(1, len(files) // 3)]
    return Node(
        stream_frames_per_s=frames_per_s,
        preload_mb_per_s=max(_preload_mb_per_s(few) for _ in range(_TRIES)),
        pair_us=_pair_us(folder),
        request_us=request_us(_REMOTE),
    )


def _pair_us(folder: Path) -> float:
    """CPU time of one thread a pair: planned, announced, both pictures read and checked."""
    config, batch = _paced(folder).config(), _CALIBRATION_BATCH
    with closing(open_sets(config)) as sets:
        works = Planned(sets, config, 0, 1, batch)

        def read(epoch: int) -> float:
            began = time.thread_time()
            for first in range(0, _CALIBRATION_PAIRS, batch):
                work = works.make(epoch, first)
                works.announce(work)
                for crops in (work.template, work.search):
                    for i in range(batch):
                        crops.read(i)
            return time.thread_time() - began

        read(0)  # what is mapped on the way is mapped now
        return 1e6 * min(read(1 + number) for number in range(_TRIES)) / _CALIBRATION_PAIRS


def request_us(file: Path) -> float:
    """CPU time of a request, from a result of ``benchmarks remote``: what a cold cache adds.

    Raises
    ------
    FormatError : if there is no such result
    """
    runs = result.read(file, "remote")["runs"]
    added = statistics.median(run["cold"]["cpu_ms"] - run["local"]["cpu_ms"] for run in runs)
    pairs = result.read(file, "remote")["data"]["pictures_read"] / 2
    made = statistics.median(run["cold"]["remote_requests"] for run in runs)
    return float(max(0.0, 1e3 * added * pairs / made))


def _frames_per_s(stream: ShardStream) -> float:
    began = time.perf_counter()
    frames = sum(1 for _ in stream.read(0))
    return frames / (time.perf_counter() - began)


def _preload_mb_per_s(files: list[Path]) -> float:
    began = time.perf_counter()
    MemoryStorage(files[0].parent, [file.name for file in files]).close()
    mb = sum(file.stat().st_size for file in files) / 1e6
    return mb / (time.perf_counter() - began)


def _paced(folder: Path | str, **settings: Any) -> Paced:
    given = {
        "cache_dir": "", "pairs_per_s": _RATE, "batches": _BATCHES, "settle_s": _SETTLE_S,
        **settings,
    }  # fmt: skip
    return Paced(path=str(folder), **given)


def _shards(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.tar"))


def _evicted(folder: Path) -> str:
    """Let the page cache forget the shards, not the index; say what of them stayed."""
    share = evict(_shards(folder)).share
    return "" if share >= _GONE else f"{100 * (1 - share):.0f} % stayed in the page cache"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Seen:
    """One figure of a case, predicted and measured.

    Attributes
    ----------
    kind : ``calibration`` where a figure just measured on the same files is part of the predicted
    note : what was not as it should be
    """

    case: str
    quantity: str
    unit: str
    predicted: float
    measured: float
    kind: Literal["prediction", "calibration"] = "prediction"
    note: str = ""


class _Check:
    """Runs every case once; see the module."""

    def __init__(self, folder: Path, sets: DataSets, node: Node) -> None:
        self._folder, self._sets, self._node = folder, sets, node

    def cases(self) -> Iterator[_Seen]:
        """Figures of all cases."""
        self._index_is_cached()
        warm = paced_run(_paced(self._folder))
        decode_s = warm["first_batch_s"] - warm["opened_s"]
        yield from self._local()
        yield from self._remote(decode_s)
        yield from self._sequential(decode_s)
        yield from self._memory()

    def _index_is_cached(self) -> None:
        (self._folder / INDEX_NAME).read_bytes()

    def _local(self) -> Iterator[_Seen]:
        paced = _paced(self._folder)
        note = _evicted(self._folder)
        seen, said = paced_run(paced), predict(self._sets, paced, _LOCAL)
        yield _Seen(
            case="disk, page cache empty", quantity="bytes", unit="MB",
            predicted=said.bytes / 1e6, measured=seen["disk_bytes"] / 1e6, note=note,
        )  # fmt: skip
        yield self._waits("disk, page cache empty", said, seen, note)

    @staticmethod
    def _waits(case: str, said: Fetch, seen: dict[str, Any], note: str = "") -> _Seen:
        """Time that a GPU of that rate is idle; asking itself may wait while the GPU works."""
        return _Seen(
            case=case, quantity="wait share", unit="", predicted=said.wait_share,
            measured=max(0.0, 1 - seen["pairs_per_s"] / _RATE), note=note,
        )  # fmt: skip

    def _remote(self, decode_s: float) -> Iterator[_Seen]:
        for name, connections, mb_per_s in (
            ("server, 32 connections", 32, 0.0),
            ("server, 4 connections", 4, 0.0),
            ("server, link of 5 MB/s", 32, 5.0),
        ):
            storage = Storage(
                name="server", text="", cache="disk", latency_ms=_DELAY_MS, cache_gb=20.0,
                connections=connections, node_mb_per_s=mb_per_s or 1_000.0,
            )  # fmt: skip
            with (
                slow_server(self._folder, _DELAY_MS, 0.0, lambda _: None, mb_per_s) as (url, _),
                tempfile.TemporaryDirectory(prefix="siamstream-cache-") as cache,
            ):
                paced = _paced(url, cache_dir=cache, connections=connections)
                seen = paced_run(paced)
                said = predict(self._sets, paced, storage)
                yield from self._fetched(name, said, seen, decode_s)
                if connections == 4:
                    seen = paced_run(paced)
                    all_read = _all_bytes(self._sets, paced)
                    yield _Seen(
                        case="server, disk cache full of it", quantity="cache bytes", unit="MB",
                        predicted=all_read / 1e6, measured=seen["cache_bytes"] / 1e6,
                    )  # fmt: skip

    def _fetched(
        self, name: str, said: Fetch, seen: dict[str, Any], decode_s: float
    ) -> Iterator[_Seen]:
        fetched = seen["remote_bytes"] - seen["opening_bytes"]
        made = seen["remote_requests"] - seen["opening_requests"]
        yield _Seen(
            case=name, quantity="bytes", unit="MB", predicted=said.bytes / 1e6,
            measured=fetched / 1e6,
        )  # fmt: skip
        yield _Seen(case=name, quantity="requests", unit="", predicted=said.requests, measured=made)
        yield self._waits(name, said, seen)
        yield _Seen(
            case=name, quantity="first batch s", unit="s", predicted=said.first_s + decode_s,
            measured=seen["first_batch_s"] - seen["opened_s"], kind="calibration",
        )  # fmt: skip

    def _sequential(self, decode_s: float) -> Iterator[_Seen]:
        paced = _paced(self._folder, storage="sequential", window_tracks=_WINDOW)
        seen = paced_run(paced)
        said = read_epoch(
            self._sets.sets, paced.config(), 0, [0], 1, paced.batch_size, paced.announced
        )
        name = f"stream, window of {_WINDOW} tracks"
        first_s = float(said.frames[0, 0]) / self._node.stream_frames_per_s + decode_s
        yield _Seen(
            case=name, quantity="bytes", unit="MB", predicted=float(said.sizes.sum()) / 1e6,
            measured=seen["asked_bytes"] / 1e6,
        )  # fmt: skip
        yield _Seen(
            case=name, quantity="first batch s", unit="s", predicted=first_s,
            measured=seen["first_batch_s"] - seen["opened_s"], kind="calibration",
        )  # fmt: skip

    def _memory(self) -> Iterator[_Seen]:
        seen = paced_run(_paced(self._folder, storage="zip-memory", batches=1))
        size = sum(file.stat().st_size for file in _shards(self._folder))
        yield _Seen(
            case="files into memory", quantity="start s", unit="s",
            predicted=size / 1e6 / self._node.preload_mb_per_s, measured=seen["opened_s"],
            kind="calibration",
        )  # fmt: skip


def _all_bytes(sets: DataSets, paced: Paced) -> int:
    """Bytes of all reads of a run, repeats included."""
    catalogue = Catalogue.of(sets)
    rows = plan_rows(sets, catalogue.base, paced.seed, 0, paced.announced * paced.batch_size)
    return int(catalogue.size[rows].sum())


def check(
    folder: Path, repeats: int, told: Callable[[str], None]
) -> tuple[Node, list[dict[str, Any]]]:
    """Measure what a process can do, and hold the model against real runs.

    Parameters
    ----------
    folder : of the data of the runs, made if absent
    repeats : of every case
    told : called with lines of progress
    """
    repeated_pictures(folder, CHECK_GB)
    node = measure_node(folder)
    told(
        f"a stream gives {node.stream_frames_per_s:,.0f} frames/s, files are read into memory at "
        f"{node.preload_mb_per_s:,.0f} MB/s, a pair costs {node.pair_us:,.0f} µs of CPU and a "
        f"request {node.request_us:,.0f} µs more"
    )
    found: dict[tuple[str, str], list[_Seen]] = {}
    with closing(open_sets(_paced(folder).config())) as sets:
        for number in range(repeats):
            for seen in _Check(folder, sets, node).cases():
                found.setdefault((seen.case, seen.quantity), []).append(seen)
                note = f", {seen.note}" if seen.note else ""
                told(
                    f"{number + 1}/{repeats} {seen.case}: {seen.quantity} {seen.measured:.4g} "
                    f"{seen.unit}, predicted {seen.predicted:.4g}{note}"
                )
    return node, [_facts(seen) for seen in found.values()]


def _facts(seen: list[_Seen]) -> dict[str, Any]:
    """One line of a result: medians, and how far the model was off, None where 0 was measured."""
    predicted = statistics.median(one.predicted for one in seen)
    measured = statistics.median(one.measured for one in seen)
    absolute = seen[0].quantity == "wait share"
    off = predicted - measured
    return {
        "case": seen[0].case,
        "text": seen[0].case,
        "quantity": seen[0].quantity,
        "unit": seen[0].unit,
        "predicted": predicted,
        "measured": measured,
        "repeats": [one.measured for one in seen],
        "error": off if absolute else off / measured if measured else None,
        "absolute": absolute,
        "kind": seen[0].kind,
        "note": "; ".join(dict.fromkeys(one.note for one in seen if one.note)),
    }
