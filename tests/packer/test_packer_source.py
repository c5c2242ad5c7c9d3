"""Raw trees as folders and archives: the same names and bytes, and everything that is refused."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import subprocess
import sys
import tarfile
import textwrap
import tracemalloc
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from archive_files import (
    Files,
    deflated,
    patch_directory,
    raw_zip,
    unpacked,
    write_tar,
    write_zip,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from packer import archive
from packer.source import ArchiveSource, Entry, FolderSource, RefusedLink, Source, open_source
from shards.errors import DataError

FILES = {
    "car-1/groundtruth.txt": b"1,2,3,4\n" * 500,
    "car-1/img/00000001.jpg": bytes(range(256)) * 9,
    "car-1/img/00000002.jpg": b"",
    "car-10/ümlaut.txt": "ü".encode(),
    "top.txt": b"top",
}
HIDDEN = {
    ".DS_Store": b"x",
    "__MACOSX/car-1/._groundtruth.txt": b"x",
    "car-1/.hidden/inner.txt": b"x",
    "car-1/img/.00000001.jpg": b"x",
}


WRITERS: dict[str, Callable[[Path, Files], Path]] = {
    "stored.zip": write_zip,
    "deflated.ZIP": deflated,
    "plain.tar": write_tar,
    "gnu.tar": lambda path, files: write_tar(path, files, tarfile.GNU_FORMAT),
}


def walk(source: Source, folder: str = "") -> dict[str, bytes]:
    """Everything in a tree, by path in it."""
    found = {}
    for entry in source.list(folder):
        path = f"{folder}/{entry.name}" if folder else entry.name
        if entry.is_folder:
            found |= walk(source, path)
        else:
            found[path] = source.read(path)
    return found


# The same tree in every form -------------------------------------------------------------------


@pytest.mark.parametrize("name", WRITERS)
def test_an_archive_is_the_same_tree_as_its_unpacked_folder(tmp_path: Path, name: str) -> None:
    folder = FolderSource(unpacked(tmp_path / "folder", FILES | HIDDEN))
    file = WRITERS[name](tmp_path / "raw/sub" / name, FILES | HIDDEN)
    through = FolderSource(tmp_path / "raw")
    whole = open_source(file)
    assert isinstance(whole, ArchiveSource)
    assert walk(folder) == walk(whole) == FILES
    assert walk(through, f"sub/{name}") == {f"sub/{name}/{k}": v for k, v in FILES.items()}
    for path in ("", "car-1", "car-1/img"):
        below = f"/{path}" if path else ""
        assert folder.list(path) == whole.list(path) == through.list(f"sub/{name}{below}")
    assert through.list("sub") == [Entry(name, is_folder=False)]
    assert through.list("sub")[0].is_archive
    assert through.read(f"sub/{name}") == file.read_bytes()


NAMES = st.text(st.sampled_from("ab-_0 .ü~'"), min_size=1, max_size=5).filter(
    lambda name: not name.startswith(".")
)
TREES = st.dictionaries(
    st.lists(NAMES, min_size=1, max_size=4).map("/".join), st.binary(max_size=40), max_size=12
).filter(lambda files: not any(a != b and b.startswith(f"{a}/") for a in files for b in files))


@pytest.mark.parametrize("name", WRITERS)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(files=TREES)
def test_any_tree_reads_back(tmp_path: Path, name: str, files: dict[str, bytes]) -> None:
    assert walk(ArchiveSource(WRITERS[name](tmp_path / name, files))) == files


def test_empty_folders_are_listed(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as made:
        made.writestr("car-1/img/", "")
    source = FolderSource(tmp_path)
    assert source.list("a.zip/car-1") == [Entry("img", is_folder=True)]
    assert source.list("a.zip/car-1/img") == []
    write_zip(tmp_path / "b.zip", {})
    assert source.list("b.zip") == []


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_tar_names_of_any_length_and_a_leading_dot(tmp_path: Path, form: int) -> None:
    files = {f"{'folder/' * 30}{'n' * 90}.txt": b"long", "a.txt": b"short"}
    file = write_tar(tmp_path / "a.tar", {f"./{k}": v for k, v in files.items()}, form)
    assert walk(ArchiveSource(file)) == files


def test_zip64_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its limits lowered, zipfile writes small archives as it writes those over 4 GiB."""
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 100)
    monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 2)
    file = write_zip(tmp_path / "a.zip", FILES)
    assert b"PK\6\6" in file.read_bytes()
    assert walk(ArchiveSource(file)) == FILES


