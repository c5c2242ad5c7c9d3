"""A disk that takes nothing: really, by limits of the system on the size of files, and a tmpfs."""

import errno
import functools
import os
import pickle
import resource
import shutil
import subprocess
from contextlib import contextmanager

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from train_process import Process, metrics, same, start_server

from tracker.training import appender, log
from tracker.training.appender import Appender
from tracker.training.checkpoint import NotWritten, read, write
from tracker.training.log import keep_until
from tracker.training.run_folder import Checkpoints

CONFIG = (
    "data: {pairs_per_epoch: 18}\n"
    "train:\n  batch_size: 4\n  warmup_steps: 6\n  lr: 0.5\n  threads: 1\n"
    "  log_every: 1\n  checkpoint_every: 2\n  epochs: 99\n"
)


def state(step: int, size: int = 1000) -> dict:
    return {
        "meta": {"step": step, "config": "a: 1\n"},
        "state_dict": {"w": torch.arange(float(size)) + step},
        "stepper": {},
        "loader": {},
        "ranks": [],
    }


@pytest.fixture
def start(tmp_path):
    start_server()
    (tmp_path / "tiny.yaml").write_text(CONFIG)
    return functools.partial(Process, tmp_path, "--config", "tiny.yaml")


@pytest.mark.slow
def test_training_goes_on_and_everything_is_written_when_there_is_space_again(start, tmp_path):
    start("--out", "whole", "--steps", 10).finish()
    output = start("--out", "run", "--steps", 10, FAKE_FAIL="0:4:full 0:8:space").finish()
    warning = (
        "Warning: run/step_00000006.pth: this checkpoint could not be written: File too large; the "
        "last whole checkpoint is run/epoch_1.pth of step 4, "
    )
    assert warning in output
    assert "raise the limit on the size of files (ulimit -f): training goes on, and tries" in output
    assert "Warning: run/epoch_2.pth: this checkpoint could not be written" in output
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names == {
        ".lock", "best.json", "best.pth", "config.yaml", "epoch_1.pth", "latest.pth",
        "metrics.jsonl", "run.json", "step_00000002.pth", "step_00000010.pth", "tensorboard",
    }  # fmt: skip
    whole, run = (read(tmp_path / name / "latest.pth") for name in ("whole", "run"))
    assert same(whole, run)
    # The lines are late, but all there, in order.
    assert "Warning: run/metrics.jsonl could not be written: File too large; " in output
    assert "run/metrics.jsonl is written again" in output
    assert metrics(tmp_path / "run") == metrics(tmp_path / "whole")
    board = EventAccumulator(str(tmp_path / "run/tensorboard")).Reload()
    assert [one.step for one in board.Scalars("train/loss")] == list(range(1, 11))


@pytest.mark.slow
@pytest.mark.parametrize(("ranks", "ends"), [(0, "0:5:full"), (2, "0:5:full 0:6:SIGTERM")])
def test_the_last_checkpoint_must_be_written(start, tmp_path, ranks, ends):
    start("--out", "whole", "--steps", 9, ranks=ranks).finish()
    process = start("--out", "run", "--steps", 9, ranks=ranks, FAKE_FAIL=ends)
    output = process.finish(1)
    (line,) = [line for line in output.splitlines() if line.startswith("Error: ")]
    assert "could not be written: File too large; the steps after 4 are lost: the last" in line
    assert "whole checkpoint is run/epoch_1.pth of step 4, " in line
    assert line.endswith("start the same command again, it goes on from there")
    assert "Stopped by" not in output
    assert "Traceback" not in output
    output = start("--out", "run", "--steps", 9, ranks=ranks).finish()
    assert "going on after step 4" in output
    assert same(read(tmp_path / "whole/latest.pth"), read(tmp_path / "run/latest.pth"))
    assert metrics(tmp_path / "run") == metrics(tmp_path / "whole")


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 256 KB, where one may be mounted."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(place)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_keeps_what_it_has(small_disk):
    checkpoints = Checkpoints(small_disk, keep=1, steps_per_epoch=100)
    assert checkpoints.write(state(1, 20_000), 1) == []
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(shutil.disk_usage(small_disk).free - 4096))
    with pytest.raises(NotWritten, match="could not be written: No space left on device") as caught:
        checkpoints.write(state(2, 20_000), 2)
    assert caught.value.number == errno.ENOSPC
    assert caught.value.advice() == "free some space there, or raise the quota"
    assert sorted(path.name for path in small_disk.iterdir()) == [
        "ballast", "latest.pth", "step_00000001.pth",
    ]  # fmt: skip
    assert read(small_disk / "latest.pth")["meta"]["step"] == 1
    ballast.unlink()
    assert checkpoints.write(state(2, 20_000), 2) == []
    assert [step for step, _ in checkpoints.files()] == [2]


def test_a_disk_for_reading_only_takes_no_checkpoint(small_disk):
    checkpoints = Checkpoints(small_disk, keep=1, steps_per_epoch=100)
    checkpoints.write(state(1), 1)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    try:
        with pytest.raises(NotWritten, match="Read-only file system") as caught:
            checkpoints.write(state(2), 2)
        assert "mount that file system for writing" in caught.value.advice()
        assert "could not be written: Read-only" in checkpoints.judge(1, 0.5, "loss")[0]
        assert read(small_disk / "latest.pth")["meta"]["step"] == 1
    finally:
        subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
    checkpoints.write(state(2), 2)
    assert (small_disk / "best.json").is_file()


