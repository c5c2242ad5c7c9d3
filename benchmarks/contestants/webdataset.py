"""WebDataset as a stream with torchvision's v2 transforms: the same shards, pairs of its own.

A stream cannot follow a plan, so its pairs are drawn as it passes: on every visit to a track
`PAIRS_A_VISIT` pairs of frames at most `MAX_GAP` apart, which a buffer of encoded pairs then mixes.
Only the pictures are taken from the tars. The regions of the crops are those that the plan drew for
a sample's number, rounded to whole pixels as torchvision's crop wants them. Pictures are decoded by
simplejpeg, which costs less than torchvision's ``decode_jpeg``. A worker of torch's DataLoader
makes whole batches of uint8 in shared memory, which are normalised where they arrive.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
import torch
import torchvision
import webdataset as wds
from torch.utils.data import IterableDataset, get_worker_info
from torchvision.transforms.v2 import functional as v2

from benchmarks.case import Case, Served
from benchmarks.pairs import hand_over, pair_config
from benchmarks.worker_batches import Made, data_loader, shared_crops
from loaders.sets import open_sets
from loaders.work import Crops, prepare
from shards.rng import integers_below, uniforms

label = (
    f"WebDataset {wds.__version__} (stream) and torchvision "
    f"{torchvision.__version__.partition('+')[0]} v2"
)

PAIRS_A_VISIT = 8
MAX_GAP = 200  # frame numbers between the two of a pair
BUFFER, BUFFER_START = 256, 64  # encoded pairs that are mixed
_STREAM_PAIRS = 1011

Pair = tuple[bytes, bytes]


def pairs_of_tracks(samples: Iterable[dict[str, Any]], seed: int, worker: int) -> Iterator[Pair]:
    """Draw pairs of frames of every track that passes.

    Parameters
    ----------
    samples : with ``__key__`` and ``jpg``; those of a track come one after the other
    seed, worker : of the draws

    Yields
    ------
    encoded template and search picture
    """
    visits = itertools.groupby(samples, key=lambda sample: sample["__key__"].rpartition("_")[0])
    for visit, (_, members) in enumerate(visits):
        frames = [(int(one["__key__"].rpartition("_")[2]), one["jpg"]) for one in members]
        numbers = np.array([number for number, _ in frames])
        u = uniforms(seed, _STREAM_PAIRS, worker, visit * PAIRS_A_VISIT, PAIRS_A_VISIT, 4)
        for first, second_u in zip(integers_below(u[:, 0], len(frames)), u[:, 1], strict=True):
            near = np.flatnonzero(np.abs(numbers - numbers[first]) <= MAX_GAP)
            yield frames[first][1], frames[near[integers_below(second_u, len(near))]][1]


def resized(picture: torch.Tensor, region: Any, out_px: int) -> torch.Tensor:
    """Crop and resize one picture as torchvision does.

    Parameters
    ----------
    picture : (3, H, W) uint8
    region : x0, y0, x1, y1 in pixels of the picture; rounded
    out_px : side of the result
    """
    left, top, right, bottom = np.rint(region).astype(int).tolist()
    out = v2.resized_crop(
        picture, top, left, bottom - top, right - left, [out_px, out_px], antialias=False
    )
    assert isinstance(out, torch.Tensor)
    return out


class StreamedBatches(IterableDataset[Made]):
    """Every so many-th batch, made in the worker that it falls to."""

    def __init__(self, case: Case) -> None:
        self._case, self._config = case, pair_config(case)
        self._sets = open_sets(self._config)
        self._urls = [
            str(Path(one.folder, shard.name).absolute())
            for one in self._sets.sets
            for shard in one.manifest.shards
        ]

    def _stream(self, worker: int) -> Any:
        """Encoded pairs without end; shards are drawn, as WebDataset advises for training."""
        case = self._case
        stream: Any = wds.WebDataset(
            self._urls,
            resampled=True,
            shardshuffle=False,  # of no meaning to resampled shards
            seed=case.seed,
            select_files=lambda name: name.endswith(".jpg"),
        )
        stream = stream.compose(lambda samples: pairs_of_tracks(samples, case.seed, worker))
        return stream.shuffle(BUFFER, initial=BUFFER_START, seed=case.seed)

    def __iter__(self) -> Iterator[Made]:
        case, info = self._case, get_worker_info()
        worker, workers = (0, 1) if info is None else (info.id, info.num_workers)
        picture = np.empty((self._sets.crop_size, self._sets.crop_size, 3), np.uint8)
        stream = iter(self._stream(worker))
        for start in itertools.islice(case.starts(), worker, None, workers):
            work = prepare(self._sets, self._config, 0, start, case.batch_size)
            encoded = list(itertools.islice(stream, case.batch_size))
            out = shared_crops(len(work), case)
            for half, crops in enumerate((work.template, work.search)):
                self._fill(crops, [pair[half] for pair in encoded], picture, out[half])
            yield Made(work.plan.sample.tolist(), out[0], out[1])

    def _fill(self, crops: Crops, encoded: list[bytes], picture: Any, out: torch.Tensor) -> None:
        for i, data in enumerate(encoded):
            decoded = torch.from_numpy(simplejpeg.decode_jpeg(data, "RGB", buffer=picture))
            region = crops.params.region[i]
            out[i] = resized(decoded.permute(2, 0, 1), region, crops.params.out_px)


def batches(case: Case) -> Iterator[Served]:
    """Batches of torch's DataLoader."""
    for made in data_loader(StreamedBatches(case), case):
        yield hand_over(case, made.sample, made.template, made.search)
