"""The tar that is written is byte for byte the one of `tarfile`."""

from __future__ import annotations

import io
import tarfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shards.format import Sample
from shards.writer import tar_header, write_samples


def info(name: str, size: int) -> tarfile.TarInfo:
    found = tarfile.TarInfo(name)
    found.size, found.mode = size, 0o644
    return found


@given(
    st.text("abcXYZ019-_~%/.", min_size=1, max_size=130) | st.text(min_size=1, max_size=60),
    st.integers(0, 1 << 40),
)
def test_headers_equal_those_of_tarfile(name: str, size: int) -> None:
    try:
        expected = info(name, size).tobuf(tarfile.PAX_FORMAT)
    except UnicodeEncodeError:
        return  # a lone surrogate is no name
    assert tar_header(name, size) == expected


@pytest.mark.parametrize("length", [99, 100, 101])
@pytest.mark.parametrize("size", [0, 1, 511, 512, 8**11 - 1, 8**11])
def test_headers_at_the_limits(length: int, size: int) -> None:
    name = "n" * length
    assert tar_header(name, size) == info(name, size).tobuf(tarfile.PAX_FORMAT)


@pytest.mark.parametrize("count", [0, 1, 3, 25])
def test_a_shard_equals_that_of_tarfile(count: int) -> None:
    samples = [
        (
            Sample(
                sequence="car-1" if i % 5 else "a name with blanks and . " * 5,
                track=i,
                frame=i * 7,
                kind="image",
                fps=None,
                boxes=np.array([[1, 2, 3, 4]], np.float32),
                categories=("car",),
                ignore=(False,),
                visible=None,
                mean_rgb=np.zeros(3, np.float32),
                source="a.jpg",
                source_size=(640, 480),
                region=np.array([0, 0, 9, 9], np.float32),
            ),
            bytes(range(256)) * i,
        )
        for i in range(count)
    ]
    mine, theirs = io.BytesIO(), io.BytesIO()
    write_samples(mine, samples)
    with tarfile.open(fileobj=theirs, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for sample, jpeg in samples:
            for extension, data in (("jpg", jpeg), ("json", sample.to_json())):
                tar.addfile(info(f"{sample.key}.{extension}", len(data)), io.BytesIO(data))
    assert mine.getvalue() == theirs.getvalue()
