"""Evaluation as a whole: resumed, shared out, refused."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import evaluation_trees as trees
import numpy as np
import pytest

from shards.errors import DataError, MismatchError
from tracker.evaluate import evaluate, score_all
from tracker.evaluation_text import facts
from tracker.ledger import data_fingerprint, drop_other, read_ledger
from tracker.onepass import KEEP_FIRST_BOX, KeepFirstBox, run_sequence
from tracker.runs import EvaluationError
from tracker.scores import Evaluation
from tracker.sequences import Dataset, read_sequences

MADE_BY = {"checkpoint": "abc", "track.match.window": "0.4"}


def run(
    root: Path,
    out: Path,
    *,
    dataset: Dataset = "otb",
    split: str = "all",
    name: str = "drifter",
    make: Any = None,
    made_by: Mapping[str, str] = MADE_BY,
    workers: int = 1,
) -> Evaluation:
    sequences = read_sequences(dataset, root, split)
    evaluation, _ = evaluate(
        sequences, out, name=name, make=make or trees.MakeDrifter(), made_by=made_by,
        convention="got10k", workers=workers,
    )  # fmt: skip
    return evaluation


@pytest.fixture
def root(tmp_path: Path) -> Path:
    trees.four_videos(tmp_path / "otb")
    return tmp_path / "otb"


class Counting:
    """Makes trackers and counts their frames."""

    def __init__(self) -> None:
        self.frames = 0

    def __call__(self) -> trees.Drifter:
        outer = self

        class Counted(trees.Drifter):
            def start(self, frame: Any, box: Any) -> None:
                outer.frames += 1
                super().start(frame, box)

            def step(self, frame: Any) -> trees.Moved:
                outer.frames += 1
                return super().step(frame)

        return Counted()


def test_a_sequence_is_followed_from_its_first_box_and_timed(root: Path) -> None:
    one = read_sequences("otb", root, "all").sequences[0]
    boxes, seconds = run_sequence(trees.Drifter(delay_s=0.002), one)
    assert boxes.shape == (11, 4)
    np.testing.assert_array_equal(boxes[0], one.boxes[0])
    assert (seconds[1:] >= 0.002).all()
    still, _ = run_sequence(KeepFirstBox(), one)
    np.testing.assert_array_equal(still, np.repeat(one.boxes[:1], 11, axis=0))


def test_result_files_are_in_published_coordinates(root: Path, tmp_path: Path) -> None:
    run(root, tmp_path / "out")
    rows = np.loadtxt(root / "Man/groundtruth_rect.txt", delimiter=",")
    found = np.loadtxt(tmp_path / "out/OTB2015/drifter/Man.txt", delimiter=",")
    np.testing.assert_array_equal(found[0], rows[0])  # +1 again
    still = np.loadtxt(tmp_path / f"out/OTB2015/{KEEP_FIRST_BOX}/Man.txt", delimiter=",")
    np.testing.assert_array_equal(still, np.repeat(rows[:1], len(rows), axis=0))
    times = np.loadtxt(tmp_path / "out/OTB2015/drifter/times/Man_time.txt")
    assert times.shape == (14,)
    assert (times > 0).all()


def test_what_is_there_is_not_followed_again(root: Path, tmp_path: Path) -> None:
    out, counting = tmp_path / "out", Counting()
    first = run(root, out, make=counting)
    assert counting.frames == 11 + 14 + 17 + 20
    again = run(root, out, make=counting)
    assert counting.frames == 62
    assert facts(again) == facts(first)


@pytest.mark.parametrize("damage", ["removed", "cut", "changed"])
def test_a_result_that_is_not_whole_is_made_again(root: Path, tmp_path: Path, damage: str) -> None:
    out = tmp_path / "out"
    run(root, out)
    whole = trees.results(out)
    path = out / "OTB2015/drifter/Man.txt"
    if damage == "removed":
        path.unlink()
    else:
        text = path.read_bytes()
        path.write_bytes(text[:-9] if damage == "cut" else text.replace(b"1", b"2"))
    counting = Counting()
    run(root, out, make=counting)
    assert counting.frames == 14
    assert trees.results(out) == whole


def test_data_that_changed_are_followed_again(root: Path, tmp_path: Path) -> None:
    out, counting = tmp_path / "out", Counting()
    run(root, out)
    truth = root / "Man/groundtruth_rect.txt"
    lines = truth.read_text().splitlines(keepends=True)
    truth.write_text("".join([*lines[:5], "9,9,9,9\n", *lines[6:]]))
    run(root, out, make=counting)
    assert counting.frames == 0  # only the first box matters to a tracker
    truth.write_text("".join(["9,9,9,9\n", *lines[1:]]))
    run(root, out, make=counting)
    assert counting.frames == 14
    (root / "Man/img/0014.jpg").write_bytes((root / "Man/img/0014.jpg").read_bytes() + b"\0\0")
    run(root, out, make=counting)
    assert counting.frames == 28


def test_another_checkpoint_or_setting_under_the_same_name_is_refused(
    root: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    run(root, out)
    with pytest.raises(MismatchError, match=r"checkpoint abc there, other now\).*--name"):
        run(root, out, made_by=MADE_BY | {"checkpoint": "other"})
    with pytest.raises(MismatchError, match=r"window 0\.4 there, 0\.3 now"):
        run(root, out, made_by=MADE_BY | {"track.match.window": "0.3"})
    run(root, out, made_by=MADE_BY | {"checkpoint": "other"}, name="other")
    theirs = out / "OTB2015/theirs"
    theirs.mkdir()
    (theirs / "Man.txt").write_text("1,2,3,4\n")
    with pytest.raises(MismatchError, match="not made here"):
        run(root, out, name="theirs")
    for name in ("../up", "", ".", "a/b", KEEP_FIRST_BOX):
        with pytest.raises(DataError, match="--name"):
            run(root, out, name=name)


def test_all_trackers_of_the_same_data_are_in_the_table(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(root, out, name="slow", make=trees.MakeDrifter(seed=9))
    theirs = out / "OTB2015/theirs"  # results of another toolkit, tabs and no times
    theirs.mkdir()
    for name in ("Boy", "Man", "Dog", "Toy"):
        rows = np.loadtxt(root / name / "groundtruth_rect.txt", delimiter=",")
        np.savetxt(theirs / f"{name}.txt", rows, fmt="%d", delimiter="\t")
    (out / "OTB2015/partial").mkdir()
    evaluation = run(root, out)
    assert [one.tracker for one in evaluation.trackers] == [
        "drifter", "theirs", "slow", KEEP_FIRST_BOX,
    ]  # fmt: skip
    assert evaluation.trackers[1].total.ao == 1
    assert any("partial is not in the table" in note for note in evaluation.notes)
    (theirs / "Man.txt").write_text("1 2 3 4\n")
    (out / "OTB2015/slow/Dog.txt").unlink()
    evaluation = run(root, out)
    assert [one.tracker for one in evaluation.trackers] == ["drifter", KEEP_FIRST_BOX]
    assert any("Man.txt: 1 lines for 14 frames" in note for note in evaluation.notes)
    assert any("1 of 4 sequences, Dog the first" in note for note in evaluation.notes)


def test_results_do_not_depend_on_the_number_of_workers(root: Path, tmp_path: Path) -> None:
    one = run(root, tmp_path / "one")
    three = run(root, tmp_path / "three", workers=3)
    assert trees.results(tmp_path / "one") == trees.results(tmp_path / "three")
    assert [a.total for a in one.trackers] == [b.total for b in three.trackers]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_picture_that_cannot_be_read_stops_only_its_sequence(
    root: Path, tmp_path: Path, workers: int
) -> None:
    out = tmp_path / "out"
    (root / "Toy/img/0006.jpg").write_bytes(b"no picture")
    with pytest.raises(EvaluationError) as caught:
        run(root, out, workers=workers)
    assert "1 of 4 sequences failed" in str(caught.value)
    assert "Toy: " in str(caught.value)
    assert "0006.jpg: not a picture" in str(caught.value)
    assert sorted(trees.results(out)) == [
        f"OTB2015/drifter/{name}.txt" for name in ("Boy", "Dog", "Man")
    ]
    trees.pictures(root / "Toy/img", ["0006.jpg"])
    counting = Counting()
    run(root, out, make=counting)
    assert counting.frames == 20


def test_frames_that_change_their_size_are_followed_and_noted(root: Path, tmp_path: Path) -> None:
    from shards.pixels import encode_jpeg

    (root / "Man/img/0007.jpg").write_bytes(encode_jpeg(np.zeros((50, 60, 3), np.uint8), 80))
    expected = "Man: frames change their size: 0007.jpg 120x90 -> 60x50, 0008.jpg 60x50 -> 120x90"
    assert expected in run(root, tmp_path / "out").notes
    assert expected in run(root, tmp_path / "out").notes  # also of results that were there


def test_a_box_that_is_not_finite_is_an_error_that_names_the_frame(
    root: Path, tmp_path: Path
) -> None:
    class Wild(trees.Drifter):
        def step(self, frame: Any) -> trees.Moved:
            return super().step(frame)._replace(box=np.full(4, np.nan))

    with pytest.raises(EvaluationError, match=r"0002\.jpg: the tracker's box is \[nan"):
        run(root, tmp_path / "out", make=Wild)


@pytest.mark.parametrize("dataset", ["got10k", "trackingnet"])
def test_hidden_ground_truth_gives_a_zip_file_for_the_server(
    tmp_path: Path, dataset: Dataset
) -> None:
    for number in (1, 2):
        if dataset == "got10k":
            trees.got10k(tmp_path / "raw", "test", number, 12)
        else:
            trees.trackingnet(tmp_path / "raw", "TEST", f"-a_{number}", 12, seed=number)
    found = []
    for out in (tmp_path / "one", tmp_path / "two"):
        sequences = read_sequences(dataset, tmp_path / "raw", "test")
        evaluation, submission = evaluate(
            sequences, out, name="drifter", make=trees.MakeDrifter(), made_by=MADE_BY,
            convention="got10k",
        )  # fmt: skip
        assert evaluation.trackers == ()
        assert any("not public" in note for note in evaluation.notes)
        assert submission is not None
        with zipfile.ZipFile(submission) as archive:
            found.append({name: archive.read(name) for name in archive.namelist()})
    name = "GOT-10k_Test_000001" if dataset == "got10k" else "-a_1"
    boxes = f"{name}/{name}_001.txt" if dataset == "got10k" else f"{name}.txt"
    assert found[0][boxes] == found[1][boxes]
    assert found[0][boxes].count(b"\n") == 12
    assert len(found[0]) == (4 if dataset == "got10k" else 2)


def test_two_evaluations_of_one_name_at_once_are_refused(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"

    class Second(trees.Drifter):
        def start(self, frame: Any, box: Any) -> None:
            with pytest.raises(MismatchError, match="another process is writing"):
                run(root, out)
            run(root, out, name="second")  # another name is fine
            super().start(frame, box)

    run(root, out, make=Second)


KILLED = """
import sys
from dataclasses import dataclass
from pathlib import Path
import evaluation_trees as trees
from tracker.evaluate import evaluate
from tracker.sequences import read_sequences

