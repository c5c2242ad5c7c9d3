"""Zips and folders of crops that are used where they are."""

from __future__ import annotations

import hashlib
import json
import pickle
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import old_files
import pytest
from click.testing import CliRunner, Result

from shards.cli import main
from shards.errors import DataError, FormatError, MismatchError, StorageError
from shards.format import Manifest, check_crop_file
from shards.in_place import index_folder, index_zip
from shards.index import Index
from shards.storage import LocalStorage, Range
from shards.verify import verify


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments])


def read(folder: Path) -> dict[str, bytes]:
    """Crops by key, through the storage that the loader uses."""
    index, storage = Index.checked(folder, Manifest.read(folder)), LocalStorage(folder)
    ranges = [
        Range(index.file(row), int(index.offset[row]), int(index.size[row]))
        for row in range(len(index))
    ]
    storage.will_need(ranges)
    found = storage.read_many(ranges)
    return {index.key(row): bytes(data) for row, data in enumerate(found)}


KEYS = {
    **{f"zebra-1_0_{n}.jpg": f"zebra-1/0_{n:08d}" for n in (1, 4, 10)},
    **{f"-x_0_0_{n}.jpg": f"-x_0/0_{n:08d}" for n in range(4)},
    **{f"car-2_0_{n}.jpg": f"car-2/0_{n:08d}" for n in (5, 8)},
    **{f"car 3_0_{n}.jpg": f"car%203/0_{n:08d}" for n in (1, 2, 4, 8)},
}


@pytest.mark.parametrize("inside", ["", "images/", "a/b/"])
def test_a_zip_is_read_where_it_is(tmp_path: Path, inside: str) -> None:
    path, pickled, crops = old_files.write(tmp_path / "old", inside=inside)
    manifest = index_zip(path, pickled, tmp_path / "out", name="coco")
    assert {KEYS[name]: data for name, data in crops.items()} == read(tmp_path / "out")
    assert sorted(one.name for one in (tmp_path / "out").iterdir()) == [
        "COCO.zip",
        "index.arrow",
        "manifest.json",
    ]
    assert (tmp_path / "out/COCO.zip").is_symlink()
    (held,) = manifest.shards
    whole = path.read_bytes()
    assert (held.name, held.bytes, held.frames) == ("COCO.zip", len(whole), 13)
    assert held.sha256 == hashlib.sha256(whole).hexdigest()
    assert (manifest.grid, manifest.crop_size, manifest.quality) == ("corner", 96, None)
    assert verify(tmp_path / "out", 1).ok


def test_what_the_index_says_of_a_crop(tmp_path: Path) -> None:
    path, pickled, _ = old_files.write(tmp_path)
    index_zip(path, pickled, tmp_path / "out", name="coco")
    index = Index(tmp_path / "out")
    sample = index.sample(4)
    assert (sample.sequence, sample.track, sample.frame) == ("-x_0", 0, 1)
    assert (sample.kind, sample.fps, sample.visible) == ("video", None, None)
    unknown = (sample.mean_rgb, sample.source, sample.source_size, sample.region)
    assert unknown == (None, None, None, None)
    assert (sample.categories, sample.ignore) == (("car", "car"), (False, True))
    half = 11.125
    np.testing.assert_array_equal(
        sample.boxes, [[48 - half, 35.75, 48 + half, 60.25], [1.5, 2.25, 90, 30.5]]
    )
    assert index.categories == ("zebra", "car")
    assert index.regions() is None


def test_a_folder_is_read_where_it_is(tmp_path: Path) -> None:
    sequences = {"zebra-1": [1, 4, 10], "-x_0": [0, 1]}
    path, pickled, crops = old_files.write(tmp_path, sequences=sequences)
    with zipfile.ZipFile(path) as archive:
        archive.extractall(tmp_path / "crops")
    manifest = index_folder(tmp_path / "crops", pickled, tmp_path / "out", name="coco")
    assert {KEYS[name]: data for name, data in crops.items()} == read(tmp_path / "out")
    assert Index(tmp_path / "out").file(0) == "crops/zebra-1_0_1.jpg"
    (held,) = manifest.shards
    assert (held.name, held.bytes) == ("crops", sum(map(len, crops.values())))
    assert verify(tmp_path / "out", 1).ok
    (tmp_path / "crops/zebra-1_0_4.jpg").write_bytes(crops["zebra-1_0_1.jpg"])
    (tmp_path / "crops/-x_0_0_1.jpg").unlink()
    damage = verify(tmp_path / "out", 1).damage
    assert [(one.shard, one.key) for one in damage] == [
        ("crops", ""),
        ("crops/-x_0_0_1.jpg", "-x_0/0_00000001"),
        ("crops/zebra-1_0_4.jpg", "zebra-1/0_00000004"),
    ]


