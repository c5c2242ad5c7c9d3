"""How a tracker chooses among candidates: settings of the published rules, and their formulas.

Two rules exist. SPM and SiamRPN *match*: boxes come out of the network, and are weighed by change
of size and shape and by a cosine window. SiamFC *searches scales*: one response map a scale, the
box keeps its shape. (PySiamTracking's trackers; Li et al., CVPR 2018; Bertinetto et al., 2016.)
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from annotated_types import Ge, Gt, Le, Lt

from tracker.proposals import ProposalConfig

__all__ = ["MatchConfig", "ScaleConfig", "TrackConfig"]


@dataclass(frozen=True, kw_only=True, slots=True)
class MatchConfig:
    """Rule of SPM and SiamRPN; the defaults are the published ones.

    Parameters
    ----------
    proposals : boxes that SPM's fine stage judges (SiamRPN has no such stage and takes them all)
    fine_weight : share of the fine stage in SPM's score
    penalty_k : how fast a score falls with a change of size or shape
    window : share of the cosine window in the final score
    min_score : below this penalised score the last box is kept
    inter_rate : share of the new size when sizes are smoothed
    min_box_px : least width and height of a box, frame pixels
    """

    proposals: ProposalConfig = field(default_factory=lambda: ProposalConfig(keep=8, nms_iou=0.60))
    fine_weight: Annotated[float, Ge(0), Le(1)] = 0.5
    penalty_k: Annotated[float, Ge(0)] = 0.2
    window: Annotated[float, Ge(0), Le(1)] = 0.4
    min_score: Annotated[float, Ge(0), Le(1)] = 0.1
    inter_rate: Annotated[float, Gt(0), Le(1)] = 0.5
    min_box_px: Annotated[float, Gt(0)] = 8.0


@dataclass(frozen=True, kw_only=True, slots=True)
class ScaleConfig:
    """Rule of SiamFC; the defaults are the published ones.

    Parameters
    ----------
    step : ratio of neighbouring scales; three are tried
    penalty : factor on the best response of each scale but the middle one
    window : share of the cosine window in the final map
    inter_rate : share of a change of scale that the box follows
    min_size, max_size : least and largest side, in sides of the start box
    upsample : by which the response map is enlarged
    """

    step: Annotated[float, Gt(1)] = 1.0375
    penalty: Annotated[float, Gt(0), Le(1)] = 0.9745
    window: Annotated[float, Ge(0), Lt(1)] = 0.176
    inter_rate: Annotated[float, Gt(0), Le(1)] = 0.59
    min_size: Annotated[float, Gt(0), Le(1)] = 0.2
    max_size: Annotated[float, Ge(1)] = 5.0
    upsample: Annotated[int, Ge(1)] = 16


@dataclass(frozen=True, kw_only=True, slots=True)
class TrackConfig:
    """Settings of tracking; a model uses the rule of its kind."""

    match: MatchConfig = field(default_factory=MatchConfig)
    scale: ScaleConfig = field(default_factory=ScaleConfig)
