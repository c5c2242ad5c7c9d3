"""The documents and the page, from the committed results; nothing in them is typed by hand.

A section stands, in its document, between ``<!-- benchmarks:NAME:begin -->`` and
``<!-- benchmarks:NAME:end -->``, and on the page under its title. Another section is a function
that turns a result into blocks, and an element of `SECTIONS`: that list says what is shown where.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import result
from benchmarks.page import PAGE, PLOT, Shown, page, readme_plot
from benchmarks.report_blocks import Section, markdown
from benchmarks.report_gpu import gpu_blocks
from benchmarks.report_kinds import (
    bars_blocks,
    costs_blocks,
    learn_blocks,
    limits_blocks,
    memory_blocks,
    pack_blocks,
    remote_blocks,
    sequential_blocks,
    step_blocks,
    train_blocks,
)
from benchmarks.report_loaders import loaders_blocks
from benchmarks.report_scale import SCALE_PLOT, scale_blocks, scale_plot
from benchmarks.report_sweep import sweep_blocks
from shards.errors import FormatError
from shards.storage import FolderSink

__all__ = ["SECTIONS", "shown", "update", "write"]

_NO_GPU = (
    "There are no GPU results yet. On a machine with a GPU, `python -m benchmarks gpu --out "
    "DIR` measures everything in one command, without network; copy `DIR/gpu.json` to "
    "`benchmarks/results/gpu-NAME.json` and run `python -m benchmarks report` to show it here."
)
_PLOT = (
    f"![Pairs/s of every loader, with quartiles and every repeat]({PLOT})\n\nEverything that was "
    f"measured, with plots and method, is one page to open in a browser: [{PAGE}]({PAGE})."
)
# In the order of the page.
SECTIONS = (
    Section(
        name="loaders-plain",
        title="Loaders: decode, crop, resize, normalise",
        file="loaders-plain-cpu.json",
        kind="loaders",
        options="--work plain --pairs 1024 --repeats 5",
        blocks=loaders_blocks,
        document=None,
    ),
    Section(
        name="loaders",
        title="Loaders: the full recipe",
        file="loaders-cpu.json",
        kind="loaders",
        options="--pairs 1024 --repeats 5",
        blocks=loaders_blocks,
        lead=_PLOT,
    ),
    Section(
        name="sweep",
        title="Workers, batch, data size, page cache, storage",
        file="sweep-cpu.json",
        kind="sweep",
        blocks=sweep_blocks,
        document=None,
    ),
    Section(
        name="gpu",
        title="On a GPU",
        file="gpu-*.json",
        kind="gpu",
        command="python -m benchmarks gpu --out DIR",
        blocks=gpu_blocks,
        absent=_NO_GPU,
    ),
    Section(
        name="scale",
        title="At scale, simulated",
        file="scale.json",
        kind="scale",
        blocks=scale_blocks,
        document="docs/SCALE.md",
        absent="Nothing has been simulated yet: `python -m benchmarks scale --json FILE`.",
    ),
    Section(
        name="bars",
        title="Promises about local speed",
        file="bars-cpu.json",
        kind="bars",
        blocks=bars_blocks,
    ),
    Section(
        name="memory",
        title="Memory",
        file="memory-cpu.json",
        kind="memory",
        blocks=memory_blocks,
    ),
    Section(
        name="remote",
        title="Shards behind a slow server",
        file="remote.json",
        kind="remote",
        options="--repeats 5",
        blocks=remote_blocks,
        document="docs/LOADERS.md",
    ),
    Section(
        name="costs",
        title="What each step of a pair costs",
        file="costs-cpu.json",
        kind="costs",
        blocks=costs_blocks,
        document="docs/LOADERS.md",
    ),
    Section(
        name="sequential",
        title="Pairs of streamed shards",
        file="sequential.json",
        kind="sequential",
        blocks=sequential_blocks,
        document="docs/LOADERS.md",
    ),
    Section(
        name="train",
        title="Training",
        file="train-cpu.json",
        kind="train",
        blocks=train_blocks,
        document="docs/TRAINING.md",
    ),
    Section(
        name="step",
        title="The training step without its backbone",
        file="step-cpu.json",
        kind="step",
        blocks=step_blocks,
        document="docs/TRACKER.md",
    ),
    Section(
        name="learn",
        title="A small model learns to track",
        file="learn-cpu.json",
        kind="learn",
        blocks=learn_blocks,
        document="docs/TRACKER.md",
    ),
    Section(
        name="limits",
        title="Index, plan, memory and start",
        file="limits-cpu.json",
        kind="limits",
        blocks=limits_blocks,
    ),
    Section(
        name="pack",
        title="Packing",
        file="pack-cpu.json",
        kind="pack",
        blocks=pack_blocks,
    ),
)


def _runs(section: Section, results: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """File name and content of every result of a section that is there."""
    for path in sorted(results.glob(section.file)):
        yield path.name, result.read(path, section.kind)


def shown(results: Path) -> list[Shown]:
    """All sections with the results that are there.

    Raises
    ------
    FormatError : if one is damaged
    """
    return [Shown(section=section, runs=tuple(_runs(section, results))) for section in SECTIONS]


def _body(section: Section, results: Path) -> str:
    runs = [run for _, run in _runs(section, results)]
    if not runs:
        if section.absent is None:
            raise FormatError(
                f"{results / section.file}: no such result; make it with '{section.repeats}'"
            )
        return section.absent
    lead = [section.lead] if section.lead else []
    return "\n\n".join([*lead, *(markdown(section.blocks(run)) for run in runs)])


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
        text = f"{before}{begin}\n{_body(section, results)}\n{end}{after}"
    return text


def write(root: Path, results: Path, check: bool) -> list[Path]:
    """Bring the documents, the page and the README's plot up to date.

    Parameters
    ----------
    root : the checkout
    results : folder of the committed results
    check : only look

    Returns
    -------
    the files that were stale

    Raises
    ------
    FormatError : if markers or results are absent or damaged
    StorageError : if a file cannot be written
    """
    texts: dict[Path, tuple[str | None, str]] = {}
    for document in dict.fromkeys(section.document for section in SECTIONS):
        if document is None:
            continue
        path = root / document
        try:
            old = path.read_text("utf-8")
        except OSError as error:
            raise FormatError(f"{path}: cannot be read: {error.strerror}") from error
        texts[path] = old, update(old, document, results, str(path))
    sections = shown(results)
    simulated = next(
        (run for one in sections if one.section.kind == "scale" for _, run in one.runs), None
    )
    drawn = (
        (PAGE, page(sections)),
        (PLOT, readme_plot(sections)),
        (SCALE_PLOT, scale_plot(simulated)),
    )
    for name, new in drawn:
        path = root / name
        texts[path] = path.read_text("utf-8") if path.exists() else None, new
    stale = [path for path, (old, new) in texts.items() if old != new]
    for path in () if check else stale:
        FolderSink(path.parent).write(path.name, texts[path][1].encode())
    return stale
