"""What a result has to say, as values: text, tables, plots. Documents and the page show the same.

A plot, or a block that is not `brief`, is for the page alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup, escape

from benchmarks import table
from benchmarks.claims import CLAIMS_HEADER, claim_rows
from benchmarks.svg_bars import BarChart
from benchmarks.svg_lines import LineChart

__all__ = [
    "Block",
    "Plot",
    "Section",
    "Table",
    "Text",
    "bullets",
    "code",
    "made",
    "markdown",
    "promises",
    "told",
]

_WHOLE = 36  # characters of code that are kept on one line


@dataclass(frozen=True, kw_only=True, slots=True)
class Text:
    """A paragraph, or an item of a list; what stands between backticks is code."""

    text: str
    brief: bool = True
    item: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """A table.

    Attributes
    ----------
    caption : of the page
    header, rows : cells
    ours : numbers of the rows that are ours
    words : number of leading columns that are words, not figures
    page_only : heads of columns that documents leave out
    """

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    ours: frozenset[int] = frozenset()
    words: int = 1
    page_only: frozenset[str] = frozenset()
    brief: bool = True

    @property
    def markdown(self) -> str:
        """Table of a document."""
        kept = [i for i, head in enumerate(self.header) if head not in self.page_only]
        rows = [tuple(row[i] for i in kept) for row in self.rows]
        return table.markdown(rows, [self.header[i] for i in kept])


@dataclass(frozen=True, kw_only=True, slots=True)
class Plot:
    """A plot with the sentence below it."""

    chart: BarChart | LineChart
    caption: str


Block = Text | Table | Plot


@dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    """One result and where it is shown.

    Attributes
    ----------
    name : in the markers of its document
    title : on the page
    file : below the folder of results; with ``*`` there may be several, each is shown
    kind : of the result
    options : with which its command makes it
    blocks : what it says
    command : that makes it, where it is another
    document : that shows it too; None: the page alone
    absent : what its document says without a result; None: that is an error
    lead : what stands first in its document
    """

    name: str
    title: str
    file: str
    kind: str
    blocks: Callable[[Mapping[str, Any]], list[Block]]
    options: str = ""
    command: str = ""
    document: str | None = "README.md"
    absent: str | None = None
    lead: str = ""

    @property
    def repeats(self) -> str:
        """Command that makes the result."""
        options = f"{self.options} " if self.options else ""
        file = f"benchmarks/results/{self.file}"
        return self.command or f"python -m benchmarks {self.kind} {options}--json {file}"


def told(lines: Iterable[str]) -> list[Block]:
    """One paragraph of some sentences; none of no sentence."""
    text = " ".join(lines)
    return [Text(text=text)] if text else []


def bullets(lines: Iterable[str]) -> list[Block]:
    """A list for the page."""
    return [Text(text=line, brief=False, item=True) for line in lines]


def promises(run: Mapping[str, Any]) -> Table:
    """The claims of a result beside their bars."""
    return Table(
        caption="Promises, what was measured, and whether they hold",
        header=CLAIMS_HEADER,
        rows=tuple(claim_rows(run)),
    )


def made(run: Mapping[str, Any]) -> Text:
    """Command, commit and machine of a result."""
    environment = run["environment"]
    commit = environment["commit"]
    state = " with uncommitted changes" if environment["uncommitted_changes"] else ""
    at = f"commit {commit[:10]}{state}" if commit else "a checkout without commits"
    machine = f"{environment['cpu']}, {environment['cores_usable']} usable cores"
    return Text(
        text=f"Made by `{run['command']}` at {at} on {machine}; every repeat is in the JSON."
    )


def markdown(blocks: Sequence[Block]) -> str:
    """The brief ones of some blocks, for a document."""
    return "\n\n".join(
        block.markdown if isinstance(block, Table) else block.text
        for block in blocks
        if not isinstance(block, Plot) and block.brief
    )


def code(text: str) -> Markup:
    """HTML of a text: escaped, with what stands between backticks as code."""
    parts = text.split("`")
    if len(parts) % 2 == 0:  # a backtick that is not closed is a character
        parts[-2:] = ["`".join(parts[-2:])]
    return Markup("").join(_code(part) if i % 2 else _strong(part) for i, part in enumerate(parts))


def _code(text: str) -> Markup:
    """Code; what fits on a line of a phone is not broken at its hyphens."""
    whole = Markup(' class="whole"') if len(text) <= _WHOLE else ""
    return Markup("<code{}>{}</code>").format(whole, text)


def _strong(text: str) -> Markup:
    """Escaped text; what stands between pairs of asterisks is strong."""
    parts = text.split("**")
    if len(parts) % 2 == 0:
        return escape(text)
    return Markup("").join(
        Markup("<strong>{}</strong>").format(part) if i % 2 else escape(part)
        for i, part in enumerate(parts)
    )
