"""Statistics of 100,000 plans against the configuration, and that they can tell."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from loaders import crop_stats
from loaders.chi2 import Check, gate, p_value, shares, uniform
from loaders.cli import main
from loaders.config import PairConfig
from loaders.crop_stats import crop_checks
from loaders.draws import STEPS, PairDraws, draw_pairs
from loaders.occlusion import Occlusion
from loaders.recipe import Augment, Half, Jitter, Recipe
from loaders.sampler import PairKinds, SamplerConfig, Widening
from loaders.sets import DataSets, open_sets
from loaders.stats import checks

PLANS = 100_000
EPOCH = 2


def every_step(config: PairConfig) -> PairConfig:
    """The published recipe with rotation, and with steps that it leaves out for some crops."""
    recipe = config.recipe
    turned = Jitter(p=0.2, delta=10)
    video_x = replace(recipe.video_x, blur=replace(recipe.image_x.blur, p=0.2), rotation=turned)
    image_z = replace(recipe.image_z, occlusion=recipe.video_x.occlusion, flip=0.3)
    return replace(config, recipe=replace(recipe, video_x=video_x, image_z=image_z))


@pytest.fixture(scope="module")
def config(packed: Path) -> PairConfig:
    return every_step(PairConfig(path=str(packed), weights={"lasot": 2.0, "coco": 1.0}))


@pytest.fixture(scope="module")
def drawn(config: PairConfig) -> tuple[DataSets, PairDraws]:
    sets = open_sets(config)
    return sets, draw_pairs(sets, config, EPOCH, PLANS)


def wrong(found: list[Check]) -> list[str]:
    return [check.name for check in found if check.verdict().wrong]


def test_what_is_drawn_is_what_the_configuration_says(
    drawn: tuple[DataSets, PairDraws], config: PairConfig
) -> None:
    found = checks(*drawn, config, EPOCH)
    assert wrong(found) == []
    judged = [check for check in found if check.verdict().p is not None]
    assert len(judged) > 60
    names = {check.name for check in judged if check.verdict().dof}
    assert names >= {
        "pairs: data sets", "lasot: kinds of pair", "coco: kinds of pair", "positive pairs: lasot",
        "positive pairs: coco", "lasot: categories", "lasot: tracks, short to long",
        "lasot: gaps, frame numbers", "search of videos: flip", "search of videos: rotation",
        "search of videos: blur", "search of videos: kinds of blur", "search of images: occlusion",
        "search of images: patches of occluders", "template of videos: brightness",
        "search of videos: scale x", "search of videos: scale y", "template of videos: scale x",
        "search of images: shift y", "search of videos: amount of contrast",
    }  # fmt: skip
    # no p-value is much smaller than so many of them make likely
    assert min(check.verdict().p or 0 for check in judged) > 1e-4


@pytest.mark.parametrize(
    "sampler",
    [
        SamplerConfig(unit="sequence", category_cap=2, causal=True, max_gap=20),
        SamplerConfig(max_gap_s=0.6, widen=Widening(start=0.5, epochs=4), category_cap=30),
        SamplerConfig(same_category="positive"),
    ],
)
def test_options_of_the_sampler_are_expected_too(
    config: PairConfig, sampler: SamplerConfig
) -> None:
    config = replace(config, sampler=sampler)
    sets = open_sets(config)
    assert wrong(checks(sets, draw_pairs(sets, config, EPOCH, 30_000), config, EPOCH)) == []


KINDS = PairKinds(same_instance=0.8, same_category=0.12, any=0.08)


@pytest.mark.parametrize(
    ("sampler", "names"),
    [
        ({"video": KINDS}, {"lasot: kinds of pair", "positive pairs: lasot"}),
        ({"image": KINDS}, {"coco: kinds of pair", "positive pairs: coco"}),
        ({"category_cap": 30}, {"lasot: categories", "lasot: tracks, short to long"}),
        ({"max_gap": 38}, {"lasot: gaps, frame numbers"}),
        ({"max_gap_s": 1.0}, {"lasot: gaps, frame numbers"}),
        ({"causal": True}, {"lasot: gaps, frame numbers"}),
        ({"same_category": "positive"}, {"positive pairs: lasot", "positive pairs: coco"}),
    ],
)
def test_a_wrong_expectation_of_pairs_is_caught(
    drawn: tuple[DataSets, PairDraws], config: PairConfig, sampler: dict[str, Any], names: set[str]
) -> None:
    other = replace(config, sampler=replace(config.sampler, **sampler))
    assert set(wrong(checks(*drawn, other, EPOCH))) == names


def test_other_weights_are_caught(drawn: tuple[DataSets, PairDraws], config: PairConfig) -> None:
    sets, pairs = drawn
    moved = [
        replace(one, weight=one.weight + add)
        for one, add in zip(sets.sets, (0.01, -0.01), strict=True)
    ]
    other = replace(sets, sets=tuple(moved))
    assert wrong(checks(other, pairs, config, EPOCH)) == ["pairs: data sets"]


def changed(value: Any) -> Any:
    """A setting of the recipe, somewhat off."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, float):
        return value + 0.1 if value < 1 else value * 1.1
    return replace(value, p=value.p + 0.1, **({"delta": 5} if hasattr(value, "delta") else {}))


