"""One planned shard to samples: read a picture, decode it once, cut, warp, encode."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from packer.jobs import Clip, Job
from packer.select import MIN_FRAMES, Tally
from packer.sequence import Problem
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


@dataclass(kw_only=True, slots=True, eq=False)
class Cropper:
    """Makes the samples of one shard, one picture in memory at a time.

    Attributes
    ----------
    source : the raw tree
    size, quality, grid : of the crops
    skip : leave unreadable pictures out; else they are only collected, and nothing is cut after
        the first because the shard will not be kept
    tick : called after every frame; may raise to stop
    tally : frames left out
    unreadable : pictures that could not be read or decoded
    """

    source: Source
    size: int
    quality: int
    grid: Grid
    skip: bool
    tick: Callable[[], None]
    tally: Tally = field(default_factory=Tally)
    unreadable: list[Problem] = field(default_factory=list)

    def samples(self, job: Job) -> Iterator[Encoded]:
        """Samples of a shard, frame by frame.

        A video track needs two frames: its first is held back until there is a second.
        """
        for clip in job.clips:
            held: Encoded | None = None
            kept = 0
            for position in range(len(clip)):
                made = self._frame(clip, position)
                self.tick()
                if made is None:
                    continue
                kept += 1
                if clip.kind == "video" and kept < MIN_FRAMES:
                    held = made
                    continue
                if held is not None:
                    yield held
                    held = None
                yield made
            if held is not None:
                self.tally.add("short_track", clip.sequence, held[0].frame)

    def _frame(self, clip: Clip, position: int) -> Encoded | None:
        number, name = int(clip.numbers[position]), clip.pictures[position]
        path = f"{clip.pictures_at}/{name}"
        try:
            picture = pixels.decode(self.source.read(path))
        except (ValueError, DataError) as error:
            self.unreadable.append(Problem(path, str(error)))
            self.tally.add("unreadable", clip.sequence, number)
            return None
        if self.unreadable and not self.skip:
            return None
        height, width = picture.shape[:2]
        box = clip.boxes[position]
        if box[0] >= width or box[1] >= height or box[2] <= 0 or box[3] <= 0:
            self.tally.add("outside", clip.sequence, number)
            return None
        mean = pixels.mean_rgb(picture)
        crop, region = cut(picture, mean, box, size=self.size, grid=self.grid)
        sample = Sample(
            sequence=clip.sequence,
            track=clip.track,
            frame=number,
            kind=clip.kind,
            fps=clip.fps,
            boxes=boxes_to_regions(box, region, self.size)[None].astype(np.float32),
            categories=(clip.category,),
            ignore=(False,),
            visible=None if clip.visible is None else float(clip.visible[position]),
            mean_rgb=mean,
            source=f"{clip.source_at}/{name}",
            source_size=(width, height),
            region=region.astype(np.float32),
        )
        return sample, pixels.encode_jpeg(crop, self.quality)
