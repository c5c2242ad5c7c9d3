"""Boxes, crops and the two grids."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shards import geometry as g

coordinate = st.floats(-500, 2000, allow_nan=False)
side = st.floats(0.5, 900, allow_nan=False)
boxes = st.tuples(coordinate, coordinate, side, side).map(
    lambda t: np.array([t[0], t[1], t[0] + t[2], t[1] + t[3]])
)


def test_worked_example_of_the_published_crop() -> None:
    """Box 349,193,408,298 in a 640x480 frame (field notes, section 2.1)."""
    box = np.array([349.0, 193, 408, 298])
    region = g.crop_region(box, 446)
    np.testing.assert_allclose(region, [93.3775, -39.6225, 663.6225, 530.6225], atol=5e-5)
    inside = g.boxes_to_regions(box, region, 446)
    np.testing.assert_allclose(inside, [199.9275, 181.9387, 246.0725, 264.0613], atol=5e-5)


def test_a_square_box_is_63_5_pixels_wide_at_the_centre() -> None:
    box = np.array([10.0, 20, 50, 60])
    inside = g.boxes_to_regions(box, g.crop_region(box), 446)
    np.testing.assert_allclose(inside, [223 - 31.75, 223 - 31.75, 223 + 31.75, 223 + 31.75])


@given(boxes, st.integers(127, 800))
def test_127_pixels_always_show_the_context_square(box: np.ndarray, out_px: int) -> None:
    region = g.crop_region(box, out_px)
    assert region[2] - region[0] == pytest.approx(float(g.context_side(box)) * out_px / 127)
    np.testing.assert_allclose((region[:2] + region[2:]) / 2, (box[:2] + box[2:]) / 2, atol=1e-6)


@given(boxes, boxes, st.integers(16, 600))
def test_boxes_return_from_a_crop(box: np.ndarray, region: np.ndarray, out_px: int) -> None:
    there = g.boxes_to_regions(box, region, out_px)
    np.testing.assert_allclose(g.boxes_from_regions(there, region, out_px), box, atol=1e-6)


@pytest.mark.parametrize("box", [[0, 0, 0, 5], [0, 0, 5, 0], [5, 5, 1, 1], [0, 0, float("nan"), 5]])
def test_a_box_without_area_is_refused(box: list[float]) -> None:
    with pytest.raises(ValueError, match="positive size"):
        g.crop_region(np.array(box))


@given(boxes, st.integers(2, 600))
def test_edge_grid_maps_pixels_as_boxes(region: np.ndarray, out_px: int) -> None:
    affine = g.region_affine(region, out_px, "edge")
    corners = affine @ np.array([[0, 0, 1.0], [out_px, out_px, 1]]).T
    np.testing.assert_allclose(corners.T.ravel(), region, atol=1e-6)


def test_corner_grid_shows_the_published_pixels() -> None:
    """Output index i shows input index start + i * side / (out - 1)."""
    region = np.array([93.0, 40.0, 663.0, 610.0])
    index_from_index = g.index_affine(g.region_affine(region, 446, "corner"))
    for i in (0, 1, 200, 445):
        x, y = index_from_index @ np.array([i, i, 1.0])
        assert x == pytest.approx(93 + i * 570 / 445)
        assert y == pytest.approx(40 + i * 570 / 445)


@pytest.mark.parametrize(("grid", "expected"), [("edge", 127.5), ("corner", 127.0)])
def test_anchor_origin(grid: g.Grid, expected: float) -> None:
    assert g.anchor_origin(255, grid) == expected


@pytest.mark.parametrize("grid", ["edge", "corner"])
@given(box=boxes)
def test_a_box_flipped_twice_is_itself(grid: g.Grid, box: np.ndarray) -> None:
    twice = g.flip_boxes(g.flip_boxes(box, 446, grid), 446, grid)
    np.testing.assert_allclose(twice, box, atol=1e-9)


def test_flip_affine_mirrors_pixel_centres() -> None:
    plain = g.region_affine(np.array([[10.0, 20, 110, 120]] * 2), 100, "edge")
    flipped = g.flip_affine(plain, 446, np.array([True, False]))
    point = np.array([0.5, 0.5, 1])
    assert (flipped[0] @ point)[0] == pytest.approx(446 - 10.5)
    np.testing.assert_array_equal(flipped[1], plain[1])


def test_touched_holds_every_pixel_that_interpolation_reads() -> None:
    affine = g.region_affine(np.array([10.3, 20.6, 40.3, 50.6]), 30, "edge")
    left, top, right, bottom = g.touched(affine, 30, (446, 446))
    index = g.index_affine(affine)
    low, high = index @ np.array([0, 0, 1.0]), index @ np.array([29, 29, 1.0])
    assert (left, top) == (np.floor(low[0]), np.floor(low[1]))
    assert (right, bottom) == (np.floor(high[0]) + 2, np.floor(high[1]) + 2)


@given(boxes, st.integers(2, 300), st.integers(0, 3))
def test_touched_is_inside_and_not_empty(region: np.ndarray, out_px: int, margin: int) -> None:
    left, top, right, bottom = g.touched(
        g.region_affine(region, out_px, "edge"), out_px, (300, 446), margin
    )
    assert 0 <= left < right <= 446
    assert 0 <= top < bottom <= 300


@given(boxes, boxes)
def test_iou_against_the_plain_formula(a: np.ndarray, b: np.ndarray) -> None:
    w = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    h = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - w * h
    assert float(g.iou(a, b)) == pytest.approx(w * h / union, abs=1e-9)
