"""Extracted crops, one file each, through a plain torch DataLoader with a good kernel.

simplejpeg decodes, OpenCV warps, pixels stay uint8; pairs, crops and colours are those of our plan,
so this is our ``cpu`` backend's work on loose files and worker processes.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import simplejpeg
import torch
from torch.utils.data import DataLoader, Dataset

from benchmarks.case import Case, Served
from benchmarks.derived import crop_path, files_folder
from benchmarks.pairs import whole_work
from loaders.work import Crops
from shards.geometry import index_affine

label = "files (simplejpeg, DataLoader), uint8"

_FLAGS = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP


class FilePairs(Dataset[tuple[Any, ...]]):
    """Pairs of the plan from files."""

    def __init__(self, case: Case) -> None:
        sets, self.work = whole_work(case)
        self._folders = {
            id(source): files_folder(case.derived_folder, source.manifest) for source in sets.sets
        }

    def __len__(self) -> int:
        return len(self.work)

    def path(self, crops: Crops, i: int) -> Path:
        """File of crop i."""
        source = crops.sources[i]
        return self._folders[id(source)] / crop_path(source.index, int(crops.rows[i]))

    def _crop(self, crops: Crops, i: int) -> torch.Tensor:
        params = crops.params
        picture = simplejpeg.decode_jpeg(self.path(crops, i).read_bytes(), "RGB")
        out = cv2.warpAffine(
            picture,
            index_affine(params.frame_from_crop[i]),
            (params.out_px, params.out_px),
            flags=_FLAGS,
            borderMode=cv2.BORDER_REPLICATE,
        )
        if params.colored[i]:
            out = cv2.transform(out, params.color[i])
        return torch.from_numpy(np.ascontiguousarray(out.transpose(2, 0, 1)))

    def __getitem__(self, i: int) -> tuple[Any, ...]:
        work = self.work
        template, search = self._crop(work.template, i), self._crop(work.search, i)
        return i, template, search, work.template_box[i], work.search_box[i], work.plan.positive[i]


def start_worker(_: int) -> None:
    """Set up a worker process."""
    cv2.setNumThreads(1)


def batches(case: Case) -> Iterator[Served]:
    """Batches of torch's DataLoader."""
    loader: DataLoader[Any] = DataLoader(
        FilePairs(case),
        batch_size=case.batch_size,
        num_workers=case.threads,
        worker_init_fn=start_worker,
        multiprocessing_context="fork",
    )
    for sample, template, search, *_ in loader:
        yield Served(sample.tolist(), template, search)
