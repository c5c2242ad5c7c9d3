"""The published way to augment a pair, operation by operation, on one CPU worker.

PySiamTracking's order and numbers (facts of its public code, in our own words): pictures are BGR
uint8 as OpenCV decodes them, each step makes a new picture, and the crop is cut last, from floats.

template: colour → tensor → crop. search: occlusion → flip → colour → blur (image data sets only) →
tensor → crop. Then, rarely, both lose their colour; then both are normalised. Occlusion and blur
are in `benchmarks.published_steps`.

The crop is `torch.nn.functional.grid_sample` with aligned corners over the picture minus its mean,
so that what lies outside is the mean: the ``corner`` grid, whatever the grid of the data set.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from benchmarks.published_steps import (
    Blur,
    Occlusion,
    blur,
    draw_blur,
    draw_occlusion,
    occlude,
)

__all__ = [
    "GREY_P",
    "RANGES",
    "CropDraw",
    "Ranges",
    "apply",
    "crop_alone",
    "draw_crop",
    "map_boxes",
    "normalise",
]

MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
LUMA = torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)
GREY_P = 0.01


class Ranges(NamedTuple):
    """Published numbers of one kind of crop; colour steps are (probability, delta)."""

    occlusion: float
    flip: float
    brightness: tuple[float, float]
    contrast: tuple[float, float]
    hue: tuple[float, float]
    saturation: tuple[float, float]
    blur: float
    scale: float
    shift: float
    keep_aspect: bool


_Z, _X = (0.02, 4, True), (0.18, 64, False)  # scale, shift, keep aspect
RANGES = {
    ("image", "z"): Ranges(0, 0, (0.15, 15), (0.15, 0.2), (0.1, 12), (0.1, 0.2), 0, *_Z),
    ("image", "x"): Ranges(0.1, 0.25, (0.15, 30), (0.15, 0.3), (0.1, 6), (0.1, 0.15), 0.25, *_X),
    ("video", "z"): Ranges(0, 0, (0.1, 15), (0.1, 0.2), (0, 0), (0, 0), 0, *_Z),
    ("video", "x"): Ranges(0.1, 0.1, (0.15, 30), (0.15, 0.3), (0.1, 6), (0.1, 0.15), 0, *_X),
}


def crop_alone(ranges: Ranges) -> Ranges:
    """Ranges that draw scale and shift of the crop as published, and no other step."""
    none = (0.0, 0.0)
    return ranges._replace(
        occlusion=0.0,
        flip=0.0,
        brightness=none,
        contrast=none,
        hue=none,
        saturation=none,
        blur=0.0,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class CropDraw:
    """What is done to one picture; None where a step is not done.

    Attributes
    ----------
    occlusion : occluder
    flip : mirror left to right
    brightness : added to 0..255 values
    contrast : factor, about zero
    hue : added to OpenCV's hue (half degrees)
    saturation : factor of OpenCV's saturation
    blur : kind and size
    scale : factors of the crop's side in x and y
    shift : of the crop's centre in x and y, pixels of the stored picture
    """

    occlusion: Occlusion | None = None
    flip: bool = False
    brightness: float | None = None
    contrast: float | None = None
    hue: float | None = None
    saturation: float | None = None
    blur: Blur | None = None
    scale: tuple[float, float] = (1.0, 1.0)
    shift: tuple[float, float] = (0.0, 0.0)


def draw_crop(
    ranges: Ranges, rng: np.random.Generator, target: npt.NDArray[Any], side: int
) -> CropDraw:
    """Draw the steps of one picture, as a worker of the published loader does.

    Parameters
    ----------
    ranges : of the kind of crop
    rng : of the worker
    target : (4,) xyxy, box of the target in the stored picture
    side : of the stored picture
    """

    def amount(step: tuple[float, float]) -> float | None:
        p, delta = step
        return float(rng.uniform(-delta, delta)) if rng.random() < p else None

    def factor(step: tuple[float, float]) -> float | None:
        value = amount(step)
        return None if value is None else float(np.exp(value))

    hides = rng.random() < ranges.occlusion
    occlusion = draw_occlusion(np.asarray(target, np.float64), side, rng) if hides else None
    flip = bool(rng.random() < ranges.flip)
    brightness, contrast = amount(ranges.brightness), factor(ranges.contrast)
    hue, saturation = amount(ranges.hue), factor(ranges.saturation)
    blurred = draw_blur(rng) if rng.random() < ranges.blur else None
    shift = rng.uniform(-ranges.shift, ranges.shift, 2)
    scale = np.exp(rng.uniform(-ranges.scale, ranges.scale, 2))
    if ranges.keep_aspect:
        scale[1] = scale[0]
    return CropDraw(
        occlusion=occlusion,
        flip=flip,
        brightness=brightness,
        contrast=contrast,
        hue=hue,
        saturation=saturation,
        blur=blurred,
        scale=(float(scale[0]), float(scale[1])),
        shift=(float(shift[0]), float(shift[1])),
    )


def _color(picture: npt.NDArray[np.uint8], draw: CropDraw) -> npt.NDArray[np.uint8]:
    """Brightness and contrast in floats, clipped and rounded once; hue and saturation in HSV."""
    if draw.brightness is not None or draw.contrast is not None:
        values = picture.astype(np.float32)
        if draw.brightness is not None:
            values += draw.brightness
        if draw.contrast is not None:
            values *= draw.contrast
        picture = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    if draw.hue is not None or draw.saturation is not None:
        hsv = cv2.cvtColor(picture, cv2.COLOR_BGR2HSV).astype(np.float32)
        if draw.hue is not None:
            hsv[..., 0] = np.clip(hsv[..., 0] + draw.hue, 0, 179)
        if draw.saturation is not None:
            hsv[..., 1] = np.clip(hsv[..., 1] * draw.saturation, 0, 255)
        picture = cv2.cvtColor(np.rint(hsv).astype(np.uint8), cv2.COLOR_HSV2BGR)
    return picture


def _region(draw: CropDraw, side: int, out_px: int) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Start and size, each (x, y), of the region that a crop shows, in pixel indices."""
    size = out_px * np.array(draw.scale)
    return (side - 1) / 2 + np.array(draw.shift) - size / 2, size


