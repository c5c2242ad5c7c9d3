"""Geometry and colour of the recipe, against slow formulas and the config's probabilities."""

from __future__ import annotations

import colorsys
from dataclasses import replace

import numpy as np
import pytest

from configs import strict
from loaders.blur import Blur
from loaders.config import PairConfig
from loaders.occlusion import Occlusion
from loaders.recipe import DRAW_WIDTH, Augment, Jitter, Params, Recipe, draw
from loaders.reference import color, warp
from shards.geometry import Grid
from shards.rng import uniforms

PLAIN = Augment(scale=0.0, shift=0.0)
NO_AUGMENT = Recipe(image_z=PLAIN, image_x=PLAIN, video_z=PLAIN, video_x=PLAIN, grey=0.0)


def drawn(
    recipe: Recipe, count: int = 1, *, image: bool = False, grid: Grid = "edge", start: int = 0
) -> tuple[Params, Params]:
    is_image = np.full(count, image)
    u_z = uniforms(7, 1, 0, start, count, DRAW_WIDTH)
    u_x = uniforms(7, 2, 0, start, count, DRAW_WIDTH)
    targets = np.tile([191.0, 199, 255, 247], (count, 1))

    def more(step: str, half: str, at: np.ndarray, width: int) -> np.ndarray:
        stream = {"blur": 3, "occlusion": 5}[step] + "xz".index(half)
        whole = uniforms(7, stream, 0, start, count, width)
        return whole[at]

    return draw(
        recipe,
        is_image,
        u_z,
        u_x,
        targets,
        targets,
        more,
        template_px=127,
        search_px=255,
        frame_px=446,
        grid=grid,
    )


def without_steps(recipe: Recipe) -> Recipe:
    """Without blur and occlusion, which have tests of their own and cost time for each sample."""
    none = {"blur": Blur(), "occlusion": Occlusion()}
    halves = ("image_z", "image_x", "video_z", "video_x")
    return replace(recipe, **{name: replace(getattr(recipe, name), **none) for name in halves})


def with_video_x(**changes: object) -> Recipe:
    return replace(NO_AUGMENT, video_x=replace(PLAIN, **changes))


@pytest.mark.parametrize(
    ("grid", "region"), [("edge", [95.5, 95.5, 350.5, 350.5]), ("corner", [95, 95, 350, 350])]
)
def test_without_augmentation_the_crop_is_the_centre(grid: Grid, region: list[float]) -> None:
    _, x = drawn(NO_AUGMENT, grid=grid)
    np.testing.assert_allclose(x.region[0], region)
    assert not x.colored.any()
    assert not x.flipped.any()


def test_127_pixels_of_the_template_are_the_exemplar() -> None:
    z, _ = drawn(NO_AUGMENT)
    np.testing.assert_allclose(z.region[0], [159.5, 159.5, 286.5, 286.5])


@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_a_rotated_box_is_around_the_ellipse_that_was_in_it(flip: float) -> None:
    """Drawn and measured: a white ellipse on black, turned with the picture."""
    height, width = 446, 446
    y, x = np.mgrid[:height, :width] + 0.5
    box = np.array([180.0, 210, 270, 250])
    inside = ((x - 225) / 45) ** 2 + ((y - 230) / 20) ** 2 <= 1
    picture = np.repeat((inside * 255).astype(np.uint8)[..., None], 3, 2)
    recipe = with_video_x(flip=flip, rotation=Jitter(p=1.0, delta=40.0), scale=0.1, shift=20.0)
    _, params = drawn(recipe, 8)
    assert (np.abs(params.angle_deg) > 0).all()
    boxes = params.boxes(np.tile(box, (8, 1)))
    for i in range(8):
        crop = warp(picture, params.frame_from_crop[i], 255)[..., 0] > 127
        rows, columns = np.flatnonzero(crop.any(axis=1)), np.flatnonzero(crop.any(axis=0))
        found = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
        np.testing.assert_allclose(boxes[i], found, atol=1.2)


def test_rotation_turns_clockwise_and_is_off_by_default() -> None:
    """A mark right of the centre goes down (y grows) under a positive angle."""
    _, x = drawn(with_video_x(rotation=Jitter(p=1.0, delta=30.0)), 30)
    mark = x.boxes(np.tile([320.0, 220, 326, 226], (30, 1)))
    below = (mark[:, 1] + mark[:, 3]) / 2 > 127.5
    np.testing.assert_array_equal(below, x.angle_deg > 0)
    assert not drawn(Recipe(), 200)[1].angle_deg.any()


def test_optional_steps_keep_to_their_streams() -> None:
    """Blur and occlusion move no other number: all else is as without them."""
    _, plain = drawn(without_steps(Recipe()), 300, image=True)
    _, full = drawn(Recipe(), 300, image=True)
    assert full.blurs
    assert full.occluders
    for name in ("frame_from_crop", "color", "region", "flipped"):
        np.testing.assert_array_equal(getattr(plain, name), getattr(full, name))


