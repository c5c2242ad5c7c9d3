import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from tracker.cli import main
from tracker.files import save_model
from tracker.follow import Followed
from tracker.models import ModelConfig, build
from tracker.overlay import BOX_RGB, draw_box
from tracker.track import track
from tracker.video import VideoError, VideoWriter, open_clip

REAL = Path(os.environ.get("SIAMSTREAM_TEST_DATA", "/nowhere")) / "otb"


def frames(count: int = 6, height: int = 60, width: int = 80) -> list[np.ndarray]:
    out = []
    for i in range(count):
        frame = np.full((height, width, 3), 40, np.uint8)
        frame[20:40, 10 + 3 * i : 30 + 3 * i] = (200, 60, 60)
        out.append(frame)
    return out


def folder(path: Path, count: int = 6) -> Path:
    path.mkdir()
    for i, frame in enumerate(frames(count), 1):
        Image.fromarray(frame).save(path / f"{i}.png")
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("model") / "m.safetensors"
    save_model(path, build(ModelConfig(init="random", width=0.05)), source="random")
    return path


def run(model: Path, video: Path, box: str, *options: str):
    args = ["track", "--checkpoint", str(model), "--video", str(video), "--box", box]
    return CliRunner().invoke(main, [*args, "--device", "cpu", *options])


def test_a_folder_becomes_a_video_and_a_text(model, tmp_path):
    video = folder(tmp_path / "v")
    out, txt = tmp_path / "o.mp4", tmp_path / "o.txt"
    ran = run(model, video, "10,20,20,20", "--out", str(out), "--txt", str(txt), "--json")
    assert ran.exit_code == 0, ran.output
    facts = json.loads(ran.stdout)
    assert (facts["frames"], facts["width"], facts["height"]) == (6, 80, 60)
    assert facts["model"] == "spm_alexnet"
    assert facts["network_s"] > 0
    assert facts["out"] == str(out)
    clip = open_clip(out)
    assert (clip.count, clip.fps) == (6, 30)
    drawn = list(clip)
    assert len(drawn) == 6
    assert drawn[0].shape == (60, 80, 3)
    # The box of the first frame is drawn on its edge, and not inside.
    assert np.abs(drawn[0][39, 15:28].astype(int) - BOX_RGB).max() < 90
    assert np.abs(drawn[0][26:34, 16:24].astype(int) - (200, 60, 60)).max() < 60
    lines = txt.read_text().splitlines()
    assert len(lines) == 6
    assert lines[0] == "10.000,20.000,20.000,20.000"
    assert all(re.fullmatch(r"(-?\d+\.\d{3},?){4}", line) for line in lines)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["o.mp4", "o.txt", "v"]


def test_a_video_keeps_its_rate_or_gets_another(model, tmp_path):
    video = tmp_path / "v.mp4"
    with VideoWriter(video, (60, 80), 12.5) as writer:
        for frame in frames():
            writer.write(frame)
        writer.commit()
    out = tmp_path / "o.mp4"
    ran = run(model, video, "10,20,20,20", "--out", str(out))
    assert ran.exit_code == 0, ran.output
    assert "6 frames of 80x60 by spm_alexnet on cpu" in ran.stdout
    assert "reading" in ran.stdout
    assert (open_clip(out).count, open_clip(out).fps) == (6, 12.5)
    assert run(model, video, "10,20,20,20", "--out", str(out), "--fps", "50").exit_code == 0
    assert open_clip(out).fps == 50


def test_settings_change_what_is_found(model, tmp_path):
    video, txt = folder(tmp_path / "v"), tmp_path / "o.txt"
    ran = run(model, video, "10,20,20,20", "--txt", str(txt), "--set", "track.match.min_score=1.0")
    assert ran.exit_code == 0, ran.output
    assert txt.read_text() == "10.000,20.000,20.000,20.000\n" * 6  # nothing scores 1
    ran = run(model, video, "10,20,20,20", "--txt", str(txt), "--set", "track.match.window_=0.3")
    assert ran.exit_code == 1
    assert "did you mean 'window'" in ran.stderr


