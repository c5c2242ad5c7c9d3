"""Batches planned and read by worker processes (``data.workers``).

Pairs are planned, read and verified in Python, of which one thread runs at a time, and a GPU can
decode more than one process can hand to it (``python -m benchmarks gpu``). Here each of several
processes does it for every n-th batch; the loader's own process only receives the bytes and hands
them on. The pairs and their pixels are the same, and so are errors and substitutes: a
pair that must be replaced is planned and read in the loader's process, as without workers.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import weakref
from collections import deque
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import cycle
from typing import Any

from loaders.config import PairConfig
from loaders.position import after
from loaders.sets import DataSet, DataSets
from loaders.work import Work
from loaders.worker import Answer, Ended, Share, receive, send
from loaders.works import NO_ATTEMPTS, Attempts, Planned
from shards.errors import BadSample, SiamstreamError

__all__ = ["PlannedByWorkers"]

AHEAD = 2  # batches that each worker is asked for at once: one waits in its socket, one is made
END_S = 2.0  # for workers to end by themselves
_MAIN = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[2]); "
    "from loaders.worker import main; main(int(sys.argv[1]))"
)
Position = tuple[int, int]


@dataclass(frozen=True, slots=True, eq=False)
class _Received:
    """A picture that a worker has read, or the error with which it failed; a `Source`."""

    data_set: DataSet
    data: memoryview
    error: BadSample | None

    def read(self, row: int) -> memoryview:  # noqa: ARG002 (of the one row that was read)
        """Return the bytes; raises `BadSample`."""
        if self.error is not None:
            raise self.error
        return self.data

    def bad(self, row: int, reason: str) -> BadSample:
        """Error that names the row's sample."""
        return self.data_set.bad(row, reason)


@contextmanager
def _blocked(*numbers: signal.Signals) -> Generator[None, None, None]:
    """Block signals in this thread, and for good in a process that it starts meanwhile.

    From its first instruction on: the loader's process decides when to end, and one that is asked
    to stop after its step still needs batches.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Worker:
    """One process and our end of its socket."""

    def __init__(self, share: Share) -> None:
        self.socket, theirs = socket.socketpair()
        with theirs, _blocked(signal.SIGINT, signal.SIGTERM):
            # Not by fork, which a process with threads and a CUDA context must not, and not by
            # multiprocessing, which would run the main script again. In a session of its own: what
            # a terminal sends to all processes is the loader's to decide on.
            self.process = subprocess.Popen(
                [sys.executable, "-c", _MAIN, str(theirs.fileno()), json.dumps(sys.path)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        self._waiting = self._unwanted = 0  # answers to come, and those that nobody waits for
        self._send(share)

    def _send(self, what: Share | Position) -> None:
        with suppress(Ended):  # what it said last is read first, see `answer`
            send(self.socket, what)

    def ask(self, at: Position) -> None:
        """Ask for a batch."""
        while self._unwanted:  # else both sides may wait until the other reads
            self._receive()
            self._unwanted -= 1
        self._send(at)
        self._waiting += 1

    def drop(self) -> None:
        """Let nobody wait for what was asked for; an error of it is nobody's."""
        self._unwanted = self._waiting

    def answer(self) -> tuple[Answer, memoryview]:
        """Wait for the oldest batch that was asked for."""
        answer, block = self._receive()
        if isinstance(answer, Exception):
            raise answer
        return answer, block

    def _receive(self) -> tuple[Any, memoryview]:
        try:
            found = receive(self.socket)
        except Ended as error:
            raise self._gone() from error
        self._waiting -= 1
        return found

    def _gone(self) -> SiamstreamError:
        try:
            status = self.process.wait(END_S)
        except subprocess.TimeoutExpired:
            return SiamstreamError("data.workers: the loader was closed while a batch was read")
        how = f"signal {-status}" if status < 0 else f"exit status {status}"
        return SiamstreamError(
            f"data.workers: worker process {self.process.pid} ended by {how}; if it said why, that "
            "stands above. Where the machine ran out of memory, take fewer workers"
        )


