"""The restricted unpickler against files that want to run code or to take all memory."""

from __future__ import annotations

import pickle
import resource
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shards.errors import FormatError
from shards.legacy import load_legacy
from shards.safe_pickle import array_of, load_plain


def load(tmp_path: Path, data: bytes) -> Any:
    path = tmp_path / "x.pkl"
    path.write_bytes(data)
    return load_plain(path)


def test_plain_containers_and_arrays(tmp_path: Path) -> None:
    values = {"a": [1, 2.5, None, True, "x", b"y"], "b": (np.arange(6).reshape(2, 3),)}
    found = load(tmp_path, pickle.dumps(values))
    assert found["a"] == values["a"]
    np.testing.assert_array_equal(array_of(found["b"][0]), [[0, 1, 2], [3, 4, 5]])
    assert array_of(found["a"]) is None


def test_a_tiny_file_that_asks_for_32_gigabytes(tmp_path: Path) -> None:
    """The table of references is made as long as its largest number says."""
    bomb = b"\x80\x03Nr" + struct.pack("<I", 2**31) + b"."
    with pytest.raises(FormatError, match="more memory than"):
        load(tmp_path, bomb)


def test_the_memory_limit_is_lifted_again(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_AS)
    load(tmp_path, pickle.dumps([1]))
    with pytest.raises(FormatError):
        load(tmp_path, b"cos\nsystem\n(S'true'\ntR.")
    assert resource.getrlimit(resource.RLIMIT_AS) == before


def test_one_text_encoded_again_and_again(tmp_path: Path) -> None:
    """A megabyte that is repeated fifty thousand times by five bytes each."""
    text = b"\x80\x02cc\n".replace(b"cc\n", b"c_codecs\nencode\nq\x00")
    text += b"X" + struct.pack("<I", 1 << 20) + b"a" * (1 << 20) + b"q\x01"
    text += b"X" + struct.pack("<I", 6) + b"latin1q\x020]("
    call = b"h\x00h\x01h\x02\x86R"
    with pytest.raises(FormatError, match="more memory than"):
        load(tmp_path, text + call * 50_000 + b"e.")


def test_a_thousand_million_frames_in_a_few_bytes(tmp_path: Path) -> None:
    frames = ["s_0_1.jpg"] * 20_000
    one = {
        "frame_id": [1] * 20_000,
        "bboxes": [np.ones((1, 6), np.float32)] * 20_000,
        "frames": frames,
        "category": 1,
    }
    path = tmp_path / "x.pkl"
    path.write_bytes(pickle.dumps({"categories": [], "seqs": [one] * 50_000}))
    assert path.stat().st_size < 1_000_000
    with pytest.raises(FormatError, match="than its bytes can be"):
        load_legacy(path)


@pytest.mark.parametrize(
    "data",
    [
        # a state for one of our own functions, which must not become part of it
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n}X\x01\x00\x00\x00aK\x01sb.",
        b"\x80\x02cnumpy\ndtype\n}X\x05\x00\x00\x00KINDSK\x01sb.",
        b"\x80\x02cnumpy\nndarray\n)R.",
        b"\x80\x02cnumpy\nndarray\n)\x81.",
        b"\x80\x02cshards.safe_pickle\nload_plain\n.",
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct.__globals__\n.",
        b"\x80\x04\x8c\x05numpy\x8c\x0fndarray.tofile\x93.",
        b"\x80\x02\x82\x01.",
    ],
)
def test_our_own_stand_ins_are_no_way_in(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(FormatError, match="refused as an annotation pickle"):
        load(tmp_path, data)
    fine = pickle.dumps(np.ones(2, np.float32), protocol=3)
    np.testing.assert_array_equal(array_of(load(tmp_path, fine)), [1, 1])


def test_an_array_whose_shape_is_not_its_bytes(tmp_path: Path) -> None:
    data = pickle.dumps(np.ones((2, 6), np.float32), protocol=3)
    assert data.count(b"K\x02K\x06\x86") == 1
    with pytest.raises(FormatError, match="refused"):
        load(tmp_path, data.replace(b"K\x02K\x06\x86", b"K\xffK\xff\x86"))
