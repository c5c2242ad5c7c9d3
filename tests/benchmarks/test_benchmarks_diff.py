"""Two results beside each other: differences that count, and those that only look like some."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from benchmarks import result
from benchmarks.cli import main
from benchmarks.runner import summary

RESULTS = Path(result.__file__).parent / "results"
Change = Callable[[dict[str, Any]], Any]


@pytest.fixture
def two(tmp_path: Path) -> Callable[..., Result]:
    """Compare a committed result with a changed copy of it."""

    def compare(change: Change, kind: str = "loaders-cpu", command: str = "") -> Result:
        old = RESULTS / f"{kind}.json"
        run = json.loads(old.read_text())
        change(run)
        (tmp_path / "new.json").write_text(json.dumps(run))
        arguments = [*command.split(), "--compare", str(old), str(tmp_path / "new.json")]
        return CliRunner().invoke(main, arguments)

    return compare


def _speed(run: dict[str, Any], *values: float) -> None:
    run["contestants"][0]["summary"]["pairs_per_s"] = summary(values)


def _row(outcome: Result, of: str, figure: str) -> str:
    (line,) = [line for line in outcome.stdout.splitlines() if line.split()[:2] == [of, figure]]
    return line


def test_the_same_shows_no_difference(two: Callable[..., Result]) -> None:
    outcome = two(lambda run: None)
    assert outcome.exit_code == 0, outcome.output
    assert "NOT COMPARABLE" not in outcome.stdout
    assert "differ in" not in outcome.stdout
    lines = [line for line in outcome.stdout.splitlines() if line.startswith("cpu ")]
    assert len(lines) > 5
    assert all(line.endswith("1.00  overlap: no difference shown") for line in lines)


def test_quartiles_decide_and_not_medians(two: Callable[..., Result]) -> None:
    figures = json.loads((RESULTS / "loaders-cpu.json").read_text())["contestants"][0]["summary"]
    low, middle, high = (figures["pairs_per_s"][key] for key in ("q1", "median", "q3"))
    wide = two(lambda run: _speed(run, high, 2 * middle, 3 * middle, 0.1 * middle, 2 * middle))
    assert "2.00  overlap: no difference shown" in _row(wide, "cpu", "pairs_per_s")
    higher = two(lambda run: _speed(run, *[1.01 * high] * 3))
    assert _row(higher, "cpu", "pairs_per_s").endswith("B higher")
    lower = two(lambda run: _speed(run, *[0.5 * low] * 3))
    assert _row(lower, "cpu", "pairs_per_s").endswith("B lower")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda run: run["environment"].update(cpu="Abacus"), "cpu: AMD EPYC, Abacus"),
        (lambda run: run["config"].update(work="plain"), "work: recipe, plain"),
        (
            lambda run: run["data"]["datasets"][0].update(index_sha256="f00dcafe" * 8),
            "data: bench 53f3682c, bench f00dcafe",
        ),
    ],
)
def test_incomparable_runs_are_said_so_first_and_their_ratios_are_compared(
    two: Callable[..., Result], change: Change, said: str
) -> None:
    outcome = two(change, command="loaders")
    assert outcome.exit_code == 0, outcome.output
    first, second, third, *_ = outcome.stdout.splitlines()
    assert first.startswith("A: ")
    assert second.startswith("B: ")
    assert third.startswith("NOT COMPARABLE")
    assert f"  {said}" in outcome.stdout.splitlines()
    assert _row(outcome, "cpu", "pairs_per_s").endswith("not comparable")
    ratio = _row(outcome, "cpu", "pairs_per_s_x_zip_tuned")
    assert ratio.endswith("overlap: no difference shown")


def test_other_versions_are_told_quietly(two: Callable[..., Result]) -> None:
    outcome = two(lambda run: run["environment"]["versions"].update(torch="99"))
    assert "NOT COMPARABLE" not in outcome.stdout
    assert "  torch: 2.14.1, 99" in outcome.stdout.splitlines()


def test_who_is_in_one_only_is_named(two: Callable[..., Result]) -> None:
    outcome = two(lambda run: run["contestants"].pop(0), command="sweep")
    assert "Only in A: cpu." in outcome.stdout
    assert "Only in B" not in outcome.stdout


def test_claims_and_steps_are_compared(two: Callable[..., Result]) -> None:
    claims = two(lambda run: None, "bars-cpu")
    assert "decode units a pair, 255/255" in claims.stdout
    steps = two(lambda run: run["steps"][0].update(us=[1e6] * 7), "costs-cpu")
    assert "B higher" in steps.stdout


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*.json")), ids=lambda path: path.stem)
def test_any_committed_result_can_be_compared_or_says_why_not(path: Path) -> None:
    outcome = CliRunner().invoke(main, ["--compare", str(path), str(path)])
    if outcome.exit_code:
        assert "without repeated figures to compare" in outcome.stderr
    else:
        assert "no difference shown" in outcome.stdout


def test_errors_are_one_line(tmp_path: Path) -> None:
    bars, loaders = RESULTS / "bars-cpu.json", RESULTS / "loaders-cpu.json"
    (tmp_path / "torn.json").write_text("{")
    for pair, said in (
        ((bars, loaders), "only results of one kind"),
        ((bars, tmp_path / "none.json"), "no such result"),
        ((tmp_path / "torn.json", bars), "not a benchmark result"),
    ):
        outcome = CliRunner().invoke(main, ["--compare", *map(str, pair)])
        assert outcome.exit_code == 1
        (line,) = outcome.stderr.strip().splitlines()
        assert said in line
