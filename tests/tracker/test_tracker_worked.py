"""Numbers of the published formulas, computed by hand. Each test says what was computed."""

import math

import pytest
import torch

from shards.geometry import region_affine
from tracker.anchors import anchor_boxes
from tracker.backbones import AlexNet
from tracker.heads import CoarseHead
from tracker.labels import AssignConfig, SampleConfig, assign, choose, decode, encode, iou
from tracker.losses import loss_terms, stage_terms
from tracker.models import ModelConfig, build
from tracker.proposals import ProposalConfig, propose, survivors, with_target
from tracker.resnet import ResNet18
from tracker.roi import roi_align
from tracker.training.config import TrainConfig
from tracker.training.schedule import parameter_groups

COARSE = AssignConfig()
FINE = ModelConfig().fine.assign
YES = torch.tensor([True])
SQUARE = torch.tensor([0.0, 0, 10, 10])
ON_TARGET = [0.0, 0, 10, 10]


def high(share):
    """Box within the 10x10 square that covers a share of it, and so has that IoU with it."""
    return [0.0, 0, 10, 10 * share]


def labels(candidates, config, positive=YES):
    overlap = iou(torch.tensor([candidates]), SQUARE)
    return assign(overlap, positive, config)[0].tolist()


def test_thresholds_of_the_coarse_stage_are_at_least_60_and_below_30_percent():
    # 10x6 of 10x10 is exactly .6: positive. 10x5.9: between, ignored. 10x3 is exactly .3: not
    # below it, ignored. 10x2.9: negative. No overlap: negative.
    far = [50.0, 50, 60, 60]
    got = labels([ON_TARGET, high(0.6), high(0.59), high(0.3), high(0.29), far], COARSE)
    assert got == [1, 1, -1, -1, 0, 0]


def test_the_best_anchors_are_positive_from_one_half_on():
    # Best .55: it is positive with all that equal it, the .54 is not; a best of exactly .5 counts.
    twin = [0.0, 4.5, 10, 10]  # 55 of 100, like the first
    assert labels([high(0.55), high(0.54), twin, high(0.1)], COARSE) == [1, -1, 1, 0]
    assert labels([high(0.5), high(0.4), high(0.1)], COARSE) == [1, -1, 0]


def test_a_best_below_one_half_makes_even_the_target_negative():
    # Best .49: nobody is positive, so all are negative, also .49 and .4, which would be ignored.
    assert labels([high(0.49), high(0.4), high(0.1)], COARSE) == [0, 0, 0]


def test_thresholds_of_the_fine_stage_are_50_and_45_percent():
    # .5 is positive; .49 and exactly .45 are ignored beside it; .44 is negative.
    assert labels([high(0.5), high(0.49), high(0.45), high(0.44)], FINE) == [1, -1, -1, 0]
    # Alone, the best is positive from .45 on.
    assert labels([high(0.45), high(0.4)], FINE) == [1, 0]
    assert labels([high(0.44), high(0.4)], FINE) == [0, 0]


def test_a_negative_pair_has_negatives_alone():
    assert labels([ON_TARGET, high(0.5), high(0.1)], COARSE, ~YES) == [0, 0, 0]
    assert labels([ON_TARGET, high(0.5), high(0.1)], FINE, ~YES) == [0, 0, 0]


def test_sampling_fills_up_with_negatives_only():
    # 20 positives: 16 stay; of 100 negatives 48; of 30 all. 2 positives and 100 negatives: 62.
    order = torch.arange(200)[None]
    for ones, zeros, kept in ((20, 100, (16, 48)), (20, 30, (16, 30)), (2, 100, (2, 62))):
        row = torch.tensor([[1] * ones + [0] * zeros + [-1] * (200 - ones - zeros)])
        got = choose(row, order, SampleConfig())
        assert ((got == 1).sum().item(), (got == 0).sum().item()) == kept


def test_deltas_of_the_middle_anchor_and_a_box():
    # Anchor 95,95,159,159: 64 px about (127,127). Box 100,110,132,150: 32x40 about (116,130).
    anchor, box = torch.tensor([95.0, 95, 159, 159]), torch.tensor([100.0, 110, 132, 150])
    want = torch.tensor([-11 / 64, 3 / 64, -math.log(2), math.log(40 / 64)])
    assert torch.allclose(encode(anchor, box), want)
    assert torch.allclose(encode(anchor, box, 0.1), want * 10)
    assert torch.allclose(decode(anchor, want), box)
    assert torch.allclose(decode(anchor, want * 10, 0.1), box)


def test_sizes_grow_and_shrink_by_eight_at_most():
    # log 8 = 2.0794. With stds .1 a delta of 30 is 3, clamped to 8 x 10 = 80 about 5; -20 is -2,
    # not clamped: 10 exp(-2) = 1.3534 about 5. The centre is not clamped: 100 x .1 x 10 = 100.
    got = decode(SQUARE, torch.tensor([100.0, 0, 30, -20]), 0.1)
    half = 5 * math.exp(-2)
    assert torch.allclose(got, torch.tensor([105.0 - 40, 5 - half, 105 + 40, 5 + half]))