@pytest.mark.parametrize("grid", ["edge", "corner"])
@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_a_drawn_box_is_where_its_pixels_are(grid: Grid, flip: float) -> None:
    """A bright rectangle on black: its pixels in the crop lie in the box that the recipe says."""
    picture = np.zeros((446, 446, 3), np.uint8)
    box = np.array([180.0, 200, 240, 260])
    picture[200:260, 180:240] = 255
    _, x = drawn(with_video_x(flip=flip, scale=0.18, shift=64.0, keep_aspect=False), 6, grid=grid)
    assert x.flipped.all() == bool(flip)
    boxes = x.boxes(np.tile(box, (6, 1)))
    for i in range(6):
        crop = warp(picture, x.frame_from_crop[i], 255)[..., 0] > 127
        rows, columns = np.flatnonzero(crop.any(axis=1)), np.flatnonzero(crop.any(axis=0))
        found = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
        # the corner grid's boxes are up to a pixel off its pixels, as published
        np.testing.assert_allclose(boxes[i], found, atol=0.6 if grid == "edge" else 1.6)


def test_published_formula_of_the_corner_grid() -> None:
    """Output pixel i samples start + i * size / 254; box' = (box - start) * 255 / size."""
    recipe = with_video_x(scale=0.18, shift=64.0, keep_aspect=False)
    _, x = drawn(recipe, 4, grid="corner")
    u = uniforms(7, 2, 0, 0, 4, DRAW_WIDTH)
    for i in range(4):
        size = 255 * np.exp((2 * u[i, 11:13] - 1) * 0.18)
        start = 445 / 2 + (2 * u[i, 13:15] - 1) * 64 - size / 2
        for k in (0, 100, 254):
            edge = x.frame_from_crop[i] @ np.array([k + 0.5, k + 0.5, 1])
            np.testing.assert_allclose(edge - 0.5, start + k * size / 254, atol=1e-9)
        box = np.array([100.0, 120, 200, 260])
        expected = (box - np.tile(start, 2)) * 255 / np.tile(size, 2)
        np.testing.assert_allclose(x.boxes(box[None].repeat(4, 0))[i], expected, atol=1e-4)


def test_corner_grid_flips_indices() -> None:
    _, x = drawn(with_video_x(flip=1.0), grid="corner")
    box = x.boxes(np.array([[100.0, 50, 150, 90]]))[0]
    mirrored = np.array([446 - 150 - 1, 50, 446 - 100 - 1, 90])
    np.testing.assert_allclose(box, mirrored - 95, atol=1e-4)


def test_many_boxes_map_as_one() -> None:
    _, x = drawn(Recipe(), 5)
    boxes = uniforms(1, 1, 0, 0, 5 * 3, 4).reshape(5, 3, 4) * 446
    several = x.boxes(boxes)
    for k in range(3):
        np.testing.assert_array_equal(several[:, k], x.boxes(boxes[:, k]))


def only(name: str, delta: float) -> np.ndarray:
    """Colour matrices with one step always on, and its amount in [-1, 1] from the same numbers."""
    _, x = drawn(with_video_x(**{name: Jitter(p=1.0, delta=delta)}), 50)
    return x.color


COLUMN = {"brightness": 1, "contrast": 3, "hue": 5, "saturation": 7}
AMOUNT = {
    name: 2 * uniforms(7, 2, 0, 0, 50, DRAW_WIDTH)[:, column + 1] - 1
    for name, column in COLUMN.items()
}


def test_brightness_adds_and_contrast_multiplies_about_zero() -> None:
    matrices = only("brightness", 30.0)
    np.testing.assert_allclose(matrices[:, :, :3], np.tile(np.eye(3), (50, 1, 1)), atol=1e-12)
    np.testing.assert_allclose(matrices[:, 0, 3], 30 * AMOUNT["brightness"])
    matrices = only("contrast", 0.3)
    np.testing.assert_allclose(matrices[:, 1, 1], np.exp(0.3 * AMOUNT["contrast"]))
    np.testing.assert_allclose(matrices[:, :, 3], 0, atol=1e-12)


def test_brightness_comes_before_contrast() -> None:
    steps = {"brightness": Jitter(p=1.0, delta=30.0), "contrast": Jitter(p=1.0, delta=0.3)}
    _, x = drawn(with_video_x(**steps), 50)
    expected = np.exp(0.3 * AMOUNT["contrast"]) * 30 * AMOUNT["brightness"]
    np.testing.assert_allclose(x.color[:, 2, 3], expected)


def test_greys_do_not_move_under_hue_and_saturation() -> None:
    for matrices in (only("hue", 30.0), only("saturation", 0.5)):
        np.testing.assert_allclose(matrices[:, :, :3].sum(axis=2), 1, atol=1e-3)


def test_saturation_scales_the_distance_from_grey() -> None:
    matrices = only("saturation", 0.2)
    rgb = np.array([200.0, 90, 60])
    luma = np.array([0.299, 0.587, 0.114]) @ rgb
    for matrix, amount in zip(matrices, AMOUNT["saturation"], strict=True):
        expected = luma + np.exp(0.2 * amount) * (rgb - luma)
        np.testing.assert_allclose(matrix[:, :3] @ rgb, expected, atol=0.3)


