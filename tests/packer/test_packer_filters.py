"""Choosing sequences and classes by name: files, fingerprints, what is asked for in vain."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from lasot_tree import packed_frames, sequence, small_tree

from packer.cli import main
from packer.datasets import lasot
from packer.filters import Filters, read_names, split_categories
from packer.jobs import PackOptions
from packer.report import Report
from packer.run import Malformed, pack
from shards.errors import DataError, MismatchError
from shards.format import Manifest

OPTIONS = PackOptions(stride=1, min_size=10, size=127, frames_per_shard=16, split="all")


def call(*args: str | Path) -> Result:
    return CliRunner().invoke(main, list(map(str, args)), prog_name="python -m packer")


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_tree(tmp_path_factory.mktemp("raw"))


def run(tree: Path, out: Path, options: PackOptions = OPTIONS, **more: Any) -> Report:
    return pack(lasot, tree, out, options, workers=1, filters=Filters(**more))


def of(out: Path) -> list[str]:
    return list(dict.fromkeys(f["sequence"] for f in packed_frames(out)))


@pytest.mark.parametrize(
    ("data", "names"),
    [
        (b"car-1\ndog-2\n", {"car-1", "dog-2"}),
        (b"\xef\xbb\xbfcar-1\r\n\r\n# all\r\n  dog-2  # the second\r\n", {"car-1", "dog-2"}),
        (b"-A63B_0\n--x_1\nwith#inside", {"-A63B_0", "--x_1", "with#inside"}),
        ("Straße-1\n".encode(), {"Straße-1"}),
        (b"car-1\ncar-1", {"car-1"}),
    ],
)
def test_files_of_names(tmp_path: Path, data: bytes, names: set[str]) -> None:
    (tmp_path / "names.txt").write_bytes(data)
    assert read_names(tmp_path / "names.txt") == names


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "names no sequence"),
        (b"# x\r\n\r\n", "names no sequence"),
        (b"\xff\xfe", "not a text"),
    ],
)
def test_files_that_name_nothing(tmp_path: Path, data: bytes, text: str) -> None:
    path = tmp_path / "names.txt"
    path.write_bytes(data)
    with pytest.raises(DataError, match=f"{re.escape(str(path))}: {text}"):
        read_names(path)
    with pytest.raises(DataError, match=r"gone\.txt: cannot be read: No such file"):
        read_names(tmp_path / "gone.txt")
    result = call("lasot", "--root", tmp_path, "--names", path)
    assert (result.exit_code, len(result.stderr.splitlines())) == (1, 1)
    assert text in result.stderr


def test_names_choose_and_tell_what_is_missing(tree: Path, tmp_path: Path) -> None:
    report = run(tree, tmp_path / "out", names=frozenset({"dog-3", "car-1", "dog-77", "cat-1"}))
    assert of(tmp_path / "out") == ["car-1", "dog-3"]
    assert report.missing == ("cat-1", "dog-77")
    assert report.sequences == 2


def test_exclude_leaves_out_and_warns_of_unknown_names(tree: Path, tmp_path: Path) -> None:
    report = run(tree, tmp_path / "out", exclude=frozenset({"car-3", "airplane-1", "elk-1"}))
    assert of(tmp_path / "out") == ["car-1", "dog-2", "dog-3", "dog-10"]
    assert "airplane-1" not in report.missing
    assert "airplane-2" in report.missing
    note = "--exclude: 2 names are no sequences of this split on disk: airplane-1, elk-1"
    assert note in report.notes


def test_categories_choose_and_warn(tree: Path, tmp_path: Path) -> None:
    report = run(tree, tmp_path / "out", categories=frozenset({"dog", "elk"}))
    assert of(tmp_path / "out") == ["dog-2", "dog-3", "dog-10"]
    assert "--categories: nothing on disk is of class elk" in report.notes
    assert report.categories == 1


def test_filters_together_and_before_the_limit(tree: Path, tmp_path: Path) -> None:
    options = PackOptions(stride=1, min_size=10, size=127, split="all", limit=1)
    run(
        tree,
        tmp_path / "out",
        options,
        names=frozenset({"dog-2", "dog-3", "car-1"}),
        exclude=frozenset({"dog-2"}),
        categories=frozenset({"dog"}),
    )
    assert of(tmp_path / "out") == ["dog-3"]


def test_nothing_left_says_so(tree: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no frame is left to pack"):
        run(tree, tmp_path / "out", categories=frozenset({"elk"}))


def test_filters_belong_to_the_folder(tree: Path, tmp_path: Path) -> None:
    out, names = tmp_path / "out", frozenset({"dog-3", "car-1"})
    run(tree, out, names=names)
    options = Manifest.read(out).options
    assert re.fullmatch(r"2 names \(SHA-256 [0-9a-f]{16}\)", options["names"])
    assert "categories" not in options
    run(tree, out, names=names)
    with pytest.raises(MismatchError, match=r"--names was '2 names .*', now None"):
        run(tree, out)
    with pytest.raises(MismatchError, match=r"--names was '2 names .*', now '2 names "):
        run(tree, out, names=frozenset({"dog-3", "car-3"}))
    with pytest.raises(MismatchError, match=r"--categories was None, now \['car'\]"):
        run(tree, out, names=names, categories=frozenset({"car"}))


def test_a_malformed_sequence_can_be_left_out_by_name(tmp_path: Path) -> None:
    root = tmp_path / "raw"
    sequence(root, "car-1", 4)
    sequence(root, "car-3", 4, boxes="1,2,3\n" * 4)
    with pytest.raises(Malformed):
        run(root, tmp_path / "out")
    assert run(root, tmp_path / "out", exclude=frozenset({"car-3"})).frames == 4


def test_class_names() -> None:
    assert split_categories("car, potted plant,,car") == {"car", "potted plant"}
    with pytest.raises(ValueError, match="names no class"):
        split_categories(" , ")


def test_the_command(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("dog-2\r\ndog-10\r\ncar-1\r\n")
    (tmp_path / "not.txt").write_text("dog-10\n")
    result = call(
        *("lasot", "--root", tree, "--out", tmp_path / "out", "--size", "127", "--workers", "1"),
        *("--names", tmp_path / "names.txt", "--exclude", tmp_path / "not.txt"),
        *("--split", "all", "--categories", "dog,car", "--json"),
    )
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["sequences"] == 2
    assert of(tmp_path / "out") == ["car-1", "dog-2"]
    assert call("lasot", "--root", tree, "--categories", ",").exit_code == 2
