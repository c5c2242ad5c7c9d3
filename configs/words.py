"""Types and docstrings of a config dataclass in words."""

from __future__ import annotations

import inspect
import math
import re
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin

import annotated_types as at

from configs.document import ConfigError
from configs.kinds import item

__all__ = ["Prose", "prose", "type_words"]

_NAMES = {
    bool: "true or false",
    int: "integer",
    float: "number",
    str: "text",
    Path: "path",
    types.NoneType: "null",
}
_ENTRY = re.compile(r"([A-Za-z_]\w*(?:, [A-Za-z_]\w*)*) : (.+)")
_HEADING = re.compile(r"-{3,}")


class Prose(NamedTuple):
    """What a docstring says: its paragraphs, and the meanings of the names in its entries."""

    paragraphs: list[str]
    meanings: dict[str, str]


def type_words(kind: Any) -> str:
    """Type in words: ``integer >= 1``, ``one of sgd, adamw``, ``list of numbers > 0 or null``.

    Raises
    ------
    ConfigError : if there are no words for a type
    """
    if get_origin(kind) is Annotated:
        inner, *metadata = get_args(kind)
        return _limited(type_words(inner), metadata)
    if get_origin(kind) in (typing.Union, types.UnionType):
        return " or ".join(type_words(option) for option in get_args(kind))
    if get_origin(kind) is Literal:
        choices = [str(choice) for choice in get_args(kind)]
        return choices[0] if len(choices) == 1 else f"one of {', '.join(choices)}"
    origin = get_origin(kind)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return f"{_plural(type_words(item(kind)))} by name"
    if isinstance(origin, type) and issubclass(origin, Sequence):
        inner = [part for part in get_args(kind) if part is not Ellipsis]
        if len(inner) > 1:
            return f"list of {len(inner)}: {', '.join(map(type_words, inner))}"
        return f"list of {_plural(type_words(inner[0]))}"
    if kind in _NAMES:
        return _NAMES[kind]
    raise ConfigError(f"{kind!r}: a type without words, see configs/words.py")


def _limited(words: str, limits: Sequence[Any]) -> str:
    """Words of a type with its limits."""
    signs: dict[str, str] = {}
    least, most = None, None
    for limit in limits:
        match limit:
            case at.Ge(bound):
                signs[">="] = _number(bound)
            case at.Gt(bound):
                signs[">"] = _number(bound)
            case at.Le(bound):
                signs["<="] = _number(bound)
            case at.Lt(bound):
                signs["<"] = _number(bound)
            case at.MinLen(count):
                least = count
            case at.MaxLen(count):
                most = count
            case at.Len(low, high):
                least, most = low, high
            case _:
                raise ConfigError(f"{limit!r}: a limit without words, see configs/words.py")
    if least is not None or most is not None:
        if least == most:
            size = f"{least}"
        elif most is None:
            size = f"{least} or more"
        else:
            size = f"{least or 0} to {most}"
        words = words.replace("list of ", f"list of {size} ", 1)
    if signs.keys() == {">=", "<="}:
        return f"{words} from {signs['>=']} to {signs['<=']}"
    return " ".join(
        [words, " and ".join(f"{sign} {bound}" for sign, bound in signs.items())]
    ).strip()


def _plural(words: str) -> str:
    """Words of the values of a list."""
    first, space, rest = words.partition(" ")
    return f"{first}s{space}{rest}" if first in _NAMES.values() else f"values, each {words}"


def _number(bound: Any) -> str:
    """A limit; large powers of two as such."""
    if isinstance(bound, int) and bound >= 1 << 20 and bound.bit_count() == 1:
        return f"2^{int(math.log2(bound))}"
    if abs(bound) < 1e6 and bound == int(bound):
        return f"{int(bound):,}"
    return f"{bound:,}" if isinstance(bound, int) else f"{bound:g}".replace("e+0", "e")


def prose(cls: type[Any]) -> Prose:
    """Read the docstring of a dataclass, NumPy style.

    Parameters
    ----------
    cls : the entries under "Parameters" and "Attributes" are ``name : meaning`` or ``a, b :
        meaning`` of both

    Raises
    ------
    ConfigError : if it has none
    """
    text = cls.__doc__
    if not text or text.startswith(f"{cls.__name__}("):  # dataclasses write a signature there
        raise ConfigError(f"{cls.__module__}.{cls.__name__}: has no docstring")
    lines = inspect.cleandoc(text).split("\n")
    paragraphs: list[list[str]] = [[]]
    meanings: dict[str, str] = {}
    names: list[str] = []
    for number, line in enumerate(lines):
        below = lines[number + 1] if number + 1 < len(lines) else ""
        if _HEADING.fullmatch(line) or _HEADING.fullmatch(below):
            names = []
        elif entry := _ENTRY.fullmatch(line):
            names = entry[1].split(", ")
            meanings |= dict.fromkeys(names, entry[2])
        elif names and line.startswith(" "):
            meanings |= {name: f"{meanings[name]} {line.strip()}" for name in names}
        elif line:
            paragraphs[-1].append(line)
            names = []
        elif paragraphs[-1]:
            paragraphs.append([])
    return Prose([" ".join(one) for one in paragraphs if one], meanings)
