"""Pack a raw data set: plan, pack what is not packed yet, finish. Safe to run again at any time."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

from packer import output
from packer.demo import MARKER, demo_sequences
from packer.draft import EVERYTHING, Draft, Progress, draft, silent
from packer.filters import Filters
from packer.jobs import Job, PackOptions
from packer.report import Report
from packer.select import Tally
from packer.sequence import REASONS, DataSet, Problem
from packer.share import Share
from packer.source import Source, open_source
from packer.workers import Work, run_jobs
from shards.errors import DataError, one_line
from shards.finish import finish
from shards.format import Manifest
from shards.plan import Plan
from shards.sink import FolderSink, Sink, sink_of
from shards.writer import forget_parts, load_parts

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
    out: Path | Sink,
    options: PackOptions,
    *,
    workers: int | None = None,
    on_error: OnError = "fail",
    dry_run: bool = False,
    executor: Executor | None = None,
    progress: Progress = silent,
    filters: Filters = EVERYTHING,
    share: Share | None = None,
) -> Report:
    """Pack a raw data set into a folder or bucket of shards, or go on with it.

    The same input, options and library versions give the same bytes, with any number of workers, in
    one go or resumed.

    Parameters
    ----------
    dataset : a data set of `packer.datasets`
    root : its raw folder
    out : place of the shards; new, empty, or begun with the same options and input
    options : what to pack
    workers : processes; by default one a core. Of an executor: how many jobs it runs at a time
    on_error : ``fail`` lists all that is malformed; ``skip`` leaves it out frame by frame, counted
    dry_run : plan and report, write nothing
    executor : packs the jobs in place of processes of our own; must see the same paths
    progress : opens a display of what is counted, its unit and its total
    filters : which sequences and classes
    share : pack only these shards, beside other jobs, and write neither index nor manifest, for
        `shards.finish.finish_place` to do

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
    source = _opened(root if executor is None else root.absolute(), dataset)
    facts = {**asdict(options), **dataset.options(), **filters.facts()}
    drafted = draft(dataset, source, options, progress, filters)
    if drafted.problems and not skip:
        raise Malformed(
            f"{_many(len(drafted.problems), 'problem')} in the annotations below {root}; nothing "
            "was written. Repair them, or leave the frames out with --on-error skip",
            drafted.problems,
        )
    if not drafted.jobs:
        raise DataError(_nothing_left(drafted.tally, root))
    _check_no_mixture(root, drafted)
    unreadable: list[Problem] = []
    jobs = drafted.jobs if share is None else tuple(share.pick(drafted.jobs))
    report = Report.planned(dataset.NAME, str(out), options, replace(drafted, jobs=jobs))
    if not dry_run:
        sink = sink_of(out)
        if executor is not None and isinstance(sink, FolderSink):
            sink = FolderSink(sink.folder.absolute())  # workers need not be in the same folder
        own = _plan(dataset, options, facts, drafted)
        with output.claim(sink, own, together=share is not None) as planned:
            works = _left(jobs, source, sink, options, planned, skip)
            rate, unreadable = _work(works, workers or _cores(), executor, progress, skip)
            manifest = _ended(sink, planned if share is None else None)
        if manifest is not None:
            resumed = len(drafted.jobs) - len(works)
            report = Report.packed(str(out), manifest, options.quality, rate, resumed)
        else:
            sizes = sink.sizes()
            size = sum(sizes.get(job.shard, 0) for job in jobs)
            report = report.of_job(str(share), size, rate, len(jobs) - len(works))
    if skip:
        report = report.with_causes([*drafted.problems, *unreadable])
    return replace(report, seconds=round(time.monotonic() - start_s, 3))


def _ended(sink: Sink, planned: Plan | None) -> Manifest | None:
    """Manifest of a complete place; of another, after finishing it by a plan, if one is given."""
    manifest = output.finished(sink)
    if planned is not None:
        manifest = manifest or finish(sink, planned)
        output.tidy(sink)
    return manifest


def _check_no_mixture(root: Path, drafted: Draft) -> None:
    """Refuse to pack drawings together with real sequences."""
    demo = demo_sequences(root)
    real = sorted({clip.sequence for job in drafted.jobs for clip in job.clips} - (demo or set()))
    if demo is not None and real:
        raise DataError(
            f"{root} holds demo sequences ({MARKER}) beside others ({real[0]}): move the real ones "
            "to a folder of their own, or delete the demo's"
        )


def _opened(root: Path, dataset: DataSet) -> Source:
    if not root.exists():
        raise DataError(
            f"raw folder {root} does not exist: expected {dataset.LAYOUT}; give it with --root "
            f"(default data/raw/{dataset.NAME}), or its parent as SIAMSTREAM_RAW, or make demo "
            "data with 'python -m packer demo'"
        )
    return open_source(root)


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def _many(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _nothing_left(tally: Tally, root: Path) -> str:
    reasons = ", ".join(f"{reason} {count:,}" for reason, count in tally.rejected.items())
    return f"{root}: no frame is left to pack; rejected: {reasons or 'none, there are no frames'}"


def _plan(dataset: DataSet, options: PackOptions, facts: Mapping[str, Any], drafted: Draft) -> Plan:
    """All that is known before the first picture is opened."""
    return Plan(
        name=dataset.NAME,
        options=facts,
        input=drafted.fingerprint,
        versions=output.versions(),
        grid=options.grid,
        crop_size=options.size,
        quality=options.quality,
        stride=options.stride,
        shards=len(drafted.jobs),
        reasons=REASONS,
        rejected=drafted.tally.rejected,
        rejected_examples=drafted.tally.rejected_examples,
        missing=drafted.missing,
        notes=drafted.notes,
    )


def _left(
    jobs: Sequence[Job],
    source: Source,
    sink: Sink,
    options: PackOptions,
    planned: Plan,
    skip: bool,
) -> list[Work]:
    """Jobs whose shards are not complete; none in a complete place.

    A shard that was packed without its unreadable pictures is no complete one for ``fail``.
    """
    if output.finished(sink) is not None:
        return []
    left, outdated = [], []
    parts = load_parts(sink, [job.shard for job in jobs])
    for job, part in zip(jobs, parts, strict=True):
        if part is not None and "unreadable" in part.facts["rejected"] and not skip:
            outdated.append(job.shard)
            part = None
        if part is None:
            left.append(job)
    forget_parts(sink, outdated)  # what is written anew may have the same size
    return [
        Work(
            job=job,
            source=source,
            out=sink,
            size=options.size,
            quality=options.quality,
            grid=options.grid,
            skip=skip,
            versions=planned.versions,
        )
        for job in left
    ]


def _work(
    works: Sequence[Work],
    workers: int,
    executor: Executor | None,
    progress: Progress,
    skip: bool,
) -> tuple[float, list[Problem]]:
    """Pack the jobs that are left; frames packed a second, and unreadable pictures left out.

    Raises
    ------
    Malformed : after all jobs, if pictures were unreadable and are not to be left out
    """
    if not works:
        return 0.0, []
    frames = sum(work.job.frames for work in works)
    problems: list[Problem] = []
    start_s = time.monotonic()
    with progress("packing", "frames", frames) as shown:
        for outcome in run_jobs(works, workers, executor, shown.update):
            problems.extend(outcome.unreadable)
    problems.sort()
    if problems and not skip:
        raise Malformed(
            f"{_many(len(problems), 'picture')} cannot be read; shards without such are complete "
            "and kept. Repair them and run the same command again, or leave them out with "
            "--on-error skip",
            problems,
        )
    return round(frames / max(time.monotonic() - start_s, 1e-9), 1), problems
