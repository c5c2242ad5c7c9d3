"""Whole batches made in worker processes of torch's DataLoader.

For peers that are read by number, and for ``zip-tuned``. The best set-up that we know for such: a
worker plans and makes a whole batch, straight into one block of shared memory, and only a handle
goes to the consumer. One OpenCV thread a worker; glibc's moving mmap threshold, which lets such
workers grow by gigabytes, is pinned.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from benchmarks.case import Case, Served
from benchmarks.pairs import hand_over, pair_config
from benchmarks.peer_forms import Rows
from benchmarks.transform import Transform
from loaders.sets import open_sets
from loaders.work import prepare

__all__ = [
    "Made",
    "Read",
    "WorkerBatches",
    "data_loader",
    "serve",
    "shared_crops",
]

Read = Callable[[int], Any]  # encoded picture by its number in the peer's form
PREFETCH = 4  # batches that each worker makes ahead; ours makes as many in all
_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1  # of glibc's mallopt


class Made(NamedTuple):
    """A batch as it leaves a worker: uint8 crops as handles of shared memory."""

    sample: list[int]
    template: torch.Tensor
    search: torch.Tensor
    boxes: tuple[Any, ...] = ()


def shared_crops(count: int, case: Case) -> list[torch.Tensor]:
    """Two tensors (count, 3, S, S) uint8 in one fresh block of shared memory.

    It is what torch's own collate function does in a worker, once for both halves of a batch.
    """
    shapes = [(count, 3, side, side) for side in (case.template_px, case.search_px)]
    sizes = [int(np.prod(shape)) for shape in shapes]
    storage = torch.UntypedStorage._new_shared(sum(sizes))
    parts = torch.empty(0, dtype=torch.uint8).set_(storage).split(sizes)
    return [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]


class WorkerBatches(Dataset[Made]):
    """Batch k of the plan, made when it is asked for.

    Parameters
    ----------
    case : of the run
    opened : opens the peer's form and returns what reads it; called once in every worker
    """

    def __init__(self, case: Case, opened: Callable[[], Read]) -> None:
        self._case, self._config, self._opened = case, pair_config(case), opened
        self._sets = open_sets(self._config)
        self._transform: Transform | None = None

    def __len__(self) -> int:
        return self._case.planned_batches

    def __getitem__(self, number: int) -> Made:
        case = self._case
        if self._transform is None:
            encoded = Rows(Path(case.data)).reader(self._opened())
            self._transform = Transform(self._sets.crop_size, encoded)
        work = prepare(self._sets, self._config, 0, number * case.batch_size, case.batch_size)
        template, search = shared_crops(len(work), case)
        self._transform.fill(work.template, template.numpy())
        self._transform.fill(work.search, search.numpy())
        boxes = work.template_box, work.search_box, work.other_boxes, work.other_mask
        return Made(work.plan.sample.tolist(), template, search, boxes)


def start_worker(_: int) -> None:
    """Set up a worker process."""
    libc = ctypes.CDLL(None)
    # Fixed: glibc would raise it with every large block freed and keep those blocks in its heap.
    libc.mallopt(_MMAP_THRESHOLD, 1_000_000)
    # A decoded picture that is freed stays in the heap, so that the next one costs no page faults.
    libc.mallopt(_TRIM_THRESHOLD, 16_000_000)


def as_it_is(made: Any) -> Any:
    """Hand a batch over without collating."""
    return made


def data_loader(dataset: Dataset[Any], case: Case) -> DataLoader[Any]:
    """Torch's DataLoader over a data set of whole batches; workers start when it is iterated over.

    OpenCV's threads are given up before the fork: a worker that changes their number waits for
    threads of the parent, which it does not have.
    """
    cv2.setNumThreads(1)
    return DataLoader(
        dataset,
        batch_size=None,  # the data set makes whole batches
        collate_fn=as_it_is,
        num_workers=case.threads,
        prefetch_factor=PREFETCH,
        persistent_workers=True,
        worker_init_fn=start_worker,
        multiprocessing_context="fork",  # workers share what was read before
    )


def serve(case: Case, opened: Callable[[], Read]) -> Iterator[Served]:
    """Batches of torch's DataLoader over `WorkerBatches`."""
    for made in data_loader(WorkerBatches(case, opened), case):
        yield hand_over(case, made.sample, made.template, made.search)
