"""Runs that are really killed or told to stop, at any moment, and go on to the same end."""

import functools
import os
import shutil
import signal
import time
from pathlib import Path

import pytest
from train_process import SIGNALS, Process, metrics, same, start_server

from shards.rng import uniforms
from tracker.training.checkpoint import read

pytestmark = pytest.mark.slow

TINY = (
    "data: {pairs_per_epoch: 18}\n"
    "train:\n  batch_size: 4\n  warmup_steps: 6\n  lr: 0.5\n  threads: 1\n"
    "  log_every: 1\n  checkpoint_every: 3\n  epochs: 99\n"
)
SOON_S = 60.0  # much less than data.timeout_s


@pytest.fixture
def start(tmp_path):
    start_server()
    (tmp_path / "tiny.yaml").write_text(TINY)
    return functools.partial(Process, tmp_path, "--config", "tiny.yaml")


def slow_sync():
    """Make each checkpoint take a second to reach the disk, and say when it begins."""
    fsync = os.fsync

    def slow(handle):
        if "checkpoint" in str(Path(f"/proc/self/fd/{handle}").readlink()):
            Path("writing").touch()
            time.sleep(1)
        fsync(handle)

    os.fsync = slow


def test_more_signals_while_the_last_checkpoint_is_written_do_not_harm_it(start, tmp_path):
    process = start("--out", "run", "--steps", 8, setup=slow_sync, FAKE_FAIL="0:0:SIGINT")
    process.wait_for((tmp_path / "writing").exists, "the checkpoint")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGINT):
        process.send(number)
        time.sleep(0.1)
    output = process.finish(130)
    assert "Stopped by SIGINT after step 2" in output
    assert read(tmp_path / "run/latest.pth")["meta"]["step"] == 2
    start("--out", "run", "--steps", 8).finish()
    start("--out", "whole", "--steps", 8).finish()
    assert same(read(tmp_path / "run/latest.pth"), read(tmp_path / "whole/latest.pth"))
    assert metrics(tmp_path / "run") == metrics(tmp_path / "whole")


def slow_loading():
    """Make the data take longer to open than anybody waits."""
    import train

    def opening(*_):
        Path("loading").touch()
        time.sleep(600)

    train.open_loader = opening


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", -signal.SIGTERM), ("SIGINT", 1)])
def test_a_signal_before_the_first_step_ends_the_run_soon(start, tmp_path, name, code):
    process = start("--out", "run", setup=slow_loading)
    process.wait_for((tmp_path / "loading").exists, "loading")
    process.send(SIGNALS[name])
    output = process.finish(code, SOON_S)
    assert "Traceback" not in output
    assert not list(tmp_path.glob("run/*.pth"))


def stalling():
    """Real data, of which no picture comes after the 24th."""
    import loaders.loader
    import train
    from loaders.sets import DataSet

    reads, plain = [], DataSet.read

    def read_some(self, row):
        reads.append(row)
        if len(reads) > 24 and Path("stall").exists():
            Path("stalled").touch()
            time.sleep(600)
        return plain(self, row)

    DataSet.read = read_some
    train.PairLoader, train.PATIENCE_S = loaders.loader.PairLoader, 1.0


@pytest.mark.parametrize("ranks", [0, 2])
def test_a_signal_ends_a_run_whose_data_do_not_come(start, tmp_path, packed, ranks):
    options = ["--data", packed, "--steps", 8, "--set", "data.prefetch=1"]
    (tmp_path / "stall").touch()
    process = start("--out", "run", *options, ranks=ranks, setup=stalling)
    process.wait_for((tmp_path / "stalled").exists, "the stall")
    time.sleep(0.5)
    process.send(signal.SIGTERM)
    output = process.finish(1 if ranks else 143, SOON_S)
    (tmp_path / "stall").unlink()
    if ranks:
        first = next(line for line in output.splitlines() if line.startswith("Error: "))
        assert "SIGTERM came while this process waited for data that do not come" in first
        assert first.endswith("start the same command again to go on from there")
    else:
        assert "Stopped by SIGTERM after step" in output
        assert read(tmp_path / "run/latest.pth")["meta"]["step"] >= 3
    start("--out", "run", *options, ranks=ranks, setup=stalling).finish()
    start("--out", "whole", *options, ranks=ranks, setup=stalling).finish()
    assert same(read(tmp_path / "run/latest.pth"), read(tmp_path / "whole/latest.pth"))
    assert metrics(tmp_path / "run") == metrics(tmp_path / "whole")


KILLS = 3


@pytest.mark.parametrize(
    ("optimizer", "amp"),
    [
        ("adamw", "off"),
        # a CPU without instructions for bf16 takes seconds a step
        pytest.param("sgd", "bf16", marks=pytest.mark.services),
    ],
)
def test_killed_at_random_moments_the_end_is_that_of_the_run_that_was_not(
    start, tmp_path, packed, optimizer, amp
):
    """A small SPM on packed data, over the ends of the heads' epoch and of another."""
    shutil.copytree(packed / "lasot", tmp_path / "shards/lasot")
    keys = {
        "model.width": 0.05, "model.init": "random", "data.pairs_per_epoch": 6,
        "train.batch_size": 2, "train.optimizer": optimizer, "train.amp": amp, "train.lr": 0.01,
        "train.momentum": 0.9 if optimizer == "sgd" else 0.0, "train.log_every": 1,
        "train.checkpoint_every": 1, "train.warmup_steps": 4, "train.lr_steps": "2",
        "data.threads": 1, "train.keep_epochs": 1,
    }  # fmt: skip
    settings = [part for key, value in keys.items() for part in ("--set", f"{key}={value}")]

    def begin(out):
        options = ["--data", "shards", "--steps", 8, *settings]
        return start("--config", "spm_alexnet.yaml", "--out", out, *options, FAKE_PARTS="")

    def has_begun(process):
        return lambda: "devices " in process.output or "finished" in process.output

    def written(count):
        """Whether so many steps are in a checkpoint, of which the last ones alone stay."""
        steps = {"epoch": 3, "step": 1}
        names = [path.stem.split("_") for path in tmp_path.glob("run/[es]*_*.pth")]
        return max((int(n) * steps[unit] for unit, n in names), default=0) >= count

    process = begin("whole")
    process.wait_for(has_begun(process), "the header")
    began = time.monotonic()
    process.finish()
    step_s = (time.monotonic() - began) / 8
    for number, delay in enumerate(uniforms(5, 1, 0, 0, KILLS, 4)[:, 0]):
        process = begin("run")
        process.wait_for(functools.partial(written, 2 * number + 1), "a checkpoint")
        time.sleep(delay * step_s)
        process.kill()
    assert "from the start" not in begin("run").finish()
    assert same(read(tmp_path / "run/latest.pth"), read(tmp_path / "whole/latest.pth"))
    assert same(read(tmp_path / "run/best.pth"), read(tmp_path / "whole/best.pth"))
    assert metrics(tmp_path / "run") == metrics(tmp_path / "whole")
    assert {path.name for path in (tmp_path / "run").iterdir()} == {
        path.name for path in (tmp_path / "whole").iterdir()
    }
