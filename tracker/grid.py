"""A grid of tracking settings and the order of its results. Pure."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from configs import strict
from shards.errors import ConfigError, SiamstreamError
from tracker.scores import Score, TrackerScore

__all__ = [
    "PARAMETERS",
    "Axis",
    "Figure",
    "Ranked",
    "Setting",
    "axes_of",
    "best_of_rest",
    "parse_values",
    "ranked",
    "settings_of",
]

Figure = Literal["auc", "ao"]

# Options, and the keys that they mean: of the rule that matches, of the one that searches scales.
PARAMETERS = {
    "window": ("track.match.window", "track.scale.window"),
    "nms": ("track.match.proposals.nms_iou",),
    "penalty": ("track.match.penalty_k", "track.scale.penalty"),
    "inter_rate": ("track.match.inter_rate", "track.scale.inter_rate"),
}
MAX_SETTINGS = 256  # each has files open while it is worked on
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


@dataclass(frozen=True, kw_only=True, slots=True)
class Axis:
    """A parameter and the values to try: ``name`` of the option, ``key`` of the configuration."""

    name: str
    key: str
    values: tuple[float, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """One point of the grid: ``values`` by key; ``name`` is that of its folder of results."""

    name: str
    values: tuple[tuple[str, float], ...]

    @property
    def overrides(self) -> tuple[str, ...]:
        """Texts for ``--set``."""
        return tuple(f"{key}={value!r}" for key, value in self.values)


@dataclass(frozen=True, kw_only=True, slots=True)
class Ranked:
    """A setting with its figures.

    Parameters
    ----------
    setting, total : which, and its figures on the whole data set
    behind : by how much the best setting's mean over sequences is higher
    error : standard error of `behind`, from the differences sequence by sequence; NaN if there is
        one sequence
    """

    setting: Setting
    total: Score
    behind: float
    error: float


def parse_values(option: str, text: str) -> tuple[float, ...]:
    """Values of an option, as ``.2,.3,.4``.

    Raises
    ------
    ConfigError : if there is none, one is no finite number, or one comes twice
    """
    parts = [part.strip() for part in text.split(",")]
    for part in parts:
        if not _NUMBER.fullmatch(part) or not math.isfinite(float(part)):
            what = f"{part!r} is not a number" if part else "a value is missing"
            raise ConfigError(f"{option} {text!r}: {what}; give values such as .2,.3,.4")
    values = tuple(float(part) for part in parts)
    if len(set(values)) < len(values):
        raise ConfigError(f"{option} {text!r}: a value comes twice")
    return values


def axes_of(model: str, lacks: Sequence[str], values: Mapping[str, Sequence[float]]) -> list[Axis]:
    """Axes of a grid for a model.

    Parameters
    ----------
    model : its name, for messages
    lacks : keys and sections that its rule does not have
    values : to try, by name of `PARAMETERS`

    Raises
    ------
    ConfigError : if the grid is empty
    SiamstreamError : if the model's rule does not have a parameter
    """

    def key_of(name: str) -> str | None:
        keys = (k for k in PARAMETERS[name] if not any(f"{k}.".startswith(f"{s}.") for s in lacks))
        return next(keys, None)

    if not values:
        options = ", ".join(_option(name) for name in PARAMETERS if key_of(name))
        raise ConfigError(f"nothing to try: give values to at least one of {options}")
    axes = []
    for name, tried in values.items():
        key = key_of(name)
        if key is None:
            known = ", ".join(_option(name) for name in PARAMETERS if key_of(name))
            raise SiamstreamError(f"{_option(name)}: {model} has no such setting; it has {known}")
        axes.append(Axis(name=name, key=key, values=tuple(tried)))
    return axes


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def settings_of(axes: Sequence[Axis], config: object) -> list[Setting]:
    """All points of the grid; the last axis changes fastest.

    Parameters
    ----------
    axes : at least one
    config : model configuration (a dataclass), in which every value is tried

    Raises
    ------
    ConfigError : if a value is out of range, or there are too many settings
    """
    text = strict.dump(config)
    for axis in axes:
        for value in axis.values:
            strict.load_text(type(config), text, "the model", [f"{axis.key}={value!r}"])
    count = math.prod(len(axis.values) for axis in axes)
    if count > MAX_SETTINGS:
        raise ConfigError(
            f"{count:,} settings, at most {MAX_SETTINGS} at once: try fewer values, the coarse "
            "grid first"
        )
    return [
        Setting(
            name="-".join(f"{axis.name}{v!r}" for axis, v in zip(axes, point, strict=True)),
            values=tuple((axis.key, v) for axis, v in zip(axes, point, strict=True)),
        )
        for point in itertools.product(*(axis.values for axis in axes))
    ]


def ranked(
    settings: Sequence[Setting], scores: Mapping[str, TrackerScore], figure: Figure
) -> list[Ranked]:
    """Settings by their figure, the best first; of equals the first of the grid.

    Parameters
    ----------
    settings : of the grid
    scores : by name of the setting, of the same sequences
    figure : that decides
    """
    order = sorted(settings, key=lambda one: -float(getattr(scores[one.name].total, figure)))
    best = _by_sequence(scores[order[0].name], figure)
    found = []
    for one in order:
        difference = best - _by_sequence(scores[one.name], figure)
        difference = difference[np.isfinite(difference)]
        count = len(difference)
        error = float(difference.std(ddof=1)) / math.sqrt(count) if count > 1 else math.nan
        behind = float(difference.mean()) if count else math.nan
        total = scores[one.name].total
        found.append(Ranked(setting=one, total=total, behind=behind, error=error))
    return found


def _by_sequence(score: TrackerScore, figure: Figure) -> npt.NDArray[np.float64]:
    """Figures of the sequences, NaN where no frame counts."""
    values = [getattr(s.score, figure) if s.score.frames else math.nan for s in score.sequences]
    return np.array(values, np.float64)


def best_of_rest(
    order: Sequence[Ranked], down: Axis, across: Axis, figure: Figure
) -> npt.NDArray[np.float64]:
    """Figures over two parameters, (R,C): each the best that the other parameters give."""
    cells = np.full((len(down.values), len(across.values)), -math.inf)
    for one in order:
        values = dict(one.setting.values)
        row = down.values.index(values[down.key])
        column = across.values.index(values[across.key])
        cells[row, column] = max(cells[row, column], getattr(one.total, figure))
    return cells
