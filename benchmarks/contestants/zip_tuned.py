"""The old way done well: zip in memory, simplejpeg, our warp, uint8, worker processes.

The whole zip is one buffer that forked workers share; where a member lies is a NumPy table, not a
million ZipInfo objects. A worker of torch's DataLoader makes a whole batch at once: it plans it,
decodes whole pictures with simplejpeg, the fastest decoder of whole pictures that we know, into
memory used again, makes all else with our own kernel (one warp of four channels, one colour matrix,
blur and occlusion for the crops concerned) straight into one block of shared memory, and only a
handle goes to the consumer. Decoding only what a crop touches is what our loader brings; with it
too, the same code is the contestant `zip-region`. The block is a fresh one for every
batch, which is torch's own way and lets the consumer keep what it was given; its page faults are
the price of processes. One OpenCV thread a worker; glibc's moving mmap threshold, which lets such
workers grow by gigabytes, is pinned. Pairs, crops, colours and the layout of the pixels are those
of our ``cpu`` backend. In its favour: it does not check the bytes that it reads.

In the class ``plain`` the workers send uint8 all the same and the consumer's process normalises:
floats made in a worker would be four times the shared memory, and fresh pages are what a batch from
a process costs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset

from benchmarks.case import Case, Served
from benchmarks.derived import legacy_folder
from benchmarks.kernel import Kernel
from benchmarks.pairs import hand_over, pair_config
from benchmarks.worker_batches import data_loader, shared_crops
from loaders.sets import open_sets
from loaders.work import Crops, prepare
from shards.errors import DataError
from shards.legacy import legacy_names
from shards.zip_members import STORED, members

label = "zip-tuned (zip in memory, simplejpeg, our warp)"

_LOCAL_HEADER = 30


class Zip(Protocol):
    """Pictures of one data set's zip."""

    def read(self, row: int) -> memoryview | bytes:
        """Encoded picture of a row of the index."""


def directory(path: Path, sizes: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Header's offset, size and method (N, 3) of a zip's members, by row of the index.

    Parameters
    ----------
    path : of the zip
    sizes : (N,) of the pictures by row

    Raises
    ------
    DataError : if they are not the members, stored and in this order
    """
    table = np.array(
        [(one.header, one.size, one.method) for one in members(path)], np.int64
    ).reshape(-1, 3)
    if not np.array_equal(table[:, 1], sizes) or (table[:, 2] != STORED).any():
        raise DataError(
            f"{path}: not the pictures of the data set, stored and in its order; remove the "
            "folder to have it made again"
        )
    return table


class MemoryZip:
    """A zip of stored members in one buffer, found by row of the index.

    Parameters
    ----------
    path : of the zip
    sizes : (N,) of the pictures by row; the zip has the same in the same order

    Raises
    ------
    DataError : if it has not
    """

    def __init__(self, path: Path, sizes: npt.NDArray[Any]) -> None:
        table = directory(path, sizes)
        self._buffer = np.fromfile(path, np.uint8)
        self._view = memoryview(self._buffer)
        # name and extra field lie between a member's own header and its data
        lengths = self._buffer[table[:, :1] + np.arange(26, 30)].view("<u2").astype(np.int64)
        self._start = table[:, 0] + _LOCAL_HEADER + lengths.sum(1)
        self._stop = self._start + table[:, 1]

    def read(self, row: int) -> memoryview:
        """Encoded picture of a row; nothing is copied."""
        return self._view[self._start[row] : self._stop[row]]


OpenZip = Callable[[Path, npt.NDArray[Any]], Zip]


class Batch(NamedTuple):
    """What a worker sends: pixels as handles of shared memory, the rest by value."""

    sample: npt.NDArray[np.int64]
    template: torch.Tensor
    search: torch.Tensor
    boxes: tuple[npt.NDArray[Any], ...]
    positive: npt.NDArray[np.bool_]


class TunedBatches(Dataset[Batch]):
    """Batch k of the plan, made when it is asked for.

    Parameters
    ----------
    case : of the run
    by_region : decode only what a crop touches, where that costs less
    archive : opens a data set's zip
    """

    def __init__(self, case: Case, by_region: bool = False, archive: OpenZip = MemoryZip) -> None:
        self._case, self._config, self._by_region = case, pair_config(case), by_region
        self._sets = open_sets(self._config)
        self._zips: dict[int, Zip] = {}
        for source in self._sets.sets:
            name, _ = legacy_names(source.manifest.name)
            path = legacy_folder(case.derived_folder, source.manifest) / name
            self._zips[id(source)] = archive(path, source.index.size)
        self._kernel = Kernel(self._sets.crop_size, self.read)

    def __len__(self) -> int:
        return self._case.planned_batches

    def read(self, crops: Crops, i: int) -> memoryview | bytes:
        """Encoded picture of crop i."""
        return self._zips[id(crops.sources[i])].read(int(crops.rows[i]))

    def __getitem__(self, number: int) -> Batch:
        case = self._case
        work = prepare(self._sets, self._config, 0, number * case.batch_size, case.batch_size)
        return Batch(
            work.plan.sample,
            *self._pixels(work.template, work.search),
            (work.template_box, work.search_box, work.other_boxes, work.other_mask),
            work.plan.positive,
        )

    def _pixels(self, *halves: Crops) -> list[torch.Tensor]:
        out = shared_crops(len(halves[0]), self._case)
        for half, pixels in zip(halves, out, strict=True):
            self._fill(half, pixels.numpy())
        return out

    def _fill(self, crops: Crops, out: npt.NDArray[np.uint8]) -> None:
        regions = crops.params.decoded
        if not self._by_region:
            side = crops.params.frame_px
            regions = np.broadcast_to(np.array([0, 0, side, side]), regions.shape)
        for i in range(len(crops)):
            self._kernel.make(crops, i, regions[i], out[i])


def batches(case: Case, by_region: bool = False, archive: OpenZip = MemoryZip) -> Iterator[Served]:
    """Batches of torch's DataLoader."""
    dataset = TunedBatches(case, by_region, archive)
    for batch in data_loader(dataset, case):
        yield hand_over(case, batch.sample.tolist(), batch.template, batch.search)
