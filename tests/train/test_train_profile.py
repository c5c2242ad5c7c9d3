"""A profile of a few steps: when it is taken, what it holds, that the training is the same."""

import gzip
import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from train_fakes import use_fakes

import train
from tracker.training.checkpoint import read
from tracker.training.profile import SKIP, STEPS, WARM_UP, Profiler


@pytest.fixture
def start(tmp_path, monkeypatch):
    use_fakes(monkeypatch.setattr)
    monkeypatch.setenv("KINETO_LOG_LEVEL", "99")
    for name in ("RANK", "WORLD_SIZE", "FAKE_FAIL", "FAKE_SLOW"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "tiny.yaml").write_text(
        "data: {pairs_per_epoch: 400}\ntrain: {batch_size: 4, threads: 1, checkpoint_every: 0}\n"
    )
    monkeypatch.chdir(tmp_path)
    state, threads = torch.get_rng_state(), torch.get_num_threads()

    def start(*arguments, code=0):
        result = CliRunner().invoke(train.main, ["--config", "tiny.yaml", *map(str, arguments)])
        assert result.exit_code == code, result.output
        return result

    yield start
    torch.set_rng_state(state)
    torch.set_num_threads(threads)


def events(folder, name):
    with gzip.open(folder / "profile" / f"{name}.json.gz") as file:
        return [one.get("name", "") for one in json.load(file)["traceEvents"]]


def test_a_profiled_run_is_the_same_to_the_bit(start):
    start("--steps", 20, "--out", "whole")
    result = start("--steps", 20, "--out", "seen", "--profile", 4)
    whole, seen = (read(Path(out) / "latest.pth") for out in ("whole", "seen"))
    assert whole["meta"] == seen["meta"]
    for key, value in whole["state_dict"].items():
        assert torch.equal(value, seen["state_dict"][key])
    assert torch.equal(whole["ranks"][0]["random"]["cpu"], seen["ranks"][0]["random"]["cpu"])
    assert not Path("whole/profile").exists()
    assert {one.name for one in Path("seen/profile").iterdir()} == {
        "steps_11-14.json.gz", "steps_11-14.txt",
    }  # fmt: skip
    assert "Profile of 4 steps: seen/profile/steps_11-14.json.gz" in result.stderr
    names = events(Path("seen"), "steps_11-14")
    assert sum(name.startswith("ProfilerStep#") for name in names) == 4
    assert any("conv" in name for name in names)
    table = Path("seen/profile/steps_11-14.txt").read_text()
    assert "Self CPU" in table
    assert "aten::" in table


def test_the_number_of_steps_may_be_left_out(start):
    start("--profile", "--steps", 30)
    assert Path(f"runs/tiny/profile/steps_11-{10 + STEPS}.txt").is_file()


def test_a_run_that_goes_on_names_its_steps(start):
    start("--steps", 3)
    start("--steps", 18, "--profile", 2)
    assert Path("runs/tiny/profile/steps_14-15.txt").is_file()


def test_a_run_that_is_stopped_writes_what_it_has(start, monkeypatch):
    monkeypatch.setenv("FAKE_FAIL", "0:10:SIGTERM")  # which ends the run after step 12
    result = start("--steps", 40, "--profile", 5, code=143)
    assert "Profile of 2 steps (5 were asked for, the run ended): " in result.stderr
    names = events(Path("runs/tiny"), "steps_11-12")
    assert sum(name.startswith("ProfilerStep#") for name in names) >= 2


def test_a_run_that_fails_writes_what_it_has_and_keeps_its_error(start, monkeypatch):
    monkeypatch.setenv("FAKE_FAIL", "0:12:data")
    result = start("--steps", 40, "--profile", 5, code=1)
    assert "Error: the shard is gone" in result.stderr
    assert Path("runs/tiny/profile/steps_11-12.json.gz").is_file()


def test_a_profile_that_cannot_be_written_is_a_warning(start):
    Path("runs/tiny").mkdir(parents=True)
    Path("runs/tiny/profile").write_text("in the way")
    result = start("--steps", 16, "--profile", 2)
    assert "Warning: runs/tiny/profile: could not be written" in result.stderr
    assert "Done: 16 steps" in result.stdout


def profiled(folder, steps, *, left, done, first=0):
    """What a loop is told that ends after so many steps."""
    told = []
    device = torch.device("cpu")
    with Profiler(folder, steps, first=first, left=left, device=device, say=told.append) as watch:
        for _ in range(done):
            torch.ones(3).mul(2)
            watch.step()
    return told


@pytest.mark.parametrize(("left", "name"), [(6, "steps_102-106"), (3, "steps_101-103")])
def test_of_a_short_run_less_is_left_out(tmp_path, left, name):
    (line,) = profiled(tmp_path, 5, left=left, done=left, first=100)
    assert {one.name for one in (tmp_path / "profile").iterdir()} == {
        f"{name}.json.gz", f"{name}.txt",
    }  # fmt: skip
    assert ("(5 were asked for, the run ended)" in line) == (left < 5)


@pytest.mark.parametrize("done", [0, 3, SKIP - WARM_UP, SKIP - 2, SKIP])
def test_a_run_that_ends_early_says_that_there_is_none(tmp_path, done):
    (line,) = profiled(tmp_path, 5, left=50, done=done)
    assert line.startswith(f"Profile: nothing to write, the run ended after {done} steps")
    assert list(tmp_path.iterdir()) == []


def test_not_asked_for_it_does_nothing(tmp_path):
    assert profiled(tmp_path, 0, left=50, done=50) == []
    assert list(tmp_path.iterdir()) == []


def test_a_profiler_that_fails_is_a_warning_and_no_error_hides_the_loops(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("no trace\nwas made")

    monkeypatch.setattr(torch.profiler.profile, "export_chrome_trace", fail)
    (line,) = profiled(tmp_path, 2, left=2, done=2)
    assert line == "Warning: there is no profile, the profiler failed: no trace was made"
    told = []

    def training():
        given = {"first": 0, "left": 4, "device": torch.device("cpu"), "say": told.append}
        with Profiler(tmp_path, 4, **given) as watch:
            watch.step()
            raise KeyError("the first error")

    with pytest.raises(KeyError, match="the first error") as caught:
        training()
    assert caught.value.__context__ is None
    assert told == [line]


def test_after_an_error_the_device_is_not_waited_for(tmp_path, monkeypatch):
    """What it has to say by then would hide the error."""
    waits = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: waits.append(1))
    for error, wanted in ((None, [1]), (KeyError(), [1])):
        watch = Profiler(
            tmp_path, 4, first=0, left=4, device=torch.device("cpu"), say=lambda _: None
        )
        watch.__enter__()
        watch.step()
        watch._cuda = watch._cuda_waits = True
        watch.__exit__(type(error) if error else None, error, None)
        assert waits == wanted
