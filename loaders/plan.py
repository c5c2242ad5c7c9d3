"""Which pairs: a pure function of indexes, config, seed, epoch and sample number.

The rule is the published one of PySiamTracking's sampler, with the options of `SamplerConfig`:

1. a data set by weight;
2. a category with probability proportional to min(its units, ``category_cap``); a unit is a frame,
   or a track with ``unit: sequence``;
3. the template: a uniform unit of the category, and of a track a uniform frame. With frames long
   tracks weigh more, with tracks they do not;
4. the kind of pair by probability: *same instance* (video: a uniform frame of the same track at
   most ``max_gap`` frame numbers or ``max_gap_s`` seconds away, before or after, itself included;
   never before with ``causal``; image: the same picture), *same category* (a fresh draw from it as
   in 3), or *any* (a fresh category, then as in 3);
5. a pair is positive if both crops come from the same track; with ``same_category: positive`` also
   if they are of one known category.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from configs.strict import ConfigError
from loaders.sampler import PairKinds, SamplerConfig, gap_frames
from shards.classinfo import UNKNOWN
from shards.index import Index
from shards.rng import integers_below, uniforms

__all__ = [
    "MAX_SUBSTITUTES",
    "PAIR_KINDS",
    "STREAM_PAIR",
    "STREAM_SEARCH",
    "STREAM_SHARDS",
    "STREAM_STEPS",
    "STREAM_SUBSTITUTE",
    "STREAM_TEMPLATE",
    "STREAM_WINDOW",
    "PairKinds",
    "PairTables",
    "Plan",
    "SamplerConfig",
    "Units",
    "gaps_allowed",
    "plan_batch",
    "with_substitutes",
]

# Streams of random numbers; one for every purpose. A number once given never changes its meaning.
STREAM_PAIR, STREAM_TEMPLATE, STREAM_SEARCH = 0, 1, 2
STREAM_STEPS = {  # what the optional steps of template (z) and search (x) draw further
    ("blur", "z"): 3,
    ("blur", "x"): 4,
    ("occlusion", "x"): 5,
    ("occlusion", "z"): 6,
}
# Of ``data.storage: sequential``: orders of the shards; pairs in the window.
STREAM_SHARDS, STREAM_WINDOW = 20, 21
# Pairs in place of those with a damaged picture: a stream for each attempt, from this one on, far
# from the streams of the benchmarks' data.
STREAM_SUBSTITUTE, MAX_SUBSTITUTES = 100_000, 32
_WIDTH = 8
_DATASET, _CATEGORY, _TEMPLATE, _KIND, _SEARCH, _OTHER_CATEGORY, _OTHER = range(7)
SAME_INSTANCE, SAME_CATEGORY, ANY = 0, 1, 2
PAIR_KINDS = ("same instance", "same category", "any")  # as `Plan.kind` numbers them

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Plan:
    """B pairs.

    Attributes
    ----------
    sample : (B,) int64, number in the epoch
    dataset : (B,) int64, position in the list of data sets
    template_row, search_row : (B,) int64, rows of that data set's index
    kind : (B,) int64, 0 same instance, 1 same category, 2 any
    positive : (B,) bool, both rows are of one track, or what `same_category` says
    is_image : (B,) bool, from a data set of single pictures
    """

    sample: Ints
    dataset: Ints
    template_row: Ints
    search_row: Ints
    kind: Ints
    positive: npt.NDArray[np.bool_]
    is_image: npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Units:
    """What the categories of a data set are drawn from: frames, or tracks.

    Attributes
    ----------
    index : of the data set
    ranges : (C + 1,) int64, bounds of each category in the list of units
    tracks : (T,) int64, first rows of the tracks, ordered by category; None: the units are the rows
        as ``index.by_category`` lists them
    """

    index: Index
    ranges: Ints
    tracks: Ints | None = None

    @classmethod
    def of(cls, index: Index, unit: str) -> Units:
        """Frames cost nothing to list; tracks are found in one pass, and kept: a number a track."""
        if unit == "frame" or index.is_image:
            return cls(index=index, ranges=index.category_ranges())
        changes = np.flatnonzero(index.track_first[1:] != index.track_first[:-1])
        first = np.concatenate([[0], changes + 1])
        category = index.category_code[first]  # a track is of the category of its first frame
        order = np.argsort(category, kind="stable")
        ranges = np.searchsorted(category[order], np.arange(len(index.categories) + 1))
        return cls(index=index, ranges=ranges.astype(np.int64), tracks=first[order])

    def row(self, category: Ints, u: npt.NDArray[np.float64]) -> Ints:
        """Row of a uniform unit of each category.

        One uniform number is enough for track and frame: what remains of it below the track's
        share of [0, 1) is uniform too, and has bits to spare.
        """
        start = self.ranges[category]
        count = self.ranges[category + 1] - start
        number = integers_below(u, count)
        if self.tracks is None:
            return np.asarray(self.index.by_category[start + number], np.int64)
        first = self.tracks[start + number]
        frame = integers_below(u * count - number, self.index.track_rows[first])
        return np.asarray(first + frame)


class PairTables:
    """What the plan needs to know of some indexes: a few numbers a category, nothing a row.

    With ``unit: sequence`` it is a number a track, too.

    Parameters
    ----------
    indexes : one for every data set
    weights : of the data sets, positive
    config : the rule

    Raises
    ------
    ConfigError : if the gap is in seconds and frames a second are not known
    """

    def __init__(
        self, indexes: Sequence[Index], weights: Sequence[float], config: SamplerConfig
    ) -> None:
        self.indexes, self.config = tuple(indexes), config
        self.dataset_bounds = _bounds(np.asarray(weights, np.float64))
        self.units = [Units.of(index, config.unit) for index in indexes]
        self.category_bounds = [
            _bounds(np.minimum(np.diff(units.ranges), config.category_cap)) for units in self.units
        ]
        if config.max_gap_s is not None:
            for index in indexes:
                _check_fps(index, config)


def _check_fps(index: Index, config: SamplerConfig) -> None:
    unknown = index.unknown_fps
    if index.is_image or not unknown or index.name in config.fps:
        return
    raise ConfigError(
        f"data.sampler.max_gap_s: {index.path} does not know the frames a second of {unknown:,} of "
        f"{len(index):,} frames of {index.name!r}; say what they are, as in "
        f"--set data.sampler.fps.{index.name}=30, or limit the gap in frames "
        "(--set data.sampler.max_gap_s=null)"
    )


def _bounds(weights: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Cumulative probabilities without the final 1, for `numpy.searchsorted`."""
    total = np.cumsum(weights, dtype=np.float64)
    return np.asarray(total[:-1] / total[-1])


