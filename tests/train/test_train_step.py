import copy

import pytest
import torch
from train_fakes import TinyModel

from configs.strict import ConfigError
from tracker.training.config import TrainConfig
from tracker.training.schedule import learning_rate
from tracker.training.step import PHASES, Stepper

CPU = torch.device("cpu")


def inputs(seed: int) -> dict:
    generator = torch.Generator().manual_seed(seed)
    box = torch.rand(6, 4, generator=generator) * 8
    return {
        "template": torch.randn(6, 3, 8, 8, generator=generator),
        "search": torch.randn(6, 3, 8, 8, generator=generator),
        "template_box": box,
        "search_box": box,
        "positive": torch.tensor([True, False] * 3),
        "sample": torch.arange(6),
        "epoch": 0,
    }


def on(device: torch.device, data: dict) -> dict:
    return {k: v.to(device) if torch.is_tensor(v) else v for k, v in data.items()}


def oracle(model, config, epochs):
    """The published update written out: norm over all gradients, then p -= lr * (g + wd * p)."""
    losses = []
    speed = {}
    previous = None
    for step, epoch in enumerate(epochs):
        heads = epoch < config.heads_only_epochs
        if heads != previous:
            speed, previous = {}, heads
        model.zero_grad()
        terms = model(**inputs(step))
        loss = sum(terms.values())
        loss.backward()
        norm = sum(p.grad.double().square().sum() for p in model.parameters()).sqrt()
        factor = min(1.0, config.clip_norm / (float(norm) + 1e-6))
        with torch.no_grad():
            for name, p in model.named_parameters():
                if heads and name.startswith("z_net."):
                    continue
                decay = 0.0 if name.endswith("bias") else config.weight_decay
                change = p.grad * factor + decay * p
                speed[name] = change + config.momentum * speed.get(name, 0.0)
                p -= learning_rate(config, step, epoch, 100) * speed[name]
        losses.append(float(loss.detach()))
    return losses


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("clip_norm", [0.3, 1e6])
def test_steps_are_the_published_update(momentum, clip_norm):
    config = TrainConfig(
        lr=0.5, warmup_steps=3, weight_decay=0.1, momentum=momentum, clip_norm=clip_norm
    )
    epochs = [0, 0, 0, 1, 1, 1]
    model = TinyModel(1)
    twin = copy.deepcopy(model)
    torch.manual_seed(0)
    want = oracle(twin, config, epochs)
    torch.manual_seed(0)
    stepper = Stepper(model, config, CPU, 100)
    got = [float(stepper(inputs(i), i, e).values[0]) for i, e in enumerate(epochs)]
    assert got == pytest.approx(want, rel=1e-5)
    for a, b in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_the_backbone_rests_in_epoch_0_but_counts_for_the_norm():
    model = TinyModel(1)
    before = copy.deepcopy(model.state_dict())
    stepper = Stepper(model, TrainConfig(lr=1.0, warmup_steps=0, clip_norm=0.01), CPU, 100)
    stepper(inputs(0), 0, 0)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]) == name.startswith("z_net."), name
    norm = torch.stack([p.grad.square().sum() for p in model.parameters()]).sum().sqrt()
    assert float(norm) == pytest.approx(0.01, rel=1e-3)
    assert any(p.grad.abs().sum() > 0 for p in model.z_net.parameters())


def test_losses_are_named_detached_and_add_up():
    model = TinyModel(1)
    report = Stepper(model, TrainConfig(clip_norm=None), CPU, 100)(inputs(0), 0, 0)
    assert report.names == ("loss", "cm_cls", "cm_reg", "fm_cls", "fm_reg", "grad_norm")
    assert report.values.dtype == torch.float32
    assert not report.values.requires_grad
    loss, *terms, norm = report.values.tolist()
    assert loss == pytest.approx(sum(terms))
    want = torch.stack([p.grad.square().sum() for p in model.parameters()]).sum().sqrt()
    assert norm == pytest.approx(float(want))
    assert not report.left_out
    assert all(seconds > 0 for seconds in report.marks.seconds())
    assert len(report.marks.seconds()) == len(PHASES)


def test_no_limit_of_the_norm_if_null():
    model = TinyModel(1)
    Stepper(model, TrainConfig(clip_norm=None), CPU, 100)(inputs(0), 0, 0)
    free = [p.grad.clone() for p in model.parameters()]
    other = TinyModel(1)
    torch.manual_seed(0)
    Stepper(other, TrainConfig(clip_norm=1e-3), CPU, 100)(inputs(0), 0, 0)
    assert sum(float(g.square().sum()) for g in free) > 1e-2
    assert sum(float(p.grad.square().sum()) for p in other.parameters()) < 1e-5


def test_bf16_runs_the_model_in_half_precision():
    model = TinyModel(1)
    seen = []
    model.cm_head.register_forward_hook(lambda module, given, out: seen.append(out.dtype))
    Stepper(model, TrainConfig(amp="bf16"), CPU, 100)(inputs(0), 0, 0)
    Stepper(model, TrainConfig(), CPU, 100)(inputs(0), 0, 0)
    assert seen == [torch.bfloat16, torch.float32]
    assert all(p.grad.dtype == torch.float32 for p in model.parameters())


def test_fp16_without_cuda_is_refused():
    with pytest.raises(ConfigError, match=r"train\.amp 'fp16' needs a CUDA device"):
        Stepper(TinyModel(1), TrainConfig(amp="fp16"), CPU, 100)


