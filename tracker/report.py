"""An evaluation as one page: figures, curves, and the worst sequences to look at.

``report.html`` holds all that it shows, so it can be sent and opened anywhere; the curves lie
beside it as ``success.png``, ``precision.png`` and ``norm_precision.png``. The text is made by a
template that escapes every value.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from shards.geometry import Float
from shards.sink import FolderSink
from tracker.evaluation_text import fps
from tracker.plots import CURVES, curve_plot, overlap_plot
from tracker.scores import Evaluation, Score, SequenceScore, TrackerScore
from tracker.strips import (
    LOST,
    RESULT_RGB,
    TRUTH_RGB,
    Annotated,
    Shot,
    chosen_frames,
    lost_at,
    strip,
)

__all__ = ["REPORT", "Shown", "page", "worst", "write_report"]

REPORT = "report.html"
WORST = 5
_FIGURES = {
    "AUC": "auc",
    "precision": "precision",
    "norm. precision": "norm_precision",
    "AO": "ao",
    "SR .5": "sr50",
    "SR .75": "sr75",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Shown:
    """A sequence with pictures.

    Parameters
    ----------
    score : of the first tracker
    shots : pictures, in order
    plot : overlap over time, PNG
    """

    score: SequenceScore
    shots: tuple[Shot, ...]
    plot: bytes


def write_report(
    evaluation: Evaluation,
    out: Path,
    sequences: Sequence[Annotated],
    results: Mapping[str, Float],
    *,
    about: Mapping[str, str] | None = None,
    shown: int = WORST,
) -> Path:
    """Write the report and the curves.

    Parameters
    ----------
    evaluation : of one tracker or more
    out : folder, made at need; files of the same names are replaced
    sequences : at least those of the evaluation
    results : by sequence, (N,4) xyxy, frame pixels (edge coordinates), of the *first* tracker
    about : further facts for the heading by name: checkpoint, its hash, settings, ...
    shown : how many of the worst sequences get pictures

    Returns
    -------
    Path of the page

    Raises
    ------
    StorageError : if a picture cannot be read, or the folder not be written
    """
    by_name = {sequence.name: sequence for sequence in sequences}
    pictured = [
        _shown(evaluation, score, by_name[score.name], results[score.name])
        for score in worst(evaluation.trackers[0], shown)
    ]
    curves = {name: curve_plot(evaluation, name) for name in CURVES}
    text = page(evaluation, curves, pictured, about or {})
    sink = FolderSink(out)
    for name, data in curves.items():
        sink.write(f"{name}.png", data)
    sink.write(REPORT, text.encode("utf-8", "replace"))
    return out / REPORT


def worst(tracker: TrackerScore, count: int) -> list[SequenceScore]:
    """Find the sequences with the lowest AUC, the lowest first; without those of no frame."""
    scored = [one for one in tracker.sequences if one.score.frames]
    return sorted(scored, key=lambda one: (one.score.auc, one.name))[:count]


def _shown(
    evaluation: Evaluation, score: SequenceScore, sequence: Annotated, result: Float
) -> Shown:
    """Read and draw what is shown of a sequence."""
    frames = chosen_frames(score.overlap)
    overlaps = [
        (tracker.tracker, one.overlap)
        for tracker in evaluation.trackers
        for one in tracker.sequences
        if one.name == score.name
    ]
    return Shown(
        score=score,
        shots=strip(sequence, result, score.overlap, frames),
        plot=overlap_plot(overlaps, lost=lost_at(score.overlap), shown=frames),
    )


def page(
    evaluation: Evaluation,
    curves: Mapping[str, bytes],
    pictured: Sequence[Shown],
    about: Mapping[str, str],
) -> str:
    """Text of the page, from values alone; everything in it that is a name is escaped.

    Parameters
    ----------
    evaluation : of one tracker or more
    curves : PNG by key of `CURVES`
    pictured : sequences with pictures, in order
    about : further facts for the heading

    Returns
    -------
    HTML
    """
    first = evaluation.trackers[0]
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    template = resources.files("tracker").joinpath("report.html").read_text("utf-8")
    facts = {
        "data set": evaluation.dataset,
        "split": evaluation.split,
        "convention": evaluation.convention,
        "sequences": f"{len(first.sequences):,}",
        "frames that count": f"{first.total.frames:,}",
    }
    return environment.from_string(template).render(
        title=f"{first.tracker} on {evaluation.dataset} {evaluation.split}".strip(),
        facts=[*facts.items(), *about.items()],
        notes=evaluation.notes,
        columns=[*_FIGURES, "frames/s"],
        totals=_totals(evaluation.trackers),
        curves=[
            {"source": _data("image/png", data), "text": _curve_text(evaluation, name)}
            for name, data in curves.items()
        ],
        worst_title=_worst_title(len(pictured), len(first.sequences)),
        worst=[_worst(one) for one in pictured],
        lost_limit=f"{LOST:g}",
        truth_rgb=TRUTH_RGB,
        result_rgb=RESULT_RGB,
        **_by_sequence(evaluation),
    )


def _totals(trackers: Sequence[TrackerScore]) -> list[dict[str, Any]]:
    """Rows of the table of all sequences."""
    rows = []
    for number, tracker in enumerate(trackers):
        kind = "first" if number == 0 else "floor" if number == len(trackers) - 1 else ""
        cells = [*_cells(tracker.total), _fps(fps(tracker))]
        rows.append({"name": tracker.tracker, "kind": kind, "cells": cells})
    return rows


def _by_sequence(evaluation: Evaluation) -> dict[str, Any]:
    """Table of the first tracker's sequences, with the AUC of the others in the last columns."""
    first, *others = evaluation.trackers
    rivals = [{one.name: one.score for one in tracker.sequences} for tracker in others]
    rows = [
        {
            "name": one.name,
            "cells": [
                *_cells(one.score),
                _fps(one.fps),
                f"{one.score.frames:,}",
                *(_cells(rival[one.name])[0] if one.name in rival else "-" for rival in rivals),
            ],
        }
        for one in first.sequences
    ]
    names = [f"AUC of {tracker.tracker}" for tracker in others]
    return {
        "sequence_columns": ["sequence", *_FIGURES, "frames/s", "frames", *names],
        "sequences": rows,
    }


