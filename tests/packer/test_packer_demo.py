"""The demo data: genuine layout, exact boxes, the same bytes, and nobody else's files."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from lasot_tree import hashes

from packer import demo, demo_scenes
from packer.datasets import lasot
from packer.demo import render
from packer.jobs import PackOptions
from packer.run import pack
from shards.errors import DataError, MismatchError
from shards.pixels import decode


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "lasot"
    demo.render(folder, sequences=8, frames=30, seed=0)
    return folder


def test_it_reads_as_lasot_without_a_problem(made: Path) -> None:
    found = list(lasot.sequences(made, "train"))
    assert sorted(one.name for one in found) == sorted(demo.names(8))
    assert len({one.category for one in found}) == 4
    assert all(not one.problems and not one.notes for one in found)
    assert all(len(one.numbers) == 30 for one in found)
    absent = [int(one.absent.sum()) for one in found]
    assert min(absent) >= 2  # each has an occlusion or a stretch out of view
    assert max(absent) <= 12
    sizes = {decode((made / one.pictures_at / one.pictures[0]).read_bytes()).shape for one in found}
    assert len(sizes) == 4
    assert sizes <= {(h, w, 3) for w, h in ((320, 240), (480, 270), (640, 360), (400, 300))}


def test_names_are_of_the_train_split_and_unique() -> None:
    every = demo.names(demo.MAX_SEQUENCES)
    assert len(set(every)) == demo.MAX_SEQUENCES
    assert set(every) <= set(lasot.official("train"))


@pytest.mark.parametrize("number", range(4))
def test_boxes_are_the_extents_of_the_pixels_drawn(number: int) -> None:
    """The same scene with a target of one odd colour shows where the target is."""
    scene = demo_scenes.scene(number, 20, 3)
    flat = np.broadcast_to(np.uint8([255, 0, 255]), (256, 256, 3)).copy()
    ghost = scene.target._replace(texture=flat)
    checked = 0
    for plain, shot in zip(scene.shots(), replaced(scene, target=ghost).shots(), strict=True):
        assert plain.box == shot.box
        differs = (plain.picture != shot.picture).any(axis=2)
        if plain.out_of_view:
            assert plain.box == (0, 0, 0, 0)
            continue
        x, y, w, h = plain.box
        outside = differs.copy()
        outside[y : y + h, x : x + w] = False
        assert not outside.any()
        if not scene.occlusion:
            ys, xs = np.nonzero(differs)
            found = (xs.min(), ys.min(), xs.max() + 1 - xs.min(), ys.max() + 1 - ys.min())
            assert np.abs(np.subtract(found, plain.box)).max() <= 1  # a pixel may match by chance
            checked += 1
    assert scene.occlusion or checked > 5


def replaced(scene: demo_scenes.Scene, **changes: object) -> demo_scenes.Scene:
    fields = {name: getattr(scene, name) for name in demo_scenes.Scene.__dataclass_fields__}
    return demo_scenes.Scene(**{**fields, **changes})


def test_flags_tell_what_can_be_seen() -> None:
    for number in range(4):
        scene = demo_scenes.scene(number, 30, 0)
        shots = list(scene.shots())
        occluded = sum(shot.occluded for shot in shots)
        away = sum(shot.out_of_view for shot in shots)
        assert (occluded >= 2, away >= 2) == (scene.occlusion, not scene.occlusion)
        assert not shots[0].occluded
        assert not shots[0].out_of_view


def test_motion_is_smooth() -> None:
    for number in range(4):
        boxes = np.array([shot.box for shot in demo_scenes.scene(number, 60, 0).shots()], float)
        seen = (boxes[:-1, 2] > 0) & (boxes[1:, 2] > 0)
        step = np.abs(np.diff(boxes[:, :2], axis=0))[seen]
        assert step.max() <= 40


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        demo.render(tmp_path / name, sequences=2, frames=12, seed=seed)
    first, second, other = (hashes(tmp_path / name) for name in "abc")
    assert first == second
    pictures = [name for name in first if name.endswith(".jpg")]
    assert len(pictures) == 24
    assert all(first[name] != other[name] for name in pictures)


def test_an_earlier_demo_is_replaced_as_a_whole(tmp_path: Path) -> None:
    demo.render(tmp_path / "d", sequences=6, frames=20, seed=0)
    demo.render(tmp_path / "d", sequences=2, frames=12, seed=0)
    demo.render(tmp_path / "fresh", sequences=2, frames=12, seed=0)
    assert hashes(tmp_path / "d") == hashes(tmp_path / "fresh")


@pytest.mark.parametrize(
    "strange",
    [
        "car/car-2/img/00000001.jpg",
        "car/car-1/notes.txt",
        "car/car-1/img/x.jpg",
        "person/car-1/groundtruth.txt",
        "data.zip",
        "car/car-1/img/deep/00000001.jpg",
    ],
)
def test_a_folder_with_anything_else_is_not_touched(tmp_path: Path, strange: str) -> None:
    demo.render(tmp_path, sequences=2, frames=12)
    (tmp_path / strange).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / strange).write_text("mine")
    before = hashes(tmp_path)
    with pytest.raises(MismatchError, match="no part of an earlier demo, so nothing was touched"):
        demo.render(tmp_path, sequences=2, frames=12)
    assert hashes(tmp_path) == before


def test_a_genuine_data_set_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "car/car-1/img").mkdir(parents=True)
    (tmp_path / "car/car-1/groundtruth.txt").write_text("1,2,3,4\n")
    with pytest.raises(MismatchError):
        demo.render(tmp_path)
    (tmp_path / "DEMO.txt").write_text("sequences: ../../etc\n")
    with pytest.raises(MismatchError):
        demo.render(tmp_path)
    assert (tmp_path / "car/car-1/groundtruth.txt").read_text() == "1,2,3,4\n"


def test_a_demo_that_was_cut_short_is_replaced(tmp_path: Path) -> None:
    demo.render(tmp_path / "d", sequences=2, frames=12)
    whole = hashes(tmp_path / "d")
    (tmp_path / "d/person/person-2/groundtruth.txt").unlink()
    demo.render(tmp_path / "d", sequences=2, frames=12)
    assert hashes(tmp_path / "d") == whole


def test_object_and_distractor_stand_out_from_the_background() -> None:
    scene = demo_scenes.scene(0, 20, 0)
    saturation = [
        cv2.cvtColor(picture, cv2.COLOR_RGB2HSV)[..., 1].mean()
        for picture in (scene.target.texture, scene.background)
    ]
    assert saturation[0] > saturation[1] + 60
    assert np.abs(scene.target.texture.astype(int) - scene.distractor.texture).mean() > 40


def test_a_demo_beside_real_sequences_is_not_packed(tmp_path: Path) -> None:
    """Synthetic sequences must never get into a real data set unnoticed."""
    root = tmp_path / "lasot"
    render(root, sequences=2, frames=40)
    options = PackOptions(stride=3, min_size=10)
    pack(lasot, root, tmp_path / "pure", options, workers=1)
    shutil.copytree(root / "car" / "car-1", root / "car" / "car-7")
    with pytest.raises(DataError, match=r"demo sequences .* beside others \(car-7\)"):
        pack(lasot, root, tmp_path / "mixed", options, workers=1)
    assert not (tmp_path / "mixed").exists()
