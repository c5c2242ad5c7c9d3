import json
import os

import pytest
import torch
from test_train_checkpoint import names, state

from shards.errors import MismatchError
from tracker.training import best, checkpoint
from tracker.training.checkpoint import CheckpointError, NotRead, read
from tracker.training.run_folder import Checkpoints


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


def test_an_older_checkpoint_than_the_folders_newest_is_no_start(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=2, steps_per_epoch=100)
    (tmp_path / "step_00000006.pth").touch()
    (tmp_path / "step_00000008.pth").touch()
    with pytest.raises(MismatchError, match="goes on to step 8"):
        checkpoints.refuse_newer(tmp_path / "step_00000006.pth", 6)
    checkpoints.refuse_newer(tmp_path / "step_00000008.pth", 8)


def record(folder):
    return json.loads((folder / "best.json").read_text())


def filled(folder, steps, **options):
    checkpoints = Checkpoints(folder, keep=9, steps_per_epoch=10, **options)
    for step in steps:
        assert checkpoints.write(state(step), step) == []
    return checkpoints


def test_the_last_epochs_stay_if_that_is_asked_for(tmp_path):
    filled(tmp_path, range(5, 55, 5), keep_epochs=2)
    between = [f"step_000000{step:02d}.pth" for step in range(5, 55, 10)]
    assert names(tmp_path) == ["epoch_4.pth", "epoch_5.pth", "latest.pth", *between]


@pytest.mark.parametrize("higher_is_better", [True, False])
def test_the_best_is_linked_recorded_and_stays(tmp_path, higher_is_better):
    checkpoints = Checkpoints(tmp_path, keep=1, steps_per_epoch=10, keep_epochs=1)
    sign = 1 if higher_is_better else -1
    for epoch, value in enumerate((0.25, 0.75, 0.5, 0.75, 0.125), start=1):
        checkpoints.write(state(10 * epoch), 10 * epoch)
        assert checkpoints.judge(10 * epoch, sign * value, "score", higher_is_better) == []
    assert names(tmp_path) == ["best.json", "best.pth", "epoch_2.pth", "epoch_5.pth", "latest.pth"]
    assert str((tmp_path / "best.pth").readlink()) == "epoch_2.pth"
    assert checkpoints.best == tmp_path / "epoch_2.pth"
    found = record(tmp_path)
    judged = found.pop("judged")
    assert found == {
        "step": 20, "file": "epoch_2.pth", "value": sign * 0.75, "by": "score",
        "higher_is_better": higher_is_better,
    }  # fmt: skip
    assert judged["50"] == sign * 0.125
    checkpoints.write(state(60), 60)
    checkpoints.judge(60, sign * 1.0, "score", higher_is_better)
    assert names(tmp_path) == ["best.json", "best.pth", "epoch_6.pth", "latest.pth"]


class Killed(BaseException):
    pass


@pytest.mark.parametrize("stage", range(4))
def test_killed_while_the_best_changes_there_is_a_best(tmp_path, monkeypatch, stage):
    checkpoints = Checkpoints(tmp_path, keep=1, steps_per_epoch=10, keep_epochs=1)
    checkpoints.write(state(10), 10)
    checkpoints.judge(10, 0.5, "loss")
    checkpoints.write(state(20), 20)
    calls = []

    def die_at(original):
        def call(*arguments, **options):
            calls.append(original)
            if len(calls) == stage + 1:
                raise Killed
            return original(*arguments, **options)

        return call

    with monkeypatch.context() as patch:
        for owner, name in ((type(tmp_path), "replace"), (os, "fsync")):
            patch.setattr(owner, name, die_at(getattr(owner, name)))
        with pytest.raises(Killed):
            checkpoints.judge(20, 0.25, "loss")
    assert read(tmp_path / "best.pth")["meta"]["step"] in (10, 20)
    again = Checkpoints(tmp_path, keep=1, steps_per_epoch=10, keep_epochs=1)
    assert again.begin(20) == []
    assert record(tmp_path)["step"] == read(tmp_path / "best.pth")["meta"]["step"]
    again.judge(20, 0.25, "loss")
    assert record(tmp_path)["step"] == read(tmp_path / "best.pth")["meta"]["step"] == 20
    assert names(tmp_path) == ["best.json", "best.pth", "epoch_2.pth", "latest.pth"]


def test_a_restart_knows_the_best(tmp_path):
    checkpoints = filled(tmp_path, (10, 20, 30))
    for step, value in ((10, 0.5), (20, 0.25), (30, 0.75)):
        checkpoints.judge(step, value, "loss")
    again = Checkpoints(tmp_path, keep=9, steps_per_epoch=10)
    assert again.begin(30) == []
    again.write(state(40), 40)
    again.judge(40, 0.375, "loss")
    assert again.best == tmp_path / "epoch_2.pth"


