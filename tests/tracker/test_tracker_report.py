"""The page of an evaluation: whole, alone, true to the figures; and what it shows of a loss."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Mapping, Sequence
from html.parser import HTMLParser
from pathlib import Path

import evaluation_trees as trees
import numpy as np
import numpy.typing as npt
import pytest
from click.testing import CliRunner
from PIL import Image

from shards.errors import StorageError
from shards.pixels import encode_jpeg
from tracker.metrics import rules, score_sequence, total
from tracker.onepass import KEEP_FIRST_BOX
from tracker.report import page, worst, write_report
from tracker.scores import Evaluation, TrackerScore
from tracker.sequences import VideoSequence
from tracker.strips import (
    chosen_frames,
    lost_at,
    strip,
)

BY = rules("got10k", "otb")
VOID = {"meta", "img", "br", "hr", "input", "link"}
Rows = npt.NDArray[np.float64]


class Page(HTMLParser):
    """What a page consists of; fails where a tag is not closed by its own end tag."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.tables: dict[str, list[list[str]]] = {}
        self.texts: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        self.tags.append((tag, found))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.rows = self.tables[found["id"]] = []
        elif tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data
        elif self.open and self.open[-1] not in ("style", "script"):
            self.texts.append(data)

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]

    def classes(self, tag: str) -> list[str]:
        return [one.get("class", "") for one in self.all(tag)]


def video(
    folder: Path, name: str, truth: Rows, absent: Sequence[int] = (), **more
) -> VideoSequence:
    """Sequence of small pictures in which the object is bright."""
    folder.mkdir(parents=True, exist_ok=True)
    frames = []
    for number, box in enumerate(truth, 1):
        picture = np.full((90, 120, 3), 60, np.uint8)
        if np.isfinite(box).all():
            x0, y0, x1, y1 = box.astype(int)
            picture[max(y0, 0) : y1, max(x0, 0) : x1] = 220
        frames.append(folder / f"{number:04d}.jpg")
        frames[-1].write_bytes(encode_jpeg(picture, 90))
    gone = np.isin(np.arange(len(truth)), list(absent))
    return VideoSequence(name=name, frames=tuple(frames), boxes=truth, absent=gone, **more)


def moving(frames: int, speed: float) -> Rows:
    return np.array([10.0, 20, 40, 50]) + np.arange(frames)[:, None] * [speed, 0, speed, 0]


def evaluation_of(
    sequences: Sequence[VideoSequence],
    results: Mapping[str, Mapping[str, Rows]],
    *,
    seconds: float = 0.02,
    notes: tuple[str, ...] = (),
) -> Evaluation:
    """Evaluation of boxes by tracker and sequence."""
    trackers = []
    for name, boxes in results.items():
        times = {one.name: np.full(len(one.frames), seconds) for one in sequences}
        floor = name == KEEP_FIRST_BOX
        own = tuple(
            score_sequence(one, boxes[one.name], BY, None if floor else times[one.name])
            for one in sequences
        )
        figures = total([one.score for one in own], BY)
        trackers.append(TrackerScore(tracker=name, total=figures, sequences=own))
    return Evaluation(
        dataset="otb", split="all", convention="got10k", trackers=tuple(trackers), notes=notes
    )


def floor_of(sequences: Sequence[VideoSequence]) -> dict[str, Rows]:
    return {one.name: np.repeat(one.boxes[:1], len(one.frames), axis=0) for one in sequences}


@pytest.fixture
def three(tmp_path: Path) -> list[VideoSequence]:
    """Sequences whose object runs away slowly, fast, and at once."""
    return [
        video(tmp_path / name, name, moving(30, speed))
        for name, speed in (("slow", 0.2), ("fast", 1.5), ("middle", 0.6))
    ]


@pytest.fixture
def evaluation(three: list[VideoSequence]) -> Evaluation:
    lagging = {one.name: 0.7 * one.boxes + 0.3 * one.boxes[:1] for one in three}
    perfect = {one.name: one.boxes for one in three}
    return evaluation_of(
        three,
        {"mine": lagging, "perfect": perfect, KEEP_FIRST_BOX: floor_of(three)},
        notes=("slow: a note",),
    )


@pytest.fixture
def written(tmp_path: Path, three: list[VideoSequence], evaluation: Evaluation) -> Path:
    results = {one.name: 0.7 * one.boxes + 0.3 * one.boxes[:1] for one in three}
    about = {"checkpoint": "abc123", "track.match.window": "0.4"}
    return write_report(evaluation, tmp_path / "out", three, results, about=about, shown=2)


