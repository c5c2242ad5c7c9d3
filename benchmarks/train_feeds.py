"""Where a training step gets its batches: from our loader, ready-made, or the published way.

All three give the pairs of one plan, from sample 0 on, as `PairBatch` on the device.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import cycle, islice
from typing import Any, Literal, Protocol

import torch

from benchmarks.case import Case
from benchmarks.contestants.zip_published import data_loader
from benchmarks.pairs import pair_config
from loaders.batch import PairBatch
from loaders.loader import PairLoader
from loaders.workers import AHEAD

__all__ = ["FEEDS", "Feed", "FeedName", "ReadyFeed", "ZipFeed", "open_feed"]

FeedName = Literal["loader", "ready", "zip-published"]
FEEDS: tuple[FeedName, ...] = ("ready", "loader", "zip-published")
READY = 4  # batches that are ready-made
WORKER_AHEAD = 2  # batches that torch's DataLoader has under way for each worker


class Feed(Protocol):
    """Batches for a training step; to be closed."""

    def __next__(self) -> PairBatch:
        """Next batch, on the device; its ``wait_s`` is what it took to get it."""

    def close(self) -> None:
        """End threads and processes."""


class ReadyFeed:
    """The first batches of our loader again and again: the limit of every feed.

    Parameters
    ----------
    loader : gives the batches, and is closed
    count : how many
    """

    def __init__(self, loader: PairLoader, count: int = READY) -> None:
        with loader:
            made = [replace(one, stats={"wait_s": 0.0}) for one in islice(loader, count)]
        self._batches = cycle(made)

    def __next__(self) -> PairBatch:
        return next(self._batches)

    def close(self) -> None:
        """Nothing is open."""


class ZipFeed:
    """`benchmarks.contestants.zip_published`: float32 crops through torch's DataLoader.

    Boxes are those of the worker's own draw. Batches are copied to the device as they are: pageable
    memory, as published.

    Parameters
    ----------
    case : plans the pairs; there is an end to them
    device : where batches go
    channels_last : memory layout of the pixels
    """

    def __init__(self, case: Case, device: torch.device, channels_last: bool) -> None:
        self._device = device
        self._layout = torch.channels_last if channels_last else torch.contiguous_format
        self._batches: Iterator[Any] | None = iter(data_loader(case))

    def __next__(self) -> PairBatch:
        if self._batches is None:
            raise RuntimeError("the feed is closed")
        started = time.perf_counter()
        sample, template, search, template_box, search_box, positive = next(self._batches)
        pixels = {"template": template, "search": search}
        batch = PairBatch(
            **{name: one.contiguous(memory_format=self._layout) for name, one in pixels.items()},
            template_box=template_box[:, :4].float(),
            search_box=search_box[:, :4].float(),
            other_boxes=torch.zeros(len(sample), 0, 4),
            other_mask=torch.zeros(len(sample), 0, dtype=torch.bool),
            positive=positive,
            sample=sample,
            epoch=0,
            stats={},
        ).to(self._device)
        return replace(batch, stats={"wait_s": time.perf_counter() - started})

    def close(self) -> None:
        """End the worker processes."""
        self._batches = None  # they end with their iterator


def open_feed(
    name: FeedName, case: Case, device: torch.device, channels_last: bool
) -> tuple[Feed, int]:
    """Open a feed.

    Parameters
    ----------
    name : which
    case : data, pairs, threads
    device : of the batches; our loader decodes on it if it is a GPU
    channels_last : memory layout of the pixels

    Returns
    -------
    the feed, and how many batches it makes ahead while nobody asks for them
    """
    if name == "zip-published":
        return ZipFeed(case, device, channels_last), WORKER_AHEAD * case.threads
    config = replace(pair_config(case, "auto"), channels_last=channels_last)
    loader = PairLoader(config, device=device, batch_size=case.batch_size)
    if name == "ready":
        return ReadyFeed(loader), 0
    return loader, config.prefetch + AHEAD * config.workers
