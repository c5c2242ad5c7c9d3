"""The published SPM-AlexNet in NumPy and loops, float64, one pair at a time.

Written from the description of the model alone; it shares no code with `tracker`, nor with
`tracker_oracle`, so that a slip would have to be made twice. ``state`` is a state dict of NumPy
arrays under the published names, whatever their widths. Boxes are xyxy, pixels of the crop.
"""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

# Half width and half height of the five shapes; h/w = .33, .5, 1, 2, 3 at an area of 64 x 64.
HALF = ((55, 18), (45, 22), (32, 32), (22, 45), (18, 55))
CORNER_MIDDLE = 127.0  # middle of a crop of 255 pixel indices
LOG_8 = np.log(8)


def convolve(x, weight, bias, *, stride=1, padding=0):
    """(C,H,W) with (O,C,h,w): windows as rows of a matrix, times the filters as columns."""
    x = np.pad(x, ((0, 0), (padding, padding), (padding, padding)))
    windows = sliding_window_view(x, weight.shape[2:], axis=(1, 2))[:, ::stride, ::stride]
    c, h, w, *kernel = windows.shape
    rows = windows.transpose(1, 2, 0, 3, 4).reshape(h * w, c * kernel[0] * kernel[1])
    out = rows @ weight.reshape(len(weight), -1).T.astype(np.float64)
    if bias is not None:
        out = out + bias
    return out.T.reshape(len(weight), h, w)


def pool(x):
    """3x3 maximum of stride 2; the padding of 1 never wins."""
    x = np.pad(x, ((0, 0), (1, 1), (1, 1)), constant_values=-np.inf)
    return sliding_window_view(x, (3, 3), axis=(1, 2))[:, ::2, ::2].max(axis=(3, 4))


def alexnet(state, image):
    """(3,255,255) -> conv1..conv5, after ReLU and pool."""
    layers = {"conv1": (2, 5), "conv2": (1, 2), "conv3": (1, 1), "conv4": (1, 1), "conv5": (1, 1)}
    features, x = {}, image
    for name, (stride, padding) in layers.items():
        weight, bias = (state[f"z_net.{name}.conv.{part}"] for part in ("weight", "bias"))
        x = np.maximum(convolve(x, weight, bias, stride=stride, padding=padding), 0)
        if name in ("conv1", "conv2"):
            x = pool(x)
        features[name] = x
    return features


def correlate(state, branch, outputs, template, search, fusion="cm_fusion"):
    """One branch: convolved centres, then every filter at every one of the 17x17 places."""
    z, x = template[:, 13:19, 13:19], search[:, 5:27, 5:27]
    z_weight, z_bias, x_weight, x_bias = (
        state[f"{fusion}.{side}_conv.{branch}.{part}"]
        for side in "zx"
        for part in ("weight", "bias")
    )
    filters = convolve(z, z_weight, z_bias).reshape(outputs, len(x_weight), 4, 4)
    moved = convolve(x, x_weight, x_bias)
    out = np.empty((outputs, 17, 17))
    for row in range(17):
        for column in range(17):
            place = moved[:, row : row + 4, column : column + 4]
            out[:, row, column] = (filters * place).sum(axis=(1, 2, 3))
    return out


def coarse(state, template, search, fusion="cm_fusion", head="cm_head"):
    """Logits (1445,2) and deltas (1445,4); channel a*2+class and a*4+k of anchor a."""
    maps = []
    for branch, (kind, outputs) in enumerate((("cls", 10), ("reg", 20))):
        out = correlate(state, branch, outputs, template, search, fusion)
        weight, bias = (state[f"{head}.{kind}_convs.0.{part}"] for part in ("weight", "bias"))
        maps.append(np.tensordot(weight[:, :, 0, 0], out, axes=1) + bias[:, None, None])
    logits, deltas = np.empty((1445, 2)), np.empty((1445, 4))
    for row in range(17):
        for column in range(17):
            for shape in range(5):
                k = (row * 17 + column) * 5 + shape
                logits[k] = [maps[0][shape * 2 + c, row, column] for c in range(2)]
                deltas[k] = [maps[1][shape * 4 + d, row, column] for d in range(4)]
    return logits, deltas