def test_the_page_is_whole_and_needs_nothing_but_itself(written: Path) -> None:
    text = written.read_text("utf-8")
    found = Page(text)
    images = found.all("img")
    assert len(images) == 3 + 2 * (6 + 1)  # curves; strips and overlaps
    for image in images:
        kind, data = re.fullmatch(r"data:image/(png|jpeg);base64,(.*)", image["src"]).groups()
        picture = Image.open(io.BytesIO(base64.b64decode(data, validate=True)))
        picture.load()
        assert picture.format == kind.upper()
        assert image["alt"]
    bare = re.sub(r"data:image/(png|jpeg);base64,[A-Za-z0-9+/=]*", "", text)
    assert re.findall(r"https?:|url\(|@import|\bhref|\bsrc=\"[^\"]", bare) == []
    assert {name for name, _ in found.tags}.isdisjoint({"link", "iframe", "object", "base"})
    assert {"abc123", "track.match.window", "slow: a note"} <= set(found.texts)


def test_curves_lie_beside_the_page_and_are_those_in_it(written: Path) -> None:
    images = Page(written.read_text("utf-8")).all("img")
    for name, image in zip(("success", "precision", "norm_precision"), images[:3], strict=True):
        data = (written.parent / f"{name}.png").read_bytes()
        assert Image.open(io.BytesIO(data)).size == (704, 592)
        assert image["src"].endswith(base64.b64encode(data).decode())
    assert sorted(path.name for path in written.parent.iterdir()) == [
        "norm_precision.png", "precision.png", "report.html", "success.png",
    ]  # fmt: skip


def test_names_are_text_wherever_they_stand(tmp_path: Path) -> None:
    bad = "<script>alert('1')</script>"
    worse = '"><img src=x onerror="x">&amp;\''
    one = video(tmp_path / "pictures", bad, moving(4, 3))
    renamed = tuple(path.rename(path.with_name(f'"<b>&{path.name}')) for path in one.frames)
    one = VideoSequence(name=bad, frames=renamed, boxes=one.boxes, absent=one.absent)
    found = evaluation_of(
        [one], {worse: floor_of([one]), f"$x^{bad}": floor_of([one])}, notes=(f"note {bad}",)
    )
    out = write_report(found, tmp_path / "out", [one], floor_of([one]), about={bad: worse})
    read = Page(out.read_text("utf-8"))
    assert len(read.all("script")) == 1  # the template's own
    assert len(read.all("img")) == 3 + 4 + 1
    assert all(image["src"].startswith("data:image/") for image in read.all("img"))
    assert read.all("b") == []
    assert [row[0] for row in read.tables["overall"][1:]] == [worse, f"$x^{bad} (the floor)"]
    assert read.tables["sequences"][0][-1] == f"AUC of $x^{bad}"
    assert read.tables["sequences"][1][0] == bad
    assert {bad, worse, f"note {bad}"} <= set(read.texts)
    shots = [image["alt"] for image in read.all("img") if ", frame " in image["alt"]]
    assert shots[0].startswith(f'{bad}, frame 1 ("<b>&0001.jpg)')


def test_a_name_that_is_no_unicode_does_not_stop_the_report(tmp_path: Path) -> None:
    one = video(tmp_path / "pictures", "caf\udce9", moving(3, 1))
    found = evaluation_of([one], {"mine": floor_of([one])})
    out = write_report(found, tmp_path / "out", [one], floor_of([one]))
    assert Page(out.read_text("utf-8")).tables["sequences"][1][0] == "caf?"


def test_tables_have_the_figures_of_the_evaluation(written: Path, evaluation: Evaluation) -> None:
    tables = Page(written.read_text("utf-8")).tables
    assert tables["overall"][0] == [
        "tracker", "AUC", "precision", "norm. precision", "AO", "SR .5", "SR .75", "frames/s",
    ]  # fmt: skip

    def figures(score) -> list[str]:
        values = (
            score.auc, score.precision, score.norm_precision, score.ao, score.sr50, score.sr75,
        )  # fmt: skip
        return [f"{value:.3f}" for value in values]

    for row, tracker in zip(tables["overall"][1:], evaluation.trackers, strict=True):
        assert row[0].removesuffix(" (the floor)") == tracker.tracker
        assert row[1:7] == figures(tracker.total)
    assert [row[7] for row in tables["overall"][1:]] == ["50.0", "50.0", "-"]
    mine, perfect, floor = evaluation.trackers
    for row, *own in zip(
        tables["sequences"][1:], mine.sequences, perfect.sequences, floor.sequences, strict=True
    ):
        name, *cells = row
        assert name == own[0].name
        assert cells[:6] == figures(own[0].score)
        assert cells[6:] == ["50.0", "30", *(f"{one.score.auc:.3f}" for one in own[1:])]
    assert tables["sequences"][0][7:] == [
        "frames/s", "frames", "AUC of perfect", f"AUC of {KEEP_FIRST_BOX}",
    ]  # fmt: skip


