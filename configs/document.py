"""One YAML text as plain values that know on which line they stand.

The reader knows the core schema of YAML 1.2 only, so ``off`` is a string and ``1e-3`` a number. No
tag can run code, and aliases cannot blow up: a file is at most `MAX_BYTES` long and unfolds into at
most `MAX_VALUES` values. A key is the tuple of names and positions that lead to a value.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

__all__ = [
    "ConfigError",
    "Contradiction",
    "Document",
    "Key",
    "Writer",
    "dotted",
    "is_option",
    "is_unicode",
    "nodes",
    "parse",
    "plain_value",
    "read",
]

Key = tuple[str | int, ...]

MAX_BYTES = 1 << 20
MAX_VALUES = 20_000
MAX_DEPTH = 40

_TAG = "tag:yaml.org,2002:"
# (tag, pattern, possible first characters): the core schema of YAML 1.2.2, section 10.3.2, but that
# a number has no leading zeros ("010" is ten in one YAML and eight in another) and may have "_".
_CORE: tuple[tuple[str, str, str], ...] = (
    ("null", r"~|null|Null|NULL|", "~nN\0"),
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?(?:0|[1-9][0-9]*(?:_[0-9]+)*)|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    (
        "float",
        r"[-+]?(?:\.[0-9]+|(?:0|[1-9][0-9]*)(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        "-+.0123456789",
    ),
)


class ConfigError(Exception):
    """A config file, an override or an option has a wrong value."""


class Contradiction(ValueError):
    """Values that do not go together, or a rule that one breaks; for ``__post_init__``.

    Parameters
    ----------
    what : the complaint
    keys : dotted, below the section that complains: those that the rule is about. The complaint's
        place is that of the one that was written last: ``--set`` after a file after its base
    """

    def __init__(self, what: str, *keys: str) -> None:
        super().__init__(what)
        self.keys = keys


class _Reader(yaml.SafeLoader):
    """SafeLoader that resolves plain scalars as YAML 1.2 does."""


_Reader.yaml_implicit_resolvers = {}


class Writer(yaml.SafeDumper):
    """SafeDumper that quotes every string that YAML 1.1 or 1.2 would take for something else."""


for _name, _pattern, _first in _CORE:
    for _class in (_Reader, Writer):
        _class.add_implicit_resolver(
            _TAG + _name,
            re.compile(rf"^(?:{_pattern})$"),
            [first.replace("\0", "") for first in _first],
        )


@dataclass
class Document:
    """Plain values, where each stands, and what is wrong with them.

    Parameters
    ----------
    source : file that they come from
    value : nested dicts, lists and scalars
    where : ``file:line`` of a key, or the option that gave the value, as ``--set``
    problems : (key, what is wrong with it)
    values : how many values have been unfolded
    beneath : files under this one, of which a value may also come
    """

    source: str
    value: Any = None
    where: dict[Key, str] = dataclasses.field(default_factory=dict)
    problems: list[tuple[Key, str]] = dataclasses.field(default_factory=list)
    values: int = 0
    beneath: list[str] = dataclasses.field(default_factory=list)

    def forget(self, key: Key) -> None:
        """Drop places and problems of a key and of all below it, whose value is replaced."""
        for known in [known for known in self.where if known[: len(key)] == key]:
            del self.where[known]
        self.problems = [item for item in self.problems if item[0][: len(key)] != key]

    def line(self, key: Key, what: str) -> str:
        """One line about one key, with the place of the key or of the nearest section around it."""
        place = self._place(key)
        name = dotted(key)
        # A key on a line of its own, as a duplicate has it, ends in "", which is not shown.
        if is_option(place):
            return f"{place} {name}: {what}"
        return f"{place}: {name}: {what}" if name else f"{place}: {what}"

    def contradiction(self, key: Key, error: Contradiction) -> tuple[Key, str]:
        """Problem of a section whose values do not go together.

        Returns
        -------
        key : of those concerned, that which was written last
        what : the complaint, with the places of the others
        """
        written = {}
        for one in error.keys:
            whole = (*key, *one.split("."))
            if inside := [known for known in self.where if known[: len(whole)] == whole]:
                last = max(inside, key=self._strength)
                # A part of a list or mapping has the name of all of it.
                names = next((i for i, part in enumerate(last) if isinstance(part, int)), len(last))
                written[last[:names]] = self._strength(last)
        if not written:
            return key, str(error)
        first = max(written, key=lambda known: written[known])
        place = self._place(first)
        others = [
            f"{dotted(known)}: {there}"
            for known in written
            if (there := self._place(known)) != place and not is_option(there)
        ]
        return first, f"{error} ({', '.join(others)})" if others else str(error)

    def rank(self, key: Key) -> tuple[int, int]:
        """Sort key of a problem: lines of each file, its base's after it, overrides in order."""
        files = [self.source, *self.beneath]
        place = self._place(key)
        if is_option(place):
            return len(files), 0
        file, _, line = place.rpartition(":")
        return files.index(file), int(line)

    def _strength(self, known: Key) -> tuple[int, int, int]:
        """Sort key of a written key: those of the lowest file first, the last option last."""
        file, line = self.rank(known)
        order = list(self.where).index(known)
        return (1, 0, order) if is_option(self.where[known]) else (-file, line, order)

    def _place(self, key: Key) -> str:
        """Where a key stands; else the first key in it, else the nearest section around it."""
        if key not in self.where:
            inside = [known for known in self.where if known[: len(key)] == key]
            key = inside[0] if inside and key else key
        while key not in self.where and key:
            key = key[:-1]
        return self.where.get(key, f"{self.source}:1")


