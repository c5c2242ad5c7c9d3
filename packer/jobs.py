"""The shard plan, made from annotations alone, and its fingerprint. Pure.

A job is one shard: small, picklable, and all that a worker needs besides the pictures. Tracks fill
shards in order; a track stays in one shard unless it alone exceeds one, and is then split evenly
into shards of its own.
"""

from __future__ import annotations

import hashlib
import typing
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from typing import Annotated, Any, Protocol, Self, TypeVar

import numpy as np
import numpy.typing as npt
from annotated_types import Interval

from packer.select import Selection
from packer.sequence import Sequence, Split
from shards.format import Kind, shard_name
from shards.geometry import CROP_PX, EXEMPLAR_PX, Grid

__all__ = [
    "Boxes",
    "Clip",
    "Fingerprint",
    "Job",
    "PackOptions",
    "clip_of",
    "limits",
    "plan",
    "share_out",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class PackOptions:
    """Options of all data sets that decide what a folder holds; two differ by data set.

    Attributes
    ----------
    stride : every how many frames one is kept, by position, before any is dropped
    size : side of a crop in pixels
    quality : of the JPEGs
    min_size : smallest width and height of a box in pixels, as published
    split : of the data set
    limit : only the first sequences
    frames_per_shard : 4 or more, so that a split track leaves every shard two frames
    grid : see `shards.geometry`
    inclusive_boxes : boxes end at x + w - 1
    """

    stride: Annotated[int, Interval(ge=1, le=100_000)]
    size: Annotated[int, Interval(ge=EXEMPLAR_PX, le=4096)] = CROP_PX
    quality: Annotated[int, Interval(ge=1, le=100)] = 90
    min_size: Annotated[int, Interval(ge=1, le=100_000)]
    split: Split = "train"
    limit: Annotated[int, Interval(ge=1, le=100_000_000)] | None = None
    frames_per_shard: Annotated[int, Interval(ge=4, le=1_000_000)] = 4096
    grid: Grid = "edge"
    inclusive_boxes: bool = False

    def __post_init__(self) -> None:
        for field in fields(self):
            value, bounds = getattr(self, field.name), limits(field.name)
            if value is None or bounds is None:
                continue
            low, high = bounds
            if not low <= value <= high:
                raise ValueError(f"{field.name} must be {low} to {high}, got {value}")


def limits(name: str) -> tuple[int, int] | None:
    """Smallest and largest value of a whole-number option of `PackOptions`, from its annotation."""
    hint = typing.get_type_hints(PackOptions, include_extras=True)[name]
    for option in (hint, *typing.get_args(hint)):
        for mark in getattr(option, "__metadata__", ()):
            if isinstance(mark, Interval):
                return typing.cast(int, mark.ge), typing.cast(int, mark.le)
    return None


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Boxes:
    """All boxes of a picture with several objects, for the crops of N of them.

    Attributes
    ----------
    boxes : (M, 4) float64 xyxy, frame pixels (edge coordinates)
    categories : M class names
    crowd : (M,) bool
    targets : (N,) int32, which of the boxes is the target of each crop
    rows : (N,) int32, its place among the picture's annotations
    """

    boxes: npt.NDArray[np.float64]
    categories: tuple[str, ...]
    crowd: npt.NDArray[np.bool_]
    targets: npt.NDArray[np.int32]
    rows: npt.NDArray[np.int32]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Clip:
    """Frames of one track, or objects of one picture, that go into one shard.

    Attributes
    ----------
    sequence, category, kind, fps, pictures_at, source_at, numbers, pictures, visible,
    picture_size : as in `packer.sequence.Sequence`
    track : number of the track; with `together` of the first, every row is the next track
    boxes : (N, 4) float64 xyxy of the targets, frame pixels (edge coordinates)
    together : all boxes of the picture
    """

    sequence: str
    track: int
    category: str
    kind: Kind
    fps: float | None
    pictures_at: str
    source_at: str
    numbers: npt.NDArray[np.int32]
    pictures: tuple[str, ...]
    boxes: npt.NDArray[np.float64]
    visible: npt.NDArray[np.float32] | None
    together: Boxes | None = None
    picture_size: tuple[int, int] | None = None

    def __len__(self) -> int:
        return len(self.pictures)

    @property
    def tracks(self) -> int:
        """How many tracks it is of."""
        return 1 if self.together is None else len(self)

    @property
    def categories(self) -> tuple[str, ...]:
        """Class of every row."""
        if self.together is None:
            return (self.category,) * len(self)
        return tuple(self.together.categories[target] for target in self.together.targets.tolist())

    def part(self, start: int, stop: int) -> Clip:
        """Rows ``start`` to ``stop - 1``."""
        together = self.together
        if together is not None:
            together = replace(
                together, targets=together.targets[start:stop], rows=together.rows[start:stop]
            )
        return Clip(
            sequence=self.sequence,
            track=self.track if together is None else self.track + start,
            together=together,
            category=self.category,
            kind=self.kind,
            fps=self.fps,
            pictures_at=self.pictures_at,
            source_at=self.source_at,
            numbers=self.numbers[start:stop],
            pictures=self.pictures[start:stop],
            boxes=self.boxes[start:stop],
            visible=None if self.visible is None else self.visible[start:stop],
            picture_size=self.picture_size,
        )


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Job:
    """One shard to pack."""

    shard: str
    clips: tuple[Clip, ...]

    @property
    def frames(self) -> int:
        """Frames planned."""
        return sum(map(len, self.clips))


def clip_of(sequence: Sequence, selection: Selection) -> Clip:
    """Kept frames of a sequence, or kept objects of a picture."""
    rows = selection.picked[selection.kept]
    together = None
    if sequence.objects is not None:
        objects, along = sequence.objects, selection.along
        together = Boxes(
            boxes=selection.along_boxes,
            categories=tuple(objects.categories[row] for row in along.tolist()),
            crowd=objects.crowd[along],
            targets=np.searchsorted(along, rows).astype(np.int32),
            rows=rows.astype(np.int32),
        )
    return Clip(
        sequence=sequence.name,
        track=0,
        category=sequence.category,
        kind=sequence.kind,
        fps=sequence.fps,
        pictures_at=sequence.pictures_at,
        source_at=sequence.source_at,
        numbers=sequence.numbers[rows],
        pictures=tuple(sequence.pictures[row] for row in rows.tolist()),
        boxes=selection.boxes[selection.kept],
        visible=None if sequence.visible is None else sequence.visible[rows],
        together=together,
        picture_size=sequence.picture_size,
    )


class Splittable(Protocol):
    """Frames of one track, or tracks of one picture, that can be split."""

    def __len__(self) -> int:
        """How many crops it is."""

    def part(self, start: int, stop: int) -> Self:
        """Crops ``start`` to ``stop - 1``."""


_Clip = TypeVar("_Clip", bound=Splittable)


def share_out(clips: Iterable[_Clip], frames_per_shard: int) -> list[list[_Clip]]:
    """Distribute tracks over shards, in order.

    Parameters
    ----------
    clips : one for every track or picture; empty ones are passed over
    frames_per_shard : most frames in a shard
    """
    groups: list[list[_Clip]] = []
    room = 0
    for clip in clips:
        count = len(clip)
        if count > frames_per_shard:
            pieces = -(-count // frames_per_shard)
            bounds = [count * piece // pieces for piece in range(pieces + 1)]
            groups.extend([clip.part(*pair)] for pair in pairwise(bounds))
            room = 0
        elif count:
            if count > room:
                groups.append([])
                room = frames_per_shard
            groups[-1].append(clip)
            room -= count
    return groups


def plan(dataset: str, clips: Iterable[Clip], frames_per_shard: int) -> list[Job]:
    """Shards of a data set; see `share_out`."""
    return [
        Job(shard=shard_name(dataset, number), clips=tuple(group))
        for number, group in enumerate(share_out(clips, frames_per_shard))
    ]


class Fingerprint:
    """SHA-256 over all picked frames: names, numbers, pictures, boxes, flags, decisions."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def add(self, sequence: Sequence, selection: Selection) -> None:
        """Take in the next sequence."""
        rows = selection.picked.tolist()
        texts: list[Any] = [sequence.name, sequence.category, sequence.source_at]
        texts += [sequence.pictures[row] for row in rows]
        self._block("\0".join(texts).encode())
        self._block(sequence.numbers[selection.picked].astype("<i4").tobytes())
        self._block(sequence.xywh[selection.picked].astype("<f8").tobytes())
        self._block(selection.reason.astype("<i1").tobytes())
        visible = sequence.visible
        self._block(b"" if visible is None else visible[selection.picked].astype("<f4").tobytes())
        if sequence.objects is not None:
            self._block("\0".join(sequence.objects.categories).encode())
            self._block(sequence.objects.crowd.tobytes())
            self._block(selection.along_boxes.astype("<f8").tobytes())
        if sequence.picture_size is not None:
            self._block(b"%dx%d" % sequence.picture_size)

    def _block(self, data: bytes) -> None:
        self._hash.update(len(data).to_bytes(8, "little"))
        self._hash.update(data)

    def hexdigest(self) -> str:
        """Return the fingerprint of all sequences so far."""
        return self._hash.hexdigest()
