"""Test sets as they lie on disk, with their quirks."""

from __future__ import annotations

import os
from pathlib import Path

import evaluation_trees as trees
import numpy as np
import pytest

from shards.errors import DataError
from tracker import otb
from tracker.sequences import SPLITS, Dataset, VideoSequence, read_sequences


def names(root: Path, dataset: str, split: str | None = None) -> list[str]:
    return [one.name for one in read_sequences(dataset, root, split)]  # type: ignore[arg-type]


def only(root: Path, dataset: str, split: str = "all") -> VideoSequence:
    (one,) = read_sequences(dataset, root, split)  # type: ignore[arg-type]
    return one


def xywh(sequence: VideoSequence) -> np.ndarray:
    return np.concatenate(
        [sequence.boxes[:, :2], sequence.boxes[:, 2:] - sequence.boxes[:, :2]], axis=1
    )


@pytest.mark.parametrize("comma", [",", "\t", " ", ", "])
def test_otb_boxes_with_commas_tabs_or_spaces_count_from_1(tmp_path: Path, comma: str) -> None:
    rows = trees.otb(tmp_path, "Man", 5, comma=comma)
    one = only(tmp_path, "otb")
    np.testing.assert_array_equal(xywh(one), rows - [1, 1, 0, 0])
    assert one.origin == 1
    assert [frame.name for frame in one.frames] == [f"{n:04d}.jpg" for n in range(1, 6)]


def test_otb_videos_with_special_rules_are_read_as_by_the_got10k_toolkit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from got10k.datasets import OTB

    trees.otb(tmp_path, "David", 770, lines=471, real=False)
    trees.otb(tmp_path, "Football1", 80, lines=74, real=False)
    trees.otb(tmp_path, "Freeman3", 465, lines=460, real=False)
    trees.otb(tmp_path, "Freeman4", 300, lines=283, real=False)
    trees.otb(tmp_path, "Diving", 231, lines=215, real=False)
    trees.otb(tmp_path, "Tiger1", 354, real=False)
    trees.otb(tmp_path, "BlurCar1", 742, first=247, real=False)
    trees.otb(tmp_path, "BlurCar3", 357, first=3, real=False)
    trees.otb(tmp_path, "BlurCar4", 380, first=18, real=False)
    for number in (1, 2):
        trees.otb(tmp_path, "Jogging", 9, truth=f"groundtruth_rect.{number}.txt", seed=number)
    trees.otb(tmp_path, "Human4", 9, truth="groundtruth_rect.2.txt", comma="\t")
    (tmp_path / "Human4/groundtruth_rect.1.txt").write_text("")

    monkeypatch.setitem(OTB._OTB__version_dict, "here", sorted(p.name for p in tmp_path.iterdir()))
    theirs = OTB(str(tmp_path), version="here", download=False)
    ours = list(read_sequences("otb", tmp_path, "all"))
    assert [one.name for one in ours] == sorted(theirs.seq_names)
    assert {"Jogging.1", "Jogging.2", "Human4"} <= {one.name for one in ours}
    for one in ours:
        files, boxes = theirs[one.name]
        assert [str(frame) for frame in one.frames] == files
        np.testing.assert_array_equal(xywh(one), boxes - [1, 1, 0, 0])


def test_otb_splits_are_those_of_the_got10k_toolkit() -> None:
    from got10k.datasets import OTB

    theirs = OTB._OTB__version_dict
    for split, version in (("otb100", "tb100"), ("otb50", "tb50"), ("otb2013", "otb2013")):
        assert otb.SPLITS[split] == set(theirs[version])


def test_otb_tiger1_starts_late_for_pysot_and_the_reference(tmp_path: Path) -> None:
    rows = trees.otb(tmp_path, "Tiger1", 20, real=False)
    for convention in ("pysot", "reference"):
        (one,) = read_sequences("otb", tmp_path, "all", convention)
        assert one.frames[0].name == "0006.jpg"
        np.testing.assert_array_equal(xywh(one), (rows - [1, 1, 0, 0])[5:])


