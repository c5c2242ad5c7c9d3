"""Sample keys, descriptions and the manifest."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import synthetic
from hypothesis import given
from hypothesis import strategies as st

from shards.errors import FormatError, VersionError
from shards.format import (
    Manifest,
    Sample,
    check_dataset_name,
    check_file_name,
    dataset_folders,
    sample_key,
    shard_name,
)

float32 = st.floats(-1e6, 1e6, width=32)


def one(**changes: object) -> Sample:
    sample, _ = next(iter(synthetic.samples("car-1", "car", 1, seed=1, side=64)))
    return replace(sample, **changes)


def test_key_and_shard_name() -> None:
    assert sample_key("airplane-1", 0, 42) == "airplane-1/0_00000042"
    assert shard_name("lasot", 3) == "lasot-000003.tar"


@given(st.text(min_size=1), st.text(min_size=1))
def test_any_sequence_name_is_one_plain_folder(a: str, b: str) -> None:
    surrogates = any(0xD800 <= ord(c) < 0xE000 for c in a + b)
    if surrogates:
        return
    first, second = sample_key(a, 0, 1), sample_key(b, 0, 1)
    assert first.count("/") == 1
    assert "." not in first
    assert first.isascii()
    assert (first == second) == (a == b)


@pytest.mark.parametrize(("sequence", "track", "frame"), [("", 0, 1), ("a", -1, 1), ("a", 0, -1)])
def test_key_needs_a_name_and_numbers(sequence: str, track: int, frame: int) -> None:
    with pytest.raises(FormatError, match="numbers from 0"):
        sample_key(sequence, track, frame)


@pytest.mark.parametrize("name", ["LaSOT", "a b", "", "../x", "a.b"])
def test_data_set_names(name: str) -> None:
    with pytest.raises(FormatError, match="lower-case"):
        check_dataset_name(name)


@pytest.mark.parametrize(
    "name", ["../x.tar", "/etc/passwd", "a/b.tar", ".x", "pipe:cat x", "", "-;x"]
)
def test_file_names_stay_in_their_folder(name: str) -> None:
    with pytest.raises(FormatError, match="plain names"):
        check_file_name(name)


@given(st.lists(float32, min_size=4, max_size=4), st.lists(float32, min_size=3, max_size=3))
def test_description_keeps_every_float32(box: list[float], mean: list[float]) -> None:
    sample = one(boxes=np.array([box]), mean_rgb=np.array(mean))
    back = Sample.from_json(sample.to_json(), "here")
    np.testing.assert_array_equal(back.boxes, sample.boxes)
    np.testing.assert_array_equal(back.mean_rgb, sample.mean_rgb)
    assert back.to_json() == sample.to_json()


def test_description_golden() -> None:
    assert one(boxes=np.array([[1, 2.5, 3.1, 4]])).to_json() == (
        b'{"sequence":"car-1","track":0,"frame":1,"kind":"video","fps":30.0,'
        b'"boxes":[[1.0,2.5,3.1,4.0]],"categories":["car"],"ignore":[false],"category":"car",'
        b'"visible":1.0,"mean_rgb":[100.0,110.5,120.0],"source":"car/car-1/img/00000001.jpg",'
        b'"source_size":[640,480],"region":[10.0,20.0,200.0,210.0]}\n'
    )


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"frame": "1"}, "int"),
        ({"kind": "movie"}, "kind"),
        ({"boxes": []}, "boxes"),
        ({"boxes": [[1, 2, 3]]}, "not a sample"),
        ({"ignore": []}, "ignore"),
        ({"region": [1, 2, 3, float("nan")]}, "region"),
    ],
)
def test_damaged_description_is_named(change: dict[str, object], complaint: str) -> None:
    facts = json.loads(one().to_json()) | change
    with pytest.raises(FormatError, match=complaint) as error:
        Sample.from_json(json.dumps(facts).encode(), "lasot-000000.tar: car-1/0_00000001.json")
    assert "lasot-000000.tar: car-1/0_00000001.json" in str(error.value)


def test_description_that_is_no_json() -> None:
    with pytest.raises(FormatError, match="here: not a sample description"):
        Sample.from_json(b"\x00\x01", "here")


def test_manifest_round_trip(packed: Path) -> None:
    manifest = Manifest.read(packed / "lasot")
    assert manifest.to_json() == (packed / "lasot" / "manifest.json").read_bytes()
    assert manifest.counts == {"frames": 70, "tracks": 5, "sequences": 5, "categories": 2}


def test_folders_are_found_from_either_level(packed: Path) -> None:
    assert dataset_folders(packed) == [packed / "coco", packed / "lasot"]
    assert dataset_folders(packed / "coco") == [packed / "coco"]
    assert dataset_folders(packed / "absent") == []


@pytest.mark.parametrize(
    ("change", "kind", "complaint"),
    [
        ({"format_version": 2}, VersionError, "newer siamstream"),
        ({"format_version": 0}, VersionError, "pack the data set again"),
        ({"grid": "round"}, FormatError, "grid"),
        ({"extra": 1}, FormatError, "extra"),
        ({"counts": {}}, FormatError, r"counts\.frames"),
        ({"counts": None}, FormatError, "counts"),
        ({"index": []}, FormatError, "index"),
        ({"index": {}}, FormatError, r"index\.name"),
        ({"crop_size": "446"}, FormatError, "crop_size"),
        ({"crop_size": 0}, FormatError, "crop_size"),
        ({"rejected": None}, FormatError, "rejected"),
        ({"shards": []}, FormatError, "shards"),
        (
            {"shards": [{"name": "../a.tar", "bytes": 1, "frames": 1, "sha256": ""}]},
            FormatError,
            "plain",
        ),
    ],
)
def test_manifest_of_another_form(
    tmp_path: Path, packed: Path, change: dict[str, object], kind: type, complaint: str
) -> None:
    facts = json.loads((packed / "lasot" / "manifest.json").read_text()) | change
    (tmp_path / "manifest.json").write_text(json.dumps(facts))
    with pytest.raises(kind, match=complaint):
        Manifest.read(tmp_path)


def test_no_manifest_and_damaged_manifest(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="run the packer again"):
        Manifest.read(tmp_path)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(FormatError, match="damaged"):
        Manifest.read(tmp_path)
