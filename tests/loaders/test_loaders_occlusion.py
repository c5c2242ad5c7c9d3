"""Occlusion: the rule against a slow one with 500 candidates, its fills, its limits."""

from __future__ import annotations

import numpy as np
import pytest

from loaders.occlusion import (
    CANDIDATES,
    OCCLUSION_WIDTH,
    Occluder,
    Occlusion,
    coverage,
    draw_occluder,
)
from loaders.reference import occlude
from shards.rng import uniforms

TARGET = np.array([191.0, 199, 255, 247])


def many(
    candidates: int, count: int, target: np.ndarray, **changes: float
) -> list[Occluder | None]:
    rows = uniforms(7, 5, 0, 0, count, 8 + 4 * candidates)
    ranges = Occlusion(p=1.0, **changes)
    return [draw_occluder(ranges, row, target, 446) for row in rows]


def covers(found: list[Occluder | None], target: np.ndarray) -> np.ndarray:
    boxes = np.array([one.box for one in found if one is not None], np.float64)
    return coverage(boxes, target)


def test_chosen_boxes_obey_the_rule() -> None:
    found = many(CANDIDATES, 3000, TARGET)
    some = [one for one in found if one is not None]
    share = covers(found, TARGET)
    intersecting = share > 0
    assert ((share[intersecting] >= 0.05) & (share[intersecting] <= 0.5)).all()
    assert 0.4 < intersecting.mean() < 0.65
    for one in some:
        x0, y0, x1, y1 = one.box
        assert 0 <= x0 < x1 <= 446
        assert 0 <= y0 < y1 <= 446
        assert min(x1 - x0, y1 - y0) >= 36 - 1
        assert max(x1 - x0, y1 - y0) <= 96 + 1
        assert 0.6 <= one.alpha <= 1
        assert (one.offset is None) != (one.source is None)
        if one.source is not None:  # a patch never shows the target
            assert coverage(np.array([one.source], np.float64), TARGET) == 0
            assert one.source != one.box
    patches = np.mean([one.source is not None for one in some])
    assert 0.4 < patches < 0.6
    offsets = np.array([one.offset for one in some if one.offset is not None])
    assert np.abs(offsets).max() <= 32
    assert np.abs(offsets.mean(axis=0)).max() < 2.5


@pytest.mark.parametrize(
    ("target", "most"),
    [
        (TARGET, 0.06),
        (np.array([203.0, 191, 243, 255]), 0.06),
        (np.array([151.0, 206, 295, 240]), 0.12),  # a long one leaves less room outside
    ],
)
def test_32_candidates_against_500(target: np.ndarray, most: float) -> None:
    """Same boxes, fills and coverage; only the chance that nothing fits differs, by `most`."""
    few, published = many(32, 4000, target), many(500, 1500, target)
    done = [np.mean([one is not None for one in found]) for found in (few, published)]
    assert done[1] - done[0] + 0.02 >= 0
    assert done[1] - done[0] <= most
    for measure in (
        lambda found: covers(found, target)[covers(found, target) > 0],
        lambda found: np.array([one.size[0] for one in found if one is not None]),
        lambda found: np.array([one.box[0] for one in found if one is not None]),
    ):
        a, b = np.sort(measure(few)), np.sort(measure(published))
        both = np.concatenate([a, b])
        distance = np.abs(
            np.searchsorted(a, both, "right") / len(a) - np.searchsorted(b, both, "right") / len(b)
        ).max()
        # Kolmogorov-Smirnov at 1e-4, and what the skipped ones may shift
        assert distance < 2.2 * np.sqrt(1 / len(a) + 1 / len(b)) + most


def test_nothing_is_covered_where_nothing_fits() -> None:
    everywhere = np.array([0.0, 0, 446, 446])
    found = many(CANDIDATES, 50, everywhere, min_cover=0.9, max_cover=1.0)
    assert found == [None] * 50


def test_a_colour_is_the_mean_and_an_offset() -> None:
    picture = np.zeros((10, 10, 3), np.uint8)
    picture[:5] = (100, 200, 40)
    occluder = Occluder(box=(2, 1, 6, 4), alpha=0.75, offset=np.array([10.0, -20, 300]))
    out = occlude(picture, occluder)
    # mean (50, 100, 20); 0.75 * 60 + 25 = 70, 0.75 * 80 + 50 = 110, 0.75 * 320 + 10 = 250
    assert out[2, 3].tolist() == [70, 110, 250]
    out[1:4, 2:6] = picture[1:4, 2:6]
    np.testing.assert_array_equal(out, picture)


def test_a_patch_is_another_part_of_the_picture() -> None:
    picture = np.arange(20 * 20 * 3, dtype=np.int64).reshape(20, 20, 3) % 251
    picture = picture.astype(np.uint8)
    same_size = Occluder(box=(1, 2, 6, 8), alpha=1.0, source=(10, 11, 15, 17))
    np.testing.assert_array_equal(occlude(picture, same_size)[2:8, 1:6], picture[11:17, 10:15])
    flat = picture.copy()
    flat[10:16, 10:18] = 77
    larger = Occluder(box=(0, 0, 9, 9), alpha=1.0, source=(12, 11, 16, 15))
    assert (occlude(flat, larger)[:9, :9] == 77).all()


def test_levels_are_cut_not_rounded() -> None:
    picture = np.full((8, 8, 3), 10, np.uint8)
    occluder = Occluder(box=(0, 0, 8, 8), alpha=0.99, offset=np.array([0.9, 0.0, -300]))
    # 10 + 0.99 * 0.9 = 10.891; clipped at 0
    assert occlude(picture, occluder)[0, 0].tolist() == [10, 10, 0]


@pytest.mark.parametrize("name", ["size", "cover", "alpha"])
def test_ranges_must_not_be_empty(name: str) -> None:
    with pytest.raises(ValueError, match=f"min_{name} 0.9 is above max_{name} 0.3"):
        Occlusion(**{f"min_{name}": 0.9, f"max_{name}": 0.3})


def test_width_of_a_row() -> None:
    assert OCCLUSION_WIDTH == 8 + 4 * 32
    assert OCCLUSION_WIDTH % 4 == 0
