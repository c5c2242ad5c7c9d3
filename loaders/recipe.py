"""The augmentation recipe: ranges in, one affine and one colour matrix a crop out.

The defaults of `Recipe` are the ranges that PySiamTracking published for SPM and SiamRPN. `draw`
turns uniform numbers into `Params`; a backend applies those and decides nothing, in this order:
occlusion and blur of the stored picture, where drawn; one warp (crop, scale, shift, rotation,
flip); one colour matrix. All colour steps are linear in RGB: hue and saturation rotate and stretch
the chroma plane of YIQ, which is what DALI's ``hsv`` does too. The published order is occlusion,
flip, colour, blur, crop; a warp and a colour matrix change places freely but for rounding.

A row of uniforms has fixed columns. What occlusion and blur draw further comes from streams of
their own, for the samples concerned only. Where a crop reaches outside the stored picture, its edge
pixels are repeated; the default ranges never do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from annotated_types import Ge, Le, Len

from configs.document import Contradiction
from loaders.blur import BLUR_WIDTH, Blur, BlurStep, draw_blur
from loaders.occlusion import OCCLUSION_WIDTH, Occluder, Occlusion, draw_occluder
from shards.geometry import (
    Float,
    Grid,
    boxes_to_regions,
    crop_centre,
    flip_affine,
    flip_boxes,
    index_affine,
    region_affine,
    rotate_affine,
    rotate_boxes,
    touched,
)

__all__ = ["DRAW_WIDTH", "Augment", "Half", "Jitter", "Params", "Recipe", "Step", "draw"]

Half = Literal["z", "x"]  # template, search
Step = Literal["blur", "occlusion"]
# Rows of the optional step's own stream for some positions of the batch: (positions, width) in.
More = Callable[[Step, Half, npt.NDArray[np.int64], int], Float]

Probability = Annotated[float, Ge(0), Le(1)]
Levels = Annotated[float, Ge(0), Le(255)]
LogScale = Annotated[float, Ge(0), Le(2)]
Pixels = Annotated[float, Ge(0), Le(4096)]

# Columns of a crop's row of uniforms.
_FLIP, _BRIGHTNESS, _CONTRAST, _HUE, _SATURATION = 0, 1, 3, 5, 7  # the last four: gate, value
_BLUR, _OCCLUSION, _SCALE, _SHIFT, _ROTATION, _GREY = 9, 10, 11, 13, 15, 17  # rotation: likewise
DRAW_WIDTH = 20

_LUMA = np.array([0.299, 0.587, 0.114])
_YIQ = np.array([_LUMA, [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
_RGB_FROM_YIQ = np.linalg.inv(_YIQ)


@dataclass(frozen=True, kw_only=True, slots=True)
class Jitter:
    """A step that is done now and then, its amount uniform in [-delta, delta].

    Attributes
    ----------
    p : probability
    delta : largest amount, either way, in the unit of the step: a uniform number in
        [-delta, delta]
    """

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
    rotation : about the centre of the stored crop, in degrees; a rotated box is that around the
        ellipse in it
    blur, occlusion : of the stored picture, before the crop is taken from it
    """

    flip: Probability = 0.0
    brightness: Jitter = field(default_factory=Jitter)
    contrast: Jitter = field(default_factory=Jitter)
    hue: Jitter = field(default_factory=Jitter)
    saturation: Jitter = field(default_factory=Jitter)
    scale: LogScale = 0.0
    shift: Pixels = 0.0
    keep_aspect: bool = True
    rotation: Jitter = field(default_factory=Jitter)
    blur: Blur = field(default_factory=Blur)
    occlusion: Occlusion = field(default_factory=Occlusion)


