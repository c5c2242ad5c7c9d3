"""``python -m benchmarks peers``: the other loaders, what is there and what is not."""

from __future__ import annotations

import click

from benchmarks.options import say, show
from benchmarks.peers import ENVIRONMENTS, HOME, states
from benchmarks.peers_make import make
from shards.console import KnownErrors

__all__ = ["peers"]

_HEADER = ("peer", "where", "version", "to add it")


@click.command(cls=KnownErrors, epilog="Example: python -m benchmarks peers ffcv")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--list", "listed", is_flag=True, help="Only tell what is there.")
@click.option("--again", is_flag=True, help="Make environments anew that are there.")
def peers(names: tuple[str, ...], listed: bool, again: bool) -> None:
    """Make environments for peers that cannot live beside our packages.

    Without a NAME all are made. They lie in data/bench-peers ($SIAMSTREAM_PEERS), see our packages
    and take up to 1 GB each.
    """
    if not listed:
        for name in names or ENVIRONMENTS:
            made = make(name, HOME, again, say)
            say(f"{name}: {'made' if made else 'was there already'}")
    cells: list[tuple[str, ...]] = [
        (one.name, one.place, one.version or "absent", "" if one.version else one.command)
        for one in states()
        if not names or one.name in names
    ]
    show(cells, _HEADER, [])
