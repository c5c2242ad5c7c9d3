"""Whole shards in order: a pure stream, disjoint ranks, exact resume, and clear faults."""

from __future__ import annotations

import contextlib
import http.server
import importlib
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import synthetic
import torch
from click.testing import CliRunner
from waiting import until

import train
from benchmarks.faulty_server import Fault, FaultyServer
from benchmarks.sequential import measure_sequential, sequential_rows, streamed
from configs import strict
from configs.strict import ConfigError
from loaders import dealing
from loaders.batch import TENSOR_FIELDS, PairBatch
from loaders.cli import main as loaders_cli
from loaders.config import PairConfig
from loaders.dealing import Frame, Mark, shard_order, stream
from loaders.doctor import examine
from loaders.loader import PairLoader
from loaders.pipes import from_command_line
from loaders.plan import PairKinds, SamplerConfig
from loaders.reference import ReferenceBackend
from loaders.sequential import Sequential
from loaders.sets import open_sets
from loaders.streaming import _Checked
from loaders.window import SequentialConfig, Window, pair_uniforms
from shards.errors import BadSample, DataError, FormatError, MismatchError, StorageError
from shards.format import Manifest
from shards.index import Index

SMALL = {"template_px": 63, "search_px": 95, "pairs_per_epoch": 26, "threads": 2}
WINDOW = SequentialConfig(window_tracks=3, window_pictures=6, frames_per_pair=3)
VIDEO = PairKinds(same_instance=0.5, same_category=0.2, any=0.3)


def config_of(data: Path | str, **changes: object) -> PairConfig:
    given = {"backend": "cpu", "storage": "sequential", "sequential": WINDOW, **SMALL, **changes}
    return PairConfig(path=str(data), **given)  # type: ignore[arg-type]


def equal(a: PairBatch, b: PairBatch) -> bool:
    return a.epoch == b.epoch and all(
        torch.equal(getattr(a, name), getattr(b, name)) for name in TENSOR_FIELDS
    )


def open_shards() -> list[str]:
    names = [os.path.realpath(link) for link in Path("/proc/self/fd").iterdir()]
    return [name for name in names if name.endswith(".tar")]


def run_all(loader: PairLoader, batches: int = 50) -> None:
    for _ in range(batches):
        next(loader)


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    before, files = set(threading.enumerate()), set(open_shards())
    yield
    until(lambda: not set(threading.enumerate()) - before)
    assert set(threading.enumerate()) - before == set()
    assert set(open_shards()) <= files


@pytest.fixture
def lasot(packed: Path, tmp_path: Path) -> Path:
    """A data set of one's own, to damage."""
    shutil.copytree(packed / "lasot", tmp_path / "lasot")
    return tmp_path / "lasot"


def without_index(folder: Path) -> Path:
    (folder / "index.arrow").unlink()
    return folder


