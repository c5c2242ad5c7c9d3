"""Every contestant does the same work: the plan's pairs, in order, from the same bytes."""

from __future__ import annotations

import functools
import multiprocessing
import os
import re
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import synthetic
import torch

from benchmarks.case import WORKS, Case, Served, WorkName
from benchmarks.contestants import CONTESTANTS, UNIT, load, named, zip_published
from benchmarks.contestants.files import FilePairs
from benchmarks.contestants.zip_disk import DiskZip
from benchmarks.contestants.zip_published import PublishedPairs
from benchmarks.contestants.zip_tuned import MemoryZip, TunedBatches
from benchmarks.derived import ensure, warm
from benchmarks.faulty_server import FaultyServer
from benchmarks.pairs import pair_config, serve_loader, whole_work, works
from benchmarks.published import RANGES, CropDraw, draw_crop
from loaders.batch import MEAN_RGB, STD_RGB
from loaders.recipe import Params
from loaders.sets import open_sets
from shards.errors import DataError

pytestmark = [
    # torch's DataLoader says so on machines with fewer cores than workers
    pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning"),
    # from Python 3.12 on; the baselines fork because the published loader does
    pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning"),
]


# Largest and mean difference from `reference` in grey levels of 0..255. The contestants decode with
# libjpeg-turbo, nvImageCodec or DALI and the reference with Pillow: 1 level. They round after the
# warp, and once more after a colour matrix: 1 to 2 levels, more where a pixel is clipped.
MOST, MEAN = 4, 0.3
OF_THE_PLAN = ("cpu", "dali-cpu", "cpu-remote", "zip-tuned", "zip-region", "zip-disk", "files")
HERE = [one.name for one in CONTESTANTS if one.name != "dali" and one.group != "peer"]
PIXELS = {"recipe": torch.uint8, "plain": torch.float32}

Batches = Callable[[str, WorkName], list[Served]]


def make_case(folder: Path, **changes: Any) -> Case:
    one = Case(
        data=str(folder / "data"),
        derived=str(folder / "derived"),
        pairs=4,
        warmup_batches=1,
        batch_size=2,
        threads=1,
        template_px=95,
        search_px=191,
        seed=5,
        **changes,
    )
    ensure(Path(one.data), one.derived_folder)
    return one


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """As in the workers: threads that wait for a busy core would spin.

    OpenCV's are given up before the first fork: a worker that changes their number waits for
    threads of this process, which it does not have.
    """
    before = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    yield
    torch.set_num_threads(before[0])
    cv2.setNumThreads(before[1])


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Case]:
    """Two small data sets, on disk and behind a server."""
    folder = tmp_path_factory.mktemp("bench")
    synthetic.pack(folder / "data", "lasot", sequences=4, frames=6, others=1)
    synthetic.pack(folder / "data", "coco", sequences=6, frames=1, per_shard=3, kind="image")
    with FaultyServer(folder / "data") as server:
        yield make_case(folder, url=server.url)


@pytest.fixture(scope="module")
def made(case: Case) -> Batches:
    """First batches of a contestant in a class of work, made once."""

    @functools.cache
    def batches(name: str, work: WorkName) -> list[Served]:
        return first_batches(load(name).batches(replace(case, work=work)))

    return batches


def first_batches(served: Iterator[Served], count: int = 3) -> list[Served]:
    """Batches of a contestant, which is ended as the measurement ends it."""
    found = [next(served) for _ in range(count)]
    served.close()  # type: ignore[attr-defined]
    return found


def grey_levels(pixels: torch.Tensor) -> torch.Tensor:
    """Pixels as 0..255; a normalised black is at most 0 and white at most 255 again."""
    if pixels.dtype == torch.uint8:
        return pixels.float()
    mean, std = (torch.tensor(of).view(3, 1, 1) for of in (MEAN_RGB, STD_RGB))
    return 255 * (pixels * std + mean)


def assert_close(
    found: list[Served], expected: list[Served], most: float = MOST, mean: float = MEAN
) -> None:
    assert len(found) == len(expected) > 0
    for a, b in zip(found, expected, strict=True):
        assert a.sample == b.sample
        for one, two in ((a.template, b.template), (a.search, b.search)):
            assert one.dtype == two.dtype
            gap = (grey_levels(one) - grey_levels(two)).abs()
            assert gap.max() <= most
            assert gap.mean() <= mean


def test_case_refuses_broken_batches() -> None:
    with pytest.raises(ValueError, match="multiple of the batch size"):
        Case(data="x", derived="y", pairs=5, batch_size=4)


@pytest.mark.parametrize("work", WORKS)
@pytest.mark.parametrize("name", HERE)
def test_contestants_serve_the_planned_samples_in_order(
    made: Batches, name: str, work: WorkName
) -> None:
    batches = made(name, work)
    assert [batch.sample for batch in batches] == [[0, 1], [2, 3], [4, 5]]
    (entry,) = named([name])
    pixels = entry.group != "limit" or name == "ready"
    published = name == "zip-published"
    for batch in batches:
        assert (batch.search is not None) == (batch.template is not None) == pixels
        if pixels:
            assert batch.template.shape == (2, 3, 95, 95)
            assert batch.search.shape == (2, 3, 191, 191)
            assert batch.search.dtype == (torch.float32 if published else PIXELS[work])
            assert batch.template.dtype == batch.search.dtype


@pytest.mark.parametrize("name", HERE)
def test_a_label_is_true_for_both_classes_of_work(name: str) -> None:
    label = load(name).label
    assert label
    assert not re.search("int8|float|normalis", label)


