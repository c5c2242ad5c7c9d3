"""Batches planned and read by worker processes (``data.workers``).

Planning, reading and verifying a pair takes a tenth of a millisecond of Python, of which one thread
runs at a time, while one GPU can decode more than ten thousand pairs a second. Here each of several
processes does it for every n-th batch; the loader's own process only receives the bytes and hands
them on. The pairs and their pixels are the same, and so are errors and substitutes: a
pair that must be replaced is planned and read in the loader's process, as without workers.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import weakref
from collections import deque
from dataclasses import dataclass, replace
from itertools import cycle

from loaders.config import PairConfig
from loaders.position import after
from loaders.sets import DataSet, DataSets
from loaders.work import Crops, Work
from loaders.worker import Answer, Ended, Share, receive, send
from loaders.works import NO_ATTEMPTS, Attempts, Planned
from shards.errors import BadSample, SiamstreamError

__all__ = ["PlannedByWorkers"]

AHEAD = 2  # batches that each worker is asked for at once
END_S = 2.0  # for a worker to end by itself
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


class _Worker:
    """One process and our end of its socket."""

    def __init__(self, share: Share) -> None:
        self._socket, theirs = socket.socketpair()
        with theirs:
            # Not by fork, which a process with threads and a CUDA context must not, and not by
            # multiprocessing, which would run the main script again.
            self._process = subprocess.Popen(
                [sys.executable, "-c", _MAIN, str(theirs.fileno()), json.dumps(sys.path)],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )
        self._unwanted = 0  # answers that are under way and that nobody waits for
        self._at_end = weakref.finalize(self, _end, self._socket, self._process)
        send(self._socket, share)

    def ask(self, at: Position) -> None:
        """Ask for a batch."""
        try:
            send(self._socket, at)
        except Ended as error:
            raise self._gone() from error

    def drop(self) -> None:
        """Do not wait for the oldest batch that was asked for."""
        self._unwanted += 1

    def answer(self) -> tuple[Answer, memoryview]:
        """Wait for the oldest batch that was asked for and not dropped."""
        while True:
            try:
                answer, block = receive(self._socket)
            except Ended as error:
                raise self._gone() from error
            if isinstance(answer, SiamstreamError):
                raise answer
            if not self._unwanted:
                return answer, block
            self._unwanted -= 1

    def _gone(self) -> SiamstreamError:
        try:
            status = self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            return SiamstreamError("data.workers: the loader was closed while a batch was read")
        how = f"signal {-status}" if status < 0 else f"exit status {status}"
        return SiamstreamError(
            f"data.workers: worker process {self._process.pid} ended by {how}; what it said "
            "stands above. If the machine ran out of memory, take fewer workers"
        )

    def stop(self) -> None:
        """Make whoever waits for an answer fail, and the process end."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            return  # it is gone already

    def close(self) -> None:
        """End the process."""
        self._at_end()


def _end(ours: socket.socket, process: subprocess.Popen[bytes]) -> None:
    ours.close()
    try:
        process.wait(END_S)
    except subprocess.TimeoutExpired:  # as in a read that hangs
        process.kill()
        process.wait()


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
        share = Share(config=config, rank=rank, world_size=world_size, batch_size=batch_size)
        self._team: list[_Worker] = []
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
            for _, worker in self._asked:
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
            template=_with(work.template, received[:half]),
            search=_with(work.search, received[half:]),
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
            worker.stop()
        super().stop()

    def close(self) -> None:
        """End the processes and close the data sets."""
        for worker in self._team:
            worker.stop()
        for worker in self._team:
            worker.close()
        super().close()


def _with(crops: Crops, sources: list[_Received]) -> Crops:
    return replace(crops, sources=tuple(sources))


def _is_received(work: Work) -> bool:
    return isinstance(work.template.sources[0], _Received)
