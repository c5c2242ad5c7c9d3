"""Where a loader's batches come from before they have pixels: a plan, or a stream."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, Protocol

from configs.strict import ConfigError
from loaders.config import PairConfig
from loaders.sets import Chosen, DataSet, DataSets, open_sets
from loaders.work import Work, prepare
from shards.storage import Forgetting, Range

__all__ = ["NO_ATTEMPTS", "Attempts", "Planned", "Works", "open_works"]


PLANNED_PAIRS = 128  # of one rank, planned together where that can be
Attempts = Mapping[int, int]
NO_ATTEMPTS: Attempts = MappingProxyType({})


class Works(Protocol):
    """Makes the batches of one rank, in the planner's thread."""

    @property
    def sets(self) -> Chosen[Any]:
        """Data sets of the run."""

    def make(self, epoch: int, consumed: int, attempts: Attempts = NO_ATTEMPTS) -> Work:
        """Make the rank's part of the batch that begins after `consumed` samples of an epoch.

        `attempts` says which pairs to replace, by position (`loaders.plan.with_substitutes`).
        """

    def announce(self, work: Work) -> None:
        """Tell storages that a batch will be read."""

    def forget(self, work: Work) -> None:
        """Tell storages that a batch that was announced will not be read, or not all of it."""

    def state(self) -> dict[str, Any]:
        """What a loader's state has to say beyond its position."""

    def changes(self, state: Mapping[str, Any]) -> list[str]:
        """Why these works would not go on as those of a state did, one text each."""

    def heard(self) -> float:
        """When a `make` under way last came on, of `time.perf_counter`; 0: not known."""

    def stop(self) -> None:
        """Make a `make` under way end soon; called from another thread."""

    def close(self, wait: bool = True) -> None:
        """Give back what is open, or without `wait` only what nobody can be using.

        With `wait` no `make` is under way.
        """


class Planned:
    """Batches of the plan: any position at once, and storage is told what it will be asked.

    Parameters
    ----------
    sets, config : of the run
    rank, world_size, batch_size : which samples are this rank's
    together : pairs that are planned together where that can be
    """

    def __init__(
        self,
        sets: DataSets,
        config: PairConfig,
        rank: int,
        world_size: int,
        batch_size: int,
        together: int = PLANNED_PAIRS,
    ) -> None:
        self.sets, self._config = sets, config
        self._rank, self._world_size, self._batch_size = rank, world_size, batch_size
        self._count = len(range(rank, batch_size, world_size))
        # Where the rank's samples of several batches are evenly apart, they are planned together,
        # which costs half as much: most of it is the cost of a NumPy call, not of its numbers.
        self._together = 1 if batch_size % world_size else max(1, together // self._count)
        self._planned: tuple[int, int, Work] | None = None  # epoch, consumed before it, batches

    def make(self, epoch: int, consumed: int, attempts: Attempts = NO_ATTEMPTS) -> Work:
        """Plan a batch."""
        if attempts:
            return self._plan(epoch, consumed, 1, attempts)
        return self._from_several(epoch, consumed)

    def announce(self, work: Work) -> None:
        """Tell the storage of each data set."""
        for source, ranges in self._ranges(work):
            source.storage.will_need(ranges)

    def forget(self, work: Work) -> None:
        """Tell those storages that keep what they fetched ahead."""
        for source, ranges in self._ranges(work):
            if isinstance(source.storage, Forgetting):
                source.storage.forget(ranges)

    def _ranges(self, work: Work) -> Iterator[tuple[DataSet, list[Range]]]:
        """Ranges of a batch: of each data set's templates, then of its searches."""
        for number, source in enumerate(self.sets.sets):
            drawn = work.plan.dataset == number
            for crops in (work.template, work.search):
                yield source, source.ranges(crops.rows[drawn])

    def _plan(self, epoch: int, consumed: int, batches: int, attempts: Attempts) -> Work:
        count, start = batches * self._count, consumed + self._rank
        return prepare(self.sets, self._config, epoch, start, count, self._world_size, attempts)

    def _from_several(self, epoch: int, consumed: int) -> Work:
        left = (self._config.pairs_per_epoch - consumed) // self._batch_size
        batches = max(1, min(self._together, left))
        planned = self._planned
        if planned is None or planned[0] != epoch or not self._holds(planned, consumed):
            work = self._plan(epoch, consumed, batches, NO_ATTEMPTS)
            planned = self._planned = epoch, consumed, work
        first = (consumed - planned[1]) // self._batch_size * self._count
        return planned[2].part(first, first + self._count)

    def _holds(self, planned: tuple[int, int, Work], consumed: int) -> bool:
        """Tell whether a batch is among those planned, whose beginnings are a batch size apart."""
        after = consumed - planned[1]
        there = len(planned[2]) // self._count * self._batch_size
        return 0 <= after < there and after % self._batch_size == 0

    def state(self) -> dict[str, Any]:
        """Nothing: a position is enough."""
        return {}

    def changes(self, state: Mapping[str, Any]) -> list[str]:
        """Pairs of a stream are others than the plan's."""
        if "sequential" not in state:
            return []
        return [
            "the state is that of data.storage=sequential, whose pairs are others than the plan's "
            "(to go on with them: --set data.storage=sequential)"
        ]

    def heard(self) -> float:
        """Nothing takes long, so nothing is told."""
        return 0.0

    def stop(self) -> None:
        """Let those fail soon who wait for bytes of a remote storage."""
        self.sets.stop()

    def close(self, wait: bool = True) -> None:
        """Close the data sets."""
        self.sets.close(wait)


def open_works(
    config: PairConfig, rank: int, world_size: int, batch_size: int, command: str | None = None
) -> Works:
    """Open the data sets of a configuration for one rank.

    Parameters
    ----------
    config : the ``data:`` section
    rank, world_size, batch_size : which samples are this rank's
    command : from the command line, in place of ``config.path``
    """
    if config.storage == "sequential":
        if config.max_bad_fraction:
            raise ConfigError(
                "data.max_bad_fraction: a pair of a stream has no substitute, because the pictures "
                "that it would need may be gone; leave it at 0 with data.storage=sequential"
            )
        from loaders.sequential import Sequential

        return Sequential(config, rank, world_size, batch_size, command)
    if command is not None:
        raise ConfigError(
            "a 'pipe:' command can only be read from start to end: give --set "
            "data.storage=sequential"
        )
    sets = open_sets(config)
    if not config.workers:
        return Planned(sets, config, rank, world_size, batch_size)
    if sets.remote is not None:
        sets.close()
        raise ConfigError(
            f"data.workers={config.workers}: worker processes read files of this machine, and the "
            "data are behind a URL; leave it at 0, where threads keep many requests under way"
        )
    from loaders.workers import PlannedByWorkers

    return PlannedByWorkers(sets, config, rank, world_size, batch_size)
