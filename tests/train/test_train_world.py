"""Parts of a run's processes that can be seen in one: meeting, devices, machines, signals."""

import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
import torch
from torch.distributed import TCPStore

from configs.strict import ConfigError
from tracker.training import meeting as meeting_module
from tracker.training import world as world_module
from tracker.training.meeting import Meeting, MeetingError
from tracker.training.world import Interrupt, World


@pytest.fixture
def agent():
    """Store that outlives the starts of a run, as torchrun's does."""
    return TCPStore("127.0.0.1", 0, is_master=True, timeout=timedelta(seconds=20))


def meet(agent, ranks, size, wait_s=20):
    """Let these ranks meet in threads; returns their meetings, or the errors in their place."""
    place = {
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(agent.port),
        "TORCHELASTIC_USE_AGENT_STORE": "True", "SIAMSTREAM_JOIN_S": str(wait_s),
    }  # fmt: skip

    def one(rank):
        meeting = Meeting(rank, size, place)
        try:
            meeting.enter()
            meeting.complete()
        except MeetingError as error:
            return str(error)
        return meeting

    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(one, ranks))


def test_every_start_has_a_store_of_its_own(agent):
    first = meet(agent, range(3), 3)
    first[1].store.set("failed", "1")
    assert first[2].store.get("failed") == b"1"
    second = meet(agent, [2, 1, 0], 3)
    assert not any(one.store.check(["failed"]) for one in second)
    second[0].store.set("mine", "2")
    assert second[1].store.get("mine") == b"2"
    smaller = meet(agent, range(2), 2)
    assert not any(one.store.check(["mine"]) or one.store.check(["failed"]) for one in smaller)
    assert not any(one.serves for one in smaller)


def test_ranks_of_an_earlier_start_are_not_taken_for_those_of_this_one(agent, monkeypatch):
    monkeypatch.setattr(meeting_module, "GRACE_S", 0.2)
    meet(agent, range(3), 3)
    first, third = meet(agent, [0, 2], 3, wait_s=1)
    assert first.startswith("2 of 3 processes have come, not rank 1 to 127.0.0.1:")
    assert "SIAMSTREAM_JOIN_S" in first
    assert third.startswith("not all processes have come")


@pytest.mark.parametrize(
    ("name", "value"), [("MASTER_PORT", ""), ("MASTER_PORT", "70000"), ("SIAMSTREAM_JOIN_S", "5m")]
)
def test_a_wrong_place_is_a_known_error(name, value):
    place = {"MASTER_ADDR": "here", "MASTER_PORT": "29500", name: value}
    with pytest.raises(ConfigError, match=f"{name} is '{value}'"):
        Meeting(0, 2, place)


@pytest.fixture
def cuda(monkeypatch):
    """Let torch see so many devices."""

    def see(count):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch.cuda, "set_device", chosen.append)

    chosen = []
    see.chosen = chosen
    return see


@pytest.fixture
def launched(monkeypatch):
    """Set what a launcher sets; ``launched(RANK="3")`` overrides, None takes away."""

    def launched(**names):
        given = {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
        for name, value in {**given, **names}.items():
            monkeypatch.delenv(name, raising=False)
            if value is not None:
                monkeypatch.setenv(name, value)

    return launched


def test_the_device_is_that_of_the_local_rank(launched, cuda):
    launched(LOCAL_RANK="1", RANK="1", WORLD_SIZE="2")
    cuda(2)
    for wanted in ("auto", "cuda"):
        world = World()
        world.use_device(wanted)
        assert world.device == torch.device("cuda", 1)
    assert cuda.chosen == [torch.device("cuda", 1)] * 2
    world = World()
    world.use_device("cpu")
    assert world.device == torch.device("cpu")
    cuda(1)
    with pytest.raises(ConfigError, match=r"but 1 CUDA devices; .*--nproc-per-node 1"):
        World().use_device("auto")


def test_cuda_that_is_not_there_says_what_torch_sees(monkeypatch, cuda):
    cuda(0)
    world = World()
    world.use_device("auto")
    assert world.device == torch.device("cpu")
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    with pytest.raises(ConfigError, match=r"train\.device is 'cuda', but .*CUDA 13.*nvidia-smi"):
        world.use_device("cuda")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    with pytest.raises(ConfigError, match="no device with CUDA_VISIBLE_DEVICES='7'"):
        world.use_device("cuda")
    monkeypatch.setattr(torch.version, "cuda", None)
    with pytest.raises(ConfigError, match="is built without CUDA"):
        world.use_device("cuda")


@pytest.mark.parametrize("absent", ["RANK", "MASTER_ADDR", "MASTER_PORT"])
def test_a_launcher_that_is_half_set_is_refused(launched, absent):
    launched(**{"WORLD_SIZE": "4", absent: None})
    with pytest.raises(ConfigError, match=f"WORLD_SIZE is 4, but {absent} of this process is not"):
        World().__enter__()


def test_one_process_needs_no_launcher(launched):
    launched(WORLD_SIZE="1", RANK="0", MASTER_ADDR=None)
    with World() as world:
        assert (world.rank, world.size, world.grouped) == (0, 1, False)


def test_ranks_on_different_kinds_of_devices_are_refused(monkeypatch):
    world = World()
    monkeypatch.setattr(world, "gather", lambda kind: ["cuda", "cuda", kind, "cuda"])
    with pytest.raises(ConfigError, match="rank 2 of 4 sees no CUDA device, the others do"):
        world.same_device()
    monkeypatch.setattr(world, "gather", lambda kind: [kind] * 4)
    world.same_device()


def test_processes_of_a_machine_are_counted_where_nobody_says_how_many(launched, monkeypatch):
    launched(RANK="3", WORLD_SIZE="5", LOCAL_RANK=None, LOCAL_WORLD_SIZE=None)
    world = World()
    monkeypatch.setattr(world, "gather", lambda host: ["a", "b", "a", host, "b"])
    world._count_neighbours("b")
    assert (world.local_size, world.local_rank) == (3, 1)
    monkeypatch.setenv("LOCAL_RANK", "0")
    world.local_rank = 0
    world._count_neighbours("a")
    assert (world.local_size, world.local_rank) == (3, 0)


def test_on_several_machines_a_rank_waits_for_its_own_signal(monkeypatch):
    monkeypatch.setenv("GROUP_WORLD_SIZE", "2")
    with Interrupt() as interrupt:
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM)).start()
        interrupt.linger()
        assert interrupt.signal == signal.SIGTERM
    monkeypatch.setattr(world_module, "OWN_SIGNAL_S", 0.1)
    with Interrupt() as interrupt:
        interrupt.linger()  # it never comes: another rank's machine is stopped alone
        assert interrupt.signal == 0
