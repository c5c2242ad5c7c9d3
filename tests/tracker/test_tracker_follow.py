import follow_oracle as oracle
import numpy as np
import pytest
import torch

from shards.rng import uniforms
from tracker.follow import TrackingError, make_tracker
from tracker.models import ModelConfig, build
from tracker.proposals import ProposalConfig
from tracker.rules import MatchConfig, ScaleConfig, TrackConfig

STARTS = {
    "inside": ([140, 90, 180, 140], "moved"),
    "in the corner": ([-12, -9, 18, 21], "moved"),
    "outside by its centre": ([300, -60, 500, 20], "centre clamped"),
    "tiny": ([100, 60, 103, 62], "enlarged"),
    "larger than the frame": ([-60, -50, 400, 320], "cut"),
}


def video(frames: int = 4, height: int = 240, width: int = 320) -> list[np.ndarray]:
    """A bright square that moves over noise."""
    out = []
    for i in range(frames):
        drawn = uniforms(3, 99, i, 0, height * width, 4)[:, :3]
        frame = (drawn * 120).astype(np.uint8).reshape(height, width, 3)
        frame[90 + 5 * i : 140 + 5 * i, 140 + 7 * i : 180 + 7 * i] = (250, 200, 40)
        out.append(frame)
    return out


def config(grid: str = "corner", name: str = "spm_alexnet", **changed) -> ModelConfig:
    """Narrow model; the settings are those of its rule."""
    if name.startswith("siamfc"):
        track = TrackConfig(scale=ScaleConfig(**changed))
    else:
        track = TrackConfig(match=MatchConfig(**changed))
    return ModelConfig(name=name, init="random", width=0.05, seed=5, grid=grid, track=track)


def one_by_one(model, slow, start: list[float]) -> None:
    """Compare each step of a tracker with the slow form from the same last box."""
    oracle.seen.clear()
    frames = video()
    tracker = make_tracker(model)
    tracker.start(frames[0], np.array(start, np.float64))
    last = [float(v) for v in start]
    for frame in frames[1:]:
        got = tracker.step(frame)
        with torch.no_grad():
            box, score = slow(model, (frames[0], start), frame, last)
        assert got.box.dtype == np.float64
        assert got.box.tolist() == pytest.approx(box, abs=0.02)
        assert got.score == pytest.approx(score, abs=1e-4)
        last = got.box.tolist()


@pytest.mark.parametrize(("start", "branch"), STARTS.values(), ids=STARTS)
@pytest.mark.parametrize("grid", ["corner", "edge"])
def test_a_step_of_spm_is_that_of_the_slow_form(grid, start, branch):
    one_by_one(build(config(grid)), oracle.spm_step, start)
    assert oracle.seen[branch] > 0


@pytest.mark.parametrize(
    ("changed", "branch"),
    [
        ({"min_score": 0.56}, "kept"),
        ({"proposals": ProposalConfig(keep=40, nms_iou=1e-6)}, "few"),
        ({"fine_weight": 0.1, "penalty_k": 2.0, "window": 0.8, "inter_rate": 0.2}, "moved"),
    ],
)
def test_a_step_of_spm_is_that_of_the_slow_form_under_other_settings(changed, branch):
    one_by_one(build(config(**changed)), oracle.spm_step, STARTS["inside"][0])
    assert oracle.seen[branch] > 0


@pytest.mark.parametrize(("start", "branch"), STARTS.values(), ids=STARTS)
@pytest.mark.parametrize(
    ("grid", "name"), [("corner", "siamrpn_alexnet"), ("edge", "siamrpn_alexnet_dw")]
)
def test_a_step_of_siamrpn_is_that_of_the_slow_form(grid, name, start, branch):
    one_by_one(build(config(grid, name)), oracle.siamrpn_step, start)
    assert oracle.seen["moved"] > 0
    if branch in ("enlarged", "cut"):
        assert oracle.seen[branch] > 0


def test_below_the_least_score_siamrpn_keeps_the_last_box():
    model = build(config("edge", "siamrpn_alexnet", min_score=0.6))
    one_by_one(model, oracle.siamrpn_step, STARTS["inside"][0])
    assert oracle.seen["kept"] > 0


