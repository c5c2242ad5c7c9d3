"""Runs of train.py in processes of their own, to be killed, forked from a server of imports."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import socket
import time
from contextlib import suppress
from multiprocessing import forkserver
from pathlib import Path

import pytest
import torch

from tracker.training.meter import TIMES

PRELOAD = ["train_fakes", "torch.utils.tensorboard"]
LIMIT_S = 100.0


def start_server() -> None:
    """Start the server of imports; it has to find the modules that it imports first."""
    multiprocessing.get_context("forkserver").set_forkserver_preload(PRELOAD)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent))
        forkserver.ensure_running()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def run(folder, arguments, environment, setup):
    """The process: output goes to a pipe in the folder; `setup` prepares what it is to meet."""
    import train_fakes

    os.chdir(folder)
    output = os.open("output", os.O_WRONLY)
    for handle in (1, 2):
        os.dup2(output, handle)
    os.environ |= environment
    if environment.get("FAKE_PARTS", "yes"):
        train_fakes.use_fakes()
    if setup:
        setup()
    train_fakes.train.main([str(one) for one in arguments])


class Process:
    """One run: a single process, or several that are ranks.

    Parameters
    ----------
    folder : working directory
    arguments : of train.py
    ranks : 0: without a group, as ``python train.py``
    setup : function of a module, called in the process before train.py
    environment : FAKE_..., or another place to meet
    """

    def __init__(self, folder, *arguments, ranks=0, setup=None, **environment) -> None:
        context = multiprocessing.get_context("forkserver")
        path = folder / "output"  # a pipe, as limits on the size of files are not for those
        path.unlink(missing_ok=True)
        os.mkfifo(path)
        self._pipe, self._output = os.open(path, os.O_RDWR | os.O_NONBLOCK), b""
        self.processes = []
        port = str(free_port()) if ranks else ""
        for rank in map(str, range(max(ranks, 1))):
            names = {"RANK": rank, "LOCAL_RANK": rank} if ranks else {}
            names |= dict.fromkeys(("WORLD_SIZE", "LOCAL_WORLD_SIZE"), str(ranks)) if ranks else {}
            names |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port} if ranks else {}
            given = (str(folder), arguments, {**names, **environment}, setup)
            self.processes.append(context.Process(target=run, args=given))
        for process in self.processes:
            process.start()

    @property
    def output(self) -> str:
        """What they have said so far."""
        with suppress(BlockingIOError):
            while part := os.read(self._pipe, 1 << 16):
                self._output += part
        return self._output.decode()

    def wait_for(self, ready, what="it") -> None:
        """Wait until something is so, while the run goes on."""
        deadline = time.monotonic() + LIMIT_S
        while not ready():
            ended = self.processes[0].exitcode is not None
            assert time.monotonic() < deadline, f"waited for {what}: {self.output}"
            assert not ended or ready(), f"ended before {what}: {self.output}"
            time.sleep(0.01)

    def send(self, number: int) -> None:
        """Send a signal to the first process."""
        os.kill(self.processes[0].pid, number)

    def kill(self) -> None:
        """End all at once, as a power failure would."""
        for process in self.processes:
            process.kill()
            process.join()

    def finish(self, code=0, limit_s=LIMIT_S) -> str:
        """Output, once all have ended with this exit code, within a time."""
        deadline = time.monotonic() + limit_s
        for process in self.processes:
            while process.exitcode is None and time.monotonic() < deadline:
                process.join(0.1)
                assert len(self.output) < 1 << 20
        late = [process for process in self.processes if process.exitcode is None]
        self.kill()
        assert not late, f"still there after {limit_s} s: {self.output}"
        assert {process.exitcode for process in self.processes} == {code}, self.output
        return self.output


def metrics(out, *, times=False):
    """Lines of metrics.jsonl, all of them whole."""
    lines = [json.loads(line) for line in (Path(out) / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if times or k not in TIMES} for line in lines]


def same(a, b):
    """Whether two checkpoints' values are equal, tensors bit for bit."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


SIGNALS = {"SIGTERM": signal.SIGTERM, "SIGINT": signal.SIGINT}
