"""The commands eval and sweep: what they print, write, and refuse."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import evaluation_trees as trees
import pytest
from click.testing import CliRunner, Result

from tracker.config import ModelConfig
from tracker.onepass import KEEP_FIRST_BOX
from tracker.sequences import Dataset

WINDOW = "track.match.window"


def command(name: str, *words: Any) -> Result:
    from tracker.cli import main

    done = CliRunner().invoke(main, [name, *map(str, words)])
    assert "Traceback" not in done.output
    return done


def given(model: Path, root: Path, out: Path, dataset: Dataset = "got10k") -> list[Any]:
    return ["--checkpoint", model, "--dataset", dataset, "--root", root, "--out", out,
            "--device", "cpu", "--workers", 1]  # fmt: skip


@pytest.fixture
def otb(tmp_path: Path) -> Path:
    trees.four_videos(tmp_path / "otb")
    return tmp_path / "otb"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch

    from tracker.files import save_model
    from tracker.models import build

    torch.manual_seed(3)
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    save_model(path, build(ModelConfig(width=0.1)), source="test")
    return path


def test_eval_prints_tables_and_json_and_resumes(
    otb: Path, tmp_path: Path, checkpoint: Path
) -> None:
    words = [*given(checkpoint, otb, tmp_path / "out", "otb"), "--split", "all"]
    shown = command("eval", *words, "--per-sequence")
    assert shown.exit_code == 0, shown.output
    for part in ("tiny", KEEP_FIRST_BOX, "AUC", "Man", "Toy"):
        assert part in shown.stdout
    printed = command("eval", *words, "--json")
    found = json.loads(printed.stdout)
    assert [one["tracker"] for one in found["trackers"]] == ["tiny", KEEP_FIRST_BOX]
    assert 0 <= found["trackers"][0]["total"]["auc"] <= 1
    assert len(found["trackers"][0]["sequences"]) == 4
    assert found["trackers"][0]["fps"] > 0
    words += ["--set", "track.match.window=0.1"]
    refused = command("eval", *words)
    assert refused.exit_code == 1
    assert "track.match.window 0.4 there, 0.1 now" in refused.stderr
    assert "--name" in refused.stderr
    assert (
        command("eval", *words, "--set", "track.match.window=0.1", "--name", "low").exit_code == 0
    )
    replaced = command("eval", *words, "--replace")
    assert replaced.exit_code == 0
    assert "Note: results of tiny made by something else were removed" in replaced.stderr


def test_bad_input_of_eval_is_one_known_failure(
    otb: Path, tmp_path: Path, checkpoint: Path
) -> None:
    (tmp_path / "empty").mkdir()
    base = ["--dataset", "otb", "--out", tmp_path / "out", "--device", "cpu"]
    for words, said in (
        (["--checkpoint", checkpoint, "--root", tmp_path / "empty"], "expected <root>/<Video>/"),
        (["--checkpoint", checkpoint, "--root", tmp_path / "nowhere"], "no such folder"),
        (["--checkpoint", checkpoint, "--root", otb, "--split", "dev"], "otb has otb100"),
        (["--checkpoint", tmp_path / "no.safetensors", "--root", otb], "no.safetensors"),
    ):
        result = command("eval", *base, *words)
        assert result.exit_code == 1, result.output
        assert said in result.stderr
    assert not (tmp_path / "out").exists()


def test_a_start_box_outside_the_picture_names_the_sequence(
    otb: Path, tmp_path: Path, checkpoint: Path
) -> None:
    truth = otb / "Man/groundtruth_rect.txt"
    lines = truth.read_text().splitlines(keepends=True)
    truth.write_text("".join(["900,9,9,9\n", *lines[1:]]))
    words = given(checkpoint, otb, tmp_path / "out", "otb")
    result = command("eval", *words, "--split", "all")
    assert result.exit_code == 1
    assert "Man: " in result.stderr
    assert "outside the first frame" in result.stderr
    assert (tmp_path / "out/OTB2015/tiny/Toy.txt").is_file()


@pytest.mark.slow
def test_a_network_gives_the_same_boxes_with_any_number_of_workers(
    otb: Path, tmp_path: Path, checkpoint: Path
) -> None:
    for workers in (1, 2):
        words = given(checkpoint, otb, tmp_path / str(workers), "otb")
        result = command("eval", *words, "--split", "all", "--workers", workers)
        assert result.exit_code == 0, result.output
    assert trees.results(tmp_path / "1", "tiny") == trees.results(tmp_path / "2", "tiny")
    assert len(trees.results(tmp_path / "1", "tiny")) == 4


def test_the_choices_of_eval_are_those_of_the_modules() -> None:
    from typing import get_args

    from tracker.cli import main
    from tracker.sequences import DATASETS, Convention

    options = {one.name: one for one in main.commands["eval"].params}
    assert tuple(options["dataset"].type.choices) == DATASETS
    assert tuple(options["convention"].type.choices) == get_args(Convention)


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


@pytest.fixture
def got10k(tmp_path: Path) -> Path:
    trees.got10k(tmp_path / "got10k", "val", 1, 3)
    return tmp_path / "got10k"


def test_sweep_prints_one_object_and_what_it_says_holds(
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


def test_sweep_prints_a_table_and_warns_of_test_sets(
    tmp_path: Path, models: dict[str, Path]
) -> None:
    trees.otb(tmp_path / "otb", "Man", 3)
    words = given(models["siamfc_alexnet"], tmp_path / "otb", tmp_path / "out", "otb")
    done = command("sweep", *words, "--split", "all", "--penalty", ".9,.97")
    assert done.exit_code == 0, done.output
    assert done.stderr.startswith("Warning: otb all IS A TEST SET")
    for part in ("AUC", "penalty", KEEP_FIRST_BOX, "The best: --set track.scale.penalty="):
        assert part in done.stdout
    assert f"Written: {tmp_path}/out/reports/otb-all/sweep.json\n" in done.stdout


def test_what_is_asked_of_sweep_wrongly_is_a_usage_error(
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


def test_known_failures_of_sweep(got10k: Path, tmp_path: Path, models: dict[str, Path]) -> None:
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


def test_the_options_of_sweep_are_those_of_the_grid() -> None:
    from tracker.cli import main
    from tracker.grid import PARAMETERS

    options = {one.name for one in main.commands["sweep"].params}
    assert set(PARAMETERS) <= options
