import dataclasses
import json
import pathlib
import struct

import checkpoint_files as made
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from configs import strict
from shards.errors import KNOWN_ERRORS, ConfigError, VersionError
from tracker.entrants import default_name
from tracker.files import open_model, save_model
from tracker.header import KEY, read_header
from tracker.models import build, initialise
from tracker.rules import MatchConfig, TrackConfig
from tracker.weights import WeightsError

TUNED = dataclasses.replace(
    made.NARROW, grid="corner", track=TrackConfig(match=MatchConfig(window=0.25))
)

TINY = dataclasses.replace(made.NARROW, width=0.001)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("files") / "narrow.safetensors"
    save_model(path, build(TUNED), source="a test")
    return path


def document(path):
    """Read the text of the metadata and the place of the data."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + length])["__metadata__"][KEY], data[8 + length :]


def with_document(saved, path, change):
    """Write the same tensors with other metadata."""
    save_file(load_file(saved), path, metadata={KEY: change(document(saved)[0])})
    return path


def test_a_model_comes_back_as_it_was_ready_to_track(saved):
    opened = open_model(saved)
    assert opened.config == opened.model.config == TUNED
    assert not opened.model.training
    assert opened.path == saved
    want = build(TUNED).state_dict()
    assert list(opened.model.state_dict()) == list(want)
    assert all(torch.equal(v, want[k]) for k, v in opened.model.state_dict().items())
    assert read_header(saved).source == "a test"


def test_the_same_model_gives_the_same_bytes_in_any_mode(saved, tmp_path):
    save_model(tmp_path / "again.safetensors", build(TUNED).eval(), source="a test")
    assert (tmp_path / "again.safetensors").read_bytes() == saved.read_bytes()
    assert [p.name for p in tmp_path.iterdir()] == ["again.safetensors"]


def test_any_safetensors_reader_reads_it(saved):
    want = build(TUNED).state_dict()
    assert load_file(saved).keys() == want.keys()


def test_shared_and_transposed_tensors_are_written(tmp_path):
    model = build(made.NARROW)
    first, second = model.cm_fusion.x_conv
    second.weight = first.weight  # shared
    with torch.no_grad():
        square = model.fm_head.feat_fcs[2].weight
        square.set_(square.clone().t())  # not contiguous
    save_model(tmp_path / "odd.safetensors", model, source="a test")
    state = open_model(tmp_path / "odd.safetensors").model.state_dict()
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())


def test_settings_of_tracking_can_be_changed_and_nothing_else(saved):
    config = open_model(saved, ["track.match.window=0.3", "track.match.proposals.keep=4"]).config
    assert (config.track.match.window, config.track.match.proposals.keep) == (0.3, 4)
    assert dataclasses.replace(config, track=TUNED.track) == TUNED
    for text in ("grid=edge", "name=siamfc_alexnet", "width=1", "match.window=0.3"):
        with pytest.raises(ConfigError, match=rf"--set {text}: weights fit one model and one grid"):
            open_model(saved, [text])
    with pytest.raises(ConfigError, match=r"--set track.match.windw: unknown .* mean 'window'"):
        open_model(saved, ["track.match.windw=0.3"])
    with pytest.raises(ConfigError, match=r"^--set track.match.window: should be less"):
        open_model(saved, ["track.match.window=3"])


@pytest.mark.parametrize("link", ["latest.pth", "best.pth"])
def test_a_runs_checkpoint_opens_with_its_own_configuration(tmp_path, link):
    path = made.of_run(tmp_path / "epoch_2.pth", TUNED)
    (tmp_path / link).symlink_to(path.name)
    opened = open_model(tmp_path / link, ["track.match.window=0.4"])
    assert opened.config == dataclasses.replace(TUNED, track=TrackConfig())
    want = build(TUNED).state_dict()
    assert all(torch.equal(v, want[k]) for k, v in opened.model.state_dict().items())
    with pytest.raises(ConfigError, match=r"^--set track.match.windw: unknown key"):
        open_model(path, ["track.match.windw=0.4"])


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"format": 9}, "checkpoint format 9, this program reads 1"),
        ({"meta": {}}, "no section 'model'"),
        ({"meta": {"config": "data: {}"}}, "no section 'model'"),
        ({"meta": {"config": "model: {widthh: 1}"}}, "widthh: unknown key; did you mean 'width'"),
        ({"meta": {"config": "model: [1"}}, "not valid YAML"),
    ],
)
def test_a_runs_checkpoint_with_a_bad_configuration_is_refused(tmp_path, changes, what):
    path = made.of_run(tmp_path / "latest.pth", made.NARROW, **changes)
    with pytest.raises(KNOWN_ERRORS, match=what) as caught:
        open_model(path)
    assert str(caught.value).startswith(str(path))


@pytest.mark.parametrize("kind", ["published.pth", "bare.safetensors"])
def test_weights_that_do_not_say_what_they_are_must_be_converted(tmp_path, kind):
    state = build(made.NARROW).state_dict()
    path = tmp_path / kind
    if kind.endswith(".pth"):
        made.published(path, state)
    else:
        save_file(state, path, metadata={"format": "pt"})
    command = rf"python -m tracker convert --from {path} --out {path.stem}.safetensors"
    with pytest.raises(WeightsError, match=command):
        open_model(path)


def test_a_newer_format_is_named_before_what_is_unknown_in_it(saved, tmp_path):
    path = with_document(
        saved, tmp_path / "new.safetensors", lambda t: t.replace("format: 1", "format: 2\nnew: 3")
    )
    with pytest.raises(VersionError, match=r"of format 2, this program reads up to 1; update it"):
        open_model(path)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda t: t.replace("width: ", "widthh: "), "did you mean 'width'"),
        (lambda t: t.replace("grid: corner", "grid: middle"), "grid: .*got 'middle'"),
        (lambda t: t.replace("model:", "model: ["), "not valid YAML"),
        (lambda t: "text", "missing"),
        (lambda t: t.replace("source: a test\n", ""), "source: missing"),
        (lambda t: t.replace("window: 0.25", "window: 0.35"), "not what was written"),
        (lambda t: t.replace("grid: corner", "grid: edge"), "not what was written"),
        (lambda t: t.replace("width: 0.0625", "width: 0.125"), "not what was written"),
    ],
)
def test_metadata_that_are_not_ours_are_refused(saved, tmp_path, change, what):
    assert change(document(saved)[0]) != document(saved)[0]
    path = with_document(saved, tmp_path / "bad.safetensors", change)
    with pytest.raises(KNOWN_ERRORS, match=what) as caught:
        open_model(path)
    assert str(caught.value).startswith(str(path))


def test_a_diverged_model_is_refused(tmp_path):
    model = build(made.NARROW)
    with torch.no_grad():
        model.fm_head.cls_fc.bias[1] = float("nan")
        model.z_net.conv2.conv.weight[0, 0, 0, 0] = float("inf")
    save_model(tmp_path / "nan.safetensors", model, source="a test")
    run = made.of_run(tmp_path / "latest.pth", made.NARROW, state_dict=model.state_dict())
    for path in (tmp_path / "nan.safetensors", run):
        with pytest.raises(
            WeightsError,
            match=r"NaN or infinite numbers in \S+, \S+; the model diverged",
        ):
            open_model(path)


def test_what_is_no_file_of_a_model_is_one_clear_line(tmp_path):
    cases = {
        "empty.safetensors": (b"", "it is empty"),
        "empty.pth": (b"", "it is empty"),
        "text.safetensors": (b"hello, this is a text file\n", "not a readable file of weights"),
        "text.pth": (b"hello, this is a text file\n", "not a readable file of weights"),
        "short.safetensors": (b"\x10\x00", "not a readable file of weights"),
        "brace.safetensors": (
            b"\xff\xff\xff\xff\xff\xff\xff\xff{}",
            "not a readable file of weights",
        ),
        "deep.safetensors": (
            struct.pack("<Q", 9**6) + b"{" + b"[" * 9**6,
            "not a readable file of weights",
        ),
    }
    for name, (content, what) in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(WeightsError, match=what) as caught:
            open_model(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value)
        assert "\n" not in str(caught.value)
    with pytest.raises(WeightsError, match="is a folder"):
        open_model(tmp_path)
    with pytest.raises(WeightsError, match="no such file"):
        open_model(tmp_path / "nothing.safetensors")


@pytest.mark.parametrize("kind", ["zip", "legacy", "plain", "tar"])
def test_code_in_a_file_is_never_executed(tmp_path, kind):
    path = made.with_code(tmp_path, kind, tmp_path / "executed")
    with pytest.raises(WeightsError, match=r"not a readable file of weights") as caught:
        open_model(path)
    assert not (tmp_path / "executed").exists()
    assert "\n" not in str(caught.value)
    assert "weights_only" not in str(caught.value)  # no advice to execute it
    if kind != "tar":
        assert "open, and nothing but tensors" in str(caught.value)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Make two small files of one model."""
    folder = tmp_path_factory.mktemp("tiny")
    save_model(folder / "model.safetensors", build(TINY), source="a test")
    made.of_run(folder / "latest.pth", TINY)
    return folder


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(["model.safetensors", "latest.pth"]), st.data())
def test_a_file_that_was_cut_anywhere_is_refused(tiny, name, data):
    content = (tiny / name).read_bytes()
    length = data.draw(st.integers(0, len(content) - 1) | st.integers(0, 5000))
    cut = tiny / f"cut-{name}"
    cut.write_bytes(content[: min(length, len(content) - 1)])
    with pytest.raises(KNOWN_ERRORS) as caught:
        open_model(cut)
    assert "cut-" in str(caught.value)


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(["model.safetensors", "latest.pth"]),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), min_size=1),
    st.booleans(),
)
def test_changed_bytes_are_refused_or_change_nothing(tiny, name, changes, early):
    content = bytearray((tiny / name).read_bytes())
    for place, change in changes:
        content[int(place * (6000 if early else len(content)))] ^= change
    path = tiny / f"changed-{name}"
    path.write_bytes(content)
    try:
        state = open_model(path).model.state_dict()
    except KNOWN_ERRORS:
        return
    assert differing(state, build(TINY).state_dict()) == []


