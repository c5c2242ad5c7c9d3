"""Every key as a page: types in words, meanings from docstrings, and what must not be left out."""

from collections.abc import Mapping
from dataclasses import dataclass, field, make_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import annotated_types as at
import pytest

from configs.describe import describe, rows
from configs.strict import ConfigError
from configs.words import prose, type_words

Share = Annotated[float, at.Ge(0), at.Le(1)]


@dataclass(frozen=True, kw_only=True)
class Jitter:
    """A step.

    Attributes
    ----------
    p : probability
    delta : largest amount
    """

    p: Share = 0.0
    delta: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Ranges:
    """Ranges for one kind
    of crop.

    Attributes
    ----------
    low, high : bounds, in
        ``pixels`` | grey levels
    keep : what stays
    hue : colour
    """

    low: int = 0
    high: int = 9
    keep: bool = True
    hue: Jitter = field(default_factory=Jitter)


@dataclass(frozen=True, kw_only=True)
class Data:
    """Which data.

    More of it.

    Attributes
    ----------
    names : by which they go
    mode : ``off`` or on

    Told after the entries.
    """

    names: tuple[str, ...]
    mode: Literal["off", "on"] = "off"
    image: Ranges = field(default_factory=lambda: Ranges(hue=Jitter(p=0.5)))
    video: Ranges = field(default_factory=lambda: Ranges(high=7))


@dataclass(frozen=True, kw_only=True)
class Config:
    """All."""

    data: Data


def test_the_page():
    assert describe(Config, "Keys", "\nLead.\n") == (
        "# Keys\n\nLead.\n\n"
        "- [`data`](#data)\n"
        "  - [`data.*`](#data.*)\n"
        '\n<a id="data"></a>\n\n## data\n\n'
        "Which data.\n\nMore of it.\n\nTold after the entries.\n\n"
        "| key | type | default | meaning |\n| --- | --- | --- | --- |\n"
        '| <a id="data.names"></a>`data.names` | list of texts | none: must be given '
        "| by which they go |\n"
        '| <a id="data.mode"></a>`data.mode` | one of off, on | `off` | `off` or on |\n'
        "| [`data.image`](#data.*) | section |  | Ranges for one kind of crop. |\n"
        "| [`data.video`](#data.*) | section |  | Ranges for one kind of crop. |\n"
        '\n<a id="data.*"></a>\n\n### data.*\n\n'
        "Ranges for one kind of crop.\n\n"
        "`*` is `image` or `video`; defaults that differ are given in this order.\n\n"
        "| key | type | default | meaning |\n| --- | --- | --- | --- |\n"
        '| <a id="data.*.low"></a>`data.*.low` | integer | `0` '
        "| bounds, in `pixels` \\| grey levels |\n"
        '| <a id="data.*.high"></a>`data.*.high` | integer | `9`, `7` '
        "| bounds, in `pixels` \\| grey levels |\n"
        '| <a id="data.*.keep"></a>`data.*.keep` | true or false | `true` | what stays |\n'
        '| <a id="data.*.hue"></a>`data.*.hue` | section |  | colour |\n'
        '| <a id="data.*.hue.p"></a>`data.*.hue.p` | number from 0 to 1 | `0.5`, `0.0` '
        "| probability |\n"
        '| <a id="data.*.hue.delta"></a>`data.*.hue.delta` | number | `0.0` | largest amount |\n'
    )


def test_rows_are_the_keys_that_have_values():
    assert [row.name for row in rows(Config)] == [
        "data.names", "data.mode", "data.*.low", "data.*.high", "data.*.keep", "data.*.hue.p",
        "data.*.hue.delta",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (int, "integer"),
        (Annotated[int, at.Ge(1)], "integer >= 1"),
        (Annotated[float, at.Gt(0), at.Le(1e6)], "number > 0 and <= 1e6"),
        (Annotated[float, at.Gt(0), at.Le(1e5)], "number > 0 and <= 100,000"),
        (Annotated[int, at.Ge(0), at.Lt(1 << 63)], "integer >= 0 and < 2^63"),
        (Share, "number from 0 to 1"),
        (Annotated[float, at.Gt(0)] | None, "number > 0 or null"),
        (bool, "true or false"),
        (Path, "path"),
        (Literal["sgd", "adamw"], "one of sgd, adamw"),
        (Literal["sgd"], "sgd"),
        (str | None, "text or null"),
        (tuple[str, ...], "list of texts"),
        (tuple[int, str], "list of 2: integer, text"),
        (list[Annotated[int, at.Ge(0)]], "list of integers >= 0"),
        (Annotated[tuple[Share, ...], at.Len(3, 3)], "list of 3 numbers from 0 to 1"),
        (Annotated[tuple[int, ...], at.MinLen(1)], "list of 1 or more integers"),
        (Annotated[tuple[int, ...], at.MaxLen(4)], "list of 0 to 4 integers"),
        (tuple[Literal["a", "b"], ...], "list of values, each one of a, b"),
        (Mapping[str, Annotated[float, at.Gt(0)]], "numbers > 0 by name"),
        (dict[str, tuple[int, ...]], "values, each list of integers by name"),
    ],
)
def test_types_in_words(kind, words):
    assert type_words(kind) == words


@pytest.mark.parametrize("kind", [set[int], bytes, Any, Annotated[int, at.MultipleOf(2)]])
def test_a_type_without_words_is_an_error(kind):
    with pytest.raises(ConfigError, match=r"without words, see configs/words\.py"):
        type_words(kind)


def test_a_docstring_is_read():
    told = prose(Data)
    assert told.paragraphs == ["Which data.", "More of it.", "Told after the entries."]
    assert told.meanings == {"names": "by which they go", "mode": "``off`` or on"}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (None, "has no docstring"),
        ("A section.", "the docstring says nothing about 'b'"),
        ("A section.\n\nAttributes\n----------\na : it", "the docstring says nothing about 'b'"),
        (
            "A section.\n\nAttributes\n----------\na, b, c : them",
            "the docstring tells of 'c', which is no field",
        ),
        ("Attributes\n----------\na, b : them", "does not say what the section is"),
    ],
)
def test_a_key_without_a_meaning_is_an_error(text, complaint):
    inner = make_dataclass("Inner", [("a", int, 0), ("b", int, 0)], namespace={"__doc__": text})
    whole = make_dataclass("Whole", [("inner", inner)], namespace={"__doc__": "All."})
    for make in (rows, lambda cls: describe(cls, "", "")):
        with pytest.raises(ConfigError, match=rf"Inner: .*{complaint}"):
            make(whole)
