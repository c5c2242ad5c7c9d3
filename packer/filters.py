"""Which sequences and classes of a data set to pack, chosen by name."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packer.sequence import Found, Sequence, named
from shards.errors import DataError

__all__ = ["Filters", "classes_of", "read_names", "split_categories"]

_COMMENT = re.compile(r"(^|\s)#.*")


@dataclass(frozen=True, kw_only=True, slots=True)
class Filters:
    """What to leave unpicked; no rejection, like the frames that a stride passes over.

    Attributes
    ----------
    names : only these sequences, or None for all
    exclude : not these sequences
    categories : only these classes, or None for all; of a picture with several objects, other
        classes are no targets but go along in the crops
    """

    names: frozenset[str] | None = None
    exclude: frozenset[str] = frozenset()
    categories: frozenset[str] | None = None

    def facts(self) -> dict[str, Any]:
        """JSON values of the filters in use, by option name; long lists as count and hash."""
        facts: dict[str, Any] = {}
        if self.names is not None:
            facts["names"] = _digest(self.names)
        if self.exclude:
            facts["exclude"] = _digest(self.exclude)
        if self.categories is not None:
            facts["categories"] = sorted(self.categories)
        return facts

    def admits(self, found: Found) -> bool:
        """Tell whether a sequence is wanted, as far as its name and place tell."""
        return (
            (self.names is None or found.name in self.names)
            and found.name not in self.exclude
            and (not found.category or self.categories is None or found.category in self.categories)
        )

    def admits_read(self, sequence: Sequence) -> bool:
        """Tell whether a sequence that was read has a wanted class, in any of its objects."""
        if self.categories is None:
            return True
        return not self.categories.isdisjoint(classes_of(sequence))

    def missing(self, found: Iterable[Found], official: Iterable[str]) -> tuple[str, ...]:
        """Sequences that are not on disk although they are official or asked for by name.

        Parameters
        ----------
        found : sequences of the split on disk
        official : official sequences of the split that are not on disk
        """
        if self.names is None:
            return tuple(name for name in official if name not in self.exclude)
        on_disk = {one.name for one in found}
        return tuple(sorted(self.names - self.exclude - on_disk))

    def notes(self, found: Iterable[Found], classes: Iterable[str]) -> Iterator[str]:
        """What was asked for in vain.

        Parameters
        ----------
        found : sequences of the split on disk
        classes : of the sequences on disk, as far as they were read
        """
        unknown = sorted(self.exclude - {one.name for one in found}) if self.exclude else []
        if unknown:
            yield (
                f"--exclude: {len(unknown):,} names are no sequences of this split on disk: "
                f"{named(unknown)}"
            )
        absent = sorted((self.categories or frozenset()) - set(classes))
        if absent:
            yield f"--categories: nothing on disk is of class {named(absent, 10)}"


def classes_of(sequence: Sequence) -> tuple[str, ...]:
    """Class of every object of a sequence."""
    return (sequence.category,) if sequence.objects is None else sequence.objects.categories


def _digest(names: frozenset[str]) -> str:
    digest = hashlib.sha256("\0".join(sorted(names)).encode()).hexdigest()
    return f"{len(names)} names (SHA-256 {digest[:16]})"


def read_names(path: Path) -> frozenset[str]:
    """Read a file of sequence names, one a line; ``#`` begins a comment, blank lines are passed.

    Raises
    ------
    DataError : if it cannot be read, is not text, or names nothing
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not a text file: {error}; one sequence name a line") from error
    names = frozenset(_COMMENT.sub("", line).strip() for line in text.splitlines()) - {""}
    if not names:
        raise DataError(f"{path}: names no sequence; expected one name a line")
    return names


def split_categories(text: str) -> frozenset[str]:
    """Class names of ``car,potted plant``.

    Raises
    ------
    ValueError : if there is none
    """
    names = frozenset(name.strip() for name in text.split(",")) - {""}
    if not names:
        raise ValueError(f"{text!r} names no class; expected names with commas between them")
    return names
