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
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks import result
from benchmarks.synthetic_index import Synthetic, synthetic
from loaders.config import PairConfig
from loaders.dealing import Frame, shard_order, stream
from loaders.plan import SAME_INSTANCE, PairTables, Plan, plan_batch
from loaders.sequential import make_plan
from loaders.sets import DataSet, open_sets
from loaders.window import SequentialConfig, Window, pair_uniforms
from shards.index import Index

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
SYNTHETIC = (
    Synthetic(name="lasot", tracks=1_120, mean=830, categories=70, even=True),
    Synthetic(name="got10k", tracks=9_335, mean=50, categories=480, even=False),
    Synthetic(name="coco", tracks=170_000, mean=1, categories=80, even=False),
)
SEQUENTIAL_HEADER = (
    "data set", "window", "MB", "gap TV", "gap mean", "category TV", "positive", "seen before",
    "tracks in 32",
)  # fmt: skip


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
            told(f"index of {one.name}")
            synthetic(out, one)
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
    made = {(one.name, one.tracks) for one in SYNTHETIC}
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