@pytest.mark.parametrize("work", WORKS)
@pytest.mark.parametrize("name", OF_THE_PLAN)
def test_pixels_are_those_of_the_reference(made: Batches, name: str, work: WorkName) -> None:
    assert_close(made(name, work), made("reference", work))


def test_the_classes_of_work_differ(made: Batches) -> None:
    with pytest.raises(AssertionError):
        assert_close(
            [Served(one.sample, *map(grey_levels, one[1:])) for one in made("cpu", "plain")],
            [Served(one.sample, *map(grey_levels, one[1:])) for one in made("cpu", "recipe")],
        )


@pytest.mark.parametrize("work", WORKS)
def test_a_stream_of_shards_gives_the_references_pixels(
    case: Case, made: Batches, work: WorkName
) -> None:
    own = replace(case, work=work)
    expected = first_batches(serve_loader(own, "reference", storage="sequential"), 1)
    assert_close(made("cpu-sequential", work)[:1], expected)


def test_a_remote_contestant_wants_a_server(case: Case) -> None:
    with pytest.raises(DataError, match="needs a server"):
        next(load("cpu-remote").batches(replace(case, url="")))


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


@pytest.mark.parametrize("work", WORKS)
@pytest.mark.parametrize("name", ["files", "zip-tuned", "zip-region", "zip-disk", "cpu-remote"])
def test_baselines_and_ours_make_the_same_pixels(made: Batches, name: str, work: WorkName) -> None:
    # the same kernel; region and whole decode are two decoders
    assert_close(made(name, work), made("cpu", work), most=2.01, mean=0.02)


def test_a_zip_on_disk_is_opened_in_every_process(case: Case) -> None:
    (source,) = (one for one in open_sets(pair_config(case)).sets if one.manifest.name == "lasot")
    (path,) = case.derived_folder.glob("lasot-*/legacy/*.zip")
    archive, rows = DiskZip(path, source.index.size), range(len(source.index))
    expected = [bytes(source.read(row)) for row in rows]
    assert [archive.read(row) for row in rows] == expected
    fork = multiprocessing.get_context("fork")
    with fork.Pool(3, _take, (archive, fork.Barrier(3))) as pool:
        found = pool.map(_read, [*rows] * 20, chunksize=4)
    assert [data for data, _ in found] == expected * 20
    assert len({handle for _, handle in found} - {os.getpid()}) == 3


_taken: list[DiskZip] = []
_together: list[Any] = []


def _take(archive: DiskZip, together: Any) -> None:
    _taken[:], _together[:] = [archive], [together]


def _read(row: int) -> tuple[bytes, int]:
    """Picture of a row, and the process that opened the handle it was read from."""
    while _together:
        _together.pop().wait(60)  # all three read, none does the work of all
    data = _taken[0].read(row)
    assert _taken[0]._opened is not None
    assert _taken[0]._opened[0] == os.getpid()
    return data, _taken[0]._opened[0]


@pytest.mark.parametrize("work", WORKS)
def test_the_published_crops_of_the_plan_are_those_of_the_reference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, work: WorkName
) -> None:
    """The plan's draws of scale and shift on its grid, where corners are aligned.

    One grey level: it decodes with OpenCV and does not round after the crop, the reference does.
    """
    synthetic.pack(tmp_path / "data", "lasot", sequences=2, frames=4, grid="corner")
    case = make_case(tmp_path, work=work)
    plain = replace(case, work="plain")
    _, planned = whole_work(plain)
    draws = [
        _as_published(crops.params, i)
        for i in range(case.batch_size)
        for crops in (planned.template, planned.search)
    ]
    dataset = PublishedPairs(case)
    dataset._grey_p = 0.0  # the only step that is not in `draw_crop`
    monkeypatch.setattr(zip_published, "draw_crop", lambda *_: draws.pop(0))
    pairs = [dataset[i] for i in range(case.batch_size)]
    found = Served([0, 1], *(torch.stack([pair[at] for pair in pairs]) for at in (1, 2)))
    expected = first_batches(load("reference").batches(plain), 1)
    assert_close([found], expected, most=1.01, mean=0.3)
    for at, boxes in ((3, planned.template_box), (4, planned.search_box)):
        np.testing.assert_allclose([pair[at][:4] for pair in pairs], boxes[:2], atol=2e-4)


def _as_published(params: Params, i: int) -> CropDraw:
    size = params.region[i, 2:] - params.region[i, :2]
    shift = params.region[i, :2] + size / 2 - (params.frame_px - 1) / 2
    scale = size / params.out_px
    return CropDraw(scale=(scale[0], scale[1]), shift=(shift[0], shift[1]))


def test_published_draws_of_the_plain_work_move_the_crop_and_nothing_else(case: Case) -> None:
    own = PublishedPairs(replace(case, work="plain"))
    full = PublishedPairs(case)
    assert full._ranges == RANGES
    rng = np.random.Generator(np.random.PCG64([4, 4]))
    target = np.array([191.0, 191, 255, 255])
    for key, ranges in own._ranges.items():
        drawn = [draw_crop(ranges, rng, target, 446) for _ in range(2_000)]
        assert all(draw == CropDraw(scale=draw.scale, shift=draw.shift) for draw in drawn)
        for values, delta in (
            (np.log([draw.scale for draw in drawn]), RANGES[key].scale),
            (np.array([draw.shift for draw in drawn]), RANGES[key].shift),
        ):
            assert np.abs(values).max() <= delta
            assert values.std() == pytest.approx(delta / np.sqrt(3), rel=0.08)


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
