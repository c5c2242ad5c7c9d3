"""Blur: kernels against slow formulas, frequencies against the config."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from loaders.blur import (
    BLUR_WIDTH,
    Blur,
    Kernels,
    Ratios,
    draw_blur,
    gaussian_kernel,
    motion_kernel,
)
from loaders.reference import blur
from shards.rng import uniforms


@pytest.mark.parametrize("size", [3, 9, 19])
def test_gaussian_kernel(size: int) -> None:
    sigma = 0.3 * ((size - 1) / 2 - 1) + 0.8
    kernel = gaussian_kernel(size)
    assert kernel.sum() == pytest.approx(1, abs=1e-6)
    middle = size // 2
    ratio = kernel[middle, middle + 1] / kernel[middle, middle]
    assert ratio == pytest.approx(math.exp(-0.5 / sigma**2), rel=1e-5)
    np.testing.assert_allclose(kernel, kernel.T)


def test_motion_kernel_by_hand() -> None:
    """Slope tan(0.6 pi / 4) = 0.5095: rows -1, -1, 0, 1, 1 for columns -2..2 (rounded)."""
    expected = np.zeros((5, 5))
    expected[[1, 1, 2, 3, 3], range(5)] = 0.2
    np.testing.assert_allclose(motion_kernel(5, 0.6, transposed=False), expected)
    np.testing.assert_allclose(motion_kernel(5, 0.6, transposed=True), expected.T)
    diagonal = motion_kernel(7, 1.0, transposed=False)
    np.testing.assert_allclose(diagonal, np.eye(7) / 7)


@pytest.mark.parametrize("slope", np.linspace(-1, 1, 9))
@pytest.mark.parametrize("size", [5, 11, 19])
def test_motion_kernels_are_point_symmetric(size: int, slope: float) -> None:
    """So correlation and convolution are the same."""
    kernel = motion_kernel(size, float(slope), transposed=False)
    np.testing.assert_array_equal(kernel, kernel[::-1, ::-1])
    assert np.count_nonzero(kernel) == size


def test_frequencies_of_kinds_and_sizes() -> None:
    ranges, count = Blur(p=1.0), 40_000
    rows = uniforms(7, 4, 0, 0, count, BLUR_WIDTH)
    steps = [draw_blur(ranges, row, False, 446) for row in rows]
    kinds = Counter(step.kind for step in steps)
    shares = {"gaussian": 1 / 3.3, "average": 0.3 / 3.3, "down_up": 1 / 3.3, "motion": 1 / 3.3}
    for kind, share in shares.items():
        assert abs(kinds[kind] / count - share) < 5 * math.sqrt(share / count)
    small = Counter(step.small_px for step in steps if step.kind == "down_up")
    assert set(small) == {89, 112, 147, 223}  # published sizes of a 446 px picture
    sides = {
        kind: Counter(
            len(step.kernel) for step in steps if step.kind == kind and step.kernel is not None
        )
        for kind in ("gaussian", "average", "motion")
    }
    for found, expected in (
        (small, dict(zip((89, 112, 147, 223), (0.1, 0.2, 0.3, 0.4), strict=True))),
        (sides["gaussian"], {**dict.fromkeys(range(3, 20, 2), 0.1), 11: 0.2}),
        (sides["average"], {3: 0.4, 5: 0.3, 7: 0.2, 9: 0.1}),
        (
            sides["motion"],
            dict(zip(range(5, 20, 2), (0.12, 0.15, 0.2, 0.14, 0.13, 0.1, 0.09, 0.07), strict=True)),
        ),
    ):
        total = sum(found.values())
        assert set(found) == set(expected)
        for size, share in expected.items():
            assert abs(found[size] / total - share) < 5 * math.sqrt(share / total)


def test_a_flip_mirrors_the_line_of_a_motion() -> None:
    ranges = replace(
        Blur(p=1.0),
        gaussian=Kernels(),
        average=Kernels(),
        down_up=Ratios(),
        motion=Kernels(weight=1.0, sizes=(9,)),
    )
    row = np.array([0.5, 0.5, 0.9, 0.9, 0, 0, 0, 0])
    plain, mirrored = (draw_blur(ranges, row, flip, 446) for flip in (False, True))
    assert plain.kernel is not None
    assert mirrored.kernel is not None
    np.testing.assert_array_equal(plain.kernel[:, ::-1], mirrored.kernel)
    picture = np.zeros((40, 40, 3), np.uint8)
    picture[18, 11] = 255
    np.testing.assert_array_equal(
        blur(picture, mirrored)[:, ::-1], blur(np.ascontiguousarray(picture[:, ::-1]), plain)
    )


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: Kernels(sizes=(4,)), "odd side"),
        (lambda: Kernels(sizes=(3, 5)), "each size needs a weight"),
        (lambda: Ratios(ratios=(0.5,), weights=(0.0,)), "above 0"),
        (
            lambda: Blur(
                p=0.5, gaussian=Kernels(), average=Kernels(), down_up=Ratios(), motion=Kernels()
            ),
            "all weigh 0",
        ),
    ],
)
def test_mistakes(make: object, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        make()  # type: ignore[operator]
