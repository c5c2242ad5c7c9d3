"""Grids of settings, the order of their results, and what is said about it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from shards.errors import ConfigError, SiamstreamError
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
from tracker.scores import Score, SequenceScore, TrackerScore
from tracker.sweep_text import Sweep, advice, best_options

WINDOW, NMS = "track.match.window", "track.match.proposals.nms_iou"


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