class TestStream:
    def test_the_same_wherever_it_is_asked(self, packed: Path) -> None:
        config = config_of(packed)
        one = Sequential(config, 1, 2, 6)
        works = [one.make(epoch, consumed) for epoch in (0, 1) for consumed in (0, 6, 12, 18)]
        one.close()
        other = Sequential(config, 1, 2, 6)
        for work in reversed(works):  # every one from the beginning of its epoch
            again = other.make(work.epoch, int(work.plan.sample[0]) - 1)
            for name in ("sample", "dataset", "template_row", "search_row", "kind"):
                assert np.array_equal(getattr(again.plan, name), getattr(work.plan, name))
            assert np.array_equal(again.search_box, work.search_box)
        other.close()
        rows = [np.concatenate([w.plan.dataset, w.plan.template_row]).tolist() for w in works]
        assert len({tuple(row) for row in rows}) == len(rows)

    def test_another_seed_and_epoch_are_other_pairs(self, packed: Path) -> None:
        found = []
        for seed, epoch in ((7, 0), (8, 0), (7, 1)):
            one = Sequential(config_of(packed, seed=seed), 0, 1, 26)
            found.append(tuple(one.make(epoch, 0).plan.template_row))
            one.close()
        assert len(set(found)) == 3

    @pytest.mark.parametrize("world", [1, 2, 3, 5])
    @pytest.mark.parametrize("shards", range(1, 8))
    def test_ranks_are_disjoint_with_equal_counts(
        self, world: int, shards: int, tmp_path: Path
    ) -> None:
        tracks = max(shards, 5)
        synthetic.pack(tmp_path, sequences=tracks, frames=3, per_shard=-(-tracks // shards))
        index = Index(tmp_path / "lasot")
        used: list[set[int]] = []
        samples: list[int] = []
        for rank in range(world):
            one = Sequential(config_of(tmp_path, pairs_per_epoch=50), rank, world, 10)
            rows: list[int] = []
            for consumed in range(0, 50, 10):
                plan = one.make(0, consumed).plan
                assert len(plan.sample) == 10 // world + (rank < 10 % world)
                rows += [*plan.template_row, *plan.search_row]
                samples += plan.sample.tolist()
            one.close()
            used.append({int(index.track_first[row]) for row in rows})
        assert sorted(samples) == list(range(50))
        assert sum(map(len, used)) == len(set.union(*used))
        assert all(used)

    def test_every_rank_is_told_that_there_are_too_few_tracks(self, tmp_path: Path) -> None:
        synthetic.pack(tmp_path, sequences=2, frames=2, side=96)
        for rank in range(3):
            with pytest.raises(DataError, match="2 tracks cannot be dealt out to 3 processes"):
                Sequential(config_of(tmp_path), rank, 3, 6)

    def test_the_whole_part_in_the_window_is_read_once(
        self, packed: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        opened = []
        real = Path.open

        def counting(self: Path, *args: object, **kwargs: object) -> object:
            if self.suffix == ".tar":
                opened.append(self.name)
            return real(self, *args, **kwargs)  # type: ignore[arg-type]

        monkeypatch.setattr(Path, "open", counting)
        window = SequentialConfig(window_tracks=100)
        one = Sequential(config_of(packed / "lasot", sequential=window), 0, 1, 26)
        for epoch in (0, 1):
            one.make(epoch, 0)
        one.close()
        assert sorted(opened) == sorted(
            [shard.name for shard in one.sets.sets[0].shards.shards] * 2
        )

    @pytest.mark.filterwarnings("ignore:Exception ignored in.*FileIO")  # webdataset leaves them
    def test_webdataset_judges_the_order_of_members(self, packed: Path) -> None:
        import webdataset

        for name in ("lasot", "coco"):
            one = Sequential(config_of(packed / name), 0, 1, 2)
            shards = one.sets.sets[0].shards
            index, row = Index(packed / name), 0
            for number, shard in enumerate(shards.shards):
                path = packed / name / shard.name
                judge = webdataset.WebDataset(str(path), shardshuffle=False, empty_check=False)
                for expected, frame in zip(judge, shards.read(number), strict=True):
                    picture = frame.content
                    assert (picture.key, picture.jpg) == (expected["__key__"], expected["jpg"])
                    assert picture.json == expected["json"]
                    assert (frame.row, picture.offset) == (row, index.offset[row])
                    row += 1
            assert row == len(index)

    def test_offsets_are_right_where_names_are_long(self, tmp_path: Path) -> None:
        from shards.writer import finish, write_shard

        long = "a" * 140
        part = write_shard(
            tmp_path / "x", "x-000000.tar", synthetic.samples(long, "car", 3, seed=1, side=96)
        )
        finish(tmp_path / "x", [part], name="x", grid="edge", crop_size=96)
        one = Sequential(config_of(tmp_path / "x"), 0, 1, 2)
        found = [frame.content.offset for frame in one.sets.sets[0].shards.read(0)]
        assert found == Index(tmp_path / "x").offset.tolist()

    @pytest.mark.parametrize("backend", ["reference", "cpu"])
    def test_pixels_and_boxes_are_those_of_the_same_rows_by_memory_map(
        self, packed: Path, backend: str
    ) -> None:
        config = config_of(packed)
        sets = open_sets(replace(config, storage="shards"))
        one = Sequential(config, 0, 1, 26)
        work = one.make(0, 0)
        one.close()
        with PairLoader(replace(config, backend=backend), batch_size=26) as loader:
            batch = next(loader)
        sources = tuple(sets.sets[number] for number in work.plan.dataset)
        planned = replace(
            work,
            template=replace(work.template, sources=sources),
            search=replace(work.search, sources=sources),
        )
        judge = ReferenceBackend()
        z, x = judge.finish(judge.start(planned), 1)
        if backend == "reference":
            assert torch.equal(batch.template, z)
            assert torch.equal(batch.search, x)
        else:
            assert (batch.search.int() - x.int()).abs().float().mean() < 1
        for i, source in enumerate(sources):
            row = planned.search.rows[[i]]
            box = source.index.target_boxes(row)
            assert np.array_equal(
                work.search.params.boxes(np.repeat(box, 26, 0))[i], batch.search_box[i].numpy()
            )
        assert batch.other_boxes.shape[1] == 2

    def test_an_index_alone_gives_the_same_stream(self, packed: Path) -> None:
        """What the benchmark draws without pictures is what a loader draws."""
        config = config_of(packed / "lasot")
        one = Sequential(config, 1, 2, 26)
        work = one.make(0, 0)
        one.close()
        (source,) = open_sets(replace(config, storage="shards")).sets
        plan, _ = streamed(source, config, 0, 13, rank=1, world_size=2)
        for name in ("sample", "template_row", "search_row", "kind", "positive"):
            assert np.array_equal(getattr(plan, name), getattr(work.plan, name))


class TestLoader:
    def test_resume_at_every_step_equals_never_having_stopped(self, packed: Path) -> None:
        config = config_of(packed)
        with PairLoader(config, 1, 2, batch_size=5) as loader:
            batches, states = [], [loader.state_dict()]
            for _ in range(9):
                batches.append(next(loader))
                states.append(loader.state_dict())
        assert [batch.epoch for batch in batches] == [0] * 5 + [1] * 4
        for step in range(9):
            with PairLoader(config, 1, 2, batch_size=5) as loader:
                loader.load_state_dict(states[step])
                assert loader.state_dict() == states[step]
                assert equal(next(loader), batches[step])

    def test_going_back_in_the_same_loader(self, packed: Path) -> None:
        with PairLoader(config_of(packed), batch_size=4) as loader:
            state = loader.state_dict()
            first = [next(loader) for _ in range(3)]
            loader.load_state_dict(state)
            again = [next(loader) for _ in range(3)]
        assert all(equal(a, b) for a, b in zip(first, again, strict=True))

    def test_without_an_index_the_stream_is_the_same(self, lasot: Path) -> None:
        with PairLoader(config_of(lasot), batch_size=5) as loader:
            expected = [next(loader) for _ in range(6)]
        without_index(lasot)
        with PairLoader(config_of(lasot), batch_size=5) as loader:
            assert all(equal(next(loader), one) for one in expected)

    @pytest.mark.parametrize(
        ("rank", "world", "size", "window", "complaint"),
        [
            (0, 2, 4, WINDOW, "world_size was 1, now 2"),
            (0, 1, 6, WINDOW, "batch_size was 4, now 6"),
            (0, 1, 4, replace(WINDOW, window_tracks=4), "window_tracks was 3, now 4"),
        ],
    )
    def test_another_world_is_refused_with_the_reason(
        self, packed: Path, rank: int, world: int, size: int, window: SequentialConfig,
        complaint: str,
    ) -> None:  # fmt: skip
        with PairLoader(config_of(packed), batch_size=4) as loader:
            state = loader.state_dict()
        config = config_of(packed, sequential=window)
        with (
            PairLoader(config, rank, world, batch_size=size) as loader,
            pytest.raises(MismatchError, match=complaint),
        ):
            loader.load_state_dict(state)

    def test_states_of_plan_and_stream_are_not_mixed(self, packed: Path) -> None:
        planned = config_of(packed, storage="shards")
        with (
            PairLoader(config_of(packed), batch_size=4) as a,
            PairLoader(planned, batch_size=4) as b,
        ):
            with pytest.raises(MismatchError, match=r"--set data\.storage=sequential"):
                b.load_state_dict(a.state_dict())
            with pytest.raises(MismatchError, match="go on with the storage"):
                a.load_state_dict(b.state_dict())

    def test_it_says_what_it_is(self, packed: Path) -> None:
        with PairLoader(config_of(packed), batch_size=4) as loader:
            facts = loader.describe()
            assert facts["storage"] == "sequential"
            assert facts["missing"] == ["got10k", "trackingnet"]
            assert facts["datasets"]["lasot"]["folder"] == str(packed / "lasot")
            assert "storage: sequential" in strict.dump(loader.config)

    def test_closing_while_the_way_to_a_position_is_long(
        self, packed: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # the state is far into an epoch that nobody would wait for
        config = config_of(packed, pairs_per_epoch=1 << 40)
        with PairLoader(config, batch_size=4) as loader:
            loader.load_state_dict({**loader.state_dict(), "consumed": 1 << 39})
            monkeypatch.setattr(loader._works, "heard", lambda: 0.0)
            monkeypatch.setattr(loader, "config", replace(config, timeout_s=0.3))
            with pytest.raises(StorageError, match=r"no batch within data\.timeout_s"):
                next(loader)

    def test_a_long_way_to_a_position_is_no_stall(
        self, packed: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        plain, pauses = _Checked._read, iter([0.25] * 8)

        def slow(self: _Checked, size: int) -> bytes:
            time.sleep(next(pauses, 0))
            return plain(self, size)

        config = config_of(packed, pairs_per_epoch=100_000, timeout_s=1.5)
        with PairLoader(config, batch_size=4) as loader:
            loader.load_state_dict({**loader.state_dict(), "consumed": 200})
            monkeypatch.setattr(_Checked, "_read", slow)
            assert next(loader).sample.tolist() == [200, 201, 202, 203]
        assert next(pauses, None) is None  # two seconds in all

    def test_show_draws_what_one_process_trains_on(self, packed: Path, tmp_path: Path) -> None:
        run = CliRunner().invoke(
            loaders_cli,
            ["show", "--data", str(packed / "lasot"), "--sample", "3", "--out",
             str(tmp_path / "p.png"), "--set", "data.storage=sequential", "--backend", "cpu"],
        )  # fmt: skip
        assert run.exit_code == 0, run.output
        one = Sequential(PairConfig(path=str(packed / "lasot"), storage="sequential"), 0, 1, 4)
        work = one.make(0, 0)
        one.close()
        key = work.template.sources[3].key
        assert f"z {key.split('/')[0]}/0 frame {int(key[-8:])}" in run.output


class TestWindow:
    def frames(self, tracks: int, length: int, size: int = 1000, image: bool = False) -> Iterator:
        row = 0
        while True:
            for track in range(tracks):
                for number in range(length):
                    category = f"c{track % 5}"
                    yield Frame(row, ("s", track), 3 * number, category, image, size, None)
                    row += 1
                yield Mark.SHARD_END
            yield Mark.PASS_END

    @pytest.mark.parametrize(("length", "bound"), [(5, 40), (30, 40), (100, 40), (7, 1)])
    def test_memory_stays_within_its_bound(self, length: int, bound: int) -> None:
        config = SequentialConfig(window_tracks=6, window_mb=bound * 1e-3)
        frames = self.frames(50, length)
        window = Window(frames, config, SamplerConfig(), 1.0, 50 * length)
        for row in pair_uniforms(7, 0, 0, 2000, 1).tolist():
            window.advance()
            drawn = window.draw(row)
            assert window.size <= max(bound, 2) * 1000
            assert 1 <= window.tracks <= 6
            assert abs(drawn.template.row - drawn.search.row) < 8 * length
            if drawn.kind == 0:
                assert drawn.template.track == drawn.search.track

    def test_kinds_gaps_and_categories_follow_the_rule(self) -> None:
        rule = SamplerConfig(video=VIDEO, max_gap=30)
        config = SequentialConfig(window_tracks=40)
        window = Window(self.frames(200, 40), config, rule, 1.0, 8000)
        drawn = []
        for row in pair_uniforms(7, 0, 0, 20_000, 1).tolist():
            window.advance()
            drawn.append(window.draw(row))
        counts = np.bincount([one.kind for one in drawn], minlength=3)
        expected = 20_000 * np.array([0.5, 0.2, 0.3])
        assert ((counts - expected) ** 2 / expected).sum() < 13.8  # chi-square, 2 free: p 0.001
        same = [one for one in drawn if one.kind == 0]
        gaps = [abs(one.template.number - one.search.number) for one in same]
        assert max(gaps) == 30
        assert 12 < np.mean(gaps) < 16  # 15 but for the ends of the tracks
        codes = np.bincount([int(one.template.category[1]) for one in drawn])
        assert abs(codes / 20_000 - 0.2).max() < 0.02
        for one in drawn:
            if one.kind == 1:
                assert one.template.category == one.search.category
        others = {one.search.category for one in drawn if one.kind == 2}
        assert len(others) == 5

    def test_pictures_pair_with_themselves(self) -> None:
        rule = SamplerConfig(image=PairKinds(same_instance=1, same_category=0, any=0))
        config = SequentialConfig(window_pictures=16)
        window = Window(self.frames(100, 1, image=True), config, rule, 1.0, 100)
        for row in pair_uniforms(7, 0, 0, 100, 1).tolist():
            window.advance()
            drawn = window.draw(row)
            assert drawn.template is drawn.search
            assert window.tracks <= 16

    def test_a_capped_category_is_drawn_less(self) -> None:
        """One category has 60 % of the frames, and the cap lets it count for half as much."""

        def frames() -> Iterator:
            for row in range(10**6):
                category = "many" if row % 10 < 6 else f"few{row % 10}"
                yield Frame(row, ("s", row), 0, category, True, 1, None)

        rule = SamplerConfig(category_cap=300)
        window = Window(frames(), SequentialConfig(window_pictures=500), rule, 1.0, 1000)
        drawn = []
        for row in pair_uniforms(7, 0, 0, 4000, 1).tolist():
            window.advance()
            drawn.append(window.draw(row).template.category)
        assert abs(drawn.count("many") / 4000 - 3 / 7) < 0.03

    def test_the_dealing_keeps_a_rank_to_its_tracks_in_every_pass(self) -> None:
        lengths = {0: 3, 1: 1, 2: 2}

        def read(shard: int) -> Iterator[Frame]:
            for track in range(lengths[shard]):
                for number in range(2):
                    yield Frame(0, (f"s{shard}", track), number, "c", False, 1, None)

        order = shard_order(7, 0, 0, 3, 3)
        assert len({tuple(order(number)) for number in range(20)}) > 3
        owned: list[set] = []
        for rank in range(4):
            tracks, passes = set(), 0
            for item in stream(read, order, rank, 4, "x"):
                passes += item is Mark.PASS_END
                if isinstance(item, dealing.Frame):
                    tracks.add(item.track)
                if passes == 12:
                    break
            owned.append(tracks)
        assert sorted(map(len, owned)) == [1, 1, 2, 2]
        assert len(set.union(*owned)) == 6


def damage(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as handle:
        handle.seek(offset)
        handle.write(data)


class TestFaults:
    """With an index and without one, what a shard lacks is an error that names it."""

    @pytest.fixture(params=["index", "no index"])
    def folder(self, request: pytest.FixtureRequest, lasot: Path) -> Path:
        return lasot if request.param == "index" else without_index(lasot)

    def failure(self, folder: Path, kind: type[Exception] = StorageError, **changes: object) -> str:
        config = config_of(folder, **{"pairs_per_epoch": 200, **changes})
        with PairLoader(config, batch_size=4) as loader:
            with pytest.raises(kind) as caught:
                run_all(loader)
            with pytest.raises(kind):  # asking again is the same error
                next(loader)
        assert not str(caught.value).startswith("(")  # nor has webdataset added to it
        return str(caught.value)

    @pytest.mark.parametrize("where", [0.5, 0.97])
    def test_cut_off(self, folder: Path, where: float) -> None:
        path = folder / "lasot-000001.tar"
        with path.open("r+b") as handle:
            handle.truncate(int(path.stat().st_size * where))
        text = self.failure(folder)
        assert text.startswith(f"{path}: damaged or cut off after ")
        assert "from byte" in text

    def test_a_damaged_header_in_mid_file_is_not_taken_for_the_end(self, folder: Path) -> None:
        path = folder / "lasot-000001.tar"
        offset = self.offset_of(path, 5)
        damage(path, offset - 512 + 148, b"\xff" * 8)
        text = self.failure(folder)
        assert text.startswith(f"{path}: damaged or cut off after car-3/0_00000013: from byte")

    def offset_of(self, path: Path, number: int) -> int:
        import tarfile

        with tarfile.open(path) as tar:
            return [member.offset_data for member in tar if member.name.endswith("jpg")][number]

    def test_a_file_that_is_gone(self, folder: Path) -> None:
        (folder / "lasot-000001.tar").unlink()
        assert "lasot-000001.tar: cannot be opened" in self.failure(folder)

    def test_another_shard_of_that_name(self, folder: Path) -> None:
        first, second = folder / "lasot-000000.tar", folder / "lasot-000001.tar"
        data = first.read_bytes()
        first.write_bytes(second.read_bytes())
        second.write_bytes(data)
        text = self.failure(folder)
        assert "another shard" in text or "another packing" in text

    def test_an_empty_file_and_no_tar(self, folder: Path) -> None:
        for data in (b"", b"<html>not here</html>" * 99):
            (folder / "lasot-000001.tar").write_bytes(data)
            assert "does not begin like a tar" in self.failure(folder)

    def test_a_compressed_tar_is_not_unpacked(self, folder: Path) -> None:
        import gzip

        path = folder / "lasot-000001.tar"
        path.write_bytes(gzip.compress(path.read_bytes()))
        assert "does not begin like a tar" in self.failure(folder)

    def test_more_than_was_packed(self, folder: Path) -> None:
        path = folder / "lasot-000001.tar"
        path.write_bytes(path.read_bytes() + bytes(1 << 21))
        assert "longer than the" in self.failure(folder)

    def test_a_wrong_byte_is_a_bad_sample_with_an_index(self, lasot: Path) -> None:
        index = Index(lasot)
        for row in range(len(index)):
            damage(lasot / index.file(row), int(index.offset[row]) + 700, bytes(200))
        config = config_of(lasot)
        with PairLoader(config, batch_size=4) as loader, pytest.raises(BadSample) as error:
            next(loader)
        assert "CRC-32C" in error.value.reason
        rows = [row for row in range(len(index)) if index.key(row) == error.value.key]
        assert error.value.offset == index.offset[rows[0]]

    def test_boxes_that_are_not_the_indexs_are_not_used(self, lasot: Path) -> None:
        for path in lasot.glob("*.tar"):
            path.write_bytes(path.read_bytes().replace(b",198.0,", b",195.0,"))
        text = self.failure(lasot, BadSample)
        assert "the boxes of its .json are not those of the index" in text

    def test_a_category_that_is_not_the_indexs(self, lasot: Path) -> None:
        for path in lasot.glob("*.tar"):
            path.write_bytes(path.read_bytes().replace(b'"category":"car"', b'"category":"rat"'))
        assert "(rat, " in self.failure(lasot)

    def test_a_wrong_byte_is_found_at_the_shards_end_without_an_index(self, lasot: Path) -> None:
        path = without_index(lasot) / "lasot-000001.tar"
        damage(path, self.offset_of(path, 3) + 700, bytes(200))
        text = self.failure(lasot, search_px=64)
        assert text.startswith(f"{path}: ")
        assert "SHA-256" in text

    def test_a_description_that_is_none(self, folder: Path) -> None:
        path = folder / "lasot-000001.tar"
        data = path.read_bytes()
        at = data.index(b'{"sequence"')
        damage(path, at, b"{'sequenc")
        assert "not a sample description" in self.failure(folder, FormatError)

    def test_after_a_repair_the_epoch_is_read_again(self, lasot: Path) -> None:
        path = lasot / "lasot-000001.tar"
        data = path.read_bytes()
        with PairLoader(config_of(lasot), batch_size=4) as loader:
            expected = [next(loader) for _ in range(6)]
        path.write_bytes(data[: len(data) // 2])
        one = Sequential(config_of(lasot), 0, 1, 4)
        with pytest.raises(StorageError):
            one.make(0, 0)
        with pytest.raises(StorageError):
            one.make(0, 4)
        path.write_bytes(data)
        work = one.make(0, 0)
        one.close()
        assert np.array_equal(work.search_box, expected[0].search_box.numpy())

    def test_a_source_that_stalls_ends_in_an_error(self, lasot: Path) -> None:
        for path in lasot.glob("*.tar"):
            path.unlink()
            os.mkfifo(path)  # nobody writes
        loader = PairLoader(config_of(lasot, timeout_s=0.3), batch_size=4)
        with loader, pytest.raises(StorageError, match=r"no batch within data\.timeout_s=0\.3"):
            next(loader)
        for path in lasot.glob("*.tar"):  # let the thread go
            with contextlib.suppress(OSError):
                os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))

    def test_folders_that_cannot_be_streamed(self, packed: Path, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"no manifest\.json there"):
            PairLoader(config_of(tmp_path), batch_size=4)
        with pytest.raises(DataError, match=r"got10k in .*; there are coco, lasot; pack"):
            PairLoader(config_of(packed, datasets=("lasot", "got10k")), batch_size=4)
        with pytest.raises(DataError, match=r"lasto in .*; did you mean 'lasot'\?"):
            PairLoader(config_of(packed, datasets=("lasto",)), batch_size=4)
        shutil.copytree(packed / "lasot", tmp_path / "zip")
        manifest = tmp_path / "zip" / "manifest.json"
        manifest.write_text(manifest.read_text().replace("lasot-000000.tar", "lasot.zip"))
        with pytest.raises(DataError, match="streams tar shards"):
            PairLoader(config_of(tmp_path / "zip"), batch_size=4)
        with pytest.raises(ConfigError, match="examine the same data with"):
            examine(config_of(packed), torch.device("cpu"))
        with pytest.raises(StorageError, match="is a folder or one of s3"):
            PairLoader(config_of("ftp://host/lasot"), batch_size=4)

    def test_a_sampler_that_a_window_cannot_follow_is_refused(
        self, packed: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("loaders.sequential._RULE", ("image", "video", "category_cap"))
        config = config_of(packed, sampler=SamplerConfig(max_gap=5))
        with pytest.raises(ConfigError, match=r"data\.sampler\.max_gap: .* published rule"):
            PairLoader(config, batch_size=4)


class TestPipes:
    """A shell is started by the command line alone."""

    def test_a_configuration_may_not(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="command line alone"):
            PairConfig(path="pipe:cat /etc/passwd")
        (tmp_path / "c.yaml").write_text("data: {path: 'pipe:cat x {}'}\n")
        with pytest.raises(ConfigError, match=r"c\.yaml:1: .*command line alone"):
            strict.load(PairConfig, tmp_path / "c.yaml", section="data")
        with pytest.raises(ConfigError, match="command line alone"):
            strict.load(PairConfig, "spm_alexnet.yaml", ("data.path=pipe:cat {}",), "data")

    def test_a_manifest_or_index_may_not(self, lasot: Path) -> None:
        mark = lasot / "mark"
        text = (lasot / "manifest.json").read_text()
        evil = f"pipe:touch {mark}"
        (lasot / "manifest.json").write_text(text.replace("lasot-000000.tar", evil))
        with pytest.raises(FormatError, match="only plain names"):
            PairLoader(config_of(lasot), batch_size=4)
        assert not mark.exists()

    def test_webdatasets_openers_are_never_asked(
        self, packed: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*_: object, **__: object) -> None:
            raise AssertionError("webdataset opened something itself")

        opener = importlib.import_module("webdataset.gopen")
        monkeypatch.setattr(opener, "gopen", refuse)
        monkeypatch.setattr(importlib.import_module("webdataset.tariterators"), "gopen", opener)
        with PairLoader(config_of(packed), batch_size=4) as loader:
            next(loader)

    def test_the_command_line_has_to_allow_it(self, tmp_path: Path) -> None:
        assert from_command_line("data", False) == ("data", None)
        assert from_command_line("pipe:cat {}", True) == (None, "cat {}")
        with pytest.raises(ConfigError, match="give --allow-pipe too"):
            from_command_line("pipe:cat {}", False)
        with pytest.raises(ConfigError, match="goes with --data"):
            from_command_line("data", True)
        mark = tmp_path / "mark"
        arguments = ["--config", "spm_alexnet.yaml", "--data", f"pipe:touch {mark} {{}}"]
        run = CliRunner().invoke(train.main, arguments)
        assert (run.exit_code, mark.exists()) == (1, False)
        assert "give --allow-pipe too" in run.output
        run = CliRunner().invoke(train.main, [*arguments, "--allow-pipe"])
        assert (run.exit_code, mark.exists()) == (1, False)
        assert "data.storage=sequential" in run.output
        run = CliRunner().invoke(
            loaders_cli, ["show", "--data", f"pipe:touch {mark}", "--sample", "0", "--out", "p.png",
                          "--set", "data.storage=sequential"],
        )  # fmt: skip
        assert (run.exit_code, mark.exists()) == (1, False)
        assert "command line alone" in run.output

    def piped(self, command: str, **changes: object) -> PairLoader:
        config = replace(config_of("unused", **changes), path=None)
        return PairLoader(config, batch_size=5, command=command)

    def test_a_command_gives_the_same_batches(self, packed: Path) -> None:
        with (
            PairLoader(config_of(packed), batch_size=5) as local,
            self.piped(f"cat {packed}/{{}}") as loader,
        ):
            assert all(equal(next(loader), next(local)) for _ in range(6))

    def test_a_command_that_fails_or_has_no_place_for_the_name(self, lasot: Path) -> None:
        with pytest.raises(StorageError, match="ended with 3: no such store"):
            self.piped("echo no such store >&2; exit 3 {}")
        with pytest.raises(ConfigError, match="where the file's name belongs"):
            self.piped("cat manifest.json")
        (lasot / "lasot-000001.tar").unlink()
        with (
            self.piped(f"cat {lasot}/{{}}") as loader,
            pytest.raises(StorageError, match=r"lasot-000001\.tar: .* ended with 1"),
        ):
            run_all(loader)

    SLEEP = f"sleep 600.{os.getpid()}"  # nobody else's

    def test_a_command_that_hangs_is_killed(self, packed: Path) -> None:
        command = f"case {{}} in *.tar) {self.SLEEP};; *) cat {packed}/lasot/{{}};; esac"
        with (
            self.piped(command, timeout_s=0.3) as loader,
            pytest.raises(StorageError, match="no batch within"),
        ):
            next(loader)
        assert until(lambda: not self.sleeping())

    def sleeping(self) -> str:
        found = subprocess.run(["pgrep", "-x", "-f", self.SLEEP], capture_output=True, text=True)
        return found.stdout


class _Plain(http.server.SimpleHTTPRequestHandler):
    """GET without ranges; `slow` files stop in the middle."""

    stall = threading.Event()
    cut = ""
    cuts: ClassVar[list[float]] = []
    rest = 0.5
    refusals: ClassVar[list[int]] = []

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        if self.refusals:
            self.send_error(self.refusals.pop(0))
            return
        share = self.rest
        if self.cut and self.path.endswith(self.cut):
            share = self.cuts.pop(0) if self.cuts else self.rest
        if share and self.cut and self.path.endswith(self.cut):
            data = Path(self.translate_path(self.path)).read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data[: int(len(data) * share)])
            self.wfile.flush()
            self.stall.wait(100)
            return
        super().do_GET()


class TestWeb:
    @pytest.mark.parametrize("piped", [False, True])
    def test_wrong_pictures_are_found_before_they_are_used(self, lasot: Path, piped: bool) -> None:
        """The index is read from anywhere, and knows the checksum of each picture."""
        row = Index(lasot)
        damage(lasot / row.file(0), int(row.offset[0] + row.size[0] // 2), b"wrong bytes")
        with FaultyServer(lasot) as server:
            config = config_of(server.url, pairs_per_epoch=200)
            config = replace(config, path=None) if piped else config
            command = f"cat {lasot}/{{}}" if piped else None
            with (
                PairLoader(config, batch_size=4, command=command) as loader,
                pytest.raises(BadSample, match="CRC-32C"),
            ):
                run_all(loader)

    def test_without_an_index_a_warning_says_so(self, lasot: Path) -> None:
        without_index(lasot)
        with self.piped(f"cat {lasot}/{{}}") as loader:
            (warning,) = (one for one in loader.sets.warnings if "index.arrow" in one)
        assert "lasot" in warning

    def test_an_index_of_another_packing(self, lasot: Path) -> None:
        (lasot / "index.arrow").write_bytes(b"other")
        with pytest.raises(FormatError, match="of different packings"):
            self.piped(f"cat {lasot}/{{}}")

    def piped(self, command: str) -> PairLoader:
        return PairLoader(replace(config_of("unused"), path=None), batch_size=5, command=command)

    def test_opening_is_limited(self) -> None:
        config = replace(config_of("unused", timeout_s=0.4), path=None)
        with pytest.raises(StorageError, match=r"nothing for data\.timeout_s=0\.4 s"):
            PairLoader(config, batch_size=5, command="sleep 63; echo {}")

    def test_opening_an_object_store_is_limited(
        self, packed: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with FaultyServer(packed, lambda *_: "stall") as server:
            for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
                monkeypatch.setenv(name, "test")
            monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
            started = time.monotonic()
            with pytest.raises(StorageError):
                PairLoader(config_of("s3://bucket/lasot", timeout_s=0.5), batch_size=5)
            assert time.monotonic() - started < 3

    @pytest.mark.parametrize("fault", ["drop", "refuse", "cut"])
    def test_faults_of_a_server_change_nothing(
        self, packed: Path, fault: Fault, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("loaders.sources.PAUSE_S", 0.001)
        schedule = lambda number, _: fault if number % 3 == 1 else ""  # noqa: E731
        with (
            FaultyServer(packed, schedule) as server,
            PairLoader(config_of(packed / "lasot"), batch_size=5) as local,
            PairLoader(config_of(f"{server.url}/lasot"), batch_size=5) as loader,
        ):
            assert all(equal(next(loader), next(local)) for _ in range(3))
            assert server.counts[fault] > 0

    def test_a_server_that_sends_half_a_shard(self, packed: Path) -> None:
        with (
            FaultyServer(packed, lambda _, p: "truncate" if p.endswith(".tar") else "") as server,
            PairLoader(config_of(f"{server.url}/lasot"), batch_size=5) as loader,
            pytest.raises(StorageError, match=r"lasot-\d+\.tar: damaged or cut off") as caught,
        ):
            run_all(loader)
        assert "object at" not in str(caught.value)

    def test_a_server_that_is_away_for_some_tries(
        self, packed: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("loaders.sources.PAUSE_S", 0.001)
        with (
            FaultyServer(packed) as server,
            PairLoader(config_of(packed / "lasot"), batch_size=5) as local,
            PairLoader(config_of(f"{server.url}/lasot", timeout_s=100), batch_size=5) as loader,
        ):
            left: Iterator[Fault] = iter(["drop"] * 8)
            server.schedule = lambda *_: next(left, "")
            assert all(equal(next(loader), next(local)) for _ in range(5))
            assert server.counts["drop"] == 8

    def test_urls_are_checked_and_no_message_names_a_password(self) -> None:
        for url in ("http://me:secret@127.0.0.1:9/lasot?sig=secret", "s3://me:secret@bucket/x"):
            with pytest.raises(FormatError) as caught:
                PairLoader(config_of(url), batch_size=5)
            assert "secret" not in str(caught.value)

    @pytest.fixture
    def server(self, packed: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
        monkeypatch.setattr(_Plain, "stall", threading.Event())
        handler = partial(_Plain, directory=str(packed))
        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
            thread = threading.Thread(target=server.serve_forever, args=(0.01,))
            thread.start()
            yield f"http://127.0.0.1:{server.server_port}"
            _Plain.stall.set()
            server.shutdown()
            thread.join()

    def test_the_same_batches_as_from_a_folder(self, server: str, packed: Path) -> None:
        for path in ("", "/lasot"):
            with (
                PairLoader(config_of(f"{packed}{path}"), batch_size=5) as local,
                PairLoader(config_of(server + path), batch_size=5) as loader,
            ):
                assert all(equal(next(loader), next(local)) for _ in range(6))
                assert loader.state_dict() == local.state_dict()

    def test_a_reply_that_breaks_off_is_asked_for_again(
        self, server: str, packed: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(_Plain, "cut", "lasot-000001.tar")
        monkeypatch.setattr(_Plain, "cuts", [0.5, 0.8])
        monkeypatch.setattr(_Plain, "rest", 0)
        _Plain.stall.set()
        monkeypatch.setattr("loaders.sources.PAUSE_S", 0.001)
        with (
            PairLoader(config_of(f"{packed}/lasot"), batch_size=5) as local,
            PairLoader(config_of(f"{server}/lasot"), batch_size=5) as loader,
        ):
            assert all(equal(next(loader), next(local)) for _ in range(5))
        assert _Plain.cuts == []

    def test_a_busy_server_is_asked_again_and_a_forbidden_file_is_not(
        self, server: str, packed: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("loaders.sources.PAUSE_S", 0.001)
        monkeypatch.setattr(_Plain, "refusals", [503, 503, 429])
        PairLoader(config_of(f"{server}/lasot"), batch_size=5).close()
        assert _Plain.refusals == []
        monkeypatch.setattr(_Plain, "refusals", [503] * 1000)
        monkeypatch.setattr("loaders.sources.OPENING_S", 0.3)
        with pytest.raises(StorageError, match=r"503 .*asked \d+ times"):
            PairLoader(config_of(f"{server}/lasot"), batch_size=5)
        monkeypatch.setattr(_Plain, "refusals", [403])
        with pytest.raises(StorageError, match="403 "):
            PairLoader(config_of(f"{server}/lasot"), batch_size=5)

    @pytest.mark.parametrize("stalls", [True, False])
    def test_a_reply_that_stalls_or_ends_early(
        self, server: str, stalls: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(_Plain, "cut", "lasot-000001.tar")
        if not stalls:
            _Plain.stall.set()
        config = config_of(f"{server}/lasot", timeout_s=1.5)
        monkeypatch.setattr("loaders.sources.PAUSE_S", 0.001)
        complaint = "cannot be read at byte|no batch within" if stalls else "early .asked"
        with (
            PairLoader(config, batch_size=5) as loader,
            pytest.raises(StorageError, match=complaint),
        ):
            run_all(loader)

    def test_nothing_there(self, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
        with pytest.raises(DataError, match=r"no manifest\.json there"):
            PairLoader(config_of(f"{server}/nowhere"), batch_size=5)
        monkeypatch.setattr("loaders.sources.OPENING_S", 0.3)
        with pytest.raises(StorageError, match="cannot be read"):
            PairLoader(config_of("http://127.0.0.1:9/lasot"), batch_size=5)


@pytest.mark.slow
def test_an_object_store_gives_the_same_batches(
    packed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from s3_server import BUCKET, client, s3_server

    with s3_server() as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        store = client(environment)
        for path in (packed / "lasot").iterdir():
            if path.is_file():
                store.upload_file(str(path), BUCKET, f"data/lasot/{path.name}")
        with (
            PairLoader(config_of(packed / "lasot"), batch_size=5) as local,
            PairLoader(config_of(f"s3://{BUCKET}/data/lasot"), batch_size=5) as loader,
        ):
            assert all(equal(next(loader), next(local)) for _ in range(3))
        with pytest.raises(DataError, match=r"no manifest\.json there"):
            PairLoader(config_of(f"s3://{BUCKET}/nothing"), batch_size=5)


@pytest.mark.slow
def test_training_from_a_command(packed: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "train.py", "--config", "spm_alexnet.yaml", "--steps", "2", "--allow-pipe",
         "--data", f"pipe:cat {packed}/{{}}", "--out", str(tmp_path / "run"),
         *(f"--set={one}" for one in (
             "data.storage=sequential", "data.backend=cpu", "data.pairs_per_epoch=16",
             "model.width=0.05", "model.init=random", "train.batch_size=4", "train.threads=1"))],
        capture_output=True, text=True, cwd=Path(train.__file__).parent,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "storage sequential" in done.stdout
    assert "pipe:" not in (tmp_path / "run" / "config.yaml").read_text()


def test_the_benchmark_compares_both_ways(packed: Path, tmp_path: Path) -> None:
    run = measure_sequential(tmp_path, packed, 200, "command", lambda _: None, windows=(1, 8))
    assert [one["name"] for one in run["data"]] == ["coco", "lasot"]
    lasot = run["data"][1]
    assert lasot["windows"][0]["positive_share"] == 1 > lasot["plan"]["positive_share"]
    assert 0 <= lasot["windows"][0]["gap_variation"] <= 1
    assert len(sequential_rows(run)) == 6
    assert Manifest.read(packed / "lasot").counts["tracks"] == lasot["tracks"]