def test_otb_david_without_its_first_pictures_is_the_same_video(tmp_path: Path) -> None:
    trees.otb(tmp_path, "David", 471, first=300, real=False)
    one = only(tmp_path, "otb")
    assert (one.frames[0].name, len(one.frames)) == ("0300.jpg", 471)


def test_otb_a_gap_in_the_pictures_is_an_error(tmp_path: Path) -> None:
    trees.otb(tmp_path, "Man", 9, real=False)
    (tmp_path / "Man/img/0004.jpg").unlink()
    with pytest.raises(DataError, match=r"Man/img: no picture 4"):
        read_sequences("otb", tmp_path)


def test_missing_sequences_are_noted_and_others_left_out(tmp_path: Path) -> None:
    trees.otb(tmp_path, "Man", 3, real=False)
    trees.otb(tmp_path, "Mine", 3, real=False)
    found = read_sequences("otb", tmp_path)
    assert [one.name for one in found] == ["Man"]
    assert "97 of 98 videos of otb100 are not on disk" in found.notes[0]
    assert "not of otb100 and left out: 1" in found.notes[1]
    assert names(tmp_path, "otb", "all") == ["Man", "Mine"]
    with pytest.raises(DataError, match="none of the 2 folders belongs to otb50"):
        read_sequences("otb", tmp_path, "otb50")


@pytest.mark.parametrize("lines", [7, 12])
def test_ground_truth_shorter_or_longer_than_the_video_is_cut_and_noted(
    tmp_path: Path, lines: int
) -> None:
    trees.otb(tmp_path / "otb", "Man", 10, lines=lines, real=False)
    trees.lasot(tmp_path / "lasot", "car-2", 10)
    truth = tmp_path / "lasot/car/car-2/groundtruth.txt"
    truth.write_text(trees.rows_text(trees.path_of_object(lines, 1)))
    for name in ("full_occlusion.txt", "out_of_view.txt"):
        (truth.parent / name).write_text(",".join("0" * lines))
    trees.got10k(tmp_path / "got10k", "val", 1, 10)
    folder = tmp_path / "got10k/val/GOT-10k_Val_000001"
    (folder / "groundtruth.txt").write_text(trees.rows_text(trees.path_of_object(lines, 1)))
    for name in ("cover", "absence", "cut_by_image"):
        (folder / f"{name}.label").write_text("0\n" * lines)
    trees.trackingnet(tmp_path / "trackingnet", "TRAIN_0", "a_0", 10)
    anno = tmp_path / "trackingnet/TRAIN_0/anno/a_0.txt"
    anno.write_text(trees.rows_text(trees.path_of_object(lines, 1)))
    for dataset in SPLITS:
        found = read_sequences(dataset, tmp_path / dataset, "all")
        (one,) = found
        assert len(one.frames) == len(one.boxes) == len(one.absent) == min(lines, 10)
        assert any(f"10 pictures, {lines} lines" in note for note in found.notes), dataset


def test_malformed_lines_of_all_sequences_are_listed_together_with_their_place(
    tmp_path: Path,
) -> None:
    trees.otb(tmp_path, "Man", 5, real=False)
    trees.otb(tmp_path, "Boy", 5, real=False)
    (tmp_path / "Man/groundtruth_rect.txt").write_text("1,2,3,4\n1,2,3\n" + "1,2,3,4\n" * 3)
    (tmp_path / "Boy/groundtruth_rect.txt").write_text("1,2,3,4\n" * 4 + "1,nan,3,4\n")
    with pytest.raises(DataError) as caught:
        read_sequences("otb", tmp_path)
    assert "Man/groundtruth_rect.txt:2: four numbers x,y,w,h needed" in str(caught.value)
    assert "Boy/groundtruth_rect.txt: box 5" in str(caught.value)


@pytest.mark.parametrize("first", ["10,10,0,5", "10,10,5,-3"])
def test_a_first_box_without_area_is_an_error_that_names_the_sequence(
    tmp_path: Path, first: str
) -> None:
    trees.otb(tmp_path, "Man", 3, real=False)
    (tmp_path / "Man/groundtruth_rect.txt").write_text(f"{first}\n1,2,3,4\n1,2,3,4\n")
    with pytest.raises(DataError, match=r"Man/img: first frame: box .* has no area"):
        read_sequences("otb", tmp_path)


