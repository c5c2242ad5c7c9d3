import contextlib
import dataclasses
import hashlib
import io
import math
import os
import pickle
import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from tracker import imagenet, weights
from tracker.backbones import AlexNet, Pretrained
from tracker.models import ModelConfig, build, initialise

WIDTH = 0.0625
ALEXNET = AlexNet.pretrained
NAMES = {
    f"features.{theirs}.{kind}": f"conv{ours}.conv.{kind}"
    for theirs, ours in ((0, 1), (3, 2), (6, 3), (8, 4), (10, 5))
    for kind in ("weight", "bias")
}


@pytest.fixture(autouse=True)
def no_network(tmp_path, monkeypatch):
    """Leave torch's cache empty and the published address out of reach."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch_home"))
    monkeypatch.setattr(
        AlexNet, "pretrained", published("file:///nowhere/alexnet-owt-7be5be79.pth")
    )


def published(url: str) -> Pretrained:
    return dataclasses.replace(ALEXNET, url=url)


def imagenet_state(seed: int = 1, width: float = 1.0) -> dict[str, torch.Tensor]:
    """Give torchvision's names, random numbers, and a classifier to be left out."""
    model = AlexNet() if width == 1 else build(ModelConfig(width=width)).z_net
    weights.randomise(model, seed)
    own = model.state_dict()
    state = {theirs: own[ours] for theirs, ours in NAMES.items()}
    return {**state, "classifier.1.weight": torch.zeros(4, 4), "classifier.1.bias": torch.zeros(4)}


@pytest.fixture(scope="module")
def full():
    return build(ModelConfig())


def config(folder: Path, init: str = "auto", **more) -> ModelConfig:
    return ModelConfig(init=init, pretrained=str(folder), **more)


def test_random_weights_are_xavier_uniform_with_zero_biases():
    conv = torch.nn.Conv2d(8, 24, 3, groups=4)
    linear = torch.nn.Linear(300, 200)
    weights.randomise(torch.nn.ModuleList([conv, linear]), 3)
    for module, fan_in, fan_out in ((conv, 2 * 9, 6 * 9), (linear, 300, 200)):
        bound = math.sqrt(6 / (fan_in + fan_out))
        assert 0.98 * bound < module.weight.abs().max().item() <= bound
        assert abs(module.weight.mean().item()) < 0.1 * bound
        assert module.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.1)
        assert (module.bias == 0).all()


@pytest.mark.parametrize("form", ["torchvision.pth", "ours.pth", "ours.safetensors", "prefixed.pt"])
def test_auto_takes_the_file_in_the_folder(tmp_path, full, form):
    state = imagenet_state()
    if not form.startswith("torchvision"):
        lead = "z_net." if form.startswith("prefixed") else ""
        state = {lead + NAMES[k]: v for k, v in state.items() if k in NAMES}
    path = tmp_path / f"alexnet-{form}"
    if form.endswith("safetensors"):
        save_file(state, path)
    else:
        torch.save(state, path)
    report = initialise(full, config(tmp_path))
    assert report.warning is None
    assert str(path) in report.source
    want = imagenet_state()
    for theirs, ours in NAMES.items():
        assert torch.equal(full.z_net.state_dict()[ours], want[theirs])
    assert torch.equal(full.fm_head.cls_fc.weight, build(ModelConfig()).fm_head.cls_fc.weight)


def test_auto_without_anything_is_random_and_says_so(tmp_path):
    cfg = config(tmp_path / "pretrained")
    model = build(cfg)
    start = {k: v.clone() for k, v in model.state_dict().items()}
    report = initialise(model, cfg)
    assert report.source == "random, seed 7"
    for part in ("no ImageNet weights", "alexnet-owt-7be5be79.pth", str(tmp_path / "pretrained")):
        assert part in report.warning
    assert all(torch.equal(v, start[k]) for k, v in model.state_dict().items())
    assert not list((tmp_path / "torch_home").rglob("*.part"))


def test_imagenet_without_anything_is_an_error_with_the_way_out(tmp_path, full):
    with pytest.raises(
        weights.WeightsError, match=r"file:///nowhere/\S+ could not be .*put it into"
    ):
        initialise(full, config(tmp_path, "imagenet"))


def test_a_narrow_model_takes_no_imagenet_weights(tmp_path):
    torch.save(imagenet_state(), tmp_path / "alexnet.pth")
    model = build(config(tmp_path, width=WIDTH))
    assert "width 0.0625" in initialise(model, config(tmp_path, width=WIDTH)).warning
    with pytest.raises(weights.WeightsError, match="width"):
        initialise(model, config(tmp_path, "imagenet", width=WIDTH))


def test_random_has_no_warning_and_reads_nothing(tmp_path):
    torch.save({}, tmp_path / "alexnet.pth")
    cfg = config(tmp_path, "random", width=WIDTH, seed=5)
    report = initialise(build(cfg), cfg)
    assert report.warning is None
    assert report.source == "random, seed 5"


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_path_loads_a_whole_model(tmp_path, suffix, wrapped):
    source = build(ModelConfig(width=WIDTH, seed=99))
    state = {f"module.{k}" if wrapped else k: v for k, v in source.state_dict().items()}
    path = tmp_path / f"epoch_50{suffix}"
    if suffix == ".pth":
        meta = {"meta": {"epoch": 50, "config": "x"}, "state_dict": state, "optimizer": {"a": 1}}
        torch.save(meta if wrapped else state, path)
    else:
        save_file(state, path)
    cfg = config(tmp_path, str(path), width=WIDTH)
    model = build(cfg)
    report = initialise(model, cfg)
    assert report.source == f"model, {path}"
    for k, v in source.state_dict().items():
        assert torch.equal(model.state_dict()[k], v)


