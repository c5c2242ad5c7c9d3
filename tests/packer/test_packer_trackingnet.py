"""TrackingNet's raw layout: what is found, what is read, what is called malformed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from lasot_tree import hashes, packed_frames
from trackingnet_tree import CLASSES, NAMES, annotate, small_tree, video

from packer.annotations import parse_boxes
from packer.cli import main
from packer.datasets.trackingnet import TrackingNet
from packer.jobs import PackOptions
from packer.run import Malformed, pack
from packer.select import select
from packer.sequence import REASONS, Sequence, Survey
from packer.source import FolderSource
from shards.classinfo import parse
from shards.errors import DataError
from shards.format import Manifest
from shards.index import Index
from shards.relabel import relabel
from shards.verify import verify

OPTIONS = PackOptions(stride=10, min_size=10, size=127)


def survey(root: Path, data: TrackingNet | None = None) -> Survey:
    return (data or TrackingNet()).survey(FolderSource(root), "train")


def read_one(root: Path, name: str) -> Sequence:
    found = next(one for one in survey(root).found if one.name == name)
    return TrackingNet().read(FolderSource(root), found)


def reasons(one: Sequence) -> list[str]:
    return ["" if code < 0 else REASONS[code] for code in one.fault.tolist()]


def left_out(one: Sequence) -> list[str]:
    data = TrackingNet()
    kept = select(one, stride=1, min_size=data.MIN_SIZE, min_exclusive=data.MIN_EXCLUSIVE)
    return ["" if code < 0 else REASONS[code] for code in kept.reason.tolist()]


def problems(one: Sequence) -> str:
    return "\n".join(map(str, one.problems))


@pytest.mark.parametrize("enclosing", ["", "TrackingNet"])
def test_videos_are_found_by_chunk_and_name(tmp_path: Path, enclosing: str) -> None:
    small_tree(tmp_path / enclosing)
    video(tmp_path / enclosing, "first_0", chunk="TRAIN_10")
    found = survey(tmp_path).found
    assert [one.name for one in found] == [*NAMES, "first_0"]
    assert [one.number for one in found] == [0, 0, 1, 1, 10]  # TRAIN_10 after TRAIN_1
    assert found[0].path == f"TRAIN_0/frames/{NAMES[0]}"
    assert [one.category for one in found] == ["car", "umbrella", *["unknown"] * 3]


def test_names_that_begin_with_dashes_are_packed(tmp_path: Path) -> None:
    small_tree(tmp_path / "raw")
    report = pack(TrackingNet(), tmp_path / "raw", tmp_path / "out", OPTIONS, workers=1)
    frames = packed_frames(tmp_path / "out")
    assert report.frames == len(frames) == 3 + 2 + 2 + 4
    assert list(dict.fromkeys(frame["sequence"] for frame in frames)) == list(NAMES)
    assert [frame["source"] for frame in frames[:3]] == [
        f"TRAIN_0/frames/--aB3_x-Yz1_0/{number}.jpg" for number in (0, 10, 20)
    ]
    assert {frame["fps"] for frame in frames} == {None}
    assert {frame["visible"] for frame in frames} == {None}
    assert verify(tmp_path / "out", 1).ok


def test_pictures_are_numbered_from_0_and_sorted_by_number(tmp_path: Path) -> None:
    video(tmp_path, "a_0", 12)
    one = read_one(tmp_path, "a_0")
    assert one.numbers.tolist() == list(range(12))
    assert one.pictures == tuple(f"{number}.jpg" for number in range(12))
    assert one.problems == ()
    assert one.visible is None
    assert one.fps is None


def test_a_picture_that_is_missing_inside_moves_nothing(tmp_path: Path) -> None:
    boxes = "".join(f"{i},0,20,20\n" for i in range(12))
    video(tmp_path, "a_0", 12, boxes=boxes, pictures=[*range(4), *range(5, 9), 10, 11])
    one = read_one(tmp_path, "a_0")
    assert reasons(one) == [""] * 4 + ["no_picture"] + [""] * 4 + ["no_picture"] + [""] * 2
    assert one.xywh[:, 0].tolist() == list(range(12))
    assert one.pictures[10] == "10.jpg"
    assert "12 lines, 10 pictures numbered from 0; no picture 4, 9" in problems(one)


def test_a_zero_padded_copy_of_a_picture_is_a_problem(tmp_path: Path) -> None:
    video(tmp_path, "a_0", 3)
    folder = tmp_path / "TRAIN_0/frames/a_0"
    shutil.copy(folder / "1.jpg", folder / "0001.jpg")
    assert "picture 1 is there twice (0001.jpg)" in problems(read_one(tmp_path, "a_0"))


def test_more_pictures_than_lines_and_the_reverse(tmp_path: Path) -> None:
    video(tmp_path, "a_0", 10, pictures=list(range(12)))
    video(tmp_path, "b_0", 12, pictures=list(range(10)))
    one, other = read_one(tmp_path, "a_0"), read_one(tmp_path, "b_0")
    assert reasons(one) == [""] * 10 + ["no_label"] * 2
    assert "no line for picture 10, 11" in problems(one)
    assert reasons(other) == [""] * 10 + ["no_picture"] * 2


def test_line_ends_boxes_outside_and_sides(tmp_path: Path) -> None:
    boxes = (
        "-8.50,-9.00,40.00,41.00\r\n"  # partly outside
        "500.00,500.00,40.00,40.00\r\n"  # wholly outside: only the picture tells
        "10.00,10.00,10.00,40.00\r\n"  # a side of just 10 is not over 10
        "10.00,10.00,10.01,40.00\r\n"
        "10.00,10.00,0.43,40.00\r\n"  # under a pixel
        "10.00,10.00,40.00,-11.00\r\n"
        "10.00,10.00,0.00,40.00\r\n"
    )
    video(tmp_path / "raw", "a_0", 7, boxes=boxes)
    one = read_one(tmp_path / "raw", "a_0")
    assert one.problems == ()
    assert left_out(one) == ["", "", "small", "", "small", "no_box", "no_box"]
    options = PackOptions(stride=1, min_size=10, size=127)
    report = pack(TrackingNet(), tmp_path / "raw", tmp_path / "out", options, workers=1)
    assert dict(report.rejected) == {"no_box": 2, "small": 2, "outside": 1}
    frames = packed_frames(tmp_path / "out")
    assert [frame["frame"] for frame in frames] == [0, 3]
    x0, y0, x1, y1 = frames[0]["region"]
    assert ((x0 + x1) / 2, (y0 + y1) / 2) == pytest.approx((11.5, 11.5))  # not clipped


@pytest.mark.parametrize(
    ("lines", "pictures", "text"),
    [
        (1, 12, "1 line for 12 pictures: only the first frame is annotated"),
        (4, 120, "4 lines for 120 pictures, one for about every 30: keyframes only"),
        (5, 101, "5 lines for 101 pictures, one for about every 20: keyframes only"),
        (3, 15, "keyframes only, and which pictures they belong to is not said"),
    ],
)
def test_keyframes_only_is_refused_whole(
    tmp_path: Path, lines: int, pictures: int, text: str
) -> None:
    video(tmp_path / "raw", "a_0", lines, pictures=list(range(pictures)))
    one = read_one(tmp_path / "raw", "a_0")
    assert text in problems(one)
    assert len(one.problems) == 1
    assert reasons(one) == ["no_label"] * pictures  # no line is taken for a wrong picture
    with pytest.raises(Malformed):
        pack(TrackingNet(), tmp_path / "raw", tmp_path / "out", OPTIONS, workers=1)
    assert not (tmp_path / "out").exists()


def test_a_truncated_annotation_is_no_keyframe_file(tmp_path: Path) -> None:
    video(tmp_path, "a_0", 3, pictures=list(range(14)))
    assert reasons(read_one(tmp_path, "a_0")) == [""] * 3 + ["no_label"] * 11


def test_the_test_split_is_refused_with_the_reason(tmp_path: Path) -> None:
    video(tmp_path / "raw", "a_0", 1, chunk="TEST", pictures=list(range(6)))
    options = PackOptions(stride=10, min_size=10, split="test")
    with pytest.raises(Malformed, match="in test sets whose boxes are not published"):
        pack(TrackingNet(), tmp_path / "raw", tmp_path / "out", options, workers=1)
    with pytest.raises(DataError, match="nothing of --split train is on disk; there are: TEST"):
        survey(tmp_path / "raw")


def test_chunks_choose(tmp_path: Path) -> None:
    small_tree(tmp_path)
    one = survey(tmp_path, TrackingNet(chunks=(1, 2, 1)))
    assert [found.name for found in one.found] == list(NAMES[2:])
    assert one.notes[:2] == (
        "of officially 2,511 videos each, on disk are: TRAIN_1 2",
        "not on disk: TRAIN_2",
    )
    assert TrackingNet(chunks=(2, 1, 1)).options() == {"chunks": [1, 2]}
    assert TrackingNet().options() == {"chunks": None}
    with pytest.raises(DataError, match=r"nothing of --chunks 3,4 is on disk; .* TRAIN_0, TR"):
        survey(tmp_path, TrackingNet(chunks=(3, 4)))


@pytest.mark.parametrize("chunks", [(), (12,), (-1, 0)])
def test_chunks_out_of_range(chunks: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="chunks are numbers from 0 to 11"):
        TrackingNet(chunks=chunks)


def test_boxes_without_pictures_are_missing_and_pictures_without_boxes_malformed(
    tmp_path: Path,
) -> None:
    video(tmp_path, "a_0", 3)
    annotate(tmp_path, "not_here_0")
    (tmp_path / "TRAIN_0/frames/bare_0").mkdir()
    shutil.copy(tmp_path / "TRAIN_0/frames/a_0/0.jpg", tmp_path / "TRAIN_0/frames/bare_0/0.jpg")
    found = survey(tmp_path)
    assert [one.name for one in found.found] == ["a_0", "bare_0"]
    assert found.missing == ("not_here_0",)
    one = read_one(tmp_path, "bare_0")
    assert "TRAIN_0/anno/bare_0.txt: cannot be read: No such file" in problems(one)
    assert reasons(one) == ["no_label"]


def test_official_names_that_are_not_on_disk_are_missing(tmp_path: Path) -> None:
    small_tree(tmp_path)
    (tmp_path / "TRAIN_1_classinfo.txt").write_text(f"{NAMES[2]},3\nekw22HGT0TY_0,3\n")
    assert survey(tmp_path).missing == ("ekw22HGT0TY_0",)
    assert survey(tmp_path, TrackingNet(chunks=(0,))).missing == ("A63BoLTUNAM_0",)


def test_a_video_in_two_chunks_is_a_problem(tmp_path: Path) -> None:
    video(tmp_path, "a_0", 3)
    video(tmp_path, "a_0", 3, chunk="TRAIN_4")
    assert [str(one) for one in survey(tmp_path).problems] == [
        "TRAIN_4/frames/a_0: a_0 is there twice, also in TRAIN_0"
    ]


def test_no_chunks_at_all(tmp_path: Path) -> None:
    (tmp_path / "TRAIN_x").mkdir()
    with pytest.raises(
        DataError, match=r"no folder TRAIN_<k> or TEST found; expected <root>/TRAIN"
    ):
        survey(tmp_path)


def test_zips_are_read_in_place_and_give_the_same_bytes(tmp_path: Path) -> None:
    small_tree(tmp_path / "a")
    small_tree(tmp_path / "b", zipped=True)
    for name in ("a", "b"):
        pack(TrackingNet(), tmp_path / name, tmp_path / f"out-{name}", OPTIONS, workers=1)
    assert hashes(tmp_path / "out-a") == hashes(tmp_path / "out-b")


def test_extracted_pictures_come_before_the_zip(tmp_path: Path) -> None:
    video(tmp_path, "a_0", 3)
    video(tmp_path, "a_0", 3, zipped=True)
    found = survey(tmp_path)
    assert [one.folder for one in found.found] == ["TRAIN_0/frames/a_0"]
    assert found.problems == ()


def notes(root: Path, data: TrackingNet | None = None) -> str:
    return "\n".join(survey(root, data).notes)


def categories(root: Path, data: TrackingNet | None = None) -> dict[str, str]:
    return {one.name: one.category for one in survey(root, data).found}


def test_unknown_is_never_a_car(tmp_path: Path) -> None:
    small_tree(tmp_path)
    assert categories(tmp_path) == {
        NAMES[0]: "car",  # number 23
        NAMES[1]: "umbrella",
        NAMES[2]: "unknown",  # number -1
        NAMES[3]: "unknown",  # not listed
    }
    text = notes(tmp_path)
    assert f"1 videos are not in the class info, category 'unknown': {NAMES[3]}" in text
    assert "1 videos have no class in the class info: 'unknown'" in text
    assert "no class info" not in text


def test_no_class_info_is_one_note_that_reaches_the_manifest(tmp_path: Path) -> None:
    small_tree(tmp_path / "raw")
    (tmp_path / "raw/TRAIN_0_classinfo.txt").unlink()
    assert set(categories(tmp_path / "raw").values()) == {"unknown"}
    report = pack(TrackingNet(), tmp_path / "raw", tmp_path / "out", OPTIONS, workers=1)
    text = "no class info: the category of all videos is 'unknown'; give --class-info, or add"
    for found in (report.notes, Manifest.read(tmp_path / "out").notes):
        assert sum(note.startswith(text) for note in found) == 1


def test_class_info_of_a_file_or_folder(tmp_path: Path) -> None:
    root, other = small_tree(tmp_path / "raw"), tmp_path / "classes"
    (root / "TRAIN_0_classinfo.txt").rename(tmp_path / "any name")
    other.mkdir()
    table = "".join(f"{name}\tcat\n" for name in NAMES)
    (other / "trackingnet_classmap.txt").write_text(table)
    (other / "README.txt").write_text("no class info\n")
    assert set(categories(root, TrackingNet(class_info=other)).values()) == {"cat"}
    assert categories(root, TrackingNet(class_info=tmp_path / "any name"))[NAMES[0]] == "car"
    with pytest.raises(DataError, match=r"no class info in this folder; .*TRAIN_0_classinfo\.txt"):
        survey(root, TrackingNet(class_info=root))
    with pytest.raises(DataError, match="class info cannot be read: No such file"):
        survey(root, TrackingNet(class_info=tmp_path / "nowhere"))


def test_required_classes(tmp_path: Path) -> None:
    small_tree(tmp_path)
    with pytest.raises(DataError, match=f"2 of 4 videos have no class in the class .* {NAMES[2]}"):
        survey(tmp_path, TrackingNet(require_classes=True))
    video(tmp_path / "c", NAMES[0], 3)
    with pytest.raises(DataError, match="1 of 1 videos have no class as there is no class info"):
        survey(tmp_path / "c", TrackingNet(require_classes=True))
    (tmp_path / "c/TRAIN_0_classinfo.txt").write_bytes(CLASSES.encode())
    assert len(survey(tmp_path / "c", TrackingNet(require_classes=True)).found) == 1


def call(*args: object) -> Result:
    return CliRunner().invoke(main, ["trackingnet", *map(str, args)])


def test_command(tmp_path: Path) -> None:
    fast = ("--root", small_tree(tmp_path / "raw"), "--out", tmp_path / "out", "--workers", 1)
    result = call(*fast, "--size", 127, "--chunks", "0,2", "--json")
    assert result.exit_code == 0, result.output
    facts = json.loads(result.stdout)
    assert (facts["name"], facts["stride"], facts["frames"]) == ("trackingnet", 10, 5)
    assert Manifest.read(tmp_path / "out").options["chunks"] == [0, 2]
    other = call(*fast, "--size", 127)
    assert other.exit_code == 1
    assert "--chunks was [0, 2], now None" in other.stderr
    table = tmp_path / "classes"
    table.write_text("".join(f"{name}\tdog\n" for name in NAMES))
    again = call(*fast, "--dry-run", "--json", "--require-classes", "--class-info", table)
    assert json.loads(again.stdout)["categories"] == 1


def test_command_failures(tmp_path: Path) -> None:
    fast = ("--root", small_tree(tmp_path / "raw"), "--out", tmp_path / "out")
    for option in ("--chunks=0,x", "--chunks=12", "--chunks=", "--split=all", "--min-size=0"):
        assert call(*fast, option).exit_code == 2, option
    for options in (["--require-classes"], ["--class-info", tmp_path], ["--chunks", "7"]):
        result = call(*fast, *options)
        assert (result.exit_code, result.stdout) == (1, "")
        assert len(result.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_classes_added_later_are_those_of_packing_with_them(tmp_path: Path) -> None:
    root = small_tree(tmp_path / "raw")
    for name in ("with", "without"):
        pack(TrackingNet(), root, tmp_path / name, OPTIONS, workers=1)
        (root / "TRAIN_0_classinfo.txt").unlink(missing_ok=True)
    relabel(tmp_path / "without", parse(CLASSES.encode(), "classes"))
    packed, relabelled = hashes(tmp_path / "with"), hashes(tmp_path / "without")
    differ = {name for name in packed if packed[name] != relabelled[name]}
    assert packed.keys() == relabelled.keys()
    assert differ == {"manifest.json", "plan.json"}  # notes, and the fingerprint of the input
    notes = Manifest.read(tmp_path / "without").notes
    assert not any(note.startswith("no class info") for note in notes)
    report = pack(TrackingNet(), root, tmp_path / "without", OPTIONS, workers=1)
    assert report.resumed_shards == report.shards  # the packer accepts the folder as its own


@pytest.mark.parametrize(
    ("name", "lines"),
    [("-3TIfnTSM6c_2", 480), ("a1qoB1eERn0_0", 540), ("a3T8T1R2wAc_0", 450)],
)
def test_genuine_annotations_parse(real_data: Path, tmp_path: Path, name: str, lines: int) -> None:
    data = (real_data / f"fixtures/trackingnet/anno/{name}.txt").read_bytes()
    assert data.count(b"\r\n") == lines
    boxes, faults = parse_boxes(data)
    assert boxes.shape == (lines, 4)
    assert not faults
    assert np.isfinite(boxes).all()
    assert (boxes[:, 2:] > 0).all()
    video(tmp_path, name, 0, boxes=data, pictures=[0])
    one = read_one(tmp_path, name)
    assert len(one.numbers) == lines
    assert one.xywh.tolist() == boxes.tolist()


def test_genuine_boxes_leave_the_picture(real_data: Path) -> None:
    folder = real_data / "fixtures/trackingnet/anno"
    boxes = np.concatenate([parse_boxes(path.read_bytes())[0] for path in folder.iterdir()])
    assert len(boxes) == 1470
    assert (boxes[:, :2] < 0).any()


def test_genuine_class_info(real_data: Path, tmp_path: Path) -> None:
    video(tmp_path, "-3TIfnTSM6c_2", 3)
    data = TrackingNet(class_info=real_data / "fixtures/trackingnet")
    found = survey(tmp_path, data)
    assert [one.category for one in found.found] == ["umbrella"]  # number 21
    assert len(found.missing) == 2510


def test_the_real_tree_packs_and_verifies(real_data: Path, tmp_path: Path) -> None:
    options = PackOptions(stride=10, min_size=10)
    report = pack(TrackingNet(), real_data / "trackingnet", tmp_path / "out", options, workers=1)
    assert report.frames == 6 + 8 + 5  # every tenth of 60, 75 and 45
    index = Index(tmp_path / "out")
    assert index.frame.tolist() == [*range(0, 60, 10), *range(0, 75, 10), *range(0, 45, 10)]
    assert index.categories == ("unknown",)
    assert verify(tmp_path / "out", 1).ok


@pytest.mark.parametrize("loop", [False, True])
def test_a_linked_video_is_named_and_costs_no_other(tmp_path: Path, loop: bool) -> None:
    root = tmp_path / "raw"
    small_tree(root)
    (tmp_path / "outside").mkdir()
    (root / "junk").symlink_to(tmp_path / "outside")
    before = pack(TrackingNet(), root, tmp_path / "a", OPTIONS, workers=1)
    annotate(root, "evil_0")
    link = root / "TRAIN_0/frames/evil_0"
    link.symlink_to("evil_0" if loop else tmp_path / "outside")
    with pytest.raises(Malformed, match="TRAIN_0/frames/evil_0"):
        pack(TrackingNet(), root, tmp_path / "b", OPTIONS, workers=1)
    after = pack(TrackingNet(), root, tmp_path / "b", OPTIONS, workers=1, on_error="skip")
    assert after.frames == before.frames
    assert any("evil_0" in cause for cause in after.causes)


def test_linked_chunks_are_looked_for_elsewhere(tmp_path: Path) -> None:
    root = tmp_path / "raw"
    small_tree(root / "t")
    (tmp_path / "outside").mkdir()
    (root / "a").symlink_to(tmp_path / "outside")
    assert survey(root).found
    shutil.rmtree(root / "t")
    with pytest.raises(DataError, match="a leads out of"):
        survey(root)
