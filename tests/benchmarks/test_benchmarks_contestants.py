"""Every contestant does the same work: the plan's pairs, in order, from the same bytes."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
import synthetic
import torch

from benchmarks.case import Case
from benchmarks.contestants import CONTESTANTS, UNIT, load, named
from benchmarks.contestants.files import FilePairs
from benchmarks.contestants.zip_published import PublishedPairs
from benchmarks.contestants.zip_tuned import MemoryZip, TunedBatches
from benchmarks.derived import ensure, warm
from benchmarks.pairs import pair_config, whole_work, works
from loaders.sets import open_sets
from shards.errors import DataError

pytestmark = [
    # torch's DataLoader says so on machines with fewer cores than workers
    pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning"),
    # from Python 3.12 on; the baselines fork because the published loader does
    pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning"),
]


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    folder = tmp_path_factory.mktemp("bench")
    synthetic.pack(folder / "data", "lasot", sequences=4, frames=6, others=1)
    synthetic.pack(folder / "data", "coco", sequences=6, frames=1, per_shard=3, kind="image")
    one = Case(
        data=str(folder / "data"),
        derived=str(folder / "derived"),
        pairs=8,
        warmup_batches=1,
        batch_size=4,
        threads=1,
        template_px=127,
        search_px=255,
        seed=5,
    )
    ensure(Path(one.data), one.derived_folder)
    return one


def test_case_refuses_broken_batches() -> None:
    with pytest.raises(ValueError, match="multiple of the batch size"):
        Case(data="x", derived="y", pairs=5, batch_size=4)


@pytest.mark.parametrize(
    "name",
    [entry.name for entry in CONTESTANTS if entry.name != "dali" and entry.group != "peer"],
)
def test_contestants_serve_the_planned_samples_in_order(case: Case, name: str) -> None:
    module = load(name)
    assert module.label
    served = module.batches(case)
    counted = case.warmup_batches + case.batches
    batches = [next(served) for _ in range(counted)]
    served.close()  # type: ignore[attr-defined]
    assert [batch.sample for batch in batches] == [
        list(range(start, start + 4)) for start in range(0, 4 * counted, 4)
    ]
    for batch in batches:
        if batch.search is not None:
            assert batch.template.shape == (4, 3, 127, 127)
            assert batch.search.shape == (4, 3, 255, 255)
            floats = name == "zip-published"
            assert batch.search.dtype == (torch.float32 if floats else torch.uint8)


def test_batches_of_the_plan_and_the_whole_plan_are_the_same(case: Case) -> None:
    sets, whole = whole_work(case)
    single = list(works(case, sets))
    for half in ("template", "search"):
        rows = np.concatenate([getattr(work, half).rows for work in single])
        np.testing.assert_array_equal(getattr(whole, half).rows, rows)
        affines = np.concatenate([getattr(w, half).params.frame_from_crop for w in single])
        np.testing.assert_array_equal(getattr(whole, half).params.frame_from_crop, affines)


def test_the_zip_gives_the_plans_pictures(case: Case) -> None:
    dataset, (_, work) = PublishedPairs(case), whole_work(case)
    archives = {
        one.manifest.name: next((case.derived_folder).glob(f"{one.manifest.name}-*/legacy/*.zip"))
        for one in open_sets(pair_config(case)).sets
    }
    seen = set()
    for i in range(len(work)):
        for member, crops in zip(dataset.members(i), (work.template, work.search), strict=True):
            name = crops.sources[i].manifest.name
            seen.add(name)
            with zipfile.ZipFile(archives[name]) as archive:
                assert archive.read(member) == bytes(crops.read(i))
    assert seen == {"coco", "lasot"}


def test_the_zips_target_boxes_are_the_plans(case: Case) -> None:
    dataset, (_, work) = PublishedPairs(case), whole_work(case)
    for i in range(8):
        source, row = work.search.sources[i], int(work.search.rows[i])
        _, boxes = dataset.archives[int(work.plan.dataset[i])].read(row)
        np.testing.assert_array_equal(boxes[0, :4], source.index.target_boxes(np.array([row]))[0])


def test_the_files_are_the_plans_pictures(case: Case) -> None:
    dataset, (_, work) = FilePairs(case), whole_work(case)
    for i in range(len(work)):
        for own, crops in (
            (dataset.work.template, work.template),
            (dataset.work.search, work.search),
        ):
            assert dataset.path(own, i).read_bytes() == bytes(crops.read(i))


def test_the_tuned_zip_gives_the_plans_pictures_and_boxes(case: Case) -> None:
    dataset = TunedBatches(case)
    sets = open_sets(pair_config(case))
    for number, work in enumerate(works(case, sets)):
        batch = dataset[number]
        np.testing.assert_array_equal(batch.boxes[0], work.template_box)
        np.testing.assert_array_equal(batch.boxes[1], work.search_box)
        np.testing.assert_array_equal(batch.positive, work.plan.positive)
        assert batch.template.is_contiguous()
        assert batch.template.is_shared()
        own = {one.manifest.name: one for one in dataset._sets.sets}
        for crops in (work.template, work.search):
            for i, source in enumerate(crops.sources):
                archive = dataset._zips[id(own[source.manifest.name])]
                assert bytes(archive.read(int(crops.rows[i]))) == bytes(crops.read(i))


def test_a_zip_of_other_pictures_is_refused(case: Case) -> None:
    (path,) = case.derived_folder.glob("coco-*/legacy/*.zip")
    with pytest.raises(DataError, match="not the pictures of the data set"):
        MemoryZip(path, np.array([1, 2]))


def test_tuned_batches_stay_as_they_are_when_the_next_are_made(case: Case) -> None:
    served = load("zip-tuned").batches(case)
    first = next(served)
    kept = first.template.clone(), first.search.clone()
    for _ in range(5):
        next(served)
    assert torch.equal(first.template, kept[0])
    assert torch.equal(first.search, kept[1])


def test_the_tuned_zip_equals_the_reference(case: Case) -> None:
    tuned, reference = load("zip-tuned").batches(case), load("reference").batches(case)
    for _ in range(2):
        a, b = next(tuned), next(reference)
        for one, two in ((a.template, b.template), (a.search, b.search)):
            gap = (one.int() - two.int()).abs()
            assert gap.max() <= 4  # two decoders of JPEG, and a rounding of warp and colour each
            assert gap.float().mean() < 0.3


@pytest.mark.parametrize("name", ["files", "zip-tuned", "zip-region"])
def test_files_and_zip_and_ours_make_the_same_pixels(case: Case, name: str) -> None:
    ours, other = load("cpu").batches(case), load(name).batches(case)
    for _ in range(3):
        a, b = next(ours), next(other)
        for one, two in ((a.template, b.template), (a.search, b.search)):
            gap = (one.int() - two.int()).abs()
            assert gap.max() <= 2  # region and whole decode are two decoders
            assert gap.float().mean() < 0.02


def test_published_draws_depend_on_the_worker_alone(case: Case) -> None:
    one, two = PublishedPairs(case), PublishedPairs(case)
    one.seed_worker(1)
    two.seed_worker(1)
    torch.testing.assert_close(one[3][2], two[3][2], rtol=0, atol=0)
    two.seed_worker(0)
    assert not torch.equal(one[3][2], two[3][2])


def test_names() -> None:
    assert [entry.name for entry in named(["files", "cpu"])] == ["cpu", "files"]
    assert UNIT in {entry.name for entry in named([])}
    with pytest.raises(ValueError, match="no contestant gpu"):
        named(["gpu"])


def test_derived_files_are_made_once_and_all_are_warmed(case: Case) -> None:
    before = {p: p.stat().st_mtime_ns for p in case.derived_folder.rglob("*") if p.is_file()}
    files = ensure(Path(case.data), case.derived_folder)
    after = {p: p.stat().st_mtime_ns for p in case.derived_folder.rglob("*") if p.is_file()}
    assert before == after
    assert not list(case.derived_folder.rglob("*.part-*"))
    sets = open_sets(pair_config(case)).sets
    pictures = sum(int(one.index.size.sum()) for one in sets)
    read = warm(files, 1 << 40)
    assert read is not None
    assert read > 3 * pictures  # shards, zip and files
    assert warm(files, 10) is None


def test_no_data_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="python -m benchmarks data"):
        ensure(tmp_path / "none", tmp_path)