def test_a_first_frame_without_the_object_is_an_error(tmp_path: Path) -> None:
    trees.lasot(tmp_path, "car-2", 4, gone=[0])
    with pytest.raises(DataError, match="flagged as absent"):
        read_sequences("lasot", tmp_path)


def test_lasot_absent_frames_and_splits(tmp_path: Path) -> None:
    trees.lasot(tmp_path, "train-1", 6, gone=[2, 3])  # a class that is called like a split
    trees.lasot(tmp_path, "car-1", 4)
    found = read_sequences("lasot", tmp_path)
    (one,) = found
    assert one.name == "train-1"
    assert one.absent.tolist() == [False, False, True, True, False, False]
    assert one.cover is None
    assert "279 official sequences of lasot test are not on disk" in found.notes[0]
    assert names(tmp_path, "lasot", "train") == ["car-1"]
    assert names(tmp_path, "lasot", "all") == ["car-1", "train-1"]


def test_lasot_boxes_of_absent_frames_may_be_anything(tmp_path: Path) -> None:
    trees.lasot(tmp_path, "car-2", 4, gone=[2])
    truth = tmp_path / "car/car-2/groundtruth.txt"
    lines = truth.read_text().splitlines()
    truth.write_text("\n".join([*lines[:2], "613,731,247,-11", lines[3]]))
    assert xywh(only(tmp_path, "lasot"))[2].tolist() == [613, 731, 247, -11]


def test_got10k_val_has_cover_and_test_has_one_box(tmp_path: Path) -> None:
    rows = trees.got10k(tmp_path, "val", 1, 6, cover=[8, 8, 4, 0, 0, 8])
    one = only(tmp_path, "got10k", "val")
    assert one.cover is not None
    assert one.cover.tolist() == [8, 8, 4, 0, 0, 8]
    assert one.absent.tolist() == [False, False, False, True, True, False]
    assert (one.frame_size, one.scored) == (trees.SIZE, True)
    np.testing.assert_allclose(xywh(one), rows)
    trees.got10k(tmp_path, "test", 7, 30)
    hidden = only(tmp_path, "got10k", "test")
    assert (hidden.scored, len(hidden.frames)) == (False, 30)
    assert np.isnan(hidden.boxes[1:]).all()
    assert names(tmp_path, "got10k", "all") == ["GOT-10k_Test_000007", "GOT-10k_Val_000001"]
    (tmp_path / "val/GOT-10k_Val_000001/meta_info.ini").unlink()
    assert only(tmp_path, "got10k", "val").frame_size == trees.SIZE  # of the picture


def test_trackingnet_frames_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    trees.trackingnet(tmp_path, "TEST", "-a_0", 12)
    trees.trackingnet(tmp_path, "TRAIN_3", "b_0", 12)
    hidden = only(tmp_path, "trackingnet", "test")
    assert [frame.name for frame in hidden.frames] == [f"{n}.jpg" for n in range(12)]
    assert (hidden.name, hidden.scored) == ("-a_0", False)
    assert only(tmp_path, "trackingnet", "train").scored
    assert names(tmp_path, "trackingnet", "all") == ["-a_0", "b_0"]


@pytest.mark.parametrize("dataset", list(SPLITS))
def test_an_empty_folder_says_what_was_expected(tmp_path: Path, dataset: str) -> None:
    with pytest.raises(DataError, match="<root>/"):
        read_sequences(dataset, tmp_path)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="no such folder"):
        read_sequences(dataset, tmp_path / "nowhere")  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"has .*all"):
        read_sequences(dataset, tmp_path, "dev")  # type: ignore[arg-type]


