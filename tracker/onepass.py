"""One-pass evaluation: follow each sequence from its first box to its end, once.

Many sequences are shared out among worker processes; each computes with one CPU thread, so the
boxes do not depend on how many there are.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, wait
from concurrent.futures.process import ProcessPoolExecutor
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from shards.errors import DataError, SiamstreamError
from shards.pixels import decode
from tracker.sequences import VideoSequence

if TYPE_CHECKING:  # it imports torch
    from tracker.follow import Followed, Picture, Tracker

__all__ = [
    "KEEP_FIRST_BOX",
    "Job",
    "KeepFirstBox",
    "Outcome",
    "Run",
    "run_jobs",
    "run_sequence",
]

KEEP_FIRST_BOX = "keep-first-box"
TOLD_EVERY_S = 0.5


class Run(NamedTuple):
    """``boxes`` (N,4) float64 xyxy, frame pixels; ``seconds`` (N,) of the tracker alone."""

    boxes: npt.NDArray[np.float64]
    seconds: npt.NDArray[np.float64]


class Job(NamedTuple):
    """A sequence to follow, and what `make`s the tracker that follows it."""

    make: Callable[[], Tracker]
    sequence: VideoSequence


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What became of a sequence: its run, or why there is none.

    Parameters
    ----------
    name : of the sequence
    run : boxes and times; None if it failed
    error : what failed
    notes : what a reader must know
    """

    name: str
    run: Run | None
    error: str = ""
    notes: tuple[str, ...] = ()


class KeepFirstBox:
    """The floor of every table: a tracker that never moves."""

    def start(self, frame: Picture, box: npt.NDArray[Any]) -> None:  # noqa: ARG002
        """Remember the box."""
        self._box = np.array(box, np.float64)

    def step(self, frame: Picture) -> Followed:  # noqa: ARG002
        """Return the first box again."""
        from tracker.follow import Followed

        return Followed(self._box.copy(), 1.0)


def run_sequence(
    tracker: Tracker,
    sequence: VideoSequence,
    seen: Callable[[int, tuple[int, int]], None] | None = None,
) -> Run:
    """Follow one sequence from its first box.

    Parameters
    ----------
    tracker : started anew on the first frame
    sequence : only its pictures and its first box are used
    seen : called after each frame with its position and its height and width

    Returns
    -------
    Run: the first box is the given one; seconds do not count reading the pictures

    Raises
    ------
    DataError : if a picture cannot be read
    SiamstreamError : if the tracker cannot start, or gives a box that is not finite
    """
    boxes = np.empty((len(sequence.frames), 4))
    seconds = np.empty(len(boxes))
    for position, path in enumerate(sequence.frames):
        try:
            frame = decode(path.read_bytes())
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {error.strerror}") from error
        except ValueError as error:
            raise DataError(f"{path}: {error}") from error
        began = perf_counter()
        if position:
            boxes[position] = tracker.step(frame).box
        else:
            boxes[0] = sequence.boxes[0]
            tracker.start(frame, boxes[0].copy())
        seconds[position] = perf_counter() - began
        if not np.isfinite(boxes[position]).all():
            raise SiamstreamError(f"{path}: the tracker's box is {boxes[position].tolist()}")
        if seen is not None:
            seen(position, frame.shape[:2])
    return Run(boxes, seconds)


def run_jobs(
    jobs: Sequence[Job], workers: int, told: Callable[[int], None]
) -> Iterator[tuple[int, Outcome]]:
    """Follow sequences and give their outcomes as they come; a failure does not stop the others.

    Parameters
    ----------
    jobs : in the order in which they are begun; those of one tracker best side by side, since a
        process makes a tracker anew when the next job wants another
    workers : processes; 1 works in this one, more need jobs that can be pickled
    told : called with the number of frames done

    Yields
    ------
    Position of the job and its outcome

    Raises
    ------
    SiamstreamError : if a tracker cannot be made, or a worker process dies
    """
    if min(workers, len(jobs)) > 1:
        yield from _in_workers(jobs, min(workers, len(jobs)), told)
        return
    done = 0

    def tick() -> None:
        nonlocal done
        done += 1
        told(done)

    bench = _Bench()
    for position, job in enumerate(jobs):
        yield position, _outcome(bench.tracker_of(job), job.sequence, tick)


@dataclass(slots=True)
class _Bench:
    """The tracker that a process has at hand, and what made it."""

    make: Callable[[], Tracker] | None = None
    tracker: Tracker | None = None

    def tracker_of(self, job: Job) -> Tracker:
        if self.tracker is None or self.make != job.make:
            self.tracker = None  # the old one goes before the new one comes
            self.make, self.tracker = job.make, job.make()
        return self.tracker


def _outcome(tracker: Tracker, sequence: VideoSequence, tick: Callable[[], None]) -> Outcome:
    sizes: list[tuple[int, int]] = []
    changes: list[str] = []

    def seen(position: int, shape: tuple[int, int]) -> None:
        if sizes and sizes[-1] != shape:
            (h0, w0), (h1, w1) = sizes[-1], shape
            changes.append(f"{sequence.frames[position].name} {w0}x{h0} -> {w1}x{h1}")
        if not sizes or sizes[-1] != shape:
            sizes.append(shape)
        tick()

    try:
        run = run_sequence(tracker, sequence, seen)
    except SiamstreamError as error:
        return Outcome(name=sequence.name, run=None, error=str(error))
    notes = [f"{sequence.name}: frames change their size: {', '.join(changes[:3])}"] * bool(changes)
    return Outcome(name=sequence.name, run=run, notes=tuple(notes))


@dataclass(slots=True)
class _Worker:
    """What a worker process keeps between sequences."""

    frames: Any
    stop: Any
    bench: _Bench = field(default_factory=_Bench)

    def tick(self) -> None:
        with self.frames.get_lock():
            self.frames.value += 1
        if self.stop.is_set():
            os._exit(1)  # the parent wants to end and waits


_here: _Worker | None = None  # of this worker process, set once when it starts


def _in_workers(
    jobs: Sequence[Job], workers: int, told: Callable[[int], None]
) -> Iterator[tuple[int, Outcome]]:
    context = multiprocessing.get_context("spawn")
    frames, stop = context.Value("q", 0), context.Event()
    pool = ProcessPoolExecutor(
        workers, mp_context=context, initializer=_start_worker, initargs=(frames, stop)
    )
    try:
        positions: dict[Future[Outcome], int] = {
            pool.submit(_run_here, job): position for position, job in enumerate(jobs)
        }
        waiting = set(positions)
        while waiting:
            done, waiting = wait(waiting, TOLD_EVERY_S, FIRST_COMPLETED)
            told(frames.value)
            for future in done:
                yield positions[future], future.result()
    except BrokenExecutor as error:
        raise SiamstreamError(
            "a worker process died (killed for its memory?); finished sequences are kept: run the "
            "same command again, with fewer --workers"
        ) from error
    except BaseException:
        stop.set()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _start_worker(frames: Any, stop: Any) -> None:
    global _here
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business
    threading.Thread(target=_die_with_parent, daemon=True).start()
    _here = _Worker(frames, stop)


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)


def _run_here(job: Job) -> Outcome:
    """Follow a sequence in this worker process."""
    if _here is None:
        raise RuntimeError("not a worker process")
    return _outcome(_here.bench.tracker_of(job), job.sequence, _here.tick)
