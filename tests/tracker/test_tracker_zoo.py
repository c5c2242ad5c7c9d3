"""The other models: names, shapes and counts as published, and one training step of each."""

import math
import types

import pytest
import torch
from torch.nn import functional as F

from tracker.backbones import AlexNet
from tracker.depthwise import DepthwiseFusion, DepthwiseHead
from tracker.mobilenet import MobileNetV2
from tracker.models import ModelConfig, build
from tracker.resnet import ResNet18, ResNet34, ResNet50
from tracker.response import ResponseConfig, balanced_term, cell_centres, label_cells
from tracker.siamfc import SiamFC
from tracker.siamrpn import SiamRPN
from tracker.spm import SPM
from tracker.training.config import TrainConfig
from tracker.training.schedule import parameter_groups
from tracker.training.step import Stepper
from tracker.weights import randomise


# The published lists, in their order; "w,b" of a layer, BN(c) of a normalisation.
def layer(name, shape):
    weight = tuple(map(int, shape.split("x")))
    return [(f"{name}.weight", weight), (f"{name}.bias", weight[:1])]


def norm(name, c):
    parts = [(f"{name}.{part}", (c,)) for part in ("weight", "bias", "running_mean", "running_var")]
    return [*parts, (f"{name}.num_batches_tracked", ())]


def basic(name, inputs, c):
    rows = [(f"{name}.conv1.weight", (c, inputs, 3, 3)), *norm(f"{name}.bn1", c)]
    rows += [(f"{name}.conv2.weight", (c, c, 3, 3)), *norm(f"{name}.bn2", c)]
    if inputs != c:
        rows += [(f"{name}.downsample.0.weight", (c, inputs, 1, 1))]
        rows += norm(f"{name}.downsample.1", c)
    return rows


ALEX = [
    *layer("z_net.conv1.conv", "64x3x11x11"),
    *layer("z_net.conv2.conv", "192x64x5x5"),
    *layer("z_net.conv3.conv", "384x192x3x3"),
    *layer("z_net.conv4.conv", "256x384x3x3"),
    *layer("z_net.conv5.conv", "256x256x3x3"),
]
R18 = [
    ("z_net.conv1.0.weight", (64, 3, 7, 7)), *norm("z_net.conv1.1", 64),
    *basic("z_net.conv2.0", 64, 64), *basic("z_net.conv2.1", 64, 64),
    *basic("z_net.conv3.0", 64, 128), *basic("z_net.conv3.1", 128, 128),
    *basic("z_net.conv4.0", 128, 256), *basic("z_net.conv4.1", 256, 256),
]  # fmt: skip


def rpn(fusion, head):
    return [
        *layer(f"{fusion}.z_conv.0", "2560x256x3x3"), *layer(f"{fusion}.z_conv.1", "5120x256x3x3"),
        *layer(f"{fusion}.x_conv.0", "256x256x3x3"), *layer(f"{fusion}.x_conv.1", "256x256x3x3"),
        *layer(f"{head}.cls_convs.0", "10x10x1x1"), *layer(f"{head}.reg_convs.0", "20x20x1x1"),
    ]  # fmt: skip


def fine(inputs):
    return [
        *layer("fm_fusion.post_convs.0", f"256x{inputs}x1x1"),
        *layer("fm_head.feat_fcs.0", "256x9216"), *layer("fm_head.feat_fcs.2", "256x256"),
        *layer("fm_head.cls_fc", "2x256"), *layer("fm_head.reg_fc", "4x256"),
    ]  # fmt: skip