def test_the_floor_is_last_and_marked(written: Path, three: list[VideoSequence]) -> None:
    read = Page(written.read_text("utf-8"))
    assert read.tables["overall"][-1][0] == f"{KEEP_FIRST_BOX} (the floor)"
    assert read.classes("tr")[1:4] == ["first", "", "floor"]
    alone = evaluation_of(three, {"mine": floor_of(three)})
    read = Page(page(alone, {}, [], {}))
    assert read.tables["overall"][1][0] == "mine"
    assert "floor" not in read.classes("tr")


def test_the_worst_sequences_are_shown_the_worst_first(
    written: Path, evaluation: Evaluation
) -> None:
    assert [one.name for one in worst(evaluation.trackers[0], 5)] == ["fast", "middle", "slow"]
    assert [one.name for one in worst(evaluation.trackers[0], 1)] == ["fast"]
    read = Page(written.read_text("utf-8"))
    heads = [text for text in read.texts if re.match(r"(fast|middle|slow): AUC", text)]
    fast = {one.name: one for one in evaluation.trackers[0].sequences}["fast"]
    lost = lost_at(fast.overlap)
    assert heads[0] == f"fast: AUC {fast.score.auc:.3f}" + (
        ", never lost in 30 frames" if lost is None else f", lost at frame {lost + 1} of 30"
    )
    assert [head.split(":")[0] for head in heads] == ["fast", "middle"]
    assert "The 2 of 3 sequences with the lowest AUC" in read.texts


def test_a_loss_is_shown_where_it_begins(tmp_path: Path) -> None:
    one = video(tmp_path / "pictures", "jump", moving(40, 0.1))
    result = one.boxes.copy()
    result[12:] += [60, 30, 60, 30]
    found = evaluation_of([one], {"mine": {"jump": result}, KEEP_FIRST_BOX: floor_of([one])})
    out = write_report(found, tmp_path / "out", [one], {"jump": result})
    read = Page(out.read_text("utf-8"))
    auc = found.trackers[0].total.auc
    assert f"jump: AUC {auc:.3f}, lost at frame 13 of 40" in read.texts
    assert read.all("img")[-1]["alt"].endswith(", lost at frame 13")
    captions = [text for text in read.texts if text.startswith("frame ")]
    assert [text.split(",")[0] for text in captions] == [f"frame {n}" for n in range(11, 17)]
    assert captions[1] == "frame 12, overlap 1.00"
    assert captions[2] == "frame 13, overlap 0.00"
    assert "Sequences, the lowest AUC first" in read.texts


def test_frames_without_a_box_to_compare_with_are_said_to_be_absent(tmp_path: Path) -> None:
    truth = moving(20, 0.5)
    truth[7] = np.nan
    one = video(tmp_path / "pictures", "gone", truth, absent=[5, 6])
    found = evaluation_of([one], {"mine": {"gone": moving(20, 0.5)}})
    overlap = found.trackers[0].sequences[0].overlap
    assert [n for n, value in enumerate(overlap) if value is None] == [5, 6, 7]
    result = {"gone": moving(20, 0.5)}
    read = Page(write_report(found, tmp_path / "out", [one], result).read_text("utf-8"))
    alt = read.all("img")[-1]["alt"]
    assert alt.endswith("mean 1.000, never lost, absent in 3 frames")
    shown = strip(one, moving(20, 0.5), overlap, range(4, 9))
    assert [shot.overlap for shot in shown] == [1.0, None, None, None, 1.0]
    assert [blue(shot.jpeg) for shot in shown] == [True, False, False, False, True]


def blue(jpeg: bytes) -> bool:
    """Whether the colour of ground truth is in a picture that has no other blue."""
    pixels = np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB")).astype(int)
    return bool((pixels[..., 2] - pixels[..., 0] > 60).any())