def test_a_member_beyond_4_gib(tmp_path: Path) -> None:
    file = tmp_path / "a.zip"
    with zipfile.ZipFile(file, "w") as made:
        made.writestr("first.txt", b"1")
        made.fp.seek(5 << 30)  # a hole: costs no disk
        made.start_dir = 5 << 30
        made.writestr("last.txt", b"2" * 5)
    source = ArchiveSource(file)
    assert source.read("last.txt") == b"2" * 5
    assert source.read("first.txt") == b"1"


def test_a_comment_that_looks_like_an_end(tmp_path: Path) -> None:
    file = write_zip(tmp_path / "a.zip", FILES)
    with zipfile.ZipFile(file, "a") as made:
        made.comment = b"PK\5\6 is how a zip ends" + b"x" * 60_000
    assert walk(ArchiveSource(file)) == FILES


def numbered(file: Path, count: int) -> Path:
    members = ((b"train2017/%012d.jpg" % number, b"%d" % number) for number in range(count))
    return raw_zip(file, members)


def test_more_members_than_the_old_count_holds(tmp_path: Path) -> None:
    source = ArchiveSource(numbered(tmp_path / "a.zip", 66_000))
    names = [entry.name for entry in source.list("train2017")]
    assert names == [f"{number:012d}.jpg" for number in range(66_000)]
    for number in (0, 41_234, 65_999):
        assert source.read(f"train2017/{number:012d}.jpg") == b"%d" % number


def test_an_open_zip_takes_little_memory(tmp_path: Path) -> None:
    """All of LaSOT in one zip, 3.5 million members, would take 32 MB of a process."""
    file = numbered(tmp_path / "a.zip", 20_000)
    tracemalloc.start()
    try:
        opened = archive.opened(str(file))
        held, _ = tracemalloc.get_traced_memory()
        opened.list("train2017")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 9 * 20_000 + 50_000
    assert peak < 12e6


# Folders ---------------------------------------------------------------------------------------


def test_a_folder_named_like_an_archive_is_a_folder(tmp_path: Path) -> None:
    unpacked(tmp_path / "car.zip", FILES)
    source = FolderSource(tmp_path)
    assert source.list("") == [Entry("car.zip", is_folder=True)]
    assert not source.list("")[0].is_archive
    assert source.read("car.zip/top.txt") == b"top"
    assert len(source.list("car.zip")) == 3


def test_links_to_archives_may_not_leave_the_root(tmp_path: Path) -> None:
    write_zip(tmp_path / "outside/car.zip", FILES)
    inside = write_zip(tmp_path / "root/dog.zip", FILES)
    (tmp_path / "root/cat.zip").symlink_to(inside)
    source = FolderSource(tmp_path / "root")
    assert source.read("cat.zip/top.txt") == b"top"
    (tmp_path / "root/car.zip").symlink_to(tmp_path / "outside/car.zip")
    for read in (source.list, source.read):
        with pytest.raises(DataError, match="leads out of"):
            read("car.zip/car-1")
        with pytest.raises(DataError, match="leads out of"):
            read("../outside/car.zip/car-1")
    (tmp_path / "link.zip").symlink_to(inside)  # the root itself may be a link
    assert open_source(tmp_path / "link.zip").read("top.txt") == b"top"


def test_devices_and_folders_are_not_read_as_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "00000001.jpg")  # opening it would wait for ever
    (tmp_path / "folder").mkdir()
    for name in ("00000001.jpg", "folder"):
        with pytest.raises(DataError, match="a folder or a device"):
            FolderSource(tmp_path).read(name)


