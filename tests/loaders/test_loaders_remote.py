"""Shards behind a URL: the same batches as from disk over every fault, and never a hang."""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import synthetic
from hypothesis import given
from hypothesis import strategies as st
from s3_server import BUCKET, client, s3_server
from storage_contract import StorageContract
from test_loaders_loader import config_of, equal
from waiting import until

from benchmarks.faulty_server import FAULTS, Fault, FaultyServer, seeded
from loaders import mirror
from loaders.batch import PairBatch
from loaders.config import PairConfig
from loaders.loader import PairLoader
from loaders.origin import Origin
from loaders.remote import RUN_BYTES, WASTE, Remote, RemoteConfig, RemoteStorage, coalesce
from loaders.sets import default_shards, open_sets
from shards.errors import BadSample, DataError, FormatError, SiamstreamError, StorageError
from shards.index import Index
from shards.storage import Range, Storage

NUMBERS = itertools.count()


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """No thread of ours outlives a test, and no shared memory is in use that could be left."""
    before = set(threading.enumerate())
    yield
    assert {one.name for one in set(threading.enumerate()) - before} == set()
    assert "/dev/shm" not in Path("/proc/self/maps").read_text()


@pytest.fixture
def calm(tmp_path: Path) -> RemoteConfig:
    """A cache of one's own, and so much time that a slow machine asks for nothing twice."""
    return RemoteConfig(
        cache_dir=str(tmp_path / "cache"), timeout_s=30, deadline_s=100, connections=8
    )


@pytest.fixture
def quick(calm: RemoteConfig) -> RemoteConfig:
    """The same for servers that stall."""
    return replace(calm, timeout_s=0.5)


@pytest.fixture
def server(packed: Path) -> Iterator[FaultyServer]:
    with FaultyServer(packed) as running:
        yield running


def tar_bytes(server: FaultyServer) -> int:
    """Bytes of shards that were asked for."""
    total = 0
    for path, asked in server.paths:
        if path.endswith(".tar") and asked:
            first, last = asked.removeprefix("bytes=").split("-")
            total += int(last) + 1 - int(first)
    return total


def batches(config: PairConfig, count: int = 3, size: int = 4) -> list[PairBatch]:
    with PairLoader(config, batch_size=size) as loader:
        return [next(loader) for _ in range(count)]


def same(a: list[PairBatch], b: list[PairBatch]) -> bool:
    return len(a) == len(b) and all(equal(x, y) for x, y in zip(a, b, strict=True))


class TestOverHttp(StorageContract):
    @pytest.fixture
    def make(
        self, tmp_path: Path, calm: RemoteConfig
    ) -> Iterator[Callable[[dict[str, bytes]], Storage]]:
        with FaultyServer(tmp_path) as server:
            remote = Remote(server.url, calm)

            def storage(files: dict[str, bytes]) -> Storage:
                for name, data in files.items():
                    (tmp_path / name).write_bytes(data)
                return RemoteStorage(remote.origin, remote, "content")

            yield storage
            remote.close()


@pytest.fixture(scope="module")
def s3() -> Iterator[dict[str, str]]:
    with s3_server() as environment:
        yield environment


@pytest.mark.slow
class TestOverS3(StorageContract):
    @pytest.fixture
    def make(
        self, s3: dict[str, str], calm: RemoteConfig, monkeypatch: pytest.MonkeyPatch
    ) -> Iterator[Callable[[dict[str, bytes]], Storage]]:
        for name, value in s3.items():
            monkeypatch.setenv(name, value)
        prefix = f"contract/{next(NUMBERS)}"
        remote = Remote(f"s3://{BUCKET}/{prefix}", calm)

        def storage(files: dict[str, bytes]) -> Storage:
            for name, data in files.items():
                client(s3).put_object(Bucket=BUCKET, Key=f"{prefix}/{name}", Body=data)
            return RemoteStorage(remote.origin, remote, "content")

        yield storage
        remote.close()


