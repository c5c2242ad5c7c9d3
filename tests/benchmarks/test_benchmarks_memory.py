"""Promises about memory: real shards of few pictures, honest shares, a soak that sees growth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from benchmarks import memory, result
from benchmarks.case import Case
from benchmarks.cli import main
from benchmarks.contestants import Entry
from benchmarks.memory import claims, measure_memory, repeated_pictures, soak_facts
from benchmarks.report_blocks import markdown
from benchmarks.report_kinds import memory_blocks
from benchmarks.runner import Outcome
from shards.errors import MismatchError, StorageError
from shards.index import Index
from shards.verify import verify


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "TRACK_FRAMES", 4)
    monkeypatch.setattr(memory, "DISTINCT_TRACKS", 2)
    monkeypatch.setattr(memory, "SHARD_TRACKS", 2)


@pytest.mark.usefixtures("small")
def test_repeated_pictures_are_valid_shards_of_the_size(tmp_path: Path) -> None:
    manifest = repeated_pictures(tmp_path / "m", 0.0008)
    size = sum(shard.bytes for shard in manifest.shards)
    assert size == pytest.approx(0.0008e9, rel=0.2)
    assert len(manifest.shards) > 1
    assert verify(tmp_path / "m", workers=1).ok
    crc = Index(tmp_path / "m").crc
    assert len(set(crc.tolist())) == 8
    np.testing.assert_array_equal(crc[:4], crc[8:12])
    assert repeated_pictures(tmp_path / "m", 0.0008).counts == manifest.counts
    with pytest.raises(MismatchError, match="holds other data"):
        repeated_pictures(tmp_path / "m", 0.1)


def _series(minutes: float, mb: Any) -> list[tuple[float, int]]:
    return [(at, int(1e6 * mb(at / 60))) for at in np.arange(0, 60 * minutes, 2.0)]


def test_a_soak_that_grows_is_seen() -> None:
    flat = soak_facts(_series(10, lambda minute: 400 + 3 * np.sin(40 * minute)))
    assert abs(flat["growth_mb"]) < 2
    assert abs(flat["slope_mb_per_min"]) < 0.2
    growing = soak_facts(_series(10, lambda minute: 400 + 5 * minute))
    assert growing["slope_mb_per_min"] == pytest.approx(5)
    assert growing["growth_mb"] == pytest.approx(5 * 10 * 2 / 3, rel=0.05)
    assert growing["minutes"] == pytest.approx(10, rel=0.01)
    start = soak_facts(_series(2, lambda minute: 100 if minute < 1 / 6 else 400))
    assert start["growth_mb"] == 0  # queues that fill are no growth
    with pytest.raises(ValueError, match="soak longer"):
        soak_facts(_series(0.2, lambda _: 1))


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("keep", [True, False])
def test_shares_are_of_whole_process_trees(tmp_path: Path, keep: bool) -> None:
    cases: list[tuple[str, Case]] = []

    def once(entry: Entry, case: Case, every_s: float = 0.5) -> Outcome:
        cases.append((entry.name, case))
        assert (Path(case.data) / "manifest.json").is_file()
        large = "/0.0008gb/" in case.data
        # one more batch alive in one of three runs is no growth
        beyond = {
            "cpu": 105.0 if len(cases) == 5 else 80.0,
            "zip-tuned": 3700.0 if large else 900.0,
        }[entry.name]
        figures = {
            "memory_imports_mb": 300.0,
            "memory_peak_beyond_imports_mb": beyond,
            "first_batch_s": 0.5,
            "pairs": 640,
        }
        series = tuple(_series(case.limit_s / 60, lambda _: 380))
        return Outcome(label="x", figures=figures, memory=series)

    run = measure_memory(
        tmp_path / "out", [0.0008, 0.0004], 10, 200, 3, 2, keep, "c", lambda _: None, once
    )
    medians = {claim["key"]: claim["summary"]["median"] for claim in run["claims"]}
    assert medians == {
        "x_of_zip_tuned": pytest.approx(380 / 4000),
        "x_of_small": 1.0,
        "growth_mb": 0.0,
        "first_batch_s": 0.5,
    }
    one_size = ["cpu", "cpu", "cpu", "zip-tuned"]
    assert [name for name, _ in cases] == [*one_size, *one_size, "cpu"]
    assert [case.batches for _, case in cases[:8]] == [200] * 8
    soak = cases[-1][1]
    assert (soak.limit_s, soak.data) == (600, cases[4][1].data)
    assert (tmp_path / "out").exists() is keep
    section = markdown(memory_blocks({**run, "command": "c"}))
    assert "zip-tuned at 0.0008 GB 4,000 MB" in section
    assert "Soak of 9.97 minutes, 20 batches" in section


@pytest.mark.slow
@pytest.mark.usefixtures("small")
def test_the_command_from_end_to_end(tmp_path: Path) -> None:
    out, file = tmp_path / "out", tmp_path / "m.json"
    arguments = (
        f"memory --gb 0.0004,0.0008 --minutes 0 --batches 2 --repeats 1 --threads 1 --check "
        f"--out {out} --json {file}"
    )
    outcome = CliRunner().invoke(main, arguments.split())
    assert outcome.exit_code == 1, outcome.output  # a zip of a megabyte weighs nothing
    assert "peak after 150" in outcome.stderr
    assert "memory at 0.0008 GB as a share of zip-tuned's" in outcome.stdout
    run = result.read(file, "memory")
    assert [(one["name"], one["gb"]) for one in run["runs"]] == [
        ("cpu", 0.0004), ("zip-tuned", 0.0004), ("cpu", 0.0008), ("zip-tuned", 0.0008)
    ]  # fmt: skip
    assert run["soak"] is None
    assert {claim["key"]: claim["holds"] for claim in run["claims"]} == {
        "x_of_zip_tuned": False, "x_of_small": True, "first_batch_s": True
    }  # fmt: skip
    assert not out.exists()


def test_too_little_room_is_told_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"needs 2,200,002\.2 GB, .* GB are free"):
        measure_memory(tmp_path / "out", [1, 1e6], 0, 200, 3, 2, False, "c", lambda _: None)
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("small")
def test_nothing_of_somebody_else_is_removed(tmp_path: Path) -> None:
    def failing(*_: Any) -> Outcome:
        raise RuntimeError("no measurement")

    def measure(out: Path) -> None:
        sizes = [0.0004, 0.0008]
        measure_memory(out, sizes, 0, 200, 1, 1, False, "c", lambda _: None, failing)

    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.tex").write_text("years of work")
    for out in (mine, mine / "thesis.tex"):
        with pytest.raises(StorageError, match="was not made by 'python -m benchmarks memory'"):
            measure(out)
    assert [one.name for one in mine.iterdir()] == ["thesis.tex"]
    # A run that fails removes what it made, and neither an earlier run's data nor other files.
    out = tmp_path / "out"
    with pytest.raises(RuntimeError, match="no measurement"):
        measure(out)
    assert not out.exists()
    (out / "0.0004gb").mkdir(parents=True)
    (out / memory.MARKER).touch()
    (out / "notes.txt").write_text("of an earlier run")
    with pytest.raises(RuntimeError, match="no measurement"):
        measure(out)
    left = sorted(one.name for one in out.iterdir())
    assert left == ["0.0004gb", memory.MARKER, "notes.txt"]


def test_bars_are_those_of_the_promise() -> None:
    bars = {claim.key: (claim.bar, claim.least) for claim in claims(1, 4)}
    assert bars == {
        "x_of_zip_tuned": (0.2, False),
        "x_of_small": (1.05, False),
        "growth_mb": (10, False),
        "first_batch_s": (1, False),
    }
