"""The disk cache of remote data: bounded, shared by processes, never a wrong byte."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from loaders import cache as module
from loaders.cache import FOLDERS, RangeCache, default_cache_dir
from shards.rng import uniforms

_WORKER = """
import sys
from pathlib import Path
from loaders.cache import RangeCache
folder, limit, start, count = Path(sys.argv[1]), *map(int, sys.argv[2:])
cache = RangeCache(folder, limit)
hits = 0
print("ready", flush=True)
for number in range(start, start + count):
    data = str(number).encode() * 150
    name = RangeCache.name("set", "a.tar", number, len(data))
    cache.write(name, memoryview(data))
    for one in (number, number - 50):  # others' entries too
        data = str(one).encode() * 150
        found = cache.read(RangeCache.name("set", "a.tar", one, len(data)), len(data))
        assert found is None or bytes(found) == data, one
        hits += found is not None
assert cache.writes
print(hits)
"""


def held(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("ranges/*/*"))


def entry(number: int, size: int = 1000) -> tuple[str, memoryview]:
    data = (str(number).encode() * size)[:size]
    return RangeCache.name("set", "a.tar", number * size, size), memoryview(data)


def worker(folder: Path, limit: int, start: int, count: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", _WORKER, str(folder), str(limit), str(start), str(count)],
        stdout=subprocess.PIPE,
        text=True,
    )


def test_what_is_written_is_read_also_by_a_later_process(tmp_path: Path) -> None:
    name, data = entry(1)
    cache = RangeCache(tmp_path, 10_000_000)
    assert cache.read(name, 1000) is None
    assert not cache.has(name, 1000)
    cache.write(name, data)
    again = RangeCache(tmp_path, 10_000_000)
    assert again.has(name, 1000)
    assert again.read(name, 1000) == data
    again.forget(name)
    assert cache.read(name, 1000) is None


def test_names_tell_everything_apart() -> None:
    names = {
        RangeCache.name(data, file, offset, size)
        for data in ("a", "b")
        for file in ("x.tar", "y.tar")
        for offset in (1, 12)
        for size in (2, 21)
    }
    assert len(names) == 16


@pytest.mark.parametrize("damage", ["bit", "short", "long", "empty"])
def test_a_damaged_entry_is_missed_and_removed(tmp_path: Path, damage: str) -> None:
    name, data = entry(7)
    cache = RangeCache(tmp_path, 10_000_000)
    cache.write(name, data)
    (path,) = tmp_path.glob("ranges/*/*")
    whole = path.read_bytes()
    changed = {
        "bit": bytes([whole[0] ^ 1]) + whole[1:],
        "short": whole[:-1],
        "long": whole + b"x",
        "empty": b"",
    }
    path.write_bytes(changed[damage])
    assert cache.read(name, 1000) is None
    assert not path.exists()


def test_it_keeps_its_limit_and_what_was_read_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = 16_000 * FOLDERS
    cache = RangeCache(tmp_path, limit)
    wanted = [entry(number) for number in range(50)]
    for name, data in wanted:
        cache.write(name, data)
    old = time.time() - 86_400
    for path in tmp_path.glob("ranges/*/*"):
        os.utime(path, (old, old))
    for name, _ in wanted[:25]:
        assert cache.has(name, 1000)  # marks it
    for number in range(1000, 9000):
        cache.write(*entry(number))
        if number % 2000 == 0:
            assert held(tmp_path) <= limit
    assert limit / 2 < held(tmp_path) <= limit
    read = [sum(cache.has(name, 1000) for name, _ in part) for part in (wanted[:25], wanted[25:])]
    assert read[0] >= read[1]


def test_an_entry_that_is_larger_than_its_share_is_not_kept(tmp_path: Path) -> None:
    cache = RangeCache(tmp_path, 1000 * FOLDERS)
    cache.write(*entry(1, 5000))
    assert held(tmp_path) == 0


@pytest.mark.slow
def test_several_processes_at_once(tmp_path: Path) -> None:
    """Three write, read and remove each other's entries: no wrong byte, no more than the limit."""
    limit = 12_000 * FOLDERS
    children = [worker(tmp_path, limit, start, 6000) for start in (10_000, 10_000, 13_000)]
    hits = []
    for child in children:
        out, _ = child.communicate(timeout=60)
        assert child.returncode == 0
        hits.append(int(out.split()[1]))
    assert min(hits) > 6000
    assert limit / 2 < held(tmp_path) <= limit
    assert list((tmp_path / "unfinished").iterdir()) == []


def test_a_killed_process_leaves_nothing_that_stays(tmp_path: Path) -> None:
    child = worker(tmp_path, 100_000_000, 0, 10**9)
    assert child.stdout is not None
    child.stdout.readline()
    time.sleep(0.3)
    child.send_signal(signal.SIGKILL)
    child.wait(10)
    child.stdout.close()
    (tmp_path / "unfinished" / "of-it.1.1.part").touch()
    (tmp_path / "unfinished" / "of-another.2.1.part").touch()
    assert held(tmp_path) > 0
    for path in tmp_path.glob("unfinished/*"):
        if "another" not in path.name:
            os.utime(path, (1, 1))
    cache = RangeCache(tmp_path, 100_000_000)
    assert [path.name for path in tmp_path.glob("unfinished/*")] == ["of-another.2.1.part"]
    cache.write(*entry(10**9 + 1))
    assert cache.has(entry(10**9 + 1)[0], 1000)


@pytest.mark.parametrize("call", ["rename", "writev"])
def test_a_disk_that_refuses_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, call: str
) -> None:
    cache = RangeCache(tmp_path, 10_000_000)
    cache.write(*entry(1))

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, call, refuse)
    with caplog.at_level(logging.WARNING):
        for number in range(2, 5):
            cache.write(*entry(number))
    (record,) = caplog.records
    assert str(tmp_path) in record.getMessage()
    assert "No space left on device" in record.getMessage()
    assert not cache.writes
    assert list((tmp_path / "unfinished").iterdir()) == []
    assert cache.read(entry(1)[0], 1000) == entry(1)[1]  # what is there is still used


def test_half_a_write_is_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = RangeCache(tmp_path, 10_000_000)
    monkeypatch.setattr(os, "writev", lambda *_: 17)
    cache.write(*entry(1))
    assert not cache.writes
    assert held(tmp_path) == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small file system")
def test_a_file_system_that_is_really_full(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(small)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        cache = RangeCache(small, 1_000_000_000)
        for number in range(100):
            cache.write(*entry(number, 50_000))
        assert not cache.writes
        kept = [cache.read(entry(number, 50_000)[0], 50_000) for number in range(100)]
        assert 20 < sum(one is not None for one in kept) < 60
        assert all(one in (None, entry(number, 50_000)[1]) for number, one in enumerate(kept))
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_readers_of_entries_that_vanish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads read while others write far beyond the limit: right bytes, or none."""
    cache, wrong = RangeCache(tmp_path, 6_000 * FOLDERS), []
    end = time.monotonic() + 1.0

    def work(seed: int) -> None:
        for i, u in enumerate(uniforms(seed, 1, 0, 0, 4000, 4)[:, 0]):
            if time.monotonic() > end:
                return
            name, data = entry(int(u * 3000))
            found = cache.read(name, 1000)
            if found is None:
                cache.write(name, data)
            elif found != data:
                wrong.append(i)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert wrong == []
    assert held(tmp_path) <= 6_000 * FOLDERS


def test_the_default_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache_dir() == tmp_path / "siamstream"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_cache_dir() == tmp_path / ".cache" / "siamstream"
    assert module.ABANDONED_S >= 600  # longer than any write takes
