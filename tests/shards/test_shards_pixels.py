"""Decoding what is a picture, refusing what would be decoded wrongly."""

from __future__ import annotations

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
import synthetic
from PIL import Image

from shards import pixels
from shards.geometry import crop_region, region_affine

PICTURE = synthetic.picture(3, 96)


def encoded(mode: str = "RGB", kind: str = "JPEG", **options: object) -> bytes:
    out = io.BytesIO()
    Image.fromarray(PICTURE).convert(mode).save(out, kind, **options)
    return out.getvalue()


def test_rgb_jpeg_equals_pillow() -> None:
    data = encoded(quality=95)
    np.testing.assert_array_equal(pixels.decode(data), np.array(Image.open(io.BytesIO(data))))


def test_grey_becomes_three_equal_channels() -> None:
    picture = pixels.decode(encoded("L"))
    assert picture.shape == (96, 96, 3)
    assert (picture[..., 0] == picture[..., 1]).all()
    assert (picture[..., 0] == picture[..., 2]).all()


def test_progressive_equals_baseline() -> None:
    baseline = encoded(quality=90)
    progressive = encoded(quality=90, progressive=True)
    assert baseline != progressive
    np.testing.assert_array_equal(pixels.decode(progressive), pixels.decode(baseline))


def test_cmyk_and_png_are_converted() -> None:
    assert pixels.decode(encoded("CMYK")).shape == (96, 96, 3)
    np.testing.assert_array_equal(pixels.decode(encoded(kind="PNG")), PICTURE)


@pytest.mark.parametrize("keep", [0, 2, 20, 600])
def test_truncated_jpeg_is_refused(keep: int) -> None:
    with pytest.raises(ValueError, match=r"damaged JPEG|not a picture"):
        pixels.decode(encoded()[:keep])


def test_scrambled_stream_is_refused_or_decoded_never_crashes() -> None:
    data = bytearray(encoded())
    data[700:710] = b"\xff\xd9" * 5
    with pytest.raises(ValueError, match="damaged JPEG"):
        pixels.decode(bytes(data))


def test_an_html_page_is_no_picture() -> None:
    with pytest.raises(ValueError, match=r"not a picture .*<html>"):
        pixels.decode(b"<html><body>404</body></html>")


def test_alpha_16_bit_and_rotation_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match="RGBA"):
        pixels.decode(encoded("RGBA", "PNG"))
    deep = io.BytesIO()
    Image.fromarray(np.zeros((4, 4), np.uint16)).save(deep, "PNG")
    with pytest.raises(ValueError, match="I;16"):
        pixels.decode(deep.getvalue())
    exif = Image.Exif()
    exif[0x0112] = 6
    with pytest.raises(ValueError, match="EXIF orientation 6"):
        pixels.decode(encoded(exif=exif))