def anchors(middle=CORNER_MIDDLE):
    boxes = []
    for row in range(17):
        for column in range(17):
            x, y = middle + 8 * (column - 8), middle + 8 * (row - 8)
            boxes += [[x - w, y - h, x + w, y + h] for w, h in HALF]
    return np.array(boxes)


def move(box, delta, std=1.0):
    """Move a box by deltas: the centre by sizes, the sizes by exponents within +-log 8."""
    dx, dy, dw, dh = np.asarray(delta) * std
    w, h = box[2] - box[0], box[3] - box[1]
    x, y = (box[0] + box[2]) / 2 + dx * w, (box[1] + box[3]) / 2 + dy * h
    w, h = w * np.exp(np.clip(dw, -LOG_8, LOG_8)), h * np.exp(np.clip(dh, -LOG_8, LOG_8))
    return np.array([x - w / 2, y - h / 2, x + w / 2, y + h / 2])


def deltas_to(box, target, std=1.0):
    w, h = box[2] - box[0], box[3] - box[1]
    dx = ((target[0] + target[2]) - (box[0] + box[2])) / 2 / w
    dy = ((target[1] + target[3]) - (box[1] + box[3])) / 2 / h
    dw, dh = np.log((target[2] - target[0]) / w), np.log((target[3] - target[1]) / h)
    return np.array([dx, dy, dw, dh]) / std


def overlap(a, b):
    w, h = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = w * h if w > 0 and h > 0 else 0.0
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared
    return shared / union


def target_score(logits):
    """Probability of class 1."""
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return shifted[..., 1] / shifted.sum(axis=-1)


def proposals(logits, deltas, keep, threshold, middle=CORNER_MIDDLE):
    """Best boxes of all 1,445, none of which overlaps a better one by more than the threshold."""
    boxes = [move(a, d) for a, d in zip(anchors(middle), deltas, strict=True)]
    scores = target_score(logits)
    kept = []
    for k in np.argsort(-scores):
        if all(overlap(boxes[k], boxes[j]) <= threshold for j in kept):
            kept.append(k)
        if len(kept) == keep:
            break
    return np.array([boxes[k] for k in kept]), scores[kept]


def at(feature, y, x):
    """Bilinear value (C,) at a place in cells; zero far outside, the outer cell near outside."""
    _, h, w = feature.shape
    if not (-1 <= y <= h and -1 <= x <= w):
        return np.zeros(len(feature))
    y, x = min(max(y, 0), h - 1), min(max(x, 0), w - 1)
    top, left = int(np.floor(y)), int(np.floor(x))
    bottom, right = min(top + 1, h - 1), min(left + 1, w - 1)
    upper = feature[:, top, left] * (left + 1 - x) + feature[:, top, right] * (x - left)
    lower = feature[:, bottom, left] * (left + 1 - x) + feature[:, bottom, right] * (x - left)
    return upper * (top + 1 - y) + lower * (y - top)


def region(features, box, middle=CORNER_MIDDLE):
    """(C,6,6) of concatenated features: each bin the mean of four values, at its thirds.

    The map's middle, cell 15.5 or pixel 124, stands for the middle of the crop: -3 px for 127.
    """
    joined = np.concatenate(features)
    x0, y0, x1, y1 = ((edge + 15.5 * 8 - middle) / 8 for edge in box)
    bin_w, bin_h = (x1 - x0) / 6, (y1 - y0) / 6
    out = np.empty((len(joined), 6, 6))
    for i in range(6):
        for j in range(6):
            total = np.zeros(len(joined))
            for a in (1 / 3, 2 / 3):
                for b in (1 / 3, 2 / 3):
                    total += at(joined, y0 + (i + a) * bin_h, x0 + (j + b) * bin_w)
            out[:, i, j] = total / 4
    return out


