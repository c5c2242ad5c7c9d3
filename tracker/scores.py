"""What an evaluation found: plain values that are stored, compared and drawn."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Evaluation", "Score", "SequenceScore", "TrackerScore"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Score:
    """Figures of one sequence or of a whole data set; all but the curves are shares 0..1.

    Parameters
    ----------
    auc : mean of the success curve
    precision : share of frames whose centre is at most 20 px off
    norm_precision : the same with errors in units of the box's sides, at .2 or as the data set says
    ao, sr50, sr75 : mean overlap, and shares of frames that overlap by more than .5 and .75
    success_curve : at the 21 thresholds 0, .05 .. 1
    precision_curve : at the 51 thresholds 0 .. 50 px
    norm_precision_curve : at the 51 thresholds 0, .01 .. .5
    frames : how many counted
    """

    auc: float
    precision: float
    norm_precision: float
    ao: float
    sr50: float
    sr75: float
    success_curve: tuple[float, ...]
    precision_curve: tuple[float, ...]
    norm_precision_curve: tuple[float, ...]
    frames: int


@dataclass(frozen=True, kw_only=True, slots=True)
class SequenceScore:
    """Figures of one tracker on one sequence.

    Parameters
    ----------
    name : of the sequence
    score : figures
    overlap : of every frame with its ground truth; None where that is absent
    fps : frames a second, reading the pictures not counted; None if it was not measured
    """

    name: str
    score: Score
    overlap: tuple[float | None, ...]
    fps: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class TrackerScore:
    """Figures of one tracker: by sequence, and of the data set."""

    tracker: str
    total: Score
    sequences: tuple[SequenceScore, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """Figures of several trackers on one data set.

    Parameters
    ----------
    dataset : otb, lasot, got10k or trackingnet
    split : which part of it
    convention : whose rules were counted by
    trackers : the evaluated one first, the floor "keep the first box" last
    notes : what a reader must know: missing sequences, cut lengths, frames of another size
    """

    dataset: str
    split: str
    convention: str
    trackers: tuple[TrackerScore, ...]
    notes: tuple[str, ...]
