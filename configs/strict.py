"""The one loader of configurations: YAML to dataclass, strict, and precise about what is wrong.

A file is read (`configs.document`), overridden by ``--set`` options, and checked by pydantic
against a stdlib dataclass. Everything wrong is reported together, one line each::

    configs/a.yaml:7: train.batchsize: unknown key; did you mean 'batch_size'?
    --set train.epochs: should be greater than or equal to 1, got 0

This package is the bottom of the house plan: it imports no other, so `ConfigError` is defined here
and joins the other errors in `shards.errors`.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import re
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Annotated, Any, TypeVar, get_args, get_origin

import yaml
from pydantic import TypeAdapter, ValidationError

from configs.document import ConfigError, Document, Key, Writer, dotted, parse, plain_value, read

__all__ = ["ConfigError", "dump", "flat", "load", "load_text", "shipped"]

T = TypeVar("T")

HERE = Path(__file__).resolve().parent  # the installed package, which ships the YAML files

_SEQUENCES = {tuple, list, Sequence}
# What pydantic says about containers, in the words of a config file.
_EXPECTED = {
    "dataclass_type": "should be a section with keys",
    "dict_type": "should be a section with keys",
    "tuple_type": "should be a list",
    "list_type": "should be a list",
}


def load(
    cls: type[T], path: str | Path, overrides: Sequence[str] = (), section: str | None = None
) -> T:
    """Read a YAML file into a dataclass, strictly.

    Parameters
    ----------
    cls : stdlib dataclass; its fields may be dataclasses, tuples, lists, dicts and scalars
    path : file, or the name of one of the `shipped` configurations
    overrides : ``key.key=value`` texts, applied in order; a value is YAML, or a comma list where
        the field is a sequence, and taken literally where the field is a string
    section : read this top-level section alone, as `cls`; override keys still start with its name

    Returns
    -------
    config : a `cls`

    Raises
    ------
    ConfigError : with one line for each thing that is wrong: unreadable file, unknown, duplicate,
        missing, mistyped or out-of-range values.
    """
    return _load(cls, read(_find(path)), overrides, section)


def load_text(cls: type[T], text: str, source: str, overrides: Sequence[str] = ()) -> T:
    """Like `load`, from a YAML text; `source` names it in messages."""
    return _load(cls, parse(text, source), overrides, None)


def _load(cls: type[T], document: Document, overrides: Sequence[str], section: str | None) -> T:
    """Override and check what was read."""
    if document.value is None:
        document.value = {}
    root: Any = cls
    if not isinstance(document.value, dict):
        document.problems.append(((), f"should be a mapping of sections, got {_kind(document)}"))
    else:
        if section is not None:
            root = _only_section(document, section, cls, overrides)
        for text in overrides:
            _override(document, root, text)
        document.value = _check_keys(document, root, document.value, ())
    config = _validate(document, cls, section)
    if document.problems:
        ordered = sorted(document.problems, key=lambda item: document.rank(item[0]))
        lines = dict.fromkeys(document.line(key, what) for key, what in ordered)
        raise ConfigError("\n".join(lines))
    return typing.cast(T, config)


def dump(config: Any) -> str:
    """YAML text of a config dataclass, every field spelt out; `load` reads it back equal."""
    return yaml.dump(
        _plain(config),
        Dumper=Writer,
        sort_keys=False,
        default_flow_style=None,
        allow_unicode=True,
        width=100,
    )


def flat(text: str) -> dict[str, Any]:
    """Values of a dumped config by their dotted keys; a list is one value."""
    found: dict[str, Any] = {}

    def walk(value: Any, key: Key) -> None:
        if isinstance(value, dict) and value:
            for name, inner in value.items():
                walk(inner, (*key, name))
        else:
            found[dotted(key)] = value

    walk(parse(text, "config").value, ())
    return found


def shipped() -> list[str]:
    """Names of the configurations that come with the package."""
    return sorted(file.name for file in HERE.glob("*.yaml"))


def _find(path: str | Path) -> Path:
    """The file that a ``--config`` value means."""
    given = Path(path)
    if given.is_file():
        return given
    names = shipped()
    for name in (str(path), f"{path}.yaml"):
        if name in names:
            found = HERE / name
            here = Path.cwd()
            return found.relative_to(here) if found.is_relative_to(here) else found
    what = "is a folder, not a config file" if given.is_dir() else "no such config file"
    raise ConfigError(f"{path}: {what}; shipped are {', '.join(names)}{_hint(given.name, names)}")


def _only_section(
    document: Document, section: str, cls: type[Any], overrides: Sequence[str]
) -> type[Any]:
    """Reduce a run config to one section; returns a dataclass that has this section alone."""
    if section not in document.value:
        for name in difflib.get_close_matches(section, document.value, n=1):
            document.problems.append(((name,), f"unknown key; did you mean {section!r}?"))
    for text in overrides:
        name = text.partition("=")[0].strip().split(".")[0]
        if name != section:
            raise ConfigError(f"--set {text}: only keys of '{section}.' have a meaning here")
    document.value = {section: document.value.get(section)}
    return dataclasses.make_dataclass("Section", [(section, cls)])


def _override(document: Document, root: Any, text: str) -> None:
    """Apply one ``key.key=value`` to the plain values."""
    name, equals, raw = text.partition("=")
    parts = name.strip().split(".")
    if not equals or not all(parts):
        raise ConfigError(f"--set {text}: should read key.key=value")
    value, kind = document.value, root
    for depth, part in enumerate(parts):
        kind = _fields(kind).get(part) or _item(kind)
        if depth == len(parts) - 1:
            break
        if value.get(part) is None:
            value[part] = {}
        value = value[part]
        if not isinstance(value, dict):
            raise ConfigError(f"--set {text}: {'.'.join(parts[: depth + 1])} has no keys in it")
    key: Key = tuple(parts)
    for known in [known for known in document.where if known[: len(key)] == key]:
        del document.where[known]
    document.problems = [item for item in document.problems if item[0][: len(key)] != key]
    document.where[key] = None
    value[parts[-1]] = _override_value(document, kind, key, raw.strip())


def _override_value(document: Document, kind: Any, key: Key, raw: str) -> Any:
    """Value of an override, read with an eye on the type of its field."""
    origins = {get_origin(option) or option for option in _options(kind)} - {types.NoneType}
    nullable = types.NoneType in _options(kind)
    if nullable and raw in {"null", "~"}:
        return None
    if origins & _SEQUENCES and not raw.startswith("[") and ("," in raw or origins <= _SEQUENCES):
        parts = [part.strip() for part in raw.split(",")]
        return [_override_value(document, _item(kind), key, part) for part in parts if part]
    if origins <= {str, Path}:
        return raw[1:-1] if len(raw) > 1 and raw[0] == raw[-1] and raw[0] in "'\"" else raw
    return plain_value(document, raw, key)


def _check_keys(document: Document, kind: Any, value: Any, key: Key) -> Any:
    """Note unknown keys all the way down; an empty section becomes an empty mapping."""
    fields = _fields(kind)
    if fields and value is None and types.NoneType not in _options(kind):
        return {}
    if fields and isinstance(value, dict):
        for name in value:
            if name not in fields:
                hint = _hint(name, list(fields)) or f"; known are {', '.join(fields)}"
                document.problems.append(((*key, name), f"unknown key{hint}"))
        return {
            name: _check_keys(document, fields[name], inner, (*key, name))
            for name, inner in value.items()
            if name in fields
        }
    item = _item(kind)
    if item is not None and isinstance(value, dict):
        return {name: _check_keys(document, item, v, (*key, name)) for name, v in value.items()}
    if item is not None and isinstance(value, list):
        return [_check_keys(document, item, v, (*key, i)) for i, v in enumerate(value)]
    return value


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
            else:
                document.problems.append((_present(value, key), _complaint(dict(problem))))
    return None


def _complaint(problem: Mapping[str, Any]) -> str:
    """Text of one pydantic error."""
    if problem["type"] == "value_error":
        return str(problem["ctx"]["error"])
    what = _EXPECTED.get(problem["type"], str(problem["msg"]).removeprefix("Input "))
    hint = ""
    if problem["type"] == "literal_error" and isinstance(problem["input"], str):
        hint = _hint(problem["input"], re.findall(r"'([^']*)'", problem["ctx"]["expected"]))
    return f"{what}, got {_shown(problem['input'])}{hint}"


def _present(value: Any, key: Key) -> Key:
    """The part of a key that exists in the values (pydantic appends the branch of a union)."""
    for depth, part in enumerate(key):
        try:
            value = value[part]
        except (KeyError, IndexError, TypeError):
            return key[:depth]
    return key


def _options(kind: Any) -> Iterator[Any]:
    """Alternatives of a type, without Annotated."""
    origin = get_origin(kind)
    if origin is Annotated:
        yield from _options(get_args(kind)[0])
    elif origin in (typing.Union, types.UnionType):
        for option in get_args(kind):
            yield from _options(option)
    else:
        yield kind


def _fields(kind: Any) -> dict[str, Any]:
    """Names and types of the fields of a dataclass type; empty for any other type."""
    found: dict[str, Any] = {}
    for option in _options(kind):
        if dataclasses.is_dataclass(option) and isinstance(option, type):
            hints = typing.get_type_hints(option, include_extras=True)
            found |= {f.name: hints[f.name] for f in dataclasses.fields(option) if f.init}
    return found


def _item(kind: Any) -> Any:
    """Type of the values in a dict, list or tuple type; None for any other type."""
    for option in _options(kind):
        arguments = get_args(option)
        if arguments and isinstance(get_origin(option), type):
            origin = typing.cast(type, get_origin(option))
            if issubclass(origin, Mapping):
                return arguments[1]
            if issubclass(origin, Sequence):
                return arguments[0]
    return None


def _plain(value: Any) -> Any:
    """Values that YAML can write: sections as mappings, tuples as lists, paths as text."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value) if f.init}
    if isinstance(value, Mapping):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, PurePath):
        return str(value)
    return value


def _hint(name: str, known: Sequence[str]) -> str:
    match = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {match[0]!r}?" if match else ""


def _shown(value: Any) -> str:
    text = repr(value) if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _kind(document: Document) -> str:
    return "a list" if isinstance(document.value, list) else f"{_shown(document.value)}"
