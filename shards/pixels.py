"""Pictures on the CPU: decode, warp, encode. RGB uint8 arrays of shape (height, width, 3)."""

from __future__ import annotations

import io
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import Image, UnidentifiedImageError

from shards.geometry import Float, index_affine

__all__ = [
    "MAX_PIXELS",
    "MEAN_RGB",
    "STD_RGB",
    "Header",
    "Picture",
    "decode",
    "encode_jpeg",
    "header",
    "mean_rgb",
    "warp",
]

Picture = npt.NDArray[np.uint8]
Encoded = bytes | memoryview
MAX_PIXELS = 64_000_000  # larger headers are refused before anything is decoded

# ImageNet statistics, for RGB in 0..1, as the published trackers use them.
MEAN_RGB = (0.485, 0.456, 0.406)
STD_RGB = (0.229, 0.224, 0.225)

# Our own limit is checked first, on the header; Pillow's would only add a warning.
Image.MAX_IMAGE_PIXELS = None
_RGB_LIKE = {"RGB", "L", "1", "P"}


class Header(NamedTuple):
    """What a picture's header says: size in pixels, and whether it is a JPEG of grey or RGB."""

    width: int
    height: int
    plain_jpeg: bool


def header(data: Encoded) -> Header:
    """Read the header of a picture and refuse what would be decoded wrongly.

    Parameters
    ----------
    data : encoded JPEG, PNG or another format that Pillow reads

    Raises
    ------
    ValueError : if it is no picture, has over 64 Mpx, an EXIF rotation, or a mode without a single
        meaning as RGB (16 bit, alpha)
    """
    quick = _plain_jpeg(data)
    if quick is not None:
        return quick
    try:
        with Image.open(io.BytesIO(data)) as image:
            width, height = image.size
            mode, kind = image.mode, image.format
            transparent = "transparency" in image.info
            orientation = image.getexif().get(0x0112, 1) if b"Exif" in bytes(data[:65536]) else 1
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        start = bytes(data[:16])
        raise ValueError(f"not a picture ({len(data)} bytes that begin with {start!r})") from error
    if width * height > MAX_PIXELS:
        raise ValueError(f"header of {width}x{height} pixels, over the limit of {MAX_PIXELS:,}")
    if orientation not in (0, 1):
        raise ValueError(
            f"EXIF orientation {orientation}: boxes may be meant before or after the rotation; "
            "rotate the picture's pixels or remove the tag"
        )
    if mode == "CMYK" and kind == "JPEG":
        return Header(width, height, plain_jpeg=False)
    if mode not in _RGB_LIKE or transparent:
        raise ValueError(
            f"pixel mode {mode}{' with transparency' * transparent}, 8-bit grey or RGB needed"
        )
    return Header(width, height, plain_jpeg=kind == "JPEG")


def _plain_jpeg(data: Encoded) -> Header | None:
    """Header of a common JPEG, 8-bit grey or colour, much faster than by Pillow.

    None for anything else and for what may have an orientation or several pictures in it: then
    Pillow decides. Walks the markers up to that of the scan (ITU T.81, annex B).
    """
    end = len(data) - 10
    if end < 0 or data[0] != _MARK or data[1] != _START:
        return None
    found: Header | None = None
    at = 2
    while at < end and data[at] == _MARK:
        marker = data[at + 1]
        if marker == _SCAN:
            return found
        if marker in _FRAMES:
            height, width = data[at + 5] << 8 | data[at + 6], data[at + 7] << 8 | data[at + 8]
            common = data[at + 4] == 8 and data[at + 9] in (1, 3) and width and height
            if found is not None or not common or width * height > MAX_PIXELS:
                return None
            found = Header(width, height, plain_jpeg=True)
        elif marker not in _SEGMENTS or data[at + 4 : at + 8] == b"MPF\0":
            return None
        at += 2 + (data[at + 2] << 8 | data[at + 3])
    return None


_MARK, _START, _SCAN = 0xFF, 0xD8, 0xDA
_FRAMES = (0xC0, 0xC1, 0xC2)  # baseline, extended, progressive; Huffman codes
# Tables, comments and APPn, but for APP1 (Exif, XMP); APP2 may say that there are more pictures.
_SEGMENTS = frozenset({0xC4, 0xDB, 0xDD, 0xFE, 0xE0, *range(0xE2, 0xF0)})


def decode(data: Encoded) -> Picture:
    """Decode a picture to RGB, grey and CMYK included, without any EXIF rotation.

    Parameters
    ----------
    data : encoded JPEG (baseline or progressive), PNG or another format that Pillow reads

    Returns
    -------
    (H, W, 3) uint8

    Raises
    ------
    ValueError : if it is damaged or one of the pictures that `header` refuses
    """
    if header(data).plain_jpeg:
        try:
            return np.asarray(simplejpeg.decode_jpeg(data, "RGB"))
        except ValueError as error:
            raise ValueError(f"damaged JPEG: {error}") from error
    try:
        with Image.open(io.BytesIO(data)) as image:
            return np.array(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"damaged picture: {error}") from error


def mean_rgb(picture: Picture) -> Float:
    """Mean colour over all pixels, (3,) float32; exact sums."""
    return np.array(cv2.mean(picture)[:3], np.float32)


def warp(picture: Picture, picture_from_out: Float, out_px: int, border: Float) -> Picture:
    """Bilinear square crop through an affine.

    Parameters
    ----------
    picture : (H, W, 3) uint8
    picture_from_out : (2, 3), edge coordinates
    out_px : side of the result
    border : (3,) colour outside the picture

    Returns
    -------
    (out_px, out_px, 3) uint8
    """
    return np.asarray(
        cv2.warpAffine(
            picture,
            index_affine(picture_from_out),
            (out_px, out_px),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_CONSTANT,
            borderValue=[float(value) for value in border],
        )
    )


def encode_jpeg(picture: Picture, quality: int) -> bytes:
    """Baseline JPEG with 4:2:0 chroma, no restart markers and no metadata."""
    return bytes(simplejpeg.encode_jpeg(picture, quality, "RGB", "420", fastdct=False))
