import math

import pytest
import torch
import tracker_oracle as oracle

from tracker.labels import encode
from tracker.losses import loss_terms, stage_terms


def test_a_worked_example():
    labels = torch.tensor([[1, 0, 0, -1], [0, 0, -1, -1]])
    target = torch.zeros(2, 4, 4)
    target[0, 0] = torch.tensor([1.0, -2, 0.5, 0])
    cls, reg = stage_terms(torch.zeros(2, 4, 2), torch.zeros(2, 4, 4), labels, target)
    assert cls.total.item() == pytest.approx(5 * math.log(2))
    assert reg.total.item() == 3.5
    assert (reg.divisor.item(), cls.divisor.item()) == (2, 2 + 4)  # 1 + max(0, 1), 2 + 2
    terms = loss_terms({"a": cls, "b": reg}, "global")
    assert list(terms) == ["a", "b"]
    assert terms["a"].item() == pytest.approx(5 * math.log(2) / 6)
    assert terms["b"].item() == 1.75


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("std", [1.0, 0.1])
def test_terms_and_gradients_are_those_of_the_loop(dtype, std):
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(3, 20, 2, generator=generator).to(dtype).requires_grad_()
    deltas = torch.randn(3, 20, 4, generator=generator).to(dtype).requires_grad_()
    labels = torch.randint(-1, 2, (3, 20), generator=generator)
    labels[2] = labels[2].clamp(max=0)
    corner = torch.rand(3, 20, 2, generator=generator) * 100
    candidates = torch.cat([corner, corner + 10 + corner.flip(-1)], dim=-1)
    boxes = torch.tensor([[10.0, 10, 60, 50], [40, 30, 200, 90], [0, 0, 9, 9]])
    cls, reg = stage_terms(logits, deltas, labels, encode(candidates, boxes[:, None], std))
    got = loss_terms({"cls": cls, "reg": reg}, "per_gpu")
    assert all(term.dtype == torch.float32 for term in got.values())
    want = oracle.stage_loss(
        list(logits), list(deltas), labels.tolist(), candidates.tolist(), boxes.tolist(), std
    )
    assert got["cls"].item() == pytest.approx(want[0].item(), rel=1e-5)
    assert got["reg"].item() == pytest.approx(want[1].item(), rel=1e-5)
    fast = torch.autograd.grad(sum(got.values()), (logits, deltas))
    slow = torch.autograd.grad(want[0] + want[1], (logits, deltas))
    tolerance = 1e-6 if dtype == torch.float32 else 1e-3
    for a, b in zip(fast, slow, strict=True):
        assert torch.allclose(a.double(), b.double(), atol=tolerance, rtol=1e-2)


def test_a_batch_without_positives_or_negatives_has_finite_losses_and_zero_gradient():
    logits = torch.randn(2, 5, 2, generator=torch.Generator().manual_seed(0)).requires_grad_()
    deltas = torch.ones(2, 5, 4, requires_grad=True)
    boxes = torch.tensor([[[3.0, 3, 3, 3]]])  # no area: its deltas are infinite
    target = encode(torch.tensor([0.0, 0, 8, 8]).expand(2, 5, 4), boxes)
    assert target.isinf().any()
    for labels in (torch.zeros(2, 5, dtype=torch.int64), torch.full((2, 5), -1)):
        cls, reg = stage_terms(logits, deltas, labels, target)
        terms = loss_terms({"cls": cls, "reg": reg}, "global")
        assert all(math.isfinite(term.item()) for term in terms.values())
        assert terms["reg"].item() == 0
        wrong = torch.autograd.grad(sum(terms.values()), (logits, deltas))
        assert wrong[0].isfinite().all()
        assert (wrong[1] == 0).all()
