"""Boxes, crops, affines and the two pixel grids.

Boxes are ``(..., 4)`` arrays ``x0, y0, x1, y1`` in pixel-edge coordinates: (0, 0) is the outer
corner of the first pixel, its centre is (0.5, 0.5), the width is ``x1 - x0``. Points are (x, y),
shapes (height, width). An affine ``a_from_b (..., 2, 3)`` maps edge coordinates of b to edge
coordinates of a.

Two grids say how the pixels of a crop lie on the picture that it is cut from:

``edge``
    Pixel and box maps agree: output pixel i shows ``start + (i + .5) * side / out`` (edges).
``corner``
    The published checkpoints' form: pixel *index* i shows pixel index
    ``start + i * side / (out - 1)``, while boxes still use ``(box - start) * out / side``.

Every "- 1" of the corner grid lives in this module.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

__all__ = [
    "CROP_PX",
    "EXEMPLAR_PX",
    "GRIDS",
    "Float",
    "Grid",
    "anchor_origin",
    "boxes_from_regions",
    "boxes_to_regions",
    "context_side",
    "crop_centre",
    "crop_region",
    "flip_affine",
    "flip_boxes",
    "index_affine",
    "index_centre",
    "iou",
    "region_affine",
    "rotate_affine",
    "rotate_boxes",
    "touched",
]

Grid = Literal["edge", "corner"]
GRIDS: tuple[str, ...] = get_args(Grid)
Float = npt.NDArray[np.floating[Any]]

EXEMPLAR_PX = 127  # side of SiamFC's exemplar: always shows the square of side `context_side`
CROP_PX = 446  # default side of a stored crop


def context_side(box: Float) -> Float:
    """Side of the square with context around boxes, in their unit (SiamFC, Bertinetto et al. 2016).

    Parameters
    ----------
    box : (..., 4) xyxy with positive width and height

    Returns
    -------
    (...) float64, ``sqrt((w + p) (h + p))`` with ``p = (w + h) / 2``
    """
    box = np.asarray(box, np.float64)
    w = box[..., 2] - box[..., 0]
    h = box[..., 3] - box[..., 1]
    p = (w + h) / 2
    return np.asarray(np.sqrt((w + p) * (h + p)))


def crop_region(box: Float, out_px: int = CROP_PX) -> Float:
    """Square region of the frame that a crop of ``out_px`` pixels shows, the box at its centre.

    127 pixels of the crop always show ``context_side(box)``, whatever the size of the crop.

    Parameters
    ----------
    box : (..., 4) xyxy, frame pixels (edge coordinates)
    out_px : side of the crop in pixels

    Returns
    -------
    (..., 4) float64 xyxy, frame pixels; may leave the frame

    Raises
    ------
    ValueError : if a box has no area or is not finite
    """
    box = np.asarray(box, np.float64)
    w, h = box[..., 2] - box[..., 0], box[..., 3] - box[..., 1]
    if not (np.isfinite(box).all() and (w > 0).all() and (h > 0).all()):
        raise ValueError(f"a box needs a finite position and a positive size, got {box.tolist()}")
    half = (context_side(box) * (out_px / EXEMPLAR_PX) / 2)[..., None]
    centre = (box[..., :2] + box[..., 2:]) / 2
    return np.concatenate([centre - half, centre + half], axis=-1)


def boxes_to_regions(box: Float, region: Float, out_px: Float | int) -> Float:
    """Map boxes from a frame into crops: ``(box - start) * out / side``, in both grids.

    Parameters
    ----------
    box : (..., 4) xyxy in the frame
    region : (..., 4) xyxy in the frame; broadcasts against `box`
    out_px : side or sides of the crop, broadcasts against ``box[..., 0]``

    Returns
    -------
    (..., 4) float64 xyxy, crop pixels
    """
    region = np.asarray(region, np.float64)
    start = np.concatenate([region[..., :2]] * 2, axis=-1)
    size = region[..., 2:] - region[..., :2]
    scale = np.asarray(out_px, np.float64)[..., None] / np.concatenate([size] * 2, axis=-1)
    return np.asarray((np.asarray(box, np.float64) - start) * scale)


def boxes_from_regions(box: Float, region: Float, out_px: Float | int) -> Float:
    """Inverse of `boxes_to_regions`: from crop pixels back to the frame."""
    region = np.asarray(region, np.float64)
    start = np.concatenate([region[..., :2]] * 2, axis=-1)
    size = region[..., 2:] - region[..., :2]
    scale = np.concatenate([size] * 2, axis=-1) / np.asarray(out_px, np.float64)[..., None]
    return np.asarray(np.asarray(box, np.float64) * scale + start)


def region_affine(region: Float, out_px: int, grid: Grid) -> Float:
    """Affine of the pixels of a crop: which point of the frame each point of the crop shows.

    Parameters
    ----------
    region : (..., 4) xyxy; edge coordinates, for ``corner`` the pixel indices of the published form
    out_px : side of the crop in pixels
    grid : ``edge`` or ``corner``

    Returns
    -------
    frame_from_crop : (..., 2, 3) float64, edge coordinates on both sides in either grid
    """
    region = np.asarray(region, np.float64)
    start, size = region[..., :2], region[..., 2:] - region[..., :2]
    if grid == "edge":
        scale, offset = size / out_px, start
    else:
        # index_frame = start + index_crop * size / (out - 1), and edge = index + 1/2 on both sides
        scale = size / (out_px - 1)
        offset = start + 0.5 - 0.5 * scale
    affine = np.zeros((*region.shape[:-1], 2, 3))
    affine[..., 0, 0], affine[..., 1, 1] = scale[..., 0], scale[..., 1]
    affine[..., 0, 2], affine[..., 1, 2] = offset[..., 0], offset[..., 1]
    return affine


def flip_affine(frame_from_crop: Float, frame_px: int, flipped: npt.NDArray[np.bool_]) -> Float:
    """Affines that read a frame mirrored left to right: x is ``frame_px - x`` where flipped."""
    out = np.array(frame_from_crop, np.float64)
    out[flipped, 0, :] *= -1
    out[flipped, 0, 2] += frame_px
    return out


def flip_boxes(box: Float, frame_px: int, grid: Grid) -> Float:
    """Boxes of a picture mirrored left to right: ``S - x`` (edge) or ``S - x - 1`` (corner)."""
    box = np.asarray(box, np.float64)
    mirror = frame_px if grid == "edge" else frame_px - 1
    return np.stack([mirror - box[..., 2], box[..., 1], mirror - box[..., 0], box[..., 3]], axis=-1)


def rotate_affine(frame_from_crop: Float, frame_px: int, angle_deg: Float) -> Float:
    """Affines that read a frame turned about its centre.

    Parameters
    ----------
    frame_from_crop : (B, 2, 3), edge coordinates
    frame_px : side of the frame
    angle_deg : (B,) by which the content turns, clockwise as seen (x right, y down)

    Returns
    -------
    (B, 2, 3): frame from turned frame, after `frame_from_crop`
    """
    angle = np.deg2rad(np.asarray(angle_deg, np.float64))
    cos, sin = np.cos(angle), np.sin(angle)
    # the inverse turn takes a point of the result back to the frame
    back = np.stack([np.stack([cos, sin], -1), np.stack([-sin, cos], -1)], -2)
    affine = np.array(frame_from_crop, np.float64)
    affine[..., 2] -= frame_px / 2
    affine = back @ affine
    affine[..., 2] += frame_px / 2
    return np.where((angle == 0)[..., None, None], frame_from_crop, affine)


def rotate_boxes(box: Float, angle_deg: Float, centre: float) -> Float:
    """Boxes around the ellipses in boxes of a picture that is turned about (centre, centre).

    Parameters
    ----------
    box : (..., 4) xyxy
    angle_deg : (...) clockwise as seen, broadcasts against ``box[..., 0]``
    centre : coordinate of the pivot on both axes
    """
    box = np.asarray(box, np.float64)
    angle = np.deg2rad(np.asarray(angle_deg, np.float64))
    cos, sin = np.cos(angle), np.sin(angle)
    half_w, half_h = (box[..., 2] - box[..., 0]) / 2, (box[..., 3] - box[..., 1]) / 2
    x, y = (box[..., 0] + box[..., 2]) / 2 - centre, (box[..., 1] + box[..., 3]) / 2 - centre
    x, y = cos * x - sin * y + centre, sin * x + cos * y + centre
    # half sides of the box around an ellipse with these half axes, turned
    w, h = np.hypot(half_w * cos, half_h * sin), np.hypot(half_w * sin, half_h * cos)
    return np.stack([x - w, y - h, x + w, y + h], axis=-1)


def crop_centre(frame_px: int, grid: Grid) -> float:
    """Centre from which training crops are shifted: S / 2 (edge) or (S - 1) / 2 (corner)."""
    return frame_px / 2 if grid == "edge" else (frame_px - 1) / 2


def anchor_origin(search_px: int, grid: Grid) -> float:
    """Coordinate of the middle anchor in a search crop: 127.5 (edge) or 127 (corner) for 255 px."""
    return crop_centre(search_px, grid)


def index_affine(edge_affine: Float) -> Float:
    """Affine on pixel indices from one on edge coordinates (what OpenCV's warp takes)."""
    out = np.array(edge_affine, np.float64)
    out[..., 2] += 0.5 * (out[..., 0] + out[..., 1]) - 0.5
    return out


def index_centre(box: Float) -> Float:
    """Centres of boxes as pixel indices, ``x + (w - 1) / 2`` of evaluation toolkits.

    Parameters
    ----------
    box : (..., 4) xyxy, frame pixels (edge coordinates)

    Returns
    -------
    (..., 2) float64
    """
    box = np.asarray(box, np.float64)
    return np.asarray((box[..., :2] + box[..., 2:] - 1) / 2)


def touched(
    frame_from_crop: Float, out_px: int, frame_hw: tuple[int, int], margin: int = 0
) -> Float:
    """Whole pixels of the frame that bilinear interpolation of a crop reads.

    Parameters
    ----------
    frame_from_crop : (..., 2, 3), edge coordinates
    out_px : side of the crop
    frame_hw : height and width of the frame
    margin : pixels added on every side

    Returns
    -------
    (..., 4) int64 xyxy, clipped to the frame, never empty
    """
    affine = np.asarray(frame_from_crop, np.float64)
    lo, hi = 0.5, out_px - 0.5  # centres of the first and the last output pixel
    corners = np.array([[lo, lo, 1.0], [hi, lo, 1.0], [lo, hi, 1.0], [hi, hi, 1.0]])
    points = np.einsum("...ij,kj->...ki", affine, corners) - 0.5  # pixel indices
    limits = np.array([frame_hw[1], frame_hw[0]])
    low = np.floor(points.min(axis=-2)).astype(np.int64) - margin
    high = np.floor(points.max(axis=-2)).astype(np.int64) + 2 + margin
    low = np.clip(low, 0, limits - 1)
    high = np.clip(high, low + 1, limits)
    return np.concatenate([low, high], axis=-1)


def iou(a: Float, b: Float) -> Float:
    """Intersection over union of boxes (edge coordinates), broadcasting; 0 for empty boxes."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    size = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    inter = np.prod(np.clip(size, 0, None), axis=-1)
    area_a = np.prod(np.clip(a[..., 2:] - a[..., :2], 0, None), axis=-1)
    area_b = np.prod(np.clip(b[..., 2:] - b[..., :2], 0, None), axis=-1)
    union = area_a + area_b - inter
    return np.asarray(np.divide(inter, union, out=np.zeros_like(union), where=union > 0))
