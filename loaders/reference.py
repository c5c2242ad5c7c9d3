"""The judge of the other backends: Pillow decodes, plain NumPy does the rest, slow and obvious."""

from __future__ import annotations

import io

import numpy as np
import torch
from PIL import Image

from loaders.work import Crops, Pixels, Work, as_tensor
from shards.geometry import Float

__all__ = ["ReferenceBackend", "color", "decode", "warp"]


def decode(data: bytes | memoryview) -> Pixels:
    """Decode a whole picture with Pillow: (H, W, 3) uint8 RGB."""
    with Image.open(io.BytesIO(data)) as image:
        return np.array(image.convert("RGB"))


def warp(picture: Pixels, frame_from_crop: Float, out_px: int) -> Pixels:
    """Bilinear crop, rounded; outside the picture its edge pixels go on.

    Parameters
    ----------
    picture : (H, W, 3) uint8
    frame_from_crop : (2, 3), edge coordinates
    out_px : side of the result

    Returns
    -------
    (out_px, out_px, 3) uint8
    """
    height, width = picture.shape[:2]
    centre = np.arange(out_px) + 0.5
    x, y = np.meshgrid(centre, centre)
    points = frame_from_crop @ np.stack([x.ravel(), y.ravel(), np.ones(out_px**2)]) - 0.5
    low = np.floor(points).astype(np.int64)
    fx, fy = (points - low)[..., None]
    x0, x1 = np.clip(low[0], 0, width - 1), np.clip(low[0] + 1, 0, width - 1)
    y0, y1 = np.clip(low[1], 0, height - 1), np.clip(low[1] + 1, 0, height - 1)
    source = picture.astype(np.float64)
    top = source[y0, x0] * (1 - fx) + source[y0, x1] * fx
    bottom = source[y1, x0] * (1 - fx) + source[y1, x1] * fx
    out = np.rint(top * (1 - fy) + bottom * fy).astype(np.uint8)
    return np.asarray(out.reshape(out_px, out_px, 3))


def color(picture: Pixels, matrix: Float) -> Pixels:
    """Apply a (3, 4) colour matrix to RGB and 1; rounded and clipped to 0..255."""
    out = picture.astype(np.float64) @ matrix[:, :3].T + matrix[:, 3]
    return np.clip(np.rint(out), 0, 255).astype(np.uint8)


def crops(work: Crops, channels_last: bool) -> Pixels:
    """Results of B crops, (B, 3, S, S) or (B, S, S, 3) uint8."""
    out = []
    for i in range(len(work)):
        data = work.read(i)
        try:
            picture = decode(data)
        except (OSError, SyntaxError, ValueError) as error:
            raise work.bad(i, f"not decodable: {error}") from error
        result = warp(picture, work.params.frame_from_crop[i], work.params.out_px)
        out.append(color(result, work.params.color[i]))
    stacked = np.stack(out)
    return stacked if channels_last else np.ascontiguousarray(stacked.transpose(0, 3, 1, 2))


class ReferenceBackend:
    """See the module."""

    def __init__(self, channels_last: bool = False) -> None:
        self._channels_last = channels_last

    def start(self, work: Work) -> Work:
        """Nothing happens before the batch is wanted."""
        return work

    def finish(
        self,
        handle: Work,
        timeout_s: float,  # noqa: ARG002 (nothing is waited for)
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Make the batch."""
        last = self._channels_last
        z, x = crops(handle.template, last), crops(handle.search, last)
        return as_tensor(z, last), as_tensor(x, last)

    def close(self, wait: bool = True) -> None:
        """Nothing to give back."""
