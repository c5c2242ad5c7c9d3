"""A resolved configuration as YAML that says where each value comes from."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import yaml

from configs.document import Key, is_option, nodes
from configs.kinds import default_of, fields
from configs.plain import dump
from configs.strict import Resolved

__all__ = ["explained"]


def explained(resolved: Resolved[Any]) -> str:
    """YAML text of a configuration, whole; values that are not the defaults say where they stand.

    Parameters
    ----------
    resolved : of `configs.strict.resolve`

    Returns
    -------
    text : each such value has a comment behind it, ``# file:line`` or ``# --set``; loads as the
        same configuration
    """
    text = dump(resolved.config, width=float("inf"))
    notes: dict[int, list[str]] = {}
    _walk(notes, nodes(text), resolved.config, None, resolved.where, ())
    lines = text.split("\n")
    for number, places in notes.items():
        lines[number] += f"  # {', '.join(dict.fromkeys(places))}"
    head = f"# {_on_a_line(resolved.source)}, resolved. "
    return f"{head}A value that is not the default says where it was written.\n" + "\n".join(lines)


def _walk(
    notes: dict[int, list[str]],
    node: Any,
    config: Any,
    default: Any,
    where: Mapping[Key, str],
    key: Key,
) -> None:
    """Note the places of a section's values by their lines in the text."""
    kinds = fields(type(config))
    for name_node, value_node in node.value:
        name = name_node.value
        value, child = getattr(config, name), (*key, name)
        usual = default_of(type(config), name, default)
        if fields(kinds[name]) and dataclasses.is_dataclass(value):
            around = usual if type(usual) is type(value) else None
            _walk(notes, value_node, value, around, where, child)
        elif value != usual:
            scalar = isinstance(value_node, yaml.ScalarNode)
            # A value over several lines has its comment after its end, a block before its items.
            last = scalar or value_node.flow_style
            line = (value_node.end_mark if last else name_node.start_mark).line
            notes.setdefault(line, []).extend(_places(where, child))


def _places(where: Mapping[Key, str], key: Key) -> list[str]:
    """Where a value was written: its own place, and the option that changed a part of it."""
    outer = next((key[:end] for end in range(len(key), 0, -1) if key[:end] in where), None)
    found = [] if outer is None else [where[outer]]
    inside = [place for part, place in where.items() if part[: len(key)] == key]
    return list(map(_on_a_line, [*found, *filter(is_option, inside)]))


def _on_a_line(text: str) -> str:
    """A file's name as a comment can hold it."""
    return text if text.isprintable() else ascii(text)
