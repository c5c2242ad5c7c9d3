"""Records of a run: commit, versions, machine, data, and what changed between two starts."""

import errno
import hashlib
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from train_fakes import use_fakes

import train
from loaders.config import PairConfig
from loaders.sets import open_sets
from tracker.training import records
from tracker.training.checkpoint import read
from tracker.training.records import commit, environment, variables, write_records
from tracker.training.world import World


def git(folder, *words):
    own = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    for who in ("AUTHOR", "COMMITTER"):
        own |= {f"GIT_{who}_NAME": "a", f"GIT_{who}_EMAIL": "a@b"}
    done = subprocess.run(
        ["git", "-C", str(folder), *words],
        env={**os.environ, **own}, check=True, capture_output=True, text=True,
    )  # fmt: skip
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path):
    folder = tmp_path / "project/code"
    folder.mkdir(parents=True)
    (folder / "a.py").write_text("one\n")
    git(folder.parent, "init", "-q")
    git(folder.parent, "add", "-A")
    git(folder.parent, "commit", "-q", "-m", "first")
    return folder


def test_the_commit_is_that_of_the_code(checkout, monkeypatch):
    head = git(checkout, "rev-parse", "HEAD")
    assert commit(checkout) == (head, False)
    (checkout / "run.log").write_text("not of the code")
    assert commit(checkout) == (head, False)
    (checkout / "a.py").write_text("two\n")
    assert commit(checkout) == (head, True)
    monkeypatch.setenv("GIT_DIR", "/nowhere")  # as hooks of git set it
    assert commit(checkout) == (head, True)


def test_code_that_git_does_not_know_has_no_commit(checkout, tmp_path):
    installed = checkout.parent / "environment/lib"
    installed.mkdir(parents=True)
    (installed / "b.py").write_text("")
    assert commit(installed) == (None, None)
    assert commit(tmp_path) == (None, None)
    assert commit(tmp_path / "gone") == (None, None)
    git(tmp_path, "init", "-q", "empty")
    assert commit(tmp_path / "empty") == (None, None)


def test_without_git_there_is_no_commit(checkout, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert commit(checkout) == (None, None)


def test_a_git_that_hangs_is_left_alone(checkout, monkeypatch):
    monkeypatch.setattr(records, "GIT_TIMEOUT_S", 0.0)
    assert commit(checkout) == (None, None)


def test_variables_that_matter_without_secrets():
    given = {
        "OMP_NUM_THREADS": "2",
        "CUDA_VISIBLE_DEVICES": "0,1",
        "NCCL_DEBUG": "WARN",
        "NCCL_COMM_ID": "10.0.0.1:123",
        "TORCH_NCCL_BLOCKING_WAIT": "1",
        "SIAMSTREAM_SHARDS": "https://me:secret@host/shards?signature=abc",
        "SIAMSTREAM_RAW": "/data/raw",
        "SIAMSTREAM_TOKEN": "abc",
        "TORCH_ACCESS_KEY": "abc",
        "AWS_SECRET_ACCESS_KEY": "abc",
        "MASTER_ADDR": "node-1",
        "HOME": "/home/me",
    }
    assert variables(given) == {
        "CUDA_VISIBLE_DEVICES": "0,1",
        "NCCL_DEBUG": "WARN",
        "OMP_NUM_THREADS": "2",
        "SIAMSTREAM_RAW": "/data/raw",
        "SIAMSTREAM_SHARDS": "https://host/shards",
        "TORCH_NCCL_BLOCKING_WAIT": "1",
    }


def test_the_environment_is_plain_and_names_no_host():
    facts = environment(World())
    text = json.dumps(facts)
    assert json.loads(text) == facts
    assert len(socket.gethostname()) < 4 or socket.gethostname() not in text
    assert facts["device"] == "cpu"
    assert facts["gpus"] == []
    assert facts["cores"] >= facts["usable_cores"] >= 1
    assert facts["cpu"]
    assert facts["memory_bytes"] > 2**28
    assert facts["world_size"] == facts["local_world_size"] == 1
    for name in ("torch", "torchvision", "webdataset", "simplejpeg", "pyarrow", "numpy"):
        assert facts["versions"][name][0].isdigit()
    assert facts["versions"]["python"].startswith("3.")


RECORD = {
    "data": {"missing": []},
    "versions": {"torch": "2.11.0", "triton": None},
    "commit": "a" * 40,
    "uncommitted_changes": False,
    "device": "cpu",
    "world_size": 2,
}


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({}, None),
        ({"commit": "b" * 40}, "commit aaaaaaaaaa at the last start, now it is commit bbbbbbbbbb"),
        (
            {"uncommitted_changes": True},
            "commit aaaaaaaaaa at the last start, now it is commit aaaaaaaaaa with uncommitted "
            "changes",
        ),
        ({"commit": None}, "commit aaaaaaaaaa at the last start, now it is of no known commit"),
    ],
)
def test_other_code_than_at_the_last_start_is_told(tmp_path, changes, line):
    assert write_records(tmp_path, "", RECORD, 0) == []
    told = write_records(tmp_path, "", {**RECORD, **changes}, 5)
    assert told == ([] if line is None else [f"the code was {line}"])


