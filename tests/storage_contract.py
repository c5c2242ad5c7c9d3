"""What every storage must do."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from shards.errors import FormatError, StorageError
from shards.storage import Range, Storage


class StorageContract:
    """What every storage must do. Subclass it and supply `make`."""

    DATA = bytes(range(256)) * 64

    @pytest.fixture
    def make(self) -> Callable[[dict[str, bytes]], Storage]:
        pytest.fail("a storage contract needs a fixture `make`")

    def test_reads_ranges_in_order(self, make: Callable[[dict[str, bytes]], Storage]) -> None:
        storage = make({"a.tar": self.DATA, "b.tar": self.DATA[::-1]})
        ranges = [Range("b.tar", 5, 10), Range("a.tar", 16000, 384), Range("a.tar", 0, 0)]
        storage.will_need(ranges)
        found = [bytes(view) for view in storage.read_many(ranges)]
        assert found == [self.DATA[::-1][5:15], self.DATA[16000:16384], b""]
        assert storage.size("a.tar") == len(self.DATA)

    @pytest.mark.parametrize(("offset", "size"), [(0, 20000), (16384, 1), (-1, 4), (4, -1)])
    def test_a_range_outside_the_file(
        self, make: Callable[[dict[str, bytes]], Storage], offset: int, size: int
    ) -> None:
        storage = make({"a.tar": self.DATA})
        storage.will_need([Range("a.tar", offset, size)])  # a hint is no error
        with pytest.raises(StorageError, match=r"a\.tar"):
            storage.read_many([Range("a.tar", offset, size)])

    def test_an_absent_file(self, make: Callable[[dict[str, bytes]], Storage]) -> None:
        with pytest.raises(StorageError, match=r"c\.tar"):
            make({"a.tar": self.DATA}).read_many([Range("c.tar", 0, 1)])

    @pytest.mark.parametrize(
        "name", ["../a.tar", "/a.tar", "x/y/a.tar", "x/../a.tar", "x/.a.tar", "pipe:id"]
    )
    def test_names_stay_inside(
        self, make: Callable[[dict[str, bytes]], Storage], name: str
    ) -> None:
        with pytest.raises(FormatError, match="plain names"):
            make({"a.tar": self.DATA}).read_many([Range(name, 0, 1)])
