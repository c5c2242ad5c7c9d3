"""How a tracker chooses among candidates: settings of the published rules, and their formulas.

Two rules exist. SPM and SiamRPN *match*: boxes come out of the network, and are weighed by change
of size and shape and by a cosine window. SiamFC *searches scales*: one response map a scale, the
box keeps its shape. (PySiamTracking's trackers; Li et al., CVPR 2018; Bertinetto et al., 2016.)
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from annotated_types import Ge, Gt, Le, Lt
from torch import Tensor

from shards.geometry import (
    Float,
    Grid,
    anchor_origin,
    boxes_from_regions,
    context_side,
    crop_region,
)
from tracker.anchors import CELLS, SEARCH_PX, STRIDE_PX
from tracker.heads import ANCHORS_A_CELL
from tracker.proposals import ProposalConfig

__all__ = [
    "SCALES",
    "Choice",
    "MatchConfig",
    "ScaleConfig",
    "TrackConfig",
    "box_window",
    "cell_window",
    "change",
    "choose_match",
    "choose_scale",
    "clamp",
    "map_step_px",
    "map_window",
    "penalty",
    "scale_peak",
    "scale_regions",
    "scaled",
    "smooth",
]

WINDOW_SPAN_PX = 143.0  # the cosine of SPM's window reaches zero half of this from the middle
WINDOW_PI = 3.1415  # as published
SCALES = (-1, 0, 1)  # exponents of `ScaleConfig.step`


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
    """Settings of tracking; a model uses the rule of its kind.

    Parameters
    ----------
    match : rule of SPM and SiamRPN
    scale : rule of SiamFC
    """

    match: MatchConfig = field(default_factory=MatchConfig)
    scale: ScaleConfig = field(default_factory=ScaleConfig)


class Choice(NamedTuple):
    """``box`` (4,) float64 xyxy, frame pixels; ``score``, penalised, of the candidate that won."""

    box: Float
    score: float


def change(ratio: Float) -> Float:
    """How many times larger or smaller: ``max(v, 1 / v)``, at least 1."""
    return np.maximum(ratio, 1 / ratio)


def penalty(boxes: Float, last: Float, k: float) -> Float:
    """Factor on the scores of boxes that changed in size or shape (Li et al., CVPR 2018).

    Parameters
    ----------
    boxes : (N,4) float64 xyxy with positive sizes, frame pixels
    last : (4,) the box of the frame before
    k : `MatchConfig.penalty_k`

    Returns
    -------
    (N,) float64, ``exp(-k (r_size r_shape - 1))``: r_size is the change of the side of the square
    with context, r_shape that of height / width
    """
    size = change(context_side(boxes) / context_side(last))
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    shape = change(height / width / ((last[3] - last[1]) / (last[2] - last[0])))
    return np.asarray(np.exp(-k * (size * shape - 1)))


def box_window(boxes: Float, grid: Grid) -> Float:
    """Cosine window of SPM, by the centres of boxes: 1 in the middle, 0 from 71.5 px off.

    Parameters
    ----------
    boxes : (N,4) float64 xyxy, pixels of the search crop
    grid : says where the middle is, 127 (``corner``) or 127.5 (``edge``)

    Returns
    -------
    (N,) float64
    """
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    d = np.clip((centre - anchor_origin(SEARCH_PX, grid)) / WINDOW_SPAN_PX + 0.5, 0, 1)
    return np.asarray(np.prod(0.5 - 0.5 * np.cos(2 * WINDOW_PI * d), axis=-1))


def cell_window() -> Float:
    """Cosine window of SiamRPN, by anchor: Hann over the 17 cells of each axis, 0 in the outer.

    Returns
    -------
    (1445,) float64, in the order of `tracker.anchors`
    """
    return np.repeat(np.outer(np.hanning(CELLS), np.hanning(CELLS)).ravel(), ANCHORS_A_CELL)


def smooth(box: Float, last: Float, rate: float) -> Float:
    """Box with the centre of `box` and the size ``rate * its own + (1 - rate) * that of last``."""
    centre = (box[:2] + box[2:]) / 2
    half = (rate * (box[2:] - box[:2]) + (1 - rate) * (last[2:] - last[:2])) / 2
    return np.concatenate([centre - half, centre + half])


def clamp(box: Float, frame_hw: tuple[int, int], least_px: float) -> Float:
    """Box (4,) xyxy with its centre in the frame and sides from `least_px` to those of the frame.

    Of a frame that is smaller than `least_px` its own sides are the least.
    """
    limit = np.array([frame_hw[1], frame_hw[0]], np.float64)
    centre = np.clip((box[:2] + box[2:]) / 2, 0, limit)
    half = np.minimum(np.maximum(box[2:] - box[:2], least_px), limit) / 2
    return np.concatenate([centre - half, centre + half])


def choose_match(
    boxes: Float,
    scores: Float,
    window: Float,
    *,
    region: Float,
    last: Float,
    frame_hw: tuple[int, int],
    config: MatchConfig,
) -> Choice:
    """Rule of SPM and SiamRPN: which candidate is the object, and its box.

    Parameters
    ----------
    boxes : (N,4) float64 xyxy with positive sizes, pixels of the search crop; N at least 1
    scores : (N,) of the candidates, 0..1
    window : (N,) of `box_window` or `cell_window`
    region : (4,) xyxy that the crop shows, frame pixels
    last : (4,) xyxy, the box of the frame before
    frame_hw : height and width of the frame
    config : the settings

    Returns
    -------
    Choice; the box is `last` itself where the penalised score is below ``min_score``
    """
    found = boxes_from_regions(boxes, region, SEARCH_PX)
    penalised = penalty(found, last, config.penalty_k) * scores
    best = int(np.argmax((1 - config.window) * penalised + config.window * window))
    score = float(penalised[best])
    if score < config.min_score:
        return Choice(last, score)
    box = smooth(found[best], last, config.inter_rate)
    return Choice(clamp(box, frame_hw, config.min_box_px), score)


def map_window(upsample: int) -> Tensor:
    """Cosine window of SiamFC over an enlarged response map; its sum is 1.

    Returns
    -------
    (n,n) float32 with n = 17 * upsample
    """
    n = CELLS * upsample
    window = np.outer(np.hanning(n), np.hanning(n))
    return torch.from_numpy((window / window.sum()).astype(np.float32))


def scale_peak(responses: Tensor, window: Tensor, config: ScaleConfig) -> Tensor:
    """Rule of SiamFC on its response maps: which scale, and where in it. No host synchronisation.

    The scale whose penalised maximum is the largest wins (on logits, as published: where they are
    negative, the factor favours the outer scales). Its map, brought to a sum of 1, is mixed with
    the window. A map without any contrast counts nothing.

    Parameters
    ----------
    responses : (3,17,17) float logits at `SCALES`
    window : (n,n) of `map_window`
    config : the settings

    Returns
    -------
    (4,) float32: index of the scale, row and column of the peak in the enlarged map, and the
    probability of the largest logit of that scale
    """
    n = len(window)
    maps = F.interpolate(responses[None].float(), size=(n, n), mode="bicubic", align_corners=True)[
        0
    ]
    factor = torch.tensor([config.penalty ** abs(s) for s in SCALES])
    factor = factor.to(maps.device, non_blocking=True)
    peaks = maps.amax(dim=(1, 2))
    scale = (peaks * factor).argmax()
    chosen = maps.index_select(0, scale[None])[0]
    chosen = chosen - chosen.min()
    chosen = chosen / chosen.sum().clamp(min=torch.finfo(chosen.dtype).tiny)
    place = ((1 - config.window) * chosen + config.window * window).argmax()
    probability = peaks.index_select(0, scale[None])[0].sigmoid()
    return torch.stack([scale.float(), (place // n).float(), (place % n).float(), probability])


def scale_regions(last: Float, step: float) -> Float:
    """Regions of SiamFC's crops: that of the last box, a step smaller, itself, a step larger.

    Returns
    -------
    (3,4) float64 xyxy, frame pixels, in the order of `SCALES`
    """
    region = crop_region(last, SEARCH_PX)
    centre, half = (region[:2] + region[2:]) / 2, (region[2:] - region[:2]) / 2
    factor = step ** np.array(SCALES, np.float64)[:, None]
    return np.concatenate([centre - half * factor, centre + half * factor], axis=-1)


def map_step_px(upsample: int, grid: Grid) -> float:
    """Pixels of the search crop from one sample of SiamFC's enlarged map to the next.

    Published, and kept in ``corner``: a cell's 8 px over `upsample`. The enlarging holds the
    corners, so a cell is really ``(17 * upsample - 1) / 16`` samples and the published form
    overestimates shifts by 5.9 % (at 16: by 271 / 256); ``edge`` uses the true step.
    """
    if grid == "corner":
        return STRIDE_PX / upsample
    return STRIDE_PX * (CELLS - 1) / (CELLS * upsample - 1)


def scaled(last: Float, start: Float, scale: int, config: ScaleConfig) -> Float:
    """Size of SiamFC's box after a frame.

    Parameters
    ----------
    last, start : (2,) width and height in the frame before, and in the first one
    scale : of `SCALES`, the one that won
    config : the settings

    Returns
    -------
    (2,) width and height; unchanged at scale 0 but for the limits
    """
    size = last * (1 + config.inter_rate * (config.step**scale - 1))
    return np.asarray(np.clip(size, config.min_size * start, config.max_size * start))


def choose_scale(
    peak: tuple[float, float],
    scale: int,
    *,
    region: Float,
    last: Float,
    start_size: Float,
    grid: Grid,
    config: ScaleConfig,
) -> Float:
    """Box of SiamFC from the peak of its map. It keeps its shape, and may leave the frame.

    Parameters
    ----------
    peak : column and row in the enlarged map of 17 * upsample samples a side
    scale : of `SCALES`, the one whose map it is
    region : (4,) xyxy that this scale's crop shows, frame pixels
    last : (4,) xyxy, the box of the frame before
    start_size : (2,) width and height in the first frame
    grid : says how far apart samples are, see `map_step_px`
    config : the settings

    Returns
    -------
    (4,) float64 xyxy, frame pixels
    """
    middle = (CELLS * config.upsample - 1) / 2
    frame_px = map_step_px(config.upsample, grid) * (region[2] - region[0]) / SEARCH_PX
    centre = (last[:2] + last[2:]) / 2 + (np.array(peak) - middle) * frame_px
    half = scaled(last[2:] - last[:2], start_size, scale, config) / 2
    return np.concatenate([centre - half, centre + half])
