"""What every backend must do on every indexed storage.

Subclass `LoaderContract` and supply a fixture ``data``, the parent of the packed data sets lasot
and coco of `conftest.packed` in the storage's form, and ``changes``, the keys of the configuration
that choose the storage. The samples must be those of tar shards.

A subclass may override ``backend`` with `MOSTLY_LONG`, which leaves all but one to
``make test-services``: where a storage's bytes come from is no backend's concern.
"""

from __future__ import annotations

import os
import sys
import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import shards.rng
from loaders.batch import TENSOR_FIELDS, PairBatch
from loaders.config import PairConfig
from loaders.loader import PairLoader

ON_THE_GPU = pytest.param("dali", marks=pytest.mark.gpu)
BACKENDS = ("cpu", "dali-cpu", "reference", ON_THE_GPU)
MOSTLY_LONG = (
    BACKENDS[0],
    *(pytest.param(name, marks=pytest.mark.services) for name in BACKENDS[1:3]),
    ON_THE_GPU,
)
SMALL = {"template_px": 63, "search_px": 95, "pairs_per_epoch": 26, "threads": 2}


def config_of(data: Path | str, backend: str = "cpu", **changes: object) -> PairConfig:
    return PairConfig(path=str(data), backend=backend, **{**SMALL, **changes})  # type: ignore[arg-type]


def equal(a: PairBatch, b: PairBatch) -> bool:
    return a.epoch == b.epoch and all(
        torch.equal(getattr(a, name), getattr(b, name)) for name in TENSOR_FIELDS
    )


def loader_of(config: PairConfig, rank: int = 0, world: int = 1, *, batch_size: int) -> PairLoader:
    """Loader on the device that its backend needs."""
    device = "cuda" if config.backend == "dali" else "cpu"
    return PairLoader(config, rank, world, device, batch_size=batch_size)


def take(config: PairConfig, count: int, rank: int = 0, world: int = 1) -> list[PairBatch]:
    """First batches of a rank, of 5 pairs in all ranks together."""
    with loader_of(config, rank, world, batch_size=5) as loader:
        return [next(loader) for _ in range(count)]


def shards_open() -> set[str]:
    """Files of pictures that this process has open."""
    links = [os.path.realpath(link) for link in Path("/proc/self/fd").iterdir()]
    return {name for name in links if name.endswith((".tar", ".zip", ".jpg"))}


