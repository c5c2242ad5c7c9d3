"""A worker process of `loaders.workers`: plans batches and reads their pictures.

It has a socket to the loader's process and nothing else in common with it, and ends when that is
closed, however the other process came to its end. Messages are of one form in both directions: two
lengths, a pickled object, and bytes.
"""

from __future__ import annotations

import pickle
import socket
import struct
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from loaders.config import PairConfig
from loaders.work import Work
from shards.errors import KNOWN_ERRORS, BadSample, MismatchError, SiamstreamError, one_line

if TYPE_CHECKING:
    from loaders.works import Works

__all__ = ["Answer", "Ended", "Share", "main", "receive", "send"]

_LENGTHS = struct.Struct("<QQ")


class Ended(Exception):
    """The other side of a socket is gone."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Share:
    """What a worker is told first: the run, which samples are its rank's, which data were found.

    Attributes
    ----------
    fingerprints : of `loaders.sets.Chosen.fingerprints`, which must be the same here
    """

    config: PairConfig
    rank: int
    world_size: int
    batch_size: int
    fingerprints: dict[str, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """A batch whose pictures were read; their bytes follow one another in the message's block.

    Attributes
    ----------
    work : without sources
    sizes : bytes of each template, then of each search picture; 0 of a damaged one
    bad : error by position in `sizes`
    """

    work: Work
    sizes: list[int]
    bad: dict[int, BadSample]


def send(to: socket.socket, what: Any, parts: Sequence[bytes | memoryview] = ()) -> None:
    """Send a message.

    Raises
    ------
    Ended : if nobody is there any more
    """
    head, block = pickle.dumps(what, pickle.HIGHEST_PROTOCOL), b"".join(parts)
    try:
        to.sendall(_LENGTHS.pack(len(head), len(block)) + head)
        to.sendall(block)
    except OSError as error:
        raise Ended from error


def receive(of: socket.socket) -> tuple[Any, memoryview]:
    """Wait for a message; its object and its bytes.

    Raises
    ------
    Ended : if nobody is there any more
    """
    head, block = _LENGTHS.unpack(_exactly(of, _LENGTHS.size))
    what = pickle.loads(_exactly(of, head))
    return what, _exactly(of, block)


def _exactly(of: socket.socket, count: int) -> memoryview:
    data, done = np.empty(count, np.uint8).data, 0  # not a bytearray, which is filled with zeros
    while done < count:
        try:
            got = of.recv_into(data[done:], count - done, socket.MSG_WAITALL)
        except OSError as error:
            raise Ended from error
        if not got:
            raise Ended
        done += got
    return data


def _read(work: Work) -> tuple[Answer, list[bytes | memoryview]]:
    parts: list[bytes | memoryview] = []
    bad: dict[int, BadSample] = {}
    for crops in (work.template, work.search):
        for i in range(len(crops)):
            try:
                parts.append(crops.read(i))
            except BadSample as error:
                bad[len(parts)] = error
                parts.append(b"")
    bare = replace(
        work,
        template=replace(work.template, sources=()),
        search=replace(work.search, sources=()),
    )
    return Answer(work=bare, sizes=[len(part) for part in parts], bad=bad), parts


def main(fd: int) -> None:
    """Answer positions with batches, or with errors, until the socket `fd` is closed."""
    with socket.socket(fileno=fd) as asks, suppress(Ended):
        share, _ = receive(asks)
        works: Works | None = None
        while True:
            at, _ = receive(asks)
            try:
                works = works or _opened(share)
                answer, parts = _made(works, at)
            except (*KNOWN_ERRORS, OSError, MemoryError) as error:
                known = isinstance(error, KNOWN_ERRORS)
                send(asks, error if known else SiamstreamError(f"{one_line(error)} (in a worker)"))
            else:
                send(asks, answer, parts)


def _opened(share: Share) -> Works:
    from loaders.sets import open_sets
    from loaders.works import Planned

    sets = open_sets(share.config)
    if sets.fingerprints() != share.fingerprints:
        raise MismatchError(
            "data.workers: a worker process found other data than the loader that started it; were "
            "they packed anew meanwhile? Start again"
        )
    # Not several batches together: those that follow are other workers'.
    return Planned(sets, share.config, share.rank, share.world_size, share.batch_size, together=0)


def _made(works: Works, at: tuple[int, int]) -> tuple[Answer, list[bytes | memoryview]]:
    work = works.make(*at)
    works.announce(work)
    return _read(work)