@given(
    st.lists(
        st.builds(
            Range,
            st.sampled_from(["a", "b"]),
            st.integers(0, 3 * RUN_BYTES),
            st.integers(1, RUN_BYTES // 2),
        )
    )
)
def test_runs_hold_every_range_once_and_waste_little(ranges: list[Range]) -> None:
    runs = coalesce(ranges)
    assert sorted(itertools.chain(*runs)) == sorted(set(ranges))
    for run in runs:
        assert len({one.file for one in run}) == 1
        end, wanted = run[0].offset, 0
        for one in run:
            wanted += max(0, one.offset + one.size - max(end, one.offset))
            end = max(end, one.offset + one.size)
        assert end - run[0].offset <= max(RUN_BYTES, run[0].size)
        assert end - run[0].offset <= (1 + WASTE) * wanted + 1e-6


def test_neighbours_are_one_request() -> None:
    near = [Range("a", 0, 1000), Range("a", 1200, 1000), Range("a", 2200, 1000)]
    assert coalesce(reversed(near)) == [near]
    assert len(coalesce([Range("a", 0, 1000), Range("a", 1500, 1000)])) == 2
    assert len(coalesce([Range("a", 0, 1000), Range("b", 1000, 1000)])) == 2


@pytest.mark.parametrize("fault", FAULTS)
def test_the_same_batches_over_each_fault(
    packed: Path, server: FaultyServer, quick: RemoteConfig, fault: Fault
) -> None:
    expected = batches(config_of(packed))
    server.schedule = seeded({fault: 0.15}, seed=3)
    found = batches(config_of(server.url, remote=replace(quick, cache_gb=0)))
    assert same(found, expected)
    assert server.counts[fault] > 0


@pytest.mark.parametrize("backend", ["cpu", "dali-cpu"])
@pytest.mark.parametrize("seed", [1, 2])
def test_the_same_batches_over_all_faults_together(
    packed: Path, server: FaultyServer, quick: RemoteConfig, backend: str, seed: int
) -> None:
    """With answers 30 ms late, through a cache that holds half of what is read already."""
    expected = batches(config_of(packed, backend), count=8)
    config = config_of(server.url, backend, remote=quick)
    batches(config, count=3)
    server.schedule, server.delay_s = seeded(dict.fromkeys(FAULTS, 0.03), seed), 0.03
    assert same(batches(config, count=8), expected)


@pytest.mark.slow
@pytest.mark.parametrize("faults", [{}, dict.fromkeys(FAULTS, 0.02)])
def test_the_same_batches_from_s3(
    packed: Path,
    s3: dict[str, str],
    quick: RemoteConfig,
    monkeypatch: pytest.MonkeyPatch,
    faults: dict[Fault, float],
) -> None:
    for file in packed.rglob("*"):
        if file.is_file() and ".parts" not in file.parts:
            key = f"sets/{file.relative_to(packed)}"
            client(s3).upload_file(str(file), BUCKET, key)
    for name, value in s3.items():
        monkeypatch.setenv(name, value)
    expected = batches(config_of(packed))
    with FaultyServer(s3["AWS_ENDPOINT_URL"], seeded(faults)) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        for place in ("sets", "sets/"):
            config = config_of(f"s3://{BUCKET}/{place}", remote=quick)
            assert same(batches(config), expected)
        with pytest.raises(DataError, match="has no packed data set"):
            open_sets(config_of(f"s3://{BUCKET}/elsewhere", remote=quick))
        with pytest.raises(StorageError, match="there is no such bucket"):
            open_sets(config_of("s3://no-such-bucket/x", remote=quick))


@pytest.mark.parametrize("scheme", ["gs", "az", "s3"])
def test_every_scheme_without_keys(
    packed: Path,
    tmp_path: Path,
    calm: RemoteConfig,
    monkeypatch: pytest.MonkeyPatch,
    scheme: str,
) -> None:
    shutil.copytree(packed / "lasot", tmp_path / "bucket" / "lasot")
    with FaultyServer(tmp_path) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        monkeypatch.setenv("AWS_SKIP_SIGNATURE", "true")
        monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "account")
        monkeypatch.setenv("AZURE_STORAGE_ENDPOINT", server.url)
        monkeypatch.setenv("AZURE_SKIP_SIGNATURE", "true")
        key = {"gcs_base_url": server.url, "disable_oauth": True, "client_email": ""}
        key |= {"private_key": "", "private_key_id": ""}
        monkeypatch.setenv("GOOGLE_SERVICE_ACCOUNT_KEY", json.dumps(key))
        config = config_of(f"{scheme}://bucket/lasot", remote=calm)
        assert same(batches(config), batches(config_of(packed / "lasot")))


