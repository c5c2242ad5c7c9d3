import math

import numpy as np
import pytest
import torch

from shards.geometry import boxes_to_regions, crop_region
from tracker.anchors import anchor_boxes
from tracker.rules import (
    MatchConfig,
    ScaleConfig,
    TrackConfig,
    box_window,
    cell_window,
    change,
    choose_match,
    clamp,
    map_step_px,
    map_window,
    penalty,
    scale_peak,
    scaled,
    smooth,
)


def xyxy(cx: float, cy: float, w: float, h: float) -> np.ndarray:
    return np.array([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2])


def test_the_settings_are_the_published_ones():
    match, scale = TrackConfig().match, TrackConfig().scale
    assert (match.proposals.keep, match.proposals.nms_iou) == (8, 0.6)
    assert (match.fine_weight, match.penalty_k, match.window) == (0.5, 0.2, 0.4)
    assert (match.min_score, match.inter_rate, match.min_box_px) == (0.1, 0.5, 8)
    assert (scale.step, scale.penalty, scale.window) == (1.0375, 0.9745, 0.176)
    assert (scale.inter_rate, scale.min_size, scale.max_size) == (0.59, 0.2, 5)


def test_start_crop_of_the_published_example():
    # box 349,193,408,298: w 59, h 105, p 82, side sqrt(141 * 187) = 162.3792; 255 px show
    # 162.3792 * 255 / 127 = 326.0369 px about 378.5,245.5
    box = np.array([349.0, 193, 408, 298])
    region = crop_region(box, 255)
    side = math.sqrt(141 * 187) * 255 / 127
    assert side == pytest.approx(326.0369, abs=1e-4)
    want = [378.5 - side / 2, 245.5 - side / 2, 378.5 + side / 2, 245.5 + side / 2]
    assert region.tolist() == pytest.approx(want, abs=1e-9)
    assert region.tolist() == pytest.approx([215.4816, 82.4816, 541.5184, 408.5184], abs=1e-4)
    inner = boxes_to_regions(box, region, 255)
    # (349 - 215.4816) * 255 / 326.0369 and so on; the centre is 127.5 in either grid
    assert inner.tolist() == pytest.approx([104.4275, 86.4387, 150.5725, 168.5613], abs=1e-3)


def test_change_is_symmetric():
    assert change(np.array([2.0, 0.5, 1.0, 0.1])).tolist() == [2, 2, 1, 10]


def test_penalty_of_worked_numbers():
    last = xyxy(0, 0, 20, 20)
    boxes = np.stack([xyxy(9, 9, 20, 20), xyxy(0, 0, 40, 40), xyxy(0, 0, 10, 10), [0, 0, 20, 40]])
    # 20x40 has p 30 and side sqrt(50 * 70); the square has side 40; the shape changed twofold
    tall = math.sqrt(50 * 70) / 40 * 2
    want = [1, math.exp(-0.2), math.exp(-0.2), math.exp(-0.2 * (tall - 1))]
    assert penalty(boxes, last, 0.2).tolist() == pytest.approx(want, rel=1e-12)
    assert penalty(boxes, last, 0.0).tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize(("grid", "middle"), [("corner", 127.0), ("edge", 127.5)])
def test_window_of_spm_in_worked_numbers(grid, middle):
    centres = [(0, 0), (71.5, 0), (-71.5, 3), (300, 0), (35.75, 0), (35.75, -35.75)]
    boxes = np.stack([xyxy(middle + x, middle + y, 10, 30) for x, y in centres])
    want = [1, 0, 0, 0, 0.5, 0.25]  # .5 - .5 cos(2 pi .75) is a half
    assert box_window(boxes, grid) == pytest.approx(want, abs=2e-4)
    third = xyxy(middle + 143 / 6, middle, 4, 4)  # d = 2/3
    exact = (0.5 - 0.5 * math.cos(2 * 3.1415 * 2 / 3)) * (0.5 - 0.5 * math.cos(3.1415))
    assert box_window(third[None], grid)[0] == pytest.approx(exact, rel=1e-12)


def test_window_of_siamrpn_goes_by_the_cell():
    window = cell_window().reshape(17, 17, 5)
    assert (window == window[..., :1]).all()
    assert window[8, 8, 0] == 1
    assert window[0].max() == window[:, 16].max() == 0
    hann = [0.5 - 0.5 * math.cos(2 * math.pi * k / 16) for k in range(17)]
    assert window[3, 11, 4] == pytest.approx(hann[3] * hann[11], rel=1e-12)
    assert len(cell_window()) == len(anchor_boxes("corner"))


def test_smoothing_moves_the_centre_at_once_and_the_size_by_its_share():
    got = smooth(xyxy(50, 40, 30, 10), xyxy(0, 0, 10, 30), 0.25)
    assert got == pytest.approx(xyxy(50, 40, 15, 25))


@pytest.mark.parametrize(
    ("box", "want"),
    [
        (xyxy(50, 40, 20, 10), xyxy(50, 40, 20, 10)),
        (xyxy(-5, 90, 20, 10), xyxy(0, 80, 20, 10)),
        (xyxy(120, -90, 20, 10), xyxy(100, 0, 20, 10)),
        (xyxy(50, 40, 3, 500), xyxy(50, 40, 8, 80)),
    ],
)
def test_boxes_are_kept_near_the_frame(box, want):
    assert clamp(box, (80, 100), 8) == pytest.approx(want)


