from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import annotated_types as at
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from configs import strict
from configs.layers import hint
from configs.strict import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class Jitter:
    p: Annotated[float, at.Ge(0), at.Le(1)] = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Data:
    path: str | None = None
    datasets: tuple[str, ...] = ()
    gap: tuple[int, int] | None = None
    weights: dict[str, Annotated[float, at.Gt(0)]] = field(default_factory=dict)
    jitter: Jitter = field(default_factory=Jitter)


@dataclass(frozen=True, kw_only=True, slots=True)
class Train:
    epochs: Annotated[int, at.Ge(1)]
    batch_size: int = 32
    lr: float = 0.01
    amp: Literal["off", "bf16"] = "off"
    fused: bool = False
    out: Path = Path("runs")

    def __post_init__(self) -> None:
        if self.lr > self.epochs:
            raise ValueError("lr must not exceed epochs")


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    data: Data = field(default_factory=Data)
    train: Train


GOOD = "train:\n  epochs: 3\n"


@pytest.fixture
def load(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def load(text, *overrides, section=None, cls=Config):
        Path("a.yaml").write_text(text, encoding="utf-8")
        return strict.load(cls, "a.yaml", overrides, section)

    return load


def test_a_file_becomes_the_dataclass(load):
    text = (
        "data: # an empty section has its defaults\n"
        "train:\n  epochs: 1_000\n  lr: 1e-3\n  amp: off\n  out: x/y\n"
    )
    assert load(text) == Config(train=Train(epochs=1000, lr=0.001, out=Path("x/y")))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param(
            "train:\n  epochs: 1\n  batchsize: 4\n",
            "a.yaml:3: train.batchsize: unknown key; did you mean 'batch_size'?",
            id="unknown",
        ),
        pytest.param(
            "train: {epochs: 1}\nzzz: 1\n",
            "a.yaml:2: zzz: unknown key; known are data, train",
            id="unknown-far",
        ),
        pytest.param(
            "data:\n  jitter:\n    q: 1\ntrain: {epochs: 1}\n",
            "a.yaml:3: data.jitter.q: unknown key; known are p",
            id="unknown-deep",
        ),
        pytest.param(
            "train:\n  epochs: 1\n  epochs: 2\n",
            "a.yaml:3: train.epochs: duplicate key of line 2",
            id="duplicate",
        ),
        pytest.param(
            "data: {}\ntrain:\n  lr: 0.1\n",
            "a.yaml:2: train.epochs: missing; it has no default",
            id="missing",
        ),
        pytest.param("", "a.yaml:1: train: missing; it has no default", id="empty"),
        pytest.param(
            "train:\n  epochs: '3'\n",
            "a.yaml:2: train.epochs: should be a valid integer, got '3'",
            id="number-as-text",
        ),
        pytest.param(
            "train:\n  epochs: 010\n",
            "a.yaml:2: train.epochs: should be a valid integer, got '010'",
            id="leading-zero",
        ),
        pytest.param(
            "train:\n  epochs: true\n",
            "a.yaml:2: train.epochs: should be a valid integer, got true",
            id="flag-as-number",
        ),
        pytest.param(
            "train:\n  epochs: 3\n  fused: yes\n",
            "a.yaml:3: train.fused: should be a valid boolean, got 'yes'",
            id="yes-is-no-flag",
        ),
        pytest.param(
            "train:\n  epochs: 0\n",
            "a.yaml:2: train.epochs: should be greater than or equal to 1, got 0",
            id="range",
        ),
        pytest.param(
            "train: {epochs: 3}\ndata:\n  weights:\n    lasot: 1\n    coco: 0\n",
            "a.yaml:5: data.weights.coco: should be greater than 0, got 0",
            id="range-in-mapping",
        ),
        pytest.param(
            "train:\n  epochs: 3\n  amp: bf61\n",
            "a.yaml:3: train.amp: should be 'off' or 'bf16', got 'bf61'; did you mean 'bf16'?",
            id="choice",
        ),
        pytest.param(
            "train: {epochs: 3}\ndata:\n  datasets:\n    - lasot\n    - 4\n",
            "a.yaml:5: data.datasets[1]: should be a valid string, got 4",
            id="list-item",
        ),
        pytest.param(
            "train: {epochs: 3}\ndata:\n  datasets: lasot\n",
            "a.yaml:3: data.datasets: should be a list, got 'lasot'",
            id="list",
        ),
        pytest.param(
            "train: 3\n", "a.yaml:1: train: should be a section with keys, got 3", id="section"
        ),
        pytest.param(
            "\ntrain:\n  epochs: 1\n  lr: 2\n",
            "a.yaml:2: train: lr must not exceed epochs",
            id="cross-field",
        ),
        pytest.param(
            "- 1\n", "a.yaml:1: should be a mapping of sections, got a list", id="no-mapping"
        ),
        pytest.param(
            "train: {epochs: 1}\n? [a]\n: 1\n",
            "a.yaml:1: a key on line 2 is not plain text",
            id="key",
        ),
        pytest.param(
            "train:\n  epochs: [1\n",
            "a.yaml:3: not valid YAML: while parsing a flow sequence expected ',' or ']', "
            "but got '<stream end>'",
            id="syntax",
        ),
        pytest.param(
            "train: 1\n---\ntrain: 2\n",
            "a.yaml:2: not valid YAML: expected a single document in the stream "
            "but found another document",
            id="two-documents",
        ),
        pytest.param(
            "train: 1\na: \x07\n",
            "a.yaml:2: not valid YAML: special characters are not allowed",
            id="control",
        ),
    ],
)
def test_each_error_names_place_key_and_reason(load, text, message):
    with pytest.raises(ConfigError) as caught:
        load(text)
    assert str(caught.value) == message


