"""Runs of several processes for tests: forked ranks, torchrun, and what they leave behind."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import torch
import train_fakes

import tracker.training.guard
from tracker.training.meter import TIMES

SCRIPT = Path(__file__).with_name("train_fakes.py")
BATCH, PER_EPOCH = 5, 4  # pairs, steps
CONFIG = (
    "data: {pairs_per_epoch: 22}\n"
    f"train:\n  batch_size: {BATCH}\n  warmup_steps: 6\n  lr: 0.5\n  momentum: 0.9\n  threads: 1\n"
    "  log_every: 1\n  checkpoint_every: 3\n  epochs: 99\n"
)
ALL_END_S = 30.0  # what is promised after one rank has failed


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
    tracker.training.guard.LOST_S = float(environment.get("FAKE_LOST_S", "60"))
    if environment.get("FAKE_PARTS", "yes"):
        train_fakes.use_fakes()
    if str(rank) not in environment.get("FAKE_ABSENT", "").split():
        train_fakes.train.main([str(one) for one in arguments])


class Ranks:
    """Processes of one run, forked from a server that has imported everything."""

    def __init__(self, folder, out, *arguments, ranks=2, port=0, **environment) -> None:
        context = multiprocessing.get_context("forkserver")
        self.path, self._mark = folder / "output.txt", folder / "failed"
        for path in (self.path, self._mark):
            path.unlink(missing_ok=True)
        port = port or free_port()
        options = ["--config", "tiny.yaml", "--out", out, *arguments]
        environment["FAKE_MARK"] = str(self._mark)
        self.processes = [
            context.Process(
                target=run_rank, args=(rank, ranks, port, str(folder), options, environment)
            )
            for rank in range(ranks)
        ]
        for process in self.processes:
            process.start()

    def finish(self, *codes: int) -> str:
        """Output, once all have ended, with these exit codes (default: 0).

        One that is to be killed need not end by itself. From a failure that the fakes made until
        all the others have ended there are less than `ALL_END_S`.
        """
        wanted = codes or (0,) * len(self.processes)
        for process, code in zip(self.processes, wanted, strict=True):
            process.join(0 if code == -signal.SIGKILL else 60)
        ended = time.time()
        for process in self.processes:
            process.kill()
            process.join()
        output = self.path.read_text()
        assert tuple(process.exitcode for process in self.processes) == wanted, output
        if self._mark.exists():
            assert ended - float(self._mark.read_text()) < ALL_END_S, output
        return output


class Torchrun:
    """A run by torchrun, or one machine's part of it; output and errors are joined in a file."""

    def __init__(self, folder, name, options, arguments, **environment) -> None:
        command = [
            sys.executable, "-m", "torch.distributed.run", *options, SCRIPT,
            "--config", "tiny.yaml", *arguments,
        ]  # fmt: skip
        self._path = folder / f"{name}.txt"
        plain = {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
        with self._path.open("w") as output:
            self.process = subprocess.Popen(
                list(map(str, command)),
                cwd=folder,
                env={**os.environ, **plain, **environment},
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    @property
    def output(self) -> str:
        return self._path.read_text()

    def finish(self, code: int | None = 0, timeout_s: float = 240) -> str:
        """Output, once it has ended with this exit code; None: any but 0."""
        try:
            found = self.process.wait(timeout_s)
        finally:
            self.process.kill()
        assert found == code if code is not None else found, self.output
        return self.output

    def wait_for(self, ready) -> None:
        """Wait until something is so, as long as the process lives."""
        deadline = time.monotonic() + 240
        while not ready():
            assert self.process.poll() is None, self.output
            assert time.monotonic() < deadline, self.output
            time.sleep(0.05)


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


def seen(folder: Path) -> list[dict]:
    """What every rank of every start trained on, in the order of time (FAKE_LOG)."""
    lines = []
    for path in folder.glob("*.jsonl"):
        text = path.read_text()
        lines += [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]
    return sorted(lines, key=lambda line: line["time_ns"])


def assert_each_sample_once(folder: Path, steps: int) -> list[int]:
    """Check that what counts of a run's steps has every sample once; returns the worlds.

    Of a step that was trained again after a failure the last time counts.
    """
    last: dict[int, dict[int, dict]] = {}
    for line in seen(folder):
        ranks = last.setdefault(line["step"], {})
        if any(other["world"] != line["world"] for other in ranks.values()):
            ranks.clear()
        ranks[line["rank"]] = line
    worlds = []
    for step in range(steps):
        ranks = last[step]
        (world,) = {line["world"] for line in ranks.values()}
        assert sorted(ranks) == list(range(world)), step
        epoch, first = step // PER_EPOCH, step % PER_EPOCH * BATCH
        for rank, line in ranks.items():
            assert line["epoch"] == epoch
            assert line["samples"] == list(range(first + rank, first + BATCH, world))
        worlds.append(world)
    return worlds