@dataclass(frozen=True)
class Make:
    begun: Path
    delay_s: float

    def __call__(self):
        self.begun.touch()
        return trees.Drifter(delay_s=self.delay_s)

if __name__ == "__main__":
    root, out, begun = map(Path, sys.argv[1:4])
    evaluate(
        read_sequences("otb", root, "all"), out, name="drifter",
        make=Make(begun, float(sys.argv[5])), made_by={"checkpoint": "abc"},
        convention="got10k", workers=int(sys.argv[4]),
    )
"""


def started(root: Path, out: Path, workers: int, delay_s: float) -> subprocess.Popen[bytes]:
    """Evaluate in a process of its own; returns when the first tracker is made."""
    script, begun = out.parent / "killed.py", out.parent / "begun"
    script.write_text(KILLED)
    begun.unlink(missing_ok=True)
    here = Path(__file__).parent
    child = subprocess.Popen(
        [sys.executable, script, root, out, begun, str(workers), str(delay_s)],
        env={"PYTHONPATH": f"{here}:{here.parents[1]}", "PATH": "/usr/bin:/bin"},
        stderr=subprocess.DEVNULL,
    )
    while child.poll() is None and not begun.exists():
        time.sleep(0.01)
    return child


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_killed_at_any_time_and_run_again_it_comes_to_the_same_results(
    root: Path, tmp_path: Path, workers: int
) -> None:
    out = tmp_path / "out"
    kept = []
    for wanted in (0, 1, 1, 2):
        child = started(root, out, workers, delay_s=0.02)
        while child.poll() is None and len(trees.results(out)) < wanted:
            time.sleep(0.005)
        child.kill()
        child.wait()
        kept.append(len(trees.results(out)))
    assert kept[-1] > 0  # something was left to go on from
    assert started(root, out, workers, delay_s=0.02).wait() == 0
    run(root, tmp_path / "straight", made_by={"checkpoint": "abc"})
    assert trees.results(out) == trees.results(tmp_path / "straight")
    one, other = (
        json.loads((folder / "reports/otb-all/evaluation.json").read_text())["trackers"][0]["total"]
        for folder in (out, tmp_path / "straight")
    )
    assert one == other


@pytest.mark.slow
def test_workers_do_not_outlive_a_killed_evaluation(root: Path, tmp_path: Path) -> None:
    import psutil

    child = started(root, tmp_path / "out", 2, delay_s=2.0)
    workers = [
        one for one in psutil.Process(child.pid).children() if "spawn_main" in str(one.cmdline())
    ]
    assert workers
    child.kill()
    child.wait()
    _, alive = psutil.wait_procs(workers, timeout=10)
    assert alive == []


def test_scores_can_be_counted_by_other_rules_without_following(root: Path, tmp_path: Path) -> None:
    run(root, tmp_path / "out")
    sequences = read_sequences("otb", root, "all")
    other = score_all(sequences, tmp_path / "out", first="drifter", convention="pysot")
    assert other.convention == "pysot"
    assert [one.tracker for one in other.trackers] == ["drifter", KEEP_FIRST_BOX]


def test_an_odd_line_of_a_ledger_counts_as_not_there(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(root, out)
    (ledger,) = (out / "ledgers").glob("*/drifter.jsonl")
    lines = ledger.read_text().splitlines()
    entry = json.loads(lines[1])
    odd = [entry | {"sequence": ["a"]}, entry | {"notes": "text"}, entry | {"notes": [1]}]
    ledger.write_text("\n".join([lines[0], *map(json.dumps, odd)]) + "\n")
    assert read_ledger(out, "otb", "drifter").done == {}
    run(root, out)  # follows again, without a traceback
    assert len(read_ledger(out, "otb", "drifter").done) == len(lines) - 1


@pytest.mark.parametrize(
    "change", [{}, {"checkpoint": "other"}, {"track.match.window": "0.3"}, {"track.new": "1"}]
)
def test_results_of_another_making_can_be_dropped(root: Path, tmp_path: Path, change: Any) -> None:
    out, now = tmp_path / "out", MADE_BY | change
    assert not drop_other(out, "otb", "drifter", now)
    run(root, out)
    (boxes,) = out.glob("*/drifter")
    assert drop_other(out, "otb", "drifter", now) == bool(change)
    assert boxes.exists() != bool(change)
    run(root, out, made_by=now)  # is not refused
    run(root, out, made_by=MADE_BY, name="elsewhere")
    for ledger in (out / "ledgers").glob("*/elsewhere.jsonl"):
        ledger.unlink()
    assert not drop_other(out, "otb", "elsewhere", now)
    assert [*out.glob("*/elsewhere/*")]


def test_every_picture_counts_for_the_fingerprint(tmp_path: Path) -> None:
    trees.otb(tmp_path, "Man", 200, real=False)
    (one,) = read_sequences("otb", tmp_path, "all")
    before = data_fingerprint(one)
    one.frames[101].write_bytes(b"cut")
    assert data_fingerprint(one) != before
