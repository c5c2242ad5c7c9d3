import pytest
import torch
from torch import nn

from tracker.training.config import TrainConfig
from tracker.training.schedule import learning_rate, make_optimizer, parameter_groups, phase

PUBLISHED = TrainConfig()


@pytest.mark.parametrize(
    ("step", "epoch", "rate"),
    [
        (0, 0, 0.01 / 30),
        (1, 0, 0.00043),  # .01 * (1 - .99 * 29/30)
        (50, 0, 0.005166666666666667),  # .01 * (1 - .5 * 29/30)
        (99, 0, 0.009903333333333333),
        (100, 0, 0.01),
        (101, 0, 0.01),
        (10_000 * 24, 24, 0.01),
        (10_000 * 25, 25, 0.001),
        (10_000 * 44, 44, 0.001),
        (10_000 * 45, 45, 0.0001),
        (10_000 * 49, 49, 0.0001),
    ],
)
def test_the_published_rates(step, epoch, rate):
    assert learning_rate(PUBLISHED, step, epoch, 10_000) == pytest.approx(rate, rel=1e-12)


def test_the_warm_up_does_not_wait_for_the_end_of_an_epoch():
    config = TrainConfig(lr=1.0, warmup_steps=10, warmup_divisor=2, lr_steps=(1,), lr_decay=0.5)
    assert learning_rate(config, 5, 1, 5) == pytest.approx(0.5 * 0.75)
    assert learning_rate(TrainConfig(warmup_steps=0), 0, 0, 5) == 0.01


def test_cosine_falls_from_the_rate_to_its_end():
    config = TrainConfig(
        lr=1.0, lr_end=0.2, lr_schedule="cosine", epochs=10, warmup_steps=0, lr_steps=(2,)
    )
    rates = [learning_rate(config, step, step // 8, 8) for step in range(80)]
    assert rates[0] == 1.0
    assert rates[20] == pytest.approx(0.2 + 0.8 * (1 + 2**-0.5) / 2)
    assert rates[40] == pytest.approx(0.6)
    assert rates == sorted(rates, reverse=True)
    assert learning_rate(config, 80, 10, 8) == learning_rate(config, 99, 12, 8) == 0.2
    warm = TrainConfig(lr_schedule="cosine", lr=1.0, warmup_steps=8, warmup_divisor=2, epochs=2)
    assert learning_rate(warm, 4, 0, 8) == pytest.approx(0.75 * (1 + 2**-0.5) / 2)


def test_steps_of_the_rate_must_grow():
    with pytest.raises(ValueError, match="lr_steps must grow"):
        TrainConfig(lr_steps=(45, 25))


def test_the_backbone_waits_for_epoch_1():
    assert [phase(PUBLISHED, epoch) for epoch in range(3)] == ["heads", "all", "all"]
    assert phase(TrainConfig(heads_only_epochs=0), 0) == "all"


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.z_net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
        self.z_net_like = nn.Linear(2, 2)
        self.head = nn.Linear(4, 2)
        self.score_bias = nn.Parameter(torch.zeros(()))


def named_groups(model, phase):
    names = {id(p): name for name, p in model.named_parameters()}
    return {
        group["weight_decay"]: [names[id(p)] for p in group["params"]]
        for group in parameter_groups(model, phase, 1e-4)
    }


def test_weights_decay_and_biases_do_not():
    heads = {
        1e-4: ["z_net_like.weight", "head.weight"],
        0.0: ["score_bias", "z_net_like.bias", "head.bias"],
    }
    assert named_groups(Net(), "heads") == heads
    everything = named_groups(Net(), "all")
    assert everything[1e-4] == ["z_net.0.weight", *heads[1e-4]]
    norm = ["z_net.1.weight", "z_net.1.bias"]  # of a batch normalisation: the scale counts as bias
    assert everything[0.0] == ["score_bias", "z_net.0.bias", *norm, *heads[0.0][1:]]


def test_names_of_a_wrapped_model_mean_the_same():
    wrapped = nn.Module()
    wrapped.module = Net()
    groups = named_groups(wrapped, "heads")
    assert groups[1e-4] == ["module.z_net_like.weight", "module.head.weight"]


def test_the_optimiser_is_plain_sgd():
    optimizer = make_optimizer(Net(), TrainConfig(momentum=0.9, weight_decay=0.5), "all")
    assert type(optimizer) is torch.optim.SGD
    assert [group["momentum"] for group in optimizer.param_groups] == [0.9, 0.9]
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.5, 0.0]
    assert not any(group["nesterov"] or group["dampening"] for group in optimizer.param_groups)


def test_adamw_decays_weights_apart_from_the_gradient():
    model = nn.Linear(1, 1)
    nn.init.constant_(model.weight, 2.0)
    nn.init.constant_(model.bias, 1.0)
    config = TrainConfig(optimizer="adamw", lr=0.1, weight_decay=0.5)
    optimizer = make_optimizer(model, config, "all")
    (3 * model.weight.sum() + 5 * model.bias.sum()).backward()
    optimizer.step()
    # the first step moves by lr whatever the gradient's size; the weight also shrinks by lr * decay
    assert model.weight.item() == pytest.approx(2.0 * (1 - 0.1 * 0.5) - 0.1, abs=1e-6)
    assert model.bias.item() == pytest.approx(1.0 - 0.1, abs=1e-6)


def test_adamw_takes_no_momentum():
    with pytest.raises(ValueError, match="momentum"):
        TrainConfig(optimizer="adamw", momentum=0.9)
