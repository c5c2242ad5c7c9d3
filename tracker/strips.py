"""Pictures of how a tracker loses its object: which frames, what part of them, and the boxes."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from shards.errors import StorageError
from shards.geometry import Float
from shards.pixels import Picture, decode

__all__ = [
    "FRAMES",
    "LOST",
    "RESULT_RGB",
    "TRUTH_RGB",
    "Annotated",
    "Shot",
    "chosen_frames",
    "draw_boxes",
    "lost_at",
    "strip",
    "view",
]

FRAMES = 6  # pictures in a strip
LOST = 0.1  # up to this overlap the object counts as lost
TRUTH_RGB, RESULT_RGB = (86, 180, 233), (255, 140, 0)  # apart for the colour-blind, and in print
_BEFORE = 2  # of the pictures, how many are before the loss
_LEAST_SHARE = 0.25  # of the frame's sides that a picture shows at least
_PICTURE_PX, _LINE_PX, _DASH_PX, _QUALITY = 320, 2, 6, 80


class Annotated(Protocol):
    """What a strip needs of a sequence of N frames."""

    @property
    def name(self) -> str:
        """Unique in the data set."""

    @property
    def frames(self) -> tuple[Path, ...]:
        """Pictures."""

    @property
    def boxes(self) -> Float:
        """Ground truth, (N,4) xyxy, frame pixels (edge coordinates)."""

    @property
    def absent(self) -> npt.NDArray[np.bool_]:
        """Frames (N,) in which the object is not to be seen."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Shot:
    """One picture of a strip.

    Parameters
    ----------
    frame : from 0
    file : name of the picture's file
    overlap : of result and ground truth; None where the object is absent
    jpeg : the picture with its boxes, JPEG
    """

    frame: int
    file: str
    overlap: float | None
    jpeg: bytes


def lost_at(overlap: Sequence[float | None]) -> int | None:
    """Find where the object is lost for longest.

    Parameters
    ----------
    overlap : of N frames, None where the object is absent

    Returns
    -------
    First frame, from 0, of the longest run of frames that overlap by at most `LOST` (absent frames
    neither count nor end a run); None if there is no such frame
    """
    best: tuple[int, int | None] = (0, None)
    length, start = 0, 0
    for frame, value in enumerate(overlap):
        if value is None:
            continue
        if value > LOST:
            length = 0
            continue
        start = start if length else frame
        length += 1
        if length > best[0]:
            best = (length, start)
    return best[1]