@pytest.mark.parametrize("backend", ["cpu", "dali-cpu"])
def test_resume_at_every_step(server: FaultyServer, calm: RemoteConfig, backend: str) -> None:
    config = config_of(server.url, backend, remote=calm)
    with PairLoader(config, batch_size=5) as loader:
        expected, states = [], [loader.state_dict()]
        for _ in range(7):  # into the next epoch
            expected.append(next(loader))
            states.append(loader.state_dict())
        for step in range(7):
            loader.load_state_dict(states[step])
            assert equal(next(loader), expected[step])
    for step in (0, 3, 6):
        with PairLoader(config, batch_size=5) as loader:
            loader.load_state_dict(states[step])
            assert equal(next(loader), expected[step])


def test_a_pause_of_the_storage_is_survived(
    packed: Path, server: FaultyServer, quick: RemoteConfig
) -> None:
    config = config_of(server.url, remote=quick)
    expected = batches(config_of(packed))
    with PairLoader(config, batch_size=4) as loader:
        found = [next(loader)]
        end = time.monotonic() + 1.5
        server.schedule = lambda *_: "stall" if time.monotonic() < end else ""
        found += [next(loader), next(loader)]
    assert same(found, expected)


@pytest.mark.parametrize("fault", ["stall", "freeze", "refuse", "drop", "truncate"])
def test_a_storage_that_does_not_come_back_is_an_error_in_time(
    server: FaultyServer, quick: RemoteConfig, fault: Fault
) -> None:
    limits = replace(quick, timeout_s=0.3, deadline_s=1.0, cache_gb=0)
    config = config_of(server.url, remote=limits, prefetch=1)
    with PairLoader(config, batch_size=4) as loader:
        server.schedule = lambda *_: fault
        with pytest.raises(StorageError) as caught:
            next(loader)
    text = str(caught.value)
    assert text.startswith(("bytes ", server.url))
    assert server.url in text
    assert "data.remote.deadline_s" in text
    assert "\n" not in text


def test_closing_while_everything_stalls_is_quick(
    server: FaultyServer, quick: RemoteConfig
) -> None:
    config = config_of(server.url, "dali-cpu", remote=replace(quick, deadline_s=200))
    loader = PairLoader(config, batch_size=4)
    server.schedule = lambda *_: "stall"
    errors: list[StorageError] = []

    def ask() -> None:
        try:
            next(loader)
        except StorageError as error:
            errors.append(error)

    asked = threading.Thread(target=ask)
    asked.start()
    assert until(lambda: server.counts["stall"])
    loader.close()
    asked.join(100)  # half the deadline
    assert len(errors) == 1


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("file:///etc", "a folder or one of"),
        ("s3://bucket/../other", "expected s3://bucket/prefix"),
        ("http://host/a?key=secret", "expected http://host/prefix"),
        ("https:///x", "expected https://host/prefix"),
        ("s3://key:secret@bucket/x", "credentials come from the environment"),
        ("ftp://user:secret@host/x", "a folder or one of"),
    ],
)
def test_urls_that_are_not_read(calm: RemoteConfig, url: str, complaint: str) -> None:
    with pytest.raises(SiamstreamError, match=complaint) as caught:
        open_sets(PairConfig(path=url, remote=calm))
    assert "secret" not in str(caught.value)


