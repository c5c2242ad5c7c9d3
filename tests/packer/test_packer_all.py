"""``packer all``: what is there is packed, what fails does not stop the rest."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import coco_tree
import pytest
from click.testing import CliRunner, Result
from lasot_tree import hashes, sequence, small_tree

from packer import catalogue
from packer.cli import main
from packer.datasets import lasot
from packer.jobs import PackOptions
from packer.run import pack
from packer.sequence import DataSet

FAST = ("--size", "127", "--workers", "1")


def call(*args: str | Path, **env: str) -> Result:
    return CliRunner().invoke(main, list(map(str, args)), env=env, prog_name="python -m packer")


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    small_tree(tmp_path / "raw/lasot")
    coco_tree.tree(tmp_path / "raw/coco")
    return tmp_path / "raw"


def test_what_is_there_is_packed(raw: Path, tmp_path: Path) -> None:
    out = tmp_path / "shards"
    result = call("all", "--root", raw, "--out", out, *FAST, "--json")
    assert result.exit_code == 0, result.stderr
    facts = json.loads(result.stdout)
    states = {name: one["state"] for name, one in facts["datasets"].items()}
    assert states == {
        "coco": "packed",
        "got10k": "absent",
        "lasot": "packed",
        "trackingnet": "absent",
    }
    assert facts["failed"] == 0
    assert facts["datasets"]["coco"]["report"]["frames"] == 5
    lines = [line.split() for line in result.stderr.splitlines()]
    assert ["lasot", "27", "5", "1"] in [line[:4] for line in lines]
    assert any(line[:1] == ["got10k"] and line[-1] == "absent" for line in lines)
    pack(
        lasot,
        raw / "lasot",
        tmp_path / "alone",
        PackOptions(stride=lasot.STRIDE, min_size=lasot.MIN_SIZE, size=127),
        workers=1,
    )
    assert hashes(out / "lasot") == hashes(tmp_path / "alone")
    again = call("all", "--root", raw, "--out", out, *FAST, "--json")
    assert {one["state"] for one in json.loads(again.stdout)["datasets"].values()} == {
        "complete",
        "absent",
    }


def test_one_that_fails_does_not_stop_the_rest(raw: Path, tmp_path: Path) -> None:
    coco_tree.annotate(raw / "coco", "[]")
    sequence(raw / "lasot", "zebra-1", 3, boxes="1,2,3\n" * 3)
    small_tree(raw / "got10k")  # not its layout
    result = call("all", "--root", raw, "--out", tmp_path / "out", *FAST, "--json")
    assert result.exit_code == 1
    facts = json.loads(result.stdout)["datasets"]
    assert [facts[name]["state"] for name in ("coco", "got10k", "lasot")] == ["failed"] * 3
    assert "not JSON of the expected form" in facts["coco"]["error"]
    assert "zebra-1/groundtruth.txt:1" in facts["lasot"]["error"]
    skipped = call(
        "all", "--root", raw, "--out", tmp_path / "out", *FAST, "--on-error", "skip", "--json"
    )
    assert skipped.exit_code == 1
    facts = json.loads(skipped.stdout)["datasets"]
    assert [facts[name]["state"] for name in ("coco", "got10k", "lasot")] == [
        "failed",
        "failed",
        "packed",
    ]


def test_dry_run_and_variables(raw: Path, tmp_path: Path) -> None:
    result = call(
        "all",
        "--dry-run",
        "--json",
        SIAMSTREAM_RAW=str(raw),
        SIAMSTREAM_SHARDS=str(tmp_path / "shards"),
    )
    assert result.exit_code == 0, result.stderr
    facts = json.loads(result.stdout)
    assert (facts["root"], facts["out"]) == (str(raw), str(tmp_path / "shards"))
    assert facts["datasets"]["lasot"]["state"] == "planned"
    assert not (tmp_path / "shards").exists()


def test_no_data_set_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    result = call("all", "--root", tmp_path / "raw", "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert len(result.stderr.splitlines()) == 1
    for text in ("no data set below", "coco, got10k, lasot, trackingnet", "packer demo"):
        assert text in result.stderr


@pytest.mark.parametrize("name", catalogue.names())
def test_every_data_set_fits_and_has_a_command(name: str, tmp_path: Path) -> None:
    if name == "coco":
        coco_tree.tree(tmp_path)
    dataset: DataSet = catalogue.default(name, tmp_path)[0]
    assert name == dataset.NAME
    assert isinstance(dataset.LAYOUT, str)
    assert dataset.STRIDE >= 1
    assert dataset.MIN_SIZE >= 1
    assert dataset.MIN_EXCLUSIVE in (True, False)
    assert "train" in dataset.SPLITS
    json.dumps(dict(dataset.options()))
    result = call(name, "--help")
    assert result.exit_code == 0
    assert "Example:\n" in result.stdout
    assert "\\b" not in result.stdout


def test_a_module_that_is_put_there_gets_a_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One file is a data set: nothing else lists it."""
    from packer import cli, datasets

    module = (
        "from packer.datasets.lasot import *\n"
        "from packer.datasets.lasot import LAYOUT, MIN_EXCLUSIVE, MIN_SIZE, SPLITS, STRIDE\n"
        "NAME = 'made_up'\n"
    )
    (tmp_path / "made_up.py").write_text(module)
    monkeypatch.setattr(datasets, "__path__", [*datasets.__path__, str(tmp_path)])
    assert "made_up" in catalogue.names()
    cli._add_others()
    try:
        sequence(tmp_path / "raw/made_up", "car-1", 5)
        out = tmp_path / "out"
        result = call("made_up", "--root", tmp_path / "raw/made_up", "--out", out, *FAST)
        assert result.exit_code == 0, result.stderr
        assert (out / "made_up-000000.tar").is_file()
        everything = call("all", "--root", tmp_path / "raw", "--out", tmp_path / "all", *FAST)
        assert everything.exit_code == 0, everything.stderr
        assert hashes(tmp_path / "all/made_up") == hashes(out)
    finally:
        del main.commands["made_up"]
        del sys.modules["packer.datasets.made_up"]
