"""The loader's contract: the same samples for every world, resume at every step, clear faults."""

from __future__ import annotations

import gc
import shutil
import threading
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import synthetic
import torch
from loader_contract import BACKENDS, config_of, equal

from configs.strict import ConfigError
from loaders.batch import PairBatch
from loaders.config import PairConfig
from loaders.loader import PairLoader, make_backend
from loaders.plan import SamplerConfig
from loaders.recipe import Augment, Recipe
from loaders.sets import DataSet, open_sets
from loaders.work import prepare
from shards.errors import BadSample, DataError, FormatError, MismatchError, StorageError
from shards.index import Index


class TestEveryBackend:
    """What does not depend on the storage; the rest is the contract's."""

    @pytest.fixture(params=BACKENDS)
    def config(self, request: pytest.FixtureRequest, packed: Path) -> PairConfig:
        return config_of(packed, request.param)

    def test_a_damaged_picture_is_named(self, config: PairConfig, tmp_path: Path) -> None:
        folder = tmp_path / "lasot"
        synthetic.pack(tmp_path, sequences=1, frames=2)
        index = Index(folder)
        with (folder / index.file(1)).open("r+b") as handle:
            handle.seek(int(index.offset[1]) + 700)
            handle.write(bytes(200))
        damaged = replace(config, path=str(tmp_path))
        with PairLoader(damaged, batch_size=8) as loader:
            with pytest.raises(BadSample, match="CRC-32C") as error:
                next(loader)
            assert error.value.key == index.key(1)
            assert error.value.offset == index.offset[1]
            assert error.value.shard == str(folder / "lasot-000000.tar")

    def test_bytes_that_were_packed_broken_are_named(
        self, config: PairConfig, tmp_path: Path
    ) -> None:
        """The checksum is right, but there is no picture: every backend blames the sample."""
        folder = tmp_path / "lasot"
        synthetic.pack(tmp_path, sequences=1, frames=2)
        pack_broken(folder)
        with (
            PairLoader(replace(config, path=str(tmp_path)), batch_size=8) as loader,
            pytest.raises(BadSample, match="decod") as error,
        ):
            next(loader)
        assert error.value.key == "car-1/0_00000004"

    def test_after_a_bad_sample_the_position_stays_and_other_batches_come(
        self, config: PairConfig, tmp_path: Path
    ) -> None:
        synthetic.pack(tmp_path, sequences=2, frames=8)
        pack_broken(tmp_path / "lasot")
        with PairLoader(replace(config, path=str(tmp_path)), batch_size=1) as loader:
            good, bad = 0, 0
            for consumed in range(26):
                loader.load_state_dict({**loader.state_dict(), "epoch": 0, "consumed": consumed})
                before = loader.state_dict()
                errors = []
                for _ in range(2):
                    try:
                        batch = next(loader)
                    except BadSample as error:
                        errors.append(str(error))
                    else:
                        break
                if errors:
                    bad += 1
                    assert errors[0] == errors[1]
                    assert loader.state_dict() == before
                else:
                    good += 1
                    assert batch.sample.tolist() == [consumed]
        assert bad >= 1
        assert good + bad == 26
        assert good >= 15

    def test_a_picture_of_another_size_is_named(self, config: PairConfig, tmp_path: Path) -> None:
        synthetic.pack(tmp_path, sequences=1, frames=2, side=446)
        small = tmp_path / "small"
        synthetic.pack(small, sequences=1, frames=2, side=400)
        manifest = (small / "lasot" / "manifest.json").read_text()
        (small / "lasot" / "manifest.json").write_text(
            manifest.replace('"crop_size": 400', '"crop_size": 446')
        )
        with (
            PairLoader(replace(config, path=str(small)), batch_size=4) as loader,
            pytest.raises(BadSample, match="400x400 pixels, 446x446 expected"),
        ):
            next(loader)

    def test_closing_twice_is_harmless_and_reading_afterwards_is_not(
        self, config: PairConfig
    ) -> None:
        with PairLoader(config, batch_size=4) as loader:
            next(loader)
            loader.close()
        with pytest.raises(RuntimeError, match="closed"):
            next(loader)


