"""Sweeps over settings of tracking: warned of, gone on with, refused, summed up."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import evaluation_trees as trees
import numpy as np
import numpy.typing as npt
import pytest

from shards.errors import DataError, MismatchError
from tracker.config import ModelConfig
from tracker.grid import (
    Axis,
    settings_of,
)
from tracker.onepass import KEEP_FIRST_BOX
from tracker.runs import EvaluationError
from tracker.sequences import Dataset, Sequences, read_sequences
from tracker.sweep import Contestant, sweep
from tracker.sweep_text import Sweep, best_options, facts, table, warnings_of

WINDOW, NMS = "track.match.window", "track.match.proposals.nms_iou"


@pytest.mark.parametrize(
    ("dataset", "split", "kind"),
    [
        ("otb", "otb100", "IS A TEST SET"),
        ("otb", "otb50", "IS A TEST SET"),
        ("otb", "otb2013", "IS A TEST SET"),
        ("otb", "all", "IS A TEST SET"),
        ("lasot", "test", "IS A TEST SET"),
        ("lasot", "all", "IS A TEST SET"),
        ("lasot", "train", "is a training set"),
        ("got10k", "val", None),
        ("got10k", "test", "IS A TEST SET"),
        ("got10k", "train", "is a training set"),
        ("got10k", "all", "is a training set"),  # of its test set nothing is scored
        ("trackingnet", "test", "IS A TEST SET"),
        ("trackingnet", "train", "is a training set"),
        ("trackingnet", "all", "is a training set"),
    ],
)
def test_warnings(dataset: Dataset, split: str, kind: str | None) -> None:
    *first, last = warnings_of(dataset, split)
    assert "the published figures" in last
    assert "test sets themselves" in last
    assert len(first) == (kind is not None)
    assert all(text.startswith(f"{dataset} {split} {kind}") for text in first)


def axis(name: str, key: str, *values: float) -> Axis:
    return Axis(name=name, key=key, values=values)


class Interrupted(BaseException):
    """As Ctrl-C."""


@dataclass
class Shifter:
    """Finds the object `by` pixels to the right of where it was first; writes down its runs."""

    by: float
    log: list[tuple[float, int]]
    stop_at: int | None

    def start(self, frame: Any, box: npt.NDArray[Any]) -> None:
        if len(self.log) == self.stop_at:
            raise Interrupted
        self.first = np.array(box)
        self.log.append((self.by, 1))

    def step(self, frame: Any) -> trees.Moved:
        by, frames = self.log[-1]
        self.log[-1] = (by, frames + 1)
        return trees.Moved(self.first + np.array([self.by, 0, self.by, 0]), 0.9)


@dataclass(frozen=True)
class MakeShifter:
    """Makes one."""

    by: float
    log: Any
    stop_at: int | None = None

    def __call__(self) -> Shifter:
        return Shifter(self.by, self.log, self.stop_at)


AXES = (axis("window", WINDOW, 0.5, 0.1, 0.3), axis("nms", NMS, 0.6))
SHIFTS = {0.5: 12.0, 0.1: 0.0, 0.3: 6.0}  # px by window


def contestants(
    axes: Sequence[Axis], log: list[tuple[float, int]], *, stop_at: int | None = None, **made: str
) -> list[Contestant]:
    """Trackers that are good or bad by their window alone."""
    made_by = {"checkpoint": "abc", "device": "cpu", WINDOW: "0.4", NMS: "0.6"} | made
    return [
        Contestant(
            setting=one,
            make=MakeShifter(SHIFTS[dict(one.values)[WINDOW]], log, stop_at),
            made_by=made_by | {key: str(value) for key, value in one.values},
        )
        for one in settings_of(axes, ModelConfig())
    ]


def still(root: Path, number: int, frames: int, split: str = "val", **more: Any) -> None:
    """GOT-10k sequence of an object of 24 x 18 px that does not move."""
    trees.got10k(root, split, number, frames, **more)
    truth = root / split / f"GOT-10k_{split.title()}_{number:06d}" / "groundtruth.txt"
    lines = 1 if split == "test" else frames
    truth.write_text(trees.rows_text(np.tile([40.0, 30, 24, 18], (lines, 1))))


@pytest.fixture
def sequences(tmp_path: Path) -> Sequences:
    still(tmp_path / "raw", 1, 5)
    still(tmp_path / "raw", 2, 9)
    return read_sequences("got10k", tmp_path / "raw", "val")


def run(
    sequences: Sequences, out: Path, who: Sequence[Contestant], axes: Sequence[Axis] = AXES,
    told: list[str] | None = None,
) -> Sweep:  # fmt: skip
    return sweep(
        sequences, out, contestants=who, axes=axes, convention="got10k", workers=1,
        tell=([] if told is None else told).append,
    )  # fmt: skip


def test_a_sweep_finds_the_best_setting(sequences: Sequences, tmp_path: Path) -> None:
    told: list[str] = []
    found = run(sequences, tmp_path / "out", contestants(AXES, []), told=told)
    assert [dict(one.setting.values)[WINDOW] for one in found.order] == [0.1, 0.3, 0.5]
    # boxes of width 24 that are d apart overlap by (24 - d) / (24 + d)
    assert [one.total.ao for one in found.order] == pytest.approx([1, 0.6, 1 / 3])
    assert [one.behind for one in found.order] == pytest.approx([0, 0.4, 2 / 3])
    assert found.floor.ao == 1  # the object does not move
    assert found.warnings == warnings_of("got10k", "val")
    assert best_options(found) == f"--set {WINDOW}=0.1 --set {NMS}=0.6"
    assert told[0] == "3 settings x 2 sequences = 6 runs; 6 to do (42 frames), 0 done before"
    assert told[1].startswith("the first setting took ")
    assert told[1].endswith("for the 2 others")
    assert len(told) == 2


def test_the_summary_is_the_table(sequences: Sequences, tmp_path: Path) -> None:
    found = run(sequences, tmp_path / "out", contestants(AXES, []))
    stored = json.loads((tmp_path / "out/reports/got10k-val/sweep.json").read_text())
    assert stored == facts(found)
    assert (stored["dataset"], stored["split"], stored["figure"]) == ("got10k", "val", "ao")
    assert stored["best"] == best_options(found)
    assert stored["settings"][0]["values"] == {WINDOW: 0.1, NMS: 0.6}
    assert [one["ao"] for one in stored["settings"]] == pytest.approx([1, 0.6, 1 / 3])
    assert stored["keep_first_box"]["ao"] == 1
    assert stored["warnings"] == list(found.warnings)
    rows = [list(column.cells) for column in table(found).columns]
    assert rows[0] == ["0.1", "0.3", "0.5", KEEP_FIRST_BOX]
    assert rows[2] == ["1.000", "0.600", "0.333", "1.000"]
    assert rows[-1] == ["best", "0.400 ± 0.000", "0.667 ± 0.000", ""]


def test_the_summary_of_one_sequence_is_json_that_others_read(tmp_path: Path) -> None:
    still(tmp_path / "raw", 1, 5)
    one = read_sequences("got10k", tmp_path / "raw", "val")
    run(one, tmp_path / "out", contestants(AXES, []))
    text = (tmp_path / "out/reports/got10k-val/sweep.json").read_text()
    assert "NaN" not in text
    assert json.loads(text)["settings"][1]["behind_standard_error"] is None


def test_a_sweep_that_was_killed_does_only_the_rest(sequences: Sequences, tmp_path: Path) -> None:
    out, log = tmp_path / "out", []
    with pytest.raises(Interrupted):
        run(sequences, out, contestants(AXES, log, stop_at=3))
    assert log == [(12, 9), (12, 5), (0, 9)]  # setting by setting, the longest first
    assert not (out / "reports/got10k-val/sweep.json").exists()
    again: list[tuple[float, int]] = []
    told: list[str] = []
    found = run(sequences, out, contestants(AXES, again), told=told)
    assert again == [(0, 5), (6, 9), (6, 5)]
    assert told[0] == "3 settings x 2 sequences = 6 runs; 3 to do (19 frames), 3 done before"
    straight = run(sequences, tmp_path / "straight", contestants(AXES, []))
    assert facts(found) == facts(straight)
    none: list[tuple[float, int]] = []
    assert facts(run(sequences, out, contestants(AXES, none))) == facts(straight)
    assert none == []


def test_a_wider_grid_in_the_same_folder_does_only_what_is_new(
    sequences: Sequences, tmp_path: Path
) -> None:
    out, log = tmp_path / "out", []
    few = [axis("window", WINDOW, 0.5, 0.3), axis("nms", NMS, 0.6)]
    run(sequences, out, contestants(few, []), few)
    found = run(sequences, out, contestants(AXES, log))
    assert log == [(0, 9), (0, 5)]
    assert len(found.order) == 3
    fewer = run(sequences, out, contestants(few, log), few)
    assert len(log) == 2
    assert [dict(one.setting.values)[WINDOW] for one in fewer.order] == [0.3, 0.5]


def test_another_checkpoint_device_or_fixed_setting_is_refused(
    sequences: Sequences, tmp_path: Path
) -> None:
    out, log = tmp_path / "out", []
    window = [axis("window", WINDOW, 0.1, 0.3)]
    run(sequences, out, contestants(window, []), window)
    before = (out / "reports/got10k-val/sweep.json").read_bytes()
    for made, said in (
        ({"checkpoint": "other"}, "another checkpoint (abc there, other now)"),
        ({"device": "cuda"}, "another device (cpu there, cuda now)"),
        ({NMS: "0.7"}, f"another {NMS} (0.6 there, 0.7 now)"),
    ):
        with pytest.raises(MismatchError) as caught:
            run(sequences, out, contestants(window, log, **made), window)
        assert said in str(caught.value)
        assert "give another --out" in str(caught.value)
    others = [axis("window", WINDOW, 0.5)]  # not even under names that are not there yet
    with pytest.raises(MismatchError, match="another checkpoint"):
        run(sequences, out, contestants(others, log, checkpoint="other"), others)
    assert log == []
    assert (out / "reports/got10k-val/sweep.json").read_bytes() == before


def test_a_picture_that_cannot_be_read_stops_only_its_runs(
    sequences: Sequences, tmp_path: Path
) -> None:
    out, log = tmp_path / "out", []
    bad = sequences.sequences[0].frames[2]
    whole = bad.read_bytes()
    bad.write_bytes(b"no picture")
    with pytest.raises(EvaluationError) as caught:
        run(sequences, out, contestants(AXES, log))
    assert "3 of 6 runs failed" in str(caught.value)
    assert f"window0.5-nms0.6, {sequences.sequences[0].name}: {bad}: " in str(caught.value)
    bad.write_bytes(whole)
    log.clear()
    run(sequences, out, contestants(AXES, log))
    assert log == [(12, 5), (0, 5), (6, 5)]


def test_a_map_is_drawn_of_two_parameters_with_several_values(
    sequences: Sequences, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    run(sequences, out, contestants(AXES, []))  # one value of nms
    assert not (out / "reports/got10k-val/sweep.png").exists()
    wide = [AXES[0], axis("nms", NMS, 0.5, 0.6)]
    run(sequences, out, contestants(wide, []), wide)
    assert (out / "reports/got10k-val/sweep.png").read_bytes().startswith(b"\x89PNG\r\n")
    run(sequences, out, contestants(AXES, []))
    assert not (
        out / "reports/got10k-val/sweep.png"
    ).exists()  # nothing of another grid beside this summary


def test_sequences_without_public_ground_truth_are_left_out(tmp_path: Path) -> None:
    still(tmp_path / "raw", 1, 5)
    still(tmp_path / "raw", 7, 5, split="test")
    log: list[tuple[float, int]] = []
    everything = read_sequences("got10k", tmp_path / "raw", "all")
    found = run(everything, tmp_path / "out", contestants(AXES, log))
    assert len(log) == 3
    assert "1 sequences without public ground truth are left out" in found.notes
    hidden = read_sequences("got10k", tmp_path / "raw", "test")
    with pytest.raises(DataError, match=r"not public.*use got10k val"):
        run(hidden, tmp_path / "hidden", contestants(AXES, log))
    assert len(log) == 3


def test_sequences_of_which_no_frame_counts_are_a_known_error(tmp_path: Path) -> None:
    still(tmp_path / "raw", 1, 5, cover=[8, 0, 0, 0, 0])  # the first is never counted
    unseen = read_sequences("got10k", tmp_path / "raw", "val")
    with pytest.raises(DataError, match="no frame of these sequences counts"):
        run(unseen, tmp_path / "out", contestants(AXES, []))
