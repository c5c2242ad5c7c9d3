"""The end of packing: from a plan and parts to index and manifest."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import synthetic
from click.testing import CliRunner

from shards.cli import main
from shards.errors import DataError, FormatError, StorageError, VersionError
from shards.finish import finish, finish_place, finished
from shards.format import Manifest, shard_name
from shards.plan import Plan
from shards.sink import FolderSink
from shards.verify import verify
from shards.writer import load_part, write_shard

PLAN = Plan(
    name="lasot",
    options={"stride": 1, "limit": None},
    input="x" * 64,
    versions={"numpy": "2"},
    grid="edge",
    crop_size=64,
    quality=90,
    stride=1,
    shards=3,
    reasons=("absent", "small", "unreadable"),
    rejected={"small": 30},
    rejected_examples={"small": [{"frame": f"car-1/{n}"} for n in range(18)]},
    missing=("cat-1",),
    notes=("a note",),
)


def facts(**rejected: int) -> dict[str, Any]:
    examples = {
        reason: [{"frame": f"{reason}/{n}"} for n in range(count)]
        for reason, count in rejected.items()
    }
    return {"rejected": rejected, "examples": examples}


def pack(folder: Path, number: int, said: Mapping[str, Any] | None = None) -> None:
    name = f"car-{number + 1}"
    samples = synthetic.samples(name, "car", 3, seed=number, side=64) if number != 1 else ()
    write_shard(folder, shard_name("lasot", number), iter(samples), lambda: said or facts())


def begin(folder: Path, plan: Plan = PLAN) -> Path:
    FolderSink(folder).write("plan.json", plan.to_json())
    return folder


def test_a_plan_is_read_as_it_was_written() -> None:
    assert Plan.from_json(PLAN.to_json(), "here") == PLAN
    assert PLAN.shard_names == tuple(f"lasot-00000{n}.tar" for n in range(3))


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"grid": "hex"}, FormatError),
        ({"shards": "3"}, FormatError),
        ({"name": "../x"}, FormatError),
        ({"rejected": []}, FormatError),
        ({"notes": None}, FormatError),
        ({"format_version": 2}, VersionError),
    ],
)
def test_what_is_no_plan(change: dict[str, Any], error: type[Exception]) -> None:
    data = {**json.loads(PLAN.to_json()), **change}
    with pytest.raises(error, match="here"):
        Plan.from_json(json.dumps(data).encode(), "here")
    with pytest.raises(FormatError, match="here"):
        Plan.from_json(b'{"name": ', "here")
    with pytest.raises(FormatError, match="here"):
        Plan.from_json(b"[]", "here")


def test_what_was_left_out_is_counted_in_the_order_of_the_plan(tmp_path: Path) -> None:
    begin(tmp_path)
    pack(tmp_path, 0, facts(unreadable=1, small=2))
    pack(tmp_path, 1, facts(other=1, small=3))
    pack(tmp_path, 2, facts(absent=4))
    manifest = finish(tmp_path, PLAN)
    assert manifest == Manifest.read(tmp_path)
    assert list(manifest.rejected.items()) == [
        ("absent", 4),
        ("small", 35),
        ("unreadable", 1),
        ("other", 1),
    ]
    assert list(manifest.rejected_examples) == list(manifest.rejected)
    small = [one["frame"] for one in manifest.rejected_examples["small"]]
    assert small == [f"car-1/{n}" for n in range(18)] + ["small/0", "small/1"]  # 20 at most
    assert [shard.name for shard in manifest.shards] == ["lasot-000000.tar", "lasot-000002.tar"]
    same = ("name", "options", "versions", "grid", "crop_size", "quality", "stride")
    same += ("missing", "notes")
    assert [getattr(manifest, name) for name in same] == [getattr(PLAN, name) for name in same]
    assert verify(tmp_path).ok


def test_missing_shards_are_named_and_nothing_is_written(tmp_path: Path) -> None:
    begin(tmp_path)
    pack(tmp_path, 1)
    before = sorted(tmp_path.rglob("*"))
    result = CliRunner().invoke(main, ["finish", str(tmp_path)])
    assert result.exit_code == 1
    assert result.output.splitlines() == [
        f"Error: {tmp_path}: 2 of 3 shards are not packed: lasot-000000.tar, lasot-000002.tar; of "
        "jobs --job I/N, number I packs the shards I, I + N, I + 2N...: run those again, or "
        f"'python -m packer lasot --out {tmp_path}' with the former --root and options for all "
        "that is left"
    ]
    assert [path for path in sorted(tmp_path.rglob("*")) if path.name != "lock"] == before


def test_many_missing_shards_are_counted(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"lasot-000009\.tar and 30 more"):
        finish(tmp_path, replace(PLAN, shards=40))


def test_finishing_tidies_and_can_be_done_again(tmp_path: Path) -> None:
    begin(tmp_path)
    for number in range(3):
        pack(tmp_path, number)
    result = CliRunner().invoke(main, ["finish", str(tmp_path), "--json"])
    assert result.exit_code == 0, result.output
    facts = json.loads(result.stdout)
    assert (facts["shards"], facts["frames"], facts["rejected"]) == (2, 6, {"small": 30})
    names = ["index.arrow", "lasot-000000.tar", "lasot-000002.tar", "manifest.json", "plan.json"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    again = CliRunner().invoke(main, ["finish", str(tmp_path)])
    assert again.exit_code == 0
    assert "lasot is complete, 6 frames in 2 shards" in again.output
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before


def test_a_killed_finish_is_finished_by_the_next(tmp_path: Path) -> None:
    begin(tmp_path)
    for number in range(3):
        pack(tmp_path, number)
    finish(tmp_path, PLAN)  # and no tidying
    assert finish_place(tmp_path) == finished(tmp_path)
    assert not (tmp_path / ".parts").exists()


def test_finish_is_refused_while_a_job_is_at_work(tmp_path: Path) -> None:
    begin(tmp_path)
    for number in range(3):
        pack(tmp_path, number)
    with (
        FolderSink(tmp_path / ".parts").hold("lock", shared=True),
        pytest.raises(StorageError, match="another packer is at work in this folder"),
    ):
        finish_place(tmp_path)
    assert not (tmp_path / "manifest.json").exists()


def test_nothing_begun_nothing_left_and_a_damaged_plan(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has no plan\.json: no packer began there"):
        finish_place(tmp_path)
    begin(tmp_path, replace(PLAN, shards=1))
    write_shard(tmp_path, shard_name("lasot", 0), iter(()), lambda: facts(unreadable=2))
    with pytest.raises(DataError, match="no frame is left to pack; rejected: small 30, unreadable"):
        finish_place(tmp_path)
    (tmp_path / "plan.json").write_bytes(b"{}")
    with pytest.raises(FormatError, match=r"plan\.json: damaged"):
        finish_place(tmp_path)
    assert not (tmp_path / "manifest.json").exists()


def test_a_shard_of_which_nothing_can_be_read_any_more_does_not_stay(tmp_path: Path) -> None:
    begin(tmp_path, replace(PLAN, shards=1))
    pack(tmp_path, 0)
    write_shard(tmp_path, shard_name("lasot", 0), iter(()), lambda: facts(unreadable=3))
    assert not (tmp_path / shard_name("lasot", 0)).exists()
    part = load_part(tmp_path, shard_name("lasot", 0))
    assert part is not None
    assert part.info.frames == 0
