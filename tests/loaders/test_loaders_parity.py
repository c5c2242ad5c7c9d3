"""Every backend against the reference on equal pictures and parameters; decoders apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import simplejpeg
import synthetic
import torch
from nvidia.dali import fn, pipeline_def

import loaders.cpu
import loaders.dali
from loaders import reference
from loaders.blur import Blur
from loaders.config import BackendName, DaliConfig, PairConfig
from loaders.cpu import Bench
from loaders.loader import PairLoader, make_backend
from loaders.occlusion import Occlusion
from loaders.recipe import Augment, Jitter, Recipe
from loaders.sets import open_sets
from loaders.work import prepare
from shards.geometry import Grid
from shards.pixels import encode_jpeg

# Largest and mean difference in grey levels. One rounding of the warp, times the gain of the colour
# matrix (at most e^0.3), and one of the colour: 2 levels, for few pixels. Crops at exactly half a
# pixel (nothing drawn: 95.5) are all ties, which DALI rounds up and the reference to even.
MOST, MEAN, MEAN_OF_TIES = 2, 0.06, 0.2
FAST = ("cpu", "dali-cpu")


def only(kind: str) -> Blur:
    """One kind of blur, always, in all its sizes."""
    shares = dict.fromkeys(("gaussian", "average", "down_up", "motion"), 0.0) | {kind: 1.0}
    changed = {name: replace(getattr(Blur(), name), weight=w) for name, w in shares.items()}
    return Blur(p=1.0, **changed)


def always(**changes: object) -> Augment:
    """Every step on, for every sample."""
    jitters = {
        "brightness": Jitter(p=1.0, delta=30.0),
        "contrast": Jitter(p=1.0, delta=0.3),
        "hue": Jitter(p=1.0, delta=12.0),
        "saturation": Jitter(p=1.0, delta=0.2),
    }
    return Augment(flip=0.5, scale=0.18, shift=64.0, keep_aspect=False, **jitters, **changes)  # type: ignore[arg-type]


PLAIN = Augment(scale=0.0, shift=0.0)
MOVED = Augment(flip=0.5, scale=0.1, shift=9.0)  # off the half pixels, where all is ties
STEPS = {
    "nothing": PLAIN,
    "flip": replace(PLAIN, flip=1.0),
    "geometry": replace(PLAIN, flip=0.5, scale=0.18, shift=64.0, keep_aspect=False),
    "outside": replace(PLAIN, scale=0.5, shift=150.0),
    "brightness": replace(PLAIN, brightness=Jitter(p=1.0, delta=90.0)),
    "contrast": replace(PLAIN, contrast=Jitter(p=1.0, delta=0.3)),
    "hue": replace(PLAIN, hue=Jitter(p=1.0, delta=12.0)),
    "saturation": replace(PLAIN, saturation=Jitter(p=1.0, delta=0.2)),
    "rotation": replace(PLAIN, rotation=Jitter(p=1.0, delta=15.0), scale=0.1),
    "gaussian": replace(MOVED, blur=only("gaussian")),
    "average": replace(MOVED, blur=only("average")),
    "down-up": replace(MOVED, blur=only("down_up")),
    "motion": replace(MOVED, blur=only("motion")),
    "blur outside": replace(PLAIN, scale=0.5, shift=150.0, blur=Blur(p=1.0)),
    "colour occluder": replace(MOVED, occlusion=Occlusion(p=1.0, patch=0.0)),
    "patch occluder": replace(MOVED, occlusion=Occlusion(p=1.0, patch=1.0)),
    "all": always(),
    "all and more": always(
        rotation=Jitter(p=0.5, delta=15.0), blur=Blur(p=0.7), occlusion=Occlusion(p=0.7)
    ),
}


def recipe_of(step: Augment, grey: float = 0.0) -> Recipe:
    return Recipe(image_z=step, image_x=step, video_z=step, video_x=step, grey=grey)


def batch(data: Path, backend: str, recipe: Recipe, **changes: object) -> tuple[torch.Tensor, ...]:
    config = PairConfig(
        path=str(data),
        backend=backend,
        recipe=recipe,
        threads=1,
        **changes,  # type: ignore[arg-type]
    )
    with PairLoader(config, batch_size=8) as loader:
        one = next(loader)
    return one.template, one.search, one.template_box, one.search_box, one.other_boxes


def assert_close(
    data: Path, recipe: Recipe, backends: Sequence[str] = FAST, ties: bool = False, **changes: Any
) -> None:
    """Backends give the reference's crops and boxes; it is slow, so it makes its own once."""
    expected = batch(data, "reference", recipe, **changes)
    for backend in backends:
        found = batch(data, backend, recipe, **changes)
        mean = MEAN_OF_TIES if ties and backend == "dali-cpu" else MEAN
        for a, b in zip(expected[:2], found[:2], strict=True):
            same = (a.shape, a.dtype, a.stride()) == (b.shape, b.dtype, b.stride())
            assert same, backend
            difference = (a.float() - b.float()).abs()
            assert difference.max() <= MOST, backend
            assert difference.mean() <= mean, backend
        for a, b in zip(expected[2:], found[2:], strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=0)


