import math

import pytest
import torch
import tracker_oracle as oracle

from tracker.backbones import narrow
from tracker.labels import iou
from tracker.models import ModelConfig, build, initialise
from tracker.proposals import ProposalConfig
from tracker.spm import SPM

SMALL = ModelConfig(init="random", width=0.0625)

PUBLISHED = """
z_net.conv1.conv.weight	64x3x11x11
z_net.conv1.conv.bias	64
z_net.conv2.conv.weight	192x64x5x5
z_net.conv2.conv.bias	192
z_net.conv3.conv.weight	384x192x3x3
z_net.conv3.conv.bias	384
z_net.conv4.conv.weight	256x384x3x3
z_net.conv4.conv.bias	256
z_net.conv5.conv.weight	256x256x3x3
z_net.conv5.conv.bias	256
cm_fusion.z_conv.0.weight	2560x256x3x3
cm_fusion.z_conv.0.bias	2560
cm_fusion.z_conv.1.weight	5120x256x3x3
cm_fusion.z_conv.1.bias	5120
cm_fusion.x_conv.0.weight	256x256x3x3
cm_fusion.x_conv.0.bias	256
cm_fusion.x_conv.1.weight	256x256x3x3
cm_fusion.x_conv.1.bias	256
cm_head.cls_convs.0.weight	10x10x1x1
cm_head.cls_convs.0.bias	10
cm_head.reg_convs.0.weight	20x20x1x1
cm_head.reg_convs.0.bias	20
fm_fusion.post_convs.0.weight	256x896x1x1
fm_fusion.post_convs.0.bias	256
fm_head.feat_fcs.0.weight	256x9216
fm_head.feat_fcs.0.bias	256
fm_head.feat_fcs.2.weight	256x256
fm_head.feat_fcs.2.bias	256
fm_head.cls_fc.weight	2x256
fm_head.cls_fc.bias	2
fm_head.reg_fc.weight	4x256
fm_head.reg_fc.bias	4
"""


def batch(samples: int = 4, seed: int = 0) -> dict[str, torch.Tensor]:
    """Noise crops; pair 1 is negative, and no anchor matches the box of pair 2."""
    generator = torch.Generator().manual_seed(seed)
    boxes = torch.tensor(
        [[95.0, 96, 161, 158], [60, 80, 150, 130], [119, 15, 135, 239], [150.5, 40, 195, 130]]
    )
    return {
        "template": torch.randn(samples, 3, 255, 255, generator=generator),
        "search": torch.randn(samples, 3, 255, 255, generator=generator),
        "template_box": (torch.tensor([[96.0, 90, 160, 165]]) + torch.arange(4)[:, None])[:samples],
        "search_box": boxes[:samples],
        "positive": torch.tensor([True, False, True, True])[:samples],
        "sample": torch.tensor([11, 5, 900, 3])[:samples],
    }


@pytest.fixture(scope="module")
def small() -> SPM:
    return build(SMALL)


def test_the_published_model_has_the_published_tensors():
    with torch.device("meta"):
        model = build(ModelConfig())
    got = [
        f"{k}\t{'x'.join(map(str, v.shape))}"
        for k, v in model.state_dict().items()
        if v.dtype == torch.float32
    ]
    assert got == PUBLISHED.split("\n")[1:-1]
    assert len(model.state_dict()) == 32
    assert sum(p.numel() for p in model.parameters()) == 24_009_304


def test_width_narrows_everything_but_the_outputs(small):
    assert [narrow(256, w) for w in (1, 0.5, 0.0625, 0.001)] == [256, 128, 16, 8]
    shapes = {k: tuple(v.shape) for k, v in small.state_dict().items()}
    assert list(shapes) == [line.split("\t")[0] for line in PUBLISHED.split("\n")[1:-1]]
    assert shapes["cm_fusion.z_conv.1.weight"] == (320, 16, 3, 3)
    assert shapes["fm_head.feat_fcs.0.weight"] == (16, 576)
    assert shapes["fm_fusion.post_convs.0.weight"] == (16, 2 * (16 + 16), 1, 1)
    assert shapes["fm_head.cls_fc.weight"] == (2, 16)


