"""Whole runs: the same bytes however they come about, and all that can go wrong on the way."""

from __future__ import annotations

import errno
import json
import multiprocessing
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from lasot_tree import KillingSource, hashes, packed_frames, picture, sequence, small_tree
from waiting import until

from packer import output
from packer.datasets import lasot
from packer.jobs import PackOptions
from packer.report import Report
from packer.run import Malformed, pack
from packer.workers import Work, run_jobs
from shards.errors import DataError, MismatchError, SiamstreamError, StorageError
from shards.format import Manifest
from shards.index import Index
from shards.plan import Plan
from shards.verify import verify

OPTIONS = PackOptions(stride=1, min_size=10, size=127, frames_per_shard=16, split="all")


def run(root: Path, out: Path, options: PackOptions = OPTIONS, **more: Any) -> Report:
    return pack(lasot, root, out, options, **{"workers": 1, **more})


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_tree(tmp_path_factory.mktemp("raw"))


@pytest.fixture(scope="module")
def expected(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Hashes of the small tree packed in one go by one process."""
    out = tmp_path_factory.mktemp("expected") / "lasot"
    run(tree, out)
    return hashes(out)


def copy(tree: Path, to: Path) -> Path:
    return Path(shutil.copytree(tree, to))


def test_a_run_from_start_to_end(tree: Path, tmp_path: Path) -> None:
    out = tmp_path / "shards/lasot"
    report = run(tree, out)
    manifest, index = Manifest.read(out), Index(out)
    assert sorted(path.name for path in out.iterdir()) == [
        "index.arrow",
        *(f"lasot-{i:06d}.tar" for i in range(6)),
        "manifest.json",
        "plan.json",
    ]
    assert report.frames == len(index) == 12 + 40 + 9 + 5 + 12
    assert (report.tracks, report.sequences, report.categories, report.shards) == (5, 5, 2, 6)
    assert dict(report.rejected) == dict(manifest.rejected) == {"absent": 3}
    found = manifest.rejected_examples["absent"]
    assert [one["frame"] for one in found] == ["dog-2/3", "dog-2/4", "dog-2/5"]
    assert [one["picture"][-12:] for one in found] == [f"{n:08d}.jpg" for n in (3, 4, 5)]
    assert list(manifest.rejected_examples) == ["absent"]
    assert report.bytes == sum(path.stat().st_size for path in out.glob("*.tar"))
    assert len(report.missing) == len(manifest.missing) == 1400 - 5
    frames = packed_frames(out)
    assert list(dict.fromkeys(frame["sequence"] for frame in frames)) == [
        "car-1",
        "car-3",
        "dog-2",
        "dog-3",
        "dog-10",
    ]
    assert {frame["visible"] for frame in frames} == {1.0}
    assert {frame["fps"] for frame in frames} == {30.0}
    assert frames[0]["source"] == "car/car-1/img/00000001.jpg"
    assert manifest.options["frames_per_shard"] == 16
    assert set(manifest.versions) == {"siamstream", "numpy", "opencv", "simplejpeg", "pillow"}
    assert str(tree) not in (out / "manifest.json").read_text() + (out / "plan.json").read_text()
    assert verify(out).ok


def test_running_again_says_so_and_touches_nothing(tree: Path, tmp_path: Path) -> None:
    first = run(tree, tmp_path / "out")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    again = run(tree, tmp_path / "out", on_error="skip", workers=2)
    assert again.resumed_shards == again.shards == first.shards
    assert "nothing to do" in "\n".join(again.lines())
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    same = ("frames", "bytes", "rejected", "missing", "notes", "tracks", "sequences")
    assert [again.facts()[k] for k in same] == [first.facts()[k] for k in same]


def test_two_workers_write_the_same_bytes(
    tree: Path, tmp_path: Path, expected: dict[str, str]
) -> None:
    run(tree, tmp_path / "out", workers=2)
    assert hashes(tmp_path / "out") == expected


def test_any_executor_packs_the_same_bytes(
    tree: Path, tmp_path: Path, expected: dict[str, str]
) -> None:
    with ThreadPoolExecutor(2) as executor:
        run(tree, tmp_path / "out", executor=executor)
        assert executor.submit(int, 7).result() == 7  # left open
    assert hashes(tmp_path / "out") == expected


def test_the_layout_changes_no_bytes_but_where_paths_tell_it(
    tree: Path, tmp_path: Path, expected: dict[str, str]
) -> None:
    copy(tree, tmp_path / "raw/LaSOTBenchmark")
    run(tmp_path / "raw", tmp_path / "out")
    assert hashes(tmp_path / "out") == expected


def test_a_dry_run_writes_nothing(tree: Path, tmp_path: Path) -> None:
    report = run(tree, tmp_path / "out", dry_run=True)
    packed = run(tree, tmp_path / "real")
    assert not (tmp_path / "out").exists()
    assert report.dry_run
    same = ("frames", "shards", "tracks", "sequences", "categories", "rejected", "missing")
    assert [report.facts()[k] for k in same] == [packed.facts()[k] for k in same]


def test_limit_takes_the_first_sequences_of_the_split(tree: Path, tmp_path: Path) -> None:
    options = PackOptions(stride=1, min_size=10, size=127, limit=2, split="train")
    run(tree, tmp_path / "out", options)
    assert {f["sequence"] for f in packed_frames(tmp_path / "out")} == {"car-1", "car-3"}


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"stride": 2}, "--stride was 1, now 2"),
        ({"quality": 80}, "--quality was 90, now 80"),
        ({"grid": "corner"}, "--grid was 'edge', now 'corner'"),
        ({"inclusive_boxes": True}, "--inclusive-boxes was False, now True"),
        ({"limit": 3}, "--limit was None, now 3"),
        ({"split": "train"}, "--split was 'all', now 'train'"),
        ({"frames_per_shard": 20}, "--frames-per-shard was 16, now 20"),
    ],
)
@pytest.mark.parametrize("complete", [True, False])
def test_other_options_are_refused(
    tree: Path, tmp_path: Path, change: dict[str, Any], text: str, complete: bool
) -> None:
    out = tmp_path / "out"
    with output.claim(out, plan_of(OPTIONS)):
        pass
    if complete:
        (out / "manifest.json").write_text("{}")
    before = hashes(out)
    with pytest.raises(MismatchError) as caught:
        run(tree, out, PackOptions(**{**dataclass_dict(OPTIONS), **change}))
    assert text in str(caught.value)
    assert "Give another --out" in str(caught.value)
    assert "SHA-256" not in str(caught.value)
    assert hashes(out) == before


def plan_of(options: PackOptions) -> Plan:
    """Plan of some run of LaSOT with these options."""
    return Plan(
        name="lasot",
        options=dataclass_dict(options),
        input="x" * 64,
        versions=output.versions(),
        grid=options.grid,
        crop_size=options.size,
        quality=options.quality,
        stride=options.stride,
        shards=6,
        reasons=(),
        rejected={},
        rejected_examples={},
        missing=(),
        notes=(),
    )


def dataclass_dict(options: PackOptions) -> dict[str, Any]:
    return {name: getattr(options, name) for name in options.__dataclass_fields__}


def test_another_input_is_refused(tree: Path, tmp_path: Path) -> None:
    root = copy(tree, tmp_path / "raw")
    run(root, tmp_path / "out")
    shutil.rmtree(root / "dog/dog-3")
    with pytest.raises(MismatchError, match=r"input \(SHA-256 of its annotations\) was"):
        run(root, tmp_path / "out")


def test_other_library_versions_are_refused_until_it_is_complete(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    run(tree, out)
    now = {**output.versions(), "opencv": "9.9"}
    monkeypatch.setattr(output, "versions", lambda: now)
    assert run(tree, out).resumed_shards == 6
    (out / "manifest.json").unlink()
    with pytest.raises(MismatchError, match=r"version of opencv was '.*', now '9\.9'"):
        run(tree, out)


def test_a_folder_of_something_else_is_refused(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/thesis.tex").write_text("x")
    with pytest.raises(MismatchError, match=r"is not empty .* thesis\.tex"):
        run(tree, tmp_path / "out")
    assert hashes(tmp_path / "out").keys() == {"thesis.tex"}
    (tmp_path / "file").write_text("x")
    with pytest.raises(MismatchError, match="is a file"):
        run(tree, tmp_path / "file")
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged/plan.json").write_text('{"name": ')
    with pytest.raises(MismatchError, match=r"plan\.json is damaged"):
        run(tree, tmp_path / "damaged")


def test_a_complete_folder_that_lost_a_shard_is_not_called_complete(
    tree: Path, tmp_path: Path, expected: dict[str, str]
) -> None:
    out = tmp_path / "out"
    run(tree, out)
    (out / "lasot-000002.tar").unlink()
    with pytest.raises(StorageError, match=r"lasot-000002\.tar: missing, the manifest says"):
        run(tree, out)
    (out / "manifest.json").unlink()  # the advice of the message
    run(tree, out)
    assert hashes(out) == expected


def test_a_second_packer_is_refused(tree: Path, tmp_path: Path) -> None:
    refused = []

    @contextmanager
    def meet(what: str, unit: str, total: int) -> Iterator[Any]:
        if what == "packing":
            with pytest.raises(StorageError, match="another packer is at work") as caught:
                run(tree, tmp_path / "out")
            refused.append(caught.value)
        yield type("Counter", (), {"update": lambda _self, _done: None})()

    run(tree, tmp_path / "out", progress=meet)
    assert len(refused) == 1


# Malformed input ------------------------------------------------------------------------------


def broken_tree(root: Path) -> Path:
    lines = "20,15,30,30\n" * 6  # 2 pictures without a line
    sequence(root, "car-1", 8, boxes=lines, occluded=None, out_of_view=None)
    sequence(root, "car-3", 8, boxes="20,15,30,30\nnan,1,30,30\nx\n" + "20,15,30,30\n" * 5)
    sequence(root, "dog-3", 8)
    (root / "dog/dog-3/groundtruth.txt").unlink()
    sequence(root, "dog-4", 8)
    return root


def test_fail_lists_every_malformed_annotation_and_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(Malformed) as caught:
        run(broken_tree(tmp_path / "raw"), tmp_path / "out")
    lines = str(caught.value).splitlines()
    assert lines[0].startswith("4 problems in the annotations below ")
    assert "--on-error skip" in lines[0]
    assert [line.split()[0] for line in lines[1:]] == [
        "car/car-1:",
        "car/car-3/groundtruth.txt:3:",
        "car/car-3/groundtruth.txt:2:",
        "dog/dog-3:",
    ]
    assert not (tmp_path / "out").exists()


def test_skip_leaves_malformed_frames_out_and_counts_them(tmp_path: Path) -> None:
    report = run(broken_tree(tmp_path / "raw"), tmp_path / "out", on_error="skip")
    assert report.frames == 6 + 6 + 0 + 8
    assert report.rejected == {"no_label": 2 + 8, "bad_annotation": 2}
    examples = {
        reason: [one["frame"] for one in found]
        for reason, found in Manifest.read(tmp_path / "out").rejected_examples.items()
    }
    assert examples["bad_annotation"] == ["car-3/2", "car-3/3"]
    assert examples["no_label"][:3] == ["car-1/7", "car-1/8", "dog-3/1"]


def test_zero_negative_small_absent_and_outside(tmp_path: Path) -> None:
    lines = [
        "20,15,30,30",  # 1 kept
        "0,0,0,0",  # 2 no_box
        "613,731,247,-11",  # 3 no_box
        "20,15,9,30",  # 4 small
        "20,15,10,10",  # 5 kept
        "nan,nan,nan,nan",  # 6 absent
        "20,15,30,30",  # 7 absent, with a box
        "200,15,30,30",  # 8 outside
        "-40,15,30,30",  # 9 outside
        "80,60,30,30",  # 10 kept, partly outside
    ]
    sequence(tmp_path / "raw", "lion-2", 10, boxes="\n".join(lines), occluded="0,0,0,0,0,1,1,0,0,0")
    report = run(tmp_path / "raw", tmp_path / "out")
    assert [frame["frame"] for frame in packed_frames(tmp_path / "out")] == [1, 5, 10]
    assert report.rejected == {"absent": 2, "no_box": 2, "small": 1, "outside": 2}
    assert list(report.rejected) == ["absent", "no_box", "small", "outside"]


def test_nothing_left_is_an_error(tmp_path: Path) -> None:
    sequence(tmp_path / "raw", "lion-2", 4, boxes="1,1,-1,-1\n" * 4)
    with pytest.raises(DataError, match="no frame is left to pack; rejected: no_box 4"):
        run(tmp_path / "raw", tmp_path / "out")
    sequence(tmp_path / "far", "lion-2", 4, boxes="500,1,30,30\n" * 4)
    with pytest.raises(DataError, match="no frame is left to pack; rejected: outside 4"):
        run(tmp_path / "far", tmp_path / "out")
    assert not list((tmp_path / "out").glob("manifest.json"))


def test_a_missing_root_names_the_layout_and_the_demo(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        run(tmp_path / "nowhere", tmp_path / "out")
    for text in (
        "does not exist",
        "<class>-<n>",
        "SIAMSTREAM_RAW",
        "data/raw/lasot",
        "packer demo",
    ):
        assert text in str(caught.value)


@pytest.mark.parametrize("workers", [1, 2])
def test_unreadable_pictures_are_listed_together_then_skipped(
    tree: Path, tmp_path: Path, workers: int
) -> None:
    root, out = copy(tree, tmp_path / "raw"), tmp_path / "out"
    for name in ("car/car-1/img/00000003", "dog/dog-10/img/00000002", "dog/dog-10/img/00000004"):
        path = root / f"{name}.jpg"
        path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(Malformed) as caught:
        run(root, out, workers=workers)
    assert [one.where for one in caught.value.problems] == [
        "car/car-1/img/00000003.jpg",
        "dog/dog-10/img/00000002.jpg",
        "dog/dog-10/img/00000004.jpg",
    ]
    assert "3 pictures cannot be read" in str(caught.value)
    assert not (out / "manifest.json").exists()
    kept = {path.name for path in out.glob("*.tar")}
    assert kept == {f"lasot-{i:06d}.tar" for i in (1, 2, 3, 4)}  # 0 and 5 hold the bad ones
    assert not list(out.rglob(".part-*"))

    report = run(root, out, workers=workers, on_error="skip")
    assert report.resumed_shards == 4
    assert report.rejected == {"absent": 3, "unreadable": 3}
    fresh = run(root, tmp_path / "fresh", on_error="skip")
    assert fresh.frames == report.frames
    assert hashes(out) == hashes(tmp_path / "fresh")


def test_fail_does_not_accept_a_shard_that_skip_packed(tree: Path, tmp_path: Path) -> None:
    root, out = copy(tree, tmp_path / "raw"), tmp_path / "out"
    bad = root / "car/car-1/img/00000003.jpg"
    sound = bad.read_bytes()
    bad.write_bytes(b"")
    run(root, out, on_error="skip")
    stop_before_the_manifest(out, root)
    with pytest.raises(Malformed, match="1 picture cannot be read"):
        run(root, out)
    bad.write_bytes(sound)
    report = run(root, out)
    assert "unreadable" not in report.rejected
    run(tree, tmp_path / "fresh")
    assert hashes(out) == hashes(tmp_path / "fresh")


def stop_before_the_manifest(out: Path, root: Path) -> None:
    """Leave `out` as a run that was killed before its manifest: all parts are there."""
    shutil.rmtree(out)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("packer.run.finish", fail_with(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            run(root, out, on_error="skip")


def fail_with(error: BaseException) -> Callable[..., Any]:
    def fail(*_args: Any, **_more: Any) -> Any:
        raise error

    return fail


# Interruptions --------------------------------------------------------------------------------


def test_a_full_disk_leaves_no_half_file_and_a_rerun_goes_on(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expected: dict[str, str]
) -> None:
    from shards import writer

    out = tmp_path / "out"
    whole = writer.write_samples
    written = 0

    def until_full(handle: Any, samples: Any) -> None:
        nonlocal written
        written += 1
        if written < 3:
            return whole(handle, samples)
        handle.write(b"half a shard")
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(writer, "write_samples", until_full)
        with pytest.raises(StorageError, match=r"lasot-000002\.tar: .* disk or quota is full"):
            run(tree, out)
    assert {p.name for p in out.iterdir()} == {
        "plan.json",
        ".parts",
        "lasot-000000.tar",
        "lasot-000001.tar",
    }
    assert run(tree, out).resumed_shards == 2
    assert hashes(out) == expected


@pytest.mark.parametrize("workers", [1, 2])
def test_ctrl_c_then_the_same_command(
    tree: Path, tmp_path: Path, expected: dict[str, str], workers: int
) -> None:
    out = tmp_path / "out"

    class Interrupting:
        def update(self, done: int) -> None:
            if done >= 20:
                raise KeyboardInterrupt

    @contextmanager
    def progress(what: str, unit: str, total: int) -> Iterator[Interrupting]:
        yield Interrupting()

    with pytest.raises(KeyboardInterrupt):
        run(tree, out, workers=workers, progress=progress)
    assert not list(out.rglob(".part-*"))
    assert not multiprocessing.active_children()
    run(tree, out, workers=workers)
    assert hashes(out) == expected


def test_a_worker_that_is_killed_gives_a_clear_error(
    tree: Path, tmp_path: Path, expected: dict[str, str]
) -> None:
    from packer.draft import draft, silent

    out = tmp_path / "out"
    source = KillingSource(tree, "car-3/img/00000009.jpg")
    jobs = draft(lasot, source, OPTIONS, silent).jobs
    works = [
        Work(job=job, source=source, out=out, size=127, quality=90, grid="edge", skip=False)
        for job in jobs
    ]
    with pytest.raises(SiamstreamError, match=r"a worker process died .* to go on"):
        list(run_jobs(works, 2, None, lambda _done: None))
    shutil.rmtree(out, ignore_errors=True)
    run(tree, out, workers=2)
    assert hashes(out) == expected


KILLER = """
import os, signal, sys
from pathlib import Path
from packer.datasets import lasot
from packer.jobs import PackOptions
from packer.run import pack
import shutil

root, base, what = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
options = PackOptions(stride=1, min_size=10, size=127, frames_per_shard=16, split="all")
real_sync, real_read, real_rmtree = os.fsync, type(Path()).read_bytes, shutil.rmtree


def counted(function, moment):
    left = moment

    def call(*args, **more):
        nonlocal left
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1
        return function(*args, **more)

    return call


moment = 0
while True:
    child = os.fork()
    if child == 0:
        if what == "sync":
            os.fsync = counted(real_sync, moment)
        elif what == "rename":
            Path.replace = counted(Path.replace, moment)
        else:
            Path.read_bytes = counted(real_read, moment * 13 + 20)
        pack(lasot, root, base / str(moment), options, workers=1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status):
        sys.exit(0 if os.WEXITSTATUS(status) == 0 else 1)
    moment += 1
"""


@pytest.mark.slow
@pytest.mark.parametrize("what", ["sync", "rename", "read"])
def test_killed_at_every_write_and_many_reads_and_resumed(
    tree: Path, tmp_path: Path, expected: dict[str, str], what: str
) -> None:
    """One child for each moment is really killed by SIGKILL; the last one is not reached."""
    done = subprocess.run(
        [sys.executable, "-c", KILLER, str(tree), str(tmp_path), what], capture_output=True
    )
    assert done.returncode == 0, done.stderr.decode()
    folders = sorted(tmp_path.iterdir(), key=lambda path: int(path.name))
    assert len(folders) >= 7
    unfinished = [folder for folder in folders if hashes(folder) != expected]
    assert len(unfinished) >= len(folders) - 2  # killed in the middle, all but the last
    for folder in folders:
        run(tree, folder)
        assert hashes(folder) == expected, folder.name


@pytest.mark.slow
@pytest.mark.parametrize("shards_done", [0, 2, 4])
def test_two_workers_die_with_their_killed_parent_and_a_rerun_goes_on(
    tree: Path, tmp_path: Path, expected: dict[str, str], shards_done: int
) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-m", "packer", "lasot", "--root", str(tree), "--out", str(out)]
    command += ["--stride=1", "--size=127", "--frames-per-shard=16", "--split=all", "--workers=2"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    assert until(lambda: process.poll() is not None or len(list(out.glob("*.tar"))) >= shards_done)
    children = (
        psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    )
    process.kill()
    process.wait()
    _, alive = psutil.wait_procs(children, timeout=100)
    assert not alive
    run(tree, out, workers=2)
    assert hashes(out) == expected


def test_a_crash_between_manifest_and_tidying_is_harmless(
    tree: Path, tmp_path: Path, expected: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(output, "tidy", fail_with(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            run(tree, out)
    assert (out / "manifest.json").is_file()
    assert (out / ".parts").is_dir()
    assert run(tree, out).resumed_shards == 6
    assert hashes(out) == expected


def test_a_shard_cut_short_while_it_was_not_looked_at_is_packed_again(
    tree: Path, tmp_path: Path, expected: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr("packer.run.finish", fail_with(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            run(tree, out)
    shard = out / "lasot-000001.tar"
    shard.write_bytes(shard.read_bytes()[:-1024])
    (out / ".part-1-2-lasot-000009.tar").write_bytes(b"left by a killed writer")
    assert run(tree, out).resumed_shards == 5
    assert hashes(out) == expected


def test_notes_count_absent_flag_files(tmp_path: Path) -> None:
    root = tmp_path / "raw"
    sequence(root, "car-1", 4, occluded=None, out_of_view=None)
    sequence(root, "car-3", 4, occluded=None)
    (root / "empty").mkdir()
    report = run(root, tmp_path / "out")
    assert report.notes == (
        "no sequences in folder empty",
        "no full_occlusion.txt: frames taken as visible (2 sequences, first car-1)",
        "no out_of_view.txt: frames taken as visible (car-1)",
    )
    assert {frame["visible"] for frame in packed_frames(tmp_path / "out")} == {None}
    assert json.loads((tmp_path / "out/manifest.json").read_text())["notes"] == list(report.notes)


def test_inclusive_boxes_and_grid_reach_the_samples(tmp_path: Path) -> None:
    sequence(tmp_path / "raw", "car-1", 4, boxes="20,15,31,31\n" * 4)
    options = PackOptions(stride=1, min_size=10, size=127, inclusive_boxes=True, grid="corner")
    run(tmp_path / "raw", tmp_path / "out", options)
    frame = packed_frames(tmp_path / "out")[0]
    region = frame["region"]
    assert (region[0] + region[2]) / 2 == pytest.approx(35.0)  # middle of 20 and 50
    assert region[2] - region[0] == pytest.approx(60.0)  # context side of a 30 px square
    assert Manifest.read(tmp_path / "out").grid == "corner"


def test_links_out_of_the_root_fail_the_run(tree: Path, tmp_path: Path) -> None:
    root = copy(tree, tmp_path / "raw")
    (tmp_path / "secret.jpg").write_bytes(picture(1))
    victim = root / "car/car-1/img/00000002.jpg"
    victim.unlink()
    victim.symlink_to(tmp_path / "secret.jpg")
    with pytest.raises(Malformed, match=r"00000002\.jpg leads out of"):
        run(root, tmp_path / "out")
    report = run(root, tmp_path / "out", on_error="skip")
    assert (report.rejected["unreadable"], report.rejected.get("no_picture", 0)) == (1, 0)
    assert "00000002.jpg leads out of" in "\n".join(report.lines())


def test_a_linked_folder_costs_only_its_video_and_an_unused_link_nothing(
    tree: Path, tmp_path: Path
) -> None:
    root = copy(tree, tmp_path / "raw")
    (tmp_path / "elsewhere").mkdir()
    whole = run(root, tmp_path / "whole")
    (root / "junk").symlink_to(tmp_path / "elsewhere")
    (root / "car/junk").symlink_to(tmp_path / "elsewhere")
    (root / "round").symlink_to("round")
    (root / "car/car-1/img/round.txt").symlink_to("round.txt")
    report = run(root, tmp_path / "unused")
    assert (report.frames, report.causes) == (whole.frames, ())
    assert any("junk" in note and "leads out of" in note for note in report.notes)
    for name, target in (("car-91", tmp_path / "elsewhere"), ("car-92", "car-92")):
        link = root / "car" / name
        link.symlink_to(target)
        with pytest.raises(Malformed, match=f"car/{name}"):
            run(root, tmp_path / "linked")
        report = run(root, tmp_path / name, on_error="skip")
        assert report.frames == whole.frames
        assert any(f"car/{name}" in cause for cause in report.causes)
        link.unlink()
    (root / "cup").symlink_to(tmp_path / "elsewhere")  # a class of LaSOT
    with pytest.raises(Malformed, match="cup leads out of"):
        run(root, tmp_path / "class")


def test_causes_of_what_is_left_out_are_cut_short(tree: Path, tmp_path: Path) -> None:
    root = copy(tree, tmp_path / "raw")
    for number in range(1, 8):
        (root / f"car/car-1/img/{number:08d}.jpg").write_bytes(b"")
    report = run(root, tmp_path / "out", on_error="skip")
    assert len(report.causes) == 6
    assert report.causes[-1] == f"and {report.rejected['unreadable'] - 5} more"
    assert "causes" not in (tmp_path / "out/manifest.json").read_text()
