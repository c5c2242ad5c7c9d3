"""The published baseline: pixels beside the reference backend's, draws beside the recipe's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import synthetic
import torch

from benchmarks.published import GREY_P, RANGES, CropDraw, apply, draw_crop, map_boxes, normalise
from benchmarks.published_steps import (
    KINDS,
    Blur,
    Occlusion,
    blur,
    coverage,
    draw_blur,
    draw_occlusion,
    motion_kernel,
    occlude,
)
from loaders.batch import normalise as our_normalise
from loaders.config import PairConfig
from loaders.recipe import Augment, Jitter, Params, Recipe
from loaders.reference import color, crops, decode, warp
from loaders.sets import open_sets
from loaders.work import Crops, prepare

COUNT = 6
PLAIN = Augment(scale=0.18, shift=64.0, keep_aspect=False, flip=0.5)


def _reference(some: Crops) -> np.ndarray:
    return crops(some, [some.read(i) for i in range(len(some))], channels_last=False)


@pytest.fixture(scope="module")
def corner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set on the published grid, which the baseline always uses."""
    folder = tmp_path_factory.mktemp("corner")
    synthetic.pack(folder, "lasot", sequences=4, frames=6, others=1, grid="corner")
    return folder


def _work(folder: Path, augment: Augment, grey: float = 0.0) -> Any:
    recipe = Recipe(image_z=augment, image_x=augment, video_z=augment, video_x=augment, grey=grey)
    config = PairConfig(path=str(folder), recipe=recipe)
    return prepare(open_sets(config), config, 0, 0, COUNT)


def _draw(some: Crops, i: int) -> CropDraw:
    return _draw_of(some.params, i)


def _draw_of(params: Params, i: int) -> CropDraw:
    """The published form of parameters that our recipe drew."""
    size = params.region[i, 2:] - params.region[i, :2]
    shift = params.region[i, :2] + size / 2 - (params.frame_px - 1) / 2
    scale = size / params.out_px
    return CropDraw(
        flip=bool(params.flipped[i]), scale=(scale[0], scale[1]), shift=(shift[0], shift[1])
    )


def _published(some: Crops, i: int, draw: CropDraw) -> np.ndarray:
    """Its crop in whole grey levels, from the decoder that the reference backend uses."""
    return _grey_levels(decode(some.read(i)), draw, some.params.out_px)


def _grey_levels(picture: np.ndarray, draw: CropDraw, out_px: int = 255) -> np.ndarray:
    crop = apply(np.ascontiguousarray(picture[:, :, ::-1]), draw, out_px)
    return np.clip(np.rint(crop.numpy()), 0, 255).astype(int)


def _difference(a: np.ndarray, b: np.ndarray) -> tuple[float, int]:
    gap = np.abs(a.astype(int) - b.astype(int))
    return float(gap.mean()), int(gap.max())


def test_geometry_equals_the_reference_within_one_grey_level(corner: Path) -> None:
    work = _work(corner, PLAIN)
    assert work.search.params.flipped.any()
    assert not work.search.params.flipped.all()
    for some in (work.template, work.search):
        expected = _reference(some)
        for i in range(COUNT):
            mean, most = _difference(_published(some, i, _draw(some, i)), expected[i])
            assert most <= 1
            assert mean < 0.01


def test_half_a_pixel_would_be_noticed(corner: Path) -> None:
    work = _work(corner, PLAIN)
    expected = _reference(work.search)
    draw = _draw(work.search, 0)
    moved = replace(draw, shift=(draw.shift[0] + 0.5, draw.shift[1]))
    mean, _ = _difference(_published(work.search, 0, moved), expected[0])
    assert mean > 0.1


def test_brightness_and_contrast_equal_the_reference_within_two_grey_levels(corner: Path) -> None:
    augment = replace(
        PLAIN, brightness=Jitter(p=1.0, delta=30.0), contrast=Jitter(p=1.0, delta=0.2)
    )
    work = _work(corner, augment)
    some = work.search
    expected = _reference(some)
    for i in range(COUNT):
        gain = some.params.color[i, 0, 0]
        added = some.params.color[i, 0, 3] / gain
        draw = replace(_draw(some, i), brightness=added, contrast=gain)
        # they round before the crop, the reference after: clipped pixels may blend differently
        mean, most = _difference(_published(some, i, draw), expected[i])
        assert mean < 0.35
        assert most <= 3


