"""The command line: exit codes, streams, JSON, help."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from lasot_tree import sequence, small_tree

from packer.cli import main

FAST = ["--size", "127", "--workers", "1"]


def call(*args: str | Path, **env: str) -> Result:
    return CliRunner().invoke(main, list(map(str, args)), env=env, prog_name="python -m packer")


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_tree(tmp_path_factory.mktemp("raw") / "lasot")


def test_json_is_one_object_on_stdout(tree: Path, tmp_path: Path) -> None:
    result = call("lasot", "--root", tree, "--out", tmp_path / "out", *FAST, "--json")
    assert result.exit_code == 0, result.stderr
    facts = json.loads(result.stdout)
    assert {key: type(value) for key, value in facts.items()} == {
        "name": str,
        "out": str,
        "shards": int,
        "frames": int,
        "tracks": int,
        "sequences": int,
        "categories": int,
        "bytes": int,
        "rejected": dict,
        "missing": list,
        "notes": list,
        "stride": int,
        "size": int,
        "quality": int,
        "grid": str,
        "seconds": float,
        "frames_per_s": float,
        "resumed_shards": int,
        "dry_run": bool,
        "job": type(None),
        "causes": list,
    }
    assert (facts["stride"], facts["size"], facts["quality"]) == (3, 127, 90)
    assert facts["frames_per_s"] > 0
    # every third of 12, 40, 12, 5 and 12 frames; frame 4 of dog-2 is absent
    assert facts["frames"] == 4 + 14 + 3 + 2 + 4
    assert facts["rejected"] == {"absent": 1}
    assert "27 frames, 5 sequences, 1 shard, " in result.stderr
    assert "sequences of this split are not on disk: airplane-2" in result.stderr
    assert "next: python -m shards verify" in result.stderr


def test_defaults_come_from_the_variables(tree: Path, tmp_path: Path) -> None:
    result = call(
        "lasot",
        *FAST,
        SIAMSTREAM_RAW=str(tree.parent),
        SIAMSTREAM_SHARDS=str(tmp_path / "shards"),
    )
    assert result.exit_code == 0, result.stderr
    assert result.stdout == ""
    assert (tmp_path / "shards/lasot/manifest.json").is_file()


def test_a_finished_folder_gives_its_facts_again(tree: Path, tmp_path: Path) -> None:
    args = ("lasot", "--root", tree, "--out", tmp_path / "out", *FAST, "--json")
    first, again = json.loads(call(*args).stdout), json.loads(call(*args).stdout)
    assert again["resumed_shards"] == first["shards"]
    for changed in ("seconds", "frames_per_s", "resumed_shards"):
        del first[changed], again[changed]
    assert again == first


def test_dry_run(tree: Path, tmp_path: Path) -> None:
    result = call("lasot", "--root", tree, "--out", tmp_path / "out", "--dry-run", "--json")
    facts = json.loads(result.stdout)
    assert (facts["frames"], facts["dry_run"], facts["bytes"]) == (27, True, 0)
    assert "would pack 27 frames" in result.stderr
    assert not (tmp_path / "out").exists()


def test_known_failures_are_lines_on_stderr(tmp_path: Path) -> None:
    result = call("lasot", "--root", tmp_path / "nowhere", "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1
    sequence(tmp_path / "test", "car-2", 3)
    result = call("lasot", "--root", tmp_path / "test", "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert "all 1 sequences belong to the test split; use --split all" in result.stderr
    sequence(tmp_path / "bad", "car-1", 3, boxes="1,2,3\n" * 3)
    result = call("lasot", "--root", tmp_path / "bad", "--out", tmp_path / "out", "--json")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1 + 3
    assert "car/car-1/groundtruth.txt:2: four numbers" in result.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "option",
    [
        "--stride=0",
        "--quality=0",
        "--quality=101",
        "--size=126",
        "--min-size=0",
        "--workers=0",
        "--limit=0",
        "--frames-per-shard=3",
        "--split=val",
        "--on-error=ignore",
        "--grid=pixel",
        "--stride=x",
        "--nonsense",
    ],
)
def test_usage_errors_exit_2(tree: Path, tmp_path: Path, option: str) -> None:
    result = call("lasot", "--root", tree, "--out", tmp_path / "out", option)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert not (tmp_path / "out").exists()


def test_ctrl_c_exits_130_and_says_what_to_do(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_args: object, **_more: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("packer.run.run_jobs", interrupted)
    result = call("lasot", "--root", tree, "--out", tmp_path / "out", *FAST)
    assert result.exit_code == 130
    assert "run the same command again to go on" in result.stderr


@pytest.mark.parametrize("command", [(), ("lasot",), ("demo",)])
def test_help_ends_with_an_example(command: tuple[str, ...]) -> None:
    result = call(*command, "--help")
    assert result.exit_code == 0
    assert "Example:" in result.stdout
    assert "python -m packer" in result.stdout.partition("Example:")[2]


def test_demo_then_lasot(tmp_path: Path) -> None:
    raw, out = tmp_path / "raw", tmp_path / "out"
    made = call("demo", "--root", raw, "--sequences", "2", "--frames", "12", "--json")
    assert made.exit_code == 0, made.stderr
    facts = json.loads(made.stdout)
    assert facts == {
        "root": str(raw / "lasot"),
        "sequences": ["car-1", "person-2"],
        "frames": 12,
    }
    packed = call("lasot", "--out", out, "--stride", "1", *FAST, SIAMSTREAM_RAW=str(raw))
    assert packed.exit_code == 0, packed.stderr
    assert "2 sequences" in packed.stderr