@pytest.mark.parametrize(
    ("box", "code", "what"),
    [
        ("10,20,20", 2, "is not four numbers x,y,w,h"),
        ("10 20 20 20", 2, "is not four numbers"),
        ("a,b,c,d", 2, "is not four numbers"),
        ("10,20,20,20,5", 2, "is not four numbers"),
        ("nan,20,20,20", 1, "four finite numbers are needed"),
        ("10,20,inf,20", 1, "four finite numbers are needed"),
        ("10,20,0,20", 1, "width 0, height 20: width and height must be positive"),
        ("10,20,20,-5", 1, "must be positive"),
        ("80,20,20,20", 1, "outside the first frame of 80x60 pixels"),
        ("-30,-30,20,20", 1, "outside the first frame"),
        ("10,10,90,20", 1, "larger than the frame of 80x60 pixels; it reads x,y,w,h"),
        ("10,10,20,61", 1, "larger than the frame"),
    ],
)
def test_a_box_that_cannot_be_meant_is_one_clear_error(model, tmp_path, box, code, what):
    out = tmp_path / "o.mp4"
    ran = run(model, folder(tmp_path / "v"), box, "--out", str(out))
    assert ran.exit_code == code
    assert what in ran.stderr
    assert ran.stdout == ""
    assert "Traceback" not in ran.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["v"]


def test_a_box_that_leaves_the_frame_is_followed_with_a_note(model, tmp_path):
    txt = tmp_path / "o.txt"
    ran = run(model, folder(tmp_path / "v"), "-5,20,20,20", "--txt", str(txt))
    assert ran.exit_code == 0, ran.output
    assert "Note: start box -5,20,20,20 leaves the frame of 80x60 pixels" in ran.stderr
    assert txt.read_text().startswith("-5.000,20.000,20.000,20.000\n")


@pytest.mark.parametrize(
    ("options", "code", "what"),
    [
        ([], 2, "give --out, --txt or both"),
        (["--out", "o.avi"], 1, "must end in .mp4"),
        (["--out", "no/o.mp4"], 1, "there is no folder no"),
        (["--txt", "no/o.txt"], 1, "there is no folder no"),
        (["--txt", "v"], 1, "a folder has that name"),
        (["--txt", "m.safetensors"], 1, "would be written over, but it is also m.safetensors"),
        (["--out", "o.mp4", "--txt", "o.mp4"], 1, "would be written over"),
        (["--out", "o.mp4", "--fps", "0"], 2, "--fps"),
        (["--out", "o.mp4", "--fps", "nan"], 2, "--fps"),
        (["--txt", "o.txt", "--checkpoint", "no.safetensors"], 1, "no.safetensors"),
        (["--txt", "o.txt", "--video", "no.mp4"], 1, "no.mp4: no such video file or folder"),
        (["--txt", "o.txt", "--video", "empty"], 1, "empty: a folder without pictures"),
    ],
)
def test_what_cannot_be_written_or_read_is_one_clear_error(
    model, tmp_path, monkeypatch, options, code, what
):
    monkeypatch.chdir(tmp_path)
    folder(tmp_path / "v")
    (tmp_path / "empty").mkdir()
    (tmp_path / "m.safetensors").write_bytes(model.read_bytes())
    before = sorted(tmp_path.iterdir())
    args = ["track", "--checkpoint", "m.safetensors", "--video", "v", "--box", "10,20,20,20"]
    ran = CliRunner().invoke(main, [*args, *options])
    assert ran.exit_code == code, ran.output
    assert what in ran.stderr
    assert "Traceback" not in ran.stderr
    assert sorted(tmp_path.iterdir()) == before


def test_the_video_that_is_read_is_not_written_over(model, tmp_path):
    video = tmp_path / "v.mp4"
    with VideoWriter(video, (60, 80), 25) as writer:
        writer.write(frames()[0])
        writer.commit()
    before = video.read_bytes()
    (tmp_path / "link.mp4").symlink_to(video)
    for out in (video, tmp_path / "link.mp4"):
        ran = run(model, video, "10,20,20,20", "--out", str(out))
        assert ran.exit_code == 1
        assert "would be written over" in ran.stderr
    assert video.read_bytes() == before


def test_frames_before_a_damaged_one_are_kept_and_the_command_fails(model, tmp_path):
    video = folder(tmp_path / "v")
    (video / "4.png").write_bytes(b"no picture")
    out, txt = tmp_path / "o.mp4", tmp_path / "o.txt"
    ran = run(model, video, "10,20,20,20", "--out", str(out), "--txt", str(txt))
    assert ran.exit_code == 1
    assert "4.png: not a picture" in ran.stderr
    assert f"The 3 frames before that are in {out} and {txt}." in ran.stderr
    assert open_clip(out).count == 3
    assert len(txt.read_text().splitlines()) == 3
    (video / "1.png").write_bytes(b"no picture")
    out.unlink()
    ran = run(model, video, "10,20,20,20", "--out", str(out))
    assert ran.exit_code == 1
    assert "before that" not in ran.stderr
    assert not out.exists()


