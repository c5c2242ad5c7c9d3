"""Raw GOT-10k trees made for tests."""

from __future__ import annotations

from pathlib import Path

from lasot_tree import boxes_of, picture

META = """\
[METAINFO]
url: https://youtu.be/abc
begin: 00:00:00
end: 00:00:01
anno_fps: 10Hz
object_class: ambulance van
motion_class: driving
major_class: {major}
root_class: vehicle
motion_adverb: slowly
resolution: (1, 1)
"""


def name_of(number: int, split: str = "Train") -> str:
    return f"GOT-10k_{split}_{number:06d}"


def sequence(
    base: Path,
    name: str,
    frames: int = 12,
    *,
    boxes: str | bytes | None = None,
    absence: str | None = "",
    cover: str | None = "",
    cut: str | None = "",
    major: str = "ambulance",
    meta: str | bytes | None = "",
) -> Path:
    """Write one sequence below `base`; labels default to all visible, None leaves a file out."""
    folder = base / name
    folder.mkdir(parents=True)
    seed = sum(map(ord, name)) % 1000
    for i in range(frames):
        (folder / f"{i + 1:08d}.jpg").write_bytes(picture(seed + i))
    if boxes is None:
        boxes = "".join(f"{x:.4f},{y:.4f},{w:.4f},{h:.4f}\n" for x, y, w, h in boxes_of(frames))
    (folder / "groundtruth.txt").write_bytes(boxes.encode() if isinstance(boxes, str) else boxes)
    for file, value, usual in (
        ("absence.label", absence, "0\n"),
        ("cover.label", cover, "8\n"),
        ("cut_by_image.label", cut, "0\n"),
    ):
        if value is not None:
            (folder / file).write_text(value or usual * frames)
    if meta is not None:
        text = meta or META.format(major=major)
        (folder / "meta_info.ini").write_bytes(text.encode() if isinstance(text, str) else text)
    return folder


def small_tree(base: Path) -> Path:
    """Four training sequences, one of them known to be bad, and one for validation."""
    for number, frames in ((7, 12), (2, 40), (10, 5), (399, 3)):
        sequence(base / "train", name_of(number), frames, major=("ambulance", "zebra")[number % 2])
    sequence(base / "val", name_of(1, "Val"), 4)
    (base / "train/list.txt").write_text("".join(f"{name_of(n)}\n" for n in (2, 7, 10, 399)))
    return base
