"""The disk cache of remote data: bounded, shared by processes, never a wrong byte."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from waiting import until

from loaders.cache import ShardCache, default_cache_dir
from shards.rng import uniforms
from shards.storage import Range

_WORKER = """
import sys
from pathlib import Path
from loaders.cache import ShardCache
from shards.storage import Range
folder, start, count = Path(sys.argv[1]), *map(int, sys.argv[2:])
cache, hits = ShardCache(folder, 10**9), 0
cache.use("set")
print("ready", flush=True)
for number in range(start, start + count):
    for i in (number, number - 50):  # others' entries too
        one, data = Range("a.tar", i * 2048, 2000), (str(i).encode() * 2000)[:2000]
        found = cache.read("set", one)
        assert found is None or found == data, i
        hits += found is not None
        if i % 7 == 0:
            cache.forget("set", one)
        cache.write("set", one, memoryview(data))
assert cache.writes
print(hits)
"""


def held(folder: Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in folder.glob("shards/*/*"))


def entry(number: int, size: int = 2000, file: str = "a.tar") -> tuple[Range, memoryview]:
    at = -(-size // 512) * 512 + 512
    return Range(file, number * at, size), memoryview((str(number).encode() * size)[:size])


def opened(folder: Path, limit: int = 10**9, data: str = "set") -> ShardCache:
    cache = ShardCache(folder, limit)
    cache.use(data)
    return cache


def worker(folder: Path, start: int, count: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", _WORKER, str(folder), str(start), str(count)],
        stdout=subprocess.PIPE,
        text=True,
    )


def test_what_is_written_is_read_also_by_a_later_process(tmp_path: Path) -> None:
    one, data = entry(1)
    cache = opened(tmp_path)
    assert cache.read("set", one) is None
    assert not cache.has("set", one)
    cache.write("set", one, data)
    again = opened(tmp_path)
    assert again.has("set", one)
    assert again.read("set", one) == data
    again.forget("set", one)
    assert cache.read("set", one) is None


def test_ranges_and_data_are_told_apart(tmp_path: Path) -> None:
    cache = opened(tmp_path)
    one, data = entry(3)
    cache.write("set", one, data)
    for other in (
        one._replace(file="b.tar"),
        one._replace(size=1999),
        one._replace(offset=one.offset + 1),
        one._replace(offset=one.offset + 512),
    ):
        assert cache.read("set", other) is None
    assert cache.read("other", one) is None


def test_crops_that_are_files_of_their_own_are_not_kept(tmp_path: Path) -> None:
    cache = opened(tmp_path)
    one, data = entry(3, file="folder/a.jpg")
    cache.write("set", one, data)
    assert cache.read("set", one) is None
    assert held(tmp_path) == 0


@pytest.mark.parametrize("what", ["bytes", "sum", "shorter", "gone"])
def test_a_damaged_entry_is_missed_and_mended(tmp_path: Path, what: str) -> None:
    one, data = entry(7)
    cache = opened(tmp_path)
    cache.write("set", one, data)
    path = tmp_path / "shards" / "set" / "a.tar"
    if what == "bytes":
        with path.open("r+b") as handle:
            handle.seek(one.offset + 900)
            handle.write(b"\0")
    elif what == "sum":
        os.truncate(f"{path}.sum", 0)
    elif what == "shorter":
        os.truncate(path, one.offset + 100)
    else:
        path.unlink()
        cache = opened(tmp_path)
    assert cache.read("set", one) is None
    cache.write("set", one, data)
    assert cache.read("set", one) == data


def test_a_full_cache_removes_other_data_and_then_adds_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    limit = 8_000_000
    old = opened(tmp_path, limit, "old")
    for number in range(60):
        one, data = entry(number, 50_000)
        old.write("old", one, data)
    assert held(tmp_path) > 3_000_000
    old.close()
    cache = opened(tmp_path, limit)
    with caplog.at_level(logging.WARNING):
        for number in range(300):
            one, data = entry(number, 50_000)
            cache.write("set", one, data)
            if number % 20 == 0:
                assert held(tmp_path) <= limit
    (record,) = caplog.records
    assert "is full" in record.getMessage()
    assert 0.9 * limit < held(tmp_path) <= limit
    assert [path.name for path in (tmp_path / "shards").iterdir()] == ["set"]
    kept = [cache.read("set", entry(number, 50_000)[0]) for number in range(300)]
    assert 140 < sum(one is not None for one in kept) < 160
    assert all(found in (None, entry(i, 50_000)[1]) for i, found in enumerate(kept))


def test_data_that_another_uses_stay(tmp_path: Path) -> None:
    other = opened(tmp_path, data="other")
    for number in range(100):
        other.write("other", *entry(number, 4000))
    cache = opened(tmp_path, limit=300_000)
    for number in range(100):
        cache.write("set", *entry(number, 4000))
    assert not cache.writes  # full, and nothing may be removed
    assert other.read("other", entry(0, 4000)[0]) == entry(0, 4000)[1]
    other.close()
    later = opened(tmp_path, limit=300_000, data="third")
    later.write("third", *entry(0, 4000))
    assert not (tmp_path / "shards" / "other").exists()
    assert later.read("third", entry(0, 4000)[0]) is not None


def test_a_folder_that_somebody_removed_is_made_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache = opened(tmp_path)
    (tmp_path / "shards" / "set").rmdir()
    cache.write("set", *entry(0))
    assert cache.read("set", entry(0)[0]) == entry(0)[1]
    assert caplog.text == ""


@pytest.mark.slow
def test_several_processes_at_once(tmp_path: Path) -> None:
    """Three write, read and remove each other's entries: never a wrong byte."""
    children = [worker(tmp_path, start, 10_000) for start in (50, 50, 5000)]
    for child in children:
        out, _ = child.communicate(timeout=200)
        assert child.returncode == 0
        assert int(out.split()[1]) > 5000


