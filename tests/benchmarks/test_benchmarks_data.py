"""Synthetic data: the same bytes always, sizes like photographs, safe to run again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.data import DataConfig, make, render_track
from shards.errors import FormatError, MismatchError
from shards.format import MANIFEST_NAME
from shards.geometry import crop_region
from shards.index import Index
from shards.verify import verify

SMALL = DataConfig(gb=0.00006, side=64, frames_per_track=3, tracks_per_shard=2, name="tiny")


def _bytes(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir()) if p.is_file()}


def _make(folder: Path, config: DataConfig = SMALL, workers: int = 1) -> bool:
    return make(folder, config, workers, lambda _: None)[1]


def test_same_bytes_for_any_number_of_workers_and_when_resumed(tmp_path: Path) -> None:
    assert SMALL.shards >= 3
    assert _make(tmp_path / "a") is False
    expected = _bytes(tmp_path / "a")
    assert _make(tmp_path / "b", workers=2) is False
    assert _bytes(tmp_path / "b") == expected
    # as if it had been killed after the first shard
    for path in (tmp_path / "b").iterdir():
        if path.is_file() and path.name != "tiny-000000.tar":
            path.unlink()
    assert _make(tmp_path / "b") is False
    assert _bytes(tmp_path / "b") == expected
    assert _make(tmp_path / "b") is True
    assert verify(tmp_path / "b", workers=1).ok


def test_other_options_are_refused_and_leftovers_of_others_not_used(tmp_path: Path) -> None:
    other = replace(SMALL, seed=12)
    _make(tmp_path / "a")
    with pytest.raises(MismatchError, match="other options"):
        _make(tmp_path / "a", other)
    (tmp_path / "a" / MANIFEST_NAME).unlink()
    _make(tmp_path / "a", other)
    _make(tmp_path / "b", other)
    assert _bytes(tmp_path / "a") == _bytes(tmp_path / "b")


def test_names_are_checked() -> None:
    with pytest.raises(FormatError, match="data set name"):
        DataConfig(name="A B")


def test_size_is_about_what_was_asked() -> None:
    assert DataConfig(gb=0.1).tracks == pytest.approx(2 * DataConfig(gb=0.05).tracks, abs=1)


def test_pictures_are_about_as_large_as_real_crops() -> None:
    config = DataConfig(frames_per_track=2)
    sizes = np.array([len(jpeg) for k in range(12) for _, jpeg in render_track(config, k)]) / 1e3
    assert 28 < sizes.mean() < 40
    assert sizes.min() > 15
    assert sizes.max() < 70
    assert sizes.std() > 3


def test_boxes_have_the_geometry_of_crops() -> None:
    for track in range(5):
        sample, _ = next(render_track(DataConfig(frames_per_track=2), track))
        # a crop of the crop around its own box is the crop itself
        np.testing.assert_allclose(crop_region(sample.boxes[0]), [0, 0, 446, 446], atol=1e-2)


def test_frames_differ_and_are_numbered_by_the_stride(tmp_path: Path) -> None:
    _make(tmp_path / "a")
    index = Index(tmp_path / "a")
    assert index.frame[:3].tolist() == [1, 4, 7]
    assert len(np.unique(index.crc)) == len(index)
