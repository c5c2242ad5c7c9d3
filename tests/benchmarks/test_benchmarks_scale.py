"""The simulator: it conserves bytes, keeps to limits, and reads what the real loader reads."""

from __future__ import annotations

import json
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import synthetic as made
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import cli_scale, scale, scale_case, scale_check
from benchmarks.cli import main
from benchmarks.paced import Paced
from benchmarks.report_scale import scale_blocks, scale_plot
from benchmarks.scale_cache import CACHE_SHARE, NEVER, disk_cache, page_cache, since
from benchmarks.scale_case import Node, ScaleCase, Storage
from benchmarks.scale_check import predict
from benchmarks.scale_reads import PAGE, Catalogue, batches_of, plan_rows, requests
from benchmarks.scale_report import (
    SCALE_HEADER,
    advice,
    advice_rows,
    check_rows,
    demand_header,
    demand_rows,
    scale_lines,
    scale_rows,
)
from benchmarks.scale_steps import Flow, steps, stream_steps
from benchmarks.scale_stream import page_hits, read_epoch
from benchmarks.scale_world import World
from benchmarks.synthetic_index import Synthetic, synthetic
from loaders.config import PairConfig
from loaders.sequential import Sequential
from loaders.sets import DataSets, open_sets
from loaders.window import SequentialConfig
from loaders.works import Planned
from shards.errors import FormatError, MismatchError
from shards.rng import uniforms
from shards.storage import LocalStorage, Range

FAST = Storage(name="fast", text="", cache="page", latency_ms=0.0, node_mb_per_s=1e12)
NODE = Node(stream_frames_per_s=5_000.0, preload_mb_per_s=1_000.0)
SMALL = (
    Synthetic(name="coco", tracks=600, mean=1, categories=6, even=False, kb=20.0, spread=1.0),
    Synthetic(name="lasot", tracks=60, mean=40, categories=7, even=True, kb=15.0, spread=1.0),
)


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> DataSets:
    """Two small data sets without pictures."""
    folder = tmp_path_factory.mktemp("indexes")
    for one in SMALL:
        synthetic(folder, one)
    return open_sets(PairConfig(path=str(folder)))


def test_indexes_without_pictures_have_the_sizes_asked_for(sets: DataSets, tmp_path: Path) -> None:
    for one, data in zip(SMALL, sets.sets, strict=True):
        assert data.manifest.counts["tracks"] == one.tracks
        assert data.index.size.mean() == pytest.approx(1e3 * one.kb, rel=0.03)
        ends = data.index.offset + data.index.size
        inside = data.index.file_code[1:] == data.index.file_code[:-1]
        assert (data.index.offset[1:] >= ends[:-1])[inside].all()
    synthetic(tmp_path, SMALL[1])
    before = (tmp_path / "lasot" / "index.arrow").read_bytes()
    synthetic(tmp_path, SMALL[1])
    assert (tmp_path / "lasot" / "index.arrow").read_bytes() == before
    with pytest.raises(MismatchError, match="other data"):
        synthetic(tmp_path, replace(SMALL[1], kb=16.0))


# --- caches -------------------------------------------------------------------------------------


def _queue_hits(trace: list[int], sizes: list[int], capacity: float) -> list[bool]:
    """A least-recently-used cache, one read after the other."""
    held: OrderedDict[int, int] = OrderedDict()
    hits, used = [], 0
    for row in trace:
        hits.append(row in held)
        if row in held:
            held.move_to_end(row)
            continue
        held[row] = sizes[row]
        used += sizes[row]
        while used > capacity:
            used -= held.popitem(last=False)[1]
    return hits


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 12), min_size=1, max_size=60))
def test_a_cache_that_is_never_full_misses_each_row_once(rows: list[int]) -> None:
    trace = np.array(rows)
    gap, sizes = since(trace), np.full(len(rows), 7)
    hit = page_cache(gap, sizes, np.inf)
    assert hit.tolist() == _queue_hits(rows, [7] * 13, np.inf)
    assert 7 * (~hit).sum() == 7 * len(set(rows))
    assert not page_cache(gap, sizes, 0).any()
    at = [max((j for j in range(i) if rows[j] == rows[i]), default=None) for i in range(len(rows))]
    assert gap.tolist() == [NEVER if j is None else i - j for i, j in enumerate(at)]


