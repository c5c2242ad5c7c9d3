"""The guard against regressions: ratios of one run, compared with committed ones."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import synthetic
from click.testing import CliRunner

from benchmarks import quick, result
from benchmarks.case import Case
from benchmarks.cli import main
from benchmarks.contestants import CONTESTANTS, Entry
from benchmarks.quick import PARTS, Measured, Part, Ratio, Setup, measure_quick
from benchmarks.quick_check import check, quick_lines, quick_rows, read_committed, warnings, wide
from benchmarks.runner import Outcome
from shards.errors import FormatError

SPEED = {
    "cpu": 1200.0,
    "zip-tuned": 800.0,
    "zip-published": 300.0,
    "decode-only": 1600.0,
}


@pytest.fixture
def setup(tmp_path: Path) -> Setup:
    synthetic.pack(tmp_path / "data", "lasot", sequences=2, frames=4)
    case = Case(data=str(tmp_path / "data"), derived=str(tmp_path / "derived"), threads=2)
    return Setup(case=case, out=tmp_path / "out", repeats=5, warm_limit_bytes=1 << 30)


def _part(values: Mapping[str, list[float]], absent: Mapping[str, str] | None = None) -> Part:
    ratios = tuple(Ratio(key=key, what=f"ratio {key}") for key in [*values, *(absent or {})])
    return Part(
        name="fake",
        ratios=ratios,
        again="python -m benchmarks fake",
        measure=lambda *_: Measured(repeats=values, absent=absent or {}),
    )


@pytest.fixture
def run_of(setup: Setup) -> Callable[..., dict[str, Any]]:
    return lambda *args: measure_quick(setup, "c", lambda _: None, [_part(*args)])


STEADY = [2.0, 2.0, 2.0, 2.0, 2.0]


def test_a_fall_by_a_quarter_is_a_warning_and_one_by_15_percent_is_none(run_of: Any) -> None:
    committed = run_of({"a": STEADY, "b": STEADY, "c": STEADY})
    now = run_of(
        {
            "a": [1.5, 1.4, 1.5, 1.6, 1.5],
            "b": [1.7 if value > 1 else 0 for value in STEADY],
            "c": [9.0, 9.0, 9.0, 9.0, 9.0],
        }
    )
    verdicts = check(now, committed)
    assert [one.state for one in verdicts] == ["fell", "holds", "holds"]
    (line,) = warnings(verdicts)
    assert line.startswith("Warning: ratio a (a): fell by 25%, from 2 (2 to 2) to 1.5 (1.5 to 1.5)")
    assert line.endswith("Measure it at length: python -m benchmarks fake")
    rows = quick_rows(verdicts)
    assert [row[3:] for row in rows] == [("-25%", "FELL"), ("-15%", "holds"), ("+350%", "holds")]
    assert now["ratios"][0]["summary"]["min"] == 1.4


def test_one_bad_repeat_is_no_fall(run_of: Any) -> None:
    now = run_of({"a": [0.2, 2.0, 2.0, 2.0, 0.3]})
    assert [one.state for one in check(now, run_of({"a": STEADY}))] == ["holds"]


@pytest.mark.parametrize(("median", "state"), [(1.4, "unsure"), (0.9, "fell"), (1.7, "holds")])
def test_a_ratio_that_spreads_is_judged_by_its_spread(
    run_of: Any, median: float, state: str
) -> None:
    committed = run_of({"a": [1.2, 1.5, 2.0, 2.3, 2.9]})  # quartiles 40 % apart
    verdicts = check(run_of({"a": [median] * 5}), committed)
    assert [one.state for one in verdicts] == [state]
    if state == "unsure":
        (line,) = warnings(verdicts)
        assert line.startswith("Note: ratio a (a): fell by 30%")
        assert "quartiles lie 40% apart, so this alone says nothing; measure it at length" in line


def test_a_baseline_that_guards_nothing_is_warned_of(run_of: Any) -> None:
    run = run_of({"a": STEADY, "b": [1.2, 1.5, 2.0, 2.3, 2.9]})
    (line,) = wide(run)
    assert line.startswith("Warning: a baseline with quartiles more than 20% apart does not guard")
    assert "these: b (40%). Make it again" in line
    assert wide(run_of({"a": STEADY})) == []


def test_missing_and_new_ratios_are_said(run_of: Any) -> None:
    committed = run_of({"a": STEADY, "gone": STEADY, "absent": STEADY})
    now = run_of({"a": STEADY, "fresh": STEADY}, {"absent": "dali: needs a package"})
    verdicts = check(now, committed)
    assert {one.key: one.state for one in verdicts} == {
        "a": "holds",
        "gone": "missing",
        "absent": "missing",
        "fresh": "new",
    }
    lines = warnings(verdicts)
    assert "(gone): not measured: no ratio of this key is measured any more; was it" in lines[0]
    assert "(absent): not measured: dali: needs a package" in lines[1]
    assert "(fresh): there is no committed figure of it yet" in lines[2]


def test_other_machines_and_pictures_are_said(run_of: Any) -> None:
    now = run_of({"a": STEADY})
    assert len(quick_lines(now, now, "F")) == 2
    other = copy.deepcopy(now)
    other["machine"] |= {"cores_usable": 64, "simd": "no AVX2"}
    other["repeats"] = 3
    other["facts"]["recipe_datasets"] = [{"index_sha256": "ff"}]
    now["facts"]["recipe_others_cores_busy"] = [0.1, 0.9]
    text = "\n".join(quick_lines(now, other, "F"))
    assert f"usable cores 64 then, {now['machine']['cores_usable']} now; vectors no AVX2" in text
    assert "ratios may differ with no change of the code" in text
    assert "fewer than five repeats" in text
    assert "other pictures" in text
    assert "the machine was not quiet" in text


def _median_of_text(run: dict[str, Any]) -> None:
    run["ratios"][0]["summary"]["median"] = "2"


def _zero(run: dict[str, Any]) -> None:
    run["ratios"][0]["summary"]["q1"] = 0


def _no_ratios(run: dict[str, Any]) -> None:
    run["ratios"] = []


def _no_machine(run: dict[str, Any]) -> None:
    del run["machine"]


def _twice(run: dict[str, Any]) -> None:
    run["ratios"] *= 2


@pytest.mark.parametrize("damage", [_median_of_text, _zero, _no_ratios, _no_machine, _twice])
def test_a_damaged_committed_file_is_an_error(
    run_of: Any, tmp_path: Path, damage: Callable[[dict[str, Any]], None]
) -> None:
    run, path = run_of({"a": STEADY}), tmp_path / "q.json"
    result.write(path, run)
    assert read_committed(path) == json.loads(path.read_text())
    damage(run)
    result.write(path, run)
    with pytest.raises(FormatError, match=r"damaged .* quick --no-compare --json"):
        read_committed(path)


def test_every_part_takes_ratios_within_a_repeat(setup: Setup) -> None:
    calls: list[tuple[str, int]] = []

    def once(entry: Entry, case: Case) -> Outcome:
        mood = 1 + sum(name == entry.name for name, _ in calls)  # faster in every repeat
        calls.append((entry.name, case.batches))
        if entry.name == "zip-published":
            return Outcome(absent="no torch")
        speed = SPEED[entry.name] * mood
        figures = {"pairs_per_s": speed, "cpu_ms_per_pair": 2e3 / speed, "others_cores_busy": 0.1}
        return Outcome(label=entry.name, figures=figures)

    names = (*quick.RECIPE, "decode-only")
    found = quick.loaders(setup, lambda _: None, "recipe", names, once)
    assert found.repeats["recipe_cpu_pairs_x_zip_tuned"] == pytest.approx([1.5] * 5)
    assert found.repeats["recipe_cpu_cpu_x_decode_only"] == pytest.approx([0.75] * 5)
    assert set(found.absent.values()) == {"zip-published: no torch"}
    told = [*found.repeats, *found.absent]
    assert set(told) > {ratio.key for ratio in PARTS[0].ratios}
    assert dict(calls)["zip-published"] < dict(calls)["cpu"] == quick.COUNTED_OF_OTHERS


def test_parts_use_contestants_and_steps_that_exist() -> None:
    keys = [ratio.key for part in PARTS for ratio in part.ratios]
    assert len(keys) == len(set(keys))
    assert {*quick.RECIPE, *quick.PLAIN} <= {entry.name for entry in CONTESTANTS}
    assert set(main.commands) >= {part.again.split()[3] for part in PARTS}


def test_small_parts_measure_every_ratio(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quick, "INDEX_ROWS", 2_000)
    monkeypatch.setattr(quick, "PACK_CROPS", 12)
    monkeypatch.setattr(quick, "COST_PAIRS", 2)
    monkeypatch.setattr(quick, "STEPS", 1)
    monkeypatch.setattr(quick, "STEP_PAIRS", 2)
    cases = [replace(case, size=(320, 240), kb=12, sides=(14, 40)) for case in quick.CASES]
    monkeypatch.setattr(quick, "CASES", cases)
    make_work = quick.make_work
    monkeypatch.setattr(quick, "make_work", lambda *args: make_work(*args, width=0.0625))
    small = [part for part in PARTS if part.name not in ("recipe", "plain")]
    case = replace(setup.case, batch_size=2, pairs=2)
    two = Setup(case=case, out=setup.out, repeats=2, warm_limit_bytes=0)
    run = measure_quick(two, "c", lambda _: None, small)
    assert run["absent"] == []
    assert [one["key"] for one in run["ratios"]] == [
        ratio.key for part in small for ratio in part.ratios
    ]
    assert all(len(one["repeats"]) == 2 and min(one["repeats"]) > 0 for one in run["ratios"])


def test_the_command_warns_and_only_strict_fails(
    run_of: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    committed, out = tmp_path / "committed.json", tmp_path / "now.json"
    result.write(committed, run_of({"a": STEADY}))
    now = run_of({"a": [1.0] * 5})
    asked = []
    monkeypatch.setattr(quick, "measure_quick", lambda *_: asked.append(1) or now)
    monkeypatch.setattr("benchmarks.cli_quick.make_data", lambda *_: None)

    def call(*args: str) -> tuple[int, str]:
        done = CliRunner().invoke(main, ["quick", *args])
        return done.exit_code, done.output

    code, told = call("--against", str(committed), "--json", str(out))
    assert code == 0
    assert "Warning: ratio a (a): fell by 50%" in told
    written = read_committed(out)
    assert {key: written[key] for key in now} == now
    assert call("--against", str(committed), "--strict")[0] == 1
    assert call("--against", str(out), "--strict")[0] == 0
    code, told = call("--no-compare", "--strict")
    assert (code, "Warning" in told) == (0, False)
    assert len(asked) == 4
    code, told = call("--against", str(tmp_path / "none.json"))
    assert code == 1
    assert "there is nothing to compare with; make it with" in told
    assert len(asked) == 4  # known before anything is measured
