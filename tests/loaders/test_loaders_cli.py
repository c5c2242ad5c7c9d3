"""``python -m loaders show`` draws the very pair that a loader hands over."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from loaders.cli import main
from loaders.config import PairConfig
from loaders.loader import PairLoader
from loaders.plan import Plan, plan_batch
from loaders.sets import open_sets


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A run configuration with other sections, which the command must leave alone."""
    path = tmp_path / "run.yaml"
    path.write_text("train: {lr: 3}\nmodel: {name: x}\ndata:\n  seed: 5\n  weights: {lasot: 1.0}\n")
    return path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["show", *(str(a) for a in arguments)])


@pytest.mark.parametrize("backend", ["cpu", "dali-cpu", "reference"])
def test_sample_is_the_loaders(packed: Path, config: Path, tmp_path: Path, backend: str) -> None:
    out = tmp_path / "pair.png"
    result = run(
        "--config", config, "--data", packed / "lasot", "--epoch", 2, "--sample", 9,
        "--backend", backend, "--out", out,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "#9 lasot" in result.stdout
    data = PairConfig(path=str(packed / "lasot"), seed=5, backend=backend, weights={"lasot": 1.0})  # type: ignore[arg-type]
    with PairLoader(data, batch_size=5) as loader:
        loader.load_state_dict({**loader.state_dict(), "epoch": 2, "consumed": 5})
        batch = next(loader)
    assert batch.sample[4] == 9
    sheet = np.array(Image.open(out)).astype(int)
    template = batch.template[4].permute(1, 2, 0).numpy()
    search = batch.search[4].permute(1, 2, 0).numpy()
    drawn = sheet[4:259, 4:514]  # a margin of 4 px; boxes are drawn over the pictures
    difference = np.abs(drawn - np.concatenate([template, search], axis=1)).max(axis=-1)
    assert (difference == 0).mean() > 0.95


def test_worker_processes_of_the_configuration_are_left_out(
    packed: Path, config: Path, tmp_path: Path
) -> None:
    config.write_text(config.read_text() + "  workers: 2\n")
    out = tmp_path / "pair.png"
    result = run(
        "--config", config, "--data", packed, "--samples", "3:5", "--kind", "any", "--out", out
    )
    assert result.exit_code == 0, result.output


def test_a_sheet_of_samples(packed: Path, config: Path, tmp_path: Path) -> None:
    out = tmp_path / "pairs.png"
    result = run(
        "--config", config, "--data", packed, "--samples", "3:10", "--columns", 3, "--out", out
    )
    assert result.exit_code == 0, result.output
    assert "samples 3 to 9" in result.stdout
    with Image.open(out) as image:
        assert image.width == 3 * (510 + 4) + 4


def test_an_override_reaches_the_data_section(packed: Path, config: Path, tmp_path: Path) -> None:
    result = run(
        "--config", config, "--data", packed, "--sample", 1, "--out", tmp_path / "a.png",
        "--set", "data.datasets=coco", "--set", "data.weights.coco=1.0",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "#1 coco" in result.stdout


def plan_of(packed: Path, count: int) -> tuple[Plan, list[str]]:
    sets = open_sets(PairConfig(path=str(packed), seed=5, weights={"lasot": 1.0, "coco": 1.0}))
    return plan_batch(sets.tables, 5, 0, 0, count), [one.manifest.name for one in sets.sets]


BOTH = ("--set", "data.weights.coco=1.0")


@pytest.mark.parametrize(
    ("arguments", "kind", "positive", "dataset"),
    [
        (("--kind", "any"), 2, None, None),
        (("--kind", "same-category", "--positive"), 1, True, None),
        (("--negative", "--dataset", "lasot"), None, False, "lasot"),
        (("--kind", "same-instance", "--dataset", "coco"), 0, None, "coco"),
    ],
)
def test_filters_choose_the_first_that_match(
    packed: Path,
    config: Path,
    tmp_path: Path,
    arguments: tuple[str, ...],
    kind: int | None,
    positive: bool | None,
    dataset: str | None,
) -> None:
    result = run(
        "--config", config, "--data", packed, "--samples", "40:43", *arguments, *BOTH,
        "--out", tmp_path / "a.png",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    plan, names = plan_of(packed, 6000)
    wanted = plan.sample >= 40
    wanted &= True if kind is None else plan.kind == kind
    wanted &= True if positive is None else plan.positive == positive
    wanted &= True if dataset is None else np.array(names)[plan.dataset] == dataset
    first = plan.sample[wanted][:3]
    if first[2] - first[0] == 2:
        assert f"samples {first[0]} to {first[2]}, " in result.stdout
    else:
        assert f"3 of the samples {first[0]} to {first[2]}, " in result.stdout
    if positive is not None:
        assert f"{3 * positive} positive" in result.stdout


def test_a_filtered_sample_is_the_same_picture(packed: Path, config: Path, tmp_path: Path) -> None:
    shared = ("--config", config, "--data", packed, *BOTH)
    plan, _ = plan_of(packed, 200)
    sample = int(plan.sample[plan.kind == 2][0])
    alone, found = tmp_path / "alone.png", tmp_path / "found.png"
    assert run(*shared, "--sample", sample, "--out", alone).exit_code == 0
    result = run(*shared, "--samples", "0:1", "--kind", "any", "--out", found)
    assert result.exit_code == 0, result.output
    assert f"#{sample} " in result.stdout
    assert alone.read_bytes() == found.read_bytes()


def test_a_row_for_every_type(packed: Path, config: Path, tmp_path: Path) -> None:
    out = tmp_path / "types.png"
    result = run(
        "--config", config, "--data", packed, "--samples", "7:9", "--by-type", *BOTH,
        "--set", "data.sampler.video={same_instance: 0.5, same_category: 0.5, any: 0.0}",
        "--out", out,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "10 of the samples" in result.stdout
    with Image.open(out) as image:
        assert image.width == 2 * (510 + 4) + 4
        rows = 5  # coco: three kinds of pair; lasot: two
        assert (image.height - 4) % rows == 0
        assert 300 < (image.height - 4) // rows < 340
    only = run("--data", packed, "--by-type", "--dataset", "coco", "--kind", "any", "--out", out)
    assert only.exit_code == 0, only.output
    with Image.open(out) as image:
        assert image.width == 4 * (510 + 4) + 4
        assert image.height < 340


def test_rare_types_leave_places_empty_and_say_so(
    packed: Path, config: Path, tmp_path: Path
) -> None:
    shared = (
        "--config", config, "--data", packed / "lasot", "--out", tmp_path / "a.png",
        "--set", "data.pairs_per_epoch=60",
        "--set", "data.sampler.video={same_instance: 0.96, same_category: 0.0399, any: 0.0001}",
    )  # fmt: skip
    result = run(*shared, "--by-type", "--samples", "0:5")
    assert result.exit_code == 0, result.output
    assert "no pair of kind 'any' from lasot from sample 0 on" in result.stderr
    result = run(*shared, "--samples", "0:5", "--kind", "same-category")
    assert "Warning: only 2 of 5" in result.stderr
    result = run(*shared, "--samples", "0:5", "--kind", "any", "--positive")
    assert result.exit_code == 1
    assert "no positive pair of kind 'any' among the samples 0 to 59 of epoch 0" in result.stderr


def test_filters_read_a_stream_on(packed: Path, config: Path, tmp_path: Path) -> None:
    shared = (
        "--config", config, "--data", packed, *BOTH, "--set", "data.storage=sequential",
        "--out", tmp_path / "a.png",
    )  # fmt: skip
    one = run(*shared, "--samples", "3:4", "--kind", "any")
    assert one.exit_code == 0, one.output
    assert ", any, " in one.stdout
    sample = int(re.match(r"#(\d+)", one.stdout)[1])  # type: ignore[index]
    assert sample >= 3
    same = run(*shared, "--sample", sample)
    assert same.stdout == one.stdout
    types = run(*shared, "--by-type", "--samples", "0:2")
    assert types.exit_code == 0, types.output
    with Image.open(tmp_path / "a.png") as image:
        assert image.width == 2 * (510 + 4) + 4
        assert image.height > 6 * 300
    result = run(*shared, "--samples", "0:2", "--kind", "same-instance", "--negative",
                 "--set", "data.pairs_per_epoch=50")  # fmt: skip
    assert result.exit_code == 1
    assert "no negative pair of kind 'same instance' among the samples 0 to 49" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        ((), 2, "either --sample I or --samples"),
        (("--sample", 1, "--samples", "1:2"), 2, "either --sample I or --samples"),
        (("--samples", "5:5"), 2, "two numbers A:B"),
        (("--samples", "1-2"), 2, "two numbers A:B"),
        (("--sample", 320_000), 2, "an epoch has 320,000"),
        (("--sample", 0, "--data", "/nonexistent"), 1, "python -m packer demo"),
        (("--sample", 0, "--set", "data.sed=1"), 1, "did you mean 'seed'"),
        (("--sample", 0, "--config", "spm_alexnt.yaml"), 1, "spm_alexnet.yaml"),
        (("--sample", 0, "--backend", "nvjpeg"), 2, "nvjpeg"),
        (("--sample", 0, "--kind", "any"), 2, "choose of --samples"),
        (("--sample", 0, "--by-type"), 2, "--by-type takes --samples"),
        (("--by-type", "--columns", 3), 2, "--by-type takes --samples"),
        (("--samples", "0:2", "--kind", "some"), 2, "'same-instance'"),
    ],
)
def test_mistakes(
    config: Path, tmp_path: Path, arguments: tuple[object, ...], code: int, complaint: str
) -> None:
    result = run("--config", config, "--out", tmp_path / "x.png", *arguments)
    assert result.exit_code == code
    assert complaint in result.stderr
    assert "Traceback" not in result.output


def test_an_unknown_data_set_is_named_with_those_that_there_are(
    packed: Path, config: Path, tmp_path: Path
) -> None:
    result = run(
        "--config", config, "--data", packed, "--samples", "0:2", "--dataset", "lasto", *BOTH,
        "--out", tmp_path / "a.png",
    )  # fmt: skip
    assert result.exit_code == 1
    assert "--dataset lasto: this configuration draws from coco, lasot" in result.stderr
