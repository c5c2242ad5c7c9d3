"""Pack a raw data set: plan, pack what is not packed yet, finish. Safe to run again at any time."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Literal

from packer import output
from packer.draft import Draft, Progress, draft, silent
from packer.jobs import PackOptions
from packer.report import Report
from packer.select import Tally
from packer.sequence import DataSet, Problem
from packer.source import FolderSource, Source
from packer.workers import Work, run_jobs
from shards.errors import DataError, one_line
from shards.format import Manifest
from shards.index import Part
from shards.writer import finish, load_part

__all__ = ["Malformed", "OnError", "pack"]

OnError = Literal["fail", "skip"]
SHOWN_PROBLEMS = 1000


class Malformed(DataError):
    """Raw data are malformed: a sentence, then every problem on a line of its own.

    Parameters
    ----------
    headline : what follows from it, and what to do
    problems : all that were found; the first 1,000 are spelt out
    """

    def __init__(self, headline: str, problems: Sequence[Problem]) -> None:
        lines = [f"{headline}:"]
        lines += [f"  {one_line(Exception(str(one)))}" for one in problems[:SHOWN_PROBLEMS]]
        if len(problems) > SHOWN_PROBLEMS:
            lines.append(f"  and {len(problems) - SHOWN_PROBLEMS:,} more")
        super().__init__("\n".join(lines))
        self.problems = tuple(problems)


def pack(
    dataset: DataSet,
    root: Path,
    out: Path,
    options: PackOptions,
    *,
    workers: int | None = None,
    on_error: OnError = "fail",
    dry_run: bool = False,
    executor: Executor | None = None,
    progress: Progress = silent,
) -> Report:
    """Pack a raw data set into a folder of shards, or go on with it.

    The same input, options and library versions give the same bytes, with any number of workers, in
    one go or resumed.

    Parameters
    ----------
    dataset : module of `packer.datasets`
    root : its raw folder
    out : folder of the shards; new, empty, or begun with the same options and input
    options : what to pack
    workers : processes; by default one a core
    on_error : ``fail`` lists all that is malformed; ``skip`` leaves it out frame by frame, counted
    dry_run : plan and report, write nothing
    executor : packs the jobs in place of processes of our own; must see the same paths
    progress : opens a display of what is counted, its unit and its total

    Raises
    ------
    Malformed : if the input is malformed and `on_error` is ``fail``
    DataError : if there is nothing to pack
    MismatchError : if `out` holds something else
    StorageError : if `out` is in use or cannot be written
    SiamstreamError : if a worker process dies
    """
    start_s = time.monotonic()
    skip = on_error == "skip"
    source = FolderSource(_checked(root, dataset))
    drafted = draft(dataset, source, options, progress)
    if drafted.problems and not skip:
        raise Malformed(
            f"{_many(len(drafted.problems), 'problem')} in the annotations below {root}; nothing "
            "was written. Repair them, or leave the frames out with --on-error skip",
            drafted.problems,
        )
    if not drafted.jobs:
        raise DataError(_nothing_left(drafted.tally, root))
    if dry_run:
        report = Report.planned(dataset.NAME, str(out), options, drafted)
    else:
        with output.claim(out, dataset.NAME, asdict(options), drafted.fingerprint):
            works = _left(drafted, source, out, options, skip)
            rate = _work(works, workers or _cores(), executor, progress)
            manifest = output.finished(out) or _finish(dataset, out, options, drafted)
            output.tidy(out)
        resumed = len(drafted.jobs) - len(works)
        report = Report.packed(str(out), manifest, options.quality, rate, resumed)
    return replace(report, seconds=round(time.monotonic() - start_s, 3))


def _checked(root: Path, dataset: DataSet) -> Path:
    if not root.is_dir():
        what = "is a file" if root.exists() else "does not exist"
        raise DataError(
            f"raw folder {root} {what}: expected {dataset.LAYOUT}; give it with --root (default "
            f"data/raw/{dataset.NAME}), or its parent as SIAMSTREAM_RAW, or make demo data with "
            "'python -m packer demo'"
        )
    return root


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def _many(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _nothing_left(tally: Tally, root: Path) -> str:
    reasons = ", ".join(f"{reason} {count:,}" for reason, count in tally.rejected.items())
    return f"{root}: no frame is left to pack; rejected: {reasons or 'none, there are no frames'}"


def _left(
    drafted: Draft, source: Source, out: Path, options: PackOptions, skip: bool
) -> list[Work]:
    """Jobs whose shards are not complete on disk; none in a complete folder.

    A shard that was packed without its unreadable pictures is no complete one for ``fail``.
    """
    if output.finished(out) is not None:
        return []
    works = []
    for job in drafted.jobs:
        part = load_part(out, job.shard)
        if part is None or ("unreadable" in part.facts["rejected"] and not skip):
            works.append(
                Work(
                    job=job,
                    source=source,
                    out=out,
                    size=options.size,
                    quality=options.quality,
                    grid=options.grid,
                    skip=skip,
                )
            )
    return works


def _work(
    works: Sequence[Work],
    workers: int,
    executor: Executor | None,
    progress: Progress,
) -> float:
    """Pack the jobs that are left; frames packed a second.

    Raises
    ------
    Malformed : after all jobs, if pictures were unreadable and are not to be left out
    """
    if not works:
        return 0.0
    frames = sum(work.job.frames for work in works)
    problems: list[Problem] = []
    start_s = time.monotonic()
    with progress("packing", "frames", frames) as shown:
        for outcome in run_jobs(works, workers, executor, shown.update):
            problems.extend(outcome.unreadable)
    if problems:
        raise Malformed(
            f"{_many(len(problems), 'picture')} cannot be read; shards without such are complete "
            "and kept. Repair them and run the same command again, or leave them out with "
            "--on-error skip",
            sorted(problems),
        )
    return round(frames / max(time.monotonic() - start_s, 1e-9), 1)


def _finish(dataset: DataSet, out: Path, options: PackOptions, drafted: Draft) -> Manifest:
    """Write index and manifest from the parts of all shards."""
    parts: list[Part] = []
    tally = Tally()
    tally.add_facts(drafted.tally.facts())
    for job in drafted.jobs:
        part = load_part(out, job.shard)
        if part is None:
            raise DataError(
                f"{out / job.shard} changed while it was packed; run the same command again"
            )
        tally.add_facts(part.facts)
        parts.append(part)
    if not any(part.info.frames for part in parts):
        raise DataError(_nothing_left(tally, out))
    return finish(
        out,
        parts,
        name=dataset.NAME,
        grid=options.grid,
        crop_size=options.size,
        quality=options.quality,
        stride=options.stride,
        options=asdict(options),
        versions=output.versions(),
        rejected=tally.rejected,
        rejected_examples=tally.examples,
        missing=drafted.missing,
        notes=drafted.notes,
    )
