"""``python -m shards`` as a user meets it, with whole and damaged folders."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import synthetic
from click.testing import CliRunner, Result
from PIL import Image

from shards.cli import main
from shards.format import Manifest
from shards.index import Index
from shards.pixels import encode_jpeg
from shards.verify import verify


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    synthetic.pack(tmp_path, sequences=4, frames=6, side=160)
    return tmp_path / "lasot"


def damage(folder: Path, row: int, replacement: bytes, *, at: int = 0) -> str:
    """Overwrite bytes of a picture; returns its key."""
    index = Index(folder)
    with (folder / index.file(row)).open("r+b") as handle:
        handle.seek(int(index.offset[row]) + at)
        handle.write(replacement)
    return index.key(row)


def test_info_json(packed: Path) -> None:
    result = run("info", packed / "lasot", "--json")
    assert result.exit_code == 0
    facts = json.loads(result.stdout)
    size = sum(path.stat().st_size for path in (packed / "lasot").glob("*.tar"))
    wanted = {
        "name": "lasot", "format_version": 1, "shards": 3, "frames": 70, "tracks": 5,
        "sequences": 5, "categories": 2, "bytes": size, "crop_size": 446, "quality": 90,
        "stride": 3, "grid": "edge",
    }  # fmt: skip
    assert wanted.items() <= facts.items()


def test_info_lists_all_data_sets_of_a_parent(packed: Path) -> None:
    result = run("info", packed)
    assert result.exit_code == 0
    assert "coco (" in result.stdout
    assert "70 frames of 5 tracks" in result.stdout
    json_of_two = run("info", packed, "--json")
    assert (json_of_two.exit_code, json_of_two.stdout) == (1, "")
    assert "coco, lasot" in json_of_two.stderr


@pytest.mark.parametrize("command", ["info", "verify", "show", "index"])
def test_folder_that_is_no_data_set(tmp_path: Path, command: str) -> None:
    more = ("--out", tmp_path / "x.png") if command == "show" else ()
    result = run(command, tmp_path, *more)
    assert result.exit_code == 1
    assert len(result.stderr.strip().splitlines()) == 1
    assert str(tmp_path) in result.stderr


def test_verify_passes_a_good_folder(folder: Path) -> None:
    result = run("verify", folder, "--workers", 2, "--json")
    assert result.exit_code == 0
    facts = json.loads(result.stdout)
    assert (facts["ok"], facts["frames"], facts["damage"]) == (True, 24, [])


def test_verify_names_flipped_bits(folder: Path) -> None:
    key = damage(folder, 7, b"\xff\x00", at=900)
    result = run("verify", folder, "--json")
    assert result.exit_code == 1
    facts = json.loads(result.stdout)
    assert [one["key"] for one in facts["damage"] if one["key"]] == [key]
    assert any("SHA-256" in one["reason"] for one in facts["damage"])
    assert key in result.stderr


def test_verify_names_every_flipped_description(folder: Path) -> None:
    index = Index(folder)
    path = folder / index.file(2)
    data = bytearray(path.read_bytes())
    for row, number in ((2, b"7"), (4, b"13")):
        at = data.index(b'"frame":' + number, int(index.offset[row] + index.size[row]))
        data[at + 8] = ord("9")
    path.write_bytes(data)
    named = [one.key for one in verify(folder, 1).damage if one.key]
    assert named == [index.key(2), index.key(4)]


def test_verify_tells_a_damaged_header(folder: Path) -> None:
    index = Index(folder)
    path = folder / index.file(2)
    data = bytearray(path.read_bytes())
    data[int(index.offset[2]) - 512 + 150] ^= 1  # in the checksum of the header of row 2
    path.write_bytes(data)
    reasons = [one.reason for one in verify(folder, 1).damage]
    assert any(f"damaged or cut off after {index.key(1)}.json" in reason for reason in reasons)


def test_verify_finds_a_shard_that_nobody_knows(folder: Path) -> None:
    shutil.copy(folder / "lasot-000000.tar", folder / "lasot-000009.tar")
    (one,) = verify(folder, 1).damage
    assert (one.shard, one.reason) == ("lasot-000009.tar", "not in the manifest")


def test_verify_names_the_key_of_another_number_in_a_description(folder: Path) -> None:
    index = Index(folder)
    path = folder / index.file(2)
    data = bytearray(path.read_bytes())
    at = data.index(b"100.0", int(index.offset[2] + index.size[2]))
    data[at : at + 5] = b"101.0"
    path.write_bytes(data)
    assert [one.key for one in verify(folder, 1).damage if one.key] == [index.key(2)]


def test_verify_names_every_picture_of_a_truncated_shard(folder: Path) -> None:
    index = Index(folder)
    path = folder / "lasot-000001.tar"
    cut = int(index.offset[20]) + 10
    with path.open("r+b") as handle:
        handle.truncate(cut)
    named = [one.key for one in verify(folder, 2).damage if one.shard == path.name and one.key]
    assert named == [index.key(row) for row in range(20, 24)]


def test_verify_finds_a_picture_that_is_whole_but_of_another_size(tmp_path: Path) -> None:
    manifest = synthetic.pack(tmp_path, sequences=2, frames=2, side=160)
    folder = tmp_path / "lasot"
    facts = json.loads(manifest.to_json()) | {"crop_size": 446}
    (folder / "manifest.json").write_text(json.dumps(facts))
    reasons = {one.reason for one in verify(folder, 1).damage}
    assert reasons == {"160x160 pixels, 446x446 expected"}


def test_verify_finds_a_missing_shard_and_a_changed_index(folder: Path) -> None:
    (folder / "lasot-000000.tar").unlink()
    with (folder / "index.arrow").open("r+b") as handle:
        handle.seek(600)
        handle.write(b"\x01\x02")
    damage = {(one.shard, one.reason.split(";")[0]) for one in verify(folder, 1).damage}
    assert ("lasot-000000.tar", "the file does not exist") in damage
    assert any(shard == "index.arrow" and "SHA-256" in reason for shard, reason in damage)


def test_verify_reports_a_truncated_index_and_still_checks_the_shards(folder: Path) -> None:
    (folder / "index.arrow").write_bytes((folder / "index.arrow").read_bytes()[:500])
    with (folder / "lasot-000001.tar").open("r+b") as handle:
        handle.truncate(700)
    result = run("verify", folder, "--json")
    assert result.exit_code == 1
    shards = {one["shard"] for one in json.loads(result.stdout)["damage"]}
    assert shards == {"index.arrow", "lasot-000001.tar"}


def test_index_command_restores_the_index(folder: Path) -> None:
    before = (folder / "index.arrow").read_bytes()
    (folder / "index.arrow").write_bytes(b"")
    result = run("index", folder)
    assert result.exit_code == 0
    assert (folder / "index.arrow").read_bytes() == before
    assert "24 frames of 2 shards" in result.stdout


def test_show_draws_boxes_where_they_are(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "sheet.png"
    result = run("show", folder, "--out", out, "--sequence", "car-1", "--count", 1)
    assert result.exit_code == 0
    sheet = np.array(Image.open(out))
    green = np.argwhere((sheet == (80, 255, 80)).all(axis=-1))
    box = Index(folder).target_boxes(np.array([0]))[0]
    # 4 px of margin on the sheet; the outline runs along the outermost pixels inside the box
    wanted = np.rint(box) + 4 - np.array([0, 0, 1, 1])
    found = np.array([*green.min(axis=0)[::-1], *green.max(axis=0)[::-1]])
    np.testing.assert_array_equal(found, wanted)


def test_show_names_similar_sequences(folder: Path, tmp_path: Path) -> None:
    result = run("show", folder, "--out", tmp_path / "x.png", "--sequence", "CAR")
    assert result.exit_code == 1
    assert "similar: car-1, car-3" in result.stderr


def test_show_refuses_a_damaged_picture_and_a_strange_ending(folder: Path, tmp_path: Path) -> None:
    result = run("show", folder, "--out", tmp_path / "x.pnk")
    assert result.exit_code == 1
    assert ".png" in result.stderr
    damage(folder, 0, b"\x00\x01", at=500)
    result = run("show", folder, "--out", tmp_path / "x.png")
    assert result.exit_code == 1
    assert "car-1/0_00000001 is damaged" in result.stderr


def test_index_of_a_foreign_manifest(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    synthetic.pack(other, sequences=2, frames=9, side=160)
    shutil.copy(other / "lasot" / "index.arrow", folder / "index.arrow")
    result = run("show", folder, "--out", tmp_path / "x.png")
    assert result.exit_code == 1
    assert "the manifest says" in result.stderr


def test_usage_errors_exit_2(folder: Path) -> None:
    assert run("verify", folder, "--workers", 0).exit_code == 2
    assert run("show", folder).exit_code == 2
    assert run("fly").exit_code == 2


def test_a_shard_whose_picture_is_replaced_by_a_good_one(folder: Path) -> None:
    """Right size, right format, wrong bytes: only the checksum can tell."""
    index = Index(folder)
    size = int(index.size[5])
    other = encode_jpeg(np.full((160, 160, 3), 90, np.uint8), 90)
    assert len(other) < size
    key = damage(folder, 5, other + bytes(size - len(other)))
    assert [one.key for one in verify(folder, 1).damage if one.key] == [key]
    assert Manifest.read(folder).name == "lasot"


def test_export_legacy_holds_the_crops_byte_for_byte(folder: Path, tmp_path: Path) -> None:
    import zipfile

    from shards.storage import LocalStorage, Range

    result = run("export", folder, "--format", "legacy", "--out", tmp_path / "old", "--json")
    assert result.exit_code == 0, result.output
    facts = json.loads(result.stdout)
    assert (facts["frames"], facts["tracks"]) == (24, 4)
    index = Index(folder)
    with zipfile.ZipFile(facts["zip"]) as archive:
        one = Range(index.file(0), int(index.offset[0]), int(index.size[0]))
        (data,) = LocalStorage(folder).read_many([one])
        assert archive.read("car-1_0_1.jpg") == bytes(data)
        assert len(archive.namelist()) == 24