def test_all_errors_are_reported_together_in_the_order_of_the_file(load):
    with pytest.raises(ConfigError) as caught:
        load(
            "train:\n  epochs: 0\n  lrr: 1\n  fused: 1\ndata:\n  gap: [1]\n",
            "train.batch_size=x",
            "data.dtasets=a",
        )
    assert str(caught.value).splitlines() == [
        "a.yaml:2: train.epochs: should be greater than or equal to 1, got 0",
        "a.yaml:3: train.lrr: unknown key; did you mean 'lr'?",
        "a.yaml:4: train.fused: should be a valid boolean, got 1",
        "a.yaml:6: data.gap[1]: missing; it has no default",
        "--set data.dtasets: unknown key; did you mean 'datasets'?",
        "--set train.batch_size: should be a valid integer, got 'x'",
    ]


def test_a_misspelt_required_key_is_one_error(load):
    with pytest.raises(ConfigError) as caught:
        load("train:\n  epoch: 3\n")
    assert str(caught.value) == "a.yaml:2: train.epoch: unknown key; did you mean 'epochs'?"


@pytest.mark.parametrize("tag", ["!!python/object/apply:os.system [ls]", "!!set {a}", "!own 3"])
def test_no_tag_is_obeyed(load, tag):
    with pytest.raises(ConfigError, match=r"^a\.yaml:2: train\.epochs: tag '.*' is not allowed"):
        load(f"train:\n  epochs: {tag}\n")


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [1,1,1,1,1,1,1,1]\n"
        + "".join(
            f"{new}: &{new} [{','.join([f'*{old}'] * 8)}]\n"
            for old, new in zip("abcdefg", "bcdefgh", strict=True)
        ),
        "train: &a [*a]",
        "train: &a {b: *a}",
        "[" * 5000,
        "a: " + "{a: " * 60 + "1" + "}" * 60,
    ],
    ids=["bomb", "endless-list", "endless-mapping", "brackets", "deep"],
)
def test_aliases_and_nesting_are_bounded(load, text):
    with pytest.raises(ConfigError, match=r"unfolds into more than|nested deeper than"):
        load(text)


def test_an_alias_within_bounds_is_a_copy(load):
    text = "train: {epochs: 3}\ndata:\n  weights: &w {a: 1.0}\n"
    assert load(text + "  jitter: {p: 0.5}\n").data.weights == {"a": 1.0}
    with pytest.raises(ConfigError, match="unknown key"):
        load(text + "  jitter: *w\n")


def test_files_that_cannot_be_text_are_refused(tmp_path):
    path = tmp_path / "b.yaml"
    path.write_bytes(b"a: 1\nb: \xff\n")
    with pytest.raises(ConfigError, match=r"b\.yaml:2: not UTF-8 text"):
        strict.load(Config, path)
    path.write_bytes(b"#" * (1 << 21))
    with pytest.raises(ConfigError, match="too long for a config"):
        strict.load(Config, path)


def test_a_number_of_endless_digits_is_refused(load):
    with pytest.raises(ConfigError, match=r"^a\.yaml:1: train\.epochs: a number of 9999 char"):
        load("train: {epochs: " + "1" * 9999 + "}")


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("data.datasets=lasot,got10k", "datasets", ("lasot", "got10k")),
        ("data.datasets=lasot", "datasets", ("lasot",)),
        ("data.datasets=[lasot, coco]", "datasets", ("lasot", "coco")),
        ("data.datasets=", "datasets", ()),
        ("data.gap=1,2", "gap", (1, 2)),
        ("data.gap=null", "gap", None),
        ("data.path=2024", "path", "2024"),
        ("data.path=a=b,c", "path", "a=b,c"),
        ("data.path='x y'", "path", "x y"),
        ("data.weights.coco=.5", "weights", {"lasot": 1.0, "coco": 0.5}),
        ("data.weights={coco: 2}", "weights", {"coco": 2.0}),
        ("data.jitter.p=1e-1", "jitter", Jitter(p=0.1)),
        (" data.gap = 3, 4 ", "gap", (3, 4)),
    ],
)
def test_overrides_are_read_by_the_type_of_their_field(load, override, key, value):
    config = load("train: {epochs: 3}\ndata: {weights: {lasot: 1}}\n", override)
    assert getattr(config.data, key) == value


