"""The tables of the documents, from the committed results; nothing in them is typed by hand.

A section stands, in its document, between ``<!-- benchmarks:NAME:begin -->`` and
``<!-- benchmarks:NAME:end -->``. Another section is a renderer and a line of `SECTIONS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import result, table
from benchmarks.bars import bars_lines
from benchmarks.claims import CLAIMS_HEADER, claim_rows
from benchmarks.costs import COSTS_HEADER, costs_lines, costs_rows
from benchmarks.learn_report import CURVE_HEADER, curve_rows, learn_lines
from benchmarks.memory import memory_lines
from benchmarks.pack import PACK_HEADER, pack_rows, profile_rows
from benchmarks.remote import remote_lines
from benchmarks.sequential import SEQUENTIAL_HEADER, sequential_lines, sequential_rows
from benchmarks.step import STEP_HEADER, step_lines, step_rows
from benchmarks.train_report import (
    FEEDS_HEADER,
    SETTINGS_HEADER,
    feeds_rows,
    settings_lines,
    settings_rows,
    train_lines,
)
from shards.errors import FormatError
from shards.storage import FolderSink

__all__ = ["SECTIONS", "Section", "loaders_section", "update"]


def loaders_section(run: Mapping[str, Any]) -> str:
    """Table of the loaders, the lines that explain it, and the command that made it."""
    return "\n\n".join(
        [table.markdown(table.rows(run)), " ".join(table.header_lines(run)), _made(run)]
    )


def limits_section(run: Mapping[str, Any]) -> str:
    """Table of the promises in numbers."""
    return _claims(run, [])


def bars_section(run: Mapping[str, Any]) -> str:
    """Table of the promises about speed, and what they were measured on."""
    return _claims(run, bars_lines(run))


def memory_section(run: Mapping[str, Any]) -> str:
    """Table of the promises about memory, and the figures behind them."""
    return _claims(run, memory_lines(run))


def remote_section(run: Mapping[str, Any]) -> str:
    """Table of the promises about remote shards, and how they were measured."""
    return _claims(run, remote_lines(run))


def _claims(run: Mapping[str, Any], lines: list[str]) -> str:
    told = [" ".join(lines)] if lines else []
    return "\n\n".join([table.markdown(claim_rows(run), CLAIMS_HEADER), *told, _made(run)])


def costs_section(run: Mapping[str, Any]) -> str:
    """Table of what each step of a pair costs."""
    lines = " ".join(costs_lines(run))
    return "\n\n".join([table.markdown(costs_rows(run), COSTS_HEADER), lines, _made(run)])


def sequential_section(run: Mapping[str, Any]) -> str:
    """Table of a window's pairs beside the plan's."""
    lines = " ".join(sequential_lines(run))
    return "\n\n".join([table.markdown(sequential_rows(run), SEQUENTIAL_HEADER), lines, _made(run)])


def step_section(run: Mapping[str, Any]) -> str:
    """Table of the training step beside the loop over samples."""
    lines = " ".join(step_lines(run))
    return "\n\n".join([table.markdown(step_rows(run), STEP_HEADER), lines, _made(run)])


def train_section(run: Mapping[str, Any]) -> str:
    """Tables of training by feed and of its settings, and the promises."""
    return "\n\n".join(
        [
            table.markdown(feeds_rows(run), FEEDS_HEADER),
            table.markdown(claim_rows(run), CLAIMS_HEADER),
            table.markdown(settings_rows(run), SETTINGS_HEADER),
            *settings_lines(run),
            " ".join(train_lines(run)),
            _made(run),
        ]
    )


def learn_section(run: Mapping[str, Any]) -> str:
    """Promises about learning, and the figures by number of steps."""
    curve = table.markdown(curve_rows(run), CURVE_HEADER)
    return "\n\n".join(
        [
            table.markdown(claim_rows(run), CLAIMS_HEADER),
            curve,
            " ".join(learn_lines(run)),
            _made(run),
        ]
    )


def pack_section(run: Mapping[str, Any]) -> str:
    """Table of packing against the obvious loop, and where the time goes."""
    header, rows = profile_rows(run)
    explained = (
        f"{run['frames']} crops a case, median of {run['repeats']} repeats. The obvious loop "
        "decodes the whole frame with OpenCV once for every object, takes the border's colour "
        "with numpy.mean, warps and encodes; the tuned one takes cv2.mean. Below, where the time "
        "of a frame goes."
    )
    tables = [table.markdown(pack_rows(run), PACK_HEADER), explained, table.markdown(rows, header)]
    return "\n\n".join([*tables, _made(run)])


def _made(run: Mapping[str, Any]) -> str:
    environment = run["environment"]
    commit = environment["commit"]
    state = " with uncommitted changes" if environment["uncommitted_changes"] else ""
    at = f"commit {commit[:10]}{state}" if commit else "a checkout without commits"
    machine = f"{environment['cpu']}, {environment['cores_usable']} usable cores"
    return f"Made by `{run['command']}` at {at} on {machine}; every repeat is in the JSON."


@dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    """Part of a document: name in the markers, result's file and kind, renderer."""

    name: str
    file: str
    kind: str
    render: Callable[[Mapping[str, Any]], str]
    document: str = "README.md"