def test_a_path_may_hold_the_backbone_alone(tmp_path):
    path = tmp_path / "mine.pth"
    state = imagenet_state(4, WIDTH)
    torch.save(state, path)
    cfg = config(tmp_path, str(path), width=WIDTH)
    model = build(cfg)
    assert initialise(model, cfg).source == f"backbone, {path} (without its classifier)"
    assert torch.equal(model.z_net.conv3.conv.weight, state["features.6.weight"])


def test_a_path_of_another_model_lists_every_difference(tmp_path):
    cfg = config(tmp_path, str(tmp_path / "other.pth"), width=WIDTH)
    model = build(cfg)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    state = dict(build(ModelConfig(width=WIDTH, seed=1)).state_dict())
    state["fm_head.extra"] = torch.zeros(3)
    del state["fm_head.reg_fc.bias"]
    state["cm_head.cls_convs.0.weight"] = torch.zeros(12, 10, 1, 1)
    torch.save(state, tmp_path / "other.pth")
    with pytest.raises(weights.WeightsError) as caught:
        initialise(model, cfg)
    text = str(caught.value)
    assert "missing: fm_head.reg_fc.bias" in text
    assert "unexpected: fm_head.extra" in text
    assert "cm_head.cls_convs.0.weight (12x10x1x1 instead of 10x10x1x1)" in text
    assert "\n" not in text
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


class Evil:
    def __reduce__(self):
        return os.mkdir, ("executed",)


def test_bad_files_are_one_clear_line_and_nothing_is_executed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    good = tmp_path / "good.pth"
    torch.save(imagenet_state(1, WIDTH), good)
    cases = {
        "code.pth": pickle.dumps({"features.0.weight": Evil()}, protocol=2),
        "cut.pth": good.read_bytes()[:-2000],
        "empty.pth": b"",
        "noise.safetensors": b"\x00" * 100,
    }
    for name, content in cases.items():
        (tmp_path / name).write_bytes(content)
    torch.save([1, 2], tmp_path / "list.pth")
    torch.save({"a": torch.zeros(1), "b": "text"}, tmp_path / "mixed.pth")
    for name in (*cases, "list.pth", "mixed.pth", "missing.pth"):
        with pytest.raises(weights.WeightsError, match=name) as caught:
            weights.read_state(tmp_path / name)
        assert "\n" not in str(caught.value)
        assert "weights_only" not in str(caught.value)  # no advice to execute it
    with pytest.raises(weights.WeightsError, match=r"it holds \w+\.mkdir, and nothing but tensors"):
        weights.read_state(tmp_path / "code.pth")
    assert not (tmp_path / "executed").exists()


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@settings(max_examples=150, deadline=None)
@given(
    st.booleans(), st.lists(st.tuples(st.integers(0), st.integers(0, 255)), max_size=3), st.data()
)
def test_flipped_and_missing_bytes_never_raise_anything_else(old, flips, data):
    buffer = io.BytesIO()
    torch.save(
        {"state_dict": {"a": torch.zeros(3)}}, buffer, _use_new_zipfile_serialization=not old
    )
    content = bytearray(buffer.getvalue())
    for place, value in flips:
        content[place % len(content)] = value
    content = content[: data.draw(st.integers(1, len(content)))]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.pth"
        path.write_bytes(content)
        with contextlib.suppress(weights.WeightsError):
            state = weights.read_state(path)
            assert all(isinstance(v, torch.Tensor) for v in state.values())


def test_an_imagenet_file_is_held_to_the_hash_in_its_name(tmp_path):
    path = tmp_path / "plain.pth"
    torch.save(imagenet_state(1, WIDTH), path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    right = path.rename(tmp_path / f"alexnet-{digest}.pth")
    assert imagenet.imagenet_file(AlexNet.pretrained, tmp_path) == right
    # A damaged file that is there is an error, never passed over in silence.
    wrong = right.rename(tmp_path / "alexnet-0000000a.pth")
    with pytest.raises(weights.WeightsError, match="damaged, its SHA-256 begins"):
        initialise(build(config(tmp_path)), config(tmp_path))
    dated = wrong.rename(tmp_path / "alexnet-20251122.pth")
    assert imagenet.imagenet_file(AlexNet.pretrained, tmp_path) == dated


def test_a_misspelt_init_names_what_it_may_be(tmp_path):
    cfg = config(tmp_path, "imagnet", width=WIDTH)
    with pytest.raises(weights.WeightsError, match="imagnet is no file; give auto, imagenet, rand"):
        initialise(build(cfg), cfg)


def test_missing_and_misshapen_backbone_tensors_are_listed(tmp_path):
    backbone = AlexNet(0.01)
    state = imagenet_state(1, WIDTH)
    del state["features.3.bias"]
    with pytest.raises(
        weights.WeightsError, match=r"missing: conv2.conv.bias; misshapen: .*instead of"
    ):
        imagenet.load_backbone(backbone, state, "x.pth")