def test_no_message_names_a_password(quick: RemoteConfig) -> None:
    config = PairConfig(
        path="http://me:secret@127.0.0.1:9/x", remote=replace(quick, deadline_s=0.5)
    )
    with pytest.raises(StorageError, match=r"http://127\.0\.0\.1:9/x") as caught:
        open_sets(config)
    assert "secret" not in str(caught.value)
    assert "Connection refused" in str(caught.value)


def test_what_is_not_there_is_said_at_once(server: FaultyServer, calm: RemoteConfig) -> None:
    with pytest.raises(DataError, match=r"folders cannot be listed over HTTP"):
        open_sets(PairConfig(path=f"{server.url}/nowhere", remote=calm))
    asked = [path for path, _ in server.paths]
    assert len(asked) == len(set(asked))  # nothing twice


def test_over_http_a_parents_data_sets_are_found_by_name(
    server: FaultyServer, calm: RemoteConfig
) -> None:
    sets = open_sets(config_of(server.url, remote=calm))
    sets.close()
    assert [one.manifest.name for one in sets.sets] == ["coco", "lasot"]
    assert sets.missing == ("got10k", "trackingnet")
    assert sets.describe()["datasets"]["coco"]["folder"] == f"{server.url}/coco"


def test_a_server_without_ranges_is_named(server: FaultyServer, calm: RemoteConfig) -> None:
    sets = open_sets(config_of(server.url, remote=calm))
    server.schedule = lambda *_: "whole"
    with pytest.raises(StorageError, match="gives no byte ranges"):
        sets.sets[0].read(0)
    sets.close()


def test_bytes_that_stay_wrong_are_a_bad_sample_and_not_kept(
    server: FaultyServer, calm: RemoteConfig
) -> None:
    config = config_of(f"{server.url}/lasot", remote=calm)
    sets = open_sets(config)
    (one,) = sets.sets
    server.schedule = lambda *_: "flip"
    with pytest.raises(BadSample, match="CRC-32C") as caught:
        one.read(3)
    assert caught.value.shard == f"{server.url}/lasot/lasot-000000.tar"
    server.schedule = lambda *_: ""
    assert bytes(one.read(3)) == bytes(one.read(3))
    sets.close()


def read_all(url: str, config: RemoteConfig) -> dict[str, float]:
    """Read every picture of a data set, told ahead; figures."""
    sets = open_sets(PairConfig(path=url, remote=config))
    (one,) = sets.sets
    one.storage.will_need(one.ranges(range(len(one.index))))
    for row in range(len(one.index)):
        one.read(row)
    sets.close()
    assert sets.remote is not None
    return sets.remote.stats()