def fine(state, template_features, search_features, template_box, boxes, middle=CORNER_MIDDLE):
    """Logits (N,2) and deltas (N,4) of boxes: relation of regions, then two hidden layers."""
    template = region(template_features, template_box, middle)
    logits, deltas = [], []
    for box in boxes:
        pair = np.concatenate([template, region(search_features, box, middle)])
        weight, bias = (state[f"fm_fusion.post_convs.0.{part}"] for part in ("weight", "bias"))
        x = np.maximum(convolve(pair, weight, bias), 0).reshape(-1)  # channel, row, column
        for layer in ("feat_fcs.0", "feat_fcs.2"):
            x = np.maximum(state[f"fm_head.{layer}.weight"] @ x + state[f"fm_head.{layer}.bias"], 0)
        logits.append(state["fm_head.cls_fc.weight"] @ x + state["fm_head.cls_fc.bias"])
        deltas.append(state["fm_head.reg_fc.weight"] @ x + state["fm_head.reg_fc.bias"])
    return np.array(logits), np.array(deltas)


def labels_of(overlaps, positive, high, low, least):
    """1 positive, 0 negative, -1 ignored."""
    labels = np.full(len(overlaps), -1)
    labels[overlaps < low] = 0
    labels[overlaps >= high] = 1
    if overlaps.max() >= least:
        labels[overlaps == overlaps.max()] = 1
    if not positive or not (labels == 1).any():
        labels[:] = 0
    return labels


def chosen(labels, order):
    """At most 16 positives and 64 in all; `order` is the random order of the anchors."""
    ones = [k for k in order if labels[k] == 1][:16]
    zeros = [k for k in order if labels[k] == 0][: 64 - len(ones)]
    kept = np.full(len(labels), -1)
    kept[ones], kept[zeros] = 1, 0
    return kept


def stage_loss(batch):
    """Both terms of a stage; of each image (logits, deltas, labels, wanted deltas)."""
    cls = reg = positives = negatives = 0.0
    for logits, deltas, labels, wanted in batch:
        for pair, delta, label, want in zip(logits, deltas, labels, wanted, strict=True):
            if label >= 0:
                cls += np.logaddexp(*pair) - pair[label]
            if label == 1:
                reg += np.abs(delta - want).sum()
        positives += max((labels == 1).sum(), 1)
        negatives += max((labels == 0).sum(), 1)
    return cls / (positives + negatives), reg / positives


def coarse_targets(logits, deltas, pair, middle=CORNER_MIDDLE):
    """What `stage_loss` wants of one image for the anchors."""
    box, all_anchors = pair["search_box"], anchors(middle)
    overlaps = np.array([overlap(a, box) for a in all_anchors])
    labels = chosen(labels_of(overlaps, pair["positive"], 0.60, 0.30, 0.50), pair["order"])
    return logits, deltas, labels, [deltas_to(a, box) for a in all_anchors]


def losses(state, pairs, middle=CORNER_MIDDLE, features=alexnet, fine_names=("conv2", "conv4")):
    """Four terms of a batch of dicts: template, search, both boxes, positive, order."""
    cm, fm = [], []
    for pair in pairs:
        z, x = features(state, pair["template"]), features(state, pair["search"])
        last = list(z)[-1]
        logits, deltas = coarse(state, z[last], x[last])
        box, positive = pair["search_box"], pair["positive"]
        cm.append(coarse_targets(logits, deltas, pair, middle))
        boxes, _ = proposals(logits, deltas, 12, 0.75, middle)
        boxes = np.concatenate([[box], boxes])
        judged = fine(
            state,
            [z[n] for n in fine_names],
            [x[n] for n in fine_names],
            pair["template_box"],
            boxes,
            middle,
        )
        overlaps = np.array([overlap(b, box) for b in boxes])
        labels = labels_of(overlaps, positive, 0.50, 0.45, 0.45)
        fm.append((*judged, labels, [deltas_to(b, box, 0.1) for b in boxes]))
    terms = [*stage_loss(cm), *stage_loss(fm)]
    return dict(zip(("cm_cls", "cm_reg", "fm_cls", "fm_reg"), terms, strict=True))
