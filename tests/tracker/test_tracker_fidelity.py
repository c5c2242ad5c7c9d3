"""The models compute what the published ones do: against `published_oracle`, step by step."""

import numpy as np
import published_models_oracle as others
import published_oracle as published
import pytest
import torch

from tracker.labels import priorities
from tracker.models import ModelConfig, build
from tracker.proposals import ProposalConfig

MIDDLE = {"corner": 127.0, "edge": 127.5}
FULL = pytest.param(1.0, "corner", marks=pytest.mark.slow)
SIZES = [(0.1, "corner"), (0.1, "edge"), FULL]
# Backbone, the feature that is correlated, those of the fine stage.
ALEXNET = (published.alexnet, "conv5", ("conv2", "conv4"))
RESNET = (others.resnet18, "conv4", ("conv3", "conv4"))
BOXES = torch.tensor([[96.5, 90, 160, 165], [60, 101.25, 190, 150], [90, 90, 165, 165]])


def weigh(model, seed):
    """Draw weights that keep every map near 1, with some deltas beyond the clamp and no ties."""
    generator = torch.Generator().manual_seed(seed)
    gains = {"reg_convs": 1.6, "cls_convs": 2.0, "reg_fc": 3.0}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            drawn = torch.randn(parameter.shape, generator=generator)
            gain = next((g for part, g in gains.items() if part in name), 2**0.5)
            fan_in = parameter[0].numel() if parameter.ndim > 1 else 100
            parameter.copy_(drawn * gain / fan_in**0.5)
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                for tensor, middle in (
                    (module.weight, 0.8), (module.running_mean, 0.1), (module.running_var, 1.0),
                ):  # fmt: skip
                    tensor.copy_(middle + 0.3 * torch.rand(tensor.shape, generator=generator))
    temper(model)
    return {k: v.double().numpy() for k, v in model.state_dict().items()}


@torch.no_grad()
def temper(model):
    """Divide the filters of each branch so that what comes out of the correlation is near 1."""
    was_training = model.training
    model.eval()
    fusion = model.cm_fusion if hasattr(model, "cm_fusion") else model.fusion
    z, x = (model.features(crops(seed, 1)) for seed in (8, 9))
    raw = fusion(model.kernels(z), x[getattr(model, "feature", None) or model.coarse_feature])
    raw = (raw * 1e-3,) if isinstance(raw, torch.Tensor) else raw
    convs = fusion.z_conv if len(raw) > 1 else [fusion.z_conv]
    power = 0.5 if not hasattr(model, "anchors") else 1  # SiamFC's one convolution acts twice
    for conv, out in zip(convs, raw, strict=True):
        for parameter in conv.parameters():
            parameter /= out.std() ** power
    model.train(was_training)