def test_the_cache_survives_a_restart_and_is_repaired(
    server: FaultyServer, calm: RemoteConfig
) -> None:
    url = f"{server.url}/lasot"
    read_all(url, calm)
    before = tar_bytes(server)
    assert before > 0
    stats = read_all(url, calm)
    assert tar_bytes(server) == before
    assert stats["cache_bytes"] > 0
    (shard,) = [path for path in shards_kept(calm) if path.name == "lasot-000001.tar"]
    right = shard.read_bytes()
    for at in (len(right) // 3, len(right) // 2):  # bits rot
        with shard.open("r+b") as handle:
            handle.seek(at)
            handle.write(bytes([right[at] ^ 1]))
    Path(f"{shards_kept(calm)[0]}.sum").write_bytes(b"")  # and a file is lost
    read_all(url, calm)
    after = tar_bytes(server)
    assert 0 < after - before < before
    assert shard.read_bytes() == right
    read_all(url, calm)
    assert tar_bytes(server) == after


def shards_kept(config: RemoteConfig) -> list[Path]:
    return sorted(Path(str(config.cache_dir), "shards").glob("*/*.tar"))


def test_another_packing_at_the_same_url_never_gets_old_bytes(
    tmp_path: Path, calm: RemoteConfig
) -> None:
    synthetic.pack(tmp_path / "a", sequences=2, frames=3)
    synthetic.pack(tmp_path / "b", sequences=2, frames=3, others=1)
    shutil.copytree(tmp_path / "a", tmp_path / "served")
    with FaultyServer(tmp_path / "served") as server:
        config = PairConfig(path=f"{server.url}/lasot", remote=calm)
        sets = open_sets(config)
        [sets.sets[0].read(row) for row in range(6)]
        shutil.rmtree(tmp_path / "served")  # replaced under the running loader
        shutil.copytree(tmp_path / "b", tmp_path / "served")
        [sets.sets[0].read(row) for row in range(6)]  # what was kept is what was indexed
        sets.close()
        fresh = open_sets(config)
        local = open_sets(PairConfig(path=str(tmp_path / "b" / "lasot")))
        for row in range(6):
            assert bytes(fresh.sets[0].read(row)) == bytes(local.sets[0].read(row))
        fresh.close()


def test_a_shard_replaced_under_a_running_loader_is_an_error(
    tmp_path: Path, calm: RemoteConfig
) -> None:
    synthetic.pack(tmp_path, sequences=2, frames=3)
    with FaultyServer(tmp_path) as server:
        sets = open_sets(PairConfig(path=f"{server.url}/lasot", remote=calm))
        (shard,) = (tmp_path / "lasot").glob("*.tar")
        shard.write_bytes(shard.read_bytes()[: 20 * 512])
        with pytest.raises(BadSample, match="truncated or of another packing"):
            sets.sets[0].read(5)
        shard.unlink()
        with pytest.raises(BadSample, match="there is no such file"):
            sets.sets[0].read(5)
        sets.close()


@pytest.mark.parametrize("gone", [False, True])
def test_pictures_that_a_remote_shard_lacks_are_replaced(
    tmp_path: Path, calm: RemoteConfig, gone: bool
) -> None:
    synthetic.pack(tmp_path, sequences=4, frames=6, per_shard=2)
    shard = tmp_path / "lasot" / "lasot-000001.tar"
    with FaultyServer(tmp_path) as server:
        config = replace(config_of(f"{server.url}/lasot"), remote=calm, max_bad_fraction=0.5)
        if gone:
            shard.unlink()
        else:
            os.truncate(shard, shard.stat().st_size - 512 * 60)
        sets = open_sets(config)
        one = sets.sets[0]
        rows = [row for row in range(len(one.index)) if one.index.file(row) == shard.name]
        one.storage.will_need(one.ranges(rows))
        outcomes = []
        for row in rows:  # neighbours in one request: what is there is read all the same
            try:
                one.read(row)
            except BadSample:
                outcomes.append("bad")
            else:
                outcomes.append("good")
        sets.close()
        assert "bad" in outcomes
        assert ("good" in outcomes) != gone
        assert outcomes == sorted(outcomes, reverse=True)


def test_a_program_that_ends_without_closing_ends_soon(tmp_path: Path, packed: Path) -> None:
    code = (
        "import sys, time\n"
        "from loaders.config import PairConfig\nfrom loaders.remote import RemoteConfig\n"
        "from loaders.sets import open_sets\n"
        "remote = RemoteConfig(cache_dir=sys.argv[2], timeout_s=600, deadline_s=900)\n"
        "sets = open_sets(PairConfig(path=sys.argv[1], remote=remote, timeout_s=2000))\n"
        "one = sets.sets[0]\none.storage.will_need(one.ranges(range(len(one.index))))\n"
        "time.sleep(0.3)\nprint('end', flush=True)\n"
    )
    with FaultyServer(packed, lambda _, path: "stall" if path.endswith(".tar") else "") as server:
        arguments = [f"{server.url}/lasot", str(tmp_path / "cache")]
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=200
        )
    assert (done.returncode, done.stdout, done.stderr) == (0, "end\n", "")


