"""Other loaders: their forms of the data, and the same pairs and pixels as ours."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
import synthetic
import torch

from benchmarks import peer_forms, peers
from benchmarks.case import Case
from benchmarks.contestants import CONTESTANTS, Entry, cannot, load
from benchmarks.contestants import webdataset as streamed
from benchmarks.derived import ensure, warm
from benchmarks.pairs import hand_over, pair_config, whole_work, works
from benchmarks.peer_forms import PEER_FORMS, Pictures, Rows, conversions, form_folder
from benchmarks.peers import BESIDE, ENVIRONMENTS, INSTALLED, interpreter, states
from benchmarks.runner import run_once
from benchmarks.transform import Transform
from loaders.reference import ReferenceBackend, sample
from loaders.sets import open_sets
from shards.errors import DataError
from shards.pixels import MEAN_RGB, STD_RGB

ROOT = Path(__file__).parents[2]
PEERS = {entry.name: entry for entry in CONTESTANTS if entry.group == "peer"}
# Levels of 0..255 from the judge, at most and on average, where the decoder is not as exact as
# ours: FFCV's has a fast DCT, and it does not round before it normalises.
TOLERANCE = {"ffcv": (5, 1.3)}
BY_NUMBER = [name for name, entry in PEERS.items() if entry.pairs == "plan"]

pytestmark = [
    # torch's DataLoader says so on machines with fewer cores than workers
    pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning"),
    # from Python 3.12 on; the workers fork
    pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning"),
]


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    folder = tmp_path_factory.mktemp("peers")
    synthetic.pack(folder / "data", "lasot", sequences=3, frames=5)
    synthetic.pack(folder / "data", "coco", sequences=4, frames=1, kind="image")
    return Case(
        data=str(folder / "data"),
        derived=str(folder / "derived"),
        work="plain",
        pairs=8,
        warmup_batches=1,
        batch_size=4,
        threads=2,
        template_px=127,
        seed=5,
    )


def expected(case: Case, count: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """First batches of the judge."""
    batches = load("reference").batches(case)
    return [(one.template, one.search) for one, _ in zip(batches, range(count), strict=False)]


def levels(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Differences in levels of 0..255."""
    gap = (a.float() - b.float()).abs()
    if a.dtype == torch.uint8:
        return gap
    return gap * 255 * torch.tensor(STD_RGB).view(1, 3, 1, 1)


# The list of them


def test_every_peer_is_beside_ours_or_has_an_environment() -> None:
    assert set(PEERS) == {*BESIDE, *ENVIRONMENTS}
    for name, entry in PEERS.items():
        assert entry.env == (name if name in ENVIRONMENTS else None)
        assert entry.needs in ((), (name,))
        assert "plain" in entry.works
    assert [name for name, entry in PEERS.items() if entry.pairs == "own"] == ["webdataset"]
    assert set(PEER_FORMS) == {"litdata", "mosaic-streaming", "grain", "ffcv"}


def test_an_absent_peer_is_named_with_the_command_that_adds_it(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers, "HOME", tmp_path)
    assert interpreter("ffcv") is None
    ffcv = run_once(PEERS["ffcv"], case)
    assert ffcv.absent is not None
    assert "python -m benchmarks peers ffcv" in ffcv.absent
    assert run_once(PEERS["ffcv"], replace(case, work="recipe")).absent == (cannot("recipe"))
    # a half-made environment is absent too
    (tmp_path / "ffcv" / "bin").mkdir(parents=True)
    (tmp_path / "ffcv" / "bin" / "python").symlink_to(sys.executable)
    assert interpreter("ffcv") is None