def differing(a, b):
    return [k for k, v in a.items() if not torch.equal(v, b[k])]


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_training_does_not_start_from_another_model(saved, tmp_path, suffix):
    path = saved if suffix == ".safetensors" else made.of_run(tmp_path / "latest.pth", TUNED)
    other = dataclasses.replace(TUNED, init=str(path), name="siamrpn_alexnet", track=TrackConfig())
    what = "of model.name 'spm_alexnet', this model of 'siamrpn_alexnet'; give --set model.name=s"
    with pytest.raises(WeightsError, match=what):
        initialise(build(other), other)
    right = dataclasses.replace(TUNED, init=str(path), seed=9)
    model = build(right)
    assert initialise(model, right).source == f"model, {path}"
    assert differing(model.state_dict(), build(TUNED).state_dict()) == []


@pytest.mark.parametrize("kind", ["file", "run", "published"])
@pytest.mark.parametrize("grid", ["edge", "corner"])
def test_training_from_weights_of_another_grid_is_told(saved, tmp_path, kind, grid):
    if kind == "published":
        path = made.published(tmp_path / "epoch_50.pth", build(TUNED).state_dict())
    else:
        path = saved if kind == "file" else made.of_run(tmp_path / "latest.pth", TUNED)
    config = dataclasses.replace(TUNED, init=str(path), grid=grid)
    warning = initialise(build(config), config).warning
    if grid == "corner":  # as all three are
        assert warning is None
    else:
        assert "of 'corner', and this" in warning or "of grid 'corner', and this" in warning