@pytest.mark.parametrize("step", ["hue", "saturation"])
def test_hsv_steps_go_the_way_of_the_reference(corner: Path, step: str) -> None:
    """HSV keeps the brightest channel, the linear matrix luma: compared in the chroma plane."""
    augment = replace(PLAIN, **{step: Jitter(p=1.0, delta=12.0 if step == "hue" else 0.2)})
    params = _work(corner, augment).search.params
    vivid = synthetic.picture(8, 446).astype(float)
    picture = np.rint(0.25 * vivid + 0.75 * vivid.mean(2, keepdims=True)).astype(np.uint8)
    compared = 0
    for i in range(COUNT):
        expected = color(warp(picture, params.frame_from_crop[i], 255), params.color[i])
        plain = _draw_of(params, i)
        amount = _hsv_amount(step, params.color[i, :, :3])
        if abs(amount) < 3 if step == "hue" else abs(np.log(amount)) < 0.05:
            continue  # below the rounding of HSV in whole numbers
        compared += 1
        opposite = -amount if step == "hue" else 1 / amount
        as_drawn, other_way, without = (
            _chroma_gap(_grey_levels(picture, draw), expected.transpose(2, 0, 1))
            for draw in (
                replace(plain, **{step: amount}),
                replace(plain, **{step: opposite}),
                plain,
            )
        )
        assert as_drawn < 0.6 * without < 0.6 * other_way
    assert compared >= 3


_YIQ = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])


def _chroma_gap(a: np.ndarray, b: np.ndarray) -> float:
    """Mean distance of two pictures (3, H, W) in the (I, Q) plane."""
    inner = np.einsum("ij,jhw->ihw", _YIQ[1:], a.astype(float) - b)
    return float(np.hypot(*inner).mean())


def _hsv_amount(step: str, chroma: np.ndarray) -> float:
    """Half degrees of hue, or factor of saturation, of a chroma matrix, from its (I, Q) plane."""
    plane = (_YIQ @ chroma @ np.linalg.inv(_YIQ))[1:, 1:]
    if step == "saturation":
        return float(np.sqrt(np.linalg.det(plane)))
    return float(-np.rad2deg(np.arctan2(plane[1, 0], plane[0, 0])) / 2)


def test_boxes_are_those_of_our_plan(corner: Path) -> None:
    work = _work(corner, PLAIN)
    some = work.search
    for i in range(COUNT):
        row = int(some.rows[i])
        stored = some.sources[i].index.target_boxes(np.array([row]))
        six = np.column_stack([stored, [[3.0, 1.0]]]).astype(np.float32)
        mapped = map_boxes(six, _draw(some, i), some.params.frame_px, some.params.out_px)
        np.testing.assert_allclose(mapped[0, :4], work.search_box[i], atol=2e-4)
        np.testing.assert_array_equal(mapped[0, 4:], [3, 1])


def test_grey_and_normalisation_are_ours(corner: Path) -> None:
    work = _work(corner, PLAIN, grey=1.0)
    expected = our_normalise(torch.from_numpy(_reference(work.search)))
    for i in range(COUNT):
        picture = np.ascontiguousarray(decode(work.search.read(i))[:, :, ::-1])
        crop = apply(picture, _draw(work.search, i), work.search.params.out_px)
        grey = normalise(crop, grey=True)
        assert (grey - expected[i]).abs().max() < 1.6 / 255 / 0.224


def test_input_is_not_changed() -> None:
    picture = synthetic.picture(3, 64)
    before = picture.copy()
    apply(picture, CropDraw(flip=True, brightness=9.0, hue=4.0, saturation=1.1), 32)
    np.testing.assert_array_equal(picture, before)


# ---- statistics --------------------------------------------------------------------------------

DRAWS = 20_000
TARGET = np.array([191.0, 191, 255, 255])


@pytest.mark.parametrize(("kind", "half"), sorted(RANGES))
def test_draws_have_the_recipes_statistics(kind: str, half: str) -> None:
    augment: Augment = getattr(Recipe(), f"{kind}_{half}")
    rng = np.random.Generator(np.random.PCG64([1, 2]))
    draws = [draw_crop(RANGES[kind, half], rng, TARGET, 446) for _ in range(DRAWS)]

    _assert_share([draw.flip for draw in draws], augment.flip)
    for name, log in (("brightness", 0), ("contrast", 1), ("hue", 0), ("saturation", 1)):
        jitter: Jitter = getattr(augment, name)
        values = [getattr(draw, name) for draw in draws]
        _assert_share([value is not None for value in values], jitter.p)
        there = np.array([value for value in values if value is not None])
        _assert_uniform(np.log(there) if log else there, jitter.delta)
    scale = np.log([draw.scale for draw in draws])
    shift = np.array([draw.shift for draw in draws])
    for axis in range(2):
        _assert_uniform(scale[:, axis], augment.scale)
        _assert_uniform(shift[:, axis], augment.shift)
    assert bool(np.all(scale[:, 0] == scale[:, 1])) is augment.keep_aspect


