"""The JSON reader against `json.loads`, whatever the places where the file is cut for reading."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from packer import json_stream
from packer.json_stream import Entry, entries
from shards.errors import DataError

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=6),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=12,
)


def slow(data: bytes) -> list[Entry]:
    """Oracle: the whole file at once."""
    found = []
    for key, value in json.loads(data.decode("utf-8-sig")).items():
        if isinstance(value, list):
            found += [Entry(key, number, item) for number, item in enumerate(value)]
        else:
            found.append(Entry(key, -1, value))
    return found


@given(
    st.dictionaries(st.text(max_size=4), values, max_size=5),
    st.integers(1, 40),
    st.sampled_from([None, 1]),
    st.booleans(),
    st.booleans(),
)
def test_equals_json_loads(
    value: dict[str, Any], chunk: int, indent: int | None, plain: bool, mark: bool
) -> None:
    data = json.dumps(value, indent=indent, ensure_ascii=plain).encode(
        "utf-8-sig" if mark else "utf-8", "surrogatepass" if plain else "replace"
    )
    assert list(entries(io.BytesIO(data), "a.json", chunk)) == slow(data)


@pytest.mark.parametrize("chunk", [1, 3, 1 << 20])
@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "an object needed, found ''"),
        (b"[]", "an object needed"),
        (b"7", "an object needed"),
        (b'{"a": [1, 2', "',' or ']' after item 1 of 'a' needed"),
        (b'{"a": [1 2]}', "after item 0"),
        (b'{"a": [1,]}', "no value"),
        (b'{"a": [{"b": 1]}', "no value"),
        (b'{"a": "never closed', "cut short"),
        (b'{"a" 1}', "':' after a key"),
        (b"{1: 2}", "a key in double quotes"),
        (b'{"a": 1} x', "something follows"),
        (b'{"a": 1, }', "no value"),
        (b'{"a": "\xff"}', "not UTF-8"),
    ],
)
def test_what_is_no_json(data: bytes, text: str, chunk: int) -> None:
    with pytest.raises(DataError, match=r"big\.json: not JSON of the expected form at character"):
        list(entries(io.BytesIO(data), "big.json", chunk))
    with pytest.raises(DataError) as caught:
        list(entries(io.BytesIO(data), "big.json", chunk))
    assert text in str(caught.value)


def test_deep_nesting_ends_no_process() -> None:
    with pytest.raises(DataError, match="nested too deeply"):
        list(entries(io.BytesIO(b'{"a": [' + b"[" * 100_000 + b"]}"), "a.json"))


def test_an_entry_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_stream, "MAX_ENTRY", 1000)
    data = b'{"a": ["' + b"x" * 5000 + b'"]}'
    with pytest.raises(DataError, match="no value of up to 1,000 characters"):
        list(entries(io.BytesIO(data), "a.json", 100))


def test_memory_does_not_grow_with_the_file() -> None:
    item = b'{"bbox": [1.5, 2, 3, 4], "segmentation": [[' + b"1.25, " * 50 + b"1]]}"

    class Endless(io.RawIOBase):
        """Twenty thousand items, made while they are read."""

        left = 20_000
        most = 0

        def read(self, size: int = -1) -> bytes:
            self.most = max(self.most, size)
            if self.left == 20_000:
                self.left -= 1
                return b'{"annotations": [' + item
            count = min(self.left, 1000)
            self.left -= count
            return b"".join([b"," + item] * count) + (b"" if self.left else b"]}") if count else b""

    handle = Endless()
    seen = sum(1 for _ in entries(handle, "a.json"))  # type: ignore[arg-type]
    assert seen == 20_000
    assert handle.most <= 1 << 20
