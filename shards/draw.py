"""Contact sheets: pictures with boxes and a line of text, in a grid."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from shards.errors import StorageError
from shards.geometry import Float
from shards.pixels import Picture
from shards.sink import storage_error

__all__ = ["OTHER_RGB", "TARGET_RGB", "Tile", "save", "sheet", "write_picture"]

TARGET_RGB, OTHER_RGB = (80, 255, 80), (255, 190, 60)
_TEXT_PX, _GAP_PX, _PAPER_RGB = 12, 4, (24, 24, 24)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Tile:
    """One picture of a sheet.

    Attributes
    ----------
    picture : (H, W, 3) uint8
    boxes : (K, 4) xyxy, pixels of the picture
    text : lines below the picture
    targets : the first so many boxes are targets, drawn in green
    line_px : width of their lines, which lie inside
    colors : RGB of each box, in place of what `targets` says; the first box is drawn above the rest
    """

    picture: Picture
    boxes: Float
    text: str
    targets: int = 1
    line_px: int = 1
    colors: tuple[tuple[int, int, int], ...] | None = None


def _draw(tile: Tile) -> Image.Image:
    image = Image.fromarray(tile.picture)
    pen = ImageDraw.Draw(image)
    for number, box in reversed(list(enumerate(np.asarray(tile.boxes)))):
        # Edge coordinates: the last pixel inside ends at x1.
        x0, y0 = (int(v) for v in np.rint(box[:2]))
        x1, y1 = (int(v) - 1 for v in np.rint(box[2:]))
        color = TARGET_RGB if number < tile.targets else OTHER_RGB
        if tile.colors is not None:
            color = tile.colors[number]
        pen.rectangle((x0, y0, max(x0, x1), max(y0, y1)), outline=color, width=tile.line_px)
    return image


def sheet(tiles: Sequence[Tile], columns: int) -> Image.Image:
    """Put tiles into rows of `columns`, each with its text below.

    Raises
    ------
    ValueError : without tiles
    """
    if not tiles:
        raise ValueError("a sheet needs at least one picture")
    font = ImageFont.load_default(_TEXT_PX)
    lines = max(tile.text.count("\n") + 1 for tile in tiles)
    width = max(tile.picture.shape[1] for tile in tiles) + _GAP_PX
    height = max(tile.picture.shape[0] for tile in tiles) + lines * (_TEXT_PX + 3) + _GAP_PX
    rows = -(-len(tiles) // columns)
    page = Image.new("RGB", (columns * width + _GAP_PX, rows * height + _GAP_PX), _PAPER_RGB)
    pen = ImageDraw.Draw(page)
    for number, tile in enumerate(tiles):
        x = _GAP_PX + number % columns * width
        y = _GAP_PX + number // columns * height
        page.paste(_draw(tile), (x, y))
        for i, line in enumerate(tile.text.split("\n")):
            while line and pen.textlength(line, font) > width - _GAP_PX:
                line = line[:-1]
            top = y + tile.picture.shape[0] + i * (_TEXT_PX + 3)
            pen.text((x, top), line, fill=(230, 230, 230), font=font)
    return page


def save(image: Image.Image, path: Path) -> None:
    """Write a sheet; the ending of the name chooses the format."""
    write_picture(image.save, path, ".png or .jpg")


def write_picture(write: Callable[[Path], object], path: Path, endings: str) -> None:
    """Write a picture or plot with a library's own function, into a folder made at need.

    Parameters
    ----------
    write : called with the path; a ValueError of it means an ending that it does not know
    path : of the file
    endings : that it knows, for the message

    Raises
    ------
    StorageError : if it cannot be written
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path)
    except ValueError as error:
        raise StorageError(f"{path}: {error}; use a name that ends in {endings}") from error
    except OSError as error:
        raise storage_error(error, path) from error
