"""What a sheet shows: crops of packed data sets, or frames that were left out."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from shards import pixels
from shards.draw import Tile
from shards.errors import DataError, FormatError
from shards.format import Manifest
from shards.index import Index
from shards.parts import crc32c
from shards.raw import find_frames
from shards.storage import LocalStorage

__all__ = ["Choice", "crop_tiles", "rejected_tiles", "spread"]

TILE_PX = 320  # longer side of a source frame on a sheet
_TIMES_BOX, _LEAST_PX = 6.0, 96.0  # what is drawn around a small box
_PAPER = 48  # grey of a tile without picture
_TEXT_CHARS = 60


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """Which crops to draw.

    Attributes
    ----------
    sequence, category : only crops of this sequence, with a target of this class
    count : of all data sets together
    """

    sequence: str | None = None
    category: str | None = None
    count: int = 24


def spread(available: Sequence[int], count: int) -> list[int]:
    """How many to take of each so that `count` are taken in all, as evenly as can be."""
    taken = [0] * len(available)
    left = min(count, sum(available))
    while left:
        for i, most in enumerate(available):
            if left and taken[i] < most:
                taken[i] += 1
                left -= 1
    return taken


def _rows(index: Index, choice: Choice) -> npt.NDArray[np.int64]:
    rows = np.arange(len(index))
    if choice.sequence is not None:
        rows = index.rows_of(choice.sequence)
    if choice.category is not None:
        names = {name: code for code, name in enumerate(index.categories)}
        rows = rows[index.category_code[rows] == names.get(choice.category, -1)]
    return rows


def _none_of(indexes: Sequence[Index], choice: Choice) -> DataError:
    where = ", ".join(str(index.path.parent) for index in indexes)
    wanted, hints = [], []
    if choice.sequence is not None:
        wanted.append(f"sequence {choice.sequence!r}")
        hints = [name for index in indexes for name in index.sequences_like(choice.sequence)]
    if choice.category is not None:
        wanted.append(f"category {choice.category!r}")
        known = sorted({name for index in indexes for name in index.categories})
        low = choice.category.lower()
        hints += [name for name in known if low in name.lower()] or known
    hint = f"; similar: {', '.join(hints[:8])}" if hints else ""
    return DataError(f"{where}: no {' with '.join(wanted)}{hint}")


def crop_tiles(folders: Sequence[Path], choice: Choice) -> tuple[list[Tile], int]:
    """Crops with their boxes, evenly spread over what is chosen of the data sets.

    Parameters
    ----------
    folders : of data sets
    choice : which crops

    Returns
    -------
    tiles, and how many crops there were to choose from

    Raises
    ------
    DataError : if there are none
    FormatError : if a crop is damaged
    """
    indexes = [Index.checked(folder, Manifest.read(folder)) for folder in folders]
    chosen = [_rows(index, choice) for index in indexes]
    counts = [len(rows) for rows in chosen]
    if not any(counts):
        raise _none_of(indexes, choice)
    tiles: list[Tile] = []
    for folder, index, rows, take in zip(
        folders, indexes, chosen, spread(counts, choice.count), strict=True
    ):
        if take:
            even = np.linspace(0, len(rows) - 1, take).round().astype(int)
            prefix = f"{index.name} " if len(folders) > 1 else ""
            tiles += [_crop(folder, index, row, prefix) for row in rows[even].tolist()]
    return tiles, sum(counts)


def _crop(folder: Path, index: Index, row: int, prefix: str) -> Tile:
    one = index.range(row)
    (data,) = LocalStorage(folder).read_many([one])
    if crc32c(data) != index.crc[row]:
        raise FormatError(f"{folder}: {index.key(row)} is damaged; run 'python -m shards verify'")
    sample = index.sample(row)
    flags = "" if sample.visible is None else f" visible {sample.visible:g}"
    text = f"{prefix}{sample.sequence} {sample.frame}\n{sample.category}{flags}"
    return Tile(picture=pixels.decode(data), boxes=sample.boxes, text=text)


def rejected_tiles(
    folders: Sequence[Path], root: Path | None, count: int
) -> tuple[list[Tile], int, list[str]]:
    """Examples of frames and boxes that were left out, evenly of every reason.

    Parameters
    ----------
    folders : of data sets
    root : raw data set, or with several data sets their parent; by default data/raw/<name> or
        $SIAMSTREAM_RAW/<name>
    count : tiles at most

    Returns
    -------
    tiles (grey where there is no picture), how many frames and boxes were left out in all, and a
    line for every data set whose raw folder is not there

    Raises
    ------
    DataError : if nothing was left out
    """
    tiles: list[Tile] = []
    lines: list[str] = []
    total = 0
    manifests = [Manifest.read(folder) for folder in folders]
    shares = spread([sum(map(len, one.rejected_examples.values())) for one in manifests], count)
    for manifest, share in zip(manifests, shares, strict=True):
        total += sum(manifest.rejected.values())
        examples = _examples(manifest, share)
        place = _raw_folder(root, manifest.name, len(folders) > 1)
        if examples and not place.is_dir():
            lines.append(
                f"{manifest.name}: no raw folder {place}: its pictures are left grey; give it with "
                "--root"
            )
        frames = [one["picture"] for _, one in examples if one["picture"]]
        found = find_frames(place, frames) if place.is_dir() else {}
        prefix = f"{manifest.name} " if len(folders) > 1 else ""
        tiles += [_rejected(prefix, reason, one, found) for reason, one in examples]
    if not tiles:
        raise DataError(f"{', '.join(map(str, folders))}: no frame was left out")
    return tiles, total, lines


def _raw_folder(root: Path | None, name: str, several: bool) -> Path:
    if root is None:
        return Path(os.environ.get("SIAMSTREAM_RAW") or "data/raw") / name
    return root / name if several else root


def _examples(manifest: Manifest, count: int) -> list[tuple[str, Mapping[str, Any]]]:
    """Evenly of every reason, in the manifest's order."""
    reasons = list(manifest.rejected_examples)
    taken = spread([len(manifest.rejected_examples[reason]) for reason in reasons], count)
    return [
        (reason, one)
        for reason, take in zip(reasons, taken, strict=True)
        for one in manifest.rejected_examples[reason][:take]
    ]