def _choose(bounds: npt.NDArray[np.float64], u: npt.NDArray[np.float64]) -> Ints:
    return np.searchsorted(bounds, u, side="right").astype(np.int64)


def _first_row_from(index: Index, row: Ints, number: Ints) -> Ints:
    """First row of the row's track whose frame number is at least `number`; bisection."""
    low = index.track_first[row].astype(np.int64)
    high = low + index.track_rows[row]
    while (low < high).any():
        middle = (low + high) // 2
        open_ = low < high
        less = open_ & (index.frame[np.where(open_, middle, row)] < number)
        low = np.where(less, middle + 1, low)
        high = np.where(open_ & ~less, middle, high)
    return np.asarray(low)


def gaps_allowed(index: Index, config: SamplerConfig, epoch: int, rows: Ints) -> Ints:
    """Largest distance of a same-instance partner of each row, in frame numbers."""
    if config.max_gap_s is None:
        return gap_frames(config, epoch, np.zeros(len(rows)))
    fps = index.fps(rows)
    return gap_frames(config, epoch, np.where(np.isnan(fps), config.fps.get(index.name, 0), fps))


def _same_instance(
    index: Index, config: SamplerConfig, epoch: int, row: Ints, u: npt.NDArray[Any]
) -> Ints:
    if index.is_image:
        return row
    frame, gap = index.frame[row].astype(np.int64), gaps_allowed(index, config, epoch, row)
    low = row if config.causal else _first_row_from(index, row, frame - gap)
    high = _first_row_from(index, row, frame + gap + 1)
    return np.asarray(low + integers_below(u, high - low))


