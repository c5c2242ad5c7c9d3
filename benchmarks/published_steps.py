"""The two published steps that hide part of a picture: occlusion and blur, as one worker does them.

Facts of PySiamTracking's public code in our own words. *Occlusion* (search crops, one in ten) puts
a box of flat colour, or of another part of the picture, over or beside the target; it is chosen
among 500 candidates. *Blur* (search crops of image data sets, one in four) is one of four kinds:
gaussian, average, down and up again, motion. Both change whole stored pictures, before the crop.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

__all__ = [
    "CANDIDATES",
    "KINDS",
    "Blur",
    "Occlusion",
    "blur",
    "coverage",
    "draw_blur",
    "draw_occlusion",
    "motion_kernel",
    "occlude",
]

Picture = npt.NDArray[np.uint8]
Boxes = npt.NDArray[np.float64]

CANDIDATES = 500
REACH_PX, SIDES_PX, LEAST_SIDE_PX = 64.0, (36.0, 96.0), 4
COVERED = (0.05, 0.5)  # share of the target that an intersecting box hides
COLOR_DELTA, ALPHA = 32.0, (0.6, 1.0)

# kind: (weight, sizes or ratios, their probabilities)
KINDS: dict[str, tuple[float, tuple[float, ...], tuple[float, ...]]] = {
    "gaussian": (1.0, (3, 5, 7, 9, 11, 13, 15, 17, 19), (0.1,) * 4 + (0.2,) + (0.1,) * 4),
    "average": (0.3, (3, 5, 7, 9), (0.4, 0.3, 0.2, 0.1)),
    "down-up": (1.0, (0.2, 0.25, 0.33, 0.5), (0.1, 0.2, 0.3, 0.4)),
    "motion": (
        1.0,
        (5, 7, 9, 11, 13, 15, 17, 19),
        (0.12, 0.15, 0.20, 0.14, 0.13, 0.10, 0.09, 0.07),
    ),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Blur:
    """One blur: its kind, its kernel's side or its ratio, and the direction of a motion.

    Attributes
    ----------
    kind : key of `KINDS`
    amount : side of the kernel in pixels; for ``down-up`` the ratio
    direction : in [-1, 1], times 45 degrees
    transposed : the motion runs along columns
    """

    kind: str
    amount: float
    direction: float = 0.0
    transposed: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Occlusion:
    """One occluder.

    Attributes
    ----------
    box : x0, y0, x1, y1 in whole pixels of the stored picture
    alpha : weight of the filling
    source : box of the part of the picture that fills it; None: a flat colour
    color : added to the picture's mean, per channel, for a flat colour
    """

    box: tuple[int, int, int, int]
    alpha: float
    source: tuple[int, int, int, int] | None = None
    color: tuple[float, float, float] = (0.0, 0.0, 0.0)


def draw_blur(rng: np.random.Generator) -> Blur:
    """Draw kind, size and direction."""
    weights = np.array([weight for weight, _, _ in KINDS.values()])
    kind = list(KINDS)[int(rng.choice(len(KINDS), p=weights / weights.sum()))]
    _, amounts, shares = KINDS[kind]
    amount = amounts[int(rng.choice(len(amounts), p=shares))]
    if kind != "motion":
        return Blur(kind=kind, amount=amount)
    direction, transposed = float(rng.uniform(-1, 1)), bool(rng.random() < 0.5)
    return Blur(kind=kind, amount=amount, direction=direction, transposed=transposed)


def motion_kernel(side: int, direction: float, transposed: bool) -> npt.NDArray[np.float32]:
    """Kernel of a straight motion: a line through the centre, one tap of 1/side a column.

    Parameters
    ----------
    side : odd
    direction : the line's slope is tan(direction * 45 degrees)
    transposed : one tap a row instead
    """
    columns = np.arange(side)
    middle = side // 2
    rows = np.rint(middle + (columns - middle) * np.tan(direction * np.pi / 4)).astype(int)
    kernel = np.zeros((side, side), np.float32)
    kernel[rows, columns] = 1 / side
    return kernel.T if transposed else kernel


def blur(picture: Picture, how: Blur) -> Picture:
    """Blurred copy of a picture (S, S, 3)."""
    side = int(how.amount)
    match how.kind:
        case "gaussian":
            # given, for without it OpenCV takes other kernels up to 7x7
            sigma = 0.3 * ((side - 1) / 2 - 1) + 0.8
            out = cv2.GaussianBlur(picture, (side, side), sigma)
        case "average":
            out = cv2.blur(picture, (side, side))
        case "down-up":
            size = picture.shape[1], picture.shape[0]
            small = cv2.resize(
                picture, None, fx=how.amount, fy=how.amount, interpolation=cv2.INTER_LINEAR
            )
            out = cv2.resize(small, size, interpolation=cv2.INTER_LINEAR)
        case "motion":
            kernel = motion_kernel(side, how.direction, how.transposed)
            out = cv2.filter2D(picture, -1, kernel, borderType=cv2.BORDER_REPLICATE)
        case _:
            raise ValueError(f"no blur {how.kind!r}; there are {', '.join(KINDS)}")
    return np.asarray(out)


def coverage(boxes: Boxes, target: Boxes) -> npt.NDArray[np.float64]:
    """Share of a target (4,) that each of boxes (N, 4) hides."""
    low = np.maximum(boxes[:, :2], target[:2])
    high = np.minimum(boxes[:, 2:], target[2:])
    hidden = np.prod(np.clip(high - low, 0, None), axis=1)
    return np.asarray(hidden / np.prod(target[2:] - target[:2]))


def _candidates(target: Boxes, side: int, rng: np.random.Generator) -> Boxes:
    """Boxes around a target, (N, 4), whole pixels inside the picture."""
    centre = (target[:2] + target[2:]) / 2 + rng.uniform(-REACH_PX, REACH_PX, (CANDIDATES, 2))
    half = rng.uniform(*SIDES_PX, (CANDIDATES, 2)) / 2
    boxes = np.clip(np.rint(np.concatenate([centre - half, centre + half], axis=1)), 0, side)
    large = (boxes[:, 2:] - boxes[:, :2] > LEAST_SIDE_PX).all(axis=1)
    return np.asarray(boxes[large])


def draw_occlusion(target: Boxes, side: int, rng: np.random.Generator) -> Occlusion | None:
    """Draw an occluder beside a target or over part of it.

    Parameters
    ----------
    target : (4,) xyxy, pixels of the stored picture
    side : of the stored picture
    rng : of the worker

    Returns
    -------
    None where no candidate fits, as published: then nothing is done
    """
    over, flat = rng.random(2) < 0.5
    boxes = _candidates(target, side, rng)
    hidden = coverage(boxes, target)
    low, high = COVERED
    outside = boxes[hidden == 0]
    fitting = boxes[(hidden >= low) & (hidden <= high)] if over else outside
    if not len(fitting) or not (flat or len(outside)):
        return None

    def one_of(some: Boxes) -> tuple[int, int, int, int]:
        x0, y0, x1, y1 = (int(value) for value in some[rng.integers(len(some))])
        return x0, y0, x1, y1

    box, alpha = one_of(fitting), float(rng.uniform(*ALPHA))
    if not flat:
        return Occlusion(box=box, alpha=alpha, source=one_of(outside))
    blue, green, red = rng.uniform(-COLOR_DELTA, COLOR_DELTA, 3).tolist()
    return Occlusion(box=box, alpha=alpha, color=(blue, green, red))


def occlude(picture: Picture, how: Occlusion) -> Picture:
    """Copy of a picture (S, S, 3) with an occluder in it."""
    x0, y0, x1, y1 = how.box
    out = picture.copy()
    under = out[y0:y1, x0:x1].astype(np.float32)
    if how.source is None:
        mean = np.array(cv2.mean(picture)[:3])
        fill = np.clip(mean + how.color, 0, 255).astype(np.float32)
    else:
        left, top, right, bottom = how.source
        patch = picture[top:bottom, left:right]
        fill = cv2.resize(patch, (x1 - x0, y1 - y0), interpolation=cv2.INTER_LINEAR)
        fill = fill.astype(np.float32)
    # the published code truncates instead of rounding
    out[y0:y1, x0:x1] = (how.alpha * fill + (1 - how.alpha) * under).astype(np.uint8)
    return out