def test_a_restart_from_an_older_checkpoint_forgets_what_came_later(tmp_path):
    checkpoints = filled(tmp_path, (10, 20, 30))
    for step, value in ((10, 0.5), (20, 0.75), (30, 0.25)):
        checkpoints.judge(step, value, "loss")
    (tmp_path / "epoch_3.pth").write_bytes(b"half")
    again = Checkpoints(tmp_path, keep=9, steps_per_epoch=10)
    aside, now = again.begin(20)
    assert aside.startswith(f"{tmp_path}/epoch_3.pth is now epoch_3.pth.damaged; delete it when")
    assert now == f"{tmp_path}: the best was epoch_3.pth, now it is epoch_1.pth"
    assert record(tmp_path)["judged"] == {"10": 0.5, "20": 0.75}
    assert str((tmp_path / "best.pth").readlink()) == "epoch_1.pth"
    assert str((tmp_path / "latest.pth").readlink()) == "epoch_2.pth"
    assert (tmp_path / "epoch_3.pth.damaged").read_bytes() == b"half"


@pytest.mark.parametrize("loss", ["gone", "damaged"])
def test_a_best_that_is_lost_is_replaced_by_the_next_best(tmp_path, loss):
    checkpoints = filled(tmp_path, (10, 20, 30))
    for step, value in ((10, 0.25), (20, 0.5), (30, 0.75)):
        checkpoints.judge(step, value, "loss")
    if loss == "gone":
        (tmp_path / "epoch_1.pth").unlink()
    else:
        (tmp_path / "epoch_1.pth").write_bytes(b"half")
    again = Checkpoints(tmp_path, keep=9, steps_per_epoch=10)
    warnings = again.begin(30)
    assert warnings[-1] == f"{tmp_path}: the best was epoch_1.pth, now it is epoch_2.pth"
    assert ("epoch_1.pth: damaged" in warnings[0]) == (loss == "damaged")
    assert record(tmp_path)["file"] == "epoch_2.pth"
    for epoch in (2, 3):
        (tmp_path / f"epoch_{epoch}.pth").unlink()
    (tmp_path / "epoch_1.pth").unlink(missing_ok=True)
    again = Checkpoints(tmp_path, keep=9, steps_per_epoch=10)
    assert again.begin(0) == [f"{tmp_path}: the best was epoch_2.pth, now it is not known yet"]
    assert again.best is None
    assert not (tmp_path / "best.json").exists()
    assert not (tmp_path / "best.pth").is_symlink()


def test_values_of_two_measures_are_not_compared(tmp_path):
    checkpoints = filled(tmp_path, (10, 20), keep_epochs=1)
    checkpoints.judge(20, 0.001, "training loss")
    checkpoints.write(state(30), 30)
    assert checkpoints.judge(30, 0.5, "otb auc", higher_is_better=True) == []
    assert record(tmp_path)["judged"] == {"30": 0.5}
    assert [step for step, _ in checkpoints.files()] == [30]


def test_a_record_that_is_none_is_said_and_its_link_is_kept_until_the_next(tmp_path):
    checkpoints = filled(tmp_path, (10, 20), keep_epochs=2)
    checkpoints.judge(10, 0.5, "loss")
    for text in ("{", "[]", '{"judged": {"a": 1}}'):
        (tmp_path / "best.json").write_text(text)
        again = Checkpoints(tmp_path, keep=9, steps_per_epoch=10, keep_epochs=1)
        (warning,) = again.begin(20)
        assert "best.json: not a record of a best checkpoint" in warning
        assert "the best checkpoint is judged anew" in warning
    again.write(state(30), 30)
    assert names(tmp_path)[2:4] == ["epoch_1.pth", "epoch_3.pth"]
    again.judge(30, 9.0, "loss")
    assert [step for step, _ in again.files()] == [30]


@pytest.mark.parametrize(("step", "value"), [(10, float("nan")), (20, 0.5)])
def test_what_has_no_value_or_no_file_is_not_the_best(tmp_path, step, value):
    checkpoints = filled(tmp_path, (10,))
    (warning,) = checkpoints.judge(step, value, "loss")
    assert "is not the best" in warning or "cannot be the best" in warning
    assert checkpoints.best is None


def test_a_checkpoint_that_is_being_judged_stays_until_it_is(tmp_path):
    checkpoints = filled(tmp_path, (10,), keep_epochs=1)
    checkpoints.hold(10)
    for step in (20, 30):
        checkpoints.write(state(step), step)
        checkpoints.hold(step)
    assert [step for step, _ in checkpoints.files()] == [30, 20, 10]
    checkpoints.judge(10, 0.5, "auc", higher_is_better=True)
    assert checkpoints.release(20) == []
    assert [step for step, _ in checkpoints.files()] == [30, 10]
    checkpoints.judge(30, 0.75, "auc", higher_is_better=True)
    assert [step for step, _ in checkpoints.files()] == [30]


