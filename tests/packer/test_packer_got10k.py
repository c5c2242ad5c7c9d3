"""GOT-10k's raw layout: what is found, what is read, what is called malformed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from got10k_tree import META, name_of, sequence, small_tree
from hypothesis import given
from hypothesis import strategies as st

from packer.annotations import parse_levels
from packer.cli import main
from packer.datasets.got10k import KNOWN_BAD, MAJOR_CLASSES, Got10k, official, parse_meta
from packer.jobs import PackOptions
from packer.run import Malformed, pack
from packer.select import select
from packer.sequence import REASONS, Sequence
from packer.source import FolderSource
from shards.errors import DataError
from shards.format import Manifest
from shards.index import Index
from shards.verify import verify


def read_one(root: Path, name: str, data: Got10k | None = None) -> Sequence:
    source, data = FolderSource(root), data or Got10k()
    found = next(one for one in data.survey(source, "all").found if one.name == name)
    return data.read(source, found)


def one_of(tmp_path: Path, data: Got10k | None = None, **files: object) -> Sequence:
    sequence(tmp_path / "train", name_of(1), 4, **files)  # type: ignore[arg-type]
    return read_one(tmp_path, name_of(1), data)


def reasons(one: Sequence) -> list[str]:
    return ["" if code < 0 else REASONS[code] for code in one.fault.tolist()]


def left_out(one: Sequence) -> list[str]:
    kept = select(one, stride=1, min_size=1)
    return ["" if code < 0 else REASONS[code] for code in kept.reason.tolist()]


def problems(one: Sequence) -> str:
    return "\n".join(map(str, one.problems))


def test_names_and_lists() -> None:
    assert len(MAJOR_CLASSES) == len(set(MAJOR_CLASSES)) == 115
    assert (MAJOR_CLASSES[0], MAJOR_CLASSES[45], MAJOR_CLASSES[-1]) == (
        "aircraft",
        "JetLev-Flyer",
        "zebra",
    )
    assert len(KNOWN_BAD) == 44
    assert {name_of(n) for n in (399, 8004, 8012, 8623, 8637, 9058, 9059, 9186)} <= KNOWN_BAD
    assert KNOWN_BAD.isdisjoint({name_of(n) for n in (8003, 8013, 8622, 8638)})
    assert len(official("train")) == 9335
    assert official("train")[-1] == "GOT-10k_Train_009335"
    assert official("test")[0] == "GOT-10k_Test_000001"


def test_official_val_names_are_the_published_list(real_data: Path) -> None:
    text = (real_data / "fixtures/got10k/val_list.txt").read_text()
    assert text.split() == official("val")


@pytest.mark.parametrize("base", ["", "train", "GOT-10k/train", "full_data/GOT-10k_Train_split_01"])
def test_layouts_give_the_same_sequences(tmp_path: Path, base: str) -> None:
    for number in (10, 2):
        sequence(tmp_path / base, name_of(number), 3)
    found = Got10k().survey(FolderSource(tmp_path), "train").found
    assert [one.name for one in found] == [name_of(2), name_of(10)]
    assert [one.path for one in found] == [f"train/{name_of(2)}", f"train/{name_of(10)}"]
    assert Got10k().read(FolderSource(tmp_path), found[0]).problems == ()


def test_splits_are_told_by_name(tmp_path: Path) -> None:
    small_tree(tmp_path)
    source = FolderSource(tmp_path)
    train, val, both = (Got10k().survey(source, split) for split in ("train", "val", "all"))
    assert [one.name for one in train.found] == [name_of(2), name_of(7), name_of(10)]
    assert [one.path for one in val.found] == ["val/GOT-10k_Val_000001"]
    assert len(both.found) == 4
    assert len(train.missing) == 9335 - 44 - 3
    assert len(val.missing) == 179
    assert name_of(399) not in train.missing
    with pytest.raises(DataError, match=r"none of the 5 sequences is of --split test; .* train, v"):
        Got10k().survey(source, "test")


def test_sequences_of_other_names_go_by_their_folder(tmp_path: Path) -> None:
    sequence(tmp_path / "train", "my cat", 3)
    sequence(tmp_path / "val", "my dog", 3)
    source = FolderSource(tmp_path)
    assert [one.path for one in Got10k().survey(source, "train").found] == ["train/my cat"]
    assert [one.path for one in Got10k().survey(source, "val").found] == ["val/my dog"]


def test_no_sequences_at_all(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    with pytest.raises(DataError, match=r"no sequences found; expected <root>/train/GOT-10k_Train"):
        Got10k().survey(FolderSource(tmp_path), "train")


def test_list_is_compared_by_name_and_chooses_nothing(tmp_path: Path) -> None:
    for number in (3, 5):
        sequence(tmp_path / "train", name_of(number), 3)
    without = Got10k().survey(FolderSource(tmp_path), "train")
    assert without.notes == ()
    text = f"\ufeff{name_of(4)}\r\n{name_of(5)}\r\nGOT-10k_Train_999999\r\n"
    (tmp_path / "train/list.txt").write_bytes(text.encode())
    survey = Got10k().survey(FolderSource(tmp_path), "train")
    assert survey.found == without.found
    assert survey.notes == (
        "2 names of list.txt are not on disk: GOT-10k_Train_000004, GOT-10k_Train_999999",
        "1 sequences on disk are not in list.txt: GOT-10k_Train_000003",
    )
    assert set(survey.missing) - set(without.missing) == {"GOT-10k_Train_999999"}


def test_known_bad_are_left_out_and_reported(tmp_path: Path) -> None:
    small_tree(tmp_path)
    source = FolderSource(tmp_path)
    survey = Got10k().survey(source, "train")
    assert survey.notes == (
        "1 sequences known to be badly annotated left out: 000399 (--keep-known-bad packs them)",
    )
    kept = Got10k(keep_known_bad=True).survey(source, "train")
    assert [one.number for one in kept.found] == [2, 7, 10, 399]
    assert kept.notes == ()
    assert len(kept.missing) == 9335 - 4


def test_a_sequence_in_two_places_is_a_problem(tmp_path: Path) -> None:
    for part in ("a", "b"):
        sequence(tmp_path / part, name_of(1), 3)
    survey = Got10k().survey(FolderSource(tmp_path), "train")
    assert [str(one) for one in survey.problems] == [
        f"b/{name_of(1)}: {name_of(1)} is there twice, also as a/{name_of(1)}"
    ]


def test_a_sound_sequence(tmp_path: Path) -> None:
    one = one_of(tmp_path, cover="8\n4\n0\n7\n")
    assert (one.category, one.fps, one.kind, one.problems, one.notes) == (
        "ambulance",
        10.0,
        "video",
        (),
        (),
    )
    assert one.numbers.tolist() == [1, 2, 3, 4]
    assert one.pictures[0] == "00000001.jpg"
    assert one.visible is not None
    assert one.visible.tolist() == [1, 0.5, 0, 0.875]
    assert one.visible.dtype == np.float32
    assert left_out(one) == [""] * 4  # cover alone drops nothing


def test_absence_drops_whatever_the_box(tmp_path: Path) -> None:
    boxes = "-1,-1,-1,-1\n10,10,0,5\n10,10,20,20\n10,10,20,20\n"
    one = one_of(tmp_path, boxes=boxes, absence="1\n1\n1\n0\n", cover="0\n0\n3\n8\n")
    assert one.absent.tolist() == [True, True, True, False]
    assert one.problems == ()
    assert left_out(one) == ["absent", "absent", "absent", "short_track"]


def test_unflagged_boxes_without_area_and_under_a_pixel(tmp_path: Path) -> None:
    boxes = "5,5,-3,8\n5,5,0.9999,8\n5,5,1.0000,8\n-7.5,60.25,20,1084\n"
    one = one_of(tmp_path, boxes=boxes)
    assert left_out(one) == ["no_box", "small", "", ""]
    assert one.problems == ()
    assert one.xywh[3].tolist() == [-7.5, 60.25, 20, 1084]  # outside is kept as published


@pytest.mark.parametrize(
    ("least", "expected"),
    [
        (None, ["", "", "", ""]),
        (0.0, ["", "", "", ""]),
        (0.125, ["", "covered", "", ""]),
        (0.5, ["", "covered", "", "covered"]),
        (0.51, ["", "covered", "covered", "covered"]),
        (1.0, ["", "covered", "covered", "covered"]),
    ],
)
def test_min_visible(tmp_path: Path, least: float | None, expected: list[str]) -> None:
    one = one_of(tmp_path, Got10k(min_visible=least), cover="8\n0\n4\n3\n")
    assert reasons(one) == expected
    assert one.problems == ()


def test_min_visible_never_speaks_for_absent_frames_and_needs_the_file(tmp_path: Path) -> None:
    data = Got10k(min_visible=0.5)
    one = one_of(tmp_path / "a", data, cover="0\n8\n8\n8\n", absence="1\n0\n0\n0\n")
    assert left_out(one)[0] == "absent"
    other = one_of(tmp_path / "b", data, cover=None)
    assert "no cover.label, which --min-visible needs" in problems(other)
    assert reasons(other) == ["bad_annotation"] * 4


@pytest.mark.parametrize("least", [-0.1, 1.1, float("nan")])
def test_min_visible_out_of_range(least: float) -> None:
    with pytest.raises(ValueError, match="min_visible must be 0 to 1"):
        Got10k(min_visible=least)


def test_labels_that_are_not_there_are_noted(tmp_path: Path) -> None:
    one = one_of(tmp_path, absence=None, cover=None, cut=None, meta=None)
    assert one.notes == (
        "no meta_info.ini: category 'unknown'",
        "no absence.label: frames taken as visible",
        "no cover.label: visible part not known",
    )
    assert one.visible is None
    assert one.category == "unknown"
    assert not one.absent.any()
    assert one.problems == ()


@pytest.mark.parametrize("file", ["absence", "cover", "cut"])
@pytest.mark.parametrize(("value", "count"), [("0\n0\n0\n", 3), ("0\n" * 5, 5)])
def test_label_files_of_a_wrong_length(tmp_path: Path, file: str, value: str, count: int) -> None:
    one = one_of(tmp_path, **{file: value})
    assert f"{count} values, 4 lines in groundtruth.txt" in problems(one)
    used = file != "cut" and count < 4
    assert reasons(one) == ["", "", "", "bad_annotation" if used else ""]


def test_label_values_out_of_range(tmp_path: Path) -> None:
    one = one_of(tmp_path, cover="8\n9\n-1\n1.5\n", absence="0\n2\n0\n0\n")
    assert "value 2 is '9', a whole number from 0 to 8 needed" in problems(one)
    assert "value 2 is '2', a whole number from 0 to 1 needed" in problems(one)
    assert reasons(one) == ["", "bad_annotation", "bad_annotation", "bad_annotation"]


@pytest.mark.parametrize("separator", [",", "\t", " "])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_separators_and_line_ends(tmp_path: Path, separator: str, end: str) -> None:
    line = separator.join(["10.0000", "11.5000", "20.2500", "21.0000"]) + end
    one = one_of(tmp_path, boxes=line * 4, cover=f"7{end}" * 4)
    assert one.problems == ()
    assert one.xywh.tolist() == [[10, 11.5, 20.25, 21]] * 4


def test_fewer_and_more_lines_than_pictures(tmp_path: Path) -> None:
    short = one_of(tmp_path / "a", boxes="1,1,9,9\n" * 3, absence="0\n" * 3, cover="8\n" * 3)
    assert reasons(short) == ["", "", "", "no_label"]
    assert "3 lines, 4 pictures numbered from 1; no line for picture 4" in problems(short)
    long = one_of(tmp_path / "b", boxes="1,1,9,9\n" * 5, absence="0\n" * 5, cover="8\n" * 5)
    assert reasons(long) == ["", "", "", "", "no_picture"]
    assert "no picture 5" in problems(long)


def test_lines_that_do_not_parse_are_named(tmp_path: Path) -> None:
    one = one_of(tmp_path, boxes="1,1,9,9\n1,1,9\n1,1,nan,9\n1,1,9,9\n")
    assert reasons(one) == ["", "bad_annotation", "bad_annotation", ""]
    assert "groundtruth.txt:2: four numbers x,y,w,h needed, found '1,1,9'" in problems(one)
    assert "groundtruth.txt:3: box" in problems(one)


def test_no_groundtruth_and_no_pictures(tmp_path: Path) -> None:
    (sequence(tmp_path / "a/train", name_of(1), 3) / "groundtruth.txt").unlink()
    one = read_one(tmp_path / "a", name_of(1))
    assert "groundtruth.txt: this file of boxes does not exist" in problems(one)
    assert reasons(one) == ["no_label"] * 3
    sequence(tmp_path / "b/train", name_of(1), 0, boxes="1,1,9,9\n" * 3)
    one = read_one(tmp_path / "b", name_of(1))
    assert "no pictures; they are named 00000001.jpg" in problems(one)
    assert reasons(one) == ["no_picture"] * 3


def test_the_test_split_has_one_line_and_is_refused(tmp_path: Path) -> None:
    sequence(
        tmp_path / "raw/test", name_of(1, "Test"), 6, boxes="1,1,20,20\n", absence=None, cover=None
    )
    options = PackOptions(stride=1, min_size=1, split="test")
    with pytest.raises(Malformed, match="1 line for 6 pictures: only the first frame is annotated"):
        pack(Got10k(), tmp_path / "raw", tmp_path / "out", options, workers=1)
    with pytest.raises(DataError, match="no frame is left to pack; rejected: no_label 6"):
        pack(Got10k(), tmp_path / "raw", tmp_path / "out", options, workers=1, on_error="skip")
    assert not (tmp_path / "out").exists()


def test_meta_is_cut_at_the_first_colon() -> None:
    meta = parse_meta(
        b"\xef\xbb\xbf" + META.format(major="JetLev-Flyer").replace("\n", "\r\n").encode()
    )
    assert meta["url"] == "https://youtu.be/abc"
    assert meta["end"] == "00:00:01"
    assert meta["object_class"] == "ambulance van"
    assert meta["major_class"] == "JetLev-Flyer"
    assert "[METAINFO]" not in meta


@given(st.binary(max_size=200))
def test_meta_reads_any_bytes(data: bytes) -> None:
    assert all(key == key.strip() and ":" not in key for key in parse_meta(data))


@pytest.mark.parametrize(
    ("meta", "category", "note"),
    [
        ("major_class: zebra\n", "zebra", None),
        ("major_class:bumper car \r\n", "bumper car", None),
        ("object_class: bag\n", "unknown", "no major_class in meta_info.ini"),
        ("major_class:\n", "unknown", "no major_class in meta_info.ini"),
        ("major_class: None\n", "unknown", "no major_class in meta_info.ini"),
        ("major_class: object\n", "object", "none of the 115 published ones, taken as it is"),
        ("[METAINFO]\n\0\xff", "unknown", "no major_class in meta_info.ini"),
    ],
)
def test_classes(tmp_path: Path, meta: str, category: str, note: str | None) -> None:
    one = one_of(tmp_path, meta=meta.encode("latin-1"))
    assert one.category == category
    assert one.problems == ()
    assert [note in text for text in one.notes] == [True] if note else one.notes == ()


@given(st.lists(st.integers(0, 8), max_size=30), st.sampled_from(["\n", "\r\n", ",", " "]))
def test_written_levels_read_back(levels: list[int], separator: str) -> None:
    found, faults = parse_levels(separator.join(map(str, levels)).encode(), 8)
    assert found.tolist() == levels
    assert not faults


def call(*args: object) -> Result:
    return CliRunner().invoke(main, ["got10k", *map(str, args)])


def test_command(tmp_path: Path) -> None:
    fast = ("--root", small_tree(tmp_path / "raw"), "--size", 127, "--workers", 1)
    result = call(*fast, "--out", tmp_path / "a", "--min-visible", 0.5, "--json")
    assert result.exit_code == 0, result.output
    facts = json.loads(result.stdout)
    assert (facts["name"], facts["stride"], facts["sequences"]) == ("got10k", 1, 3)
    assert len(facts["missing"]) == 9335 - 44 - 3
    assert "9,288 sequences of this split are not on disk: GOT-10k_Train_0" in result.stderr
    assert len(result.stderr) < 2000
    kept = call(*fast, "--out", tmp_path / "b", "--keep-known-bad", "--dry-run", "--json")
    assert json.loads(kept.stdout)["sequences"] == 4
    val = call(*fast, "--out", tmp_path / "c", "--split", "val", "--dry-run", "--json")
    assert json.loads(val.stdout)["frames"] == 4
    other = call(*fast, "--out", tmp_path / "a")
    assert other.exit_code == 1
    assert "--min-visible was 0.5, now None" in other.stderr


@pytest.mark.parametrize("option", ["--min-visible=1.5", "--min-visible=x", "--split=dev"])
def test_usage_errors(tmp_path: Path, option: str) -> None:
    assert call("--root", tmp_path, "--out", tmp_path / "out", option).exit_code == 2


def test_the_real_tree_packs_and_verifies(real_data: Path, tmp_path: Path) -> None:
    options = PackOptions(stride=9, min_size=1)
    report = pack(Got10k(), real_data / "got10k", tmp_path / "out", options, workers=1)
    assert report.frames == 13 + 9 + 7  # every ninth of 110, 80 and 60
    assert dict(report.rejected) == {}
    manifest, index = Manifest.read(tmp_path / "out"), Index(tmp_path / "out")
    assert manifest.options["keep_known_bad"] is False
    assert index.categories == ("object", "person")
    assert index.sample(0).visible == 1.0
    assert index.sample(0).source == "train/GOT-10k_Train_000001/00000001.jpg"
    assert verify(tmp_path / "out", 1).ok


def test_an_extra_link_is_noted_and_a_linked_split_or_sequence_is_a_problem(tmp_path: Path) -> None:
    root = tmp_path / "raw"
    sequence(root / "train", name_of(1), 4)
    (tmp_path / "outside").mkdir()
    (root / "junk").symlink_to(tmp_path / "outside")
    found = Got10k().survey(FolderSource(root), "train")
    assert (len(found.found), found.problems) == (1, ())
    assert any("junk leads out of" in note for note in found.notes)
    (root / "val").symlink_to(tmp_path / "outside")
    (root / "train" / name_of(2)).symlink_to(tmp_path / "outside")
    assert "val leads out of" in str(Got10k().survey(FolderSource(root), "train").problems)
    assert f"{name_of(2)} leads out of" in problems(read_one(root, name_of(2)))
    assert not read_one(root, name_of(1)).problems
