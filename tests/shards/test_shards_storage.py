"""Byte ranges of files, and of files in memory."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from storage_contract import StorageContract

from shards.errors import MissingBytes, StorageError
from shards.free_memory import available_bytes
from shards.storage import LocalStorage, MemoryStorage, Range, Storage

Make = Callable[[dict[str, bytes]], Storage]


def write(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


class TestLocalStorage(StorageContract):
    @pytest.fixture
    def make(self, tmp_path: Path) -> Make:
        return lambda files: LocalStorage(write(tmp_path, files), max_open=1)

    def test_bytes_outlive_the_open_file(self, make: Make) -> None:
        storage = make({"a.tar": self.DATA, "b.tar": b"x" * 100})
        (view,) = storage.read_many([Range("a.tar", 10, 20)])
        storage.read_many([Range("b.tar", 0, 1)])  # only one file is kept open
        assert bytes(view) == self.DATA[10:30]

    def test_an_empty_file(self, tmp_path: Path) -> None:
        (tmp_path / "a.tar").touch()
        assert LocalStorage(tmp_path).size("a.tar") == 0
        with pytest.raises(MissingBytes, match="the file has 0; it is truncated"):
            LocalStorage(tmp_path).read_many([Range("a.tar", 0, 1)])

    def test_a_folder_in_place_of_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "a.tar").mkdir()
        with pytest.raises(StorageError, match=r"a\.tar"):
            LocalStorage(tmp_path).read_many([Range("a.tar", 0, 1)])

    @pytest.mark.parametrize("left", [0, 1, 4096, 4097])
    def test_a_file_that_is_cut_short_while_it_is_open(self, tmp_path: Path, left: int) -> None:
        storage = LocalStorage(write(tmp_path, {"a.tar": self.DATA}))
        storage.read_many([Range("a.tar", 0, 16384)])
        os.truncate(tmp_path / "a.tar", left)
        storage.will_need([Range("a.tar", 0, 16384)])
        with pytest.raises(MissingBytes, match=f"the file has {left}; it is truncated"):
            storage.read_many([Range("a.tar", 0, 16384)])
        assert storage.changed("a.tar") == "the file was written to since it was opened"

    def test_a_file_that_is_replaced_is_read_as_it_was_while_it_is_open(
        self, tmp_path: Path
    ) -> None:
        storage = LocalStorage(write(tmp_path, {"a.tar": self.DATA, "b.tar": b"x" * 16384}))
        storage.read_many([Range("a.tar", 0, 4)])
        assert storage.changed("a.tar") == ""
        (tmp_path / "b.tar").rename(tmp_path / "a.tar")
        assert bytes(storage.read_many([Range("a.tar", 0, 4)])[0]) == self.DATA[:4]
        assert "another file" in storage.changed("a.tar")
        (tmp_path / "a.tar").unlink()
        assert bytes(storage.read_many([Range("a.tar", 0, 4)])[0]) == self.DATA[:4]
        assert "gone" in storage.changed("a.tar")

    def test_what_will_be_needed_and_is_absent_is_told_to_who_reads_it(
        self, tmp_path: Path
    ) -> None:
        storage = LocalStorage(tmp_path)
        storage.will_need([Range("a.tar", 0, 4)])
        with pytest.raises(MissingBytes, match=r"a\.tar.*not there"):
            storage.read_many([Range("a.tar", 0, 4)])

    def test_few_files_are_open_at_once_and_none_is_closed_under_a_reader(
        self, tmp_path: Path
    ) -> None:
        names = [f"{i}.tar" for i in range(40)]
        write(tmp_path, {name: name.encode() * 1000 for name in names})
        storage, before, open_files = LocalStorage(tmp_path, max_open=3), fds(), []
        wrong: list[str] = []

        def read(storage: LocalStorage, first: int) -> None:
            for step in range(400):
                name = names[(first + 7 * step) % 40]
                (data,) = storage.read_many([Range(name, 0, 1000)])
                open_files.append(fds())
                if bytes(data) != (name.encode() * 1000)[:1000]:
                    wrong.append(name)

        threads = [threading.Thread(target=read, args=(storage, i)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []
        assert len(open_files) == 1600
        assert max(open_files) <= before + 3 + 2 * 4 + 1  # those kept, two a reader, this listing
        del storage, threads
        assert fds() == before


def fds() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


class TestMemoryStorage(StorageContract):
    @pytest.fixture
    def make(self, tmp_path: Path) -> Make:
        return lambda files: MemoryStorage(write(tmp_path, files), files)

    def test_files_are_read_once(self, make: Make, tmp_path: Path) -> None:
        storage = make({"a.tar": self.DATA})
        (tmp_path / "a.tar").unlink()
        (view,) = storage.read_many([Range("a.tar", 10, 20)])
        assert bytes(view) == self.DATA[10:30]
        with pytest.raises(TypeError, match="read-only"):
            view[0] = 1

    def test_an_absent_file_is_told_at_once(self, tmp_path: Path) -> None:
        with pytest.raises(MissingBytes, match=r"c\.tar"):
            MemoryStorage(tmp_path, ["c.tar"])


class TestFreeMemory:
    MEMINFO = "MemTotal: 100 kB\nMemAvailable:    5000 kB\n"

    def test_of_the_machine(self, tmp_path: Path) -> None:
        (tmp_path / "meminfo").write_text(self.MEMINFO)
        assert available_bytes(tmp_path, tmp_path / "absent") == 5000 * 1024

    @pytest.mark.parametrize(("limit", "left"), [("4000000", 3_600_000), ("max", 5000 * 1024)])
    def test_of_a_group_of_version_2(self, tmp_path: Path, limit: str, left: int) -> None:
        """The page cache that can be dropped is no use of memory; groups above count too."""
        (tmp_path / "self").mkdir()
        (tmp_path / "meminfo").write_text(self.MEMINFO)
        (tmp_path / "self" / "cgroup").write_text("0::/a/b\n")
        group = tmp_path / "groups" / "a"
        (group / "b").mkdir(parents=True)
        (group / "memory.max").write_text(f"{limit}\n")
        (group / "memory.current").write_text("1000000\n")
        (group / "memory.stat").write_text("anon 400000\ninactive_file 600000\n")
        assert available_bytes(tmp_path, tmp_path / "groups") == left

    def test_of_a_group_of_version_1(self, tmp_path: Path) -> None:
        (tmp_path / "self").mkdir()
        (tmp_path / "meminfo").write_text(self.MEMINFO)
        (tmp_path / "self" / "cgroup").write_text("4:memory:/job\n0::/\n")
        group = tmp_path / "groups" / "memory" / "job"
        group.mkdir(parents=True)
        (group / "memory.limit_in_bytes").write_text("2000000\n")
        (group / "memory.usage_in_bytes").write_text("1500000\n")
        assert available_bytes(tmp_path, tmp_path / "groups") == 500_000

    def test_here(self) -> None:
        assert 1 << 20 < available_bytes() < 1 << 50
