"""Several processes under torchrun: they agree, end together, and go on exactly."""

import functools
import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from multiprocessing import forkserver
from pathlib import Path

import pytest
import torch
import train_fakes

from tracker.training.checkpoint import read
from tracker.training.meter import TIMES

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).with_name("train_fakes.py")
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
CONFIG = (
    "data: {pairs_per_epoch: 22}\n"
    "train:\n  batch_size: 5\n  warmup_steps: 6\n  lr: 0.5\n  momentum: 0.9\n  threads: 1\n"
    "  log_every: 1\n  checkpoint_every: 3\n  epochs: 99\n"
)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def run_rank(rank, ranks, port, folder, arguments, environment):
    """One process as torchrun would start it, its output in a file of the folder."""
    os.chdir(folder)
    for handle in (1, 2):
        os.dup2(os.open("output.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND), handle)
    names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks, "LOCAL_WORLD_SIZE": ranks}
    os.environ |= {name: str(value) for name, value in names.items()}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), **environment}
    if environment.get("FAKE_PARTS", "yes"):
        train_fakes.use_fakes()
    train_fakes.train.main([str(one) for one in arguments])


class Ranks:
    """Processes of one run, forked from a server that has imported everything."""

    def __init__(self, folder, out, *arguments, ranks=2, **environment) -> None:
        context = multiprocessing.get_context("forkserver")
        self.path = folder / "output.txt"
        self.path.unlink(missing_ok=True)
        port = free_port()
        options = ["--config", "tiny.yaml", "--out", out, *arguments]
        self.processes = [
            context.Process(
                target=run_rank, args=(rank, ranks, port, str(folder), options, environment)
            )
            for rank in range(ranks)
        ]
        for process in self.processes:
            process.start()

    def finish(self, *codes: int) -> str:
        """Output, once all have ended, with these exit codes (default: 0)."""
        for process in self.processes:
            process.join(60)
            if process.exitcode is None:
                process.kill()
        output = self.path.read_text()
        wanted = codes or (0,) * len(self.processes)
        assert tuple(process.exitcode for process in self.processes) == wanted, output
        return output