@contextmanager
def limited(size):
    """Files cannot grow beyond a size, in this process."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def whole_size(tmp_path) -> int:
    write(tmp_path / "whole.pth", state(1))
    return (tmp_path / "whole.pth").stat().st_size


@pytest.mark.parametrize("part", [0.0, 0.01, 0.3, 0.9, 0.999])
def test_wherever_a_checkpoint_is_cut_off_nothing_of_it_stays(tmp_path, part):
    size = int(whole_size(tmp_path) * part)
    write(tmp_path / "a.pth", state(1))
    with (
        limited(size),
        pytest.raises(NotWritten, match=r"a\.pth: this .*: File too large$") as caught,
    ):
        write(tmp_path / "a.pth", state(2))
    assert caught.value.number == errno.EFBIG
    assert read(tmp_path / "a.pth")["meta"]["step"] == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.pth", "whole.pth"]
    with limited(whole_size(tmp_path)):
        write(tmp_path / "a.pth", state(2))


def test_what_is_wrong_with_a_state_is_no_fault_of_the_disk(tmp_path):
    with pytest.raises((AttributeError, pickle.PicklingError)):
        write(tmp_path / "a.pth", {**state(1), "bug": lambda: None})
    assert list(tmp_path.iterdir()) == []


def test_the_error_reaches_other_processes_whole():
    error = NotWritten("a.pth: full", errno.ENOSPC).because("all is lost")
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.number) == ("a.pth: full; all is lost", errno.ENOSPC)


def test_records_wait_for_space_in_order_and_none_is_torn(tmp_path):
    said, now = [], [0.0]
    file = Appender(tmp_path / "a.jsonl", said.append, clock=lambda: now[0])
    file.append(b"0123456789\n")
    with limited(25):
        file.append(b"abcdefghij\n")  # fits
        file.append(b"ABCDEFGHIJ\n")  # three bytes of it do
        assert (tmp_path / "a.jsonl").read_bytes() == b"0123456789\nabcdefghij\n"
        file.append(b"second\n")
        assert len(said) == 1
        now[0] += 60
        file.append(b"third\n")
    assert said == [
        f"{tmp_path}/a.jsonl could not be written: File too large; {n} records wait; free some "
        "space there: training goes on"
        for n in (1, 3)
    ]
    file.append(b"fourth\n")
    assert said[2:] == [f"{tmp_path}/a.jsonl is written again: 3 records came late"]
    file.close()
    assert (tmp_path / "a.jsonl").read_bytes() == (
        b"0123456789\nabcdefghij\nABCDEFGHIJ\nsecond\nthird\nfourth\n"
    )


def test_not_more_records_wait_than_memory_has_room_for(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(appender, "MOST_BYTES", 20)
    file = Appender(tmp_path / "a.jsonl", said.append)
    with limited(0):
        for letter in b"abcde":
            file.append(bytes([letter]) * 7 + b"\n")
    file.append(b"end\n")
    file.close()
    assert (tmp_path / "a.jsonl").read_bytes() == b"ddddddd\neeeeeee\nend\n"
    assert said[-1].endswith("is written again: 2 records came late, 3 are lost")


def test_records_that_never_found_space_are_told_at_the_end(tmp_path):
    said = []
    file = Appender(tmp_path / "a.jsonl", said.append)
    with limited(0):
        file.append(b"one\n")
        file.append(b"two\n")
        file.close()
    assert said[-1] == f"{tmp_path}/a.jsonl: the last 2 records could not be written and are lost"


def test_a_disk_that_comes_back_is_written_to_again(tmp_path):
    """As after a remount: the file that was open is no more."""
    said = []
    file = Appender(tmp_path / "a.jsonl", said.append)
    file.append(b"one\n")
    os.close(file._handle)
    file.append(b"two\n")
    file.append(b"three\n")
    file.close()
    assert (tmp_path / "a.jsonl").read_bytes() == b"one\ntwo\nthree\n"
    assert "could not be written: Bad file descriptor; 1 records wait" in said[0]


def test_a_torn_line_in_the_middle_and_one_without_its_end_are_mended(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2, "lo{"step": 3}\n{"step": 4}')
    keep_until(path, 9)
    assert path.read_text() == '{"step": 1}\n{"step": 4}\n'


def test_lines_are_dropped_on_a_full_disk_and_what_cannot_be_is_a_warning(
    tmp_path, monkeypatch, capsys
):
    def full(path, text):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(log, "replace_text", full)
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"st')
    keep_until(path, 1)
    assert path.read_text() == '{"step": 1}\n'
    assert capsys.readouterr().err == ""
    path.write_text('{"step": 2}\n{"step": 1}\n')
    keep_until(path, 1)
    assert path.read_text() == '{"step": 2}\n{"step": 1}\n'
    error = capsys.readouterr().err
    assert error.startswith(f"Warning: {path}: lines after step 1 could not be dropped")
    with pytest.raises(OSError, match="No space left"):
        keep_until(path, 0)
