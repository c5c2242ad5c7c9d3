import pytest
import torch
import tracker_oracle as oracle
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import roi_align as library_roi_align

from tracker.roi import axis_weights, roi_align

BOXES = torch.tensor(
    [
        [[40.3, 50.1, 120.7, 97.9], [-60.0, -20, 30, 300]],
        [[100.0, 100, 100, 100], [-500, -500, -400, -400]],
        [[250.0, 3, 262, 20], [8, 8, 56, 56]],
    ]
)


def features(seed: int, *shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def test_weights_of_a_worked_example():
    weight = axis_weights(torch.tensor(0.0), torch.tensor(6.0), 8)
    want = torch.zeros(6, 8)
    for bin_ in range(6):  # samples at bin + 1/3 and bin + 2/3
        want[bin_, bin_] = want[bin_, bin_ + 1] = 0.5
    assert torch.allclose(weight, want, atol=1e-6)


def test_samples_beyond_the_border_are_zero_or_the_outer_cell():
    weight = axis_weights(torch.tensor(-3.0), torch.tensor(6.0), 8)
    assert (weight[:2] == 0).all()  # samples before -1
    assert weight[2].tolist() == pytest.approx([1] + [0] * 7)  # between -1 and 0
    weight = axis_weights(torch.tensor(5.0), torch.tensor(6.0), 8)
    assert weight[2].tolist() == pytest.approx([0] * 7 + [1])  # 7.33 and 7.67 take cell 7
    assert (weight[3:] == 0).all()  # beyond 8


def test_a_ramp_gives_the_middles_of_the_bins():
    ramp = torch.arange(32.0).expand(1, 1, 32, 32)
    got = roi_align(ramp, torch.tensor([[[43.0, 43, 91, 139]]]), stride_px=8, shift_px=-3)
    assert torch.allclose(got[0, 0, 0], (5 + 0.5 + torch.arange(6.0)).expand(6, 6))
    got = roi_align(ramp.mT, torch.tensor([[[43.0, 43, 91, 139]]]), stride_px=8, shift_px=-3)
    assert torch.allclose(got[0, 0, 0], (5 + 1 + 2 * torch.arange(6.0))[:, None].expand(6, 6))


def test_values_and_gradients_are_those_of_the_pixel_loop():
    feature = features(1, 3, 2, 32, 32)
    fast = feature.clone().requires_grad_()
    slow = feature.double().requires_grad_()
    got = roi_align(fast, BOXES, stride_px=8, shift_px=-3)
    want = torch.stack(
        [
            torch.stack([oracle.roi_align(slow[b], box, 8, -3) for box in BOXES[b].tolist()])
            for b in range(3)
        ]
    )
    assert got.shape == (3, 2, 2, 6, 6)
    assert torch.allclose(got.double(), want, atol=1e-5)
    upstream = features(2, *got.shape)
    (got * upstream).sum().backward()
    (want * upstream).sum().backward()
    assert torch.allclose(fast.grad.double(), slow.grad, atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(-100, 400, width=32), min_size=4, max_size=4), st.integers(0, 99))
def test_any_box_is_that_of_the_pixel_loop(box, seed):
    x0, y0, x1, y1 = box
    box = [min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)]
    feature = features(seed, 1, 1, 20, 32)
    got = roi_align(feature, torch.tensor([[box]]), stride_px=8, shift_px=-3.5)
    # Samples within rounding of the cut at -1 and at the far side may fall either way.
    for length, low, high in ((32, box[0], box[2]), (20, box[1], box[3])):
        for third in range(18):
            point = ((low - 3.5) + (high - low) * (third / 18)) / 8
            if min(abs(point + 1), abs(point - length)) < 1e-4:
                return
    want = oracle.roi_align(feature[0].double(), box, 8, -3.5)
    assert torch.allclose(got[0, 0].double(), want, atol=2e-4)


def test_it_is_not_the_library_form():
    feature = features(5, 1, 8, 32, 32)
    boxes = torch.tensor([[[40.3, 50.1, 120.7, 97.9]]])
    got = roi_align(feature, boxes, stride_px=8, shift_px=0)[0]
    for aligned in (False, True):
        library = library_roi_align(feature, [boxes[0]], 6, 1 / 8, 2, aligned)
        assert (library - got).abs().mean() > 0.02 * got.abs().mean()


def test_autocast_does_not_move_the_samples():
    feature = features(6, 3, 4, 32, 32).bfloat16()
    want = roi_align(feature.float(), BOXES, stride_px=8, shift_px=-3)
    with torch.autocast("cpu", torch.bfloat16):
        got = roi_align(feature, BOXES, stride_px=8, shift_px=-3)
    assert got.dtype == torch.float32
    assert torch.equal(got, want)
