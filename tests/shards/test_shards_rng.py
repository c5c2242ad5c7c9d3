"""Counter-based numbers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shards.rng import integers_below, uniforms


def philox(counter: list[int], key: list[int]) -> list[int]:
    """Philox4x64 with 10 rounds (Salmon et al. 2011), in plain integers."""
    mask = (1 << 64) - 1
    for _ in range(10):
        a, b = counter[0] * 0xD2E7470EE14C6C93, counter[2] * 0xCA5A826395121157
        counter = [
            (b >> 64) ^ counter[1] ^ key[0],
            b & mask,
            (a >> 64) ^ counter[3] ^ key[1],
            a & mask,
        ]
        key = [(key[0] + 0x9E3779B97F4A7C15) & mask, (key[1] + 0xBB67AE8584CAA73B) & mask]
    return counter


@pytest.mark.parametrize(("seed", "stream", "epoch", "row"), [(7, 0, 0, 0), (9, 2, 5, 1000)])
def test_rows_are_philox_at_the_stated_counter(
    seed: int, stream: int, epoch: int, row: int
) -> None:
    """NumPy counts up before it draws, hence the + 1."""
    (values,) = uniforms(seed, stream, epoch, row, 1, 8)
    first = row * 8 // 4 + 1
    raw = [
        *philox([first, 0, epoch, 0], [seed, stream]),
        *philox([first + 1, 0, epoch, 0], [seed, stream]),
    ]
    assert values.tolist() == [(bits >> 11) / 2**53 for bits in raw]


def test_golden_values() -> None:
    """A changed number changes every sample stream: it is a breaking change of the stream."""
    expected = [0.8720734548204873, 0.29536538151378355, 0.4200976785072422, 0.4053922457839946]
    assert uniforms(7, 0, 0, 0, 1, 4).tolist() == [expected]


@given(st.integers(0, 1000), st.integers(0, 40), st.integers(1, 7), st.sampled_from([4, 8, 20]))
def test_rows_do_not_depend_on_the_block(start: int, count: int, step: int, width: int) -> None:
    whole = uniforms(3, 1, 2, 0, start + count * step + 1, width)
    rows = uniforms(3, 1, 2, start, count, width, step)
    np.testing.assert_array_equal(rows, whole[start : start + count * step : step][:count])


@pytest.mark.parametrize("other", [(4, 1, 2), (3, 2, 2), (3, 1, 3)])
def test_seed_stream_and_epoch_all_count(other: tuple[int, int, int]) -> None:
    assert not np.isin(uniforms(3, 1, 2, 0, 50, 4), uniforms(*other, 0, 50, 4)).any()


def test_uniform() -> None:
    counts, _ = np.histogram(uniforms(1, 2, 3, 0, 25_000, 4), bins=100, range=(0, 1))
    chi2 = ((counts - 1000) ** 2 / 1000).sum()
    assert chi2 < 148.2  # 99 degrees of freedom, p = 0.001


@pytest.mark.parametrize(
    "arguments",
    [(1, 1, 0, 0, 1, 6), (-1, 1, 0, 0, 1, 4), (1 << 64, 1, 0, 0, 1, 4), (1, 1, 0, -1, 1, 4)],
)
def test_arguments_out_of_range(arguments: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="must be"):
        uniforms(*arguments)


def test_integers_below_reach_both_ends_and_no_further() -> None:
    u = np.array([0.0, 0.5, 1 - 2.0**-53])
    np.testing.assert_array_equal(integers_below(u, np.array([3, 3, 3])), [0, 1, 2])
