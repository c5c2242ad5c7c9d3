"""One planned shard to samples: read a picture, decode it once for all its objects, cut, encode."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from packer.jobs import Clip, Job
from packer.select import MIN_FRAMES, Tally
from packer.sequence import Problem, Reason
from packer.source import Source
from shards import pixels
from shards.errors import DataError
from shards.format import Sample
from shards.geometry import Float, Grid, boxes_to_regions, crop_region, region_affine

__all__ = ["Cropper", "cut"]

Encoded = tuple[Sample, bytes]


def cut(
    picture: pixels.Picture, border: Float, box: Float, *, size: int, grid: Grid
) -> tuple[pixels.Picture, Float]:
    """Square crop around a box.

    Parameters
    ----------
    picture : (H, W, 3) uint8
    border : (3,) colour outside the picture
    box : (4,) xyxy, frame pixels (edge coordinates)
    size : side of the crop
    grid : see `shards.geometry`

    Returns
    -------
    crop : (size, size, 3) uint8
    region : (4,) float64 xyxy, what it shows, in frame pixels
    """
    region = crop_region(box, size)
    return pixels.warp(picture, region_affine(region, size, grid), size, border), region


class _Opened(NamedTuple):
    """A decoded picture."""

    path: str
    pixels: pixels.Picture
    mean_rgb: Float


class _Around(NamedTuple):
    """Boxes of one sample in frame pixels, the target first."""

    boxes: Float
    categories: tuple[str, ...]
    ignore: tuple[bool, ...]


def _around(clip: Clip, position: int) -> _Around:
    together = clip.together
    if together is None:
        return _Around(clip.boxes[position : position + 1], (clip.category,), (False,))
    target = int(together.targets[position])
    others = [row for row in range(len(together.categories)) if row != target]
    rows = [target, *others]
    return _Around(
        together.boxes[rows],
        tuple(together.categories[row] for row in rows),
        tuple(together.crowd[rows].tolist()),
    )


@dataclass(kw_only=True, slots=True, eq=False)
class Cropper:
    """Makes the samples of one shard, one picture in memory at a time and decoded once.

    Attributes
    ----------
    source : the raw tree
    size, quality, grid : of the crops
    skip : leave unreadable pictures out; else they are only collected, and nothing is cut after
        the first because the shard will not be kept
    tick : called after every frame; may raise to stop
    tally : frames and boxes left out
    unreadable : pictures that could not be read or decoded, or are of another size than the
        annotations say
    """

    source: Source
    size: int
    quality: int
    grid: Grid
    skip: bool
    tick: Callable[[], None]
    tally: Tally = field(default_factory=Tally)
    unreadable: list[Problem] = field(default_factory=list)
    _opened: _Opened | None = None
    _other_size: str = ""  # of the last picture, in words

    def samples(self, job: Job) -> Iterator[Encoded]:
        """Samples of a shard, frame by frame.

        A video track needs two frames: its first is held back until there is a second.
        """
        for clip in job.clips:
            held: Encoded | None = None
            held_at = kept = 0
            for position in range(len(clip)):
                made = self._frame(clip, position)
                self.tick()
                if made is None:
                    continue
                kept += 1
                if clip.kind == "video" and kept < MIN_FRAMES:
                    held, held_at = made, position
                    continue
                if held is not None:
                    yield held
                    held = None
                yield made
            if held is not None:
                self._leave_out("short_track", clip, held_at)
            self._opened = None

    def _frame(self, clip: Clip, position: int) -> Encoded | None:
        opened = self._open(_join(clip.pictures_at, clip.pictures[position]), clip.picture_size)
        if opened is None:
            self._leave_out("unreadable", clip, position)
            return None
        if self.unreadable and not self.skip:
            return None
        height, width = opened.pixels.shape[:2]
        around = _around(clip, position)
        box = around.boxes[0]
        if box[0] >= width or box[1] >= height or box[2] <= 0 or box[3] <= 0:
            self._leave_out("outside", clip, position)
            return None
        mean = opened.mean_rgb
        crop, region = cut(opened.pixels, mean, box, size=self.size, grid=self.grid)
        sample = Sample(
            sequence=clip.sequence,
            track=clip.track if clip.together is None else clip.track + position,
            frame=int(clip.numbers[position]),
            kind=clip.kind,
            fps=clip.fps,
            boxes=boxes_to_regions(around.boxes, region, self.size).astype(np.float32),
            categories=around.categories,
            ignore=around.ignore,
            visible=None if clip.visible is None else float(clip.visible[position]),
            mean_rgb=mean,
            source=_join(clip.source_at, clip.pictures[position]),
            source_size=(width, height),
            region=region.astype(np.float32),
        )
        return sample, pixels.encode_jpeg(crop, self.quality)

    def _open(self, path: str, size: tuple[int, int] | None) -> _Opened | None:
        """Picture at a path, decoded unless it is the last one; None if it cannot be used."""
        if self._opened is not None and self._opened.path == path:
            return self._opened
        if self.unreadable and self.unreadable[-1].where == path:
            return None
        self._opened = None  # not two pictures in memory
        self._other_size = ""
        try:
            picture = pixels.decode(self.source.read(path))
        except (ValueError, DataError) as error:
            self.unreadable.append(Problem(path, str(error)))
            return None
        height, width = picture.shape[:2]
        if size is not None and size != (width, height):
            self._other_size = f"{width}x{height} pixels, the annotations say {size[0]}x{size[1]}"
            self.unreadable.append(Problem(path, self._other_size))
            return None
        self._opened = _Opened(path, picture, pixels.mean_rgb(picture))
        return self._opened

    def _leave_out(self, reason: Reason, clip: Clip, position: int) -> None:
        picture, box = _join(clip.source_at, clip.pictures[position]), clip.boxes[position]
        if clip.together is None:
            self.tally.add(reason, clip.sequence, int(clip.numbers[position]), picture, box)
        else:
            row = int(clip.together.rows[position])
            why = self._other_size if reason == "unreadable" else ""
            self.tally.add_box(reason, clip.sequence, row, picture, box, why)


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name