def _rejected(prefix: str, reason: str, one: Mapping[str, Any], found: Mapping[str, bytes]) -> Tile:
    text = f"{prefix}{one['frame']}\n{reason}" + (f": {one['why']}" if "why" in one else "")
    blank = np.full((TILE_PX * 3 // 4, TILE_PX, 3), _PAPER, np.uint8)
    no_box = np.zeros((0, 4))
    if one["picture"] is None:
        return Tile(picture=blank, boxes=no_box, text=f"{text}: there is no picture")
    data = found.get(one["picture"])
    if data is None:
        return Tile(picture=blank, boxes=no_box, text=f"{text}: picture not found")
    try:
        picture = pixels.decode(data)
    except ValueError as error:
        return Tile(picture=blank, boxes=no_box, text=f"{text}: {error}"[:_TEXT_CHARS])
    box = None if one["box"] is None else np.array(one["box"], np.float64)
    left, top, right, bottom = _window(picture.shape[1], picture.shape[0], box)
    picture = picture[top:bottom, left:right]
    scale = TILE_PX / max(picture.shape[:2])
    size = [max(1, round(side * scale)) for side in (right - left, bottom - top)]
    way = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    drawn = np.asarray(cv2.resize(picture, size, interpolation=way), np.uint8)
    boxes = no_box if box is None else (box - [left, top, left, top])[None] * scale
    return Tile(picture=drawn, boxes=boxes, text=text)


def _window(
    width: int, height: int, box: npt.NDArray[np.float64] | None
) -> tuple[int, int, int, int]:
    """Part of a picture to draw: all of it, or what is around a box too small to be seen there."""
    if box is None or not (box[2:] >= box[:2]).all() or (box[2:] < 0).any():
        return 0, 0, width, height
    side = max(_TIMES_BOX * float((box[2:] - box[:2]).max()), _LEAST_PX)
    centre = (box[:2] + box[2:]) / 2
    if side >= max(width, height) or (centre >= [width, height]).any() or (centre < 0).any():
        return 0, 0, width, height
    low = np.clip(centre - side / 2, 0, np.maximum([width - side, height - side], 0))
    left, top = int(low[0]), int(low[1])
    return left, top, min(width, left + round(side)), min(height, top + round(side))
