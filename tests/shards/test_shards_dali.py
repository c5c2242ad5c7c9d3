"""Index files that DALI's own reader takes."""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import old_files
import pytest
import synthetic
from click.testing import CliRunner

from shards.cli import main
from shards.dali_index import export_dali
from shards.errors import FormatError, MismatchError
from shards.format import shard_name
from shards.in_place import index_zip
from shards.writer import finish, write_shard

LONG = "a-very-long-name-of-a-sequence-" * 4  # over 100 characters: a PAX header


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("dali") / "mine"
    parts = []
    for number, names in enumerate((["car-1", LONG], ["odd. name-2"])):
        samples = [
            one for name in names for one in synthetic.samples(name, "car", 5, seed=3, side=64)
        ]
        parts.append(write_shard(target, shard_name("mine", number), samples))
    finish(target, parts, name="mine", grid="edge", crop_size=64)
    return target


def components(tar: Path) -> list[tuple[bytes, bytes]]:
    """Bytes of .jpg and .json of every sample, read by tarfile."""
    with tarfile.open(tar) as archive:
        files = [archive.extractfile(member) for member in archive.getmembers()]
        data = [file.read() for file in files if file is not None]
    return list(zip(data[::2], data[1::2], strict=True))


def test_dali_reads_every_sample_through_the_index_files(folder: Path, tmp_path: Path) -> None:
    made = export_dali(folder, tmp_path / "idx")
    assert made.frames == 15
    wanted = [sample for tar in made.tars for sample in components(tar)]
    code = """
import json, sys
from nvidia.dali import fn, pipeline_def
tars, indexes, count = json.loads(sys.argv[1])

@pipeline_def(batch_size=1, num_threads=1, device_id=None, prefetch_queue_depth=1)
def pipeline():
    return tuple(fn.readers.webdataset(
        paths=tars, index_paths=indexes, ext=["jpg", "json"], missing_component_behavior="error"))

pipe = pipeline()
pipe.build()
out = []
for _ in range(count):
    out.append([bytes(part.at(0)).hex() for part in pipe.run()])
json.dump(out, sys.stdout)
"""
    arguments = [list(map(str, made.tars)), list(map(str, made.indexes)), len(wanted)]
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, json.dumps(arguments)],
        capture_output=True,
        text=True,
        check=True,
    )
    found: list[Any] = json.loads(result.stdout[result.stdout.index("[[") :])
    assert [(bytes.fromhex(jpg), bytes.fromhex(facts)) for jpg, facts in found] == wanted


def test_the_same_bytes_as_dalis_own_tool(folder: Path, tmp_path: Path) -> None:
    """Only the tool lists what it finds; offsets and sizes must agree."""
    made = export_dali(folder, tmp_path)
    own = tmp_path / "own.idx"
    code = (
        "import sys, wds2idx; c = wds2idx.IndexCreator(*sys.argv[1:]); c.create_index(); c.close()"
    )
    command = [sys.executable, "-W", "ignore", "-c", code, str(made.tars[1]), str(own)]
    result = subprocess.run(command, capture_output=True, check=False, text=True)
    assert result.returncode == 0, result.stderr
    assert made.indexes[1].read_text() == own.read_text()


def test_golden_lines(folder: Path, tmp_path: Path) -> None:
    lines = export_dali(folder, tmp_path).indexes[1].read_text().splitlines()
    assert lines[0] == "v1.2 5"
    jpg, jpg_at, jpg_size, jpg_name, facts, facts_at, facts_size, facts_name = lines[1].split(" ")
    assert (jpg, jpg_at, facts) == ("jpg", "512", "json")
    assert jpg_name == "odd%2E%20name-2/0_00000001.jpg"
    assert facts_name == "odd%2E%20name-2/0_00000001.json"
    assert int(facts_at) == 512 + -(-int(jpg_size) // 512) * 512 + 512
    data = (folder / "mine-000001.tar").read_bytes()
    assert json.loads(data[int(facts_at) :][: int(facts_size)])["frame"] == 1


def test_command_writes_beside_the_shards(tmp_path: Path) -> None:
    synthetic.pack(tmp_path, "mine", sequences=4, frames=2, side=64)
    arguments = ["export", str(tmp_path / "mine"), "--format", "dali", "--json"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    facts = json.loads(result.stdout)
    assert facts["indexes"] == [str(tmp_path / "mine" / f"mine-00000{n}.idx") for n in (0, 1)]
    assert all(Path(path).is_file() for path in facts["indexes"])
    no_out = ["export", str(tmp_path / "mine"), "--format", "legacy"]
    assert CliRunner().invoke(main, no_out).exit_code == 2


def test_a_damaged_shard_and_crops_in_place_are_refused(tmp_path: Path) -> None:
    synthetic.pack(tmp_path, "mine", sequences=2, frames=4, side=64)
    shard = tmp_path / "mine/mine-000000.tar"
    shard.write_bytes(shard.read_bytes()[:6000])
    with pytest.raises(FormatError, match="mine-000000"):
        export_dali(tmp_path / "mine", tmp_path / "out")
    path, pickled, _ = old_files.write(tmp_path / "old")
    index_zip(path, pickled, tmp_path / "zip", name="coco")
    with pytest.raises(MismatchError, match="packer legacy"):
        export_dali(tmp_path / "zip", tmp_path / "out")
    np.testing.assert_equal(list((tmp_path).glob("out/*")), [])