def _search(flip: float, blur: float = 0.0) -> Augment:
    return Augment(
        flip=flip,
        blur=Blur(p=blur),
        occlusion=Occlusion(p=0.1),
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

    Attributes
    ----------
    image_z, image_x, video_z, video_x : ranges of each
    grey : probability that both crops of a pair lose their colour
    luma : weights of red, green and blue in the grey that is left; they sum to 1
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
    image_x: Augment = field(default_factory=lambda: _search(0.25, blur=0.25))
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

    def ranges(self, half: Half) -> tuple[Augment, Augment]:
        """Augmentation of the crops of one kind: of images and of videos."""
        return (self.image_z, self.video_z) if half == "z" else (self.image_x, self.video_x)

    def has(self, step: Step, half: Half) -> bool:
        """Tell whether an optional step may be drawn for the crops of one kind."""
        return any(getattr(augment, step).p > 0 for augment in self.ranges(half))

    def __post_init__(self) -> None:
        if abs(sum(self.luma) - 1) > 1e-6:
            raise Contradiction(f"luma must sum to 1, got {sum(self.luma):g}", "luma")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Params:
    """What a backend does to B crops of one kind.

    Attributes
    ----------
    out_px : side of the results
    frame_from_crop : (B, 2, 3) float64, stored picture from result, edge coordinates
    index_affine : (B, 2, 3) float64, the same on pixel indices, as OpenCV takes it
    color : (B, 3, 4) float64, RGB 0..255 from RGB 0..255 and 1
    colored : (B,) bool, False where `color` is the identity
    region : (B, 4) float64 xyxy, what the result shows of the (mirrored, rotated) stored picture,
        for boxes
    flipped : (B,) bool
    angle_deg : (B,) float64, clockwise as seen, after the flip
    decoded : (B, 4) int64 xyxy, pixels of the stored pictures that must be decoded: what the warp
        touches, wider by the kernel of a blur; all of a picture whose mean colour or other parts
        are needed
    occluders, blurs : by position in the batch, of the samples concerned only; applied to the
        stored picture in this order, before the warp
    """

    out_px: int
    frame_from_crop: Float
    index_affine: Float
    color: Float
    colored: npt.NDArray[np.bool_]
    region: Float
    flipped: npt.NDArray[np.bool_]
    angle_deg: Float
    decoded: npt.NDArray[np.int64]
    frame_px: int
    grid: Grid
    occluders: Mapping[int, Occluder] = field(default_factory=dict)
    blurs: Mapping[int, BlurStep] = field(default_factory=dict)

    def part(self, first: int, end: int) -> Params:
        """Parameters of the crops `first` to `end`, which is left out."""
        names = ("frame_from_crop", "index_affine", "color", "colored", "region", "flipped")
        cut: dict[str, Any] = {
            name: getattr(self, name)[first:end] for name in (*names, "angle_deg", "decoded")
        }
        for name in ("occluders", "blurs"):
            steps = getattr(self, name).items()
            cut[name] = {i - first: step for i, step in steps if first <= i < end}
        return replace(self, **cut)

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
        if self.angle_deg.any():
            angle = self.angle_deg[per_box]
            turned = rotate_boxes(mirrored, angle, crop_centre(self.frame_px, self.grid))
            mirrored = np.where(angle[..., None] != 0, turned, mirrored)
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
    for name in ("brightness", "contrast", "hue", "saturation", "rotation"):
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
    angle_deg = _amount(u, _ROTATION, ranges["rotation_p"], ranges["rotation_delta"])
    affine = region_affine(region, out_px, grid)
    if angle_deg.any():
        affine = rotate_affine(affine, frame_px, angle_deg)
    frame_from_crop = flip_affine(affine, frame_px, flipped)
    return Params(
        out_px=out_px,
        frame_from_crop=frame_from_crop,
        index_affine=index_affine(frame_from_crop),
        color=color,
        colored=~identity,
        region=region,
        flipped=flipped,
        angle_deg=angle_deg,
        decoded=np.asarray(touched(frame_from_crop, out_px, (frame_px, frame_px)), np.int64),
        frame_px=frame_px,
        grid=grid,
    )


def _with_steps(
    params: Params,
    recipe: Recipe,
    half: Half,
    is_image: npt.NDArray[np.bool_],
    u: Float,
    targets: Float,
    more: More,
) -> Params:
    """Add occluders and blurs where the gates of `u` say so."""
    image, video = recipe.ranges(half)

    def concerned(step: Step, column: int) -> npt.NDArray[np.int64]:
        p = np.where(is_image, getattr(image, step).p, getattr(video, step).p)
        return np.flatnonzero(u[:, column] < p)

    occluders: dict[int, Occluder] = {}
    at = concerned("occlusion", _OCCLUSION)
    for i, row in zip(at.tolist(), more("occlusion", half, at, OCCLUSION_WIDTH), strict=True):
        ranges = image.occlusion if is_image[i] else video.occlusion
        occluder = draw_occluder(ranges, row, targets[i], params.frame_px)
        if occluder is not None:
            occluders[i] = occluder
    at = concerned("blur", _BLUR)
    blurs = {
        i: draw_blur(
            image.blur if is_image[i] else video.blur, row, bool(params.flipped[i]), params.frame_px
        )
        for i, row in zip(at.tolist(), more("blur", half, at, BLUR_WIDTH), strict=True)
    }
    decoded, frame_hw = params.decoded.copy(), (params.frame_px, params.frame_px)
    for i, blur in blurs.items():
        if blur.kernel is not None:
            affine = params.frame_from_crop[i]
            decoded[i] = touched(affine, params.out_px, frame_hw, blur.margin_px)
    whole = [i for i, blur in blurs.items() if blur.kernel is None]
    decoded[[*occluders, *whole]] = (0, 0, params.frame_px, params.frame_px)
    return replace(params, decoded=decoded, occluders=occluders, blurs=blurs)


def draw(
    recipe: Recipe,
    is_image: npt.NDArray[np.bool_],
    u_z: Float,
    u_x: Float,
    template_boxes: Float,
    search_boxes: Float,
    more: More,
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
    template_boxes, search_boxes : (B, 4) xyxy, targets in the stored pictures
    more : gives the uniforms of an optional step: called with its name, the kind of crop, (n,)
        positions in the batch and a width, it returns (n, width)
    template_px, search_px : sides of the results
    frame_px, grid : side and pixel grid of the stored crops

    Returns
    -------
    parameters of the templates, parameters of the search crops
    """
    grey, luma = u_z[:, _GREY] < recipe.grey, np.asarray(recipe.luma)

    def half(name: Half, u: Float, boxes: Float, out_px: int) -> Params:
        ranges = _pick(*recipe.ranges(name), is_image)
        params = _draw_crop(ranges, u, grey, luma, out_px, frame_px, grid)
        return _with_steps(params, recipe, name, is_image, u, boxes, more)

    return half("z", u_z, template_boxes, template_px), half("x", u_x, search_boxes, search_px)
