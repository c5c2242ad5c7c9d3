"""Figures by hand, and the rules in which toolkits differ."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracker.metrics import Rules, rules, score_boxes, total
from tracker.sequences import Convention, Dataset

OTB = rules("got10k", "otb")
PYSOT = rules("pysot", "lasot")
REFERENCE = rules("reference", "lasot")
GOT10K = rules("got10k", "got10k")

# Four frames of a 10 x 20 box at (100, 50); IoU 1, 1, 1/3 and 0; centres off by 0, 0, 5 and 30 px.
TRUTH = np.array([[100, 50, 110, 70]] * 4, float)
FOUND = TRUTH + np.array([[0] * 4, [0] * 4, [5, 0, 5, 0], [30, 0, 30, 0]], float)


def test_worked_example_of_success_and_precision() -> None:
    score, overlap = score_boxes(FOUND, TRUTH, OTB)
    np.testing.assert_allclose(overlap, [1, 1, 1 / 3, 0])
    # three frames overlap by more than 0, .05 .. .30 (7 thresholds), two by .35 .. .95 (13), none 1
    assert score.success_curve == (0.75,) * 7 + (0.5,) * 13 + (0.0,)
    assert score.auc == pytest.approx((7 * 0.75 + 13 * 0.5) / 21)
    # two frames are 0 px off, the third 5, the last 30
    assert score.precision_curve == (0.5,) * 5 + (0.75,) * 25 + (1.0,) * 21
    assert score.precision == 0.75
    # in widths: 0, 0, .5 and 3; so the third counts at .50 alone
    assert score.norm_precision_curve == (0.5,) * 50 + (0.75,)
    assert score.norm_precision == pytest.approx((50 * 0.5 + 0.75) / 51)  # mean of the curve
    assert score_boxes(FOUND, TRUTH, PYSOT)[0].norm_precision == 0.5  # at .2
    assert score.ao == pytest.approx((1 + 1 + 1 / 3 + 0) / 4)
    assert (score.sr50, score.sr75, score.frames) == (0.5, 0.5, 4)


@pytest.mark.parametrize("by", [OTB, PYSOT, REFERENCE])
def test_the_first_frame_counts_as_a_hit_whatever_was_written(by: Rules) -> None:
    wild = FOUND.copy()
    wild[0] += 1000
    assert score_boxes(wild, TRUTH, by)[0] == score_boxes(FOUND, TRUTH, by)[0]


def test_a_threshold_is_exceeded_for_success_and_reached_for_precision() -> None:
    truth = np.array([[100, 50, 110, 70]] * 2, float)
    half = np.array([truth[0], [100, 50, 110, 60]], float)  # IoU .5, centre 5 px off
    score, _ = score_boxes(half, truth, OTB)
    assert score.success_curve[10] == 0.5  # IoU .5 is not more than .5: only the first frame is
    assert score.success_curve[9] == 1
    assert (score.precision_curve[4], score.precision_curve[5]) == (0.5, 1)
    assert score.sr50 == 0.5


def test_absent_frames_count_as_misses_or_as_all_others() -> None:
    absent = np.array([False, True, False, False])
    as_others, overlap = score_boxes(FOUND, TRUTH, OTB, absent=absent)
    assert as_others == score_boxes(FOUND, TRUTH, OTB)[0]
    assert np.isnan(overlap[1])
    missed, _ = score_boxes(FOUND, TRUTH, PYSOT, absent=absent)
    assert missed.success_curve[0] == 0.5  # frames 0 and 2 of 4
    assert missed.precision_curve[0] == 0.25
    assert missed.frames == 4
    assert missed.ao == pytest.approx((1 + 1 / 3) / 4)


def test_an_invalid_box_fails_success_and_hits_precision_in_pysot() -> None:
    truth = TRUTH.copy()
    truth[3] = [100, 50, 100, 70]  # no width
    success = {}
    for name, by in (("pysot", PYSOT), ("reference", REFERENCE), ("got10k", OTB)):
        score, overlap = score_boxes(FOUND, truth, by)
        success[name] = score.success_curve[0]
        assert np.isnan(overlap[3])
    assert success == {"pysot": 0.75, "reference": 0.75, "got10k": 0.75}
    # pysot looks at the centre only, and that is sound: 35 px off. The reference calls it a hit.
    assert score_boxes(FOUND, truth, PYSOT)[0].precision_curve[0] == 0.5
    assert score_boxes(FOUND, truth, REFERENCE)[0].precision_curve[0] == 0.75
    truth[3] = [-300, 50, -290, 70]  # a centre left of the picture: pysot's hit
    assert score_boxes(FOUND, truth, PYSOT)[0].precision_curve[0] == 0.75
    assert score_boxes(FOUND, truth, OTB)[0].precision_curve[0] == 0.5


def test_the_reference_calls_a_box_at_the_border_invalid_as_published_numbers_say() -> None:
    truth = TRUTH - [100, 0, 100, 0]
    found = truth.copy()
    at_zero, _ = score_boxes(found, truth, REFERENCE)
    assert at_zero.success_curve[0] == 0  # x = 0 in all frames, the first too
    assert score_boxes(found, truth, PYSOT)[0].success_curve[0] == 1
    assert score_boxes(found, truth, REFERENCE, origin=1)[0].success_curve[0] == 1  # published 1


def test_rows_without_a_box_are_left_out_by_the_got10k_toolkit() -> None:
    truth = TRUTH.copy()
    truth[3] = np.nan
    score, overlap = score_boxes(FOUND, truth, OTB)
    assert score.frames == 3
    assert score.ao == pytest.approx((1 + 1 + 1 / 3) / 3)
    assert np.isnan(overlap[3])


def test_got10k_skips_the_first_frame_and_those_of_cover_0() -> None:
    cover = np.array([8, 8, 1, 0], np.int8)
    score, _ = score_boxes(FOUND, TRUTH, GOT10K, cover=cover, frame_size=(640, 480))
    assert score.frames == 2
    assert score.ao == pytest.approx((1 + 1 / 3) / 2)
    assert (score.sr50, score.sr75) == (0.5, 0.5)
    with pytest.raises(ValueError, match="size of the frame"):
        score_boxes(FOUND, TRUTH, GOT10K, cover=cover)


def test_got10k_moves_a_box_into_the_frame_and_cuts_what_is_over() -> None:
    truth = np.array([[0, 0, 10, 10], [90, 0, 100, 10]] * 2, float)
    found = np.array([[0, 0, 10, 10], [90, 0, 110, 10], [-5, 0, 5, 10], [90, 0, 100, 10]], float)
    # over on the right: cut, IoU 1. Over on the left: moved to 0..10, IoU 1 instead of 1/3.
    score, _ = score_boxes(found, truth, GOT10K, frame_size=(100, 100))
    assert score.ao == 1
    assert score_boxes(found, truth, OTB)[0].ao == pytest.approx((1 + 0.5 + 1 / 3 + 1) / 4)


def test_sequences_or_frames_weigh_the_same_in_the_total() -> None:
    short, _ = score_boxes(TRUTH[:2], TRUTH[:2], GOT10K, frame_size=(640, 480))  # one frame, AO 1
    far = TRUTH + 500
    long, _ = score_boxes(far, TRUTH, GOT10K, frame_size=(9999, 9999))  # three frames, AO 0
    assert total([short, long], GOT10K).ao == pytest.approx(1 / 4)
    assert total([short, long], replace(GOT10K, pool_frames=False)).ao == pytest.approx(1 / 2)
    assert total([short, long], GOT10K).frames == 4
    nothing = score_boxes(TRUTH, TRUTH, GOT10K, cover=np.zeros(4, np.int8), frame_size=(640, 480))[
        0
    ]
    assert total([short, nothing], OTB) == total([short], OTB)
    with pytest.raises(ValueError, match="no frame"):
        total([nothing], GOT10K)


def test_wrong_lengths_and_boxes_that_are_not_numbers_are_errors() -> None:
    with pytest.raises(ValueError, match="3 boxes for 4 frames"):
        score_boxes(FOUND[:3], TRUTH, OTB)
    wild = FOUND.copy()
    wild[2, 1] = np.nan
    with pytest.raises(ValueError, match="box 2"):
        score_boxes(wild, TRUTH, OTB)


@given(
    st.lists(st.tuples(*[st.integers(-30, 60)] * 4), min_size=2, max_size=12),
    st.sampled_from(["got10k", "pysot", "reference"]),
    st.sampled_from(["otb", "lasot", "got10k", "trackingnet"]),
)
def test_curves_are_shares_that_fall_or_rise(
    rows: list[tuple[int, int, int, int]], convention: Convention, dataset: Dataset
) -> None:
    truth = np.array(rows, float)
    truth[:, 2:] += truth[:, :2]
    found = np.roll(truth, 1, axis=0)
    score, overlap = score_boxes(
        found, truth, rules(convention, dataset), frame_size=(50, 40), origin=1
    )
    for curve, sign in (
        (score.success_curve, -1),
        (score.precision_curve, 1),
        (score.norm_precision_curve, 1),
    ):
        assert all(0 <= value <= 1 for value in curve)
        assert all(sign * (b - a) >= 0 for a, b in itertools.pairwise(curve))
    assert 0 <= score.ao <= 1
    assert len(overlap) == len(rows)
    assert ((overlap >= 0) | np.isnan(overlap)).all()