@pytest.fixture(scope="module", autouse=True)
def _server():
    """Start the server that forks the ranks; it has to find the modules that it imports first."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["train_fakes", "torch.utils.tensorboard"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(SCRIPT.parent))
        forkserver.ensure_running()


@pytest.fixture
def start(tmp_path):
    (tmp_path / "tiny.yaml").write_text(CONFIG)
    return functools.partial(Ranks, tmp_path)


@pytest.fixture
def torchrun(tmp_path):
    """Start a run of two processes by torchrun; output and errors are joined."""
    (tmp_path / "tiny.yaml").write_text(CONFIG)

    def torchrun(out, *arguments, **environment):
        command = [*TORCHRUN, "2", str(SCRIPT), "--config", "tiny.yaml", "--out", out, *arguments]
        return subprocess.Popen(
            list(map(str, command)),
            cwd=tmp_path,
            env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    return torchrun


def errors(output):
    """Lines of train.py's own errors, among torchrun's."""
    return [line for line in output.splitlines() if line.startswith("Error: ")]


def metrics(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in x.items() if k not in TIMES} for x in lines]


def same(a, b):
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


def test_killed_and_resumed_under_torchrun_equals_the_run_that_was_not(torchrun, start, tmp_path):
    start("whole", "--steps", 10).finish()
    process = torchrun("parts", "--steps", 10, FAKE_FAIL="1:7:kill")
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 1, output
    assert len(errors(output)) <= 1, output
    assert read(tmp_path / "parts/latest.pth")["meta"]["step"] == 6
    process = torchrun("parts", "--steps", 10)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    assert "going on after step 6" in output
    for word in ("warn", "Traceback", "Error"):
        assert word not in output
    assert metrics(tmp_path / "parts") == metrics(tmp_path / "whole")
    assert same(read(tmp_path / "whole/latest.pth"), read(tmp_path / "parts/latest.pth"))


def test_sigterm_to_torchrun_stops_all_ranks_after_the_same_step(torchrun, start, tmp_path):
    process = torchrun("parts", "--steps", 30, FAKE_SLOW="0.1")
    path = tmp_path / "parts/metrics.jsonl"
    while process.poll() is None and not (path.is_file() and path.read_text().count("\n") > 1):
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "Stopped by SIGTERM after step" in output
    assert not errors(output)
    assert 2 <= read(tmp_path / "parts/latest.pth")["meta"]["step"] < 30
    start("parts", "--steps", 30).finish()
    start("whole", "--steps", 30).finish()
    assert metrics(tmp_path / "parts") == metrics(tmp_path / "whole")
    assert same(read(tmp_path / "whole/latest.pth"), read(tmp_path / "parts/latest.pth"))


@pytest.mark.parametrize("ranks", [2, 3])
def test_resumed_ranks_repeat_every_bit(start, tmp_path, ranks):
    output = start("whole", "--steps", 7, ranks=ranks).finish()
    assert output.count("Done: 7 steps") == 1
    assert "warn" not in output.lower().replace("warning: no coco", "")
    start("parts", "--steps", 4, ranks=ranks).finish()
    start("parts", "--steps", 7, ranks=ranks).finish()
    whole = read(tmp_path / "whole/latest.pth")
    assert same(whole, read(tmp_path / "parts/latest.pth"))
    assert metrics(tmp_path / "parts") == metrics(tmp_path / "whole")
    states = [one["random"]["cpu"] for one in whole["ranks"]]
    assert len(states) == ranks
    assert not torch.equal(states[0], states[1])


def test_another_number_of_ranks_goes_on(start, tmp_path):
    start("run", "--steps", 4, ranks=3).finish()
    assert "going on after step 4" in start("run", "--steps", 6, ranks=2).finish()
    assert [line["step"] for line in metrics(tmp_path / "run")] == [1, 2, 3, 4, 5, 6]


def test_one_rank_that_wants_to_stop_stops_all(start, tmp_path):
    output = start("run", "--steps", 30, FAKE_FAIL="1:2:SIGINT").finish(130, 130)
    assert "Stopped by SIGINT after step" in output
    assert read(tmp_path / "run/latest.pth")["meta"]["step"] in (3, 4)


@pytest.mark.parametrize(
    ("fail", "line"),
    [
        ("1:2:data", "Error: rank 1: the shard is gone"),
        ("0:2:data", "Error: the shard is gone"),
        ("0:2:data 1:2:data", "Error: the shard is gone"),
        ("0:2:nan", "Error: step 3 was left out: on rank 0, loss nan"),
        ("1:2:nan", "Error: step 3 was left out: on rank 1, loss nan"),
    ],
)
def test_one_line_is_read_whoever_fails(start, fail, line):
    output = start("run", "--steps", 9, FAKE_FAIL=fail).finish(1, 1)
    assert len(errors(output)) == 1, output
    assert errors(output)[0].startswith(line)
    assert "Traceback" not in output


def test_a_killed_rank_ends_the_others(start):
    output = start("run", "--steps", 9, FAKE_FAIL="1:2:kill").finish(1, -signal.SIGKILL)
    assert len(errors(output)) == 1
    assert errors(output)[0].startswith("Error: lost contact with another process")
    assert "Traceback" not in output


def test_a_bug_keeps_its_traceback(start):
    output = start("run", "--steps", 9, FAKE_FAIL="1:2:bug").finish(1, 1)
    assert output.count("ZeroDivisionError: a bug") == 1
    assert errors(output) == ["Error: rank 1: Traceback (most recent call last):"]


def test_errors_that_all_ranks_have_are_printed_once(start):
    output = start("run", "--set", "train.epoch=1").finish(1, 1)
    assert errors(output) == ["Error: --set train.epoch: unknown key; did you mean 'epochs'?"]


def test_a_world_larger_than_the_batch_is_refused(packed, tmp_path):
    (tmp_path / "tiny.yaml").write_text("train: {batch_size: 1}\n")
    ranks = Ranks(tmp_path, "run", "--data", packed, FAKE_PARTS="")
    output = ranks.finish(1, 1)
    (line,) = errors(output)
    assert line.startswith("Error: batch_size 1 is smaller than the world of 2 processes")