@pytest.mark.parametrize("step", STEPS)
def test_each_step_alone_and_all_together(packed: Path, step: str) -> None:
    assert_close(packed, recipe_of(STEPS[step]), ties=STEPS[step].scale == 0)


@pytest.mark.parametrize("step", ["geometry", "outside", "all and more"])
def test_whole_pictures_in_dali_give_the_same_crops(packed: Path, step: str) -> None:
    assert_close(packed, recipe_of(STEPS[step]), ["dali-cpu"], dali=DaliConfig(region=False))


def test_grey(packed: Path) -> None:
    assert_close(packed, recipe_of(always(), grey=1.0))


@pytest.mark.parametrize(
    "changes", [{"template_px": 127}, {"channels_last": True}, {"search_px": 303}]
)
def test_sizes_and_layouts(packed: Path, changes: dict[str, object]) -> None:
    assert_close(packed, Recipe(), **changes)


@pytest.mark.parametrize("grid", ["edge", "corner"])
def test_grids(tmp_path: Path, grid: Grid) -> None:
    synthetic.pack(tmp_path, sequences=2, frames=6, grid=grid)
    assert_close(tmp_path, recipe_of(always()))


@pytest.mark.parametrize("backend", FAST)
def test_normalised_pixels(packed: Path, backend: str) -> None:
    mean = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
    expected = (batch(packed, backend, Recipe())[1] / 255 - mean) / std
    steps = {"float16": 2e-3, "bfloat16": 1.6e-2, "float32": 2e-6}
    for pixels, channels_last in product(steps, (False, True)):
        found = batch(packed, backend, Recipe(), pixels=pixels, channels_last=channels_last)[1]
        layout = torch.channels_last if channels_last else torch.contiguous_format
        assert found.is_contiguous(memory_format=layout), pixels
        assert found.dtype == getattr(torch, pixels)
        torch.testing.assert_close(found.float(), expected, rtol=0, atol=steps[pixels])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("step", STEPS)
def test_dali_on_the_gpu(packed: Path, step: str) -> None:
    """The GPU's JPEG decoder rounds differently: its own tolerance."""
    config = PairConfig(path=str(packed), backend="dali", recipe=recipe_of(STEPS[step]))
    expected = batch(packed, "reference", recipe_of(STEPS[step]))
    with PairLoader(config, device="cuda", batch_size=8) as loader:
        found = next(loader)
    for a, b in ((expected[0], found.template), (expected[1], found.search)):
        difference = (a.float() - b.cpu().float()).abs()
        assert difference.mean() <= 1.0
        assert torch.quantile(difference[::3].flatten()[:1_000_000], 0.999) <= 8
    torch.testing.assert_close(expected[3], found.search_box.cpu(), rtol=0, atol=0)


def test_real_pictures(real_packed: Path) -> None:
    assert_close(real_packed, Recipe())
    assert_close(real_packed, recipe_of(always()))


def test_backend_names_are_all_compared() -> None:
    assert set(get_args(BackendName)) == {"auto", "dali", "reference", *FAST}


def test_whole_decoders_agree() -> None:
    """Pillow and simplejpeg are both libjpeg-turbo: equal pixels."""
    data = encode_jpeg(synthetic.picture(5, 446), 90)
    np.testing.assert_array_equal(reference.decode(data), simplejpeg.decode_jpeg(data, "RGB"))


class Given:
    """A batch of one picture, for a decoder."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def read(self, i: int) -> memoryview:
        return memoryview(self.data)


@pytest.mark.parametrize(
    "region",
    [
        (0, 0, 40, 30),
        (95, 80, 350, 335),
        (101, 33, 102, 34),
        (300, 310, 446, 446),
        (0, 0, 446, 446),
    ],
)
def test_region_decode_equals_the_whole_picture(region: tuple[int, int, int, int]) -> None:
    noise = (np.sin(np.arange(446 * 446 * 3) * 1.7) * 60 + 128).reshape(446, 446, 3)
    data = encode_jpeg(noise.astype(np.uint8), 90)
    bench = Bench(446)
    for _ in range(2):  # the second time into the same memory
        found, (x, y) = bench.decode(Given(data), 0, np.array(region))  # type: ignore[arg-type]
        left, top, right, bottom = region
        part = found[top - y : bottom - y, left - x : right - x]
        np.testing.assert_array_equal(part, reference.decode(data)[top:bottom, left:right])


def test_cpu_decodes_small_regions_and_whole_pictures(
    packed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both ways are taken, by the share of the picture that a crop touches."""
    config = PairConfig(path=str(packed), backend="cpu", template_px=127, search_px=403, threads=1)
    sets = open_sets(config)
    _, backend = make_backend(config, sets, 4, torch.device("cpu"))
    origins = []
    original = loaders.cpu.Bench.decode

    def watched(*arguments: object) -> object:
        picture, origin = original(*arguments)  # type: ignore[arg-type]
        origins.append((picture.shape, origin))
        return picture, origin

    monkeypatch.setattr(loaders.cpu.Bench, "decode", watched)
    backend.finish(backend.start(prepare(sets, config, 0, 0, 20)), 60)
    backend.close()
    whole = [one for one in origins if one == ((446, 446, 3), (0, 0))]
    assert len(origins) == 40
    assert 1 <= len(whole) <= 20  # no template


