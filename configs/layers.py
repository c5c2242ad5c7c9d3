"""Where configuration files lie, and a file on top of the one that its ``base:`` names.

``base: other.yaml`` at the top level of a file means: all that other.yaml says, but for what is
said here. Sections merge key by key, at every depth; lists, scalars and mappings that are data (the
names are the user's, as in ``data.weights``) replace what the base has. A base may have a base.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from configs.document import ConfigError, Document, Key, read
from configs.kinds import fields, nullable

__all__ = ["BASE", "find", "hint", "shipped", "shown", "stack"]

HERE = Path(__file__).resolve().parent  # the installed package, which ships the YAML files
BASE = "base"
MAX_FILES = 8  # one on top of another
ALIKE = 0.75  # similarity of a misspelt name, of 1
LONGER = 3  # letters that a misspelt name has too many or too few, at most


def shipped() -> list[str]:
    """Names of the configurations that come with the package."""
    return sorted(file.name for file in HERE.glob("*.yaml"))


def find(name: str | Path, folder: Path | None = None) -> Path:
    """The file that a ``--config`` or ``base:`` means.

    Parameters
    ----------
    name : of a file, or of one of the `shipped` configurations
    folder : that a relative name starts from; None: the current one

    Raises
    ------
    ConfigError : if there is no such file
    """
    given = Path(name) if folder is None else folder / name
    if given.is_file():
        return given
    if (found := _found_shipped(name)) is not None:
        return found
    names = shipped()
    what = "is a folder, not a config file" if given.is_dir() else "no such config file"
    if folder is not None and not given.is_dir() and not Path(name).is_absolute():
        what += f" in {folder}"
    raise ConfigError(
        f"{name}: {what}; shipped are {', '.join(names)}{_hint_file(given.stem, names)}"
    )


def _found_shipped(name: str | Path) -> Path | None:
    """Path of one of the `shipped` configurations."""
    for one in (str(name), f"{name}.yaml"):
        if one in shipped():
            found, here = HERE / one, Path.cwd()
            return found.relative_to(here) if found.is_relative_to(here) else found
    return None


def _hint_file(stem: str, names: Sequence[str]) -> str:
    """Like `hint`; what all files end in says nothing of what was meant."""
    close = _close(stem, [Path(name).stem for name in names])
    return f"; did you mean '{close}.yaml'?" if close else ""


def stack(document: Document, kind: Any, folder: Path | None) -> Document:
    """A document on top of its bases, each value with the place where it was written.

    Parameters
    ----------
    document : of the topmost file
    kind : dataclass that it is to become; says what a section is
    folder : of the file; None for a text that may not have a base

    Raises
    ------
    ConfigError : if a base is not there, cannot be read, or leads back to a file above it
    """
    layers = [document]
    seen = [Path(document.source).resolve()]
    while (name := _base_of(layers[-1])) is not None:
        place = f"{layers[-1].where[(BASE,)]}: {BASE}"
        if folder is None:
            raise ConfigError(f"{place}: this text has no folder to find it in; leave it out")
        if not isinstance(name, str) or not name:
            raise ConfigError(f"{place}: should be the name of one config file, got {shown(name)}")
        try:
            path = find(name, folder)
        except ConfigError as error:
            raise ConfigError(f"{place}: {error}") from error
        if path.resolve() == seen[-1]:  # a file of one's own, called like the shipped one below it
            path = _found_shipped(name) or path
        if path.resolve() in seen:
            names = " on ".join(layer.source for layer in layers)
            raise ConfigError(f"{place}: a circle: {names} on {path}; one must do without a base")
        if len(layers) == MAX_FILES:
            raise ConfigError(f"{place}: more than {MAX_FILES} files on top of each other")
        layers.append(read(path))
        if layers[-1].value is None:
            layers[-1].value = {}
        if not isinstance(layers[-1].value, dict):
            raise ConfigError(
                f"{path}:1: should be a mapping of sections, got {shown(layers[-1].value)}"
            )
        seen.append(path.resolve())
        folder = path.parent
    below = layers.pop()
    while layers:
        below = _on_top(layers.pop(), below, kind)
    return below


def _base_of(document: Document) -> Any:
    """What a document calls its base, and None if it has none; ``base`` is no key of its config."""
    if not isinstance(document.value, dict) or BASE not in document.value:
        return None
    found = document.value.pop(BASE)
    return "" if found is None else found


def _on_top(top: Document, below: Document, kind: Any) -> Document:
    """Two layers as one."""
    both = Document(
        top.source,
        where=dict(below.where),
        problems=list(below.problems),
        beneath=[*top.beneath, below.source, *below.beneath],
    )
    both.value = _merged(both, kind, below.value, top.value, ())
    both.where.update(top.where)
    both.problems.extend(top.problems)
    return both


def _merged(both: Document, kind: Any, below: Any, top: Any, key: Key) -> dict[str, Any]:
    """Sections of two layers as one; what is replaced leaves no line and no problem behind."""
    kinds = fields(kind)
    found = dict(below)
    for name, value in top.items():
        inner, child = kinds.get(name), (*key, name)
        if fields(inner) and value is None and not nullable(inner):
            value = {}  # an empty section says nothing
        if fields(inner) and isinstance(value, dict) and isinstance(found.get(name), dict):
            found[name] = _merged(both, inner, found[name], value, child)
        else:
            both.forget(child)
            found[name] = value
    return found


def hint(name: str, known: Sequence[str]) -> str:
    """``; did you mean ...?`` for a misspelt name, or nothing."""
    close = _close(name, known)
    return f"; did you mean {close!r}?" if close else ""


def _close(name: str, known: Sequence[str]) -> str | None:
    """That of the known names which a misspelt one stands for; None if they are all others."""
    near = [one for one in known if abs(len(one) - len(name)) <= LONGER]
    match = get_close_matches(name, near, n=1, cutoff=ALIKE)
    match = match or [one for one in known if one.endswith(f"_{name}")]  # its first words left out
    return match[0] if len(match) == 1 else None


def shown(value: Any) -> str:
    """A value in a message."""
    text = repr(value) if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:77]}..."
