"""What the demo sequences show: scenes that are drawn, with the boxes of their objects.

Each shows a textured object of one of four shapes over a moving background, with smooth motion and
change of scale, a distractor of the same shape, and either a full occlusion or a stretch out of
view. Boxes are the extents of the pixels drawn.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from shards.pixels import Picture
from shards.rng import uniforms

__all__ = ["SHAPES", "Scene", "Shot", "scene"]

SHAPES = ("car", "person", "bird", "kite")
_ASPECT = {"car": 1.9, "person": 0.42, "bird": 1.4, "kite": 0.8}  # width over height
_SIZES = ((320, 240), (480, 270), (640, 360), (400, 300))  # width, height of the pictures
_FINE = 256  # side of the masters of textures and masks
_OBJECT, _DISTRACTOR, _BACKGROUND, _POLE, _MOTION = range(
    5
)  # random streams, also places in a scene
_HIDDEN = 0.1  # under this share of its pixels an object counts as absent


class Shot(NamedTuple):
    """One frame: picture, box x, y, w, h of what is inside it, and the two flags."""

    picture: Picture
    box: tuple[int, int, int, int]
    occluded: bool
    out_of_view: bool


class _Sprite(NamedTuple):
    """A texture and where it is opaque, both at fine resolution."""

    texture: Picture
    mask: npt.NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Scene:
    """Everything fixed in one sequence; `shots` draws its frames.

    Attributes
    ----------
    shape : of the object, one of `SHAPES`
    size : width and height of the pictures
    frames : of the sequence
    u : (16,) uniforms that set the motion
    occlusion : the object passes behind a pole; else it leaves the picture for a while
    background : (H', W', 3), larger than the picture
    target, distractor : what moves
    pole : (H, W, 3) texture of the pole
    """

    shape: str
    size: tuple[int, int]
    frames: int
    u: npt.NDArray[np.float64]
    occlusion: bool
    background: Picture
    target: _Sprite
    distractor: _Sprite
    pole: Picture

    def shots(self) -> Iterator[Shot]:
        """Frames in order."""
        for number in range(self.frames):
            yield self._shot(number / self.frames)

    def _shot(self, time: float) -> Shot:
        picture = self._backdrop(time)
        self._draw(picture, self.distractor, self._distractor_box(time))
        x, y, w, h = self._target_box(time)
        drawn = self._draw(picture, self.target, (x, y, w, h))
        inside = int(np.count_nonzero(drawn))
        whole = int(np.count_nonzero(cv2.resize(self.target.mask, (w, h)) >= _FINE // 2))
        box = _extents(drawn) if inside else (0, 0, 0, 0)
        occluded = False
        if self.occlusion:
            low, high = self._pole_span()
            picture[:, low:high] = self.pole[:, low:high]
            seen = int(np.count_nonzero(drawn[:, :low])) + int(np.count_nonzero(drawn[:, high:]))
            occluded = seen < _HIDDEN * whole
        out_of_view = inside < _HIDDEN * whole
        light = 1 + 0.08 * np.sin(2 * np.pi * (time + self.u[0]))
        lit = cv2.convertScaleAbs(picture, alpha=float(light))
        return Shot(
            np.asarray(lit), (0, 0, 0, 0) if out_of_view else box, occluded, bool(out_of_view)
        )

    def _backdrop(self, time: float) -> Picture:
        width, height = self.size
        room_y, room_x = self.background.shape[0] - height, self.background.shape[1] - width
        x = round(room_x * (0.5 + 0.5 * np.sin(2 * np.pi * (0.5 * time + self.u[1]))))
        y = round(room_y * (0.5 + 0.5 * np.sin(2 * np.pi * (0.5 * time + self.u[2]))))
        return self.background[y : y + height, x : x + width].copy()

    def _sides(self, time: float, phase: float) -> tuple[int, int]:
        """Width and height of an object: smooth change of scale."""
        mean = 0.24 * self.size[1] * (1 + 0.22 * np.sin(2 * np.pi * (1.3 * time + phase)))
        root = _ASPECT[self.shape] ** 0.5
        return round(mean * root), round(mean / root)

    def _target_box(self, time: float) -> tuple[int, int, int, int]:
        width, height = self.size
        w, h = self._sides(time, self.u[3])
        if self.occlusion:  # once across the picture, slow at both ends
            x = width * (0.5 - 0.32 * np.cos(np.pi * time))
        else:  # out to the right and back
            near = np.clip(1 - abs(time - 0.6) / 0.4, 0, 1)
            x = width * (0.32 + 0.9 * (0.5 - 0.5 * np.cos(np.pi * near)))
        y = height * (0.5 + 0.16 * np.sin(2 * np.pi * (1.1 * time + self.u[4])))
        return round(x - w / 2), round(y - h / 2), w, h

    def _distractor_box(self, time: float) -> tuple[int, int, int, int]:
        width, height = self.size
        w, h = self._sides(time, self.u[5])
        x = width * (0.5 + 0.38 * np.sin(2 * np.pi * (0.9 * time + self.u[6])))
        y = height * (0.5 + 0.25 * np.sin(2 * np.pi * (0.7 * time + self.u[7])))
        return round(x - w / 2), round(y - h / 2), w, h

    def _pole_span(self) -> tuple[int, int]:
        """Columns of the pole: it hides the object for about five frames."""
        width = self.size[0]
        step_px = 0.32 * np.pi * width / self.frames  # fastest motion, at the middle
        half = (max(self._sides(t, self.u[3])[0] for t in (0.45, 0.5, 0.55)) + 5 * step_px) / 2
        return max(0, round(width / 2 - half)), min(width, round(width / 2 + half))

    @staticmethod
    def _draw(
        picture: Picture, sprite: _Sprite, box: tuple[int, int, int, int]
    ) -> npt.NDArray[np.bool_]:
        """Draw a sprite into a box; (H, W) bool of the pixels that it covers."""
        x, y, w, h = box
        height, width = picture.shape[:2]
        covered = np.zeros((height, width), bool)
        left, top, right, bottom = max(x, 0), max(y, 0), min(x + w, width), min(y + h, height)
        if left >= right or top >= bottom:
            return covered
        part = np.s_[top - y : bottom - y, left - x : right - x]
        texture = cv2.resize(sprite.texture, (w, h), interpolation=cv2.INTER_AREA)[part]
        opaque = cv2.resize(sprite.mask, (w, h))[part] >= _FINE // 2
        picture[top:bottom, left:right][opaque] = texture[opaque]
        covered[top:bottom, left:right] = opaque
        return covered


def _extents(covered: npt.NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """Box x, y, w, h of the pixels that are set."""
    columns, rows = np.flatnonzero(covered.any(axis=0)), np.flatnonzero(covered.any(axis=1))
    x, y = int(columns[0]), int(rows[0])
    return x, y, int(columns[-1]) + 1 - x, int(rows[-1]) + 1 - y


def scene(number: int, frames: int, seed: int) -> Scene:
    """Scene of one demo sequence.

    Parameters
    ----------
    number : of the sequence, from 0
    frames : of the sequence
    seed : 0 or more
    """
    shape = SHAPES[number % len(SHAPES)]
    width, height = _SIZES[(number + number // len(SHAPES)) % len(_SIZES)]
    u = uniforms(seed, _MOTION, number, 0, 1, 16)[0]
    hue = u[8]
    return Scene(
        shape=shape,
        size=(width, height),
        frames=frames,
        u=u,
        occlusion=(number + number // len(SHAPES)) % 2 == 0,
        background=_scenery(seed, number, (height * 5 // 4, width * 5 // 4), u[9]),
        target=_Sprite(_coat(seed, _OBJECT, number, hue), _silhouette(shape)),
        distractor=_Sprite(_coat(seed, _DISTRACTOR, number, hue + 0.42), _silhouette(shape)),
        pole=_tinted(_noise(seed, _POLE, number, (height, width), (4, 40)), u[10], 0.25, 0.35),
    )


def _noise(
    seed: int, stream: int, number: int, shape: tuple[int, int], cells: tuple[int, ...]
) -> npt.NDArray[np.float64]:
    """Smooth noise in 0..1 from grids of ever more cells."""
    total = np.zeros(shape)
    start = 0
    for cell in cells:
        rows = -(-cell * cell // 4)
        grid = uniforms(seed, stream, number, start, rows, 4).ravel()[: cell * cell]
        start += rows
        smooth = cv2.resize(grid.reshape(cell, cell), shape[::-1], interpolation=cv2.INTER_CUBIC)
        total += smooth / len(cells)
    return np.clip(total, 0, 1)


def _tinted(
    value: npt.NDArray[np.float64], hue: float, saturation: float, brightness: float
) -> Picture:
    """RGB of one hue whose brightness follows a map of values in 0..1."""
    hsv = np.empty((*value.shape, 3), np.uint8)
    hsv[..., 0] = round(180 * (hue % 1)) % 180
    hsv[..., 1] = round(255 * saturation)
    hsv[..., 2] = np.clip(255 * brightness * (0.4 + 1.2 * value), 0, 255).astype(np.uint8)
    return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB))


def _scenery(seed: int, number: int, shape: tuple[int, int], hue: float) -> Picture:
    """Background: soft ground with many dull boxes, so that motion and position can be told."""
    picture = _tinted(_noise(seed, _BACKGROUND, number, shape, (5, 17, 61)), hue, 0.3, 0.6)
    for row in uniforms(seed, _BACKGROUND, number, 1 << 20, 40, 8):
        x, y = int(row[0] * shape[1]), int(row[1] * shape[0])
        w, h = int((0.03 + 0.12 * row[2]) * shape[1]), int((0.03 + 0.15 * row[3]) * shape[0])
        colour = picture[min(y, shape[0] - 1), min(x, shape[1] - 1)] * (0.6 + 0.8 * row[4])
        rgb = [float(min(value, 255)) for value in colour]
        if row[5] < 0.5:
            cv2.rectangle(picture, (x, y), (x + w, y + h), rgb, -1)
        else:
            cv2.ellipse(picture, (x, y), (w // 2 + 1, h // 2 + 1), 180 * row[6], 0, 360, rgb, -1)
    return picture


def _coat(seed: int, stream: int, number: int, hue: float) -> Picture:
    """Texture of an object: vivid, patches of a second colour, stripes, a darker rim."""
    noise = _noise(seed, stream, number, (_FINE, _FINE), (5, 13, 47))
    row = uniforms(seed, stream, number, 1 << 20, 1, 4)[0]
    coat = _tinted(noise, hue, 0.85, 0.95)
    second = _tinted(noise, hue + 0.12 + 0.2 * row[0], 0.7, 0.8)
    ys, xs = np.mgrid[:_FINE, :_FINE] / _FINE
    angle = np.pi * row[1]
    stripes = np.sin(2 * np.pi * (3 + 3 * row[2]) * (xs * np.cos(angle) + ys * np.sin(angle))) > 0.4
    coat[stripes] = second[stripes]
    coat[noise > np.quantile(noise, 0.85)] = (235, 235, 225)
    return coat


def _silhouette(shape: str) -> npt.NDArray[np.uint8]:
    """Mask of a shape, (256, 256), 255 inside; it touches all four sides."""
    mask = np.zeros((_FINE, _FINE), np.uint8)

    def polygon(*points: tuple[int, int]) -> None:
        cv2.fillPoly(mask, [np.array(points, np.int32)], 255)

    end = _FINE - 1
    if shape == "car":
        polygon(
            (0, 110), (50, 100), (85, 0), (185, 0), (220, 100), (end, 120), (end, 215), (0, 215)
        )
        for x in (60, 195):
            cv2.circle(mask, (x, 210), 45, 255, -1)
    elif shape == "person":
        cv2.ellipse(mask, (128, 40), (70, 40), 0, 0, 360, 255, -1)
        polygon((0, 90), (end, 90), (end, 160), (200, 160), (225, end), (150, end), (128, 180))
        polygon((0, 90), (128, 90), (128, 180), (106, end), (31, end), (56, 160), (0, 160))
    elif shape == "bird":
        cv2.ellipse(mask, (128, 150), (128, 60), 0, 0, 360, 255, -1)
        polygon((90, 120), (60, 0), (130, 0), (170, 120))
        polygon((110, 180), (150, end), (200, end), (165, 180))
    else:
        polygon((128, 0), (end, 100), (150, end), (106, end), (0, 100))
    return mask