def test_hue_turns_the_way_of_hsv_by_half_degrees() -> None:
    """Linear hue is an approximation: the same direction, and near the angle for soft colours."""
    matrices = only("hue", 6.0)
    rgb = np.array([150.0, 120, 110])
    hue = colorsys.rgb_to_hsv(*(rgb / 255))[0]
    for matrix, amount in zip(matrices, AMOUNT["hue"], strict=True):
        turned = colorsys.rgb_to_hsv(*(matrix[:, :3] @ rgb / 255))[0]
        degrees = ((turned - hue + 0.5) % 1 - 0.5) * 360
        assert degrees == pytest.approx(12 * amount, abs=5)


def test_grey_makes_all_channels_the_luma_and_hits_both_crops() -> None:
    z, x = drawn(replace(Recipe(), grey=1.0), 20)
    for params in (z, x):
        assert params.colored.all()
        np.testing.assert_array_equal(params.color[:, 0], params.color[:, 2])
    z, x = drawn(replace(NO_AUGMENT, grey=0.5), 200)
    np.testing.assert_array_equal(z.colored, x.colored)
    assert 60 < z.colored.sum() < 140
    picture = np.array([[[200, 100, 50]]], np.uint8)
    luma = round(0.299 * 200 + 0.587 * 100 + 0.114 * 50)
    assert color(picture, z.color[z.colored][0]).tolist() == [[[luma] * 3]]


@pytest.mark.parametrize("image", [True, False])
def test_frequencies_and_ranges_of_100_000_draws(image: bool) -> None:
    """Every probability of the published recipe within five standard errors, uniform amounts."""
    recipe, count = without_steps(Recipe()), 100_000
    pair = drawn(recipe, count, image=image)
    ranges = (recipe.image_z, recipe.image_x) if image else (recipe.video_z, recipe.video_x)
    for params, augment in zip(pair, ranges, strict=True):
        none = np.prod(
            [1 - getattr(augment, n).p for n in ("brightness", "contrast", "hue", "saturation")]
        )
        expected = {
            "flip": (augment.flip, params.flipped),
            "coloured": (1 - none * (1 - recipe.grey), params.colored),
        }
        for p, hits in expected.values():
            assert abs(hits.mean() - p) <= 5 * np.sqrt(p * (1 - p) / count)
        side = (params.region[:, 2:] - params.region[:, :2]) / params.out_px
        shift = (params.region[:, :2] + params.region[:, 2:]) / 2 - 223
        for values, limit in ((np.log(side), augment.scale), (shift, augment.shift)):
            assert np.abs(values).max() <= limit
            observed, _ = np.histogram(values[:, 0], bins=50, range=(-limit, limit))
            assert ((observed - count / 50) ** 2 / (count / 50)).sum() < 85.35
            same = np.isclose(side[:, 0], side[:, 1], rtol=1e-9)
            assert same.all() == augment.keep_aspect


def test_published_numbers() -> None:
    recipe = Recipe()
    assert (recipe.image_x.flip, recipe.video_x.flip) == (0.25, 0.1)
    assert (recipe.image_z.hue, recipe.video_z.hue) == (Jitter(p=0.1, delta=12.0), Jitter())
    assert recipe.video_x.saturation == Jitter(p=0.1, delta=0.15)
    assert (recipe.video_x.scale, recipe.video_x.shift) == (0.18, 64.0)
    assert [recipe.image_x.blur.p, recipe.video_x.blur.p, recipe.image_z.blur.p] == [0.25, 0, 0]
    halves = (recipe.image_z, recipe.video_z, recipe.image_x, recipe.video_x)
    assert [half.occlusion.p for half in halves] == [0, 0, 0.1, 0.1]


def test_published_draws_never_leave_the_stored_crop() -> None:
    """The largest needs 255 e^0.18 / 2 + 64 = 216.6 px from the centre; 223 are there."""
    _, x = drawn(without_steps(Recipe()), 100_000)
    assert x.region.min() > 5
    assert x.region.max() < 441


def test_shipped_configurations_are_the_published_numbers() -> None:
    assert strict.load(PairConfig, "spm_alexnet.yaml", section="data") == PairConfig()
    siamfc = strict.load(PairConfig, "siamfc_alexnet.yaml", section="data")
    assert siamfc.pairs_per_epoch == 160_000
    assert siamfc.sampler.image.same_instance == siamfc.sampler.video.same_instance == 1
    recipe = siamfc.recipe
    assert [recipe.image_z.flip, recipe.image_x.flip, recipe.video_x.flip] == [0.25, 0.25, 0]
    assert [recipe.image_z.blur.p, recipe.image_x.blur.p, recipe.video_x.blur.p] == [0.05, 0.25, 0]
    assert recipe.image_z.blur.shares == (1, 0, 1, 1)
    assert recipe.image_x.blur == Recipe().image_x.blur
    assert [recipe.image_z.scale, recipe.image_z.shift] == [0, 0]
    assert [recipe.video_x.scale, recipe.video_x.shift] == [0.04, 64]
    assert recipe.image_x.keep_aspect
    assert not any(recipe.has("occlusion", half) for half in ("z", "x"))