class Fake:
    """Follows nothing: the same box, or an interruption at a frame."""

    def __init__(self, stop_at: int = 0) -> None:
        self._stop_at, self._seen = stop_at, 0

    def start(self, frame: np.ndarray, box: np.ndarray) -> None:
        self._box, self._seen = box, 1

    def step(self, frame: np.ndarray) -> Followed:
        self._seen += 1
        if self._seen == self._stop_at:
            raise KeyboardInterrupt
        return Followed(self._box, 0.5)


def test_an_interruption_leaves_what_was_there(tmp_path):
    clip, box = open_clip(folder(tmp_path / "v")), np.array([10.0, 20, 30, 40])
    out, txt = tmp_path / "o.mp4", tmp_path / "o.txt"
    txt.write_text("old")
    with pytest.raises(KeyboardInterrupt):
        track(clip, Fake(stop_at=4), box, out=out, txt=txt)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["o.txt", "v"]
    assert txt.read_text() == "old"


def test_progress_and_notes_are_told_as_they_come(tmp_path):
    video = folder(tmp_path / "v")
    (video / "readme.txt").write_text("x")
    told: list[object] = []
    box = np.array([-10.0, 20, 30, 40])
    track(
        open_clip(video), Fake(), box, txt=tmp_path / "o.txt",
        progress=told.append, tell=lambda note: told.append(note[-20:]),
    )  # fmt: skip
    assert told[2:] == [1, 2, 3, 4, 5, 6]
    assert told[0] == "pictures are left out"[-20:]


def test_a_video_whose_output_cannot_be_written_is_told(tmp_path):
    clip = open_clip(folder(tmp_path / "v"))
    with pytest.raises(VideoError, match="there is no folder"):
        track(clip, Fake(), np.array([10.0, 20, 30, 40]), out=tmp_path / "no" / "o.mp4")


@pytest.mark.parametrize("size", [(8, 10), (60, 80), (720, 1280)])
@pytest.mark.parametrize(
    "box", [[0.3, 0.3, 0.6, 0.7], [-0.2, -0.1, 0.3, 0.5], [0.9, 0.9, 1.2, 1.1], [-1e9, 0, 1e9, 1]]
)
def test_boxes_anywhere_can_be_drawn(size, box):
    height, width = size
    frame = np.zeros((height, width, 3), np.uint8)
    got = draw_box(frame, np.array(box) * [width, height, width, height], "0.87")
    assert got.shape == frame.shape
    assert (got == BOX_RGB).all(axis=-1).any()
    assert not frame.any()


def test_the_drawn_edge_is_the_last_pixel_inside():
    got = draw_box(np.full((40, 60, 3), 99, np.uint8), np.array([10.0, 5, 30, 25]))
    green = (got == BOX_RGB).all(axis=-1)
    assert green[5, 10:30].all()
    assert green[24, 10:30].all()
    assert green[5:25, 10].all()
    assert green[5:25, 29].all()
    assert (got[7:23, 12:28] == 99).all()


@pytest.mark.skipif(not REAL.is_dir(), reason="needs real pictures: set SIAMSTREAM_TEST_DATA")
def test_a_real_sequence_is_followed(model, tmp_path):
    out, txt = tmp_path / "o.mp4", tmp_path / "o.txt"
    ran = run(model, REAL / "Man/img", "68,47,26,39", "--out", str(out), "--txt", str(txt))
    assert ran.exit_code == 0, ran.output
    assert open_clip(out).count == len(txt.read_text().splitlines()) == 134
    assert next(iter(open_clip(out))).shape == (194, 242, 3)  # 193x241, made even


def test_a_picture_of_the_folder_that_is_read_is_not_written_over(model, tmp_path):
    video = folder(tmp_path / "v")
    before = (video / "5.png").read_bytes()
    ran = run(model, video, "10,20,20,20", "--txt", str(video / "5.png"))
    assert ran.exit_code == 1
    assert "would be written over" in ran.output
    assert (video / "5.png").read_bytes() == before
