"""What is put out of the page cache, and the count of what stays."""

from __future__ import annotations

import mmap
import subprocess
from pathlib import Path

import pytest

from benchmarks.page_cache import Evicted, evict, resident_bytes
from shards.errors import StorageError

SIZE = 1_000_100  # not a whole number of pages


@pytest.fixture
def file(tmp_path: Path) -> Path:
    kind = subprocess.run(
        ["stat", "-f", "-c", "%T", str(tmp_path)], capture_output=True, text=True, check=True
    )
    if kind.stdout.strip() in ("tmpfs", "ramfs"):
        pytest.skip(f"{tmp_path} is in memory; set TMPDIR to a folder on a disk")
    path = tmp_path / "folder" / "file"
    path.parent.mkdir()
    path.write_bytes(bytes(SIZE))
    (path.parent / "empty").touch()
    return path


def test_what_was_just_written_is_there_and_goes(file: Path) -> None:
    assert resident_bytes([file]) == SIZE
    assert evict([file.parent]) == Evicted(total=SIZE, kept=0)
    assert resident_bytes([file.parent]) == 0
    assert file.read_bytes() == bytes(SIZE)
    assert resident_bytes([file]) == SIZE


def test_what_the_kernel_keeps_is_counted(file: Path) -> None:
    with file.open("rb") as handle, mmap.mmap(handle.fileno(), SIZE, prot=mmap.PROT_READ) as held:
        assert held[:] == bytes(SIZE)  # a page that is mapped stays
        gone = evict([file])
    assert gone == Evicted(total=SIZE, kept=SIZE)
    assert gone.share == 0
    assert evict([file]).share == 1


def test_nothing_is_gone_wholly() -> None:
    assert evict([]).share == 1


def test_an_absent_file_is_named(tmp_path: Path) -> None:
    for look in (evict, resident_bytes):
        with pytest.raises(StorageError, match="none"):
            look([tmp_path / "none"])
