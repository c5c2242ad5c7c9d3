"""Evaluations beside a training: queue, processes, results, what a stop or a kill leaves."""

import dataclasses
import json
import os
import signal
import sys
import time
import warnings
from pathlib import Path

import evaluation_trees as trees
import pytest
import torch
from click.testing import CliRunner

import train
from shards.errors import ConfigError
from tracker import cli as tracker_cli
from tracker.training import evaluations
from tracker.training.config import EvaluateConfig
from tracker.training.evaluation_results import FIGURES, Result, ResultBoard
from tracker.training.evaluations import Evaluations, check, wait
from tracker.training.world import World

OTB = EvaluateConfig(every=1, dataset="otb", root="otb", split="all")
PER_EPOCH = 10
# Stands for `tracker eval`: the checkpoint says what becomes of it.
FAKE = """
import json, os, sys, time
from pathlib import Path
checkpoint, out = map(Path, sys.argv[1:])
text = checkpoint.read_text()
print("following", file=sys.stderr)
(out / f"{checkpoint.stem}.pid").write_text(str(os.getpid()))
if text == "fail":
    print("Error: no such thing", file=sys.stderr)
    sys.exit(1)
if text == "garbage":
    print("no figures")
    sys.exit()
while text == "wait" and not (out / "go").exists():
    time.sleep(0.02)
value = 0.5 if text == "wait" else float(text)
total = dict.fromkeys("FIGURES".split(), value)
facts = {"nice": os.nice(0), "threads": os.environ["OMP_NUM_THREADS"]}
(out / "facts.json").write_text(json.dumps(facts))
print(json.dumps({"trackers": [
    {"tracker": "keep-first-box", "total": {}},
    {"tracker": checkpoint.stem, "total": total},
]}))
""".replace("FIGURES", " ".join(FIGURES))


@pytest.fixture
def fake(monkeypatch):
    def command(config, split, out, checkpoint):
        return [sys.executable, "-S", "-c", FAKE, str(checkpoint), str(out)]

    monkeypatch.setattr(evaluations, "command_of", command)


def of(run, start=0, config=OTB, **changes):
    given = {"epochs": 9, "steps_per_epoch": PER_EPOCH, "start": start, **changes}
    return Evaluations(run, config, **given)


def checkpoint(run, epoch, text):
    path = run / f"epoch_{epoch}.pth"
    path.write_text(text)
    return path


def submit(queue, epoch, text):
    checkpoint(queue._run, epoch, text)
    queue.submit(epoch)


class Keeper:
    """Keeps the newest checkpoint, and those that are held."""

    def __init__(self, run):
        self.run, self.held = run, set()

    def hold(self, step):
        self.held.add(step)

    def release(self, step):
        self.held.discard(step)
        return self.drop_old()

    def drop_old(self):
        paths = sorted(self.run.glob("epoch_*.pth"))
        for path in paths[:-1]:
            if int(path.stem[6:]) * PER_EPOCH not in self.held:
                path.unlink()
        return ["a warning"]


def kept(run):
    return sorted(path.name for path in run.glob("*.pth"))


def results_of(queue, count=1):
    """New results, once there are as many."""
    found = []
    while len(found) < count:
        time.sleep(0.02)
        found += queue.poll()
    return found


def finish(queue):
    """All results that come."""
    found = []
    while queue.left:
        time.sleep(0.02)
        found += queue.poll()
    return found


def lines(run):
    return [json.loads(line) for line in (run / "evaluations.jsonl").read_text().splitlines()]


def test_a_checkpoint_becomes_a_line_of_figures(fake, tmp_path):
    with of(tmp_path) as queue:
        submit(queue, 3, "0.25")
        assert queue.left == 1
        (result,) = results_of(queue)
        assert queue.left == 0
        assert (result.epoch, result.step, result.name, result.value) == (3, 30, "auc", 0.25)
        assert result.figures == dict.fromkeys(FIGURES, 0.25)
        assert not (tmp_path / "evaluations.jsonl").exists()  # until it has been dealt with
        assert queue.poll() == []
        assert queue.results == [result]
    assert lines(tmp_path) == [dataclasses.asdict(result)]
    assert "following" in (tmp_path / "eval/epoch_3.log").read_text()
    facts = json.loads((tmp_path / "eval/facts.json").read_text())
    assert facts == {"nice": min(19, os.nice(0) + evaluations.NICE), "threads": "1"}


