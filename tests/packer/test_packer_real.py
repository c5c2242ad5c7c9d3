"""The real pictures of SIAMSTREAM_TEST_DATA: LaSOT's layout with short genuine sequences."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from lasot_tree import hashes, packed_frames

from packer.datasets import lasot
from packer.jobs import PackOptions
from packer.run import pack
from shards import pixels
from shards.format import Manifest
from shards.geometry import boxes_from_regions
from shards.index import Index
from shards.storage import LocalStorage, Range
from shards.verify import verify

ABSENT = {("person-22", number) for number in range(32, 36)}  # labelled by eye, README of the data
LENGTHS = {"car-21": 80, "motorcycle-21": 60, "person-21": 80, "person-22": 60}


@pytest.fixture(scope="module")
def packed_real(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("real") / "lasot"
    pack(lasot, real_data / "lasot", out, PackOptions(stride=3, min_size=10), workers=1)
    return out


def published(real_data: Path, name: str) -> np.ndarray:
    """Boxes read the plain way: they are integers and commas, one a line."""
    path = real_data / "lasot" / name.rpartition("-")[0] / name / "groundtruth.txt"
    return np.loadtxt(path, delimiter=",")


def test_frames_are_those_that_stride_and_flags_allow(real_data: Path, packed_real: Path) -> None:
    expected = [
        (name, number)
        for name, length in sorted(LENGTHS.items())
        for number in range(1, length + 1, 3)
        if (name, number) not in ABSENT
    ]
    kept = [(frame["sequence"], frame["frame"]) for frame in packed_frames(packed_real)]
    assert kept == expected
    assert Manifest.read(packed_real).rejected == {"absent": 1}  # of 32 to 35 only 34 is picked
    (example,) = Manifest.read(packed_real).rejected_examples["absent"]
    assert example["frame"] == "person-22/34"
    assert example["picture"] == "person/person-22/img/00000034.jpg"


def test_boxes_lead_back_to_the_published_ones(real_data: Path, packed_real: Path) -> None:
    for frame in packed_frames(packed_real):
        x, y, w, h = published(real_data, frame["sequence"])[frame["frame"] - 1]
        back = boxes_from_regions(np.array(frame["boxes"][0]), np.array(frame["region"]), 446)
        np.testing.assert_allclose(back, [x, y, x + w, y + h], atol=2e-3)


def test_the_target_in_the_crop_is_the_target_in_the_frame(
    real_data: Path, packed_real: Path
) -> None:
    """Mean colours of the box in source and crop agree: the crop shows the right place."""
    index, storage = Index(packed_real), LocalStorage(packed_real)
    for row in range(0, len(index), 7):
        sample = index.sample(row)
        where = Range(index.file(row), int(index.offset[row]), int(index.size[row]))
        crop = pixels.decode(storage.read_many([where])[0])
        frame = pixels.decode((real_data / "lasot" / sample.source).read_bytes())
        x, y, w, h = published(real_data, sample.sequence)[sample.frame - 1].astype(int)
        inner = frame[max(y, 0) : y + h, max(x, 0) : x + w].reshape(-1, 3).mean(axis=0)
        x0, y0, x1, y1 = sample.boxes[0].round().astype(int)
        assert np.abs(crop[y0:y1, x0:x1].reshape(-1, 3).mean(axis=0) - inner).max() < 4


def test_it_verifies(packed_real: Path) -> None:
    assert verify(packed_real).ok


def test_two_workers_give_the_same_hashes(real_data: Path, tmp_path: Path) -> None:
    options = PackOptions(stride=6, min_size=10, frames_per_shard=12)
    for workers in (1, 2):
        pack(lasot, real_data / "lasot", tmp_path / str(workers), options, workers=workers)
    assert hashes(tmp_path / "1") == hashes(tmp_path / "2")
