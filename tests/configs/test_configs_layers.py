"""``base:``: a file on top of another."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import annotated_types as at
import pytest

from configs import strict
from configs.layers import MAX_FILES
from configs.strict import ConfigError, Contradiction


@dataclass(frozen=True, kw_only=True, slots=True)
class Jitter:
    p: Annotated[float, at.Ge(0), at.Le(1)] = 0.0
    delta: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluate:
    every: int = 0
    dataset: str = "otb"


@dataclass(frozen=True, kw_only=True, slots=True)
class Data:
    path: str | None = None
    datasets: tuple[str, ...] = ("a", "b")
    weights: Mapping[str, Annotated[float, at.Gt(0)]] = field(default_factory=dict)
    hue: Jitter = field(default_factory=lambda: Jitter(p=0.5, delta=3.0))
    blur: Jitter | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Train:
    epochs: Annotated[int, at.Ge(1)] = 50
    lr: float = 0.01
    evaluate: Evaluate = field(default_factory=Evaluate)

    def __post_init__(self) -> None:
        if self.lr > self.epochs:
            raise Contradiction("lr must not exceed epochs", "lr", "epochs")


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    data: Data = field(default_factory=Data)
    train: Train = field(default_factory=Train)

    def __post_init__(self) -> None:
        if self.data.hue.p > self.train.lr > 0.6:
            raise Contradiction("p above lr", "data.hue", "train.lr")
        if self.data.datasets == ("z", "z"):
            raise Contradiction("z twice", "data.datasets", "data.weights")


BASE = (
    "data:\n"
    "  path: here\n"
    "  datasets: [x, y, z]\n"
    "  weights: {x: 1, y: 2}\n"
    "  hue: {p: 0.1}\n"
    "  blur: {p: 0.2, delta: 1}\n"
    "train:\n"
    "  epochs: 3\n"
    "  lr: 0.5\n"
    "  evaluate: {every: 2}\n"
)


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Write files by name; b.yaml is there."""
    monkeypatch.chdir(tmp_path)

    def write(**texts):
        for name, text in texts.items():
            Path(f"{name}.yaml").write_text(text, encoding="utf-8")

    write(b=BASE)
    return write


def fails(*overrides, path="a.yaml", cls=Config, section=None):
    with pytest.raises(ConfigError) as caught:
        strict.load(cls, path, overrides, section)
    return str(caught.value)


def test_sections_merge_at_every_depth_and_all_else_replaces(files):
    files(
        a="base: b.yaml\n"
        "data:\n  datasets: [z]\n  weights: {y: 5}\n  hue: {delta: 7}\n"
        "train:\n  evaluate: {dataset: lasot}\n"
    )
    assert strict.load(Config, "a.yaml") == Config(
        data=Data(
            path="here",
            datasets=("z",),
            weights={"y": 5.0},  # x is gone: these names are data
            hue=Jitter(p=0.1, delta=7.0),
            blur=Jitter(p=0.2, delta=1.0),
        ),
        train=Train(epochs=3, lr=0.5, evaluate=Evaluate(every=2, dataset="lasot")),
    )


def test_the_order_of_keys_does_not_matter_and_an_empty_section_says_nothing(files):
    files(a="train:\n  lr: 0.1\ndata:\nbase: b.yaml\n")
    config = strict.load(Config, "a.yaml")
    assert config.train == Train(epochs=3, lr=0.1, evaluate=Evaluate(every=2))
    assert config.data == strict.load(Config, "b.yaml").data


def test_null_replaces_where_null_is_a_value(files):
    files(a="base: b.yaml\ndata: {path: null, blur: null}\n")
    data = strict.load(Config, "a.yaml").data
    assert (data.path, data.blur) == (None, None)