def test_a_peer_whose_package_is_absent_says_so(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # an environment without the peer: ours
    folder = tmp_path / "mosaic-streaming"
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (folder / "bin" / "python").chmod(0o755)
    (folder / INSTALLED).write_text('{"version": "0"}')
    monkeypatch.setattr(peers, "HOME", tmp_path)
    outcome = run_once(PEERS["mosaic-streaming"], case)
    assert outcome.absent is not None
    assert outcome.absent.startswith("needs a package that is not installed: ")
    assert outcome.absent.endswith("add it with python -m benchmarks peers mosaic-streaming")


# Forms


def test_pictures_are_numbered_by_data_set_and_row(case: Case) -> None:
    pictures, rows = Pictures(Path(case.data)), Rows(Path(case.data))
    assert len(pictures) == 3 * 5 + 4
    assert pictures.side == 446
    _, work = whole_work(case)
    seen = set()
    for crops in (work.template, work.search):
        numbers = rows.numbers(crops)
        for i, number in enumerate(numbers.tolist()):
            assert pictures[number] == bytes(crops.read(i))
            assert rows.reader(pictures.__getitem__)(crops, i) == pictures[number]
            seen.add(number < 4)
    assert seen == {True, False}  # of both data sets
    with pytest.raises(IndexError):
        pictures[len(pictures)]


@pytest.fixture
def fake_peer(case: Case, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A form that is written by a stand-in for the peer's process."""
    script = tmp_path / "python"
    monkeypatch.setattr(peer_forms, "interpreter", lambda env: script)
    return script


def test_a_form_is_written_once_and_warmed(case: Case, tmp_path: Path, fake_peer: Path) -> None:
    facts = '{"seconds": 1.5, "pictures": 19, "files": 2, "bytes": 6}'
    fake_peer.write_text(
        "#!/bin/sh\n"
        'test "$2 $3" = "benchmarks.peer_forms grain" || exit 9\n'
        f"echo x >> {tmp_path}/calls\n"
        'mkdir -p "$5/data/sub"; printf abc > "$5/data/a"; printf def > "$5/data/sub/b"\n'
        f"echo '{facts}' > \"$5/conversion.json\"\n"
    )
    fake_peer.chmod(0o755)
    derived = tmp_path / "derived"
    for _ in range(2):
        files = ensure(Path(case.data), derived, ("grain",))
    folder = form_folder(case.data, derived, "grain")
    assert [path for path in files if folder in path.parents] == [folder / "a", folder / "sub/b"]
    assert (tmp_path / "calls").read_text() == "x\n"
    assert warm([folder / "a", folder / "sub/b"], 1000) == 6
    assert conversions(["grain", "legacy", "ffcv"], Path(case.data), derived) == {
        "grain": json.loads(facts)
    }
    # other pictures, other folder
    assert form_folder(str(Path(case.data) / "lasot"), derived, "grain") != folder


def test_a_form_that_cannot_be_written_leaves_nothing(
    case: Case, tmp_path: Path, fake_peer: Path
) -> None:
    fake_peer.write_text('#!/bin/sh\nprintf abc > "$5/data/a"\necho disk is full >&2\nexit 1\n')
    fake_peer.chmod(0o755)
    with pytest.raises(DataError, match=r"grain cannot write its form of .*disk is full"):
        ensure(Path(case.data), tmp_path / "derived", ("grain",))
    assert [path for path in (tmp_path / "derived").rglob("*") if path.is_file()] == []


def test_a_form_that_takes_for_ever_is_an_error(
    case: Case, tmp_path: Path, fake_peer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peer_forms, "_LIMIT_S", 0.1)
    fake_peer.write_text("#!/bin/sh\nexec sleep 60\n")
    fake_peer.chmod(0o755)
    with pytest.raises(DataError, match=r"grain has not written its form of .* within"):
        ensure(Path(case.data), tmp_path / "derived", ("grain",))
    assert [path for path in (tmp_path / "derived").rglob("*") if path.is_file()] == []


def test_nothing_is_written_for_a_peer_that_is_absent(
    case: Case, tmp_path: Path, fake_peer: Path
) -> None:
    fake_peer.write_text("#!/bin/sh\nexit 3\n")
    fake_peer.chmod(0o755)
    shards = ensure(Path(case.data), tmp_path / "derived", ())
    assert ensure(Path(case.data), tmp_path / "derived", ("grain",)) == shards
    assert [path for path in (tmp_path / "derived").rglob("*") if path.is_file()] == []


def test_the_writers_process(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(pictures: Pictures, folder: Path) -> None:
        (folder / "all").write_bytes(pictures[0] + pictures[18])

    (tmp_path / "data").mkdir()
    module = type("Module", (), {"write": staticmethod(write)})
    monkeypatch.setattr(peer_forms, "load", lambda name: module)
    assert peer_forms.main("grain", Path(case.data), tmp_path) == 0
    facts = json.loads((tmp_path / "conversion.json").read_text())
    assert facts["pictures"] == 19
    assert facts["bytes"] == (tmp_path / "data" / "all").stat().st_size
    assert facts["seconds"] > 0

    def absent(name: str) -> None:
        raise ImportError("No module named 'grain'")

    monkeypatch.setattr(peer_forms, "load", absent)
    assert peer_forms.main("grain", Path(case.data), tmp_path) == 3


# Pixels


@pytest.mark.parametrize("work", ["plain", "recipe"])
def test_the_shared_transform_equals_the_reference(case: Case, work: str) -> None:
    one = replace(case, work=work)
    pictures, rows = Pictures(Path(case.data)), Rows(Path(case.data))
    transform = Transform(pictures.side, rows.reader(pictures.__getitem__))
    sets = open_sets(pair_config(one))
    for (template, search), batch in zip(expected(one, 2), works(one, sets), strict=False):
        made = hand_over(one, batch.plan.sample.tolist(), *transform.batch(batch))
        for ours, judge in ((made.template, template), (made.search, search)):
            assert ours.dtype == judge.dtype == (torch.float32 if work == "plain" else torch.uint8)
            gap = levels(ours, judge)
            assert gap.max() <= 4  # two decoders of JPEG, and a rounding of warp and colour each
            assert gap.mean() < 0.3


def test_streamed_pairs_are_of_one_track_and_not_far_apart() -> None:
    frames = [("a/0", n, f"a{n}".encode()) for n in (1, 4, 190, 400, 500)]
    frames += [("b/0", n, f"b{n}".encode()) for n in (1, 2)]
    samples = [{"__key__": f"{track}_{n:08d}", "jpg": data} for track, n, data in frames]
    pairs = list(streamed.pairs_of_tracks(samples * 40, seed=3, worker=0))
    assert len(pairs) == 2 * 40 * streamed.PAIRS_A_VISIT
    kinds = {(a[:1], b[:1]) for a, b in pairs}
    assert kinds == {(b"a", b"a"), (b"b", b"b")}
    gaps = {abs(int(a[1:]) - int(b[1:])) for a, b in pairs}
    assert gaps == {0, 1, 3, 186, 189, 100}  # all that are allowed: 210 and more are not
    other = streamed.pairs_of_tracks(samples * 40, seed=3, worker=1)
    assert list(other) != pairs


def test_a_streamed_crop_is_the_plans_region_but_for_whole_pixels(case: Case) -> None:
    sets = open_sets(pair_config(case))
    work = next(works(case, sets))
    judge = ReferenceBackend()
    template, search = judge.finish(judge.start(work), 60)
    for crops, pixels in ((work.template, template), (work.search, search)):
        for i in range(len(work)):
            decoded = torch.from_numpy(simplejpeg.decode_jpeg(crops.read(i), "RGB"))
            region = crops.params.region[i]
            ours = streamed.resized(decoded.permute(2, 0, 1), region, crops.params.out_px)
            gap = levels(ours[None], pixels[i][None])
            # the synthetic pictures change by some levels a pixel; half a pixel is the most
            assert gap.mean() < 2
            off = streamed.resized(decoded.permute(2, 0, 1), region + 6, crops.params.out_px)
            assert levels(off[None], pixels[i][None]).mean() > 2 * gap.mean()
    sets.close()


def test_the_stream_serves_every_planned_batch(case: Case) -> None:
    batches = list(streamed.batches(case))
    assert [one.sample for one in batches] == [
        list(range(start, start + 4)) for start in case.starts()
    ]
    for one in batches:
        assert one.template.shape == (4, 3, 127, 127)
        assert one.search.shape == (4, 3, 255, 255)
        assert one.search.dtype == torch.float32
        assert one.search.std() > 0.1
    # worker processes draw different pairs
    assert not torch.equal(batches[0].search, batches[1].search)


# With the peers themselves

_DUMP = """
import json, sys
import numpy as np
from benchmarks.case import Case
from benchmarks.contestants import load
case = Case(**json.loads(sys.argv[2]))
served = load(sys.argv[1]).batches(case)
for number in range(case.warmup_batches + case.batches):
    one = next(served)
    np.savez(f"{sys.argv[3]}/{number}.npz", sample=one.sample, template=one.template.numpy(),
             search=one.search.numpy())
served.close()
"""


def peer(name: str) -> tuple[Entry, Path]:
    """A peer that is there; else the test is skipped."""
    entry = PEERS[name]
    state = {one.name: one for one in states()}[name]
    python = interpreter(entry.env)
    if state.version is None or python is None:
        pytest.skip(f"{name}: absent; add it with {state.command}")
    return entry, python


def dumped(
    python: Path, name: str, case: Case, folder: Path
) -> Iterator[tuple[list[int], torch.Tensor, torch.Tensor]]:
    """Batches of a peer in its own environment."""
    subprocess.run(
        [str(python), "-c", _DUMP, name, json.dumps(case.facts()), str(folder)],
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=280,
    )
    for number in range(case.warmup_batches + case.batches):
        with np.load(folder / f"{number}.npz") as one:
            pixels = [torch.from_numpy(one[half]) for half in ("template", "search")]
            yield one["sample"].tolist(), pixels[0], pixels[1]


@pytest.mark.services
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    ("name", "work"), [(name, work) for name in BY_NUMBER for work in PEERS[name].works]
)
def test_a_peer_serves_the_plans_pairs_and_pixels(
    case: Case, name: str, work: str, threads: int, tmp_path: Path
) -> None:
    entry, python = peer(name)
    one = replace(case, work=work, threads=threads)
    ensure(Path(one.data), one.derived_folder, entry.needs)
    count = one.warmup_batches + one.batches
    batches = list(dumped(python, name, one, tmp_path))
    assert [sample for sample, *_ in batches] == [
        list(range(start, start + 4)) for start in range(0, 4 * count, 4)
    ]
    for (_, *made), judged in zip(batches, expected(one, count), strict=True):
        for ours, judge in zip(made, judged, strict=True):
            assert ours.dtype == judge.dtype
            gap = levels(ours, judge)
            most, mean = TOLERANCE.get(name, (4, 0.3))
            assert gap.max() <= most
            assert gap.mean() < mean


@pytest.mark.services
def test_ffcv_makes_the_plans_crop_of_a_fast_decode(case: Case, tmp_path: Path) -> None:
    entry, python = peer("ffcv")
    ensure(Path(case.data), case.derived_folder, entry.needs)
    planned = works(case, open_sets(pair_config(case)))
    for (_, *made), work in zip(dumped(python, "ffcv", case, tmp_path), planned, strict=False):
        for ours, crops in zip(made, (work.template, work.search), strict=True):
            side = crops.params.out_px
            for i in range(len(crops)):
                picture = simplejpeg.decode_jpeg(crops.read(i), "RGB", fastdct=True)
                exact = sample(picture, crops.params.frame_from_crop[i], (side, side))
                judge = torch.from_numpy((exact / 255 - MEAN_RGB) / STD_RGB).permute(2, 0, 1)
                assert levels(ours[i][None], judge[None]).max() < 0.01


@pytest.mark.services
@pytest.mark.parametrize("name", BY_NUMBER)
def test_a_peer_is_measured(case: Case, name: str) -> None:
    entry, _ = peer(name)
    ensure(Path(case.data), case.derived_folder, entry.needs)
    outcome = run_once(entry, case)
    assert outcome.absent is None
    assert outcome.figures["pairs"] == 8
    assert outcome.figures["pixel_type"] == "float32"
    made = conversions(entry.needs, Path(case.data), case.derived_folder)
    assert all(one["bytes"] > 0 and one["seconds"] > 0 for one in made.values())
    assert set(made) == set(entry.needs)
