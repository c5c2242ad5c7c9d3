"""Which frames show a loss, what part of them, and where boxes are drawn."""

from __future__ import annotations

import numpy as np
import pytest

from tracker.strips import (
    RESULT_RGB,
    TRUTH_RGB,
    chosen_frames,
    draw_boxes,
    lost_at,
    view,
)

G, B = 0.9, 0.05  # overlaps of following and of having lost


@pytest.mark.parametrize(
    ("overlap", "expected"),
    [
        ([], None),
        ([G, G, 0.11], None),
        ([G, B, G, B, B, G], 3),  # the longest run
        ([G, B, B, G, B, B], 1),  # the first of equally long ones
        ([G, 0.1, G], 1),  # up to a tenth counts as lost
        ([G, B, None, None, B, G, B], 1),  # absence neither counts nor ends a run
        ([None, B, B], 1),
        ([None, None], None),
    ],
)
def test_lost_at(overlap: list[float | None], expected: int | None) -> None:
    assert lost_at(overlap) == expected


@pytest.mark.parametrize(
    ("overlap", "count", "expected"),
    [
        ([], 6, ()),
        ([G], 6, (0,)),
        ([G] * 4, 6, (0, 1, 2, 3)),
        ([G] * 20 + [B] * 20, 6, (18, 19, 20, 21, 22, 23)),  # two before the loss
        ([B] * 40, 6, (0, 1, 2, 3, 4, 5)),
        ([G] * 39 + [B], 6, (34, 35, 36, 37, 38, 39)),
        ([G] * 100 + [B] * 100, 6, (90, 95, 100, 105, 110, 115)),  # a fortieth apart
        ([G] * 2000 + [B] * 2000, 4, (1970, 1985, 2000, 2015)),  # at most 15
        ([G] * 30 + [0.3] + [G] * 30, 6, (28, 29, 30, 31, 32, 33)),  # never lost: the least
        ([None] * 10, 3, (0, 1, 2)),
    ],
)
def test_chosen_frames(overlap: list[float | None], count: int, expected: tuple[int, ...]) -> None:
    assert chosen_frames(overlap, count) == expected


@pytest.mark.parametrize(
    ("boxes", "expected"),
    [
        # boxes span 100..200 x 40..80 of 400 x 200; twice that is half of the width
        ([[100, 40, 150, 80], [150, 50, 200, 70]], (50, 10, 250, 110)),
        ([[0, 0, 50, 50]], (0, 0, 200, 100)),  # twice its height; moved into the frame
        ([[390, 190, 400, 200]], (300, 150, 400, 200)),  # at least a quarter
        ([[-900, -900, 900, 900]], (0, 0, 400, 200)),
        ([[500, 20, 600, 40]], (300, 5, 400, 55)),  # outside: the nearest part of the frame
        ([[np.nan, 0, 1, 1], [5, 5, 5, 9], [100, 40, 200, 80]], (50, 10, 250, 110)),
        ([[np.nan] * 4], (0, 0, 400, 200)),
    ],
)
def test_view(boxes: list[list[float]], expected: tuple[int, int, int, int]) -> None:
    assert view(np.array(boxes, np.float64), 400, 200) == expected


def test_boxes_are_drawn_where_they_are() -> None:
    picture = np.zeros((50, 100, 3), np.uint8)
    truth, result = np.array([20.0, 10, 60, 30]), np.array([30.0, 20, 80, 40])
    drawn = draw_boxes(picture, (10, 5, 90, 45), truth, result)
    assert drawn.size == (320, 160)  # four times as large
    pixels = np.asarray(drawn)

    def extent(color: tuple[int, int, int]) -> list[int]:
        rows, columns = np.nonzero((pixels == color).all(axis=2))
        return [columns.min(), rows.min(), columns.max(), rows.max()]

    # 4 * (20 - 10) = 40 and so on; lines are two pixels wide
    np.testing.assert_allclose(extent(TRUTH_RGB), [40, 20, 199, 99], atol=2)
    np.testing.assert_allclose(extent(RESULT_RGB), [80, 60, 279, 139], atol=2)
    nothing = draw_boxes(picture, (10, 5, 90, 45), np.full(4, np.nan), np.array([9.0, 9, 9, 20]))
    assert not np.asarray(nothing).any()
