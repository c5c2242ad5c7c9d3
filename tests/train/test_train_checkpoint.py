import errno
import os
import pickle

import pytest
import torch

from shards.errors import MismatchError
from tracker.training.checkpoint import CheckpointError, read, write
from tracker.training.due import Due
from tracker.training.lock import FolderLock
from tracker.training.resume import same_config
from tracker.training.run_folder import Checkpoints


def state(step: int) -> dict:
    return {
        "meta": {"step": step, "config": "a: 1\n"},
        "state_dict": {"w": torch.arange(1000.0) + step},
        "stepper": {"phase": "all", "optimizer": {}},
        "loader": {"epoch": 0, "consumed": step},
        "ranks": [{"random": {"cpu": torch.get_rng_state()}}],
    }


def names(folder):
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


def test_a_full_disk_is_a_known_error_and_loses_nothing(tmp_path, monkeypatch):
    write(tmp_path / "a.pth", state(1))

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(CheckpointError, match="could not be written: No space left on device"):
        write(tmp_path / "a.pth", state(2))
    assert read(tmp_path / "a.pth")["meta"]["step"] == 1


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


def test_epochs_stay_and_between_them_the_last_few(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=2, steps_per_epoch=10)
    for step in (3, 6, 9, 10, 12, 15, 20, 21):
        checkpoints.write(state(step), step)
        assert read(tmp_path / "latest.pth")["meta"]["step"] == step
    assert names(tmp_path) == [
        "epoch_1.pth", "epoch_2.pth", "latest.pth", "step_00000015.pth", "step_00000021.pth",
    ]  # fmt: skip
    assert [step for step, _ in checkpoints.files()] == [21, 20, 15, 10]
    assert not (tmp_path / "latest.pth").readlink().is_absolute()


def test_the_newest_that_can_be_read_is_chosen(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=5, steps_per_epoch=100)
    assert checkpoints.choose("auto") == (None, None, ())
    assert Checkpoints(tmp_path / "none", 1, 1).choose("auto") == (None, None, ())
    for step in (1, 2, 3):
        checkpoints.write(state(step), step)
    (tmp_path / ".step_00000004.pth.partial").write_bytes(b"half")
    path, found, warnings = checkpoints.choose("auto")
    assert (path, warnings) == (tmp_path / "step_00000003.pth", ())
    assert found["meta"]["step"] == 3
    (tmp_path / "step_00000003.pth").write_bytes(b"half")
    path, found, warnings = checkpoints.choose("auto")
    assert path == tmp_path / "step_00000002.pth"
    assert found["meta"]["step"] == 2
    assert "step_00000003.pth: damaged" in warnings[0]
    assert "going on from step_00000002.pth" in warnings[0]
    for step in (1, 2):
        (tmp_path / f"step_0000000{step}.pth").write_bytes(b"half")
    with pytest.raises(CheckpointError, match="no checkpoint of"):
        checkpoints.choose("auto")


def test_never_does_not_mix_runs(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=5, steps_per_epoch=100)
    assert checkpoints.choose("never") == (None, None, ())
    checkpoints.write(state(7), 7)
    with pytest.raises(MismatchError, match="holds a run of 7 steps"):
        checkpoints.choose("never")


def test_checkpoints_are_due_by_steps_epochs_and_age():
    now = [100.0]
    due = Due(every=4, minutes=2, steps_per_epoch=10, clock=lambda: now[0])
    assert [step for step in range(1, 22) if due.after(step)] == [4, 8, 10, 12, 16, 20]
    assert due.wish() == 0
    now[0] += 120
    assert due.wish() == Due.WISH
    due.written()
    assert due.wish() == 0
    never = Due(every=0, minutes=0, steps_per_epoch=10, clock=lambda: now[0])
    now[0] += 1e9
    assert [step for step in range(1, 22) if never.after(step)] == [10, 20]
    assert never.wish() == 0


def test_a_configuration_may_differ_in_free_keys_only(tmp_path):
    then = "train: {lr: 0.1, threads: 1, lr_steps: [1, 2]}\ndata: {weights: {a: 1.0}}\n"
    same_config(tmp_path, then, then.replace("threads: 1", "threads: 2"), ("train.threads",))
    now = "train: {lr: 0.2, threads: 2, lr_steps: [1]}\ndata: {weights: {b: 1.0}}\n"
    with pytest.raises(MismatchError) as caught:
        same_config(tmp_path / "x.pth", then, now, ("train.threads",))
    assert (
        "x.pth is of another configuration: train.lr was 0.1, now 0.2; "
        "train.lr_steps was [1, 2], now [1]; data.weights.a was 1.0, now None; "
        "data.weights.b was None, now 1.0; give another --out" in str(caught.value)
    )


def test_two_runs_do_not_share_a_folder(tmp_path):
    with (
        FolderLock(tmp_path / "run"),
        pytest.raises(MismatchError, match="another process trains"),
        FolderLock(tmp_path / "run", wait_s=0.3),
    ):
        pass
    with FolderLock(tmp_path / "run", wait_s=0.3):
        pass


def test_an_older_checkpoint_than_the_folders_newest_is_no_start(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=2, steps_per_epoch=100)
    (tmp_path / "step_00000006.pth").touch()
    (tmp_path / "step_00000008.pth").touch()
    with pytest.raises(MismatchError, match="goes on to step 8"):
        checkpoints.refuse_newer(tmp_path / "step_00000006.pth", 6)
    checkpoints.refuse_newer(tmp_path / "step_00000008.pth", 8)