def test_the_last_override_wins_and_a_bad_value_of_the_file_does_not_matter(load):
    config = load("train: {epochs: no}\n", "train.epochs=2", "train.epochs=5", "train.amp=off")
    assert config.train == Train(epochs=5)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.epochs=0", "--set train.epochs: should be greater than or equal to 1, got 0"),
        ("train.epoch=1", "--set train.epoch: unknown key; did you mean 'epochs'?"),
        ("trian.epochs=1", "--set trian: unknown key; did you mean 'train'?"),
        ("data.gap=1,b", "--set data.gap[1]: should be a valid integer, got 'b'"),
        ("train.epochs", "--set train.epochs: should read key.key=value"),
        ("=3", "--set =3: should read key.key=value"),
        ("train.epochs.x=3", "--set train.epochs.x=3: train.epochs has no keys in it"),
        ("train.lr=[1", "--set train.lr: not valid YAML"),
        ("train.lr=!!python/name:os.system x", "--set train.lr: tag"),
        ("data.weights={a: 1, a: 2}", "--set data.weights.a: duplicate key"),
        ("train={lr: 0.1, lr: 0.2}", "--set train.lr: duplicate key"),
        ("train={lrr: 0.1}", "--set train.lrr: unknown key; did you mean 'lr'?"),
        ("train={lr: x}", "--set train.lr: should be a valid number, got 'x'"),
        ("train=3", "--set train: should be a section with keys, got 3"),
        ("train=", "--set train=: train is a section, which stays: give a key of it, as in --set "),
        ("data.jitter=null", "--set data.jitter=null: data.jitter is a section, which stays: give"),
        ("lr=0.1", "--set lr: unknown key; did you mean 'train.lr'?"),
        ("data.epochs=1", "--set data.epochs: unknown key; did you mean 'train.epochs'?"),
        ("train.amp=fp8", "--set train.amp: should be 'off' or 'bf16', got 'fp8'"),
        ("data.path=\udc80", "--set 'data.path=\\udc80': not UTF-8 text"),
        ('data.weights={"\\ud800": 1}', "--set data.weights: a key on line 1 is not Unicode text"),
        ('data.datasets=["\\ud800"]', "--set data.datasets[0]: not Unicode text: '\\ud800'"),
    ],
)
def test_errors_of_overrides_name_the_option(load, override, message):
    with pytest.raises(ConfigError) as caught:
        load(GOOD, override)
    assert message in str(caught.value)
    if "unknown" not in message:
        assert str(caught.value).startswith(message)


def test_a_mapping_goes_into_a_section_as_a_file_on_top_does(load):
    text = "train: {epochs: 3, batch_size: 8}\ndata:\n  weights: {a: 1}\n"
    config = load(text, "train={lr: 0.5}", "data={path: x, weights: {b: 2}, jitter: {p: 1}}")
    assert config.train == Train(epochs=3, batch_size=8, lr=0.5)
    assert config.data == Data(path="x", weights={"b": 2.0}, jitter=Jitter(p=1.0))
    assert load(text, "train={}") == load(text)
    assert load("data:\n", "train={epochs: 2}").train == Train(epochs=2)


@pytest.mark.parametrize(
    ("key", "guess"),
    [
        ("batchsize", "batch_size"),
        ("epoch", "epochs"),
        ("max_steps", None),
        ("bad_steps", "max_bad_steps"),
        ("tpu", None),
    ],
)
def test_a_hint_is_given_for_what_is_close(key, guess):
    known = ["batch_size", "epochs", "max_bad_steps", "lr_steps", "cpu"]
    assert hint(key, known) == (f"; did you mean {guess!r}?" if guess else "")


def test_a_name_of_several_sections():
    @dataclass
    class Seeded:
        seed: int = 0

    @dataclass
    class Whole:
        a: Seeded = field(default_factory=Seeded)
        b: Seeded = field(default_factory=Seeded)
        c: Seeded = field(default_factory=Seeded)

    with pytest.raises(ConfigError) as caught:
        strict.load_text(Whole, "seed: 3\n", "text")
    assert str(caught.value) == (
        "text:1: seed: unknown key; did you mean 'a.seed', 'b.seed' or 'c.seed'?"
    )


