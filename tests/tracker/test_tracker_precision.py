"""Under bfloat16 autocast the losses are those of float32, at the start and as training goes on.

Suppression takes whole boxes or leaves them, so now and then rounding exchanges a proposal, and
with it the terms of the fine stage of one batch move by a few per cent: they are compared with the
same proposals here, and the proposals by themselves.
"""

import os
from statistics import median
from typing import get_args

import pytest
import torch
from test_tracker_step import planned

from benchmarks.step import make_batch
from tracker.config import ModelConfig, ModelName
from tracker.models import TrackerModel, build
from tracker.spm import SPM
from tracker.training.config import TrainConfig
from tracker.training.step import Stepper

NAMES = get_args(ModelName)
PER_CENT = 0.01


@pytest.fixture(scope="module")
def batches(request) -> list[dict[str, torch.Tensor]]:
    """Batches of eight pairs: planned ones of real pictures if there are some, else smooth ones."""
    if os.environ.get("SIAMSTREAM_TEST_DATA"):
        return planned(request.getfixturevalue("real_packed_all"), 3)
    return [make_batch(8, seed) for seed in range(3)]


@torch.no_grad()
def losses(model: TrackerModel, data: dict[str, torch.Tensor], *, rounded: bool, proposals=None):
    """Terms by name; with the proposals that are given, if any."""
    if proposals is not None:
        model.propose = lambda *_: proposals
    try:
        with torch.autocast("cpu", torch.bfloat16, enabled=rounded):
            return {name: term.item() for name, term in model(**data, epoch=0).items()}
    finally:
        vars(model).pop("propose", None)


@torch.no_grad()
def coarse(model: SPM, data: dict[str, torch.Tensor], *, rounded: bool):
    with torch.autocast("cpu", torch.bfloat16, enabled=rounded):
        z, x = model.features(data["template"]), model.features(data["search"])
        return model.coarse(model.kernels(z), x)


def assert_close_terms(model: TrackerModel, data: dict[str, torch.Tensor]) -> None:
    """Compare each term to 1 %, of the same proposals."""
    proposals = None
    if isinstance(model, SPM):
        proposals = model.propose(coarse(model, data, rounded=False), model.config.proposals)
    exact = losses(model, data, rounded=False, proposals=proposals)
    rounded = losses(model, data, rounded=True, proposals=proposals)
    for name, value in exact.items():
        assert rounded[name] == pytest.approx(value, rel=PER_CENT), name
        assert rounded[name] != value, "bfloat16 left no trace: was it used?"


# At full width it takes minutes on a CPU without instructions for bfloat16.
WIDTHS = [0.25, pytest.param(1.0, marks=pytest.mark.services)]


@pytest.mark.slow
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", NAMES)
def test_first_losses_of_whole_models_are_within_one_per_cent(name, width, batches):
    assert_close_terms(build(ModelConfig(name=name, init="random", width=width)), batches[0])


def test_rounding_does_not_make_anchors_tie_and_keeps_most_proposals(batches):
    model = build(ModelConfig(init="random", width=0.25))
    kept = []
    for data in batches:
        exact, rounded = (coarse(model, data, rounded=flag) for flag in (False, True))
        before, after = (model.propose(maps, model.config.proposals) for maps in (exact, rounded))
        apart = (before.boxes[:, :, None] - after.boxes[:, None]).abs().amax(-1)
        kept.append((apart.amin(2) < 2).float().mean())  # within two pixels of one
        for row, other in zip(exact.logits, rounded.logits, strict=True):
            distinct, left = (len((of[:, 1] - of[:, 0]).unique()) for of in (row, other))
            assert left > 0.95 * distinct  # 0.1 to 0.5 with logits in bfloat16
    assert torch.stack(kept).mean() > 0.75


# For `make test-services`: a processor without bfloat16 takes minutes for each. The tests above
# compare single steps of every model.
TRAINED = [pytest.param(name, marks=pytest.mark.services) for name in NAMES]


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAINED)
def test_losses_stay_within_one_per_cent_as_training_goes_on(name, batches):
    model = build(ModelConfig(name=name, init="random", width=0.25))
    stepper = Stepper(model, TrainConfig(lr=0.02, warmup_steps=0), torch.device("cpu"), 100)
    first = losses(model, batches[0], rounded=False)
    for step in range(20):
        if step % 7 == 5:
            assert_close_terms(model, batches[step % len(batches)])
        stepper({**batches[step % len(batches)], "epoch": 1}, step, 1)
    moved = sum(losses(model, batches[0], rounded=False).values()) / sum(first.values()) - 1
    assert abs(moved) > PER_CENT / 10  # SiamFC learns slowly


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAINED)
def test_ten_steps_in_bfloat16_follow_those_in_float32(name, batches):
    config, found = ModelConfig(name=name, init="random", width=0.25), {}
    for amp in ("off", "bf16"):
        stepper = Stepper(build(config), TrainConfig(amp=amp), torch.device("cpu"), 100)
        reports = [
            stepper({**batches[step % len(batches)], "epoch": 1}, step, 1) for step in range(10)
        ]
        found[amp] = [report.by_name() for report in reports]
    off = {
        name: [(b[name] / a[name] - 1).abs().item() for a, b in zip(*found.values(), strict=True)]
        for name in found["off"][0]
        if name != "grad_norm"
    }
    proposed = ("fm_cls", "fm_reg", "loss") if name.startswith("spm") else ()
    for term, values in off.items():
        assert median(values) < (5 if term in proposed else 1) * PER_CENT, term
        assert max(values) < 6 * PER_CENT or term in proposed, term
