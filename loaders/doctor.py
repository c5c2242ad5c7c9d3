"""``python -m loaders doctor``: how fast each stage is on this machine, and which one to change.

Every stage is measured alone, on pairs that the plan names, for one thread and for the configured
number: *storage* (reads and checks, as found and again), *decode* (as the backend does; a whole
decode beside it), *augment* (what the backend takes beyond decoding, its pictures being in memory),
*plan*, *hand-over* (to the device, normalised if it is not yet), and then the whole loader.
`loaders.advice` draws the conclusion.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import simplejpeg
import torch

from configs.strict import ConfigError
from loaders.advice import Setting, Stage, advice, bottleneck, facts_of, notes
from loaders.batch import normalise, torch_dtype
from loaders.config import PairConfig
from loaders.cpu import Bench, usable_cores
from loaders.loader import PairLoader, make_backend
from loaders.reference import decode as decode_with_pillow
from loaders.sets import DataSets, open_sets
from loaders.threads import Threads
from loaders.timing import pairs_per_s
from loaders.work import Crops, Source, Work, prepare
from shards.errors import BadSample, StorageError
from shards.free_memory import available_bytes

__all__ = ["Examination", "examine"]

PAIRS = 256  # that the stages work on
_MEASUREMENTS = 12  # that share the time
_BATCHES = 4  # that the backend makes again and again, at most
_DECODED = 128  # pairs that are decoded again and again
_FEWEST = 3  # batches of the whole loader
_COLD = 0.1  # more than this share of the bytes came from disk


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Examination:
    """What the doctor found.

    Attributes
    ----------
    setting : configuration and machine
    stages : in the order of a pair's way
    whole_decode : pairs a second of plain whole decoding, one and all threads
    storage : ``mb_per_s``, ``us_per_picture`` as found and again (``*_warm``), ``cold``
    loader : pairs a second of the whole loader, one and all threads
    warnings : of opening the data
    batch_size : pairs of a batch
    """

    setting: Setting
    stages: tuple[Stage, ...]
    whole_decode: tuple[float, float]
    storage: dict[str, Any]
    loader: tuple[float, float]
    warnings: tuple[str, ...]
    batch_size: int

    def facts(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        slowest, setting = bottleneck(self.stages), self.setting
        return {
            "setting": {name: getattr(setting, name) for name in Setting.__dataclass_fields__},
            "batch_size": self.batch_size,
            "stages": [facts_of(stage) for stage in self.stages],
            "whole_decode_pairs_per_s_one_thread": self.whole_decode[0],
            "whole_decode_pairs_per_s": self.whole_decode[1],
            "storage": self.storage,
            "loader_pairs_per_s_one_thread": self.loader[0],
            "loader_pairs_per_s": self.loader[1],
            "bottleneck": slowest.name,
            "advice": advice(slowest.name, setting),
            "notes": list(self.notes()),
            "warnings": list(self.warnings),
        }

    def notes(self) -> tuple[str, ...]:
        """Say what makes the figures less certain."""
        one, all_threads = self.loader
        return notes(self.setting, all_threads, self.stages, all_threads / one)


@dataclass(frozen=True, slots=True)
class _Held:
    """A data set whose pictures are in memory already, as far as they were read."""

    source: Source
    data: dict[tuple[int, int], bytes]

    def read(self, row: int) -> memoryview:
        return memoryview(self.data[id(self.source), row])

    def bad(self, row: int, reason: str) -> BadSample:
        return self.source.bad(row, reason)


def _disk_bytes() -> int | None:
    """Bytes that this process caused to be read from disk; None where the system does not say."""
    try:
        lines = Path("/proc/self/io").read_text().splitlines()
    except OSError:
        return None
    return next(int(line.split()[1]) for line in lines if line.startswith("read_bytes"))


class _Doctor:
    """One examination: the data, the pairs, and the time that each measurement may take."""

    def __init__(
        self, config: PairConfig, device: torch.device, batch_size: int, seconds: float
    ) -> None:
        self.config, self.device, self.batch_size = config, device, batch_size
        self.limit_s = seconds / _MEASUREMENTS
        self.threads = config.threads or usable_cores()
        self.sets: DataSets = open_sets(config)
        self.work: Work = prepare(self.sets, config, 0, 0, PAIRS)
        self.halves = (self.work.template, self.work.search)
        self.data: dict[tuple[int, int], bytes] = {}

    def both(self, measure: Callable[[int], float]) -> tuple[float, float]:
        """Measure with one thread and with all."""
        one = measure(1)
        return one, measure(self.threads) if self.threads > 1 else one

    def rate(
        self, task: Callable[[int], object], threads: int = 1, most: int | None = None
    ) -> float:
        """Pairs a second of a task, see `pairs_per_s`."""
        return pairs_per_s(task, threads, self.limit_s, self.config.timeout_s, most)

    # ---- storage --------------------------------------------------------------------------------

    def _read(self, crops: Crops, i: int) -> None:
        self.data[id(crops.sources[i]), int(crops.rows[i])] = bytes(crops.read(i))

    def _read_pair(self, number: int) -> None:
        for half in self.halves:
            self._read(half, number)

    def _announce(self, work: Work) -> None:
        """Tell the storages what will be read, as the loader does."""
        for half in (work.template, work.search):
            for number, source in enumerate(self.sets.sets):
                source.storage.will_need(source.ranges(half.rows[work.plan.dataset == number]))

    def _read_pass(self, first: int, count: int, threads: int) -> float:
        self._announce(self.work.part(first, first + count))
        return self.rate(lambda number: self._read_pair(first + number), threads, count)

    def _fetched_bytes(self) -> int | None:
        """Bytes that came from far: over the network, or from a disk; None where unknown."""
        remote = self.sets.remote
        return _disk_bytes() if remote is None else int(remote.stats()["remote_bytes"])

    def storage(self) -> tuple[Stage, dict[str, Any]]:
        """Read every pair once as found, then those of the first pass again."""
        middle, before = PAIRS // 2, self._fetched_bytes()
        # two halves, so that the second number of threads finds its pictures unread too
        one = self._read_pass(0, middle, 1)
        every = self._read_pass(middle, PAIRS - middle, self.threads)
        read = sum(len(data) for data in self.data.values())
        after = self._fetched_bytes()
        cold = None if before is None or after is None else after - before > _COLD * read
        # nothing but what was read: a slow storage is not asked for all of it again
        there = self._there()

        def again(number: int) -> None:
            self._read_pair(there[number % len(there)])

        warm = self.rate(again, self.threads)
        mean = read / len(self.data)
        facts = {
            "cold": cold,
            "mean_picture_kb": mean / 1e3,
            "mb_per_s": 2 * every * mean / 1e6,
            "us_per_picture": 1e6 / (2 * every),
            "mb_per_s_warm": 2 * warm * mean / 1e6,
            "us_per_picture_warm": 1e6 / (2 * warm),
        }
        return Stage(name="storage", one_thread=one, all_threads=every), facts

    def _held(self, work: Work) -> Work:
        """Read what a batch needs, untimed; the batch, with its pictures from memory.

        Raises
        ------
        StorageError : if a picture does not come
        """
        self._announce(work)
        reader = Threads(self.threads, "doctor")
        try:
            for reading in [
                reader.submit(self._read, half, i)
                for half in (work.template, work.search)
                for i in range(len(half))
            ]:
                reading.result(self.config.timeout_s)
        except FutureTimeout as error:
            raise StorageError(
                f"a picture did not come within data.timeout_s={self.config.timeout_s:g} s"
            ) from error
        finally:
            reader.stop(0.0)
        held = {id(source): _Held(source, self.data) for source in self.sets.sets}
        template, search = (
            replace(half, sources=tuple(held[id(source)] for source in half.sources))
            for half in (work.template, work.search)
        )
        return replace(work, template=template, search=search)

    # ---- decode and augment ---------------------------------------------------------------------

    def _encoded(self, half: Crops, i: int) -> bytes | None:
        return self.data.get((id(half.sources[i]), int(half.rows[i])))

    def _there(self) -> list[int]:
        """Pairs whose bytes are in memory: all, unless the storage was too slow."""
        return [
            i for i in range(PAIRS) if None not in [self._encoded(half, i) for half in self.halves]
        ]

    def whole_decode(self) -> tuple[float, float]:
        """Decode whole pictures with simplejpeg, whatever the backend does."""
        there = self._there()

        def decode(number: int) -> None:
            for half in self.halves:
                simplejpeg.decode_jpeg(self._encoded(half, there[number % len(there)]), "RGB")

        return self.both(partial(self.rate, decode))

    def decode(self, backend: str) -> tuple[float, float]:
        """Decode as a backend on the CPU does: what the crop touches, or with Pillow all."""
        bench, held = Bench(self.sets.crop_size), self._held(self.work.part(0, _DECODED))
        halves = [(half, half.params.decoded) for half in (held.template, held.search)]

        def decode(number: int) -> None:
            i = number % len(held)
            for half, regions in halves:
                if backend == "reference":
                    decode_with_pillow(half.read(i))
                else:
                    bench.decode(half, i, regions[i])

        if backend == "reference":  # has one thread whatever is configured
            one = self.rate(decode)
            return one, one
        return self.both(partial(self.rate, decode))

    def backend(self, threads: int) -> tuple[str, float, tuple[torch.Tensor, torch.Tensor]]:
        """Pairs a second of the backend alone, on pictures in memory; its name and last batch."""
        config, size = replace(self.config, threads=threads), self.batch_size
        name, backend = make_backend(config, self.sets, size, self.device)
        count = max(1, min(_BATCHES, PAIRS // size))
        works = [self._held(prepare(self.sets, config, 0, n * size, size)) for n in range(count)]
        waiting = [backend.start(works[0])]
        pixels = None
        done, started = 0, time.perf_counter()
        try:
            for number in itertools.count(1):
                waiting.append(backend.start(works[number % len(works)]))
                pixels = backend.finish(waiting.pop(0), config.timeout_s)
                if number == 1:  # the first one starts threads and decoders
                    started = time.perf_counter()
                else:
                    done += size
                    if time.perf_counter() - started > self.limit_s:
                        break
            per_s = done / (time.perf_counter() - started)
            backend.finish(waiting.pop(0), config.timeout_s)
        finally:
            backend.close()
        assert pixels is not None
        return name, per_s, pixels

    def backends(self) -> tuple[str, float, float, tuple[torch.Tensor, torch.Tensor]]:
        """Name of the backend, pairs a second with one thread and with all, and a batch of it."""
        name, one, pixels = self.backend(1)
        every = one
        if self.threads > 1:
            _, every, pixels = self.backend(self.threads)
        return name, one, every, pixels

    def pooled(self, name: str, one: float, every: float) -> list[Stage]:
        """Decode, and augment: what a backend takes beyond decoding.

        Parameters
        ----------
        name : of the backend
        one, every : its pairs a second, one and all threads
        """
        if name == "dali":  # one graph on the GPU does both
            return [Stage(name="decode", one_thread=one, all_threads=every)]
        decode = self.decode(name)
        one, every = (_beyond(*parts) for parts in zip((one, every), decode, strict=True))
        return [
            Stage(name="decode", one_thread=decode[0], all_threads=decode[1]),
            Stage(name="augment", one_thread=one, all_threads=every),
        ]

    # ---- beside the pool ------------------------------------------------------------------------

    def plan(self) -> float:
        """Pairs a second of planning and drawing."""

        def batch(number: int) -> None:
            prepare(self.sets, self.config, 1, number * self.batch_size, self.batch_size)

        return self.batch_size * self.rate(batch)

    def hand_over(self, pixels: Sequence[torch.Tensor]) -> float:
        """Pairs a second to the device, normalised if it is to be and is not yet."""
        cuda, dtype = self.device.type == "cuda", torch_dtype(self.config.pixels)

        def batch(_: int) -> None:
            for one in pixels:
                there = one.device.type == self.device.type
                moved = one if there else one.pin_memory().to(self.device, non_blocking=True)
                if dtype != torch.uint8:
                    normalise(moved, dtype)
            if cuda:
                torch.cuda.synchronize()

        return self.batch_size * self.rate(batch)

    def loader(self, threads: int) -> float:
        """Pairs a second of the whole loader."""
        config = replace(self.config, threads=threads)
        with PairLoader(config, device=self.device, batch_size=self.batch_size) as loader:
            for _ in range(2):  # threads and decoders are made now
                next(loader)
            started, batches = time.perf_counter(), 0
            while batches < _FEWEST or time.perf_counter() - started < self.limit_s:
                next(loader)
                batches += 1
            return batches * self.batch_size / (time.perf_counter() - started)


def _beyond(whole: float, part: float) -> float:
    """Pairs a second of what is left of a whole when a part is done."""
    left_s = 1 / whole - 1 / part
    return 1 / max(left_s, 0.01 / whole)  # noise can leave nothing


def examine(
    config: PairConfig, device: torch.device, batch_size: int = 32, seconds: float = 6.0
) -> Examination:
    """Measure every stage.

    Parameters
    ----------
    config : the ``data:`` section
    device : where batches go
    batch_size : pairs of a batch
    seconds : for all measurements, about

    Raises
    ------
    DataError, MismatchError, FormatError, BadSample, StorageError : as the loader does
    ConfigError : if the backend needs another device
    """
    if config.storage == "sequential":
        raise ConfigError(
            "data.storage 'sequential': single pictures are read here, which a stream has not; "
            "examine the same data with --set data.storage=shards, where they are on a disk"
        )
    doctor = _Doctor(config, device, batch_size, seconds)
    with closing(doctor.sets):
        return _examined(doctor)


def _examined(doctor: _Doctor) -> Examination:
    config = doctor.config
    storage, storage_facts = doctor.storage()
    name, one, every, pixels = doctor.backends()
    pooled = doctor.pooled(name, one, every)
    rest = {"plan": doctor.plan(), "hand-over": doctor.hand_over(pixels)}
    beside = [Stage(name=stage, one_thread=rate, all_threads=rate) for stage, rate in rest.items()]  # type: ignore[arg-type]
    sets = doctor.sets.sets
    return Examination(
        setting=Setting(
            backend=name,
            pixels=config.pixels,
            template_px=config.template_px,
            threads=doctor.threads,
            cores=usable_cores(),
            cuda=torch.cuda.is_available(),
            cold=storage_facts["cold"],
            pictures=sum(len(source.index) for source in sets),
            data_bytes=sum(int(source.index.size.sum(dtype="int64")) for source in sets),
            memory_bytes=available_bytes(),
            connections=config.remote.connections if doctor.sets.remote else 0,
            ahead_mb=config.remote.ahead_mb,
            cache_gb=config.remote.cache_gb,
            storage=config.storage,
            workers=config.workers,
        ),
        stages=(storage, *pooled, *beside),
        whole_decode=doctor.whole_decode(),
        storage=storage_facts,
        loader=doctor.both(doctor.loader),
        warnings=doctor.sets.warnings,
        batch_size=doctor.batch_size,
    )
