"""Old zips of crops to shards: the pictures byte for byte, the annotations as they are.

The crops were made by others; `shards.legacy` tells what their files hold. Every picture is decoded
once to see whether it can be, in threads (libjpeg-turbo lets the interpreter go); its bytes are
what is written.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections import Counter as Tallied
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from annotated_types import Interval

from packer import output
from packer.draft import Counter, Progress, silent
from packer.jobs import share_out
from packer.report import Report
from packer.run import Malformed, OnError
from packer.select import MIN_FRAMES, Tally
from packer.sequence import REASONS, Problem
from packer.source import Source, open_source
from shards import pixels
from shards.crop_files import FolderCrops, ZipCrops
from shards.errors import DataError, StorageError
from shards.finish import finish
from shards.format import Kind, Sample, check_dataset_name, shard_name
from shards.geometry import Grid
from shards.in_place import UNKNOWN_SOURCE
from shards.legacy import LEGACY_CATEGORIES, Comment, existing, open_legacy
from shards.legacy_tracks import LegacyTrack, choose, tracks_of
from shards.plan import Plan
from shards.sink import Sink, sink_of
from shards.writer import forget_parts, load_parts, write_shard
from shards.zip_members import comment

__all__ = ["LegacyOptions", "pack_legacy"]

_AHEAD = 64  # crops read before their turn
_FIRST = 32  # crops that tell the size


@dataclass(frozen=True, kw_only=True, slots=True)
class LegacyOptions:
    """What is not in the old files.

    Attributes
    ----------
    dataset : name
    grid : of the crops; None: what the zip's comment says, else ``corner``, as published
    kind : None: ``image`` where no track has a second frame, else ``video``
    frames_per_shard : 4 or more, so that a split track leaves every shard two frames
    """

    dataset: str
    grid: Grid | None = None
    kind: Kind | None = None
    frames_per_shard: Annotated[int, Interval(ge=4, le=1_000_000)] = 4096

    def __post_init__(self) -> None:
        check_dataset_name(self.dataset)
        if not 4 <= self.frames_per_shard <= 1_000_000:
            raise ValueError(f"frames_per_shard must be 4 to 1000000, got {self.frames_per_shard}")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Piece:
    """Rows of a track that go into one shard."""

    track: LegacyTrack
    rows: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows)

    def part(self, start: int, stop: int) -> _Piece:
        """Rows ``start`` to ``stop - 1``."""
        return _Piece(track=self.track, rows=self.rows[start:stop])


class _Unreadable(Exception):
    """Ends the writing of a shard that is not to be kept."""


@dataclass(kw_only=True, slots=True, eq=False)
class _Copier:
    """Makes the samples of shards; crops are read and checked ahead, in threads.

    Attributes
    ----------
    source, crops : where the crops are
    kind, side_px : of all of them
    skip : leave unreadable ones out; else they are collected, and the shard is not kept
    pool : reads
    shown, done : progress
    """

    source: Source
    crops: ZipCrops | FolderCrops
    kind: Kind
    side_px: int
    skip: bool
    pool: ThreadPoolExecutor
    shown: Counter
    done: int = 0
    tally: Tally = field(default_factory=Tally)
    unreadable: list[Problem] = field(default_factory=list)

    def samples(self, pieces: Sequence[_Piece]) -> Iterator[tuple[Sample, bytes]]:
        """Samples of a shard; the first of a video track is held back until there is a second.

        Raises
        ------
        _Unreadable : after the last, if some cannot be used and are not to be left out
        """
        self.tally, before = Tally(), len(self.unreadable)
        reading = self._read_ahead(pieces)
        for piece in pieces:
            held: list[tuple[int, bytes]] = []
            kept = 0
            for row in piece.rows.tolist():
                data = next(reading)
                self.done += 1
                self.shown.update(self.done)
                if isinstance(data, Problem):
                    self.unreadable.append(data)
                    self._leave_out("unreadable", piece.track, row)
                    continue
                held.append((row, data))
                kept += 1
                if self.kind == "image" or kept >= MIN_FRAMES:
                    for at, jpeg in held:
                        yield piece.track.sample(at, self.kind), jpeg
                    held = []
            for at, _ in held:
                self._leave_out("short_track", piece.track, at)
        if len(self.unreadable) > before and not self.skip:
            raise _Unreadable

    def _leave_out(self, reason: Any, track: LegacyTrack, row: int) -> None:
        self.tally.add(reason, track.sequence, track.frame(row), track.picture(row))

    def _read_ahead(self, pieces: Sequence[_Piece]) -> Iterator[bytes | Problem]:
        pending: deque[Future[bytes | Problem]] = deque()
        for piece in pieces:
            for row in piece.rows.tolist():
                pending.append(self.pool.submit(self._read, piece.track.picture(row)))
                if len(pending) > _AHEAD:
                    yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()

    def _read(self, name: str) -> bytes | Problem:
        try:
            data = self.source.read(self.crops.path_of(name))
            if not pixels.header(data).plain_jpeg:
                raise ValueError("no JPEG of grey or RGB")
            height, width = pixels.decode(data).shape[:2]
        except (ValueError, DataError) as error:
            return Problem(name, str(error))
        if height != self.side_px or width != self.side_px:
            side = self.side_px
            return Problem(name, f"{width}x{height} pixels, most crops have {side}x{side}")
        return data


def pack_legacy(
    path: Path,
    annotations: Path,
    out: Path | Sink,
    options: LegacyOptions,
    *,
    workers: int | None = None,
    on_error: OnError = "fail",
    dry_run: bool = False,
    progress: Progress = silent,
) -> Report:
    """Copy old crops into a folder of shards, or go on with it.

    Parameters
    ----------
    path : zip (members stored or deflated, in any folder) or folder of crops
    annotations : its ``_clean.pkl``
    out : place of the shards; new, empty, or begun with the same options and input
    options : what the old files do not say
    workers : threads that decode; by default one a core
    on_error : ``fail`` lists all that is malformed or missing; ``skip`` leaves it out, counted
    dry_run : plan and report, write nothing
    progress : opens a display

    Raises
    ------
    Malformed : if annotations or crops are malformed or missing and `on_error` is ``fail``
    FormatError : if the pickle is refused, or the zip damaged
    DataError : if nothing is left to pack
    MismatchError : if `out` holds something else
    StorageError : if `out` is in use or cannot be written
    """
    start_s = time.monotonic()
    skip = on_error == "skip"
    path = existing(path)
    crops, facts = _opened(path)
    legacy = tracks_of(*open_legacy(annotations))
    kind = options.kind or legacy.kind
    chosen = choose(legacy, kind, crops.names)
    pieces = [_Piece(track=track, rows=chosen.rows(track)) for track in legacy.tracks]
    wanted = [legacy.pictures[frame] for frame in np.flatnonzero(chosen.kept).tolist()]
    twice = sorted(set(crops.twice) & set(wanted))
    if twice:
        raise Malformed(
            f"{path}: crops that are there twice, in two folders; repack it without the others",
            [Problem(name, "twice") for name in twice],
        )
    problems = [Problem(str(annotations), text) for text in chosen.problems]
    if problems and not skip:
        raise Malformed(
            f"{len(problems):,} problem(s) in {annotations} and {path}; nothing was written. "
            "Leave the frames out with --on-error skip",
            problems,
        )
    if not wanted:
        counted = ", ".join(f"{why} {n:,}" for why, n in chosen.left_out.counts.items())
        raise DataError(f"{path}: no crop is left to pack; left out: {counted or 'none'}")
    source = open_source(path)
    groups = share_out(pieces, options.frames_per_shard)
    tally = Tally()
    tally.add_facts({"rejected": chosen.left_out.counts, "examples": chosen.left_out.examples})
    grid = options.grid or facts.grid or "corner"
    plan = Plan(
        name=options.dataset,
        options={
            "grid": grid,
            "kind": kind,
            "frames_per_shard": options.frames_per_shard,
            LEGACY_CATEGORIES: [dict(one) for one in legacy.listed],
        },
        input=_fingerprint(annotations, crops, wanted),
        versions=output.versions(),
        grid=grid,
        crop_size=_side_px(source, crops, wanted),
        quality=facts.quality,
        stride=facts.stride,
        shards=len(groups),
        reasons=REASONS,
        rejected=tally.rejected,
        rejected_examples=tally.rejected_examples,
        missing=(),
        notes=(UNKNOWN_SOURCE,),
    )
    if dry_run:
        report = _planned(plan, str(out), pieces)
    else:
        sink = sink_of(out)
        with output.claim(sink, plan) as planned:
            left = _left(sink, planned, groups, skip)
            rate = _copy(left, sink, planned, source, crops, kind, skip, workers, progress)
            manifest = output.finished(sink) or finish(sink, planned)
            output.tidy(sink)
        resumed = len(groups) - len(left)
        report = Report.packed(str(out), manifest, manifest.quality, rate, resumed)
        report = replace(report, stride=manifest.stride)
    return replace(report, seconds=round(time.monotonic() - start_s, 3))


def _opened(path: Path) -> tuple[ZipCrops | FolderCrops, Comment]:
    """Crops, and what the zip's comment says of them."""
    try:
        if path.is_dir():
            return FolderCrops(path), Comment()
        return ZipCrops(path), Comment.from_bytes(comment(path))
    except OSError as error:
        raise StorageError(f"{path}: cannot be read: {error.strerror or error}") from error


