import torch
import torch.nn.functional as F

from tracker.backbones import AlexNet
from tracker.heads import CoarseFusion, CoarseHead, FineFusion, FineHead, centre_cells, correlate


def drawn(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_alexnet_has_stride_eight():
    features = AlexNet(0.1)(drawn(0, 2, 3, 255, 255))
    assert {k: tuple(v.shape) for k, v in features.items()} == {
        "conv1": (2, 8, 64, 64),
        "conv2": (2, 16, 32, 32),
        "conv3": (2, 40, 32, 32),
        "conv4": (2, 24, 32, 32),
        "conv5": (2, 24, 32, 32),
    }
    assert all((v >= 0).all() for v in features.values())


def test_alexnet_is_the_sequence_of_its_layers():
    net = AlexNet(0.01)
    x = drawn(1, 1, 3, 255, 255)
    p = dict(net.named_parameters())
    want = x
    for i, (stride, padding, pool) in enumerate(
        [(2, 5, True), (1, 2, True), (1, 1, False), (1, 1, False), (1, 1, False)], 1
    ):
        weight, bias = p[f"conv{i}.conv.weight"], p[f"conv{i}.conv.bias"]
        want = F.conv2d(want, weight, bias, stride=stride, padding=padding).clamp(min=0)
        if pool:
            want = F.max_pool2d(want, kernel_size=3, stride=2, padding=1)
    assert torch.allclose(net(x)["conv5"], want, atol=1e-5)


def test_centres_are_the_published_rows():
    rows = torch.arange(32.0).view(1, 1, 32, 1).expand(1, 1, 32, 32)
    assert centre_cells(rows, 6)[0, 0, :, 0].tolist() == list(range(13, 19))
    assert centre_cells(rows.mT, 22)[0, 0, 0].tolist() == list(range(5, 27))


def test_correlation_is_that_of_the_loop():
    search, kernels = drawn(1, 2, 3, 6, 7), drawn(2, 2, 4, 3, 4, 4)
    got = correlate(search, kernels)
    assert got.shape == (2, 4, 3, 4)
    for b in range(2):
        for o in range(4):
            for y in range(3):
                for x in range(4):
                    want = (search[b, :, y : y + 4, x : x + 4] * kernels[b, o]).sum()
                    assert torch.isclose(got[b, o, y, x], want, atol=1e-5)


def test_kernels_are_filter_major_and_maps_have_17_cells():
    fusion = CoarseFusion(8, 16)
    template, search = drawn(1, 2, 8, 32, 32), drawn(2, 2, 8, 32, 32)
    cls, reg = fusion.kernels(template)
    assert cls.shape == (2, 10, 16, 4, 4)
    assert reg.shape == (2, 20, 16, 4, 4)
    flat = F.conv2d(template[..., 13:19, 13:19], fusion.z_conv[1].weight, fusion.z_conv[1].bias)
    assert torch.allclose(reg[:, 3, 5], flat[:, 3 * 16 + 5], atol=1e-6)
    maps = fusion((cls, reg), search)
    assert [tuple(m.shape) for m in maps] == [(2, 10, 17, 17), (2, 20, 17, 17)]
    x = F.conv2d(search[..., 5:27, 5:27], fusion.x_conv[0].weight, fusion.x_conv[0].bias)
    want = (x[1, :, 2:6, 9:13] * cls[1, 7]).sum()
    assert torch.isclose(maps[0][1, 7, 2, 9], want, atol=1e-5)


def test_coarse_channels_are_anchor_major():
    head = CoarseHead()
    with torch.no_grad():
        for conv in (head.cls_convs[0], head.reg_convs[0]):
            conv.weight.copy_(torch.eye(conv.out_channels)[..., None, None])
            conv.bias.zero_()
    cls, reg = drawn(1, 2, 10, 17, 17), drawn(2, 2, 20, 17, 17)
    logits, deltas = head(cls, reg)
    assert logits.shape == (2, 1445, 2)
    assert deltas.shape == (2, 1445, 4)
    for y, x, anchor in ((0, 0, 0), (3, 11, 4), (16, 16, 2)):
        k = (y * 17 + x) * 5 + anchor
        assert torch.equal(logits[1, k], cls[1, 2 * anchor : 2 * anchor + 2, y, x])
        assert torch.equal(deltas[1, k], reg[1, 4 * anchor : 4 * anchor + 4, y, x])


def test_fine_relation_is_one_convolution_of_template_then_proposal():
    fusion = FineFusion(12, 16)
    template, proposals = drawn(1, 2, 12, 6, 6), drawn(2, 2, 5, 12, 6, 6)
    got = fusion(fusion.template_part(template), proposals)
    joined = torch.cat([template[:, None].expand_as(proposals), proposals], dim=2).flatten(0, 1)
    want = fusion.post_convs(joined).clamp(min=0).view(2, 5, 16, 6, 6)
    assert torch.allclose(got, want, atol=1e-5)
    logits, deltas = FineHead(16, 32)(got)
    assert logits.shape == (2, 5, 2)
    assert deltas.shape == (2, 5, 4)
