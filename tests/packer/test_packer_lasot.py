"""LaSOT's raw layout: what is found, what is read, what is called malformed."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lasot_tree import sequence

from packer.annotations import parse_boxes, parse_flags
from packer.datasets import lasot
from packer.sequence import REASONS, Sequence
from packer.source import FolderSource
from shards.errors import DataError


def read_one(root: Path, name: str) -> Sequence:
    source = FolderSource(root)
    found = next(one for one in lasot.survey(source, "all").found if one.name == name)
    return lasot.read(source, found)


def reasons(one: Sequence) -> list[str]:
    return ["" if code < 0 else REASONS[code] for code in one.fault.tolist()]


def problems(one: Sequence) -> str:
    return "\n".join(map(str, one.problems))


def test_test_set_has_280_names_four_of_each_of_70_classes() -> None:
    test = lasot.official("test")
    assert len(lasot.CLASSES) == 70
    assert list(lasot.CLASSES) == sorted(lasot.CLASSES)
    assert len(test) == len(set(test)) == 280
    assert len(lasot.official("train")) == 1120
    assert all(sum(n.rpartition("-")[0] == c for n in test) == 4 for c in lasot.CLASSES)
    assert {"airplane-1", "zebra-17", "rubicCube-14", "person-12", "pool-15"} <= set(test)


def test_test_set_is_the_published_list(real_data: Path) -> None:
    listed = (real_data / "fixtures/lasot/testing_set.txt").read_text().split()
    assert sorted(listed) == sorted(lasot.official("test"))


@pytest.mark.parametrize("enclosing", ["", "LaSOTBenchmark", "lasot-2020"])
@pytest.mark.parametrize("flat", [False, True])
def test_layouts(tmp_path: Path, enclosing: str, flat: bool) -> None:
    base = tmp_path / enclosing
    for name in ("car-10", "car-2", "airplane-3", "ant-hill-7"):
        sequence(base, name, 3, flat=flat)
    (base / "README.md").write_text("not a folder")
    found = lasot.survey(FolderSource(tmp_path), "all")
    assert [one.name for one in found.found] == ["airplane-3", "ant-hill-7", "car-2", "car-10"]
    assert [one.category for one in found.found] == ["airplane", "ant-hill", "car", "car"]
    expected = "car-2" if flat else "car/car-2"
    assert found.found[2].path == expected
    assert lasot.read(FolderSource(tmp_path), found.found[2]).problems == ()
    assert not found.notes


def test_one_class_folder_alone_is_no_enclosing_folder(tmp_path: Path) -> None:
    sequence(tmp_path, "car-3", 3)
    assert lasot.survey(FolderSource(tmp_path), "all").found[0].path == "car/car-3"


def test_splits_and_missing_names(tmp_path: Path) -> None:
    for name in ("car-2", "car-21", "car-1"):
        sequence(tmp_path, name, 3)
    source = FolderSource(tmp_path)
    train, test, both = (lasot.survey(source, split) for split in ("train", "test", "all"))
    assert [one.name for one in train.found] == ["car-1", "car-21"]  # 21 is in no official list
    assert [one.name for one in test.found] == ["car-2"]
    assert len(train.missing) == 1119
    assert len(test.missing) == 279
    assert len(both.missing) == 1398
    assert "car-2" not in train.missing
    assert "car-3" in train.missing


def test_a_split_that_is_empty_says_what_to_do(tmp_path: Path) -> None:
    sequence(tmp_path / "a", "car-2", 3)
    sequence(tmp_path / "a", "car-6", 3)
    with pytest.raises(
        DataError, match="all 2 sequences belong to the test split; use --split all"
    ):
        lasot.survey(FolderSource(tmp_path / "a"), "train")
    sequence(tmp_path / "b", "car-1", 3)
    with pytest.raises(DataError, match=r"none of the 1 sequences .* --split train or all"):
        lasot.survey(FolderSource(tmp_path / "b"), "test")


def test_bad_roots(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"no sequences found; expected <root>/<class>/<class>-<n>/"
    ):
        lasot.survey(FolderSource(tmp_path), "all")
    (tmp_path / "car").mkdir()
    with pytest.raises(DataError, match="no sequences in folder car"):
        lasot.survey(FolderSource(tmp_path), "all")
    sequence(tmp_path, "dog-2", 3)
    assert lasot.survey(FolderSource(tmp_path), "all").notes == ("no sequences in folder car",)


def test_odd_folders_are_problems(tmp_path: Path) -> None:
    sequence(tmp_path, "dog-2", 3)
    sequence(tmp_path / "more", "dog-2", 3, flat=True)
    sequence(tmp_path / "dog", "noname", 3, flat=True)
    found = lasot.survey(FolderSource(tmp_path), "all")
    assert [str(one) for one in found.problems] == [
        "dog/noname: a sequence folder is named <class>-<number>",
        "more/dog-2: dog-2 is there twice, also as dog/dog-2",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "1,2,3,4\n5,6,7,8\n",
        "1\t2\t3\t4\r\n5\t6\t7\t8\r\n",
        "1 2  3 4\n 5 6 7 8 \n\n\n",
        "\ufeff1.0,2e0,+3,4\n5, 6, 7, 8",
        "1,2,3,4\r\n5,6,7,8\r\n \r\n",
    ],
)
def test_separators_line_ends_and_byte_order_mark(text: str) -> None:
    boxes, faults = parse_boxes(text.encode())
    assert boxes.tolist() == [[1, 2, 3, 4], [5, 6, 7, 8]]
    assert not faults


@pytest.mark.parametrize(
    "line",
    ["1,2,3", "1,2,3,4,5", "1,,3,4", "1,2,3,", "a,b,c,d", "1_0,2,3,4", "", "1;2;3;4", "\0\1,2"],
)
def test_lines_that_do_not_parse_are_named(line: str) -> None:
    boxes, faults = parse_boxes(f"1,2,3,4\n{line}\n5,6,7,8\n".encode())
    assert list(faults) == [1]
    assert "x,y,w,h needed" in faults[1]
    assert boxes[[0, 2]].tolist() == [[1, 2, 3, 4], [5, 6, 7, 8]]
    assert np.isnan(boxes[1]).all()


@given(
    st.lists(
        st.lists(st.floats(-9999, 9999, allow_subnormal=False), min_size=4, max_size=4), max_size=8
    ),
    st.sampled_from([",", "\t", " ", ", ", "   "]),
    st.sampled_from(["\n", "\r\n"]),
    st.booleans(),
)
def test_written_boxes_read_back(
    boxes: list[list[float]], separator: str, end: str, mark: bool
) -> None:
    text = ("\ufeff" if mark else "") + "".join(
        separator.join(map(repr, box)) + end for box in boxes
    )
    found, faults = parse_boxes(text.encode())
    assert not faults
    assert found.tolist() == boxes


@given(st.lists(st.booleans(), max_size=20), st.sampled_from([",", "\n", "\r\n", ", ", " "]))
def test_flags_on_one_line_or_one_a_line(flags: list[bool], separator: str) -> None:
    text = separator.join(str(int(flag)) for flag in flags) + "\n"
    found, faults = parse_flags(text.encode())
    assert found.tolist() == flags
    assert not faults


def test_absent_is_either_flag_and_visible_needs_both_files(tmp_path: Path) -> None:
    sequence(tmp_path, "car-1", 4, occluded="0,1,0,0", out_of_view="0\n0\n1\n0\n")
    sequence(tmp_path, "car-3", 4, occluded=None)
    one, other = read_one(tmp_path, "car-1"), read_one(tmp_path, "car-3")
    assert one.absent.tolist() == [False, True, True, False]
    assert one.visible is not None
    assert one.visible.tolist() == [1, 0, 0, 1]
    assert one.notes == ()
    assert other.visible is None
    assert not other.absent.any()
    assert other.notes == ("no full_occlusion.txt: frames taken as visible",)
    assert not one.problems
    assert not other.problems


@pytest.mark.parametrize(("flags", "count"), [("0,0,0", 3), ("0,0,0,0,1", 5), ("1", 1)])
def test_flags_of_a_wrong_length_are_a_problem(tmp_path: Path, flags: str, count: int) -> None:
    sequence(tmp_path, "car-1", 4, out_of_view=flags)
    one = read_one(tmp_path, "car-1")
    expected = f"car/car-1/out_of_view.txt: {count} flags, 4 lines in groundtruth.txt"
    assert problems(one) == expected
    assert reasons(one) == ["" if i < count else "bad_annotation" for i in range(4)]


def test_a_flag_that_is_neither_0_nor_1(tmp_path: Path) -> None:
    sequence(tmp_path, "car-1", 4, occluded="0,2,0,0")
    one = read_one(tmp_path, "car-1")
    assert problems(one) == "car/car-1/full_occlusion.txt: value 2 is '2', 0 or 1 needed"
    assert reasons(one) == ["", "bad_annotation", "", ""]


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e300"])
def test_wild_numbers_are_malformed_in_visible_frames_only(tmp_path: Path, value: str) -> None:
    lines = f"1,2,30,40\n{value},2,30,40\n1,2,{value},40\n1,2,30,40\n"
    sequence(tmp_path, "car-1", 4, boxes=lines, occluded="0,0,1,0")
    one = read_one(tmp_path, "car-1")
    assert reasons(one) == ["", "bad_annotation", "", ""]
    assert "car/car-1/groundtruth.txt:2: box" in problems(one)
    assert len(one.problems) == 1


def test_negative_and_zero_sizes_are_no_fault(tmp_path: Path) -> None:
    sequence(tmp_path, "lion-2", 3, boxes="1,1,-1,-1\n613,731,247,-11\n0,0,0,0\n")
    assert not read_one(tmp_path, "lion-2").problems


def test_fewer_and_more_lines_than_pictures(tmp_path: Path) -> None:
    sequence(tmp_path, "car-1", 4, boxes="1,2,30,40\n" * 3, occluded=None, out_of_view=None)
    sequence(tmp_path, "car-3", 4, boxes="1,2,30,40\n" * 6, occluded=None, out_of_view=None)
    fewer, more = read_one(tmp_path, "car-1"), read_one(tmp_path, "car-3")
    assert reasons(fewer) == ["", "", "", "no_label"]
    assert "4 pictures, 3 lines in groundtruth.txt; no line for picture 00000004" in problems(fewer)
    assert reasons(more) == ["", "", "", "", "no_picture", "no_picture"]
    assert "4 pictures, 6 lines" in problems(more)
    assert "no picture 00000005, 00000006" in problems(more)


def test_a_missing_picture_number_is_named(tmp_path: Path) -> None:
    folder = sequence(tmp_path, "car-1", 5)
    (folder / "img/00000003.jpg").unlink()
    one = read_one(tmp_path, "car-1")
    assert reasons(one) == ["", "", "no_picture", "", ""]
    assert one.numbers.tolist() == [1, 2, 3, 4, 5]
    assert "4 pictures, 5 lines in groundtruth.txt; no picture 00000003" in problems(one)


def test_extensions_and_other_files(tmp_path: Path) -> None:
    folder = sequence(tmp_path, "car-1", 4)
    for number, extension in ((1, "JPG"), (2, "jpeg"), (3, "JPEG")):
        old = folder / f"img/{number:08d}.jpg"
        old.rename(old.with_suffix(f".{extension}"))
    (folder / "img/Thumbs.db").write_text("x")
    (folder / "img/.DS_Store").write_text("x")
    (folder / "img/0001.jpg").write_text("x")
    one = read_one(tmp_path, "car-1")
    assert one.pictures == ("00000001.JPG", "00000002.jpeg", "00000003.JPEG", "00000004.jpg")
    assert not one.problems
    assert one.notes == ("files other than 00000001.jpg in img ignored",)


def test_doubtful_picture_names_are_problems(tmp_path: Path) -> None:
    folder = sequence(tmp_path, "car-1", 3)
    (folder / "img/00000002.JPG").write_bytes(b"")
    (folder / "img/00000000.jpg").write_bytes(b"")
    text = problems(read_one(tmp_path, "car-1"))
    assert "00000002.jpg: picture 2 is there twice (00000002.JPG)" in text
    assert "00000000.jpg: picture numbers start at 1" in text


def test_pictures_under_other_names(tmp_path: Path) -> None:
    folder = sequence(tmp_path, "car-1", 2)
    for old in sorted((folder / "img").iterdir()):
        old.rename(old.with_name(f"f{old.name}"))
    one = read_one(tmp_path, "car-1")
    assert "pictures are named 00000001.jpg and so on, found f00000001.jpg" in problems(one)
    assert reasons(one) == ["no_picture"] * 2


def test_a_sequence_without_groundtruth_or_pictures(tmp_path: Path) -> None:
    sequence(tmp_path, "car-1", 2)
    (tmp_path / "car/car-1/groundtruth.txt").unlink()
    gone = sequence(tmp_path, "car-3", 2)
    for picture in (gone / "img").iterdir():
        picture.unlink()
    (gone / "img").rmdir()
    (tmp_path / "car/car-4").mkdir()
    no_labels, no_img, nothing = (read_one(tmp_path, f"car-{n}") for n in (1, 3, 4))
    assert problems(no_labels) == "car/car-1: no groundtruth.txt"
    assert reasons(no_labels) == ["no_label"] * 2
    assert problems(no_img) == "car/car-3: no folder img with its pictures"
    assert reasons(no_img) == ["no_picture"] * 2
    assert len(nothing.problems) == 2
    assert len(nothing.numbers) == 0


def test_a_file_of_rubbish_names_the_first_lines_only(tmp_path: Path) -> None:
    sequence(tmp_path, "car-1", 30, boxes=b"\xff\xfe rubbish\n" * 30)
    one = read_one(tmp_path, "car-1")
    assert reasons(one) == ["bad_annotation"] * 30
    assert len(one.problems) == 21
    assert "10 more lines like these" in problems(one)


def test_links_out_of_the_root_are_refused(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    sequence(outside, "car-3", 2)
    root = tmp_path / "root"
    folder = sequence(root, "dog-2", 3)
    (folder / "img/00000002.jpg").unlink()
    (folder / "img/00000002.jpg").symlink_to(outside / "car/car-3/img/00000001.jpg")
    assert not problems(read_one(root, "dog-2"))  # known when the picture is read
    with pytest.raises(DataError, match="leads out of"):
        FolderSource(root).read("dog/dog-2/img/00000002.jpg")
    (folder / "groundtruth.txt").unlink()
    (folder / "groundtruth.txt").symlink_to("../../../outside/car/car-3/groundtruth.txt")
    assert "groundtruth.txt leads out of" in problems(read_one(root, "dog-2"))
    (root / "car").symlink_to(outside / "car")
    found = lasot.survey(FolderSource(root), "all")
    assert [one.name for one in found.found] == ["dog-2"]
    assert "car leads out of" in "\n".join(map(str, found.problems))


def test_links_inside_the_root_and_a_root_that_is_a_link(tmp_path: Path) -> None:
    root = tmp_path / "root"
    folder = sequence(root, "dog-2", 3)
    (folder / "img/00000003.jpg").unlink()
    (folder / "img/00000003.jpg").symlink_to("00000001.jpg")
    (tmp_path / "link").symlink_to(root)
    one = read_one(tmp_path / "link", "dog-2")
    assert not one.problems
    data = FolderSource(tmp_path / "link").read("dog/dog-2/img/00000003.jpg")
    assert data == (folder / "img/00000001.jpg").read_bytes()


@pytest.mark.parametrize("path", ["../secret", "a/../../secret", "/etc/hostname"])
def test_paths_out_of_the_root_are_refused(tmp_path: Path, path: str) -> None:
    (tmp_path / "secret").write_text("x")
    (tmp_path / "root/a").mkdir(parents=True)
    with pytest.raises(DataError, match="leads out of"):
        FolderSource(tmp_path / "root").read(path)


def test_a_name_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    os.mkdir(os.fsencode(tmp_path) + b"/car-\xff")  # noqa: PTH102 (bytes)
    with pytest.raises(DataError, match="not UTF-8"):
        FolderSource(tmp_path).list("")


def test_genuine_annotations_parse_to_the_published_counts(real_data: Path) -> None:
    expected = {  # frames, absent, absent with a box, boxes without size, with a negative number
        "coin-3": (1020, 52, 10, 42, 0),
        "bear-5": (1000, 134, 133, 1, 0),
        "bicycle-3": (1000, 82, 82, 0, 0),
        "giraffe-5": (1315, 381, 329, 52, 20),
    }
    for name, counts in expected.items():
        folder = real_data / "fixtures/lasot"
        boxes, faults = parse_boxes((folder / f"groundtruth/{name}.txt").read_bytes())
        absent, bad = parse_flags((folder / f"absent/{name}.txt").read_bytes())
        sized = (boxes[:, 2:] > 0).all(axis=1)
        assert not faults
        assert not bad
        found = (
            len(boxes),
            int(absent.sum()),
            int((absent & sized).sum()),
            int((~sized).sum()),
            int((boxes < 0).any(axis=1).sum()),
        )
        assert (len(absent), *found[1:]) == (counts[0], *counts[1:]), name
        assert found == counts, name
        assert not any(math.isnan(value) for value in boxes.ravel())


def test_sequences_reads_a_whole_folder(tmp_path: Path) -> None:
    sequence(tmp_path, "car-10", 3)
    sequence(tmp_path, "car-2", 3)
    assert [one.name for one in lasot.sequences(tmp_path, "all")] == ["car-2", "car-10"]