class Counters:
    """Blocks of Philox counters that were asked for, by key and epoch, of any number of loaders."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: Counter[tuple[int, ...]] = Counter()
        draw = shards.rng.uniforms

        def spy(
            seed: int, stream: int, epoch: int, start: int, count: int, width: int, step: int = 1
        ) -> Any:
            for row in range(start, start + count * step, step):
                for block in range(row * width // 4, (row + 1) * width // 4):
                    self.asked[seed, stream, epoch, block] += 1
            return draw(seed, stream, epoch, start, count, width, step)

        users = [
            module
            for name, module in sys.modules.items()
            if name.startswith("loaders.") and getattr(module, "uniforms", None) is draw
        ]
        assert len(users) >= 2
        for module in users:
            monkeypatch.setattr(module, "uniforms", spy)


class LoaderContract:
    """See the module."""

    STEPS = 7  # 5 steps an epoch: over an epoch's end, and into the next

    @pytest.fixture
    def data(self) -> Path | str:
        pytest.fail("a loader contract needs a fixture `data`")

    @pytest.fixture
    def changes(self) -> Mapping[str, Any]:
        return {}

    @pytest.fixture(params=BACKENDS)
    def backend(self, request: pytest.FixtureRequest) -> str:
        return str(request.param)

    @pytest.fixture
    def config(self, data: Path | str, backend: str, changes: Mapping[str, Any]) -> PairConfig:
        return config_of(data, backend, **changes)

    def test_shapes_and_types(self, config: PairConfig) -> None:
        with loader_of(config, batch_size=6) as loader:
            batch = next(loader)
        assert batch.template.shape == (6, 3, 63, 63)
        assert batch.search.shape == (6, 3, 95, 95)
        assert batch.template.dtype == batch.search.dtype == torch.uint8
        assert batch.template_box.shape == batch.search_box.shape == (6, 4)
        assert batch.search_box.dtype == torch.float32
        assert batch.other_boxes.shape == (*batch.other_mask.shape, 4)
        assert batch.positive.dtype == batch.other_mask.dtype == torch.bool
        assert batch.sample.tolist() == [0, 1, 2, 3, 4, 5]
        assert batch.search.float().std(dim=(1, 2, 3)).min() > 10  # pictures, not one colour
        assert batch.stats["wait_s"] >= 0
        assert batch.stats["bad"] == 0

    def test_the_samples_are_those_of_tar_shards(self, config: PairConfig, packed: Path) -> None:
        for found, expected in zip(
            take(config, 2), take(config_of(packed, config.backend), 2), strict=True
        ):
            assert equal(found, expected)

    def test_resume_at_every_step_equals_never_having_stopped(self, config: PairConfig) -> None:
        with loader_of(config, batch_size=5) as loader:
            batches, states = [], [loader.state_dict()]
            for _ in range(self.STEPS):
                batches.append(next(loader))
                states.append(loader.state_dict())
        assert [batch.epoch for batch in batches] == [0] * 5 + [1] * 2
        for step in range(self.STEPS):
            with loader_of(config, batch_size=5) as loader:
                loader.load_state_dict(states[step])
                assert loader.state_dict() == states[step]
                assert equal(next(loader), batches[step])

    def test_going_back_in_the_same_loader(self, config: PairConfig) -> None:
        with loader_of(config, batch_size=4) as loader:
            state = loader.state_dict()
            first = [next(loader) for _ in range(3)]
            loader.load_state_dict(state)
            again = [next(loader) for _ in range(3)]
        assert all(equal(a, b) for a, b in zip(first, again, strict=True))

    @pytest.mark.parametrize("world", [2, 3, 5])
    def test_ranks_together_make_the_batch_of_one(self, config: PairConfig, world: int) -> None:
        whole, seen = take(config, 2), []
        for rank in range(world):
            for batch, expected in zip(take(config, 2, rank, world), whole, strict=True):
                seen += batch.sample.tolist()
                assert batch.sample.tolist() == expected.sample[rank::world].tolist()
                for name in ("template", "search", "template_box", "search_box", "positive"):
                    assert torch.equal(getattr(batch, name), getattr(expected, name)[rank::world])
        assert sorted(seen) == list(range(10))  # disjoint, and all

    def test_after_a_change_of_the_world_come_exactly_the_samples_not_yet_seen(
        self, config: PairConfig
    ) -> None:
        with loader_of(config, 1, 2, batch_size=5) as loader:
            for _ in range(2):
                next(loader)
            state = loader.state_dict()
        for world, batch_size in ((3, 5), (1, 4)):
            seen: list[int] = []
            for rank in range(world):
                with loader_of(config, rank, world, batch_size=batch_size) as loader:
                    loader.load_state_dict(state)
                    while (batch := next(loader)).epoch == 0:
                        seen += batch.sample.tolist()
            whole = (26 - 10) // batch_size * batch_size
            assert sorted(seen) == list(range(10, 10 + whole))

    def test_closing_leaves_no_thread_and_no_open_file(self, config: PairConfig) -> None:
        threads, files = set(threading.enumerate()), shards_open()
        with loader_of(config, batch_size=4) as loader:
            next(loader)
        assert set(threading.enumerate()) <= threads
        assert shards_open() <= files

    def test_threads_and_prefetch_change_nothing(self, config: PairConfig) -> None:
        for a, b in zip(
            take(config, 3), take(replace(config, threads=1, prefetch=1), 3), strict=True
        ):
            assert equal(a, b)

    def test_no_random_number_is_used_twice(
        self, config: PairConfig, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """By no two ranks, steps or epochs, and for no two purposes; all are of one seed."""
        counters = Counters(monkeypatch)
        for rank in range(2):
            take(replace(config, prefetch=1), self.STEPS, rank, 2)
        assert {seed for seed, *_ in counters.asked} == {config.seed}
        assert {stream for _, stream, *_ in counters.asked} >= {0, 1, 2}
        assert {epoch for _, _, epoch, _ in counters.asked} == {0, 1}
        assert set(counters.asked.values()) == {1}