def test_a_picture_file_as_large_as_a_disk(tmp_path: Path) -> None:
    with (tmp_path / "1.jpg").open("wb") as made:
        made.truncate((1 << 28) + 1)  # a hole: costs no disk
    with pytest.raises(DataError, match="a picture of 268,435,457 bytes, over 268,435,456"):
        FolderSource(tmp_path).read("1.jpg")


def test_what_a_root_may_be(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        open_source(tmp_path / "nowhere")
    for name, text in (
        ("a.tar.gz", r"a \.tar\.gz archive gives no access to single members; unpack it"),
        ("a.TGZ", "unpack it"),
        ("a.7z", "unpack it"),
        ("a.z01", "one part of a split zip; join the parts"),
        ("a.txt", r"neither a folder nor a \.zip or \.tar archive"),
    ):
        (tmp_path / name).write_bytes(b"x")
        with pytest.raises(DataError, match=text):
            open_source(tmp_path / name)


# Names that are refused ------------------------------------------------------------------------

BAD_NAMES = {
    b"car-1/../../evil.txt": ("car-1", r"'\.\.' in its path"),
    b"car-1/..": ("car-1", r"'\.\.' in its path"),
    b"..": ("", r"'\.\.' in its path"),
    b"./../evil.txt": ("", r"'\.\.' in its path"),
    b"car-1/img/./1.jpg": ("car-1/img", "an empty part"),
    b"car-1//1.jpg": ("car-1", "an empty part"),
    b"/etc/passwd": ("", "is an absolute path"),
    b"/evil": ("", "is an absolute path"),
    b".//etc/passwd": ("", "is an absolute path"),
    b"car-1\\img\\1.jpg": ("", "a backslash"),
    b"car-1/..\\..\\evil": ("car-1", "a backslash"),
    b"C:/evil.txt": ("", "a drive letter"),
    b"car-1/c:evil.txt": ("car-1", "a drive letter"),
    b"car-1/1.jpg\0.txt": ("car-1", "a NUL character"),
    b"car-1/1\n.jpg": ("car-1", "a control character"),
    b"car-1/img/\xff\xfe.jpg": ("car-1/img", "is not UTF-8"),
    b"caf\xe9/1.jpg": ("", "is not UTF-8"),
    b".hidden/../../evil": ("", r"'\.\.' in its path"),
}
SOUND = (b"car-1/ok.txt", b"ok"), (b"car-1/img/ok.txt", b"ok"), (b"dog-1/ok.txt", b"ok")


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_name_that_leaves_or_misleads_is_refused_where_it_belongs(
    tmp_path: Path, name: bytes
) -> None:
    """The folder above it cannot be used; all others can."""
    folder, text = BAD_NAMES[name]
    source = ArchiveSource(raw_zip(tmp_path / "a.zip", [*SOUND, (name, b"evil")]))
    for read in (source.list, lambda path: source.read(f"{path}/ok.txt".lstrip("/"))):
        with pytest.raises(DataError, match=text) as caught:
            read(folder)
        assert "a.zip: member '" in str(caught.value)
        assert "unpack it" in str(caught.value)
    for other in {"car-1", "car-1/img", "dog-1"} - {folder}:
        assert Entry("ok.txt", is_folder=False) in source.list(other)
        assert source.read(f"{other}/ok.txt") == b"ok"
    assert not any("evil" in path for path in os.listdir(tmp_path))  # noqa: PTH208


def test_many_refused_names_are_counted(tmp_path: Path) -> None:
    names = [(b"../%d.jpg" % number, b"") for number in range(10)]
    with pytest.raises(DataError, match=r"'\.\./0\.jpg' has .*2\.jpg' has .* and 7 more: refused"):
        ArchiveSource(raw_zip(tmp_path / "a.zip", names)).list("")


@pytest.mark.parametrize("name", ["../evil", "/evil", "car-1/../../evil"])
def test_tar_names_are_held_to_the_same_rules(tmp_path: Path, name: str) -> None:
    source = ArchiveSource(write_tar(tmp_path / "a.tar", {"car-1/ok.txt": b"", name: b"evil"}))
    with pytest.raises(DataError, match="refused"):
        source.list("car-1" if name.startswith("car") else "")


def test_links_in_archives_are_refused(tmp_path: Path) -> None:
    members = [*SOUND, (b"car-1/img/1.jpg", b"/etc/passwd")]
    file = raw_zip(tmp_path / "a.zip", members, links=[b"car-1/img/1.jpg"])
    with pytest.raises(DataError, match=r"'car-1/img/1\.jpg' is a symbolic link"):
        ArchiveSource(file).list("car-1/img")
    assert ArchiveSource(file).list("dog-1")
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE):
        with tarfile.open(tmp_path / f"{kind!r}.tar", "w") as made:
            info = tarfile.TarInfo("car-1/1.jpg")
            info.type, info.linkname = kind, "/etc/passwd"
            made.addfile(info)
        with pytest.raises(DataError, match=r"'car-1/1\.jpg' is (a link|neither)"):
            ArchiveSource(tmp_path / f"{kind!r}.tar").list("car-1")