def test_page_cache_is_close_to_a_queue_of_the_same_size() -> None:
    drawn = uniforms(1, 9_001, 0, 0, 30_000, 4)
    sizes = (1 + np.int64(8 * drawn[:3_000, 0])) * PAGE
    trace = np.int64(3_000 * drawn[:, 1])
    capacity = 0.4 * sizes.sum()
    hit = page_cache(since(trace), sizes[trace], capacity)
    exact = np.array(_queue_hits(trace.tolist(), sizes.tolist(), capacity))
    assert hit[5_000:].mean() == pytest.approx(exact[5_000:].mean(), abs=0.015)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(0, 12), min_size=1, max_size=60), st.integers(0, 60), st.integers(0, 60)
)
def test_a_larger_cache_never_fetches_more(rows: list[int], a: int, b: int) -> None:
    trace = np.array(rows)
    gap = since(trace)

    def both(limit: float) -> tuple[int, int]:
        page = page_cache(gap, np.full(len(rows), 4), limit)
        disk = disk_cache(gap, trace, lambda fresh: np.full(len(fresh), 4), limit)
        return int((~page).sum()), int((~disk).sum())

    small, large = both(min(a, b)), both(max(a, b))
    assert large[0] <= small[0]
    assert large[1] <= small[1]


def test_disk_cache_keeps_what_came_first_and_takes_nothing_more() -> None:
    trace = np.array([1, 2, 3, 1, 2, 3, 1, 2, 3])
    limit = 20 / CACHE_SHARE
    hit = disk_cache(since(trace), trace, lambda fresh: np.full(len(fresh), 10), limit)
    assert hit.tolist() == [False] * 3 + [True, True, False] * 2


# --- time ---------------------------------------------------------------------------------------


def _flow(storage: Storage, **changes: Any) -> Flow:
    given_ = {"connections": 0, "gpus": 2, "prefetch": 2, "step_s": 0.01, **changes}
    return Flow(storage=storage, **given_)


SIZES = (10_000 + 30_000 * uniforms(3, 9_002, 0, 0, 480, 4)).reshape(60, 4, 8)


def test_without_limits_nobody_waits() -> None:
    run = steps(_flow(FAST), SIZES)
    assert run.wait.max() < 1e-6
    assert run.span(1) == pytest.approx(0.01 * 59)
    assert steps(_flow(replace(FAST, latency_ms=1e9)), np.zeros_like(SIZES)).wait.max() == 0


def test_a_link_that_is_too_narrow_sets_the_pace() -> None:
    narrow = replace(FAST, node_mb_per_s=5.0)
    run = steps(_flow(narrow), SIZES)
    node_bytes = SIZES.reshape(60, 2, 16).sum(2).sum(0).max()
    assert run.taken[-1] == pytest.approx(node_bytes / 5e6, rel=0.02)
    shared = replace(FAST, server_mb_per_s=5.0)
    assert steps(_flow(shared), SIZES).taken[-1] == pytest.approx(SIZES.sum() / 5e6, rel=0.02)
    answers = replace(FAST, server_requests_per_s=100.0)
    assert steps(_flow(answers), SIZES).taken[-1] == pytest.approx(SIZES.size / 100, rel=0.02)


def test_connections_and_prefetch_hide_latency_as_far_as_they_go() -> None:
    late = replace(FAST, latency_ms=30.0)
    # 8 pictures a batch of a rank, 2 at once: 4 rounds of 30 ms
    few = steps(_flow(late, connections=2), SIZES)
    assert few.span(5) / 55 == pytest.approx(0.12, rel=0.02)
    # as many as are asked for: two batches each 30 ms
    assert steps(_flow(late), SIZES).span(5) / 55 == pytest.approx(0.015, rel=0.03)
    assert steps(_flow(late, prefetch=4), SIZES).wait[5:].max() < 1e-9


@settings(max_examples=30, deadline=None)
@given(
    latency=st.floats(0, 50),
    rate=st.floats(1, 100),
    connections=st.integers(1, 8),
    prefetch=st.integers(1, 4),
    worse=st.sampled_from(["latency", "rate", "connections", "prefetch", "bytes"]),
)
def test_less_of_anything_never_ends_earlier(
    latency: float, rate: float, connections: int, prefetch: int, worse: str
) -> None:
    def end(latency: float, rate: float, connections: int, prefetch: int, more: float) -> float:
        storage = replace(FAST, latency_ms=latency, node_mb_per_s=rate)
        flow = _flow(storage, connections=connections, prefetch=prefetch)
        return float(steps(flow, SIZES[:20] * more).taken[-1])

    base = end(latency, rate, connections, prefetch, 1.0)
    other = end(
        latency + 5 * (worse == "latency"),
        rate / (2 if worse == "rate" else 1),
        max(1, connections - (worse == "connections")),
        max(1, prefetch - (worse == "prefetch")),
        2.0 if worse == "bytes" else 1.0,
    )
    assert other >= base - 1e-9