def test_grey_has_the_recipes_probability() -> None:
    assert Recipe().grey == GREY_P


def _assert_share(flags: list[bool], p: float) -> None:
    """Within five standard deviations of the binomial distribution."""
    assert abs(np.mean(flags) - p) <= 5 * np.sqrt(p * (1 - p) / len(flags))


def _assert_uniform(values: np.ndarray, delta: float) -> None:
    """Uniform in [-delta, delta]: Kolmogorov's distance far inside its 0.1 % bound."""
    if not len(values):
        return
    assert np.abs(values).max() <= delta
    ordered = np.sort(values)
    expected = (ordered / delta + 1) / 2
    steps = np.arange(len(ordered)) / len(ordered)
    assert np.abs(expected - steps).max() < 1.95 / np.sqrt(len(ordered))


# ---- occlusion and blur -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "half", "occlusion", "blurred"),
    [("image", "z", 0, 0), ("image", "x", 0.1, 0.25), ("video", "z", 0, 0), ("video", "x", 0.1, 0)],
)
def test_occlusion_and_blur_are_as_frequent_as_published(
    kind: str, half: str, occlusion: float, blurred: float
) -> None:
    rng = np.random.Generator(np.random.PCG64([3, 4]))
    draws = [draw_crop(RANGES[kind, half], rng, TARGET, 446) for _ in range(DRAWS)]
    _assert_share([draw.occlusion is not None for draw in draws], occlusion)
    _assert_share([draw.blur is not None for draw in draws], blurred)


def test_kinds_and_sizes_of_blur_have_the_published_weights() -> None:
    rng = np.random.Generator(np.random.PCG64([5, 6]))
    drawn = [draw_blur(rng) for _ in range(DRAWS)]
    for kind, share in {"gaussian": 1, "average": 0.3, "down-up": 1, "motion": 1}.items():
        _assert_share([one.kind == kind for one in drawn], share / 3.3)
        _, amounts, shares = KINDS[kind]
        assert sum(shares) == pytest.approx(1)
        of_kind = [one.amount for one in drawn if one.kind == kind]
        for amount, p in zip(amounts, shares, strict=True):
            _assert_share([one == amount for one in of_kind], p)
    motions = [one for one in drawn if one.kind == "motion"]
    _assert_share([one.transposed for one in motions], 0.5)
    _assert_uniform(np.array([one.direction for one in motions]), 1.0)


def test_motion_kernels_are_lines_through_the_centre() -> None:
    np.testing.assert_allclose(motion_kernel(5, 0.0, False)[2], 0.2)
    np.testing.assert_allclose(np.diag(motion_kernel(5, 1.0, False)), 0.2)
    np.testing.assert_allclose(np.diag(motion_kernel(5, -1.0, False)[::-1]), 0.2)
    for side in (5, 19):
        for direction in (-0.7, 0.3, 0.9):
            kernel = motion_kernel(side, direction, False)
            assert kernel.sum() == pytest.approx(1)
            assert np.count_nonzero(kernel) == side
            np.testing.assert_array_equal((kernel > 0).sum(0), 1)  # one tap a column
            np.testing.assert_array_equal(kernel, kernel[::-1, ::-1])  # correlation = convolution
            np.testing.assert_array_equal(motion_kernel(side, direction, True), kernel.T)


