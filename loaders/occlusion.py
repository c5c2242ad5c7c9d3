"""Occlusion: a rectangle of the stored picture is covered, drawn for the crops concerned only.

The rule is the one that PySiamTracking published, with 32 candidates instead of 500. Candidates are
independent and alike, so *which* one is chosen has the same distribution for any number of them;
only the chance that none fits, and that the step is skipped, is larger with fewer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from annotated_types import Ge, Le

from configs.document import Contradiction
from shards.geometry import Float, region_affine

__all__ = ["CANDIDATES", "OCCLUSION_WIDTH", "Occluder", "Occlusion", "coverage", "draw_occluder"]

Probability = Annotated[float, Ge(0), Le(1)]
Pixels = Annotated[float, Ge(0), Le(4096)]

CANDIDATES = 32
_INTERSECTING, _PATCH, _RED, _ALPHA, _BOXES = 0, 1, 2, 5, 8
OCCLUSION_WIDTH = _BOXES + 4 * CANDIDATES  # uniforms of one occluded crop
_MIN_SIDE = 4  # candidates must be larger


@dataclass(frozen=True, kw_only=True, slots=True)
class Occlusion:
    """Cover a rectangle with probability `p`.

    Attributes
    ----------
    p : probability
    intersecting : share of occluders that cover a part of the target; the others cover nothing
    patch : share filled with another part of the picture; the others with one colour
    shift : pixels of the stored picture between the centres of target and occluder, per axis
    min_size : least side of the occluder in stored pixels
    max_size : largest side of the occluder in stored pixels
    min_cover : least part of the target that an intersecting occluder covers
    max_cover : largest part of the target that an intersecting occluder covers
    min_alpha : least opacity
    max_alpha : largest opacity
    color : the colour is the picture's mean and up to so many levels more or less, per channel
    """

    p: Probability = 0.0
    intersecting: Probability = 0.5
    patch: Probability = 0.5
    shift: Pixels = 64.0
    min_size: Pixels = 36.0
    max_size: Pixels = 96.0
    min_cover: Probability = 0.05
    max_cover: Probability = 0.5
    min_alpha: Probability = 0.6
    max_alpha: Probability = 1.0
    color: Annotated[float, Ge(0), Le(255)] = 32.0

    def __post_init__(self) -> None:
        for name in ("size", "cover", "alpha"):
            low, high = getattr(self, f"min_{name}"), getattr(self, f"max_{name}")
            if low > high:
                raise Contradiction(
                    f"min_{name} {low:g} is above max_{name} {high:g}", f"min_{name}", f"max_{name}"
                )


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Occluder:
    """What covers one stored picture, before anything else is done to it.

    Attributes
    ----------
    box : x0, y0, x1, y1 in whole pixels of the stored picture
    alpha : opacity
    offset : (3,) float64 RGB, added to the picture's mean colour; None for a patch
    source : the patch shows this box of the picture, stretched; None for a colour
    """

    box: tuple[int, int, int, int]
    alpha: float
    offset: Float | None = None
    source: tuple[int, int, int, int] | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the box."""
        return self.box[3] - self.box[1], self.box[2] - self.box[0]

    def picture_from_patch(self) -> Float:
        """Affine (2, 3) of the patch: stored picture from box, edge coordinates, origin at the box.

        Read through it bilinearly, as a whole picture is read; `source` is not cut out first.
        """
        assert self.source is not None
        height, width = self.size
        affine = region_affine(np.array(self.source, np.float64), 1, "edge")
        return np.asarray(affine * np.array([1 / width, 1 / height, 1.0]))


def coverage(candidates: npt.NDArray[Any], target: Float) -> Float:
    """Part of the target, in 0..1, that each candidate covers.

    Parameters
    ----------
    candidates : (N, 4) xyxy; target : (4,) xyxy with an area
    """
    size = np.minimum(candidates[:, 2:], target[2:]) - np.maximum(candidates[:, :2], target[:2])
    inter = np.prod(np.clip(size, 0, None), axis=1)
    return np.asarray(inter / np.prod(target[2:] - target[:2]))


def _candidates(
    occlusion: Occlusion, u: Float, target: Float, frame_px: int
) -> npt.NDArray[np.int64]:
    """Boxes (N, 4) in whole pixels, clipped to the picture; those too small are left out."""
    shift = (2 * u[:, :2] - 1) * occlusion.shift
    size = occlusion.min_size + u[:, 2:] * (occlusion.max_size - occlusion.min_size)
    centre = (target[:2] + target[2:]) / 2 + shift
    boxes = np.rint(np.concatenate([centre - size / 2, centre + size / 2], axis=1))
    boxes = np.clip(boxes, 0, frame_px).astype(np.int64)
    return np.asarray(boxes[(boxes[:, 2:] - boxes[:, :2] > _MIN_SIDE).all(axis=1)])


def _box(row: npt.NDArray[Any]) -> tuple[int, int, int, int]:
    x0, y0, x1, y1 = (int(v) for v in row)
    return x0, y0, x1, y1


def draw_occluder(occlusion: Occlusion, u: Float, target: Float, frame_px: int) -> Occluder | None:
    """Occluder of one crop; None where no candidate fits.

    Parameters
    ----------
    occlusion : the ranges
    u : (OCCLUSION_WIDTH,) uniforms in [0, 1); with more, there are more candidates
    target : (4,) xyxy, stored picture
    frame_px : side of the stored picture
    """
    boxes = _candidates(occlusion, u[_BOXES:].reshape(-1, 4), np.asarray(target), frame_px)
    cover = coverage(boxes, np.asarray(target, np.float64))
    outside = np.flatnonzero(cover == 0)
    fits = outside
    if u[_INTERSECTING] < occlusion.intersecting:
        fits = np.flatnonzero((cover >= occlusion.min_cover) & (cover <= occlusion.max_cover))
    if not len(fits):
        return None
    chosen = fits[0]  # the candidates are alike: the first is as random as any
    alpha = occlusion.min_alpha + float(u[_ALPHA]) * (occlusion.max_alpha - occlusion.min_alpha)
    if u[_PATCH] < occlusion.patch:
        sources = outside[outside != chosen]
        if not len(sources):
            return None
        return Occluder(box=_box(boxes[chosen]), alpha=alpha, source=_box(boxes[sources[-1]]))
    offset = (2 * u[_RED : _RED + 3] - 1) * occlusion.color
    return Occluder(box=_box(boxes[chosen]), alpha=alpha, offset=offset)