def test_every_start_is_kept_with_what_it_was_made_with(tmp_path):
    later = {"commit": "b" * 40, "world_size": 3, "versions": {"torch": "2.12.0"}}
    write_records(tmp_path, "", RECORD, 0)
    write_records(tmp_path, "", RECORD, 5)
    write_records(tmp_path, "", {**RECORD, **later}, 9)
    record = json.loads((tmp_path / "run.json").read_text())
    assert [one["step"] for one in record["starts"]] == [0, 5, 9]
    assert [one["world_size"] for one in record["starts"]] == [2, 2, 3]
    assert [one["commit"][0] for one in record["starts"]] == ["a", "a", "b"]
    assert [one["versions"]["torch"] for one in record["starts"]] == ["2.11.0", "2.11.0", "2.12.0"]


def test_a_run_from_the_start_has_no_earlier_starts(tmp_path):
    write_records(tmp_path, "", RECORD, 0)
    assert write_records(tmp_path, "", {**RECORD, "world_size": 1}, 0) == []
    record = json.loads((tmp_path / "run.json").read_text())
    assert [one["world_size"] for one in record["starts"]] == [1]


@pytest.mark.parametrize(
    "text", ["{", '{"starts": 3}', '{"starts": [3]}', "[]", '{"starts": [{}]}']
)
def test_a_damaged_list_of_starts_ends_nothing(tmp_path, text):
    (tmp_path / "run.json").write_text(text)
    assert write_records(tmp_path, "", RECORD, 5) == []
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["starts"][-1]["step"] == 5


def test_a_run_says_what_changed_since_its_last_start(tmp_path, monkeypatch):
    use_fakes(monkeypatch.setattr)
    monkeypatch.chdir(tmp_path)
    Path("tiny.yaml").write_text(
        "data: {pairs_per_epoch: 80}\ntrain: {batch_size: 4, threads: 1}\n"
    )
    state, threads = torch.get_rng_state(), torch.get_num_threads()

    def start(steps, head):
        monkeypatch.setattr(records, "commit", lambda folder: (head * 40, False))
        result = CliRunner().invoke(train.main, ["--config", "tiny.yaml", "--steps", str(steps)])
        assert result.exit_code == 0, result.output
        return result.stdout

    try:
        outputs = [start(2, "a"), start(3, "a"), start(4, "b")]
    finally:
        torch.set_rng_state(state)
        torch.set_num_threads(threads)
    line = "Warning: the code was commit aaaaaaaaaa at the last start, now it is commit bbbbbbbbbb"
    assert [line in text for text in outputs] == [False, False, True]
    assert not any("the code was" in text for text in outputs[:2])


def test_data_sets_have_the_fingerprint_of_their_manifest(packed):
    sets = open_sets(PairConfig(path=str(packed)))
    try:
        described = sets.describe()["datasets"]
    finally:
        sets.close()
    for name in ("lasot", "coco"):
        data = (packed / name / "manifest.json").read_bytes()
        assert described[name]["manifest_sha256"] == hashlib.sha256(data).hexdigest()


def test_no_password_is_recorded(tmp_path, monkeypatch):
    use_fakes(monkeypatch.setattr)
    monkeypatch.chdir(tmp_path)
    Path("tiny.yaml").write_text("train: {batch_size: 4, threads: 1}\n")
    arguments = [
        "--config",
        "tiny.yaml",
        "--steps",
        "1",
        "--data",
        "https://me:hunter2@host/packed",
    ]
    monkeypatch.setattr(sys, "orig_argv", [*arguments, "pipe:curl -H 'Key: hunter2' {}"])
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    try:
        result = CliRunner().invoke(train.main, arguments)
        again = CliRunner().invoke(train.main, [*arguments, "--steps", "2"])
    finally:
        torch.set_rng_state(state)
        torch.set_num_threads(threads)
    assert result.exit_code == again.exit_code == 0, result.output + again.output
    run = Path("runs/tiny")
    assert [
        path for path in run.rglob("*") if path.is_file() and b"hunter2" in path.read_bytes()
    ] == []
    assert "path: https://host/packed" in (run / "config.yaml").read_text()
    assert "path: https://host/packed" in read(run / "latest.pth")["meta"]["config"]
    command = json.loads((run / "run.json").read_text())["command"]
    assert command.endswith("--data https://host/packed 'pipe:(hidden)'")


def test_a_disk_that_takes_no_records_ends_a_first_start_only(tmp_path, monkeypatch):
    write_records(tmp_path, "a: 1\n", RECORD, 0)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(path, text):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(records, "replace_text", full)
    why = "could not be written and is of an earlier start: No space left on device"
    assert write_records(tmp_path, "a: 2\n", RECORD, 5) == [
        f"{tmp_path}/{name} {why}" for name in ("config.yaml", "run.json")
    ]
    with pytest.raises(OSError, match="No space left"):
        write_records(tmp_path, "a: 2\n", RECORD, 0)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
