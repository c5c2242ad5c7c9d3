"""Where a run goes on, and what it needs for that; runs that are really killed are elsewhere."""

import errno
import fcntl
import os
import socket
import threading

import pytest
import torch
from test_train_checkpoint import state
from train_fakes import FakeLoader, TinyModel
from train_process import same

import train
from loaders.config import PairConfig
from shards.errors import MismatchError
from tracker.training import checkpoint, lock
from tracker.training.checkpoint import CheckpointError, read, write
from tracker.training.config import TrainConfig
from tracker.training.due import RETRY_S, Due
from tracker.training.lock import FolderLock
from tracker.training.resume import RandomState, Start, State, find_start, same_config
from tracker.training.run_folder import Checkpoints
from tracker.training.step import Stepper
from tracker.training.world import World

CPU = torch.device("cpu")


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
        pytest.raises(MismatchError, match=f"process {os.getpid()} of .* trains in this folder"),
        FolderLock(tmp_path / "run", wait_s=0.3),
    ):
        pass
    with FolderLock(tmp_path / "run", wait_s=0.3):
        pass


def test_a_folder_of_another_machine_is_waited_for_longer(tmp_path, monkeypatch, capsys):
    """A file server gives back the lock of a machine that is lost only after a while."""
    monkeypatch.setattr(lock, "LOST_MACHINE_S", 30.0)
    with FolderLock(tmp_path) as other:
        monkeypatch.setattr(socket, "gethostname", lambda: "elsewhere")
        threading.Timer(1.0, other.__exit__).start()
        with FolderLock(tmp_path, wait_s=0.2):
            told = capsys.readouterr().err
        assert f"process {os.getpid()} of" in told
        assert "waiting up to 30 s" in told
    monkeypatch.setattr(lock, "LOST_MACHINE_S", 0.2)
    with FolderLock(tmp_path):
        monkeypatch.setattr(socket, "gethostname", lambda: "a third")
        with (
            pytest.raises(MismatchError, match=f"process {os.getpid()} of elsewhere trains"),
            FolderLock(tmp_path, wait_s=0.2),
        ):
            pass


def test_a_checkpoint_that_failed_is_wished_for_again_soon():
    now = [0.0]
    due = Due(every=0, minutes=1000, steps_per_epoch=10, clock=lambda: now[0])
    due.failed()
    assert due.wish() == 0
    now[0] += RETRY_S
    assert due.wish() == Due.WISH
    due.failed()
    assert due.wish() == 0
    now[0] += RETRY_S
    due.written()
    assert due.wish() == 0
    old = Due(every=0, minutes=1, steps_per_epoch=10, clock=lambda: now[0])
    now[0] += 60
    old.failed()  # not at every step from now on
    assert old.wish() == 0


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EIO])
def test_a_disk_without_locks_is_told_and_no_error(tmp_path, monkeypatch, capsys, number):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    if number == errno.EIO:
        with pytest.raises(OSError, match="Input/output error"), FolderLock(tmp_path):
            pass
        return
    with FolderLock(tmp_path):
        assert "no locks on this file system" in capsys.readouterr().err


def test_another_model_is_named_alone(tmp_path):
    then, now = (
        f"model: {{name: {name}, a: {a}}}\ntrain: {{lr: {a}}}\n" for name, a in (("x", 1), ("y", 2))
    )
    with pytest.raises(MismatchError) as caught:
        same_config(tmp_path / "x.pth", then, now, ())
    text = str(caught.value)
    assert "x.pth is of the model x, this run is of y; give that --config or another --out" in text
    assert "lr" not in text


def test_a_long_list_of_differences_is_cut():
    then, now = (f"a: {{{', '.join(f'k{i}: {i + more}' for i in range(30))}}}\n" for more in (0, 1))
    with pytest.raises(MismatchError, match=r"a\.k7 was 7, now 8 and 22 more; give another --out"):
        same_config("x.pth", then, now, ())


def parts(seed=1, amp="off", device=CPU):
    """State of a run with the fakes, and its stepper and loader."""
    model = TinyModel(seed).to(device)
    config = TrainConfig(lr=0.5, momentum=0.9, heads_only_epochs=0, amp=amp)
    stepper = Stepper(model, config, device, 4)
    loader = FakeLoader(PairConfig(pairs_per_epoch=18), batch_size=4)
    made = {"world_size": 1, "torch": "2", "torch_threads": 1}
    return State(
        model=model, stepper=stepper, loader=loader, of_rank={"random": RandomState(CPU)},
        world=World(), facts={"config": "a: 1\n", "init": {}, "made_with": made},
    )  # fmt: skip


def train_on(run, steps):
    for step in range(steps):
        inputs, here = train.inputs_of(next(run.loader)), run.stepper.device
        run.stepper(
            {k: v.to(here) if isinstance(v, torch.Tensor) else v for k, v in inputs.items()},
            step,
            0,
        )


def forbidden(text):
    raise AssertionError(text)


