"""The processes of one run: who they are, how they agree, how they end together.

Started by torchrun, a process group is made: NCCL for CUDA tensors, Gloo for the others, so small
agreements never wait for the device. Without torchrun there is one process and no group.

A rank that fails first prints the error alone, and all others end within seconds (guard.py).
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, NoReturn

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from configs.strict import ConfigError
from shards.errors import KNOWN_ERRORS, one_line
from tracker.training.guard import Guard, leave
from tracker.training.meeting import Meeting

__all__ = ["Interrupt", "World"]

LAUNCHED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")  # what torchrun sets

TIMEOUT = timedelta(minutes=20)  # above rank 0's longest download of first weights
HEAD_START_S = 0.5  # of rank 0, so that an error that all ranks have is printed by it
VERDICT_S = 1.5  # for the guard, which knows better which rank is gone
OWN_SIGNAL_S = 5.0


class World:
    """One process among those of a run; a context manager around all that may fail."""

    def __init__(self) -> None:
        absent = [name for name in LAUNCHED if not os.environ.get(name)]
        self.grouped = not absent
        given = os.environ if self.grouped else {}
        self.rank = int(given.get("RANK", "0"))
        self.local_rank = int(given.get("LOCAL_RANK") or "0")
        self.size = int(given.get("WORLD_SIZE", "1"))
        self.local_size = int(given.get("LOCAL_WORLD_SIZE") or str(self.size))
        self._absent = absent if os.environ.get("WORLD_SIZE", "1") != "1" else []
        self.device = torch.device("cpu")
        self._guard: Guard | None = None

    @property
    def first(self) -> bool:
        """Whether this is rank 0, which prints and writes."""
        return self.rank == 0

    def __enter__(self) -> World:
        if self._absent:
            raise ConfigError(
                f"WORLD_SIZE is {os.environ['WORLD_SIZE']}, but {', '.join(self._absent)} of this "
                "process is not set: each would train alone on a part of every batch. Start it "
                "with torchrun, set all of them, or unset WORLD_SIZE for one process"
            )
        if self.grouped:
            try:
                self._open()
            except BaseException as error:
                self.__exit__(type(error), error, error.__traceback__)
                raise
        return self

    def _open(self) -> None:
        """Find the others and make the process group."""
        meeting = Meeting(self.rank, self.size)
        meeting.enter()
        self._guard = Guard(meeting.store, self.rank, self.size, meeting.serves, self._say)
        self._guard.start()
        meeting.complete()
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        distributed.init_process_group(
            backend, store=meeting.store, rank=self.rank, world_size=self.size, timeout=TIMEOUT
        )
        self._guard.join_ring()
        if not os.environ.get("LOCAL_WORLD_SIZE"):
            self._count_neighbours(socket.gethostname())

    def _count_neighbours(self, host: str) -> None:
        """Find out how many processes share this machine, where no torchrun says so."""
        hosts = self.gather(host)
        self.local_size = hosts.count(host)
        if not os.environ.get("LOCAL_RANK"):
            self.local_rank = hosts[: self.rank].count(host)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self.grouped:
            return
        if error is None:
            try:
                if self._guard:
                    self._guard.end()
            except RuntimeError as lost:
                error = lost
            else:
                distributed.destroy_process_group()
                return
        self._end_with(error)

    def use_device(self, wanted: str = "auto") -> None:
        """Choose this process's device: the CUDA device of its local rank, or the CPU.

        Parameters
        ----------
        wanted : ``auto``, ``cpu`` or ``cuda``

        Raises
        ------
        ConfigError : if there is no CUDA device where one is wanted, or fewer than processes
        """
        if wanted == "cpu":
            return
        if not torch.cuda.is_available():
            if wanted == "cuda":
                raise ConfigError(f"train.device is 'cuda', but {_why_no_cuda()}")
            return
        count = torch.cuda.device_count()
        if self.local_rank >= count:
            raise ConfigError(
                f"{self.local_size} processes on this machine, but {count} CUDA devices; start "
                f"torchrun with --nproc-per-node {count} (or --set train.device=cpu)"
            )
        self.device = torch.device("cuda", self.local_rank)
        torch.cuda.set_device(self.device)

    def same_device(self) -> None:
        """Refuse ranks on different kinds of devices, which would wait for each other.

        Raises
        ------
        ConfigError : on every rank
        """
        kinds = self.gather(self.device.type)
        if len(set(kinds)) > 1:
            without = ", ".join(str(rank) for rank, kind in enumerate(kinds) if kind != "cuda")
            raise ConfigError(
                f"rank {without} of {len(kinds)} sees no CUDA device, the others do: look at its "
                "machine's driver (nvidia-smi), or give --set train.device=cpu"
            )

    @contextmanager
    def telling(self) -> Iterator[None]:
        """Tell the other ranks of an error at once, before what is open here is closed."""
        try:
            yield
        except Exception as error:
            if self._guard:
                self._wait_turn(error)
                self._guard.fail(_text(error))
            raise

    def share(self, model: nn.Module) -> nn.Module:
        """Model whose gradients are averaged over the ranks; it starts with rank 0's tensors.

        Every step begins with rank 0's running statistics of batch normalisation too: rank 0 writes
        the checkpoints.
        """
        if not self.grouped:
            return model
        shared = DistributedDataParallel(model)
        if self.device.type != "cuda":
            # (annotations of a hook are compared with classes, and ours are text)
            shared.register_comm_hook(self.size, lambda size, bucket: _mean_of_each(size, bucket))
        return shared

    def mean(self, values: Tensor) -> Tensor:
        """Mean over the ranks of a small tensor, on the CPU; waits for the device."""
        values = values.to("cpu")
        if self.grouped:
            distributed.all_reduce(values)
            values /= self.size
        return values

    def gather(self, value: Any) -> list[Any]:
        """Values of all ranks, in their order."""
        if not self.grouped:
            return [value]
        found: list[Any] = [None] * self.size
        distributed.all_gather_object(found, value)
        return found

    def agree(self, make: Callable[[], Any]) -> Any:
        """Value that rank 0 makes, on all ranks."""
        found = [make() if self.first else None]
        if self.grouped:
            distributed.broadcast_object_list(found, src=0)
        return found[0]

    def vote(self, number: int) -> Callable[[], int]:
        """Start to find the largest number of all ranks; the result is called for later."""
        if not self.grouped:
            return lambda: number
        ballot = torch.tensor([number])
        work = distributed.all_reduce(ballot, distributed.ReduceOp.MAX, async_op=True)

        def result() -> int:
            work.wait()
            return int(ballot.item())

        return result

    def _end_with(self, error: BaseException) -> NoReturn:
        """Print the error if this rank is the first to fail, and end this process."""
        code, line = 1, ""
        if isinstance(error, KeyboardInterrupt):
            code = 130
        elif isinstance(error, SystemExit):
            code = error.code if isinstance(error.code, int) else 1
        else:
            line = _text(error)
        self._wait_turn(error)
        if self._guard:
            self._guard.fail(line)
            self._guard.leave(code)
        if line:  # they have not met: each has its own trouble
            self._say(line)
        leave(code)

    def _wait_turn(self, error: BaseException) -> None:
        """Let those speak first who know better, or are rank 0."""
        if _is_lost_contact(error):
            time.sleep(VERDICT_S)
        elif self.rank:
            time.sleep(HEAD_START_S)

    def _say(self, line: str) -> None:
        """Print an error, and leave it for torchrun's own report."""
        where = f"rank {self.rank}: " if self.rank else ""
        sys.stderr.write(f"Error: {where}{line}\n")
        if path := os.environ.get("TORCHELASTIC_ERROR_FILE"):
            told = {"message": line, "extraInfo": {"timestamp": str(int(time.time()))}}
            with suppress(OSError):  # it has been printed
                Path(path).write_text(json.dumps({"message": told}), encoding="utf-8")