def pack_broken(folder: Path) -> None:
    """Replace the second picture by noise of the same size and index it as it is."""
    from shards.rebuild import rebuild

    index = Index(folder)
    with (folder / index.file(1)).open("r+b") as handle:
        handle.seek(int(index.offset[1]))
        handle.write(bytes(range(256)) * (int(index.size[1]) // 256))
    (folder / "manifest.json").unlink()
    rebuild(folder)


@pytest.fixture
def no_threads() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


def test_parents_and_single_folders_are_found(packed: Path) -> None:
    with PairLoader(config_of(packed), batch_size=4) as loader:
        facts = loader.describe()
        assert {name: d["weight"] for name, d in facts["datasets"].items()} == {
            "coco": pytest.approx(0.15 / 0.45), "lasot": pytest.approx(0.30 / 0.45),
        }  # fmt: skip
        assert facts["missing"] == ["got10k", "trackingnet"]
        assert len(facts["warnings"]) == 1
        assert "got10k, trackingnet" in facts["warnings"][0]
        assert facts["backend"] == "cpu"
    with PairLoader(config_of(packed / "lasot"), batch_size=4) as loader:
        assert loader.describe()["warnings"] == []
        assert list(loader.describe()["datasets"]) == ["lasot"]


def test_default_folder_comes_from_the_environment(
    packed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIAMSTREAM_SHARDS", str(packed))
    with PairLoader(PairConfig(backend="cpu"), batch_size=4) as loader:
        assert set(loader.describe()["datasets"]) == {"coco", "lasot"}


@pytest.mark.usefixtures("no_threads")
@pytest.mark.parametrize(
    ("changes", "kind", "complaint"),
    [
        (
            {"datasets": ("lasot", "got10k")},
            DataError,
            "no packed data set got10k in .*; there are coco, lasot; pack one",
        ),
        (
            {"datasets": ("lasto",)},
            DataError,
            "no packed data set lasto in .*; there are coco, lasot; did you mean 'lasot'",
        ),
        ({"require_all": True}, DataError, "got10k, trackingnet"),
        ({"datasets": ("lasot",), "weights": {"coco": 1.0}}, DataError, r"data\.weights\.lasot=1"),
        ({"weights": {"vid": 1.0}}, DataError, "none of them has a weight"),
        ({"search_px": 500}, MismatchError, "stored crops have 446 px"),
        ({"backend": "dali"}, ConfigError, "dali-cpu"),
        ({"pairs_per_epoch": 3}, ConfigError, "an epoch would have no step"),
    ],
)
def test_configurations_that_cannot_work(
    packed: Path, changes: dict[str, object], kind: type[Exception], complaint: str
) -> None:
    with pytest.raises(kind, match=complaint):
        PairLoader(config_of(packed, **changes), batch_size=4)


def test_a_damaged_data_set_that_is_not_wanted_is_left_alone(packed: Path, tmp_path: Path) -> None:
    shutil.copytree(packed / "lasot", tmp_path / "lasot")
    (tmp_path / "vid").mkdir()
    (tmp_path / "vid" / "manifest.json").write_text("{")
    with PairLoader(config_of(tmp_path, datasets=("lasot",)), batch_size=4) as loader:
        assert next(loader).sample.tolist() == [0, 1, 2, 3]
    with pytest.raises(FormatError, match="damaged"):
        PairLoader(config_of(tmp_path), batch_size=4)


def test_a_recipe_that_leaves_the_stored_crops_warns(packed: Path) -> None:
    recipe = Recipe(video_x=Augment(scale=0.2, shift=180.0))
    with PairLoader(config_of(packed / "lasot", recipe=recipe), batch_size=4) as loader:
        (warning,) = loader.describe()["warnings"]
    assert "edge pixels are repeated" in warning


def test_no_data_names_the_commands(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(DataError, match="python -m packer demo"):
            PairLoader(config_of(path), batch_size=4)


def test_world_larger_than_the_batch(packed: Path) -> None:
    with pytest.raises(ConfigError, match="world of 5"):
        PairLoader(config_of(packed), 0, 5, batch_size=4)


def test_data_sets_of_different_grids(packed: Path, tmp_path: Path) -> None:
    shutil.copytree(packed / "lasot", tmp_path / "lasot")
    synthetic.pack(tmp_path, "got10k", sequences=2, frames=2, grid="corner")
    with pytest.raises(MismatchError, match="got10k: corner"):
        PairLoader(config_of(tmp_path), batch_size=4)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"seed": 8}, r"data\.seed was 7, now 8"),
        ({"pairs_per_epoch": 30}, "pairs_per_epoch"),
        ({"sampler": SamplerConfig(max_gap=3)}, r"data\.sampler"),
        ({"search_px": 96}, "sizes of the crops"),
        ({"weights": {"lasot": 1.0, "coco": 1.0}}, "weights"),
    ],
)
def test_state_of_another_stream_is_refused(
    packed: Path, change: dict[str, object], complaint: str
) -> None:
    with PairLoader(config_of(packed), batch_size=4) as loader:
        state = loader.state_dict()
    with (
        PairLoader(config_of(packed, **change), batch_size=4) as other,
        pytest.raises(MismatchError, match=complaint),
    ):
        other.load_state_dict(state)


def test_a_data_set_that_came_later_is_left_out_as_the_message_says(
    packed: Path, tmp_path: Path
) -> None:
    shutil.copytree(packed / "lasot", tmp_path / "lasot")
    with PairLoader(config_of(tmp_path), batch_size=4) as loader:
        next(loader)
        state = loader.state_dict()
        expected = next(loader)
    shutil.copytree(packed / "coco", tmp_path / "coco")
    with (
        PairLoader(config_of(tmp_path), batch_size=4) as loader,
        pytest.raises(MismatchError, match=r"--set data\.datasets=lasot"),
    ):
        loader.load_state_dict(state)
    with PairLoader(config_of(tmp_path, datasets=("lasot",)), batch_size=4) as loader:
        loader.load_state_dict(state)
        assert equal(next(loader), expected)


def test_positions_that_do_not_exist(packed: Path) -> None:
    with PairLoader(config_of(packed), batch_size=4) as loader:
        state = loader.state_dict()
        for wrong in ({"consumed": 26}, {"consumed": -1}, {"epoch": -1}):
            with pytest.raises(MismatchError, match="no position in an epoch of 26"):
                loader.load_state_dict({**state, **wrong})
        with pytest.raises(MismatchError, match="lacks consumed, data, epoch"):
            loader.load_state_dict({})
        loader.load_state_dict({**state, "consumed": 23})  # no whole batch is left
        batch = next(loader)
    assert (batch.epoch, batch.sample.tolist()) == (1, [0, 1, 2, 3])


def test_state_of_other_data_is_refused(packed: Path, tmp_path: Path) -> None:
    with PairLoader(config_of(packed / "lasot"), batch_size=4) as loader:
        state = loader.state_dict()
    synthetic.pack(tmp_path, sequences=2, frames=3)
    with (
        PairLoader(config_of(tmp_path / "lasot"), batch_size=4) as other,
        pytest.raises(MismatchError, match="packed data differ: lasot"),
    ):
        other.load_state_dict(state)


def test_a_truncated_shard_is_an_error(tmp_path: Path) -> None:
    synthetic.pack(tmp_path, sequences=1, frames=2)
    with (tmp_path / "lasot" / "lasot-000000.tar").open("r+b") as handle:
        handle.truncate(3000)
    with (
        PairLoader(config_of(tmp_path), batch_size=8) as loader,
        pytest.raises(BadSample, match="truncated"),
    ):
        next(loader)


def test_an_index_that_is_not_the_manifests(packed: Path, tmp_path: Path) -> None:
    synthetic.pack(tmp_path, sequences=1, frames=2)
    shutil.copy(packed / "coco" / "index.arrow", tmp_path / "lasot" / "index.arrow")
    with pytest.raises(FormatError, match="the manifest says"):
        PairLoader(config_of(tmp_path), batch_size=4)


def test_a_hanging_storage_ends_in_an_error(packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()

    def stall(*_: object) -> None:
        release.wait(60)

    with PairLoader(config_of(packed, timeout_s=0.2), batch_size=4) as loader:
        monkeypatch.setattr(type(loader.sets.sets[0]), "read", stall)
        try:
            with pytest.raises(StorageError, match=r"no batch within data\.timeout_s"):
                next(loader)
        finally:
            monkeypatch.undo()
            release.set()


def test_steps_of_an_epoch_leave_the_rest_undrawn(packed: Path) -> None:
    with PairLoader(config_of(packed), batch_size=4) as loader:
        assert loader.steps_per_epoch == 6
        samples = np.concatenate([next(loader).sample.numpy() for _ in range(7)])
    assert samples.tolist() == [*range(24), *range(4)]


def test_statistics_count_what_was_handed_over(packed: Path) -> None:
    with PairLoader(config_of(packed), rank=1, world_size=2, batch_size=4) as loader:
        for _ in range(3):
            next(loader)
        stats = loader.stats()
    assert (stats["batches"], stats["pairs"]) == (3, 6)
    assert stats["wait_s"] > 0


def test_a_batch_that_cannot_be_handed_over_is_still_the_next(
    packed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the device has no memory left, or somebody presses Ctrl-C."""
    with PairLoader(config_of(packed), batch_size=2) as loader:
        next(loader)
        plain, state = loader._hand_over, loader.state_dict()

        def fails(*_: object) -> PairBatch:
            raise MemoryError("no memory on the device")

        monkeypatch.setattr(loader, "_hand_over", fails)
        with pytest.raises(MemoryError):
            next(loader)
        assert loader.state_dict() == state
        monkeypatch.setattr(loader, "_hand_over", plain)
        assert next(loader).sample.tolist() == [2, 3]
        assert loader.state_dict()["consumed"] == 4


def test_what_is_wrong_with_batches_that_are_dropped_is_nobodys_error(
    packed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with PairLoader(config_of(packed, prefetch=4), batch_size=2) as loader:
        next(loader)
        plain, state = DataSet.read, loader.state_dict()

        def fails(*_: object) -> memoryview:
            raise StorageError("the cable is out")

        monkeypatch.setattr(DataSet, "read", fails)
        loader.load_state_dict({**state, "consumed": 12})
        with pytest.raises(StorageError, match="cable"):
            next(loader)
        loader.load_state_dict(state)
        monkeypatch.setattr(DataSet, "read", plain)
        loader.load_state_dict(state)
        assert [next(loader).sample.tolist() for _ in range(2)] == [[2, 3], [4, 5]]


def test_dali_is_given_arrays_that_live_until_their_batch_is_taken_out(packed: Path) -> None:
    config = config_of(packed, "dali-cpu", prefetch=2)
    sets = open_sets(config)
    _, backend = make_backend(config, sets, 4, torch.device("cpu"))
    seen = []
    for first in range(0, 24, 4):
        handle = backend.start(prepare(sets, config, 0, first, 4))
        held = [*handle.inputs["x_encoded"], handle.inputs["x_matrix"]]
        seen.append([weakref.ref(array) for array in held])
        del held
        gc.collect()
        assert all(one() is not None for one in seen[-1])
        backend.finish(handle, 60)
    assert all(one() is None for one in seen[0])  # and not for ever
    backend.close()
    sets.close()