def test_got10k_is_compared_by_ao(fake, tmp_path):
    with of(tmp_path, config=EvaluateConfig(every=1, dataset="got10k", root="x")) as queue:
        submit(queue, 1, "0.25")
        (result,) = results_of(queue)
    assert (result.name, result.split) == ("ao", "val")


def test_which_epochs_are_evaluated(tmp_path):
    queue = of(tmp_path, config=dataclasses.replace(OTB, every=4))
    assert [epoch for epoch in range(1, 10) if queue.wanted(epoch)] == [4, 8, 9]


@pytest.mark.parametrize("change", [{"active": False}, {"config": EvaluateConfig()}])
def test_not_asked_for_nothing_is_done(tmp_path, change):
    with of(tmp_path, **change) as queue:
        submit(queue, 9, "0.25")
        assert queue.poll() == []
        assert queue.left == 0
    assert [path.name for path in tmp_path.iterdir()] == ["epoch_9.pth"]


def test_one_at_a_time_and_checkpoints_stay_until_their_turn(fake, tmp_path, capsys):
    keeper = Keeper(tmp_path)
    with of(tmp_path, keeper=keeper) as queue:
        for epoch, text in ((1, "wait"), (2, "fail"), (3, "0.3"), (4, "0.4")):
            submit(queue, epoch, text)
            keeper.drop_old()
            queue.poll()
        assert queue.left == 4
        assert not (tmp_path / "eval/epoch_2.json").exists()
        assert kept(tmp_path) == [f"epoch_{n}.pth" for n in (1, 2, 3, 4)]
        (tmp_path / "eval/go").touch()
        assert [one.value for one in results_of(queue)] == [0.5]
        assert "epoch_1.pth" in kept(tmp_path)  # until it has been dealt with
        assert [one.value for one in finish(queue)] == [0.3, 0.4]
    assert kept(tmp_path) == ["epoch_4.pth"]
    assert keeper.held == set()
    assert [one["epoch"] for one in lines(tmp_path)] == [1, 3, 4]
    error = capsys.readouterr().err
    assert "Warning: 2 checkpoints wait for their evaluation" in error
    assert "Warning: a warning" in error


@pytest.mark.parametrize(
    ("text", "why"), [("fail", "exit code 1"), ("garbage", "its figures cannot be read")]
)
def test_a_failure_is_loud_ends_nothing_and_is_tried_again(fake, tmp_path, capsys, text, why):
    with of(tmp_path) as queue:
        submit(queue, 1, text)
        submit(queue, 2, "0.2")
        assert [one.epoch for one in finish(queue)] == [2]
    error = capsys.readouterr().err
    assert "Warning: epoch 1 is not evaluated; the training goes on" in error
    assert why in error
    assert "following" in error.splitlines()[-1 - (text == "fail")]
    assert ("Error: no such thing" in error) == (text == "fail")
    checkpoint(tmp_path, 1, "0.1")
    with of(tmp_path, start=20) as queue:
        assert [one.value for one in finish(queue)] == [0.1]
    assert [one["epoch"] for one in lines(tmp_path)] == [2, 1]


def test_results_that_cannot_be_written_are_found_at_the_next_start(fake, tmp_path, capsys):
    (tmp_path / "evaluations.jsonl").mkdir()
    with of(tmp_path) as queue:
        submit(queue, 1, "0.1")
        assert [one.value for one in finish(queue)] == [0.1]
    assert "evaluations.jsonl could not be written" in capsys.readouterr().err
    (tmp_path / "evaluations.jsonl").rmdir()
    with of(tmp_path, start=10) as queue:
        assert [one.value for one in finish(queue)] == [0.1]