def test_a_stream_is_as_fast_as_its_thread_or_its_bytes() -> None:
    shape = (50, 2)
    sizes, frames, opened = np.full(shape, 1e5), np.full(shape, 10.0), np.zeros(shape)
    by_thread = stream_steps(_flow(FAST, step_s=0.001), sizes, frames, opened, 500.0)
    assert by_thread.taken[-1] == pytest.approx(50 * 10 / 500, rel=0.05)
    narrow = replace(FAST, node_mb_per_s=2.0)
    by_bytes = stream_steps(_flow(narrow, step_s=0.001), sizes, frames, opened, 1e9)
    assert by_bytes.taken[-1] == pytest.approx(50 * 2e5 / 2e6, rel=0.05)


# --- what is read -------------------------------------------------------------------------------


def test_rows_are_those_that_the_real_loader_announces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made.pack(tmp_path, "lasot", sequences=6, frames=12)
    config = PairConfig(path=str(tmp_path), pairs_per_epoch=48)
    announced: list[list[Range]] = []
    monkeypatch.setattr(LocalStorage, "will_need", lambda _, ranges: announced.append(list(ranges)))
    world, batch = 2, 4
    sets = open_sets(config)
    catalogue = Catalogue.of(sets)
    rows = batches_of(plan_rows(sets, catalogue.base, config.seed, 1, 48), world, batch)
    assert rows.shape == (6, world, batch, 2)
    for rank in range(world):
        works = Planned(sets, config, rank, world, world * batch)
        for k in range(len(rows)):
            announced.clear()
            works.announce(works.make(1, k * world * batch))
            said = [[(one.offset, one.size) for one in ranges] for ranges in announced]
            mine = rows[k, rank]
            expected = [
                list(zip(catalogue.offset[half], catalogue.size[half], strict=True))
                for half in (mine[:, 0], mine[:, 1])
            ]
            assert said == expected


def test_requests_are_those_of_the_loader_and_no_byte_is_lost(sets: DataSets) -> None:
    catalogue = Catalogue.of(sets)
    rows = np.arange(40)
    found = requests(catalogue, np.concatenate([rows, rows]))
    assert found.ranges == 40
    assert found.wanted == catalogue.size[rows].sum()
    assert found.requests < 40  # neighbours
    assert found.wanted < found.fetched < 1.2 * found.wanted


def test_stream_reads_what_sequential_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made.pack(tmp_path, "lasot", sequences=12, frames=10, per_shard=3)
    config = PairConfig(
        path=str(tmp_path),
        storage="sequential",
        sequential=SequentialConfig(window_tracks=2),
        pairs_per_epoch=60,
    )
    sets = open_sets(replace(config, storage="auto"))
    for world in (2, 8):  # more ranks than shards: all of them are read
        said = read_epoch(sets.sets, config, 0, [1], world, 3, 5)
        real = Sequential(config, 1, world, 3 * world)
        seen = [0]
        inner = type(real.sets.sets[0].shards)._frame

        def counted(self: Any, *given_: Any, inner: Any = inner, seen: list[int] = seen) -> Any:
            seen[0] += 1
            return inner(self, *given_)

        with monkeypatch.context() as patched:
            patched.setattr(type(real.sets.sets[0].shards), "_frame", counted)
            for k in range(5):
                real.make(0, 3 * world * k)
                assert seen[0] == said.frames[: k + 1, 0].sum()
        real.close()


def test_stretches_of_a_stream_stand_for_the_whole(sets: DataSets) -> None:
    config = PairConfig(path="x", sequential=SequentialConfig(window_tracks=4, window_pictures=40))
    whole = read_epoch(sets.sets, config, 0, [0, 1], 2, 1, 400)
    part = read_epoch(sets.sets, config, 0, [0, 1], 2, 1, 200)
    assert (part.half[:, 0] > 0).all()
    said = part.whole(part.sizes.sum(), part.sizes[:100].sum(), 400)
    assert said == pytest.approx(whole.sizes.sum(), rel=0.05)
    kept = part.whole(part.kept, part.half, 400)
    assert kept.sum() == pytest.approx(whole.kept.sum(), rel=0.05)
    hits = page_hits(sets.sets, config, 6, [0, 1], 2, whole.kept, 1e12)
    assert hits[0] < hits[-1]  # small data: a second pass within an epoch hits as well
    assert hits[-1] == pytest.approx(1, abs=0.1)
    assert page_hits(sets.sets, config, 3, [0, 1], 2, whole.kept, 0).max() == 0