def test_a_base_has_a_base_and_each_is_found_beside_its_own_file(files, tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep/b.yaml").write_text("base: ../b.yaml\ntrain: {lr: 0.25}\n")
    (tmp_path / "deep/c.yaml").write_text("base: b.yaml\ndata: {path: there}\n")
    files(a="base: deep/c.yaml\ntrain: {epochs: 9}\n")
    config = strict.load(Config, "a.yaml")
    assert config.train == Train(epochs=9, lr=0.25, evaluate=Evaluate(every=2))
    assert (config.data.path, config.data.weights) == ("there", {"x": 1.0, "y": 2.0})


def test_an_absolute_base(files, tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/a.yaml").write_text(f"base: {tmp_path / 'b.yaml'}\n")
    assert strict.load(Config, "sub/a.yaml") == strict.load(Config, "b.yaml")


def test_a_shipped_configuration_is_a_base_unless_a_file_of_that_name_is_here(files):
    for name in ("spm_alexnet.yaml", "spm_alexnet"):
        files(a=f"base: {name}\n")
        assert "spm_alexnet.yaml:" in fails()  # it has keys that Config has not
    files(a="base: spm_alexnet.yaml\n", spm_alexnet="train: {epochs: 4}\n")
    assert strict.load(Config, "a.yaml").train.epochs == 4


def test_overrides_come_last(files):
    files(a="base: b.yaml\ntrain: {lr: 0.1}\n")
    config = strict.load(Config, "a.yaml", ["train.lr=0.2", "data.weights.y=7"])
    assert config.train.lr == 0.2
    assert config.data.weights == {"x": 1.0, "y": 7.0}


def test_a_section_alone_has_the_base_too(files):
    files(a="base: b.yaml\ndata: {path: there}\n")
    data = strict.load(Data, "a.yaml", ["data.hue.p=0.3"], "data")
    assert (data.path, data.hue) == ("there", Jitter(p=0.3, delta=3.0))
    files(c="base: b.yaml\n")
    assert strict.load(Data, "c.yaml", section="data") == strict.load(Config, "b.yaml").data


def test_a_dump_is_whole_and_has_no_base(files):
    files(a="base: b.yaml\ntrain: {lr: 0.1}\n")
    config = strict.load(Config, "a.yaml")
    text = strict.dump(config)
    assert "base" not in text
    assert strict.load_text(Config, text, "run") == config


def test_a_text_has_a_base_only_where_it_is_told_to_look(files, tmp_path):
    text = "base: b.yaml\ntrain: {lr: 0.1}\n"
    config = strict.load_text(Config, text, "text", folder=tmp_path)
    assert config.train.lr == 0.1
    assert config.data.path == "here"
    for name in ("b.yaml", "spm_alexnet.yaml", "/etc/hostname"):
        with pytest.raises(ConfigError) as caught:
            strict.load_text(Config, f"base: {name}\n", "a model file")
        assert str(caught.value) == (
            "a model file:1: base: this text has no folder to find it in; leave it out"
        )


def test_every_error_names_the_line_where_the_value_stands(files):
    files(
        b="train:\n  epochs: 0\n  lrr: 1\n  evaluate:\n    datset: otb\n",
        a="base: b.yaml\ndata:\n  hue: {q: 1}\ntrain:\n  evaluate: {every: x}\n",
    )
    assert fails("data.blur.p=2", "train.evaluate.datset=otb").splitlines() == [
        "a.yaml:3: data.hue.q: unknown key; known are p, delta",
        "a.yaml:5: train.evaluate.every: should be a valid integer, got 'x'",
        "b.yaml:2: train.epochs: should be greater than or equal to 1, got 0",
        "b.yaml:3: train.lrr: unknown key; did you mean 'lr'?",
        "--set train.evaluate.datset: unknown key; did you mean 'dataset'?",
        "--set data.blur.p: should be less than or equal to 1, got 2",
    ]
    files(a="base: b.yaml\n")
    assert "b.yaml:5: train.evaluate.datset: unknown key; did you mean 'dataset'?" in fails()


def test_what_is_replaced_is_not_complained_of(files):
    files(b="data:\n  weights: {x: 0}\ntrain: {epochs: no, epochs: 2, lr: !!set 3}\n")
    files(a="base: b.yaml\ndata: {weights: {y: 1}}\ntrain: {epochs: 4, lr: 0.1}\n")
    assert strict.load(Config, "a.yaml").data.weights == {"y": 1.0}
    files(a="base: b.yaml\ndata: {weights: {y: 1}}\ntrain: {lr: 0.1}\n")
    assert fails().splitlines() == [
        "b.yaml:3: train.epochs: duplicate key of line 3",
        "b.yaml:3: train.epochs: should be a valid integer, got 'no'",
    ]


def test_values_that_contradict_each_other_are_told_at_that_which_was_written_last(files):
    text = "lr must not exceed epochs"
    files(a="base: b.yaml\ndata: {}\ntrain:\n  lr: 4\n")
    assert fails() == f"a.yaml:4: train.lr: {text} (train.epochs: b.yaml:8)"
    assert fails(path="a.yaml", cls=Train, section="train") == fails()
    files(a="base: b.yaml\ndata: {}\ntrain:\n\n  epochs: 1\n  evaluate: {every: 1}\n")
    assert fails("train.lr=9") == f"--set train.lr: {text} (train.epochs: a.yaml:5)"
    assert fails("train.lr=9", "train.epochs=2", "data.path=x") == f"--set train.epochs: {text}"
    assert fails("train.epochs=2", "train.lr=9", "train.evaluate.every=3") == (
        f"--set train.lr: {text}"
    )
    files(a="train:\n  epochs: 1\n  lr: 9\n")
    assert fails() == f"a.yaml:3: train.lr: {text} (train.epochs: a.yaml:2)"
    files(a="train:\n  lr: 99\n")
    assert fails() == f"a.yaml:2: train.lr: {text}"  # epochs is the default


def test_a_rule_of_the_whole_configuration(files):
    files(a="base: b.yaml\ntrain:\n  lr: 0.7\n")
    assert fails("data.hue.p=0.8") == "--set data.hue.p: p above lr (train.lr: a.yaml:3)"
    files(a="base: b.yaml\ntrain: {epochs: 4}\ndata:\n  hue:\n    p: 0.8\n")
    files(b="train:\n  lr: 0.7\n")
    assert fails() == "a.yaml:5: data.hue.p: p above lr (train.lr: b.yaml:2)"
    files(b="data:\n  weights: {z: 1}\n", a="base: b.yaml\ndata:\n  datasets: [z, z]\n")
    assert fails() == "a.yaml:3: data.datasets: z twice (data.weights.z: b.yaml:2)"


def test_a_file_of_one_s_own_has_the_name_of_the_shipped_one_below_it(files):
    for name in ("spm_alexnet.yaml", "spm_alexnet"):
        files(spm_alexnet=f"base: {name}\n")
        text = fails(path="spm_alexnet.yaml")
        assert "circle" not in text
        assert "configs/spm_alexnet.yaml:" in text  # its keys, which Config has not


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "\nbase: c.yaml\n",
            "a.yaml:2: base: c.yaml: no such config file in .; shipped are ",
        ),
        ("base: .\n", "a.yaml:1: base: .: is a folder, not a config file; shipped are "),
        ("base: spm_alexnt.yaml\n", "; did you mean 'spm_alexnet.yaml'?"),
        ("base: [b.yaml]\n", "a.yaml:1: base: should be the name of one config file, got ["),
        ("base:\n", "a.yaml:1: base: should be the name of one config file, got ''"),
        ("base: 3\n", "a.yaml:1: base: should be the name of one config file, got 3"),
        ("base: b.yaml\nbase: b.yaml\n", "a.yaml:2: base: duplicate key of line 1"),
        ("base: b.yaml\ntrain: {base: b.yaml}\n", "a.yaml:2: train.base: unknown key"),
        ("bsae: b.yaml\n", "a.yaml:1: bsae: unknown key; did you mean 'base'?"),
        ("base: a.yaml\n", "a.yaml:1: base: a circle: a.yaml on a.yaml; one must do without"),
        ("base: list.yaml\n", "list.yaml:1: should be a mapping of sections, got [1]"),
        ("base: syntax.yaml\n", "syntax.yaml:2: not valid YAML: "),
    ],
)
def test_a_wrong_base_is_a_clear_line(files, text, message):
    files(a=text, list="- 1\n", syntax="train: {\n")
    assert message in fails()
    assert "\n" not in fails()