def test_the_state_of_a_loss_scaler_goes_on(tmp_path):
    """The scale grows every second step, and falls in one whose gradients are not finite."""

    def with_scaler():
        run = parts()
        run.stepper.scaler = torch.amp.GradScaler("cpu", init_scale=64.0, growth_interval=2)
        return run

    torch.manual_seed(3)
    whole = with_scaler()
    train_on(whole, 3)
    write(tmp_path / "a.pth", whole.collect(3))
    assert whole.stepper.scaler.state_dict()["_growth_tracker"] == 1
    other = with_scaler()
    other.model.load_state_dict(read(tmp_path / "a.pth")["state_dict"])
    found, content = Start(tmp_path / "a.pth", read(tmp_path / "a.pth")), read(tmp_path / "a.pth")
    train_on(whole, 4)
    assert whole.stepper.scaler.get_scale() == 64.0 * 8
    expected = whole.collect(7)
    assert other.restore(found, False, forbidden) == ()
    assert other.stepper.scaler.get_scale() == 128.0
    train_on(other, 4)
    assert same(other.collect(7), expected)
    assert not same(content["stepper"], expected["stepper"])
    assert (found.state, found.step) == ({}, 3)  # no copy of it stays in memory


@pytest.mark.gpu
def test_the_loss_scaler_of_fp16_goes_on(tmp_path):
    whole, other = (parts(amp="fp16", device=torch.device("cuda")) for _ in range(2))
    for run in (whole, other):
        run.stepper.scaler = torch.amp.GradScaler("cuda", init_scale=64.0, growth_interval=2)
    train_on(whole, 3)
    write(tmp_path / "a.pth", whole.collect(3))
    found = read(tmp_path / "a.pth")
    other.model.load_state_dict(found["state_dict"])
    other.restore(Start(tmp_path / "a.pth", found), False, forbidden)
    for run in (whole, other):
        train_on(run, 4)
    scaler = whole.stepper.scaler.state_dict()
    assert scaler["scale"] > 64.0
    assert other.stepper.scaler.state_dict() == scaler


def test_what_was_made_otherwise_is_said_in_one_line(tmp_path):
    run, said = parts(), []
    content = run.collect(2)
    content["meta"]["made_with"] = {"world_size": 2, "torch": "1", "torch_threads": 1}
    run.restore(Start(tmp_path / "a.pth", content), False, said.append)
    assert said == [
        f"{tmp_path}/a.pth was made with world_size 2 (now 1), torch 1 (now 2): what follows may "
        "differ in its last bits from a run without a stop"
    ]
    del content["meta"]["made_with"]  # as before there was one
    run.restore(Start(tmp_path / "a.pth", content), False, forbidden)


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content["ranks"][0].pop("random"),
        lambda content: content["stepper"].pop("optimizer"),
        lambda content: content["stepper"]["optimizer"]["param_groups"].pop(),
        lambda content: content["ranks"].clear(),
    ],
)
def test_a_state_of_another_version_is_a_known_error(tmp_path, change):
    run = parts()
    run.of_rank["random"].load_state_dict = lambda states, rank, size: states[rank]["cpu"]
    content = run.collect(2)
    change(content)
    with pytest.raises(CheckpointError, match=r"a\.pth: its optimiser or counters do not fit"):
        run.restore(Start(tmp_path / "a.pth", content), False, forbidden)


def test_other_data_go_on_only_if_that_is_allowed(tmp_path):
    run, said = parts(), []
    train_on(run, 2)
    start = Start(tmp_path / "a.pth", run.collect(2))
    other = parts()
    other.loader.data = "b"
    with pytest.raises(MismatchError, match="these are other data"):
        other.restore(start, False, forbidden)
    assert other.restore(start, True, said.append) == ("these are other data",)
    assert (other.loader.epoch, other.loader.consumed) == (0, 8)
    (text,) = said
    assert text.startswith("other data, as --allow-data-change allows: these are other data. The")


class Second(World):
    """A second process, on a machine that sees another folder."""

    def __init__(self, path):
        super().__init__()
        self.rank, self._path = 1, path

    def agree(self, make):
        return self._path, ()


def test_a_machine_that_does_not_see_the_folder_says_so(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=1, steps_per_epoch=9)
    with pytest.raises(CheckpointError, match="no such checkpoint; the first process could read"):
        find_start("auto", checkpoints, "a: 1\n", (), Second(tmp_path / "a.pth"), forbidden)
    write(tmp_path / "a.pth", state(3))
    found = find_start("auto", checkpoints, "a: 1\n", (), Second(tmp_path / "a.pth"), forbidden)
    assert found.step == 3


def test_the_first_process_reads_once(tmp_path, monkeypatch):
    checkpoints, reads = Checkpoints(tmp_path, keep=1, steps_per_epoch=9), []
    checkpoints.write(state(3), 3)
    plain = checkpoint.read
    monkeypatch.setattr(checkpoint, "read", lambda path: (reads.append(path), plain(path))[1])
    assert find_start("auto", checkpoints, "a: 1\n", (), World(), forbidden).step == 3
    assert len(reads) == 1
