"""One frame to one crop: the worked example, grids, odd pictures, frames that are left out."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from lasot_tree import picture
from PIL import Image

from packer.crop import Cropper, cut
from packer.jobs import Clip, Job
from packer.source import FolderSource
from shards import pixels
from shards.geometry import Grid, boxes_to_regions


def slow_crop(
    frame: np.ndarray, border: np.ndarray, box: np.ndarray, size: int, grid: Grid
) -> np.ndarray:
    """Oracle: TRACKING.md 2.1 pixel by pixel, bilinear, in float64."""
    w, h = box[2] - box[0], box[3] - box[1]
    p = (w + h) / 2
    side = np.sqrt((w + p) * (h + p)) * size / 127
    start = (box[:2] + box[2:]) / 2 - side / 2
    height, width = frame.shape[:2]
    out = np.empty((size, size, 3))

    def at(x: int, y: int) -> np.ndarray:
        return frame[y, x].astype(float) if 0 <= x < width and 0 <= y < height else border

    for j in range(size):
        for i in range(size):
            if grid == "edge":
                x, y = start + (np.array([i, j]) + 0.5) * side / size - 0.5
            else:
                x, y = start + np.array([i, j]) * side / (size - 1)
            x0, y0 = int(np.floor(x)), int(np.floor(y))
            fx, fy = x - x0, y - y0
            out[j, i] = (at(x0, y0) * (1 - fx) + at(x0 + 1, y0) * fx) * (1 - fy) + (
                at(x0, y0 + 1) * (1 - fx) + at(x0 + 1, y0 + 1) * fx
            ) * fy
    return out


@pytest.mark.parametrize("grid", ["edge", "corner"])
def test_worked_example(grid: Grid) -> None:
    box = np.array([349.0, 193, 408, 298])
    frame = np.zeros((480, 640, 3), np.uint8)
    crop, region = cut(frame, np.zeros(3, np.float32), box, size=446, grid=grid)
    assert crop.shape == (446, 446, 3)
    np.testing.assert_allclose(region, [93.3775, -39.6225, 663.6225, 530.6225], atol=5e-5)
    projected = boxes_to_regions(box, region, 446)
    np.testing.assert_allclose(projected, [199.9275, 181.9387, 246.0725, 264.0613], atol=5e-5)


@pytest.mark.parametrize("grid", ["edge", "corner"])
@pytest.mark.parametrize("box", [(30.0, 20.0, 60.5, 44.0), (-5.0, -4.0, 9.0, 14.0)])
def test_pixels_against_the_slow_oracle(grid: Grid, box: tuple[float, ...]) -> None:
    frame = pixels.decode(picture(3))
    mean = frame.reshape(-1, 3).mean(axis=0)
    crop, _ = cut(frame, mean.astype(np.float32), np.array(box), size=131, grid=grid)
    filled = np.rint(mean)  # a border is 8 bits, like the picture
    expected = slow_crop(frame, filled, np.array(box), 131, grid)
    assert np.abs(crop - expected).max() <= 0.6  # rounding, and OpenCV's float32


def cropper(root: Path, *, skip: bool = False, size: int = 127) -> Cropper:
    return Cropper(
        source=FolderSource(root),
        size=size,
        quality=90,
        grid="edge",
        skip=skip,
        tick=lambda: None,
    )


def job(names: list[str], boxes: list[list[float]] | None = None) -> Job:
    count = len(names)
    clip = Clip(
        sequence="car-1",
        track=0,
        category="car",
        kind="video",
        fps=30.0,
        pictures_at="in",
        source_at="out",
        numbers=np.arange(1, count + 1, dtype=np.int32),
        pictures=tuple(names),
        boxes=np.array(boxes or [[20, 20, 50, 40]] * count, float),
        visible=np.ones(count, np.float32),
    )
    return Job(shard="lasot-000000.tar", clips=(clip,))


def write(root: Path, **files: bytes) -> list[str]:
    (root / "in").mkdir()
    for name, data in files.items():
        (root / "in" / f"{name}.jpg").write_bytes(data)
    return [f"{name}.jpg" for name in files]


def jpeg(mode: str, **options: object) -> bytes:
    out = io.BytesIO()
    Image.open(io.BytesIO(picture(5))).convert(mode).save(out, "JPEG", quality=95, **options)
    return out.getvalue()


def test_grey_and_progressive_pictures(tmp_path: Path) -> None:
    names = write(
        tmp_path, grey=jpeg("L"), progressive=jpeg("RGB", progressive=True), plain=jpeg("RGB")
    )
    made = list(cropper(tmp_path).samples(job(names)))
    assert [sample.frame for sample, _ in made] == [1, 2, 3]
    grey, progressive, plain = (pixels.decode(data).astype(int) for _, data in made)
    assert np.abs(progressive - plain).max() <= 2
    assert np.ptp(grey, axis=2).max() <= 2  # red, green and blue agree
    assert np.ptp(plain, axis=2).max() > 50
    grey_mean = made[0][0].mean_rgb
    assert np.ptp(grey_mean) == 0


def test_facts_of_a_sample(tmp_path: Path) -> None:
    names = write(tmp_path, a=picture(1), b=picture(2))
    sample, data = next(cropper(tmp_path, size=446).samples(job(names)))
    assert (sample.key, sample.kind, sample.fps) == ("car-1/0_00000001", "video", 30.0)
    assert (sample.source, sample.source_size) == ("out/a.jpg", (96, 72))
    assert sample.visible == 1.0
    frame = pixels.decode(picture(1)).reshape(-1, 3)
    np.testing.assert_allclose(sample.mean_rgb, frame.mean(axis=0), rtol=1e-6)
    centre = (sample.boxes[0, :2] + sample.boxes[0, 2:]) / 2
    np.testing.assert_allclose(centre, [223, 223], atol=1e-4)
    back = sample.region[:2] + sample.boxes[0, :2] * (sample.region[2] - sample.region[0]) / 446
    np.testing.assert_allclose(back, [20, 20], atol=1e-3)
    assert pixels.decode(data).shape == (446, 446, 3)


@pytest.mark.parametrize(
    "damaged",
    [picture(1)[:-200], picture(1)[:300], b"", b"<html>404</html>", picture(1)[2:]],
    ids=["truncated", "header only", "empty", "html", "no start"],
)
def test_unreadable_pictures(tmp_path: Path, damaged: bytes) -> None:
    names = write(tmp_path, a=picture(1), b=damaged, c=picture(3), d=picture(4))
    skipping, failing = cropper(tmp_path, skip=True), cropper(tmp_path)
    assert [sample.frame for sample, _ in skipping.samples(job(names))] == [1, 3, 4]
    (example,) = skipping.tally.facts()["examples"]["unreadable"]
    assert skipping.tally.rejected == {"unreadable": 1}
    assert (example["frame"], example["picture"]) == ("car-1/2", "out/b.jpg")
    assert len(example["box"]) == 4
    list(failing.samples(job(names)))
    assert [one.where for one in failing.unreadable] == ["in/b.jpg"]


def test_a_picture_that_is_gone_is_unreadable(tmp_path: Path) -> None:
    names = [*write(tmp_path, a=picture(1), b=picture(2)), "gone.jpg"]
    found = cropper(tmp_path, skip=True)
    assert len(list(found.samples(job(names)))) == 2
    assert "No such file" in found.unreadable[0].what


@pytest.mark.parametrize(
    ("box", "outside"),
    [
        ([96, 10, 120, 30], True),
        ([95.5, 10, 120, 30], False),
        ([-30, 10, 0, 30], True),
        ([-30, 10, 0.5, 30], False),
        ([10, 72, 30, 90], True),
        ([10, -20, 30, 0], True),
        ([10, -20, 30, 1], False),
        ([-500, -500, 600, 600], False),
    ],
)
def test_boxes_that_do_not_touch_the_picture(
    tmp_path: Path, box: list[float], outside: bool
) -> None:
    names = write(tmp_path, a=picture(1), b=picture(2), c=picture(3))
    inside = [20.0, 20.0, 50.0, 40.0]
    found = cropper(tmp_path)
    made = list(found.samples(job(names, [inside, box, inside])))
    assert [sample.frame for sample, _ in made] == ([1, 3] if outside else [1, 2, 3])
    assert found.tally.rejected == ({"outside": 1} if outside else {})


def test_a_track_of_one_readable_frame_is_dropped(tmp_path: Path) -> None:
    names = write(tmp_path, a=b"no", b=picture(2), c=b"no")
    found = cropper(tmp_path, skip=True)
    assert list(found.samples(job(names))) == []
    assert found.tally.rejected == {"unreadable": 2, "short_track": 1}
    assert found.tally.examples["short_track"] == ["car-1/2"]


def exif_rotated() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return jpeg("RGB", exif=exif)


def png(mode: str) -> bytes:
    out = io.BytesIO()
    if mode == "16 bit":
        Image.fromarray(np.full((72, 96), 40_000, np.uint16)).save(out, "PNG")
    else:
        Image.open(io.BytesIO(picture(5))).convert(mode).save(out, "PNG")
    return out.getvalue()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (png("RGBA"), "pixel mode RGBA, 8-bit grey or RGB needed"),
        (png("LA"), "pixel mode LA"),
        (png("16 bit"), "pixel mode I;16"),
        (exif_rotated(), "EXIF orientation 6"),
    ],
    ids=["RGBA", "grey with alpha", "16 bit", "rotated"],
)
def test_pictures_without_one_meaning_are_refused_by_name(
    tmp_path: Path, data: bytes, reason: str
) -> None:
    names = write(tmp_path, a=picture(1), b=data, c=picture(3))
    found = cropper(tmp_path, skip=True)
    assert [sample.frame for sample, _ in found.samples(job(names))] == [1, 3]
    assert found.unreadable[0].where == "in/b.jpg"
    assert reason in found.unreadable[0].what
    assert found.tally.rejected == {"unreadable": 1}


def test_cmyk_and_plain_png_are_read(tmp_path: Path) -> None:
    names = write(tmp_path, cmyk=jpeg("CMYK"), png=png("RGB"), plain=jpeg("RGB"))
    made = [pixels.decode(data).astype(int) for _, data in cropper(tmp_path).samples(job(names))]
    for other in made[:2]:
        assert np.abs(other - made[2]).mean() < 3
