"""SPDL: a pipeline of threads over the mapped shards; decode and augmentation are ours.

SPDL leaves reading to its user: our tars are mapped, and a picture is a slice at the offset of our
index, not checked. A task is a whole batch: a task of one pair costs more in SPDL's event loop.
"""

from __future__ import annotations

import importlib.metadata
import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
from spdl.pipeline import PipelineBuilder

from benchmarks.case import Case, Served
from benchmarks.pairs import hand_over, pair_config, works
from benchmarks.transform import Transform
from loaders.sets import DataSets, open_sets
from loaders.work import Crops, Work

label = (
    f"SPDL {importlib.metadata.version('spdl_core')} (threads, mapped tars), "
    "simplejpeg and our kernel"
)


class MappedShards:
    """The shards of all data sets, mapped into memory."""

    def __init__(self, sets: DataSets) -> None:
        self._maps: dict[tuple[int, str], memoryview] = {}
        for one in sets.sets:
            for shard in one.manifest.shards:
                with Path(one.folder, shard.name).open("rb") as file:
                    mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
                self._maps[id(one), shard.name] = memoryview(mapped)

    def encoded(self, crops: Crops, i: int) -> memoryview:
        """Encoded picture of crop i; nothing is copied."""
        source: Any = crops.sources[i]
        at = source.index.range(int(crops.rows[i]))
        return self._maps[id(source), at.file][at.offset : at.offset + at.size]


def batches(case: Case) -> Iterator[Served]:
    """Batches of an SPDL pipeline, in the order of the plan."""
    cv2.setNumThreads(1)
    sets = open_sets(pair_config(case))
    transform = Transform(sets.crop_size, MappedShards(sets).encoded)

    def make(work: Work) -> tuple[Any, ...]:
        return (work.plan.sample.tolist(), *transform.batch(work))

    pipeline: Any = (
        PipelineBuilder()
        .add_source(works(case, sets))
        .pipe(make, concurrency=case.threads, output_order="input")
        .add_sink(buffer_size=2)
        .build(num_threads=case.threads)
    )
    with pipeline.auto_stop():
        for sample, template, search in pipeline:
            yield hand_over(case, sample, template, search)
