"""What every data set reader hands over: sequences as they are on disk, with their faults marked.

A data set is whatever fits `DataSet`: a module, or an instance of a frozen dataclass whose fields
are the options that this data set alone has. Nothing is dropped here: a reader marks what is
malformed, `packer.select` keeps or rejects.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence as Items
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from packer.source import Source
from shards.format import Kind

__all__ = [
    "REASONS",
    "DataSet",
    "Found",
    "Objects",
    "Problem",
    "Reason",
    "Sequence",
    "Split",
    "Survey",
    "named",
]

Split = Literal["train", "val", "test", "all"]  # which of them there are differs by data set
Reason = Literal[
    "no_picture",
    "no_label",
    "bad_annotation",
    "absent",
    "no_box",
    "small",
    "unreadable",
    "outside",
    "short_track",
    "crowd",
    "covered",
]
# Why a frame or box is left out. A place in this tuple is part of fingerprints: append only.
REASONS: tuple[Reason, ...] = (
    "no_picture",  # malformed: annotated, but there is no such picture
    "no_label",  # malformed: a picture without annotation
    "bad_annotation",  # malformed: a box or flag that does not parse or is not finite
    "absent",  # flagged as fully occluded or out of view, whatever its box
    "no_box",  # a width or height of zero or less
    "small",  # a side under the minimum
    "unreadable",  # malformed: the picture cannot be read or decoded
    "outside",  # the box does not touch the picture
    "short_track",  # the one frame that would be left of a track
    "crowd",  # the box is around many objects
    "covered",  # less of the object is visible than was asked for
)


class Problem(NamedTuple):
    """Something malformed: where (file, or file and line) and what."""

    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """A sequence that is on disk, not read yet.

    Attributes
    ----------
    name, category, number : ``car-21``, ``car``, 21
    folder : its folder in the source
    path : its path in samples, relative to the folder that holds the classes
    """

    name: str
    category: str
    number: int
    folder: str
    path: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Survey:
    """What a raw tree holds of one split.

    Attributes
    ----------
    found : its sequences, in packing order
    missing : official sequences of the split that are not on disk
    notes : facts that a reader of the report should know
    problems : malformed folders
    rejected : what is malformed and belongs to no sequence, as reason and name, to be counted
    """

    found: tuple[Found, ...]
    missing: tuple[str, ...]
    notes: tuple[str, ...]
    problems: tuple[Problem, ...]
    rejected: tuple[tuple[Reason, str], ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Objects:
    """Several annotated objects of one picture; row i is row i of its `Sequence`.

    Attributes
    ----------
    categories : N class names
    crowd : (N,) bool, boxes around many objects: no targets, but known to every crop
    """

    categories: tuple[str, ...]
    crowd: npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Sequence:
    """One annotated object in one video, as published: N frames, none dropped.

    With `objects` it is one picture instead, and its N rows are the picture's annotations: each
    names the same picture and frame, and every one that is kept becomes a track of its own.

    Attributes
    ----------
    name, category, kind, fps : as in `shards.format.Sample`
    pictures_at : folder of the pictures in the source
    source_at : the same folder as samples name it
    numbers : (N,) int32, the data set's own frame numbers, ascending
    pictures : N file names; empty where there is no picture
    xywh : (N, 4) float64 x, y, w, h in pixels of the frame as published; NaN where there is none
    absent : (N,) bool, flagged as not visible
    visible : (N,) float32 visible share, or None where the data set does not say
    fault : (N,) int8, position in `REASONS` of why the reader leaves a row out (malformed, or by
        an option of the data set such as ``covered``), -1 for a row that it does not
    problems : what is malformed, in words; left out by an option is no problem
    notes : kinds of harmless oddities, counted over all sequences for the report
    objects : of a picture with several; `category` is then empty
    picture_size : width and height of the pictures by the annotations, which those must have;
        None: not known
    """

    name: str
    category: str
    kind: Kind
    fps: float | None
    pictures_at: str
    source_at: str
    numbers: npt.NDArray[np.int32]
    pictures: tuple[str, ...]
    xywh: npt.NDArray[np.float64]
    absent: npt.NDArray[np.bool_]
    visible: npt.NDArray[np.float32] | None
    fault: npt.NDArray[np.int8]
    problems: tuple[Problem, ...]
    notes: tuple[str, ...] = ()
    objects: Objects | None = None
    picture_size: tuple[int, int] | None = None


class DataSet(Protocol):
    """A module of `packer.datasets`, or an instance of a frozen dataclass in one."""

    @property
    def NAME(self) -> str:
        """Name on the command line, of the shards and in the manifest."""

    @property
    def LAYOUT(self) -> str:
        """What the raw folder should look like, for messages."""

    @property
    def STRIDE(self) -> int:
        """Every how many frames one is kept by default."""

    @property
    def MIN_SIZE(self) -> int:
        """Smallest width and height of a box in pixels by default."""

    @property
    def MIN_EXCLUSIVE(self) -> bool:
        """Tell whether sides must be over the smallest size; else they may equal it."""

    @property
    def SPLITS(self) -> tuple[Split, ...]:
        """Splits that can be asked for, the default ``train`` among them."""

    def options(self) -> Mapping[str, Any]:
        """Its own options that change what is packed, as JSON values, by option name with ``_``."""

    def survey(self, source: Source, split: Split) -> Survey:
        """List what is on disk of a split."""

    def read(self, source: Source, found: Found) -> Sequence:
        """Read one sequence: annotations and the names of its pictures, no pixels."""


def named(items: Items[Any], shown: int = 3) -> str:
    """First few of a list for a message, and how many more there are."""
    text = ", ".join(str(item) for item in items[:shown])
    return text + (f" and {len(items) - shown:,} more" if len(items) > shown else "")
