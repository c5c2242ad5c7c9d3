"""`PairLoader`: batches of pairs for one rank, made ahead, resumable at every batch."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

import torch

from configs.strict import ConfigError
from loaders.batch import PairBatch, normalise, torch_dtype
from loaders.batches import Batches, Begun
from loaders.config import BackendName, PairConfig
from loaders.copies import Copies
from loaders.faults import Faults
from loaders.position import after, compare, describe, position
from loaders.sets import Chosen
from loaders.threads import Threads
from loaders.work import CLOSE_S, Backend
from loaders.works import open_works
from shards.errors import BadSample, SiamstreamError, StorageError

__all__ = ["PairLoader", "WaitEnded", "make_backend"]

POLL_S = 0.5  # how often a loader whose batch does not come asks whether it is still wanted
_T = TypeVar("_T")


class WaitEnded(Exception):
    """Nobody wants to wait any longer for a batch that does not come; no fault of the data."""


def make_backend(
    config: PairConfig, sets: Chosen[Any], max_batch: int, device: torch.device
) -> tuple[BackendName, Backend]:
    """Choose and build the backend of a configuration; returns its name too."""
    name = config.backend
    if name == "auto":
        name = "dali" if device.type == "cuda" else "cpu"
    if name == "dali" and device.type != "cuda":
        raise ConfigError(
            f"data.backend 'dali' decodes on a CUDA device, got device '{device}'; "
            "use 'cpu', or 'dali-cpu' to try the same graph without a GPU"
        )
    match name:
        case "reference":
            from loaders.reference import ReferenceBackend

            return name, ReferenceBackend(config.channels_last)
        case "cpu":
            from loaders.cpu import CpuBackend

            # To another device travel bytes, a quarter of float32; they are normalised there.
            dtype = torch_dtype(config.pixels) if device.type == "cpu" else torch.uint8
            return name, CpuBackend(sets.crop_size, config.threads, config.channels_last, dtype)
        case _:
            from loaders.cpu import usable_cores
            from loaders.dali import DaliBackend

            return name, DaliBackend(
                recipe=config.recipe,
                frame_px=sets.crop_size,
                template_px=config.template_px,
                search_px=config.search_px,
                max_batch=max_batch,
                device_id=_cuda_index(device) if name == "dali" else None,
                threads=config.threads or usable_cores(),
                prefetch=config.prefetch,
                channels_last=config.channels_last,
                config=config.dali,
            )


def _cuda_index(device: torch.device) -> int:
    return torch.cuda.current_device() if device.index is None else device.index


class PairLoader:
    """Endless iterator over the `PairBatch` es of one rank.

    A step of the run takes ``batch_size`` consecutive samples of the epoch; rank r of w takes those
    at r, r + w, ... of them. An epoch has ``pairs_per_epoch // batch_size`` steps; pairs are drawn
    with replacement, so the few samples beyond the last whole batch are simply not drawn. The state
    is the epoch and the samples consumed of it: batches made ahead do not count.

    Parameters
    ----------
    config : the ``data:`` section
    rank, world_size : of this process
    device : where the batches go
    batch_size : pairs of one step, all ranks together
    command : a shell command to stream the data from, in place of ``config.path``; only ever from
        a command line (see `loaders.sources`)

    Attributes
    ----------
    give_up : asked every `POLL_S` while a batch does not come; true: `next` raises `WaitEnded`

    Raises
    ------
    DataError, MismatchError, FormatError : if the data are not there or do not fit
    ConfigError : if the world is larger than the batch, or the backend needs another device
    """

    def __init__(
        self,
        config: PairConfig,
        rank: int = 0,
        world_size: int = 1,
        device: torch.device | str = "cpu",
        *,
        batch_size: int = 32,
        command: str | None = None,
    ) -> None:
        if not 0 <= rank < world_size:
            raise ConfigError(f"rank {rank} of a world of {world_size}")
        if world_size > batch_size:
            raise ConfigError(
                f"batch_size {batch_size} is smaller than the world of {world_size} processes: "
                "every process needs at least one pair; raise the batch size or start fewer"
            )
        if batch_size > config.pairs_per_epoch:
            raise ConfigError(
                f"batch_size {batch_size} is larger than data.pairs_per_epoch "
                f"{config.pairs_per_epoch}: an epoch would have no step"
            )
        self.config, self.rank, self.world_size = config, rank, world_size
        self.batch_size, self.device = batch_size, torch.device(device)
        self._works = open_works(config, rank, world_size, batch_size, command)
        self.sets = self._works.sets
        own = -(-batch_size // world_size)
        try:
            self.backend_name, self._backend = make_backend(config, self.sets, own, self.device)
        except BaseException:
            self._works.close()
            raise
        self._planner, self._starter = Threads(1, "planner"), Threads(1, "starter")
        self._copies = Copies(self.device)
        self._faults = Faults(config.max_bad_fraction)
        self._batches = Batches(self._works, self._backend, self._faults)
        self._ahead: deque[Future[Begun]] = deque()
        self._next = self._position = (0, 0)  # to be planned next; to be handed over next
        self._totals = {"batches": 0, "pairs": 0, "wait_s": 0.0}
        self._closed = self._stalled = False
        self.give_up: Callable[[], bool] = lambda: False

    @property
    def steps_per_epoch(self) -> int:
        """Batches of one epoch."""
        return self.config.pairs_per_epoch // self.batch_size

    def __enter__(self) -> PairLoader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[PairBatch]:
        return self

    def _after(self, at: tuple[int, int]) -> tuple[int, int]:
        """Position one step later."""
        return after(at, self.config, self.batch_size)

    def _start(self, planned: Future[Begun]) -> Begun:
        return self._batches.start(planned.result())

    def _fill(self) -> None:
        # Planned in a thread of its own: storages hear of all batches ahead, also while a backend
        # waits for the bytes of one.
        while len(self._ahead) < self.config.prefetch:
            planned = self._planner.submit(self._batches.plan, self._next)
            self._ahead.append(self._starter.submit(self._start, planned))
            self._next = self._after(self._next)

    def __next__(self) -> PairBatch:
        """Return the next batch.

        After an error the position is still that of the batch that failed, and asking again
        gives the same error, or the batch if it only was late.

        Raises
        ------
        BadSample : if a picture of it is damaged, and none may be
        TooManyBadSamples : if more are than may be
        StorageError : if bytes cannot be read, or it takes longer than ``timeout_s``
        WaitEnded : if `give_up` says so; the batch is still the next one
        """
        if self._closed:
            raise RuntimeError("the loader is closed")
        started = time.perf_counter()
        self._fill()
        begun, template, search = self._wait(self._ahead[0], started + self.config.timeout_s)
        batch = self._hand_over(begun, template, search, started)
        # Only now: whatever was raised before this, the batch is still the next one.
        self._ahead.popleft()
        self._position = self._after(self._position)
        self._fill()
        return batch

    def _wait(
        self, future: Future[Begun], deadline: float
    ) -> tuple[Begun, torch.Tensor, torch.Tensor]:
        try:
            while True:
                begun = self._made(future, deadline)
                try:
                    z, x = self._patiently(partial(self._batches.finish, begun), deadline)
                except BadSample as error:
                    if not self.config.max_bad_fraction:
                        raise
                    future = self._starter.submit(self._batches.mend, begun, error)
                else:
                    self._faults.check(begun.attempts, len(begun.work))
                    return begun, z, x
        except WaitEnded:
            self._stalled = True
            raise
        except FutureTimeout as error:
            self._stalled = True
            raise StorageError(
                f"epoch {self._position[0]}, samples from {self._position[1]}: no batch within "
                f"data.timeout_s={self.config.timeout_s:g} s; storage stalls or decoding hangs"
            ) from error
        except Exception as error:
            if not isinstance(error, SiamstreamError):  # as of a thread that is out of memory
                epoch, first = self._position
                error.add_note(f"while the batch of epoch {epoch}, samples from {first}, was made")
            raise

    def _late(self, deadline: float) -> float:
        """A stream that still comes on, as on its way to a position, is not late."""
        return max(deadline, self._works.heard() + self.config.timeout_s)

    def _made(self, future: Future[Begun], deadline: float) -> Begun:
        while True:
            try:
                return self._patiently(future.result, deadline)
            except FutureTimeout:
                if future.done() or self._late(deadline) <= time.perf_counter():
                    raise

    def _patiently(self, wait: Callable[[float], _T], deadline: float) -> _T:
        """Wait in parts of `POLL_S`, to give up in between."""
        while True:
            began = time.perf_counter()
            left_s = max(0.0, self._late(deadline) - began)
            part_s = min(left_s, POLL_S)
            try:
                return wait(part_s)
            except FutureTimeout:
                if self.give_up():
                    raise WaitEnded from None
                early = time.perf_counter() - began < part_s / 2
                if left_s <= part_s or early:  # else the wait timed out, and no work in it
                    raise

    def _hand_over(
        self, begun: Begun, template: torch.Tensor, search: torch.Tensor, started: float
    ) -> PairBatch:
        work = begun.work

        def tensor(values: Any) -> torch.Tensor:
            return self._copies(torch.as_tensor(values))

        def pixels(values: torch.Tensor) -> torch.Tensor:
            return values if values.device.type == self.device.type else tensor(values)

        tensors = {
            "template": pixels(template),
            "search": pixels(search),
            "template_box": tensor(work.template_box),
            "search_box": tensor(work.search_box),
            "other_boxes": tensor(work.other_boxes),
            "other_mask": tensor(work.other_mask),
            "positive": tensor(work.plan.positive),
            "sample": tensor(work.plan.sample),
        }
        self._copies.join(tensors.values())
        for name in ("template", "search"):
            # Some backends hand over floats, which are normalised already.
            if self.config.pixels != "uint8" and tensors[name].dtype == torch.uint8:
                tensors[name] = normalise(tensors[name], torch_dtype(self.config.pixels))
        wait_s = time.perf_counter() - started
        self._totals["batches"] += 1
        self._totals["pairs"] += len(work)
        self._totals["wait_s"] += wait_s
        self._faults.count(begun.attempts, len(work))
        stats = {"wait_s": wait_s, "bad": len(begun.attempts)}
        return PairBatch(**tensors, epoch=work.epoch, stats=stats)

    def state_dict(self) -> dict[str, Any]:
        """Position after the last batch handed over, and what the sample stream depends on."""
        return {**describe(self.config, self.sets, *self._position), **self._works.state()}

    def load_state_dict(
        self, state: Mapping[str, Any], *, allow_data_change: bool = False
    ) -> tuple[str, ...]:
        """Go on exactly after the batch at which `state_dict` was taken.

        The batch size and the number of ranks may be others (but see `loaders.sequential`); where
        no whole batch is left of the epoch, the next one begins.

        Parameters
        ----------
        state : of `state_dict`
        allow_data_change : go on at that position although the data are others, or their storage
            or its windows, so that the samples are not those that would have followed. Seed, length
            of the epoch, sampler and recipe must be the same all the same

        Returns
        -------
        what differs in the data, one text each; nothing unless that is allowed

        Raises
        ------
        MismatchError : if the seed, the epoch's length, the sampler, the recipe or the data are
            others, or it is no position of an epoch
        """
        own = self.state_dict()
        changes = compare(state, own, self._works.changes(state), allow_data_change)
        at = position(state, own, self.batch_size)
        self._drop_ahead()
        self._next = self._position = at
        return changes

    def _drop_ahead(self) -> None:
        """Let go of the batches made ahead; those under way are finished first, or given up."""
        pending, self._ahead = self._ahead, deque()
        self._next = self._position
        deadline = time.perf_counter() + self.config.timeout_s
        for future in pending:
            if not future.cancel():
                # What is wrong with a batch that nobody will see is nobody's error.
                with suppress(Exception):
                    self._batches.finish(
                        self._made(future, deadline), max(0.0, deadline - time.perf_counter())
                    )

    def stats(self) -> dict[str, float]:
        """Totals since the start.

        Batches and pairs handed over, seconds waited for them; how many of the pairs were replaced
        (``bad``), and for how many damaged samples (``bad_samples``); of remote data also bytes.
        """
        faults = {"bad": self._faults.replaced, "bad_samples": len(self._faults.samples)}
        remote = self.sets.remote
        return {**self._totals, **faults, **(remote.stats() if remote is not None else {})}

    @property
    def bad_samples(self) -> tuple[BadSample, ...]:
        """Damaged samples found so far, each once."""
        return self._faults.samples

    def describe(self) -> dict[str, Any]:
        """Facts for a run's records: data sets, weights, what is missing, storage, backend."""
        facts = {"storage": self.config.storage, "backend": self.backend_name}
        return {**self.sets.describe(), **facts}

    def close(self) -> None:
        """Stop all threads. The loader cannot be used afterwards; closing again does nothing."""
        if self._closed:
            return
        self._closed = True
        self._works.stop()
        # A thread that hangs in a read cannot be stopped, and must not stop us.
        limit_s = 0.0 if self._stalled else min(CLOSE_S, self.config.timeout_s)
        deadline = time.perf_counter() + limit_s
        ended = self._planner.stop(limit_s)
        ended &= self._starter.stop(max(0.0, deadline - time.perf_counter()))
        self._ahead.clear()
        self._backend.close(limit_s if ended else 0.0)
        self._faults.sum_up()
        self._works.close(wait=ended)