def test_names_that_are_there_twice_are_refused(tmp_path: Path) -> None:
    twice = [*SOUND, (b"car-1/1.jpg", b"one"), (b"car-1/1.jpg", b"two")]
    source = ArchiveSource(raw_zip(tmp_path / "a.zip", twice))
    with pytest.raises(DataError, match=r"'car-1/1\.jpg' is there twice: refused"):
        source.list("car-1")
    with pytest.raises(DataError, match="twice"):
        source.read("car-1/1.jpg")
    assert source.read("dog-1/ok.txt") == b"ok"
    both = [(b"car-1", b"file"), (b"car-1/1.jpg", b"in a folder")]
    with pytest.raises(DataError, match="'car-1' is there twice"):
        ArchiveSource(raw_zip(tmp_path / "b.zip", both)).list("")
    with tarfile.open(tmp_path / "c.tar", "w") as made:
        for _ in range(2):
            made.addfile(tarfile.TarInfo("1.jpg"))
    with pytest.raises(DataError, match="twice"):
        ArchiveSource(tmp_path / "c.tar").list("")


def test_an_archive_in_an_archive_is_refused(tmp_path: Path) -> None:
    inner = write_zip(tmp_path / "inner.zip", FILES).read_bytes()
    write_zip(tmp_path / "raw/outer.zip", {"inner.zip": inner})
    source = FolderSource(tmp_path / "raw")
    for read in (source.list, lambda path: source.read(f"{path}/top.txt")):
        with pytest.raises(DataError, match="an archive in an archive is not read: unpack the"):
            read("outer.zip/inner.zip")
    assert source.read("outer.zip/inner.zip") == inner


# Members that are refused ----------------------------------------------------------------------


def refused(file: Path, name: str, text: str) -> None:
    """Reading one member fails with this reason; others can be read."""
    with pytest.raises(DataError, match=text) as caught:
        ArchiveSource(file).read(name)
    assert str(file) in str(caught.value)
    assert repr(name) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert ArchiveSource(file).read("top.txt") == b"top"


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"flags": 1}, "is encrypted"),
        ({"flags": 0x41}, "is encrypted"),
        ({"method": 9}, "is compressed by Deflate64"),
        ({"method": 99}, "is compressed by method 99"),
        ({"size": (1 << 28) + 1}, r"has 268,435,457 bytes, more than 268,435,456"),
        ({"packed": 1 << 31}, r"has 2,147,483,648 bytes, more than"),
        ({"size": 9}, "is stored in 2304 bytes but announced with 9"),
        ({"crc": 7}, r"is damaged: CRC-32 [0-9a-f]{8}, its directory says 00000007; fetch"),
        ({"offset": 1}, "is damaged: it is not where the directory says, byte 1; fetch"),
        ({"offset": 1 << 30}, "lies beyond the end of the file; fetch the archive again"),
        ({"packed": 200_000, "size": 200_000}, "lies beyond the end of the file; fetch"),
        ({"size": 0xFFFFFFFF}, "the Zip64 field of member .* is missing or short"),
    ],
)
def test_stored_members(tmp_path: Path, fields: dict[str, int], text: str) -> None:
    name = "car-1/img/00000001.jpg"
    refused(patch_directory(write_zip(tmp_path / "a.zip", FILES), name, **fields), name, text)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"size": 10}, "is damaged: 10 bytes announced, more found"),
        ({"size": 9000}, "is damaged: 9000 bytes announced, only 2304 found"),
        ({"packed": 10}, "is damaged"),
        ({"crc": 7}, "is damaged: CRC-32"),
    ],
)
def test_deflated_members(tmp_path: Path, fields: dict[str, int], text: str) -> None:
    name = "car-1/img/00000001.jpg"
    refused(patch_directory(deflated(tmp_path / "a.zip", FILES), name, **fields), name, text)