@pytest.mark.parametrize(("grid", "shift"), [("corner", -3.0), ("edge", -3.5)])
def test_regions_are_shifted_by_the_published_three_pixels(grid, shift):
    # The same pixels are read in both grids: edge coordinates are indices + 1/2.
    assert build(ModelConfig(width=0.01, grid=grid)).roi_shift_px == shift


def test_the_same_seed_gives_the_same_weights_and_leaves_the_global_state():
    before = torch.random.get_rng_state()
    first, second = build(SMALL), build(SMALL)
    initialise(second, SMALL)
    other = build(ModelConfig(init="random", width=0.0625, seed=8))
    assert torch.equal(torch.random.get_rng_state(), before)
    for (name, a), b, c in zip(
        first.named_parameters(), second.parameters(), other.parameters(), strict=True
    ):
        assert torch.equal(a, b)
        assert torch.equal(a, c) == name.endswith("bias")


@pytest.mark.parametrize(
    ("grid", "nms_iou", "few"),
    [("edge", 0.75, False), ("corner", 0.75, False), ("edge", 1e-6, True)],
)
def test_the_step_is_that_of_the_loops(grid, nms_iou, few):
    proposals = ProposalConfig(nms_iou=nms_iou)
    config = ModelConfig(init="random", width=0.0625, grid=grid, seed=3, proposals=proposals)
    model = build(config)
    data = batch()
    got = model(**data, epoch=2)
    assert list(got) == ["cm_cls", "cm_reg", "fm_cls", "fm_reg"]
    want, labels = loop_step(model, data, epoch=2)
    assert sum(label == 1 for label in labels[0][2]) == 0  # fact: no anchor fits 1:14
    assert (min(len(row) for row in labels[1]) < 13) == few  # suppression leaves fewer
    for name, term in got.items():
        assert term.item() == pytest.approx(want[name].item(), rel=1e-4), name
    names = [n for n, _ in model.named_parameters()]
    fast = torch.autograd.grad(sum(got.values()), list(model.parameters()))
    slow = torch.autograd.grad(sum(want.values()), list(model.parameters()))
    for name, a, b in zip(names, fast, slow, strict=True):
        assert torch.allclose(a, b, rtol=1e-3, atol=1e-3 * b.abs().max().item()), name


def loop_step(model: SPM, data: dict[str, torch.Tensor], epoch: int):
    """Compute the four terms sample by sample, with the oracle's targets, regions and losses."""
    config, anchors = model.config, model.anchors.tolist()
    shift = -3.0 if config.grid == "corner" else -3.5
    coarse_assign, fine_assign = config.coarse.assign, config.fine.assign
    coarse, fine = ([], [], []), ([], [], [], [])
    for b in range(len(data["sample"])):
        z, x = (
            model.features(data["template"][b : b + 1]),
            model.features(data["search"][b : b + 1]),
        )
        maps = model.coarse(model.kernels(z), x)
        box, positive = data["search_box"][b].tolist(), bool(data["positive"][b])
        overlaps = [oracle.iou(a, box) for a in anchors]
        labels = oracle.assign(
            overlaps,
            positive,
            coarse_assign.positive_iou,
            coarse_assign.negative_iou,
            coarse_assign.best_iou,
        )
        order = [
            oracle.priority(config.seed, epoch, int(data["sample"][b]), k) for k in range(1445)
        ]
        coarse[0].append(maps.logits[0])
        coarse[1].append(maps.deltas[0])
        coarse[2].append(oracle.choose(labels, order, 64, 16))

        decoded = [
            oracle.decode(a, d, 1.0) for a, d in zip(anchors, maps.deltas[0].tolist(), strict=True)
        ]
        margin = (maps.logits[0, :, 1] - maps.logits[0, :, 0]).tolist()
        boxes = [box] + [
            decoded[k] for k in oracle.suppress(decoded, margin, config.proposals.nms_iou, 12)
        ]
        joined = [torch.cat([f["conv2"], f["conv4"]], dim=1)[0].double() for f in (z, x)]
        part = oracle.roi_align(joined[0], data["template_box"][b].tolist(), 8, shift)
        pairs = [torch.cat([part, oracle.roi_align(joined[1], p, 8, shift)]) for p in boxes]
        relation = torch.relu(model.fm_fusion.post_convs(torch.stack(pairs).float()))
        logits, deltas = model.fm_head(relation[None])
        fine[0].append(logits[0])
        fine[1].append(deltas[0])
        fine[2].append(
            oracle.assign(
                [oracle.iou(p, box) for p in boxes],
                positive,
                fine_assign.positive_iou,
                fine_assign.negative_iou,
                fine_assign.best_iou,
            )
        )
        fine[3].append(boxes)
    targets = data["search_box"].tolist()
    cm = oracle.stage_loss(*coarse, [anchors] * len(targets), targets, 1.0)
    fm = oracle.stage_loss(fine[0], fine[1], fine[2], fine[3], targets, 0.1)
    terms = {"cm_cls": cm[0], "cm_reg": cm[1], "fm_cls": fm[0], "fm_reg": fm[1]}
    return terms, (coarse[2], fine[2])


