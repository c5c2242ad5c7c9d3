"""Sheets by class and over several data sets, what was left out, and plots."""

from __future__ import annotations

import json
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import synthetic
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from shards.cli import main
from shards.errors import DataError
from shards.format import Manifest
from shards.index import Index
from shards.pixels import encode_jpeg
from shards.plots import plot, statistics
from shards.raw import find_frames
from shards.show import Choice, crop_tiles, rejected_tiles, spread


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments])


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sets")
    synthetic.pack(folder, "lasot", sequences=4, frames=6, side=96, others=1)
    synthetic.pack(folder, "coco", sequences=3, frames=1, side=96, kind="image")
    return folder


@given(st.lists(st.integers(0, 30), min_size=1, max_size=6), st.integers(1, 60))
def test_spread_is_as_even_as_can_be(available: list[int], count: int) -> None:
    taken = spread(available, count)
    assert sum(taken) == min(count, sum(available))
    assert all(t <= a for t, a in zip(taken, available, strict=True))
    partial = [t for t, a in zip(taken, available, strict=True) if t < a]
    if partial:
        assert max(taken) - min(partial) <= 1


def test_one_sheet_of_several_data_sets(parent: Path, tmp_path: Path) -> None:
    folders = [parent / "coco", parent / "lasot"]
    tiles, total = crop_tiles(folders, Choice(count=8))
    assert total == 27
    assert [tile.text.split(" ")[0] for tile in tiles] == ["coco"] * 3 + ["lasot"] * 5
    result = run("show", parent, "--out", tmp_path / "all.png", "--count", 8)
    assert result.exit_code == 0, result.output
    assert "8 of 27 crops" in result.stdout


def test_by_category(parent: Path, tmp_path: Path) -> None:
    tiles, total = crop_tiles([parent / "lasot"], Choice(category="person", count=5))
    assert total == 12
    assert {tile.text.split("\n")[1].split(" ")[0] for tile in tiles} == {"person"}
    both, _ = crop_tiles([parent / "lasot"], Choice(category="person", sequence="person-2"))
    assert {tile.text.split(" ")[0] for tile in both} == {"person-2"}
    result = run("show", parent, "--category", "cat", "--out", tmp_path / "x.png")
    assert (result.exit_code, "no category 'cat'; similar: car, person" in result.stderr) == (
        1,
        True,
    )
    crossed = run("show", parent, "--category", "car", "--sequence", "person-2",
                  "--out", tmp_path / "x.png")  # fmt: skip
    assert crossed.exit_code == 1


# ---- what was left out -------------------------------------------------------------------------


def frame(width: int = 120, height: int = 90, value: int = 0) -> bytes:
    picture = np.full((height, width, 3), value, np.uint8)
    picture[20:40, 30:60] = (250, 10, 10)
    return encode_jpeg(picture, 95)


@pytest.fixture
def lossy(tmp_path: Path) -> Path:
    """A data set whose manifest names frames that were left out."""
    synthetic.pack(tmp_path / "shards", "lasot", sequences=2, frames=2, side=64)
    path = tmp_path / "shards/lasot/manifest.json"
    facts = json.loads(path.read_bytes())
    facts["rejected"] = {"no_picture": 1, "absent": 50, "small": 1}
    facts["rejected_examples"] = {
        "no_picture": [{"frame": "car-1/9", "picture": None, "box": None}],
        "absent": [
            {
                "frame": f"car-1/{n}",
                "picture": f"car/car-1/img/{n:08d}.jpg",
                "box": [30, 20, 60, 40],
            }
            for n in (1, 2)
        ],
        "small": [
            {"frame": "car-2/1", "picture": "car/car-2/img/00000001.jpg", "box": [5, 5, 7, 6]}
        ],
    }
    path.write_text(json.dumps(facts))
    return tmp_path / "shards/lasot"


def raw(root: Path) -> None:
    for n, sequence in ((1, "car-1"), (2, "car-1"), (1, "car-2")):
        folder = root / "car" / sequence / "img"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{n:08d}.jpg").write_bytes(frame(value=40 * n))


@pytest.mark.parametrize("enclosing", ["", "LaSOTBenchmark", "a/b"])
def test_rejected_frames_with_their_boxes(lossy: Path, tmp_path: Path, enclosing: str) -> None:
    raw(tmp_path / "raw" / enclosing)
    tiles, total, lines = rejected_tiles([lossy], tmp_path / "raw", 10)
    assert (total, lines) == (52, [])
    assert [tile.text for tile in tiles] == [
        "car-1/9\nno_picture: there is no picture",
        "car-1/1\nabsent",
        "car-1/2\nabsent",
        "car-2/1\nsmall",
    ]
    whole = tiles[1]
    assert whole.picture.shape == (240, 320, 3)
    np.testing.assert_allclose(whole.boxes, [[80, 160 / 3, 160, 320 / 3]])
    inside = whole.picture[60:100, 90:150].reshape(-1, 3).mean(axis=0)
    np.testing.assert_allclose(inside, [250, 10, 10], atol=12)
    assert len(tiles[0].boxes) == 0
    # Around a box too small to be seen, 96 pixels of the picture fill the tile.
    near = tiles[3]
    assert near.picture.shape == (300, 320, 3)
    np.testing.assert_allclose(near.boxes, [np.array([5, 5, 7, 6]) * 320 / 96])


def test_a_sheet_of_rejected_frames(lossy: Path, tmp_path: Path) -> None:
    raw(tmp_path / "raw/lasot")
    out = tmp_path / "sheet.png"
    result = run("show", lossy.parent, "--rejected", "--root", tmp_path / "raw/lasot", "--out", out)
    assert result.exit_code == 0, result.output
    assert "4 of 52 frames and boxes" in result.stdout
    green = (np.array(Image.open(out)) == (80, 255, 80)).all(axis=-1)
    assert green.any()