def test_bytes_that_do_not_inflate(tmp_path: Path) -> None:
    file = deflated(tmp_path / "a.zip", FILES)
    data = bytearray(file.read_bytes())
    name = b"car-1/img/00000001.jpg"
    start = data.find(name) + len(name)
    data[start] = 0xFF
    file.write_bytes(data)
    refused(file, name.decode(), "is damaged: .*; fetch the archive again")


def test_a_bomb_is_refused_before_it_is_read(tmp_path: Path) -> None:
    zeros = bytes(1 << 20)
    files = {"1.jpg": zeros, "absence.label": b"0\n" * 50_000, "small.png": bytes(60_000)}
    file = deflated(tmp_path / "a.zip", files | {"top.txt": b"top"})
    refused(file, "1.jpg", r"is a picture that would swell from 1,\d\d\d to 1,048,576 bytes")
    assert ArchiveSource(file).read("absence.label") == files["absence.label"]  # text may shrink
    assert ArchiveSource(file).read("small.png") == files["small.png"]


def test_a_bomb_that_lies_about_its_size_is_not_inflated(tmp_path: Path) -> None:
    size = 200 << 20
    file = deflated(tmp_path / "a.zip", {"1.jpg": bytes(size), "top.txt": b"top"})
    patch_directory(file, "1.jpg", size=1000)
    ArchiveSource(file).list("")
    tracemalloc.start()
    try:
        refused(file, "1.jpg", "1000 bytes announced, more found")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4e6


def test_no_such_member(tmp_path: Path) -> None:
    source = ArchiveSource(write_zip(tmp_path / "a.zip", FILES))
    with pytest.raises(DataError, match=r"a\.zip: there is no member 'car-1/2\.jpg' in it"):
        source.read("car-1/2.jpg")
    with pytest.raises(DataError, match="no folder 'dog-1' in it"):
        source.read("dog-1/2.jpg")
    for path in ("../a.zip", "car-1/../top.txt", "/etc/passwd"):
        with pytest.raises(DataError, match="no folder"):
            source.read(path)


# Archives that are damaged ---------------------------------------------------------------------


