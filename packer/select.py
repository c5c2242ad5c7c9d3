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

__all__ = ["MIN_FRAMES", "Selection", "Tally", "edges", "select"]

MIN_FRAMES = 2  # of a track in a video: a pair needs two


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Selection:
    """Picked frames of one sequence: P of them.

    Attributes
    ----------
    picked : (P,) int64, positions in the sequence
    reason : (P,) int8, position in `REASONS`, -1 for a frame that is kept
    boxes : (P, 4) float64 xyxy, frame pixels (edge coordinates); meaningless where malformed
    """

    picked: npt.NDArray[np.int64]
    reason: npt.NDArray[np.int8]
    boxes: npt.NDArray[np.float64]

    @property
    def kept(self) -> npt.NDArray[np.bool_]:
        """(P,) bool."""
        return np.asarray(self.reason < 0)


def edges(xywh: npt.NDArray[np.float64], *, inclusive: bool) -> npt.NDArray[np.float64]:
    """Published boxes to edge coordinates, (..., 4) xyxy: x1 = x + w; x + w - 1 if inclusive."""
    low, size = xywh[..., :2], xywh[..., 2:]
    return np.concatenate([low, low + size - (1.0 if inclusive else 0.0)], axis=-1)


def select(
    sequence: Sequence, *, stride: int, min_size: float, inclusive: bool = False
) -> Selection:
    """Decide about the frames of a sequence from its annotations.

    Parameters
    ----------
    sequence : as read
    stride : 1 or more
    min_size : smallest width and height in pixels, as published, that is kept
    inclusive : boxes end at x + w - 1
    """
    picked = np.arange(0, len(sequence.numbers), stride)
    boxes = edges(sequence.xywh[picked], inclusive=inclusive)
    with np.errstate(invalid="ignore"):  # NaN where malformed or absent; those are overruled below
        small = (sequence.xywh[picked, 2:] < min_size).any(axis=1)
        no_box = ~(boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    reason = np.full(len(picked), -1, np.int8)
    reason[small] = _code("small")
    reason[no_box] = _code("no_box")
    reason[sequence.absent[picked]] = _code("absent")
    fault = sequence.fault[picked]
    reason[fault >= 0] = fault[fault >= 0]
    left = np.flatnonzero(reason < 0)
    if sequence.kind == "video" and len(left) < MIN_FRAMES:
        reason[left] = _code("short_track")
    return Selection(picked=picked, reason=reason, boxes=boxes)


def _code(reason: Reason) -> int:
    return REASONS.index(reason)


class Tally:
    """Rejected frames by reason, with some examples each, in the order in which they are met."""

    EXAMPLES = 20

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._examples: dict[str, list[str]] = {}

    def add(self, reason: Reason, sequence: str, frame: int) -> None:
        """Count one frame."""
        self._take(reason, 1, [f"{sequence}/{frame}"])

    def add_selection(self, sequence: Sequence, selection: Selection) -> None:
        """Count every rejected frame of a sequence."""
        for code in np.unique(selection.reason[selection.reason >= 0]).tolist():
            rows = selection.picked[selection.reason == code]
            numbers = sequence.numbers[rows[: self.EXAMPLES]].tolist()
            self._take(REASONS[code], len(rows), [f"{sequence.name}/{n}" for n in numbers])

    def add_facts(self, facts: Mapping[str, Any]) -> None:
        """Count what another tally's `facts` say."""
        for reason, count in facts["rejected"].items():
            self._take(reason, count, facts["examples"][reason])

    def _take(self, reason: str, count: int, examples: list[str]) -> None:
        self._counts[reason] = self._counts.get(reason, 0) + count
        known = self._examples.setdefault(reason, [])
        known.extend(examples[: self.EXAMPLES - len(known)])

    @property
    def rejected(self) -> dict[str, int]:
        """Frames by reason, in the order of `REASONS`."""
        return {reason: self._counts[reason] for reason in REASONS if reason in self._counts}

    @property
    def examples(self) -> dict[str, list[str]]:
        """``<sequence>/<frame>`` by reason, at most 20 each."""
        return {reason: self._examples[reason] for reason in self.rejected}

    def facts(self) -> dict[str, Any]:
        """JSON values that `add_facts` takes."""
        return {"rejected": self.rejected, "examples": self.examples}