def test_a_killed_process_leaves_a_cache_that_works(tmp_path: Path) -> None:
    child = worker(tmp_path, 50, 10**9)
    assert child.stdout is not None
    child.stdout.readline()
    assert until(lambda: held(tmp_path) > 2000 * 1000)  # a thousand entries or so
    child.send_signal(signal.SIGKILL)
    child.wait(60)
    child.stdout.close()
    cache = opened(tmp_path)
    there = 0
    for number in range(50, 3000):
        one = Range("a.tar", number * 2048, 2000)
        found = cache.read("set", one)
        assert found in (None, (str(number).encode() * 2000)[:2000])
        there += found is not None
    assert there > 100
    assert sorted(path.name for path in tmp_path.rglob("*")) == [
        "a.tar", "a.tar.sum", "locks", "set", "set", "shards",
    ]  # fmt: skip


@pytest.mark.parametrize("written", [None, 17])
def test_a_disk_that_refuses_is_said_once(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    written: int | None,
) -> None:
    cache = opened(tmp_path)
    cache.write("set", *entry(1))

    def refuse(*_: object) -> int:
        if written is None:
            raise OSError(28, "No space left on device")
        return written

    monkeypatch.setattr(os, "pwrite", refuse)
    with caplog.at_level(logging.WARNING):
        for number in range(2, 5):
            cache.write("set", *entry(number))
    (record,) = caplog.records
    assert str(tmp_path) in record.getMessage()
    assert "No space left on device" in record.getMessage()
    assert not cache.writes
    assert cache.read("set", entry(1)[0]) == entry(1)[1]  # what is there is still used


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small file system")
def test_a_file_system_that_is_really_full(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(small)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        cache = opened(small)
        for number in range(100):
            cache.write("set", *entry(number, 50_000))
        assert not cache.writes
        kept = [cache.read("set", entry(number, 50_000)[0]) for number in range(100)]
        assert 20 < sum(one is not None for one in kept) < 70
        assert all(found in (None, entry(i, 50_000)[1]) for i, found in enumerate(kept))
        cache.close()
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_threads_that_read_and_write_many_files(tmp_path: Path) -> None:
    """More shards than are kept open: a file that is closed is not in use."""
    cache, wrong = opened(tmp_path), []

    def work(seed: int) -> None:
        for u in uniforms(seed, 1, 0, 0, 1500, 4):
            one, data = entry(int(u[0] * 20), 600, f"s{int(u[1] * 200)}.tar")
            found = cache.read("set", one)
            if found is None:
                cache.write("set", one, data)
            elif found != data:
                wrong.append(one)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert wrong == []
    assert cache.writes
    assert len(os.listdir(f"/proc/{os.getpid()}/fd")) < 400  # noqa: PTH208
    cache.close()


def test_the_default_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache_dir() == tmp_path / "siamstream"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_cache_dir() == tmp_path / ".cache" / "siamstream"
