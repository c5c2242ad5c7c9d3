"""Grain: an ArrayRecord, read and made into batches in its threads; the rest of the work is ours.

A batch of the plan is one element of a `MapDataset`. Grain's read threads share a process, and
decode and warp release the interpreter's lock, so its worker processes, which would send every
batch through shared memory, are not needed.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import grain
from array_record.python.array_record_module import ArrayRecordWriter

from benchmarks.case import Case, Served
from benchmarks.pairs import hand_over, pair_config
from benchmarks.peer_forms import Pictures, Rows, form_folder
from benchmarks.transform import Transform
from loaders.sets import open_sets
from loaders.work import prepare

label = f"grain {grain.__version__} (ArrayRecord, threads), simplejpeg and our kernel"

_FILE = "pictures.array_record"


def write(pictures: Pictures, folder: Path) -> None:
    """Write one file, one picture a group, which is how ArrayRecord is read by number."""
    writer = ArrayRecordWriter(str(folder / _FILE), "group_size:1")
    for number in range(len(pictures)):
        writer.write(pictures[number])
    writer.close()


class Batches:
    """Batch k of the plan, as grain's source of elements."""

    def __init__(self, case: Case) -> None:
        file = form_folder(case.data, case.derived_folder, "grain") / _FILE
        self._source: Any = grain.sources.ArrayRecordDataSource([str(file)])
        self._case, self._config = case, pair_config(case)
        self._sets = open_sets(self._config)
        encoded = Rows(Path(case.data)).reader(self._source.__getitem__)
        self._transform = Transform(self._sets.crop_size, encoded)

    def __len__(self) -> int:
        return self._case.planned_batches

    def __getitem__(self, number: int) -> tuple[Any, ...]:
        case = self._case
        work = prepare(self._sets, self._config, 0, number * case.batch_size, case.batch_size)
        return (work.plan.sample.tolist(), *self._transform.batch(work))


def batches(case: Case) -> Iterator[Served]:
    """Batches of grain's `IterDataset`."""
    cv2.setNumThreads(1)
    options = grain.ReadOptions(num_threads=case.threads, prefetch_buffer_size=case.threads + 2)
    made: Any = iter(grain.MapDataset.source(Batches(case)).to_iter_dataset(options))
    try:
        for sample, template, search in made:
            yield hand_over(case, sample, template, search)
    finally:
        made.close()