DEPTHWISE = [
    *layer("fusion.z_conv", "256x256x3x3"), *layer("fusion.x_conv", "256x256x3x3"),
    *layer("head.pre_convs.0", "256x256x3x3"), *layer("head.pre_convs.2", "256x256x3x3"),
    *layer("head.cls_convs.0", "10x256x1x1"), *layer("head.reg_convs.0", "20x256x1x1"),
]  # fmt: skip
PUBLISHED = {
    # tensors, parameters, tensors, numbers with the buffers
    "spm_alexnet": (ALEX + rpn("cm_fusion", "cm_head") + fine(896), 32, 24_009_304, 24_009_304),
    "spm_r18c4": (R18 + rpn("cm_fusion", "cm_head") + fine(768), 112, 24_289_624, 24_294_119),
    "siamrpn_alexnet": (ALEX + rpn("fusion", "head"), 22, 21_352_786, 21_352_786),
    "siamrpn_alexnet_dw": (ALEX + DEPTHWISE, 22, 4_837_726, 4_837_726),
    "siamfc_alexnet": (
        [*ALEX, *layer("fusion.z_conv", "256x256x1x1"), ("head.score_bias", (1,))],
        13, 2_535_489, 2_535_489,
    ),
}  # fmt: skip
NAMES = list(PUBLISHED)
CLASSES = dict(zip(NAMES, (SPM, SPM, SiamRPN, SiamRPN, SiamFC), strict=True))


def on_meta(name):
    with torch.device("meta"):
        return build(ModelConfig(name=name))


def small(name, **more):
    return build(ModelConfig(name=name, width=0.1, init="random", **more))


def batch(seed=0):
    """Noise crops; pair 1 is negative."""
    generator = torch.Generator().manual_seed(seed)
    return {
        "template": torch.randn(2, 3, 255, 255, generator=generator),
        "search": torch.randn(2, 3, 255, 255, generator=generator),
        "template_box": torch.tensor([[96.0, 90, 160, 165], [97, 91, 161, 166]]),
        "search_box": torch.tensor([[95.0, 96, 161, 158], [60, 80, 150, 130]]),
        "positive": torch.tensor([True, False]),
        "sample": torch.tensor([11, 5]),
        "epoch": 0,
    }


@pytest.mark.parametrize("name", NAMES)
def test_names_shapes_and_counts_are_the_published_ones(name):
    rows, tensors, parameters, numbers = PUBLISHED[name]
    model = on_meta(name)
    assert type(model) is CLASSES[name]
    state = model.state_dict()
    assert [(k, tuple(v.shape)) for k, v in state.items()] == rows
    assert len(rows) == tensors
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert sum(v.numel() for v in state.values()) == numbers
    kinds = {v.dtype for k, v in state.items() if k.endswith("num_batches_tracked")}
    assert kinds <= {torch.int64}
    assert all(v.dtype == torch.float32 for v in state.values() if v.ndim)


def counts(groups):
    return [(len(g["params"]), sum(p.numel() for p in g["params"])) for g in groups]


def test_the_optimiser_groups_of_spm_r18c4_are_the_published_ones():
    model = on_meta("spm_r18c4")
    assert counts(parameter_groups(model, "all", 1e-4)) == [(26, 24_276_148), (41, 13_476)]
    assert counts(parameter_groups(model, "heads", 1e-4)) == [(11, 21_497_844), (11, 8_996)]


def test_the_score_bias_of_siamfc_does_not_decay():
    weights, biases = parameter_groups(on_meta("siamfc_alexnet"), "all", 1e-4)
    assert (len(weights["params"]), len(biases["params"])) == (6, 7)
    assert biases["weight_decay"] == 0


@pytest.mark.parametrize(
    ("network", "tensors", "parameters", "numbers"),
    [  # published: parameters of the depth-wise SiamRPN on the last stage, and with the buffers
        (AlexNet, 10, 4_837_726, 4_837_726),
        (ResNet18, 90, 5_150_814, 5_155_309),
        (ResNet34, 174, 10_538_334, 10_548_219),
        (ResNet50, 258, 14_450_270, 14_480_905),
        (MobileNetV2, 306, 4_474_654, 4_506_257),
    ],
)
def test_backbones_have_the_published_sizes(network, tensors, parameters, numbers):
    with torch.device("meta"):
        backbone = network()
        last = list(backbone.channels.values())[-1]
        parts = [backbone, DepthwiseFusion(last, 256), DepthwiseHead(256)]
    assert len(backbone.state_dict()) == tensors
    assert sum(p.numel() for part in parts for p in part.parameters()) == parameters
    assert sum(v.numel() for part in parts for v in part.state_dict().values()) == numbers


