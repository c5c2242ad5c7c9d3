"""Decode alone in DALI: how many pairs a second, by what is decoded, how and in what batches.

The limit of any loader on this GPU. The pictures are those of the plan's pairs; their bytes and
regions are ready in memory, DALI's own pipeline keeps itself full, and nothing is made of what it
decodes. From one point (`START`) the share for the JPEG engine is swept, then the threads at the
best of these, then the batch at the best of those: the three hardly depend on each other, and a
full grid would take an hour. The best point of each kind is measured again at the end, because the
best of many noisy figures flatters.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np
from nvidia.dali import fn, pipeline_def

from benchmarks.gpu_facts import Facts, Settings
from benchmarks.gpu_process import Peaks, ask
from benchmarks.pairs import pair_config, works
from benchmarks.proc import cpu_s
from loaders.config import DaliConfig
from loaders.dali import decode as decode_node
from loaders.dali import region_inputs
from loaders.sets import open_sets
from shards.errors import SiamstreamError

if TYPE_CHECKING:
    from benchmarks.gpu_child import Talk

__all__ = ["MODES", "Decoder", "decode", "decode_only", "planned", "points", "sweep"]

MODES = ("region", "whole")
LOADS = (0.0, 0.35, 0.65, 0.9, 1.0)
THREADS = (2, 4, 8, 16)
BATCHES = (16, 32, 64, 128, 256)
DRY = {"loads": (0.0, 0.65), "threads": (1, 2), "batches": (4, 8)}
DISTINCT_PAIRS = 1024  # in memory; then they come again
STEPS = 14  # points of a sweep, about
PREFETCH = 3
ENTRIES = tuple[list[Any], Any, Any]


def planned(own: Facts, batches: int) -> list[ENTRIES]:
    """Encoded pictures, low corners and sizes of the first batches of the plan."""
    case = own.case()
    made: list[ENTRIES] = []
    for work in works(case, open_sets(pair_config(case))):
        halves = (work.template, work.search)
        encoded = [
            np.frombuffer(crops.read(i), np.uint8) for crops in halves for i in range(len(crops))
        ]
        decoded = np.concatenate([crops.params.decoded for crops in halves])
        region = region_inputs(decoded)
        made.append((encoded, region["anchor"], region["shape"]))
        if len(made) == batches:
            break
    return made


class Decoder:
    """DALI's decoder, and nothing else, over some batches again and again.

    Parameters
    ----------
    settings : how
    batches : of `planned`
    on_cpu : DALI's CPU decoder
    """

    def __init__(self, settings: Settings, batches: list[ENTRIES], on_cpu: bool) -> None:
        config, given = DaliConfig(**settings.dali()), cycle(batches)
        names = 3 if config.region else 1

        def source() -> Any:
            return next(given)[:names]

        @pipeline_def(  # type: ignore[untyped-decorator]
            batch_size=2 * settings.batch_pairs,
            num_threads=settings.threads,
            device_id=None if on_cpu else 0,
            prefetch_queue_depth=PREFETCH,
        )
        def graph() -> Any:
            inputs = fn.external_source(source=source, num_outputs=names, batch=True)
            return decode_node(list(inputs), not on_cpu, config)

        self._pipe, self._on_cpu = graph(), on_cpu
        self._pipe.build()

    def run(self) -> int:
        """Make one batch; how many pictures it had."""
        (pictures,) = self._pipe.run()
        return len(pictures)

    def wait(self) -> None:
        """Wait until the device has nothing more to do."""
        if not self._on_cpu:
            import torch

            torch.cuda.synchronize()


def measure(own: Facts, seconds: float) -> dict[str, Any]:
    """Rate of one point, after a quarter of the time to warm up."""
    settings = own.settings
    decoder = Decoder(
        settings, planned(own, max(2, DISTINCT_PAIRS // settings.batch_pairs)), own.is_dry
    )
    warm_until = time.perf_counter() + seconds / 4
    decoder.run()
    while time.perf_counter() < warm_until:
        decoder.run()
    decoder.wait()
    peaks, used, made = Peaks(None, 0.1), cpu_s(os.getpid()), 0
    started = time.perf_counter()
    while time.perf_counter() - started < seconds or made < 2:
        decoder.run()
        made += 1
    decoder.wait()
    wall_s, used = time.perf_counter() - started, cpu_s(os.getpid()) - used
    pairs = made * settings.batch_pairs
    return {
        **asdict(settings),
        "pairs_per_s": pairs / wall_s,
        "cpu_ms_per_pair": 1e3 * used / pairs,
        "jpeg_engine_percent": peaks.stop()[2],
        "error": None,
    }


def decode_only(facts: Mapping[str, Any], _: Talk) -> dict[str, Any]:
    """One point, in its own process."""
    own = Facts.read(facts)
    return measure(own, own.work["measure_s"])


def points(start: Settings, cores: int, dry: bool) -> Iterator[tuple[str, list[Settings]]]:
    """Groups of a sweep: a key of `Settings`, and its values to be tried at the best so far.

    Parameters
    ----------
    start : first point
    cores : usable
    dry : tiny
    """
    values: dict[str, tuple[Any, ...]] = {
        "hw_decoder_load": DRY["loads"] if dry else LOADS,
        "threads": DRY["threads"] if dry else tuple(n for n in THREADS if n <= max(cores, 2)),
        "batch_pairs": DRY["batches"] if dry else BATCHES,
    }
    for key, tried in values.items():
        yield key, [replace(start, **{key: value}) for value in tried]


def sweep(facts: Mapping[str, Any], talk: Talk) -> dict[str, Any]:
    """Sweep of one mode, in its own process; ``runs`` and ``best``."""
    own = Facts.read(facts)
    measure_s = min(2.0, max(0.2, own.seconds / STEPS / 2))
    start = replace(own.settings, mode=own.work["mode"])
    found: dict[str, Any] = {"runs": [], "best": None}

    def best() -> Settings:
        top = max(found["runs"], key=lambda one: one["pairs_per_s"])
        return Settings(**{key: top[key] for key in asdict(start)})

    def take(point: Settings) -> dict[str, Any]:
        run = measure(replace(own, settings=point), measure_s)
        talk.say(
            f"{point.mode}, engine {point.hw_decoder_load:g}, {point.threads} threads, "
            f"{point.batch_pairs} pairs: {run['pairs_per_s']:,.0f} pairs/s"
        )
        return run

    seen: set[Settings] = set()
    for key, _ in points(start, own.cores, own.is_dry):
        around = best() if found["runs"] else start
        group = dict(points(around, own.cores, own.is_dry))[key]
        for point in group:
            if point in seen:
                continue
            if found["runs"] and talk.left_s() < 4 * measure_s:
                break
            seen.add(point)
            found["runs"].append(take(point))
            talk.found(found)
    found["best"] = take(best())
    return found


def decode(facts: Mapping[str, Any], talk: Talk) -> dict[str, Any]:
    """Sweep of regions and of whole pictures."""
    own = Facts.read(facts)
    found: dict[str, Any] = {"runs": [], "best": {}, "errors": {}}
    threads, batch = (2, 4) if own.is_dry else (min(8, own.cores), 64)
    start = Settings(threads=threads, batch_pairs=batch)
    for left, mode in zip((2, 1), MODES, strict=True):
        seconds = 0.95 * talk.left_s() / left
        step = replace(own, settings=start).step(0.8 * seconds, mode=mode)
        answer = ask("sweep", step, seconds, talk.say, step=True)
        runs = answer.found.get("runs", [])
        found["runs"] += runs
        if answer.error:
            found["errors"][mode] = answer.error
            talk.say(f"{mode}: {answer.error}")
        elif answer.found.get("best"):
            found["best"][mode] = {**answer.found["best"], "memory": answer.memory()}
        talk.found(found)
    if not found["best"]:
        raise SiamstreamError(f"nothing was decoded: {found['errors']}")
    return found
