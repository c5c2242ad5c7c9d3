"""Slow forms of a tracking step: scalars, loops, float64, from the formulas alone.

The network's layers are the model's own; crop, decoding, suppression, regions, windows and the rule
are written anew. ``seen`` counts which branches of the rule were taken.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch
import tracker_oracle as oracle
from torch import Tensor

from loaders import reference

Box = Sequence[float]  # xyxy
seen: Counter[str] = Counter()


def side_of(w: float, h: float) -> float:
    p = (w + h) / 2
    return math.sqrt((w + p) * (h + p))


def crop(frame: np.ndarray, box: Box, grid: str, factor: float = 1.0) -> tuple[Tensor, Box]:
    """Normalised crop (1,3,255,255) float32 around a box, and the square that it shows."""
    w, h = box[2] - box[0], box[3] - box[1]
    side = side_of(w, h) * 255 / 127 * factor
    x0, y0 = (box[0] + box[2]) / 2 - side / 2, (box[1] + box[3]) / 2 - side / 2
    # outside is the mean: take it away and let zeros stand there, as fact 4 has it
    mean = frame.reshape(-1, 3).mean(0)
    pad = 1
    centred = np.pad(frame - mean, ((pad, pad), (pad, pad), (0, 0)))
    if grid == "corner":
        scale, first = side / 254, (x0, y0)
    else:
        scale, first = side / 255, (x0 + side / 510 - 0.5, y0 + side / 510 - 0.5)
    # index of output pixel i in the padded picture, as an affine of edge coordinates
    affine = np.array([[scale, 0, 0], [0, scale, 0]])
    affine[:, 2] = np.array(first) + pad + 0.5 - scale * 0.5
    pixels = reference.sample(centred, affine, (255, 255)) + mean
    pixels = (pixels / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    tensor = torch.from_numpy(pixels.transpose(2, 0, 1)[None].astype(np.float32))
    return tensor, (x0, y0, x0 + side, y0 + side)


def softmax_1(pair: Sequence[float]) -> float:
    return math.exp(pair[1]) / (math.exp(pair[0]) + math.exp(pair[1]))


def match(
    candidates: list[tuple[Box, float, float]], region: Box, last: Box, frame: np.ndarray, config
) -> tuple[list[float], float]:
    """Rule of SPM and SiamRPN; a candidate is box in the crop, score, window."""
    scale = (region[2] - region[0]) / 255
    lw, lh = last[2] - last[0], last[3] - last[1]
    best = None
    for box, score, window in candidates:
        w, h = (box[2] - box[0]) * scale, (box[3] - box[1]) * scale
        cx = (box[0] + box[2]) / 2 * scale + region[0]
        cy = (box[1] + box[3]) / 2 * scale + region[1]
        r_size = side_of(w, h) / side_of(lw, lh)
        r_ratio = (h / w) / (lh / lw)
        change = max(r_size, 1 / r_size) * max(r_ratio, 1 / r_ratio)
        pscore = math.exp(-(change - 1) * config.penalty_k) * score
        final = (1 - config.window) * pscore + config.window * window
        if best is None or final > best[0]:
            best = (final, pscore, cx, cy, w, h)
    _, pscore, cx, cy, w, h = best
    if pscore < config.min_score:
        seen["kept"] += 1
        return list(last), pscore
    frame_h, frame_w = frame.shape[:2]
    w = config.inter_rate * w + (1 - config.inter_rate) * lw
    h = config.inter_rate * h + (1 - config.inter_rate) * lh
    seen["moved"] += 1
    seen["centre clamped"] += not (0 <= cx <= frame_w and 0 <= cy <= frame_h)
    seen["enlarged"] += min(w, h) < config.min_box_px
    seen["cut"] += w > frame_w or h > frame_h
    cx, cy = min(max(cx, 0), frame_w), min(max(cy, 0), frame_h)
    w, h = (min(max(v, config.min_box_px), limit) for v, limit in ((w, frame_w), (h, frame_h)))
    return [cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2], pscore


def spm_step(model, start: tuple[np.ndarray, Box], frame: np.ndarray, last: Box):
    """Box and score of SPM in a frame, from the start (frame and box) and the last box."""
    config, grid = model.config.track.match, model.config.grid
    middle = 127.0 if grid == "corner" else 127.5
    shift = 124 - middle
    z, region = crop(*start, grid)
    z_scale = 255 / (region[2] - region[0])
    z_box = [(v - region[i % 2]) * z_scale for i, v in enumerate(start[1])]
    template = model.features(z)
    x, region = crop(frame, last, grid)
    search = model.features(x)
    maps = model.coarse(model.kernels(template), search)
    decoded = [
        oracle.decode(a, d, 1.0)
        for a, d in zip(model.anchors.tolist(), maps.deltas[0].tolist(), strict=True)
    ]
    coarse = [softmax_1(pair) for pair in maps.logits[0].tolist()]
    chosen = oracle.suppress(decoded, coarse, config.proposals.nms_iou, config.proposals.keep)
    seen["few"] += len(chosen) < config.proposals.keep
    joined = [torch.cat([f["conv2"], f["conv4"]], dim=1)[0].double() for f in (template, search)]
    part = oracle.roi_align(joined[0], z_box, 8, shift)
    pairs = [torch.cat([part, oracle.roi_align(joined[1], decoded[k], 8, shift)]) for k in chosen]
    relation = torch.relu(model.fm_fusion.post_convs(torch.stack(pairs).float()))
    logits, deltas = (t[0].tolist() for t in model.fm_head(relation[None]))
    candidates = []
    for i, k in enumerate(chosen):
        box = oracle.decode(decoded[k], deltas[i], 0.1)
        score = config.fine_weight * softmax_1(logits[i]) + (1 - config.fine_weight) * coarse[k]
        window = 1.0
        for centre in ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2):
            d = min(max((centre - middle) / 143 + 0.5, 0), 1)
            window *= 0.5 - 0.5 * math.cos(2 * 3.1415 * d)
        candidates.append((box, score, window))
    return match(candidates, region, last, frame, config)


def siamrpn_step(model, start: tuple[np.ndarray, Box], frame: np.ndarray, last: Box):
    """Box and score of SiamRPN in a frame."""
    config, grid = model.config.track.match, model.config.grid
    z, _ = crop(*start, grid)
    x, region = crop(frame, last, grid)
    maps = model.coarse(model.kernels(model.features(z)), model.features(x))
    logits, deltas = maps.logits[0].tolist(), maps.deltas[0].tolist()
    hann = [0.5 - 0.5 * math.cos(2 * math.pi * k / 16) for k in range(17)]
    candidates = []
    for row in range(17):
        for column in range(17):
            for shape in range(5):
                k = (row * 17 + column) * 5 + shape
                box = oracle.decode(model.anchors[k].tolist(), deltas[k], 1.0)
                candidates.append((box, softmax_1(logits[k]), hann[row] * hann[column]))
    return match(candidates, region, last, frame, config)


def cubic_rows(cells: int, samples: int) -> np.ndarray:
    """(samples, cells) weights of cubic convolution, a = -3/4, the outer samples on outer cells."""
    a, weights = -0.75, np.zeros((samples, cells))
    for i in range(samples):
        at = i * (cells - 1) / (samples - 1)
        low = math.floor(at)
        for k in range(low - 1, low + 3):
            d = abs(at - k)
            if d <= 1:
                w = (a + 2) * d**3 - (a + 3) * d**2 + 1
            elif d < 2:
                w = a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a
            else:
                w = 0.0
            weights[i, min(max(k, 0), cells - 1)] += w
    return weights


def siamfc_step(
    model, start: tuple[np.ndarray, Box], frame: np.ndarray, last: Box
) -> tuple[list[float], float]:
    """Box and score of SiamFC in a frame."""
    config, grid = model.config.track.scale, model.config.grid
    z, _ = crop(*start, grid)
    kernels = model.kernels(model.features(z))
    rows = cubic_rows(17, 17 * config.upsample)
    n = len(rows)
    best = None
    for s in (-1, 0, 1):
        x, region = crop(frame, last, grid, config.step**s)
        logits = model.response(kernels, model.features(x))[0].double().numpy()
        large = rows @ logits @ rows.T
        value = large.max() * config.penalty ** abs(s)
        if best is None or value > best[0]:
            best = (value, s, large, region)
    _, s, large, region = best
    seen[f"scale {s}"] += 1
    score = 1 / (1 + math.exp(-large.max()))
    large = (large - large.min()) / (large - large.min()).sum()
    hann = np.array([0.5 - 0.5 * math.cos(2 * math.pi * k / (n - 1)) for k in range(n)])
    window = np.outer(hann, hann) / np.outer(hann, hann).sum()
    mixed = (1 - config.window) * large + config.window * window
    row, column = divmod(int(mixed.argmax()), n)
    px = (region[2] - region[0]) / 255 * 8 / config.upsample
    if grid == "edge":
        px *= 16 * config.upsample / (n - 1)
    cx = (last[0] + last[2]) / 2 + (column - (n - 1) / 2) * px
    cy = (last[1] + last[3]) / 2 + (row - (n - 1) / 2) * px
    sides = []
    for i in (0, 1):
        first = start[1][2 + i] - start[1][i]
        side = last[2 + i] - last[i]
        if s:
            side *= 1 + config.inter_rate * (config.step**s - 1)
        seen["limited"] += not config.min_size * first <= side <= config.max_size * first
        sides.append(min(max(side, config.min_size * first), config.max_size * first))
    w, h = sides
    return [cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2], score
