"""The judge of the other backends: Pillow decodes, plain NumPy does the rest, slow and obvious."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from loaders.batch import as_tensor
from loaders.blur import BlurStep
from loaders.occlusion import Occluder
from loaders.recipe import Params
from loaders.work import CLOSE_S, Crops, Pixels, Work
from shards.geometry import Float, region_affine

__all__ = ["ReferenceBackend", "blur", "color", "decode", "occlude", "render", "sample", "warp"]


def decode(data: bytes | memoryview) -> Pixels:
    """Decode a whole picture with Pillow: (H, W, 3) uint8 RGB."""
    with Image.open(io.BytesIO(data)) as image:
        return np.array(image.convert("RGB"))


def sample(picture: Pixels, picture_from_out: Float, out_hw: tuple[int, int]) -> Float:
    """Bilinear samples; outside the picture its edge pixels go on.

    Parameters
    ----------
    picture : (H, W, 3) uint8
    picture_from_out : (2, 3), edge coordinates
    out_hw : height and width of the result

    Returns
    -------
    (*out_hw, 3) float64, not rounded
    """
    height, width = picture.shape[:2]
    x, y = np.meshgrid(np.arange(out_hw[1]) + 0.5, np.arange(out_hw[0]) + 0.5)
    points = picture_from_out @ np.stack([x.ravel(), y.ravel(), np.ones(x.size)]) - 0.5
    low = np.floor(points).astype(np.int64)
    fx, fy = (points - low)[..., None]
    x0, x1 = np.clip(low[0], 0, width - 1), np.clip(low[0] + 1, 0, width - 1)
    y0, y1 = np.clip(low[1], 0, height - 1), np.clip(low[1] + 1, 0, height - 1)
    source = picture.astype(np.float64)
    top = source[y0, x0] * (1 - fx) + source[y0, x1] * fx
    bottom = source[y1, x0] * (1 - fx) + source[y1, x1] * fx
    return np.asarray(top * (1 - fy) + bottom * fy).reshape(*out_hw, 3)


def warp(picture: Pixels, frame_from_crop: Float, out_px: int) -> Pixels:
    """Square crop through an affine, rounded: (out_px, out_px, 3) uint8."""
    return np.rint(sample(picture, frame_from_crop, (out_px, out_px))).astype(np.uint8)


def occlude(picture: Pixels, occluder: Occluder) -> Pixels:
    """Cover a rectangle; the blend is cut to whole levels, as published."""
    x0, y0, x1, y1 = occluder.box
    if occluder.offset is not None:
        fill = picture.mean((0, 1), np.float64) + occluder.offset
    else:
        fill = sample(picture, occluder.picture_from_patch(), occluder.size)
    out = picture.copy()
    blend = occluder.alpha * fill + (1 - occluder.alpha) * picture[y0:y1, x0:x1]
    out[y0:y1, x0:x1] = np.clip(blend, 0, 255).astype(np.uint8)
    return out


def blur(picture: Pixels, step: BlurStep) -> Pixels:
    """Blur a whole picture; outside it its edge pixels go on."""
    if step.kernel is None:
        side, small = len(picture), step.small_px
        whole = np.array([0.0, 0, side, side])
        down = warp(picture, region_affine(whole, small, "edge"), small)
        return warp(down, region_affine(whole * small / side, side, "edge"), side)
    margin = step.margin_px
    wide = np.pad(picture.astype(np.float64), ((margin, margin), (margin, margin), (0, 0)), "edge")
    height, width = picture.shape[:2]
    out = np.zeros(picture.shape)
    for (y, x), weight in np.ndenumerate(step.kernel):
        out += weight * wide[y : y + height, x : x + width]
    return np.clip(np.rint(out), 0, 255).astype(np.uint8)


def color(picture: Pixels, matrix: Float) -> Pixels:
    """Apply a (3, 4) colour matrix to RGB and 1; rounded and clipped to 0..255."""
    out = picture.astype(np.float64) @ matrix[:, :3].T + matrix[:, 3]
    return np.clip(np.rint(out), 0, 255).astype(np.uint8)


def render(picture: Pixels, params: Params, i: int) -> Pixels:
    """Crop i of a batch from its decoded picture: (out_px, out_px, 3) uint8."""
    if i in params.occluders:
        picture = occlude(picture, params.occluders[i])
    if i in params.blurs:
        picture = blur(picture, params.blurs[i])
    return color(warp(picture, params.frame_from_crop[i], params.out_px), params.color[i])


def crops(work: Crops, encoded: Sequence[memoryview], channels_last: bool) -> Pixels:
    """Results of B crops from their encoded pictures, (B, 3, S, S) or (B, S, S, 3) uint8."""
    out = []
    for i, data in enumerate(encoded):
        try:
            picture = decode(data)
        except (OSError, SyntaxError, ValueError) as error:
            raise work.bad(i, f"not decodable: {error}") from error
        out.append(render(picture, work.params, i))
    stacked = np.stack(out)
    return stacked if channels_last else np.ascontiguousarray(stacked.transpose(0, 3, 1, 2))


@dataclass(frozen=True, slots=True)
class Handle:
    """A batch and its encoded pictures, templates first."""

    work: Work
    encoded: tuple[list[memoryview], list[memoryview]]


class ReferenceBackend:
    """See the module."""

    def __init__(self, channels_last: bool = False) -> None:
        self._channels_last = channels_last

    def start(self, work: Work) -> Handle:
        """Read the pictures; the rest happens when the batch is wanted."""
        z, x = ([half.read(i) for i in range(len(half))] for half in (work.template, work.search))
        return Handle(work, (z, x))

    def finish(
        self,
        handle: Handle,
        timeout_s: float,  # noqa: ARG002 (nothing is waited for)
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Make the batch."""
        last, (z, x) = self._channels_last, handle.encoded
        template = crops(handle.work.template, z, last)
        search = crops(handle.work.search, x, last)
        return as_tensor(template, last), as_tensor(search, last)

    def close(self, timeout_s: float = CLOSE_S) -> None:
        """Nothing to give back."""