@pytest.mark.gpu
def test_fp16_scales_all_gradients_back():
    device = torch.device("cuda")
    data = on(device, inputs(0))
    norms = []
    for amp in ("off", "fp16"):
        model = TinyModel(1).to(device)
        torch.manual_seed(0)
        Stepper(model, TrainConfig(amp=amp, clip_norm=None), device, 100)(data, 0, 0)
        norms.append([float(p.grad.norm()) for p in model.parameters()])
    assert norms[1] == pytest.approx(norms[0], rel=2e-2, abs=1e-3)


def test_state_survives_a_change_of_phase():
    config = TrainConfig(momentum=0.9, warmup_steps=0)
    model = TinyModel(1)
    stepper = Stepper(model, config, CPU, 100)
    torch.manual_seed(0)
    stepper(inputs(0), 0, 0)
    stepper(inputs(1), 1, 1)
    weights, state = copy.deepcopy(model.state_dict()), copy.deepcopy(stepper.state_dict())
    torch.manual_seed(1)
    want = stepper(inputs(2), 2, 1).values, copy.deepcopy(model.state_dict())
    twin = TinyModel(2)
    twin.load_state_dict(weights)
    again = Stepper(twin, config, CPU, 100)
    again.load_state_dict(state)
    torch.manual_seed(1)
    assert torch.equal(again(inputs(2), 2, 1).values, want[0])
    assert all(torch.equal(twin.state_dict()[name], value) for name, value in want[1].items())


@pytest.mark.parametrize(
    "settings",
    [
        {"momentum": 0.0},
        {"momentum": 0.9},
        {"optimizer": "adamw"},
        {"momentum": 0.9, "clip_norm": None, "amp": "bf16"},
    ],
)
@pytest.mark.parametrize("at", [0, 2])
@pytest.mark.parametrize("device", [CPU, pytest.param("cuda", marks=pytest.mark.gpu)])
def test_a_step_that_is_not_finite_is_as_if_it_had_not_been(settings, at, device):
    """Also the first of an optimiser, whose state is not yet there."""
    config = TrainConfig(warmup_steps=0, heads_only_epochs=0, lr=0.1, **settings)
    device = torch.device(device)
    poisoned = on(device, inputs(9))
    poisoned["search_box"][2, 1] = float("nan")
    found = []
    for steps in ([0, 1, 2, 3], [0, 1, 2, 3, 4]):
        model = TinyModel(1).to(device)
        stepper = Stepper(model, config, device, 100)
        plain = iter(range(9))
        for step in steps:
            torch.manual_seed(0)
            if len(steps) == 5 and step == at:
                before = copy.deepcopy(model.state_dict())
                report = stepper(poisoned, 0, 0)
                assert report.left_out
                assert all(
                    torch.equal(before[name], now) for name, now in model.state_dict().items()
                )
            else:
                assert not stepper(on(device, inputs(next(plain))), 0, 0).left_out
        found.append((model.state_dict(), stepper.state_dict()["optimizer"]["state"]))
    (plain_model, plain_state), (model, state) = found
    assert all(torch.equal(plain_model[name], value) for name, value in model.items())
    assert plain_state.keys() == state.keys()
    for key, values in plain_state.items():
        assert all(torch.equal(values[name], state[key][name]) for name in values)


def test_running_statistics_of_a_step_that_is_left_out_stay():
    model = TinyModel(1)
    model.z_net.append(torch.nn.BatchNorm2d(4))
    stepper = Stepper(model, TrainConfig(), CPU, 100)
    stepper(inputs(0), 0, 0)
    before = copy.deepcopy(model.state_dict())
    poisoned = inputs(1)
    poisoned["search"][0, 0, 0, 0] = float("inf")
    assert stepper(poisoned, 1, 0).left_out
    assert all(torch.equal(before[name], now) for name, now in model.state_dict().items())
    stepper(inputs(2), 2, 0)
    name = "z_net.2.running_mean"
    assert not torch.equal(before[name], model.state_dict()[name])


@pytest.mark.parametrize("settings", [{"momentum": 0.9}, {"optimizer": "adamw"}])
def test_another_memory_layout_goes_on_with_the_same_numbers(settings):
    config = TrainConfig(warmup_steps=0, heads_only_epochs=0, lr=0.1, **settings)
    found = []
    for then, now in ((False, False), (False, True), (True, False)):
        model, other = TinyModel(1), TinyModel(2)
        for one, last in ((model, then), (other, now)):
            if last:
                one.to(memory_format=torch.channels_last)
        first = Stepper(model, config, CPU, 100)
        torch.manual_seed(0)
        first(inputs(0), 0, 0)
        second = Stepper(other, config, CPU, 100)
        other.load_state_dict(model.state_dict())
        second.load_state_dict(first.state_dict())
        torch.manual_seed(1)
        second(inputs(1), 1, 0)
        found.append(other.state_dict())
    for state in found[1:]:
        for name, value in state.items():
            torch.testing.assert_close(value, found[0][name], rtol=1e-5, atol=1e-6)


@pytest.mark.gpu
def test_fp16_leaves_out_what_is_not_only_too_large_for_its_scale():
    device = torch.device("cuda")
    model = TinyModel(1).to(device)
    model.cm_head.weight.register_hook(lambda gradient: gradient * float("inf"))
    stepper = Stepper(model, TrainConfig(amp="fp16"), device, 100)
    data = on(device, inputs(0))
    reports = [stepper(data, 0, 0) for _ in range(20)]  # the scale begins at 65,536
    assert not reports[0].left_out
    assert reports[-1].left_out
