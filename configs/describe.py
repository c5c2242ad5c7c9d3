"""Every key of a configuration as a Markdown page, made from its dataclasses alone.

A section is a dataclass. One with few keys is told in the table of the section around it, any other
has a heading of its own. Sections of one dataclass beside each other (the recipe's four kinds of
crop) are told once, ``*`` standing for their names.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import MISSING, dataclass
from typing import Any

from configs.document import ConfigError, parse
from configs.kinds import default_of, fields, section_class
from configs.plain import inline
from configs.words import Prose, prose, type_words

__all__ = ["Row", "describe", "rows"]

BAR = "\\|"  # in a cell of a table
SMALL = 3  # most keys of a section that has no heading of its own


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """A section, or several alike beside each other.

    Parameters
    ----------
    name : dotted, with ``*`` for the names of sections beside each other
    cls : its dataclass
    defaults : of each section; None where it has none of its own
    stars : for every ``*`` in the name, what it stands for
    """

    name: str
    cls: type[Any]
    defaults: tuple[Any, ...]
    stars: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """A key: its dotted name, type in words, default as YAML and meaning; all text.

    Of a section there is no default; `link` is the heading that tells more of it, or "".
    """

    name: str
    kind: str
    default: str
    meaning: str
    link: str = ""


def describe(cls: type[Any], title: str, lead: str) -> str:
    """Markdown page of all keys of a dataclass.

    Parameters
    ----------
    cls : every field of it and of the sections in it has a meaning in the docstring of its class
    title : of the page
    lead : Markdown that stands before the sections

    Raises
    ------
    ConfigError : naming the fields without a meaning, and the entries without a field
    """
    parts = list(_parts(Part(name="", cls=cls, defaults=(None,))))
    _check(parts)
    lines = [f"# {title}", "", lead.strip(), ""]
    lines += [f"{_indent(part)}- [`{part.name}`](#{part.name})" for part in parts if part.name]
    for part in parts:
        found = list(_rows(part))
        if part.name:
            lines += ["", f'<a id="{part.name}"></a>', "", f"{_level(part)} {part.name}", ""]
            lines += _introduction(part)
        if part.name and found:
            lines += ["| key | type | default | meaning |", "| --- | --- | --- | --- |"]
            lines += [_table_line(row) for row in found]
    return "\n".join(lines) + "\n"


def rows(cls: type[Any]) -> list[Row]:
    """All keys of a dataclass that have values, in order; ``*`` as in `describe`."""
    parts = list(_parts(Part(name="", cls=cls, defaults=(None,))))
    _check(parts)
    return [row for part in parts for row in _rows(part) if row.kind != "section"]


def _parts(part: Part) -> Iterator[Part]:
    """A part and all below it that have headings, in the order of their fields."""
    yield part
    for one in _inner(part):
        if not _is_small(one.cls):
            yield from _parts(one)


def _inner(part: Part) -> list[Part]:
    """Sections right below a part, those beside each other as one."""
    groups: dict[type[Any], list[str]] = {}
    for name, kind in fields(part.cls).items():
        if (inner := section_class(kind)) is not None:
            groups.setdefault(inner, []).append(name)
    found = []
    for cls, names in groups.items():
        together = [names] if len(names) > 1 and not _is_small(cls) else [[name] for name in names]
        for group in together:
            star = "*" if len(group) > 1 else group[0]
            defaults = [
                _instance(default_of(part.cls, name, around), cls)
                for around in part.defaults
                for name in group
            ]
            found.append(
                Part(
                    name=f"{part.name}.{star}".removeprefix("."),
                    cls=cls,
                    defaults=tuple(defaults),
                    stars=(*part.stars, tuple(group)) if len(group) > 1 else part.stars,
                )
            )
    return found


def _instance(default: Any, cls: type[Any]) -> Any:
    return default if isinstance(default, cls) else None


def _is_small(cls: type[Any]) -> bool:
    """Whether a section is told in the table of the one around it."""
    kinds = fields(cls).values()
    return len(kinds) <= SMALL and not any(section_class(kind) for kind in kinds)


def _rows(part: Part) -> Iterator[Row]:
    """Keys of a part, with those of small sections in it."""
    inside = {one.name.rpartition(".")[2]: one for one in _inner(part)}
    meanings = prose(part.cls).meanings
    for name, kind in fields(part.cls).items():
        dotted = f"{part.name}.{name}".removeprefix(".")
        cls = section_class(kind)
        if cls is None:
            yield Row(
                name=dotted,
                kind=type_words(kind),
                default=_defaults([default_of(part.cls, name, one) for one in part.defaults]),
                meaning=meanings[name],
            )
        else:
            meaning = meanings.get(name) or prose(cls).paragraphs[0]
            link = "" if _is_small(cls) else dotted if name in inside else f"{part.name}.*"
            yield Row(name=dotted, kind="section", default="", meaning=meaning, link=link)
            if _is_small(cls):
                yield from _rows(inside[name])


def _defaults(values: list[Any]) -> str:
    """Default of a key: one value, or that of every section where they differ."""
    texts = ["none: must be given" if one is MISSING else f"`{_yaml(one)}`" for one in values]
    return texts[0] if len(set(texts)) == 1 else ", ".join(texts)


def _yaml(value: Any) -> str:
    """A value as one writes it in a file of ours, where ``off`` needs no quotes."""
    bare = isinstance(value, str) and value.isprintable() and parse(value, "default").value == value
    return value if bare else inline(value)


def _introduction(part: Part) -> list[str]:
    """What stands between a heading and its table."""
    lines: list[str] = []
    for paragraph in prose(part.cls).paragraphs:
        lines += [_markdown(paragraph), ""]
    for names in part.stars:
        quoted = [f"`{name}`" for name in names]
        alike = f"`*` is {', '.join(quoted[:-1])} or {quoted[-1]}"
        lines += [f"{alike}; defaults that differ are given in this order.", ""]
    return lines


def _check(parts: list[Part]) -> None:
    """Raise if a key has no meaning, or a meaning no key."""
    wrong: dict[str, None] = {}
    classes = {one.cls for part in parts for one in (part, *_inner(part))}
    for cls in classes:
        told: Prose = prose(cls)
        where, kinds = f"{cls.__module__}.{cls.__name__}", fields(cls)
        if not told.paragraphs:
            wrong[f"{where}: the docstring does not say what the section is"] = None
        for name, kind in kinds.items():
            if section_class(kind) is None and name not in told.meanings:
                wrong[f"{where}: the docstring says nothing about '{name}'"] = None
        known = {field.name for field in dataclasses.fields(cls)}
        for name in told.meanings:
            if name not in known:
                wrong[f"{where}: the docstring tells of '{name}', which is no field"] = None
    if wrong:
        raise ConfigError("\n".join(sorted(wrong)))


def _table_line(row: Row) -> str:
    name = f'<a id="{row.name}"></a>`{row.name}`'
    if row.link:
        name = f"[`{row.name}`](#{row.link})"
    cells = [name, row.kind, row.default, row.meaning]
    return f"| {' | '.join(_markdown(cell).replace('|', BAR) for cell in cells)} |"


def _markdown(text: str) -> str:
    """Docstring text as Markdown: code in single backticks."""
    return text.replace("``", "`")


def _level(part: Part) -> str:
    return "#" * min(6, 2 + part.name.count("."))


def _indent(part: Part) -> str:
    return "  " * part.name.count(".")