def test_what_was_announced_and_is_not_read_is_let_go(
    server: FaultyServer, calm: RemoteConfig
) -> None:
    config = replace(config_of(f"{server.url}/lasot"), remote=calm, prefetch=2)
    with PairLoader(config, batch_size=4) as loader:
        storage = loader.sets.sets[0].storage
        assert isinstance(storage, RemoteStorage)
        first = loader._batches.plan((0, 0))
        loader._batches.plan((0, 4))
        last = loader._batches.plan((0, 0))
        loader._batches.now(first, 10)
        assert storage.held > 0  # for the two that were announced later
        loader._batches.now(last, 10)  # passes over the one between
        assert storage.held == 0


def test_limits_and_folders_of_a_configuration(
    calm: RemoteConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"remote\.deadline_s is 100 and timeout_s 5"):
        PairConfig(path="s3://bucket/x", remote=calm, timeout_s=5)
    PairConfig(path="folder", remote=calm, timeout_s=5)
    PairConfig(path="s3://bucket/x", remote=calm, timeout_s=5, storage="sequential")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SIAMSTREAM_SHARDS", "s3://bucket/x")
    assert default_shards() == "s3://bucket/x"
    remote = Remote("http://host/x", replace(calm, cache_dir="~/kept"))
    remote.cache.use("set")
    remote.close()
    assert (tmp_path / "kept" / "shards" / "set").is_dir()


