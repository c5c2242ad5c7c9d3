import json
import os

import checkpoint_files as made
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import save_file

from shards.errors import KNOWN_ERRORS, MismatchError
from tracker.cli import main
from tracker.files import open_model, save_model
from tracker.header import read_header
from tracker.models import ModelConfig, build
from tracker.published import MODELS, convert, recognise
from tracker.weights import WeightsError, read_content


@pytest.fixture(scope="module")
def state():
    """Tensors of a published spm_alexnet, with random numbers."""
    return dict(build(ModelConfig(init="random", seed=11)).state_dict())


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, state):
    return made.published(tmp_path_factory.mktemp("published") / "epoch_50.pth", state)


def shapes(name="spm_alexnet"):
    """Tensors of a published model with the right shapes that take no memory."""
    with torch.device("meta"):
        model = build(ModelConfig(name=name, init="random"))
    return {
        k: torch.zeros((), dtype=v.dtype).expand(v.shape) for k, v in model.state_dict().items()
    }


def same(a, b):
    return list(a) == list(b) and all(torch.equal(v, b[k]) for k, v in a.items())


def test_the_published_form_becomes_a_model_file(tmp_path, checkpoint, state):
    out = tmp_path / "new" / "spm_alexnet.safetensors"
    done = convert(checkpoint, out)
    assert (done.model, done.grid, done.epoch, done.step) == ("spm_alexnet", "corner", 50, None)
    assert (done.tensors, done.parameters, done.notes) == (32, 24_009_304, ())
    header = read_header(out)
    assert header.source == f"epoch_50.pth, epoch 50, sha256 {done.sha256}"
    assert header.model == ModelConfig(grid="corner")
    opened = open_model(out)
    assert same(opened.model.state_dict(), state)
    assert opened.config.grid == "corner"
    assert opened.model.anchors[7225 // 5 // 2].tolist() == [95, 95, 159, 159]  # about 127
    before = out.read_bytes()
    assert convert(checkpoint, out) == done  # again is safe
    assert out.read_bytes() == before


@pytest.mark.parametrize("form", ["legacy.pth", "bare.pth", "bare.safetensors"])
def test_other_forms_give_the_same_model(tmp_path, state, form):
    path = tmp_path / form
    if form == "legacy.pth":
        made.published(path, state, epoch=np.int64(50), old=True)
    elif form == "bare.pth":
        torch.save(state, path)
    else:
        save_file(state, path)
    done = convert(path, tmp_path / "out.safetensors")
    assert done.epoch == (50 if form == "legacy.pth" else None)
    assert same(open_model(tmp_path / "out.safetensors").model.state_dict(), state)


def test_numbers_of_numpy_in_the_facts_are_plain(tmp_path):
    path = tmp_path / "epoch_7.pth"
    meta = {"epoch": np.int64(7), "lr": np.float64(0.1), "ok": np.bool_(True)}
    for old in (False, True):
        torch.save(
            {"meta": meta, "state_dict": {"a": torch.ones(1)}},
            path,
            _use_new_zipfile_serialization=not old,
        )
        if old:  # the name that NumPy 1 wrote
            assert b"numpy._core.multiarray" in path.read_bytes()
            path.write_bytes(
                path.read_bytes().replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
            )
        assert read_content(path)["meta"] == meta


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_become_float32_and_are_named(tmp_path, state, dtype):
    cast = {k: v.to(dtype) if k.startswith("z_net") else v for k, v in state.items()}
    torch.save(cast, tmp_path / "half.pth")
    done = convert(tmp_path / "half.pth", tmp_path / "out.safetensors")
    name = str(dtype).removeprefix("torch.")
    assert done.notes[0] == f"10 tensors were {name} and are float32 now"
    want = {k: v.float() for k, v in cast.items()}
    assert same(open_model(tmp_path / "out.safetensors").model.state_dict(), want)


def test_shared_and_transposed_tensors_are_converted(tmp_path, state):
    odd = dict(state)
    odd["cm_fusion.x_conv.1.weight"] = odd["cm_fusion.x_conv.0.weight"]
    odd["fm_head.feat_fcs.2.weight"] = odd["fm_head.feat_fcs.2.weight"].t()
    torch.save(odd, tmp_path / "odd.pth")
    convert(tmp_path / "odd.pth", tmp_path / "out.safetensors")
    assert same(open_model(tmp_path / "out.safetensors").model.state_dict(), odd)


@pytest.mark.parametrize("link", ["latest.pth", "best.pth"])
def test_a_runs_checkpoint_keeps_its_grid_and_settings(tmp_path, link):
    config = ModelConfig(width=0.0625, grid="edge", seed=5)
    made.of_run(tmp_path / "step_00000120.pth", config)
    (tmp_path / link).symlink_to("step_00000120.pth")
    done = convert(tmp_path / link, tmp_path / "mine.safetensors", model="spm_alexnet")
    assert (done.grid, done.source, done.step, done.epoch) == ("edge", "step_00000120.pth", 120, 2)
    opened = open_model(tmp_path / "mine.safetensors")
    assert opened.config == config
    assert same(opened.model.state_dict(), build(config).state_dict())


def test_every_model_is_recognised_by_its_tensors(tmp_path):
    for name in MODELS:
        assert recognise(shapes(name), tmp_path) == name
        assert recognise(shapes(name), tmp_path, name) == name


def test_differences_from_the_closest_model_are_listed(tmp_path):
    wrong = shapes()
    del wrong["fm_head.reg_fc.bias"]
    wrong["fm_head.more"] = torch.zeros(3)
    wrong["cm_head.cls_convs.0.weight"] = torch.zeros(12, 10, 1, 1)
    for wanted, what in ((None, "of no known model; closest is"), ("spm_alexnet", "not of")):
        with pytest.raises(WeightsError) as caught:
            recognise(wrong, tmp_path / "x.pth", wanted)
        assert str(caught.value) == (
            f"{tmp_path}/x.pth: these weights are {what} spm_alexnet: missing: "
            "fm_head.reg_fc.bias; unexpected: fm_head.more; misshapen: cm_head.cls_convs.0.weight "
            "(12x10x1x1 instead of 10x10x1x1)"
        )


def test_many_differences_are_cut(tmp_path):
    few = {k: v for k, v in shapes().items() if k.startswith("z_net")}
    with pytest.raises(WeightsError, match=r"missing: (\S+, ){11}\S+ and 10 more$") as caught:
        recognise(few, tmp_path)
    assert len(str(caught.value)) < 1000


PYSOT = (
    "backbone.layer1.0.weight", "neck.downsample.0.weight", "rpn_head.cls.conv_kernel.0.weight",
    "rpn_head.cls.head.3.weight", "rpn_head.loc.head.3.weight",
)  # fmt: skip


@pytest.mark.parametrize(
    ("names", "what"),
    [
        (PYSOT, r"pysot's: there the outputs go by class before anchor.*cannot be converted"),
        (("features.0.weight", "classifier.1.bias"), "ImageNet classifier's; use --imagenet"),
        (("encoder.a", "encoder.b"), "none of its names is known here, such as encoder.a, enc"),
    ],
)
def test_weights_of_other_projects_are_explained(tmp_path, names, what):
    torch.save({"state_dict": {k: torch.zeros(2, 2) for k in names}}, tmp_path / "x.pth")
    with pytest.raises(WeightsError, match=rf"x\.pth: weights of another project: .*{what}"):
        convert(tmp_path / "x.pth", tmp_path / "out.safetensors")
    assert [p.name for p in tmp_path.iterdir()] == ["x.pth"]


def broken(state, **changes):
    return {**state, **{k.replace("__", "."): v for k, v in changes.items()}}


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"fm_head__cls_fc__bias": torch.tensor([0, float("nan")])}, "NaN .*in fm_head.cls_fc.b"),
        (
            {"fm_head__cls_fc__bias": torch.tensor([1e300, 0], dtype=torch.float64)},
            "NaN or infinite numbers in fm_head.cls_fc.bias",
        ),
        ({"fm_head__cls_fc__bias": torch.tensor([1, 2])}, r"cls_fc.bias \(torch.int64\)"),
        ({"fm_head__cls_fc__bias": torch.zeros(2, dtype=torch.complex64)}, "complex64"),
        ({"fm_head__cls_fc__bias": torch.zeros(2).to_sparse()}, "not plain numbers"),
        (
            {"fm_head__cls_fc__bias": [0.0, 0.0]},
            "but fm_head.cls_fc.bias are none",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:Validating sparse|Sparse")
def test_tensors_that_are_no_finite_numbers_are_named(tmp_path, state, changes, what):
    torch.save(broken(state, **changes), tmp_path / "x.pth")
    with pytest.raises(WeightsError, match=what):
        convert(tmp_path / "x.pth", tmp_path / "out.safetensors")
    assert [p.name for p in tmp_path.iterdir()] == ["x.pth"]


@pytest.mark.parametrize("kind", ["zip", "legacy", "plain", "tar"])
def test_code_is_never_executed(tmp_path, kind):
    path = made.with_code(tmp_path, kind, tmp_path / "executed")
    with pytest.raises(WeightsError, match="not a readable file of weights"):
        convert(path, tmp_path / "out.safetensors")
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_a_class_in_a_checkpoint_is_named(tmp_path):
    content = {"meta": {"config": torch.nn.Identity()}, "state_dict": {"a": torch.zeros(1)}}
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(WeightsError, match=r"it holds torch\.nn\.modules\.linear\.Identity, and"):
        convert(tmp_path / "x.pth", tmp_path / "out.safetensors")


@pytest.mark.parametrize("suffix", [".pth", ".old.pth", ".safetensors"])
def test_a_published_file_that_was_cut_is_refused(tmp_path, state, suffix):
    path = tmp_path / f"x{suffix}"
    if suffix == ".safetensors":
        save_file(state, path)
    else:
        made.published(path, state, old=suffix == ".old.pth")
    whole = path.stat().st_size
    for share in (1 - 1e-8, 0.999, 0.7, 0.31, 1e-3, 1e-5, 1e-6, 1e-7, 0):
        os.truncate(path, int(whole * share))
        with pytest.raises(WeightsError, match=r"not a readable file of weights") as caught:
            convert(path, tmp_path / "out.safetensors")
        assert "\n" not in str(caught.value)


def test_a_folder_and_nothing_are_named(tmp_path):
    with pytest.raises(WeightsError, match="is a folder"):
        convert(tmp_path, tmp_path / "out.safetensors")
    with pytest.raises(WeightsError, match="no such file"):
        convert(tmp_path / "x.pth", tmp_path / "out.safetensors")


def test_no_other_file_is_overwritten_without_force(tmp_path):
    first, second = (
        made.of_run(tmp_path / f"{seed}.pth", ModelConfig(width=0.001, seed=seed))
        for seed in (1, 2)
    )
    out = tmp_path / "out.safetensors"
    convert(first, out)
    with pytest.raises(MismatchError, match=r"is a model file of 1\.pth, .*or --force to replace"):
        convert(second, out)
    out.write_text("a poem")
    with pytest.raises(MismatchError, match="is no model file; give another --out, or --force"):
        convert(second, out)
    assert out.read_text() == "a poem"
    out.write_bytes(b"12345678{broken")
    with pytest.raises(MismatchError, match="is no readable model file"):
        convert(second, out)
    convert(second, out, force=True)
    assert open_model(out).config.seed == 2
    (tmp_path / "dir.safetensors").mkdir()
    with pytest.raises(MismatchError, match="is not a file"):
        convert(second, tmp_path / "dir.safetensors", force=True)
    with pytest.raises(MismatchError, match="is the file to convert"):
        convert(second, second, force=True)
    with pytest.raises(WeightsError, match="is a model file already"):
        convert(out, tmp_path / "new.safetensors")


def test_a_damaged_copy_of_the_same_is_mended(tmp_path):
    source = made.of_run(tmp_path / "a.pth", ModelConfig(width=0.001))
    out = tmp_path / "out.safetensors"
    convert(source, out)
    good = out.read_bytes()
    out.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    with pytest.raises(KNOWN_ERRORS, match="not what was written"):
        open_model(out)
    convert(source, out)
    assert out.read_bytes() == good


def test_a_run_of_another_model_is_named(tmp_path):
    source = made.of_run(tmp_path / "a.pth", ModelConfig(width=0.001))
    with pytest.raises(WeightsError, match="a run's checkpoint of spm_alexnet, not other"):
        convert(source, tmp_path / "out.safetensors", model="other")


def run(*words):
    return CliRunner().invoke(main, ["convert", *map(str, words)])


def test_the_command_says_what_it_made(tmp_path):
    source = made.of_run(tmp_path / "a.pth", ModelConfig(width=0.001))
    out = tmp_path / "out.safetensors"
    shown = run("--from", source, "--out", out)
    assert shown.exit_code == 0
    assert shown.output.startswith(f"{out}: spm_alexnet, grid edge, 32 tensors, ")
    facts = json.loads(run("--from", source, "--out", out, "--json").stdout)
    assert facts["model"] == "spm_alexnet"
    assert facts["epoch"] == 2
    assert facts["source"] == "a.pth"


def test_failures_of_the_command_are_one_line_and_1_and_misuse_is_2(tmp_path):
    model = build(made.NARROW)
    save_model(tmp_path / "own.safetensors", model, source="a test")
    failed = run("--from", tmp_path / "own.safetensors", "--out", tmp_path / "b.safetensors")
    assert failed.exit_code == 1
    assert failed.stderr.count("\n") == 1
    assert failed.stdout == ""
    assert run("--out", "b.safetensors").exit_code == 2
    misspelt = run("--from", "a.pth", "--out", "b.safetensors", "--model", "spm_alex")
    assert misspelt.exit_code == 2
    assert "spm_alexnet" in misspelt.stderr


def test_what_was_kept_of_a_runs_checkpoint_keeps_its_grid_and_settings(tmp_path):
    config = ModelConfig(width=0.0625, grid="edge", seed=5)
    whole = torch.load(made.of_run(tmp_path / "latest.pth", config), weights_only=True)
    torch.save({key: whole[key] for key in ("meta", "state_dict")}, tmp_path / "slim.pth")
    done = convert(tmp_path / "slim.pth", tmp_path / "slim.safetensors")
    assert (done.model, done.grid) == ("spm_alexnet", "edge")
    assert open_model(tmp_path / "slim.safetensors").config == config


def test_tensors_alone_are_said_to_be_taken_for_published_ones(tmp_path):
    state = build(ModelConfig(name="siamfc_alexnet", grid="corner")).state_dict()
    torch.save(dict(state), tmp_path / "bare.pth")
    done = convert(tmp_path / "bare.pth", tmp_path / "bare.safetensors")
    assert done.grid == "corner"
    assert any("do not say of which grid" in note for note in done.notes)


def test_names_with_and_without_module_are_refused(tmp_path):
    state = dict(build(ModelConfig(name="siamfc_alexnet", grid="corner")).state_dict())
    state["module.head.score_bias"] = state["head.score_bias"] + 1
    torch.save(state, tmp_path / "two.pth")
    with pytest.raises(WeightsError, match=r"before their names: head.score_bias"):
        convert(tmp_path / "two.pth", tmp_path / "two.safetensors")
