"""Values of options of the command line on top of what files say."""

from __future__ import annotations

import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_origin

from configs.document import ConfigError, Document, Key, is_unicode, plain_value
from configs.kinds import fields, item, nullable, options
from configs.layers import BASE

__all__ = ["Given", "option_of", "override"]

SET = "--set"
_SEQUENCES = {tuple, list, Sequence}


class Given(str):
    """A ``key.key=value`` text that another option than ``--set`` stands for.

    Parameters
    ----------
    text : as of ``--set``
    option : its name, as ``--data``
    """

    __slots__ = ("option",)

    option: str

    def __new__(cls, text: str, option: str) -> Given:
        """As `str`, with the option's name."""
        made = super().__new__(cls, text)
        made.option = option
        return made


def option_of(text: str) -> str:
    """Name of the option that a text was given by."""
    return text.option if isinstance(text, Given) else SET


def override(document: Document, root: Any, text: str) -> None:
    """Apply one ``key.key=value`` to the plain values.

    Parameters
    ----------
    document : of the files; its value is a mapping
    root : dataclass that it is to become
    text : of ``--set``, or a `Given`

    Raises
    ------
    ConfigError : if the text has no such form, or its key cannot be there
    """
    option = option_of(text)
    name, equals, raw = text.partition("=")
    parts = name.strip().split(".")
    if not is_unicode(text):
        raise ConfigError(f"{option} {str(text)!a}: not UTF-8 text")
    if not equals or not all(parts):
        raise ConfigError(f"{option} {text}: should read key.key=value")
    if parts == [BASE]:
        raise ConfigError(
            f"{option} {text}: a base is named in a file: give that file as --config, or begin a "
            f"file of your own with '{BASE}: {raw.strip()}'"
        )
    values, kind = document.value, root
    for depth, part in enumerate(parts):
        kind = fields(kind).get(part) or item(kind)
        if depth == len(parts) - 1:
            break
        if values.get(part) is None:
            values[part] = {}
        values = values[part]
        if not isinstance(values, dict):
            raise ConfigError(f"{option} {text}: {'.'.join(parts[: depth + 1])} has no keys in it")
    key: Key = tuple(parts)
    read = Document(option)
    value = _value(read, kind, key, raw.strip())
    if fields(kind) and value is None and not nullable(kind) and not read.problems:
        raise ConfigError(
            f"{option} {text}: {name.strip()} is a section, which stays: give a key of it, as in "
            f"{option} {name.strip()}.{next(iter(fields(kind)))}=..."
        )
    _put(document, values, kind, key, value, option)
    document.problems.extend(read.problems)


def _put(
    document: Document, values: dict[str, Any], kind: Any, key: Key, value: Any, option: str
) -> None:
    """Write the value of a key where it belongs; a mapping goes into a section key by key."""
    name, known = str(key[-1]), fields(kind)
    if known and isinstance(value, dict):
        if not isinstance(values.get(name), dict):
            document.forget(key)
            values[name] = {}
            document.where[key] = option
        for one, inner in value.items():
            _put(document, values[name], known.get(one), (*key, one), inner, option)
        return
    document.forget(key)
    document.where[key] = option
    values[name] = value


def _value(read: Document, kind: Any, key: Key, raw: str) -> Any:
    """Value of an option, read with an eye on the type of its field."""
    origins = {get_origin(option) or option for option in options(kind)} - {types.NoneType}
    if nullable(kind) and raw in {"null", "~"}:
        return None
    if origins & _SEQUENCES and not raw.startswith("[") and ("," in raw or origins <= _SEQUENCES):
        parts = [part.strip() for part in raw.split(",")]
        return [_value(read, item(kind), key, part) for part in parts if part]
    if origins <= {str, Path}:
        return raw[1:-1] if len(raw) > 1 and raw[0] == raw[-1] and raw[0] in "'\"" else raw
    return plain_value(read, raw, key)
