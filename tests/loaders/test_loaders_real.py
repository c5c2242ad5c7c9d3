"""Real pictures of all four data sets: a sheet of every type, and boxes that sit on the targets.

The boxes of crops are held against the *raw* frames and the *raw* annotation files, read here anew:
what is inside both boxes must look the same.
"""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from loaders.cli import main
from loaders.config import PUBLISHED_WEIGHTS, PairConfig
from loaders.loader import make_backend
from loaders.plan import PAIR_KINDS
from loaders.recipe import Augment, Recipe
from loaders.sets import DataSet, open_sets
from loaders.work import prepare
from shards.format import Sample

SIDE = 24  # of what is compared
Box = npt.NDArray[np.float64]


def test_a_row_for_every_data_set_and_kind(real_packed_all: Path, tmp_path: Path) -> None:
    out = tmp_path / "types.png"
    arguments = ["show", "--data", str(real_packed_all), "--by-type", "--samples", "0:2",
                 "--backend", "cpu", "--out", str(out)]  # fmt: skip
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    assert "Warning" not in result.stderr
    with Image.open(out) as image:
        rows = len(PUBLISHED_WEIGHTS) * len(PAIR_KINDS)
        assert image.width == 2 * (510 + 4) + 4
        assert (image.height - 4) % rows == 0
        assert 290 < (image.height - 4) // rows < 340
        sheet = np.asarray(image.convert("L"))
    height = (sheet.shape[0] - 4) // rows
    for row in range(rows):  # no place is empty
        for column in range(2):
            at = sheet[4 + row * height :, 4 + column * 514 :][:255, :510]
            assert at[:, :255].std() > 5
            assert at[:, 255:].std() > 5


@cache
def _coco(raw: Path) -> dict[str, list[list[float]]]:
    """Boxes (x, y, w, h) by the picture's name, in the order of the file: the tracks."""
    (file,) = (raw / "coco" / "annotations").glob("*.json")
    facts = json.loads(file.read_text())
    names = {one["id"]: one["file_name"] for one in facts["images"]}
    boxes: dict[str, list[list[float]]] = {}
    for one in facts["annotations"]:
        if one["iscrowd"] or min(one["bbox"][2:]) < 4:  # as packed by default
            continue
        boxes.setdefault(names[one["image_id"]], []).append(one["bbox"])
    return boxes


def _raw(raw: Path, name: str, sample: Sample) -> tuple[Path, Box]:
    """Raw frame of a sample, and the box x0, y0, x1, y1 of its target."""
    assert sample.source is not None
    if name == "coco":
        x, y, w, h = _coco(raw)[Path(sample.source).name][sample.track]
        picture = raw / "coco" / "images" / sample.source
    else:
        picture = raw / name / sample.source
        if name == "trackingnet":
            part, _, sequence, _ = Path(sample.source).parts
            file, line = raw / name / part / "anno" / f"{sequence}.txt", int(picture.stem)
        else:
            folder = picture.parent.parent if name == "lasot" else picture.parent
            file, line = folder / "groundtruth.txt", int(picture.stem) - 1
        x, y, w, h = (float(part) for part in file.read_text().splitlines()[line].split(","))
    return picture, np.array([x, y, x + w, y + h])


def _patch(image: Image.Image, box: Box) -> npt.NDArray[np.float64] | None:
    """What is in a box, grey, at one size; None if it leaves the picture."""
    x0, y0, x1, y1 = (float(edge) for edge in box)
    if min(x0, y0) < 0 or x1 > image.width or y1 > image.height or min(x1 - x0, y1 - y0) < 8:
        return None
    small = image.convert("L").resize((SIDE, SIDE), Image.Resampling.BILINEAR, (x0, y0, x1, y1))
    return np.asarray(small, np.float64)


def _alike(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> float:
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


def _geometry_only() -> Recipe:
    def bare(augment: Augment) -> Augment:
        return Augment(flip=augment.flip, scale=augment.scale, shift=augment.shift,
                       keep_aspect=augment.keep_aspect)  # fmt: skip

    plain = Recipe()
    crops = ("image_z", "image_x", "video_z", "video_x")
    return replace(plain, grey=0.0, **{name: bare(getattr(plain, name)) for name in crops})


@pytest.mark.parametrize("name", list(PUBLISHED_WEIGHTS))
def test_boxes_sit_on_the_targets_of_the_raw_frames(
    real_packed_all: Path, real_data: Path, name: str
) -> None:
    config = PairConfig(
        path=str(real_packed_all / name), backend="reference", channels_last=True,
        recipe=_geometry_only(),
    )  # fmt: skip
    sets = open_sets(config)
    _, backend = make_backend(config, sets, 24, torch.device("cpu"))
    work = prepare(sets, config, 0, 0, 24)
    pixels = backend.finish(backend.start(work), 60)
    backend.close()
    there, beside = [], []
    halves = ((work.template, work.template_box), (work.search, work.search_box))
    for (crops, boxes), tensor in zip(halves, pixels, strict=True):
        for i in range(len(work)):
            source: Any = crops.sources[i]
            assert isinstance(source, DataSet)
            picture, target = _raw(real_data, name, source.index.sample(int(crops.rows[i])))
            crop = Image.fromarray(tensor[i].permute(1, 2, 0).numpy())
            box = boxes[i].astype(np.float64)
            cut = _patch(crop, box)
            # a fourth of its size to the side: to see that this measure can tell
            moved = _patch(crop, box + np.tile((box[2:] - box[:2]) / 4, 2))
            with Image.open(picture) as raw:
                known = _patch(raw, target)
            if cut is None or moved is None or known is None:
                continue
            if crops.params.flipped[i]:
                cut, moved = cut[:, ::-1], moved[:, ::-1]
            there.append(_alike(cut, known))
            beside.append(_alike(moved, known))
    assert len(there) >= 12
    assert min(there) > 0.9
    assert np.median(there) > 0.97
    assert np.median(beside) < 0.8