def test_zip_and_folder_and_the_other_order_say_the_same(tmp_path: Path) -> None:
    path, pickled, _ = old_files.write(tmp_path, sequences={"a-1": [1, 2], "b-1": [3, 4]})
    with zipfile.ZipFile(path) as archive:
        archive.extractall(tmp_path / "crops")
    index_zip(path, pickled, tmp_path / "zip", name="coco")
    index_folder(tmp_path / "crops", pickled, tmp_path / "folder", name="coco")
    one, two = Index(tmp_path / "zip").table, Index(tmp_path / "folder").table
    same = [name for name in one.column_names if name not in ("file", "offset")]
    assert one.select(same).equals(two.select(same))


def test_running_again_makes_the_same_bytes(tmp_path: Path) -> None:
    path, pickled, _ = old_files.write(tmp_path)
    index_zip(path, pickled, tmp_path / "out", name="coco")
    before = [(tmp_path / "out" / n).read_bytes() for n in ("index.arrow", "manifest.json")]
    index_zip(path, pickled, tmp_path / "out", name="coco")
    after = [(tmp_path / "out" / n).read_bytes() for n in ("index.arrow", "manifest.json")]
    assert before == after
    assert str(tmp_path) not in before[1].decode()


def test_beside_the_zip_there_is_no_link(tmp_path: Path) -> None:
    path, pickled, crops = old_files.write(tmp_path)
    index_zip(path, pickled, tmp_path, name="coco")
    assert not path.is_symlink()
    assert len(read(tmp_path)) == len(crops)


def test_deflated_members_are_refused_with_the_command_that_helps(tmp_path: Path) -> None:
    path, pickled, _ = old_files.write(tmp_path, method=zipfile.ZIP_DEFLATED)
    with pytest.raises(FormatError, match=r"13 of 13 crops are deflated") as error:
        index_zip(path, pickled, tmp_path / "out", name="coco")
    command = f"python -m packer legacy --zip {path} --ann {pickled} --dataset coco"
    assert str(error.value).endswith(command)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compressions_are_refused_by_number(tmp_path: Path, method: int) -> None:
    path, pickled, _ = old_files.write(tmp_path, method=method)
    with pytest.raises(FormatError, match=f"compressed by method {method}"):
        index_zip(path, pickled, tmp_path / "out", name="coco")


def test_missing_on_either_side(tmp_path: Path) -> None:
    path, pickled, crops = old_files.write(tmp_path)
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in crops.items():
            if name not in ("zebra-1_0_4.jpg", "car-2_0_5.jpg"):
                archive.writestr(name, data)
        archive.writestr("more-1_0_3.jpg", crops["zebra-1_0_1.jpg"])
        archive.writestr("readme.txt", "hello")
    with pytest.raises(DataError) as error:
        index_zip(path, pickled, tmp_path / "out", name="coco")
    lines = str(error.value).splitlines()
    assert len(lines) == 3
    assert "zebra-1_0_4.jpg: annotated, but there is no such picture" in lines[1]
    assert "car-2_0_5.jpg" in lines[2]
    assert not (tmp_path / "out").exists()
    manifest = index_zip(path, pickled, tmp_path / "out", name="coco", skip=True)
    assert manifest.rejected == {"no_picture": 2, "short_track": 1, "no_label": 1}
    frames = {
        why: [one["frame"] for one in some] for why, some in manifest.rejected_examples.items()
    }
    assert frames["no_picture"] == ["zebra-1/4", "car-2/5"]
    assert frames["short_track"] == ["car-2/8"]
    assert manifest.counts["frames"] == 10
    assert verify(tmp_path / "out", 1).ok


def test_damaged_crops(tmp_path: Path) -> None:
    path, pickled, crops = old_files.write(tmp_path)
    crops["zebra-1_0_1.jpg"] = b"<html>404</html>"
    crops["zebra-1_0_4.jpg"] = old_files.crop(3, side=80)
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in crops.items():
            archive.writestr(name, data)
    data = bytearray(path.read_bytes())
    at = data.index(crops["car-2_0_5.jpg"]) + 400
    data[at] ^= 1
    path.write_bytes(data)
    with pytest.raises(DataError) as error:
        index_zip(path, pickled, tmp_path / "out", name="coco")
    text = str(error.value)
    assert "zebra-1_0_1.jpg: not a picture" in text
    assert "zebra-1_0_4.jpg: 80 pixels wide, most crops have 96" in text
    assert "car-2_0_5.jpg: damaged: not the size and CRC-32" in text
    manifest = index_zip(path, pickled, tmp_path / "out", name="coco", skip=True)
    assert manifest.rejected == {"unreadable": 3, "short_track": 2}