# --- the whole ----------------------------------------------------------------------------------


def _world(sets: DataSets, **changes: Any) -> World:
    case = ScaleCase(
        pairs_per_epoch=2_000, epochs=3, shown=(1, 3), nodes=(1, 2), gpus=2, batch=4, steps=40,
        **changes,
    )  # fmt: skip
    config = PairConfig(path="x", pairs_per_epoch=2_000)
    return World.of(case, sets, config, NODE)


def test_bytes_of_all_nodes_are_those_of_their_distinct_pictures(sets: DataSets) -> None:
    world = _world(sets, memory_gb=1e3)
    everything = list(scale.simulated_rows(world, scale_case.STORAGES, lambda _: None))
    assert everything == list(scale.simulated_rows(world, scale_case.STORAGES, lambda _: None))
    rows = {(row["storage"], row["nodes"]): row for row in everything if row["mode"] == "indexed"}
    for nodes in (1, 2):
        ranks, pages, sizes = 2 * nodes, 0, 0
        batches = [batches_of(one, ranks, 4) for one in world.epochs]
        for node in range(nodes):
            part = [one[:, 2 * node : 2 * node + 2].reshape(-1) for one in batches]
            distinct = np.unique(np.concatenate(part))
            pages += world.catalogue.pages[distinct].sum()
            sizes += world.catalogue.size[distinct].sum()
        assert rows["nvme", nodes]["total"]["bytes_fetched"] == pages
        remote = rows["s3-tuned", nodes]["total"]
        assert remote["bytes_fetched"] == pytest.approx(sizes, rel=0.02)
        assert remote["usd"] == pytest.approx(remote["requests"] * 0.0004 / 1e3)
        for epoch in rows["nvme", nodes]["epochs"]:
            assert epoch["bytes_needed"] == sum(
                world.catalogue.size[one].sum() for one in (batches[epoch["epoch"] - 1],)
            )
    uncached = _world(sets, memory_gb=0.0)
    row = next(scale.simulated_rows(uncached, scale_case.STORAGES[:1], lambda _: None))
    wanted = sum(int(world.catalogue.pages[one].sum()) for one in world.epochs)
    assert row["total"]["bytes_fetched"] == wanted
    assert {epoch["hit_share"] for epoch in row["epochs"]} == {0.0}


def test_a_prediction_of_one_process_needs_each_picture_once(sets: DataSets) -> None:
    paced = Paced(path="x", cache_dir="", pairs_per_s=50.0, batches=10, batch_size=4)
    storage = replace(FAST, cache="disk", cache_gb=20.0, connections=2, latency_ms=30.0)
    said = predict(sets, paced, storage)
    catalogue = Catalogue.of(sets)
    rows = plan_rows(sets, catalogue.base, paced.seed, 0, paced.announced * 4)
    distinct = np.unique(rows)
    assert said.bytes == pytest.approx(catalogue.size[distinct].sum(), rel=0.1)
    assert said.requests <= len(distinct)
    # 8 pictures, two at once, 30 ms each: 0.12 s a batch of 0.08 s, less what repeats
    assert 0.1 < said.wait_share < 0.35
    assert predict(sets, paced, replace(storage, connections=8)).wait_share < 0.01