def _fingerprint(annotations: Path, crops: ZipCrops | FolderCrops, wanted: Sequence[str]) -> str:
    try:
        with annotations.open("rb") as handle:
            digest = hashlib.file_digest(handle, "sha256").hexdigest()
        return hashlib.sha256((digest + crops.state(wanted)).encode()).hexdigest()
    except OSError as error:
        raise StorageError(f"{crops.path}: cannot be read: {error.strerror or error}") from error


def _side_px(source: Source, crops: ZipCrops | FolderCrops, wanted: Sequence[str]) -> int:
    """Side that most of the first crops have."""
    sides: Tallied[int] = Tallied()
    for name in wanted:
        try:
            sides[pixels.header(source.read(crops.path_of(name))).width] += 1
        except (ValueError, DataError):
            continue
        if sides.total() == _FIRST:
            break
    if not sides:
        raise DataError(f"{crops.path}: not one of {len(wanted):,} crops can be read")
    return sides.most_common(1)[0][0]


def _left(
    sink: Sink, planned: Plan, groups: Sequence[list[_Piece]], skip: bool
) -> list[tuple[str, list[_Piece]]]:
    """Shards that are not complete; for ``fail`` those without their unreadable crops are not."""
    if output.finished(sink) is not None:
        return []
    names = [shard_name(planned.name, number) for number in range(len(groups))]
    left, outdated = [], []
    for name, group, part in zip(names, groups, load_parts(sink, names), strict=True):
        if part is not None and ("unreadable" not in part.facts["rejected"] or skip):
            continue
        if part is not None:
            outdated.append(name)
        left.append((name, group))
    forget_parts(sink, outdated)
    return left


