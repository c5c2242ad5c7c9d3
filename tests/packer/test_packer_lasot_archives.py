"""LaSOT as it was downloaded: archives give what their unpacked folders give."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from archive_files import (
    Files,
    deflated,
    files_below,
    patch_directory,
    raw_zip,
    unpacked,
    write_tar,
    write_zip,
)
from lasot_tree import hashes, sequence, small_tree

from packer.datasets import lasot
from packer.jobs import PackOptions
from packer.run import Malformed, pack
from packer.source import FolderSource
from shards.errors import DataError
from shards.format import Manifest

OPTIONS = PackOptions(stride=1, min_size=10, size=127, frames_per_shard=16, split="all")


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_tree(tmp_path_factory.mktemp("raw"))


@pytest.fixture(scope="module")
def expected(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    out = tmp_path_factory.mktemp("expected") / "lasot"
    pack(lasot, tree, out, OPTIONS, workers=1)
    return hashes(out)


def below(files: Files, prefix: str) -> dict[str, bytes]:
    return {f"{prefix}{name}": data for name, data in files.items()}


def class_zips(root: Path, tree: Path, prefix: bool, enclosing: str = "") -> Path:
    for folder in sorted(tree.iterdir()):
        files = files_below(folder)
        writer = deflated if folder.name == "dog" else write_zip
        name = f"{folder.name}.zip"
        writer(root / enclosing / name, below(files, f"{folder.name}/") if prefix else files)
    return root


FORMS: dict[str, Callable[[Path, Path], Path]] = {
    "class zips": lambda root, tree: class_zips(root, tree, prefix=False),
    "class zips with class folders": lambda root, tree: class_zips(root, tree, prefix=True),
    "class zips in a folder": lambda root, tree: class_zips(root, tree, True, "LaSOTBenchmark"),
    "a zip as root": lambda root, tree: write_zip(root / "a.zip", files_below(tree)),
    "a zip with an enclosing folder as root": lambda root, tree: deflated(
        root / "LaSOT.zip", below(files_below(tree), "LaSOTBenchmark/")
    ),
    "a zip in the root": lambda root, tree: (
        write_zip(root / "LaSOT.zip", below(files_below(tree), "LaSOT/")).parent
    ),
    "a tar as root": lambda root, tree: write_tar(
        root / "a.tar", below(files_below(tree), "./LaSOT/")
    ),
}


def with_one_class_unpacked(root: Path, tree: Path) -> Path:
    write_zip(root / "dog.zip", files_below(tree / "dog"))
    unpacked(root / "car", files_below(tree / "car"))
    return root


@pytest.mark.parametrize("form", [*FORMS, "one class unpacked"])
def test_lasot_gives_the_same_bytes_in_every_form(
    tree: Path, expected: dict[str, str], tmp_path: Path, form: str
) -> None:
    make = FORMS.get(form, with_one_class_unpacked)
    pack(lasot, make(tmp_path / "raw", tree), tmp_path / "out", OPTIONS, workers=1)
    assert hashes(tmp_path / "out") == expected


@pytest.mark.parametrize("form", ["class zips", "a zip with an enclosing folder as root"])
def test_lasot_gives_the_same_bytes_from_two_processes(
    tree: Path, expected: dict[str, str], tmp_path: Path, form: str
) -> None:
    pack(lasot, FORMS[form](tmp_path / "raw", tree), tmp_path / "out", OPTIONS, workers=2)
    assert hashes(tmp_path / "out") == expected


def test_a_run_begun_from_folders_goes_on_from_zips(
    tree: Path, expected: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = FolderSource.read

    def stop(self: FolderSource, path: str) -> bytes:
        if "car-3/img/00000030" in path:
            raise KeyboardInterrupt
        return read(self, path)

    with monkeypatch.context() as patch:
        patch.setattr(FolderSource, "read", stop)
        with pytest.raises(KeyboardInterrupt):
            pack(lasot, tree, tmp_path / "out", OPTIONS, workers=1)
    assert (tmp_path / "out/lasot-000000.tar").is_file()
    zips = class_zips(tmp_path / "raw", tree, prefix=True)
    report = pack(lasot, zips, tmp_path / "out", OPTIONS, workers=1)
    assert report.resumed_shards > 0
    assert hashes(tmp_path / "out") == expected


def test_a_damaged_class_zip_is_named_and_the_rest_is_found(tree: Path, tmp_path: Path) -> None:
    root = class_zips(tmp_path / "raw", tree, prefix=False)
    data = (root / "dog.zip").read_bytes()
    (root / "dog.zip").write_bytes(data[: len(data) // 2])
    with pytest.raises(Malformed) as caught:
        pack(lasot, root, tmp_path / "out", OPTIONS, workers=1)
    assert len(caught.value.problems) == 1
    assert caught.value.problems[0].where == "dog.zip"
    assert "fetch the archive again" in caught.value.problems[0].what
    assert not (tmp_path / "out").exists()
    report = pack(lasot, root, tmp_path / "out", OPTIONS, workers=1, on_error="skip")
    assert report.sequences == 2


def test_only_a_damaged_zip(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw/dog.zip").write_bytes(b"PK\3\4 and no more")
    with pytest.raises(DataError, match=r"no sequences found; .*dog\.zip.* fetch the archive"):
        lasot.survey(FolderSource(tmp_path / "raw"), "train")


def test_an_unsafe_name_is_a_problem_of_its_sequence(tree: Path, tmp_path: Path) -> None:
    members = [(name.encode(), data) for name, data in files_below(tree / "dog").items()]
    members += [(b"dog-2/img/../../../../evil.jpg", b"x"), (b"dog-3/../dog-10/img/9.jpg", b"x")]
    raw_zip(tmp_path / "raw/dog.zip", members)
    found = lasot.survey(FolderSource(tmp_path / "raw"), "all")
    assert not found.problems
    faults = {
        one.name: [
            problem.where for problem in lasot.read(FolderSource(tmp_path / "raw"), one).problems
        ]
        for one in found.found
    }
    assert faults["dog-10"] == []
    assert faults["dog-2"][0] == "dog.zip/dog-2/img"
    assert faults["dog-3"][0] == "dog.zip/dog-3"


def test_a_damaged_picture_in_a_zip_is_left_out_by_name(tree: Path, tmp_path: Path) -> None:
    file = write_zip(tmp_path / "raw/dog.zip", files_below(tree / "dog"))
    patch_directory(file, "dog-10/img/00000004.jpg", crc=1)
    with pytest.raises(Malformed) as caught:
        pack(lasot, tmp_path / "raw", tmp_path / "out", OPTIONS, workers=1)
    problem = caught.value.problems[0]
    assert problem.where == "dog.zip/dog-10/img/00000004.jpg"
    assert f"{file}: member 'dog-10/img/00000004.jpg' is damaged: CRC-32" in problem.what
    pack(lasot, tmp_path / "raw", tmp_path / "out", OPTIONS, workers=1, on_error="skip")
    manifest = Manifest.read(tmp_path / "out")
    assert manifest.rejected["unreadable"] == 1


def test_zips_kept_beside_what_was_unpacked(tree: Path, tmp_path: Path) -> None:
    root = class_zips(tmp_path / "raw", tree, prefix=True)
    unpacked(root / "dog", files_below(tree / "dog"))
    (root / "dog/dog-2/groundtruth.txt").unlink()  # the unpacked one is taken, faults and all
    (root / "cat.tar.gz").write_bytes(b"x")
    write_zip(root / "toolkit.zip", {"src/a.py": b"", "inner.zip": b""})
    found = lasot.survey(FolderSource(root), "all")
    assert [one.folder for one in found.found] == [
        "car.zip/car/car-1",
        "car.zip/car/car-3",
        "dog/dog-2",
        "dog/dog-3",
        "dog/dog-10",
    ]
    assert not found.problems
    assert found.notes == (
        "cat.tar.gz not read: a .tar.gz archive gives no access to single members; unpack it",
        "3 sequences of dog.zip not taken: they are unpacked too",
        "no sequences in folder toolkit.zip/src",
        "toolkit.zip/inner.zip not read: it is in an archive; unpack it",
        "no sequences in archive toolkit.zip",
    )


def test_a_sequence_in_two_zips_is_a_problem(tmp_path: Path) -> None:
    folder = sequence(tmp_path / "tree", "car-1", 3)
    for name in ("a.zip", "b.zip"):
        write_zip(tmp_path / "raw" / name, below(files_below(folder), "car-1/"))
    (problem,) = lasot.survey(FolderSource(tmp_path / "raw"), "all").problems
    assert str(problem) == "b.zip/car-1: car-1 is there twice, also as a.zip/car-1"


def test_sequences_reads_an_archive(tree: Path, tmp_path: Path) -> None:
    file = write_zip(tmp_path / "car.zip", files_below(tree / "car"))
    assert [one.name for one in lasot.sequences(file, "all")] == ["car-1", "car-3"]
