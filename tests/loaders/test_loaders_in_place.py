"""The loader reads tars, zips and folders of the same crops alike."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
import synthetic
import torch

from loaders.config import PairConfig
from loaders.loader import PairLoader
from shards.in_place import index_folder, index_zip
from shards.legacy import export_legacy


@pytest.fixture(scope="module")
def forms(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Parents of two data sets each: as shards, and used in place as zips and as folders."""
    folder = tmp_path_factory.mktemp("forms")
    for name, kind, frames in (("lasot", "video", 8), ("coco", "image", 1)):
        synthetic.pack(folder / "tar", name, sequences=5, frames=frames, kind=kind, others=2)
        old = export_legacy(folder / "tar" / name, folder / "old")
        index_zip(old.zip, old.pickle, folder / "zip" / name, name=name)
        with zipfile.ZipFile(old.zip) as archive:
            archive.extractall(folder / "crops" / name)
        index_folder(
            folder / "crops" / name, old.pickle, folder / "folder" / name, name=name, grid="edge"
        )
    return {form: folder / form for form in ("tar", "zip", "folder")}


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_identical_batches(forms: dict[str, Path], backend: str) -> None:
    found = {}
    for form, path in forms.items():
        config = PairConfig(
            path=str(path), backend=backend, threads=1, template_px=63, search_px=95, seed=3
        )
        with PairLoader(
            config, rank=0, world_size=1, device=torch.device("cpu"), batch_size=4
        ) as loader:
            batches = iter(loader)
            found[form] = [next(batches) for _ in range(3)]
    for form in ("zip", "folder"):
        for one, other in zip(found["tar"], found[form], strict=True):
            for name in (
                "template",
                "search",
                "template_box",
                "search_box",
                "other_boxes",
                "other_mask",
                "positive",
                "sample",
            ):
                np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    spread = torch.stack([batch.search.float().std() for batch in found["zip"]])
    assert (spread > 10).all()  # pictures, not one colour
