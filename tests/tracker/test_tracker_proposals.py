import pytest
import torch
import tracker_oracle as oracle
from torchvision.ops import nms

from tracker.anchors import anchor_boxes
from tracker.labels import decode
from tracker.proposals import ProposalConfig, propose, survivors, with_target


def drawn(seed: int, samples: int, spread: float):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(samples, 1445, 2, generator=generator) * 4
    deltas = torch.randn(samples, 1445, 4, generator=generator) * spread
    return logits, deltas


@pytest.mark.parametrize("nms_iou", [0.75, 0.6, 0.2])
@pytest.mark.parametrize("spread", [0.02, 0.3])
def test_the_batched_form_keeps_what_the_sorted_form_keeps(nms_iou, spread):
    anchors = anchor_boxes("edge")
    logits, deltas = drawn(3, 3, spread)
    got = propose(logits, deltas, anchors, ProposalConfig(keep=12, nms_iou=nms_iou))
    boxes = decode(anchors, deltas)
    assert got.valid.all()
    for b in range(3):
        scores = logits[b].softmax(-1)[:, 1]
        margin = logits[b, :, 1] - logits[b, :, 0]
        library = nms(boxes[b], margin, nms_iou)[:12]
        assert torch.equal(got.boxes[b], boxes[b, library])
        assert torch.allclose(got.scores[b], scores[library], atol=1e-6)
        few = slice(0, 300)
        index, valid = survivors(
            boxes[None, b, few], margin[None, few], ProposalConfig(keep=12, nms_iou=nms_iou)
        )
        want = oracle.suppress(boxes[b, few].tolist(), margin[few].tolist(), nms_iou, 12)
        assert index[0, valid[0]].tolist() == want


def test_fewer_survivors_than_places_are_masked():
    boxes = torch.tensor([[0.0, 0, 10, 10], [1, 0, 11, 10], [100, 100, 110, 110]])
    boxes = torch.stack([boxes, boxes + torch.tensor([[0.0], [200.0], [0.0]])])
    scores = torch.tensor([[0.1, 0.2, -5.0], [3.0, 2.0, 1.0]])
    index, valid = survivors(boxes, scores, ProposalConfig(keep=5, nms_iou=0.5))
    assert valid.tolist() == [[True, True, False, False, False], [True, True, True, False, False]]
    assert index[0, :2].tolist() == [1, 2]
    assert index[1, :3].tolist() == [0, 1, 2]
    assert ((index >= 0) & (index < 3)).all()


def test_a_box_that_overlaps_by_exactly_the_threshold_stays():
    boxes = torch.tensor([[[0.0, 0, 2, 1], [0, 0, 1, 1]]])  # IoU 1/2
    scores = torch.tensor([[1.0, 0.0]])
    assert survivors(boxes, scores, ProposalConfig(keep=2, nms_iou=0.5))[1].tolist() == [
        [True, True]
    ]


def test_boxes_without_area_suppress_only_themselves():
    boxes = torch.zeros(1, 3, 4)
    index, valid = survivors(
        boxes, torch.tensor([[1.0, 3, 2]]), ProposalConfig(keep=3, nms_iou=0.5)
    )
    assert index.tolist() == [[1, 2, 0]]
    assert valid.all()


def test_the_target_comes_first_and_no_gradient_flows():
    logits, deltas = drawn(0, 2, 0.1)
    logits.requires_grad_()
    deltas.requires_grad_()
    target = torch.tensor([[10.0, 20, 60, 90], [5, 5, 50, 50]])
    some = propose(logits, deltas, anchor_boxes("edge"), ProposalConfig())
    got = with_target(some, target)
    assert got.boxes.shape == (2, 13, 4)
    assert torch.equal(got.boxes[:, 0], target)
    assert torch.equal(got.boxes[:, 1:], some.boxes)
    assert got.valid[:, 0].all()
    assert not got.boxes.requires_grad
