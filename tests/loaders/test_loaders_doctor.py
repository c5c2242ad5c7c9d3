"""The doctor: names the stage that is slow, says what to change, works on every backend."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image

import loaders.doctor
import loaders.reference
from benchmarks.faulty_server import FaultyServer
from loaders.advice import (
    Setting,
    Stage,
    StageName,
    advice,
    bottleneck,
    expected_pairs_per_s,
    notes,
)
from loaders.cli import main
from loaders.config import PairConfig
from loaders.doctor import examine
from loaders.doctor_sheet import lines
from loaders.remote import RemoteConfig, RemoteStorage
from loaders.sets import DataSet, DataSets
from loaders.timing import pairs_per_s
from shards.errors import BadSample, StorageError
from shards.storage import Range

NAMES: tuple[StageName, ...] = ("storage", "decode", "augment", "plan", "hand-over")
SETTING = Setting(
    backend="cpu",
    pixels="uint8",
    template_px=255,
    threads=2,
    cores=2,
    cuda=False,
    cold=False,
    pictures=100_000,
    data_bytes=3_500_000_000,
    memory_bytes=16_000_000_000,
)


def stages(**pairs_per_second: float) -> tuple[Stage, ...]:
    return tuple(
        Stage(name=name, one_thread=rate / 2, all_threads=rate)
        for name in NAMES
        for rate in [pairs_per_second.get(name.replace("-", "_"), 1e4)]
    )


# ---- the conclusion -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("slow", "expected"),
    [
        ({"decode": 1500}, "decode"),
        ({"augment": 1500, "decode": 2000}, "augment"),
        ({"storage": 50}, "storage"),
        ({"plan": 200}, "plan"),
        ({"hand_over": 200}, "hand-over"),
        # slower than any stage of the pool, but not than the three together
        ({"hand_over": 1400, "decode": 1500, "augment": 1600}, "decode"),
    ],
)
def test_the_bottleneck_is_what_the_loader_waits_for(slow: dict[str, float], expected: str) -> None:
    assert bottleneck(stages(**slow)).name == expected


def test_times_of_the_pool_add_up() -> None:
    assert expected_pairs_per_s(stages(decode=1000, augment=1000, storage=1e9)) == pytest.approx(
        500
    )
    assert expected_pairs_per_s(stages(hand_over=100)) == pytest.approx(100)


@pytest.mark.parametrize(
    ("stage", "changes", "words"),
    [
        ("storage", {"cold": True}, ["fit into memory", "data.threads=4", "faster disk"]),
        ("storage", {"cold": True, "data_bytes": 10**12}, ["data.threads=4", "faster disk"]),
        ("storage", {"cold": False}, ["data.threads=4", "network file system"]),
        ("storage", {"connections": 32, "cold": True, "ahead_mb": 256, "cache_gb": 20},
         ["data.remote.cache_gb=20 holds all of the data", "data.remote.connections=64",
          "data.remote.ahead_mb=512", "data.path"]),
        ("storage", {"connections": 500, "cold": True, "ahead_mb": 256, "cache_gb": 1},
         ["data.remote.connections=512", "data.remote.ahead_mb", "data.path",
          "data.remote.cache_gb=3.85"]),
        ("storage", {"connections": 32, "cold": False}, ["data.remote.cache_dir on a faster disk"]),
        ("decode", {}, ["data.template_px=127", "more cores"]),
        ("decode", {"threads": 1, "template_px": 127}, ["data.threads=2", "more cores"]),
        ("decode", {"cuda": True, "template_px": 127}, ["data.backend=dali", "more cores"]),
        ("augment", {"backend": "dali-cpu", "template_px": 127},
         ["data.backend=cpu", "more cores"]),
        ("augment", {"backend": "reference", "threads": 1, "template_px": 127},
         ["data.backend=cpu", "more cores"]),
        ("decode", {"backend": "dali", "cuda": True, "template_px": 127}, ["GPU"]),
        ("plan", {}, ["larger batches", "data.workers=4"]),
        ("plan", {"connections": 32}, ["larger batches"]),
        ("plan", {"storage": "zip-memory"}, ["larger batches"]),
        ("plan", {"workers": 2}, ["larger batches"]),
        ("hand-over", {"pixels": "float32", "backend": "dali-cpu"}, ["data.pixels=uint8"]),
        ("hand-over", {"pixels": "float32"}, ["data.search_px"]),
        ("hand-over", {}, ["data.search_px"]),
    ],
)  # fmt: skip
def test_advice_names_the_setting(
    stage: StageName, changes: dict[str, Any], words: list[str]
) -> None:
    told = advice(stage, replace(SETTING, **changes))
    assert len(told) == len(words)
    for line, word in zip(told, words, strict=True):
        assert word in line


def test_notes_say_when_figures_mean_little() -> None:
    usual = stages(decode=2000, augment=2000, storage=1e9)
    assert notes(SETTING, 950, usual, 1.9) == ()
    (graph,) = notes(replace(SETTING, backend="dali"), 950, usual, 1.9)
    assert "one graph" in graph
    (small,) = notes(replace(SETTING, pictures=50), 950, usual, 1.9)
    assert "too small to tell how its storage behaves: 50 pictures" in small
    (many,) = notes(replace(SETTING, threads=16), 950, usual, 1.9)
    assert "may use 2 core(s)" in many
    (flat,) = notes(SETTING, 950, usual, 1.05)
    assert "1.05 times the pairs of one" in flat
    (slow,) = notes(SETTING, 300, usual, 1.9)
    assert "makes 300 pairs/s where its stages alone allow 1,000" in slow


# ---- measuring ----------------------------------------------------------------------------------


def test_rates_are_of_all_threads() -> None:
    meet, begun, started = threading.Barrier(4), list[int](), time.perf_counter()

    def task(number: int) -> None:
        begun.append(number)
        meet.wait(60)  # four at once, or none

    rate = pairs_per_s(task, 4, 60, 60, most=40)
    assert rate >= 40 / (time.perf_counter() - started)
    assert sorted(begun) == list(range(40))


def test_each_pair_is_made_once_if_there_is_a_most() -> None:
    made: list[int] = []
    pairs_per_s(made.append, 3, 5, 10, most=20)
    assert sorted(made) == list(range(20))


def test_each_thread_makes_one_pair_however_short_the_time() -> None:
    made: list[int] = []
    rate = pairs_per_s(made.append, 2, 1e-9, 10, most=20)
    assert sorted(made) == [0, 1]
    assert 0 < rate < 1e7


def test_a_failure_in_a_thread_is_raised_and_a_stall_is_an_error() -> None:
    def fail(number: int) -> None:
        if number == 5:
            raise BadSample("a.tar", "x/0_00000001", 512, "torn")

    with pytest.raises(BadSample, match="torn"):
        pairs_per_s(fail, 2, 5, 10)
    release = threading.Event()
    for most in (None, 5):
        with pytest.raises(StorageError, match=r"within data.timeout_s=0.2 s"):
            pairs_per_s(lambda _: release.wait(200), 2, 0.1, 0.2, most=most)
    release.set()


def _examined(
    packed: Path, backend: str = "reference", seconds: float = 0.3, **changes: Any
) -> dict[str, Any]:
    config = PairConfig(
        path=str(packed),
        backend=backend,  # type: ignore[arg-type]
        threads=2,
        prefetch=1,
        template_px=31,
        search_px=31,
        **changes,
    )
    return examine(config, torch.device("cpu"), batch_size=4, seconds=seconds).facts()


def _slowed(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, seconds: float) -> None:
    plain = getattr(owner, name)

    def slow(*arguments: Any, **named: Any) -> Any:
        time.sleep(seconds)
        return plain(*arguments, **named)

    monkeypatch.setattr(owner, name, slow)


def test_a_slow_storage_is_named(packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _slowed(monkeypatch, DataSet, "read", 0.05)
    facts = _examined(packed, "cpu", seconds=1.2)
    assert facts["bottleneck"] == "storage"
    assert facts["storage"]["us_per_picture"] > 20_000  # two threads sleep at once


def test_a_slow_decoder_is_named(packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _slowed(monkeypatch, loaders.reference, "decode", 0.03)
    monkeypatch.setattr(loaders.doctor, "decode_with_pillow", loaders.reference.decode)
    assert _examined(packed)["bottleneck"] == "decode"


def test_a_slow_augmentation_is_named(packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _slowed(monkeypatch, loaders.reference, "warp", 0.03)
    assert _examined(packed)["bottleneck"] == "augment"


def test_a_slow_hand_over_is_named(packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _slowed(monkeypatch, loaders.doctor, "normalise", 0.1)
    facts = _examined(packed, pixels="float32")
    assert facts["bottleneck"] == "hand-over"
    assert "data.pixels=uint8" in facts["advice"][0]


def test_a_slow_plan_is_named(packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _slowed(monkeypatch, loaders.doctor, "prepare", 0.3)
    assert _examined(packed, "cpu")["bottleneck"] == "plan"


def test_augment_has_no_time_of_the_storage(packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On cold storage the backend's own pictures must not be waited for while it is timed."""
    seen: set[tuple[str, int]] = set()
    plain = DataSet.read

    def cold(self: DataSet, row: int) -> memoryview:
        if (self.manifest.name, row) not in seen:
            time.sleep(0.1)
            seen.add((self.manifest.name, row))
        return plain(self, row)

    monkeypatch.setattr(DataSet, "read", cold)
    stage = {one["stage"]: one for one in _examined(packed, "cpu")["stages"]}
    assert stage["storage"]["ms_per_pair"] > 50
    assert stage["augment"]["ms_per_pair"] < 40