@pytest.mark.parametrize(
    "name", ["../evil_0_1.jpg", "/evil_0_1.jpg", "a/../../x_0_1.jpg", "a\\b.jpg"]
)
def test_names_that_leave_the_zip_are_refused(tmp_path: Path, name: str) -> None:
    path, pickled, crops = old_files.write(tmp_path)
    with zipfile.ZipFile(path, "w") as archive:
        for own, data in crops.items():
            archive.writestr(own, data)
        archive.writestr(name, b"x")
    with pytest.raises(FormatError, match=r"absolute path or one with '\.\.' is refused"):
        index_zip(path, pickled, tmp_path / "out", name="coco")


def test_a_member_twice(tmp_path: Path) -> None:
    path, pickled, crops = old_files.write(tmp_path, inside="a/")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("b/zebra-1_0_1.jpg", crops["zebra-1_0_4.jpg"])
    with pytest.raises(FormatError, match="there twice"):
        index_zip(path, pickled, tmp_path / "out", name="coco")


def test_members_that_share_bytes_are_refused(tmp_path: Path) -> None:
    """Two entries of the directory point at one member: how zip bombs overlap."""
    path, pickled, _ = old_files.write(tmp_path, sequences={"a-1": [1, 2]})
    with zipfile.ZipFile(path) as archive:
        header_of = {one.filename: one.header_offset for one in archive.infolist()}
    data = bytearray(path.read_bytes())
    at = data.index(b"PK\1\2")
    second = data.index(b"PK\1\2", at + 4)
    assert header_of["a-1_0_1.jpg"] > header_of["a-1_0_2.jpg"] == 0
    data[second + 42 : second + 46] = (0).to_bytes(4, "little")
    path.write_bytes(data)
    with pytest.raises(FormatError, match="overlaps"):
        index_zip(path, pickled, tmp_path / "out", name="coco")


@pytest.mark.parametrize("cut", [1, 30, 500, 40_000])
def test_a_zip_that_is_cut_off(tmp_path: Path, cut: int) -> None:
    path, pickled, _ = old_files.write(tmp_path)
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(FormatError, match=r"COCO\.zip.*(cut off|damaged)"):
        index_zip(path, pickled, tmp_path / "out", name="coco")


def test_a_zip_with_64_bit_entries(tmp_path: Path) -> None:
    path, pickled, crops = old_files.write(tmp_path)
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in crops.items():
            with archive.open(name, "w", force_zip64=True) as handle:
                handle.write(data)
    data = path.read_bytes()
    # A directory that has the sizes of one member only in its Zip64 field.
    at = data.index(b"PK\1\2")
    name_size = int.from_bytes(data[at + 28 : at + 30], "little")
    sizes = data[at + 20 : at + 28]
    offset = data[at + 42 : at + 46]
    field = b"\1\0\x18\0"
    field += sizes[4:] + bytes(4) + sizes[:4] + bytes(4) + offset + bytes(4)
    entry = bytearray(data[at : at + 46 + name_size])
    old_extra = int.from_bytes(entry[30:32], "little")
    entry[20:28], entry[42:46] = b"\xff" * 8, b"\xff" * 4
    entry[30:32] = len(field).to_bytes(2, "little")
    rest = data[at + 46 + name_size + old_extra :]
    changed = bytearray(data[:at] + entry + field + rest)
    end = changed.rindex(b"PK\5\6")
    changed[end + 12 : end + 16] = (end - at).to_bytes(4, "little")
    path.write_bytes(changed)
    index_zip(path, pickled, tmp_path / "out", name="coco")
    assert len(read(tmp_path / "out")) == 13


