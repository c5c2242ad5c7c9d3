"""The published way: zip in memory, OpenCV, float32 crops through torch worker processes.

What PySiamTracking does, in our own writing: the whole archive is read into memory once, each
worker finds its members by name, decodes with ``cv2.imdecode``, augments as `benchmarks.published`
says with random numbers of its own, and torch's DataLoader collates float32 batches. Its pairs are
the plan's, given to it before the clock, which is in its favour. Differences from the original, all
in its favour too: torch's sampling kernel instead of its own slower one, one OpenCV thread a
worker, all 500 candidates of an occluder drawn at once instead of one after the other. In the
class ``plain`` it decodes, crops and normalises in the same way, and does no other step.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from benchmarks.case import Case, Served
from benchmarks.derived import legacy_folder
from benchmarks.pairs import whole_work
from benchmarks.published import (
    GREY_P,
    RANGES,
    apply,
    crop_alone,
    draw_crop,
    map_boxes,
    normalise,
)
from shards.errors import DataError
from shards.legacy import legacy_names, load_legacy

label = "zip-published (zip in memory, OpenCV)"


class Archive:
    """Zip and annotations of one data set, in memory; found by row of the index.

    Parameters
    ----------
    case : of the run
    source : data set that was exported
    """

    def __init__(self, case: Case, source: Any) -> None:
        folder = legacy_folder(case.derived_folder, source.manifest)
        zip_name, pickle_name = legacy_names(source.manifest.name)
        self._zip = zipfile.ZipFile(io.BytesIO((folder / zip_name).read_bytes()))
        self._sequences = load_legacy(folder / pickle_name)["seqs"]
        index = source.index
        self._first = np.flatnonzero(index.track_first == np.arange(len(index)))

    def name(self, row: int) -> str:
        """Member of a row's picture."""
        sequence, position = self._find(row)
        return str(self._sequences[sequence]["frames"][position])

    def read(self, row: int) -> tuple[Any, Any]:
        """Picture (S, S, 3) BGR and boxes (K, 6) of a row."""
        sequence, position = self._find(row)
        facts = self._sequences[sequence]
        data = self._zip.read(facts["frames"][position])
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        if picture is None:
            raise DataError(f"{facts['frames'][position]}: OpenCV cannot decode it")
        return picture, facts["bboxes"][position]

    def _find(self, row: int) -> tuple[int, int]:
        sequence = int(np.searchsorted(self._first, row, side="right")) - 1
        return sequence, int(row - self._first[sequence])


class PublishedPairs(Dataset[tuple[Any, ...]]):
    """Pairs of the plan, each made when it is asked for."""

    def __init__(self, case: Case) -> None:
        sets, self.work = whole_work(case)
        self._case = case
        plain = case.work == "plain"
        self._ranges = {
            key: crop_alone(ranges) if plain else ranges for key, ranges in RANGES.items()
        }
        self._grey_p = 0.0 if plain else GREY_P
        self.archives = [Archive(case, source) for source in sets.sets]
        self.seed_worker(0)

    def seed_worker(self, worker: int) -> None:
        """Give this process its own random numbers."""
        self._rng = np.random.Generator(np.random.PCG64([self._case.seed, worker]))

    def __len__(self) -> int:
        return len(self.work)

    def members(self, i: int) -> tuple[str, str]:
        """Names of the two pictures of pair i."""
        plan = self.work.plan
        archive = self.archives[int(plan.dataset[i])]
        return archive.name(int(plan.template_row[i])), archive.name(int(plan.search_row[i]))

    def __getitem__(self, i: int) -> tuple[Any, ...]:
        plan, case = self.work.plan, self._case
        archive = self.archives[int(plan.dataset[i])]
        kind = "image" if plan.is_image[i] else "video"
        crops, boxes = [], []
        for half, row, out_px in (
            ("z", plan.template_row[i], case.template_px),
            ("x", plan.search_row[i], case.search_px),
        ):
            picture, stored = archive.read(int(row))
            side = picture.shape[0]
            draw = draw_crop(self._ranges[kind, half], self._rng, stored[0, :4], side)
            crops.append(apply(picture, draw, out_px))
            boxes.append(map_boxes(stored, draw, side, out_px)[0])
        grey = bool(self._rng.random() < self._grey_p)
        template, search = (normalise(crop, grey) for crop in crops)
        return i, template, search, boxes[0], boxes[1], bool(plan.positive[i])


def start_worker(worker: int) -> None:
    """Set up a worker process."""
    info = get_worker_info()
    assert info is not None
    dataset = info.dataset
    assert isinstance(dataset, PublishedPairs)
    dataset.seed_worker(worker)


def data_loader(case: Case) -> DataLoader[Any]:
    """Torch's DataLoader over the plan's pairs; its workers start when it is iterated over."""
    cv2.setNumThreads(1)  # before the fork, as in `benchmarks.worker_batches`
    return DataLoader(
        PublishedPairs(case),
        batch_size=case.batch_size,
        num_workers=case.threads,
        worker_init_fn=start_worker,
        multiprocessing_context="fork",  # the published default: workers share the zip's pages
    )


def batches(case: Case) -> Iterator[Served]:
    """Float32 batches of torch's DataLoader."""
    for sample, template, search, *_ in data_loader(case):
        assert isinstance(sample, torch.Tensor)
        yield Served(sample.tolist(), template, search)