def test_channel_two_a_plus_class_and_four_a_plus_delta():
    # Channel c has the value c everywhere; anchor 3 has classes 6, 7 and deltas 12, 13, 14, 15.
    head = CoarseHead()
    with torch.no_grad():
        for conv in (head.cls_convs[0], head.reg_convs[0]):
            conv.weight.zero_()
            conv.bias.copy_(torch.arange(float(len(conv.bias))))
    logits, deltas = head(torch.zeros(1, 10, 17, 17), torch.zeros(1, 20, 17, 17))
    for cell in (0, 144, 288):
        assert logits[0, 5 * cell + 3].tolist() == [6, 7]
        assert deltas[0, 5 * cell + 3].tolist() == [12, 13, 14, 15]


@pytest.mark.parametrize("threshold", [0.75, 0.6])
def test_suppression_takes_only_more_than_the_threshold(threshold):
    # IoU exactly .75 (or .6) with the best stays, a hundredth more goes.
    boxes = torch.tensor([[ON_TARGET, high(threshold), high(threshold + 0.01)]])
    got, valid = survivors(
        boxes, torch.tensor([[3.0, 2, 1]]), ProposalConfig(keep=3, nms_iou=threshold)
    )
    assert valid.tolist() == [[True, True, False]]
    assert got[0, :2].tolist() == [0, 1]
    # The one that goes overlaps the second too; alone beside the best it goes as well.
    valid = survivors(
        boxes[:, [0, 2]], torch.tensor([[3.0, 1]]), ProposalConfig(keep=2, nms_iou=threshold)
    )[1]
    assert valid.tolist() == [[True, False]]


def test_what_is_suppressed_suppresses_nobody():
    # B overlaps A by 7/13 = .538 and goes; C overlaps B by as much but A by 4/16 only, and stays.
    boxes = torch.tensor([[[0.0, 0, 10, 1], [3, 0, 13, 1], [6, 0, 16, 1]]])
    got, valid = survivors(boxes, torch.tensor([[3.0, 2, 1]]), ProposalConfig(keep=3, nms_iou=0.5))
    assert got[0, :2].tolist() == [0, 2]
    assert valid.tolist() == [[True, True, False]]


def test_proposals_have_no_least_score_and_leave_the_crop():
    # All scores near 0; the best anchor, the first (8,45,118,81; 110x36), moves by -2 widths.
    logits = torch.zeros(1, 1445, 2)
    logits[..., 0] = 20
    logits[0, 0, 0] = 19
    deltas = torch.zeros(1, 1445, 4)
    deltas[0, 0, 0] = -2
    got = propose(logits, deltas, anchor_boxes("corner"), ProposalConfig(keep=1))
    assert got.boxes.tolist() == [[[8 - 220, 45, 118 - 220, 81]]]
    assert got.scores.item() == pytest.approx(math.exp(-19), rel=1e-3)


def test_the_box_of_the_other_object_comes_first_too():
    # Nothing asks for the sign of the pair: the fine stage sees the search box of negatives.
    logits, deltas = torch.zeros(1, 1445, 2), torch.zeros(1, 1445, 4)
    some = propose(logits, deltas, anchor_boxes("corner"), ProposalConfig())
    assert with_target(some, torch.tensor([[1.0, 2, 3, 4]])).boxes[0, 0].tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize(("grid", "pixel"), [("corner", 100.0), ("edge", 99.5)])
def test_regions_read_the_pixels_that_the_box_means(grid, pixel):
    # Cell k of a published feature stands for pixel index 8 k + 3 (its middle, 15.5, for 127). The
    # feature holds that index, so the bins of a 48 px box about 100 must average to the pixel index
    # of 100: which is 100 in `corner`, whose boxes count indices, and 99.5 in `edge`, where pixel
    # index i reaches from i to i + 1. Its bins are 8 px apart.
    model = build(ModelConfig(width=0.001, grid=grid))
    shows = (8 * torch.arange(32.0) + 3).expand(1, 1, 32, 32)
    box = torch.tensor([[[76.0, 76, 124, 124]]])
    got = roi_align(shows, box, stride_px=8, shift_px=model.roi_shift_px)[0, 0, 0]
    want = pixel + 8 * (torch.arange(6.0) - 2.5)
    assert torch.allclose(got, want.expand(6, 6), atol=1e-4)


