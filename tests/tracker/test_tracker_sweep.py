"""Settings of tracking: the grid, the order of its results, and sweeps that go on."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import evaluation_trees as trees
import numpy as np
import numpy.typing as npt
import pytest
from click.testing import CliRunner, Result

from shards.errors import ConfigError, DataError, MismatchError, SiamstreamError
from tracker.config import LACKS, ModelConfig
from tracker.grid import (
    MAX_SETTINGS,
    Axis,
    Ranked,
    Setting,
    axes_of,
    best_of_rest,
    parse_values,
    ranked,
    settings_of,
)
from tracker.onepass import KEEP_FIRST_BOX
from tracker.runs import EvaluationError
from tracker.scores import Score, SequenceScore, TrackerScore
from tracker.sequences import Dataset, Sequences, read_sequences
from tracker.sweep import Contestant, sweep
from tracker.sweep_text import Sweep, advice, best_options, facts, table, warnings_of

WINDOW, NMS = "track.match.window", "track.match.proposals.nms_iou"


# The grid


@pytest.mark.parametrize(
    ("text", "values"),
    [
        (".2,.3", (0.2, 0.3)),
        (" 0.5 , 1", (0.5, 1.0)),
        ("1e-3", (0.001,)),
        ("+.4,5.,-1", (0.4, 5.0, -1.0)),
    ],
)
def test_values_are_numbers_with_commas(text: str, values: tuple[float, ...]) -> None:
    assert parse_values("--window", text) == values


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (".2,x", "'x' is not a number"),
        ("nan", "'nan' is not a number"),
        ("inf", "'inf' is not a number"),
        ("1e999", "'1e999' is not a number"),
        ("1_0", "'1_0' is not a number"),
        (".2:.4", "'.2:.4' is not a number"),
        ("", "a value is missing"),
        (".2,,.3", "a value is missing"),
        (".2,", "a value is missing"),
        (".2,.3,0.20", "a value comes twice"),
    ],
)
def test_what_is_no_list_of_numbers_is_told(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_values("--window", text)
    assert str(caught.value).startswith(f"--window {text!r}: {said}")


def test_axes_are_keys_of_the_models_own_rule() -> None:
    values = {"window": (0.2, 0.3), "penalty": (0.1,), "inter_rate": (0.5,)}
    for name, keys in (
        ("spm_alexnet", ("match.window", "match.penalty_k", "match.inter_rate")),
        ("siamrpn_alexnet_dw", ("match.window", "match.penalty_k", "match.inter_rate")),
        ("siamfc_alexnet", ("scale.window", "scale.penalty", "scale.inter_rate")),
    ):
        axes = axes_of(name, LACKS[name], values)
        assert [axis.key for axis in axes] == [f"track.{key}" for key in keys]
        assert [axis.values for axis in axes] == list(values.values())
        settings_of(axes, ModelConfig(name=name))  # the keys are there, and free to change
    axes = axes_of("spm_r18c4", LACKS["spm_r18c4"], {"nms": (0.6,)})
    assert [axis.key for axis in axes] == [NMS]


@pytest.mark.parametrize("name", ["siamrpn_alexnet", "siamrpn_alexnet_dw", "siamfc_alexnet"])
def test_a_setting_that_the_rule_lacks_is_refused(name: str) -> None:
    said = f"--nms: {name} has no such setting; it has --window, --penalty, --inter-rate"
    with pytest.raises(SiamstreamError, match=said):
        axes_of(name, LACKS[name], {"window": (0.2,), "nms": (0.5, 0.6)})


def test_an_empty_grid_is_refused_with_what_the_model_has() -> None:
    with pytest.raises(ConfigError, match="one of --window, --nms, --penalty, --inter-rate"):
        axes_of("spm_alexnet", LACKS["spm_alexnet"], {})
    with pytest.raises(ConfigError, match="one of --window, --penalty, --inter-rate"):
        axes_of("siamfc_alexnet", LACKS["siamfc_alexnet"], {})


def axis(name: str, key: str, *values: float) -> Axis:
    return Axis(name=name, key=key, values=values)


def test_settings_are_all_points_of_the_grid_the_last_axis_fastest() -> None:
    axes = [axis("window", WINDOW, 0.2, 0.3), axis("nms", NMS, 0.5, 0.6)]
    found = settings_of(axes, ModelConfig())
    assert [one.name for one in found] == [
        "window0.2-nms0.5", "window0.2-nms0.6", "window0.3-nms0.5", "window0.3-nms0.6",
    ]  # fmt: skip
    assert found[1].values == ((WINDOW, 0.2), (NMS, 0.6))
    assert found[1].overrides == (f"{WINDOW}=0.2", f"{NMS}=0.6")


@pytest.mark.parametrize(
    ("name", "one"),
    [
        ("spm_alexnet", axis("window", WINDOW, 0.2, 1.5)),
        ("spm_alexnet", axis("window", WINDOW, -0.1)),
        ("spm_alexnet", axis("nms", NMS, 0.5, 2.0)),
        ("spm_alexnet", axis("inter_rate", "track.match.inter_rate", 0.0)),
        ("siamfc_alexnet", axis("window", "track.scale.window", 1.0)),
    ],
)
def test_a_value_out_of_range_is_told_before_anything_runs(name: Any, one: Axis) -> None:
    with pytest.raises(ConfigError, match=one.key.replace(".", r"\.")):
        settings_of([one], ModelConfig(name=name))


def test_a_grid_has_a_limit() -> None:
    many = tuple(float(value) for value in np.linspace(0.1, 0.9, 16))
    axes = [axis("window", WINDOW, *many), axis("nms", NMS, *many)]
    assert len(settings_of(axes, ModelConfig())) == MAX_SETTINGS == 256
    axes.append(axis("penalty", "track.match.penalty_k", 0.1, 0.2))
    with pytest.raises(ConfigError, match="512 settings, at most 256 at once"):
        settings_of(axes, ModelConfig())


# The order


def score(ao: float, frames: int = 10, auc: float = 0.0) -> Score:
    return Score(
        auc=auc, precision=0.0, norm_precision=0.0, ao=ao, sr50=0.0, sr75=0.0, success_curve=(),
        precision_curve=(), norm_precision_curve=(), frames=frames,
    )  # fmt: skip


def tracker(name: str, total: float, *sequences: Score) -> TrackerScore:
    own = tuple(
        SequenceScore(name=str(n), score=one, overlap=(), fps=None)
        for n, one in enumerate(sequences)
    )
    return TrackerScore(tracker=name, total=score(total), sequences=own)


def setting(name: str, **values: float) -> Setting:
    return Setting(name=name, values=tuple(values.items()))


def test_settings_are_ranked_with_the_standard_error_of_the_difference() -> None:
    scores = {
        "a": tracker("a", 0.6, score(0.6), score(0.4), score(0.8)),
        "b": tracker("b", 0.7, score(0.9), score(0.5), score(0.7)),
        "c": tracker("c", 0.1, score(0.4), score(0.0), score(0.2)),
    }
    order = ranked([setting(name) for name in scores], scores, "ao")
    assert [one.setting.name for one in order] == ["b", "a", "c"]
    assert (order[0].behind, order[0].error) == (0, 0)
    # differences .3, .1, -.1: mean .1, standard deviation .2, over the root of three
    assert order[1].behind == pytest.approx(0.1)
    assert order[1].error == pytest.approx(0.2 / math.sqrt(3))
    # all .5: no doubt at all
    assert order[2].behind == pytest.approx(0.5)
    assert order[2].error == pytest.approx(0, abs=1e-12)


def test_of_equals_the_first_of_the_grid_is_the_best() -> None:
    scores = {name: tracker(name, 0.5, score(0.5), score(0.5)) for name in "cab"}
    order = ranked([setting(name) for name in "cab"], scores, "ao")
    assert [one.setting.name for one in order] == ["c", "a", "b"]


def test_a_single_sequence_has_no_standard_error() -> None:
    scores = {"a": tracker("a", 0.5, score(0.5)), "b": tracker("b", 0.2, score(0.2))}
    order = ranked([setting("a"), setting("b")], scores, "ao")
    assert order[1].behind == pytest.approx(0.3)
    assert math.isnan(order[1].error)


def test_sequences_of_which_no_frame_counts_do_not_narrow_the_error() -> None:
    none = score(0, frames=0)
    scores = {
        "a": tracker("a", 0.7, score(0.9), none, score(0.5), none),
        "b": tracker("b", 0.6, score(0.6), none, score(0.4), none),
    }
    order = ranked([setting("a"), setting("b")], scores, "ao")
    assert order[1].behind == pytest.approx(0.2)  # of .3 and .1
    assert order[1].error == pytest.approx(0.1)


def test_the_figure_decides() -> None:
    totals = {"a": score(0.5, auc=0.2), "b": score(0.4, auc=0.3)}
    scores = {
        name: TrackerScore(tracker=name, total=total, sequences=())
        for name, total in totals.items()
    }
    for figure, first in (("ao", "a"), ("auc", "b")):
        order = ranked([setting("a"), setting("b")], scores, figure)  # type: ignore[arg-type]
        assert order[0].setting.name == first


def placed(ao: float, behind: float = 0.0, error: float = 0.0, **values: float) -> Ranked:
    return Ranked(setting=setting("x", **values), total=score(ao), behind=behind, error=error)


def test_a_map_of_two_parameters_has_the_best_of_the_third() -> None:
    axes = [axis("p", "p", 1, 2), axis("q", "q", 1, 2, 3)]
    order = [
        placed(0.1 * p + 0.01 * q + 0.001 * r, p=p, q=q, r=r)
        for p in (1, 2) for q in (1, 2, 3) for r in (7, 5)  # the best first
    ]  # fmt: skip
    cells = best_of_rest(order, axes[0], axes[1], "ao")
    np.testing.assert_allclose(cells, [[0.117, 0.127, 0.137], [0.217, 0.227, 0.237]])


def found_of(order: Sequence[Ranked], *axes: Axis) -> Sweep:
    return Sweep(
        dataset="got10k", split="val", convention="got10k", figure="ao", axes=axes,
        order=tuple(order), floor=score(0.1), warnings=(), notes=(),
    )  # fmt: skip


def test_advice_says_what_the_table_does_not_decide() -> None:
    order = [
        placed(0.60, w=0.3),
        placed(0.59, behind=0.01, error=0.005, w=0.2),  # within two standard errors
        placed(0.50, behind=0.10, error=0.049, w=0.4),
    ]
    found = found_of(order, axis("w", "w", 0.2, 0.3, 0.4))
    assert advice(found) == [
        "AO from 0.500 to 0.600 over 3 settings, spread 0.100",
        "within two standard errors of the best, of the 2 others: 1; these sequences do not tell "
        "them apart",
    ]
    order = [placed(0.6, w=0.2, v=1), placed(0.5, behind=0.1, error=math.nan, w=0.3, v=1)]
    found = found_of(order, axis("w", "w", 0.2, 0.3), axis("v", "v", 1))
    assert advice(found)[1:] == ["the best w, 0.2, is the smallest tried"]
    assert best_options(found) == "--set w=0.2 --set v=1"


# Warnings


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


# Sweeps


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


# The command


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    import torch

    from tracker.files import save_model
    from tracker.models import build

    found = {}
    for name in ("spm_alexnet", "siamrpn_alexnet", "siamfc_alexnet"):
        torch.manual_seed(3)
        found[name] = tmp_path_factory.mktemp("models") / f"{name}.safetensors"
        save_model(found[name], build(ModelConfig(name=name, width=0.05)), source="test")
    return found


def command(name: str, *words: Any) -> Result:
    from tracker.cli import main

    done = CliRunner().invoke(main, [name, *map(str, words)])
    assert "Traceback" not in done.output
    return done


@pytest.fixture
def got10k(tmp_path: Path) -> Path:
    trees.got10k(tmp_path / "got10k", "val", 1, 3)
    return tmp_path / "got10k"


def given(model: Path, root: Path, out: Path, dataset: Dataset = "got10k") -> list[Any]:
    return ["--checkpoint", model, "--dataset", dataset, "--root", root, "--out", out,
            "--device", "cpu", "--workers", 1]  # fmt: skip


def test_the_command_prints_one_object_and_what_it_says_holds(
    got10k: Path, tmp_path: Path, models: dict[str, Path]
) -> None:
    words = given(models["spm_alexnet"], got10k, tmp_path / "sweep")
    done = command("sweep", *words, "--window", ".2,.9", "--nms", ".5,.6", "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found == json.loads((tmp_path / "sweep/reports/got10k-val/sweep.json").read_text())
    assert len(found["settings"]) == 4
    assert found["split"] == "val"
    assert (tmp_path / "sweep/reports/got10k-val/sweep.png").is_file()
    assert done.stderr.startswith("Warning: the published figures")
    assert "4 settings x 1 sequences = 4 runs; 4 to do (12 frames), 0 done before" in done.stderr
    # the printed options give that figure
    words = given(models["spm_alexnet"], got10k, tmp_path / "eval")
    evaluated = command("eval", *words, *shlex.split(found["best"]), "--json")
    assert evaluated.exit_code == 0, evaluated.output
    total = json.loads(evaluated.stdout)["trackers"][0]["total"]
    assert total["ao"] == found["settings"][0]["ao"]


def test_the_command_prints_a_table_and_warns_of_test_sets(
    tmp_path: Path, models: dict[str, Path]
) -> None:
    trees.otb(tmp_path / "otb", "Man", 3)
    words = given(models["siamfc_alexnet"], tmp_path / "otb", tmp_path / "out", "otb")
    done = command("sweep", *words, "--split", "all", "--penalty", ".9,.97")
    assert done.exit_code == 0, done.output
    assert done.stderr.startswith("Warning: otb all IS A TEST SET")
    for part in ("AUC", "penalty", KEEP_FIRST_BOX, "The best: --set track.scale.penalty="):
        assert part in done.stdout


def test_what_is_asked_for_wrongly_is_a_usage_error(
    got10k: Path, tmp_path: Path, models: dict[str, Path]
) -> None:
    model, out = models["spm_alexnet"], tmp_path / "out"
    trees.otb(tmp_path / "otb", "Man", 3)
    for words, said in (
        ([*given(model, tmp_path / "otb", out, "otb"), "--window", ".2"], "--split is needed"),
        ([*given(model, got10k, out), "--window", ".2,x"], "--window '.2,x': 'x' is not a number"),
        ([*given(model, got10k, out), "--inter-rate", ""], "--inter-rate '': a value is missing"),
        (given(model, got10k, out), "one of --window, --nms, --penalty, --inter-rate"),
        ([*given(model, got10k, out), "--window", ".2", "--workers", "0"], "--workers"),
    ):
        done = command("sweep", *words)
        assert done.exit_code == 2, done.output
        assert said in done.stderr
        assert done.stdout == ""
    assert not out.exists()


def test_known_failures_of_the_command(
    got10k: Path, tmp_path: Path, models: dict[str, Path]
) -> None:
    out = tmp_path / "out"
    for model, words, said in (
        ("siamrpn_alexnet", ["--nms", ".5"], "siamrpn_alexnet has no such setting"),
        ("siamfc_alexnet", ["--nms", ".5"], "siamfc_alexnet has no such setting"),
        ("spm_alexnet", ["--window", ".2,1.5"], WINDOW),
        ("spm_alexnet", ["--window", ".2", "--split", "dev"], "got10k has val"),
        ("spm_alexnet", ["--window", ".2", "--set", "model.width=1"], "model.width"),
    ):
        done = command("sweep", *given(models[model], got10k, out), *words)
        assert done.exit_code == 1, done.output
        assert said in done.stderr
    assert not out.exists()
    window = ["--window", ".2"]
    assert command("sweep", *given(models["spm_alexnet"], got10k, out), *window).exit_code == 0
    done = command("sweep", *given(models["siamrpn_alexnet"], got10k, out), *window)
    assert done.exit_code == 1
    assert "holds a sweep of another checkpoint" in done.stderr


def test_the_options_are_those_of_the_grid() -> None:
    from tracker.cli import main
    from tracker.grid import PARAMETERS

    options = {one.name for one in main.commands["sweep"].params}
    assert set(PARAMETERS) <= options
