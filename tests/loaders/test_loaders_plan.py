"""Which pairs: the published rule, sample by sample and in the long run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import synthetic
from hypothesis import given
from hypothesis import strategies as st

from loaders.plan import PairKinds, PairTables, Plan, SamplerConfig, plan_batch
from shards.format import shard_name
from shards.index import Index
from shards.rng import uniforms
from shards.writer import finish, write_shard

# Upper 0.1 % of chi-square by degrees of freedom.
CHI2_999 = {1: 10.83, 2: 13.82, 3: 16.27, 9: 27.88, 19: 43.82, 29: 58.3, 49: 85.35}


@pytest.fixture(scope="module")
def indexes(tmp_path_factory: pytest.TempPathFactory) -> list[Index]:
    """COCO-like pictures; a video set with uneven tracks of three categories and gaps."""
    folder = tmp_path_factory.mktemp("plan")
    synthetic.pack(folder, "coco", sequences=20, frames=1, per_shard=20, kind="image", side=48)
    tracks = [
        ("a-1", "a", 40),
        ("b-1", "b", 8),
        ("a-2", "a", 10),
        ("c-1", "c", 2),
        ("b-2", "b", 30),
    ]

    def samples() -> object:
        for seed, (name, category, frames) in enumerate(tracks):
            yield from synthetic.samples(name, category, frames, seed=seed, side=48, stride=10)

    part = write_shard(folder / "lasot", shard_name("lasot", 0), samples())  # type: ignore[arg-type]
    finish(folder / "lasot", [part], name="lasot", grid="edge", crop_size=48)
    return [Index(folder / "coco"), Index(folder / "lasot")]


def tables(indexes: list[Index], config: SamplerConfig | None = None) -> PairTables:
    return PairTables(indexes, [1.0, 3.0], config or SamplerConfig())


def chi2(observed: np.ndarray, expected: np.ndarray) -> float:
    expected = expected * observed.sum() / expected.sum()
    return float(((observed - expected) ** 2 / expected).sum())


def slow_pair(indexes: list[Index], config: SamplerConfig, u: np.ndarray) -> tuple[int, ...]:
    """The rule for one sample, in plain Python over all rows."""
    number = 0 if u[0] < 0.25 else 1
    index = indexes[number]
    rows: dict[str, list[int]] = {name: [] for name in index.categories}
    for row in range(len(index)):
        rows[index.sample(row).category].append(row)

    def category(u: float) -> str:
        sizes = [min(len(rows[name]), config.category_cap) for name in index.categories]
        bounds = np.cumsum(sizes) / sum(sizes)
        return next(n for n, b in zip(index.categories, bounds, strict=True) if u < b)

    def pick(among: list[int], u: float) -> int:
        return among[int(u * len(among))]

    own = category(u[1])
    z = pick(rows[own], u[2])
    kinds = config.image if index.is_image else config.video
    if u[3] < kinds.same_instance:
        kind = 0
        me = index.sample(z)
        near = [
            row
            for row in range(len(index))
            if index.sequence(row) == me.sequence
            and abs(int(index.frame[row]) - me.frame) <= config.max_gap
        ]
        x = z if index.is_image else pick(near, u[4])
    elif u[3] < kinds.same_instance + kinds.same_category:
        kind, x = 1, pick(rows[own], u[4])
    else:
        kind, x = 2, pick(rows[category(u[5])], u[6])
    return number, z, x, kind, int(index.sequence(z) == index.sequence(x))


@pytest.mark.parametrize(("gap", "cap"), [(200, 100_000), (25, 15), (0, 1)])
def test_every_sample_against_the_slow_rule(indexes: list[Index], gap: int, cap: int) -> None:
    config = SamplerConfig(max_gap=gap, category_cap=cap)
    plan = plan_batch(tables(indexes, config), 11, 4, 500, 150)
    u = uniforms(11, 0, 4, 500, 150, 8)
    got = np.stack([plan.dataset, plan.template_row, plan.search_row, plan.kind, plan.positive])
    for i in range(150):
        assert tuple(got[:, i]) == slow_pair(indexes, config, u[i])


def columns(plan: Plan) -> np.ndarray:
    return np.stack(
        [plan.sample, plan.dataset, plan.template_row, plan.search_row, plan.kind, plan.positive]
    )


@given(st.integers(0, 5000), st.integers(1, 60), st.integers(1, 9))
def test_a_sample_is_the_same_in_any_batch(
    indexes: list[Index], start: int, count: int, step: int
) -> None:
    whole = plan_batch(tables(indexes), 7, 1, start, count * step)
    part = plan_batch(tables(indexes), 7, 1, start, count, step)
    np.testing.assert_array_equal(columns(part), columns(whole)[:, ::step])


@given(st.integers(1, 8), st.integers(8, 40))
def test_ranks_are_disjoint_and_cover_the_batch(
    indexes: list[Index], world: int, batch: int
) -> None:
    parts = [
        plan_batch(tables(indexes), 7, 0, rank, len(range(rank, batch, world)), world)
        for rank in range(world)
    ]
    samples = np.concatenate([part.sample for part in parts])
    assert sorted(samples.tolist()) == list(range(batch))


def test_statistics_of_100_000_pairs(indexes: list[Index]) -> None:
    plan = plan_batch(tables(indexes), 7, 0, 0, 100_000)
    datasets = np.bincount(plan.dataset, minlength=2)
    assert chi2(datasets, np.array([1.0, 3.0])) < CHI2_999[1]
    video = plan.dataset == 1
    for chosen, kinds in ((~video, [0.6, 0.2, 0.2]), (video, [0.9, 0.05, 0.05])):
        observed = np.bincount(plan.kind[chosen], minlength=3)
        assert chi2(observed, np.array(kinds)) < CHI2_999[2]
    # templates are uniform over frames while no category reaches the cap
    frames = np.bincount(plan.template_row[video], minlength=90)
    assert chi2(frames.reshape(30, 3).sum(axis=1), np.ones(30)) < CHI2_999[29]


def test_a_capped_category_is_drawn_less(indexes: list[Index]) -> None:
    plan = plan_batch(tables(indexes, SamplerConfig(category_cap=10)), 7, 0, 0, 50_000)
    index = indexes[1]
    category = index.category_code[plan.template_row[plan.dataset == 1]]
    observed = np.bincount(category, minlength=3)
    assert index.categories == ("a", "b", "c")
    assert chi2(observed, np.array([10.0, 10.0, 2.0])) < CHI2_999[2]


def test_gap_holds_in_original_frame_numbers(indexes: list[Index]) -> None:
    plan = plan_batch(tables(indexes, SamplerConfig(max_gap=35)), 7, 0, 0, 20_000)
    same = (plan.dataset == 1) & (plan.kind == 0)
    frame = indexes[1].frame
    gaps = frame[plan.search_row[same]].astype(int) - frame[plan.template_row[same]]
    assert set(gaps.tolist()) == {-30, -20, -10, 0, 10, 20, 30}  # symmetric, own frame included


def test_image_pairs_of_one_instance_are_one_picture(indexes: list[Index]) -> None:
    plan = plan_batch(tables(indexes), 7, 0, 0, 5000)
    same = (plan.dataset == 0) & (plan.kind == 0)
    np.testing.assert_array_equal(plan.template_row[same], plan.search_row[same])
    assert plan.is_image.tolist() == (plan.dataset == 0).tolist()


def test_epochs_and_seeds_differ(indexes: list[Index]) -> None:
    first = columns(plan_batch(tables(indexes), 7, 0, 0, 200))
    assert (columns(plan_batch(tables(indexes), 7, 1, 0, 200)) != first).any()
    assert (columns(plan_batch(tables(indexes), 8, 0, 0, 200)) != first).any()


def test_golden_plan(packed: Path) -> None:
    """The sample stream of a given index: a change here is a breaking change of the stream."""
    plan = plan_batch(PairTables([Index(packed / "lasot")], [1.0], SamplerConfig()), 7, 0, 0, 6)
    assert columns(plan)[2:].tolist() == GOLDEN


GOLDEN = [[31, 51, 56, 11, 0, 24], [29, 48, 62, 32, 6, 22], [0, 0, 0, 2, 0, 0], [1, 1, 1, 0, 1, 1]]


@pytest.mark.parametrize("kinds", [(0.5, 0.5, 0.5), (1.0, 0.2, 0.0)])
def test_kinds_must_sum_to_one(kinds: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="must be 1"):
        PairKinds(same_instance=kinds[0], same_category=kinds[1], any=kinds[2])
