"""What all commands share: known errors in one line, JSON on stdout, progress on stderr."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from shards.errors import KNOWN_ERRORS

__all__ = [
    "Counter",
    "KnownErrors",
    "KnownErrorsGroup",
    "counter",
    "counter_on_demand",
    "print_json",
]


class KnownErrors(click.Command):
    """A command that prints known errors in one line and exits 1."""

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        r"""Write the help; its docstring is raw, so ``\b`` in it is two characters."""
        self.help = _unescaped(self.help)
        super().format_help(ctx, formatter)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except KNOWN_ERRORS as error:
            raise click.ClickException(str(error) or type(error).__name__) from error
        except BrokenPipeError:
            raise  # the reader has seen enough: click's own business
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            raise click.ClickException(f"{where}{error.strerror or error}") from error


class KnownErrorsGroup(click.Group):
    """A group whose commands print known errors in one line and exit 1."""

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the help, see `KnownErrors`."""
        self.help = _unescaped(self.help)
        super().format_help(ctx, formatter)

    command_class = KnownErrors


def _unescaped(text: str | None) -> str | None:
    return None if text is None else text.replace("\\b\n", "\b\n")


def warn(text: str) -> None:
    """Say on stderr what the user should know, while the command goes on."""
    click.echo(f"Warning: {text}", err=True)


def print_json(facts: Mapping[str, Any]) -> None:
    """Print the one object that a command with ``--json`` writes to stdout."""
    click.echo(json.dumps(facts, indent=1))


class Counter:
    """Progress of some long work; see `counter`."""

    def __init__(self, what: str, unit: str, total: int, every_s: float = 5.0) -> None:
        self._what, self._unit, self._total, self._every_s = what, unit, total, every_s
        self._started = self._told = time.monotonic()
        self._bar: Progress | None = None
        if sys.stderr.isatty():
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.completed:,.0f}/{task.total:,.0f} {task.fields[rate]}"),
                TimeRemainingColumn(),
                console=Console(stderr=True),
            )
            self._task = self._bar.add_task(what, total=total, rate="")
            self._bar.start()

    def update(self, done: int) -> None:
        """Say how much is done in all."""
        now = time.monotonic()
        rate = done / max(now - self._started, 1e-9)
        if self._bar:
            self._bar.update(self._task, completed=done, rate=f"{rate:,.0f} {self._unit}/s")
        elif now - self._told >= self._every_s and done < self._total:
            self._told = now
            left = f", {(self._total - done) / rate:,.0f} s left" if done else ""
            click.echo(
                f"{self._what}: {done:,}/{self._total:,} {self._unit}, {rate:,.0f}/s{left}",
                err=True,
            )

    def stop(self) -> None:
        """Leave the terminal as it was."""
        if self._bar:
            self._bar.stop()


@contextmanager
def counter(what: str, unit: str, total: int) -> Iterator[Counter]:
    """Show progress on stderr: a bar on a terminal, else a line every few seconds."""
    shown = Counter(what, unit, total)
    try:
        yield shown
    finally:
        shown.stop()


@contextmanager
def counter_on_demand(what: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    """Show progress of work that tells its total only when it begins: a function of both."""
    shown: list[Counter] = []

    def tell(done: int, total: int) -> None:
        if not shown:
            shown.append(Counter(what, unit, total))
        shown[0].update(done)

    try:
        yield tell
    finally:
        for one in shown:
            one.stop()
