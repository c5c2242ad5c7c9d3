"""The augmentation recipe: ranges in, one affine and one colour matrix a crop out.

The defaults of `Recipe` are the ranges that PySiamTracking published for SPM and SiamRPN: crop
shift and scale, flip, brightness, contrast, hue, saturation, grey. `draw` turns uniform numbers
into `Params`; a backend applies those and decides nothing. All colour steps are linear in RGB: hue
and saturation rotate and stretch the chroma plane of YIQ, which is what DALI's ``hsv`` does too.

A row of uniforms has fixed columns. Those of blur, occlusion and rotation are drawn but not used
yet, and streams are reserved for what these steps draw further (`loaders.plan`), so that they can
be added without moving any other number. Where a crop reaches outside the stored picture, its edge
pixels are repeated; the default ranges never do.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

import numpy as np
import numpy.typing as npt
from annotated_types import Ge, Le, Len

from shards.geometry import (
    Float,
    Grid,
    boxes_to_regions,
    crop_centre,
    flip_affine,
    flip_boxes,
    region_affine,
)

__all__ = ["DRAW_WIDTH", "Augment", "Jitter", "Params", "Recipe", "draw"]

Probability = Annotated[float, Ge(0), Le(1)]
Levels = Annotated[float, Ge(0), Le(255)]
LogScale = Annotated[float, Ge(0), Le(2)]
Pixels = Annotated[float, Ge(0), Le(4096)]

# Columns of a crop's row of uniforms.
_FLIP, _BRIGHTNESS, _CONTRAST, _HUE, _SATURATION = 0, 1, 3, 5, 7  # the last four: gate, value
# 9 blur, 10 occlusion, 15 and 16 rotation: reserved
_SCALE, _SHIFT, _GREY = 11, 13, 17
DRAW_WIDTH = 20

_LUMA = np.array([0.299, 0.587, 0.114])
_YIQ = np.array([_LUMA, [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
_RGB_FROM_YIQ = np.linalg.inv(_YIQ)


@dataclass(frozen=True, kw_only=True, slots=True)
class Jitter:
    """A colour step: done with probability `p`, its amount uniform in [-delta, delta]."""

    p: Probability = 0.0
    delta: Levels = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Augment:
    """Ranges for one kind of crop.

    Attributes
    ----------
    flip : probability of a mirror image
    brightness : added to 0..255 values
    contrast : values are multiplied by exp(amount), about zero
    hue : added to the hue in half degrees, OpenCV's unit
    saturation : chroma is multiplied by exp(amount)
    scale : the side of the crop is multiplied by exp of a uniform number in [-scale, scale]
    shift : pixels of the stored crop by which the centre moves at most, per axis
    keep_aspect : one scale for both axes
    """

    flip: Probability = 0.0
    brightness: Jitter = field(default_factory=Jitter)
    contrast: Jitter = field(default_factory=Jitter)
    hue: Jitter = field(default_factory=Jitter)
    saturation: Jitter = field(default_factory=Jitter)
    scale: LogScale = 0.0
    shift: Pixels = 0.0
    keep_aspect: bool = True


def _search(flip: float) -> Augment:
    return Augment(
        flip=flip,
        brightness=Jitter(p=0.15, delta=30.0),
        contrast=Jitter(p=0.15, delta=0.3),
        hue=Jitter(p=0.1, delta=6.0),
        saturation=Jitter(p=0.1, delta=0.15),
        scale=0.18,
        shift=64.0,
        keep_aspect=False,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """Augmentation by kind of data set (image, video) and crop (z: template, x: search).

    `grey` is the probability that both crops of a pair lose their colour; `luma` its weights.
    """

    image_z: Augment = field(
        default_factory=lambda: Augment(
            brightness=Jitter(p=0.15, delta=15.0),
            contrast=Jitter(p=0.15, delta=0.2),
            hue=Jitter(p=0.1, delta=12.0),
            saturation=Jitter(p=0.1, delta=0.2),
            scale=0.02,
            shift=4.0,
        )
    )
    image_x: Augment = field(default_factory=lambda: _search(0.25))
    video_z: Augment = field(
        default_factory=lambda: Augment(
            brightness=Jitter(p=0.1, delta=15.0),
            contrast=Jitter(p=0.1, delta=0.2),
            scale=0.02,
            shift=4.0,
        )
    )
    video_x: Augment = field(default_factory=lambda: _search(0.1))
    grey: Probability = 0.01
    luma: Annotated[tuple[Probability, ...], Len(3, 3)] = tuple(_LUMA.tolist())

    def __post_init__(self) -> None:
        if abs(sum(self.luma) - 1) > 1e-6:
            raise ValueError(f"luma must sum to 1, got {sum(self.luma):g}")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Params:
    """What a backend does to B crops of one kind.

    Attributes
    ----------
    out_px : side of the results
    frame_from_crop : (B, 2, 3) float64, stored picture from result, edge coordinates
    color : (B, 3, 4) float64, RGB 0..255 from RGB 0..255 and 1
    colored : (B,) bool, False where `color` is the identity
    region : (B, 4) float64 xyxy, what the result shows of the (mirrored) stored picture, for boxes
    flipped : (B,) bool
    """

    out_px: int
    frame_from_crop: Float
    color: Float
    colored: npt.NDArray[np.bool_]
    region: Float
    flipped: npt.NDArray[np.bool_]
    frame_px: int
    grid: Grid

    def boxes(self, boxes: Float) -> npt.NDArray[np.float32]:
        """Map boxes of the stored pictures to the results; not clipped.

        Parameters
        ----------
        boxes : (B, 4) or (B, K, 4) xyxy, stored picture

        Returns
        -------
        the same shape, float32 xyxy, pixels of the result
        """
        per_box = (slice(None),) + (None,) * (boxes.ndim - 2)
        flipped = self.flipped[(*per_box, None)]
        mirrored = np.where(flipped, flip_boxes(boxes, self.frame_px, self.grid), boxes)
        return boxes_to_regions(mirrored, self.region[per_box], self.out_px).astype(np.float32)


def _amount(u: Float, column: int, p: Float, delta: Float) -> Float:
    """Amounts of a gated step, 0 where it is not done."""
    value = (2 * u[:, column + 1] - 1) * delta
    return np.where(u[:, column] < p, value, 0.0)


def _chroma(hue_deg: Float, saturation: Float) -> Float:
    """Matrices (B, 3, 3) that turn the hue by degrees and multiply the chroma, luma unchanged."""
    # In the (I, Q) plane hue runs the other way round than in HSV.
    angle = -np.deg2rad(hue_deg)
    inner = np.zeros((len(angle), 3, 3))
    inner[:, 0, 0] = 1
    inner[:, 1, 1] = inner[:, 2, 2] = saturation * np.cos(angle)
    inner[:, 1, 2] = -saturation * np.sin(angle)
    inner[:, 2, 1] = saturation * np.sin(angle)
    return np.asarray(_RGB_FROM_YIQ @ inner @ _YIQ)


def _pick(image: Augment, video: Augment, is_image: npt.NDArray[np.bool_]) -> dict[str, Float]:
    """Every range of an `Augment` as a (B,) array, by the kind of each sample."""
    table: dict[str, Float] = {}
    for name in ("flip", "scale", "shift", "keep_aspect"):
        table[name] = np.where(is_image, float(getattr(image, name)), float(getattr(video, name)))
    for name in ("brightness", "contrast", "hue", "saturation"):
        for part in ("p", "delta"):
            a, b = getattr(getattr(image, name), part), getattr(getattr(video, name), part)
            table[f"{name}_{part}"] = np.where(is_image, a, b)
    return table


def _draw_crop(
    ranges: dict[str, Float],
    u: Float,
    grey: npt.NDArray[np.bool_],
    luma: Float,
    out_px: int,
    frame_px: int,
    grid: Grid,
) -> Params:
    count = len(u)
    scale_u = u[:, _SCALE : _SCALE + 2].copy()
    together = ranges["keep_aspect"] > 0
    scale_u[together, 1] = scale_u[together, 0]
    side = out_px * np.exp((2 * scale_u - 1) * ranges["scale"][:, None])
    shift = (2 * u[:, _SHIFT : _SHIFT + 2] - 1) * ranges["shift"][:, None]
    start = crop_centre(frame_px, grid) + shift - side / 2
    region = np.concatenate([start, start + side], axis=1)
    flipped = u[:, _FLIP] < ranges["flip"]

    added = _amount(u, _BRIGHTNESS, ranges["brightness_p"], ranges["brightness_delta"])
    gain = np.exp(_amount(u, _CONTRAST, ranges["contrast_p"], ranges["contrast_delta"]))
    hue_deg = 2 * _amount(u, _HUE, ranges["hue_p"], ranges["hue_delta"])
    chroma = np.exp(_amount(u, _SATURATION, ranges["saturation_p"], ranges["saturation_delta"]))
    color = np.empty((count, 3, 4))
    color[:, :, :3] = _chroma(hue_deg, chroma) * gain[:, None, None]
    color[:, :, 3] = (gain * added)[:, None]  # a grey is a fixed point of the chroma matrix
    color[grey] = (luma @ color[grey])[:, None]  # the same sum of the rows for each channel
    identity = (added == 0) & (gain == 1) & (hue_deg == 0) & (chroma == 1) & ~grey
    color[identity] = np.eye(3, 4)
    return Params(
        out_px=out_px,
        frame_from_crop=flip_affine(region_affine(region, out_px, grid), frame_px, flipped),
        color=color,
        colored=~identity,
        region=region,
        flipped=flipped,
        frame_px=frame_px,
        grid=grid,
    )


def draw(
    recipe: Recipe,
    is_image: npt.NDArray[np.bool_],
    u_z: Float,
    u_x: Float,
    *,
    template_px: int,
    search_px: int,
    frame_px: int,
    grid: Grid,
) -> tuple[Params, Params]:
    """Draw the parameters of B pairs.

    Parameters
    ----------
    recipe : the ranges
    is_image : (B,) bool, the pair comes from a data set of single pictures
    u_z, u_x : (B, DRAW_WIDTH) uniforms in [0, 1) for template and search
    template_px, search_px : sides of the results
    frame_px, grid : side and pixel grid of the stored crops

    Returns
    -------
    parameters of the templates, parameters of the search crops
    """
    grey = u_z[:, _GREY] < recipe.grey
    luma = np.asarray(recipe.luma)
    z = _draw_crop(
        _pick(recipe.image_z, recipe.video_z, is_image),
        u_z,
        grey,
        luma,
        template_px,
        frame_px,
        grid,
    )
    x = _draw_crop(
        _pick(recipe.image_x, recipe.video_x, is_image), u_x, grey, luma, search_px, frame_px, grid
    )
    return z, x
