"""The runs of an evaluation: follow what is not followed yet, one result file after another.

A run is one sequence followed by one entrant. A result file that is whole, and made by the same
entrant from the same data, is not made again, so a run that was killed is all that is lost with it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import numpy as np

from shards.console import counter
from shards.errors import SiamstreamError
from tracker.entrants import Entrant
from tracker.ledger import data_fingerprint, opened
from tracker.onepass import KEEP_FIRST_BOX, Job, Run, run_jobs
from tracker.results import result_bytes, result_path, write_result
from tracker.sequences import Sequences, VideoSequence

__all__ = ["Done", "EvaluationError", "Failure", "follow_missing", "keep_first_box"]


class EvaluationError(SiamstreamError):
    """Sequences could not be followed; the others were."""


class Failure(NamedTuple):
    """A sequence that an entrant could not follow, and why."""

    entrant: str
    sequence: str
    error: str


class Done(NamedTuple):
    """What became of the runs: how many were begun, which failed, notes if none did."""

    begun: int
    failures: list[Failure]
    notes: tuple[str, ...]


def follow_missing(
    sequences: Sequences,
    out: Path,
    entrants: Sequence[Entrant],
    *,
    workers: int,
    title: str,
    planned: Callable[[list[tuple[Entrant, VideoSequence]]], None] = lambda _: None,
    ended: Callable[[int], None] = lambda _: None,
) -> Done:
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
        return Done(len(todo), failures, notes)


def keep_first_box(sequences: Sequences, out: Path) -> None:
    """Write the results of the floor; pictures are not needed for that."""
    for sequence in sequences:
        count = len(sequence.frames)
        run = Run(np.repeat(sequence.boxes[:1], count, axis=0), np.zeros(count))
        path = result_path(out, sequences.dataset, KEEP_FIRST_BOX, sequence.name)
        if not path.is_file() or path.read_bytes() != result_bytes(run, sequence.origin):
            write_result(out, sequences.dataset, KEEP_FIRST_BOX, sequence, run)
