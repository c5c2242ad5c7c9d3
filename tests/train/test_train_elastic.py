"""Restarts by torchrun: killed ranks, machines that leave and join, other numbers of ranks."""

import os
import signal
from contextlib import suppress

import pytest
from train_process import free_port, metrics, same
from train_ranks import assert_each_sample_once, errors, seen

from tracker.training.checkpoint import read

pytestmark = pytest.mark.slow


def test_a_killed_rank_is_restarted_and_nothing_differs(torchrun, launch, tmp_path):
    launch("whole", "--steps", 10).finish()
    (tmp_path / "log").mkdir()
    options = ("--standalone", "--nproc-per-node", 2, "--max-restarts", 1)
    run = torchrun(
        "agent", options, ("--out", "parts", "--steps", 10),
        FAKE_FAIL="1:7:kill", FAKE_ONCE=str(tmp_path / "once"), FAKE_LOG=str(tmp_path / "log"),
    )  # fmt: skip
    output = run.finish()
    assert "going on after step 6" in output
    assert len(errors(output)) <= 1, output  # none if torchrun was quicker than the rank's guard
    assert "Traceback" not in output
    assert metrics(tmp_path / "parts") == metrics(tmp_path / "whole")
    assert same(read(tmp_path / "whole/latest.pth"), read(tmp_path / "parts/latest.pth"))
    assert assert_each_sample_once(tmp_path / "log", 10) == [2] * 10
    assert len({line["pid"] for line in seen(tmp_path / "log")}) == 4


def test_other_numbers_of_ranks_go_on_with_the_samples_not_yet_seen(launch, tmp_path):
    (tmp_path / "log").mkdir()
    log = {"FAKE_LOG": str(tmp_path / "log")}
    dead = -signal.SIGKILL
    launch("run", "--steps", 30, ranks=3, FAKE_FAIL="1:5:kill", **log).finish(1, dead, 1)
    launch("run", "--steps", 30, ranks=2, FAKE_FAIL="0:8:kill", **log).finish(dead, 1)
    launch("run", "--steps", 12, ranks=4, **log).finish()
    assert assert_each_sample_once(tmp_path / "log", 12) == [3] * 4 + [2] * 4 + [4] * 4
    assert [line["step"] for line in metrics(tmp_path / "run")] == list(range(1, 13))


@pytest.mark.timeout(900)
def test_machines_join_and_are_lost(torchrun, launch, tmp_path):
    """Two machines' parts of one run: 2 ranks, 3 when another joins, 2 when it is lost."""
    (tmp_path / "log").mkdir()
    log = tmp_path / "log"
    options = [
        "--nnodes", "1:2", "--max-restarts", 1, "--rdzv-backend", "c10d",
        "--rdzv-id", "it", "--rdzv-endpoint", f"localhost:{free_port()}",
        "--rdzv-conf", "last_call_timeout=1,keep_alive_interval=1,keep_alive_max_attempt=3",
        "--nproc-per-node",
    ]  # fmt: skip
    given = {"FAKE_SLOW": "0.1", "FAKE_LOG": str(log), "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    arguments = ("--out", "run")

    def steps_with(world):
        """Steps that so many ranks have begun since this number of them was last changed."""
        lines = seen(log)
        while lines and lines[-1]["world"] == world:
            lines.pop()
        return len({line["step"] for line in seen(log)[len(lines) :]})

    stays = torchrun("stays", [*options, 2], arguments, **given)
    stays.wait_for(lambda: steps_with(2) > 4)
    goes = torchrun("goes", [*options, 1], arguments, **given)
    goes.wait_for(lambda: steps_with(3) > 4)
    # Not all of its processes: those of `stays` are to notice themselves.
    (lost,) = {line["pid"] for line in seen(log) if line["world"] == 3 and line["rank"] == 2}
    goes.process.kill()
    os.kill(lost, signal.SIGKILL)
    stays.wait_for(lambda: steps_with(2) > 4)
    stays.process.send_signal(signal.SIGTERM)
    output = stays.finish(None)
    assert output.count("Stopped by SIGTERM after step") == 2  # to join, and at the end
    assert len(errors(output)) <= 1, output
    done = read(tmp_path / "run/latest.pth")["meta"]["step"]
    launch("run", "--steps", done + 3, ranks=4, FAKE_LOG=str(log)).finish()
    worlds = assert_each_sample_once(log, done + 3)
    changes = [b for a, b in zip([0, *worlds], worlds, strict=False) if a != b]
    assert changes == [2, 3, 2, 4]
    with suppress(ProcessLookupError):
        os.kill(lost, signal.SIGKILL)