@pytest.fixture(scope="module")
def fewer(config: PairConfig) -> tuple[DataSets, PairDraws, Recipe]:
    """Without occlusion, whose expectation is found by trial and takes time."""
    recipe = config.recipe
    for name in CROPS:
        augment = getattr(recipe, name)
        recipe = replace(recipe, **{name: replace(augment, occlusion=Occlusion())})
    config = replace(config, recipe=recipe)
    sets = open_sets(config)
    return sets, draw_pairs(sets, config, EPOCH, 20_000), recipe


CROPS = ("image_z", "image_x", "video_z", "video_x")


@pytest.mark.parametrize("field", [field.name for field in fields(Augment)])
@pytest.mark.parametrize("crop", CROPS)
def test_every_setting_of_the_recipe_is_watched(
    fewer: tuple[DataSets, PairDraws, Recipe], config: PairConfig, crop: str, field: str
) -> None:
    """A new step needs a line in `loaders.draws.STEPS`: without it this test fails."""
    sets, pairs, recipe = fewer
    augment = getattr(recipe, crop)
    changes = {crop: replace(augment, **{field: changed(getattr(augment, field))})}
    other = replace(config, recipe=replace(recipe, **changes))
    half: Half = "z" if crop.endswith("z") else "x"
    assert wrong(list(crop_checks(sets, pairs, replace(config, recipe=recipe), half))) == []
    found = wrong(list(crop_checks(sets, pairs, other, half)))
    assert found
    subject = f"{'template' if half == 'z' else 'search'} of {crop[:5]}s: "
    assert all(name.startswith(subject) for name in found)


def test_other_shares_are_caught(drawn: tuple[DataSets, PairDraws], config: PairConfig) -> None:
    recipe = config.recipe
    blur = replace(recipe.image_x.blur, average=replace(recipe.image_x.blur.average, weight=0.4))
    other = replace(
        recipe,
        grey=0.013,
        image_x=replace(recipe.image_x, blur=blur),
        video_x=replace(recipe.video_x, occlusion=replace(recipe.video_x.occlusion, patch=0.55)),
    )
    found = wrong(checks(*drawn, replace(config, recipe=other), EPOCH))
    assert {
        "template of videos: grey",
        "search of images: kinds of blur",
        "search of videos: patches of occluders",
    } <= set(found)


@pytest.mark.parametrize(
    ("chi2", "dof", "p"),
    [(10.83, 1, 1e-3), (27.88, 9, 1e-3), (85.35, 49, 1e-3), (0, 4, 1), (3.84, 1, 0.05)],
)
def test_p_values_of_the_tables(chi2: float, dof: int, p: float) -> None:
    assert p_value(chi2, dof) == pytest.approx(p, rel=2e-2)


def test_p_values_of_right_expectations_are_uniform() -> None:
    from shards.rng import uniforms

    u = uniforms(3, 0, 0, 0, 400 * 500, 4)[:, 0].reshape(400, 500)
    weights = [0.05, 0.05, 0.2, 0.3, 0.4]
    codes = np.searchsorted(np.cumsum(weights)[:-1], u, side="right")
    p = [shares("a", "b", "vwxyz", row, weights).verdict().p or 0 for row in codes]
    counts = np.bincount((np.array(p) * 10).astype(int).clip(0, 9), minlength=10)
    assert p_value(float(((counts - 40) ** 2 / 40).sum()), 9) > 1e-3


def test_small_cells_are_put_together() -> None:
    codes = np.repeat(np.arange(6), [30, 5, 10, 10, 40, 5])
    check = shares("a", "b", "uvwxyz", codes, [30, 5, 10, 10, 40, 5])
    assert check.verdict().dof == 2  # 30, 40, and the others together
    assert check.verdict().p == 1


def test_what_cannot_be_judged_and_what_must_not_happen() -> None:
    done = np.array([True] * 3 + [False] * 97)
    assert gate("a", "b", 0.03, done).verdict().p is None
    assert gate("a", "b", 0.0, ~done & done).verdict().p == 1
    never = gate("a", "b", 0.0, done)
    assert never.verdict().wrong
    assert never.facts()["p"] == 0
    values = np.linspace(-1, 1, 2000)
    assert not uniform("a", "b", values).verdict().wrong
    assert uniform("a", "b", values * 1.01).verdict().wrong
    assert uniform("a", "b", values * 0.9).verdict().wrong