def test_data_behind_a_url(packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[DataSets] = []
    plain = DataSets.close

    def close(self: DataSets, wait: bool = True) -> None:
        closed.append(self)
        plain(self, wait)

    monkeypatch.setattr(DataSets, "close", close)
    announced = 0
    ahead = RemoteStorage.will_need

    def will_need(self: RemoteStorage, ranges: Sequence[Range]) -> None:
        nonlocal announced
        announced += len(ranges)
        ahead(self, ranges)

    monkeypatch.setattr(RemoteStorage, "will_need", will_need)
    with FaultyServer(packed) as server:
        config = PairConfig(
            path=server.url, backend="cpu", threads=2, prefetch=1, template_px=31, search_px=31,
            remote=RemoteConfig(cache_dir=str(tmp_path)),
        )  # fmt: skip
        facts = examine(config, torch.device("cpu"), batch_size=4, seconds=0.3).facts()
    assert facts["storage"]["cold"]
    assert facts["setting"]["connections"] == 32
    assert announced > 2 * 256  # both passes, and the backend's batches
    assert len(closed) >= 3  # its own, and those of two loaders
    assert any("over the network (cold)" in line for line in lines(facts))


# ---- the command --------------------------------------------------------------------------------


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["doctor", *(str(a) for a in arguments)])