def test_a_frame_smaller_than_the_least_box_limits_it():
    assert clamp(xyxy(2, 2, 30, 30), (5, 6), 8) == pytest.approx(xyxy(2, 2, 6, 5))


def choose(boxes, scores, window, **changed):
    """Choose in a crop that shows the 255x255 frame itself, the last box in its middle."""
    return choose_match(
        np.stack(boxes),
        np.array(scores),
        np.array(window),
        region=np.array([0.0, 0, 255, 255]),
        last=xyxy(127, 127, 40, 40),
        frame_hw=(255, 255),
        config=MatchConfig(**changed),
    )


def test_the_choice_weighs_score_and_window():
    boxes = [xyxy(60, 60, 40, 40), xyxy(127, 127, 40, 40)]
    far = choose(boxes, [0.9, 0.2], [0.0, 1.0])  # .54 against .52
    assert far.box == pytest.approx(xyxy(60, 60, 40, 40))
    assert far.score == pytest.approx(0.9)
    near = choose(boxes, [0.8, 0.2], [0.0, 1.0])  # .48 against .52
    assert near.box == pytest.approx(xyxy(127, 127, 40, 40))


def test_a_penalised_score_below_the_least_keeps_the_last_box():
    boxes = [xyxy(90, 90, 80, 80)]  # penalty exp(-.2) = .8187
    kept = choose(boxes, [0.122], [0.0])
    assert kept.box.tolist() == xyxy(127, 127, 40, 40).tolist()
    assert kept.score == pytest.approx(0.122 * math.exp(-0.2))
    moved = choose(boxes, [0.1222], [0.0])
    assert moved.box == pytest.approx(xyxy(90, 90, 60, 60))


def test_candidates_are_projected_back_before_they_are_weighed():
    choice = choose_match(
        np.stack([xyxy(102, 51, 51, 25.5)]),
        np.array([0.5]),
        np.array([1.0]),
        region=np.array([100.0, 200, 355 + 255, 200 + 510]),  # 2 frame pixels a crop pixel
        last=xyxy(300, 300, 102, 51),
        frame_hw=(1000, 1000),
        config=MatchConfig(),
    )
    assert choice.box == pytest.approx(xyxy(304, 302, 102, 51))
    assert choice.score == pytest.approx(0.5)


def peak(maps: torch.Tensor, **changed) -> list[float]:
    config = ScaleConfig(**changed)
    return scale_peak(maps, map_window(config.upsample), config).tolist()


def spike(row: int, column: int, height: float) -> torch.Tensor:
    logits = torch.zeros(17, 17)
    logits[row, column] = height
    return logits


def test_the_window_of_siamfc_has_a_sum_of_one_and_its_middle_is_the_middle():
    window = map_window(16)
    assert window.shape == (272, 272)
    assert window.double().sum().item() == pytest.approx(1, abs=1e-5)
    assert torch.allclose(window, window.flip(0, 1))
    assert window[0].max() == 0


def test_a_peak_at_a_cell_is_found_where_the_enlarged_map_has_it():
    scale, row, column, probability = peak(spike(4, 11, 6.0).expand(3, 17, 17), window=0.0)
    assert scale == 1  # the outer ones are discounted
    assert (row, column) == pytest.approx((4 * 271 / 16, 11 * 271 / 16), abs=1)
    assert probability == pytest.approx(1 / (1 + math.exp(-6)), abs=1e-3)


def test_the_window_draws_towards_the_middle():
    two = spike(8, 2, 1.0) + spike(8, 8, 0.95)
    assert peak(two.expand(3, 17, 17), window=0.0)[2] == pytest.approx(2 * 271 / 16, abs=1)
    assert peak(two.expand(3, 17, 17))[2] == pytest.approx(8 * 271 / 16, abs=1)


def test_outer_scales_are_discounted():
    maps = [
        torch.stack([spike(8, 8, v) for v in values]) for values in ((1.02, 1, 1), (1.03, 1, 1))
    ]
    assert [peak(m)[0] for m in maps] == [1, 0]  # 1 / .9745 = 1.026
    # On negative logits the factor favours the outer scales: kept as published.
    assert peak(torch.stack([spike(8, 8, 1) - 10 for _ in range(3)]))[0] == 0


def test_a_map_without_contrast_leaves_the_window_alone():
    scale, row, column, _ = peak(torch.zeros(3, 17, 17))
    assert scale == 0
    assert row in (135, 136)
    assert column in (135, 136)


def test_the_published_step_overestimates_shifts():
    # four cells are 32 px of the crop; 4 * 271 / 16 samples
    samples = 4 * 271 / 16
    assert samples * map_step_px(16, "corner") == pytest.approx(33.875)
    assert samples * map_step_px(16, "edge") == pytest.approx(32)
    assert map_step_px(16, "edge") / map_step_px(16, "corner") == pytest.approx(256 / 271)


def test_siamfc_follows_a_part_of_the_change_of_scale_within_limits():
    config, start = ScaleConfig(), np.array([40.0, 20])
    assert scaled(start, start, 0, config).tolist() == [40, 20]
    up = 1 + 0.59 * 0.0375
    assert scaled(start, start, 1, config) == pytest.approx(start * up)
    down = 1 + 0.59 * (1 / 1.0375 - 1)
    assert scaled(start, start, -1, config) == pytest.approx(start * down)
    assert scaled(start * 5, start, 1, config).tolist() == [200, 100]
    assert scaled(start * 0.2, start, -1, config).tolist() == [8, 4]