def test_every_parameter_takes_part_also_without_positives(small):
    data = batch()
    data["positive"] = torch.zeros(4, dtype=torch.bool)
    terms = small(**data, epoch=0)
    assert terms["cm_reg"].item() == terms["fm_reg"].item() == 0
    gradients = torch.autograd.grad(sum(terms.values()), list(small.parameters()))  # none unused
    for (name, _), gradient in zip(small.named_parameters(), gradients, strict=True):
        assert gradient.isfinite().all(), name
        regression = "reg" in name or name.startswith(("cm_fusion.z_conv.1", "cm_fusion.x_conv.1"))
        assert (gradient == 0).all() == regression, name


def test_a_pair_counts_the_same_in_any_place_of_any_batch(small):
    data, order = batch(), torch.tensor([2, 0, 3, 1])
    with torch.no_grad():
        first = small(**data, epoch=torch.tensor(4))
        second = small(**{k: v[order] for k, v in data.items()}, epoch=4)
        other = small(**data, epoch=5)
    for name, term in first.items():
        assert term.item() == pytest.approx(second[name].item(), rel=1e-5)
    assert first["cm_cls"].item() != pytest.approx(other["cm_cls"].item(), rel=1e-5)


def test_autocast_keeps_the_losses_in_float32(small):
    data = batch()
    with torch.no_grad():
        exact = small(**data, epoch=0)
        with torch.autocast("cpu", torch.bfloat16):
            rounded = small(**data, epoch=0)
    terms = build(SMALL)(**data, epoch=0)
    assert all(term.dtype == torch.float32 for term in rounded.values())
    assert sum(rounded.values()).item() == pytest.approx(sum(exact.values()).item(), rel=0.02)
    with torch.autocast("cpu", torch.bfloat16):
        sum(build(SMALL)(**data, epoch=0).values()).backward()
    assert all(math.isfinite(term.item()) for term in terms.values())


def test_the_stages_serve_a_tracker_that_caches_its_template(small):
    data = batch(2)
    small.eval()
    with torch.no_grad():
        z = small.features(data["template"][:1])
        kernels, part = small.kernels(z), small.template_part(z, data["template_box"][:1])
        x = small.features(data["search"][1:])
        found = small.propose(small.coarse(kernels, x), ProposalConfig(keep=8, nms_iou=0.6))
        logits, deltas = small.fine(part, x, found.boxes)
        boxes = small.refine(found.boxes, deltas)
    small.train()
    assert found.boxes.shape == boxes.shape == (1, 8, 4)
    assert logits.shape == (1, 8, 2)
    want = oracle.decode(found.boxes[0, 3].tolist(), deltas[0, 3].tolist(), 0.1)
    assert boxes[0, 3].tolist() == pytest.approx(want, rel=1e-4, abs=1e-2)
    scores = found.scores[0]
    assert (scores[:-1] >= scores[1:]).all()
    apart = iou(found.boxes[0, :, None], found.boxes[0])
    assert (apart - torch.eye(8)).max() <= 0.6 + 1e-6


def test_a_crop_of_another_size_is_refused(small):
    data = batch(1)
    data["template"] = data["template"][..., :127, :127]
    with pytest.raises(ValueError, match=r"template must be \(B, 3, 255, 255\), got .*127"):
        small(**data, epoch=0)


def test_a_few_steps_on_one_batch_lower_the_loss():
    model, data = build(ModelConfig(init="random", width=0.1)), batch()
    optimiser = torch.optim.SGD(model.parameters(), lr=0.01)
    losses = []
    for _ in range(12):
        optimiser.zero_grad()
        loss = sum(model(**data, epoch=0).values())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 20)
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