def test_a_folder_with_links_and_strange_files(tmp_path: Path) -> None:
    path, pickled, _ = old_files.write(tmp_path, sequences={"a-1": [1, 2, 3, 4]})
    folder = tmp_path / "crops"
    with zipfile.ZipFile(path) as archive:
        archive.extractall(folder)
    shutil.move(folder / "a-1_0_2.jpg", tmp_path / "secret.jpg")
    (folder / "a-1_0_2.jpg").symlink_to(tmp_path / "secret.jpg")
    (folder / "a-1_0_3.jpg").unlink()
    (folder / "a-1_0_3.jpg").mkdir()
    with pytest.raises(DataError) as error:
        index_folder(folder, pickled, tmp_path / "out", name="coco")
    assert "a-1_0_2.jpg: a link, not a file" in str(error.value)
    assert "a-1_0_3.jpg: a folder or a device, not a file" in str(error.value)
    manifest = index_folder(folder, pickled, tmp_path / "out", name="coco", skip=True)
    assert manifest.rejected == {"unreadable": 2}


def test_names_that_no_index_may_hold_are_refused_in_a_folder(tmp_path: Path) -> None:
    path, pickled, _ = old_files.write(tmp_path)
    with zipfile.ZipFile(path) as archive:
        archive.extractall(tmp_path / "crops")
    with pytest.raises(FormatError, match=r"car 3_0_1\.jpg.*packer legacy"):
        index_folder(tmp_path / "crops", pickled, tmp_path / "out", name="coco")


@pytest.mark.parametrize(
    "name",
    ["a.zip", "crops/-x_0_0_1.jpg", "crops/a%20b_0_1.jpg", "x-000000.tar"],
)
def test_names_of_files_of_crops(name: str) -> None:
    assert check_crop_file(name) == name


@pytest.mark.parametrize(
    "name",
    ["../a.jpg", "a/../b.jpg", "a/b/c.jpg", "/a.jpg", "a/.b.jpg", ".a/b.jpg", "a/", "a//b",
     "pipe:x", "a/b c.jpg", "s3://a", "a/b:c", ""],
)  # fmt: skip
def test_names_that_lead_out_or_start_something(name: str) -> None:
    with pytest.raises(FormatError, match="only plain names"):
        check_crop_file(name)


def test_an_output_folder_that_holds_something_else(tmp_path: Path) -> None:
    path, pickled, _ = old_files.write(tmp_path / "old")
    index_zip(path, pickled, tmp_path / "out", name="coco")
    with pytest.raises(MismatchError, match="holds data set 'coco'"):
        index_zip(path, pickled, tmp_path / "out", name="lasot")
    (tmp_path / "tars").mkdir()
    (tmp_path / "tars/coco-000000.tar").touch()
    with pytest.raises(MismatchError, match="packed shards"):
        index_zip(path, pickled, tmp_path / "tars", name="coco")
    (tmp_path / "other").mkdir()
    (tmp_path / "other/COCO.zip").write_bytes(b"another")
    with pytest.raises(MismatchError, match="is there already"):
        index_zip(path, pickled, tmp_path / "other", name="coco")
    assert (tmp_path / "other/COCO.zip").read_bytes() == b"another"


def test_a_moved_zip_is_said_to_be_gone(tmp_path: Path) -> None:
    path, pickled, _ = old_files.write(tmp_path / "old")
    index_zip(path, pickled, tmp_path / "out", name="coco")
    path.rename(tmp_path / "elsewhere.zip")
    with pytest.raises(StorageError, match=r"COCO\.zip"):
        read(tmp_path / "out")
    assert [one.reason for one in verify(tmp_path / "out", 1).damage] == ["the file does not exist"]


def test_a_pickle_that_would_run_code(tmp_path: Path) -> None:
    path, pickled, _ = old_files.write(tmp_path)
    trace = tmp_path / "trace"
    pickled.write_bytes(b"cos\nmkdir\n(S'" + str(trace).encode() + b"'\ntR.")
    with pytest.raises(FormatError, match=r"it names os\.mkdir"):
        index_zip(path, pickled, tmp_path / "out", name="coco")
    assert not trace.exists()