@pytest.mark.parametrize("part", [0.0, 0.1, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("name", WRITERS)
def test_a_truncated_archive_says_to_fetch_it_again(tmp_path: Path, name: str, part: float) -> None:
    whole = WRITERS[name](tmp_path / name, FILES).read_bytes()
    if name.endswith("tar"):  # what follows the end mark is padding
        whole = whole[: len(whole) // 512 * 512].rstrip(b"\0")
    (tmp_path / name).write_bytes(whole[: int(len(whole) * part)])
    with pytest.raises(DataError, match="fetch the archive again") as caught:
        FolderSource(tmp_path).list(name)
    assert str(tmp_path / name) in str(caught.value)


def test_bytes_missing_in_the_middle(tmp_path: Path) -> None:
    file = write_zip(tmp_path / "a.zip", FILES)
    data = file.read_bytes()
    for changed in (data[:100] + data[200:], b"MZ prefix" + data):
        file.write_bytes(changed)
        with pytest.raises(DataError, match="bytes are missing or too many; fetch"):
            ArchiveSource(file).list("")


def test_things_that_are_no_archive(tmp_path: Path) -> None:
    for name in ("a.zip", "a.tar"):
        (tmp_path / name).write_bytes(b"<html>Quota exceeded</html>" * 40)
    with pytest.raises(DataError, match=r"is no zip archive: it begins with b'<html>Quota"):
        FolderSource(tmp_path).list("a.zip")
    with pytest.raises(DataError, match=r"is no plain tar, or is cut off"):
        FolderSource(tmp_path).list("a.tar")
    whole = write_tar(tmp_path / "b.tar", FILES).read_bytes()
    (tmp_path / "c.tar").write_bytes(gzip.compress(whole))
    with pytest.raises(DataError, match="is no plain tar"):
        FolderSource(tmp_path).list("c.tar")
    damaged = bytearray(whole)
    at = whole.find(b"top.txt")
    damaged[at : at + 512] = b"x" * 512
    (tmp_path / "d.tar").write_bytes(damaged)
    with pytest.raises(DataError, match="is damaged or cut off: no header and no end mark"):
        FolderSource(tmp_path).list("d.tar")


def test_one_part_of_a_split_zip(tmp_path: Path) -> None:
    file = write_zip(tmp_path / "a.zip", FILES)
    data = bytearray(file.read_bytes())
    at = data.rfind(b"PK\5\6")
    data[at + 4 : at + 8] = b"\3\0\3\0"
    file.write_bytes(data)
    with pytest.raises(DataError, match="is one part of a split zip; join the parts"):
        ArchiveSource(file).list("")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
@given(
    name=st.sampled_from(list(WRITERS)),
    changes=st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), min_size=1, max_size=4),
)
def test_whatever_is_damaged_is_a_known_error(
    tmp_path: Path, name: str, changes: list[tuple[float, int]]
) -> None:
    """Damage gives a message, or names and bytes; never another exception."""
    data = bytearray(WRITERS[name](tmp_path / name, FILES).read_bytes())
    for part, value in changes:
        data[int(part * len(data))] = value
    (tmp_path / name).write_bytes(data)
    source = ArchiveSource(tmp_path / name)
    pending, seen = [""], 0
    while pending and seen < 50:
        seen += 1
        folder = pending.pop()
        try:
            entries = source.list(folder)
        except DataError:
            continue
        for entry in entries:
            path = f"{folder}/{entry.name}" if folder else entry.name
            if entry.is_folder:
                pending.append(path)
                continue
            try:
                found = source.read(path)
            except DataError:
                continue
            if "zip" in name.lower():  # checked; a tar has no checksum of its content
                assert found in FILES.values()


# Processes and threads -------------------------------------------------------------------------


def test_a_source_is_small_when_pickled_even_after_use(tmp_path: Path) -> None:
    file = raw_zip(tmp_path / "a.zip", ((b"a/%d.jpg" % n, b"%d" % n) for n in range(5000)))
    for source in (ArchiveSource(file), FolderSource(tmp_path)):
        source.list("a" if isinstance(source, ArchiveSource) else "a.zip/a")
        copy = pickle.dumps(source)
        assert len(copy) < 500
        assert pickle.loads(copy) == source


def test_threads_share_an_archive(tmp_path: Path) -> None:
    files = {f"{n}/{n}.jpg": (b"%d " % n) * (500 + n) for n in range(60)}
    for name, writer in WRITERS.items():
        writer(tmp_path / name, files)
    source = FolderSource(tmp_path)
    wanted = [(f"{name}/{path}", data) for name in WRITERS for path, data in files.items()] * 3
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(source.read, [path for path, _ in wanted]))
    assert found == [data for _, data in wanted]


