"""The one loader of configurations: YAML to dataclass, strict, and precise about what is wrong.

A file is read (`configs.document`), put on top of its ``base:`` (`configs.layers`), overridden by
``--set`` options, and checked by pydantic against a stdlib dataclass. Everything wrong is reported
together, one line each::

    configs/a.yaml:7: train.batchsize: unknown key; did you mean 'batch_size'?
    --set train.epochs: should be greater than or equal to 1, got 0

This package is the bottom of the house plan: it imports no other, so `ConfigError` is defined here
and joins the other errors in `shards.errors`.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import TypeAdapter, ValidationError

from configs.document import ConfigError, Contradiction, Document, Key, dotted, parse, read
from configs.kinds import default_of, fields, item, nullable, section_class
from configs.layers import BASE, find, hint, shipped, shown, stack
from configs.overrides import Given, option_of, override
from configs.plain import dump, flat, plain

__all__ = [
    "ConfigError",
    "Contradiction",
    "Given",
    "Resolved",
    "dump",
    "flat",
    "load",
    "load_text",
    "resolve",
    "shipped",
]

MEANT = 4  # most keys of other sections in a hint

T = TypeVar("T")

# What pydantic says about containers, in the words of a config file.
_EXPECTED = {
    "dataclass_type": "should be a section with keys",
    "dict_type": "should be a section with keys",
    "tuple_type": "should be a list",
    "list_type": "should be a list",
}


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Resolved(Generic[T]):
    """A configuration, and where its values were written.

    Parameters
    ----------
    config : the dataclass
    source : name of the file
    where : ``file:line`` of each key that was written, or the option that gave the value
    """

    config: T
    source: str
    where: Mapping[Key, str]


def load(
    cls: type[T], path: str | Path, overrides: Sequence[str] = (), section: str | None = None
) -> T:
    """Read a YAML file into a dataclass, strictly.

    A section that is written in part keeps the defaults that it has as a whole: the file lies on
    the defaults as it would on a base.

    Parameters
    ----------
    cls : stdlib dataclass; its fields may be dataclasses, tuples, lists, dicts and scalars. No key
        of it at the top level is called ``base``
    path : file, or the name of one of the `shipped` configurations
    overrides : ``key.key=value`` texts, applied in order; a value is YAML, or a comma list where
        the field is a sequence, and taken literally where the field is a string. A mapping goes
        into a section key by key. `Given` is for what another option than ``--set`` says
    section : read this top-level section alone, as `cls`; override keys still start with its name

    Returns
    -------
    config : a `cls`

    Raises
    ------
    ConfigError : with one line for each thing that is wrong: unreadable file or base, unknown,
        duplicate, missing, mistyped or out-of-range values.
    """
    return resolve(cls, path, overrides, section).config


def resolve(
    cls: type[T], path: str | Path, overrides: Sequence[str] = (), section: str | None = None
) -> Resolved[T]:
    """Like `load`, with the places that the values come from."""
    found = find(path)
    return _resolve(cls, read(found), overrides, section, found.parent)


def load_text(
    cls: type[T],
    text: str,
    source: str,
    overrides: Sequence[str] = (),
    folder: Path | None = None,
) -> T:
    """Like `load`, from a YAML text; `source` names it in messages.

    A ``base:`` is looked for in `folder`; without one it is an error, so that a text from elsewhere
    (a model file, a checkpoint) never makes a file of this machine be read.
    """
    return _resolve(cls, parse(text, source), overrides, None, folder).config


def _resolve(
    cls: type[T],
    document: Document,
    overrides: Sequence[str],
    section: str | None,
    folder: Path | None,
) -> Resolved[T]:
    """Put what was read on top of its bases, override and check it."""
    if document.value is None:
        document.value = {}
    root: Any = cls if section is None else dataclasses.make_dataclass("Root", [(section, cls)])
    document = stack(document, root, folder)
    if not isinstance(document.value, dict):
        document.problems.append(((), f"should be a mapping of sections, got {_kind(document)}"))
    else:
        if section is not None:
            _only_section(document, section, overrides)
        for text in overrides:
            override(document, root, text)
        document.value = _check_keys(document, root, document.value)
        document.value = _completed(root, document.value, None)
    config = _validate(document, cls, section)
    if document.problems:
        ordered = sorted(document.problems, key=lambda item: document.rank(item[0]))
        lines = dict.fromkeys(document.line(key, what) for key, what in ordered)
        raise ConfigError("\n".join(lines))
    return Resolved(config=config, source=document.source, where=document.where)


def _only_section(document: Document, section: str, overrides: Sequence[str]) -> None:
    """Reduce a run config to one section."""
    for known in (section, BASE):
        if known not in document.value:
            for name in document.value:
                if name != section and (guess := hint(name, [known])):
                    document.problems.append(((name,), f"unknown key{guess}"))
    for text in overrides:
        name = text.partition("=")[0].strip().split(".")[0]
        if name not in (section, BASE):
            raise ConfigError(
                f"{option_of(text)} {text}: only keys of '{section}.' have a meaning here"
            )
    document.value = {section: document.value.get(section)}


def _check_keys(
    document: Document, kind: Any, value: Any, key: Key = (), *, root: Any = None
) -> Any:
    """Note unknown keys all the way down; an empty section becomes an empty mapping."""
    root = kind if root is None else root
    known = fields(kind)
    if known and value is None and not nullable(kind):
        return {}
    if known and isinstance(value, dict):
        for name in value:
            if name not in known:
                what = _meant(root, name, [*known, *([] if key else [BASE])])
                what = what or f"; known are {', '.join(known)}"
                document.problems.append(((*key, name), f"unknown key{what}"))
        return {
            name: _check_keys(document, known[name], inner, (*key, name), root=root)
            for name, inner in value.items()
            if name in known
        }
    inside = item(kind)
    if inside is not None and isinstance(value, dict):
        return {
            name: _check_keys(document, inside, inner, (*key, name), root=root)
            for name, inner in value.items()
        }
    if inside is not None and isinstance(value, list):
        return [_check_keys(document, inside, v, (*key, i), root=root) for i, v in enumerate(value)]
    return value


def _meant(root: Any, name: str, known: Sequence[str]) -> str:
    """Hint at the key that an unknown one may stand for: beside it, or else in other sections."""
    if guess := hint(name, known):
        return guess
    layer: dict[tuple[str, ...], Any] = {(): root}
    found: list[str] = []
    while layer and not found:  # a level deeper each time
        layer = {
            (*key, inner): kind
            for key, section in layer.items()
            for inner, kind in fields(section).items()
        }
        found = [f"'{dotted(key)}'" for key in layer if key[-1] == name]
    if not 0 < len(found) <= MEANT:
        return ""
    *others, last = found
    return f"; did you mean {', '.join(others)}{' or ' if others else ''}{last}?"


def _completed(kind: Any, value: Any, default: Any) -> Any:
    """A section that was written in part, with the rest as the default of the section has it.

    That default is not always the class's: the fine stage's ``assign`` is an `AssignConfig` of
    other numbers than the coarse stage's.
    """
    cls = section_class(kind)
    if cls is None or not isinstance(value, dict):
        return value
    found = {}
    for name, inner in fields(cls).items():
        own = default_of(cls, name, default)
        if name in value:
            around = own if isinstance(own, section_class(inner) or ()) else None
            found[name] = _completed(inner, value[name], around)
        elif default is not None:
            found[name] = plain(own)
    return found


def _validate(document: Document, cls: type[Any], section: str | None) -> Any:
    """Let pydantic build the dataclass; its complaints join the document's problems.

    Strict JSON mode is what a config wants: lists may become tuples and whole numbers floats, but
    no string becomes a number and no number a flag.
    """
    value = document.value
    if not isinstance(value, dict):
        return None
    prefix: Key = () if section is None else (section,)
    text = json.dumps(value if section is None else value[section])
    try:
        return TypeAdapter(cls).validate_json(text, strict=True)
    except ValidationError as error:
        guessed = {what for _, what in document.problems}
        for problem in error.errors(include_url=False, include_context=True):
            key = (*prefix, *(part for part in problem["loc"] if part != "[key]"))
            if problem["type"] == "missing":
                if f"unknown key; did you mean {key[-1]!r}?" in guessed:
                    continue
                document.problems.append((key, "missing; it has no default"))
                continue
            around = _present(value, key)
            broken = problem.get("ctx", {}).get("error")
            if isinstance(broken, Contradiction):
                document.problems.append(document.contradiction(around, broken))
            else:
                document.problems.append((around, _complaint(dict(problem))))
    return None


def _complaint(problem: Mapping[str, Any]) -> str:
    """Text of one pydantic error."""
    if problem["type"] == "value_error":
        return str(problem["ctx"]["error"])
    what = _EXPECTED.get(problem["type"], str(problem["msg"]).removeprefix("Input "))
    guess = ""
    if problem["type"] == "literal_error" and isinstance(problem["input"], str):
        guess = hint(problem["input"], re.findall(r"'([^']*)'", problem["ctx"]["expected"]))
    return f"{what}, got {shown(problem['input'])}{guess}"


def _present(value: Any, key: Key) -> Key:
    """The part of a key that exists in the values (pydantic appends the branch of a union)."""
    for depth, part in enumerate(key):
        try:
            value = value[part]
        except (KeyError, IndexError, TypeError):
            return key[:depth]
    return key


def _kind(document: Document) -> str:
    return "a list" if isinstance(document.value, list) else f"{shown(document.value)}"