def _impulse(side: int = 65) -> np.ndarray:
    picture = np.zeros((side, side, 3), np.uint8)
    picture[side // 2, side // 2] = 255
    return picture


@pytest.mark.parametrize("side", [3, 11, 19])
def test_gaussian_has_the_published_sigma(side: int) -> None:
    sigma = 0.3 * ((side - 1) / 2 - 1) + 0.8
    taps = np.exp(-0.5 * ((np.arange(side) - side // 2) / sigma) ** 2)
    taps /= taps.sum()
    found = blur(_impulse(), Blur(kind="gaussian", amount=side))[..., 0].astype(float)
    expected = 255 * np.outer(taps, taps)
    low, high = 32 - side // 2, 33 + side // 2
    assert np.abs(found[low:high, low:high] - expected).max() <= 1
    assert found[0].max() == 0


def test_average_motion_and_down_up_do_what_they_say() -> None:
    picture = synthetic.picture(5, 446)
    average = blur(picture, Blur(kind="average", amount=5)).astype(float)
    window = picture[98:103, 198:203].astype(float).mean((0, 1))
    assert np.abs(average[100, 200] - window).max() <= 1
    motion = blur(picture, Blur(kind="motion", amount=7, direction=0.0))
    line = picture[100, 197:204].astype(float).mean(0)
    assert np.abs(motion[100, 200] - line).max() <= 1
    down = cv2.resize(picture, (147, 147), interpolation=cv2.INTER_LINEAR)
    up = blur(picture, Blur(kind="down-up", amount=0.33))
    assert up.shape == picture.shape
    again = cv2.resize(down, (446, 446), interpolation=cv2.INTER_LINEAR)
    # OpenCV scales by the ratio and not by the rounded size
    assert np.abs(up.astype(int) - again).mean() < 2
    with pytest.raises(ValueError, match="no blur"):
        blur(picture, Blur(kind="box", amount=3))


def test_occluders_lie_where_the_rule_wants_them() -> None:
    rng = np.random.Generator(np.random.PCG64([7, 8]))
    drawn = [draw_occlusion(TARGET, 446, rng) for _ in range(2_000)]
    there = [one for one in drawn if one is not None]
    assert len(there) == len(drawn)  # for a target in the middle some candidate always fits
    boxes = np.array([one.box for one in there], float)
    hidden = coverage(boxes, TARGET)
    over = hidden > 0
    _assert_share(over.tolist(), 0.5)
    assert hidden[over].min() >= 0.05
    assert hidden[over].max() <= 0.5
    _assert_share([one.source is not None for one in there], 0.5)
    sources = np.array([one.source for one in there if one.source is not None], float)
    assert coverage(sources, TARGET).max() == 0
    for some in (boxes, sources):
        sides = some[:, 2:] - some[:, :2]
        assert sides.min() >= 35
        assert sides.max() <= 97
        assert np.abs((some[:, :2] + some[:, 2:]) / 2 - 223).max() <= 65
    assert min(one.alpha for one in there) >= 0.6
    assert max(abs(value) for one in there for value in one.color) <= 32


def test_no_fitting_box_means_no_occlusion() -> None:
    rng = np.random.Generator(np.random.PCG64([9, 9]))
    everything = np.array([0.0, 0, 446, 446])  # nothing is outside, 96x96 px are 4.6 % of it
    assert all(draw_occlusion(everything, 446, rng) is None for _ in range(50))


def test_coverage_is_the_hidden_share() -> None:
    boxes = np.array([[0, 0, 5, 10], [20, 20, 30, 30], [0, 0, 10, 10], [5, 5, 20, 20]], float)
    found = coverage(boxes, np.array([0.0, 0, 10, 10]))
    np.testing.assert_allclose(found, [0.5, 0, 1, 0.25])


def test_occluding_changes_the_box_alone() -> None:
    picture = synthetic.picture(6, 128)
    before = picture.copy()
    flat = occlude(picture, Occlusion(box=(10, 20, 50, 60), alpha=1.0, color=(5.0, 0.0, -300.0)))
    np.testing.assert_array_equal(picture, before)
    inside = flat[20:60, 10:50]
    assert (inside == inside[0, 0]).all()
    assert abs(int(inside[0, 0, 0]) - picture[..., 0].mean() - 5) <= 1
    assert inside[0, 0, 2] == 0  # clipped, not wrapped
    flat[20:60, 10:50] = picture[20:60, 10:50]
    np.testing.assert_array_equal(flat, picture)

    patch = Occlusion(box=(10, 20, 50, 60), alpha=0.75, source=(70, 70, 110, 110))
    mixed = occlude(picture, patch)[20:60, 10:50]
    expected = 0.75 * picture[70:110, 70:110] + 0.25 * picture[20:60, 10:50]
    np.testing.assert_array_equal(mixed, expected.astype(np.uint8))


def test_steps_come_in_the_published_order() -> None:
    """Occlusion before the flip, so its box is mirrored; blur after the colour."""
    picture = np.full((446, 446, 3), 100, np.uint8)
    box = Occlusion(box=(100, 200, 140, 240), alpha=1.0, color=(50.0, 50.0, 50.0))
    plain = apply(picture, CropDraw(occlusion=box), 446).numpy()
    mirrored = apply(picture, CropDraw(occlusion=box, flip=True), 446).numpy()
    np.testing.assert_allclose(mirrored, plain[:, :, ::-1], atol=0.01)
    bright = CropDraw(occlusion=box, brightness=200.0, blur=Blur(kind="average", amount=9))
    # 300 and 350 are both clipped to 255 before the blur, which then has no edge to soften
    assert np.ptp(apply(picture, bright, 446).numpy()) < 0.01
