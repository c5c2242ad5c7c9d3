"""A resolved configuration as text that says where its values come from."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs import strict
from configs.explain import explained


@dataclass(frozen=True, kw_only=True, slots=True)
class Jitter:
    p: float = 0.0
    delta: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Data:
    path: str | None = None
    datasets: tuple[str, ...] = ()
    weights: Mapping[str, float] = field(default_factory=lambda: {"x": 1.0})
    hue: Jitter = field(default_factory=lambda: Jitter(p=0.5))
    blur: Jitter | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    steps: int
    amp: Literal["off", "bf16"] = "off"
    data: Data = field(default_factory=Data)


@pytest.fixture
def explain(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def explain(text, *overrides, name="a.yaml"):
        Path(name).write_text(text, encoding="utf-8")
        return explained(strict.resolve(Config, name, overrides))

    return explain


def test_values_that_are_not_the_default_say_where_they_were_written(explain):
    Path("b.yaml").write_text("steps: 1\ndata:\n  hue: {delta: 2}\n  weights: {x: 2, y: 3}\n")
    text = explain(
        "base: b.yaml\nsteps: 5\namp: off\ndata:\n  hue:\n    p: 0.5\n  datasets:\n  - a\n",
        "data.weights.y=4",
        "data.path=x # y",
    )
    assert text == (
        "# a.yaml, resolved. A value that is not the default says where it was written.\n"
        "steps: 5  # a.yaml:2\n"
        "amp: 'off'\n"
        "data:\n"
        "  path: 'x # y'  # --set\n"
        "  datasets: [a]  # a.yaml:7\n"
        "  weights: {x: 2.0, y: 4.0}  # b.yaml:4, --set\n"
        "  hue: {p: 0.5, delta: 2.0}  # b.yaml:3\n"
        "  blur: null\n"
    )


def test_a_whole_section_on_the_command_line(explain):
    text = explain("steps: 1\n", "data={path: x, hue: {p: 1}}", "data.blur.p=2")
    assert "  path: x  # --set\n" in text
    assert "  hue: {p: 1.0, delta: 0.0}  # --set\n" in text
    assert "  blur: {p: 2.0, delta: 0.0}  # --set\n" in text


def test_another_option_goes_by_its_name(explain):
    given = strict.Given("data.path=x", "--data")
    assert "  path: x  # --data\n" in explain("steps: 1\n", "data.path=y", given)


def test_a_file_with_a_strange_name(explain):
    text = explain("steps: 1\n", name="a\nsteps: 2\n#.yaml")
    assert text.startswith("# 'a\\nsteps: 2\\n#.yaml', resolved.")
    assert "steps: 1  # 'a\\nsteps: 2\\n#.yaml:1'\n" in text


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=150) | st.sampled_from(
    ["a # b", "x: y", "- z", "a\n\nb", "'", '"', "word " * 40, "# c", "\n", " ", "\t# d", "off"]
)


@given(
    st.builds(
        Config,
        steps=st.integers(),
        data=st.builds(
            Data,
            path=st.none() | texts,
            datasets=st.lists(texts, max_size=3).map(tuple),
            weights=st.dictionaries(texts, st.floats(allow_nan=False), max_size=3),
            hue=st.builds(Jitter, p=st.floats(0, 1)),
            blur=st.none() | st.builds(Jitter, p=st.floats(0, 1)),
        ),
    )
)
def test_the_text_loads_as_the_same_configuration(tmp_path_factory, config):
    path = tmp_path_factory.mktemp("explain") / "c.yaml"
    path.write_bytes(strict.dump(config).encode("utf-8"))
    text = explained(strict.resolve(Config, path))
    assert strict.load_text(Config, text, "text") == config
    assert f"steps: {config.steps}  # {path}:" in text
