"""Damaged samples within a budget and beyond it; files that change; reads and threads that fail."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import damaged
import pytest
import torch
from loader_contract import (
    BACKENDS,
    MOSTLY_LONG,
    Counters,
    LoaderContract,
    config_of,
    loader_of,
    take,
)
from waiting import until

from loaders.config import PairConfig
from loaders.faults import allowed
from loaders.loader import PairLoader
from loaders.sets import DataSets, open_sets
from loaders.show import pair_tiles
from loaders.works import open_works
from shards.errors import BadSample, StorageError, TooManyBadSamples
from shards.in_place import index_folder
from shards.index import Index
from shards.legacy import export_legacy
from shards.storage import LocalStorage, Range

# One row in eight; both sequences.
ROWS = {3 + 7 * i: name for i, name in enumerate(damaged.DAMAGES)}
ON_CPU = BACKENDS[:3]
TOLERANT = {"max_bad_fraction": 0.5, "template_px": 63, "search_px": 95}


@pytest.fixture(scope="module")
def wrong_crc(tmp_path_factory: pytest.TempPathFactory) -> damaged.Packed:
    """Every damage once; the index knows the pictures as they were. Read only."""
    return damaged.pack(tmp_path_factory.mktemp("wrong_crc"), ROWS, same_crc=False)


@pytest.fixture(scope="module")
def right_crc(tmp_path_factory: pytest.TempPathFactory) -> damaged.Packed:
    """Damages that were packed as they are, for which the checksum is no help. Read only."""
    rows = {
        row: name
        for row, name in ROWS.items()
        if name not in ("zeroed", "scrambled", "another picture")
    }
    return damaged.pack(tmp_path_factory.mktemp("right_crc"), rows, same_crc=True)


def whole_sets(packed: damaged.Packed, config: PairConfig) -> DataSets:
    return open_sets(replace(config, path=str(packed.whole)))


def error_of(loader: PairLoader, most: int) -> BadSample | None:
    """First error of the next batches, if one of them has one."""
    for _ in range(most):
        try:
            next(loader)
        except BadSample as error:
            return error
    return None


class TestEverySampleIsNamed:
    @pytest.mark.parametrize("name", damaged.DAMAGES)
    def test_by_its_checksum(self, wrong_crc: damaged.Packed, name: str) -> None:
        row = next(row for row, one in ROWS.items() if one == name)
        (one,) = open_sets(config_of(wrong_crc.damaged)).sets
        with pytest.raises(BadSample, match=r"CRC-32C is \w{8}, the index says \w{8}") as error:
            one.read(row)
        assert error.value.key == one.index.key(row)
        assert error.value.offset == one.index.offset[row]
        assert error.value.shard == str(wrong_crc.damaged / "lasot" / "lasot-000000.tar")

    @pytest.mark.parametrize(
        ("name", "reason"),
        [
            ("half", "cut off, a JPEG's end is missing"),
            ("200 bytes", "not decodable"),
            ("noise", "not decodable"),
            ("empty", "not decodable"),
            ("html", "not decodable"),
        ],
    )
    def test_by_its_form(self, right_crc: damaged.Packed, name: str, reason: str) -> None:
        row = next(row for row, one in ROWS.items() if one == name)
        (one,) = open_sets(config_of(right_crc.damaged)).sets
        with pytest.raises(BadSample, match=reason):
            one.read(row)

    @pytest.mark.parametrize("backend", ON_CPU)
    def test_by_the_decoder(self, right_crc: damaged.Packed, backend: str) -> None:
        config = config_of(right_crc.damaged, backend, pairs_per_epoch=400)
        row = next(row for row, one in ROWS.items() if one == "no table")
        (one,) = open_sets(config).sets
        assert len(one.read(row)) > 10_000  # no check before the decoder refuses it
        key = one.index.key(row)
        reasons = []
        with PairLoader(config, batch_size=1) as loader:
            for at in range(400):
                loader.load_state_dict({**loader.state_dict(), "epoch": 0, "consumed": at})
                error = error_of(loader, 1)
                if error is not None and error.key == key:
                    reasons.append(error.reason)
                    break
        assert reasons
        assert "not decodable" in reasons[0]

    @pytest.mark.parametrize("name", ["zeroed", "scrambled"])
    def test_packed_scrambled_in_mid_stream_it_is_a_picture(
        self, tmp_path: Path, name: str
    ) -> None:
        """Stated in the documentation: with a checksum that fits, only a decoder may notice."""
        found = damaged.pack(tmp_path, {5: name}, same_crc=True)
        (one,) = open_sets(config_of(found.damaged)).sets
        assert len(one.read(5)) > 10_000


class SubstituteContract(LoaderContract):
    """The loader's contract holds for data with damaged samples, and nobody sees one."""

    packed_name = ""

    @pytest.fixture
    def found(self, request: pytest.FixtureRequest) -> damaged.Packed:
        return request.getfixturevalue(self.packed_name)

    @pytest.fixture
    def data(self, found: damaged.Packed) -> Path:
        return found.damaged

    @pytest.fixture
    def changes(self) -> Mapping[str, Any]:
        return TOLERANT

    def test_shapes_and_types(self, config: PairConfig, found: damaged.Packed) -> None:
        """How many were replaced is told, by batch and in all."""
        with loader_of(config, batch_size=6) as loader:
            batches = [next(loader) for _ in range(4)]
            stats, named = loader.stats(), loader.bad_samples
        sets = whole_sets(found, config)
        bad = [len(damaged.attempts_of(sets, config, 0, 6 * i, 6, found.rows)) for i in range(4)]
        assert [batch.stats["bad"] for batch in batches] == bad
        assert stats["bad"] == sum(bad) >= 4
        assert stats["bad_samples"] == len(named) >= 3
        index = sets.sets[0].index
        assert {one.key for one in named} <= {index.key(row) for row in found.rows}

    def test_the_samples_are_those_of_tar_shards(
        self, config: PairConfig, found: damaged.Packed
    ) -> None:
        """And the substitutes are those that the plan names, made of whole pictures."""
        sets = whole_sets(found, config)
        for at, batch in enumerate(take(config, 5)):
            work, (z, x) = damaged.expected(sets, config, 0, 5 * at, 5, found.rows)
            assert not damaged.holds(work.plan, found.rows)
            assert torch.equal(batch.template, z)
            assert torch.equal(batch.search, x)
            assert batch.search_box.tolist() == work.search_box.tolist()
            assert batch.positive.tolist() == work.plan.positive.tolist()

    def test_no_random_number_is_used_twice(
        self, config: PairConfig, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Streams of substitutes are no others'; a batch that is made again draws its own again."""
        counters = Counters(monkeypatch)
        take(replace(config, prefetch=1), self.STEPS)
        streams = {stream for _, stream, *_ in counters.asked}
        assert {0, 1, 2, 100_000} <= streams
        assert all(stream < 7 or 100_000 <= stream < 100_032 for stream in streams)


class TestWrongChecksums(SubstituteContract):
    packed_name = "wrong_crc"


class TestPackedDamaged(SubstituteContract):
    @pytest.fixture(params=MOSTLY_LONG)
    def backend(self, request: pytest.FixtureRequest) -> str:
        return str(request.param)

    packed_name = "right_crc"


def test_backends_agree_on_what_is_replaced(right_crc: damaged.Packed) -> None:
    """Boxes are equal to the last bit, so the pairs are the same."""
    configs = [config_of(right_crc.damaged, backend, **TOLERANT) for backend in ON_CPU]
    boxes = [torch.cat([batch.search_box for batch in take(one, 5)]) for one in configs]
    assert torch.equal(boxes[0], boxes[1])
    assert torch.equal(boxes[0], boxes[2])


@pytest.mark.parametrize("backend", ON_CPU)
def test_a_failing_batch_takes_no_other_with_it(right_crc: damaged.Packed, backend: str) -> None:
    """All of them are under way at once, and come in their order."""
    config = config_of(right_crc.damaged, backend, prefetch=8)
    bad = {}
    with PairLoader(config, batch_size=2) as loader:
        for step in range(13):
            try:
                batch = next(loader)
            except BadSample as error:
                bad[step] = error
                loader.load_state_dict({**loader.state_dict(), "consumed": 2 * (step + 1) % 26})
            else:
                assert batch.sample.tolist() == [2 * step, 2 * step + 1]
    rows = right_crc.rows
    sets = whole_sets(right_crc, config)
    wanted = {step for step in range(13) if damaged.attempts_of(sets, config, 0, 2 * step, 2, rows)}
    assert set(bad) == wanted
    assert len(wanted) >= 3


class TestBudget:
    def test_how_many_are_allowed(self) -> None:
        assert [allowed(0.0, n) for n in (1, 10**9)] == [0, 0]
        assert [allowed(1e-6, n) for n in (1, 1000, 3_000_000)] == [1, 1, 3]
        assert [allowed(0.01, n) for n in (1, 1000, 1099, 1100, 5000)] == [10, 10, 10, 11, 50]

    @pytest.mark.parametrize("backend", ON_CPU)
    def test_beyond_it_is_an_error(self, wrong_crc: damaged.Packed, backend: str) -> None:
        config = config_of(wrong_crc.damaged, backend, max_bad_fraction=0.002)
        with PairLoader(config, batch_size=1) as loader:
            with pytest.raises(TooManyBadSamples) as error:
                error_of(loader, 26)
            text, before = str(error.value), loader.state_dict()
            assert loader.stats()["bad"] == 2
            pairs = int(loader.stats()["pairs"]) + 1
            assert f"3 of {pairs} pairs hold a damaged picture" in text
            assert "data.max_bad_fraction=0.002 allows 2" in text
            assert "python -m shards verify" in text
            assert "lasot-000000.tar: " in text
            with pytest.raises(TooManyBadSamples, match=f"3 of {pairs}"):
                next(loader)
            assert loader.state_dict() == before

    def test_the_first_one_never_ends_a_run(self, wrong_crc: damaged.Packed) -> None:
        config = config_of(wrong_crc.damaged, max_bad_fraction=1e-9)
        with PairLoader(config, batch_size=1) as loader:
            while not next(loader).stats["bad"]:
                pass
            assert loader.stats()["bad"] == 1

    def test_samples_are_told_of_once_and_not_without_end(
        self, wrong_crc: damaged.Packed, caplog: pytest.LogCaptureFixture,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        monkeypatch.setattr("loaders.faults.SHOWN", 4)
        config = config_of(wrong_crc.damaged, **TOLERANT)
        caplog.set_level(logging.WARNING, "siamstream.loaders")
        with PairLoader(config, batch_size=5) as loader:
            for _ in range(15):
                next(loader)
            named, replaced = loader.bad_samples, int(loader.stats()["bad"])
        assert len(named) > 4
        lines = [record.getMessage() for record in caplog.records]
        assert len(set(lines)) == len(lines) == 6
        assert all("lasot-000000.tar: " in line and "CRC-32C" in line for line in lines[:4])
        assert "further damaged samples" in lines[4]
        assert f"{replaced} of 75 pairs were replaced, because of {len(named)}" in lines[5]

    def test_when_all_is_damaged(self, tmp_path: Path) -> None:
        """Whatever is drawn instead is damaged too: an error, not a search without end."""
        found = damaged.pack(tmp_path, dict.fromkeys(range(64), "html"), same_crc=True)
        config = config_of(found.damaged, **TOLERANT)
        with (
            PairLoader(config, batch_size=5) as loader,
            pytest.raises(TooManyBadSamples, match="a pair and all its 32 substitutes"),
        ):
            next(loader)

    def test_another_budget_goes_on_from_the_same_state(self, wrong_crc: damaged.Packed) -> None:
        with PairLoader(config_of(wrong_crc.damaged), batch_size=5) as loader:
            assert error_of(loader, 5) is not None
            state = loader.state_dict()
        with PairLoader(config_of(wrong_crc.damaged, **TOLERANT), batch_size=5) as loader:
            loader.load_state_dict(state)
            assert next(loader).sample[0] == state["consumed"]


def test_show_draws_the_substitutes_of_training(wrong_crc: damaged.Packed) -> None:
    config = config_of(wrong_crc.damaged, "reference", channels_last=True, **TOLERANT)
    with closing(open_works(config, 0, 1, 1)) as works:
        tiles, positive = pair_tiles(works, config, [works.make(0, i) for i in range(5, 15)])
    with PairLoader(config, batch_size=5) as loader:
        batches = [next(loader) for _ in range(3)][1:]
    searches = torch.cat([batch.search for batch in batches]).permute(0, 2, 3, 1).numpy()
    for tile, search in zip(tiles, searches, strict=True):
        assert (tile.picture[:95, 63:] == search).all()
    assert positive == sum(int(batch.positive.sum()) for batch in batches)
    assert sum(batch.stats["bad"] for batch in batches) >= 2
    strict = replace(config, max_bad_fraction=0.0)
    with closing(open_works(strict, 0, 1, 1)) as works, pytest.raises(BadSample):
        pair_tiles(works, strict, [works.make(0, i) for i in range(20)])


class TestFilesThatChange:
    """While a loader runs: an error that names the sample, or the pictures as they were."""

    @pytest.fixture
    def data(self, tmp_path: Path, wrong_crc: damaged.Packed) -> Path:
        shutil.copytree(wrong_crc.whole, tmp_path / "data")
        return tmp_path / "data"

    def shard(self, data: Path) -> Path:
        return data / "lasot" / "lasot-000000.tar"

    def until_an_error(self, loader: PairLoader) -> BadSample:
        error = error_of(loader, 26)
        assert error is not None
        return error

    def test_a_shard_that_is_truncated(self, data: Path) -> None:
        with PairLoader(config_of(data), batch_size=2) as loader:
            next(loader)
            os.truncate(self.shard(data), 700_000)
            error = self.until_an_error(loader)
        assert "it is truncated" in error.reason
        assert error.offset > 600_000

    def test_a_truncated_shard_costs_its_samples_only(self, data: Path) -> None:
        size = self.shard(data).stat().st_size
        config = config_of(data, **TOLERANT)
        with PairLoader(config, batch_size=2) as loader:
            next(loader)
            os.truncate(self.shard(data), int(size * 0.8))
            for _ in range(26):
                next(loader)
            assert 2 <= loader.stats()["bad"] <= 40

    def test_a_shard_that_is_written_over(self, data: Path, wrong_crc: damaged.Packed) -> None:
        with PairLoader(config_of(data), batch_size=2) as loader:
            next(loader)
            size = self.shard(data).stat().st_size
            with self.shard(data).open("r+b") as handle:
                handle.write(bytes(size))
            error = self.until_an_error(loader)
        assert "CRC-32C" in error.reason
        assert "the file was written to since it was opened" in error.reason

    def test_a_shard_that_is_replaced(self, data: Path) -> None:
        """What is open stays what it was; who opens it anew finds that it is another."""
        expected = take(config_of(data), 4)
        with PairLoader(config_of(data, prefetch=1), batch_size=5) as loader:
            next(loader)
            other = data / "other.tar"
            other.write_bytes(self.shard(data).read_bytes()[:-10240][::-1] + bytes(10240))
            other.rename(self.shard(data))
            for wanted in expected[1:]:
                assert torch.equal(next(loader).search, wanted.search)
        with PairLoader(config_of(data), batch_size=5) as loader:
            error = self.until_an_error(loader)
        assert "the file is newer than the index" in error.reason

    def test_a_shard_that_is_deleted(self, data: Path) -> None:
        config = config_of(data, prefetch=1)
        expected = take(config, 2)
        with PairLoader(config, batch_size=5) as loader:
            next(loader)
            self.shard(data).unlink()
            assert torch.equal(next(loader).search, expected[1].search)
        with PairLoader(config, batch_size=5) as loader:
            assert "it is not there" in self.until_an_error(loader).reason

    @pytest.mark.parametrize("content", [None, b"", b"\xff\xd8" * 100])
    def test_files_of_a_folder(self, data: Path, tmp_path: Path, content: bytes | None) -> None:
        """Deleted, emptied or cut short, each is one damaged sample."""
        old = export_legacy(data / "lasot", tmp_path / "old")
        crops = tmp_path / "crops"
        shutil.unpack_archive(old.zip, crops)
        index_folder(crops, old.pickle, tmp_path / "files" / "lasot", name="lasot", grid="edge")
        expected = take(config_of(data), 5)
        index = Index(tmp_path / "files" / "lasot")
        for row in (3, 20, 40):
            path = tmp_path / "files" / "lasot" / index.file(row)
            path.unlink()
            if content is not None:
                path.write_bytes(content)
        config = config_of(tmp_path / "files", storage="files", **TOLERANT)
        with PairLoader(config, batch_size=5) as loader:
            found = [next(loader) for _ in range(5)]
            assert {one.key for one in loader.bad_samples} <= {index.key(r) for r in (3, 20, 40)}
            assert loader.stats()["bad"] >= 1
        same = [torch.equal(a.search, b.search) for a, b in zip(found, expected, strict=True)]
        assert same == [not batch.stats["bad"] for batch in found]
        # Every crop is a file, so all offsets are 0: only the damaged one of a pair is remembered.
        rows = frozenset({3, 20, 40})
        with PairLoader(config_of(data), batch_size=5) as whole:
            sets, plain = whole.sets, config_of(data)
            bad = [len(damaged.attempts_of(sets, plain, 0, 5 * i, 5, rows)) for i in range(5)]
        assert [batch.stats["bad"] for batch in found] == bad


class Stalling:
    """A storage whose reads wait until they are let go."""

    def __init__(self, storage: LocalStorage) -> None:
        self._storage, self.waiting, self.release = storage, threading.Event(), threading.Event()
        self.ended = threading.Event()

    def size(self, file: str) -> int:
        return self._storage.size(file)

    def read_many(self, ranges: Sequence[Range]) -> list[memoryview]:
        self.waiting.set()
        self.release.wait(60)
        self.ended.set()
        return self._storage.read_many(ranges)

    def will_need(self, ranges: Sequence[Range]) -> None:
        self._storage.will_need(ranges)


@pytest.mark.parametrize("backend", ON_CPU)
class TestAStorageThatStalls:
    @pytest.fixture
    def stalling(
        self, wrong_crc: damaged.Packed, monkeypatch: pytest.MonkeyPatch
    ) -> Iterator[Stalling]:
        storage = Stalling(LocalStorage(wrong_crc.whole / "lasot"))
        monkeypatch.setattr("loaders.sets.open_storage", lambda *_: storage)
        yield storage
        storage.release.set()
        ours = ("planner", "decode")
        assert until(lambda: not any(one.name.startswith(ours) for one in threading.enumerate()))

    def test_is_an_error_in_time_and_closing_does_not_wait(
        self, stalling: Stalling, wrong_crc: damaged.Packed, backend: str,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        monkeypatch.setattr("loaders.loader.CLOSE_S", 600)
        loader = PairLoader(config_of(wrong_crc.whole, backend, timeout_s=0.3), batch_size=4)
        with pytest.raises(StorageError, match=r"no batch within data\.timeout_s=0\.3 s"):
            next(loader)
        loader.close()
        assert not stalling.ended.is_set()

    def test_closing_before_anyone_noticed(
        self, stalling: Stalling, wrong_crc: damaged.Packed, backend: str,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        monkeypatch.setattr("loaders.loader.CLOSE_S", 0.3)
        loader = PairLoader(config_of(wrong_crc.whole, backend), batch_size=4)
        loader._fill()
        assert stalling.waiting.wait(60)
        loader.close()
        assert not stalling.ended.is_set()

    def test_what_was_only_late_still_comes(
        self, stalling: Stalling, wrong_crc: damaged.Packed, backend: str,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        config = config_of(wrong_crc.whole, backend, timeout_s=0.3)
        with PairLoader(config, batch_size=4) as loader:
            with pytest.raises(StorageError, match="no batch within"):
                next(loader)
            stalling.release.set()
            monkeypatch.setattr(loader, "config", replace(config, timeout_s=100))
            assert next(loader).sample.tolist() == [0, 1, 2, 3]


def test_a_thread_that_is_out_of_memory(
    wrong_crc: damaged.Packed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its error arrives at once and says where, now and when asked again."""
    from loaders.cpu import Bench

    config = config_of(wrong_crc.whole)

    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(Bench, "decode", fail)
    with PairLoader(config, batch_size=5) as loader:
        for _ in range(2):
            with pytest.raises(MemoryError) as error:
                next(loader)
            assert "epoch 0, samples from 0" in error.value.__notes__[0]


def start(body: str, *words: str) -> subprocess.Popen[str]:
    """Run a script in a process of its own."""
    head = """
        import sys, threading
        from loaders.config import PairConfig
        from loaders.loader import PairLoader
        small = {"template_px": 63, "search_px": 95, "threads": 2, "backend": "cpu"}
    """
    script = textwrap.dedent(head) + textwrap.dedent(body)
    return subprocess.Popen(
        [sys.executable, "-c", script, *words], text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


@pytest.mark.slow
class TestProcesses:
    def test_a_read_that_never_ends_does_not_keep_the_process(
        self, wrong_crc: damaged.Packed
    ) -> None:
        body = """
            from loaders.sets import DataSet
            DataSet.read = lambda self, row: threading.Event().wait()
            with PairLoader(PairConfig(path=sys.argv[1], timeout_s=0.5, **small)) as loader:
                next(loader)
        """
        process = start(body, str(wrong_crc.whole))
        _, err = process.communicate(timeout=200)
        assert process.returncode == 1, err
        assert "no batch within data.timeout_s=0.5 s" in err

    def test_files_that_change_kill_nobody(self, wrong_crc: damaged.Packed, tmp_path: Path) -> None:
        body = """
            import os, pathlib
            for change in ("truncate", "replace", "unlink"):
                folder = pathlib.Path(sys.argv[1], change)
                shard = folder / "lasot" / "lasot-000000.tar"
                config = PairConfig(path=str(folder), max_bad_fraction=0.5, **small)
                with PairLoader(config, batch_size=4) as loader:
                    for step in range(60):
                        if step == 20 and change == "truncate":
                            os.truncate(shard, 1_300_000)
                        if step == 20 and change == "unlink":
                            shard.unlink()
                        if step == 20 and change == "replace":
                            shard.with_name("x").write_bytes(os.urandom(3_000_000))
                            shard.with_name("x").rename(shard)
                        next(loader)
                    print(change, int(loader.stats()["bad"]), flush=True)
        """
        for change in ("truncate", "replace", "unlink"):
            shutil.copytree(wrong_crc.whole, tmp_path / change)
        process = start(body, str(tmp_path))
        out, err = process.communicate(timeout=200)
        assert process.returncode == 0, out + err
        bad = {line.split()[0]: int(line.split()[1]) for line in out.splitlines()}
        assert bad.pop("truncate") > 0
        assert bad == {"replace": 0, "unlink": 0}  # the open file is still whole

    def test_after_a_kill_nothing_is_left_and_the_next_run_works(
        self, wrong_crc: damaged.Packed
    ) -> None:
        before = set((wrong_crc.whole / "lasot").iterdir())
        body = """
            with PairLoader(PairConfig(path=sys.argv[1], **small)) as loader:
                while True:
                    next(loader)
                    print("batch", flush=True)
        """
        process = start(body, str(wrong_crc.whole))
        assert process.stdout is not None
        for _ in range(3):
            assert process.stdout.readline() == "batch\n"
        held = Path(f"/proc/{process.pid}/maps").read_text()
        held += " ".join(map(os.readlink, Path(f"/proc/{process.pid}/fd").iterdir()))
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=200)
        assert process.returncode == -signal.SIGKILL
        assert "/dev/shm" not in held  # others' files come and go there: only its own count
        assert set((wrong_crc.whole / "lasot").iterdir()) == before
        assert take(config_of(wrong_crc.whole), 1)[0].sample.tolist() == [0, 1, 2, 3, 4]
