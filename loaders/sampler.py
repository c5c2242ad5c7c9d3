"""The numbers of the sampling rule (`loaders.plan`): the published ones, and what may be changed.

Where each option comes from:

- ``unit: sequence`` draws as pysot (SiamRPN++) and pytracking do: all tracks of a data set are
  equally likely, however long, and then the frames of the track. ``frame`` is PySiamTracking's.
- ``max_gap_s``: 200 frame numbers are 7 s of LaSOT (30 frames a second) but 20 s of GOT-10k (10);
  one limit in seconds is the same motion everywhere.
- ``causal``: the mode of this name in pytracking and OSTrack, except that the template's own frame
  is not excluded.
- ``widen``: from near frames to far ones, as STM (Oh et al., ICCV 2019) widens its distance.
- ``same_category: positive``: the coarse stage of the SPM paper (Wang et al., CVPR 2019) learns the
  category; PySiamTracking's code calls such pairs negative.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from annotated_types import Ge, Gt, Le

from configs.document import Contradiction

__all__ = ["PairKinds", "SamplerConfig", "Widening", "gap_frames"]

Probability = Annotated[float, Ge(0), Le(1)]
_ROUNDING = 1e-6  # of a frame: 0.3 s at 10 frames a second are 3 frames, whatever the last bit


@dataclass(frozen=True, kw_only=True, slots=True)
class PairKinds:
    """Probabilities of the three kinds of pair; they sum to 1.

    Attributes
    ----------
    same_instance : both crops are of one track (images: of one picture)
    same_category : the search crop is a fresh draw from the template's category
    any : the search crop is a fresh draw from the whole data set
    """

    same_instance: Probability
    same_category: Probability
    any: Probability

    def __post_init__(self) -> None:
        total = self.same_instance + self.same_category + self.any
        if abs(total - 1) > 1e-6:
            raise Contradiction(
                f"same_instance + same_category + any must be 1, got {total:g}",
                "same_instance",
                "same_category",
                "any",
            )

    @property
    def cumulative(self) -> npt.NDArray[np.float64]:
        """Upper bounds of the first two kinds."""
        return np.cumsum([self.same_instance, self.same_category])


@dataclass(frozen=True, kw_only=True, slots=True)
class Widening:
    """A gap that grows in equal steps from epoch to epoch.

    Attributes
    ----------
    start : part of the largest gap that is allowed in epoch 0; 1: all of it, from the beginning
    epochs : the first epoch in which all of it is allowed, counted from 0
    """

    start: Probability = 1.0
    epochs: Annotated[int, Ge(0), Le(1 << 32)] = 0

    def __post_init__(self) -> None:
        if (self.start < 1) != (self.epochs > 0):
            raise Contradiction(
                f"start {self.start:g} and epochs {self.epochs} do not fit: a gap widens from a "
                "start below 1 over 1 or more epochs",
                "start",
                "epochs",
            )

    def part(self, epoch: int) -> float:
        """Part of the largest gap that is allowed in an epoch."""
        if epoch >= self.epochs:
            return 1.0
        return self.start + (1 - self.start) * epoch / self.epochs


@dataclass(frozen=True, kw_only=True, slots=True)
class SamplerConfig:
    """The rule's numbers.

    Attributes
    ----------
    image : shares of the three kinds of pair for single pictures; they sum to 1
    video : shares of the three kinds of pair for videos; they sum to 1
    unit : what is drawn evenly of a category; ``frame``: its frames, so long tracks weigh more;
        ``sequence``: its tracks, then the frames of the track. Single pictures are their own tracks
    category_cap : a category is drawn in proportion to its number of units, and one with more of
        them than this no more often: by default every track is equally likely with ``sequence``
    max_gap : largest distance of a same-instance video pair, in original frame numbers
    max_gap_s : the same in seconds; where given, it takes the place of `max_gap`
    fps : frame numbers a second, by data set, where the index does not know them; for `max_gap_s`
    widen : a gap that grows from epoch to epoch up to `max_gap` or `max_gap_s`
    causal : the search frame of a same-instance video pair is not before the template's; the same
        frame is allowed, as it is otherwise, and all that there is at the end of a track
    same_category : sign of a pair of two tracks of one category, however it was drawn; tracks
        without a known category are never of one. A batch has one sign for all stages of a
        tracker, although in the SPM paper only the coarse stage takes such a pair as positive
    """

    image: PairKinds = field(
        default_factory=lambda: PairKinds(same_instance=0.6, same_category=0.2, any=0.2)
    )
    video: PairKinds = field(
        default_factory=lambda: PairKinds(same_instance=0.9, same_category=0.05, any=0.05)
    )
    unit: Literal["frame", "sequence"] = "frame"
    category_cap: Annotated[int, Ge(1), Le(1 << 48)] = 100_000
    max_gap: Annotated[int, Ge(0), Le(1 << 31)] = 200
    max_gap_s: Annotated[float, Ge(0), Le(1e6)] | None = None
    fps: Mapping[str, Annotated[float, Gt(0), Le(1e6)]] = field(default_factory=dict)
    widen: Widening = field(default_factory=Widening)
    causal: bool = False
    same_category: Literal["negative", "positive"] = "negative"

    def __post_init__(self) -> None:
        if self.fps and self.max_gap_s is None:
            raise Contradiction(
                f"fps of {', '.join(self.fps)} has no meaning without max_gap_s: max_gap counts "
                "frame numbers",
                "fps",
                "max_gap_s",
            )


def gap_frames(
    config: SamplerConfig, epoch: int, fps: npt.NDArray[np.floating[Any]]
) -> npt.NDArray[np.int64]:
    """Largest distance of same-instance pairs in an epoch, in frame numbers, rounded down.

    Parameters
    ----------
    config : the rule
    epoch : 0 or more
    fps : (B,) frame numbers a second, used with ``max_gap_s`` only
    """
    largest = config.max_gap if config.max_gap_s is None else config.max_gap_s * np.float64(fps)
    part = np.broadcast_to(largest * config.widen.part(epoch), np.shape(fps))
    return np.floor(part + _ROUNDING).astype(np.int64)