def test_a_region_of_the_published_grid_by_hand():
    # Box 35..83 in x is cells 4..10 after -3 px: bins of 1 cell, samples at 1/3 and 2/3. The
    # feature is 0 but for 1 in column 5: bin 0 (4..5) has weights 1/3 and 2/3 there, mean 1/2;
    # bin 1 (5..6) has 2/3 and 1/3, mean 1/2; the others 0.
    feature = torch.zeros(1, 1, 32, 32)
    feature[..., 5] = 1
    got = roi_align(feature, torch.tensor([[[35.0, 35, 83, 83]]]), stride_px=8, shift_px=-3)
    want = torch.tensor([0.5, 0.5, 0, 0, 0, 0]).expand(6, 6)
    assert torch.allclose(got[0, 0, 0], want, atol=1e-6)
    # Box 51..147 is cells 6..18, bins of 2 cells, samples at 2/3 and 4/3 of a bin. 1 in column 7:
    # bin 0 (6..8) samples 6.667 and 7.333, weights 2/3 and 2/3, mean 2/3; bin 1 begins at 8.667.
    feature = torch.zeros(1, 1, 32, 32)
    feature[..., 7] = 1
    got = roi_align(feature, torch.tensor([[[51.0, 51, 147, 147]]]), stride_px=8, shift_px=-3)
    want = torch.tensor([2 / 3, 0, 0, 0, 0, 0]).expand(6, 6)
    assert torch.allclose(got[0, 0, 0], want, atol=1e-5)


def test_normalisers_count_at_least_one_for_every_image():
    # Images with 2 positives and 3 negatives, 0 and 5, 1 and 0: P = 2+1+1, N = 3+5+1. Logits 0:
    # 11 labels of log 2 over 13. Deltas off by 1 in each of four: 3 positives, 12 over 4.
    rows = torch.tensor([[1, 1, 0, 0, 0], [0] * 5, [1, -1, -1, -1, -1]])
    cls, reg = stage_terms(torch.zeros(3, 5, 2), torch.ones(3, 5, 4), rows, torch.zeros(3, 5, 4))
    terms = loss_terms({"cm_cls": cls, "cm_reg": reg}, "per_gpu")
    assert terms["cm_cls"].item() == pytest.approx(11 * math.log(2) / 13)
    assert terms["cm_reg"].item() == 3.0


def test_a_cell_of_alexnet_lies_at_eight_times_its_number():
    # Half of what a cell reads: 5 (conv1), 1 x 2 (pool, on stride 2), 2 x 4 (conv2), 1 x 4 (pool),
    # 3 x 1 x 8 (conv3 to conv5), 43 px together: cell k reads pixels 8k - 43 to 8k + 43.
    rows, columns = what_a_cell_reads(AlexNet(0.01), "conv5", 16, 15)
    assert (rows[0].item(), rows[-1].item()) == (128 - 43, 128 + 43)
    assert (columns[0].item(), columns[-1].item()) == (120 - 43, 120 + 43)


def test_a_cell_of_resnet_lies_three_pixels_further():
    # The stem has no padding where AlexNet has five: cell k reads about pixel 8k + 3, so the
    # middle of the map, 15.5, is pixel 127, the middle of the crop.
    rows, columns = what_a_cell_reads(ResNet18(0.01), "conv4", 16, 15)
    assert (rows[0] + rows[-1]).item() / 2 == 8 * 16 + 3
    assert (columns[0] + columns[-1]).item() / 2 == 8 * 15 + 3


def what_a_cell_reads(net, feature, row, column):
    """Rows and columns of the pixels that a cell depends on."""
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.fill_(1.0)
    image = torch.rand(1, 3, 255, 255, generator=torch.Generator().manual_seed(0))
    image.requires_grad_()
    net.eval()(image)[feature][0, 0, row, column].backward()
    return [image.grad[0].sum(0).sum(d).nonzero().flatten() for d in (1, 0)]


def test_the_middle_of_a_crop_shows_the_middle_of_the_region():
    # Region 0..100: pixel index 127 of 255 shows index 127 x 100/254 = 50 in `corner`; edge 127.5
    # shows 50 in `edge`.
    region = torch.tensor([0.0, 0, 100, 100]).numpy()
    corner, edge = (region_affine(region, 255, grid) for grid in ("corner", "edge"))
    assert corner[0] @ [127.5, 127.5, 1] == pytest.approx(50.5)  # the centre of pixel 50
    assert edge[0] @ [127.5, 127.5, 1] == pytest.approx(50.0)


def test_groups_of_the_published_model():
    # Epoch 0: 11 weights and 11 biases of fusion and heads; then the five layers of the backbone
    # join: 2,468,544 weights and 64 + 192 + 384 + 256 + 256 = 1,152 biases.
    with torch.device("meta"):
        model = build(ModelConfig())
    sizes = {
        phase: [
            (len(g["params"]), sum(p.numel() for p in g["params"]), g["weight_decay"])
            for g in parameter_groups(model, phase, TrainConfig().weight_decay)
        ]
        for phase in ("heads", "all")
    }
    assert sizes["heads"] == [(11, 21_530_612, 1e-4), (11, 8_996, 0)]
    assert sizes["all"] == [(16, 23_999_156, 1e-4), (16, 10_148, 0)]
