"""What many plans drew, sample by sample: pairs and steps of the recipe, and no pictures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from loaders.config import PairConfig
from loaders.recipe import Augment, Half, Jitter, Params, Recipe
from loaders.sets import DataSets
from loaders.work import prepare
from shards.geometry import crop_centre

__all__ = ["STEPS", "CropDraws", "PairDraws", "Step", "draw_pairs"]

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

_BLOCK = 2000  # plans made at once
_TINY = 1e-9  # a matrix that differs by less is the identity


def _grey(params: Params) -> Bools:
    rows = params.color[:, :, :3]
    return np.asarray((rows == rows[:, :1]).all(axis=(1, 2)))


def _gain(params: Params) -> Floats:
    """Contrast: grey stays grey under hue and saturation, so the sum of a row is the gain."""
    return np.asarray(params.color[:, 0, :3].sum(axis=1))


def _added(params: Params) -> Floats:
    return np.asarray(params.color[:, 0, 3] / _gain(params))


def _chroma(params: Params) -> Bools:
    rest = params.color[:, :, :3] / _gain(params)[:, None, None] - np.eye(3)
    return np.asarray((np.abs(rest) > _TINY).any(axis=(1, 2)) & ~_grey(params))


def _at(steps: Any, count: int) -> Bools:
    """Flags (count,) of the positions that a mapping has."""
    done = np.zeros(count, np.bool_)
    done[list(steps)] = True
    return done


def _p(jitter: Jitter) -> float:
    return jitter.p if jitter.delta > 0 else 0.0


def _p_chroma(augment: Augment) -> float:
    return 1 - (1 - _p(augment.hue)) * (1 - _p(augment.saturation))


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """A step of the recipe that is done or not.

    Attributes
    ----------
    name : of the step
    p : its probability, by recipe and range; that an occluder fits is another matter
    done : to which of B crops it was done, by their parameters
    """

    name: str
    p: Callable[[Recipe, Augment], float]
    done: Callable[[Params], Bools]


# A new step of the recipe is one more line here.
STEPS = (
    Step(name="flip", p=lambda _, a: a.flip, done=lambda c: c.flipped),
    Step(
        name="rotation",
        p=lambda _, a: _p(a.rotation),
        done=lambda c: np.asarray(c.angle_deg != 0),
    ),
    Step(
        name="brightness",
        p=lambda _, a: _p(a.brightness),
        done=lambda c: np.asarray(np.abs(_added(c)) > _TINY),
    ),
    Step(
        name="contrast",
        p=lambda _, a: _p(a.contrast),
        done=lambda c: np.asarray(np.abs(_gain(c) - 1) > _TINY),
    ),
    Step(
        name="hue or saturation",
        p=lambda r, a: (1 - r.grey) * _p_chroma(a),
        done=_chroma,
    ),
    Step(name="grey", p=lambda r, _: r.grey, done=_grey),
    Step(name="blur", p=lambda _, a: a.blur.p, done=lambda c: _at(c.blurs, len(c.flipped))),
    Step(
        name="occlusion",
        p=lambda _, a: a.occlusion.p,
        done=lambda c: _at(c.occluders, len(c.flipped)),
    ),
)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class CropDraws:
    """What was drawn for N crops of one kind.

    Attributes
    ----------
    log_scale : (N, 2) logarithm of the crop's sides over those of the result
    shift : (N, 2) pixels of the stored crop from its centre to that of the region
    added, log_gain : (N,) brightness and contrast
    done : (N, S) bool, a column for each of `STEPS`
    blur_kind, occluder_kind : (N,) text, empty where it was not done
    """

    log_scale: Floats
    shift: Floats
    added: Floats
    log_gain: Floats
    done: Bools
    blur_kind: npt.NDArray[np.str_]
    occluder_kind: npt.NDArray[np.str_]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class PairDraws:
    """What was drawn for N pairs; the first columns are those of `loaders.plan.Plan`."""

    dataset: Ints
    template_row: Ints
    search_row: Ints
    kind: Ints
    positive: Bools
    is_image: Bools
    template: CropDraws
    search: CropDraws

    def __len__(self) -> int:
        return len(self.dataset)

    def half(self, name: Half) -> CropDraws:
        """Draws of the template (z) or the search crop (x)."""
        return self.template if name == "z" else self.search


def _crops(params: Params) -> CropDraws:
    side = params.region[:, 2:] - params.region[:, :2]
    centre = (params.region[:, 2:] + params.region[:, :2]) / 2
    blur, occluder = ([""] * len(side) for _ in range(2))
    for i, step in params.blurs.items():
        blur[i] = step.kind
    for i, cover in params.occluders.items():
        occluder[i] = "colour" if cover.source is None else "patch"
    return CropDraws(
        log_scale=np.log(side / params.out_px),
        shift=centre - crop_centre(params.frame_px, params.grid),
        added=_added(params),
        log_gain=np.log(_gain(params)),
        done=np.stack([step.done(params) for step in STEPS], axis=1),
        blur_kind=np.array(blur, "U16"),
        occluder_kind=np.array(occluder, "U16"),
    )


def _joined(blocks: list[Any]) -> Any:
    """One dataclass of arrays from many."""
    first = blocks[0]
    if isinstance(first, np.ndarray):
        return np.concatenate(blocks)
    return type(first)(
        **{f.name: _joined([getattr(one, f.name) for one in blocks]) for f in fields(first)}
    )


def draw_pairs(
    sets: DataSets,
    config: PairConfig,
    epoch: int,
    count: int,
    tell: Callable[[int], None] = lambda _: None,
) -> PairDraws:
    """Plan and draw the first samples of an epoch; reads no pictures.

    Parameters
    ----------
    sets, config : of the run
    epoch : 0 or more
    count : samples; may be more than an epoch has
    tell : called with the number of samples done so far
    """
    blocks = []
    for start in range(0, count, _BLOCK):
        work = prepare(sets, config, epoch, start, min(_BLOCK, count - start))
        plan = work.plan
        blocks.append(
            PairDraws(
                dataset=plan.dataset,
                template_row=plan.template_row,
                search_row=plan.search_row,
                kind=plan.kind,
                positive=plan.positive,
                is_image=plan.is_image,
                template=_crops(work.template.params),
                search=_crops(work.search.params),
            )
        )
        tell(start + len(work))
    joined: PairDraws = _joined(blocks)
    return joined
