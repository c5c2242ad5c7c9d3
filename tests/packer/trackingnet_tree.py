"""Raw TrackingNet trees made for tests."""

from __future__ import annotations

import zipfile
from pathlib import Path

from lasot_tree import boxes_of, picture


def video(
    base: Path,
    name: str,
    frames: int = 12,
    *,
    chunk: str = "TRAIN_0",
    boxes: str | bytes | None = None,
    pictures: list[int] | None = None,
    zipped: bool = False,
) -> None:
    """Write one video below `base`; `pictures` are the numbers of those on disk."""
    numbers = list(range(frames)) if pictures is None else pictures
    seed = sum(map(ord, name)) % 1000
    if zipped:
        (base / chunk / "zips").mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(base / chunk / "zips" / f"{name}.zip", "w") as archive:
            for i in numbers:
                archive.writestr(f"{i}.jpg", picture(seed + i))
    else:
        folder = base / chunk / "frames" / name
        folder.mkdir(parents=True)
        for i in numbers:
            (folder / f"{i}.jpg").write_bytes(picture(seed + i))
    annotate(base, name, frames, chunk=chunk, boxes=boxes)


def annotate(
    base: Path,
    name: str,
    frames: int = 12,
    *,
    chunk: str = "TRAIN_0",
    boxes: str | bytes | None = None,
) -> None:
    if boxes is None:
        boxes = "".join(f"{x:.2f},{y:.2f},{w:.2f},{h:.2f}\n" for x, y, w, h in boxes_of(frames))
    (base / chunk / "anno").mkdir(parents=True, exist_ok=True)
    (base / chunk / "anno" / f"{name}.txt").write_bytes(
        boxes.encode() if isinstance(boxes, str) else boxes
    )


NAMES = ("--aB3_x-Yz1_0", "-3TIfnTSM6c_2", "A63BoLTUNAM_0", "a1qoB1eERn0_0")
CLASSES = "--aB3_x-Yz1_0,23\r\n-3TIfnTSM6c_2,21\r\nA63BoLTUNAM_0,-1\r\n"


def small_tree(base: Path, *, zipped: bool = False) -> Path:
    """Four videos in two chunks, and class info for three of them."""
    video(base, NAMES[0], 24, zipped=zipped)
    video(base, NAMES[1], 12, zipped=zipped)
    video(base, NAMES[2], 13, chunk="TRAIN_1", zipped=zipped)
    video(base, NAMES[3], 40, chunk="TRAIN_1", zipped=zipped)
    (base / "TRAIN_0_classinfo.txt").write_bytes(CLASSES.encode())
    return base