def _copy(
    left: Sequence[tuple[str, list[_Piece]]],
    sink: Sink,
    planned: Plan,
    source: Source,
    crops: ZipCrops | FolderCrops,
    kind: Kind,
    skip: bool,
    workers: int | None,
    progress: Progress,
) -> float:
    """Write the shards that are left; frames a second."""
    if not left:
        return 0.0
    frames = sum(len(piece) for _, group in left for piece in group)
    threads = workers or len(os.sched_getaffinity(0))
    start_s = time.monotonic()
    with progress("packing", "frames", frames) as shown, ThreadPoolExecutor(threads) as pool:
        copier = _Copier(
            source=source,
            crops=crops,
            kind=kind,
            side_px=planned.crop_size,
            skip=skip,
            pool=pool,
            shown=shown,
        )
        try:
            for name, group in left:
                try:
                    write_shard(sink, name, copier.samples(group), lambda: copier.tally.facts())
                except _Unreadable:
                    continue  # the others are written, so that all problems are found at once
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
    if copier.unreadable and not skip:
        raise Malformed(
            f"{len(copier.unreadable):,} crop(s) cannot be used; shards without such are complete "
            "and kept. Repair them and run the same command again, or leave them out with "
            "--on-error skip",
            copier.unreadable,
        )
    return round(frames / max(time.monotonic() - start_s, 1e-9), 1)


def _planned(plan: Plan, out: str, pieces: Sequence[_Piece]) -> Report:
    """Report of a dry run."""
    return Report(
        name=plan.name,
        out=out,
        shards=plan.shards,
        frames=sum(map(len, pieces)),
        tracks=sum(map(bool, pieces)),
        sequences=len({piece.track.sequence for piece in pieces if piece}),
        categories=len({piece.track.category for piece in pieces if piece}),
        bytes=0,
        rejected=plan.rejected,
        missing=(),
        notes=plan.notes,
        stride=plan.stride,
        size=plan.crop_size,
        quality=plan.quality,
        grid=plan.grid,
        seconds=0.0,
        frames_per_s=0.0,
        resumed_shards=0,
        dry_run=True,
    )
