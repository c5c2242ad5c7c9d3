"""Floats are those of `normalise` to the last bit, whoever makes them, and stay as they are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import damaged
import numpy as np
import pytest
import torch
from loader_contract import BACKENDS, config_of, equal, take

from loaders.batch import PairBatch, normalise, torch_dtype
from loaders.blocks import SPARE, Blocks
from loaders.blur import Blur
from loaders.config import PixelType
from loaders.cpu import Levels
from loaders.loader import PairLoader, make_backend
from loaders.occlusion import Occlusion
from loaders.recipe import Augment, Jitter, Recipe
from loaders.sets import open_sets
from loaders.work import prepare
from shards.rng import uniforms

FLOATS: tuple[PixelType, ...] = ("float16", "bfloat16", "float32")
ON_CPU = BACKENDS[:3]


def all_steps(share: float = 0.5) -> Recipe:
    """Some crops with each step, some without."""
    jitter = Jitter(p=share, delta=30.0)
    step = Augment(
        flip=share, scale=0.18, shift=64.0, brightness=jitter,
        blur=Blur(p=share), occlusion=Occlusion(p=share),
    )  # fmt: skip
    return Recipe(image_z=step, image_x=step, video_z=step, video_x=step, grey=0.2)


def bits(values: torch.Tensor) -> torch.Tensor:
    return values.view(torch.int16 if values.element_size() == 2 else torch.int32)


def assert_normalised(found: PairBatch, stored: PairBatch, pixels: PixelType) -> None:
    """Bits, type and memory layout of `normalise`; all else is as in the batch of bytes."""
    for name in ("template", "search"):
        one = getattr(found, name)
        expected = normalise(getattr(stored, name), torch_dtype(pixels))
        assert (one.dtype, one.stride()) == (expected.dtype, expected.stride())
        assert torch.equal(bits(one), bits(expected))
    assert equal(replace(found, template=stored.template, search=stored.search), stored)


@pytest.mark.parametrize("channels_last", [False, True])
def test_floats_are_those_of_normalise(packed: Path, channels_last: bool) -> None:
    config = config_of(packed, channels_last=channels_last, recipe=all_steps())
    stored = take(config, 3)
    for pixels in FLOATS:
        for one, expected in zip(take(replace(config, pixels=pixels), 3), stored, strict=True):
            assert_normalised(one, expected, pixels)


@pytest.mark.parametrize("backend", [name for name in ON_CPU if name != "cpu"])
def test_where_the_loader_normalises_too(packed: Path, backend: str) -> None:
    config = config_of(packed, backend)
    (one,) = take(replace(config, pixels="bfloat16"), 1)
    assert_normalised(one, *take(config, 1), "bfloat16")


@pytest.mark.parametrize("pixels", FLOATS)
@pytest.mark.parametrize("channels_last", [False, True])
def test_every_level_of_every_channel(pixels: PixelType, channels_last: bool) -> None:
    dtype = torch_dtype(pixels)
    # Each channel has all of them, in an order of its own.
    orders = uniforms(3, 94, 0, 0, 3, 256).argsort(axis=1).astype(np.uint8).reshape(3, 16, 16)
    expected = normalise(torch.from_numpy(orders)[None], dtype)[0]
    axes = (1, 2, 0) if channels_last else (0, 1, 2)
    crop, levels = np.ascontiguousarray(orders.transpose(axes)), Levels(dtype, channels_last)
    out = np.zeros(crop.shape, levels.stored_as)
    levels.look_up(crop, out)
    found = torch.from_numpy(out).view(dtype)
    assert torch.equal(bits(found), bits(expected.permute(axes)))


@pytest.mark.parametrize(
    ("device", "made"), [("cpu", torch.bfloat16), ("cuda", torch.uint8)]
)  # fmt: skip
def test_bytes_travel_to_another_device(packed: Path, device: str, made: torch.dtype) -> None:
    config = config_of(packed, pixels="bfloat16")
    sets = open_sets(config)
    _, backend = make_backend(config, sets, 4, torch.device(device))
    pixels = backend.finish(backend.start(prepare(sets, config, 0, 0, 4)), 60)
    backend.close()
    assert [one.dtype for one in pixels] == [made, made]


@pytest.mark.parametrize(
    ("damage", "same_crc"),
    [
        ("zeroed", False),  # found by its checksum, before it is decoded
        ("no table", True),  # found by the decoder
    ],
)
def test_pairs_that_replace_damaged_ones(tmp_path: Path, damage: str, same_crc: bool) -> None:
    rows = dict.fromkeys(range(3, 64, 7), damage)
    data = damaged.pack(tmp_path, rows, same_crc=same_crc).damaged
    config = config_of(data, max_bad_fraction=0.5)
    stored = take(config, 5)
    assert sum(batch.stats["bad"] for batch in stored) >= 2
    for pixels in FLOATS:
        for one, expected in zip(take(replace(config, pixels=pixels), 5), stored, strict=True):
            assert one.stats["bad"] == expected.stats["bad"]
            assert_normalised(one, expected, pixels)


def test_resumed_floats(packed: Path) -> None:
    config = config_of(packed, pixels="float32")
    with PairLoader(config, batch_size=5) as loader:
        for _ in range(2):
            next(loader)
        state = loader.state_dict()
        expected = [next(loader) for _ in range(4)]  # into the next epoch
    with PairLoader(config, batch_size=5) as loader:
        loader.load_state_dict(state)
        assert all(equal(next(loader), one) for one in expected)


@pytest.mark.parametrize("pixels", ["uint8", "float32"])
def test_what_is_held_of_a_batch_stays_as_it_was(packed: Path, pixels: PixelType) -> None:
    """Also if it is only a view of a part; what is let go is written to again meanwhile."""
    config = config_of(packed, pixels=pixels)
    with PairLoader(config, batch_size=5) as loader:
        kept: list[tuple[torch.Tensor, np.ndarray]] = []
        copies: list[tuple[torch.Tensor, np.ndarray]] = []
        for number in range(12):
            batch = next(loader)
            if number % 3:
                kept.append((batch.template[2, :, ::3], batch.search[1:].numpy()[0, 1]))
                copies.append((kept[-1][0].clone(), kept[-1][1].copy()))
    for (z, x), (z_then, x_then) in zip(kept, copies, strict=True):
        assert torch.equal(z, z_then)
        assert (x == x_then).all()


def test_what_autograd_keeps_stays_as_it_was(packed: Path) -> None:
    gain = torch.ones(1, requires_grad=True)
    with PairLoader(config_of(packed, pixels="float32"), batch_size=5) as loader:
        batch = next(loader)
        expected = float(batch.search.double().sum())
        loss = (batch.search * gain).sum(dtype=torch.float64)
        for _ in range(8):
            batch = next(loader)
    loss.backward()
    assert gain.grad is not None
    assert float(gain.grad) == pytest.approx(expected, rel=1e-4)


class TestBlocks:
    SHAPE = (2, 3, 4)

    def address(self, array: np.ndarray) -> int:
        return int(array.ctypes.data)

    def test_what_nobody_holds_is_used_again(self) -> None:
        blocks = Blocks()
        first = blocks.array(self.SHAPE, np.float32)
        where = self.address(first)
        first[:] = 1
        assert self.address(blocks.array(self.SHAPE, np.float32)) != where
        del first
        again = blocks.array((4, 3, 2, 2), np.int16)  # as many bytes
        assert self.address(again) == where
        assert (again.shape, again.dtype, again.flags.writeable) == ((4, 3, 2, 2), np.int16, True)

    @pytest.mark.parametrize(
        "part",
        [
            lambda array: array[1],
            lambda array: array[:, ::2].T,
            lambda array: array.reshape(-1).view(np.uint8)[5:],
            lambda array: memoryview(array)[1:],
            lambda array: torch.from_numpy(array[1:]),
            lambda array: torch.from_numpy(array).permute(2, 0, 1)[0],
            lambda array: torch.from_numpy(array[0]).numpy()[1:],
            lambda array: torch.from_numpy(array).untyped_storage(),
        ],
    )
    def test_whatever_is_made_of_an_array_holds_its_block(self, part: object) -> None:
        blocks = Blocks()
        array = blocks.array(self.SHAPE, np.float32)
        where = self.address(array)
        held = part(array)  # type: ignore[operator]
        del array
        others = [blocks.array(self.SHAPE, np.float32) for _ in range(4)]
        assert where not in [self.address(one) for one in others]
        del held
        assert self.address(blocks.array(self.SHAPE, np.float32)) == where

    def test_few_wait(self) -> None:
        blocks = Blocks()
        many = [blocks.array(self.SHAPE, np.uint8) for _ in range(SPARE + 5)]
        del many
        (spare,) = blocks._spare.values()
        assert len(spare) == SPARE
