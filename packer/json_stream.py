"""Read a large JSON file entry by entry, in memory that does not grow with it.

Made for annotation files of the COCO kind: one object whose values are long lists of small objects.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

from shards.errors import DataError

__all__ = ["CHUNK", "MAX_ENTRY", "Entry", "entries"]

CHUNK = 1 << 20  # bytes read at a time
MAX_ENTRY = 64 << 20  # characters of one entry
_SPACE = " \t\n\r"
_AFTER = (*_SPACE, *",:]}")  # what may follow a value
_SUFFIX = 8  # characters after the end of a number that must be known to know that it is the end


class Entry(NamedTuple):
    """One item of a list in the outermost object, or a value there that is no list.

    Attributes
    ----------
    key : of the outermost object
    number : of the item, from 0; -1 for a value that is no list
    value : as `json.loads` gives it
    """

    key: str
    number: int
    value: Any


def entries(handle: BinaryIO, where: str, chunk: int = CHUNK) -> Iterator[Entry]:
    """Entries of a JSON file in order; of a key that is there twice, those of both.

    Parameters
    ----------
    handle : UTF-8, with or without byte order mark
    where : name of the file, for messages
    chunk : bytes to read at a time

    Raises
    ------
    DataError : if it is not JSON, its outermost value is no object, or an entry is too large
    """
    text = _Text(handle, where, chunk)
    text.expect("{", "an object")
    if text.skip("}"):
        text.end()
        return
    while True:
        key = text.value()
        if not isinstance(key, str):
            raise text.error("a key in double quotes needed")
        text.expect(":", "':' after a key")
        if text.skip("["):
            yield from _items(text, key)
        else:
            yield Entry(key, -1, text.value())
        if text.skip("}"):
            text.end()
            return
        text.expect(",", "',' or '}' after a value")


def _items(text: _Text, key: str) -> Iterator[Entry]:
    if text.skip("]"):
        return
    number = 0
    while True:
        yield Entry(key, number, text.value())
        number += 1
        if text.skip("]"):
            return
        text.expect(",", f"',' or ']' after item {number - 1} of {key!r}")


class _Text:
    """A window of the decoded file; what is before `_at` has been used."""

    def __init__(self, handle: BinaryIO, where: str, chunk: int) -> None:
        self._handle, self._where, self._chunk = handle, where, chunk
        self._bytes = codecs.getincrementaldecoder("utf-8-sig")()
        self._json = json.JSONDecoder()
        self._text, self._at, self._before = "", 0, 0
        self._ended = False

    def _more(self, size: int) -> bool:
        """Read on; False at the end of the file."""
        if self._ended:
            return False
        data = self._handle.read(size)
        self._ended = not data
        try:
            new = self._bytes.decode(data, final=self._ended)
        except UnicodeDecodeError as error:
            raise self.error(f"not UTF-8 ({error.reason})") from error
        self._before += self._at
        self._text, self._at = self._text[self._at :] + new, 0
        return True

    def _next(self) -> str:
        """Next character that is no space, not used up; empty at the end."""
        while True:
            text, at = self._text, self._at
            while at < len(text) and text[at] in _SPACE:
                at += 1
            self._at = at
            if at < len(text):
                return text[at]
            if not self._more(self._chunk):
                return ""

    def skip(self, mark: str) -> bool:
        """Use up the next character if it is this one."""
        if self._next() != mark:
            return False
        self._at += 1
        return True

    def expect(self, mark: str, what: str) -> None:
        """Use up the next character, which must be this one."""
        if not self.skip(mark):
            raise self.error(f"{what} needed")

    def end(self) -> None:
        """Make sure that nothing follows."""
        if self._next():
            raise self.error("something follows the outermost object")

    def value(self) -> Any:
        """Use up the next value."""
        self._next()
        while True:
            try:
                value, end = self._json.raw_decode(self._text, self._at)
            except RecursionError as error:
                raise self.error("nested too deeply") from error
            except ValueError as error:  # half a value at the end of the window, or none at all
                self._grow(str(error))
                continue
            rest = self._text[end : end + _SUFFIX]
            if rest[:1] not in _AFTER and len(rest) < _SUFFIX and self._more(self._chunk):
                continue  # a number may go on, even after '.' or 'e' that alone are no number
            self._at = end
            return value

    def _grow(self, reason: str) -> None:
        left = len(self._text) - self._at
        if left > MAX_ENTRY:
            raise self.error(f"no value of up to {MAX_ENTRY:,} characters ({reason})")
        if not self._more(max(self._chunk, left)):
            raise self.error(f"no value; the file may be cut short ({reason})")

    def error(self, what: str) -> DataError:
        """Make the error for what is at the current place."""
        found = self._text[self._at : self._at + 30]
        return DataError(
            f"{self._where}: not JSON of the expected form at character "
            f"{self._before + self._at:,}: {what}, found {found!r}"
        )