def test_names_of_a_bottleneck_put_the_stride_on_its_middle():
    with torch.device("meta"):
        net = ResNet50()
    assert net.conv3[0].conv2.stride == (2, 2)
    assert net.conv3[0].conv1.stride == net.conv4[0].conv2.stride == (1, 1)
    assert net.conv4[0].downsample[0].stride == (1, 1)
    assert net.channels == {"conv1": 64, "conv2": 256, "conv3": 512, "conv4": 1024}


@pytest.mark.parametrize(
    ("network", "cells"),
    [
        (ResNet18, [63, 63, 32, 32]),
        (ResNet34, [63, 63, 32, 32]),
        (ResNet50, [63, 63, 32, 32]),
        (MobileNetV2, [127, 125, 63, 32, 32, 32, 32, 32]),
    ],
)
@pytest.mark.parametrize("width", [0.05, 0.1, 0.3])
def test_backbones_have_stride_eight_at_any_width(network, cells, width):
    backbone = network(width)
    randomise(backbone, 1)
    features = backbone(torch.randn(1, 3, 255, 255, generator=torch.Generator().manual_seed(0)))
    assert [f.shape[-1] for f in features.values()] == cells
    assert {k: f.shape[1] for k, f in features.items()} == backbone.channels
    assert all(f.isfinite().all() and f.std() > 1e-3 for f in features.values())


def test_a_cell_of_resnet_lies_three_pixels_right_of_alexnets():
    # Half of what a cell of conv4 reads: 3 (stem) + 2 (pool, on stride 2) + 4 x 4 (conv2)
    # + 4 + 3 x 8 (conv3, its first convolution on stride 4) + 4 x 8 (conv4) = 81 px about 8k + 3.
    net = ResNet18(0.01).eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.fill_(0.01)
    image = torch.rand(1, 3, 255, 255, generator=torch.Generator().manual_seed(0))
    image.requires_grad_()
    net(image)["conv4"][0, 0, 16, 15].backward()
    rows, columns = (image.grad[0].sum(0).sum(d).nonzero().flatten() for d in (1, 0))
    assert (rows[0].item(), rows[-1].item()) == (131 - 81, 131 + 81)
    assert (columns[0].item(), columns[-1].item()) == (123 - 81, 123 + 81)


def test_without_imagenet_residual_blocks_start_as_their_shortcuts():
    net = ResNet18(0.1)
    net.conv1[1].running_mean.fill_(3)
    net.conv1[1].num_batches_tracked.fill_(9)
    randomise(net, 1)
    assert (net.conv1[1].running_mean == 0).all()
    assert net.conv1[1].num_batches_tracked == 0
    for block in (net.conv2[0], net.conv4[1]):
        assert (block.bn1.weight == 1).all()
        assert (block.bn2.weight == 0).all()
    assert (net.conv3[0].downsample[1].weight == 1).all()
    features = net.eval()(torch.randn(1, 3, 255, 255))
    assert torch.equal(features["conv1"], features["conv2"])
    bottleneck = ResNet50(0.1)
    randomise(bottleneck, 1)
    assert (bottleneck.conv2[0].bn3.weight == 0).all()
    assert (bottleneck.conv2[0].bn2.weight == 1).all()


def test_score_bias_is_zero_again_after_a_new_draw():
    model = small("siamfc_alexnet")
    with torch.no_grad():
        model.head.score_bias.fill_(5)
    randomise(model, 3)
    assert model.head.score_bias.item() == 0


TERMS = {
    "spm_r18c4": ["cm_cls", "cm_reg", "fm_cls", "fm_reg"],
    "siamrpn_alexnet": ["cls", "reg"],
    "siamrpn_alexnet_dw": ["cls", "reg"],
    "siamfc_alexnet": ["cls"],
}