def test_what_all_names_end_in_is_no_hint(files):
    files(a="base: nope.yaml\n")
    assert "did you mean" not in fails()


def test_a_misspelt_base_is_found_when_a_section_is_read_alone(files):
    files(a="bsae: b.yaml\ndata: {path: x}\n")
    assert fails(cls=Data, section="data") == ("a.yaml:1: bsae: unknown key; did you mean 'base'?")


def test_a_circle_over_several_files_and_names(files, tmp_path):
    (tmp_path / "link.yaml").symlink_to(tmp_path / "a.yaml")
    files(a="base: c.yaml\n", c="base: d.yaml\n", d="train: {}\nbase: link.yaml\n")
    assert fails() == (
        "d.yaml:2: base: a circle: a.yaml on c.yaml on d.yaml on link.yaml; one must do without "
        "a base"
    )


def test_a_chain_is_bounded(files):
    def chain(count):
        files(**{f"f{i}": f"base: f{i + 1}.yaml\n" for i in range(count - 1)})
        files(**{f"f{count - 1}": "train: {epochs: 6}\n"})

    chain(MAX_FILES)
    assert strict.load(Config, "f0.yaml").train.epochs == 6
    chain(MAX_FILES + 1)
    last = f"f{MAX_FILES - 1}.yaml"
    assert fails(path="f0.yaml") == (
        f"{last}:1: base: more than {MAX_FILES} files on top of each other"
    )


def test_a_base_cannot_be_set_on_the_command_line(files):
    files(a="train: {epochs: 4}\n")
    message = (
        "--set base=b.yaml: a base is named in a file: give that file as --config, or begin a "
        "file of your own with 'base: b.yaml'"
    )
    assert fails("base=b.yaml") == message
    assert fails("base=b.yaml", cls=Data, section="data") == message


def test_a_section_written_in_part_keeps_the_defaults_that_it_has_as_a_whole(files):
    """As if the file had the defaults for its base: hue's are not those of its class."""
    files(a="data:\n  hue: {delta: 9}\n")
    assert strict.load(Config, "a.yaml").data.hue == Jitter(p=0.5, delta=9.0)
    assert strict.load(Config, "a.yaml", ["data.hue.p=0.25"]).data.hue == Jitter(p=0.25, delta=9.0)
    files(a="data:\n  blur: {delta: 9}\n")  # which is null as a whole
    assert strict.load(Config, "a.yaml").data.blur == Jitter(p=0.0, delta=9.0)


def test_the_places_of_values_are_told(files):
    files(a="base: b.yaml\ntrain:\n  lr: 0.1\n")
    found = strict.resolve(Config, "a.yaml", ["train.evaluate.every=4"])
    assert found.source == "a.yaml"
    assert found.where["train", "lr"] == "a.yaml:3"
    assert found.where["train", "epochs"] == "b.yaml:8"
    assert found.where["train", "evaluate", "every"] == "--set"
    assert ("train", "evaluate", "dataset") not in found.where
