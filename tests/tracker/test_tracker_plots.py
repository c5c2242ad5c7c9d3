"""Curves, overlaps and maps: drawn at their heights, shaded and framed where they should be."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from tracker.plots import curve_plot, grid_plot, overlap_plot
from tracker.scores import Evaluation, Score, TrackerScore


def plot_pixels(draw: Callable[[], bytes]) -> npt.NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(draw())).convert("RGB"))


def shaded_shares(overlap: list[float | None]) -> tuple[float, float]:
    """First and last shaded column of an overlap plot, as shares of the axes' width."""
    plain = [0.5 if value is None else value for value in overlap]
    drawn, base = (
        plot_pixels(lambda values=values: overlap_plot([("m", values)], lost=None))
        for values in (overlap, plain)
    )
    frame = np.nonzero((base < 100).all(axis=2).sum(axis=0) > 200)[0]  # the axes' two sides
    shade = np.nonzero((drawn == 217).all(axis=2).sum(axis=0) > 100)[0]
    width = frame.max() - frame.min()
    return (shade.min() - frame.min()) / width, (shade.max() - frame.min()) / width


def test_frames_without_the_object_are_shaded() -> None:
    # frames 11 to 20 of 40 reach from 10/40 to 20/40 of the axes
    overlap: list[float | None] = [0.9] * 10 + [None] * 10 + [0.8] * 20
    np.testing.assert_allclose(shaded_shares(overlap), [0.25, 0.5], atol=0.01)


@pytest.mark.parametrize("name", ["success", "precision", "norm_precision"])
@pytest.mark.parametrize("height", [0.25, 0.75])
def test_a_curve_is_drawn_at_its_height(name: str, height: float) -> None:
    points = {"success": 21, "precision": 51, "norm_precision": 51}
    curves = {f"{key}_curve": (height if key == name else 0.0,) * n for key, n in points.items()}
    total = Score(
        auc=0.5, precision=0.5, norm_precision=0.5, ao=0.5, sr50=0.5, sr75=0.5, frames=90, **curves
    )
    alone = Evaluation(
        dataset="otb", split="all", convention="got10k", notes=(),
        trackers=(TrackerScore(tracker="mine", total=total, sequences=()),),
    )  # fmt: skip
    pixels = plot_pixels(lambda: curve_plot(alone, name))
    frame = np.nonzero((pixels < 100).all(axis=2).sum(axis=1) > 300)[0]  # upper and lower side
    line = np.nonzero((pixels == (0x00, 0x72, 0xB2)).all(axis=2).sum(axis=1) > 300)[0]
    share = (frame.max() - line.mean()) / (frame.max() - frame.min())
    assert share == pytest.approx(height, abs=0.01)


def test_a_map_frames_its_best_cell() -> None:
    def rows_of(values: list[list[float]]) -> float:
        pixels = plot_pixels(
            lambda: grid_plot(
                values, across=("nms", (0.5, 0.6)), down=("window", (0.3, 0.4)), figure_name="AO"
            )
        )
        frame = np.nonzero((pixels == (0xD5, 0x5E, 0x00)).all(axis=2))
        return float(frame[0].mean() / pixels.shape[0])

    assert rows_of([[0.7, 0.2], [0.1, 0.3]]) < rows_of([[0.2, 0.2], [0.1, 0.3]]) - 0.1
