"""What is drawn for crops against the recipe: steps, amounts, scales, shifts, kinds of blur."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from loaders.blur import KINDS as BLURS
from loaders.chi2 import Check, gate, shares, uniform
from loaders.config import PairConfig
from loaders.draws import STEPS, CropDraws, PairDraws
from loaders.occlusion import OCCLUSION_WIDTH, Occlusion, draw_occluder
from loaders.recipe import Augment, Half, Jitter
from loaders.sets import DataSets
from shards.rng import uniforms

__all__ = ["crop_checks"]

_TRIALS, _STREAM = 2000, 1 << 32  # crops on which occluders are tried; numbers of no plan
_TINY = 1e-9  # of a logarithm

Floats = npt.NDArray[np.float64]


def _amounts(
    subject: str, crops: CropDraws, of: npt.NDArray[np.bool_], augment: Augment
) -> Iterator[Check]:
    """Checks of amounts that are uniform: where, how large, how bright, how contrasty."""
    if augment.scale:
        scale = crops.log_scale[of]
        alike = np.abs(scale[:, 0] - scale[:, 1]) < _TINY
        yield gate(subject, "same scale x, y", float(augment.keep_aspect), alike)
    for axis in (0, 1) if augment.scale else ():
        yield uniform(subject, f"scale {'xy'[axis]}", crops.log_scale[of, axis] / augment.scale)
    for axis in (0, 1) if augment.shift else ():
        yield uniform(subject, f"shift {'xy'[axis]}", crops.shift[of, axis] / augment.shift)
    names = [step.name for step in STEPS]
    jitters: tuple[tuple[str, Floats, Jitter], ...] = (
        ("brightness", crops.added, augment.brightness),
        ("contrast", crops.log_gain, augment.contrast),
    )
    for name, values, jitter in jitters:
        done = of & crops.done[:, names.index(name)]
        if jitter.delta and done.any():
            yield uniform(subject, f"amount of {name}", values[done] / jitter.delta)


def _occluders(
    sets: DataSets, drawn: PairDraws, half: Half, of: npt.NDArray[np.bool_], occlusion: Occlusion
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Chance that an occluder fits, and share of patches, by trial on targets that were drawn.

    Each with its standard deviation. A patch needs a second place outside the target, and an
    occluder without one is left out.
    """
    rows = drawn.template_row if half == "z" else drawn.search_row
    at = np.flatnonzero(of)[:_TRIALS]
    targets = np.empty((len(at), 4))
    for number, one in enumerate(sets.sets):
        own = drawn.dataset[at] == number
        targets[own] = one.index.target_boxes(rows[at][own])
    u = uniforms(0, _STREAM, 0, 0, len(at), OCCLUSION_WIDTH)

    def fitting(patch: float) -> npt.NDArray[np.bool_]:
        ranges = replace(occlusion, patch=patch)
        tried = zip(u, targets, strict=True)
        return np.array([draw_occluder(ranges, *one, sets.crop_size) is not None for one in tried])

    # The same numbers for both fills: the difference between them is then hardly an accident.
    patches, colours = (_with_both(fitting(patch)) for patch in (1.0, 0.0))
    each = occlusion.patch * patches + (1 - occlusion.patch) * colours
    fits, root = float(each.mean()), len(each) ** 0.5
    share = float(occlusion.patch * patches.mean() / fits)
    # Of a share s = a/(a + b): s(1 - s) times the deviation of ln(a/b).
    odds = float((patches / patches.mean() - colours / colours.mean()).std()) / root
    return (fits, float(each.std()) / root), (share, share * (1 - share) * odds)


def _with_both(fitted: npt.NDArray[np.bool_]) -> Floats:
    """Trials, and one more of either outcome (Laplace's rule of succession).

    What never happened in n trials may still happen once in n: neither a chance of 0 or 1 nor a
    deviation of 0 can be found by trial.
    """
    return np.append(fitted, [False, True]).astype(np.float64)


def crop_checks(
    sets: DataSets, drawn: PairDraws, config: PairConfig, half: Half
) -> Iterator[Check]:
    """Checks of what is done to templates (z) or to search crops (x)."""
    crops, recipe = drawn.half(half), config.recipe
    for augment, of, kind in zip(
        recipe.ranges(half), (drawn.is_image, ~drawn.is_image), ("images", "videos"), strict=True
    ):
        subject = f"{'template' if half == 'z' else 'search'} of {kind}"
        if not of.any():
            continue
        fits, patch = (1.0, 0.0), (0.0, 0.0)
        if augment.occlusion.p:
            fits, patch = _occluders(sets, drawn, half, of, augment.occlusion)
        for number, step in enumerate(STEPS):
            p = step.p(recipe, augment)
            chance, spread = fits if step.name == "occlusion" else (1.0, 0.0)
            yield gate(subject, step.name, p * chance, crops.done[of, number], p * spread)
        yield from _amounts(subject, crops, of, augment)
        blurs = crops.blur_kind[of & (crops.blur_kind != "")]
        if len(blurs):
            codes = np.array([BLURS.index(blur) for blur in blurs])
            yield shares(subject, "kinds of blur", BLURS, codes, augment.blur.shares)
        covers = crops.occluder_kind[of & (crops.occluder_kind != "")]
        if len(covers):
            yield gate(subject, "patches of occluders", patch[0], covers == "patch", patch[1])
