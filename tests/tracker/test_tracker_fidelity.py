"""The model computes what the published one does: against `published_oracle`, step by step."""

import numpy as np
import published_oracle as published
import pytest
import torch

from tracker.labels import priorities
from tracker.models import ModelConfig, build
from tracker.proposals import ProposalConfig

MIDDLE = {"corner": 127.0, "edge": 127.5}


def weigh(model, seed):
    """Draw weights that keep every map near 1, with some deltas beyond the clamp and no ties."""
    generator = torch.Generator().manual_seed(seed)
    gains = {"reg_convs": 0.8, "cls_convs": 2.0, "reg_fc": 3.0}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            drawn = torch.randn(parameter.shape, generator=generator)
            gain = next((g for part, g in gains.items() if part in name), 2**0.5)
            fan_in = parameter[0].numel() if parameter.ndim > 1 else 100
            parameter.copy_(drawn * gain / fan_in**0.5)
        z, x = (model.features(crops(seed, 1)) for seed in (8, 9))
        maps = model.cm_fusion(model.kernels(z), x["conv5"])
        for conv, raw in zip(model.cm_fusion.z_conv, maps, strict=True):
            for parameter in conv.parameters():
                parameter /= raw.std()
    return {k: v.double().numpy() for k, v in model.state_dict().items()}


def crops(seed, count):
    """Coloured noise, coarse and fine, so that no two cells look alike."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(count, 3, 12, 12, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=255, mode="bicubic")
    return smooth + 0.3 * torch.randn(count, 3, 255, 255, generator=generator)


def close(got, want):
    want = torch.as_tensor(np.asarray(want))
    error = (got.double() - want).abs().max().item()
    assert error <= 1e-4 * want.abs().max().item()


def check_inference(config, count):
    model = build(config).eval()
    state, middle = weigh(model, 4), MIDDLE[config.grid]
    template, search = crops(1, count), crops(2, count)
    boxes = torch.tensor([[96.5, 90, 160, 165], [60, 101.25, 190, 150]])[:count]
    with torch.no_grad():
        z, x = model.features(template), model.features(search)
        maps = model.coarse(model.kernels(z), x)
        found = model.propose(maps, config.track.match.proposals)
        logits, deltas = model.fine(model.template_part(z, boxes), x, found.boxes)
        refined = model.refine(found.boxes, deltas)
    for b in range(count):
        want_z = published.alexnet(state, template[b].double().numpy())
        want_x = published.alexnet(state, search[b].double().numpy())
        assert list(z) == list(want_z) == ["conv1", "conv2", "conv3", "conv4", "conv5"]
        for name in z:
            close(z[name][b], want_z[name])
        want = published.coarse(state, want_z["conv5"], want_x["conv5"])
        close(maps.logits[b], want[0])
        close(maps.deltas[b], want[1])
        assert (np.abs(want[1][:, 2:]) > published.LOG_8).any()  # the clamp is met
        places, scores = published.proposals(*want, 8, 0.60, middle)
        assert found.valid[b].all()
        close(found.boxes[b], places)
        close(found.scores[b], scores)
        joined = [[f[name] for name in ("conv2", "conv4")] for f in (want_z, want_x)]
        judged = published.fine(state, *joined, boxes[b].tolist(), places, middle)
        close(logits[b], judged[0])
        close(deltas[b], judged[1])
        close(
            refined[b],
            [published.move(p, d, 0.1) for p, d in zip(places, judged[1], strict=True)],
        )
        close(logits[b].softmax(-1)[:, 1], published.target_score(judged[0]))


@pytest.mark.parametrize("grid", ["corner", "edge"])
def test_a_narrow_model_sees_what_the_published_formulas_see(grid):
    check_inference(ModelConfig(init="random", width=0.1, grid=grid), 2)


def test_the_published_model_sees_what_the_published_formulas_see():
    check_inference(ModelConfig(init="random", grid="corner"), 2)


def check_losses(config):
    model = build(config)
    state = weigh(model, 5)
    data = {
        "template": crops(3, 3),
        "search": crops(4, 3),
        "template_box": torch.tensor(
            [[96.5, 90, 160, 165], [60, 101, 190, 150], [90, 90, 165, 165]]
        ),
        # a common box; one that no anchor fits (1:14); the other object of a negative pair
        "search_box": torch.tensor([[97.0, 96, 161, 158], [119, 15, 135, 239], [60, 80, 150, 130]]),
        "positive": torch.tensor([True, True, False]),
        "sample": torch.tensor([11, 900, 5]),
    }
    with torch.no_grad():
        got = model(**data, epoch=2)
    order = priorities(config.seed, 2, data["sample"], 1445).argsort(dim=1).numpy()
    pairs = [
        {
            **{k: data[k][b].double().numpy() for k in ("template", "search")},
            **{k: data[k][b].double().numpy() for k in ("template_box", "search_box")},
            "positive": bool(data["positive"][b]),
            "order": order[b],
        }
        for b in range(3)
    ]
    want = published.losses(state, pairs, MIDDLE[config.grid])
    assert list(got) == list(want)
    for name, term in got.items():
        assert term.item() == pytest.approx(want[name], rel=1e-4), name
        assert want[name] > 0.01


@pytest.mark.parametrize("grid", ["corner", "edge"])
def test_a_narrow_model_learns_from_the_published_losses(grid):
    check_losses(ModelConfig(init="random", width=0.1, grid=grid, seed=3))


@pytest.mark.slow
def test_the_published_model_learns_from_the_published_losses():
    check_losses(ModelConfig(init="random", grid="corner", seed=3))


def test_proposals_of_training_and_of_tracking_are_the_published_numbers():
    config = ModelConfig()
    assert config.proposals == ProposalConfig(keep=12, nms_iou=0.75)
    assert config.track.match.proposals == ProposalConfig(keep=8, nms_iou=0.60)
