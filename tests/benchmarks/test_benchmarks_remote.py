"""Remote shards measured: on data that hardly repeat, and told with their conditions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import synthetic
from click.testing import CliRunner

from benchmarks import memory, options, remote
from benchmarks.cli import main
from benchmarks.remote import RemoteCase, measure_remote, remote_data, remote_lines
from benchmarks.report_blocks import markdown
from benchmarks.report_kinds import remote_blocks
from shards.errors import DataError
from shards.format import Manifest

RUN: dict[str, Any] = {
    "config": {
        "server": "nginx", "batches": 30, "batch_size": 32, "repeats": 5, "pairs_per_s": 100.0,
        "delay_ms": 30.0, "refuse": 0.01, "threads": 2,
    },
    "data": {
        "datasets": [
            {"name": "memory", "frames": 54_000, "crop_px": 446, "quality": 90,
             "mean_jpeg_kb": 34.5, "synthetic": True},
        ],
        "pictures_read": 2496,
        "repeated_share": 0.031,
    },
}  # fmt: skip


def test_data_that_repeat_are_refused_before_anything_is_served(tmp_path: Path) -> None:
    synthetic.pack(tmp_path, "lasot", sequences=4, frames=10)
    case = RemoteCase(data=str(tmp_path / "lasot"), batches=1, repeats=1)
    with pytest.raises(DataError, match=r"9\d % of the 640 pictures .* fewer --batches"):
        measure_remote(case, "c", lambda _: None)
    outcome = CliRunner().invoke(main, ["remote", "--data", case.data, "--batches", "1"])
    assert outcome.exit_code == 1
    assert len(outcome.stderr.strip().splitlines()) == 1


def test_the_default_data_are_made_once_and_large_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "DISTINCT_TRACKS", 1)
    monkeypatch.setattr(memory, "TRACK_FRAMES", 4)
    whole = remote.REMOTE_GB
    monkeypatch.setattr(remote, "REMOTE_GB", 0.0005)
    told: list[str] = []
    remote_data(tmp_path / "data", told.append)
    remote_data(tmp_path / "data", told.append)
    assert len(told) == 1
    manifest = Manifest.read(tmp_path / "data")
    frames = manifest.counts["frames"] * whole / 0.0005
    default = RemoteCase(data="", batches=30, repeats=1).paced("", "")
    assert frames > 20 * 2 * default.batch_size * default.announced


def test_the_lines_say_how_it_was_measured() -> None:
    told = " ".join(remote_lines(RUN))
    for words in ("nginx behind a server of ours", "30 ms late", "refuses 1 %", "100 pairs/s",
                  "30 batches of 32", "5 repeats", "54,000 crops of 446x446", "synthetic",
                  "Of the 2,496 pictures that a run reads, 3.1 % were read before"):  # fmt: skip
        assert words in told
    figures = {"cpu_ms": 2.0, "first_batch_s": 0.5, "remote_requests": 90, "remote_retries": 1}
    seen = dict.fromkeys(("local", "cold", "warm"), figures)
    whole = {**RUN, "claims": [], "runs": [seen, seen], "medians": seen}
    facts = {"commit": "abc", "uncommitted_changes": False, "cpu": "x", "cores_usable": 2}
    section = markdown(remote_blocks({**whole, "environment": facts, "command": "c"}))
    assert told in section


def test_falling_back_to_synthetic_pictures_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("SIAMSTREAM_TEST_DATA", raising=False)
    monkeypatch.setattr(options, "make_data", lambda *_: None)
    assert options.real_or_made(None) == options.DEFAULT_DATA
    told = capsys.readouterr().err
    assert "synthetic pictures, for $SIAMSTREAM_TEST_DATA is not set" in told
    assert "--data" in told
    assert options.real_or_made(tmp_path) == tmp_path
    assert capsys.readouterr().err == ""
