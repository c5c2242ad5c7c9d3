"""Classes added later: the same bytes as packing with them, whatever stops it."""

from __future__ import annotations

import errno
import hashlib
import json
import shutil
import signal
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import synthetic
from click.testing import CliRunner, Result

from shards import relabel as module
from shards.cli import main
from shards.errors import FormatError, StorageError
from shards.format import Manifest, shard_name
from shards.index import Index
from shards.relabel import relabel
from shards.verify import verify
from shards.writer import finish, write_shard

NOTE = "no class info: the category of all videos is 'unknown'"
PLACES = ["a_0", "-b_1", "c_2", "d_3", "e_4"]  # two to a shard
CLASSES = {"a_0": "a very long class name " * 40, "-b_1": "unknown", "c_2": "cat", "gone_0": "dog"}


def pack(folder: Path, classes: dict[str, str], notes: tuple[str, ...] = (NOTE, "other")) -> Path:
    parts = []
    for number, first in enumerate(range(0, len(PLACES), 2)):

        def shard(first: int = first) -> Iterator[tuple[object, bytes]]:
            for i in range(first, min(first + 2, len(PLACES))):
                category = classes.get(PLACES[i], "unknown")
                made = synthetic.samples(PLACES[i], category, 3, seed=i, side=127, others=i % 2)
                for sample, jpeg in made:
                    yield replace(sample, source=f"{PLACES[i]}/{sample.frame}.jpg"), jpeg

        parts.append(write_shard(folder, shard_name("trackingnet", number), shard()))  # type: ignore[arg-type]
    finish(
        folder, parts, name="trackingnet", grid="edge", crop_size=127, quality=90, stride=10,
        notes=notes, options={"limit": None}, missing=("x",),
    )  # fmt: skip
    shutil.rmtree(folder / ".parts")  # as the packer does
    return folder


def hashes(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def pictures(folder: Path) -> dict[str, bytes]:
    found = {}
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                handle = tar.extractfile(member)
                assert handle is not None
                if member.name.endswith(".jpg"):
                    found[member.name] = handle.read()
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return pack(tmp_path / "trackingnet", {})


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What packing with the classes writes, but for the note in the manifest."""
    note = "relabelled: 2 sequences were given their class after packing; 3 are still 'unknown'"
    known = {name: one for name, one in CLASSES.items() if one != "unknown"}
    return hashes(pack(tmp_path_factory.mktemp("expected") / "t", known, ("other", note)))


def test_it_is_what_packing_with_the_classes_writes(folder: Path, expected: dict[str, str]) -> None:
    before = pictures(folder)
    done = relabel(folder, CLASSES)
    assert hashes(folder) == expected
    assert pictures(folder) == before
    assert (done.sequences, done.shards, done.frames) == (2, 2, 6)
    assert (done.unknown, done.unused, done.completed) == (3, 1, False)
    index = Index(folder)
    assert index.categories == (CLASSES["a_0"], "unknown", "cat")
    assert Manifest.read(folder).missing == ("x",)
    assert verify(folder, 1).ok


def test_parts_that_would_be_outdated_are_removed(folder: Path, expected: dict[str, str]) -> None:
    (folder / ".parts").mkdir()
    (folder / ".parts/trackingnet-000000.tar.arrow").write_bytes(b"of the old shard")
    relabel(folder, CLASSES)
    assert hashes(folder) == expected


def test_only_the_target_is_relabelled(folder: Path) -> None:
    relabel(folder, {"-b_1": "thing", "d_3": "cat"})
    sample = Index(folder).sample(3)
    assert (sample.sequence, sample.categories) == ("-b_1", ("thing", "thing"))
    assert Index(folder).sample(9).categories == ("cat", "thing")


def test_again_changes_nothing_and_more_can_be_added(folder: Path) -> None:
    relabel(folder, CLASSES)
    before = hashes(folder)
    again = relabel(folder, CLASSES)
    assert (again.sequences, again.shards, again.unknown) == (0, 0, 3)
    assert hashes(folder) == before
    assert relabel(folder, {"a_0": "unknown"}).sequences == 0  # unknown takes no class away
    relabel(folder, {"e_4": "dog", "c_2": "dog"})
    notes = Manifest.read(folder).notes
    assert notes == (
        "other",
        "relabelled: 2 sequences were given their class after packing; 2 are still 'unknown'",
    )
    assert verify(folder, 1).ok


class Stop(BaseException):
    """Ends a call as a kill does: nothing is cleaned up."""


@pytest.mark.parametrize("step", range(7))
def test_stopped_anywhere_the_next_call_completes_it(
    folder: Path, expected: dict[str, str], monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    before = hashes(folder)
    real, done = module._rename, [0]

    def rename(path: Path, to: Path) -> None:
        if done[0] == step:
            raise Stop
        done[0] += 1
        real(path, to)

    with monkeypatch.context() as patch:
        patch.setattr(module, "_rename", rename)
        patch.setattr(module, "_remove", lambda _: None)
        if step < 5:  # the switch, two shards, index, manifest
            with pytest.raises(Stop):
                relabel(folder, CLASSES)
        else:
            relabel(folder, CLASSES)
    if step == 0:
        assert {name: hashes(folder)[name] for name in before} == before
        assert verify(folder, 1).ok
    if step < 5:  # the manifest is the very last
        assert hashes(folder)["manifest.json"] == before["manifest.json"]
    again = relabel(folder, CLASSES)
    assert again.completed == (step > 0)
    assert hashes(folder) == expected


KILLED = """
import os, signal, sys
from pathlib import Path
from shards import relabel as module
real, left = module._rename, [int(sys.argv[2])]
def rename(path, to):
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)
    left[0] -= 1
    real(path, to)
