"""What `data.storage: sequential` reads: the loader's own order of shards and its own windows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.scale_cache import Ints, page_cache, since
from benchmarks.sequential import index_frames
from loaders.config import PairConfig
from loaders.dealing import Frame, Stream, shard_order, stream
from loaders.sets import DataSet
from loaders.window import Window, choose_dataset, pair_uniforms

__all__ = ["Streamed", "entry_bytes", "page_hits", "read_epoch"]

Floats = npt.NDArray[np.float64]
_CHUNK = 64  # frames that are cached or not together
_HEADER = 512  # of a tar member, before its picture


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Streamed:
    """What ranks read in an epoch.

    Attributes
    ----------
    sizes, frames, opened : (K, R) bytes, frames and shards opened for each rank's k-th batch
    half, kept : (D, R) frames of each data set that reached a rank's window in the first half of
        the batches, and in all
    """

    sizes: Floats
    frames: Floats
    opened: Floats
    half: Ints
    kept: Ints

    def whole(self, values: Any, in_half: Any, batches: int) -> Any:
        """What an epoch of more batches reads: the others read as those of the second half do.

        The first half fills the windows: each when its data set is first drawn from.
        """
        count = len(self.sizes)
        return values + (values - in_half) * (batches - count) / max(1, count - count // 2)


def entry_bytes(source: DataSet) -> Ints:
    """Bytes of a shard that each row takes, with headers and description, (R,) int64."""
    index = source.index
    shards = [one.bytes for one in source.manifest.shards if one.frames]
    first = np.flatnonzero(np.diff(index.file_code, prepend=-1))
    ends = np.append(index.offset[1:] - _HEADER, 0)
    ends[np.append(first[1:], len(index)) - 1] = shards
    starts = index.offset - _HEADER
    return np.asarray(ends - starts)


class _Counter:
    """Shards of a data set as streams of frames, with counts of what passes."""

    def __init__(self, source: DataSet) -> None:
        self._source, self._bytes = source, entry_bytes(source).tolist()
        frames = [one.frames for one in source.manifest.shards if one.frames]
        self.first_rows = np.cumsum([0, *frames]).tolist()
        self.size = self.frames = self.opened = 0

    def read(self, number: int) -> Iterator[Frame]:
        """Frames of a shard."""
        self.opened += 1
        for frame in index_frames(self._source.index, self.first_rows, number):
            self.frames += 1
            self.size += self._bytes[frame.row]
            yield frame


def _shards(sources: Sequence[DataSet]) -> list[int]:
    return [sum(1 for shard in one.manifest.shards if shard.frames) for one in sources]


def read_epoch(
    sources: Sequence[DataSet],
    config: PairConfig,
    epoch: int,
    ranks: Sequence[int],
    world: int,
    batch: int,
    steps: int,
) -> Streamed:
    """Read as `loaders.sequential` does, without its pictures.

    Parameters
    ----------
    sources : data sets, with weights that sum to 1
    config : seed, windows and rule
    epoch, world : of the run
    ranks : that are looked at
    batch, steps : pairs of a rank's batch; batches
    """
    numbers = _shards(sources)
    out = np.zeros((3, steps, len(ranks)))
    half, kept = (np.zeros((len(sources), len(ranks)), np.int64) for _ in range(2))
    bounds = np.cumsum([one.weight for one in sources])[:-1]
    for at, rank in enumerate(ranks):
        counters = [_Counter(one) for one in sources]
        windows = []
        taken = [0] * len(sources)
        for d, (one, counter) in enumerate(zip(sources, counters, strict=True)):
            order = shard_order(config.seed, epoch, sum(numbers[:d]), numbers[d], sum(numbers))
            frames = stream(counter.read, order, rank, world, one.manifest.name)
            window = Window(
                _counted(frames, taken, d),
                config.sequential,
                config.sampler,
                one.weight,
                one.manifest.counts["frames"],
            )
            windows.append(window)
        u = pair_uniforms(config.seed, epoch, rank, steps * batch, world)
        drawn = np.array(choose_dataset(bounds, u)).reshape(steps, batch)
        before = np.zeros(3)
        for k in range(steps):
            for which, pairs in zip(*np.unique(drawn[k], return_counts=True), strict=True):
                windows[which].advance(int(pairs))
            now = np.array(
                [sum(getattr(one, name) for one in counters) for name in _COUNTED], float
            )
            out[:, k, at] = now - before
            if k + 1 == steps // 2:
                half[:, at] = taken
            before = now
        kept[:, at] = taken
    return Streamed(
        sizes=out[0],
        frames=out[1],
        opened=out[2],
        half=half,
        kept=kept,
    )


_COUNTED = ("size", "frames", "opened")


def _counted(frames: Stream, taken: list[int], d: int) -> Stream:
    for item in frames:
        taken[d] += isinstance(item, Frame)
        yield item


def page_hits(
    sources: Sequence[DataSet],
    config: PairConfig,
    epochs: int,
    ranks: Sequence[int],
    world: int,
    kept: Ints,
    capacity: float,
    alike: int = 1,
) -> Floats:
    """Share of the bytes of each epoch that a node's page cache has, (E,).

    Every epoch reads as many frames as the first, from the shards that its own order deals out.

    Parameters
    ----------
    sources, config, world : of the run
    epochs : how many
    ranks : of the node
    kept : (D, R) frames of each data set that each rank reads in an epoch
    capacity : of the page cache, in bytes
    alike : ranks of the node that each of `ranks` stands for. Where a data set has fewer shards
        than there are ranks, they stream the same bytes abreast: the cache holds them once, and
        one of the ranks fetches them. Of other data sets each has bytes of its own.
    """
    numbers = _shards(sources)
    units, sizes, lengths = [], [], []
    own = [1 if number < world else alike for number in numbers]  # ranks that fetch
    mine = []  # the same, of each read
    for epoch in range(epochs):
        when, unit, size, fetches = [], [], [], []
        for d, one in enumerate(sources):
            order = shard_order(config.seed, epoch, sum(numbers[:d]), numbers[d], sum(numbers))
            frames = [shard.frames for shard in one.manifest.shards if shard.frames]
            mean = entry_bytes(one).mean()
            for r, rank in enumerate(ranks):
                read = _frames_in_order(order, frames, rank, world, int(kept[d, r]))
                ids = np.concatenate([
                    (shard * (1 << 20) + np.arange(0, count, _CHUNK)) for shard, count in read
                ] or [np.empty(0, np.int64)])  # fmt: skip
                part = np.concatenate([
                    np.minimum(_CHUNK, count - np.arange(0, count, _CHUNK)) for _, count in read
                ] or [np.empty(0, np.int64)])  # fmt: skip
                unit.append(ids + (d << 50))
                size.append(np.rint(part * mean).astype(np.int64))
                when.append(np.arange(len(ids)) / max(1, len(ids)))
                fetches.append(np.full(len(ids), own[d], np.int64))
        at = np.argsort(np.concatenate(when), kind="stable")
        units.append(np.concatenate(unit)[at])
        sizes.append(np.concatenate(size)[at])
        mine.append(np.concatenate(fetches)[at])
        lengths.append(len(at))
    trace, each = np.concatenate(units), np.concatenate(sizes)
    many = np.concatenate(mine)
    hit = page_cache(since(trace), each * many, capacity)
    number = np.repeat(np.arange(epochs), lengths)
    total = np.bincount(number, each * alike, epochs)
    missed = np.bincount(number, each * many * ~hit, epochs)
    return np.asarray(1 - missed / np.maximum(total, 1))


def _frames_in_order(
    order: Callable[[int], list[int]], frames: Sequence[int], rank: int, world: int, wanted: int
) -> list[tuple[int, int]]:
    """Shards, and how many of their frames a rank reads, until it has as many as it wants."""
    first = order(0)
    own = first if len(first) < world else first[rank::world]
    found, number = [], 0
    share = world if len(first) < world else 1  # of whose tracks one is kept
    while wanted > 0:
        for shard in (shard for shard in order(number) if shard in set(own)):
            if wanted <= 0:
                break
            count = min(frames[shard], wanted * share)
            found.append((shard, count))
            wanted -= -(-count // share)
        number += 1
    return found
