"""The loaders' promises in numbers, each measured and set beside its bar.

Index and plan: an index of a million synthetic rows, no pictures. Memory and first batch: the
``cpu`` backend in fresh processes over one data set and over another of ten times the shards, both
of the same few pictures, so that only the number of shards and rows differs.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks import result
from benchmarks.case import Case
from benchmarks.claims import Claim, claims_of
from benchmarks.contestants import Entry, named
from benchmarks.data import DataConfig, render_track
from benchmarks.environment import usable_cores
from benchmarks.runner import Outcome, run_once
from loaders.config import PairConfig
from loaders.plan import plan_batch
from loaders.sets import DataSets, open_sets
from loaders.work import prepare
from shards.format import MANIFEST_NAME, Manifest, Sample, ShardInfo, shard_name
from shards.index import Index
from shards.parts import PART_SCHEMA, Part
from shards.writer import finish, write_shard

__all__ = ["measure_limits", "same_pictures"]

ROWS = 1_000_000
SHARDS, FACTOR = 4, 10
PLAN_PAIRS = 256


CLAIMS = (
    Claim(key="index_open_s", what=f"open an index of {ROWS:,} rows", unit="s", bar=0.2),
    Claim(
        key="sets_open_s",
        what="open it for loading, tables of the plan included",
        unit="s",
        bar=0.2,
    ),
    Claim(key="plan_ms", what=f"plan of {PLAN_PAIRS} pairs", unit="ms", bar=5),
    Claim(key="prepare_ms", what=f"plan and draw of {PLAN_PAIRS} pairs", unit="ms", bar=5),
    Claim(key="memory_mb", what="memory of a loader beyond its imports", unit="MB", bar=300),
    Claim(key="memory_10x_mb", what=f"the same with {FACTOR}x the shards", unit="MB", bar=300),
    Claim(key="first_batch_s", what="first batch after the imports", unit="s", bar=2),
    Claim(key="first_batch_10x_s", what=f"the same with {FACTOR}x the shards", unit="s", bar=2),
)


def synthetic_index(folder: Path, rows: int = ROWS, track_rows: int = 400) -> Manifest:
    """Index and manifest of a data set without pictures; made once.

    Parameters
    ----------
    folder : of the data set
    rows : in all, 70 categories, 4,096 rows a file
    track_rows : rows of each track
    """
    if (folder / MANIFEST_NAME).is_file():
        return Manifest.read(folder)
    row = np.arange(rows)
    track = row // track_rows
    names = np.array([f"c{number:02d}" for number in range(70)])
    category = pa.array(names[track % len(names)])
    each = np.arange(rows + 1, dtype=np.int32)
    boxes = pa.FixedSizeListArray.from_arrays(
        pa.array(np.tile(np.array([190, 190, 256, 256], np.float32), rows)), 4
    )
    columns = {
        "sequence": pa.array([f"s{number:06d}" for number in track]),
        "track": pa.array(np.zeros(rows, np.int32)),
        "frame": pa.array((1 + 3 * (row % track_rows)).astype(np.int32)),
        "kind": pa.array(np.full(rows, "video")),
        "fps": pa.array(np.full(rows, 30, np.float32)),
        "boxes": pa.ListArray.from_arrays(pa.array(each), boxes),
        "categories": pa.ListArray.from_arrays(pa.array(each), category),
        "ignore": pa.ListArray.from_arrays(pa.array(each), pa.array(np.zeros(rows, bool))),
        "category": category,
        "visible": pa.array(np.ones(rows, np.float32)),
        "mean_rgb": pa.FixedSizeListArray.from_arrays(
            pa.array(np.full(3 * rows, 110, np.float32)), 3
        ),
        "source": pa.array([f"img/{number:08d}.jpg" for number in row]),
        "source_size": pa.FixedSizeListArray.from_arrays(
            pa.array(np.full(2 * rows, 640, np.int32)), 2
        ),
        "region": boxes,
        "file": pa.array([shard_name("million", int(number)) for number in row // 4096]),
        "offset": pa.array((row % 4096).astype(np.int64) * 40_960),
        "size": pa.array(np.full(rows, 34_000, np.int32)),
        "crc32c": pa.array(row.astype(np.uint32)),
    }
    arrays = [columns[field.name].cast(field.type) for field in PART_SCHEMA]
    table = pa.Table.from_arrays(arrays, schema=PART_SCHEMA)
    info = ShardInfo(name=shard_name("million", 0), bytes=1, frames=rows, sha256="")
    part = Part(info=info, rows=table, facts={})
    return finish(folder, [part], name="million", grid="edge", crop_size=446)


def same_pictures(folder: Path, shards: int) -> Manifest:
    """Shards that hold the same 32 pictures again and again, under other names; made once."""
    if (folder / MANIFEST_NAME).is_file():
        return Manifest.read(folder)
    config = DataConfig(frames_per_track=32)
    pictures = list(render_track(config, 0))
    parts = []
    for number in range(shards):

        def samples(number: int = number) -> Iterator[tuple[Sample, bytes]]:
            for i, (sample, jpeg) in enumerate(pictures):
                facts = {name: getattr(sample, name) for name in Sample.__dataclass_fields__}
                yield Sample(**{**facts, "sequence": f"s{number}", "frame": 1 + 3 * i}), jpeg

        parts.append(write_shard(folder, shard_name("limits", number), samples()))
    return finish(folder, parts, name="limits", grid="edge", crop_size=446, quality=90, stride=3)


def _median_s(work: Callable[[int], object], repeats: int) -> float:
    """Median seconds of a call; it is called once more, beforehand, to warm up."""
    work(0)
    seconds = []
    for number in range(1, repeats + 1):
        started = time.perf_counter()
        work(number)
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def index_and_plan(folder: Path, repeats: int, rows: int = ROWS) -> dict[str, list[float]]:
    """Measure the claims that need an index alone; each repeat is a median of its own."""
    manifest = synthetic_index(folder, rows)
    config = PairConfig(path=str(folder))
    sets: DataSets = open_sets(config)
    found: dict[str, list[float]] = {
        "index_open_s": [],
        "sets_open_s": [],
        "plan_ms": [],
        "prepare_ms": [],
    }

    def plan(number: int) -> object:
        return plan_batch(sets.tables, 7, 0, number * PLAN_PAIRS, PLAN_PAIRS)

    def draw(number: int) -> object:
        return prepare(sets, config, 0, number * PLAN_PAIRS, PLAN_PAIRS)

    for _ in range(repeats):
        found["index_open_s"].append(_median_s(lambda _: Index.checked(folder, manifest), 5))
        found["sets_open_s"].append(_median_s(lambda _: open_sets(config), 5))
        found["plan_ms"].append(1e3 * _median_s(plan, 20))
        found["prepare_ms"].append(1e3 * _median_s(draw, 20))
    return found


def memory_and_start(
    out: Path,
    batches: int,
    repeats: int,
    told: Callable[[str], None],
    once: Callable[[Entry, Case], Outcome] = run_once,
) -> dict[str, list[float]]:
    """Measure the claims about a loader's process."""
    (entry,) = named(["cpu"])
    found: dict[str, list[float]] = {}
    for repeat in range(repeats):
        for shards, tag in ((SHARDS, ""), (SHARDS * FACTOR, "_10x")):
            folder = out / f"shards-{shards}"
            same_pictures(folder, shards)
            case = Case(
                data=str(folder), derived=str(out), pairs=batches * 32, threads=usable_cores()
            )
            figures = once(entry, case).figures
            found.setdefault(f"memory{tag}_mb", []).append(figures["memory_peak_beyond_imports_mb"])
            found.setdefault(f"first_batch{tag}_s", []).append(figures["first_batch_s"])
            told(
                f"repeat {repeat + 1}/{repeats}, {shards} shards: "
                f"{figures['memory_peak_beyond_imports_mb']:.0f} MB, first batch after "
                f"{figures['first_batch_s']:.2f} s"
            )
    return found


def measure_limits(
    out: Path, batches: int, repeats: int, command: str, told: Callable[[str], None]
) -> dict[str, Any]:
    """Measure every claim.

    Parameters
    ----------
    out : folder for the data, made once
    batches : that a loader makes before its memory is read
    repeats : of everything
    command : that repeats it, for the result
    told : called with lines of progress

    Returns
    -------
    the result, as its JSON has it
    """
    run = result.start("limits", command)
    told(f"an index of {ROWS:,} rows")
    values = index_and_plan(out / "million", repeats)
    values |= memory_and_start(out, batches, repeats, told)
    return {
        **run,
        "config": {"batches": batches, "repeats": repeats, "rows": ROWS, "shards": SHARDS},
        "claims": claims_of(CLAIMS, values),
    }
