"""All that is known before a picture is opened: annotations read, frames chosen, shards planned."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from collections.abc import Sequence as Items
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Protocol

from packer.filters import Filters, classes_of
from packer.jobs import Clip, Fingerprint, Job, PackOptions, clip_of, plan
from packer.select import Tally, select
from packer.sequence import DataSet, Found, Problem
from packer.source import Source

__all__ = ["EVERYTHING", "Counter", "Draft", "Progress", "draft", "silent"]

EVERYTHING = Filters()
UNKNOWN = ("", "unknown")


class Counter(Protocol):
    """Shows how much of a phase is done."""

    def update(self, done: int) -> None:
        """Say how much is done in all."""


Progress = Callable[[str, str, int], AbstractContextManager[Counter]]  # what, unit, total


class _Silent:
    def update(self, done: int) -> None:
        """Show nothing."""


@contextmanager
def silent(what: str, unit: str, total: int) -> Iterator[Counter]:  # noqa: ARG001
    """Progress that is not shown."""
    yield _Silent()


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Draft:
    """A planned data set.

    Attributes
    ----------
    jobs : one for every shard, in order
    fingerprint : SHA-256 of the input
    tally : frames rejected by their annotations
    missing, notes : for the report and the manifest
    problems : all that is malformed
    sequences : read
    """

    jobs: tuple[Job, ...]
    fingerprint: str
    tally: Tally
    missing: tuple[str, ...]
    notes: tuple[str, ...]
    problems: tuple[Problem, ...]
    sequences: int

    @property
    def frames(self) -> int:
        """Frames planned."""
        return sum(job.frames for job in self.jobs)

    @property
    def tracks(self) -> int:
        """Tracks planned."""
        tracks = {
            (clip.sequence, clip.track): clip.tracks for job in self.jobs for clip in job.clips
        }
        return sum(tracks.values())

    @property
    def kept_sequences(self) -> int:
        """Sequences planned."""
        return len({clip.sequence for job in self.jobs for clip in job.clips})

    @property
    def categories(self) -> int:
        """Classes planned."""
        return len({name for job in self.jobs for clip in job.clips for name in clip.categories})


class _Reading:
    """State of one pass over the sequences; only the kept frames of each stay in memory."""

    def __init__(self) -> None:
        self.fingerprint = Fingerprint()
        self.tally = Tally()
        self.problems: list[Problem] = []
        self.noted: dict[str, list[str]] = {}
        self.classes: set[str] = set()
        self.sequences = 0

    def clips(
        self,
        dataset: DataSet,
        source: Source,
        found: Items[Found],
        options: PackOptions,
        filters: Filters,
        tell: Callable[[int], None],
    ) -> Iterator[Clip]:
        for number, one in enumerate(found):
            sequence = dataset.read(source, one)
            self.classes.update(classes_of(sequence))
            if not filters.admits_read(sequence):
                if sequence.category in UNKNOWN:  # malformed perhaps in what names its class
                    self.problems.extend(sequence.problems)
                tell(number + 1)
                continue
            selection = select(
                sequence,
                stride=options.stride,
                min_size=options.min_size,
                min_exclusive=dataset.MIN_EXCLUSIVE,
                inclusive=options.inclusive_boxes,
                categories=filters.categories,
            )
            self.sequences += 1
            self.fingerprint.add(sequence, selection)
            self.tally.add_selection(sequence, selection)
            self.problems.extend(sequence.problems)
            for note in sequence.notes:
                self.noted.setdefault(note, []).append(sequence.name)
            yield clip_of(sequence, selection)
            tell(number + 1)
            if self.sequences == options.limit:
                break

    def notes(self) -> Iterator[str]:
        for note, names in sorted(self.noted.items()):
            example = names[0] if len(names) == 1 else f"{len(names)} sequences, first {names[0]}"
            yield f"{note} ({example})"


def draft(
    dataset: DataSet,
    source: Source,
    options: PackOptions,
    progress: Progress,
    filters: Filters = EVERYTHING,
) -> Draft:
    """Read all annotations of a raw tree and plan its shards.

    Parameters
    ----------
    dataset : a data set of `packer.datasets`
    source : the raw tree
    options : which frames, and how many a shard
    progress : opens a display of what is counted, its unit and its total
    filters : which sequences and classes

    Raises
    ------
    DataError : if there are no sequences to plan; malformed ones are in `Draft.problems`
    """
    survey = dataset.survey(source, options.split)
    reading = _Reading()
    for reason, name in survey.rejected:
        reading.tally.add_entry(reason, name)
    reading.classes.update(one.category for one in survey.found)
    found = [one for one in survey.found if filters.admits(one)]
    total = min(len(found), options.limit or len(found))
    with progress("annotations", "sequences", total) as shown:
        clips = reading.clips(dataset, source, found, options, filters, shown.update)
        jobs = plan(dataset.NAME, clips, options.frames_per_shard)
    return Draft(
        jobs=tuple(jobs),
        fingerprint=reading.fingerprint.hexdigest(),
        tally=reading.tally,
        missing=filters.missing(survey.found, survey.missing),
        notes=(
            *survey.notes,
            *filters.notes(survey.found, reading.classes),
            *reading.notes(),
        ),
        problems=(*survey.problems, *reading.problems),
        sequences=reading.sequences,
    )
