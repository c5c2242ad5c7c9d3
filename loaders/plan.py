"""Which pairs: a pure function of indexes, config, seed, epoch and sample number.

The rule is the published one of PySiamTracking's sampler:

1. a data set by weight;
2. a category with probability proportional to min(its frames, ``category_cap``);
3. the template: a uniform frame of the category, so long sequences weigh more;
4. the kind of pair by probability: *same instance* (video: a uniform frame of the same track at
   most ``max_gap`` frame numbers away, before or after, itself included; image: the same picture),
   *same category* (a fresh uniform frame of it), or *any* (a fresh category, a fresh frame);
5. a pair is positive if both crops come from the same track.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from annotated_types import Ge, Le

from shards.index import Index
from shards.rng import integers_below, uniforms

__all__ = [
    "MAX_SUBSTITUTES",
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
# Pairs in place of those with a damaged picture: a stream for each attempt, from this one on.
STREAM_SUBSTITUTE, MAX_SUBSTITUTES = 1000, 32
_WIDTH = 8
_DATASET, _CATEGORY, _TEMPLATE, _KIND, _SEARCH, _OTHER_CATEGORY, _OTHER = range(7)
SAME_INSTANCE, SAME_CATEGORY, ANY = 0, 1, 2

Ints = npt.NDArray[np.int64]
Probability = Annotated[float, Ge(0), Le(1)]


@dataclass(frozen=True, kw_only=True, slots=True)
class PairKinds:
    """Probabilities of the three kinds of pair; they sum to 1."""

    same_instance: Probability
    same_category: Probability
    any: Probability

    def __post_init__(self) -> None:
        total = self.same_instance + self.same_category + self.any
        if abs(total - 1) > 1e-6:
            raise ValueError(f"same_instance + same_category + any must be 1, got {total:g}")

    @property
    def cumulative(self) -> npt.NDArray[np.float64]:
        """Upper bounds of the first two kinds."""
        return np.cumsum([self.same_instance, self.same_category])


@dataclass(frozen=True, kw_only=True, slots=True)
class SamplerConfig:
    """The rule's numbers.

    Attributes
    ----------
    image, video : kinds of pair, by kind of data set
    max_gap : largest distance of a same-instance video pair, in original frame numbers
    category_cap : a category with more frames than this is drawn no more often
    """

    image: PairKinds = field(
        default_factory=lambda: PairKinds(same_instance=0.6, same_category=0.2, any=0.2)
    )
    video: PairKinds = field(
        default_factory=lambda: PairKinds(same_instance=0.9, same_category=0.05, any=0.05)
    )
    max_gap: Annotated[int, Ge(0), Le(1 << 31)] = 200
    category_cap: Annotated[int, Ge(1), Le(1 << 48)] = 100_000


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Plan:
    """B pairs.

    Attributes
    ----------
    sample : (B,) int64, number in the epoch
    dataset : (B,) int64, position in the list of data sets
    template_row, search_row : (B,) int64, rows of that data set's index
    kind : (B,) int64, 0 same instance, 1 same category, 2 any
    positive : (B,) bool, both rows are of one track
    is_image : (B,) bool, from a data set of single pictures
    """

    sample: Ints
    dataset: Ints
    template_row: Ints
    search_row: Ints
    kind: Ints
    positive: npt.NDArray[np.bool_]
    is_image: npt.NDArray[np.bool_]


class PairTables:
    """What the plan needs to know of some indexes: a few numbers a category, nothing a row.

    Parameters
    ----------
    indexes : one for every data set
    weights : of the data sets, positive
    config : the rule
    """

    def __init__(
        self, indexes: Sequence[Index], weights: Sequence[float], config: SamplerConfig
    ) -> None:
        self.indexes, self.config = tuple(indexes), config
        self.dataset_bounds = _bounds(np.asarray(weights, np.float64))
        self.ranges = [index.category_ranges() for index in indexes]
        self.category_bounds = [
            _bounds(np.minimum(np.diff(ranges), config.category_cap)) for ranges in self.ranges
        ]


def _bounds(weights: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Cumulative probabilities without the final 1, for `numpy.searchsorted`."""
    total = np.cumsum(weights, dtype=np.float64)
    return np.asarray(total[:-1] / total[-1])


def _choose(bounds: npt.NDArray[np.float64], u: npt.NDArray[np.float64]) -> Ints:
    return np.searchsorted(bounds, u, side="right").astype(np.int64)


def _row_in_category(index: Index, ranges: Ints, category: Ints, u: npt.NDArray[Any]) -> Ints:
    start = ranges[category]
    position = start + integers_below(u, ranges[category + 1] - start)
    return np.asarray(index.by_category[position], np.int64)


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


def _same_instance(index: Index, row: Ints, gap: int, u: npt.NDArray[Any]) -> Ints:
    if index.is_image:
        return row
    frame = index.frame[row].astype(np.int64)
    low = _first_row_from(index, row, frame - gap)
    high = _first_row_from(index, row, frame + gap + 1)
    return np.asarray(low + integers_below(u, high - low))


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
    u = uniforms(seed, stream, epoch, start, count, _WIDTH, step)
    dataset = _choose(tables.dataset_bounds, u[:, _DATASET])
    template, search = np.empty(count, np.int64), np.empty(count, np.int64)
    kind, positive = np.empty(count, np.int64), np.empty(count, np.bool_)
    is_image = np.zeros(count, np.bool_)
    for number, index in enumerate(tables.indexes):
        at = np.flatnonzero(dataset == number)
        if not len(at):
            continue
        v, ranges, bounds = u[at], tables.ranges[number], tables.category_bounds[number]
        kinds = tables.config.image if index.is_image else tables.config.video
        category = _choose(bounds, v[:, _CATEGORY])
        z = _row_in_category(index, ranges, category, v[:, _TEMPLATE])
        drawn = _choose(kinds.cumulative, v[:, _KIND])
        fresh = np.where(drawn == ANY, _choose(bounds, v[:, _OTHER_CATEGORY]), category)
        fresh_u = np.where(drawn == ANY, v[:, _OTHER], v[:, _SEARCH])
        other = _row_in_category(index, ranges, fresh, fresh_u)
        same = _same_instance(index, z, tables.config.max_gap, v[:, _SEARCH])
        x = np.where(drawn == SAME_INSTANCE, same, other)
        template[at], search[at], kind[at] = z, x, drawn
        positive[at] = index.track_first[z] == index.track_first[x]
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
