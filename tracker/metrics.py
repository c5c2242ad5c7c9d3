"""One-pass evaluation by the rules of the toolkits that published figures come from. Pure.

Overlap is intersection over union. Success is the share of frames that overlap by *more* than a
threshold, precision the share whose centre is at most so far off; AUC is the mean over thresholds,
first of a sequence, then over sequences. The first frame, which the tracker was given, counts as
hit. Where toolkits differ, a `Rules` says how:

================  =======================  =====================  ============================
                  ``got10k``               ``pysot``              ``reference``
================  =======================  =====================  ============================
absent frames     count like all           no hit, but counted    no hit, but counted
invalid box       compared as it is (NaN   w or h <= 0 fails      any of x, y, w, h <= 0 fails
                  rows are left out)       success; centre <= 0   success and hits precision
                                           hits precision
norm. precision   mean up to .5            at .2                  at .2
================  =======================  =====================  ============================

``got10k`` on GOT-10k itself: overlap within the frame, without the first frame and frames of cover
0, and frames pooled over sequences. TrackingNet's server takes the mean of normalised precision up
to .5 too, so that is done there by all rules. ``reference`` is PySiamTracking. That invalid boxes
hit precision is a defect of both (their error is set to -1), kept to compare with their figures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from shards.geometry import Float, index_centre, iou
from tracker.scores import Score, SequenceScore
from tracker.sequences import Convention, Dataset, VideoSequence

__all__ = ["DEFAULT_CONVENTION", "Rules", "rules", "score_boxes", "score_sequence", "total"]

SUCCESS_AT = np.linspace(0, 1, 21)
PRECISION_AT = np.arange(51)  # px
NORM_PRECISION_AT = np.arange(51) / 100
PRECISION_PX = 20
NORM_PRECISION_SHOWN = 20  # position of .2
INVALID = -1.0
TINY = 1e-16

# LaSOT's published figures were counted as pysot does, the others as by the got10k toolkit.
DEFAULT_CONVENTION: dict[Dataset, Convention] = {
    "otb": "got10k",
    "lasot": "pysot",
    "got10k": "got10k",
    "trackingnet": "got10k",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Rules:
    """What counts, see the module docstring.

    Parameters
    ----------
    absent_miss : frames without the object stay in the denominator and are no hits
    invalid : ground truth that is no box: compared as it is; or judged by ``size`` (pysot); or
        by ``any`` of its four numbers (reference)
    within_frame : boxes are moved and cut to the frame as the got10k toolkit does
    visible_only : frames of cover 0 and the first frame are left out
    pool_frames : each frame weighs the same in the total, else each sequence
    norm_mean : normalised precision is the mean of its curve, else its value at .2
    """

    absent_miss: bool
    invalid: Literal["compare", "size", "any"]
    within_frame: bool = False
    visible_only: bool = False
    pool_frames: bool = False
    norm_mean: bool = False


def rules(convention: Convention, dataset: Dataset) -> Rules:
    """Rules of a convention for a data set."""
    server = dataset == "trackingnet"
    if convention == "pysot":
        return Rules(absent_miss=True, invalid="size", norm_mean=server)
    if convention == "reference":
        return Rules(absent_miss=True, invalid="any", norm_mean=server)
    own = dataset == "got10k"
    return Rules(
        absent_miss=False,
        invalid="compare",
        within_frame=own,
        visible_only=own,
        pool_frames=own,
        norm_mean=True,
    )


def score_sequence(
    sequence: VideoSequence, boxes: Float, by: Rules, seconds: Float | None = None
) -> SequenceScore:
    """Figures of a tracker's boxes on one sequence.

    Parameters
    ----------
    boxes : (N,4) xyxy, frame pixels (edge coordinates), one a frame
    by : rules
    seconds : (N,) for each frame, 0 where it was not measured; None: none was

    Raises
    ------
    ValueError : if there are not as many boxes as frames, or the ground truth is not public
    """
    if not sequence.scored:
        raise ValueError(f"{sequence.name}: its ground truth is not public")
    score, overlap = score_boxes(
        boxes,
        sequence.boxes,
        by,
        absent=sequence.absent,
        cover=sequence.cover,
        frame_size=sequence.frame_size,
        origin=sequence.origin,
    )
    timed = np.empty(0) if seconds is None else seconds[seconds > 0]
    return SequenceScore(
        name=sequence.name,
        score=score,
        overlap=tuple(None if np.isnan(value) else float(value) for value in overlap),
        fps=len(timed) / float(timed.sum()) if len(timed) else None,
    )


def score_boxes(
    boxes: Float,
    truth: Float,
    by: Rules,
    *,
    absent: npt.NDArray[np.bool_] | None = None,
    cover: npt.NDArray[np.int8] | None = None,
    frame_size: tuple[int, int] | None = None,
    origin: int = 0,
) -> tuple[Score, npt.NDArray[np.float64]]:
    """Compare boxes with the ground truth.

    Parameters
    ----------
    boxes, truth : (N,4) xyxy, frame pixels (edge coordinates); the first box is taken as given
    by : rules
    absent : (N,) frames without the object; None: none
    cover : (N,) visible eighths; None: all visible
    frame_size : width and height, needed for rules with `within_frame`
    origin : number of the first pixel in published boxes; decides what "<= 0" means

    Returns
    -------
    score : figures
    overlap : (N,) float64, NaN where the object is absent or its box is none

    Raises
    ------
    ValueError : if lengths differ or a box is not finite
    """
    boxes, truth = np.array(boxes, np.float64), np.asarray(truth, np.float64)
    if boxes.shape != truth.shape:
        raise ValueError(f"{len(boxes)} boxes for {len(truth)} frames")
    boxes[0] = truth[0]
    if not np.isfinite(boxes).all():
        raise ValueError(f"box {int(np.argmin(np.isfinite(boxes).all(axis=1)))} is not finite")
    gone = np.zeros(len(truth), bool) if absent is None else absent
    counted = np.ones(len(truth), bool)
    if by.visible_only:
        counted[0] = False
        if cover is not None:
            counted &= cover > 0
    if by.invalid == "compare":
        counted &= ~np.isnan(truth).any(axis=1)
    hit = ~gone if by.absent_miss else np.ones(len(truth), bool)
    errors = _errors(boxes, truth, by, frame_size, origin)
    sizes = truth[:, 2:] - truth[:, :2]
    with np.errstate(invalid="ignore"):
        shown = ~gone & (sizes > 0).all(axis=1) & (errors.overlap >= 0)
    overlap = np.where(shown, errors.overlap, np.nan)
    worst = (INVALID, np.inf, np.inf)
    chosen = _Errors(
        *(np.where(hit, of, bad)[counted] for of, bad in zip(errors, worst, strict=True))
    )
    return _score(_Errors(*chosen), by), overlap


class _Errors(NamedTuple):
    """Of each frame: overlap, centre error in px, and in sides of the true box; (N,) each."""

    overlap: Float
    centre: Float
    norm_centre: Float


def _errors(
    boxes: Float, truth: Float, by: Rules, frame_size: tuple[int, int] | None, origin: int
) -> _Errors:
    size = truth[:, 2:] - truth[:, :2]
    off = index_centre(boxes) - index_centre(truth)  # exactly 0 for equal boxes
    with np.errstate(divide="ignore", invalid="ignore"):
        # A side under one pixel would divide by (almost) nothing; got10k's later versions do this.
        unit = np.maximum(size, 1) if by.invalid == "compare" else size + TINY
        norm = np.hypot(*(off / unit).T)
        centre = np.hypot(*off.T)
        if by.within_frame:
            if frame_size is None:
                raise ValueError("these rules need the size of the frame")
            boxes, truth = _within(boxes, frame_size), _within(truth, frame_size)
        overlap = iou(boxes, truth)
        if by.invalid == "compare":
            return _Errors(overlap, centre, norm)
        middle = index_centre(truth) + origin
        sized = (size > 0).all(axis=1)
        if by.invalid == "any":
            sized &= (truth[:, :2] + origin > 0).all(axis=1)
            placed = norm_placed = sized
        else:
            placed = (middle > 0).all(axis=1)
            norm_placed = (middle / unit > 0).all(axis=1)
    return _Errors(
        np.where(sized, overlap, INVALID),
        np.where(placed, centre, INVALID),
        np.where(norm_placed, norm, INVALID),
    )


def _within(boxes: Float, frame_size: tuple[int, int]) -> Float:
    """Boxes in the frame, in the got10k toolkit's way.

    The corner is moved into the frame first and the box keeps its size, then what is over on the
    right and below is cut: a box that sticks out on the left is moved, not cut.
    """
    limit = np.array(frame_size, np.float64)
    start = np.clip(boxes[:, :2], 0, limit)
    size = np.clip(boxes[:, 2:] - boxes[:, :2], 0, limit - start)
    return np.concatenate([start, start + size], axis=1)


def _score(errors: _Errors, by: Rules) -> Score:
    """Figures of the counted frames; all 0 if there are none."""
    frames = len(errors.overlap)
    of = max(frames, 1)
    success = (errors.overlap[:, None] > SUCCESS_AT).sum(axis=0) / of
    precision = (errors.centre[:, None] <= PRECISION_AT).sum(axis=0) / of
    norm = (errors.norm_centre[:, None] <= NORM_PRECISION_AT).sum(axis=0) / of
    return Score(
        auc=float(success.mean()),
        precision=float(precision[PRECISION_PX]),
        norm_precision=float(norm.mean() if by.norm_mean else norm[NORM_PRECISION_SHOWN]),
        ao=float(np.maximum(errors.overlap, 0).sum() / of),
        sr50=float((errors.overlap > 0.5).sum() / of),
        sr75=float((errors.overlap > 0.75).sum() / of),
        success_curve=tuple(success.tolist()),
        precision_curve=tuple(precision.tolist()),
        norm_precision_curve=tuple(norm.tolist()),
        frames=frames,
    )


def total(scores: Sequence[Score], by: Rules) -> Score:
    """Figures of a data set: mean over sequences, or over all frames as the rules say.

    Sequences of which no frame counts are left out.

    Raises
    ------
    ValueError : if no frame of any sequence counts
    """
    counted = [score for score in scores if score.frames]
    if not counted:
        raise ValueError("no frame counts")
    weight = np.array([score.frames if by.pool_frames else 1 for score in counted], np.float64)
    weight /= weight.sum()

    def mean(values: list[tuple[float, ...]]) -> tuple[float, ...]:
        # no matrix product: its last digits depend on the number of threads
        return tuple((weight[:, None] * np.array(values)).sum(axis=0).tolist())

    plain = mean([(s.auc, s.precision, s.norm_precision, s.ao, s.sr50, s.sr75) for s in counted])
    auc, precision, norm_precision, ao, sr50, sr75 = plain
    return Score(
        auc=auc,
        precision=precision,
        norm_precision=norm_precision,
        ao=ao,
        sr50=sr50,
        sr75=sr75,
        success_curve=mean([s.success_curve for s in counted]),
        precision_curve=mean([s.precision_curve for s in counted]),
        norm_precision_curve=mean([s.norm_precision_curve for s in counted]),
        frames=sum(s.frames for s in counted),
    )
