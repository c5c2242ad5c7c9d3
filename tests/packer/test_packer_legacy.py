"""Old zips to shards and back."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import signal
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import old_files
import pytest
import synthetic
from click.testing import CliRunner, Result
from waiting import until

from packer.cli import main
from packer.legacy import LegacyOptions, pack_legacy
from packer.run import Malformed
from shards.errors import DataError, FormatError, MismatchError
from shards.format import Manifest
from shards.index import Index
from shards.legacy import Comment, dataset_of, existing, export_legacy, load_legacy
from shards.storage import LocalStorage, Range
from shards.verify import verify
from shards.zip_members import comment

COCO = LegacyOptions(dataset="coco", frames_per_shard=4)


def hashes(folder: Path) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.iterdir()
        if path.is_file()
    }


def read(folder: Path) -> dict[str, bytes]:
    index, storage = Index.checked(folder, Manifest.read(folder)), LocalStorage(folder)
    found = {}
    for row in range(len(index)):
        at = Range(index.file(row), int(index.offset[row]), int(index.size[row]))
        found[f"{index.sequence(row)}_0_{index.frame[row]}.jpg"] = bytes(storage.read_many([at])[0])
    return found


@pytest.mark.parametrize("inside", ["", "COCO/images/"])
@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_crops_are_copied_byte_for_byte(tmp_path: Path, inside: str, method: int) -> None:
    path, pickled, crops = old_files.write(tmp_path, inside=inside, method=method)
    report = pack_legacy(path, pickled, tmp_path / "out", COCO)
    assert read(tmp_path / "out") == crops
    assert (report.frames, report.tracks, report.shards) == (13, 4, 4)
    assert (report.grid, report.size, report.quality, report.stride) == ("corner", 96, None, None)
    manifest = Manifest.read(tmp_path / "out")
    assert manifest.counts == {"frames": 13, "tracks": 4, "sequences": 4, "categories": 2}
    assert any("not known" in note for note in manifest.notes)
    assert verify(tmp_path / "out", 1).ok


def test_from_a_folder_of_crops(tmp_path: Path) -> None:
    path, pickled, crops = old_files.write(tmp_path)
    with zipfile.ZipFile(path) as archive:
        archive.extractall(tmp_path / "crops")
    pack_legacy(tmp_path / "crops", pickled, tmp_path / "out", COCO)
    assert read(tmp_path / "out") == crops


def test_descriptions_in_the_tar_tell_what_is_not_known(tmp_path: Path) -> None:
    path, pickled, _ = old_files.write(tmp_path, sequences={"car-1": [7, 9]})
    pack_legacy(path, pickled, tmp_path / "out", COCO)
    data = (tmp_path / "out/coco-000000.tar").read_bytes()
    start = data.index(b'{"sequence"')
    facts = json.loads(data[start : data.index(b"\n", start)])
    assert facts == {
        "sequence": "car-1", "track": 0, "frame": 7, "kind": "video", "fps": None,
        "boxes": [[38.0, 35.75, 58.0, 60.25]], "categories": ["zebra"], "ignore": [False],
        "category": "zebra", "visible": None, "mean_rgb": None, "source": None,
        "source_size": None, "region": None,
    }  # fmt: skip


@pytest.mark.parametrize("workers", [1, 3])
def test_the_same_bytes_whatever_the_number_of_threads(tmp_path: Path, workers: int) -> None:
    path, pickled, _ = old_files.write(tmp_path)
    pack_legacy(path, pickled, tmp_path / "a", COCO)
    pack_legacy(path, pickled, tmp_path / "b", COCO, workers=workers)
    assert hashes(tmp_path / "a") == hashes(tmp_path / "b")


def test_round_trip_from_old_files_with_numbers_of_their_own(tmp_path: Path) -> None:
    """Category numbers with holes, one without crops: the pickle comes back as it was."""
    sequences = {"zebra-1": [1, 4, 10], "-x_0": [0, 1, 2, 3], "car-2": [5, 8]}
    path, pickled, crops = old_files.write(tmp_path, sequences=sequences)
    pack_legacy(path, pickled, tmp_path / "out", COCO)
    back = export_legacy(tmp_path / "out", tmp_path / "back")
    assert back.zip.name == "COCO.zip"
    one, two = pickle.loads(pickled.read_bytes()), pickle.loads(back.pickle.read_bytes())
    assert one["categories"] == two["categories"]
    for a, b in zip(one["seqs"], two["seqs"], strict=True):
        assert (a["frame_id"], a["frames"], a["category"]) == (
            b["frame_id"],
            b["frames"],
            b["category"],
        )
        for x, y in zip(a["bboxes"], b["bboxes"], strict=True):
            assert x.dtype == y.dtype
            np.testing.assert_array_equal(x, y)
    with zipfile.ZipFile(back.zip) as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == crops


@pytest.mark.parametrize("grid", ["edge", "corner"])
@pytest.mark.parametrize("kind", ["video", "image"])
def test_round_trip_of_our_own_shards(tmp_path: Path, grid: Any, kind: str) -> None:
    """shards -> old files -> shards -> old files: the same two files, and the grid is not lost."""
    frames = 4 if kind == "video" else 1
    synthetic.pack(
        tmp_path, "mine", sequences=3, frames=frames, side=64, kind=kind, others=2, grid=grid
    )
    first = export_legacy(tmp_path / "mine", tmp_path / "old")
    pack_legacy(first.zip, first.pickle, tmp_path / "again", LegacyOptions(dataset="mine"))
    manifest = Manifest.read(tmp_path / "again")
    assert (manifest.grid, manifest.quality, manifest.stride) == (grid, 90, 3)
    second = export_legacy(tmp_path / "again", tmp_path / "old2")
    assert first.zip.read_bytes() == second.zip.read_bytes()
    assert first.pickle.read_bytes() == second.pickle.read_bytes()
    before, after = Index(tmp_path / "mine"), Index(tmp_path / "again")
    same = ("sequence", "track", "frame", "kind", "boxes", "categories", "ignore", "crc32c")
    for name in same:
        assert before.table[name].to_pylist() == after.table[name].to_pylist()


def test_names_that_need_encoding_survive_the_round_trip(tmp_path: Path) -> None:
    from shards.writer import finish, write_shard

    samples = list(synthetic.samples("odd name.x/ü", "car", 2, seed=1, side=64))
    part = write_shard(tmp_path / "mine", "mine-000000.tar", samples)
    finish(tmp_path / "mine", [part], name="mine", grid="edge", crop_size=64)
    old = export_legacy(tmp_path / "mine", tmp_path / "old")
    pack_legacy(old.zip, old.pickle, tmp_path / "again", LegacyOptions(dataset="mine"))
    assert Index(tmp_path / "again").sequence(0) == "odd name.x/ü"


def test_comment_of_an_exported_zip_and_of_others(tmp_path: Path) -> None:
    synthetic.pack(tmp_path, "mine", sequences=2, frames=2, side=64)
    made = export_legacy(tmp_path / "mine", tmp_path / "old")
    assert Comment.from_bytes(comment(made.zip)) == Comment(grid="edge", quality=90, stride=3)
    path, _, _ = old_files.write(tmp_path / "other")
    assert Comment.from_bytes(comment(path)) == Comment()
    for strange in (b"siamstream [", b"siamstream 3", b'siamstream {"grid": "x", "quality": true}'):
        assert Comment.from_bytes(strange) == Comment()


@pytest.mark.parametrize(
    ("name", "dataset"),
    [
        ("COCO.zip", "coco"), ("COCO", "coco"), ("coco_clean.pkl", "coco"),
        ("LaSOT_trian_images.zip", "lasot"), ("LaSOT_train_images.zip", "lasot"),
        ("LaSOT_train_images", "lasot"), ("lasot_train_clean.pkl", "lasot"),
        ("TrackingNet_images.zip", "trackingnet"), ("trackingnet_clean.pkl", "trackingnet"),
        ("got10k_train_images.zip", "got10k"), ("got10k_train", "got10k"), ("mine.zip", None),
    ],
)  # fmt: skip
def test_published_names(name: str, dataset: str | None) -> None:
    assert dataset_of(Path("/data") / name) == dataset


def test_the_other_spelling_is_taken_where_only_that_is_there(tmp_path: Path) -> None:
    right, wrong = tmp_path / "LaSOT_train_images.zip", tmp_path / "LaSOT_trian_images.zip"
    assert existing(wrong) == wrong
    right.touch()
    assert existing(wrong) == existing(right) == right
    wrong.touch()
    assert existing(wrong) == wrong


def test_missing_and_unreadable_crops(tmp_path: Path) -> None:
    path, pickled, crops = old_files.write(tmp_path)
    del crops["zebra-1_0_4.jpg"]
    crops["-x_0_0_1.jpg"] = crops["-x_0_0_1.jpg"][:-900]
    crops["car-2_0_5.jpg"] = b"<html>404</html>"
    crops["car 3_0_4.jpg"] = old_files.crop(2, side=80)
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in [*crops.items(), ("new-1_0_7.jpg", b"x")]:
            archive.writestr(name, data)
    with pytest.raises(Malformed, match=r"zebra-1_0_4\.jpg: annotated, but there is no such"):
        pack_legacy(path, pickled, tmp_path / "out", COCO)
    assert not (tmp_path / "out").exists()
    facts = pickle.loads(pickled.read_bytes())
    for name in ("frame_id", "bboxes", "frames"):
        del facts["seqs"][0][name][1]
    pickled.write_bytes(pickle.dumps(facts))
    with pytest.raises(Malformed) as error:
        pack_legacy(path, pickled, tmp_path / "out", COCO)
    assert [one.where for one in error.value.problems] == [
        "-x_0_0_1.jpg",
        "car-2_0_5.jpg",
        "car 3_0_4.jpg",
    ]
    assert not (tmp_path / "out/manifest.json").exists()
    report = pack_legacy(path, pickled, tmp_path / "out", COCO, on_error="skip")
    assert report.rejected == {"no_label": 1, "unreadable": 3, "short_track": 1}
    assert report.resumed_shards == 1
    shown = Manifest.read(tmp_path / "out").rejected_examples["unreadable"]
    assert [one["frame"] for one in shown] == ["-x_0/1", "car-2/5", "car 3/4"]
    assert verify(tmp_path / "out", 1).ok
    pack_legacy(path, pickled, tmp_path / "anew", COCO, on_error="skip")
    assert hashes(tmp_path / "out") == hashes(tmp_path / "anew")


def test_a_truncated_crop_is_found_although_its_header_is_fine(tmp_path: Path) -> None:
    path, pickled, crops = old_files.write(tmp_path, sequences={"a-1": [1, 2]})
    crops["a-1_0_2.jpg"] = crops["a-1_0_2.jpg"][:-600]
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in crops.items():
            archive.writestr(name, data)
    with pytest.raises(Malformed, match="damaged JPEG"):
        pack_legacy(path, pickled, tmp_path / "out", COCO)


def test_nothing_left(tmp_path: Path) -> None:
    path, pickled, _ = old_files.write(tmp_path, sequences={"a-1": [1, 2]})
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("other.txt", "x")
    with pytest.raises(DataError, match="no_picture 2"):
        pack_legacy(path, pickled, tmp_path / "out", COCO, on_error="skip")


def test_other_options_or_input_are_refused(tmp_path: Path) -> None:
    path, pickled, crops = old_files.write(tmp_path)
    pack_legacy(path, pickled, tmp_path / "out", COCO)
    with pytest.raises(MismatchError, match="--grid was 'corner', now 'edge'"):
        pack_legacy(
            path,
            pickled,
            tmp_path / "out",
            LegacyOptions(dataset="coco", grid="edge", frames_per_shard=4),
        )
    with zipfile.ZipFile(path, "w") as archive:
        for name in crops:
            archive.writestr(name, old_files.crop(77))
    with pytest.raises(MismatchError, match="input"):
        pack_legacy(path, pickled, tmp_path / "out", COCO)


def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path) -> None:
    path, pickled, _ = old_files.write(tmp_path)
    pickled.write_bytes(b"cbuiltins\neval\n(S'1'\ntR.")
    with pytest.raises(FormatError, match=r"it names builtins\.eval"):
        pack_legacy(path, pickled, tmp_path / "out", COCO)


class _Killed(BaseException):
    """Stands for a kill that Python sees."""


@pytest.mark.parametrize("at", [1, 4, 6, 9, 13])
def test_stopped_at_any_frame_it_goes_on(tmp_path: Path, at: int) -> None:
    path, pickled, _ = old_files.write(tmp_path)
    pack_legacy(path, pickled, tmp_path / "whole", COCO)

    class Stop:
        def update(self, done: int) -> None:
            if done == at:
                raise _Killed

    @contextmanager
    def progress(what: str, unit: str, total: int) -> Iterator[Stop]:
        yield Stop()

    with pytest.raises(_Killed):
        pack_legacy(path, pickled, tmp_path / "out", COCO, progress=progress)
    assert not (tmp_path / "out/manifest.json").exists()
    pack_legacy(path, pickled, tmp_path / "out", COCO)
    assert hashes(tmp_path / "out") == hashes(tmp_path / "whole")


def test_a_real_kill(tmp_path: Path) -> None:
    sequences = {f"car-{n}": list(range(1, 9)) for n in range(1, 26)}
    path, pickled, _ = old_files.write(tmp_path, sequences=sequences)
    options = ["--zip", path, "--ann", pickled, "--frames-per-shard", 8, "--workers", 1]
    command = [sys.executable, "-m", "packer", "legacy", *map(str, options)]
    root = Path(__file__).parents[2]
    process = subprocess.Popen(
        [*command, "--out", str(tmp_path / "out")], cwd=root, stderr=subprocess.DEVNULL
    )
    done = lambda: list((tmp_path / "out").glob("coco-00000[2-9].tar"))  # noqa: E731
    assert until(lambda: process.poll() is not None or done())
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert 0 < len(list((tmp_path / "out").glob("*.tar"))) <= 25
    for out in ("out", "whole"):
        subprocess.run(
            [*command, "--out", str(tmp_path / out)], cwd=root, check=True, capture_output=True
        )
    assert hashes(tmp_path / "out") == hashes(tmp_path / "whole")
    assert verify(tmp_path / "out", 1).ok


# ---- the command -------------------------------------------------------------------------------


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["legacy", *map(str, arguments)])


def test_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIAMSTREAM_SHARDS", str(tmp_path / "shards"))
    path, pickled, _ = old_files.write(tmp_path)
    planned = run("--zip", path, "--ann", pickled, "--dry-run", "--json")
    assert planned.exit_code == 0, planned.output
    assert not (tmp_path / "shards").exists()
    result = run("--zip", path, "--ann", pickled, "--json")
    assert result.exit_code == 0, result.output
    facts, wanted = json.loads(result.stdout), json.loads(planned.stdout)
    for key in ("name", "shards", "frames", "tracks", "sequences", "categories", "grid", "size"):
        assert facts[key] == wanted[key]
    assert facts["out"] == str(tmp_path / "shards/coco")
    again = run("--zip", path, "--ann", pickled)
    assert "nothing to do" in again.stderr


def test_command_line_errors(tmp_path: Path) -> None:
    path, pickled, _ = old_files.write(tmp_path, zip_name="mine.zip")
    own = pickled.rename(tmp_path / "own.pkl")
    nameless = run("--zip", path, "--ann", own)
    assert (nameless.exit_code, "--dataset" in nameless.stderr) == (2, True)
    options = ("--ann", own, "--dataset", "mine", "--out", tmp_path / "out")
    gone = run("--zip", tmp_path / "gone.zip", *options)
    assert (gone.exit_code, "gone.zip" in gone.stderr) == (1, True)
    named = run("--zip", path, "--ann", own, "--dataset", "My Set", "--out", tmp_path / "out")
    assert (named.exit_code, "lower-case" in named.stderr) == (1, True)
    assert run("--zip", path, *options, "--frames-per-shard", 3).exit_code == 2


@pytest.mark.parametrize("name", ["a\ud800", "a\nb", "a\x1b[31m", ""])
@pytest.mark.parametrize("on_error", ["fail", "skip"])
def test_names_that_no_class_can_have_are_refused(tmp_path: Path, name: str, on_error: str) -> None:
    path, pickled, _ = old_files.write(tmp_path)
    facts = pickle.loads(pickled.read_bytes())
    facts["categories"][1]["name"] = name
    pickled.write_bytes(pickle.dumps(facts))
    result = run("--zip", path, "--ann", pickled, "--out", tmp_path / "o", "--on-error", on_error)
    assert (result.exit_code, type(result.exception)) == (1, SystemExit)
    assert "categories[1] (id 9): " in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not (tmp_path / "o").exists()


@pytest.mark.slow
def test_real_pictures_there_and_back(real_data: Path, tmp_path: Path) -> None:
    from packer.datasets import coco
    from packer.jobs import PackOptions
    from packer.run import pack

    dataset = coco.locate(real_data / "coco", None, None)
    options = PackOptions(stride=1, min_size=coco.Coco.MIN_SIZE)
    pack(dataset, dataset.images, tmp_path / "coco", options)
    first = export_legacy(tmp_path / "coco", tmp_path / "old")
    pack_legacy(first.zip, first.pickle, tmp_path / "again", LegacyOptions(dataset="coco"))
    second = export_legacy(tmp_path / "again", tmp_path / "old2")
    assert first.zip.read_bytes() == second.zip.read_bytes()
    assert first.pickle.read_bytes() == second.pickle.read_bytes()
    assert len(load_legacy(second.pickle)["seqs"]) == first.frames > 200
