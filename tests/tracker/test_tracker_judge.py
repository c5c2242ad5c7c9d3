"""The got10k toolkit reads our folders of results and comes to the same figures.

Version 0.1.3 has experiments for OTB and GOT-10k. LaSOT and TrackingNet are judged by its OTB
experiment on a data set of two lines, as the toolkit itself does it for NfS. What it draws is
switched off; what it computes is its own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import evaluation_trees as trees
import numpy as np
import pytest

from tracker.evaluate import evaluate
from tracker.onepass import KEEP_FIRST_BOX
from tracker.scores import Evaluation, Score, TrackerScore
from tracker.sequences import Convention, Dataset, Sequences, read_sequences

pytestmark = pytest.mark.filterwarnings("ignore")  # of the toolkit and what it imports
CLOSE = {"rtol": 0, "atol": 1e-6}


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    from got10k.experiments import ExperimentGOT10k, ExperimentOTB

    for experiment in (ExperimentOTB, ExperimentGOT10k):
        monkeypatch.setattr(experiment, "plot_curves", lambda *_: None)


def ours(
    dataset: Dataset, root: Path, out: Path, split: str, convention: Convention = "got10k"
) -> tuple[Sequences, Evaluation]:
    sequences = read_sequences(dataset, root, split, convention)
    make = trees.MakeDrifter()
    evaluation, _ = evaluate(
        sequences, out, name="drifter", make=make, made_by={"seed": "5"}, convention=convention
    )
    assert [one.tracker for one in evaluation.trackers] == ["drifter", KEEP_FIRST_BOX]
    return sequences, evaluation


def theirs_on_otb(root: Path, out: Path, videos: list[str], monkeypatch: Any) -> dict[str, Any]:
    from got10k.datasets import OTB
    from got10k.experiments import ExperimentOTB

    monkeypatch.setitem(OTB._OTB__version_dict, 2015, videos)  # those that are there
    experiment = ExperimentOTB(
        str(root), version=2015, result_dir=str(out), report_dir=str(out / "reports")
    )
    return dict(experiment.report(["drifter", KEEP_FIRST_BOX]))


def compare_ope(tracker: TrackerScore, judged: dict[str, Any]) -> None:
    def same(score: Score, found: dict[str, Any]) -> None:
        np.testing.assert_allclose(score.success_curve, found["success_curve"], **CLOSE)
        np.testing.assert_allclose(score.precision_curve, found["precision_curve"], **CLOSE)
        assert score.auc == pytest.approx(found["success_score"], abs=1e-6)
        assert score.precision == pytest.approx(found["precision_score"], abs=1e-6)
        assert score.sr50 == pytest.approx(found["success_rate"], abs=1e-6)

    same(tracker.total, judged["overall"])
    assert len(tracker.sequences) == len(judged["seq_wise"])
    for one in tracker.sequences:
        same(one.score, judged["seq_wise"][one.name])


def test_otb_figures_are_those_of_the_toolkit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, out = tmp_path / "otb", tmp_path / "out"
    trees.otb(root, "Man", 30, comma="\t", seed=2)
    trees.otb(root, "Crossing", 44, seed=3)
    trees.otb(root, "Boy", 25, comma=" ", seed=4)
    for number in (1, 2):
        trees.otb(root, "Jogging", 20, truth=f"groundtruth_rect.{number}.txt", seed=5 + number)
    _, evaluation = ours("otb", root, out, "all")
    judged = theirs_on_otb(root, out, ["Man", "Crossing", "Boy", "Jogging"], monkeypatch)
    for tracker in evaluation.trackers:
        compare_ope(tracker, judged[tracker.tracker])
    drifter, floor = evaluation.trackers
    assert drifter.total.auc != pytest.approx(floor.total.auc, abs=0.01)  # it can tell trackers
    assert 0.1 < drifter.total.auc < 0.9
    fast = judged["drifter"]["overall"]["speed_fps"]  # it reads our times too
    assert fast > 0
    assert judged[KEEP_FIRST_BOX]["overall"]["speed_fps"] == -1


def test_real_otb_figures_are_those_of_the_toolkit(
    real_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, evaluation = ours("otb", real_data / "otb", tmp_path, "otb100")
    judged = theirs_on_otb(real_data / "otb", tmp_path, ["Man", "Crossing"], monkeypatch)
    for tracker in evaluation.trackers:
        compare_ope(tracker, judged[tracker.tracker])
        # nothing is absent or invalid here, so all conventions agree
    for convention in ("pysot", "reference"):
        _, again = ours("otb", real_data / "otb", tmp_path, "otb100", convention)
        for tracker, other in zip(evaluation.trackers, again.trackers, strict=True):
            np.testing.assert_allclose(
                tracker.total.success_curve, other.total.success_curve, **CLOSE
            )


def test_got10k_figures_are_those_of_the_toolkit(tmp_path: Path) -> None:
    from got10k.experiments import ExperimentGOT10k

    root, out = tmp_path / "got10k", tmp_path / "out"
    trees.got10k(root, "val", 1, 30, cover=[8] * 10 + [0] * 5 + [1] * 15)
    trees.got10k(root, "val", 2, 17)
    trees.got10k(root, "val", 3, 44)
    _, evaluation = ours("got10k", root, out, "val")
    experiment = ExperimentGOT10k(
        str(root), subset="val", result_dir=str(out), report_dir=str(out / "reports")
    )
    judged = experiment.report(["drifter", KEEP_FIRST_BOX])
    for tracker in evaluation.trackers:
        found = judged[tracker.tracker]
        assert tracker.total.ao == pytest.approx(found["overall"]["ao"], abs=1e-6)
        assert tracker.total.sr50 == pytest.approx(found["overall"]["sr"], abs=1e-6)
        np.testing.assert_allclose(  # it has 101 thresholds, we every fifth of them
            tracker.total.success_curve, found["overall"]["succ_curve"][::5], **CLOSE
        )
        assert len(tracker.sequences) == len(found["seq_wise"])
        for one in tracker.sequences:
            assert one.score.ao == pytest.approx(found["seq_wise"][one.name]["ao"], abs=1e-6)
            assert one.score.sr50 == pytest.approx(found["seq_wise"][one.name]["sr"], abs=1e-6)
    assert 0.05 < evaluation.trackers[0].total.ao < 0.95
    assert evaluation.trackers[0].total.frames == 29 - 5 + 16 + 43


def judge_by_the_otb_experiment(sequences: Sequences, out: Path, folder: str) -> dict[str, Any]:
    """Report of the toolkit's OTB experiment on sequences that it has no experiment for."""
    from got10k.experiments import ExperimentOTB

    class Here:
        def __init__(self) -> None:
            self.seq_names = [one.name for one in sequences]

        def __len__(self) -> int:
            return len(self.seq_names)

        def __getitem__(self, index: int) -> tuple[None, np.ndarray]:
            if index >= len(self):
                raise IndexError
            one = sequences.sequences[index]
            size = one.boxes[:, 2:] - one.boxes[:, :2]
            return None, np.concatenate([one.boxes[:, :2], size], axis=1)

    class Experiment(ExperimentOTB):
        def __init__(self) -> None:
            self.dataset = Here()
            self.result_dir, self.report_dir = str(out / folder), str(out / "reports")
            self.nbins_iou, self.nbins_ce = 21, 51

    return dict(Experiment().report(["drifter", KEEP_FIRST_BOX]))


