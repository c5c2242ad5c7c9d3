"""The runner: fresh processes, fair order, ratios within a repeat, honest failures."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import synthetic
from click.testing import CliRunner, Result

from benchmarks import child, compare, report, result, runner, table
from benchmarks.case import LEAST_ROUNDS, Case, Served
from benchmarks.cli import main
from benchmarks.contestants import BASELINES, CONTESTANTS, UNIT, Entry
from benchmarks.runner import ContestantError, Outcome, run_once, run_rounds, summary
from shards.errors import FormatError


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runner")
    synthetic.pack(folder, "lasot", sequences=3, frames=6)
    return folder / "lasot"


@pytest.fixture(scope="module")
def compared(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, Path]:
    """One real run of two contestants (and the unit), as a user starts it."""
    folder = tmp_path_factory.mktemp("result")
    arguments = (
        f"loaders --data {data} --derived {folder / 'derived'} --pairs 10 --repeats 1 --workers 1 "
        f"--batch-size 4 --template-px 127 --only cpu,zip-tuned,zip-published "
        f"--json {folder / 'out.json'}"
    )
    return CliRunner().invoke(main, arguments.split()), folder / "out.json"


def test_end_to_end_prints_a_table_on_stdout(compared: tuple[Result, Path]) -> None:
    outcome, _ = compared
    assert outcome.exit_code == 0, outcome.output
    head, *lines = outcome.stdout.splitlines()
    assert head.split()[0] == "contestant"
    assert head.index("x zip-tuned") < head.index("x zip-published")
    assert lines[0].startswith("siamstream cpu")
    assert {line.partition(" ")[0] for line in lines[1:3]} == {"zip-tuned", "zip-published"}
    assert lines[3].startswith("limit: whole decode")
    assert "repeat 1/1" in outcome.stderr
    assert "repeat 1/1" not in outcome.stdout


def test_end_to_end_json(compared: tuple[Result, Path], data: Path) -> None:
    run = result.read(compared[1], "loaders")
    assert run["schema"] == 3
    assert run["command"].startswith("python -m benchmarks")
    assert run["config"] == {
        "data": str(data),
        "derived": str(compared[1].parent / "derived"),
        "work": "recipe",
        "url": "",
        "pairs": 12,  # 10, in whole batches
        "warmup_batches": 6,
        "batch_size": 4,
        "threads": 1,
        "template_px": 127,
        "search_px": 255,
        "seed": 7,
        "limit_s": 0.0,
        "workers": 0,
        "dali": {},
    }
    assert {"cpu", "cores_usable", "versions", "commit", "python", "gpus"} <= set(
        run["environment"]
    )
    (facts,) = run["data"]["datasets"]
    assert (facts["name"], facts["frames"], facts["quality"]) == ("lasot", 18, 90)
    assert facts["mean_jpeg_kb"] > 1
    assert run["data"]["encoded_kb_per_pair"] == pytest.approx(2 * facts["mean_jpeg_kb"], rel=0.3)
    assert [one["name"] for one in run["contestants"]] == [
        "cpu", "zip-tuned", "zip-published", "whole-decode"
    ]  # fmt: skip
    for one in run["contestants"]:
        (repeat,) = one["repeats"]
        assert repeat["pairs"] == 12
        assert repeat["pairs_per_s"] == pytest.approx(12 / repeat["wall_s"])
        assert repeat["first_batch_s"] > 0
        assert repeat["epoch_min"] == pytest.approx(320_000 / repeat["pairs_per_s"] / 60)
        assert repeat["memory_imports_mb"] > 10
        assert one["summary"]["pairs_per_s"]["median"] == repeat["pairs_per_s"]
        assert 0 <= repeat["place"] < 4
    ours, tuned, published, _ = run["contestants"]
    # pictures stand in the zip's memory, which was read before the clock; ours reads each
    needed = run["data"]["encoded_kb_per_pair"]
    assert 0.9 * needed < ours["repeats"][0]["asked_kb_per_pair"]
    assert tuned["repeats"][0]["asked_mb"] > 1e-3 * facts["frames"] * facts["mean_jpeg_kb"]
    assert tuned["repeats"][0]["pixel_type"] == "uint8"
    assert tuned["repeats"][0]["pairs_per_s_x_zip_tuned"] == 1
    assert ours["repeats"][0]["pixel_type"] == "uint8"
    assert published["repeats"][0]["pixel_type"] == "float32"
    assert published["repeats"][0]["search_shape"] == [4, 3, 255, 255]
    assert published["repeats"][0]["pairs_per_s_x_zip_published"] == 1


def test_a_result_makes_the_readmes_table_and_check_sees_when_it_is_stale(
    compared: tuple[Result, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    only = [section for section in report.SECTIONS if section.name == "loaders"]
    monkeypatch.setattr(report, "SECTIONS", only)
    results, readme = tmp_path / "results", tmp_path / "README.md"
    results.mkdir()
    (results / "loaders-cpu.json").write_bytes(compared[1].read_bytes())
    begin, end = "<!-- benchmarks:loaders:begin -->", "<!-- benchmarks:loaders:end -->"
    readme.write_text(f"# Top\n\n{begin}\nold\n{end}\n\nbottom\n")
    arguments = ["report", "--root", str(tmp_path), "--results", str(results)]
    cli = CliRunner()

    stale = cli.invoke(main, [*arguments, "--check"])
    assert stale.exit_code == 1
    assert "stale" in stale.stderr
    assert "old" in readme.read_text()

    assert cli.invoke(main, arguments).exit_code == 0
    text = readme.read_text()
    assert text.startswith(f"# Top\n\n{begin}\n![Pairs/s of every loader")
    assert "\n\n| contestant | pairs/s |" in text
    assert "siamstream cpu" in (tmp_path / "docs" / "benchmarks.svg").read_text()
    assert text.endswith(f"{end}\n\nbottom\n")
    assert "siamstream cpu, uint8" in text
    assert "python -m benchmarks" in text
    assert "1 threads or workers" in text
    assert cli.invoke(main, [*arguments, "--check"]).exit_code == 0

    run = json.loads(compared[1].read_text())
    run["contestants"][0]["summary"]["pairs_per_s"]["median"] *= 2
    (results / "loaders-cpu.json").write_text(json.dumps(run))
    assert cli.invoke(main, [*arguments, "--check"]).exit_code == 1
    readme.write_text(text.replace("siamstream cpu", "by hand"))
    assert cli.invoke(main, [*arguments, "--check"]).exit_code == 1


@pytest.mark.parametrize(
    "text",
    [
        "no markers",
        "<!-- benchmarks:loaders:end --><!-- benchmarks:loaders:begin -->",
        "<!-- benchmarks:loaders:begin -->" * 2 + "<!-- benchmarks:loaders:end -->",
    ],
)
def test_missing_markers_are_an_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "README.md").write_text(text)
    with pytest.raises(FormatError, match="benchmarks:loaders"):
        report.write(tmp_path, tmp_path, check=False)
    assert (tmp_path / "README.md").read_text() == text


def test_results_of_other_kinds_and_schemas_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    for text in (
        "{",
        "[]",
        "{}",
        '{"schema": 99, "kind": "loaders"}',
        '{"schema": 1, "kind": "loaders"}',
        '{"schema": 2, "kind": "x"}',
    ):
        path.write_text(text)
        with pytest.raises(FormatError, match=r"make it again with"):
            result.read(path, "loaders")
    with pytest.raises(FormatError, match="no such result"):
        result.read(tmp_path / "none.json", "loaders")


# ---- rounds, with contestants that are made up --------------------------------------------------

CASE = Case(data="d", derived="e", pairs=8, batch_size=4, warmup_batches=2)
SPEED = {
    "decode-only": 800.0,
    "cpu": 400.0,
    "zip-tuned": 200.0,
    "zip-published": 100.0,
    UNIT: 800.0,
    "files": 250.0,
}


def _figures(pairs_per_s: float) -> dict[str, Any]:
    return {
        "pairs_per_s": pairs_per_s,
        "cpu_ms_per_pair": 2000 / pairs_per_s,
        "memory_peak_beyond_imports_mb": 50.0,
        "first_batch_s": 0.1,
        "pixel_type": "uint8",
    }


def _entries(*names: str) -> list[Entry]:
    return [entry for entry in CONTESTANTS if entry.name in names]


def test_ratios_are_taken_within_a_repeat() -> None:
    calls: list[str] = []

    def once(entry: Entry, _: Case) -> Outcome:
        calls.append(entry.name)
        slower = (1.0, 0.25, 0.5)[(len(calls) - 1) // 5]  # the machine's mood of that repeat
        return Outcome(label=entry.name, figures=_figures(SPEED[entry.name] * slower))

    entries = _entries("cpu", *BASELINES, UNIT, "decode-only")
    contestants, absent = run_rounds(entries, CASE, 3, lambda _: None, once)
    assert absent == []
    cpu = contestants[0]
    assert [run["repeat"] for run in cpu["repeats"]] == [0, 1, 2]
    assert {run["pairs_per_s_x_zip_tuned"] for run in cpu["repeats"]} == {2.0}
    assert {run["pairs_per_s_x_zip_published"] for run in cpu["repeats"]} == {4.0}
    assert {run["cpu_ms_per_pair_x_zip_published"] for run in cpu["repeats"]} == {0.25}
    assert {run["decode_units_per_pair"] for run in cpu["repeats"]} == {4.0}
    assert {run["share_of_limit"] for run in cpu["repeats"]} == {0.5}
    assert not any("share_of_limit" in one["summary"] for one in contestants[-2:])  # the limits
    assert cpu["summary"]["pairs_per_s"] == {
        "median": 200, "q1": 150, "q3": 300, "min": 100, "max": 400
    }  # fmt: skip
    assert sorted(calls[:5]) == sorted(calls[5:10]) == sorted(entry.name for entry in entries)
    rows = table.rows({"contestants": contestants})
    assert rows[0] == (
        "cpu", "200 (150 to 300)", "2.00", "4.00", "10.0", "4.00", "50.0", "0.10", "-", "-", "0.50"
    )  # fmt: skip
    assert rows[-1][0] == UNIT
    assert rows[-1][-5:-3] == rows[-1][-2:] == ("-", "-")


def test_without_baseline_or_unit_there_are_no_ratios() -> None:
    def once(entry: Entry, _: Case) -> Outcome:
        return Outcome(label=entry.name, figures=_figures(SPEED[entry.name]))

    (files,), _ = run_rounds(_entries("files"), CASE, 1, lambda _: None, once)
    assert not [key for key in files["summary"] if "_x_" in key]
    ((_, _, tuned, published, _, units, *_),) = table.rows({"contestants": [files]})
    assert tuned == published == units == "-"


def test_absent_contestants_are_named_once_and_not_tried_again() -> None:
    tried: list[str] = []

    def once(entry: Entry, _: Case) -> Outcome:
        tried.append(entry.name)
        if entry.name == "dali":
            return Outcome(absent="needs a CUDA device")
        return Outcome(label=entry.name, figures=_figures(100.0))

    entries = _entries("cpu", "dali")
    contestants, absent = run_rounds(entries, CASE, 3, lambda _: None, once)
    assert [one["name"] for one in contestants] == ["cpu"]
    assert absent == [{"name": "dali", "reason": "needs a CUDA device"}]
    assert tried.count("dali") == 1
    assert tried.count("cpu") == 3


@pytest.mark.parametrize("fails", [True, False])
def test_who_fails_or_goes_midway_is_absent_alone_and_the_others_go_on(fails: bool) -> None:
    tried: list[str] = []
    said: list[str] = []

    def once(entry: Entry, _: Case) -> Outcome:
        tried.append(entry.name)
        if entry.name == "zip-tuned" and tried.count("zip-tuned") == 2:
            if not fails:
                return Outcome(absent="gone")
            raise ContestantError("contestant zip-tuned failed: no space left")
        return Outcome(label=entry.name, figures=_figures(100.0))

    contestants, absent = run_rounds(_entries("cpu", "zip-tuned"), CASE, 3, said.append, once)
    assert [(one["name"], len(one["repeats"])) for one in contestants] == [("cpu", 3)]
    assert not [key for key in contestants[0]["summary"] if key.endswith("_x_zip_tuned")]
    reason = "failed: no space left" if fails else "gone"
    assert absent == [{"name": "zip-tuned", "reason": reason}]
    assert tried.count("zip-tuned") == 2
    assert f"zip-tuned: absent, {reason}" in said
    if fails:
        with pytest.raises(ContestantError, match=r"^failed, .*: zip-tuned: no space left$"):
            runner.refuse_failed(absent)
    else:
        runner.refuse_failed(absent)


def test_a_failure_is_written_and_shown_and_the_command_ends_with_1(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def once(entry: Entry, _: Case) -> Outcome:
        if entry.name == UNIT:
            raise ContestantError("no memory")
        figures = {
            **_figures(100.0), "wall_s": 1.0, "cores_busy": 1.0, "others_cores_busy": 0.1,
            "memory_imports_mb": 1.0, "memory_end_beyond_imports_mb": 1.0, "disk_read_mb": 0.0,
            "file_pages_peak_mb": 1.0, "search_shape": None, "pairs": 32,
        }  # fmt: skip
        return Outcome(label=entry.name, figures=figures)

    monkeypatch.setattr(compare, "compare", partial(compare.compare, once=once))
    arguments = f"loaders --data {data} --derived {tmp_path} --repeats 1 --only cpu --json"
    outcome = CliRunner().invoke(main, [*arguments.split(), str(tmp_path / "out.json")])
    assert outcome.exit_code == 1
    assert outcome.stderr.splitlines()[-1] == (
        f"Error: failed, and left out of the figures: {UNIT}: no memory"
    )
    run = result.read(tmp_path / "out.json", "loaders")
    assert run["absent"] == [{"name": UNIT, "reason": "failed: no memory"}]
    assert [one["name"] for one in run["contestants"]] == ["cpu"]
    assert outcome.stdout.splitlines()[1].startswith("cpu")


def test_order_is_shuffled_by_repeat_and_seed_and_can_be_repeated() -> None:
    orders = {
        (seed, repeat): tuple(e.name for e in runner.shuffled(CONTESTANTS, seed, repeat))
        for seed in range(3)
        for repeat in range(3)
    }
    assert len(set(orders.values())) > 6
    assert all(set(order) == {e.name for e in CONTESTANTS} for order in orders.values())
    again = tuple(e.name for e in runner.shuffled(CONTESTANTS, 1, 2))
    assert again == orders[1, 2]


@pytest.mark.parametrize("count", [1, 2, 5, 6])
def test_summary_against_sorting(count: int) -> None:
    values = [((7 * i) % 11) / 3 for i in range(count)]
    ordered = sorted(values)
    found = summary(values)
    middle = (ordered[(count - 1) // 2] + ordered[count // 2]) / 2
    assert found["median"] == pytest.approx(middle)
    assert (found["min"], found["max"]) == (ordered[0], ordered[-1])
    assert found["min"] <= found["q1"] <= found["median"] <= found["q3"] <= found["max"]


def test_slow_contestants_get_fewer_pairs() -> None:
    case = Case(data="d", derived="e", pairs=1024, batch_size=32)
    (slow,) = _entries("reference")
    assert runner.own_case(slow, case).pairs == 32
    assert runner.own_case(_entries("cpu")[0], case) == case


# ---- one contestant -----------------------------------------------------------------------------


class _Counting:
    """A contestant that makes numbers; `skip` leaves one batch out."""

    label = "counting"

    def __init__(self, skip: int | None = None) -> None:
        self.closed, self._skip = False, skip

    def batches(self, case: Case) -> Any:
        try:
            for start in case.starts():
                if start != self._skip:
                    pixels = np.zeros((case.batch_size, 3, 2, 2), np.uint8)
                    yield Served(list(range(start, start + case.batch_size)), pixels, pixels)
        finally:
            self.closed = True


def test_measure_counts_pairs_after_the_warmup_and_closes() -> None:
    module = _Counting()
    found = child.measure(module, CASE)
    assert found["pairs"] == 8
    assert found["search_shape"] == [4, 3, 2, 2]
    assert found["samples_sha256"] == runner.expected_samples(CASE)
    assert module.closed


def test_a_time_limit_ends_the_clock_after_whole_rounds_of_batches() -> None:
    endless = replace(CASE, pairs=4_000_000, limit_s=0.05, threads=3)
    found = child.measure(_Counting(), endless)
    assert 0.05 <= found["wall_s"] < 2
    assert 0 < found["pairs"] < 4_000_000
    assert found["pairs"] % (3 * CASE.batch_size) == 0  # each worker's batches equally often
    at_once = child.measure(_Counting(), replace(endless, limit_s=1e-9))
    assert at_once["pairs"] == LEAST_ROUNDS * 3 * CASE.batch_size
    done = replace(endless, pairs=found["pairs"])
    assert found["samples_sha256"] == runner.expected_samples(done)


def test_a_skipped_batch_changes_the_fingerprint() -> None:
    found = child.measure(_Counting(skip=4), CASE)
    assert found["samples_sha256"] != runner.expected_samples(CASE)


def test_a_contestant_that_fails_is_reported_in_its_own_words(tmp_path: Path) -> None:
    case = Case(data=str(tmp_path), derived=str(tmp_path), pairs=4, batch_size=4)
    with pytest.raises(
        ContestantError, match=r"read-only failed: .*no packed data set|no manifest"
    ):
        run_once(_entries("read-only")[0], case)


def test_an_unknown_module_makes_a_contestant_absent() -> None:
    outcome = run_once(Entry(name="not-there", group="baseline"), CASE)
    assert outcome.absent is not None
    assert "not installed" in outcome.absent


# ---- command line -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    [
        "data",
        "loaders",
        "limits",
        "bars",
        "memory",
        "costs",
        "sweep",
        "remote",
        "sequential",
        "pack",
        "report",
    ],
)
def test_help_ends_with_an_example(command: str) -> None:
    outcome = CliRunner().invoke(main, [command, "--help"])
    assert outcome.exit_code == 0
    *_, last = outcome.stdout.strip().split("\n\n")
    assert last.strip().startswith(f"Example: python -m benchmarks {command}")


@pytest.mark.parametrize(
    "arguments",
    [
        "loaders --pairs 0",
        "loaders --only nobody",
        "data --gb 0",
        "limits --batches 0",
        "bars --repeats 0",
        "memory --gb 1",
        "memory --minutes 0.2",
        "memory --minutes -1",
        "memory --minutes 26",
        "memory --gb 1,x",
        "memory --gb 0,1",
        "nonsense",
    ],
)
def test_usage_errors_exit_2(arguments: str) -> None:
    assert CliRunner().invoke(main, arguments.split()).exit_code == 2


def test_no_data_is_one_line_and_exit_1(tmp_path: Path) -> None:
    outcome = CliRunner().invoke(main, ["loaders", "--data", str(tmp_path / "none")])
    assert outcome.exit_code == 1
    assert len(outcome.stderr.strip().splitlines()) == 1
    assert "none" in outcome.stderr


def test_every_section_of_the_documents_comes_from_a_committed_result() -> None:
    root = Path(report.__file__).parents[1]
    results = root / "benchmarks" / "results"
    text = "".join(
        report.update((root / document).read_text(), document, results, document)
        for document in {section.document for section in report.SECTIONS if section.document}
    )
    for words in ("zip-published", "open an index of 1,000,000 rows", "inside 1080p", "filter2D"):
        assert words in text
