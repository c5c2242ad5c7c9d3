"""Small trees in the layouts of the four test sets, and trackers that need no network."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from shards.pixels import encode_jpeg
from shards.rng import uniforms

Rows = npt.NDArray[np.float64]
SIZE = (120, 90)  # width, height of all pictures


def path_of_object(frames: int, seed: int, decimals: int = 4) -> Rows:
    """Boxes x,y,w,h as published (pixels from 0) that wander; (N,4)."""
    noise = uniforms(seed, 0, 0, 0, frames, 4) - 0.5
    rows = np.array([40.0, 30.0, 24.0, 18.0]) + np.cumsum(noise * [2, 2, 0.6, 0.6], axis=0)
    return np.round(rows, decimals)


def pictures(folder: Path, names: Sequence[str], real: bool = True) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    data = encode_jpeg(np.full((SIZE[1], SIZE[0], 3), 128, np.uint8), 80) if real else b"x"
    for name in names:
        (folder / name).write_bytes(data)


def rows_text(rows: Rows, comma: str = ",") -> str:
    return "".join(comma.join(f"{value:g}" for value in row) + "\n" for row in rows)


def otb(
    root: Path, name: str, frames: int, *, first: int = 1, comma: str = ",", seed: int = 1,
    real: bool = True, truth: str = "groundtruth_rect.txt", lines: int | None = None,
) -> Rows:  # fmt: skip
    """One video; returns the boxes as published, whole numbers counted from 1."""
    numbers = range(first, first + frames)
    pictures(root / name / "img", [f"{n:04d}.jpg" for n in numbers], real)
    rows = path_of_object(lines or frames, seed, decimals=0)
    (root / name / truth).write_text(rows_text(rows, comma))
    return rows


def lasot(root: Path, name: str, frames: int, *, gone: Sequence[int] = (), seed: int = 1) -> Rows:
    folder = root / name.rpartition("-")[0] / name
    pictures(folder / "img", [f"{n:08d}.jpg" for n in range(1, frames + 1)])
    rows = path_of_object(frames, seed, decimals=0)
    (folder / "groundtruth.txt").write_text(rows_text(rows))
    flags = ["1" if n in gone else "0" for n in range(frames)]
    (folder / "full_occlusion.txt").write_text(",".join(flags))
    (folder / "out_of_view.txt").write_text(",".join("0" * frames))
    return rows


def got10k(
    root: Path, split: str, number: int, frames: int, *, cover: Sequence[int] | None = None
) -> Rows:
    name = f"GOT-10k_{split.title()}_{number:06d}"
    folder = root / split / name
    pictures(folder, [f"{n:08d}.jpg" for n in range(1, frames + 1)])
    rows = path_of_object(frames, number)
    rows[frames // 2] -= [80, 60, 0, 0]  # sticks out of the frame on the left
    public = rows[:1] if split == "test" else rows
    (folder / "groundtruth.txt").write_text(rows_text(public))
    width, height = SIZE
    (folder / "meta_info.ini").write_text(
        f"[METAINFO]\nurl: None\nmajor_class: car\nresolution: ({width}, {height})\n"
    )
    if split != "test":
        levels = list(cover or [8] * frames)
        (folder / "cover.label").write_text("".join(f"{level}\n" for level in levels))
        (folder / "absence.label").write_text("".join(f"{level == 0:d}\n" for level in levels))
        (folder / "cut_by_image.label").write_text("0\n" * frames)
    with (root / split / "list.txt").open("a") as names:
        names.write(f"{name}\n")
    return rows


def trackingnet(root: Path, chunk: str, name: str, frames: int, *, seed: int = 1) -> Rows:
    folder = root / chunk
    pictures(folder / "frames" / name, [f"{n}.jpg" for n in range(frames)])
    rows = path_of_object(frames, seed, decimals=2)
    (folder / "anno").mkdir(exist_ok=True)
    public = rows[:1] if chunk == "TEST" else rows
    (folder / "anno" / f"{name}.txt").write_text(rows_text(public))
    return rows


class Moved(NamedTuple):
    """What a tracker gives."""

    box: Rows
    score: float


@dataclass
class Drifter:
    """Moves a little each frame, whatever it sees; `loses` it at a frame if asked to."""

    seed: int = 5
    delay_s: float = 0.0
    speed: float = 0.3

    def start(self, frame: npt.NDArray[np.uint8], box: Rows) -> None:
        self.first, self.steps = np.array(box), 0

    def step(self, frame: npt.NDArray[np.uint8]) -> Moved:
        time.sleep(self.delay_s)
        self.steps += 1
        noise = uniforms(self.seed, 1, 0, self.steps, 1, 4)[0] - 0.5
        shift = np.array([1, 0.5, 1.02, 0.52]) * self.speed * self.steps
        return Moved(self.first + shift + noise, 0.9)


@dataclass(frozen=True)
class MakeDrifter:
    """Makes one, in any process."""

    seed: int = 5
    delay_s: float = 0.0

    def __call__(self) -> Drifter:
        return Drifter(self.seed, self.delay_s)


def four_videos(root: Path) -> None:
    """OTB of Boy, Man, Dog and Toy: 11, 14, 17 and 20 frames."""
    for number, name in enumerate(("Boy", "Man", "Dog", "Toy"), 1):
        otb(root, name, 8 + 3 * number, seed=number)


def results(out: Path, name: str = "drifter") -> dict[str, bytes]:
    """Boxes of a tracker, by file; times differ each time."""
    files = [*out.glob(f"*/{name}/*.txt"), *out.glob(f"*/{name}/*/*_001.txt")]
    return {
        str(path.relative_to(out)): path.read_bytes()
        for path in files
        if not path.name.startswith(".")  # what a killed writer left
    }