@pytest.mark.parametrize("start", [box for box, _ in STARTS.values()], ids=STARTS)
@pytest.mark.parametrize("grid", ["corner", "edge"])
def test_a_step_of_siamfc_is_that_of_the_slow_form(grid, start):
    one_by_one(build(config(grid, "siamfc_alexnet")), oracle.siamfc_step, start)


@pytest.mark.parametrize(
    ("changed", "branch"),
    [
        ({"penalty": 0.5}, "scale 0"),
        ({"step": 1.5, "min_size": 0.95, "max_size": 1.05}, "limited"),
        ({"upsample": 4, "window": 0.6}, "scale 0"),
    ],
)
def test_a_step_of_siamfc_is_that_of_the_slow_form_under_other_settings(changed, branch):
    one_by_one(
        build(config("edge", "siamfc_alexnet", **changed)), oracle.siamfc_step, STARTS["inside"][0]
    )
    assert oracle.seen[branch] > 0


def test_the_video_of_before_leaves_no_trace():
    model, frames = build(config()), video()
    start = np.array(STARTS["inside"][0], np.float64)
    tracker = make_tracker(model)
    tracker.start(frames[0], start)
    first = [tracker.step(frame) for frame in frames]
    tracker.start(frames[2], np.array([5.0, 5, 90, 60]))
    tracker.step(frames[3])
    tracker.start(frames[0], start)
    again = [tracker.step(frame) for frame in frames]
    for a, b in zip(first, again, strict=True):
        assert (a.box == b.box).all()
        assert a.score == b.score


def test_a_result_and_the_start_box_are_the_callers_own():
    tracker, frames = make_tracker(build(config())), video()
    start = np.array(STARTS["inside"][0], np.float64)
    tracker.start(frames[0], start)
    start[:] = 0
    first = tracker.step(frames[1]).box
    kept = first.copy()
    first[:] = 0
    tracker.start(frames[0], np.array(STARTS["inside"][0]))
    assert (tracker.step(frames[1]).box == kept).all()


@pytest.mark.parametrize(
    ("box", "what"),
    [
        ([10, 10, float("nan"), 40], "finite"),
        ([10, 10, float("inf"), 40], "finite"),
        ([10, 10, 10, 40], "width 0, height 30: width and height must be positive"),
        ([10, 40, 30, 10], "positive"),
        ([320, 10, 350, 40], "outside the first frame of 320x240 pixels"),
        ([-30, 10, 0, 40], "outside"),
        ([10, -50, 50, -1], "outside"),
    ],
)
def test_a_start_box_that_shows_nothing_is_refused(box, what):
    tracker = make_tracker(build(config()))
    with pytest.raises(TrackingError, match=what):
        tracker.start(video()[0], np.array(box, np.float64))


def test_weights_that_are_not_finite_are_named_as_the_cause():
    model = build(config())
    with torch.no_grad():
        model.cm_head.cls_convs[0].bias[3] = torch.nan
    tracker = make_tracker(model)
    tracker.start(video()[0], np.array(STARTS["inside"][0]))
    with pytest.raises(TrackingError, match="not finite: its weights"):
        tracker.step(video()[1])


def test_a_step_needs_a_start():
    with pytest.raises(RuntimeError, match="start"):
        make_tracker(build(config())).step(video()[0])


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["spm_alexnet", "spm_r18c4", "siamrpn_alexnet", "siamfc_alexnet"])
def test_a_step_on_a_gpu_is_that_on_the_cpu(name):
    model, frames = build(config("edge", name)), video()
    start = np.array(STARTS["inside"][0], np.float64)
    with torch.backends.cudnn.flags(allow_tf32=False):
        tracker = make_tracker(model)
        tracker.start(frames[0], start)
        want = tracker.step(frames[1])
        tracker = make_tracker(model, device="cuda")
        tracker.start(frames[0], start)
        got = tracker.step(frames[1])
        assert got.box.tolist() == pytest.approx(want.box.tolist(), abs=0.05)
        assert got.score == pytest.approx(want.score, abs=1e-3)
