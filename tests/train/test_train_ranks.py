"""Several processes under torchrun: they agree, end together, and go on exactly."""

import signal
import socket

import pytest
import torch
from train_process import metrics, same
from train_ranks import errors

from tracker.training.checkpoint import read

pytestmark = pytest.mark.slow

TWO = ("--standalone", "--nproc-per-node", "2")


def test_killed_and_resumed_under_torchrun_equals_the_run_that_was_not(torchrun, launch, tmp_path):
    launch("whole", "--steps", 10).finish()
    output = torchrun("a", TWO, ("--out", "parts", "--steps", 10), FAKE_FAIL="1:7:kill").finish(1)
    assert len(errors(output)) <= 1, output  # none if torchrun was quicker than the rank's guard
    assert read(tmp_path / "parts/latest.pth")["meta"]["step"] == 6
    output = launch("parts", "--steps", 10).finish()
    assert "going on after step 6" in output
    for word in ("warn", "Traceback", "Error"):
        assert word not in output
    assert metrics(tmp_path / "parts") == metrics(tmp_path / "whole")
    assert same(read(tmp_path / "whole/latest.pth"), read(tmp_path / "parts/latest.pth"))


def test_sigterm_to_torchrun_stops_all_ranks_after_the_same_step(torchrun, launch, tmp_path):
    run = torchrun("a", TWO, ("--out", "parts"), FAKE_SLOW="0.1")
    path = tmp_path / "parts/metrics.jsonl"
    run.wait_for(lambda: path.is_file() and path.read_text().count("\n") > 1)
    run.process.send_signal(signal.SIGTERM)
    output = run.finish(None)
    assert "Stopped by SIGTERM after step" in output
    assert not errors(output)
    done = read(tmp_path / "parts/latest.pth")["meta"]["step"]
    assert done >= 2
    launch("parts", "--steps", done + 3).finish()
    launch("whole", "--steps", done + 3).finish()
    assert metrics(tmp_path / "parts") == metrics(tmp_path / "whole")
    assert same(read(tmp_path / "whole/latest.pth"), read(tmp_path / "parts/latest.pth"))


@pytest.mark.parametrize("ranks", [2, 3])
def test_resumed_ranks_repeat_every_bit(launch, tmp_path, ranks):
    output = launch("whole", "--steps", 7, ranks=ranks).finish()
    assert output.count("Done: 7 steps") == 1
    assert "warn" not in output.lower().replace("warning: no coco", "")
    launch("parts", "--steps", 4, ranks=ranks).finish()
    launch("parts", "--steps", 7, ranks=ranks).finish()
    whole = read(tmp_path / "whole/latest.pth")
    assert same(whole, read(tmp_path / "parts/latest.pth"))
    assert metrics(tmp_path / "parts") == metrics(tmp_path / "whole")
    states = [one["random"]["cpu"] for one in whole["ranks"]]
    assert len(states) == ranks
    assert not torch.equal(states[0], states[1])


def test_another_number_of_ranks_goes_on(launch, tmp_path):
    launch("run", "--steps", 4, ranks=3).finish()
    assert "going on after step 4" in launch("run", "--steps", 6, ranks=2).finish()
    assert [line["step"] for line in metrics(tmp_path / "run")] == [1, 2, 3, 4, 5, 6]


def test_one_rank_that_wants_to_stop_stops_all(launch, tmp_path):
    output = launch("run", "--steps", 30, FAKE_FAIL="1:2:SIGINT").finish(130, 130)
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
def test_one_line_is_read_whoever_fails(launch, fail, line):
    output = launch("run", "--steps", 9, FAKE_FAIL=fail).finish(1, 1)
    assert len(errors(output)) == 1, output
    assert errors(output)[0].startswith(line)
    assert "Traceback" not in output


GONE = "rank {} is gone: it was killed (out of memory?), or its machine is down"


