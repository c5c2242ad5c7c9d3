"""Byte ranges by memory map."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from storage_contract import StorageContract

from shards.errors import StorageError
from shards.storage import LocalStorage, Range, Storage


class TestLocalStorage(StorageContract):
    @pytest.fixture
    def make(self, tmp_path: Path) -> Callable[[dict[str, bytes]], Storage]:
        def storage(files: dict[str, bytes]) -> Storage:
            for name, data in files.items():
                (tmp_path / name).write_bytes(data)
            return LocalStorage(tmp_path, max_maps=1)

        return storage

    def test_a_view_outlives_its_map(self, make: Callable[[dict[str, bytes]], Storage]) -> None:
        storage = make({"a.tar": self.DATA, "b.tar": b"x" * 100})
        (view,) = storage.read_many([Range("a.tar", 10, 20)])
        storage.read_many([Range("b.tar", 0, 1)])  # only one map is kept
        assert bytes(view) == self.DATA[10:30]

    def test_an_empty_file_cannot_be_read(self, tmp_path: Path) -> None:
        (tmp_path / "a.tar").touch()
        with pytest.raises(StorageError, match=r"a\.tar"):
            LocalStorage(tmp_path).size("a.tar")