def test_a_section_alone_ignores_the_others(load):
    text = "data: {path: x}\ntrain: {nonsense: [1]}\n"
    assert load(text, section="data", cls=Data) == Data(path="x")
    assert load(text, "data.path=y", section="data", cls=Data) == Data(path="y")
    assert load("train: 1\n", section="data", cls=Data) == Data()
    with pytest.raises(ConfigError, match=r"^a\.yaml:1: data\.pth: unknown key; did you mean"):
        load("data: {pth: x}\n", section="data", cls=Data)
    with pytest.raises(ConfigError, match=r"^a\.yaml:1: dtaa: unknown key; did you mean 'data'\?"):
        load("dtaa: {path: x}\n", section="data", cls=Data)
    with pytest.raises(ConfigError, match=r"only keys of 'data\.' have a meaning here"):
        load(text, "train.epochs=1", section="data", cls=Data)


def test_a_name_that_is_no_file_is_one_of_the_shipped(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "spm_alexnet.yaml" in strict.shipped()
    for name in ("spm_alexnet.yaml", "spm_alexnet"):
        with pytest.raises(ConfigError, match=r"spm_alexnet\.yaml:\d+: model: unknown key"):
            strict.load(Config, name)
    with pytest.raises(ConfigError) as caught:
        strict.load(Config, "spm_alexnt.yaml")
    assert str(caught.value).startswith("spm_alexnt.yaml: no such config file; shipped are ")
    assert str(caught.value).endswith("; did you mean 'spm_alexnet.yaml'?")
    with pytest.raises(ConfigError, match="is a folder, not a config file"):
        strict.load(Config, tmp_path)


def test_a_file_here_comes_before_a_shipped_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("spm_alexnet.yaml").write_text(GOOD)
    assert strict.load(Config, "spm_alexnet.yaml").train.epochs == 3


def test_a_shipped_config_says_what_it_is_for():
    folder = Path(strict.__file__).parent
    for name in strict.shipped():
        comment = (folder / name).read_text(encoding="utf-8").split("\n\n")[0]
        for word in ("# Command", "# Time", "# Result", "# Hardware"):
            assert word in comment, f"{name} says no {word}"


text_strategy = st.text(st.characters(exclude_categories=["Cs"]), max_size=20) | st.sampled_from(
    ["1e-3", "off", "yes", "null", "~", "", "010", "0x1", "1:30", "2001-01-01", ".inf", "<<", "="]
)
number = st.floats(allow_nan=False)


@given(
    st.builds(
        Config,
        data=st.builds(
            Data,
            path=st.none() | text_strategy,
            datasets=st.lists(text_strategy, max_size=3).map(tuple),
            gap=st.none() | st.tuples(st.integers(), st.integers()),
            weights=st.dictionaries(
                text_strategy, st.floats(0, exclude_min=True, allow_nan=False), max_size=3
            ),
            jitter=st.builds(Jitter, p=st.floats(0, 1)),
        ),
        train=st.builds(
            Train,
            epochs=st.integers(1, 10**12),
            batch_size=st.integers(),
            lr=st.floats(max_value=1, allow_nan=False),
            amp=st.sampled_from(["off", "bf16"]),
            fused=st.booleans(),
        ),
    )
)
def test_a_dumped_config_loads_back_equal(tmp_path_factory, config):
    path = tmp_path_factory.mktemp("dump") / "c.yaml"
    path.write_bytes(strict.dump(config).encode("utf-8"))
    assert strict.load(Config, path) == config


def test_a_dump_is_plain_yaml_with_every_field(load):
    config = load("train: {epochs: 2, amp: off, lr: 1e-7}\n", "data.datasets=a,1e3")
    text = strict.dump(config)
    assert yaml.safe_load(text)["train"]["amp"] == "off"
    assert text.startswith("data:\n  path: null\n  datasets: [a, '1e3']\n")


def test_flat_gives_dotted_keys(load):
    flat = strict.flat(strict.dump(load(GOOD, "data.datasets=a,b", "data.weights.x=1")))
    assert flat["data.datasets"] == ["a", "b"]
    assert flat["data.weights.x"] == 1.0
    assert flat["train.epochs"] == 3
    assert flat["data.gap"] is None


def test_the_loader_of_configs_knows_no_other_package():
    folder = Path(strict.__file__).parent
    for path in folder.glob("*.py"):
        for other in ("shards", "packer", "loaders", "tracker", "torch"):
            assert f"import {other}" not in path.read_text()
            assert f"from {other}" not in path.read_text()
