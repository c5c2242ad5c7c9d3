"""The packing benchmark: same crops on both sides, true trees, a complete result."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from benchmarks import pack as bench
from benchmarks import raw
from benchmarks.cli import main
from packer.source import open_source
from shards.errors import DataError
from shards.geometry import CROP_PX, crop_region
from shards.pixels import header

SMALL = tuple(
    replace(case, size=(320, 240), kb=12, sides=(14, 16) if case.inside else (14, 40))
    for case in raw.CASES
)


def test_crops_inside_stay_inside_and_cover_little() -> None:
    for case in (case for case in raw.CASES if case.inside):
        xywh = raw.boxes(case, 200)
        region = crop_region(np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], 1), CROP_PX)
        assert (region[:, :2] >= 0).all()
        assert (region[:, 2:] <= case.size).all()
        assert (np.prod(region[:, 2:] - region[:, :2], 1) < np.prod(case.size) / 4).all()


@pytest.mark.parametrize("case", raw.CASES, ids=lambda case: case.name)
def test_pictures_have_the_size_that_the_case_says(case: raw.Case) -> None:
    data = raw.encoded_near(raw.photograph(3, case.size), case.kb, case.chroma)
    found = header(data)
    assert (found.width, found.height) == case.size
    assert 0.6 < len(data) / 1e3 / case.kb < 1.5


def test_a_run_is_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "CASES", (SMALL[0], SMALL[-1]))
    file = tmp_path / "pack.json"
    args = ["pack", "--out", tmp_path / "out", "--frames", "14", "--repeats", "1", "--json", file]
    result = CliRunner().invoke(main, list(map(str, args)))
    assert result.exit_code == 0, result.stderr
    run = json.loads(file.read_text())
    assert [one["name"] for one in run["cases"]] == ["lasot", "coco"]
    assert [(one["crops"], one["pictures"]) for one in run["cases"]] == [(14, 14), (14, 2)]
    for one in run["cases"]:
        assert set(one["cpu_ms_per_frame"]) == {"ours", "obvious", "tuned"}
        stages = one["profile_cpu_ms_per_frame"]
        for stage in ("decode", "warp", "encode", "read pictures", "read the shard back"):
            assert stages[stage] > 0
        assert one["holds"] == (one["ratio"]["cpu"] >= one["bar"])
    assert not list((tmp_path / "out").iterdir())
    assert "CPU ms a frame, profiled" in result.stdout


def test_other_crops_are_an_error(tmp_path: Path) -> None:
    name, root = raw.render(SMALL[0], 14, tmp_path / "raw")
    work = bench._work(name, root, 14)
    bench.ours(work, tmp_path / "ours")
    bench.obvious(work, tmp_path / "loop", bench.cv2_mean)
    bench.check_same(tmp_path / "ours", tmp_path / "loop")
    bench.obvious(replace(work, boxes=work.boxes + 6), tmp_path / "loop", bench.cv2_mean)
    with pytest.raises(DataError, match="differs by"):
        bench.check_same(tmp_path / "ours", tmp_path / "loop")
    next((tmp_path / "loop").iterdir()).unlink()
    with pytest.raises(DataError, match="the loop made 13 crops, the packer 14"):
        bench.check_same(tmp_path / "ours", tmp_path / "loop")


def test_both_means_agree(tmp_path: Path) -> None:
    picture = raw.photograph(1, (320, 240))
    np.testing.assert_allclose(bench.cv2_mean(picture)[:3], bench.numpy_mean(picture), rtol=1e-9)


def test_real_trees(real_data: Path, tmp_path: Path) -> None:
    run = bench.measure_pack(tmp_path / "out", 1, 1, real_data, "command", lambda _line: None)
    assert {one["name"] for one in run["cases"]} == {"coco", "got10k", "lasot", "trackingnet"}
    assert not any(one["synthetic"] for one in run["cases"])


def test_the_trees_are_in_their_layouts(tmp_path: Path) -> None:
    _, root = raw.render(SMALL[-1], 14, tmp_path / "coco")
    assert [entry.name for entry in open_source(root).list("")] == ["annotations", "train2017"]
    _, root = raw.render(SMALL[0], 14, tmp_path / "lasot")
    assert len((root / "car/car-1/groundtruth.txt").read_text().splitlines()) == 14