def test_a_huge_header_is_refused_before_decoding() -> None:
    data = bytearray(encoded())
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", 65500, 65500)
    with pytest.raises(ValueError, match="65500x65500"):
        pixels.decode(bytes(data))
    head = b"IHDR" + struct.pack(">IIBBBBB", 65535, 65535, 8, 2, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + head + struct.pack(">I", zlib.crc32(head))
    with pytest.raises(ValueError, match="65535x65535"):
        pixels.header(png + b"\x00\x00\x00\x00IEND\xaeB`\x82")


def test_written_jpegs_are_baseline_420_without_restart_markers() -> None:
    data = pixels.encode_jpeg(PICTURE, 90)
    assert data == pixels.encode_jpeg(PICTURE, 90)
    assert b"\xff\xc0" in data
    assert b"\xff\xc2" not in data
    assert b"\xff\xdd" not in data
    sampling = data[data.index(b"\xff\xc0") + 11]
    assert sampling == 0x22
    with Image.open(io.BytesIO(data)) as image:
        reference = io.BytesIO()
        Image.fromarray(PICTURE).save(reference, "JPEG", quality=90)
        assert image.quantization == Image.open(reference).quantization  # type: ignore[attr-defined]


def test_mean_is_exact() -> None:
    np.testing.assert_allclose(
        pixels.mean_rgb(PICTURE), PICTURE.reshape(-1, 3).mean(axis=0), rtol=1e-6
    )


@pytest.mark.parametrize("grid", ["edge", "corner"])
def test_warp_equals_slow_interpolation(grid: str) -> None:
    """Bilinear, the colour of the border outside the picture, within one level."""
    region = crop_region(np.array([60.0, 20, 90, 70]), 64)
    affine = region_affine(region, 64, grid)  # type: ignore[arg-type]
    border = np.array([10.0, 20, 30])
    fast = pixels.warp(PICTURE, affine, 64, border).astype(int)
    padded = np.pad(PICTURE.astype(float) - border, ((200, 200), (200, 200), (0, 0)))
    slow = np.empty((64, 64, 3))
    for i in range(64):
        for j in range(64):
            x, y = affine @ np.array([j + 0.5, i + 0.5, 1]) - 0.5 + 200
            x0, y0 = int(np.floor(x)), int(np.floor(y))
            fx, fy = x - x0, y - y0
            top = padded[y0, x0] * (1 - fx) + padded[y0, x0 + 1] * fx
            bottom = padded[y0 + 1, x0] * (1 - fx) + padded[y0 + 1, x0 + 1] * fx
            slow[i, j] = top * (1 - fy) + bottom * fy + border
    difference = np.abs(fast - slow)
    assert difference.max() <= 1
    assert difference.mean() < 0.3
    assert cv2.getVersionMajor() >= 5  # older ones round positions to 1/32 px


def spliced(data: bytes, marker: int, body: bytes) -> bytes:
    """JPEG with one more segment after its start."""
    return data[:2] + struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body + data[2:]


def variants() -> dict[str, bytes]:
    exif = Image.Exif()
    exif[0x0112] = 1
    data = encoded()
    return {
        "rgb": data,
        "grey": encoded("L"),
        "cmyk": encoded("CMYK"),
        "progressive": encoded(progressive=True),
        "optimised": encoded(optimize=True),
        "4:4:4": encoded(subsampling=0),
        "restarts": encoded(restart_marker_blocks=2),
        "comment": encoded(comment=b"Exif is only said here"),
        "upright": encoded(exif=exif),
        "profile": encoded(icc_profile=b"x" * 70_000),
        "xmp": spliced(data, 0xE1, b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta/>"),
        "several pictures": spliced(data, 0xE2, b"MPF\0II*\0"),
        "arithmetic": data.replace(b"\xff\xc0", b"\xff\xc9", 1),
        "12 bit": data.replace(b"\xff\xc0\x00\x11\x08", b"\xff\xc0\x00\x11\x0c", 1),
        "no width": data.replace(b"\x08\x00\x60\x00\x60", b"\x08\x00\x60\x00\x00", 1),
        "no scan": data[: data.index(b"\xff\xda")],
        "two frames": data.replace(b"\xff\xc0", data[data.index(b"\xff\xc0") :][:19] + b"\xff\xc0"),
        "odd segment": spliced(data, 0xF3, b"?"),
        "filled": data.replace(b"\xff\xdb", b"\xff\xff\xdb", 1),
    }


def outcome(data: bytes) -> object:
    try:
        return pixels.header(data)
    except ValueError as error:
        return str(error)


@pytest.mark.filterwarnings("ignore:Image appears to be a malformed MPO")
@pytest.mark.parametrize("name", variants())
def test_the_quick_header_agrees_with_pillow(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = variants()[name]
    quick = pixels._plain_jpeg(data)
    found = outcome(data)
    assert outcome(memoryview(data)) == found
    monkeypatch.setattr(pixels, "_plain_jpeg", lambda _data: None)
    assert outcome(data) == found
    common = {"rgb", "grey", "progressive", "optimised", "4:4:4", "restarts", "comment", "profile"}
    assert (quick is not None) == (name in common)


@pytest.mark.parametrize("keep", range(0, 700, 7))
def test_the_quick_header_of_a_cut_jpeg(keep: int, monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded()[:keep]
    found = outcome(data)
    monkeypatch.setattr(pixels, "_plain_jpeg", lambda _data: None)
    assert outcome(data) == found
