"""Promises about speed: each variant once a repeat, ratios of one repeat, bars that are bars."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import synthetic

from benchmarks import bars, result
from benchmarks.bars import CLAIMS, bars_lines, claimed, measure_bars, variants
from benchmarks.case import Case
from benchmarks.contestants import Entry
from benchmarks.report_blocks import markdown
from benchmarks.report_kinds import bars_blocks
from benchmarks.runner import ContestantError, Outcome
from shards.errors import DataError
from shards.format import dataset_folders

SPEED = {
    "cpu": 1000.0,
    "zip-tuned": 500.0,
    "zip-region": 800.0,
    "zip-published": 100.0,
    "whole-decode": 1250.0,
}


@pytest.fixture
def case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Case:
    synthetic.pack(tmp_path / "data", "lasot", sequences=2, frames=4)
    monkeypatch.setattr(bars, "SHARDS", 1)
    monkeypatch.setattr(bars, "FACTOR", 2)
    return Case(data=str(tmp_path / "data"), derived=str(tmp_path / "derived"), pairs=32, threads=2)


def _once(moods: dict[int, float], calls: list[tuple[str, Case]]) -> Any:
    """A runner whose machine has another mood in every repeat of nine runs."""

    def once(entry: Entry, case: Case) -> Outcome:
        mood = moods[len(calls) // 9]
        calls.append((entry.name, case))
        speed = SPEED[entry.name] * (0.5 if case.threads == 1 else 1.0)
        cost_ms = 1e3 / speed * (0.8 if case.template_px == 127 else 1.0)
        figures = {
            "pairs_per_s": speed * mood,
            "cpu_ms_per_pair": cost_ms / mood,
            "first_batch_s": 0.1 if "shards" in case.data else 0.2,
            "others_cores_busy": 0.0,
        }
        return Outcome(label=entry.name, figures=figures)

    return once


def test_claims_are_ratios_within_a_repeat(case: Case) -> None:
    calls: list[tuple[str, Case]] = []
    run = measure_bars(
        case,
        2,
        "python -m benchmarks bars",
        1 << 30,
        lambda _: None,
        _once({0: 1.0, 1: 0.3}, calls),
    )
    found = {claim["key"]: claim for claim in run["claims"]}
    assert set(found) == {claim.key for claim in CLAIMS}
    medians = {key: claim["summary"]["median"] for key, claim in found.items()}
    # 1 ms a pair beside 0.4 ms for each of two decodes
    assert medians["units_255"] == pytest.approx(2.5)
    assert medians["units_127"] == pytest.approx(2.0)
    assert medians["x_zip_tuned"] == pytest.approx(2)
    assert medians["x_zip_region"] == pytest.approx(1.25)
    assert medians["x_zip_published"] == pytest.approx(10)
    assert medians["x_one_thread"] == pytest.approx(2)
    assert (medians["first_batch_s"], medians["first_batch_10x_s"]) == (0.2, 0.1)
    assert all(claim["summary"]["min"] == claim["summary"]["max"] for claim in found.values())
    assert all(claim["holds"] for claim in found.values())
    # everything once a repeat, in another order
    names = [(name, one.template_px, one.threads, one.data) for name, one in calls]
    assert sorted(names[:9]) == sorted(names[9:])
    assert names[:9] != names[9:]
    section = markdown(bars_blocks({**run, "command": "c"}))
    assert "| pairs/s against zip-tuned | 2 x | at least 1.4 x | yes |" in section
    data = "lasot (8 crops of 446x446, quality 90, "
    assert data in bars_lines(run)[0]
    assert "synthetic" not in bars_lines(run)[0]  # its maker does not say that it is
    assert run["schema"] == result.SCHEMAS["bars"]


def test_variants_differ_in_what_they_should() -> None:
    case = Case(data="d", derived="e", pairs=640, threads=2)
    by_key = {one.key: one for one in variants(case, Path("s"), Path("l"))}
    assert by_key["cpu"].case == by_key["zip_tuned"].case == by_key["unit"].case == case
    assert (by_key["cpu_one_thread"].case.threads, by_key["cpu_127"].case.template_px) == (1, 127)
    assert (by_key["start"].case.data, by_key["start_10x"].case.data) == ("s", "l")


def test_bars_are_those_of_the_promise() -> None:
    assert {claim.key: (claim.bar, claim.least) for claim in CLAIMS} == {
        "units_255": (3.2, False),
        "units_127": (2.7, False),
        "x_zip_tuned": (1.4, True),
        "x_zip_region": (1, True),
        "x_zip_published": (5, True),
        "x_one_thread": (1.7, True),
        "first_batch_s": (1, False),
        "first_batch_10x_s": (1, False),
    }


def test_a_slow_loader_misses_every_bar() -> None:
    slow = {"pairs_per_s": 80.0, "cpu_ms_per_pair": 9.0, "first_batch_s": 3.0}
    others = {"pairs_per_s": 90.0, "cpu_ms_per_pair": 1.0, "first_batch_s": 0.1}
    keys = (
        "cpu",
        "cpu_127",
        "cpu_one_thread",
        "zip_tuned",
        "zip_region",
        "zip_published",
        "unit",
        "start",
    )
    run = {key: slow if key.startswith("cpu") else others for key in keys} | {"start_10x": slow}
    values = claimed(run)
    assert not any(claim.holds(values[claim.key]) for claim in CLAIMS)


def test_an_absent_contestant_is_an_error(case: Case) -> None:
    with pytest.raises(ContestantError, match="cannot run here: no package"):
        measure_bars(case, 1, "c", 1, lambda _: None, lambda *_: Outcome(absent="no package"))


def test_real_pictures_are_packed_once(
    real_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIAMSTREAM_TEST_DATA", str(real_data))
    out = bars.real_data(tmp_path / "packed")
    assert out is not None
    folders = {folder.name: folder for folder in dataset_folders(out)}
    assert {"coco", "got10k", "lasot", "trackingnet"} <= set(folders)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.tar")}
    assert bars.real_data(out) == out
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.tar")} == before


def test_without_real_pictures_there_are_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SIAMSTREAM_TEST_DATA", raising=False)
    assert bars.real_data(tmp_path) is None
    monkeypatch.setenv("SIAMSTREAM_TEST_DATA", str(tmp_path))
    with pytest.raises(DataError, match="no data set below"):
        bars.real_data(tmp_path / "out")
