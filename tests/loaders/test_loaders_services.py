"""Remote shards from nginx, and waits of a minute: `make test-services`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import synthetic
from test_loaders_loader import config_of, equal

from benchmarks import report
from benchmarks.faulty_server import FAULTS, FaultyServer, seeded
from benchmarks.nginx import ABSENT, nginx, nginx_there
from benchmarks.remote import RemoteCase, measure_remote
from loaders.loader import PairLoader
from loaders.remote import RemoteConfig

pytestmark = pytest.mark.services
needs_nginx = pytest.mark.skipif(not nginx_there(), reason=ABSENT)


@pytest.fixture
def origin(packed: Path) -> Iterator[str]:
    with nginx(packed) as url:
        yield url


@needs_nginx
@pytest.mark.parametrize("share", [0.0, 0.03])
def test_the_same_batches_from_nginx(
    packed: Path, origin: str, tmp_path: Path, share: float
) -> None:
    limits = RemoteConfig(cache_dir=str(tmp_path), timeout_s=0.5, deadline_s=20)
    with (
        FaultyServer(origin, seeded(dict.fromkeys(FAULTS, share)), 0.03) as server,
        PairLoader(config_of(packed), batch_size=4) as local,
        PairLoader(config_of(server.url, remote=limits), batch_size=4) as remote,
    ):
        for _ in range(12):
            assert equal(next(remote), next(local))
    assert (len(server.counts) > 5) == (share > 0)


@needs_nginx
def test_the_benchmark_of_remote_shards(tmp_path: Path) -> None:
    synthetic.pack(tmp_path, sequences=20, frames=40, per_shard=5)
    case = RemoteCase(
        data=str(tmp_path / "lasot"), batches=6, repeats=1, pairs_per_s=60, most_repeats=1
    )
    run = measure_remote(case, "a test", lambda _: None)
    assert run["config"]["server"] == "nginx"
    assert 0 < run["data"]["repeated_share"] < 1
    section = report.remote_section({**run, "command": "c"})
    assert "nginx behind a server of ours that answers 30 ms late and refuses 1 %" in section
    assert "Of the 960 pictures that a run reads" in section
    values = {claim["key"]: claim["summary"]["median"] for claim in run["claims"]}
    assert 0.5 < values["bytes_ratio"] <= 1.3
    assert values["warm_bytes_ratio"] < 0.2
    assert 0.5 < values["cpu_ratio"] < 5


@pytest.mark.timeout(180)
def test_the_defaults_survive_a_storage_that_stalls_for_a_minute(
    packed: Path, tmp_path: Path
) -> None:
    with (
        FaultyServer(packed) as server,
        PairLoader(config_of(packed), batch_size=4) as local,
        PairLoader(
            config_of(server.url, remote=RemoteConfig(cache_dir=str(tmp_path))), batch_size=4
        ) as remote,
    ):
        end = time.monotonic() + 60
        server.schedule = lambda *_: "stall" if time.monotonic() < end else ""
        for _ in range(12):
            assert equal(next(remote), next(local))
        assert 40 < time.monotonic() - end + 60 < 90
    assert server.counts["stall"] > 10