def chosen_frames(overlap: Sequence[float | None], count: int = FRAMES) -> tuple[int, ...]:
    """Choose evenly spaced frames around the loss, or around the least overlap if there is none.

    Parameters
    ----------
    overlap : of N frames, None where the object is absent
    count : how many, fewer if N is smaller

    Returns
    -------
    Frames, from 0, in order; a fortieth of the sequence apart, at most 15 and at least 1
    """
    total = len(overlap)
    count = min(count, total)
    middle = lost_at(overlap)
    if middle is None:
        known = [2.0 if value is None else value for value in overlap]
        middle = int(np.argmin(known)) if known else 0
    step = max(1, min(15, total // 40, (total - 1) // max(count - 1, 1)))
    start = max(0, min(middle - min(_BEFORE, count - 1) * step, total - 1 - (count - 1) * step))
    return tuple(range(start, start + count * step, step))


def view(boxes: Float, width: int, height: int) -> tuple[int, int, int, int]:
    """Part of the frame that shows all boxes with as much room again around them.

    Parameters
    ----------
    boxes : (K,4) xyxy, frame pixels; those that are not finite or empty do not count
    width, height : of the frame

    Returns
    -------
    x0, y0, x1, y1 : whole pixels inside the frame, in its proportions
    """
    size = np.array([width, height], np.float64)
    limits = np.concatenate([size, size])
    kept = np.clip(boxes[_drawn(boxes)], 0, limits)
    if not len(kept):
        return 0, 0, width, height
    low, high = kept[:, :2].min(axis=0), kept[:, 2:].max(axis=0)
    share = np.clip((2 * (high - low) / size).max(), _LEAST_SHARE, 1)
    sides = np.maximum(np.rint(size * share), 1)
    start = np.clip(np.rint((low + high - sides) / 2), 0, size - sides)
    x0, y0, x1, y1 = (int(value) for value in np.concatenate([start, start + sides]))
    return x0, y0, x1, y1


def draw_boxes(
    picture: Picture, part: tuple[int, int, int, int], truth: Float, result: Float
) -> Image.Image:
    """Enlarge or reduce a part of a frame and draw ground truth (dashed) and result on it.

    Parameters
    ----------
    picture : (H,W,3) uint8 RGB
    part : of the frame, see `view`
    truth, result : (4,) xyxy, frame pixels (edge coordinates); not drawn if not finite or empty
    """
    x0, y0, x1, y1 = part
    scale = _PICTURE_PX / max(x1 - x0, y1 - y0)
    size = (max(1, round((x1 - x0) * scale)), max(1, round((y1 - y0) * scale)))
    image = Image.fromarray(picture).crop(part).resize(size, Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(image)
    for box, color, dash in ((result, RESULT_RGB, 0), (truth, TRUTH_RGB, _DASH_PX)):
        if not _drawn(box[None])[0]:
            continue
        left, top, right, bottom = (float(v) for v in (box - np.array([x0, y0, x0, y0])) * scale)
        corners = [(left, top), (right - 1, top), (right - 1, bottom - 1), (left, bottom - 1)]
        for a, b in zip(corners, [*corners[1:], corners[0]], strict=True):
            for start, stop in _dashes(a, b, dash):
                # A dark line below makes both colours visible on any ground.
                pen.line((*start, *stop), fill=(0, 0, 0), width=_LINE_PX + 2)
                pen.line((*start, *stop), fill=color, width=_LINE_PX)
    return image


def strip(
    sequence: Annotated, result: Float, overlap: Sequence[float | None], frames: Sequence[int]
) -> tuple[Shot, ...]:
    """Read some frames of a sequence and draw the boxes on them.

    Parameters
    ----------
    sequence : of N frames
    result : (N,4) xyxy, frame pixels (edge coordinates)
    overlap : N values
    frames : numbers from 0

    Raises
    ------
    StorageError : if a picture cannot be read
    """
    result = np.asarray(result, np.float64)
    truth = np.where(sequence.absent[:, None], np.nan, sequence.boxes)
    rows = list(frames)
    around = np.concatenate([truth[rows], result[rows]])
    shots = []
    for frame in rows:
        path = sequence.frames[frame]
        try:
            picture = decode(path.read_bytes())
        except (OSError, ValueError) as error:
            raise StorageError(f"{path}: cannot be read for the report: {error}") from error
        part = view(around, picture.shape[1], picture.shape[0])
        image = draw_boxes(picture, part, truth[frame], result[frame])
        data = io.BytesIO()
        image.save(data, "JPEG", quality=_QUALITY)
        shots.append(
            Shot(frame=frame, file=path.name, overlap=overlap[frame], jpeg=data.getvalue())
        )
    return tuple(shots)


def _drawn(boxes: Float) -> npt.NDArray[np.bool_]:
    """Boxes (K,4) that are finite and not empty."""
    return np.asarray(np.isfinite(boxes).all(axis=1) & (boxes[:, 2:] > boxes[:, :2]).all(axis=1))


Point = tuple[float, float]


def _dashes(a: Point, b: Point, dash: int) -> list[tuple[Point, Point]]:
    """Pieces of a line: dashes with gaps of their length, or the whole line if `dash` is 0."""
    length = float(np.hypot(b[0] - a[0], b[1] - a[1]))
    if not dash or length <= dash:
        return [(a, b)]

    def at(place: float) -> Point:
        share = min(place / length, 1.0)
        return a[0] + (b[0] - a[0]) * share, a[1] + (b[1] - a[1]) * share

    return [(at(place), at(place + dash)) for place in np.arange(0, length, 2 * dash)]