@pytest.mark.parametrize("name", TERMS)
def test_a_step_trains_every_parameter_and_lowers_the_loss(name):
    model, data = small(name), batch()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    config = TrainConfig(heads_only_epochs=0, warmup_steps=0, lr=0.005, weight_decay=0)
    stepper = Stepper(model, config, torch.device("cpu"), 100)
    losses = [stepper(data, step, 0).by_name() for step in range(8)]
    assert list(losses[0]) == ["loss", *TERMS[name], "grad_norm"]
    assert losses[-1]["loss"] < 0.98 * losses[0]["loss"]
    for key, parameter in model.named_parameters():
        assert parameter.grad.isfinite().all(), key
        assert not torch.equal(parameter, before[key]), key
    for key, value in model.named_buffers():
        assert key not in before or torch.equal(value, before[key]), key


def test_batch_normalisation_keeps_its_statistics_only_where_that_is_published():
    fixed = small("spm_r18c4").z_net
    assert fixed.training
    assert not any(m.training for m in fixed.modules() if isinstance(m, torch.nn.BatchNorm2d))
    moving = ResNet18(0.1)
    assert moving.train() is moving
    assert all(m.training for m in moving.modules())
    moving(torch.randn(2, 3, 255, 255))
    assert moving.conv1[1].num_batches_tracked == 1
    assert not any(m.training for m in moving.eval().modules())


@pytest.mark.parametrize("name", TERMS)
def test_a_pair_without_a_target_trains_no_positives(name):
    model, data = small(name), batch()
    data["positive"] = torch.tensor([False, False])
    terms = model(**data)
    assert all(math.isfinite(term.item()) for term in terms.values())
    assert all(term.item() == 0 for key, term in terms.items() if key.endswith("reg"))
    gradients = torch.autograd.grad(sum(terms.values()), list(model.parameters()))  # none unused
    assert all(g.isfinite().all() for g in gradients)


@pytest.mark.parametrize("depthwise", [False, True])
def test_siamrpn_gives_anchors_and_is_the_coarse_stage_of_spm(depthwise):
    model = small("siamrpn_alexnet_dw" if depthwise else "siamrpn_alexnet")
    data = batch()
    assert model.depthwise == depthwise
    with torch.no_grad():
        z, x = model.features(data["template"]), model.features(data["search"])
        maps = model.coarse(model.kernels(z), x)
    assert maps.logits.shape == (2, 1445, 2)
    assert maps.deltas.shape == (2, 1445, 4)
    if not depthwise:
        whole = small("spm_alexnet")
        state = {
            k.replace("cm_", ""): v
            for k, v in whole.state_dict().items()
            if not k.startswith("fm_")
        }
        model.load_state_dict(state)
        want, got = whole(**data), model(**data)
        assert got["cls"].item() == pytest.approx(want["cm_cls"].item(), rel=1e-6)
        assert got["reg"].item() == pytest.approx(want["cm_reg"].item(), rel=1e-6)


def test_depthwise_parts_are_a_correlation_channel_by_channel():
    generator = torch.Generator().manual_seed(0)
    fusion, head = DepthwiseFusion(8, 16), DepthwiseHead(16)
    z, x = torch.randn(2, 2, 8, 32, 32, generator=generator)
    with torch.no_grad():
        (kernels,) = fusion.kernels(z)
        (joined,) = fusion((kernels,), x)
        maps = head(joined)
    assert kernels.shape == (2, 16, 4, 4)
    assert joined.shape == (2, 16, 21, 21)
    assert head.pre_convs(joined).shape == (2, 16, 17, 17)
    assert maps.logits.shape == (2, 1445, 2)
    moved = F.conv2d(x[:, :, 3:29, 3:29], fusion.x_conv.weight, fusion.x_conv.bias)
    filters = F.conv2d(z[:, :, 13:19, 13:19], fusion.z_conv.weight, fusion.z_conv.bias)
    for sample, channel in ((0, 0), (1, 15), (0, 7)):
        want = F.conv2d(moved[sample, channel][None, None], filters[sample, channel][None, None])
        assert torch.allclose(joined[sample, channel], want[0, 0], atol=1e-5)


