"""Options of the training script that look at its configuration and train nothing."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Callable
from typing import Any

import click

from configs.describe import describe
from configs.explain import explained
from configs.strict import Resolved
from tracker.training.config import FREE_KEYS

__all__ = ["config_flags", "print_config"]

TITLE = "Every key of a run's configuration"
LEAD = """
Made by `python train.py --describe-config > docs/CONFIG.md` from the code; `make lint` compares.

A configuration is a YAML file (the core schema of YAML 1.2: `off` is text, `1e-3` a number) of
sections. What a file does not say has its default, key by key, also in a section that it writes
in part. `base: other.yaml` at the top of a file means all that the other says, but for what is said
here: sections merge key by key, while a list, a number, a text, and a mapping whose names are the
user's own (`data.weights`, `data.sampler.fps`) replace what was there. The other file is looked for
beside this one, then among those that come with us; it may have a base itself.
`--set section.key=value` comes last. `python train.py --config FILE --set ... --print-config`
prints the result, and where each value that is not a default was written.

A key that does not exist, a value of another type or out of its range, and values that contradict
each other are errors that name file and line.

"""


def lead() -> str:
    """What stands before the keys, with the list of those that may change."""
    keys = [f"`{key}`" for key in FREE_KEYS if key != "train.epochs"]
    text = f"These keys may have other values when a run goes on: {', '.join(keys)}; " + (
        "`train.epochs` only with `lr_schedule: steps`. A section stands for all of its keys."
    )
    return LEAD + textwrap.fill(text, 100, break_long_words=False, break_on_hyphens=False)


def config_flags(cls: type[Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add ``--print-config``, for `print_config`, and ``--describe-config``, which needs no more.

    Parameters
    ----------
    cls : dataclass of the whole configuration
    """

    def show(ctx: click.Context, param: click.Parameter, wanted: bool) -> None:
        del param
        if not wanted or ctx.resilient_parsing:
            return
        if _first():
            click.echo(describe(cls, TITLE, lead()), nl=False)
        ctx.exit()

    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in (
            click.option(
                "--describe-config", is_flag=True, is_eager=True, expose_value=False, callback=show,
                help="Print every key of a configuration with its meaning, as Markdown, and exit.",
            ),
            click.option(
                "--print-config", is_flag=True,
                help="Print the whole configuration, and where its values were written, and exit.",
            ),
        ):  # fmt: skip
            command = option(command)
        return command

    return add


def print_config(resolved: Resolved[Any]) -> int:
    """Print a configuration, on rank 0 alone; returns the exit code."""
    if _first():
        click.echo(explained(resolved), nl=False)
    return 0


def _first() -> bool:
    """Whether this is rank 0, as the launcher says; no process group is needed for this."""
    return os.environ.get("RANK", "0") == "0"
