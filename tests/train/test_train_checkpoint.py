import errno
import functools
import os
import pickle
import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from train_process import same

from shards import atomic
from tracker.training import checkpoint
from tracker.training.checkpoint import (
    CheckpointError,
    NotRead,
    Unreadable,
    check,
    read,
    write,
)


def state(step: int) -> dict:
    return {
        "meta": {"step": step, "config": "a: 1\n"},
        "state_dict": {"w": torch.arange(1000.0) + step},
        "stepper": {"phase": "all", "optimizer": {}},
        "loader": {"epoch": 0, "consumed": step},
        "ranks": [{"random": {"cpu": torch.get_rng_state()}}],
    }


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_is_written_is_read(tmp_path):
    write(tmp_path / "a.pth", state(3))
    found = read(tmp_path / "a.pth")
    assert found["meta"] == {"step": 3, "config": "a: 1\n"}
    assert torch.equal(found["state_dict"]["w"], state(3)["state_dict"]["w"])
    assert names(tmp_path) == ["a.pth"]


class Boom(Exception):
    pass


@pytest.mark.parametrize("stage", ["save", "fsync", "replace"])
def test_a_writer_that_dies_leaves_the_old_file(tmp_path, monkeypatch, stage):
    path = tmp_path / "a.pth"
    write(path, state(1))

    def die(*args, **kwargs):
        if stage == "save":
            args[1].write(b"half of it")
        raise Boom

    with monkeypatch.context() as patch:
        if stage == "save":
            patch.setattr(torch, "save", die)
        elif stage == "fsync":
            patch.setattr(os, "fsync", die)
        else:
            patch.setattr(type(path), "replace", die)
        with pytest.raises(Boom):
            write(path, state(2))
    assert read(path)["meta"]["step"] == 1
    assert names(tmp_path) == ["a.pth"]


def test_the_bytes_are_on_disk_before_the_name(tmp_path, monkeypatch):
    calls = []
    fsync, replace = os.fsync, type(tmp_path).replace
    monkeypatch.setattr(os, "fsync", lambda handle: (calls.append("fsync"), fsync(handle))[1])
    monkeypatch.setattr(
        type(tmp_path), "replace", lambda a, b: (calls.append("rename"), replace(a, b))[1]
    )
    write(tmp_path / "a.pth", state(1))
    assert calls == ["fsync", "rename", "fsync"]


@pytest.mark.parametrize("damage", ["empty", "short", "flipped", "one bit of a tensor", "text"])
def test_damage_is_a_known_error(tmp_path, damage):
    path = tmp_path / "a.pth"
    write(path, state(1))
    data = bytearray(path.read_bytes())
    if damage == "empty":
        data = b""
    elif damage == "short":
        data = data[: len(data) // 2]
    elif damage == "flipped":
        data[100:200] = bytes(100)
    elif damage == "one bit of a tensor":
        data[data.index(state(1)["state_dict"]["w"].numpy().tobytes()) + 1002] ^= 1
    else:
        data = b"not a checkpoint"
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"a\.pth: damaged, or not a checkpoint"):
        read(path)


@functools.cache
def whole() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder, "a.pth"), state(1))
        return Path(folder, "a.pth").read_bytes()


@given(part=st.floats(0, 1, exclude_max=True))
def test_a_file_cut_off_anywhere_is_damaged(part):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.pth")
        path.write_bytes(whole()[: int(len(whole()) * part)])
        for look in (read, check):
            with pytest.raises(Unreadable, match=r"a\.pth: damaged, or not a checkpoint"):
                look(path)


@given(at=st.floats(0, 1, exclude_max=True), change=st.integers(1, 255))
def test_a_byte_changed_anywhere_is_found_or_changes_nothing(at, change):
    data = bytearray(whole())
    data[int(len(data) * at)] ^= change
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.pth")
        path.write_bytes(data)
        try:
            found = read(path)
        except CheckpointError:
            return
        assert same({**state(1), "format": 1, "ranks": found["ranks"]}, found)


def test_what_is_no_file_or_may_not_be_read_is_said(tmp_path):
    (tmp_path / "folder.pth").mkdir()
    (tmp_path / "link.pth").symlink_to("gone.pth")
    for name, problem in {
        "folder.pth": "not a file",
        "link.pth": "no such checkpoint: it is a link to gone.pth",
        "none.pth": "no such checkpoint",
    }.items():
        with pytest.raises(Unreadable) as caught:
            read(tmp_path / name)
        assert caught.value.problem == f"{tmp_path / name}: {problem}"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.EIO, "Input/output error"), "Input/output error"),
        (OSError(errno.EMFILE, "Too many open files"), "Too many open files"),
        (MemoryError(), "there is not enough memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "there is not enough memory"),
    ],
)
def test_what_the_system_does_not_let_us_read_is_tried_twice(tmp_path, monkeypatch, error, said):
    write(tmp_path / "a.pth", state(1))
    monkeypatch.setattr(checkpoint, "AGAIN_S", 0.0)
    load, errors = torch.load, [error]

    def fail(*given, **options):
        if errors:
            raise errors.pop()
        return load(*given, **options)

    monkeypatch.setattr(torch, "load", fail)
    assert read(tmp_path / "a.pth")["meta"]["step"] == 1
    errors += [error, error]
    with pytest.raises(NotRead, match=rf"a\.pth: cannot be read: {said}; it may be whole"):
        read(tmp_path / "a.pth")


def test_a_file_without_the_right_to_read_it_is_not_called_damaged(monkeypatch):
    monkeypatch.setattr(checkpoint, "AGAIN_S", 0.0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        write(folder / "a.pth", state(1))
        (folder / "a.pth").chmod(0)
        user = os.geteuid()
        if user == 0:
            os.seteuid(65534)  # root may read everything
        try:
            with pytest.raises(NotRead, match=r"a\.pth: cannot be read: Permission denied"):
                read(folder / "a.pth")
        finally:
            os.seteuid(user)


def test_folders_that_cannot_be_synced_are_no_error(tmp_path, monkeypatch):
    fsync = os.fsync

    def refuse_folders(handle):
        if Path(f"/proc/self/fd/{handle}").readlink().is_dir():
            raise OSError(22, "Invalid argument")
        fsync(handle)

    monkeypatch.setattr(atomic.os, "fsync", refuse_folders)
    write(tmp_path / "a.pth", state(1))
    assert read(tmp_path / "a.pth")["meta"]["step"] == 1


class Trap:
    def __reduce__(self):
        return os.mkdir, ("trap-was-run",)


def test_nothing_in_a_checkpoint_is_executed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({**state(1), "extra": Trap()}, "a.pth")
    (tmp_path / "b.pth").write_bytes(pickle.dumps(Trap()))
    for name in ("a.pth", "b.pth"):
        with pytest.raises(CheckpointError, match="damaged, or not a checkpoint"):
            read(tmp_path / name)
    assert not (tmp_path / "trap-was-run").exists()


def test_other_files_are_refused_with_advice(tmp_path):
    with pytest.raises(CheckpointError, match=r"none\.pth: no such checkpoint"):
        read(tmp_path / "none.pth")
    torch.save({"state_dict": {}}, tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match=r"not a training checkpoint.*--set model\.init="):
        read(tmp_path / "weights.pth")
    torch.save({"format": 99, **state(1)}, tmp_path / "new.pth")
    with pytest.raises(CheckpointError, match="checkpoint format 99, this program reads 1"):
        read(tmp_path / "new.pth")
