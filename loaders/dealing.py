"""Which rank streams which shards, and in which order: `stream`, a data set as one rank sees it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from enum import Enum
from itertools import count
from typing import Any, NamedTuple

import numpy as np

from loaders.plan import STREAM_SHARDS
from shards.errors import DataError
from shards.rng import uniforms

__all__ = ["Frame", "Mark", "Stream", "shard_order", "stream"]


class Frame(NamedTuple):
    """One picture of a stream.

    `row` is its row in the data set's index, `number` the frame's own, `size` the bytes of the
    picture, `content` whatever the stream's maker wants back.
    """

    row: int
    track: tuple[str, int]
    number: int
    category: str
    is_image: bool
    size: int
    content: Any


class Mark(Enum):
    """What a stream says between frames."""

    SHARD_END = 1
    PASS_END = 2


Stream = Iterator[Frame | Mark]


def stream(
    read: Callable[[int], Iterator[Frame]],
    order: Callable[[int], list[int]],
    rank: int,
    world_size: int,
    name: str,
) -> Stream:
    """Frames of one rank's part of a data set, pass after pass without end.

    The first pass' order deals the shards out, and the part stays a rank's own for the epoch; only
    its order changes from pass to pass. With fewer shards than ranks, every rank reads all of them
    and keeps every ``world_size``-th track, counted in the first pass. A track that continues in
    another shard counts as one track in each.

    Parameters
    ----------
    read : frames of a shard, by its number
    order : all shards in the order of a pass, by its number
    rank, world_size : of this process
    name : of the data set, for messages

    Raises
    ------
    DataError : if no track is left for this rank
    """
    first = order(0)
    shared = len(first) < world_size
    own = set(first if shared else first[rank::world_size])
    before: dict[int, int] = {}  # tracks in the shards that came before it in the first pass
    tracks = 0
    for number in count():
        found = False
        for shard in (shard for shard in order(number) if shard in own):
            tracks, last = before.setdefault(shard, tracks) - 1, None
            for frame in read(shard):
                tracks, last = tracks + (frame.track != last), frame.track
                if not shared or tracks % world_size == rank:
                    found = True
                    yield frame
            tracks += 1
            yield Mark.SHARD_END
        if not found:
            raise DataError(
                f"{name}: {tracks} tracks in {len(first)} shards leave none for rank {rank} of "
                f"{world_size}; start fewer processes, or leave the data set out with "
                "--set data.datasets=..."
            )
        yield Mark.PASS_END


def shard_order(
    seed: int, epoch: int, first: int, shards: int, all_shards: int
) -> Callable[[int], list[int]]:
    """Shuffled orders of a data set's shards, by the number of the pass.

    Parameters
    ----------
    seed, epoch : of the sample stream
    first : shards of the data sets before this one
    shards, all_shards : of this data set, of all data sets
    """

    def order(number: int) -> list[int]:
        start = number * all_shards + first
        drawn = uniforms(seed, STREAM_SHARDS, epoch, start, shards, 4)[:, 0]
        found: list[int] = np.argsort(drawn, kind="stable").tolist()
        return found

    return order