def test_links_that_leave_the_root_are_refused(tmp_path: Path) -> None:
    trees.otb(tmp_path / "away", "Man", 3)
    trees.otb(tmp_path / "root", "Boy", 3)
    picture = tmp_path / "root/Boy/img/0002.jpg"
    picture.unlink()
    picture.symlink_to(tmp_path / "away/Man/img/0002.jpg")
    with pytest.raises(DataError, match=r"0002\.jpg: leads out of"):
        read_sequences("otb", tmp_path / "root")
    picture.unlink()
    picture.symlink_to("0001.jpg")  # a link within is fine
    assert names(tmp_path / "root", "otb") == ["Boy"]
    (tmp_path / "root/Man").symlink_to(tmp_path / "away/Man")
    with pytest.raises(DataError, match="leads out of"):
        read_sequences("otb", tmp_path / "root")


def test_a_name_that_no_result_file_can_have_is_an_error(tmp_path: Path) -> None:
    trees.otb(tmp_path, "My video", 3, real=False)
    with pytest.raises(DataError, match=r"My video.*letters"):
        read_sequences("otb", tmp_path, "all")


def test_archives_are_named_as_what_they_are(tmp_path: Path) -> None:
    import zipfile

    trees.lasot(tmp_path / "raw", "car-2", 3)
    (tmp_path / "packed").mkdir()
    with zipfile.ZipFile(tmp_path / "packed/car.zip", "w") as archive:
        for path in (tmp_path / "raw/car").rglob("*.*"):
            archive.write(path, os.path.relpath(path, tmp_path / "raw/car"))
    with pytest.raises(DataError, match="in an archive; unpack it"):
        read_sequences("lasot", tmp_path / "packed")


def test_the_real_otb_sequences(real_data: Path) -> None:
    man, crossing = reversed(list(read_sequences("otb", real_data / "otb")))
    assert (man.name, len(man.frames), crossing.name, len(crossing.frames)) == (
        "Man", 134, "Crossing", 120,
    )  # fmt: skip
    assert xywh(man)[0].tolist() == [68, 47, 26, 39]
    assert xywh(crossing)[0].tolist() == [204, 150, 17, 50]


@pytest.mark.parametrize("dataset", ["lasot", "got10k", "trackingnet", "otb"])
def test_a_tree_of_something_else_is_an_error_that_tells_the_layout(
    tmp_path: Path, dataset: Dataset
) -> None:
    trees.pictures(tmp_path / "cat/kitty/img", ["00000001.jpg"], real=False)
    (tmp_path / "TEST/anno").mkdir(parents=True)
    with pytest.raises(DataError, match=r"(?s)no .*expected|no |is not"):
        read_sequences(dataset, tmp_path)


def test_lasot_in_the_folder_of_otb_is_an_error(tmp_path: Path) -> None:
    trees.otb(tmp_path, "Man", 3, real=False)
    with pytest.raises(DataError, match="no sequence of lasot test is there; expected"):
        read_sequences("lasot", tmp_path)


def test_missing_cover_labels_are_told_once(tmp_path: Path) -> None:
    for number in (1, 2):
        trees.got10k(tmp_path, "val", number, 5, cover=[8, 8, 0, 8, 8])
        (tmp_path / f"val/GOT-10k_Val_{number:06d}/cover.label").unlink()
    notes = [note for note in read_sequences("got10k", tmp_path).notes if "cover" in note]
    assert notes == [
        "no cover.label: hidden frames count, which the toolkit leaves out: 2 sequences, "
        "GOT-10k_Val_000001, GOT-10k_Val_000002"
    ]


def test_two_sequences_of_one_name_are_an_error(tmp_path: Path) -> None:
    trees.trackingnet(tmp_path, "TEST", "abc_0", 4)
    trees.trackingnet(tmp_path, "TRAIN_0", "abc_0", 4)
    with pytest.raises(DataError, match=r"TRAIN_0/frames/abc_0: has the name of .*TEST"):
        read_sequences("trackingnet", tmp_path, "all")


def test_two_pictures_of_one_number_are_an_error(tmp_path: Path) -> None:
    trees.otb(tmp_path, "Man", 3, real=False)
    (tmp_path / "Man/img/00002.jpg").write_bytes((tmp_path / "Man/img/0002.jpg").read_bytes())
    with pytest.raises(DataError, match="two pictures of the number 2; move one away"):
        read_sequences("otb", tmp_path, "all")