class Interrupt:
    """SIGTERM and SIGINT as a wish to stop after the step; a context manager."""

    def __init__(self) -> None:
        self.signal, self.at = 0, 0.0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interrupt:
        for number in (signal.SIGTERM, signal.SIGINT):
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def linger(self) -> None:
        """Wait a little for this process's own signal, where another rank's ended the run.

        When a machine joins a run on several, each machine's torchrun stops its own processes, one
        a moment after the other. A process that ended before its turn would count as a failure,
        and use up one of ``--max-restarts``.
        """
        if int(os.environ.get("GROUP_WORLD_SIZE", "1")) == 1:
            return
        deadline = time.monotonic() + OWN_SIGNAL_S
        while not self.signal and time.monotonic() < deadline:
            time.sleep(0.05)

    def patience(self, seconds: float) -> Callable[[], bool]:
        """Question that is answered with yes when a signal came so long before, or longer."""
        return lambda: self.signal > 0 and time.monotonic() - self.at >= seconds

    def _note(self, number: int, frame: FrameType | None) -> None:
        del frame
        if not self.signal:
            self.at = time.monotonic()
            self.signal = number


def _mean_of_each(size: int, bucket: Any) -> torch.futures.Future[Tensor]:
    """Average gradients one by one.

    After its first step DistributedDataParallel gathers gradients in other buckets, and from three
    ranks on Gloo's sums depend on the place in the bucket. This way a resumed run repeats the one
    that was not stopped to the bit.
    """
    for work in [distributed.all_reduce(g, async_op=True) for g in bucket.gradients()]:
        work.wait()
    done: torch.futures.Future[Tensor] = torch.futures.Future()
    done.set_result(bucket.buffer().div_(size))
    return done


def _is_lost_contact(error: BaseException) -> bool:
    """Whether a collective failed because a peer is gone."""
    known = isinstance(error, distributed.DistError) or "gloo" in str(error).lower()
    return isinstance(error, RuntimeError) and known


def _text(error: BaseException) -> str:
    """Text of an error: known ones in one line, bugs with their traceback."""
    if isinstance(error, KNOWN_ERRORS):
        return str(error)
    if isinstance(error, OSError):
        return one_line(error)
    if _is_lost_contact(error):
        return f"lost contact with another process: {one_line(error)[:200]}"
    return "".join(traceback.format_exception(error)).rstrip()


def _why_no_cuda() -> str:
    """What torch sees of CUDA where it sees no device."""
    if torch.version.cuda is None:
        return f"torch {torch.__version__} is built without CUDA; install a build with it"
    if (visible := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return (
            f"torch {torch.__version__} sees no device with CUDA_VISIBLE_DEVICES='{visible}'; "
            "unset it, or use 'auto' or 'cpu'"
        )
    return (
        f"torch {torch.__version__} (CUDA {torch.version.cuda}) sees no device; see whether "
        "nvidia-smi lists one, or use 'auto' or 'cpu'"
    )
