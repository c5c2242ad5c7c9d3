"""The step without a loop over samples has the losses and gradients of one with it."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from test_tracker_models import batch as four_pairs
from test_tracker_models import loop_step

from benchmarks.per_sample import per_sample_terms, shuffled
from benchmarks.step import make_batch
from loaders.batch import normalise
from loaders.config import PairConfig
from loaders.loader import PairLoader
from tracker.models import ModelConfig, TrackerModel, build

EPOCH = 2


@pytest.fixture(scope="module", params=["spm_alexnet", "siamrpn_alexnet", "siamrpn_alexnet_dw"])
def model(request) -> TrackerModel:
    return build(ModelConfig(name=request.param, init="random", width=0.1))


def assert_equal_steps(model: TrackerModel, data: dict[str, torch.Tensor]) -> dict[str, float]:
    """Compare terms to 1e-5, gradients to 1e-4 of the largest of a tensor; returns the terms."""
    parameters = list(model.parameters())
    fast = model(**data, epoch=EPOCH)
    slow = per_sample_terms(model, data, shuffled(model, data, EPOCH))
    assert list(fast) == list(slow)
    for name, term in fast.items():
        assert term.isfinite(), name
        assert term.item() == pytest.approx(slow[name].item(), rel=1e-5, abs=1e-7), name
    mine = torch.autograd.grad(sum(fast.values()), parameters)
    loop = torch.autograd.grad(sum(slow.values()), parameters)
    for (name, _), a, b in zip(model.named_parameters(), mine, loop, strict=True):
        assert a.isfinite().all(), name
        assert (a - b).abs().max() <= 1e-4 * b.abs().max() + 1e-8, name
    return {name: term.item() for name, term in fast.items()}


def test_the_loop_itself_is_that_of_the_oracle():
    spm = build(ModelConfig(init="random", width=0.0625))
    data = four_pairs()
    got = per_sample_terms(spm, data, shuffled(spm, data, EPOCH))
    want, _ = loop_step(spm, data, epoch=EPOCH)
    for name, term in got.items():
        assert term.item() == pytest.approx(want[name].item(), rel=1e-4), name


@pytest.mark.parametrize("seed", range(3))
def test_random_pairs(model, seed):
    terms = assert_equal_steps(model, make_batch(5, seed))
    assert all(value > 0 for value in terms.values())


def test_pairs_without_a_positive_anchor(model):
    data = make_batch(3)
    data["positive"] = torch.zeros(3, dtype=torch.bool)
    negative = assert_equal_steps(model, data)
    assert all(value == 0 for name, value in negative.items() if name.endswith("reg"))
    data["positive"] = ~data["positive"]
    data["search_box"] = torch.tensor([[119.0, 15, 135, 239]]).repeat(3, 1)  # 1:14 fits no anchor
    slender = assert_equal_steps(model, data)
    cls = "cm_cls" if "cm_cls" in slender else "cls"
    assert slender[cls] == pytest.approx(negative[cls], rel=1e-5)


BOXES = {
    "tiny": [[127.0, 127, 128, 128], [3, 200, 3.5, 200.25], [90, 90, 94, 93]],
    "without area": [[127.0, 127, 127, 127], [40, 40, 80, 40], [60, 70, 60, 90]],
    "outside": [[-300.0, -250, -200, -100], [400, 10, 500, 90], [10, 300, 60, 420]],
    "over the border": [[-40.0, 90, 30, 160], [200, 200, 300, 270], [-50, -50, 310, 310]],
    "larger than the crop": [[-500.0, -500, 700, 700], [0, 0, 255, 255], [-90, 100, 400, 140]],
}


@pytest.mark.parametrize("kind", BOXES)
def test_unusual_boxes(model, kind):
    data = make_batch(3)
    data["positive"] = torch.ones(3, dtype=torch.bool)
    data["search_box"] = torch.tensor(BOXES[kind])
    assert_equal_steps(model, data)
    data["template_box"] = torch.tensor(BOXES[kind])
    assert_equal_steps(model, data)


def test_one_pair_and_suppression_that_leaves_few_boxes(model):
    assert_equal_steps(model, {name: value[:1] for name, value in make_batch(2).items()})
    if model.config.name.startswith("spm"):
        proposals = replace(model.config.proposals, nms_iou=0.02, keep=200)
        few, data = build(replace(model.config, proposals=proposals)), make_batch(3)
        maps = few.coarse(few.kernels(few.features(data["template"])), few.features(data["search"]))
        assert not few.propose(maps, proposals).valid.all()
        assert_equal_steps(few, data)


def planned(path: Path, batches: int) -> list[dict[str, torch.Tensor]]:
    """Batches of eight pairs as training has them."""
    names = ("template_box", "search_box", "positive", "sample")
    config = PairConfig(path=str(path), pairs_per_epoch=64, backend="cpu", threads=1)
    found = []
    with PairLoader(config, batch_size=8) as loader:
        for _ in range(batches):
            one = next(loader)
            pixels = {side: normalise(getattr(one, side)) for side in ("template", "search")}
            found.append({**pixels, **{name: getattr(one, name) for name in names}})
    return found


def test_planned_pairs_of_synthetic_pictures(model, packed):
    for data in planned(packed, 2):
        assert_equal_steps(model, data)


def test_planned_pairs_of_real_pictures(model, real_packed_all):
    for data in planned(real_packed_all, 3):
        terms = assert_equal_steps(model, data)
        assert all(value > 0 for value in terms.values())
