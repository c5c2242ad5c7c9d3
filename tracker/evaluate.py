"""Evaluate trackers on a data set: follow what is not followed yet, then score the result files.

A run that was killed goes on where it was: a sequence whose result is whole, and made by the same
checkpoint and settings from the same data, is not followed again. All trackers with results in the
folder are in the table, and "keep the first box" always is.
"""

from __future__ import annotations

import collections.abc
import json
import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from configs import strict
from shards.console import counter
from shards.errors import DataError, MismatchError, SiamstreamError
from shards.geometry import Float
from shards.sink import FolderSink
from tracker.evaluation_text import facts
from tracker.ledger import data_fingerprint, opened, read_ledger
from tracker.metrics import rules, score_sequence, total
from tracker.onepass import KEEP_FIRST_BOX, Job, Run, run_jobs, run_sequence
from tracker.results import (
    check_tracker_name,
    read_boxes,
    read_seconds,
    result_bytes,
    result_path,
    trackers_in,
    write_result,
    write_submission,
)
from tracker.scores import Evaluation, TrackerScore
from tracker.sequences import Convention, Dataset, Sequences, VideoSequence

if TYPE_CHECKING:  # they import torch
    from tracker.config import ModelConfig
    from tracker.follow import Tracker

__all__ = [
    "Entrant",
    "EvaluationError",
    "FromCheckpoint",
    "Opened",
    "boxes_of",
    "default_name",
    "evaluate",
    "facts",
    "follow_all",
    "follow_missing",
    "keep_first_box",
    "open_checkpoint",
    "report_folder",
    "run_sequence",
    "score_all",
    "score_sequence",
]

SUMMARY = "evaluation.json"
SHOWN_FAILURES = 20


class EvaluationError(SiamstreamError):
    """Sequences could not be followed; the others were."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FromCheckpoint:
    """Makes the tracker of a checkpoint, in any process.

    Parameters
    ----------
    path : as `tracker.files.open_model` takes it
    overrides : of settings, ``track.match.window=0.3``
    device : ``cpu`` or ``cuda``
    sha256 : of the file, which must not change while sequences are followed
    """

    path: Path
    overrides: tuple[str, ...]
    device: str
    sha256: str

    def __call__(self) -> Tracker:
        """Open the checkpoint; one CPU thread, with which results do not depend on the machine."""
        import cv2
        import torch

        from tracker.files import open_model
        from tracker.follow import make_tracker

        torch.set_num_threads(1)
        cv2.setNumThreads(1)
        found = open_model(self.path, self.overrides)
        if found.sha256 != self.sha256:
            raise MismatchError(f"{self.path}: has changed since the evaluation began; copy it")
        return make_tracker(found.model, device=self.device)


class Opened(NamedTuple):
    """A checkpoint that can be followed with: `make`, what decides its results, good `workers`."""

    make: FromCheckpoint
    made_by: dict[str, str]
    workers: int
    config: ModelConfig


def open_checkpoint(path: Path, overrides: tuple[str, ...], device: str) -> Opened:
    """Open a checkpoint once, to know that it is sound and what it is.

    Parameters
    ----------
    path, overrides : as `tracker.files.open_model` takes them
    device : ``auto``, ``cpu`` or ``cuda``

    Raises
    ------
    SiamstreamError, ConfigError : as `tracker.files.open_model` does, or if there is no such device
    """
    from tracker.files import open_model
    from tracker.follow import torch_device

    where = torch_device(device)
    found = open_model(path, overrides)
    track = strict.flat(strict.dump(found.config.track))
    return Opened(
        FromCheckpoint(path=path, overrides=overrides, device=str(where), sha256=found.sha256),
        {
            "checkpoint": found.sha256,
            "device": where.type,  # CPU and GPU round differently
            **{f"track.{key}": str(value) for key, value in track.items()},
        },
        len(os.sched_getaffinity(0)) if where.type == "cpu" else 1,
        found.config,
    )


def default_name(checkpoint: Path) -> str:
    """Name of a tracker: that of its file, or of the run that ``latest.pth`` is of.

    That of ``best.pth`` says so, as it is another tracker: ``run-best``.
    """
    path = checkpoint.absolute()
    of_run = {"latest.pth": path.parent.name, "best.pth": f"{path.parent.name}-best"}
    return of_run.get(path.name, path.stem)


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


@dataclass(frozen=True, kw_only=True, slots=True)
class Entrant:
    """A tracker to follow with: ``name`` of its results, what makes it, what decides them."""

    name: str
    make: Callable[[], Tracker]
    made_by: Mapping[str, str]


class Failure(NamedTuple):
    """A sequence that an entrant could not follow, and why."""

    entrant: str
    sequence: str
    error: str


class Followed(NamedTuple):
    """What became of the runs: how many were begun, which failed, notes if none did."""

    begun: int
    failures: list[Failure]
    notes: tuple[str, ...]


def follow_missing(
    sequences: Sequences,
    out: Path,
    entrants: collections.abc.Sequence[Entrant],
    *,
    workers: int,
    title: str,
    planned: Callable[[list[tuple[Entrant, VideoSequence]]], None] = lambda _: None,
    ended: Callable[[int], None] = lambda _: None,
) -> Followed:
    """Write the result files that are not there yet, with a line in the ledger for each.

    Parameters
    ----------
    sequences : of a data set
    out : folder of results
    entrants : one after another, each with the longest sequence first
    workers : processes
    title : of the progress
    planned : called with all runs to come before the first begins
    ended : called with the position of each run that ended

    Raises
    ------
    MismatchError : if there are other results under the name of an entrant
    """
    dataset, failures = sequences.dataset, []
    data = {one.name: data_fingerprint(one) for one in sequences}
    longest_first = sorted(sequences, key=lambda one: -len(one.frames))
    with ExitStack() as stack:
        ledgers = {
            one.name: stack.enter_context(opened(out, dataset, one.name, one.made_by))
            for one in entrants
        }
        todo = [
            (one, sequence)
            for one in entrants
            for sequence in longest_first
            if not ledgers[one.name].has(
                sequence, result_path(out, dataset, one.name, sequence.name), data[sequence.name]
            )
        ]
        planned(todo)
        jobs = [Job(one.make, sequence) for one, sequence in todo]
        with counter(title, "frames", sum(len(one.frames) for _, one in todo)) as shown:
            for position, outcome in run_jobs(jobs, workers, shown.update):
                name, sequence = todo[position][0].name, todo[position][1]
                ended(position)
                if outcome.run is None:
                    failures.append(Failure(name, outcome.name, outcome.error))
                    continue
                result = write_result(out, dataset, name, sequence, outcome.run)
                ledgers[name].add(sequence.name, data[sequence.name], result, outcome.notes)
        # What frames look like is the same for all entrants.
        done = {} if failures else ledgers[entrants[0].name].done
        notes = tuple(n for one in sequences if done for n in done[one.name]["notes"])
        return Followed(len(todo), failures, notes)


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
    entrant, title = (
        Entrant(name=name, make=make, made_by=made_by),
        f"{name} on {sequences.dataset}",
    )
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


def keep_first_box(sequences: Sequences, out: Path) -> None:
    """Write the results of the floor; pictures are not needed for that."""
    for sequence in sequences:
        count = len(sequence.frames)
        run = Run(np.repeat(sequence.boxes[:1], count, axis=0), np.zeros(count))
        path = result_path(out, sequences.dataset, KEEP_FIRST_BOX, sequence.name)
        if not path.is_file() or path.read_bytes() != result_bytes(run, sequence.origin):
            write_result(out, sequences.dataset, KEEP_FIRST_BOX, sequence, run)


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
