"""Extracted crops, one file each, through a plain torch DataLoader with our kernel.

Workers send uint8, and in the class ``plain`` the consumer normalises, as in `zip_tuned`. Pairs,
crops and colours are those of our plan, so this is our ``cpu`` backend's work on loose files and
worker processes, collated by torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader, Dataset

from benchmarks.case import Case, Served
from benchmarks.derived import crop_path, files_folder
from benchmarks.kernel import Kernel
from benchmarks.pairs import hand_over, whole_work
from loaders.work import Crops

label = "files (our kernel and region decode, plain DataLoader)"


class FilePairs(Dataset[tuple[Any, ...]]):
    """Pairs of the plan from files."""

    def __init__(self, case: Case) -> None:
        sets, self.work = whole_work(case)
        self._folders = {
            id(source): files_folder(case.derived_folder, source.manifest) for source in sets.sets
        }
        self._kernel = Kernel(sets.crop_size, self._read)
        self._template_regions = self.work.template.params.decoded
        self._search_regions = self.work.search.params.decoded

    def __len__(self) -> int:
        return len(self.work)

    def path(self, crops: Crops, i: int) -> Path:
        """File of crop i."""
        source = crops.sources[i]
        return self._folders[id(source)] / crop_path(source.index, int(crops.rows[i]))

    def _read(self, crops: Crops, i: int) -> bytes:
        return self.path(crops, i).read_bytes()

    def _crop(self, crops: Crops, regions: npt.NDArray[np.int64], i: int) -> torch.Tensor:
        side = crops.params.out_px
        out = np.empty((3, side, side), np.uint8)
        self._kernel.make(crops, i, regions[i], out)
        return torch.from_numpy(out)

    def __getitem__(self, i: int) -> tuple[Any, ...]:
        work = self.work
        template = self._crop(work.template, self._template_regions, i)
        search = self._crop(work.search, self._search_regions, i)
        return i, template, search, work.template_box[i], work.search_box[i], work.plan.positive[i]


def batches(case: Case) -> Iterator[Served]:
    """Batches of torch's DataLoader."""
    cv2.setNumThreads(1)  # before the fork, as in `benchmarks.worker_batches`
    loader: DataLoader[Any] = DataLoader(
        FilePairs(case),
        batch_size=case.batch_size,
        num_workers=case.threads,
        multiprocessing_context="fork",
    )
    for sample, template, search, *_ in loader:
        yield hand_over(case, sample.tolist(), template, search)
