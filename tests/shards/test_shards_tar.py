"""Shards as other programs see them, and as the index describes them."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import tarfile
import warnings
from pathlib import Path

import google_crc32c
import numpy as np
import pyarrow as pa
import pytest
import synthetic

from shards.errors import FormatError, StorageError, VersionError
from shards.format import Manifest, Sample, shard_name
from shards.index import Index, build
from shards.parts import scan
from shards.rebuild import rebuild
from shards.writer import finish, load_part, write_shard


def hashes(folder: Path) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.iterdir())
        if path.is_file()
    }


def test_plain_tar_unpacks_every_sample(packed: Path, tmp_path: Path) -> None:
    for shard in sorted((packed / "lasot").glob("*.tar")):
        subprocess.run(["tar", "xf", shard, "-C", tmp_path], check=True)
    files = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    assert len(files) == 2 * 70
    index = Index(packed / "lasot")
    for row in range(len(index)):
        picture = tmp_path / f"{index.key(row)}.jpg"
        assert google_crc32c.value(picture.read_bytes()) == index.crc[row]
        facts = json.loads(picture.with_suffix(".json").read_bytes())
        assert facts["frame"] == index.frame[row]


def test_webdataset_reads_every_sample(packed: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its imports warn on recent torch
        import webdataset

        urls = [str(path) for path in sorted((packed / "lasot").glob("*.tar"))]
        found = list(webdataset.WebDataset(urls, shardshuffle=False))
    index = Index(packed / "lasot")
    assert [one["__key__"] for one in found] == [index.key(row) for row in range(len(index))]
    assert all({"jpg", "json"} <= set(one) for one in found)
    assert google_crc32c.value(found[3]["jpg"]) == index.crc[3]


def test_members_are_anonymous_and_adjacent(packed: Path) -> None:
    with tarfile.open(packed / "lasot" / "lasot-000000.tar") as tar:
        members = tar.getmembers()
    assert {(m.mtime, m.uid, m.gid, m.uname, m.gname, m.mode) for m in members} == {
        (0, 0, 0, "", "", 0o644)
    }
    names = [m.name for m in members]
    assert all(a[:-4] == b[:-5] for a, b in zip(names[::2], names[1::2], strict=True))
    assert not any(name.startswith(("./", "/")) for name in names)


def test_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    synthetic.pack(tmp_path / "a", sequences=3, frames=3)
    synthetic.pack(tmp_path / "b", sequences=3, frames=3)
    assert hashes(tmp_path / "a" / "lasot") == hashes(tmp_path / "b" / "lasot")


def test_index_is_rebuilt_bit_for_bit(tmp_path: Path) -> None:
    synthetic.pack(tmp_path, sequences=5, frames=4, others=2)
    folder = tmp_path / "lasot"
    before = hashes(folder)
    (folder / "index.arrow").unlink()
    rebuild(folder)
    assert hashes(folder) == before


def test_index_and_manifest_from_tars_alone(tmp_path: Path) -> None:
    made = synthetic.pack(tmp_path, sequences=3, frames=4, side=128)
    folder = tmp_path / "lasot"
    (folder / "manifest.json").unlink()
    manifest = rebuild(folder)
    assert (manifest.name, manifest.crop_size, manifest.grid) == ("lasot", 128, "edge")
    assert manifest.shards == made.shards
    assert manifest.index == made.index


def test_rebuild_refuses_foreign_shards(tmp_path: Path) -> None:
    synthetic.pack(tmp_path, sequences=4, frames=4)
    folder = tmp_path / "lasot"
    (folder / "lasot-000001.tar").replace(folder / "lasot-000002.tar")
    with pytest.raises(FormatError, match=r"lasot-000001\.tar, lasot-000002\.tar"):
        rebuild(folder)


def test_temporary_files_of_packers_are_no_shards(tmp_path: Path) -> None:
    synthetic.pack(tmp_path, sequences=2, frames=2, side=64)
    folder = tmp_path / "lasot"
    (folder / ".part-12-34-lasot-000000.tar").write_bytes(b"half")
    assert len(rebuild(folder).shards) == 1


def test_an_unfinished_folder_is_not_indexed_as_if_it_were_whole(
    real_data: Path, tmp_path: Path
) -> None:
    from packer.datasets import lasot
    from packer.jobs import PackOptions
    from packer.run import pack

    options = PackOptions(stride=3, min_size=10, frames_per_shard=24)
    pack(lasot, real_data / "lasot", tmp_path, options, workers=1)
    before = hashes(tmp_path)
    (tmp_path / "manifest.json").unlink()
    manifest = rebuild(tmp_path)  # all planned shards are there
    assert manifest.options["frames_per_shard"] == 24
    assert hashes(tmp_path)["index.arrow"] == before["index.arrow"]
    (tmp_path / "manifest.json").unlink()
    (tmp_path / "lasot-000001.tar").unlink()
    with pytest.raises(FormatError, match=r"the first is lasot-000001\.tar"):
        rebuild(tmp_path)


def test_rows_hold_the_facts_of_the_samples(packed: Path) -> None:
    index = Index(packed / "lasot")
    expected = list(synthetic.samples("person-2", "person", 14, seed=2, others=2))
    for i, (sample, jpeg) in enumerate(expected):
        row = 14 + i
        assert index.sample(row).to_json() == sample.to_json()
        assert index.size[row] == len(jpeg)
    np.testing.assert_array_equal(index.target_boxes(np.array([14]))[0], expected[0][0].boxes[0])
    assert list(index.box_start[14:16]) == [14 * 3, 15 * 3]


def test_derived_columns(packed: Path) -> None:
    index = Index(packed / "lasot")
    np.testing.assert_array_equal(index.track_first, np.repeat(np.arange(5) * 14, 14))
    np.testing.assert_array_equal(index.track_rows, np.full(70, 14))
    assert index.categories == ("car", "person")
    ranges = index.category_ranges()
    assert ranges.tolist() == [0, 42, 70]
    for code, name in enumerate(index.categories):
        rows = index.by_category[ranges[code] : ranges[code + 1]]
        assert {index.sample(int(row)).category for row in rows} == {name}
        assert (np.diff(rows) > 0).all()


def test_arrays_are_views_of_the_file(packed: Path) -> None:
    before = pa.total_allocated_bytes()
    index = Index(packed / "lasot")
    assert pa.total_allocated_bytes() - before < 64 * 1024
    assert not index.frame.flags.owndata
    assert not index.boxes.flags.writeable


def test_long_names_use_pax_and_stay_readable(tmp_path: Path) -> None:
    name = "a-very-long-sequence-name-" * 5
    samples = list(synthetic.samples(name, "car", 2, seed=1, side=64))
    part = write_shard(tmp_path, shard_name("long", 0), samples)
    assert part.rows["sequence"].to_pylist() == [name] * 2
    with tarfile.open(tmp_path / "long-000000.tar") as tar:
        assert tar.getnames()[0] == f"{name}/0_00000001.jpg"
        data = tar.extractfile(tar.getmembers()[0])
        assert data is not None
        assert data.read() == samples[0][1]


def test_part_says_whether_a_shard_is_done(tmp_path: Path) -> None:
    name = shard_name("lasot", 0)
    assert load_part(tmp_path, name) is None
    samples = list(synthetic.samples("car-1", "car", 2, seed=1, side=64))
    part = write_shard(tmp_path, name, samples, lambda: {"rejected": {"small": 2}})
    again = load_part(tmp_path, name)
    assert again is not None
    assert (again.info, again.facts) == (part.info, {"rejected": {"small": 2}})
    assert again.rows.equals(part.rows)
    with (tmp_path / name).open("ab") as handle:
        handle.write(b"x")
    assert load_part(tmp_path, name) is None
    (tmp_path / name).unlink()
    assert load_part(tmp_path, name) is None


def test_damaged_part_is_packed_again(tmp_path: Path) -> None:
    name = shard_name("lasot", 0)
    write_shard(tmp_path, name, synthetic.samples("car-1", "car", 2, seed=1, side=64))
    (tmp_path / ".parts" / f"{name}.arrow").write_bytes(b"ARROW1 not really")
    assert load_part(tmp_path, name) is None


def test_a_shard_without_samples_has_a_part_and_no_file(tmp_path: Path) -> None:
    name = shard_name("lasot", 0)
    part = write_shard(tmp_path, name, iter(()), lambda: {"rejected": {"unreadable": 3}})
    assert part.info.frames == 0
    assert not (tmp_path / name).exists()
    again = load_part(tmp_path, name)
    assert again is not None
    assert again.facts == {"rejected": {"unreadable": 3}}


def test_an_exception_leaves_nothing_under_the_final_name(tmp_path: Path) -> None:
    def broken() -> object:
        yield from synthetic.samples("car-1", "car", 2, seed=1, side=64)
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        write_shard(tmp_path, shard_name("lasot", 0), broken())  # type: ignore[arg-type]
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == []


def test_frames_of_a_track_must_be_in_order_and_together(tmp_path: Path) -> None:
    a = list(synthetic.samples("car-1", "car", 4, seed=1, side=64))
    b = list(synthetic.samples("car-3", "car", 2, seed=3, side=64))
    for number, wrong in enumerate(([a[1], a[0]], [a[0], *b, a[1]], [a[0], a[0]])):
        part = write_shard(tmp_path, shard_name("lasot", number), wrong)
        with pytest.raises(FormatError, match="in frame order"):
            build([part], "lasot")


def tar_of(members: list[tuple[str, bytes]]) -> io.BytesIO:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    out.seek(0)
    return out


def member_of(sample: Sample, jpeg: bytes) -> list[tuple[str, bytes]]:
    return [(f"{sample.key}.jpg", jpeg), (f"{sample.key}.json", sample.to_json())]


def test_scan_names_what_does_not_belong() -> None:
    (one, jpeg), (two, _) = synthetic.samples("car-1", "car", 2, seed=1, side=64)
    good = member_of(one, jpeg)
    cases = {
        "only .jpg and .json": [*good, ("readme.txt", b"x")],
        "has no .json": good[:1],
        "follows no picture": good[1:],
        f"describes {two.key}": [good[0], (f"{one.key}.json", two.to_json())],
        "not a sample description": [good[0], (f"{one.key}.json", b"{}")],
    }
    for complaint, members in cases.items():
        with pytest.raises(FormatError, match=complaint):
            scan(tar_of(members), "x-000000.tar")


@pytest.mark.parametrize("keep", [100, 700, 5000])
def test_truncated_tar_is_an_error(keep: int) -> None:
    whole = tar_of([m for s in synthetic.samples("car-1", "car", 3, seed=1) for m in member_of(*s)])
    with pytest.raises(FormatError, match=r"x-000000\.tar"):
        scan(io.BytesIO(whole.getvalue()[:keep]), "x-000000.tar")


@pytest.mark.parametrize("at", ["header of the second picture", "cut between two members"])
def test_a_damaged_header_is_no_end(at: str) -> None:
    """tarfile takes both for the end of the archive; frames must not vanish silently."""
    samples = list(synthetic.samples("car-1", "car", 3, seed=1, side=64))
    whole = bytearray(tar_of([m for s in samples for m in member_of(*s)]).getvalue())
    with tarfile.open(fileobj=io.BytesIO(whole)) as tar:
        second = tar.getmembers()[2].offset
    if at.startswith("cut"):
        del whole[second:]
    else:
        whole[second + 150] ^= 1
    with pytest.raises(FormatError, match=r"damaged or cut off after car-1/0_00000001\.json"):
        scan(io.BytesIO(bytes(whole)), "x-000000.tar")


def test_index_of_another_version(packed: Path, tmp_path: Path) -> None:
    table = Index(packed / "lasot").table
    other = table.replace_schema_metadata({"siamstream.format": "2", "siamstream.name": "lasot"})
    path = tmp_path / "index.arrow"
    with pa.ipc.new_file(path, other.schema) as writer:
        writer.write_table(other)
    with pytest.raises(VersionError, match="format version 2, this release reads 1"):
        Index(tmp_path)


@pytest.mark.parametrize("damage", ["truncate", "tail", "empty"])
def test_damaged_index_says_how_to_make_it_again(packed: Path, tmp_path: Path, damage: str) -> None:
    data = (packed / "lasot" / "index.arrow").read_bytes()
    broken = {"truncate": data[: len(data) // 2], "tail": data[:-64] + b"x" * 64, "empty": b""}
    (tmp_path / "index.arrow").write_bytes(broken[damage])
    with pytest.raises(FormatError, match="python -m shards index"):
        Index.checked(tmp_path, Manifest.read(packed / "lasot"))


def test_finish_needs_samples(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="no samples"):
        finish(tmp_path, [], name="lasot", grid="edge", crop_size=446)


def test_full_disk_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno
    import os

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("shards.sink.os.fsync", full)
    with pytest.raises(StorageError, match="disk or quota is full"):
        write_shard(
            tmp_path, shard_name("lasot", 0), synthetic.samples("car-1", "car", 2, seed=1, side=64)
        )
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == []
