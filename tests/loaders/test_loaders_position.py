"""Going on from the state of a loader where the data are others, and giving up on late data."""

import shutil
import threading
import time

import pytest
import synthetic
from loader_contract import config_of, equal

from loaders.loader import PairLoader, WaitEnded
from loaders.plan import SamplerConfig
from loaders.sets import DataSet
from loaders.window import SequentialConfig
from shards.errors import MismatchError


def state_after(config, steps, **options):
    with PairLoader(config, batch_size=4, **options) as loader:
        for _ in range(steps):
            next(loader)
        return loader.state_dict()


def test_other_data_are_refused_with_the_way_out(packed, tmp_path):
    state = state_after(config_of(packed / "lasot"), 2)
    synthetic.pack(tmp_path, sequences=3, frames=5)
    with PairLoader(config_of(tmp_path / "lasot"), batch_size=4) as loader:
        with pytest.raises(MismatchError) as caught:
            loader.load_state_dict(state)
        assert str(caught.value) == (
            "cannot go on with this sample stream: the packed data differ: lasot. With "
            "--allow-data-change train.py goes on at the same position, with other samples than "
            "would have followed"
        )
        position = loader.state_dict()
        assert (position["epoch"], position["consumed"]) == (0, 0)
        changed = loader.load_state_dict(state, allow_data_change=True)
        assert changed == ("the packed data differ: lasot",)
        found = [next(loader) for _ in range(3)]
    assert [one.sample.tolist() for one in found] == [[n, n + 1, n + 2, n + 3] for n in (8, 12, 16)]
    with PairLoader(config_of(tmp_path / "lasot"), batch_size=4) as loader:
        own = [next(loader) for _ in range(5)][2:]
    assert all(equal(a, b) for a, b in zip(found, own, strict=True))


def test_data_that_are_the_same_are_no_change(packed):
    state = state_after(config_of(packed), 1)
    with PairLoader(config_of(packed), batch_size=4) as loader:
        assert loader.load_state_dict(state, allow_data_change=True) == ()


def test_another_set_may_come_or_go(packed, tmp_path):
    shutil.copytree(packed / "lasot", tmp_path / "lasot")
    state = state_after(config_of(tmp_path), 1)
    shutil.copytree(packed / "coco", tmp_path / "coco")
    with PairLoader(config_of(tmp_path), batch_size=4) as loader:
        with pytest.raises(MismatchError, match=r"drew from lasot, now there is coco, lasot \(to"):
            loader.load_state_dict(state)
        (changed,) = loader.load_state_dict(state, allow_data_change=True)
        assert "--set data.datasets=lasot" in changed
        back = loader.state_dict()
    with PairLoader(config_of(tmp_path / "lasot"), batch_size=4) as loader:
        (changed,) = loader.load_state_dict(back, allow_data_change=True)
        assert changed.startswith("it drew from coco, lasot, now there is lasot")


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"seed": 8}, r"data\.seed was 7, now 8; the packed data differ"),
        ({"pairs_per_epoch": 30}, r"data\.pairs_per_epoch was 26, now 30"),
        ({"sampler": SamplerConfig(max_gap=3)}, r"data\.sampler, data\.recipe or the sizes"),
        ({"search_px": 96}, "the sizes of the crops differ"),
    ],
)
def test_what_is_drawn_and_how_never_differs(packed, tmp_path, change, complaint):
    state = state_after(config_of(packed / "lasot"), 1)
    synthetic.pack(tmp_path, sequences=2, frames=4)
    with PairLoader(config_of(tmp_path / "lasot", **change), batch_size=4) as loader:
        with pytest.raises(MismatchError, match=complaint) as caught:
            loader.load_state_dict(state, allow_data_change=True)
        assert "--allow-data-change" not in str(caught.value)


def test_weights_are_no_data(packed):
    state = state_after(config_of(packed), 1)
    weights = {"lasot": 1.0, "coco": 1.0}
    with (
        PairLoader(config_of(packed, weights=weights), batch_size=4) as loader,
        pytest.raises(MismatchError, match=r"data\.weights, data\.sampler"),
    ):
        loader.load_state_dict(state, allow_data_change=True)


def test_states_of_older_versions_go_on(packed):
    """They lack what the drawing alone depends on."""
    state = state_after(config_of(packed), 1)
    del state["drawing"]
    with PairLoader(config_of(packed), batch_size=4) as loader:
        assert loader.load_state_dict(state) == ()
    with (
        PairLoader(config_of(packed, search_px=96), batch_size=4) as loader,
        pytest.raises(MismatchError, match="the sizes of the crops differ"),
    ):
        loader.load_state_dict(state)


def test_from_a_stream_to_the_plan_and_back(packed):
    window = SequentialConfig(window_tracks=3)
    stream = config_of(packed / "lasot", storage="sequential", sequential=window)
    plan = config_of(packed / "lasot")
    for before, now in ((stream, plan), (plan, stream)):
        state = state_after(before, 2)
        with PairLoader(now, batch_size=4) as loader:
            with pytest.raises(MismatchError, match="--allow-data-change"):
                loader.load_state_dict(state)
            (changed,) = loader.load_state_dict(state, allow_data_change=True)
            assert "data.storage=sequential, whose pairs are others" in changed
            assert next(loader).sample.tolist() == [8, 9, 10, 11]


def test_a_stream_in_another_world_is_allowed_too(packed):
    window = SequentialConfig(window_tracks=3)
    config = config_of(packed / "lasot", storage="sequential", sequential=window)
    state = state_after(config, 2)
    with PairLoader(config, 1, 2, batch_size=4) as loader:
        (changed,) = loader.load_state_dict(state, allow_data_change=True)
        assert changed.startswith("world_size was 1, now 2, and with data.storage=sequential")
        assert next(loader).sample.tolist() == [9, 11]


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_nobody_need_wait_for_data_that_do_not_come(packed, monkeypatch, backend):
    plain, stalls, over, asked = DataSet.read, threading.Event(), threading.Event(), []

    def read(self, row):
        if stalls.is_set():
            over.wait(60)
        return plain(self, row)

    def take(loader, states):
        while True:
            states.append(loader.state_dict())
            next(loader)

    def give_up():
        asked.append(time.monotonic())
        return len(asked) > 1

    monkeypatch.setattr(DataSet, "read", read)
    config, states = config_of(packed, backend, threads=1, prefetch=1), []
    with PairLoader(config, batch_size=4) as loader:
        next(loader)
        stalls.set()
        loader.give_up = give_up
        with pytest.raises(WaitEnded):
            take(loader, states)
        assert loader.state_dict() == states[-1]
    assert len(asked) == 2
    over.set()
