import math

import numpy as np
import pytest
import torch
import tracker_oracle as oracle
from hypothesis import given, settings
from hypothesis import strategies as st

from tracker.anchors import anchor_boxes
from tracker.labels import (
    AssignConfig,
    SampleConfig,
    assign,
    choose,
    decode,
    encode,
    iou,
    priorities,
)

COARSE = AssignConfig()
FINE = AssignConfig(positive_iou=0.5, negative_iou=0.45, best_iou=0.45)
ANCHORS = anchor_boxes("corner")

position = st.integers(-40, 290).map(lambda v: v / 2)
extent = st.integers(2, 500).map(lambda v: v / 2)
box = st.tuples(position, position, extent, extent).map(
    lambda v: [v[0], v[1], v[0] + v[2], v[1] + v[3]]
)


@given(box, box)
def test_iou_is_that_of_the_scalar_form(a, b):
    got = iou(torch.tensor(a), torch.tensor(b))
    assert got.item() == oracle.iou(a, b)
    assert iou(torch.tensor(a), torch.tensor(a)).item() == 1


def test_iou_of_empty_boxes_is_zero():
    empty = torch.tensor([5.0, 5, 5, 9])
    assert iou(empty, empty).item() == 0
    assert iou(torch.tensor([9.0, 9, 5, 5]), torch.tensor([0.0, 0, 10, 10])).item() == 0


def test_deltas_of_a_worked_example():
    candidate, target = torch.tensor([0.0, 0, 10, 20]), torch.tensor([5.0, 0, 25, 20])
    expected = torch.tensor([1, 0, math.log(2), 0])
    assert torch.allclose(encode(candidate, target), expected)
    assert torch.allclose(encode(candidate, target, 0.1), 10 * expected)
    assert torch.allclose(decode(candidate, 10 * expected, 0.1), target)


@given(box, box, st.sampled_from([1.0, 0.1]))
def test_decode_inverts_encode(a, b, std):
    candidate, target = torch.tensor(a), torch.tensor(b)
    deltas = encode(candidate, target, std)
    assert deltas.tolist() == pytest.approx(oracle.encode(a, b, std), rel=1e-4, abs=1e-4)
    ratio = (target[2:] - target[:2]) / (candidate[2:] - candidate[:2])
    if ((ratio < 8) & (ratio > 1 / 8)).all():
        assert torch.allclose(decode(candidate, deltas, std), target, rtol=1e-4, atol=2e-2)


@given(box, st.lists(st.floats(-40, 40, width=32), min_size=4, max_size=4))
def test_decode_is_that_of_the_scalar_form(a, deltas):
    got = decode(torch.tensor(a), torch.tensor(deltas), 0.1)
    want = oracle.decode(a, deltas, 0.1)
    assert got.tolist() == pytest.approx(want, rel=1e-4, abs=0.05)


def test_decode_clamps_sizes_to_a_factor_of_eight():
    got = decode(torch.tensor([0.0, 0, 10, 10]), torch.tensor([0.0, 0, 50, -50]))
    assert torch.allclose(got, torch.tensor([-35, 5 - 0.625, 45, 5 + 0.625]))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(box, st.booleans()), min_size=1, max_size=3), st.data())
def test_assignment_is_that_of_the_loop(samples, data):
    targets = torch.tensor([b for b, _ in samples])
    positive = torch.tensor([p for _, p in samples])
    few = ANCHORS[:: data.draw(st.sampled_from([1, 7, 29]))]
    config = data.draw(st.sampled_from([COARSE, FINE]))
    overlap = iou(few, targets[:, None])
    valid = None
    if data.draw(st.booleans()):
        pattern = data.draw(st.integers(0, 2**30))
        valid = torch.tensor([[bool(pattern >> (k % 30) & 1) for k in range(len(few))]])
        valid = valid.expand(len(samples), -1)
    got = assign(overlap, positive, config, valid)
    for b, (_, is_positive) in enumerate(samples):
        want = oracle.assign(
            overlap[b].numpy(),
            is_positive,
            config.positive_iou,
            config.negative_iou,
            config.best_iou,
            None if valid is None else valid[b].tolist(),
        )
        assert got[b].tolist() == want


def test_every_anchor_that_equals_the_best_becomes_positive():
    # A square of 46.5 px lies inside nine of the 64 px anchors: IoU .528 with each, .6 with none.
    half = 46.5 / 2
    target = torch.tensor([[127 - half, 127 - half, 127 + half, 127 + half]])
    overlap = iou(ANCHORS, target[:, None])
    assert 0.5 <= overlap.max() < 0.6
    labels = assign(overlap, torch.tensor([True]), COARSE)
    found = (labels[0] == 1).nonzero().flatten().tolist()
    assert found == [(y * 17 + x) * 5 + 2 for y in (7, 8, 9) for x in (7, 8, 9)]


