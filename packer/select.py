"""Keep or reject each picked frame of a sequence, with the reason. Pure.

The stride picks positions 0, s, 2s, ... before anything is dropped; a frame that it does not pick
is no rejection. What only the picture can tell (`unreadable`, `outside`) is found by `packer.crop`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from packer.sequence import REASONS, Reason, Sequence
from shards.plan import MAX_EXAMPLES

__all__ = ["MIN_FRAMES", "Selection", "Tally", "edges", "select"]

MIN_FRAMES = 2  # of a track in a video: a pair needs two
_SMALL, _NO_BOX, _ABSENT, _SHORT_TRACK, _CROWD = (
    REASONS.index(reason) for reason in ("small", "no_box", "absent", "short_track", "crowd")
)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Selection:
    """Picked frames of one sequence: P of them.

    Attributes
    ----------
    picked : (P,) int64, positions in the sequence
    reason : (P,) int8, position in `REASONS`, -1 for a frame that is kept
    boxes : (P, 4) float64 xyxy, frame pixels (edge coordinates); meaningless where malformed
    along : (M,) int64, positions of all boxes of a picture with several objects that go along in
        every crop, those that are too small or around crowds included; empty for a video
    along_boxes : (M, 4) float64 xyxy, frame pixels
    """

    picked: npt.NDArray[np.int64]
    reason: npt.NDArray[np.int8]
    boxes: npt.NDArray[np.float64]
    along: npt.NDArray[np.int64]
    along_boxes: npt.NDArray[np.float64]

    @property
    def kept(self) -> npt.NDArray[np.bool_]:
        """(P,) bool."""
        return np.asarray(self.reason < 0)


def edges(xywh: npt.NDArray[np.float64], *, inclusive: bool) -> npt.NDArray[np.float64]:
    """Published boxes to edge coordinates, (..., 4) xyxy: x1 = x + w; x + w - 1 if inclusive."""
    low, size = xywh[..., :2], xywh[..., 2:]
    return np.concatenate([low, low + size - (1.0 if inclusive else 0.0)], axis=-1)


def select(
    sequence: Sequence,
    *,
    stride: int,
    min_size: float,
    min_exclusive: bool = False,
    inclusive: bool = False,
    categories: frozenset[str] | None = None,
) -> Selection:
    """Decide about the frames of a sequence, or the objects of a picture, from the annotations.

    Parameters
    ----------
    sequence : as read
    stride : 1 or more; 1 for a picture with several objects
    min_size : smallest width and height in pixels, as published, that is kept
    min_exclusive : sides of just `min_size` are not kept
    inclusive : boxes end at x + w - 1
    categories : classes of objects that are picked in a picture; None: all

    Raises
    ------
    ValueError : if a picture with several objects is given another stride than 1
    """
    if sequence.objects is not None:
        if stride != 1:
            raise ValueError(f"objects of one picture have no order; stride {stride} must be 1")
        picked = _of_classes(sequence.objects.categories, categories)
    else:
        picked = np.arange(0, len(sequence.numbers), stride)
    boxes = edges(sequence.xywh, inclusive=inclusive)
    reason = _reasons(sequence, boxes, min_size, min_exclusive)
    along = np.empty(0, np.int64)
    if sequence.objects is not None:
        along = np.flatnonzero((reason < 0) | (reason == _SMALL) | (reason == _CROWD))
    reason = reason[picked]
    left = np.flatnonzero(reason < 0)
    if sequence.kind == "video" and len(left) < MIN_FRAMES:
        reason[left] = _SHORT_TRACK
    return Selection(
        picked=picked, reason=reason, boxes=boxes[picked], along=along, along_boxes=boxes[along]
    )


def _of_classes(found: tuple[str, ...], wanted: frozenset[str] | None) -> npt.NDArray[np.int64]:
    if wanted is None:
        return np.arange(len(found))
    return np.array([row for row, name in enumerate(found) if name in wanted], np.int64)


def _reasons(
    sequence: Sequence, boxes: npt.NDArray[np.float64], min_size: float, min_exclusive: bool
) -> npt.NDArray[np.int8]:
    """Why each row of a sequence is left out, -1 where it is not; later reasons overrule."""
    sides = sequence.xywh[:, 2:]
    with np.errstate(invalid="ignore"):  # NaN where malformed or absent; those are overruled below
        small = ((sides <= min_size) if min_exclusive else (sides < min_size)).any(axis=1)
        no_box = ~(boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    reason = np.full(len(boxes), -1, np.int8)
    reason[small] = _SMALL
    if sequence.objects is not None:
        reason[sequence.objects.crowd] = _CROWD
    reason[no_box] = _NO_BOX
    reason[sequence.absent] = _ABSENT
    fault = sequence.fault
    reason[fault >= 0] = fault[fault >= 0]
    return reason


class Tally:
    """Rejected frames by reason, with some examples each, in the order in which they are met."""

    EXAMPLES = MAX_EXAMPLES

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._examples: dict[str, list[Mapping[str, Any]]] = {}

    def add(
        self,
        reason: Reason,
        sequence: str,
        frame: int,
        picture: str = "",
        box: npt.NDArray[np.floating[Any]] | None = None,
    ) -> None:
        """Count one frame; `picture` is as samples name it, `box` (4,) xyxy in its pixels."""
        self._take(reason, 1, [_example(f"{sequence}/{frame}", picture, box)])

    def add_box(
        self,
        reason: Reason,
        sequence: str,
        row: int,
        picture: str = "",
        box: npt.NDArray[np.floating[Any]] | None = None,
        why: str = "",
    ) -> None:
        """Count one object of a picture, by its place among the picture's annotations."""
        example = _example(f"{sequence}#{row}", picture, box)
        self._take(reason, 1, [{**example, "why": why} if why else example])

    def add_entry(self, reason: Reason, name: str) -> None:
        """Count one entry of the annotations that belongs to no sequence."""
        self._take(reason, 1, [_example(name, "", None)])

    def add_selection(self, sequence: Sequence, selection: Selection) -> None:
        """Count every rejected frame of a sequence, or object of a picture."""
        if not (selection.reason >= 0).any():
            return
        for code in np.unique(selection.reason[selection.reason >= 0]).tolist():
            rows = np.flatnonzero(selection.reason == code)
            examples = []
            for row in rows[: self.EXAMPLES].tolist():
                at = int(selection.picked[row])
                name = f"{sequence.name}/{sequence.numbers[at]}"
                if sequence.objects is not None:
                    name = f"{sequence.name}#{at}"
                picture = sequence.pictures[at]
                path = f"{sequence.source_at}/{picture}" if sequence.source_at else picture
                examples.append(_example(name, path if picture else "", selection.boxes[row]))
            self._take(REASONS[code], len(rows), examples)

    def add_facts(self, facts: Mapping[str, Any]) -> None:
        """Count what another tally's `facts` say."""
        for reason, count in facts["rejected"].items():
            self._take(reason, count, facts["examples"][reason])

    def _take(self, reason: str, count: int, examples: list[Mapping[str, Any]]) -> None:
        self._counts[reason] = self._counts.get(reason, 0) + count
        known = self._examples.setdefault(reason, [])
        known.extend(examples[: self.EXAMPLES - len(known)])

    @property
    def rejected(self) -> dict[str, int]:
        """Frames and boxes by reason, in the order of `REASONS`."""
        return {reason: self._counts[reason] for reason in REASONS if reason in self._counts}

    @property
    def examples(self) -> dict[str, list[str]]:
        """``<sequence>/<frame>`` by reason, at most 20 each.

        Of a picture with several objects ``<sequence>#<row>``: its annotations counted from 0.
        """
        return {
            reason: [str(example["frame"]) for example in examples]
            for reason, examples in self.rejected_examples.items()
        }

    @property
    def rejected_examples(self) -> dict[str, list[Mapping[str, Any]]]:
        """The same with picture and box, as the manifest has them."""
        return {reason: self._examples[reason] for reason in self.rejected}

    def facts(self) -> dict[str, Any]:
        """JSON values that `add_facts` takes."""
        return {"rejected": self.rejected, "examples": self.rejected_examples}


def _example(
    frame: str, picture: str, box: npt.NDArray[np.floating[Any]] | None
) -> Mapping[str, Any]:
    """Entry of the manifest's ``rejected_examples``."""
    drawn = box is not None and bool(np.isfinite(box).all())
    corners = (
        [float(str(np.float32(value))) for value in box] if drawn and box is not None else None
    )
    return {"frame": frame, "picture": picture or None, "box": corners}