def _changed(tmp_path: Path, change: Any) -> tuple[Path, Path]:
    path, pickled, _ = old_files.write(tmp_path)
    facts = pickle.loads(pickled.read_bytes())
    change(facts)
    pickled.write_bytes(pickle.dumps(facts, protocol=4))
    return path, pickled


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda f: f["seqs"][0]["frames"].__setitem__(0, "strange.jpg"), "is not named"),
        (lambda f: f["seqs"][0]["frames"].__setitem__(1, "car-9_0_4.jpg"), "another sequence"),
        (lambda f: f["seqs"][0].__setitem__("frame_id", [4, 1, 10]), "must ascend"),
        (lambda f: f["seqs"][0].__setitem__("frame_id", [1, 2, 2**31]), "must ascend"),
        (lambda f: f["seqs"][0].__setitem__("frame_id", [1, 2, 2**70]), "entry 0"),
        (lambda f: f["seqs"][0].__setitem__("category", 4), "category 4 is not among"),
        (lambda f: f["seqs"].append(f["seqs"][0]), "has a track 0 already"),
        (lambda f: f["categories"].append({"id": 3, "name": "x"}), "there twice"),
        (lambda f: f["seqs"][1]["bboxes"][2].__setitem__((1, 4), 5), "-x_0_0_2.jpg: a box"),
        (lambda f: f["seqs"][1]["bboxes"][2].__setitem__((1, 0), np.nan), "-x_0_0_2.jpg: a box"),
        (lambda f: f["seqs"][1]["bboxes"][2].__setitem__((1, 5), 2), "-x_0_0_2.jpg: a box"),
        (lambda f: f["seqs"][1]["bboxes"][2].__setitem__((0, 4), 3), "-x_0_0_2.jpg: a box"),
        (lambda f: f["seqs"].append({**f["seqs"][0], "frames": [], "frame_id": [], "bboxes": []}),
         "without frames"),
    ],
)  # fmt: skip
def test_malformed_annotations(tmp_path: Path, change: Any, said: str) -> None:
    path, pickled = _changed(tmp_path, change)
    with pytest.raises(DataError, match=said):
        index_zip(path, pickled, tmp_path / "out", name="coco")
    index_zip(path, pickled, tmp_path / "out", name="coco", skip=True)
    assert verify(tmp_path / "out", 1).ok


def test_a_target_without_area_is_left_out_and_counted(tmp_path: Path) -> None:
    path, pickled = _changed(tmp_path, lambda f: f["seqs"][1]["bboxes"][2].__setitem__((0, 2), -5))
    manifest = index_zip(path, pickled, tmp_path / "out", name="coco")
    assert manifest.rejected == {"no_box": 1}


# ---- the command -------------------------------------------------------------------------------


def test_command_with_the_published_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIAMSTREAM_SHARDS", str(tmp_path / "shards"))
    sequences = {"zebra-1": [1, 2], "car-1": [3, 6]}
    path, pickled, _ = old_files.write(
        tmp_path, sequences=sequences, zip_name="LaSOT_train_images.zip"
    )
    wrong = path.with_name("LaSOT_trian_images.zip")
    result = run("index", "--from-zip", wrong, "--ann", pickled, "--json")
    assert result.exit_code == 0, result.output
    facts = json.loads(result.stdout)
    assert (facts["name"], facts["grid"], facts["frames"]) == ("lasot", "corner", 4)
    assert run("verify", tmp_path / "shards/lasot").exit_code == 0
    again = run("index", tmp_path / "shards/lasot")
    assert again.exit_code == 1
    assert "--from-zip" in again.stderr


def test_command_with_a_folder_and_options(tmp_path: Path) -> None:
    path, pickled, _ = old_files.write(tmp_path, sequences={"a-1": [1], "b-1": [2]})
    with zipfile.ZipFile(path) as archive:
        archive.extractall(tmp_path / "crops")
    options = ("--name", "mine", "--grid", "edge", "--out", tmp_path / "out")
    result = run("index", "--from-folder", tmp_path / "crops", "--ann", pickled, *options)
    assert result.exit_code == 0, result.output
    manifest = Manifest.read(tmp_path / "out")
    assert (manifest.name, manifest.grid, manifest.options["kind"]) == ("mine", "edge", "image")
    assert Index(tmp_path / "out").is_image


def test_command_line_errors(tmp_path: Path) -> None:
    path, pickled, _ = old_files.write(tmp_path, zip_name="mine.zip")
    own = tmp_path / "crops.pkl"
    pickled.rename(own)
    assert run("index").exit_code == 2
    assert run("index", tmp_path, "--from-zip", path, "--ann", own).exit_code == 2
    assert run("index", "--from-zip", path).exit_code == 2
    assert run("index", tmp_path, "--ann", own).exit_code == 2
    nameless = run("index", "--from-zip", path, "--ann", own)
    assert (nameless.exit_code, "--name" in nameless.stderr) == (2, True)
    gone = run("index", "--from-zip", tmp_path / "no.zip", "--ann", own, "--name", "x")
    assert (gone.exit_code, "no.zip" in gone.stderr) == (1, True)