def test_a_program_that_is_not_there_is_a_warning(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    with of(tmp_path) as queue:
        submit(queue, 1, "0.1")
        assert queue.left == 0
    assert "could not be started" in capsys.readouterr().err


def test_what_a_stop_leaves_is_done_at_the_next_start(fake, tmp_path, capsys):
    with of(tmp_path) as queue:
        submit(queue, 1, "wait")
        submit(queue, 2, "0.2")
        process = queue._process
    assert process.returncode == -signal.SIGTERM
    (tmp_path / "eval/go").touch()
    keeper = Keeper(tmp_path)
    with of(tmp_path, start=25, keeper=keeper) as queue:
        keeper.drop_old()
        assert [one.epoch for one in finish(queue)] == [1, 2]
    assert kept(tmp_path) == ["epoch_2.pth"]
    assert "Not yet evaluated, done now beside the training: epochs 1, 2" in capsys.readouterr().out


def test_one_that_was_not_dealt_with_comes_again(fake, tmp_path):
    def fails_to_deal_with_it():
        with of(tmp_path) as queue:
            submit(queue, 1, "0.1")
            results_of(queue)
            raise KeyError("a bug")

    with pytest.raises(KeyError):
        fails_to_deal_with_it()
    with of(tmp_path, start=10) as queue:
        assert [one.value for one in finish(queue)] == [0.1]


def test_kept_checkpoints_without_a_result_are_evaluated(fake, tmp_path):
    for epoch in (1, 2, 3, 4, 5):
        checkpoint(tmp_path, epoch, f"0.{epoch}")
    with of(tmp_path, start=20, config=dataclasses.replace(OTB, every=2)) as queue:
        assert [one.epoch for one in finish(queue)] == [2]
    with of(tmp_path, start=50, config=OTB) as queue:
        assert [one.epoch for one in finish(queue)] == [1, 3, 4, 5]
    other = dataclasses.replace(OTB, split="otb50")
    with of(tmp_path, start=50, config=other) as queue:
        assert queue.results == []
        assert len(finish(queue)) == 5


def test_results_of_steps_that_are_done_again_are_dropped(fake, tmp_path):
    with of(tmp_path) as queue:
        for epoch in (1, 2):
            submit(queue, epoch, f"0.{epoch}")
        finish(queue)
    with (tmp_path / "evaluations.jsonl").open("a") as file:
        file.write('{"step": 10, "epo')
    with of(tmp_path, start=15) as queue:
        assert queue.left == 0
        assert [one.epoch for one in queue.results] == [1]
        submit(queue, 2, "0.9")
        finish(queue)
    assert [one["figures"]["auc"] for one in lines(tmp_path)] == [0.1, 0.9]


def test_the_command_begins_anew_where_results_are_of_something_else():
    """As after another checkpoint of that name, or an update of tracking defaults."""
    command = evaluations.command_of(OTB, "all", Path("run/eval"), Path("run/epoch_1.pth"))
    given = tracker_cli.main.commands["eval"].make_context("eval", command[4:]).params
    assert given["replace"]
    assert (given["name"], given["root"], given["out"]) == (
        "epoch_1",
        Path("otb"),
        Path("run/eval"),
    )


def test_packages_of_the_folder_it_runs_in_are_not_taken(tmp_path, monkeypatch):
    code = "import sys, tracker; print(tracker.__file__, file=sys.stderr); sys.exit(3)"
    script = tmp_path / "shown.py"
    script.write_text(code)
    monkeypatch.setattr(evaluations, "command_of", lambda *_: [sys.executable, "-S", "-m", "shown"])
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "here/tracker").mkdir(parents=True)
    (tmp_path / "here/tracker/__init__.py").touch()
    monkeypatch.chdir(tmp_path / "here")
    with of(tmp_path) as queue:
        submit(queue, 1, "0.1")
        finish(queue)
    taken = (tmp_path / "eval/epoch_1.log").read_text().strip()
    assert taken == str(Path(train.__file__).parent / "tracker/__init__.py")


def test_the_data_set_lies_where_raw_data_do(monkeypatch):
    monkeypatch.delenv("SIAMSTREAM_RAW", raising=False)
    config = EvaluateConfig(every=1, dataset="got10k")
    assert evaluations.root_of(config) == Path("data/raw/got10k")
    monkeypatch.setenv("SIAMSTREAM_RAW", "/raw")
    assert evaluations.root_of(config) == Path("/raw/got10k")
    assert evaluations.root_of(dataclasses.replace(config, root="here")) == Path("here")