def test_a_full_disk_leaves_the_earlier_file(saved, tmp_path, monkeypatch):
    path = tmp_path / "model.safetensors"
    path.write_bytes(saved.read_bytes())

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(WeightsError, match="could not be written: No space left on device"):
        save_model(path, build(made.NARROW), source="another")
    assert [p.name for p in tmp_path.iterdir()] == ["model.safetensors"]
    assert path.read_bytes() == saved.read_bytes()


def test_a_model_file_has_its_suffix(tmp_path):
    with pytest.raises(WeightsError, match=r"must end in .safetensors"):
        save_model(tmp_path / "model.pth", build(made.NARROW), source="a test")


def test_the_metadata_are_a_strict_document(saved):
    digest, _, text = document(saved)[0].partition("\n")
    assert digest.startswith("sha256: ")
    assert len(digest) == len("sha256: ") + 64
    assert strict.flat(text)["model.grid"] == "corner"
    assert strict.flat(text)["format"] == 1


def test_a_tracker_is_called_after_its_run(tmp_path, monkeypatch):
    assert default_name(tmp_path / "mine.safetensors") == "mine"
    assert default_name(tmp_path / "runs/spm/latest.pth") == "spm"
    assert default_name(tmp_path / "runs/spm/best.pth") == "spm-best"
    assert default_name(tmp_path / "runs/spm/epoch_3.pth") == "epoch_3"
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert default_name(pathlib.Path("best.pth")) == "here-best"
