"""What every data set reader hands over: sequences as they are on disk, with their faults marked.

A data set is a module that fits `DataSet`. Nothing is dropped here: a reader marks what is
malformed, `packer.select` keeps or rejects.
"""

from __future__ import annotations

from collections.abc import Sequence as Items
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from packer.source import Source
from shards.format import Kind

__all__ = ["REASONS", "DataSet", "Found", "Problem", "Reason", "Sequence", "Split", "Survey"]

Split = Literal["train", "test", "all"]
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
]
# Why a frame is left out, in the order in which it is looked for; the first that holds is counted.
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
    """

    found: tuple[Found, ...]
    missing: tuple[str, ...]
    notes: tuple[str, ...]
    problems: tuple[Problem, ...]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Sequence:
    """One annotated object in one video, as published: N frames, none dropped.

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
    fault : (N,) int8, position in `REASONS` of what is malformed, -1 for a sound frame
    problems : the same faults in words
    notes : kinds of harmless oddities, counted over all sequences for the report
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


class DataSet(Protocol):
    """A module of `packer.datasets`."""

    @property
    def NAME(self) -> str:
        """Name on the command line, of the shards and in the manifest."""

    @property
    def LAYOUT(self) -> str:
        """What the raw folder should look like, for messages."""

    def survey(self, source: Source, split: Split) -> Survey:
        """List what is on disk of a split; reads no annotation."""

    def read(self, source: Source, found: Found) -> Sequence:
        """Read one sequence: annotations and the names of its pictures, no pixels."""


def named(items: Items[Any], shown: int = 3) -> str:
    """First few of a list for a message, and how many more there are."""
    text = ", ".join(str(item) for item in items[:shown])
    return text + (f" and {len(items) - shown} more" if len(items) > shown else "")