def test_siamfc_scores_what_is_alike():
    model, data = small("siamfc_alexnet"), batch()
    with torch.no_grad():
        model.head.score_bias.fill_(0.25)
        z, x = model.features(data["template"]), model.features(data["search"])
        kernels = model.kernels(z)
        logits = model.response(kernels, x)
    assert kernels.shape == (2, 24, 6, 6)
    assert logits.shape == (2, 17, 17)
    conv = model.fusion.z_conv
    moved = F.conv2d(x["conv5"][:, :, 5:27, 5:27], conv.weight, conv.bias)
    want = 0.001 * (moved[1, :, 4:10, 9:15] * kernels[1]).sum() + 0.25
    assert logits[1, 4, 9].item() == pytest.approx(want.item(), rel=1e-5)
    more, fewer = model.kernels({"conv5": z["conv5"] * 2}), model.kernels(z)
    assert not torch.equal(more, fewer)


@pytest.mark.parametrize(
    ("middle", "counted"),
    [((127, 127), (13, 264, 12)), ((191, 191), (6, 279, 4)), ((130, 131), (18, 265, 6))],
)
@pytest.mark.parametrize("grid", ["corner", "edge"])
def test_cells_of_siamfc_have_the_published_labels(middle, counted, grid):
    shift = 0 if grid == "corner" else 0.5
    x, y = (value + shift for value in middle)
    boxes = torch.tensor([[x - 20, y - 30, x + 20, y + 30], [0, 0, 9, 9]])
    labels = label_cells(cell_centres(grid), boxes, torch.tensor([True, False]), ResponseConfig())
    assert tuple((labels[0] == kind).sum().item() for kind in (1, 0, -1)) == counted
    assert (labels[1] == 0).all()


def test_cells_go_by_row_and_column():
    centres = cell_centres("corner").view(17, 17, 2)
    assert centres[0, 0].tolist() == [63, 63]
    assert centres[3, 10].tolist() == [143, 87]
    assert centres[16, 16].tolist() == [191, 191]


def test_both_kinds_of_cell_weigh_the_same():
    # (1/2)(2 positives at log(1+e^-1), 1/2 each) + (1/2)(1 negative at log 2); then negatives alone
    logits = torch.tensor([[1.0, 1.0, 0.0, 9.0], [0.0, 1.0, 9.0, 9.0]])
    labels = torch.tensor([[1, 1, 0, -1], [0, 0, -1, -1]])
    term = balanced_term(logits, labels)
    first = (math.log(1 + math.exp(-1)) + math.log(2)) / 2
    second = (math.log(2) + math.log(1 + math.exp(1))) / 2
    assert term.total.item() == pytest.approx(first + second)
    assert term.divisor.item() == 2
    none = balanced_term(logits, torch.full((2, 4), -1))
    assert none.total.item() == 0


@pytest.mark.parametrize(
    ("name", "section", "value"),
    [
        ("siamrpn_alexnet", "fine", {"assign": ModelConfig().coarse.assign}),
        ("siamrpn_alexnet_dw", "proposals", {"keep": 3}),
        ("siamfc_alexnet", "coarse", {"sample": types.SimpleNamespace()}),
        ("spm_alexnet", "response", {"positive_px": 20.0}),
    ],
)
def test_a_section_that_a_model_lacks_is_refused(name, section, value):
    default = getattr(ModelConfig(), section)
    given = type(default)(**value)
    with pytest.raises(ValueError, match=f"{name} has no '{section}': leave it out"):
        ModelConfig(name=name, **{section: given})
    assert ModelConfig(name=name, **{section: default}).name == name


def test_distances_that_would_make_a_cell_both_are_refused():
    with pytest.raises(ValueError, match="a cell would be both"):
        ResponseConfig(positive_px=31)
