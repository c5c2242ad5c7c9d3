"""Proof of learning: the ranking is the area under the ROC curve; the whole runs on demo data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from benchmarks import learn, result
from benchmarks.cli import CHECKOUT, main
from benchmarks.learn import Schedule, anchor_auc, average_overlap, keep_first, measure_learning
from benchmarks.learn_data import _fingerprint, demo_material, write_as_lasot
from benchmarks.learn_report import curve_rows, learn_lines, plot_learning
from loaders.batch import PairBatch
from shards.errors import DataError
from tracker.anchors import anchor_boxes
from tracker.heads import CoarseMaps
from tracker.labels import iou
from tracker.models import ModelConfig
from tracker.sequences import VideoSequence, read_sequences


def test_auc_is_the_share_of_pairs_that_are_ranked_right() -> None:
    generator = torch.Generator().manual_seed(1)
    scores = torch.randint(0, 6, (5, 40), generator=generator).float()  # with many equal ones
    target = torch.rand(5, 40, generator=generator) < 0.3
    for row, area in enumerate(anchor_auc(scores, target)):
        won, pairs = 0.0, 0
        for a in range(40):
            for b in range(40):
                if target[row, a] and not target[row, b]:
                    pairs += 1
                    won += float(scores[row, a] > scores[row, b])
                    won += 0.5 * float(scores[row, a] == scores[row, b])
        assert float(area) == pytest.approx(won / pairs, abs=1e-12)


def test_auc_of_perfect_reversed_and_equal_scores() -> None:
    target = torch.tensor([[False, True, True, False]])
    assert anchor_auc(torch.tensor([[0.0, 3.0, 2.0, 1.0]]), target).item() == 1
    assert anchor_auc(torch.tensor([[3.0, 0.0, 1.0, 2.0]]), target).item() == 0
    assert anchor_auc(torch.zeros(1, 4), target).item() == 0.5
    assert anchor_auc(torch.zeros(1, 4), torch.zeros(1, 4, dtype=torch.bool)).isnan().all()


def _sequence(boxes: list[list[float]], absent: list[bool]) -> VideoSequence:
    frames = tuple(Path(f"{i}.jpg") for i in range(len(boxes)))
    return VideoSequence(
        name="s", frames=frames, boxes=np.array(boxes, np.float64), absent=np.array(absent)
    )


def test_the_floor_leaves_out_the_given_frame_and_absent_ones() -> None:
    boxes = [[0, 0, 10, 10], [5, 0, 15, 10], [50, 50, 60, 60], [0, 0, 10, 10]]
    sequence = _sequence([list(map(float, box)) for box in boxes], [False, False, True, False])
    # overlaps of the first box: 1/3 with the second frame's, 1 with the last one's
    assert keep_first([sequence])["s"] == pytest.approx((1 / 3 + 1) / 2)
    assert average_overlap(sequence.boxes, sequence) == 1


@pytest.mark.slow
def test_the_whole_on_demo_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    short = Schedule(epochs=1, steps=2, slow_from=1)
    monkeypatch.setattr(learn, "PAIRS", short)
    monkeypatch.setattr(learn, "SINGLE", short)
    monkeypatch.setattr(learn, "JUDGED", 1)
    monkeypatch.setattr("benchmarks.learn_data.DEMO_SEQUENCES", {"seen": 4, "unseen": 2})
    monkeypatch.setattr("benchmarks.learn_data.DEMO_FRAMES", 12)
    told: list[str] = []
    material = demo_material(tmp_path)
    run = measure_learning(material, tmp_path / "runs", [3], "cmd", told.append)
    assert {claim["key"] for claim in run["claims"]} == {
        "auc", "single_gain", "unseen_gain", "trained_gain", "cpu_minutes"
    }  # fmt: skip
    (one,) = run["seeds"]
    assert [point["step"] for point in one["curve"]] == [0, 2]
    assert one["curve"][0]["auc"] != one["curve"][1]["auc"]
    assert len(told) == 1
    assert told[0].startswith("seed 3: AUC ")
    rows = curve_rows(run)
    assert [row[0] for row in rows] == ["0", "2"]
    assert rows[1][1] == f"{one['curve'][1]['auc']:.3f}"
    assert material.label in " ".join(learn_lines(run))
    plot_learning(run, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    # made once, and read again as the same boxes
    copied = read_sequences("lasot", tmp_path / "raw/single", "all").sequences[0]
    np.testing.assert_allclose(copied.boxes, material.single.boxes, atol=1e-4)


def test_a_training_that_fails_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"train.py failed with code 1: .*nowhere"):
        learn.train(tmp_path / "nowhere", tmp_path / "run", learn.SINGLE, 1)


def test_sequences_become_classes_of_their_own(tmp_path: Path) -> None:
    frame = tmp_path / "a.jpg"
    frame.write_bytes(b"not read")
    sequence = VideoSequence(
        name="x",
        frames=(frame, frame),
        boxes=np.array([[1.5, 2, 4, 6], [np.nan] * 4]),
        absent=np.array([False, True]),
    )
    write_as_lasot([sequence, sequence], tmp_path / "tree")
    assert sorted(p.name for p in (tmp_path / "tree").iterdir()) == ["s00", "s01"]
    folder = tmp_path / "tree/s01/s01-1"
    lines = (folder / "groundtruth.txt").read_text().splitlines()
    assert lines == ["1.5000,2.0000,2.5000,4.0000", "0.0000,0.0000,0.0000,0.0000"]
    assert (folder / "full_occlusion.txt").read_text() == "0,1\n"


class Oracle(torch.nn.Module):
    """Stands for SPM; its coarse score is the overlap with a fixed box, times a sign."""

    def __init__(self, box: torch.Tensor, sign: float) -> None:
        super().__init__()
        self.config, self.box, self.sign = ModelConfig(), box, sign
        self.anchors = anchor_boxes("edge")

    def features(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"batch": image[:, :1, 0, 0]}

    def kernels(self, template: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return template

    def coarse(self, kernels: Any, search: dict[str, torch.Tensor]) -> CoarseMaps:
        score = self.sign * iou(self.anchors, self.box[:, None])
        return CoarseMaps(torch.stack([torch.zeros_like(score), score], dim=-1), torch.empty(0))


def _batch(box: torch.Tensor, positive: list[bool]) -> PairBatch:
    n = len(box)
    crop = torch.zeros(n, 3, 255, 255, dtype=torch.uint8)
    far = torch.tensor([[0.0, 0.0, 40.0, 40.0]]).expand(n, 4)  # of the template: must not be used
    return PairBatch(
        template=crop, search=crop, template_box=far, search_box=box,
        other_boxes=torch.empty(n, 0, 4), other_mask=torch.empty(n, 0, dtype=torch.bool),
        positive=torch.tensor(positive), sample=torch.arange(n), epoch=0, stats={},
    )  # fmt: skip


def test_the_ranking_takes_the_target_in_the_search_crop_and_pairs_of_one_kind() -> None:
    box = torch.tensor([[90.0, 100.0, 160.0, 170.0], [150.0, 90.0, 215.0, 155.0]])
    batch = _batch(box, [True, False])
    for sign, least, most in ((1.0, 0.999, 1.0), (-1.0, 0.0, 0.001)):
        model: Any = Oracle(box, sign)
        for same in (True, False):
            assert least <= learn.ranking(model, [batch], same=same) <= most
    swapped: Any = Oracle(box.flip(0), 1.0)  # right for neither
    assert learn.ranking(swapped, [batch], same=True) < 0.9


def test_the_committed_result_keeps_its_promises() -> None:
    run = result.read(CHECKOUT / "benchmarks/results/learn-cpu.json", "learn")
    assert {one["key"]: one["holds"] for one in run["claims"]} == {
        claim.key: True for claim in learn.CLAIMS
    }
    assert [(one["key"], one["bar"]) for one in run["claims"]] == [
        (claim.key, claim.bar) for claim in learn.CLAIMS
    ]


def test_a_missed_bar_is_exit_1_under_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = json.loads((CHECKOUT / "benchmarks/results/learn-cpu.json").read_text())
    run["claims"][0]["holds"] = False
    monkeypatch.setattr("benchmarks.learn.measure_learning", lambda *_: run)
    monkeypatch.setattr("benchmarks.learn_data.material", lambda *_: None)
    words = ["learn", "--out", str(tmp_path), "--json", str(tmp_path / "run.json")]
    plain = CliRunner().invoke(main, words)
    assert (plain.exit_code, "NO" in plain.output) == (0, True)
    written = json.loads((tmp_path / "run.json").read_text())
    assert {key: written[key] for key in run} == run
    assert CliRunner().invoke(main, [*words, "--check"]).exit_code == 1


@pytest.mark.parametrize("seeds", ["", "a", "1,-2"])
def test_seeds_that_are_none_are_a_usage_error(seeds: str) -> None:
    assert CliRunner().invoke(main, ["learn", "--seeds", seeds]).exit_code == 2


def test_half_a_demo_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def stopped(package: str, *words: object) -> None:
        calls.append(package)
        Path(str(words[2])).mkdir(parents=True)
        raise KeyboardInterrupt

    monkeypatch.setattr("benchmarks.learn_data._run", stopped)
    for _ in range(2):  # the second time it begins again, as nothing has the final name
        with pytest.raises(KeyboardInterrupt):
            demo_material(tmp_path)
    assert calls == ["packer", "packer"]


def test_other_raw_data_get_other_folders(tmp_path: Path) -> None:
    frame = tmp_path / "raw/otb/Man/img/0001.jpg"
    frame.parent.mkdir(parents=True)
    frame.write_bytes(b"one")
    before = _fingerprint(tmp_path / "raw")
    assert _fingerprint(tmp_path / "raw") == before
    frame.write_bytes(b"three")
    assert _fingerprint(tmp_path / "raw") != before
