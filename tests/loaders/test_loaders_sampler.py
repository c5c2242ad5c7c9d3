"""The sampler's options: each against a slow rule, in the long run, and in a config file."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import synthetic
from hypothesis import given
from hypothesis import strategies as st

from configs import strict
from loaders.config import PairConfig
from loaders.plan import PairTables, Plan, plan_batch
from loaders.sampler import SamplerConfig, Widening, gap_frames
from loaders.sets import open_sets
from shards.errors import ConfigError
from shards.format import Sample, shard_name
from shards.index import Index
from shards.rng import uniforms
from shards.writer import finish, write_shard

# name, category, frames, frames a second
TRACKS = [
    ("a-1", "a", 40, 30.0),
    ("b-1", "b", 8, 10.0),
    ("a-2", "a", 10, 10.0),
    ("c-1", "c", 2, 30.0),
    ("b-2", "b", 30, None),
    ("u-1", "unknown", 6, 25.0),
    ("u-2", "unknown", 6, 25.0),
    ("a-3", "a", 3, 60.0),
]
STRIDE = 3
CHI2_999 = {2: 13.82, 3: 16.27, 7: 24.32, 9: 27.88}  # upper 0.1 % by degrees of freedom


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """COCO-like pictures; a video set of uneven tracks, categories and rates."""
    parent = tmp_path_factory.mktemp("sampler")
    synthetic.pack(parent, "coco", sequences=20, frames=1, per_shard=20, kind="image", side=48)

    def samples() -> Iterator[tuple[Sample, bytes]]:
        for seed, (name, category, frames, fps) in enumerate(TRACKS):
            for sample, picture in synthetic.samples(
                name, category, frames, seed=seed, side=48, stride=STRIDE
            ):
                yield replace(sample, fps=fps), picture

    part = write_shard(parent / "video", shard_name("video", 0), samples())
    finish(parent / "video", [part], name="video", grid="edge", crop_size=48)
    return parent


@pytest.fixture(scope="module")
def indexes(folder: Path) -> list[Index]:
    return [Index(folder / "coco"), Index(folder / "video")]


def plan_of(
    indexes: list[Index], config: SamplerConfig, start: int, count: int, step: int = 1, **more: int
) -> Plan:
    tables = PairTables(indexes, [1.0, 3.0], config)
    return plan_batch(tables, 11, more.get("epoch", 4), start, count, step)


def columns(plan: Plan) -> np.ndarray:
    return np.stack(
        [plan.dataset, plan.template_row, plan.search_row, plan.kind, plan.positive, plan.sample]
    )


class SlowRule:
    """The rule with its options for one sample at a time, in plain Python over all rows."""

    def __init__(self, indexes: list[Index], config: SamplerConfig, epoch: int) -> None:
        self.indexes, self.config, self.epoch = indexes, config, epoch
        self.facts = [[index.sample(row) for row in range(len(index))] for index in indexes]

    def units(self, number: int) -> dict[str, list[list[int]]]:
        """Of every category its units, each a list of rows."""
        units: dict[str, dict[Any, list[int]]] = {}
        for row, sample in enumerate(self.facts[number]):
            own = row if self.config.unit == "frame" else sample.sequence
            units.setdefault(sample.category, {}).setdefault(own, []).append(row)
        return {category: list(found.values()) for category, found in units.items()}

    def draw(self, units: list[list[int]], u: float) -> int:
        position = u * len(units)
        rows = units[int(position)]
        return rows[int((position - int(position)) * len(rows))] if len(rows) > 1 else rows[0]

    def gap(self, number: int, row: int) -> int:
        config, widen = self.config, self.config.widen
        grown = min(1.0, self.epoch / widen.epochs) if widen.epochs else 1.0
        part = widen.start + (1 - widen.start) * grown
        if config.max_gap_s is None:
            return math.floor(config.max_gap * part + 1e-6)
        fps = self.facts[number][row].fps or config.fps["video"]
        return math.floor(config.max_gap_s * part * fps + 1e-6)

    def partners(self, number: int, z: int) -> list[int]:
        facts, me = self.facts[number], self.facts[number][z]
        if me.kind == "image":
            return [z]
        gap = self.gap(number, z)
        return [
            row
            for row, other in enumerate(facts)
            if other.sequence == me.sequence
            and abs(other.frame - me.frame) <= gap
            and (other.frame >= me.frame or not self.config.causal)
        ]

    def pair(self, u: np.ndarray) -> tuple[int, int, int, int, bool]:
        number = 0 if u[0] < 0.25 else 1
        units, facts = self.units(number), self.facts[number]
        sizes = [min(len(found), self.config.category_cap) for found in units.values()]
        bounds = np.cumsum(sizes) / sum(sizes)

        def category(u: float) -> list[list[int]]:
            return next(one for one, b in zip(units.values(), bounds, strict=True) if u < b)

        own = category(u[1])
        z = self.draw(own, u[2])
        kinds = self.config.video if number else self.config.image
        if u[3] < kinds.same_instance:
            near = self.partners(number, z)
            kind, x = 0, near[int(u[4] * len(near))]
        elif u[3] < kinds.same_instance + kinds.same_category:
            kind, x = 1, self.draw(own, u[4])
        else:
            kind, x = 2, self.draw(category(u[5]), u[6])
        positive = facts[z].sequence == facts[x].sequence
        if self.config.same_category == "positive" and facts[z].category != "unknown":
            positive |= facts[z].category == facts[x].category
        return number, z, x, kind, positive


FPS = {"video": 20.0}
OPTIONS = {
    "published": SamplerConfig(),
    "near frames": SamplerConfig(max_gap=7),
    "a capped category": SamplerConfig(category_cap=15),
    "tracks": SamplerConfig(unit="sequence"),
    "tracks, every category alike": SamplerConfig(unit="sequence", category_cap=1),
    "seconds": SamplerConfig(max_gap_s=0.3, fps=FPS),
    "no seconds at all": SamplerConfig(max_gap_s=0.0, fps=FPS),
    "causal": SamplerConfig(causal=True, max_gap=12),
    "widening": SamplerConfig(widen=Widening(start=0.1, epochs=8), max_gap=60),
    "widening from nothing": SamplerConfig(widen=Widening(start=0.0, epochs=5), max_gap=60),
    "same category": SamplerConfig(same_category="positive"),
    "all": SamplerConfig(
        unit="sequence",
        category_cap=2,
        max_gap_s=2.0,
        fps=FPS,
        widen=Widening(start=0.25, epochs=10),
        causal=True,
        same_category="positive",
    ),
}


@pytest.mark.parametrize("config", OPTIONS.values(), ids=OPTIONS)
def test_every_sample_against_the_slow_rule(indexes: list[Index], config: SamplerConfig) -> None:
    count, epoch = 300, 4
    got = columns(plan_of(indexes, config, 500, count, epoch=epoch))[:5].T.tolist()
    slow, u = SlowRule(indexes, config, epoch), uniforms(11, 0, epoch, 500, count, 8)
    assert got == [list(slow.pair(row)) for row in u]


@pytest.mark.parametrize("config", OPTIONS.values(), ids=OPTIONS)
@given(st.integers(0, 5000), st.integers(1, 40), st.integers(1, 9))
def test_a_sample_is_the_same_in_any_batch(
    indexes: list[Index], config: SamplerConfig, start: int, count: int, step: int
) -> None:
    whole = columns(plan_of(indexes, config, start, count * step))
    part = columns(plan_of(indexes, config, start, count, step))
    np.testing.assert_array_equal(part, whole[:, ::step])


def test_options_at_their_defaults_leave_the_stream_as_it_is(indexes: list[Index]) -> None:
    spelt_out = SamplerConfig(
        unit="frame", widen=Widening(start=1, epochs=0), causal=False, same_category="negative"
    )
    np.testing.assert_array_equal(
        columns(plan_of(indexes, spelt_out, 0, 500)),
        columns(plan_of(indexes, SamplerConfig(), 0, 500)),
    )


def test_signs_alone_differ_with_same_category(indexes: list[Index]) -> None:
    negative = plan_of(indexes, SamplerConfig(), 0, 20_000)
    positive = plan_of(indexes, SamplerConfig(same_category="positive"), 0, 20_000)
    np.testing.assert_array_equal(columns(negative)[:4], columns(positive)[:4])
    index = indexes[1]
    video = negative.dataset == 1
    z, x = negative.template_row[video], negative.search_row[video]
    names = np.array(index.categories)
    one = names[index.category_code[z]] == names[index.category_code[x]]
    known = names[index.category_code[z]] != "unknown"
    track = index.track_first[z] == index.track_first[x]
    np.testing.assert_array_equal(negative.positive[video], track)
    np.testing.assert_array_equal(positive.positive[video], track | (one & known))
    assert (one & known & ~track).sum() > 100
    assert (one & ~known & ~track).sum() > 20


def chi2(observed: np.ndarray, expected: np.ndarray) -> float:
    expected = expected * observed.sum() / expected.sum()
    return float(((observed - expected) ** 2 / expected).sum())


def track_counts(index: Index, rows: np.ndarray) -> np.ndarray:
    first = np.unique(index.track_first)
    return np.bincount(np.searchsorted(first, index.track_first[rows]), minlength=len(first))


@pytest.mark.parametrize(
    ("config", "shares"),
    [
        (SamplerConfig(unit="sequence"), [1] * 8),
        (SamplerConfig(unit="frame"), [track[2] for track in TRACKS]),
        # a, b, unknown: 2 units each; c: 1
        (SamplerConfig(unit="sequence", category_cap=2), [2 / 3, 1, 2 / 3, 1, 1, 1, 1, 2 / 3]),
    ],
)
def test_shares_of_tracks(indexes: list[Index], config: SamplerConfig, shares: list[float]) -> None:
    plan = plan_of(indexes, config, 0, 100_000)
    video = plan.dataset == 1
    observed = track_counts(indexes[1], plan.template_row[video])
    assert chi2(observed, np.array(shares, float)) < CHI2_999[7]
    fresh = video & (plan.kind == 2)
    assert (
        chi2(track_counts(indexes[1], plan.search_row[fresh]), np.array(shares, float))
        < (CHI2_999[7])
    )


def test_frames_of_a_track_are_uniform_with_tracks_as_units(indexes: list[Index]) -> None:
    plan = plan_of(indexes, SamplerConfig(unit="sequence"), 0, 100_000)
    rows = plan.template_row[plan.dataset == 1]
    inside = rows[rows < 40]  # the first track
    assert chi2(np.bincount(inside, minlength=40).reshape(10, 4).sum(1), np.ones(10)) < CHI2_999[9]


def test_pictures_are_drawn_alike_with_either_unit(indexes: list[Index]) -> None:
    plans = [
        plan_of(indexes[:1] * 2, SamplerConfig(unit=unit), 0, 300) for unit in ("frame", "sequence")
    ]
    np.testing.assert_array_equal(columns(plans[0]), columns(plans[1]))


def test_tables_hold_a_number_a_track_and_nothing_a_row(indexes: list[Index]) -> None:
    plain = PairTables(indexes, [1.0, 1.0], SamplerConfig())
    assert [units.tracks for units in plain.units] == [None, None]
    pictures, video = PairTables(indexes, [1.0, 1.0], SamplerConfig(unit="sequence")).units
    assert pictures.tracks is None
    assert video.tracks is not None
    # in the order of categories a, b, c, unknown; within them in that of the rows
    assert video.tracks.tolist() == [0, 48, 102, 40, 60, 58, 90, 96]
    assert video.ranges.tolist() == [0, 3, 5, 6, 8]


def signed_gaps(index: Index, plan: Plan) -> tuple[np.ndarray, np.ndarray]:
    """Signed distances of same-instance video pairs, and the first row of their track."""
    chosen = (plan.dataset == 1) & (plan.kind == 0)
    z, x = plan.template_row[chosen], plan.search_row[chosen]
    return index.frame[x].astype(int) - index.frame[z], index.track_first[z]


def test_a_gap_in_seconds_follows_the_rate_of_each_track(indexes: list[Index]) -> None:
    index = indexes[1]
    plan = plan_of(indexes, SamplerConfig(max_gap_s=0.6, fps=FPS, unit="sequence"), 0, 30_000)
    gaps, first = signed_gaps(index, plan)
    starts = np.unique(index.track_first)
    for start, (name, _, frames, fps) in zip(starts, TRACKS, strict=True):
        limit = min(0.6 * (fps or 20.0), (frames - 1) * STRIDE) // STRIDE * STRIDE
        own = gaps[first == start]
        assert (own.min(), own.max()) == (-limit, limit), name


def test_causal_pairs_never_go_back_and_may_stay(indexes: list[Index]) -> None:
    gaps, _ = signed_gaps(indexes[1], plan_of(indexes, SamplerConfig(causal=True), 0, 20_000))
    assert gaps.min() == 0
    assert gaps.max() == 39 * STRIDE


def test_a_gap_widens_in_equal_steps_and_stays(indexes: list[Index]) -> None:
    config = SamplerConfig(max_gap=60, widen=Widening(start=0.1, epochs=9))
    for epoch, limit in ((0, 6), (1, 12), (4, 30), (8, 54), (9, 60), (1000, 60)):
        assert gap_frames(config, epoch, np.zeros(2)).tolist() == [limit] * 2
        plan = plan_of(indexes, config, 0, 20_000, epoch=epoch)
        gaps, _ = signed_gaps(indexes[1], plan)
        assert np.abs(gaps).max() == limit // STRIDE * STRIDE


def test_whole_frames_are_not_lost_to_rounding() -> None:
    rates = np.array([10, 30, 29.97, 25], np.float32)
    assert gap_frames(SamplerConfig(max_gap_s=0.3), 0, rates).tolist() == [3, 9, 8, 7]
    assert gap_frames(SamplerConfig(max_gap_s=0.7), 0, rates).tolist() == [7, 21, 20, 17]


def test_unknown_rates_are_an_error_that_says_what_to_set(folder: Path) -> None:
    config = PairConfig(
        path=str(folder), weights={"video": 1.0}, template_px=16, search_px=16,
        sampler=SamplerConfig(max_gap_s=1.0),
    )  # fmt: skip
    with pytest.raises(ConfigError, match=r"30 of 105 frames of 'video'.*sampler\.fps\.video=30"):
        open_sets(config)
    known = SamplerConfig(max_gap_s=1.0, fps={"video": 30.0})
    assert open_sets(replace(config, sampler=known)).tables.config == known
    # pictures need no rate
    open_sets(replace(config, weights={"coco": 1.0}))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("unit: track", "4: data.sampler.unit: should be 'frame' or 'sequence', got 'track'"),
        ("max_gap_s: -1", "4: data.sampler.max_gap_s: should be greater than or equal to 0"),
        ("max_gap_s: soon", "4: data.sampler.max_gap_s: "),
        ("causal: 1", "4: data.sampler.causal: should be a valid boolean, got 1"),
        ("same_category: neutral", "4: data.sampler.same_category: should be 'negative' or"),
        ("widen: {start: 0.2}", "4: data.sampler.widen.start: start 0.2 and epochs 0 do not fit"),
        ("widen: {epochs: 9}", "4: data.sampler.widen.epochs: start 1 and epochs 9 do not fit"),
        ("widen: {start: 2, epochs: 9}", "4: data.sampler.widen.start: should be less than"),
        (
            "fps: {lasot: 30}",
            "data.sampler.fps.lasot: fps of lasot has no meaning without",
        ),
        ("{max_gap_s: 2, fps: {lasot: 0}}", "data.sampler.fps.lasot: should be greater than 0"),
        ("gap_s: 2", "4: data.sampler.gap_s: unknown key; did you mean 'max_gap_s'?"),
    ],
)
def test_wrong_options_are_named_with_their_line(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(f"data:\n  seed: 5\n  sampler:\n    {text}\n")
    with pytest.raises(ConfigError) as error:
        strict.load(PairConfig, path, section="data")
    assert complaint in str(error.value)


def test_options_survive_a_dump(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(strict.dump(PairConfig(sampler=OPTIONS["all"])))
    assert strict.load(PairConfig, path).sampler == OPTIONS["all"]