SECTIONS = (
    Section(name="loaders", file="loaders-cpu.json", kind="loaders", render=loaders_section),
    Section(name="bars", file="bars-cpu.json", kind="bars", render=bars_section),
    Section(name="memory", file="memory-cpu.json", kind="memory", render=memory_section),
    Section(
        name="costs",
        file="costs-cpu.json",
        kind="costs",
        render=costs_section,
        document="docs/LOADERS.md",
    ),
    Section(
        name="remote",
        file="remote.json",
        kind="remote",
        render=remote_section,
        document="docs/LOADERS.md",
    ),
    Section(
        name="sequential",
        file="sequential.json",
        kind="sequential",
        render=sequential_section,
        document="docs/LOADERS.md",
    ),
    Section(
        name="learn",
        file="learn-cpu.json",
        kind="learn",
        render=learn_section,
        document="docs/TRACKER.md",
    ),
    Section(
        name="train",
        file="train-cpu.json",
        kind="train",
        render=train_section,
        document="docs/TRAINING.md",
    ),
    Section(name="limits", file="limits-cpu.json", kind="limits", render=limits_section),
    Section(name="pack", file="pack-cpu.json", kind="pack", render=pack_section),
    Section(
        name="step",
        file="step-cpu.json",
        kind="step",
        render=step_section,
        document="docs/TRACKER.md",
    ),
)


def update(text: str, document: str, results: Path, where: str) -> str:
    """Text of a document with all its sections made anew.

    Parameters
    ----------
    text : of now
    document : its path in the checkout, as sections name it
    results : folder of the committed results
    where : name of the file, for messages

    Raises
    ------
    FormatError : if markers or results are absent or damaged
    """
    for section in SECTIONS:
        if section.document != document:
            continue
        begin, end = (f"<!-- benchmarks:{section.name}:{edge} -->" for edge in ("begin", "end"))
        if text.count(begin) != 1 or text.count(end) != 1:
            raise FormatError(f"{where}: needs the lines '{begin}' and '{end}', once each")
        before, _, rest = text.partition(begin)
        if end not in rest:
            raise FormatError(f"{where}: '{end}' stands before '{begin}'")
        after = rest.partition(end)[2]
        body = section.render(result.read(results / section.file, section.kind))
        text = f"{before}{begin}\n{body}\n{end}{after}"
    return text


def write(root: Path, results: Path, check: bool) -> list[Path]:
    """Bring the documents up to date.

    Parameters
    ----------
    root : the checkout
    results : folder of the committed results
    check : only look

    Returns
    -------
    the documents that were stale
    """
    stale = []
    for document in dict.fromkeys(section.document for section in SECTIONS):
        path = root / document
        try:
            old = path.read_text()
        except OSError as error:
            raise FormatError(f"{path}: cannot be read: {error.strerror}") from error
        new = update(old, document, results, str(path))
        if new != old:
            stale.append(path)
            if not check:
                FolderSink(path.parent).write(path.name, new.encode())
    return stale
