"""The processes of one run: who they are, how they agree, how they end together.

Started by torchrun, a process group is made: NCCL for CUDA tensors, Gloo for the others, so small
agreements never wait for the device. Without torchrun there is one process and no group.

A rank that fails first says so in the store of the group, and alone prints the error; a thread of
every other rank looks there and ends its process soon after, whatever it is waiting in. Thus all
ranks end within seconds and one error is read.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from datetime import timedelta
from types import FrameType, TracebackType
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from configs.strict import ConfigError
from shards.errors import KNOWN_ERRORS, one_line

__all__ = ["Interrupt", "World"]

TIMEOUT = timedelta(minutes=20)  # above rank 0's longest download of first weights
WATCH_S = 1.0
GRACE_S = 5.0
HEAD_START_S = 0.5  # of rank 0, so that an error that all ranks have is printed by it
FAILED = "siamstream/failed"


class World:
    """One process among those of a run; a context manager around all that may fail."""

    def __init__(self) -> None:
        self.rank = int(os.environ.get("RANK", "0"))
        self.local_rank = int(os.environ.get("LOCAL_RANK", "0"))
        self.size = int(os.environ.get("WORLD_SIZE", "1"))
        self.local_size = int(os.environ.get("LOCAL_WORLD_SIZE", str(self.size)))
        self.grouped = "RANK" in os.environ and "MASTER_ADDR" in os.environ
        self.device = torch.device("cpu")
        self._done = threading.Event()

    @property
    def first(self) -> bool:
        """Whether this is rank 0, which prints and writes."""
        return self.rank == 0

    def __enter__(self) -> World:
        if self.grouped:
            cuda = torch.cuda.is_available()
            backend = "cpu:gloo,cuda:nccl" if cuda else "gloo"
            distributed.init_process_group(backend, timeout=TIMEOUT)
            store = distributed.distributed_c10d._get_default_store()
            self._store = store.clone()
            threading.Thread(target=self._watch, args=(store.clone(),), daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._done.set()
        if not self.grouped:
            return
        if error is None or isinstance(error, SystemExit):
            distributed.destroy_process_group()
            return
        if not isinstance(error, KeyboardInterrupt) and self._claim():
            self._report(error)
        # Leaving in the usual way would wait for ranks that will not come.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(130 if isinstance(error, KeyboardInterrupt) else 1)

    def use_device(self) -> None:
        """Choose this process's device: the CUDA device of its local rank, or the CPU.

        Raises
        ------
        ConfigError : if there are CUDA devices, but fewer than processes
        """
        if not torch.cuda.is_available():
            return
        count = torch.cuda.device_count()
        if self.local_size > count:
            raise ConfigError(
                f"{self.local_size} processes on this machine, but {count} CUDA devices; start "
                f"torchrun with --nproc-per-node {count} (or CUDA_VISIBLE_DEVICES= for the CPU)"
            )
        self.device = torch.device("cuda", self.local_rank)
        torch.cuda.set_device(self.device)

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

    def _claim(self) -> bool:
        """Whether this rank is the first to fail (or nobody can be asked any more)."""
        if self.rank:
            time.sleep(HEAD_START_S)
        try:
            name = str(self.rank)
            return bool(self._store.compare_set(FAILED, "", name) == name.encode())
        except RuntimeError:
            return self.first

    def _report(self, error: BaseException) -> None:
        """Print the error: known ones in one line, bugs with their traceback."""
        if isinstance(error, KNOWN_ERRORS):
            line = str(error)
        elif isinstance(error, OSError):
            line = one_line(error)
        elif isinstance(error, RuntimeError) and _is_lost_contact(error):
            line = f"lost contact with another process: {one_line(error)[:200]}"
        else:
            line = "".join(traceback.format_exception(error)).rstrip()
        where = f"rank {self.rank}: " if self.rank else ""
        sys.stderr.write(f"Error: {where}{line}\n")

    def _watch(self, store: Any) -> None:
        """End this process soon after another one has failed."""
        why = ""
        while not self._done.wait(GRACE_S if why else WATCH_S):
            if why:
                sys.stderr.write(why.strip(" "))
                sys.stderr.flush()
                os._exit(1)
            try:
                if store.check([FAILED]) and store.get(FAILED) != str(self.rank).encode():
                    why = " "  # that rank has said why
            except RuntimeError:
                why = f"Error: rank {self.rank}: lost contact with the other processes\n"


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


def _is_lost_contact(error: RuntimeError) -> bool:
    """Whether a collective failed because a peer is gone."""
    return isinstance(error, distributed.DistError) or "gloo" in str(error).lower()
