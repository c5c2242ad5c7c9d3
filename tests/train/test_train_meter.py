import dataclasses
import math

import pytest
import torch

from shards.errors import SiamstreamError
from tracker.training.config import TrainConfig
from tracker.training.meter import TIMES, Meter
from tracker.training.step import Marks, StepReport
from tracker.training.world import World

NAMES = ("loss", "cm_cls", "grad_norm")


def report(value: float, *, left_out: bool = False, norm: float = 1.0) -> StepReport:
    marks = Marks(torch.device("cpu"))
    for _ in range(4):
        marks.mark()
    values = torch.tensor([value, value / 2, norm])
    return StepReport(names=NAMES, values=values, left_out=torch.tensor(left_out), marks=marks)


def fed(meter, values, start=0, epoch=0):
    """Windows that end while steps are added."""
    windows = []
    for step, value in enumerate(values, start):
        meter.add(report(value), step, epoch, 0.0)
        windows += meter.settle(World())[0]
    return windows


def test_a_window_is_the_mean_of_its_steps():
    meter = Meter(3, 4)
    windows = fed(meter, [1.0, 2.0, 6.0, 5.0])
    assert [(one.step, one.epoch) for one in windows] == [(2, 0)]
    means = windows[0].means
    assert (means["loss"], means["cm_cls"], means["grad_norm"]) == (3.0, 1.5, 1.0)
    assert list(means) == [*NAMES, *TIMES]
    assert all(means[name] >= 0 for name in TIMES)
    assert meter.window(World()).means["loss"] == 5.0


@pytest.mark.parametrize("lag", [0, 1, 2])
def test_steps_are_looked_at_when_they_are_old(lag):
    meter = Meter(1, 4, lag)
    windows = fed(meter, [float(value) for value in range(6)])
    assert [one.means["loss"] for one in windows] == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0][: 6 - lag]
    if lag:
        with pytest.raises(RuntimeError, match=f"{lag} steps are not settled"):
            meter.state_dict()
    rest, _ = meter.settle(World(), everything=True)
    assert len(windows) + len(rest) == 6
    assert rest == [] or rest[-1].means["loss"] == 5.0
    meter.state_dict()


def test_a_record_has_the_rate_and_the_samples_of_its_last_step():
    config = TrainConfig(lr=1.0, warmup_steps=0, batch_size=4, lr_steps=(1,), lr_decay=0.5)
    (window,) = fed(Meter(2, 4), [1.0, 3.0], start=10, epoch=1)
    record = window.record(config, 5)
    assert (record["step"], record["samples"], record["lr"]) == (12, 48, 0.5)
    assert list(record) == ["step", "epoch", "samples", *NAMES, "lr", *TIMES]


def test_the_share_of_waiting_is_one_at_most():
    meter = Meter(1, 1)
    meter.add(report(1.0), 0, 0, 1e9)
    assert meter.settle(World())[0][0].means["data_wait_share"] == 1.0


def test_a_window_goes_on_from_its_state():
    values = [0.1, 0.2, 0.7, 1 / 3]
    whole, first, second = (Meter(4, 1) for _ in range(3))
    want = fed(whole, values)[0].means["loss"]
    fed(first, values[:2])
    second.load_state_dict([first.state_dict()], 0, 1)
    assert fed(second, values[2:], start=2)[0].means["loss"] == want
    assert second.epoch_loss(World()) == whole.epoch_loss(World()) == want
    fresh = Meter(1, 1)
    fresh.load_state_dict([Meter(1, 1).state_dict()], 0, 1)
    assert fed(fresh, [1.0])[0].means["loss"] == 1.0


def test_another_number_of_ranks_keeps_the_mean_over_ranks():
    states = []
    for value in (1.0, 2.0, 6.0):
        meter = Meter(4, 1)
        fed(meter, [value, value])
        states.append(meter.state_dict())
    loaded = [Meter(4, 1) for _ in range(2)]
    for rank, meter in enumerate(loaded):
        meter.load_state_dict(states, rank, 2)
        assert meter.window(World()).means["loss"] == pytest.approx(3.0)
        assert meter.epoch_loss(World()) == pytest.approx(3.0)


def test_the_loss_of_an_epoch_is_that_of_its_steps():
    meter = Meter(3, 1)
    assert meter.epoch_loss(World()) is None
    fed(meter, [1.0, 2.0, 3.0, 4.0])
    assert meter.epoch_loss(World()) == 2.5
    fed(meter, [7.0, 9.0], start=4, epoch=1)
    assert meter.epoch_loss(World()) == 8.0


def test_steps_that_were_left_out_do_not_count():
    meter = Meter(3, 1)
    found = []
    for step, (value, bad) in enumerate([(1.0, False), (math.nan, True), (3.0, False)]):
        meter.add(report(value, left_out=bad, norm=math.nan if bad else 1.0), step, 0, 0.0)
        windows, left_out = meter.settle(World())
        found += left_out
    assert windows[0].means["loss"] == 2.0
    assert windows[0].means["left_out"] == 1
    assert [one.step for one in found] == [1]
    assert math.isnan(found[0].found["loss"])
    meter.add(report(math.nan, left_out=True), 3, 0, 0.0)
    meter.settle(World())
    means = meter.window(World()).means
    assert means["loss"] is None
    assert means["left_out"] == 1


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_mean_that_is_not_finite_stops_the_run(bad):
    meter = Meter(10, 1)
    with pytest.raises(SiamstreamError, match="the loss is not finite in steps 8 to 10: loss"):
        fed(meter, [1.0, bad, 1.0], start=7)


def test_a_norm_that_fp16_is_too_small_for_is_no_error():
    meter = Meter(1, 1)
    meter.add(report(1.0, norm=math.inf), 0, 0, 0.0)
    means = meter.settle(World())[0][0].means
    assert (means["loss"], means["grad_norm"]) == (1.0, None)


def test_a_report_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        report(1.0).names = ()