def test_a_box_that_no_anchor_matches_makes_all_anchors_negative():
    target = torch.tensor([[127.0 - 8, 127 - 112, 127 + 8, 127 + 112]])  # 1:14
    overlap = iou(ANCHORS, target[:, None])
    assert 0.3 < overlap.max() < 0.5  # some would be ignored otherwise
    assert (assign(overlap, torch.tensor([True]), COARSE) == 0).all()


def test_all_anchors_of_a_negative_pair_are_negative():
    target = torch.tensor([[95.0, 95, 159, 159]])
    overlap = iou(ANCHORS, target[:, None])
    assert overlap.max() == 1
    assert (assign(overlap, torch.tensor([False]), COARSE) == 0).all()


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**63 - 1),
    st.integers(1, 90),
    st.lists(st.sampled_from([1, 0, -1]), min_size=90, max_size=90),
    st.integers(1, 70).flatmap(lambda n: st.tuples(st.just(n), st.integers(1, n))),
)
def test_choice_is_that_of_the_loop(seed, n, kinds, sizes):
    total, most = sizes
    labels = torch.tensor([kinds[:n], [-1] * n, [0] * n, [1] * n])
    order = priorities(seed, 3, torch.tensor([5, 6, 7, 8]), n)
    got = choose(labels, order, SampleConfig(anchors=total, positives=most))
    for b in range(4):
        want = oracle.choose(labels[b].tolist(), order[b].tolist(), total, most)
        assert got[b].tolist() == want


def test_sixteen_positives_leave_room_for_forty_eight_negatives():
    labels = torch.zeros(3, 1445, dtype=torch.int64)
    labels[0, 100:140], labels[1, 100:104] = 1, 1
    got = choose(labels, priorities(0, 0, torch.arange(3), 1445), SampleConfig())
    assert (got == 1).sum(1).tolist() == [16, 4, 0]
    assert (got == 0).sum(1).tolist() == [48, 60, 64]


def test_priorities_are_splitmix64():
    assert oracle.splitmix(oracle.GOLDEN) == 0xE220A8397B1DCDAF  # published first output, seed 0
    samples = torch.tensor([0, 1, 319_999, 2**62])
    for seed, epoch in ((0, 0), (7, 49), (2**63 - 1, 1)):
        got = priorities(seed, epoch, samples, 30)
        want = [[oracle.priority(seed, epoch, s, k) for k in range(30)] for s in samples.tolist()]
        assert got.tolist() == want
        assert torch.equal(got, priorities(seed, torch.tensor(epoch), samples, 30))


def test_priorities_do_not_depend_on_the_batch():
    whole = priorities(7, 2, torch.arange(64), 100)
    ranks = [priorities(7, 2, torch.arange(64)[r::4], 100) for r in range(4)]
    assert torch.equal(torch.stack(ranks, dim=1).reshape(64, 100), whole)
    assert torch.equal(priorities(7, 2, torch.tensor([41]), 100)[0], whole[41])


def test_priorities_are_uniform_in_every_byte():
    draws = priorities(7, 0, torch.arange(200), 1445).flatten()
    for shift in range(0, 56, 8):
        counts = torch.bincount((draws >> shift) & 255, minlength=256).double()
        expected = len(draws) / 256
        chi_square = ((counts - expected) ** 2 / expected).sum().item()
        assert 150 < chi_square < 380  # 255 degrees of freedom, about ±5 standard deviations


def test_every_anchor_is_chosen_equally_often():
    samples = torch.arange(4000)
    labels = torch.zeros(4000, 1445, dtype=torch.int64)
    chosen = choose(labels, priorities(7, 0, samples, 1445), SampleConfig()) == 0
    p = 64 / 1445
    counts = chosen.sum(0).double()
    chi_square = ((counts - 4000 * p) ** 2 / (4000 * p * (1 - p))).sum().item()
    assert abs(chi_square - 1445) < 5 * math.sqrt(2 * 1445)


def test_neighbouring_samples_epochs_and_seeds_are_unrelated():
    def unit(seed, epoch, first):
        draws = priorities(seed, epoch, torch.arange(first, first + 100), 500)
        return draws.double().numpy().ravel() / 2.0**63

    base = unit(7, 0, 0)
    for other in (unit(7, 0, 1), unit(7, 1, 0), unit(8, 0, 0), np.roll(base, 1)):
        assert abs(np.corrcoef(base, other)[0, 1]) < 5 / math.sqrt(base.size)


@pytest.mark.parametrize(
    "make",
    [
        lambda: AssignConfig(positive_iou=0.4, negative_iou=0.45, best_iou=0.5),
        lambda: AssignConfig(best_iou=0.2),
        lambda: SampleConfig(anchors=8, positives=9),
    ],
)
def test_contradicting_numbers_are_refused(make):
    with pytest.raises(ValueError, match="must not exceed"):
        make()
