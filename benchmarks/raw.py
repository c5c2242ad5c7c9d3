"""Synthetic raw trees for the packing benchmark: photographs of the sizes of each data set."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import simplejpeg

from shards.geometry import CROP_PX, EXEMPLAR_PX
from shards.pixels import Picture
from shards.rng import uniforms

__all__ = ["CASES", "Case", "boxes", "photograph", "render"]

DISTINCT = 12  # pictures of a case; frames repeat them
_STREAM_PICTURE, _STREAM_BOXES = 1030, 1050


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """Pictures of one kind.

    Attributes
    ----------
    name : of the case
    size : width and height of a picture
    kb : size of its file, about
    chroma : sampling, ``420`` or ``444``
    objects : boxes a picture; one: a video in the LaSOT layout, several: the COCO layout
    sides : smallest and largest side of a box in pixels
    inside : boxes lie where the crop does not leave the picture
    bar : ratio that is promised
    """

    name: str
    size: tuple[int, int]
    kb: float
    chroma: str = "420"
    objects: int = 1
    sides: tuple[float, float]
    inside: bool = False
    bar: float


CASES = (
    Case(name="lasot", size=(1280, 720), kb=65, sides=(80, 260), bar=1.5),
    Case(name="got10k", size=(1920, 1080), kb=90, sides=(120, 400), bar=1.5),
    Case(name="trackingnet", size=(640, 360), kb=40, sides=(50, 160), bar=1.5),
    Case(name="inside 720p", size=(1280, 720), kb=65, sides=(50, 66), inside=True, bar=2.0),
    Case(name="inside 1080p", size=(1920, 1080), kb=90, sides=(80, 100), inside=True, bar=2.0),
    Case(name="coco", size=(640, 480), kb=150, chroma="444", objects=7, sides=(20, 200), bar=3.0),
)


def photograph(number: int, size: tuple[int, int]) -> Picture:
    """Synthetic photograph: octaves of noise with a falling spectrum, and grain."""
    width, height = size
    total = np.zeros((height, width, 3), np.float32)
    for octave, cells in enumerate((4, 9, 20, 45, 100, 220)):
        drawn = uniforms(17, _STREAM_PICTURE + 10 * octave, number, 0, cells * cells, 4)
        grid = (drawn[:, :3].reshape(cells, cells, 3) - 0.5).astype(np.float32)
        grid = grid.mean(axis=2, keepdims=True) + 0.35 * grid
        total += 0.62**octave * cv2.resize(grid, size, interpolation=cv2.INTER_CUBIC)
    grain = uniforms(17, _STREAM_PICTURE + 1, number, 0, 1 << 14, 4)[:, :1].reshape(128, 128)
    tiled = np.tile(grain, (-(-height // 128), -(-width // 128)))[:height, :width, None]
    return np.clip(128 + 130 * total + 8 * (tiled - 0.5), 0, 255).astype(np.uint8)


def encoded_near(picture: Picture, kb: float, chroma: str) -> bytes:
    """JPEG of about so many KB, by the quality that comes nearest."""
    low, high = 20, 98
    best = b""
    while low <= high:
        quality = (low + high) // 2
        data = bytes(simplejpeg.encode_jpeg(picture, quality, "RGB", chroma, fastdct=False))
        if not best or abs(len(data) - 1e3 * kb) < abs(len(best) - 1e3 * kb):
            best = data
        low, high = (quality + 1, high) if len(data) < 1e3 * kb else (low, quality - 1)
    return best


def boxes(case: Case, frames: int) -> npt.NDArray[np.float64]:
    """Boxes x, y, w, h, (frames, 4), whole pixels."""
    u = uniforms(17, _STREAM_BOXES, 0, 0, frames, 4)
    low, high = case.sides
    sides = np.rint(low * (high / low) ** u[:, 2:])
    room = np.array(case.size) - sides
    if case.inside:
        far = 0.5 * high * 2 * CROP_PX / EXEMPLAR_PX - sides / 2 + 1  # from the edge of the picture
        corner = far + u[:, :2] * np.maximum(room - 2 * far, 0)
    else:
        corner = u[:, :2] * room
    return np.concatenate([np.floor(corner), sides], axis=1)


def render(case: Case, frames: int, root: Path) -> tuple[str, Path]:
    """Write the raw tree of a case; gives the name of its data set and the tree's root."""
    shutil.rmtree(root, ignore_errors=True)
    pictures = [
        encoded_near(photograph(number, case.size), case.kb, case.chroma)
        for number in range(DISTINCT)
    ]
    xywh = boxes(case, frames)
    if case.objects > 1:
        _coco_tree(case, pictures, xywh, root)
        return "coco", root
    folder = root / "car/car-1"
    (folder / "img").mkdir(parents=True)
    for number in range(frames):
        data = pictures[number % DISTINCT]
        (folder / "img" / f"{number + 1:08d}.jpg").write_bytes(data)
    lines = [",".join(f"{value:.0f}" for value in box) for box in xywh.tolist()]
    (folder / "groundtruth.txt").write_text("\n".join(lines) + "\n")
    return "lasot", root


def _coco_tree(
    case: Case, pictures: list[bytes], xywh: npt.NDArray[np.float64], root: Path
) -> None:
    (root / "train2017").mkdir(parents=True)
    (root / "annotations").mkdir()
    images = range(-(-len(xywh) // case.objects))
    for number in images:
        (root / "train2017" / f"{number:012d}.jpg").write_bytes(pictures[number % DISTINCT])
    whole = {
        "images": [{"id": number, "file_name": f"{number:012d}.jpg"} for number in images],
        "annotations": [
            {
                "id": row,
                "image_id": row // case.objects,
                "category_id": 1,
                "iscrowd": 0,
                "bbox": box,
            }
            for row, box in enumerate(xywh.tolist())
        ],
        "categories": [{"id": 1, "name": "car"}],
    }
    (root / "annotations/instances_train2017.json").write_text(json.dumps(whole))
