"""Who takes part. Each contestant is one module with ``label`` and ``batches(case)``.

``batches(case)`` yields a `benchmarks.case.Served` for every start of ``case.starts()``, in order,
until it is closed. A module imports at its top all that it needs, for the clock starts after the
imports; a package that is not installed makes the contestant absent, and so does a function
``absent()`` that returns a reason. The label has no pixel type: the runner adds that of the pixels
handed over, for it depends on the class of work. A new contestant is one
module and one line of `CONTESTANTS`.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Literal, Protocol, cast

from benchmarks.case import WORKS, Case, Served, WorkName

__all__ = [
    "BASELINES",
    "CONTESTANTS",
    "IN_MEMORY",
    "SERVER",
    "UNIT",
    "Entry",
    "Module",
    "absence",
    "cannot",
    "load",
    "named",
    "serving",
]

Group = Literal["ours", "baseline", "peer", "limit"]
BASELINES = ("zip-tuned", "zip-published")  # ratios are against these, the harder one first
IN_MEMORY = ("zip-tuned", "zip-region", "zip-published")  # read all before the first batch
SERVER = "server"
UNIT = "whole-decode"  # measures the decode unit, so it always runs


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One line of the list.

    Attributes
    ----------
    name : on the command line and in results; the module has ``_`` for ``-``
    group : how the table sorts it
    needs : forms of the data beside the shards, see `benchmarks.derived`; `SERVER`: the data behind
        a slow server too, at ``case.url``
    works : classes of work that it can do
    pairs : ``plan``: exactly the plan's; ``own``: as many, but drawn its own way, because it reads
        its data in order
    env : name of the environment of its own that it runs in, see `benchmarks.peers`; None: ours
    limit : of ours: the contestant that does only what this one cannot do without. The others
        have none, as most decode whole pictures and these limits only the regions that are needed
    share : of the pairs that this one makes; below 1 for what is only there to compare pixels
    """

    name: str
    group: Group
    needs: tuple[str, ...] = ()
    works: tuple[WorkName, ...] = WORKS
    pairs: Literal["plan", "own"] = "plan"
    env: str | None = None
    limit: str = "decode-only"
    share: float = 1.0


CONTESTANTS = (
    Entry(name="cpu", group="ours"),
    Entry(name="dali", group="ours", limit="dali-decode-only"),
    Entry(name="dali-cpu", group="ours", limit="dali-decode-only"),
    Entry(name="reference", group="ours", share=1 / 32),
    Entry(name="cpu-sequential", group="ours", pairs="own"),
    Entry(name="cpu-remote", group="ours", needs=(SERVER,)),
    Entry(name="zip-tuned", group="baseline", needs=("legacy",)),
    Entry(name="zip-region", group="baseline", needs=("legacy",)),
    Entry(name="zip-published", group="baseline", needs=("legacy",)),
    Entry(name="zip-disk", group="baseline", needs=("legacy",)),
    Entry(name="files", group="baseline", needs=("files",)),
    Entry(name="webdataset", group="peer", works=("plain",), pairs="own"),
    Entry(name="litdata", group="peer", needs=("litdata",)),
    Entry(
        name="mosaic-streaming",
        group="peer",
        needs=("mosaic-streaming",),
        env="mosaic-streaming",
    ),
    Entry(name="grain", group="peer", needs=("grain",)),
    Entry(name="spdl", group="peer"),
    Entry(name="ffcv", group="peer", needs=("ffcv",), works=("plain",), env="ffcv"),
    Entry(name="ready", group="limit"),
    Entry(name="read-only", group="limit"),
    Entry(name="decode-only", group="limit"),
    Entry(name="whole-decode", group="limit"),
    Entry(name="dali-decode-only", group="limit"),
    Entry(name="dali-whole-decode", group="limit"),
    Entry(name="dali-webdataset", group="limit", needs=("dali",), pairs="own"),
)


class Module(Protocol):
    """What a contestant's module offers."""

    label: str

    def batches(self, case: Case) -> Iterator[Served]:
        """Make all planned batches, in order."""


def cannot(work: WorkName) -> str:
    """Reason of a contestant whose `Entry.works` lacks a class of work."""
    return f"cannot do {work}"


def load(name: str) -> Module:
    """Import a contestant's module."""
    module = import_module(f"{__name__}.{name.replace('-', '_')}")
    return cast("Module", module)


def absence(module: Module) -> str | None:
    """Why a contestant cannot run on this machine, if its module says so."""
    reason: str | None = getattr(module, "absent", lambda: None)()
    return reason


@contextmanager
def serving(module: Module, case: Case) -> Generator[Iterator[Served], None, None]:
    """Batches of a contestant, whose worker processes and threads end with the block."""
    batches = module.batches(case)
    try:
        yield batches
    finally:
        close = getattr(batches, "close", None)
        if close is not None:
            close()


def named(names: list[str]) -> list[Entry]:
    """Entries of some names, in the order of the list; all without names.

    Raises
    ------
    ValueError : if one is unknown
    """
    known = [entry.name for entry in CONTESTANTS]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(f"no contestant {', '.join(unknown)}; there are {', '.join(known)}")
    return [entry for entry in CONTESTANTS if not names or entry.name in names]
