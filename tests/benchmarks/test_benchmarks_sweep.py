"""A sweep: its points, its order, ratios within a repeat, cold and remote runs."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import synthetic
from click.testing import CliRunner

from benchmarks import result, sweep
from benchmarks.case import Case
from benchmarks.cli import main
from benchmarks.contestants import Entry, named
from benchmarks.opening import open_once
from benchmarks.page_cache import Evicted, resident_bytes
from benchmarks.report_sweep import sweep_blocks
from benchmarks.runner import ContestantError, Outcome
from benchmarks.sweep import MARKER, Tools, measure_sweep
from benchmarks.sweep_axes import AXES, Sweep, axis_of
from benchmarks.sweep_table import axis_header, axis_lines, axis_rows
from shards.errors import StorageError


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sweep")
    synthetic.pack(folder, "lasot", sequences=3, frames=6)
    return folder / "lasot"


@pytest.fixture
def wanted(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sweep:
    """A sweep whose made data are copies of small ones."""
    monkeypatch.setattr(sweep, "repeated_pictures", lambda to, _: shutil.copytree(data, to))
    return Sweep(
        data=data, derived=tmp_path / "derived", out=tmp_path / "made", repeats=3, seconds=0.5
    )


def _cases(wanted: Sweep, name: Any) -> list[Case]:
    return [point.case for point in axis_of(wanted, name, "recipe").points]


def test_points_of_the_axes(wanted: Sweep) -> None:
    assert [case.threads for case in _cases(wanted, "workers")] == [1, 2, 4]
    six = Sweep(data=wanted.data, derived=wanted.derived, out=wanted.out, cores=6)
    assert [case.threads for case in _cases(six, "workers")] == [1, 2, 4, 6, 12]
    for case in _cases(six, "workers"):
        assert case.warmup_batches % case.threads == 0  # the clock starts after a whole round
        assert case.warmup_batches >= 6
    assert [case.batch_size for case in _cases(wanted, "batch")] == [8, 32, 128]
    assert len({case.pairs for case in _cases(wanted, "batch")}) == 1
    assert [point.name for point in axis_of(wanted, "size", "recipe").points] == [
        "0.1 GB", "0.2 GB", "0.4 GB", "0.8 GB"
    ]  # fmt: skip
    warm, cold = axis_of(wanted, "cache", "plain").points
    assert warm.case == cold.case
    assert (warm.cold, cold.cold, cold.case.work) == (False, True, "plain")
    assert [point.remote for point in axis_of(wanted, "storage", "recipe").points] == [False, True]
    for axis in AXES:
        for case in _cases(wanted, axis):
            assert case.limit_s == 0.5


class _Runs:
    """Contestants that are made up; the machine gets twice as slow with every repeat."""

    def __init__(self, runs_a_repeat: int) -> None:
        self.calls: list[tuple[str, Case]] = []
        self.resident: list[int] = []
        self._runs = runs_a_repeat

    def __call__(self, entry: Entry, case: Case, env: Mapping[str, str] | None = None) -> Outcome:
        if entry.name == "dali":
            return Outcome(absent="needs a CUDA device")
        self.calls.append((entry.name, case))
        if Path(case.data).is_dir():
            self.resident.append(resident_bytes(Path(case.data).glob("*.tar")))
        assert (env is None) != case.data.startswith("http://")
        speed = {"cpu": 400.0, "zip-tuned": 200.0}[entry.name] * case.threads
        rate = speed / 2 ** ((len(self.calls) - 1) // self._runs)
        figures = {
            "pairs": 256, "wall_s": 256 / rate, "pairs_per_s": rate,
            "cpu_ms_per_pair": 2000 / rate, "cores_busy": 1.5, "others_cores_busy": 0.1,
            "memory_imports_mb": 300.0, "memory_peak_beyond_imports_mb": 50.0,
            "memory_end_beyond_imports_mb": 50.0, "file_pages_peak_mb": 10.0,
            "first_batch_s": 0.1, "disk_read_mb": 0.0, "pixel_type": "uint8",
            "search_shape": [32, 3, 255, 255],
        }  # fmt: skip
        return Outcome(label=f"{entry.name}, uint8", figures=figures)


def _opened(case: Case) -> dict[str, Any]:
    return {"open_ms": 2.0, "rows": 18, "memory_mb": 0.5}


def _measure(
    wanted: Sweep, runs: _Runs, names: list[str], axes: tuple[Any, ...], **more: Any
) -> tuple[dict[str, Any], list[bool]]:
    saved: list[bool] = []
    run = measure_sweep(
        replace(wanted, axes=axes, **more),
        named(names),
        False,
        "python -m benchmarks sweep",
        lambda _: None,
        lambda found: saved.append(found["complete"]),
        Tools(once=runs, opened=_opened),
    )
    result.write(wanted.out.parent / "sweep.json", run)  # it fits its schema
    return run, saved


def test_all_points_run_once_a_repeat_and_ratios_are_taken_within_it(wanted: Sweep) -> None:
    runs = _Runs(6)
    run, saved = _measure(wanted, runs, ["cpu", "zip-tuned", "dali"], ("workers",))
    assert saved == [True]
    per_repeat = [runs.calls[i : i + 6] for i in (0, 6, 12)]
    orders = [[(name, case.threads) for name, case in one] for one in per_repeat]
    assert all(sorted(order) == sorted(orders[0]) for order in orders)
    assert orders[0] != orders[1]
    assert not all([name for name, _ in one] == sorted(name for name, _ in one) for one in orders)
    (axis,) = run["axes"]
    assert axis["absent"] == [{"name": "dali", "point": None, "reason": "needs a CUDA device"}]
    assert [point["value"] for point in axis["points"]] == [1, 2, 4]
    ours, tuned = axis["contestants"]
    for one in ours["points"] + tuned["points"]:
        assert [repeat["repeat"] for repeat in one["repeats"]] == [0, 1, 2]
    for number, factor in enumerate((1, 2, 4)):
        for one in ours["points"][number]["repeats"]:
            assert one["pairs_per_s_x_first"] == factor
            assert one["cpu_ms_per_pair_x_first"] == 1 / factor
            assert one["pairs_per_s_x_zip_tuned"] == 2
            assert one["memory_x_first"] == 1
    assert ours["points"][1]["summary"]["pairs_per_s"]["median"] == 400
    assert "threads" not in axis["case"]
    assert axis["case"]["batch_size"] == 32
    rows = axis_rows(axis)
    assert axis_header(axis)[1:5] == (axis["title"], "pairs/s", "x 1", "x zip-tuned")
    assert rows[1] == (
        "cpu", "2", "400 (300 to 600)", "2.00", "2.00", "5.00", "50.0", "0.10"
    )  # fmt: skip
    assert "Absent: dali (needs a CUDA device)." in axis_lines(axis, 3)


def test_who_fails_in_a_late_repeat_is_absent_and_the_others_go_on(wanted: Sweep) -> None:
    class Failing(_Runs):
        def __call__(
            self, entry: Entry, case: Case, env: Mapping[str, str] | None = None
        ) -> Outcome:
            if entry.name == "zip-tuned" and len(self.calls) > 7:
                raise ContestantError("contestant zip-tuned failed: no space left")
            return super().__call__(entry, case, env)

    run, _ = _measure(wanted, Failing(6), ["cpu", "zip-tuned"], ("workers",))
    (axis,) = run["axes"]
    assert [one["name"] for one in axis["contestants"]] == ["cpu"]
    assert [len(one["repeats"]) for one in axis["contestants"][0]["points"]] == [3, 3, 3]
    assert axis["absent"] == [
        {"name": "zip-tuned", "point": None, "reason": "failed: no space left"}
    ]


def test_data_that_cannot_be_warm_are_not_called_so(
    wanted: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "warm", lambda files, limit: None)
    run, _ = _measure(wanted, _Runs(100), ["cpu"], ("cache",))
    (axis,) = run["axes"]
    assert axis["contestants"] == []
    assert [one["reason"] for one in axis["absent"]] == [
        "its files do not fit in half the free memory: never warm"
    ]


def test_the_cold_rates_of_zips_in_memory_are_explained(wanted: Sweep) -> None:
    run, _ = _measure(wanted, _Runs(100), ["cpu", "zip-tuned"], ("cache",), repeats=1)
    (axis,) = run["axes"]
    lines = [line for line in axis_lines(axis, 1) if line.startswith("zip-tuned: the whole zip")]
    assert len(lines) == 1
    assert lines[0] in [getattr(block, "text", "") for block in sweep_blocks(run)]


def test_works_and_axes_multiply_and_each_is_saved(wanted: Sweep) -> None:
    runs = _Runs(100)
    run, saved = _measure(
        wanted, runs, ["cpu"], ("workers", "batch"), works=("plain", "recipe"), repeats=1
    )
    assert saved == [False, False, False, True]
    assert [(axis["axis"], axis["work"]) for axis in run["axes"]] == [
        ("workers", "plain"), ("workers", "recipe"), ("batch", "plain"), ("batch", "recipe")
    ]  # fmt: skip
    assert Counter(case.work for _, case in runs.calls) == {"plain": 6, "recipe": 6}


def test_size_opens_the_data_of_every_point_and_removes_them(wanted: Sweep) -> None:
    run, _ = _measure(wanted, _Runs(100), ["cpu", "zip-tuned"], ("size",))
    (axis,) = run["axes"]
    assert [len(one["repeats"]) for one in axis["openings"]] == [3] * 4
    assert axis["openings"][3]["summary"]["open_ms"]["median"] == 2
    assert any("Opening 0.8 GB (18 crops): 2.00 ms" in line for line in axis_lines(axis, 3))
    assert not wanted.out.exists()


def test_a_folder_of_somebody_else_is_left_alone(wanted: Sweep) -> None:
    wanted.out.mkdir()
    (wanted.out / "thesis.tex").touch()
    with pytest.raises(StorageError, match=MARKER):
        _measure(wanted, _Runs(100), ["cpu"], ("size",))
    assert [path.name for path in wanted.out.iterdir()] == ["thesis.tex"]


def test_cold_runs_find_nothing_in_the_page_cache(wanted: Sweep) -> None:
    runs = _Runs(100)
    run, _ = _measure(wanted, runs, ["cpu"], ("cache",))
    (axis,) = run["axes"]
    warm, cold = axis["contestants"][0]["points"]
    assert all("evicted_share" not in one for one in warm["repeats"])
    assert [one["resident_share"] for one in warm["repeats"]] == [1.0] * 3
    shares = [one["evicted_share"] for one in cold["repeats"]]
    if min(shares) == 0:
        pytest.skip("the temporary folder is in memory; set TMPDIR to a folder on a disk")
    assert shares == [1.0] * 3
    assert sum(seen == 0 for seen in runs.resident) == 3
    assert sum(seen > 10_000 for seen in runs.resident) == 3
    assert not any("kept" in note for note in axis["notes"])


def test_what_the_kernel_keeps_is_said(wanted: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "evict", lambda _: Evicted(total=100, kept=25))
    run, _ = _measure(wanted, _Runs(100), ["cpu"], ("cache",))
    assert any("kept up to 25.0 % of the bytes" in note for note in run["axes"][0]["notes"])


def test_storage_runs_ours_alone(wanted: Sweep) -> None:
    runs = _Runs(100)
    run, _ = _measure(wanted, runs, ["cpu", "zip-tuned", "cpu-remote"], ("storage",), repeats=1)
    (axis,) = run["axes"]
    assert [one["name"] for one in axis["contestants"]] == ["cpu"]
    assert {one["name"] for one in axis["absent"]} == {"zip-tuned", "cpu-remote"}
    assert sorted(case.url == case.data for _, case in runs.calls) == [False, True]


@pytest.mark.slow
def test_a_real_run_over_the_slow_server(
    wanted: Sweep, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "never"))
    arguments = (
        f"sweep --axis storage --only cpu --repeats 1 --seconds 0.01 --delay-ms 5 --data {data} "
        f"--out {wanted.out} --json {tmp_path / 'sweep.json'}"
    )
    outcome = CliRunner().invoke(main, arguments.split())
    assert outcome.exit_code == 0, outcome.output
    run = result.read(tmp_path / "sweep.json", "sweep")
    assert run["complete"]
    local, remote = run["axes"][0]["contestants"][0]["points"]
    assert remote["point"] == "remote, 5 ms"
    size = sum(path.stat().st_size for path in data.glob("*.tar")) / 1e6
    assert 0.2 * size < remote["repeats"][0]["fetched_mb"] < 3 * size  # each picture once
    assert "fetched_mb" not in local["repeats"][0]
    assert not (tmp_path / "never").exists()  # each run had a cache of its own
    assert outcome.stdout.splitlines()[0].endswith("MB fetched")


@pytest.mark.slow
def test_opening_is_measured_in_a_process_of_its_own(data: Path) -> None:
    found = open_once(Case(data=str(data), derived="-"))
    assert found["rows"] == 18
    assert found["open_ms"] > 0


@pytest.mark.parametrize(
    "arguments",
    ["--axis depth", "--axis ,", "--work fast", "--only nobody", "--seconds 0", "--size-gb 0"],
)
def test_usage_errors_exit_2(arguments: str) -> None:
    assert CliRunner().invoke(main, ["sweep", *arguments.split()]).exit_code == 2