def crops(seed, count):
    """Coloured noise, coarse and fine, so that no two cells look alike."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(count, 3, 12, 12, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=255, mode="bicubic")
    return smooth + 0.3 * torch.randn(count, 3, 255, 255, generator=generator)


def pixels(image):
    return image.double().numpy()


def close(got, want):
    want = torch.as_tensor(np.asarray(want))
    assert got.shape == want.shape
    error = (got.double() - want).abs().max().item()
    assert error <= 1e-4 * want.abs().max().item()


@pytest.mark.parametrize(("width", "grid"), SIZES)
@pytest.mark.parametrize(("name", "parts"), [("spm_alexnet", ALEXNET), ("spm_r18c4", RESNET)])
def test_spm_sees_what_the_published_formulas_see(name, parts, width, grid):
    config = ModelConfig(name=name, init="random", width=width, grid=grid)
    model = build(config).eval()
    state, middle, (backbone, last, fine_names) = weigh(model, 4), MIDDLE[grid], parts
    template, search, boxes = crops(1, 2), crops(2, 2), BOXES[:2]
    with torch.no_grad():
        z, x = model.features(template), model.features(search)
        maps = model.coarse(model.kernels(z), x)
        found = model.propose(maps, config.track.match.proposals)
        logits, deltas = model.fine(model.template_part(z, boxes), x, found.boxes)
        refined = model.refine(found.boxes, deltas)
    for b in range(2):
        want_z, want_x = backbone(state, pixels(template[b])), backbone(state, pixels(search[b]))
        assert list(z) == list(want_z)
        for feature in z:
            close(z[feature][b], want_z[feature])
        want = published.coarse(state, want_z[last], want_x[last])
        close(maps.logits[b], want[0])
        close(maps.deltas[b], want[1])
        assert (np.abs(want[1][:, 2:]) > published.LOG_8).any()  # the clamp is met
        places, scores = published.proposals(*want, 8, 0.60, middle)
        assert found.valid[b].all()
        close(found.boxes[b], places)
        close(found.scores[b], scores)
        joined = [[f[feature] for feature in fine_names] for f in (want_z, want_x)]
        judged = published.fine(state, *joined, boxes[b].tolist(), places, middle)
        close(logits[b], judged[0])
        close(deltas[b], judged[1])
        moved = [published.move(p, d, 0.1) for p, d in zip(places, judged[1], strict=True)]
        close(refined[b], moved)
        close(logits[b].softmax(-1)[:, 1], published.target_score(judged[0]))


@pytest.mark.parametrize(("width", "grid"), [SIZES[0], FULL])
@pytest.mark.parametrize("name", ["siamrpn_alexnet", "siamrpn_alexnet_dw"])
def test_siamrpn_sees_what_the_published_formulas_see(name, width, grid):
    model = build(ModelConfig(name=name, init="random", width=width, grid=grid)).eval()
    state, template, search = weigh(model, 6), crops(1, 2), crops(2, 2)
    with torch.no_grad():
        maps = model.coarse(model.kernels(model.features(template)), model.features(search))
    for b in range(2):
        want = coarse_of(name, state, template[b], search[b])
        close(maps.logits[b], want[0])
        close(maps.deltas[b], want[1])


def coarse_of(name, state, template, search):
    z, x = (published.alexnet(state, pixels(one))["conv5"] for one in (template, search))
    if name.endswith("_dw"):
        return others.depthwise(state, z, x)
    return published.coarse(state, z, x, "fusion", "head")


@pytest.mark.parametrize(("width", "grid"), SIZES)
def test_siamfc_sees_and_learns_what_the_published_formulas_say(width, grid):
    model = build(ModelConfig(name="siamfc_alexnet", init="random", width=width, grid=grid))
    state, template, search = weigh(model, 7), crops(1, 3), crops(2, 3)
    with torch.no_grad():
        got = model.response(model.kernels(model.features(template)), model.features(search))
        loss = model(template, search, BOXES, BOXES + 20, torch.ones(3) > 0, torch.arange(3), 0)
    batch = []
    for b in range(3):
        z, x = (published.alexnet(state, pixels(one[b]))["conv5"] for one in (template, search))
        logits = others.siamfc(state, z, x)
        close(got[b], logits)
        batch.append((logits, others.siamfc_labels((BOXES[b] + 20).tolist(), MIDDLE[grid])))
    assert sum(loss.values()).item() == pytest.approx(others.siamfc_loss(batch), rel=1e-4)


@pytest.mark.parametrize(
    ("box", "counts"),
    [
        ([117.0, 107, 137, 147], (13, 264, 12)),  # about 127,127
        ([181.0, 181, 201, 201], (6, 279, 4)),  # about 191,191, the corner of the map
        ([120.0, 121, 140, 141], (18, 265, 6)),  # about 130,131
    ],
)
def test_siamfc_labels_are_the_published_counts(box, counts):
    labels = others.siamfc_labels(box, 127.0)
    assert tuple(int((labels == kind).sum()) for kind in (1, 0, -1)) == counts


def pairs_and_data(config, seed):
    """Make a batch for the model and the same for the formulas."""
    data = {
        "template": crops(3, 3),
        "search": crops(4, 3),
        "template_box": BOXES,
        # a common box; one that no anchor fits (1:14); the other object of a negative pair
        "search_box": torch.tensor([[97.0, 96, 161, 158], [119, 15, 135, 239], [60, 80, 150, 130]]),
        "positive": torch.tensor([True, True, False]),
        "sample": torch.tensor([11, 900, 5]),
    }
    order = priorities(seed, 2, data["sample"], 1445).argsort(dim=1).numpy()
    names = ("template", "search", "template_box", "search_box")
    pairs = [
        {**{k: pixels(data[k][b]) for k in names}, "positive": b < 2, "order": order[b]}
        for b in range(3)
    ]
    return pairs, data


@pytest.mark.parametrize(("width", "grid"), SIZES)
@pytest.mark.parametrize(("name", "parts"), [("spm_alexnet", ALEXNET), ("spm_r18c4", RESNET)])
def test_spm_learns_from_the_published_losses(name, parts, width, grid):
    config = ModelConfig(name=name, init="random", width=width, grid=grid, seed=3)
    model = build(config).train()
    state = weigh(model, 5)
    pairs, data = pairs_and_data(config, 3)
    with torch.no_grad():
        got = model(**data, epoch=2)
    want = published.losses(state, pairs, MIDDLE[grid], parts[0], parts[2])
    assert list(got) == list(want)
    for term in got:
        assert got[term].item() == pytest.approx(want[term], rel=1e-4), term
        assert want[term] > 0.01


@pytest.mark.parametrize("name", ["siamrpn_alexnet", "siamrpn_alexnet_dw"])
def test_siamrpn_learns_from_the_published_losses(name):
    config = ModelConfig(name=name, init="random", width=0.1, grid="corner", seed=3)
    model = build(config)
    state = weigh(model, 5)
    pairs, data = pairs_and_data(config, 3)
    with torch.no_grad():
        got = model(**data, epoch=2)
    batch = []
    for b, pair in enumerate(pairs):
        maps = coarse_of(name, state, data["template"][b], data["search"][b])
        batch.append(published.coarse_targets(*maps, pair))
    assert [term.item() for term in got.values()] == pytest.approx(
        published.stage_loss(batch), rel=1e-4
    )


def test_proposals_of_training_and_of_tracking_are_the_published_numbers():
    config = ModelConfig()
    assert config.proposals == ProposalConfig(keep=12, nms_iou=0.75)
    assert config.track.match.proposals == ProposalConfig(keep=8, nms_iou=0.60)