@pytest.mark.parametrize(
    ("fail", "line"),
    [
        ("1:2:SIGKILL", "Error: " + GONE.format(1)),
        ("0:2:SIGKILL", "Error: rank 2: " + GONE.format(0)),  # with the store of the run
        ("1:build:SIGKILL", "Error: " + GONE.format(1)),
        ("1:build:bug", "Error: rank 1: Traceback (most recent call last):"),
        ("0:build:bug", "Error: Traceback (most recent call last):"),
        ("2:2:SIGSTOP", "Error: rank 1: rank 2 has given no sign for 8 s: its machine is lost"),
        ("0:2:SIGSTOP", "Error: rank 2: the store of the run has not answered for 8 s"),
    ],
)
def test_one_rank_that_is_gone_ends_all(launch, fail, line):
    who, _, kind = fail.split(":")
    code = -signal.SIGKILL if kind.startswith("SIG") else 1
    lost_s = "8" if kind == "SIGSTOP" else "60"
    run = launch("run", "--steps", 9, ranks=3, FAKE_FAIL=fail, FAKE_LOST_S=lost_s)
    output = run.finish(*(code if rank == int(who) else 1 for rank in range(3)))
    assert len(errors(output)) == 1, output
    assert errors(output)[0].startswith(line)
    assert ("Traceback" in output) == (kind == "bug")


def test_an_error_is_told_before_what_is_open_is_closed(launch):
    output = launch("run", "--steps", 9, FAKE_FAIL="1:2:data", FAKE_CLOSE_S="50").finish(1, 1)
    assert errors(output) == ["Error: rank 1: the shard is gone"]


def test_a_bug_keeps_its_traceback(launch):
    output = launch("run", "--steps", 9, FAKE_FAIL="1:2:bug").finish(1, 1)
    assert output.count("ZeroDivisionError: a bug") == 1
    assert errors(output) == ["Error: rank 1: Traceback (most recent call last):"]


def test_errors_that_all_ranks_have_are_printed_once(launch):
    output = launch("run", "--set", "train.epoch=1").finish(1, 1)
    assert errors(output) == ["Error: --set train.epoch: unknown key; did you mean 'epochs'?"]


def test_a_world_larger_than_the_batch_is_refused(launch, packed, tmp_path):
    (tmp_path / "tiny.yaml").write_text("train: {batch_size: 1}\n")
    output = launch("run", "--data", packed, FAKE_PARTS="").finish(1, 1)
    (line,) = errors(output)
    assert line.startswith("Error: batch_size 1 is smaller than the world of 2 processes")


def test_processes_that_never_come_are_named(launch):
    run = launch("run", ranks=4, FAKE_ABSENT="1 3", SIAMSTREAM_JOIN_S="6")
    output = run.finish(1, 0, 1, 0)
    (line,) = errors(output)
    assert line.startswith("Error: 2 of 4 processes have come, not rank 1, 3 to 127.0.0.1:")


def test_a_port_in_use_is_named(launch):
    with socket.socket() as other:
        other.bind(("0.0.0.0", 0))
        other.listen()
        port = other.getsockname()[1]
        output = launch("run", ranks=1, MASTER_PORT=str(port)).finish(1)
    (line,) = errors(output)
    assert line.startswith(f"Error: port {port} of 127.0.0.1 is in use by another program; try")
    assert "--master-port" in line
    assert "Traceback" not in output


def test_a_host_that_nobody_knows_is_named(launch):
    output = launch("run", ranks=1, MASTER_ADDR="no-such-host.invalid").finish(1)
    (line,) = errors(output)
    assert line.startswith("Error: the host 'no-such-host.invalid' of MASTER_ADDR is not known")


def test_a_store_that_does_not_answer_is_named(launch):
    output = launch("run", ranks=2, FAKE_ABSENT="0", SIAMSTREAM_JOIN_S="6").finish(0, 1)
    (line,) = errors(output)
    assert line.startswith("Error: rank 1: no connection to 127.0.0.1:")


@pytest.mark.skipif(torch.cuda.is_available(), reason="for machines without CUDA")
def test_cuda_where_there_is_none_is_an_error_of_all_ranks(launch):
    output = launch("run", "--set", "train.device=cuda").finish(1, 1)
    (line,) = errors(output)
    assert line.startswith("Error: train.device is 'cuda', but torch")
