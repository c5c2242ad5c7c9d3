"""Follow one object through the frames of a video, from its box in the first one."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

__all__ = ["Followed", "Picture", "Tracker"]

Picture = npt.NDArray[np.uint8]


class Followed(NamedTuple):
    """``box`` (4,) float64 xyxy, frame pixels (edge coordinates); ``score``, about 0..1."""

    box: npt.NDArray[np.floating[Any]]
    score: float


class Tracker(Protocol):
    """Something that follows: `start` on the first frame, then `step` on each further one."""

    def start(self, frame: Picture, box: npt.NDArray[np.floating[Any]]) -> None:
        """Begin with a frame (H,W,3) uint8 RGB and the box (4,) xyxy of the object in it."""
        ...

    def step(self, frame: Picture) -> Followed:
        """Find the object in the next frame."""
        ...