def test_without_raw_folder_the_sheet_says_so(lossy: Path, tmp_path: Path) -> None:
    tiles, _, lines = rejected_tiles([lossy], tmp_path / "nowhere", 10)
    assert "give it with --root" in lines[0]
    assert "picture not found" in tiles[1].text


def test_examples_are_of_every_reason(lossy: Path, tmp_path: Path) -> None:
    tiles, _, _ = rejected_tiles([lossy], tmp_path, 3)
    reasons = [tile.text.split("\n")[1].split(":")[0] for tile in tiles]
    assert reasons == ["no_picture", "absent", "small"]


def test_nothing_was_left_out(parent: Path) -> None:
    with pytest.raises(DataError, match="no frame was left out"):
        rejected_tiles([parent / "lasot"], None, 5)


def test_options_that_do_not_go_together(lossy: Path, tmp_path: Path) -> None:
    out = ("--out", tmp_path / "x.png")
    assert run("show", lossy, "--rejected", "--category", "car", *out).exit_code == 2
    assert run("show", lossy, "--root", tmp_path, *out).exit_code == 2


# ---- finding raw frames -------------------------------------------------------------------------


def zipped(path: Path, members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)


@pytest.mark.parametrize(
    ("archive", "member", "wanted"),
    [
        ("car.zip", "car-1/img/00000003.jpg", "car/car-1/img/00000003.jpg"),
        ("LaSOT.zip", "LaSOT/car/car-1/img/00000003.jpg", "car/car-1/img/00000003.jpg"),
        ("TRAIN_0/zips/-x_0.zip", "12.jpg", "TRAIN_0/frames/-x_0/12.jpg"),
        ("TRAIN_0/zips/-x_0.zip", "-x_0/12.jpg", "TRAIN_0/frames/-x_0/12.jpg"),
        ("train2017.zip", "train2017/000000000009.jpg", "000000000009.jpg"),
        ("split_01.zip", "GOT-10k_Train_000001/00000001.jpg",
         "train/GOT-10k_Train_000001/00000001.jpg"),
    ],
)  # fmt: skip
def test_frames_in_archives(tmp_path: Path, archive: str, member: str, wanted: str) -> None:
    decoys = {f"decoy-2/img/{member.rpartition('/')[2]}": b"decoy", "x.txt": b""}
    zipped(tmp_path / archive, {**decoys, member: b"right"}, zipfile.ZIP_DEFLATED)
    assert find_frames(tmp_path, [wanted, "no/such/frame.jpg"]) == {wanted: b"right"}


def test_frames_in_a_tar(tmp_path: Path) -> None:
    (tmp_path / "f.jpg").write_bytes(b"right")
    with tarfile.open(tmp_path / "all.tar", "w") as tar:
        tar.add(tmp_path / "f.jpg", "car/car-1/img/00000003.jpg")
    assert find_frames(tmp_path, ["car/car-1/img/00000003.jpg"]) == {
        "car/car-1/img/00000003.jpg": b"right"
    }


def test_nothing_outside_the_root_is_read(tmp_path: Path) -> None:
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    root = tmp_path / "raw"
    (root / "car").mkdir(parents=True)
    (root / "car/x.jpg").symlink_to(tmp_path / "secret.jpg")
    (root / "out").symlink_to(tmp_path)
    wanted = ["../secret.jpg", "car/x.jpg", str(tmp_path / "secret.jpg"), "out/secret.jpg"]
    assert find_frames(root, wanted) == {}


# ---- plots --------------------------------------------------------------------------------------


def test_statistics_by_a_slow_count(parent: Path) -> None:
    index = Index(parent / "lasot")
    found = statistics(index, 96)
    samples = [index.sample(row) for row in range(len(index))]
    assert (found.frames, found.tracks, found.in_source) == (24, 4, True)
    assert dict(found.categories) == {"car": 12, "person": 12}
    scale = 190 / 96  # the region of the synthetic samples is 190 pixels wide
    widths = [float(s.boxes[0][2] - s.boxes[0][0]) * scale for s in samples]
    np.testing.assert_allclose(found.width_px, widths, rtol=1e-6)
    assert found.gaps.tolist() == [3] * 20


def test_plot_is_a_picture_of_a_row_for_each_data_set(parent: Path, tmp_path: Path) -> None:
    out = tmp_path / "new/plot.png"
    result = run("info", parent, "--plot", out)
    assert result.exit_code == 0, result.output
    assert "lasot" in result.stdout
    both = np.array(Image.open(out)).shape
    assert run("info", parent / "coco", "--json", "--plot", out).exit_code == 0
    one = np.array(Image.open(out)).shape
    assert both == (2 * one[0], *one[1:])


def test_names_are_no_formulas_in_a_plot(tmp_path: Path) -> None:
    from shards.writer import finish, write_shard

    samples = list(synthetic.samples("a-1", r"$\frac{", 2, seed=1, side=64))
    part = write_shard(tmp_path / "mine", "mine-000000.tar", samples)
    finish(tmp_path / "mine", [part], name="mine", grid="edge", crop_size=64)
    plot([statistics(Index(tmp_path / "mine"), 64)], tmp_path / "x.png")
    assert (tmp_path / "x.png").stat().st_size > 5000


def test_plot_with_a_strange_ending(parent: Path, tmp_path: Path) -> None:
    result = run("info", parent / "lasot", "--plot", tmp_path / "x.pnk")
    assert result.exit_code == 1
    assert "ends in .png" in result.stderr
    assert Manifest.read(parent / "lasot").name == "lasot"
