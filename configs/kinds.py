"""What the type of a field says: its alternatives, the keys of a section, the items of a list."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, get_args, get_origin

__all__ = ["default_of", "fields", "item", "nullable", "options", "section_class"]


def options(kind: Any) -> Iterator[Any]:
    """Alternatives of a type, without Annotated."""
    origin = get_origin(kind)
    if origin is Annotated:
        yield from options(get_args(kind)[0])
    elif origin in (typing.Union, types.UnionType):
        for option in get_args(kind):
            yield from options(option)
    else:
        yield kind


def nullable(kind: Any) -> bool:
    """Whether null is one of the alternatives."""
    return types.NoneType in options(kind)


def fields(kind: Any) -> dict[str, Any]:
    """Names and types of the fields of a dataclass type; empty for any other type."""
    found: dict[str, Any] = {}
    for option in options(kind):
        if dataclasses.is_dataclass(option) and isinstance(option, type):
            hints = typing.get_type_hints(option, include_extras=True)
            found |= {f.name: hints[f.name] for f in dataclasses.fields(option) if f.init}
    return found


def section_class(kind: Any) -> type[Any] | None:
    """The one dataclass among the alternatives of a type; None where there is none, or several."""
    found = [o for o in options(kind) if dataclasses.is_dataclass(o) and isinstance(o, type)]
    return found[0] if len(found) == 1 else None


def item(kind: Any) -> Any:
    """Type of the values in a dict, list or tuple type; None for any other type."""
    for option in options(kind):
        arguments = get_args(option)
        if arguments and isinstance(get_origin(option), type):
            origin = typing.cast(type, get_origin(option))
            if issubclass(origin, Mapping):
                return arguments[1]
            if issubclass(origin, Sequence):
                return arguments[0]
    return None


def default_of(cls: type[Any], name: str, around: Any = None) -> Any:
    """Default of a field, or dataclasses.MISSING.

    Parameters
    ----------
    cls : the dataclass
    name : of the field
    around : default of the section that the field is in, an instance of `cls`; without it the
        class says what the default is
    """
    if around is not None:
        return getattr(around, name)
    (field,) = (field for field in dataclasses.fields(cls) if field.name == name)
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default
