"""Small raw trees of data sets that have numbered pictures and one file of boxes a sequence."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from lasot_tree import FRAMES, boxes_of, picture


def plain_tree(
    pictures: str, boxes: str, names: Iterable[str], first: int = 1
) -> Callable[[Path], Path]:
    """Writer of a tree.

    Parameters
    ----------
    pictures, boxes : path patterns; ``{name}`` is the sequence, ``{frame}`` the picture's number
    names : sequences
    first : number of the first picture
    """

    def write(base: Path) -> Path:
        for seed, name in enumerate(names):
            for frame in range(FRAMES):
                path = base / pictures.format(name=name, frame=first + frame)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(picture(100 * seed + frame))
            lines = "".join(f"{x},{y},{w},{h}\n" for x, y, w, h in boxes_of(FRAMES))
            (base / boxes.format(name=name)).write_text(lines)
        return base

    return write
