"""Runs of several processes for tests: forked ranks, torchrun, and what they leave behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from train_process import Process

import tracker.training.guard

SCRIPT = Path(__file__).with_name("train_fakes.py")
BATCH, PER_EPOCH = 5, 4  # pairs, steps
CONFIG = (
    "data: {pairs_per_epoch: 22}\n"
    f"train:\n  batch_size: {BATCH}\n  warmup_steps: 6\n  lr: 0.5\n  momentum: 0.9\n  threads: 1\n"
    "  log_every: 1\n  checkpoint_every: 3\n  epochs: 99999\n"
)
ALL_END_S = 30.0  # what is promised after one rank has failed


def prepare() -> None:
    """Be absent, or lose patience with other machines, as FAKE_ABSENT and FAKE_LOST_S say."""
    if os.environ["RANK"] in os.environ.get("FAKE_ABSENT", "").split():
        sys.exit()
    tracker.training.guard.LOST_S = float(os.environ.get("FAKE_LOST_S", "60"))


class Ranks(Process):
    """Processes of one run, each of which may end in its own way."""

    def __init__(self, folder, out, *arguments, ranks=2, **environment) -> None:
        self._mark = folder / "failed"
        self._mark.unlink(missing_ok=True)
        environment["FAKE_MARK"] = str(self._mark)
        options = ("--config", "tiny.yaml", "--out", out, *arguments)
        super().__init__(folder, *options, ranks=ranks, setup=prepare, **environment)

    def finish(self, *codes: int) -> str:
        """Output, once all have ended, with these exit codes (default: 0).

        One that is to be killed need not end by itself. From a failure that the fakes made until
        all the others have ended there are less than `ALL_END_S`.
        """
        wanted = codes or (0,) * len(self.processes)
        deadline = time.monotonic() + 150  # imports on a busy machine included
        for process, code in zip(self.processes, wanted, strict=True):
            while process.exitcode is None and code != -signal.SIGKILL:
                process.join(0.1)
                assert len(self.output) < 1 << 20
                if time.monotonic() > deadline:
                    break
        ended = time.time()
        self.kill()
        assert tuple(process.exitcode for process in self.processes) == wanted, self.output
        if self._mark.exists():
            assert ended - float(self._mark.read_text()) < ALL_END_S, self.output
        return self.output


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
