"""What holds for every data set; a new one is enrolled by one line in `CASES`."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import got10k_tree
import lasot_tree
import numpy as np
import pytest
import trackingnet_tree
from lasot_tree import hashes, packed_frames

from packer.datasets import lasot
from packer.datasets.got10k import Got10k
from packer.datasets.trackingnet import TrackingNet
from packer.filters import Filters
from packer.jobs import PackOptions
from packer.run import pack
from packer.sequence import REASONS, DataSet, Sequence
from packer.source import FolderSource
from shards.errors import DataError, MismatchError
from shards.format import Manifest, sample_key
from shards.index import Index
from shards.verify import verify


@dataclass(frozen=True)
class Case:
    """A data set, and a small sound tree of it."""

    dataset: DataSet
    tree: Callable[[Path], Path]  # writes the tree into a folder that it makes, and returns it
    victim: str  # glob of everything that belongs to one sequence
    names: tuple[str, ...]  # of the training sequences in packing order

    def __repr__(self) -> str:
        return self.dataset.NAME


LASOT = ("car-1", "car-3", "dog-2", "dog-3", "dog-10")
GOT10K = tuple(got10k_tree.name_of(number) for number in (2, 7, 10))
CASES = [
    Case(lasot, lasot_tree.small_tree, "car/car-3", LASOT),
    Case(Got10k(), got10k_tree.small_tree, f"train/{GOT10K[1]}", GOT10K),
    Case(TrackingNet(), trackingnet_tree.small_tree, "TRAIN_1/*/A63*", trackingnet_tree.NAMES),
]


@pytest.fixture(scope="module", params=CASES, ids=repr)
def case(request: pytest.FixtureRequest) -> Case:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def tree(case: Case, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return case.tree(tmp_path_factory.mktemp("raw") / case.dataset.NAME)


def options_of(case: Case, **more: Any) -> PackOptions:
    given: dict[str, Any] = {"stride": 1, "min_size": case.dataset.MIN_SIZE, "size": 127}
    return PackOptions(**{**given, "frames_per_shard": 16, **more})


def read_all(case: Case, root: Path) -> dict[str, Sequence]:
    source = FolderSource(root)
    return {
        one.name: case.dataset.read(source, one)
        for one in case.dataset.survey(source, "train").found
    }


def test_it_describes_itself(case: Case) -> None:
    dataset = case.dataset
    sample_key(dataset.NAME, 0, 0)
    assert dataset.NAME.lower() == dataset.NAME
    assert "<root>" in dataset.LAYOUT
    assert dataset.STRIDE >= 1
    assert dataset.MIN_SIZE >= 1
    assert dataset.SPLITS[0] == "train"
    assert json.loads(json.dumps(dataset.options())) == dataset.options()


def test_it_finds_its_sequences_in_a_fixed_order(case: Case, tree: Path) -> None:
    source = FolderSource(tree)
    survey = case.dataset.survey(source, "train")
    assert tuple(one.name for one in survey.found) == case.names
    assert survey.problems == ()
    assert case.dataset.survey(source, "train") == survey
    assert not set(survey.missing) & set(case.names)
    assert len(set(survey.missing)) == len(survey.missing)


def test_what_it_reads_has_one_shape(case: Case, tree: Path) -> None:
    for name, one in read_all(case, tree).items():
        count = len(one.numbers)
        assert one.name == name
        assert one.category
        assert one.kind in ("image", "video")
        assert one.problems == ()
        assert (one.numbers.dtype, one.xywh.dtype) == (np.int32, np.float64)
        assert (one.absent.dtype, one.fault.dtype) == (bool, np.int8)
        assert one.xywh.shape == (count, 4)
        assert len(one.absent) == len(one.fault) == len(one.pictures) == count
        assert (np.diff(one.numbers) > 0).all()
        assert one.visible is None or (one.visible.dtype, len(one.visible)) == (np.float32, count)
        for picture in one.pictures:
            assert (tree / one.pictures_at / picture).is_file()
        assert not one.source_at.startswith("/")


def test_a_partial_tree_moves_nothing_else(case: Case, tree: Path, tmp_path: Path) -> None:
    whole = read_all(case, tree)
    root = Path(shutil.copytree(tree, tmp_path / "raw"))
    for path in list(root.glob(case.victim)):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    left = read_all(case, root)
    (gone,) = whole.keys() - left.keys()
    for name, one in left.items():
        assert one.xywh.tolist() == whole[name].xywh.tolist()
        assert (one.numbers.tolist(), one.pictures) == (
            whole[name].numbers.tolist(),
            whole[name].pictures,
        )
        assert (one.category, one.source_at) == (whole[name].category, whole[name].source_at)
    assert gone in case.names


def test_a_missing_picture_is_malformed(case: Case, tree: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(tree, tmp_path / "raw"))
    name = case.names[0]
    one = read_all(case, root)[name]
    (root / one.pictures_at / one.pictures[2]).unlink()
    damaged = read_all(case, root)[name]
    assert [REASONS[code] for code in damaged.fault.tolist() if code >= 0] == ["no_picture"]
    assert damaged.fault[2] >= 0
    assert len(damaged.problems) == 1


def test_an_empty_root_says_what_is_expected(case: Case, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        case.dataset.survey(FolderSource(tmp_path), "train")
    assert case.dataset.LAYOUT in str(caught.value)


def test_workers_and_an_enclosing_folder_change_no_bytes(
    case: Case, tree: Path, tmp_path: Path
) -> None:
    options = options_of(case)
    shutil.copytree(tree, tmp_path / "raw/downloads")
    pack(case.dataset, tree, tmp_path / "one", options, workers=1)
    pack(case.dataset, tmp_path / "raw", tmp_path / "two", options, workers=2)
    one, two = hashes(tmp_path / "one"), hashes(tmp_path / "two")
    assert len(Manifest.read(tmp_path / "one").shards) > 1
    assert one == two
    assert verify(tmp_path / "one", 1).ok
    for frame in packed_frames(tmp_path / "one"):
        assert not frame["source"].startswith(("/", "raw/", "downloads/"))


def test_an_archive_of_the_tree_gives_the_same_bytes(
    case: Case, tree: Path, tmp_path: Path
) -> None:
    (tmp_path / "raw").mkdir()
    with zipfile.ZipFile(tmp_path / "raw/download.zip", "w") as archive:
        for path in sorted(tree.rglob("*")):
            archive.write(path, path.relative_to(tree))
    options = options_of(case, stride=4)
    pack(case.dataset, tree, tmp_path / "one", options, workers=1)
    pack(case.dataset, tmp_path / "raw", tmp_path / "two", options, workers=1)
    assert hashes(tmp_path / "one") == hashes(tmp_path / "two")


def test_names_choose_sequences(case: Case, tree: Path, tmp_path: Path) -> None:
    chosen = Filters(names=frozenset({case.names[2], case.names[0]}))
    pack(case.dataset, tree, tmp_path / "out", options_of(case), workers=1, filters=chosen)
    found = dict.fromkeys(frame["sequence"] for frame in packed_frames(tmp_path / "out"))
    assert list(found) == [case.names[0], case.names[2]]


def test_its_options_are_in_the_manifest_and_guard_the_folder(
    case: Case, tree: Path, tmp_path: Path
) -> None:
    pack(case.dataset, tree, tmp_path / "out", options_of(case), workers=1)
    manifest = Manifest.read(tmp_path / "out")
    assert case.dataset.options().items() <= manifest.options.items()
    assert str(tmp_path) not in (tmp_path / "out/manifest.json").read_text()
    assert Index(tmp_path / "out").name == case.dataset.NAME
    with pytest.raises(MismatchError, match="Give another --out"):
        pack(case.dataset, tree, tmp_path / "out", options_of(case, stride=2), workers=1)