def test_one_that_takes_too_long_is_ended_and_makes_way(fake, tmp_path, capsys):
    keeper = Keeper(tmp_path)
    with of(tmp_path, keeper=keeper) as queue:
        submit(queue, 1, "wait")
        submit(queue, 2, "0.2")
        process = queue._process
        told = tmp_path / "eval/epoch_1.pid"
        while not (told.is_file() and told.read_text()):
            assert queue.poll() == []
            time.sleep(0.02)
        queue._began -= 60 * OTB.timeout_minutes
        assert [one.epoch for one in finish(queue)] == [2]
        assert process.returncode == -signal.SIGKILL
    assert kept(tmp_path) == ["epoch_2.pth"]
    error = capsys.readouterr().err
    assert "Warning: epoch 1 is not evaluated; the training goes on" in error
    assert "it took longer than train.evaluate.timeout_minutes 240. " in error
    assert "following" in error


def test_a_process_that_will_not_end_is_killed(tmp_path, monkeypatch):
    deaf = (
        "import signal, sys, time; from pathlib import Path\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN); Path(sys.argv[1]).touch(); time.sleep(600)"
    )
    ready = tmp_path / "ready"
    command = [sys.executable, "-S", "-c", deaf, str(ready)]
    monkeypatch.setattr(evaluations, "command_of", lambda *_: command)
    monkeypatch.setattr(evaluations, "END_S", 0.1)
    with of(tmp_path) as queue:
        submit(queue, 1, "0.1")
        process = queue._process
        while not ready.exists():
            time.sleep(0.02)
    assert process.returncode == -signal.SIGKILL


