"""Drawn pairs against the rule: data sets, kinds, signs, categories, tracks, gaps.

Expectations are computed here from the indexes and the configuration, not by the code that draws.
That of gaps is conditional: every template that was drawn expects its partner evenly among the
frames that it may have, so their test is a little on the safe side.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from loaders.chi2 import Check, gate, shares
from loaders.config import PairConfig
from loaders.draws import PairDraws
from loaders.plan import PAIR_KINDS, SAME_INSTANCE, gaps_allowed
from loaders.sampler import SamplerConfig
from loaders.sets import DataSets
from shards.classinfo import UNKNOWN
from shards.index import Index

__all__ = ["pair_checks"]

TRACK_GROUPS, GAP_BINS = 20, 40
_BLOCK = 512  # templates whose partners are listed at once

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Tracks:
    """Tracks of a data set, and how likely each is.

    Attributes
    ----------
    first, rows : (T,) first row and number of rows
    category : (T,) its number
    weight : (T,) units of the rule: rows, or 1
    """

    first: Ints
    rows: Ints
    category: Ints
    weight: Floats

    @classmethod
    def of(cls, index: Index, config: SamplerConfig) -> Tracks:
        """Read the tracks of an index."""
        first = np.unique(index.track_first).astype(np.int64)
        rows = index.track_rows[first].astype(np.int64)
        even = config.unit == "sequence" and not index.is_image
        return cls(
            first=first,
            rows=rows,
            category=index.category_code[first].astype(np.int64),
            weight=np.ones(len(first)) if even else rows.astype(np.float64),
        )

    def categories(self, config: SamplerConfig, count: int) -> Floats:
        """Probability (C,) of each category."""
        units = np.bincount(self.category, self.weight, minlength=count)
        capped = np.minimum(units, config.category_cap)
        return np.asarray(capped / capped.sum())

    def within(self, count: int) -> Floats:
        """Probability (T,) of each track, given its category."""
        return self.weight / np.bincount(self.category, self.weight, minlength=count)[self.category]


def _positives(index: Index, tracks: Tracks, config: SamplerConfig) -> float:
    """Probability of a positive pair: same instance, or the same track by accident."""
    count = len(index.categories)
    category = tracks.categories(config, count)
    # that two fresh draws from a category are positive
    again = np.bincount(tracks.category, tracks.within(count) ** 2, minlength=count)
    if config.same_category == "positive":
        again[[name not in ("", UNKNOWN) for name in index.categories]] = 1
    kinds = config.image if index.is_image else config.video
    return float(
        kinds.same_instance
        + kinds.same_category * (category * again).sum()
        + kinds.any * (category**2 * again).sum()
    )


def _tracks(name: str, index: Index, tracks: Tracks, drawn: Ints, config: SamplerConfig) -> Check:
    """Templates by track: tracks from short to long, in groups that are equally likely."""
    count = len(index.categories)
    share = tracks.categories(config, count)[tracks.category] * tracks.within(count)
    order = np.argsort(tracks.rows, kind="stable")
    middle = np.cumsum(share[order]) - share[order] / 2
    group = np.empty(len(order), np.int64)
    group[order] = np.minimum((middle * TRACK_GROUPS).astype(np.int64), TRACK_GROUPS - 1)
    _, group = np.unique(group, return_inverse=True)  # few tracks make fewer groups
    number = np.searchsorted(tracks.first, index.track_first[drawn])
    weights = np.bincount(group, share).astype(np.float64)
    labels = [str(one + 1) for one in range(len(weights))]
    return shares(name, "tracks, short to long", labels, group[number], weights, ordered=True)


def _partners(index: Index, config: SamplerConfig, epoch: int, rows: Ints) -> tuple[Ints, Ints]:
    """First row, and that after the last, of the frames that each template may be paired with."""
    low, high = np.empty_like(rows), np.empty_like(rows)
    gaps = gaps_allowed(index, config, epoch, rows)
    for i, (row, gap) in enumerate(zip(rows.tolist(), gaps.tolist(), strict=True)):
        first = int(index.track_first[row])
        frames = index.frame[first : first + int(index.track_rows[row])]
        me = int(index.frame[row])
        low[i] = first + np.searchsorted(frames, me if config.causal else me - gap)
        high[i] = first + np.searchsorted(frames, me + gap, side="right")
    return low, high


def _gaps(
    name: str, index: Index, drawn: PairDraws, at: Ints, config: SamplerConfig, epoch: int
) -> Check:
    """Signed distances of same-instance pairs, in frame numbers."""
    z, x = drawn.template_row[at], drawn.search_row[at]
    frame = index.frame.astype(np.int64, copy=False)
    low, high = _partners(index, config, epoch, z)
    lowest = int((frame[low] - frame[z]).min())
    width = -(-int((frame[high - 1] - frame[z]).max() - lowest + 1) // GAP_BINS)
    bins = -(-int((frame[high - 1] - frame[z]).max() - lowest + 1) // width)

    def bin_of(gaps: Ints) -> Ints:
        return np.asarray(np.clip((gaps - lowest) // width, -1, bins) + 1)

    expected = np.zeros(bins + 2)
    for start in range(0, len(z), _BLOCK):
        part = slice(start, start + _BLOCK)
        many = high[part] - low[part]
        own = np.repeat(np.arange(len(many)), many)
        row = np.arange(many.sum()) - (np.cumsum(many) - many)[own] + low[part][own]
        gaps = frame[row] - frame[z[part]][own]
        expected += np.bincount(bin_of(gaps), 1 / many[own], minlength=bins + 2)
    labels = [f"{lowest + i * width:+d}" for i in range(bins)]
    return Check(
        subject=name,
        what="gaps, frame numbers",
        labels=("below", *labels, "above"),
        observed=np.bincount(bin_of(frame[x] - frame[z]), minlength=bins + 2).astype(np.int64),
        expected=expected,
        ordered=True,
    )


def pair_checks(
    sets: DataSets, drawn: PairDraws, config: PairConfig, epoch: int
) -> Iterator[Check]:
    """Checks of what the plan draws; see `loaders.stats.checks`."""
    names = [one.manifest.name for one in sets.sets]
    yield shares("pairs", "data sets", names, drawn.dataset, [one.weight for one in sets.sets])
    for number, one in enumerate(sets.sets):
        index, name, rule = one.index, names[number], config.sampler
        own = np.flatnonzero(drawn.dataset == number)
        if not len(own):
            continue
        kinds = rule.image if index.is_image else rule.video
        weights = [kinds.same_instance, kinds.same_category, kinds.any]
        yield shares(name, "kinds of pair", PAIR_KINDS, drawn.kind[own], weights)
        tracks = Tracks.of(index, rule)
        p_positive = _positives(index, tracks, rule)
        yield gate("positive pairs", name, p_positive, drawn.positive[own])
        rows = drawn.template_row[own]
        yield shares(
            name,
            "categories",
            index.categories,
            index.category_code[rows],
            tracks.categories(rule, len(index.categories)),
        )
        yield _tracks(name, index, tracks, rows, rule)
        same = own[drawn.kind[own] == SAME_INSTANCE]
        if len(same) and not index.is_image:
            yield _gaps(name, index, drawn, same, rule, epoch)
