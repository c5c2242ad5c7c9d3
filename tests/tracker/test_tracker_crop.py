import numpy as np
import pytest
import torch

from loaders import reference
from shards.geometry import crop_region, region_affine
from shards.pixels import MEAN_RGB, STD_RGB, mean_rgb, warp
from shards.rng import uniforms
from tracker.crop import frame_crops

BOXES = {
    "inside": [150, 90, 180, 140],
    "over the corner": [-8, -5, 30, 41],
    "over the far corner": [300, 200, 340, 260],
    "larger than the frame": [-40, -30, 400, 300],
    "tiny": [100.25, 60.5, 101.25, 62],
    "thin": [10, 100, 310, 104],
}


def noise(height: int = 240, width: int = 320) -> np.ndarray:
    drawn = uniforms(5, 99, 0, 0, height * width, 4)[:, :3]
    return (drawn * 256).astype(np.uint8).reshape(height, width, 3)


def levels(crop: torch.Tensor) -> np.ndarray:
    """Undo the normalisation: (H,W,3) float64, 0..255."""
    return (crop.double().permute(1, 2, 0).numpy() * STD_RGB + MEAN_RGB) * 255


@pytest.mark.parametrize("grid", ["edge", "corner"])
@pytest.mark.parametrize("box", BOXES.values(), ids=BOXES)
def test_a_crop_is_that_of_the_reference(box, grid):
    frame = noise()
    region = crop_region(np.array(box, np.float64), 255)
    got = frame_crops(frame, region[None], grid)
    assert got.shape == (1, 3, 255, 255)
    assert got.dtype == torch.float32
    assert got.is_contiguous()
    affine = region_affine(region, 255, grid)
    # The reference goes on with edge pixels; a frame that is wide enough makes that the mean.
    pad = 1000
    mean = frame.reshape(-1, 3).mean(0)
    wide = np.empty((240 + 2 * pad, 320 + 2 * pad, 3), np.float64)
    wide[:] = mean
    wide[pad : pad + 240, pad : pad + 320] = frame
    shifted = affine + np.array([[0, 0, pad], [0, 0, pad]])
    want = reference.sample(wide, shifted, (255, 255))
    assert np.abs(levels(got[0]) - want).max() < 1e-3
    opencv = warp(frame, affine, 255, mean_rgb(frame))
    assert np.abs(levels(got[0]) - opencv).max() < 1.01  # rounded, its border colour too


def test_each_corner_pixel_of_the_published_form_shows_the_published_index():
    frame = np.zeros((60, 80, 3), np.uint8)
    frame[..., 0] = np.arange(80)
    frame[..., 1] = 2 * np.arange(60)[:, None]
    region = np.array([[10.0, 5, 60, 55]])
    corner, edge = (levels(frame_crops(frame, region, grid)[0]) for grid in ("corner", "edge"))
    for i in (0, 100, 254):
        assert corner[7, i, 0] == pytest.approx(10 + i * 50 / 254, abs=1e-4)
        assert corner[i, 7, 1] == pytest.approx(2 * (5 + i * 50 / 254), abs=1e-4)
        assert edge[7, i, 0] == pytest.approx(10 + (i + 0.5) * 50 / 255 - 0.5, abs=1e-4)


def test_several_crops_of_a_frame_are_those_made_alone():
    frame = noise()
    regions = np.array([[-20.0, 30, 80, 130], [100, 50, 160, 110], [290, 200, 500, 410]])
    got = frame_crops(frame, regions, "edge")
    for i, region in enumerate(regions):
        alone = frame_crops(frame, region[None], "edge")[0]
        assert torch.allclose(got[i], alone, atol=1e-5)


@pytest.mark.parametrize("region", [[500, 300, 600, 400], [-200, -300, -50, -150]])
def test_a_crop_beside_the_frame_is_its_mean_colour(region):
    frame = noise()
    crop = levels(frame_crops(frame, np.array([region], np.float64), "edge")[0])
    assert np.abs(crop - frame.reshape(-1, 3).mean(0)).max() < 1e-3


def test_a_frame_of_one_pixel_has_a_crop():
    frame = np.full((1, 1, 3), 200, np.uint8)
    crop = levels(frame_crops(frame, np.array([[-3.0, -3, 4, 4]]), "edge")[0])
    assert np.abs(crop - 200).max() < 1e-3


def test_a_read_only_frame_is_left_alone():
    frame = noise()
    frame.flags.writeable = False
    frame_crops(frame, np.array([[10.0, 10, 90, 90]]), "edge")
