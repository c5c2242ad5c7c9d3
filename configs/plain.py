"""A config dataclass as plain values and as YAML text."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

import yaml

from configs.document import Key, Writer, dotted, parse

__all__ = ["dump", "flat", "inline", "plain"]


def plain(value: Any) -> Any:
    """Values that YAML can write: sections as mappings, tuples as lists, paths as text."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value) if f.init}
    if isinstance(value, Mapping):
        return {str(name): plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if isinstance(value, PurePath):
        return str(value)
    return value


def dump(config: Any, width: float = 100) -> str:
    """YAML text of a config dataclass, every field spelt out; `load` reads it back equal."""
    return yaml.dump(
        plain(config),
        Dumper=Writer,
        sort_keys=False,
        default_flow_style=None,
        allow_unicode=True,
        width=width,
    )


def inline(value: Any) -> str:
    """YAML text of one value, on one line."""
    text: str = yaml.dump(
        plain(value),
        Dumper=Writer,
        sort_keys=False,
        default_flow_style=True,
        allow_unicode=True,
        width=float("inf"),
    )
    return text.removesuffix("...\n").strip()


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