def test_lasot_figures_are_those_of_the_toolkit_but_for_absent_frames(tmp_path: Path) -> None:
    root, out = tmp_path / "lasot", tmp_path / "out"
    trees.lasot(root, "car-2", 40, gone=range(10, 15), seed=2)
    trees.lasot(root, "bird-15", 25, seed=3)
    sequences, evaluation = ours("lasot", root, out, "test")
    judged = judge_by_the_otb_experiment(sequences, out, "LaSOT")
    for tracker in evaluation.trackers:
        compare_ope(tracker, judged[tracker.tracker])
    # pysot takes absent frames for misses: the same where there are none, less where there are
    _, other = ours("lasot", root, out, "test", "pysot")
    bird, car = other.trackers[0].sequences
    compare_bird, compare_car = evaluation.trackers[0].sequences
    assert bird.score.auc == pytest.approx(compare_bird.score.auc)
    assert car.score.auc < compare_car.score.auc


def test_trackingnet_figures_are_those_of_the_toolkit(tmp_path: Path) -> None:
    root, out = tmp_path / "trackingnet", tmp_path / "out"
    trees.trackingnet(root, "TRAIN_0", "-a_0", 31, seed=2)
    trees.trackingnet(root, "TRAIN_1", "b_0", 12, seed=3)
    sequences, evaluation = ours("trackingnet", root, out, "train")
    judged = judge_by_the_otb_experiment(sequences, out, "TrackingNet")
    for tracker in evaluation.trackers:
        compare_ope(tracker, judged[tracker.tracker])
        curve = np.array(tracker.total.norm_precision_curve)
        assert tracker.total.norm_precision == pytest.approx(curve.mean())