def fork(work):
    """Process that does the work, a copy of this one."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # this process has threads; the copy does not need them
        process = os.fork()
    if not process:
        try:
            work()
        finally:
            os._exit(1)
    return process


def test_it_dies_with_a_training_that_is_killed(fake, tmp_path):
    def train_until_killed():
        with of(tmp_path) as queue:
            submit(queue, 1, "wait")
            time.sleep(600)

    training = fork(train_until_killed)
    told = tmp_path / "eval/epoch_1.pid"
    while not (told.is_file() and told.read_text()):
        assert os.waitpid(training, os.WNOHANG) == (0, 0)
        time.sleep(0.02)
    process = Path("/proc", told.read_text())
    assert process.exists()
    os.kill(training, signal.SIGKILL)
    os.waitpid(training, 0)
    while is_alive(process):  # the time limit of the test is the judge
        time.sleep(0.02)


def is_alive(process):
    try:
        return "\nState:\tZ" not in (process / "status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


class Told:
    """An interrupt that comes when it is asked for the n-th time."""

    def __init__(self, at):
        self.at, self.asked = at, 0

    @property
    def signal(self):
        self.asked += 1
        return signal.SIGTERM if self.asked >= self.at else 0


def test_the_end_of_training_waits_for_what_is_left(fake, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(evaluations, "WAIT_S", 0.02)
    taken = []
    with of(tmp_path) as queue:
        for epoch in (1, 2):
            submit(queue, epoch, f"0.{epoch}")
        assert wait(queue, World(), Told(10**9), taken.append) == 0
    assert [one.epoch for one in taken] == [1, 2]
    assert [one["epoch"] for one in lines(tmp_path)] == [1, 2]
    assert capsys.readouterr().out.count("waiting for 2 evaluations") == 1


def test_a_signal_ends_the_waiting(fake, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluations, "WAIT_S", 0.02)
    with of(tmp_path) as queue:
        submit(queue, 1, "wait")
        assert wait(queue, World(), Told(3), print) == signal.SIGTERM
        assert queue.left == 1


def test_what_cannot_work_is_refused_at_the_start(tmp_path, monkeypatch):
    def refused(**changes):
        with pytest.raises(ConfigError) as error:
            check(EvaluateConfig(every=1, root=str(tmp_path / "data"), **changes))
        assert str(error.value).startswith("train.evaluate: ")
        return str(error.value)

    assert f"{tmp_path}/data: no such folder" in refused()
    trees.otb(tmp_path / "data", "Boy", 3)
    check(EvaluateConfig(every=1, root=str(tmp_path / "data"), split="all"))
    check(EvaluateConfig(every=0, root="/nowhere"))
    assert "--split odd: otb has" in refused(split="odd")
    trees.got10k(tmp_path / "data", "test", 1, 3)
    message = refused(dataset="got10k", split="test")
    assert "the ground truth of got10k test is not public" in message
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "no CUDA device here" in refused(split="all", device="cuda")
    (tmp_path / "data/Boy/groundtruth_rect.txt").write_text("1,2,x\n")
    assert "malformed" in refused(split="all")


def test_it_is_refused_before_anything_is_made(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SIAMSTREAM_RAW", raising=False)
    arguments = ["--config", "spm_alexnet.yaml", "--set", "train.evaluate.every=1"]
    result = CliRunner().invoke(train.main, arguments)
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: train.evaluate: data/raw/otb: no such folder")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_training_evaluates_its_epochs(packed, tmp_path, monkeypatch):
    """The real command, on a real model; stopped while it waits, it is done at the next start."""
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate(("Boy", "Man"), 1):
        trees.otb(tmp_path / "otb", name, 3, seed=number)
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    small = ["model.width=0.05", "model.init=random", "train.batch_size=2", "train.threads=1"]
    small += ["data.pairs_per_epoch=4", "data.backend=cpu", "train.epochs=1"]
    small += ["train.evaluate.every=7", "train.evaluate.root=otb", "train.evaluate.split=all"]
    arguments = ["--config", "siamrpn_alexnet.yaml", "--data", str(packed / "lasot")]
    arguments += ["--out", "run", *(part for key in small for part in ("--set", key))]
    submit = Evaluations.submit

    def stop_when_begun(queue, epoch):
        submit(queue, epoch)
        os.kill(os.getpid(), signal.SIGTERM)

    try:
        monkeypatch.setattr(Evaluations, "submit", stop_when_begun)
        first = CliRunner().invoke(train.main, arguments)
        second = CliRunner().invoke(train.main, arguments)
    finally:
        torch.set_rng_state(state)
        torch.set_num_threads(threads)
    assert first.exit_code == 143, first.output
    assert "waiting for 1 evaluation (" in first.stdout
    assert second.exit_code == 0, second.output
    assert "finished, 2 steps are done" in second.stdout
    assert "Evaluation of epoch 1 (step 2): otb all, AUC 0." in second.stdout
    report = json.loads((tmp_path / "run/eval/reports/otb-all/evaluation.json").read_text())
    names = {one["tracker"]: one["total"] for one in report["trackers"]}
    assert {*names} == {"epoch_1", "keep-first-box"}
    (line,) = lines(tmp_path / "run")
    assert line["figures"] == {name: names["epoch_1"][name] for name in FIGURES}
    assert shown(tmp_path / "run/tensorboard/eval") == [2]
    assert (tmp_path / "run/best.pth").resolve().name == "epoch_1.pth"
    best = json.loads((tmp_path / "run/best.json").read_text())
    assert (best["by"], best["value"]) == ("otb all auc", line["figures"]["auc"])


def shown(folder):
    from tensorboard.backend.event_processing.event_multiplexer import EventMultiplexer

    steps = []
    for path in folder.iterdir():
        events = EventMultiplexer({"one": str(path)})
        events.Reload()
        steps += [one.step for one in events.Scalars("one", "eval/auc")]
    return sorted(steps)


def result_of(epoch, value=0.25):
    return Result(
        step=10 * epoch, epoch=epoch, dataset="got10k", split="val",
        figures=dict.fromkeys(FIGURES, value), seconds=1234.0,
    )  # fmt: skip


def test_a_result_is_printed_and_shown(tmp_path, capsys):
    with ResultBoard(tmp_path, 0) as board:
        board.show(result_of(3))
    line = "Evaluation of epoch 3 (step 30): got10k val, AO 0.2500, in 1,234 s\n"
    assert capsys.readouterr().out == line
    assert shown(tmp_path / "tensorboard/eval") == [30]


def test_late_results_hide_none_and_those_of_steps_done_again_go(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for start, epochs in ((0, (2, 3)), (20, (1, 3))):  # epoch 1 is made up for after a fallback
        with ResultBoard(tmp_path, start) as board:
            for epoch in epochs:
                board.show(result_of(epoch, value=(start + 1) / 128))
    events = EventAccumulator(str(tmp_path / "tensorboard/eval")).Reload()
    found = sorted((one.step, one.value * 128) for one in events.Scalars("eval/ao"))
    assert found == [(10, 21), (20, 1), (30, 21)]


def test_a_board_that_cannot_be_written_is_a_warning(tmp_path, capsys):
    (tmp_path / "tensorboard").write_text("in the way")
    with ResultBoard(tmp_path, 0) as board:
        board.show(result_of(3))
    assert capsys.readouterr().err.startswith("Warning: TensorBoard does not show it: ")