@pytest.mark.slow
def test_decoding_again_and_again_takes_no_memory() -> None:
    """`np.asarray` of nvImageCodec's pictures leaks 32 bytes a call: 3.8 MB a minute once."""

    def anonymous_kb() -> int:
        text = Path("/proc/self/smaps_rollup").read_text()
        return int(text.partition("Pss_Anon:")[2].split()[0])

    data = Given(encode_jpeg(synthetic.picture(5, 446), 90))
    bench, region = Bench(446), np.array([0, 0, 24, 24])
    before = 0
    for number in range(44_000):
        if number == 4000:
            before = anonymous_kb()
        bench.decode(data, 0, region)  # type: ignore[arg-type]
    assert anonymous_kb() - before < 500  # 40,000 calls of 32 bytes would be 1,250


def with_orientation(jpeg: bytes, orientation: int) -> bytes:
    """A JPEG with an Exif segment that asks to be shown rotated."""
    tiff = (
        b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0" + bytes([orientation]) + b"\0\0\0\0\0\0"
    )
    body = b"Exif\0\0" + tiff
    return jpeg[:2] + b"\xff\xe1" + (len(body) + 2).to_bytes(2, "big") + body + jpeg[2:]


@pytest.mark.parametrize("orientation", [3, 6])
@pytest.mark.parametrize("region", [(40, 30, 200, 260), (0, 0, 446, 446)])
def test_pixels_stay_where_they_are_stored_whatever_exif_says(
    orientation: int, region: tuple[int, int, int, int]
) -> None:
    plain = encode_jpeg(synthetic.picture(5, 446), 90)
    data = with_orientation(plain, orientation)
    left, top, right, bottom = region
    expected = simplejpeg.decode_jpeg(plain, "RGB")[top:bottom, left:right]
    found, (x, y) = Bench(446).decode(Given(data), 0, np.array(region))  # type: ignore[arg-type]
    np.testing.assert_array_equal(found[top - y : bottom - y, left - x : right - x], expected)
    np.testing.assert_array_equal(reference.decode(data)[top:bottom, left:right], expected)
    np.testing.assert_array_equal(dali_decoded(data, region, None), expected)


def dali_decoded(
    data: bytes, region: tuple[int, int, int, int], device_id: int | None
) -> np.ndarray:
    """Region of a picture by the decoder of DALI's graph alone."""
    left, top, right, bottom = region

    @pipeline_def(batch_size=1, num_threads=1, device_id=device_id, prefetch_queue_depth=1)
    def alone() -> object:
        inputs = [
            np.frombuffer(data, np.uint8),
            np.array([top, left], np.int32),
            np.array([bottom - top, right - left], np.int32),
        ]
        nodes = [fn.external_source([[value]]) for value in inputs]
        return loaders.dali.decode(nodes, gpu=device_id is not None, config=DaliConfig())

    pipe = alone()
    pipe.build()
    (found,) = pipe.run()
    return np.array((found if device_id is None else found.as_cpu()).at(0))


@pytest.mark.parametrize("region", [(0, 0, 446, 446), (95, 80, 350, 335), (301, 33, 302, 34)])
def test_dalis_decoder_alone(region: tuple[int, int, int, int]) -> None:
    """On the CPU it is libjpeg-turbo too: equal pixels."""
    data = encode_jpeg(synthetic.picture(7, 446), 90)
    left, top, right, bottom = region
    expected = reference.decode(data)[top:bottom, left:right]
    np.testing.assert_array_equal(dali_decoded(data, region, None), expected)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_dalis_decoder_alone_on_the_gpu() -> None:
    data = encode_jpeg(synthetic.picture(7, 446), 90)
    found = dali_decoded(data, (95, 80, 350, 335), 0)
    difference = np.abs(found.astype(int) - reference.decode(data)[80:335, 95:350])
    assert difference.mean() <= 1.0
    assert np.quantile(difference, 0.999) <= 8