SMALL = ("--seconds", 0.6, "--batch-size", 4, "--set", "data.template_px=63",
         "--set", "data.search_px=63", "--set", "data.prefetch=1")  # fmt: skip


@pytest.mark.parametrize("backend", ["cpu", "dali-cpu", "reference"])
def test_json_of_every_backend(packed: Path, tmp_path: Path, backend: str) -> None:
    out = tmp_path / "sub" / "doctor.png"
    result = run("--data", packed, "--backend", backend, "--json", "--out", out, *SMALL)
    assert result.exit_code == 0, result.output
    facts = json.loads(result.stdout)
    assert set(facts) == {
        "setting", "batch_size", "stages", "whole_decode_pairs_per_s_one_thread",
        "whole_decode_pairs_per_s", "storage", "loader_pairs_per_s_one_thread",
        "loader_pairs_per_s", "bottleneck", "advice", "notes", "warnings",
    }  # fmt: skip
    assert [one["stage"] for one in facts["stages"]] == list(NAMES)
    for one in facts["stages"]:
        assert one["pairs_per_s"] > 0
        assert one["ms_per_pair"] == pytest.approx(1e3 / one["pairs_per_s"])
    assert facts["bottleneck"] in NAMES
    assert facts["advice"]
    assert (facts["setting"]["backend"], facts["setting"]["template_px"]) == (backend, 63)
    assert facts["setting"]["pictures"] == 82  # 5 sequences of 14, and 12 images
    assert any("too small to tell" in note for note in facts["notes"])
    assert "got10k" in result.stderr  # the warning of what is missing
    with Image.open(out) as image:
        assert image.width > 800


def test_a_table_for_people(packed: Path, tmp_path: Path) -> None:
    out = tmp_path / "doctor.svg"
    result = run("--data", packed / "lasot", "--backend", "cpu", "--out", out, *SMALL)
    assert result.exit_code == 0, result.output
    first, head, *table = result.stdout.splitlines()
    assert first.startswith("backend cpu, ")
    assert head.startswith("stage")
    assert [line.split("  ")[0].strip() for line in table[:7]] == [
        *NAMES, "whole decode", "whole loader"
    ]  # fmt: skip
    assert sum("<- bottleneck" in line for line in table) == 1
    assert any(line.startswith("bottleneck: ") for line in table)
    assert any(line.startswith("  change: ") for line in table)
    assert "<svg" in out.read_text()


def test_a_damaged_sample_is_one_line(packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: DataSet, row: int) -> memoryview:
        raise self.bad(row, "CRC-32C is 0, the index says 1")

    monkeypatch.setattr(DataSet, "read", broken)
    result = run("--data", packed, "--backend", "cpu", *SMALL)
    assert result.exit_code == 1
    assert "CRC-32C is 0" in result.stderr
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        (("--data", "/nonexistent"), 1, "python -m packer demo"),
        (("--set", "data.sed=1"), 1, "did you mean 'seed'"),
        (("--seconds", "0"), 2, "seconds"),
        (("--seconds", "0.0000001"), 2, "0.1<=x<=3600"),
        (("--data", "pipe:true"), 1, "a 'pipe:' command runs a shell"),
        (("--backend", "nvjpeg"), 2, "nvjpeg"),
    ],
)
def test_mistakes(arguments: tuple[object, ...], code: int, complaint: str) -> None:
    result = run(*arguments)
    assert result.exit_code == code
    assert complaint in result.stderr
    assert "Traceback" not in result.output


def test_a_plot_that_cannot_be_written_is_one_line(packed: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "x.nonsense", tmp_path / "file" / "x.png"):
        result = run("--data", packed, "--backend", "cpu", "--out", out, *SMALL)
        assert result.exit_code == 1
        assert str(out.parent) in result.stderr
        assert "Traceback" not in result.output