def _worst(one: Shown) -> dict[str, Any]:
    lost = lost_at(one.score.overlap)
    frames = len(one.score.overlap)
    absent = sum(value is None for value in one.score.overlap)
    where = "never lost" if lost is None else f"lost at frame {lost + 1}"
    return {
        "name": one.score.name,
        "auc": _share(one.score.score.auc),
        "lost": None if lost is None else lost + 1,
        "frames": frames,
        "plot": _data("image/png", one.plot),
        "plot_text": f"Overlap in each of the {frames} frames of {one.score.name}: mean "
        f"{_share(one.score.score.ao)}, {where}" + f", absent in {absent} frames" * bool(absent),
        "shots": [
            {
                "source": _data("image/jpeg", shot.jpeg),
                "frame": shot.frame + 1,
                "overlap": _overlap(shot.overlap),
                "text": f"{one.score.name}, frame {shot.frame + 1} ({shot.file}), with ground "
                f"truth and result: {_overlap(shot.overlap)}",
            }
            for shot in one.shots
        ],
    }


def _worst_title(shown: int, total: int) -> str:
    if shown == total:
        return "Sequences, the lowest AUC first"
    return f"The {shown} of {total} sequences with the lowest AUC"


def _curve_text(evaluation: Evaluation, name: str) -> str:
    curve = CURVES[name]
    figures = ", ".join(
        f"{one.tracker} {_share(getattr(one.total, curve.figure))}" for one in evaluation.trackers
    )
    return f"{curve.title}, {curve.up} against {curve.across}: {figures}"


def _cells(score: Score) -> list[str]:
    """Figures as text; where no frame counts their zeros would say that the tracker failed."""
    return [_share(getattr(score, name)) if score.frames else "-" for name in _FIGURES.values()]


def _share(value: float) -> str:
    return f"{value:.3f}"


def _overlap(value: float | None) -> str:
    return "absent" if value is None else f"overlap {value:.2f}"


def _fps(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _data(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"
