"""Worker processes make the same batches and the same errors, and end with the loader."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import damaged
import pytest
from loader_contract import config_of, equal
from waiting import until

from configs.strict import ConfigError
from loaders.config import PairConfig
from loaders.loader import PairLoader
from loaders.worker import Share
from loaders.workers import PlannedByWorkers, _end, _Worker
from loaders.works import open_works
from shards.errors import (
    BadSample,
    MismatchError,
    SiamstreamError,
    StorageError,
    TooManyBadSamples,
)


def processes(loader: PairLoader) -> list[subprocess.Popen[bytes]]:
    assert isinstance(loader._works, PlannedByWorkers)
    return [worker.process for worker in loader._works._team]


def drain(loader: PairLoader, count: int) -> None:
    for _ in range(count):
        next(loader)


def damages(folder: Path, *, same_crc: bool, without: tuple[str, ...] = ()) -> Path:
    rows = {3 + 7 * i: name for i, name in enumerate(damaged.DAMAGES) if name not in without}
    return damaged.pack(folder, rows, same_crc=same_crc).damaged


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sequences in which every eighth picture is damaged, as checksums tell. Read only."""
    return damages(tmp_path_factory.mktemp("broken"), same_crc=False)


@pytest.fixture(scope="module")
def packed_broken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, packed as they are: some are found by the decoder alone. Read only."""
    pictures = ("zeroed", "scrambled", "another picture")
    return damages(tmp_path_factory.mktemp("packed"), same_crc=True, without=pictures)


@pytest.mark.parametrize(
    ("backend", "workers", "rank", "world"),
    [
        ("reference", 1, 0, 1),
        ("reference", 3, 0, 1),
        ("reference", 2, 1, 3),
        ("cpu", 2, 0, 1),
        ("dali-cpu", 2, 0, 1),
    ],
)
def test_batches_are_those_of_one_process_over_epochs(
    packed: Path, backend: Any, workers: int, rank: int, world: int
) -> None:
    alone = config_of(packed, backend)
    with (
        PairLoader(alone, rank, world, batch_size=6) as one,
        PairLoader(replace(alone, workers=workers), rank, world, batch_size=6) as many,
    ):
        for _ in range(8):  # an epoch has four
            assert equal(next(many), next(one))


def test_a_loader_that_is_set_to_another_position_goes_on_there(packed: Path) -> None:
    config = config_of(packed, pairs_per_epoch=200, workers=2)
    with PairLoader(config, batch_size=4) as loader:
        batches = []
        for _ in range(9):
            state = loader.state_dict()
            batches.append((state, next(loader)))
        for at in (2, 8, 3):
            state, batch = batches[at]
            loader.load_state_dict(state)
            assert equal(next(loader), batch)


def test_a_damaged_picture_is_named(broken: Path) -> None:
    with PairLoader(config_of(broken, workers=2), batch_size=4) as loader:
        with pytest.raises(BadSample, match=r"lasot-000000.tar: ") as caught:
            drain(loader, 6)
        state = loader.state_dict()
        with pytest.raises(BadSample) as again:
            next(loader)
        assert str(again.value) == str(caught.value)
        assert loader.state_dict() == state


@pytest.mark.parametrize("data", ["broken", "packed_broken"])
def test_substitutes_are_those_of_one_process(data: str, request: pytest.FixtureRequest) -> None:
    config = config_of(request.getfixturevalue(data), max_bad_fraction=0.5)
    with (
        PairLoader(config, batch_size=8) as one,
        PairLoader(replace(config, workers=2), batch_size=8) as many,
    ):
        for _ in range(9):
            assert equal(next(many), next(one))
        assert many.stats()["bad"] == one.stats()["bad"] > 0
        assert [str(e) for e in many.bad_samples] == [str(e) for e in one.bad_samples]


def test_the_budget_is_kept(broken: Path) -> None:
    config = config_of(broken, workers=2, max_bad_fraction=0.002)
    with PairLoader(config, batch_size=1) as loader, pytest.raises(TooManyBadSamples):
        drain(loader, 26)


def test_a_worker_does_without_torch() -> None:
    code = "import sys, loaders.worker, loaders.works; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_closing_ends_the_processes(packed: Path) -> None:
    loader = PairLoader(config_of(packed, "reference", workers=2), batch_size=4)
    next(loader)
    team = processes(loader)
    assert all(process.poll() is None for process in team)
    loader.close()
    assert [process.poll() for process in team] == [0, 0]


def test_a_worker_that_is_killed_is_told_of(packed: Path) -> None:
    with PairLoader(config_of(packed, "reference", workers=1, prefetch=1), batch_size=4) as loader:
        next(loader)
        (process,) = processes(loader)
        process.kill()
        with pytest.raises(SiamstreamError, match=rf"process {process.pid} ended by signal 9"):
            drain(loader, 20)


def test_a_worker_that_hangs_does_not_keep_the_loader(packed: Path) -> None:
    config = config_of(packed, "reference", workers=2, prefetch=1)
    loader = PairLoader(config, batch_size=4)
    next(loader)  # the start of the workers may take its time
    loader.config = replace(config, timeout_s=1.0)
    team = processes(loader)
    for process in team:
        os.kill(process.pid, signal.SIGSTOP)
    with pytest.raises(StorageError, match=r"no batch within data.timeout_s=1 s"):
        drain(loader, 20)
    loader.close()
    assert gone([process.pid for process in team])


def test_a_signal_to_all_processes_is_the_owners_to_decide_on(packed: Path) -> None:
    with PairLoader(config_of(packed, "reference", workers=2), batch_size=4) as loader:
        next(loader)
        for process in processes(loader):
            os.kill(process.pid, signal.SIGTERM)
            os.kill(process.pid, signal.SIGINT)
            assert os.getpgid(process.pid) != os.getpgid(0)
        drain(loader, 20)


def test_jumps_of_one_batch_do_not_block(packed: Path) -> None:
    config = config_of(packed, "reference", workers=2, pairs_per_epoch=1000)
    works = open_works(config, 0, 1, 1)
    try:
        for number in range(300):
            consumed = (37 * number) % 900
            assert works.make(0, consumed).plan.sample.tolist() == [consumed]
    finally:
        works.close()


def test_an_error_is_that_of_its_batch_and_the_worker_goes_on(packed: Path, tmp_path: Path) -> None:
    shutil.copytree(packed, tmp_path / "data")
    hidden = tmp_path / "hidden"
    with PairLoader(
        config_of(tmp_path / "data", "reference", workers=2, prefetch=1), batch_size=4
    ) as loader:
        state = loader.state_dict()
        shards = sorted((tmp_path / "data").rglob("*.tar"))
        for shard in shards:  # before a worker has opened any
            shard.rename(hidden.with_name(f"{shard.parent.name}-{shard.name}"))
        with pytest.raises(SiamstreamError, match=r"\.tar.*not there"):
            drain(loader, 2)
        for shard in shards:
            hidden.with_name(f"{shard.parent.name}-{shard.name}").rename(shard)
        loader.load_state_dict(state)
        drain(loader, 6)


def test_data_that_were_packed_anew_are_refused(packed: Path, tmp_path: Path) -> None:
    shutil.copytree(packed, tmp_path / "data")
    config = config_of(tmp_path / "data", "reference", workers=1)
    share = Share(
        config=config, rank=0, world_size=1, batch_size=4, fingerprints={"lasot": "another"}
    )
    worker = _Worker(share)
    try:
        worker.ask((0, 0))
        with pytest.raises(MismatchError, match="other data than the loader"):
            worker.answer()
    finally:
        _end([worker], os.getpid())


def test_what_a_worker_finds_wrong_with_the_data_is_raised_here(
    packed: Path, tmp_path: Path
) -> None:
    shutil.copytree(packed, tmp_path / "data")
    with PairLoader(config_of(tmp_path / "data", "reference", workers=1), batch_size=4) as loader:
        shutil.rmtree(tmp_path / "data")
        with pytest.raises(SiamstreamError, match=r"data.*(not there|does not exist)"):
            drain(loader, 40)


SCRIPT = """
import sys
from loaders.config import PairConfig
from loaders.loader import PairLoader
loader = PairLoader(PairConfig(path=sys.argv[1], workers=2, backend="reference"), batch_size=4)
next(loader)
print(*(worker.process.pid for worker in loader._works._team), flush=True)
sys.stdin.read()
"""


def is_gone(pid: int) -> bool:
    """Whether a process has ended, be it that nobody has waited for it yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def gone(pids: list[int]) -> bool:
    return until(lambda: all(map(is_gone, pids)), 30)


@pytest.fixture
def owner(packed: Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(packed)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    yield process
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout):
        assert stream is not None
        stream.close()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, None])
def test_workers_end_with_their_process_however_it_ends(
    owner: subprocess.Popen[str], how: signal.Signals | None
) -> None:
    assert owner.stdin is not None
    assert owner.stdout is not None
    pids = [int(word) for word in owner.stdout.readline().split()]
    assert len(pids) == 2
    if how is None:
        owner.stdin.close()  # it comes to its end without closing the loader
    else:
        os.kill(owner.pid, how)
    owner.wait(60)
    assert gone(pids)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"storage": "sequential"}, "a stream is read in one process"),
        ({"storage": "zip-memory"}, "a copy of all files"),
    ],
)
def test_storages_that_workers_cannot_share_are_refused(more: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        PairConfig(workers=2, **more)


def test_data_behind_a_url_are_refused(packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from loaders import works

    class Remote:
        def close(self, wait: bool = True) -> None:
            pass

    real = works.open_sets
    monkeypatch.setattr(works, "open_sets", lambda config: replace(real(config), remote=Remote()))
    with pytest.raises(ConfigError, match="worker processes read files of this machine"):
        PairLoader(config_of(packed, "reference", workers=1), batch_size=4)