def _crop(picture: torch.Tensor, draw: CropDraw, out_px: int) -> torch.Tensor:
    side = picture.shape[-1]
    start, size = _region(draw, side, out_px)
    scale = size / (side - 1)
    offset = 2 * start / (side - 1) + scale - 1
    theta = torch.tensor([[[scale[0], 0, offset[0]], [0, scale[1], offset[1]]]]).float()
    grid = functional.affine_grid(theta, [1, 3, out_px, out_px], align_corners=True)
    mean = picture.mean((1, 2), keepdim=True)
    centred = (picture - mean)[None]
    return functional.grid_sample(centred, grid, "bilinear", "zeros", align_corners=True)[0] + mean


def apply(picture: npt.NDArray[np.uint8], draw: CropDraw, out_px: int) -> torch.Tensor:
    """All steps of one picture up to the crop.

    Parameters
    ----------
    picture : (S, S, 3) uint8 BGR
    draw : what to do
    out_px : side of the result

    Returns
    -------
    (3, out_px, out_px) float32 RGB, 0..255, neither rounded nor clipped
    """
    if draw.occlusion is not None:
        picture = occlude(picture, draw.occlusion)
    if draw.flip:
        picture = np.asarray(cv2.flip(picture, 1))
    picture = _color(picture, draw)
    if draw.blur is not None:
        picture = blur(picture, draw.blur)
    planes = np.ascontiguousarray(picture[:, :, ::-1].transpose(2, 0, 1))
    return _crop(torch.from_numpy(planes).float(), draw, out_px)


def map_boxes(
    boxes: npt.NDArray[np.float32], draw: CropDraw, side: int, out_px: int
) -> npt.NDArray[np.float32]:
    """Boxes of a stored picture in its crop: columns x0, y0, x1, y1, the others as they are."""
    out = boxes.copy()
    if draw.flip:
        out[:, 0], out[:, 2] = side - boxes[:, 2] - 1, side - boxes[:, 0] - 1
    start, size = _region(draw, side, out_px)
    out[:, :4] = (out[:, :4] - np.tile(start, 2)) * np.tile(out_px / size, 2)
    return out


def normalise(crop: torch.Tensor, grey: bool) -> torch.Tensor:
    """Network input of a crop in 0..255, without its colour if `grey`."""
    if grey:
        crop = (crop * LUMA).sum(0, keepdim=True).expand(3, -1, -1)
    return (crop / 255 - MEAN) / STD
