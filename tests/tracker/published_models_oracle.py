"""The other published models in NumPy, float64, one pair at a time; see `published_oracle`."""

from __future__ import annotations

import numpy as np
from published_oracle import convolve, pool


def normalised(state, name, x):
    """Batch normalisation with the statistics of the file."""
    weight, bias, mean, variance = (
        state[f"{name}.{part}"][:, None, None]
        for part in ("weight", "bias", "running_mean", "running_var")
    )
    return (x - mean) / np.sqrt(variance + 1e-5) * weight + bias


def resnet18(state, image):
    """(3,255,255) -> conv1..conv4: the stem has no padding, conv4 no stride."""
    x = convolve(image, state["z_net.conv1.0.weight"], None, stride=2)
    x = pool(np.maximum(normalised(state, "z_net.conv1.1", x), 0))
    features = {"conv1": x}
    for stage, stride in (("conv2", 1), ("conv3", 2), ("conv4", 1)):
        for number in (0, 1):
            block, step = f"z_net.{stage}.{number}", stride if number == 0 else 1
            inner = convolve(x, state[f"{block}.conv1.weight"], None, stride=step, padding=1)
            inner = np.maximum(normalised(state, f"{block}.bn1", inner), 0)
            inner = convolve(inner, state[f"{block}.conv2.weight"], None, padding=1)
            inner = normalised(state, f"{block}.bn2", inner)
            if f"{block}.downsample.0.weight" in state:
                x = convolve(x, state[f"{block}.downsample.0.weight"], None, stride=step)
                x = normalised(state, f"{block}.downsample.1", x)
            x = np.maximum(x + inner, 0)
        features[stage] = x
    return features


def layer(state, name, x):
    """Convolution without padding, with bias."""
    return convolve(x, state[f"{name}.weight"], state[f"{name}.bias"])


def depthwise(state, template, search):
    """Logits (1445,2) and deltas (1445,4) of the depth-wise SiamRPN."""
    filters = layer(state, "fusion.z_conv", template[:, 13:19, 13:19])
    moved = layer(state, "fusion.x_conv", search[:, 3:29, 3:29])
    joined = np.empty((len(filters), 21, 21))
    for row in range(21):
        for column in range(21):
            place = moved[:, row : row + 4, column : column + 4]
            joined[:, row, column] = (place * filters).sum(axis=(1, 2))
    for number in (0, 2):
        joined = np.maximum(layer(state, f"head.pre_convs.{number}", joined), 0)
    cls, reg = (layer(state, f"head.{kind}_convs.0", joined) for kind in ("cls", "reg"))
    # (5 * values, row, column) -> (row, column, 5, values)
    parts = [m.reshape(5, -1, 17, 17).transpose(2, 3, 0, 1) for m in (cls, reg)]
    return tuple(part.reshape(1445, -1) for part in parts)


def siamfc(state, template, search):
    """Logits (17,17) of SiamFC: one shared convolution, one correlation over everything."""
    filters = layer(state, "fusion.z_conv", template[:, 13:19, 13:19])
    moved = layer(state, "fusion.z_conv", search[:, 5:27, 5:27])
    out = np.empty((17, 17))
    for row in range(17):
        for column in range(17):
            out[row, column] = (moved[:, row : row + 6, column : column + 6] * filters).sum()
    return 0.001 * out + state["head.score_bias"][0]


def siamfc_labels(box, middle):
    """(17,17): 1 nearer than 24 px to the middle of the box, 0 farther than 30, else -1."""
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    labels = np.full((17, 17), -1)
    for row in range(17):
        for column in range(17):
            distance = abs(middle + 8 * (column - 8) - x) + abs(middle + 8 * (row - 8) - y)
            if distance < 24:
                labels[row, column] = 1
            elif distance > 30:
                labels[row, column] = 0
    return labels


def siamfc_loss(batch):
    """Mean over images of the balanced cross entropy; of each image (logits, labels)."""
    total = 0.0
    for logits, labels in batch:
        kinds = [kind for kind in (0, 1) if (labels == kind).any()]
        for kind in kinds:
            wanted = logits[labels == kind]
            total += np.logaddexp(0, -wanted if kind else wanted).mean() / len(kinds)
    return total / len(batch)
