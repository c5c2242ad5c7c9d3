"""The example of docs/ADDING_A_DATASET.md: taken from the page, packed, and held to all tests."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import test_packer_contract as contract
from lasot_tree import packed_frames
from plain_tree import plain_tree
from test_packer_contract import Case, tree  # noqa: F401 (a fixture)

import packer.datasets
from packer import catalogue

PAGE = Path(__file__).parents[2] / "docs/ADDING_A_DATASET.md"
MODULE, LINE = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
BIRDS = ("gull_2", "gull_10", "tern_1")

# The tests of all data sets, here with the `case` below.
globals().update({name: test for name, test in vars(contract).items() if name.startswith("test_")})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Put the file where data sets are looked for, as if it were in packer/datasets."""
    folder = tmp_path_factory.mktemp("datasets")
    (folder / "birds.py").write_text(MODULE)
    packer.datasets.__path__.append(str(folder))
    yield folder
    packer.datasets.__path__.remove(str(folder))
    del sys.modules["packer.datasets.birds"]
    del packer.datasets.birds


@pytest.fixture(scope="module")
def case(folder: Path) -> Case:
    known = {
        "Case": Case,
        "plain_tree": plain_tree,
        "BIRDS": BIRDS,
        "birds": importlib.import_module("packer.datasets.birds"),
    }
    return eval(LINE.strip(), known)  # type: ignore[no-any-return]


def test_the_page_says_which_names() -> None:
    assert f"BIRDS = {json.dumps(BIRDS).translate(str.maketrans('[]', '()'))}" in PAGE.read_text()


def test_it_is_found_by_its_file_name(folder: Path) -> None:
    assert "birds" in catalogue.names()
    birds, root = catalogue.default("birds", Path("raw/birds"))
    assert (birds.NAME, root) == ("birds", Path("raw/birds"))


def test_it_has_its_command(folder: Path, case: Case, tmp_path: Path) -> None:
    case.tree(tmp_path / "raw/birds")
    start = f"import packer.datasets as d; d.__path__.append({str(folder)!r}); "
    start += "from packer.cli import main; main(prog_name='packer')"
    command = [sys.executable, "-c", start, "birds", "--root", str(tmp_path / "raw/birds")]
    command += ["--out", str(tmp_path / "out"), "--workers", "1", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["frames"] == 3 * 6  # every second of twelve
    frames = packed_frames(tmp_path / "out")
    assert frames[0]["source"] == "gull_2/0001.jpg"
    assert [frame["frame"] for frame in frames[:6]] == [1, 3, 5, 7, 9, 11]
    assert {frame["category"] for frame in frames} == {"gull", "tern"}