def pysot_curves(truth: np.ndarray, boxes: np.ndarray, absent: np.ndarray) -> list[np.ndarray]:
    """Success and precision of one video as pysot counts them, frame by frame."""
    success, precision, norm = np.zeros(21), np.zeros(51), np.zeros(51)
    for (x, y, w, h), (u, v, s, t), gone in zip(truth, boxes, absent, strict=True):
        if gone:
            continue
        overlap = distance = scaled = -1.0
        if w > 0 and h > 0:
            wide = max(0.0, min(x + w, u + s) - max(x, u))
            high = max(0.0, min(y + h, v + t) - max(y, v))
            overlap = min(1.0, max(0.0, wide * high / (w * h + s * t - wide * high)))
        a, b = x + (w - 1) / 2, y + (h - 1) / 2
        c, d = u + (s - 1) / 2, v + (t - 1) / 2
        if a > 0 and b > 0:
            distance = ((a - c) ** 2 + (b - d) ** 2) ** 0.5
        w, h = w + 1e-16, h + 1e-16
        if a / w > 0 and b / h > 0:
            scaled = ((a / w - c / w) ** 2 + (b / h - d / h) ** 2) ** 0.5
        success += overlap > np.linspace(0, 1, 21)
        precision += distance <= np.arange(51)
        norm += scaled <= np.arange(51) / 100
    return [success / len(truth), precision / len(truth), norm / len(truth)]


@pytest.mark.parametrize("dataset", ["otb", "lasot"])
def test_pysot_figures_from_our_files_as_it_counts_them(tmp_path: Path, dataset: Dataset) -> None:
    """With frames without object, boxes without area and boxes left of the picture."""
    root, out = tmp_path / "raw", tmp_path / "out"
    if dataset == "otb":
        rows, name, folder = trees.otb(root, "Man", 40, seed=2), "Man", "OTB2015"
        truth = root / "Man/groundtruth_rect.txt"
        gone: list[int] = []
    else:
        gone = [10, 11, 30]
        rows, name, folder = trees.lasot(root, "car-2", 40, gone=gone), "car-2", "LaSOT"
        truth = root / "car/car-2/groundtruth.txt"
    rows[5, 2], rows[6, 3], rows[7], rows[8, :2] = 0, -4, 0, [-60, 10]
    truth.write_text(trees.rows_text(rows))
    _, evaluation = ours(dataset, root, out, "all", "pysot")
    for tracker in evaluation.trackers:
        boxes = np.loadtxt(out / folder / tracker.tracker / f"{name}.txt", delimiter=",")
        success, precision, norm = pysot_curves(rows, boxes, np.isin(np.arange(40), gone))
        np.testing.assert_allclose(tracker.total.success_curve, success, **CLOSE)
        np.testing.assert_allclose(tracker.total.precision_curve, precision, **CLOSE)
        np.testing.assert_allclose(tracker.total.norm_precision_curve, norm, **CLOSE)
        assert tracker.total.norm_precision == pytest.approx(norm[20])