def test_other_folders_in_a_bucket_do_not_matter(
    calm: RemoteConfig, server: FaultyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote = Remote(server.url, calm)
    monkeypatch.setattr(remote.origin, "url", "s3://bucket")  # which can be listed
    monkeypatch.setattr(remote.origin, "folders", lambda: ["old runs", "lasot", "x%", "coco"])
    with closing(remote):
        assert len(remote.manifests(["lasot"], only=True)) == 1
        assert len(remote.manifests(["lasot"], only=False)) == 2


def test_bytes_fetched_are_little_more_than_a_pair_needs(
    packed: Path, server: FaultyServer, calm: RemoteConfig
) -> None:
    config = config_of(server.url, remote=replace(calm, cache_gb=0), prefetch=2)
    with PairLoader(config, batch_size=13) as loader:
        needed = 0
        for _ in range(4):
            next(loader)
        server_bytes = loader.stats()["remote_bytes"]
        from loaders.work import prepare

        for epoch, start in [(0, 0), (0, 13), (1, 0), (1, 13), (2, 0), (2, 13)]:
            work = prepare(loader.sets, config, epoch, start, 13)
            for crops in (work.template, work.search):
                for source, row in zip(crops.sources, crops.rows, strict=True):
                    needed += int(source.index.size[row])
    indexes = sum(int(one.manifest.index["bytes"]) + 8000 for one in loader.sets.sets)
    assert server_bytes - indexes <= 1.3 * needed


def test_memory_for_bytes_ahead_is_bounded_and_freed(
    server: FaultyServer, calm: RemoteConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = replace(calm, ahead_mb=0.1, cache_gb=0, timeout_s=4, deadline_s=5)
    sets = open_sets(PairConfig(path=f"{server.url}/lasot", remote=limits))
    (one,) = sets.sets
    ranges = one.ranges(range(20))
    storage = one.storage
    assert isinstance(storage, RemoteStorage)
    storage.will_need(ranges)
    storage.will_need(ranges)  # announced twice: read twice
    assert 50_000 < storage.held <= 100_000
    first = storage.read_many(ranges)
    assert storage.held > 50_000
    assert storage.read_many(ranges) == first
    assert storage.held == 0
    storage.will_need(ranges[:2])  # never read: forgotten after a while
    assert storage.held > 0
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 11)
    storage.will_need([])
    assert storage.held == 0
    monkeypatch.undo()
    sets.close()


def test_a_full_disk_is_one_warning_and_no_error(
    packed: Path,
    server: FaultyServer,
    calm: RemoteConfig,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    config = config_of(server.url, remote=calm)
    batches(config, count=1)
    caplog.clear()

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with caplog.at_level(logging.WARNING):
        assert same(batches(config, count=6), batches(config_of(packed), count=6))
    (record,) = caplog.records
    assert "No space left on device; going on without" in record.getMessage()


def test_a_cache_folder_that_cannot_be_written(
    packed: Path,
    tmp_path: Path,
    server: FaultyServer,
    calm: RemoteConfig,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / "file").touch()
    nowhere = replace(calm, cache_dir=str(tmp_path / "file" / "cache"))
    with caplog.at_level(logging.WARNING):
        found = batches(config_of(server.url, remote=nowhere))
    assert same(found, batches(config_of(packed)))
    texts = [record.getMessage() for record in caplog.records]
    assert len(texts) == 3  # pictures once, each of two indexes once
    assert all("Not a directory" in text for text in texts)


def test_without_a_cache_nothing_but_indexes_is_kept(
    server: FaultyServer, calm: RemoteConfig
) -> None:
    batches(config_of(server.url, remote=replace(calm, cache_gb=0)))
    assert [one.name for one in Path(str(calm.cache_dir)).iterdir()] == ["indexes"]


def test_ranks_that_start_together_fetch_the_index_once(
    server: FaultyServer, calm: RemoteConfig
) -> None:
    server.delay_s = 0.05
    opened: list[object] = []

    def rank() -> None:
        sets = open_sets(PairConfig(path=f"{server.url}/lasot", remote=calm))
        opened.append(sets.sets[0].index.path)
        sets.close()

    ranks = [threading.Thread(target=rank) for _ in range(4)]
    for one in ranks:
        one.start()
    for one in ranks:
        one.join(20)
    assert len(opened) == 4
    assert sum(path.endswith("index.arrow") for path, _ in server.paths) == 1


def test_a_damaged_index_on_disk_is_fetched_again(server: FaultyServer, calm: RemoteConfig) -> None:
    config = PairConfig(path=f"{server.url}/lasot", remote=calm)
    open_sets(config).close()
    (kept,) = Path(str(calm.cache_dir), "indexes").glob("*.arrow")
    right = kept.read_bytes()
    kept.write_bytes(right[:3000] + b"x" + right[3001:])
    open_sets(config).close()
    assert kept.read_bytes() == right


def test_a_kept_index_is_hashed_only_where_it_may_have_changed(
    server: FaultyServer, calm: RemoteConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[int] = []
    digest = hashlib.file_digest

    def counted(*arguments: Any) -> Any:
        hashed.append(1)
        return digest(*arguments)

    monkeypatch.setattr("loaders.mirror.hashlib.file_digest", counted)
    config = PairConfig(path=f"{server.url}/lasot", remote=calm)
    open_sets(config).close()
    open_sets(config).close()
    assert hashed == []
    (index,) = (Path(str(calm.cache_dir)) / "indexes").glob("*.arrow")
    os.utime(index, (time.time() - 999,) * 2)
    for _ in range(2):
        open_sets(config).close()
        assert len(hashed) == 1
    index.with_suffix(".ok").write_bytes(b"\xff torn")
    open_sets(config).close()
    assert len(hashed) == 2


def test_who_waits_for_an_index_waits_while_it_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a clock of its own: bytes come for 0.8 s, then none for the 0.4 s that are the limit."""
    lock, part, now = tmp_path / "a.lock", tmp_path / "a.arrow.1.part", [0.0]
    part.write_bytes(b"")

    def sleep(seconds: float) -> None:
        now[0] += seconds
        if now[0] < 0.8:
            part.write_bytes(part.read_bytes() + b"more")

    with mirror._alone(lock, 1):
        monkeypatch.setattr(mirror, "time", SimpleNamespace(monotonic=lambda: now[0], sleep=sleep))
        with mirror._alone(lock, 0.4):
            assert 1.1 < now[0] < 1.3


def test_an_index_that_is_not_the_manifests(tmp_path: Path, calm: RemoteConfig) -> None:
    synthetic.pack(tmp_path, sequences=1, frames=2)
    path = tmp_path / "lasot" / "index.arrow"
    data = path.read_bytes()
    path.write_bytes(data[:3000] + b"x" + data[3001:])
    with (
        FaultyServer(tmp_path) as server,
        pytest.raises(FormatError, match="they are of different packings"),
    ):
        open_sets(PairConfig(path=f"{server.url}/lasot", remote=calm))
    assert list(Path(str(calm.cache_dir), "indexes").glob("*.part")) == []


def test_an_index_that_is_shorter_than_the_manifest_says(
    tmp_path: Path, calm: RemoteConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    synthetic.pack(tmp_path, sequences=1, frames=2)
    os.truncate(tmp_path / "lasot" / "index.arrow", 2000)
    monkeypatch.setattr(mirror, "PIECE_BYTES", 1000)
    with (
        FaultyServer(tmp_path) as server,
        pytest.raises(StorageError, match="truncated or of another packing"),
    ):
        open_sets(PairConfig(path=f"{server.url}/lasot", remote=calm))


def test_the_locks_and_leftovers_of_a_killed_run_harm_nobody(
    server: FaultyServer, calm: RemoteConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process is killed while it fetches; the next one finds a lock file and unfinished files."""
    server.delay_s = 0.4
    code = (
        "import sys\n"
        "from loaders.config import PairConfig\n"
        "from loaders.remote import RemoteConfig\n"
        "from loaders.sets import open_sets\n"
        "print('ready', flush=True)\n"
        "remote = RemoteConfig(cache_dir=sys.argv[2])\n"
        "sets = open_sets(PairConfig(path=sys.argv[1], remote=remote))\n"
    )
    url, cache = f"{server.url}/lasot", Path(str(calm.cache_dir))
    child = subprocess.Popen(
        [sys.executable, "-c", code, url, str(cache)], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    child.stdout.readline()
    assert until(lambda: list(cache.glob("indexes/*.lock")))
    child.send_signal(signal.SIGKILL)
    child.wait(60)
    child.stdout.close()
    server.delay_s = 0
    left = [*cache.glob("indexes/*.part"), cache / "indexes" / "dead.arrow.1.part"]
    left[-1].touch()
    with monkeypatch.context() as patch:
        patch.setattr(mirror, "_coming", lambda _: pytest.fail("it waits for the dead"))
        open_sets(PairConfig(path=url, remote=calm)).close()
    for path in left:
        os.utime(path, (1, 1))
    open_sets(PairConfig(path=url, remote=calm)).close()
    assert not any(path.exists() for path in left)
    Index(next(cache.glob("indexes/*.arrow")))


def test_a_manifest_is_believed_when_two_answers_agree(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, calm: RemoteConfig
) -> None:
    """A byte of it that is turned on the way may still be valid JSON; it has no checksum."""
    folder = tmp_path / "data"
    synthetic.pack(folder, "lasot", sequences=1, frames=2)
    good = (folder / "lasot" / "manifest.json").read_bytes()
    wrong = [good.replace(b"446", text) for text in (b"447", b"346")]
    assert len({good, *wrong}) == 3
    plain = Origin.get

    def answers(given: list[bytes]) -> None:
        left = iter(given)

        def get(self: Origin, name: str, *arguments: int) -> memoryview:
            if name != "manifest.json":
                return plain(self, name, *arguments)
            return memoryview(next(left))

        monkeypatch.setattr(Origin, "get", get)

    with FaultyServer(folder) as server:
        config = PairConfig(path=f"{server.url}/lasot", remote=calm)
        answers([wrong[0], good, wrong[1], good])
        with closing(open_sets(config)) as sets:
            assert sets.crop_size == 446
        answers([good.replace(b"446", str(n).encode()) for n in range(6)])
        with pytest.raises(FormatError, match="6 answers, all different"):
            open_sets(config)
