"""Minutes shared among parts that run one after the other.

Each part has a weight. When its turn comes it gets its weight's share of the time that is left, so
what a part does not use falls to those after it. A part whose share is too short to find anything
is left out, and the next one is asked.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

__all__ = ["Budget", "Part"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """One part of a run.

    Attributes
    ----------
    name : of the part and of its file
    weight_s : seconds that it wants of a run of eight minutes
    least_s : with fewer seconds it is left out
    """

    name: str
    weight_s: float
    least_s: float


class Budget:
    """Time of a run.

    Parameters
    ----------
    total_s : seconds of the whole run, from now on
    parts : in their order
    clock : seconds that count up
    """

    def __init__(
        self, total_s: float, parts: Sequence[Part], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._parts, self._clock = tuple(parts), clock
        self._end = clock() + total_s

    def left_s(self) -> float:
        """Seconds left, 0 at least."""
        return max(0.0, self._end - self._clock())

    def share_s(self, part: Part) -> float | None:
        """Seconds for a part whose turn it is; None if they are too few."""
        later = self._parts[self._parts.index(part) :]
        share = self.left_s() * part.weight_s / sum(one.weight_s for one in later)
        return share if share >= part.least_s else None
