"""The option ``--compare`` of ``python -m benchmarks`` and of its commands that measure loaders."""

from __future__ import annotations

from pathlib import Path

import click

from benchmarks.options import show
from shards.errors import KNOWN_ERRORS

__all__ = ["COMPARE"]


def _compare(ctx: click.Context, _: click.Parameter, paths: tuple[Path, Path] | None) -> None:
    if not paths:
        return
    from benchmarks.diff import DIFF_HEADER, condition_lines, conditions, diff_rows, read_two

    try:
        a, b = read_two(paths)
    except KNOWN_ERRORS as error:
        raise click.ClickException(str(error)) from error
    for side, path, run in zip("AB", paths, (a, b), strict=True):
        click.echo(f"{side}: {path}, {run['made_utc']}, {run['environment']['cpu']}")
    found = conditions(a, b)
    for line in condition_lines(found):
        click.echo(line)
    rows, lines = diff_rows(a, b, not found.loud)
    show(rows, DIFF_HEADER, lines)
    ctx.exit(0)


COMPARE = click.option(
    "--compare",
    nargs=2,
    metavar="A.json B.json",
    type=click.Path(path_type=Path, dir_okay=False),
    is_eager=True,
    expose_value=False,
    callback=_compare,
    help="Measure nothing; show how two results of one kind differ.",
)
