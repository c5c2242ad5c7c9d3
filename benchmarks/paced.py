"""A loader with a consumer that takes a fixed number of pairs a second, in a process of its own.

``python -m benchmarks.paced`` reads a `Paced` as JSON from stdin and writes its figures as one JSON
line.
"""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.proc import cpu_s
from loaders.config import PairConfig, StorageName
from loaders.loader import PairLoader
from loaders.remote import RemoteConfig
from loaders.sets import DataSets
from loaders.window import SequentialConfig
from loaders.work import prepare
from shards.errors import KNOWN_ERRORS, one_line

__all__ = ["Paced", "main", "measure", "picture_sizes"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Paced:
    """What is read, and how fast.

    Attributes
    ----------
    path : of the data, a folder or a URL
    cache_dir : of remote data
    pairs_per_s : that the consumer takes
    batches, warmup : counted; dropped before them
    batch_size, threads, prefetch, seed, storage : of the loader
    settle_s : after the last batch, for what was announced to come
    connections : of remote data; 0: the default
    window_tracks : of ``storage: sequential``; 0: the default
    """

    path: str
    cache_dir: str
    pairs_per_s: float
    batches: int
    warmup: int = 4
    batch_size: int = 32
    threads: int = 2
    prefetch: int = 4
    seed: int = 7
    storage: StorageName = "auto"
    settle_s: float = 0.5
    connections: int = 0
    window_tracks: int = 0

    @property
    def announced(self) -> int:
        """Batches whose pictures are asked for: the first, and the last ones' successors too."""
        return 1 + self.warmup + self.batches + self.prefetch

    def config(self) -> PairConfig:
        """Return the loader's configuration: the full recipe, uint8 at 255/255."""
        connections = self.connections or RemoteConfig().connections
        window = self.window_tracks or SequentialConfig().window_tracks
        return PairConfig(
            path=self.path,
            backend="cpu",
            storage=self.storage,
            threads=self.threads,
            prefetch=self.prefetch,
            seed=self.seed,
            sequential=SequentialConfig(window_tracks=window),
            remote=RemoteConfig(cache_dir=self.cache_dir, connections=connections),
        )


def picture_sizes(sets: DataSets, paced: Paced) -> dict[tuple[str, int], int]:
    """Bytes of all pictures that a run announces, by data set and row."""
    sizes: dict[tuple[str, int], int] = {}
    work = prepare(sets, paced.config(), 0, 0, paced.announced * paced.batch_size)
    for crops in (work.template, work.search):
        for number, row in zip(work.plan.dataset.tolist(), crops.rows.tolist(), strict=True):
            source = sets.sets[number]
            sizes[source.manifest.name, row] = int(source.index.size[row])
    return sizes


def _io() -> dict[str, int]:
    """Bytes that this process has read so far: asked for, and from disks."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return {name: int(value) for name, value in (line.split(": ") for line in lines)}


def measure(paced: Paced) -> dict[str, Any]:
    """Run it.

    Returns
    -------
    ``wait_share`` of the counted time that the consumer waited; ``cpu_ms`` of this process a pair;
    ``first_batch_s``, and ``opened_s`` until there was a loader; ``asked_bytes`` that it read from
    files since then, and ``disk_bytes`` of them that came from a disk; ``needed_bytes`` of all
    pictures announced; ``opening_bytes`` and ``opening_requests`` of manifest and index; all of
    the loader's own totals
    """
    root, started = os.getpid(), time.perf_counter()
    batch_s = paced.batch_size / paced.pairs_per_s
    with PairLoader(paced.config(), batch_size=paced.batch_size) as loader:
        opened_s, before = time.perf_counter() - started, _io()
        opening = loader.stats()
        next(loader)
        first_batch_s = time.perf_counter() - started
        cpu = wall = waited = 0.0
        due = time.perf_counter()
        for number in range(paced.warmup + paced.batches):
            if number == paced.warmup:
                cpu, wall, waited = cpu_s(root), time.perf_counter(), 0.0
            asked = time.perf_counter()
            next(loader)
            got = time.perf_counter()
            waited += got - asked
            due = max(due, got - batch_s) + batch_s  # the step after this batch ends then
            time.sleep(max(0.0, due - time.perf_counter()))
        wall, cpu = time.perf_counter() - wall, cpu_s(root) - cpu
        time.sleep(paced.settle_s)  # what was announced has come
        stats = loader.stats()
        after, sets = _io(), loader.sets
        needed = sum(picture_sizes(sets, paced).values()) if isinstance(sets, DataSets) else 0
    return {
        "wait_share": waited / wall,
        "pairs_per_s": paced.batches * paced.batch_size / wall,
        "cpu_ms": 1e3 * cpu / (paced.batches * paced.batch_size),
        "first_batch_s": first_batch_s,
        "opened_s": opened_s,
        "asked_bytes": after["rchar"] - before["rchar"],
        "disk_bytes": after["read_bytes"] - before["read_bytes"],
        "needed_bytes": needed,
        "opening_bytes": opening.get("remote_bytes", 0),
        "opening_requests": opening.get("remote_requests", 0),
        **stats,
    }


def main() -> int:
    """Measure what stdin says; the exit status."""
    try:
        facts = measure(Paced(**json.load(sys.stdin)))
    except KNOWN_ERRORS as error:
        sys.stderr.write(one_line(error) + "\n")
        return 1
    sys.stdout.write(json.dumps(facts) + "\n")
    return 0


def as_json(paced: Paced) -> str:
    """Text for the process's stdin."""
    return json.dumps(asdict(paced))


if __name__ == "__main__":
    sys.exit(main())
