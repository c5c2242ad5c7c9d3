"""How far pairs of ``data.storage: sequential`` are from the plan's.

Question: what does a window of tracks change in the statistics of the pairs? Method: draw as many
pairs both ways from the same indexes, no pictures read, one data set at a time; the stream gets the
index's rows shard by shard, exactly as it would from tars. Sizes of the window from 8 to 512
tracks (64 pictures for a track where the data are single pictures). Compared: kinds of pair,
distances of frames within *same instance* pairs, categories of templates, positive pairs, frames
used again, different tracks in a batch. ``noise`` is the same distance between two plans of other
seeds: what is not above it, this many pairs do not show.

Without ``--data`` the indexes are synthetic, of the sizes of LaSOT, GOT-10k (both every third
frame) and a fifth of COCO: lengths of tracks and frequencies of categories are drawn, pictures do
not exist.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from benchmarks import result
from loaders.config import PairConfig
from loaders.dealing import Frame, shard_order, stream
from loaders.plan import SAME_INSTANCE, PairTables, Plan, plan_batch
from loaders.sequential import make_plan
from loaders.sets import DataSet, open_sets
from loaders.window import SequentialConfig, Window, pair_uniforms
from shards.format import MANIFEST_NAME, ShardInfo, shard_name
from shards.index import Index
from shards.parts import PART_SCHEMA, Part
from shards.rng import uniforms
from shards.writer import finish

__all__ = [
    "SEQUENTIAL_HEADER",
    "index_frames",
    "measure_sequential",
    "sequential_lines",
    "sequential_rows",
    "streamed",
]

WINDOWS = (8, 16, 32, 64, 128, 256, 512)
PICTURES_A_TRACK = 64  # of the window's size, for data of single pictures
BATCH = 32
_STREAM_LENGTHS, _STREAM_CATEGORIES = 1060, 1061
_ROWS_A_SHARD = 4096
_PICTURE_BYTES = 33_000
# name, tracks, mean rows a track, categories, every category as frequent
SYNTHETIC = (
    ("lasot", 1_120, 830, 70, True),
    ("got10k", 9_335, 50, 480, False),
    ("coco", 170_000, 1, 80, False),
)
SEQUENTIAL_HEADER = (
    "data set", "window", "MB", "gap TV", "gap mean", "category TV", "positive", "seen before",
    "tracks in 32",
)  # fmt: skip


def synthetic(folder: Path, name: str, tracks: int, mean: int, categories: int, even: bool) -> None:
    """Index and manifest of a data set without pictures; made once."""
    if (folder / name / MANIFEST_NAME).is_file():
        return
    u = uniforms(5, _STREAM_LENGTHS, 0, 0, tracks, 4)
    # from a third to three times the mean, most below it
    spread = np.exp((u[:, 0] + u[:, 1] - 1) * 1.1)
    lengths = np.ones(tracks, np.int64) if mean == 1 else np.rint(mean * spread).astype(np.int64)
    weights = np.ones(categories) if even else 1 / np.arange(1, categories + 1)
    bounds = np.cumsum(weights / weights.sum())[:-1]
    drawn = uniforms(5, _STREAM_CATEGORIES, 0, 0, tracks, 4)[:, 0]
    category = np.searchsorted(bounds, drawn)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    cuts = [0]  # a track is in one shard
    for end in range(1, tracks + 1):
        if end == tracks or starts[end + 1] - starts[cuts[-1]] > _ROWS_A_SHARD:
            cuts.append(end)
    parts = [
        _part(name, number, first, lengths[first:end], category[first:end], mean == 1)
        for number, (first, end) in enumerate(pairwise(cuts))
    ]
    finish(folder / name, parts, name=name, grid="edge", crop_size=446)


def _part(
    name: str,
    number: int,
    first: int,
    lengths: npt.NDArray[np.int64],
    category: npt.NDArray[np.int64],
    is_image: bool,
) -> Part:
    rows = int(lengths.sum())
    track = np.repeat(np.arange(len(lengths)), lengths)
    within = np.arange(rows) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    names = [f"c{code:03d}" for code in category[track]]
    box = pa.array([[190.0, 190.0, 256.0, 256.0]] * rows, pa.list_(pa.float32(), 4))
    each = np.arange(rows + 1, dtype=np.int32)
    lists = {
        "boxes": box, "categories": pa.array(names), "ignore": pa.array(np.zeros(rows, bool)),
    }  # fmt: skip
    shard = shard_name(name, number)
    columns: dict[str, Any] = {
        "sequence": [f"s{first + one:06d}" for one in track],
        "track": np.zeros(rows, np.int32),
        "frame": (1 + 3 * within).astype(np.int32),
        "kind": ["image" if is_image else "video"] * rows,
        "fps": [None] * rows,
        **{key: pa.ListArray.from_arrays(pa.array(each), value) for key, value in lists.items()},
        "category": names,
        "visible": [None] * rows,
        "mean_rgb": [None] * rows,
        "source": [None] * rows,
        "source_size": [None] * rows,
        "region": [None] * rows,
        "file": [shard] * rows,
        "offset": np.arange(rows, dtype=np.int64) * 36_864,
        "size": np.full(rows, _PICTURE_BYTES, np.int32),
        "crc32c": np.zeros(rows, np.uint32),
    }
    arrays = [
        columns[field.name]
        if isinstance(columns[field.name], pa.Array)
        else pa.array(columns[field.name], field.type)
        for field in PART_SCHEMA
    ]
    info = ShardInfo(name=shard, bytes=1, frames=rows, sha256="")
    table = pa.Table.from_arrays(arrays, schema=PART_SCHEMA)
    return Part(info=info, rows=table, facts={})


def index_frames(index: Index, first_rows: list[int], number: int) -> Iterator[Frame]:
    """Frames of a shard as a stream of its tar gives them, from the index alone."""
    rows = slice(first_rows[number], first_rows[number + 1])
    track = index.track_first[rows].tolist()  # as good a name of a track as any
    frame, size = index.frame[rows].tolist(), index.size[rows].tolist()
    category = [index.categories[code] for code in index.category_code[rows].tolist()]
    for i, row in enumerate(range(rows.start, rows.stop)):
        yield Frame(row, ("", track[i]), frame[i], category[i], index.is_image, size[i], None)


def streamed(
    source: DataSet, config: PairConfig, epoch: int, pairs: int, rank: int = 0, world_size: int = 1
) -> tuple[Plan, int]:
    """Pairs of one rank as ``sequential`` draws them, and the most bytes that its window held."""
    shards = [shard for shard in source.manifest.shards if shard.frames]
    first_rows = np.concatenate([[0], np.cumsum([s.frames for s in shards])]).tolist()
    order = shard_order(config.seed, epoch, 0, len(shards), len(shards))

    def read(number: int) -> Iterator[Frame]:
        return index_frames(source.index, first_rows, number)

    frames = stream(read, order, rank, world_size, source.manifest.name)
    total = source.manifest.counts["frames"]
    window = Window(frames, config.sequential, config.sampler, source.weight, total)
    drawn, most = [], 0
    for row in pair_uniforms(config.seed, epoch, rank, pairs, world_size).tolist():
        window.advance()
        drawn.append(window.draw(row))
        most = max(most, window.size)
    sample = rank + world_size * np.arange(pairs, dtype=np.int64)
    return make_plan(drawn, [0] * pairs, sample), most


def _variation(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> float:
    """Total variation distance of two samples of small whole numbers."""
    size = int(max(a.max(initial=0), b.max(initial=0))) + 1
    return float(
        np.abs(np.bincount(a, minlength=size) / len(a) - np.bincount(b, minlength=size) / len(b))
        .sum() / 2
    )  # fmt: skip


def _gaps(index: Index, plan: Plan) -> npt.NDArray[np.int64]:
    same = plan.kind == SAME_INSTANCE
    z, x = index.frame[plan.template_row[same]], index.frame[plan.search_row[same]]
    return np.abs(z.astype(np.int64) - x)


def compare(index: Index, plan: Plan, other: Plan) -> dict[str, Any]:
    """Statistics of pairs, and their distances from those of another plan."""
    gaps = _gaps(index, plan)
    rows = np.concatenate([plan.template_row, plan.search_row])
    tracks = index.track_first[plan.template_row]
    whole = tracks[: len(tracks) // BATCH * BATCH].reshape(-1, BATCH)
    category = index.category_code
    facts = {
        "kind_shares": [float(np.mean(plan.kind == kind)) for kind in range(3)],
        "kind_variation": _variation(plan.kind, other.kind),
        "category_variation": _variation(category[plan.template_row], category[other.template_row]),
        "positive_share": float(plan.positive.mean()),
        "repeated_frame_share": 1 - len(np.unique(rows)) / len(rows),
        "distinct_tracks": len(np.unique(index.track_first[rows])),
        "tracks_in_batch": float(np.mean([len(np.unique(batch)) for batch in whole])),
    }
    if not index.is_image:
        facts["gap_variation"] = _variation(gaps, _gaps(index, other))
        facts["gap_mean"] = float(gaps.mean())
    return facts


def measure_sequential(
    out: Path,
    data: Path | None,
    pairs: int,
    command: str,
    told: Callable[[str], None],
    windows: tuple[int, ...] = WINDOWS,
) -> dict[str, Any]:
    """Draw both ways and compare.

    Parameters
    ----------
    out : folder of the synthetic indexes
    data : packed data sets to take instead
    pairs : of every data set and window
    command : that repeats it, for the result
    told : called with lines of progress
    windows : sizes in tracks
    """
    run = result.start("sequential", command)
    if data is None:
        for one in SYNTHETIC:
            told(f"index of {one[0]}")
            synthetic(out, *one)
    config = PairConfig(path=str(data or out), pairs_per_epoch=pairs)
    found = []
    for source in open_sets(config).sets:
        alone = replace(source, weight=1.0)
        tables = PairTables([source.index], [1.0], config.sampler)
        plan, second = (plan_batch(tables, seed, 0, 0, pairs) for seed in (config.seed, 8))
        facts: dict[str, Any] = {
            "name": source.manifest.name,
            **source.manifest.counts,
            "plan": compare(source.index, plan, second),
            "windows": [],
        }
        for tracks in windows:
            bounds = SequentialConfig(
                window_tracks=tracks, window_pictures=PICTURES_A_TRACK * tracks, window_mb=1e6
            )
            started = time.perf_counter()
            drawn, size = streamed(alone, replace(config, sequential=bounds), 0, pairs)
            facts["windows"].append(
                {
                    "window": PICTURES_A_TRACK * tracks if source.index.is_image else tracks,
                    "window_mb": size / 1e6,
                    **compare(source.index, drawn, plan),
                }
            )
            seconds = time.perf_counter() - started
            told(f"{source.manifest.name}, window of {tracks}: {seconds:.1f} s")
        found.append(facts)
    frames = SequentialConfig().frames_per_pair
    return {**run, "pairs": pairs, "frames_per_pair": frames, "data": found}


def sequential_lines(run: Mapping[str, Any]) -> list[str]:
    """What a reader must know to read the rows."""
    made = {(name, tracks) for name, tracks, *_ in SYNTHETIC}
    sets = ", ".join(
        f"{one['name']} ({one['frames']:,} pictures, {one['tracks']:,} tracks, "
        f"{one['categories']:,} categories"
        + (", synthetic index)" if (one["name"], one["tracks"]) in made else ")")
        for one in run["data"]
    )
    return [
        f"{run['pairs']:,} pairs in batches of {BATCH} for each row, one data set at a time, "
        f"{run['frames_per_pair']:g} frames a pair; {sets}."
    ]


def sequential_rows(run: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Cells under `SEQUENTIAL_HEADER`; the plan's own come first, with the noise as distances."""
    rows = []
    for one in run["data"]:
        for facts in ({"window": "plan", **one["plan"]}, *one["windows"]):
            has_gaps = "gap_mean" in facts
            rows.append(
                (
                    one["name"],
                    f"{facts['window']}",
                    f"{facts['window_mb']:,.0f}" if "window_mb" in facts else "",
                    f"{facts['gap_variation']:.3f}" if has_gaps else "",
                    f"{facts['gap_mean']:.1f}" if has_gaps else "",
                    f"{facts['category_variation']:.3f}",
                    f"{facts['positive_share']:.3f}",
                    f"{facts['repeated_frame_share']:.3f}",
                    f"{facts['tracks_in_batch']:.1f}",
                )
            )
    return rows
