"""``python -m loaders show`` draws the very pair that a loader hands over."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from loaders.cli import main
from loaders.config import PairConfig
from loaders.loader import PairLoader


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
    ],
)
def test_mistakes(
    config: Path, tmp_path: Path, arguments: tuple[object, ...], code: int, complaint: str
) -> None:
    result = run("--config", config, "--out", tmp_path / "x.png", *arguments)
    assert result.exit_code == code
    assert complaint in result.stderr
    assert "Traceback" not in result.output