def test_a_guess_of_an_expectation_counts_less() -> None:
    done = np.arange(10_000) < 1200
    sure, guessed = gate("a", "b", 0.1, done), gate("a", "b", 0.1, done, p_spread=0.02)
    assert sure.verdict().wrong
    assert not guessed.verdict().wrong


def test_what_no_trial_had_may_still_happen_once(
    drawn: tuple[DataSets, PairDraws], config: PairConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None of 2,000 occluders fits: one in 100,000 is no error, and as many as were drawn are."""
    sets, pairs = drawn
    monkeypatch.setattr("loaders.crop_stats.draw_occluder", lambda *_: None)
    occlusion = "search of videos: occlusion"
    assert occlusion in wrong(list(crop_checks(sets, pairs, config, "x")))
    column = [step.name for step in STEPS].index("occlusion")
    done = pairs.search.done.copy()
    done[:, column] = False
    for count in (0, 1):
        done[np.flatnonzero(~pairs.is_image)[:count], column] = True
        once = replace(pairs, search=replace(pairs.search, done=done))
        assert occlusion not in wrong(list(crop_checks(sets, once, config, "x")))


def test_patches_that_no_trial_had(
    drawn: tuple[DataSets, PairDraws], config: PairConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    sets, pairs = drawn
    plain = crop_stats.draw_occluder

    def only_colours(ranges: Occlusion, *more: Any) -> Any:
        return None if ranges.patch else plain(ranges, *more)

    monkeypatch.setattr(crop_stats, "draw_occluder", only_colours)
    covers = "search of videos: patches of occluders"
    assert covers in wrong(list(crop_checks(sets, pairs, config, "x")))
    kinds = np.where(pairs.search.occluder_kind == "patch", "colour", pairs.search.occluder_kind)
    none = replace(pairs, search=replace(pairs.search, occluder_kind=kinds))
    assert covers not in wrong(list(crop_checks(sets, none, config, "x")))


def test_cells_must_agree() -> None:
    with pytest.raises(ValueError, match="cells and sums must agree"):
        Check(
            subject="a", what="b", labels=("x", "y"), observed=np.array([3, 4]),
            expected=np.array([3.0, 5.0]),
        )  # fmt: skip


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["stats", *(str(a) for a in arguments)])


def test_the_command_prints_and_plots(packed: Path, tmp_path: Path) -> None:
    out = tmp_path / "sub" / "stats.png"
    arguments = ("--data", packed, "--samples", 3000, "--epoch", 1)
    result = run(*arguments, "--out", out)
    assert result.exit_code == 0, result.output
    assert "3,000 plans" in result.stdout
    assert "lasot: kinds of pair" in result.stdout
    assert "WRONG" not in result.stdout
    with Image.open(out) as image:
        assert image.width > 1000
        assert len(np.unique(np.array(image.convert("RGB")).reshape(-1, 3), axis=0)) > 50
    assert run(*arguments).stdout == result.stdout


def test_json_is_one_object_on_stdout(packed: Path) -> None:
    result = run("--data", packed, "--samples", 20_000, "--json")
    assert result.exit_code == 0, result.output
    facts = json.loads(result.stdout)
    assert (facts["samples"], facts["seed"], facts["wrong"]) == (20_000, 7, [])
    kinds = next(one for one in facts["checks"] if one["what"] == "kinds of pair")
    assert sum(kinds["observed"]) == pytest.approx(sum(kinds["expected"]))


def test_a_wrong_stream_exits_1_and_says_which(
    packed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sampler = SamplerConfig(video=KINDS)

    def other(sets: DataSets, drawn: PairDraws, config: PairConfig, epoch: int) -> list[Check]:
        return checks(sets, drawn, replace(config, sampler=sampler), epoch)

    monkeypatch.setattr("loaders.stats.checks", other)
    result = run("--data", packed, "--samples", 20_000, "--json")
    assert result.exit_code == 1
    assert "Error: not as the configuration says: lasot: kinds of pair" in result.stderr
    facts = json.loads(result.stdout)
    assert facts["wrong"] == ["lasot: kinds of pair", "positive pairs: lasot"]


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        (("--samples", 5), 2, "5 is not in the range"),
        (("--data", "/nonexistent"), 1, "python -m packer demo"),
        (("--set", "data.sampler.unit=track"), 1, "should be 'frame' or 'sequence'"),
        (("--set", "data.sampler.widen.start=0.5"), 1, "start 0.5 and epochs 0 do not fit"),
        (("--samples", 1000, "--out", "a.xyz"), 1, "a name that ends in .png"),
        (("--set", "data.storage=sequential"), 1, "python -m benchmarks sequential"),
        (("--data", "pipe:true"), 1, "command line alone"),
    ],
)
def test_mistakes(packed: Path, arguments: tuple[object, ...], code: int, complaint: str) -> None:
    result = run("--data", packed, *arguments)
    assert result.exit_code == code
    assert complaint in result.stderr
    assert "Traceback" not in result.output
