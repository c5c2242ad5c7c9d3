"""The numeric promises: what is measured is the real thing, and bars are bars."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.case import Case
from benchmarks.claims import Claim, claim_facts, claim_rows
from benchmarks.contestants import Entry
from benchmarks.limits import (
    CLAIMS,
    SHARDS,
    index_and_plan,
    memory_and_start,
    same_pictures,
    synthetic_index,
)
from benchmarks.runner import Outcome
from shards.index import Index
from shards.verify import verify


def test_synthetic_index_is_a_real_one(tmp_path: Path) -> None:
    manifest = synthetic_index(tmp_path / "m", rows=5_000, track_rows=100)
    index = Index.checked(tmp_path / "m", manifest)
    assert len(index) == 5_000
    assert manifest.counts == {"frames": 5_000, "tracks": 50, "sequences": 50, "categories": 50}
    assert index.file(4_999) == "million-000001.tar"
    assert index.sample(123).frame == 1 + 3 * 23
    np.testing.assert_array_equal(index.track_first[100:103], [100, 100, 100])
    assert synthetic_index(tmp_path / "m", rows=9).counts["frames"] == 5_000  # made once


def test_same_pictures_are_valid_shards(tmp_path: Path) -> None:
    manifest = same_pictures(tmp_path / "s", 2)
    assert manifest.counts == {"frames": 64, "tracks": 2, "sequences": 2, "categories": 1}
    assert verify(tmp_path / "s", workers=1).ok
    crc = Index(tmp_path / "s").crc
    np.testing.assert_array_equal(crc[:32], crc[32:])


def test_index_and_plan_measure_every_claim_in_each_repeat(tmp_path: Path) -> None:
    found = index_and_plan(tmp_path / "m", repeats=2, rows=5_000)
    assert set(found) == {"index_open_s", "sets_open_s", "plan_ms", "prepare_ms"}
    assert all(len(values) == 2 and min(values) > 0 for values in found.values())


def test_memory_is_measured_at_both_sizes(tmp_path: Path) -> None:
    cases: list[tuple[str, Case]] = []

    def once(entry: Entry, case: Case) -> Outcome:
        cases.append((entry.name, case))
        many = Path(case.data).name.endswith("40")
        figures: dict[str, Any] = {
            "memory_peak_beyond_imports_mb": 90.0 if many else 80.0,
            "first_batch_s": 0.5,
        }
        return Outcome(label="x", figures=figures)

    found = memory_and_start(tmp_path, 7, 2, lambda _: None, once)
    assert found["memory_mb"] == [80.0, 80.0]
    assert found["memory_10x_mb"] == [90.0, 90.0]
    assert {name for name, _ in cases} == {"cpu"}
    assert all(case.batches == 7 for _, case in cases)
    assert {Path(case.data).name for _, case in cases} == {
        f"shards-{SHARDS}",
        f"shards-{10 * SHARDS}",
    }


def test_bars_are_those_of_the_promise() -> None:
    assert {claim.key: claim.bar for claim in CLAIMS} == {
        "index_open_s": 0.2,
        "sets_open_s": 0.2,
        "plan_ms": 5,
        "prepare_ms": 5,
        "memory_mb": 300,
        "memory_10x_mb": 300,
        "first_batch_s": 2,
        "first_batch_10x_s": 2,
    }


@pytest.mark.parametrize(("values", "holds"), [([1.0, 1.9, 9.0], True), ([2.0], False)])
def test_a_claim_holds_if_its_median_stays_below_the_bar(values: list[float], holds: bool) -> None:
    facts = claim_facts(Claim(key="k", what="thing", unit="s", bar=2), values)
    assert facts["holds"] is holds
    (row,) = claim_rows({"claims": [facts]})
    assert row[2:] == ("under 2 s", "yes" if holds else "NO")


@pytest.mark.parametrize(("values", "holds"), [([1.0, 2.0, 9.0], True), ([1.9], False)])
def test_a_least_claim_holds_if_its_median_reaches_the_bar(
    values: list[float], holds: bool
) -> None:
    facts = claim_facts(Claim(key="k", what="thing", unit="x", bar=2, least=True), values)
    assert facts["holds"] is holds
    (row,) = claim_rows({"claims": [facts]})
    assert row[2:] == ("at least 2 x", "yes" if holds else "NO")