def is_option(place: str) -> bool:
    """Whether a place is an option of the command line, not a line of a file."""
    return ":" not in place


def read(path: Path) -> Document:
    """Parse a file into plain values with their lines."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    if len(data) > MAX_BYTES:
        raise ConfigError(
            f"{path}: {len(data)} bytes is too long for a config (at most {MAX_BYTES})"
        )
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}:{line}: not UTF-8 text") from error
    return parse(text, str(path))


def parse(text: str, source: str) -> Document:
    """Plain values of a text, with their lines; `source` names it in messages."""
    document = Document(source)
    node = _compose(text, source, with_line=True)
    if node is not None:
        document.value = _unfold(document, node, ())
    return document


def nodes(text: str) -> yaml.Node | None:
    """Nodes of a YAML text, which know on which lines they begin and end (counted from 0)."""
    return _compose(text, "text", with_line=True)


def plain_value(document: Document, text: str, key: Key) -> Any:
    """Value of an option's YAML text that is to stand at `key`; the document is of the option."""
    node = _compose(text, f"{document.source} {dotted(key)}", with_line=False)
    return None if node is None else _unfold(document, node, key, marks=False)


def _compose(text: str, label: str, *, with_line: bool) -> yaml.Node | None:
    """Node graph of one YAML document; syntax errors carry the line where they are."""
    try:
        return yaml.compose(text, Loader=_Reader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if with_line and mark is not None else ""
        what = " ".join(part for part in (error.context, error.problem) if part)
        raise ConfigError(f"{label}{line}: not valid YAML: {what}") from error
    except yaml.reader.ReaderError as error:
        line = f":{text.count(chr(10), 0, error.position) + 1}" if with_line else ""
        raise ConfigError(f"{label}{line}: not valid YAML: {error.reason}") from error
    except RecursionError as error:
        raise ConfigError(f"{label}: nested deeper than {MAX_DEPTH} levels") from error


def _unfold(document: Document, node: yaml.Node, key: Key, *, marks: bool = True) -> Any:
    """Plain value of a node; with `marks`, notes the line of every key."""
    document.values += 1
    if document.values > MAX_VALUES or len(key) > MAX_DEPTH:
        raise ConfigError(
            f"{document.source}: unfolds into more than {MAX_VALUES} values or {MAX_DEPTH} levels; "
            "write it without aliases"
        )
    if marks:
        document.where.setdefault(key, f"{document.source}:{node.start_mark.line + 1}")
    if isinstance(node, yaml.ScalarNode):
        return _scalar(document, node, key)
    if isinstance(node, yaml.SequenceNode) and node.tag == _TAG + "seq":
        return [
            _unfold(document, item, (*key, i), marks=marks) for i, item in enumerate(node.value)
        ]
    if isinstance(node, yaml.MappingNode) and node.tag == _TAG + "map":
        return _unfold_mapping(document, node, key, marks)
    document.problems.append((key, f"tag {node.tag!r} is not allowed"))
    return None


def _unfold_mapping(document: Document, node: yaml.MappingNode, key: Key, marks: bool) -> Any:
    found: dict[str, Any] = {}
    lines: dict[str, int] = {}
    for name_node, value_node in node.value:
        line = name_node.start_mark.line + 1
        if not isinstance(name_node, yaml.ScalarNode):
            document.problems.append((key, f"a key on line {line} is not plain text"))
            continue
        name, child = name_node.value, (*key, name_node.value)
        if not is_unicode(name):
            document.problems.append((key, f"a key on line {line} is not Unicode text"))
            continue
        if name in found:
            again = (*child, "")
            if marks:
                document.where[again] = f"{document.source}:{line}"
            seen = f" of line {lines[name]}" if marks else ""
            document.problems.append((again, f"duplicate key{seen}"))
            continue
        lines[name] = line
        if marks:
            document.where[child] = f"{document.source}:{line}"
        found[name] = _unfold(document, value_node, child, marks=marks)
    return found


def _scalar(document: Document, node: yaml.ScalarNode, key: Key) -> Any:
    text: str = node.value
    kind = node.tag.removeprefix(_TAG)
    pattern = {name: rule for name, rule, _ in _CORE}.get(kind)
    if kind == "str":
        if not is_unicode(text):
            document.problems.append((key, f"not Unicode text: {text!a}"))
            text = ascii(text)
            text = ascii(text)
        return text
    if pattern is None or not re.fullmatch(pattern, text):
        document.problems.append((key, f"tag {node.tag!r} is not allowed"))
        return None
    if kind == "null":
        return None
    if kind == "bool":
        return text.lower() == "true"
    try:
        number = text.lower().replace(".inf", "inf").replace(".nan", "nan")
        return int(text, 0) if kind == "int" else float(number)
    except ValueError:
        document.problems.append((key, f"a number of {len(text)} characters is too long"))
        return None


def is_unicode(text: str) -> bool:
    """Whether a text can be written: bytes that are no UTF-8 come as halves of characters."""
    return not any("\ud800" <= letter <= "\udfff" for letter in text)


def dotted(key: Key) -> str:
    """``a.b[0].c``."""
    text = ""
    for part in key:
        if part != "":
            text += f"[{part}]" if isinstance(part, int) else f".{part}"
    return text.removeprefix(".")
