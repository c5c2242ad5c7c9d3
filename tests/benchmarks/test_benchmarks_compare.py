"""A comparison as a whole: the server that some contestants need, and who is named as what."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
import synthetic

from benchmarks import table
from benchmarks.case import Case
from benchmarks.compare import DELAY_MS, compare
from benchmarks.contestants import Entry, named
from benchmarks.runner import Outcome, _label, run_once
from benchmarks.slow_server import slow_server
from shards.errors import DataError, SiamstreamError
from shards.format import MANIFEST_NAME, Manifest


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    folder = tmp_path_factory.mktemp("compare")
    synthetic.pack(folder, "lasot", sequences=2, frames=4)
    return Case(
        data=str(folder / "lasot"),
        derived=str(folder / "derived"),
        work="plain",
        pairs=4,
        batch_size=4,
        warmup_batches=1,
    )


def _figures() -> dict[str, Any]:
    return {
        "pairs_per_s": 100.0,
        "cpu_ms_per_pair": 5.0,
        "others_cores_busy": 0.1,
        "memory_peak_beyond_imports_mb": 50.0,
        "first_batch_s": 0.1,
        "pixel_type": "float32",
    }


def _compared(case: Case, entries: list[Entry], seen: dict[str, Any]) -> dict[str, Any]:
    def once(entry: Entry, given: Case) -> Outcome:
        if given.work not in entry.works or entry.name == "dali":
            return run_once(entry, given)
        if given.url:
            with urlopen(f"{given.url}/{MANIFEST_NAME}") as answer:
                seen["manifest"] = answer.read()
        seen["url"] = given.url
        return Outcome(label=f"{entry.name}, float32", figures=_figures())

    return compare(entries, case, 1, "command", 1 << 30, lambda _: None, once)


def test_a_contestant_that_reads_remotely_has_a_server_of_the_data(case: Case) -> None:
    seen: dict[str, Any] = {}
    run = _compared(case, named(["cpu-remote"]), seen)
    assert seen["manifest"] == (Path(case.data) / MANIFEST_NAME).read_bytes()
    assert run["server"]["name"] in ("nginx", "python")
    assert run["server"]["delay_ms"] == DELAY_MS
    assert run["config"]["url"] == ""  # of this run alone, no use to who repeats it
    (line,) = (line for line in table.header_lines(run) if line.startswith("Remote: "))
    assert "answers 30 ms late" in line
    with pytest.raises(OSError, match="refused"):
        urlopen(f"{seen['url']}/{MANIFEST_NAME}")


def test_no_server_is_started_where_nobody_needs_one_or_there_is_one(case: Case) -> None:
    seen: dict[str, Any] = {}
    run = _compared(case, named(["cpu"]), seen)
    assert (seen["url"], run["server"]) == ("", None)
    assert not [line for line in table.header_lines(run) if line.startswith("Remote: ")]


def test_own_pairs_and_what_cannot_be_done_are_marked(case: Case) -> None:
    unable = Entry(name="unable", group="peer", works=("recipe",))
    other = Entry(name="other", group="peer", works=())
    entries = [*named(["cpu", "cpu-sequential"]), unable, other]
    run = _compared(case, entries, {})
    run["absent"].append({"name": "not-there", "reason": "no environment"})
    lines = table.header_lines(run)
    assert "Cannot do plain: other, unable." in lines
    assert "Absent: not-there (no environment)." in lines
    assert not [line for line in lines if line.startswith("Absent: unable")]
    assert {row[0] for row in table.rows(run)} == {
        "cpu, float32",
        "cpu-sequential, float32, own pairs",
    }
    assert any(line.startswith("Own pairs: ") for line in lines)
    alone = _compared(case, named(["cpu"]), {})
    assert not [line for line in table.header_lines(alone) if line.startswith("Own pairs: ")]


@pytest.mark.parametrize(
    ("pixels", "label"), [("float32", "files, float32"), ("uint8", "files, uint8"), (None, "files")]
)
def test_the_runner_adds_the_pixel_type_to_a_label(pixels: str | None, label: str) -> None:
    events = {"imported": {"label": "files"}, "result": {"pixel_type": pixels}}
    assert _label(events) == label


def test_a_server_that_does_not_start_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.executable", "/bin/true")
    with (
        pytest.raises(SiamstreamError, match="did not start"),
        slow_server(tmp_path, 0.0, 0.0, lambda _: None),
    ):
        pass


def test_the_data_sets_forms_have_the_readers_index(case: Case) -> None:
    from benchmarks.derived import dali_folder, ensure

    files = ensure(Path(case.data), case.derived_folder, ("dali",))
    manifest = Manifest.read(Path(case.data))
    own = dali_folder(case.derived_folder, manifest)
    names = {shard.name.removesuffix(".tar") + ".idx" for shard in manifest.shards}
    assert {file.name for file in files if file.parent == own} == names
    assert sum(int((own / name).read_text().split()[1]) for name in names) == 8


def test_a_form_that_nobody_makes_is_refused(case: Case) -> None:
    from benchmarks.derived import ensure

    with pytest.raises(DataError, match="no form of the data is named server, zips; there are "):
        ensure(Path(case.data), case.derived_folder, ("zips", "legacy", "server"))


def test_what_peers_took_to_write_their_forms_is_kept_and_told(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = {"seconds": 12.0, "pictures": 8, "files": 3, "bytes": 4_000_000}
    monkeypatch.setattr("benchmarks.compare.conversions", lambda *_: {"grain": facts})
    run = _compared(case, named(["cpu"]), {})
    assert run["conversions"] == {"grain": facts}
    assert table.column_lines(run) == [
        "Written beforehand, by each library in its own form: grain in 12 s, 4 MB in 3 files."
    ]
