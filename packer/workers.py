"""Packing jobs in this process, in worker processes, or on any other executor.

A worker lives no longer than the process that started it, leaves Ctrl-C to it, and tells it of
every frame, so that progress does not wait for whole shards.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, wait
from concurrent.futures.process import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import cv2

from packer.crop import Cropper
from packer.jobs import Job
from packer.output import versions
from packer.sequence import Problem
from packer.source import Source
from shards.errors import DataError, MismatchError, SiamstreamError
from shards.geometry import Grid
from shards.sink import Sink
from shards.writer import write_shard

__all__ = ["Outcome", "Work", "pack_shard", "run_jobs"]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Work:
    """One job with all that it takes; small and picklable.

    Attributes
    ----------
    versions : of the libraries that the plan was made for; packed with no others
    """

    job: Job
    source: Source
    out: Path | Sink
    size: int
    quality: int
    grid: Grid
    skip: bool
    versions: Mapping[str, str] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What became of a job: frames written, and pictures that were left out or kept it back."""

    shard: str
    frames: int
    unreadable: tuple[Problem, ...] = ()


class _Unreadable(Exception):
    """Ends the writing of a shard that is not to be kept."""


class _Stopped(Exception):
    """The parent process wants to end."""


class _Counter(Protocol):
    value: int

    def get_lock(self) -> Any:
        """Lock that guards the value."""


@dataclass(frozen=True, slots=True)
class _Link:
    """Shared between a pool's processes: frames done, and whether to stop."""

    frames: _Counter
    stop: Any

    def tick(self) -> None:
        with self.frames.get_lock():
            self.frames.value += 1
        if self.stop.is_set():
            raise _Stopped


def _no_tick() -> None:
    """Tell nobody; other executors report whole shards."""


_tick: Callable[[], None] = _no_tick  # of this worker process, set once when it starts


def pack_shard(work: Work, tick: Callable[[], None] | None = None) -> Outcome:
    """Pack one shard; it appears complete with its part, or not at all.

    Parameters
    ----------
    work : the job
    tick : called after every frame; by default what the worker's pool has set up

    Raises
    ------
    StorageError : if it cannot be written
    MismatchError : if this machine has other libraries than the plan was made for
    DataError : if this machine does not see the pictures at all
    """
    _check_versions(work.versions)
    cropper = Cropper(
        source=work.source,
        size=work.size,
        quality=work.quality,
        grid=work.grid,
        skip=work.skip,
        tick=tick or _tick,
    )

    def samples() -> Iterator[Any]:
        empty = True
        for sample in cropper.samples(work.job):
            empty = False
            yield sample
        if cropper.unreadable and empty:  # a disk that is not there is no unreadable picture
            _check_folders(work)
        if cropper.unreadable and not work.skip:
            raise _Unreadable

    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)  # one process a core is faster than threads inside a warp
    try:
        part = write_shard(work.out, work.job.shard, samples(), cropper.tally.facts)
    except _Unreadable:
        return Outcome(shard=work.job.shard, frames=0, unreadable=tuple(cropper.unreadable))
    finally:
        cv2.setNumThreads(threads)
    return Outcome(
        shard=work.job.shard,
        frames=part.info.frames,
        unreadable=tuple(cropper.unreadable),
    )


def _check_versions(wanted: Mapping[str, str] | None) -> None:
    here = versions()
    differ = [name for name, version in (wanted or {}).items() if here.get(name) != version]
    if differ:
        listed = ", ".join(
            f"{name} {here.get(name)}, not {(wanted or {})[name]}" for name in differ
        )
        raise MismatchError(
            f"machine {socket.gethostname()} has {listed}: its shards would have other bytes; "
            "install the same versions on all machines"
        )


def _check_folders(work: Work) -> None:
    for folder in dict.fromkeys(clip.pictures_at for clip in work.job.clips):
        try:
            work.source.list(folder)
        except DataError as error:
            raise DataError(
                f"machine {socket.gethostname()}: none of the pictures of {work.job.shard} can be "
                f"read ({error}); all machines must see the raw data at the same path"
            ) from error


def run_jobs(
    works: Sequence[Work],
    workers: int,
    executor: Executor | None,
    progress: Callable[[int], None],
) -> Iterator[Outcome]:
    """Pack shards and give their outcomes as they come.

    Parameters
    ----------
    works : jobs
    workers : processes; 1 packs in this one. Twice as many jobs are handed to an executor at once
    executor : used in place of processes of our own if given, and left open
    progress : called with the frames done

    Raises
    ------
    SiamstreamError : if a worker process dies
    StorageError : if a shard cannot be written
    """
    workers = min(workers, len(works))
    if executor is not None:
        yield from _collect(works, executor, 2 * workers, progress, None)
    elif workers > 1:
        with _pool(workers) as (pool, link):
            yield from _collect(works, pool, 2 * workers, progress, link)
    else:
        done = 0

        def tick() -> None:
            nonlocal done
            done += 1
            progress(done)

        for work in works:
            yield pack_shard(work, tick)


@contextmanager
def _pool(workers: int) -> Iterator[tuple[Executor, _Link]]:
    """Worker processes that stop within a frame when the block is left by an exception."""
    context = multiprocessing.get_context("spawn")
    link = _Link(context.Value("q", 0), context.Event())
    pool = ProcessPoolExecutor(
        workers, mp_context=context, initializer=_start_worker, initargs=(link,)
    )
    try:
        yield pool, link
    except BaseException:
        link.stop.set()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _start_worker(link: _Link) -> None:
    global _tick
    _tick = link.tick
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)


def _collect(
    works: Sequence[Work],
    executor: Executor,
    window: int,
    progress: Callable[[int], None],
    link: _Link | None,
) -> Iterator[Outcome]:
    """Keep a few jobs submitted, so that those still to come cost no memory in the queue."""
    ahead = iter(works)
    pending: dict[Future[Outcome], Work] = {}
    done = 0
    try:
        while True:
            for work in islice(ahead, window - len(pending)):
                pending[executor.submit(pack_shard, work)] = work
            if not pending:
                return
            ready, _ = wait(pending, timeout=0.25, return_when=FIRST_COMPLETED)
            for future in ready:
                outcome = future.result()
                done += pending.pop(future).job.frames
                yield outcome
            progress(done if link is None else link.frames.value)
    except BrokenExecutor as error:
        raise SiamstreamError(
            "a worker process died (killed for its memory?); complete shards are kept: run the "
            "same command again to go on, with fewer --workers if it happens again"
        ) from error
    finally:
        for future in pending:
            future.cancel()
