"""A file, a text or a link is the old one or the new one, whatever happens in between."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shards.atomic import replace_file, replace_link, replace_text, sync_folder


def order_of_calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    calls: list[str] = []

    def told(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *words: (calls.append(name), real(*words))[1]

    monkeypatch.setattr(os, "fsync", told("sync", os.fsync))
    monkeypatch.setattr(Path, "replace", told("rename", Path.replace))
    return calls


def test_a_text_is_on_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = order_of_calls(monkeypatch)
    replace_text(tmp_path / "a.txt", "ä\n")
    assert calls == ["sync", "rename", "sync"]
    assert (tmp_path / "a.txt").read_bytes() == "ä\n".encode()
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_what_fails_leaves_the_earlier_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("old")

    def put(file: Any) -> None:
        assert [one.name for one in tmp_path.iterdir() if one != path] == ["until.then"]
        file.write(b"half")
        raise RuntimeError("interrupted")

    with pytest.raises(RuntimeError, match="interrupted"):
        replace_file(path, put, "until.then")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(FileNotFoundError):
        replace_text(tmp_path / "no folder/a", "new")


def test_a_link_is_replaced(tmp_path: Path) -> None:
    for target in ("one", "two"):
        replace_link(tmp_path / "latest", target)
        assert (tmp_path / "latest").readlink() == Path(target)
    assert len(list(tmp_path.iterdir())) == 1


KILLED = """
import os, signal, sys
from itertools import count
from pathlib import Path
from shards.atomic import replace_link, replace_text

folder, what = Path(sys.argv[1]), sys.argv[2]
make = replace_text if what == "file" else replace_link
found = Path.read_text if what == "file" else Path.readlink


def watched(function, numbers, moment):
    def call(*words):
        if next(numbers) == moment:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*words)

    return call


for moment in count():
    path = folder / str(moment)
    make(path, "old")
    child = os.fork()
    if child == 0:
        numbers = count()
        for owner, name in ((os, "open"), (os, "fsync"), (Path, "replace"), (Path, "symlink_to")):
            setattr(owner, name, watched(getattr(owner, name), numbers, moment))
        make(path, "new")
        os._exit(0)
    _, status = os.waitpid(child, 0)
    print(found(path))
    if os.WIFEXITED(status):
        break
    make(path, "again")  # what the killed one left does not stop the next
    assert str(found(path)) == "again"
"""


@pytest.mark.parametrize("what", ["file", "link"])
def test_killed_at_any_call_it_is_the_old_one_or_the_new_one(tmp_path: Path, what: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path), what],
        capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert done.stderr == ""
    # Before the sync (or the link), before the rename, twice before the folder's sync; not at all.
    assert done.stdout.split() == ["old", "old", "new", "new", "new"]


def test_a_file_system_that_does_not_sync_folders_will_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(code: int) -> Callable[[int], None]:
        def sync(handle: int) -> None:
            raise OSError(code, os.strerror(code))

        return sync

    monkeypatch.setattr(os, "fsync", refuses(errno.EINVAL))
    sync_folder(tmp_path)
    monkeypatch.setattr(os, "fsync", refuses(errno.EIO))
    with pytest.raises(OSError, match="Input/output error"):
        sync_folder(tmp_path)
