"""The schema of results: kept fresh, fits what is committed, and says where a fault is."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from benchmarks import result, schema
from shards.errors import FormatError

RESULTS = Path(result.__file__).parent / "results"
COMMITTED = sorted(RESULTS.glob("*.json"))


def _loaders() -> dict[str, Any]:
    run: dict[str, Any] = json.loads((RESULTS / "loaders-cpu.json").read_text())
    return run


def test_the_file_is_fresh() -> None:
    assert schema.FILE.read_text() == schema.schema_text(), "run python -m benchmarks.schema"


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.stem)
def test_every_committed_result_fits(path: Path) -> None:
    run = result.read(path)
    jsonschema.Draft202012Validator(json.loads(schema.FILE.read_text())).validate(run)


FAULTS: list[tuple[str, Callable[[dict[str, Any]], Any]]] = [
    ("made_utc", lambda run: run.update(made_utc="yesterday")),
    ("environment.cores_usable", lambda run: run["environment"].update(cores_usable="2")),
    ("command", lambda run: run.pop("command")),
    ("config.batch_size", lambda run: run["config"].update(batch_size=0)),
    ("data.page_cache", lambda run: run["data"].update(page_cache="hot")),
    ("contestants.0.group", lambda run: run["contestants"][0].update(group="friends")),
    (
        "contestants.1.repeats.2.pairs_per_s",
        lambda run: run["contestants"][1]["repeats"][2].update(pairs_per_s=None),
    ),
    (
        "contestants.1.repeats.0.pairs_per_s_x_zip_tuned",
        lambda run: run["contestants"][1]["repeats"][0].update(pairs_per_s_x_zip_tuned="2"),
    ),
    (
        "contestants.0.summary.pairs_per_s.q1",
        lambda run: run["contestants"][0]["summary"]["pairs_per_s"].pop("q1"),
    ),
    ("speed", lambda run: run.update(speed=1)),
]


@pytest.mark.parametrize(("where", "spoil"), FAULTS, ids=[where for where, _ in FAULTS])
def test_a_fault_is_named_with_its_file_and_place(
    tmp_path: Path, where: str, spoil: Callable[[dict[str, Any]], Any]
) -> None:
    run = _loaders()
    spoil(run)
    path = tmp_path / "spoilt.json"
    path.write_text(json.dumps(run))
    with pytest.raises(FormatError) as caught:
        result.read(path, "loaders")
    assert str(caught.value).startswith(f"{path}: {where}: ")
    assert "\n" not in str(caught.value)
    if where == "made_utc":
        return  # the form of a text is not checked by everybody who reads a JSON Schema
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(run, json.loads(schema.schema_text()))


def test_claims_of_any_kind_are_checked(tmp_path: Path) -> None:
    run = json.loads((RESULTS / "bars-cpu.json").read_text())
    del run["claims"][1]["summary"]["median"]
    path = tmp_path / "bars.json"
    path.write_text(json.dumps(run))
    with pytest.raises(FormatError, match=r"claims\.1\.summary\.median: Field required"):
        result.read(path, "bars")


def test_what_was_measured_is_written_even_if_it_does_not_fit(tmp_path: Path) -> None:
    run = _loaders()
    run.pop("took_s", None)
    result.write(tmp_path / "good.json", run)
    found = result.read(tmp_path / "good.json")
    assert found.pop("took_s") > 0
    assert found == run
    run["contestants"][0]["summary"]["pairs_per_s"]["median"] = float("nan")
    with pytest.raises(FormatError, match=r"bad.json: written, but .*pairs_per_s\.median"):
        result.write(tmp_path / "bad.json", run)
    assert (tmp_path / "bad.json").is_file()


def test_a_kind_that_nobody_knows_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text(json.dumps({**_loaders(), "kind": "horoscope"}))
    with pytest.raises(FormatError, match="of kind 'horoscope'; known are loaders, "):
        result.read(path)