@pytest.mark.parametrize("frames", [1, 2])
def test_short_sequences_are_shown_whole(tmp_path: Path, frames: int) -> None:
    one = video(tmp_path / "pictures", "short", moving(frames, 1))
    found = evaluation_of([one], {"mine": floor_of([one]), KEEP_FIRST_BOX: floor_of([one])})
    read = Page(write_report(found, tmp_path / "out", [one], floor_of([one])).read_text("utf-8"))
    assert len(read.all("img")) == 3 + frames + 1


def test_a_sequence_of_which_no_frame_counts_is_no_failure(tmp_path: Path) -> None:
    unseen = {"cover": np.zeros(4, np.int8), "frame_size": (120, 90)}
    hidden = video(tmp_path / "hidden", "hidden", moving(4, 1), **unseen)
    seen = {"cover": np.full(4, 8, np.int8), "frame_size": (120, 90)}
    good = video(tmp_path / "good", "good", moving(4, 1), **seen)
    by = rules("got10k", "got10k")
    own = tuple(score_sequence(one, one.boxes, by) for one in (hidden, good))
    score = TrackerScore(tracker="m", total=total([s.score for s in own], by), sequences=own)
    assert [one.score.frames for one in own] == [0, 3]
    assert [one.name for one in worst(score, 5)] == ["good"]
    found = Evaluation(
        dataset="got10k", split="val", convention="got10k", trackers=(score, score), notes=()
    )
    rows = Page(page(found, {}, [], {})).tables["sequences"]
    assert rows[1] == ["hidden", *["-"] * 6, "-", "0", "-"]
    auc = f"{own[1].score.auc:.3f}"
    assert rows[2] == ["good", auc, "1.000", "1.000", "1.000", "1.000", "1.000", "-", "3", auc]


def test_a_picture_that_cannot_be_read_is_a_known_error(
    tmp_path: Path, three: list[VideoSequence], evaluation: Evaluation
) -> None:
    results = floor_of(three)
    path = three[1].frames[chosen_frames(evaluation.trackers[0].sequences[1].overlap)[0]]
    path.write_bytes(b"no picture")
    with pytest.raises(StorageError, match=rf"{path.name}: cannot be read for the report: "):
        write_report(evaluation, tmp_path / "out", three, results)
    path.unlink()
    with pytest.raises(StorageError, match=rf"{path.name}: cannot be read for the report: "):
        write_report(evaluation, tmp_path / "out", three, results)
    assert not (tmp_path / "out").exists()


def test_a_report_is_the_same_made_again(written: Path, three, evaluation, tmp_path: Path) -> None:
    first = {path.name: path.read_bytes() for path in written.parent.iterdir()}
    results = {one.name: 0.7 * one.boxes + 0.3 * one.boxes[:1] for one in three}
    about = {"checkpoint": "abc123", "track.match.window": "0.4"}
    write_report(evaluation, written.parent, three, results, about=about, shown=2)
    assert {path.name: path.read_bytes() for path in written.parent.iterdir()} == first


def test_the_command_writes_the_report_of_each_split(tmp_path: Path) -> None:
    from tracker.cli import main
    from tracker.files import save_model
    from tracker.models import ModelConfig, build

    model = tmp_path / "tiny.safetensors"
    save_model(model, build(ModelConfig(width=0.05)), source="test")
    trees.otb(tmp_path / "otb", "Man", 3)
    words = ["eval", "--checkpoint", model, "--dataset", "otb", "--root", tmp_path / "otb",
             "--split", "all", "--out", tmp_path / "out", "--device", "cpu", "--json"]  # fmt: skip
    done = CliRunner().invoke(main, [str(word) for word in words])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    report = tmp_path / "out/reports/otb-all/report.html"
    assert found["report"] == str(report)
    read = Page(report.read_text("utf-8"))
    assert [row[0] for row in read.tables["overall"][1:]] == [
        "tiny", f"{KEEP_FIRST_BOX} (the floor)",
    ]  # fmt: skip
    assert read.tables["overall"][1][1] == f"{found['trackers'][0]['total']['auc']:.3f}"
    assert {"spm_alexnet", "edge", "track.match.window"} <= set(read.texts)
    assert not any(text.startswith("track.scale") for text in read.texts)  # SPM has none
    stored = json.loads((report.parent / "evaluation.json").read_text())
    assert stored["trackers"] == found["trackers"]
