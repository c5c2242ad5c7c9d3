"""Choosing frames, planning shards, fingerprints and options: pure parts, against slow oracles."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from packer.jobs import Clip, Fingerprint, PackOptions, clip_of, limits, plan
from packer.select import Tally, edges, select
from packer.sequence import REASONS, Sequence

MALFORMED = {"": -1, "no_picture": 0, "no_label": 1, "bad_annotation": 2}


def made(
    xywh: list[list[float]], absent: list[bool] | None = None, fault: list[int] | None = None
) -> Sequence:
    count = len(xywh)
    return Sequence(
        name="car-1",
        category="car",
        kind="video",
        fps=30.0,
        pictures_at="car/car-1/img",
        source_at="car/car-1/img",
        numbers=np.arange(1, count + 1, dtype=np.int32),
        pictures=tuple(f"{i + 1:08d}.jpg" for i in range(count)),
        xywh=np.array(xywh, float).reshape(-1, 4),
        absent=np.array(absent or [False] * count, bool),
        visible=None,
        fault=np.array(fault or [-1] * count, np.int8),
        problems=(),
    )


def slow_select(
    one: Sequence, stride: int, min_size: float, inclusive: bool
) -> list[tuple[int, str]]:
    """Oracle: frame by frame, in words."""
    decided = []
    for position in range(0, len(one.numbers), stride):
        _x, _y, w, h = one.xywh[position].tolist()
        less = 1 if inclusive else 0
        if one.fault[position] >= 0:
            reason = REASONS[one.fault[position]]
        elif one.absent[position]:
            reason = "absent"
        elif not (w - less > 0 and h - less > 0):
            reason = "no_box"
        elif w < min_size or h < min_size:
            reason = "small"
        else:
            reason = ""
        decided.append((int(one.numbers[position]), reason))
    left = [number for number, reason in decided if not reason]
    if len(left) == 1:
        decided = [(n, "short_track" if n == left[0] else reason) for n, reason in decided]
    return decided


sizes = st.integers(-3, 16).map(float) | st.sampled_from([9.999, 10.0, 10.5, 0.5, 1.0])
frames = st.tuples(
    st.integers(-50, 200).map(float),
    st.integers(-50, 200).map(float),
    sizes,
    sizes,
    st.booleans(),
    st.sampled_from([-1, -1, -1, -1, 0, 1, 2]),
)


@given(st.lists(frames, max_size=25), st.integers(1, 6), st.integers(1, 12), st.booleans())
def test_select_against_the_slow_oracle(
    rows: list[Any], stride: int, min_size: int, inclusive: bool
) -> None:
    one = made([list(r[:4]) for r in rows], [r[4] for r in rows], [r[5] for r in rows])
    found = select(one, stride=stride, min_size=min_size, inclusive=inclusive)
    decided = [
        (int(one.numbers[p]), REASONS[code] if code >= 0 else "")
        for p, code in zip(found.picked.tolist(), found.reason.tolist(), strict=True)
    ]
    assert decided == slow_select(one, stride, min_size, inclusive)
    tally = Tally()
    tally.add_selection(one, found)
    assert sum(tally.rejected.values()) + len(clip_of(one, found)) == -(-len(rows) // stride)
    for reason, count in tally.rejected.items():
        named = [f"car-1/{n}" for n, why in decided if why == reason]
        assert (count, tally.examples[reason]) == (len(named), named[:20])


def test_a_size_that_is_the_minimum_is_kept_whatever_the_position() -> None:
    one = made([[100.1, 7.3, 10.0, 10.0], [1, 2, 9.99, 50], [0.1, 0.2, 10, 10]])
    assert select(one, stride=1, min_size=10).kept.tolist() == [True, False, True]


def test_edges_of_published_boxes() -> None:
    box = np.array([[10.0, 20.0, 30.0, 40.0]])
    assert edges(box, inclusive=False).tolist() == [[10, 20, 40, 60]]
    assert edges(box, inclusive=True).tolist() == [[10, 20, 39, 59]]


def test_stride_picks_before_anything_is_dropped() -> None:
    absent = [False, False, False, True, False, False, False]
    one = made([[1, 2, 30, 30]] * 7, absent)
    found = select(one, stride=3, min_size=10)
    assert one.numbers[found.picked].tolist() == [1, 4, 7]
    assert clip_of(one, found).numbers.tolist() == [1, 7]


def test_tally_keeps_twenty_examples_and_the_order_of_reasons() -> None:
    tally, other = Tally(), Tally()
    for n in range(15):
        tally.add("unreadable", "car-1", n)
        other.add("unreadable", "dog-1", n)
    other.add("absent", "dog-1", 7)
    tally.add_facts(other.facts())
    assert tally.rejected == {"absent": 1, "unreadable": 30}
    assert list(tally.rejected) == ["absent", "unreadable"]
    assert len(tally.examples["unreadable"]) == 20
    assert tally.examples["unreadable"][14:16] == ["car-1/14", "dog-1/0"]


def clip(name: str, count: int) -> Clip:
    one = dataclasses.replace(made([[1, 2, 30, 30]] * count), name=name)
    return clip_of(one, select(one, stride=1, min_size=1))


@given(st.lists(st.integers(2, 40), max_size=12), st.integers(4, 16))
def test_plan_keeps_tracks_whole_and_shards_within_bounds(counts: list[int], most: int) -> None:
    clips = [clip(f"car-{i}", count) for i, count in enumerate(counts)]
    jobs = plan("lasot", clips, most)
    assert [job.shard for job in jobs] == [f"lasot-{i:06d}.tar" for i in range(len(jobs))]
    assert all(2 <= job.frames <= most for job in jobs)
    flat = [(c.sequence, n) for job in jobs for c in job.clips for n in c.numbers.tolist()]
    assert flat == [(c.sequence, n) for c in clips for n in c.numbers.tolist()]
    for i, count in enumerate(counts):
        holders = [job for job in jobs if any(c.sequence == f"car-{i}" for c in job.clips)]
        assert len(holders) == (1 if count <= most else -(-count // most))
        if count > most:  # split evenly, into shards of its own
            pieces = [job.frames for job in holders]
            assert max(pieces) - min(pieces) <= 1
            assert all(len(job.clips) == 1 for job in holders)


def test_plan_does_not_open_a_shard_before_the_last_is_full() -> None:
    jobs = plan("lasot", [clip("a-1", 3), clip("a-2", 5), clip("a-3", 2), clip("a-4", 8)], 8)
    assert [[c.sequence for c in job.clips] for job in jobs] == [["a-1", "a-2"], ["a-3"], ["a-4"]]


def fingerprint(one: Sequence) -> str:
    print_ = Fingerprint()
    print_.add(one, select(one, stride=1, min_size=5))
    return print_.hexdigest()


def test_fingerprint_sees_every_change() -> None:
    one = made([[1, 2, 30, 30], [3, 4, 30, 30], [5, 6, 30, 30]])
    changes: list[dict[str, Any]] = [
        {"name": "car-2"},
        {"source_at": "x"},
        {"numbers": np.array([1, 2, 4], np.int32)},
        {"pictures": ("a.jpg", "b.jpg", "c.jpg")},
        {"xywh": one.xywh + np.array([0, 0, 0, 1e-9])},
        {"absent": np.array([True, False, False])},
        {"visible": np.ones(3, np.float32)},
        {"fault": np.array([-1, 0, -1], np.int8)},
    ]
    prints = [fingerprint(one), *(fingerprint(dataclasses.replace(one, **c)) for c in changes)]
    assert len(set(prints)) == len(prints)
    assert fingerprint(made(one.xywh.tolist())) == prints[0]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("stride", 0),
        ("size", 126),
        ("size", 4097),
        ("quality", 0),
        ("quality", 101),
        ("min_size", 0),
        ("limit", 0),
        ("frames_per_shard", 3),
    ],
)
def test_options_out_of_range(name: str, value: int) -> None:
    low, high = limits(name) or (0, 0)
    with pytest.raises(ValueError, match=f"{name} must be {low} to {high}, got {value}"):
        PackOptions(**{"stride": 3, "min_size": 10, name: value})
