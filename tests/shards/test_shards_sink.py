"""Folders whose files appear only when they are whole, whoever else writes or dies."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest
from sink_contract import SinkContract

from shards import sink as sinks
from shards.bucket import BucketSink
from shards.errors import MismatchError, StorageError
from shards.sink import FolderSink, Sink, sink_at, sink_of

WRITER = """
import os, signal, sys
from pathlib import Path
from shards.sink import FolderSink
with FolderSink(Path(sys.argv[1])).create("a.tar") as handle:
    handle.write(b"half")
    handle.flush()
    print("writing", flush=True)
    if sys.argv[2] == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    sys.stdin.readline()
"""


class TestFolderSink(SinkContract):
    @pytest.fixture
    def sink(self, tmp_path: Path) -> Sink:
        return FolderSink(tmp_path / "new" / "folder")


def unfinished(folder: Path) -> list[Path]:
    return list(folder.glob(".part-*"))


def test_what_a_killed_writer_left_is_removed(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", WRITER, tmp_path, "die"], stdout=subprocess.DEVNULL)
    assert len(unfinished(tmp_path)) == 1
    (tmp_path / ".part-99-1-a.tar").write_bytes(b"of no writer")
    FolderSink(tmp_path).write("b.tar", b"whole")
    FolderSink(tmp_path).clean()
    assert [path.name for path in tmp_path.iterdir()] == ["b.tar"]


def test_what_a_living_writer_writes_is_not_removed(tmp_path: Path) -> None:
    sink = FolderSink(tmp_path)
    command = [sys.executable, "-c", WRITER, str(tmp_path), "live"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"writing\n"
        with sink.create("b.tar") as handle:
            handle.write(b"mine")
            sink.clean()
            assert len(unfinished(tmp_path)) == 2
        other.communicate(b"\n")
    assert sink.sizes() == {"a.tar": 4, "b.tar": 4}
    assert not unfinished(tmp_path)


def test_of_another_machine_only_what_is_old_is_removed(tmp_path: Path) -> None:
    """Its locks may not be seen here, so silence has to do."""
    fresh, old = (tmp_path / f".part-{'0' * 12}-{n}-01234567-a.tar" for n in (1, 2))
    for path in (fresh, old):
        path.write_bytes(b"half")
    times = old.stat()
    os.utime(old, (times.st_atime, times.st_mtime - 2 * 3600))
    FolderSink(tmp_path).clean()
    assert list(tmp_path.iterdir()) == [fresh]


def test_where_there_are_no_locks_silence_has_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    sink = FolderSink(tmp_path)
    with sink.create("a.tar") as handle:
        sink.clean()
        (mine,) = unfinished(tmp_path)
        os.utime(mine, (0, 0))
        handle.write(b"12")
        handle.flush()
        sink.clean()
    assert sink.sizes() == {"a.tar": 2}
    with sink.hold("lock", shared=True) as alone:
        assert not alone
    with (
        pytest.raises(StorageError, match="gives no locks"),
        sink.hold("lock", shared=False),
    ):
        pytest.fail("held without a lock")


def test_a_file_that_is_cleaned_before_it_is_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flock, met = fcntl.flock, []

    def slowly(handle: object, how: int) -> None:
        if not met:
            met.extend(unfinished(tmp_path))
            FolderSink(tmp_path).clean()
            assert not unfinished(tmp_path)
        flock(handle, how)  # type: ignore[arg-type]

    monkeypatch.setattr(fcntl, "flock", slowly)
    FolderSink(tmp_path).write("a.tar", b"1234")
    assert len(met) == 1
    assert FolderSink(tmp_path).sizes() == {"a.tar": 4}
    assert not unfinished(tmp_path)


def test_alone_keeps_everyone_out_and_shared_only_who_would_be_alone(tmp_path: Path) -> None:
    one, other = FolderSink(tmp_path / ".parts"), FolderSink(tmp_path / ".parts")
    with one.hold("lock", shared=True) as alone, other.hold("lock", shared=True):
        assert not alone
        with (
            pytest.raises(StorageError, match="another packer is at work") as caught,
            other.hold("lock", shared=False),
        ):
            pytest.fail("alone beside another")
        assert str(caught.value).startswith(f"{tmp_path}: ")
    with one.hold("lock", shared=False) as alone:
        assert alone
        for shared in (True, False):
            with (
                pytest.raises(StorageError, match="another packer is at work"),
                other.hold("lock", shared=shared),
            ):
                pytest.fail("beside one that is alone")


def test_a_file_system_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    with pytest.raises(StorageError, match="has no hard links"):
        FolderSink(tmp_path).write_new("plan.json", b"1")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="could not be written"):
        FolderSink(tmp_path / "file" / "below").write("a.tar", b"")
    with pytest.raises(MismatchError, match="is a file"):
        FolderSink(tmp_path / "file").entries()


def test_places_as_a_user_gives_them(tmp_path: Path) -> None:
    place = sink_at(str(tmp_path))
    assert isinstance(place, FolderSink)
    assert place.folder == tmp_path
    assert sink_of(place) is place
    assert isinstance(sink_at("s3://bucket/a/b/"), BucketSink)
    assert str(sink_at("s3://bucket/a/b/").child("c")) == "s3://bucket/a/b/c"
    assert str(sink_at("s3://bucket")) == "s3://bucket"


@pytest.mark.parametrize(
    "place", ["gs://bucket/x", "http://host/x", "s3:/bucket/x", Path("s3://bucket/x")]
)
def test_other_urls_are_no_folders(place: str | Path) -> None:
    with pytest.raises(StorageError, match="neither a folder nor s3://bucket/prefix"):
        sink_at(place)


@pytest.mark.parametrize(
    "url", ["s3://", "s3://B", "s3://a", "s3://bucket/a//b", "s3://bucket/../x", "s3://bucket/a b"]
)
def test_urls_that_are_no_place_in_a_bucket(url: str) -> None:
    with pytest.raises(StorageError, match="expected s3://bucket/prefix"):
        sink_at(url)


def test_a_machine_is_known_by_its_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    assert sinks.FolderSink._OWNED.match(f".part-{sinks.machine()}-1-01234567-a.tar")
    monkeypatch.setattr(Path, "read_text", lambda *_: (_ for _ in ()).throw(OSError()))
    without = sinks.machine.__wrapped__()
    assert len(without) == 12
    assert int(without, 16) >= 0