def _shut(ours: socket.socket) -> None:
    """Make both sides see the end, whoever else holds the socket."""
    with suppress(OSError):  # it is gone already
        ours.shutdown(socket.SHUT_RDWR)


def _end(team: list[_Worker], owner: int, wait_s: float = END_S) -> None:
    """End all processes of a team, if this is the process that started them."""
    if os.getpid() != owner:
        return
    for worker in team:
        _shut(worker.socket)
        worker.socket.close()
    if not _ended(team, wait_s):  # as in a read that hangs
        for worker in team:
            worker.process.kill()
        _ended(team, END_S)  # the system may not let go of such a one


def _ended(team: list[_Worker], within_s: float) -> bool:
    deadline = time.monotonic() + within_s
    for worker in team:
        with suppress(subprocess.TimeoutExpired):
            worker.process.wait(max(0.0, deadline - time.monotonic()))
    return all(worker.process.returncode is not None for worker in team)


class PlannedByWorkers(Planned):
    """`Planned`, with the work done by processes.

    Parameters
    ----------
    sets, config, rank, world_size, batch_size : as of `Planned`
    """

    def __init__(
        self, sets: DataSets, config: PairConfig, rank: int, world_size: int, batch_size: int
    ) -> None:
        super().__init__(sets, config, rank, world_size, batch_size)
        share = Share(
            config=config,
            rank=rank,
            world_size=world_size,
            batch_size=batch_size,
            fingerprints=sets.fingerprints(),
        )
        self._team: list[_Worker] = []
        self._at_end = weakref.finalize(self, _end, self._team, os.getpid())
        try:
            for _ in range(config.workers):
                self._team.append(_Worker(share))
        except BaseException:
            self.close()
            raise
        self._turns = cycle(self._team)
        self._asked: deque[tuple[Position, _Worker]] = deque()

    def make(self, epoch: int, consumed: int, attempts: Attempts = NO_ATTEMPTS) -> Work:
        """Take a batch from a worker; one with substitutes is planned here."""
        if attempts:
            return super().make(epoch, consumed, attempts)
        self._ask((epoch, consumed))
        answer, block = self._asked.popleft()[1].answer()
        return self._work(answer, block)

    def _ask(self, at: Position) -> None:
        """Ask for a batch and those after it, unless they were asked for."""
        if self._asked and self._asked[0][0] != at:  # the loader was set to another position
            for worker in self._team:
                worker.drop()
            self._asked.clear()
        if self._asked:
            at = after(self._asked[-1][0], self._config, self._batch_size)
        while len(self._asked) < AHEAD * len(self._team):
            worker = next(self._turns)
            worker.ask(at)
            self._asked.append((at, worker))
            at = after(at, self._config, self._batch_size)

    def _work(self, answer: Answer, block: memoryview) -> Work:
        """Work whose sources are the bytes that came."""
        work, received, start = answer.work, [], 0
        sets = [self.sets.sets[number] for number in work.plan.dataset.tolist()]
        for i, (source, size) in enumerate(zip(2 * sets, answer.sizes, strict=True)):
            received.append(_Received(source, block[start : start + size], answer.bad.get(i)))
            start += size
        half = len(sets)
        return replace(
            work,
            template=replace(work.template, sources=tuple(received[:half])),
            search=replace(work.search, sources=tuple(received[half:])),
        )

    def announce(self, work: Work) -> None:
        """Tell storages of a batch that is read here."""
        if not _is_received(work):
            super().announce(work)

    def forget(self, work: Work) -> None:
        """Tell storages of a batch that was to be read here."""
        if not _is_received(work):
            super().forget(work)

    def stop(self) -> None:
        """Make a `make` under way fail soon."""
        for worker in self._team:
            _shut(worker.socket)
        super().stop()

    def close(self, wait: bool = True) -> None:
        """End the processes and close the data sets."""
        if self._at_end.detach():
            _end(self._team, os.getpid(), END_S if wait else 0.0)
        super().close(wait)


def _is_received(work: Work) -> bool:
    return isinstance(work.template.sources[0], _Received)