module._rename = rename
module.relabel(Path(sys.argv[1]), {"a_0": "a very long class name " * 40, "c_2": "cat"})
"""


def test_killed_between_two_shards(folder: Path, expected: dict[str, str]) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(folder), "2"], check=False)
    assert done.returncode == -signal.SIGKILL
    assert (folder / ".relabel/ready/manifest.json").is_file()
    assert relabel(folder, CLASSES).completed
    assert hashes(folder) == expected


def test_a_half_written_stage_is_thrown_away(folder: Path, expected: dict[str, str]) -> None:
    staged = folder / ".relabel/staged"
    staged.mkdir(parents=True)
    (staged / "trackingnet-000000.tar").write_bytes(b"half a shard")
    (staged / "manifest.json").write_bytes(b"{")
    assert verify(folder, 1).ok
    relabel(folder, CLASSES)
    assert hashes(folder) == expected


def test_a_full_disk_leaves_the_old_data_set(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = hashes(folder)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, "write_samples", full)
    with pytest.raises(StorageError, match="the disk or quota is full"):
        relabel(folder, CLASSES)
    assert hashes(folder) == before


def test_a_damaged_shard_changes_nothing(folder: Path) -> None:
    path = folder / "trackingnet-000002.tar"
    data = bytearray(path.read_bytes())
    data[3000] ^= 1
    path.write_bytes(data)
    before = hashes(folder)
    with pytest.raises(FormatError, match=r"000002\.tar: not the shard that the manifest names"):
        relabel(folder, CLASSES)
    assert hashes(folder) == before


def test_two_at_once_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    caught: list[BaseException] = []

    def second(_: int) -> None:
        with pytest.raises(StorageError, match="another 'shards relabel' is at work here") as error:
            relabel(folder, CLASSES)
        caught.append(error.value)

    relabel(folder, CLASSES, second)
    assert len(caught) == 3


def call(*args: object) -> Result:
    return CliRunner().invoke(main, ["relabel", *map(str, args)])


def test_command(folder: Path, tmp_path: Path) -> None:
    info = tmp_path / "TRAIN_0_classinfo.txt"
    info.write_bytes(b"a_0,23\r\n-b_1,-1\r\nelse_0,3\r\n")
    result = call(folder, "--class-info", tmp_path, "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == {
        "name": "trackingnet",
        "sequences": 1,
        "shards": 1,
        "frames": 3,
        "unknown": 4,
        "unused": 1,
        "completed": False,
    }
    assert Index(folder).categories == ("car", "unknown")
    result = call(folder, "--class-info", info)
    assert "nothing to change" in result.output
    assert "4 sequences are still without a class" in result.output


def test_command_failures(folder: Path, tmp_path: Path) -> None:
    result = call(folder)
    assert result.exit_code == 2
    result = call(folder, "--class-info", tmp_path / "nowhere")
    assert (result.exit_code, len(result.stderr.splitlines())) == (1, 1)
    (tmp_path / "empty").mkdir()
    result = call(tmp_path / "empty", "--class-info", folder)
    assert (result.exit_code, len(result.stderr.splitlines())) == (1, 1)
    assert list((tmp_path / "empty").iterdir()) == []