def test_forked_processes_read_what_they_ask_for(tmp_path: Path) -> None:
    """Processes that share one handle of a zip read garbage with the usual means."""
    files = {f"{n}.jpg": (b"%d " % n) * 300 for n in range(200)}
    deflated(tmp_path / "a.zip", files)
    script = f"""
        import os, signal, sys
        from pathlib import Path
        from packer.source import FolderSource
        from packer import archive
        source = FolderSource(Path({str(tmp_path)!r}))
        source.read("a.zip/7.jpg")
        lock = archive._of_this_process.lock
        lock.acquire()  # as if another thread were opening an archive in this very moment
        children = []
        for first in range(4):
            child = os.fork()
            if child == 0:
                signal.alarm(60)
                good = all(
                    source.read(f"a.zip/{{n}}.jpg") == (b"%d " % n) * 300
                    for _ in range(5) for n in range(first, 200, 3)
                )
                os._exit(0 if good else 1)
            children.append(child)
        lock.release()
        sys.exit(sum(os.waitpid(child, 0)[1] for child in children))
    """
    command = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(script)]
    assert subprocess.run(command, timeout=100, check=False).returncode == 0


def test_an_archive_that_was_replaced_is_opened_anew(tmp_path: Path) -> None:
    source = FolderSource(tmp_path)
    write_zip(tmp_path / "a.zip", {"1.txt": b"before"})
    assert source.read("a.zip/1.txt") == b"before"
    write_zip(tmp_path / "new", {"0.txt": b"0", "1.txt": b"after!"})
    (tmp_path / "new").replace(tmp_path / "a.zip")
    assert source.read("a.zip/1.txt") == b"after!"


def test_few_archives_are_held_open_and_let_go(tmp_path: Path) -> None:
    source = FolderSource(tmp_path)
    for number in range(60):
        write_zip(tmp_path / f"{number}.zip", {"1.txt": b"%d" % number})
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    for _ in range(2):
        for number in range(60):
            assert source.read(f"{number}.zip/1.txt") == b"%d" % number
    assert len(os.listdir("/proc/self/fd")) <= before + archive.MAX_OPEN  # noqa: PTH208
    assert len(archive._of_this_process.archives) <= archive.MAX_OPEN


def test_a_large_tar_is_refused_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("packer.tar_archive.MAX_MEMBERS", 4)
    with pytest.raises(DataError, match="more than 4 members, too many for an archive without"):
        ArchiveSource(write_tar(tmp_path / "a.tar", FILES)).list("")


def test_a_tar_is_read_by_position(tmp_path: Path) -> None:
    """The table holds where the bytes are, not where a stream would be."""
    file = write_tar(tmp_path / "a.tar", FILES)
    with tarfile.open(file) as tar:
        at = tar.getmember("top.txt").offset_data
    data = bytearray(file.read_bytes())
    stamp = file.stat()
    source = ArchiveSource(file)
    source.list("")
    data[at : at + 3] = b"TOP"
    with file.open("r+b", buffering=0) as handle:
        handle.write(io.BytesIO(data).getvalue())
    os.utime(file, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert source.read("top.txt") == b"TOP"


def test_a_refused_link_harms_only_who_uses_it(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/a.jpg").write_bytes(b"secret")
    root = tmp_path / "root"
    root.mkdir()
    (root / "sound.jpg").write_bytes(b"sound")
    (root / "folder").symlink_to(tmp_path / "outside")
    (root / "picture.jpg").symlink_to(tmp_path / "outside/a.jpg")
    (root / "round.jpg").symlink_to("round.jpg")
    (root / "circle").symlink_to("circle")
    source = FolderSource(root)
    folders = {entry.name: entry.is_folder for entry in source.list("")}
    assert folders == {
        "circle": True,
        "folder": True,
        "picture.jpg": False,
        "round.jpg": False,
        "sound.jpg": False,
    }
    assert source.read("sound.jpg") == b"sound"
    for path in ("picture.jpg", "folder/a.jpg", "round.jpg", "circle"):
        with pytest.raises(DataError, match=r"leads out of|cannot be read"):
            source.read(path)
    for path in ("folder", "circle"):
        with pytest.raises(RefusedLink, match=path):
            source.list(path)