def test_what_cannot_be_recorded_is_recorded_with_the_next_checkpoint(tmp_path, monkeypatch):
    checkpoints = filled(tmp_path, (10,), keep_epochs=1)

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(best, "replace_text", full)
        (warning,) = checkpoints.judge(10, 0.5, "loss")
    assert "best.json could not be written: No space left on device; it is tried again" in warning
    checkpoints.write(state(20), 20)
    assert record(tmp_path)["file"] == "epoch_1.pth"
    assert [step for step, _ in checkpoints.files()] == [20, 10]


def test_what_cannot_be_deleted_is_said(tmp_path):
    checkpoints = filled(tmp_path, (1,))
    checkpoints.keep = 1
    (tmp_path / "step_00000002.pth").mkdir()
    (tmp_path / "step_00000002.pth" / "file").touch()
    (warning,) = checkpoints.write(state(3), 3)
    assert "step_00000002.pth could not be deleted: Is a directory" in warning


def test_a_folder_a_broken_link_and_bytes_are_passed_over_and_read_once(tmp_path, monkeypatch):
    checkpoints = filled(tmp_path, (1, 2))
    (tmp_path / "step_00000003.pth").write_bytes(b"")
    (tmp_path / "step_00000004.pth").mkdir()
    (tmp_path / "step_00000005.pth").symlink_to("gone")
    loads, load = [], torch.load
    monkeypatch.setattr(
        torch, "load", lambda path, **options: (loads.append(path), load(path, **options))[1]
    )
    path, found, warnings = checkpoints.choose("auto")
    assert found["meta"]["step"] == 2
    assert loads.count(path) == 1
    assert loads[-1] == path
    for text, problem in zip(warnings, ("no such", "not a file", "damaged"), strict=True):
        assert f": {problem}" in text
        assert text.endswith("; going on from step_00000002.pth")
    assert len(checkpoints.begin(2)) == 3
    assert checkpoints.choose("auto")[2] == ()
    assert sum(name.endswith(".damaged") for name in names(tmp_path)) == 3


def test_checkpoints_of_a_newer_program_are_not_passed_over(tmp_path):
    checkpoints = filled(tmp_path, (1,))
    torch.save({"format": 2, **state(2)}, tmp_path / "step_00000002.pth")
    with pytest.raises(CheckpointError, match="checkpoint format 2, this program reads 1"):
        checkpoints.choose("auto")
    torch.save({"w": torch.zeros(1)}, tmp_path / "step_00000002.pth")
    with pytest.raises(CheckpointError, match=r"--set model\.init="):
        checkpoints.choose("auto")


def test_a_good_checkpoint_that_cannot_be_read_now_is_not_passed_over(tmp_path, monkeypatch):
    checkpoints = filled(tmp_path, (10, 20))
    checkpoints.judge(20, 0.5, "loss")
    monkeypatch.setattr(checkpoint, "AGAIN_S", 0.0)

    def stale(path):
        raise OSError(116, "Stale file handle")

    before = names(tmp_path)
    monkeypatch.setattr(checkpoint.weights, "check_zip", stale)
    with pytest.raises(NotRead, match=r"epoch_2\.pth: cannot be read: Stale file handle"):
        checkpoints.choose("auto")
    (warning,) = Checkpoints(tmp_path, keep=9, steps_per_epoch=10).begin(20)
    assert "epoch_2.pth: cannot be read" in warning
    assert record(tmp_path)["file"] == "epoch_2.pth"
    assert names(tmp_path) == before


def test_files_that_are_set_aside_do_not_replace_each_other(tmp_path):
    checkpoints = filled(tmp_path, (10,))
    for number in range(3):
        (tmp_path / "epoch_2.pth").write_bytes(bytes([number]))
        checkpoints.begin(10)
    endings = ("", ".2", ".3")
    aside = [(tmp_path / f"epoch_2.pth.damaged{ending}").read_bytes() for ending in endings]
    assert aside == [b"\0", b"\1", b"\2"]


def test_what_killed_processes_have_begun_is_removed(tmp_path):
    checkpoints = filled(tmp_path, (10,))
    (tmp_path / ".best.json.123.partial").write_text("{")
    (tmp_path / ".latest.pth.124.partial").symlink_to("gone")
    assert checkpoints.begin(10) == []
    assert names(tmp_path) == ["epoch_1.pth", "latest.pth"]


def test_a_link_to_a_best_that_is_gone_is_removed_without_a_record(tmp_path):
    checkpoints = filled(tmp_path, (10,))
    (tmp_path / "best.pth").symlink_to("epoch_7.pth")
    assert checkpoints.begin(10) == []
    assert names(tmp_path) == ["epoch_1.pth", "latest.pth"]
    (tmp_path / "best.pth").symlink_to("epoch_1.pth")
    assert checkpoints.begin(10) == []
    assert (tmp_path / "best.pth").is_file()