def test_command_says_which_mode_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scale, "DATA", SMALL)
    monkeypatch.setattr(scale_check, "check", lambda *_: (NODE, []))
    small = replace(ScaleCase(), pairs_per_epoch=2_000, steps=20)
    monkeypatch.setattr(cli_scale, "ScaleCase", lambda **given_: replace(small, **given_))
    file = tmp_path / "scale.json"
    command = ["scale", "--out", str(tmp_path / "x"), "--nodes", "1,2", "--epochs", "2"]
    outcome = CliRunner().invoke(main, [*command, "--no-check", "--json", str(file)])
    assert outcome.exit_code == 0, outcome.stderr
    run = json.loads(file.read_bytes())
    assert len(run["rows"]) == 2 * 4 * len(run["storages"])
    assert {row["total"]["usd"] is None for row in run["rows"] if row["storage"] == "nvme"} == {
        True
    }
    assert [one["storage"] for one in advice(run)] == [one["name"] for one in run["storages"]]
    assert all("fastest is" in one["text"] for one in advice(run))
    assert len(scale_rows(run)) == len(demand_rows(run)) == 4 * len(run["storages"])
    assert all(len(row) == len(SCALE_HEADER) for row in scale_rows(run))
    assert all(len(row) == len(demand_header(run)) for row in demand_rows(run))
    assert len(advice_rows(run)) >= len(run["storages"])
    assert "price" in scale_lines(run)[-1]
    drawn = scale_plot(run)
    assert drawn == scale_plot(run)
    assert drawn.count("<svg ") == 1 + len(run["storages"])
    assert scale_blocks(run)
    bad = CliRunner().invoke(main, ["scale", "--nodes", "many"])
    assert bad.exit_code == 2


def test_what_does_not_fit_has_no_times(sets: DataSets) -> None:
    world = _world(sets)
    copy_gb = world.zip_bytes / 1e9
    tight = replace(world, case=replace(world.case, memory_gb=1.5 * copy_gb))  # 2 processes
    rows = [
        row
        for row in scale.simulated_rows(tight, scale_case.STORAGES[:1], lambda _: None)
        if row["mode"].startswith("zip")
    ]
    for row in rows:
        assert row["fits"] == (row["mode"] == "zip-shared")
        assert (row["total"] is None) == (not row["fits"])
        assert len(row["by_demand"]) == 3 * row["fits"]
    assert [row["startup"]["memory_gb"] / copy_gb for row in rows[:2]] == [2, 1]


def test_a_thread_limits_what_a_process_asks_for() -> None:
    by_pair = steps(_flow(FAST, batch_s=0.05), SIZES)
    assert by_pair.span(5) / 55 == pytest.approx(0.05, rel=0.01)
    by_request = steps(_flow(FAST, request_s=0.01), SIZES)  # 8 a batch
    assert by_request.span(5) / 55 == pytest.approx(0.08, rel=0.01)
    assert steps(_flow(FAST, batch_s=0.009), SIZES).wait[2:].max() < 1e-9


def test_ranks_that_stream_the_same_shards_share_a_cache(sets: DataSets) -> None:
    config = PairConfig(path="x", sequential=SequentialConfig(window_tracks=4, window_pictures=40))
    few = read_epoch(sets.sets, config, 0, [0], 64, 1, 60)  # more ranks than shards
    size = sum(float(one.index.size.sum()) for one in sets.sets)
    once = page_hits(sets.sets, config, 3, [0], 64, few.kept, 2 * size, alike=8)
    assert once[0] >= 7 / 8  # one of eight ranks fetches
    assert once[-1] > once[0]  # and the node's whole cache holds it


def test_an_error_of_nothing_measured_is_undefined() -> None:
    seen = scale_check._Seen(case="c", quantity="bytes", unit="MB", predicted=1, measured=0)
    facts = scale_check._facts([replace(seen, note="half stayed")])
    assert facts["error"] is None
    (row,) = check_rows({"checks": [facts]})
    assert row[-1] == "undefined"
    assert row[0] == "c (half stayed)"


def test_a_request_costs_what_a_cold_cache_adds(tmp_path: Path) -> None:
    committed = Path(scale_check.__file__).parent / "results" / "remote.json"
    assert 0 < scale_check.request_us(committed) < 10_000
    with pytest.raises(FormatError, match="no such result"):
        scale_check.request_us(tmp_path / "remote.json")


@pytest.mark.services
def test_simulator_is_near_real_runs(tmp_path: Path) -> None:
    _, checks = scale_check.check(tmp_path / "data", 1, lambda _: None)
    by = {(one["case"], one["quantity"]): one for one in checks}
    for (_, quantity), one in by.items():
        if one["measured"] == 0 and quantity != "wait share":
            assert one["error"] is None
        elif quantity in ("bytes", "requests", "cache bytes"):
            assert abs(one["error"]) < 0.05, one
        elif quantity == "wait share":
            assert abs(one["error"]) <= 0.1, one
        else:
            assert one["kind"] == "calibration"
            assert 0.5 < one["predicted"] / one["measured"] < 2, one
