"""A box and its score, drawn on a frame so that both can be read on any background and size."""

from __future__ import annotations

import cv2
import numpy as np

from shards.geometry import Float
from shards.pixels import Picture

__all__ = ["draw_box"]

BOX_RGB, INK_RGB = (80, 255, 80), (0, 0, 0)
FONT = cv2.FONT_HERSHEY_SIMPLEX


def draw_box(frame: Picture, box: Float, label: str = "") -> Picture:
    """Draw a box with a label above it, or inside it where there is no room above.

    Parameters
    ----------
    frame : (H,W,3) uint8 RGB
    box : (4,) xyxy, frame pixels (edge coordinates); may leave the frame
    label : one short line

    Returns
    -------
    (H,W,3) uint8 RGB, a new picture
    """
    out = np.ascontiguousarray(frame).copy()
    height, width = out.shape[:2]
    line = max(1, round(min(height, width) / 160))
    # A far box would overflow OpenCV's fixed-point coordinates.
    box = np.clip(box, [-4 * width, -4 * height] * 2, [5 * width, 5 * height] * 2)
    x0, y0 = (int(v) for v in np.rint(box[:2]))
    x1, y1 = (int(v) - 1 for v in np.rint(box[2:]))  # edge coordinates: the last pixel inside
    x1, y1 = max(x0, x1), max(y0, y1)
    for ring in range(-1, line + 1):  # outwards, so that a small object stays visible
        if x0 - ring <= x1 + ring and y0 - ring <= y1 + ring:
            color = BOX_RGB if 0 <= ring < line else INK_RGB
            cv2.rectangle(out, (x0 - ring, y0 - ring), (x1 + ring, y1 + ring), color, 1)
    if label:
        _write(out, label, x0, y0, line)
    return out


def _write(out: Picture, label: str, x: int, y: int, line: int) -> None:
    """Dark letters on a bright plate whose lower left corner is (x, y), moved into the picture."""
    height, width = out.shape[:2]
    scale = max(0.4, min(height, width) / 900)
    (wide, _), _ = cv2.getTextSize(label, FONT, scale, line)
    scale *= min(1.0, 0.9 * width / wide)
    (wide, high), below = cv2.getTextSize(label, FONT, scale, line)
    plate_h = high + below + 2
    left = max(0, min(x, width - wide - 4))
    top = y - plate_h if y >= plate_h else y
    top = max(0, min(top, height - plate_h))
    cv2.rectangle(out, (left, top), (left + wide + 3, top + plate_h), BOX_RGB, cv2.FILLED)
    at = (left + 2, top + high + 1)
    cv2.putText(out, label, at, FONT, scale, INK_RGB, line, cv2.LINE_AA)
