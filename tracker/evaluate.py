"""Evaluate trackers on a data set: follow what is not followed yet, then score the result files.

A run that was killed goes on where it was: a sequence whose result is whole, and made by the same
checkpoint and settings from the same data, is not followed again. All trackers with results in the
folder are in the table, and "keep the first box" always is.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from shards.errors import DataError
from shards.geometry import Float
from shards.sink import FolderSink
from tracker.entrants import Entrant
from tracker.evaluation_text import facts
from tracker.ledger import data_fingerprint, read_ledger
from tracker.metrics import rules, score_sequence, total
from tracker.onepass import KEEP_FIRST_BOX
from tracker.results import (
    check_tracker_name,
    read_boxes,
    read_seconds,
    result_path,
    trackers_in,
    write_submission,
)
from tracker.runs import EvaluationError, follow_missing, keep_first_box
from tracker.scores import Evaluation, TrackerScore
from tracker.sequences import Convention, Dataset, Sequences, VideoSequence

if TYPE_CHECKING:  # it imports torch
    from tracker.follow import Tracker

__all__ = ["boxes_of", "evaluate", "follow_all", "report_folder", "score_all"]

SUMMARY = "evaluation.json"
SHOWN_FAILURES = 20


def evaluate(
    sequences: Sequences,
    out: Path,
    *,
    name: str,
    make: Callable[[], Tracker],
    made_by: Mapping[str, str],
    convention: Convention,
    workers: int = 1,
) -> tuple[Evaluation, Path | None]:
    """Follow all sequences, score all trackers in the folder, write ``evaluation.json``.

    The latter goes to `report_folder`.

    Parameters
    ----------
    sequences : of a data set
    out : folder of results
    name : of the tracker
    make : makes it; picklable for more than one worker
    made_by : what decides its results: a folder with others under the same name is refused
    convention : by whose rules scores are counted
    workers : processes

    Returns
    -------
    figures : without trackers where no ground truth is public
    submission : zip file for the evaluation server; None where the ground truth is public

    Raises
    ------
    MismatchError : if there are other results under that name
    EvaluationError : if sequences could not be followed; all others were
    """
    notes = follow_all(sequences, out, name=name, make=make, made_by=made_by, workers=workers)
    keep_first_box(sequences, out)
    evaluation = score_all(sequences, out, first=name, convention=convention, notes=notes)
    hidden = [one for one in sequences if not one.scored]
    submission = write_submission(out, sequences.dataset, name, hidden) if hidden else None
    data = json.dumps(facts(evaluation), indent=1).encode()
    folder = report_folder(out, sequences.dataset, sequences.split)
    FolderSink(folder).write(SUMMARY, data)
    return evaluation, submission


def report_folder(out: Path, dataset: Dataset, split: str) -> Path:
    """Folder of summary and report of a split, below the folder of results."""
    return out / "reports" / f"{dataset}-{split}"


def boxes_of(sequences: Sequences, out: Path, name: str) -> dict[str, Float]:
    """Boxes (N,4) xyxy of a tracker by sequence, of those with results and public ground truth."""
    found = {
        one.name: read_boxes(out, sequences.dataset, name, one) for one in sequences if one.scored
    }
    return {sequence: boxes for sequence, boxes in found.items() if boxes is not None}


def follow_all(
    sequences: Sequences,
    out: Path,
    *,
    name: str,
    make: Callable[[], Tracker],
    made_by: Mapping[str, str],
    workers: int = 1,
) -> tuple[str, ...]:
    """Follow with one tracker what it has not followed yet; see `evaluate`. Returns notes."""
    if check_tracker_name(name) == KEEP_FIRST_BOX:
        raise DataError(f"--name {name}: this is the name of the floor, choose another")
    entrant = Entrant(name=name, make=make, made_by=made_by)
    title = f"{name} on {sequences.dataset}"
    found = follow_missing(sequences, out, [entrant], workers=workers, title=title)
    if found.failures:
        failures = sorted((one.sequence, one.error) for one in found.failures)
        raise EvaluationError(_failed(failures, len(sequences)))
    return found.notes


def _failed(failures: list[tuple[str, str]], count: int) -> str:
    lines = [f"  {name}: {error}" for name, error in failures[:SHOWN_FAILURES]]
    if len(failures) > SHOWN_FAILURES:
        lines.append(f"  and {len(failures) - SHOWN_FAILURES} more")
    return "\n".join(
        [
            f"{len(failures)} of {count} sequences failed, so there are no figures; the others are "
            "kept, the same command goes on with these:",
            *lines,
        ]
    )


def score_all(
    sequences: Sequences,
    out: Path,
    *,
    first: str,
    convention: Convention,
    notes: tuple[str, ...] = (),
) -> Evaluation:
    """Score the result files of every tracker that has them for all these sequences.

    Parameters
    ----------
    sequences : those without public ground truth are left out
    out : folder of results
    first : tracker that comes first; the floor comes last, the others by AUC
    convention : by whose rules
    notes : that come before those found here
    """
    scored = [one for one in sequences if one.scored]
    data = {one.name: data_fingerprint(one) for one in scored}
    by = rules(convention, sequences.dataset)
    notes = (*sequences.notes, *notes)
    if len(scored) < len(sequences):
        notes = (
            *notes,
            f"{len(sequences) - len(scored)} sequences are not scored: their ground truth is not "
            "public, send the zip file to the evaluation server",
        )
    trackers: list[TrackerScore] = []
    for name in trackers_in(out, sequences.dataset) if scored else []:
        try:
            results = _results(scored, data, sequences.dataset, out, name)
        except DataError as error:
            if name == first:
                raise
            notes = (*notes, f"{name} is not in the table: {error}")
            continue
        own = tuple(score_sequence(one, boxes, by, times) for one, (boxes, times) in results)
        if not any(one.score.frames for one in own):
            notes = (*notes, f"{name} is not in the table: no frame counts by these rules")
            continue
        figures = total([one.score for one in own], by)
        trackers.append(TrackerScore(tracker=name, total=figures, sequences=own))
    trackers.sort(
        key=lambda one: (
            one.tracker != first,
            one.tracker == KEEP_FIRST_BOX,
            -one.total.auc,
            one.tracker,
        )
    )
    return Evaluation(
        dataset=sequences.dataset,
        split=sequences.split,
        convention=convention,
        trackers=tuple(trackers),
        notes=notes,
    )


_Result = tuple[VideoSequence, tuple[np.ndarray[Any, Any], np.ndarray[Any, Any] | None]]


def _results(
    scored: list[VideoSequence], data: Mapping[str, str], dataset: Dataset, out: Path, name: str
) -> list[_Result]:
    """Boxes and times of a tracker on all sequences.

    Raises
    ------
    DataError : if one is missing, malformed, or made from other data
    """
    ledger = read_ledger(out, dataset, name)
    found: list[_Result] = []
    missing = []
    for one in scored:
        path = result_path(out, dataset, name, one.name)
        boxes = read_boxes(out, dataset, name, one)
        if boxes is None or (ledger is not None and not ledger.has(one, path, data[one.name])):
            missing.append(one.name)
            continue
        found.append((one, (boxes, read_seconds(out, dataset, name, one))))
    if missing:
        raise DataError(
            f"no results of this data for {len(missing)} of {len(scored)} sequences, "
            f"{missing[0]} the first"
        )
    return found