def _positive(index: Index, config: SamplerConfig, z: Ints, x: Ints) -> npt.NDArray[np.bool_]:
    same = np.asarray(index.track_first[z] == index.track_first[x])
    if config.same_category == "positive":
        code = index.category_code
        known = np.array([name not in ("", UNKNOWN) for name in index.categories])
        same |= (code[z] == code[x]) & known[code[z]]
    return same


def plan_batch(
    tables: PairTables,
    seed: int,
    epoch: int,
    start: int,
    count: int,
    step: int = 1,
    stream: int = STREAM_PAIR,
) -> Plan:
    """Plan the samples ``start, start + step, ...`` of an epoch.

    Sample i is the same whatever `start`, `count` and `step` it is planned with.

    Parameters
    ----------
    tables : of the data sets, with the rule
    seed, epoch : of the sample stream
    start, count, step : which samples
    stream : of the random numbers
    """
    config = tables.config
    u = uniforms(seed, stream, epoch, start, count, _WIDTH, step)
    dataset = _choose(tables.dataset_bounds, u[:, _DATASET])
    template, search = np.empty(count, np.int64), np.empty(count, np.int64)
    kind, positive = np.empty(count, np.int64), np.empty(count, np.bool_)
    is_image = np.zeros(count, np.bool_)
    for number, index in enumerate(tables.indexes):
        at = np.flatnonzero(dataset == number)
        if not len(at):
            continue
        v, units, bounds = u[at], tables.units[number], tables.category_bounds[number]
        kinds = config.image if index.is_image else config.video
        category = _choose(bounds, v[:, _CATEGORY])
        z = units.row(category, v[:, _TEMPLATE])
        drawn = _choose(kinds.cumulative, v[:, _KIND])
        fresh = np.where(drawn == ANY, _choose(bounds, v[:, _OTHER_CATEGORY]), category)
        other = units.row(fresh, np.where(drawn == ANY, v[:, _OTHER], v[:, _SEARCH]))
        same = _same_instance(index, config, epoch, z, v[:, _SEARCH])
        x = np.where(drawn == SAME_INSTANCE, same, other)
        template[at], search[at], kind[at] = z, x, drawn
        positive[at] = _positive(index, config, z, x)
        is_image[at] = index.is_image
    return Plan(
        sample=start + step * np.arange(count, dtype=np.int64),
        dataset=dataset,
        template_row=template,
        search_row=search,
        kind=kind,
        positive=positive,
        is_image=is_image,
    )


def with_substitutes(
    tables: PairTables, seed: int, epoch: int, plan: Plan, attempts: Mapping[int, int]
) -> Plan:
    """Put other pairs in the place of some; they keep their sample numbers.

    Parameters
    ----------
    tables, seed, epoch : as of the plan
    plan : left as it is
    attempts : by position in the plan, which substitute to take: 1, 2, ... `MAX_SUBSTITUTES`
    """
    columns = {one.name: getattr(plan, one.name).copy() for one in fields(Plan)}
    for at, attempt in attempts.items():
        stream = STREAM_SUBSTITUTE + attempt - 1
        other = plan_batch(tables, seed, epoch, int(plan.sample[at]), 1, stream=stream)
        for name, column in columns.items():
            column[at] = getattr(other, name)[0]
    return Plan(**columns)
