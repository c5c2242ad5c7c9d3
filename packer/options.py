"""The options that the commands of all data sets share, and how such a command runs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar, get_args

import click

from packer.cluster import check_address, connected
from packer.draft import Progress
from packer.filters import Filters, read_names, split_categories
from packer.jobs import PackOptions, limits
from packer.run import OnError, pack
from packer.sequence import DataSet
from packer.share import Share
from shards.console import counter, print_json
from shards.errors import SiamstreamError
from shards.geometry import CROP_PX, GRIDS
from shards.sink import Sink, sink_at

__all__ = [
    "PLACE",
    "crew",
    "crop_options",
    "interruptible",
    "pack_options",
    "parent_of",
    "place",
    "run_pack",
    "say",
    "whole",
]

INTERRUPTED = 130
Command = TypeVar("Command", bound=Callable[..., None])
Decorator = Callable[[Command], Command]


def say(text: str) -> None:
    """Print a line on stderr."""
    click.echo(text, err=True)


def whole(option: str) -> click.IntRange:
    """Range of a whole-number option, from `PackOptions`."""
    low, high = limits(option) or (None, None)
    return click.IntRange(low, high)


def parent_of(variable: str, otherwise: str) -> Callable[[], Path]:
    """Return the default of a parent folder: the variable's value, or else a fixed one."""
    return lambda: Path(os.environ.get(variable) or otherwise)


def _folder(variable: str, parent: str, name: str) -> Callable[[], Path]:
    """Return the default of a data set's folder: below the variable's value, or else `parent`."""
    return lambda: parent_of(variable, parent)() / name


class _Place(click.ParamType[Sink]):
    """A folder, or a prefix of a bucket."""

    name = "dir|s3://bucket/prefix"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Sink:
        """Return the sink of a text."""
        try:
            return sink_at(value) if isinstance(value, str | Path) else value
        except SiamstreamError as error:
            self.fail(str(error), param, ctx)


PLACE = _Place()


def place(*names: str) -> Callable[[], str]:
    """Return the default of an output: its parent is SIAMSTREAM_SHARDS, or else data/shards."""
    return lambda: "/".join((os.environ.get("SIAMSTREAM_SHARDS") or "data/shards", *names))


def _share(_ctx: click.Context, _option: click.Parameter, value: str | None) -> Share | None:
    try:
        return None if value is None else Share.parse(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


def _scheduler(_ctx: click.Context, _option: click.Parameter, value: str | None) -> str | None:
    try:
        return None if value is None else check_address(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


def _decorated(options: list[Callable[[Any], Any]]) -> Decorator[Any]:
    def add(command: Any) -> Any:
        for option in reversed(options):
            command = option(command)
        return command

    return add


def _categories(
    _ctx: click.Context, _option: click.Parameter, value: str | None
) -> frozenset[str] | None:
    """Class names of a text with commas between them."""
    try:
        return None if value is None else split_categories(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


def pack_options(dataset: DataSet | type[Any], *, of_pictures: bool = False) -> Decorator[Any]:
    """Options that all data sets share, with this one's defaults.

    Parameters
    ----------
    dataset : the data set, or its class
    of_pictures : of single pictures, which have no stride
    """
    name, file = dataset.NAME, click.Path(path_type=Path, dir_okay=False)
    size = "over this" if dataset.MIN_EXCLUSIVE else "at least this"
    options = [
        click.option(
            "--root",
            type=click.Path(path_type=Path),
            default=_folder("SIAMSTREAM_RAW", "data/raw", name),
            show_default=f"data/raw/{name}, or $SIAMSTREAM_RAW/{name}",
            help="Raw data set.",
        ),
        click.option(
            "--out",
            type=PLACE,
            default=place(name),
            show_default=f"data/shards/{name}, or $SIAMSTREAM_SHARDS/{name}",
            help="Folder or bucket of the shards: new, empty, or begun by the same command.",
        ),
        click.option(
            "--min-size",
            type=whole("min_size"),
            default=dataset.MIN_SIZE,
            help=f"Width and height of a box must be {size}, in pixels.",
        ),
        click.option("--names", type=file, help="Only the sequences that this file names."),
        click.option("--exclude", type=file, help="Not the sequences that this file names."),
        click.option(
            "--categories", metavar="A,B", callback=_categories, help="Only these classes."
        ),
        *crop_options(),
    ]
    if not of_pictures:
        options.insert(
            2,
            click.option(
                "--stride",
                type=whole("stride"),
                default=dataset.STRIDE,
                help="Keep every n-th frame.",
            ),
        )
    if len(dataset.SPLITS) > 1:
        options.insert(
            2,
            click.option(
                "--split",
                type=click.Choice(dataset.SPLITS),
                default="train",
                help="Which official part.",
            ),
        )
    return _decorated(options)


def crop_options() -> list[Callable[[Any], Any]]:
    """Options of the crops and of the run, the same for every data set."""
    defaults = PackOptions(stride=1, min_size=1)
    return [
        click.option(
            "--size", type=whole("size"), default=CROP_PX, help="Side of a crop in pixels."
        ),
        click.option(
            "--quality", type=whole("quality"), default=defaults.quality, help="JPEG quality."
        ),
        click.option("--limit", type=whole("limit"), help="Only the first N sequences."),
        click.option(
            "--workers", type=click.IntRange(1), show_default="one a core", help="Processes."
        ),
        click.option(
            "--scheduler",
            metavar="ADDRESS",
            callback=_scheduler,
            help="Pack on the Dask cluster of this scheduler, as in tcp://host:8786.",
        ),
        click.option(
            "--job",
            "share",
            metavar="I/N",
            callback=_share,
            help="Pack share I of N (0/N to N-1/N); 'python -m shards finish' follows the last.",
        ),
        click.option(
            "--frames-per-shard",
            type=whole("frames_per_shard"),
            default=defaults.frames_per_shard,
            help="Most frames in a shard.",
        ),
        click.option(
            "--on-error",
            type=click.Choice(get_args(OnError)),
            default="fail",
            help="List all that is malformed and fail, or leave it out frame by frame, counted.",
        ),
        click.option(
            "--grid",
            type=click.Choice(GRIDS),
            default=defaults.grid,
            help="Pixel grid of the crops; corner is that of the published checkpoints.",
        ),
        click.option("--inclusive-boxes", is_flag=True, help="Boxes end at x + w - 1."),
        click.option("--dry-run", is_flag=True, help="Plan and report, write nothing."),
        click.option("--json", "as_json", is_flag=True, help="Print the facts as one JSON object."),
    ]


def run_pack(
    dataset: DataSet,
    root: Path,
    out: Sink,
    *,
    names: Path | None,
    exclude: Path | None,
    categories: frozenset[str] | None,
    workers: int | None,
    scheduler: str | None,
    share: Share | None,
    on_error: OnError,
    dry_run: bool,
    as_json: bool,
    progress: Progress = counter,
    **options: Any,
) -> None:
    """Pack one data set with the values of `pack_options`, and report."""
    filters = Filters(
        names=None if names is None else read_names(names),
        exclude=frozenset() if exclude is None else read_names(exclude),
        categories=categories,
    )
    with interruptible(), crew(scheduler, workers, share, dry_run) as (executor, at_once):
        report = pack(
            dataset,
            root,
            out,
            PackOptions(**{"stride": dataset.STRIDE, **options}),
            workers=at_once,
            executor=executor,
            share=share,
            on_error=on_error,
            dry_run=dry_run,
            progress=progress,
            filters=filters,
        )
    for line in report.lines():
        say(line)
    if as_json:
        print_json(report.facts())


@contextmanager
def crew(
    scheduler: str | None, workers: int | None, share: Share | None, dry_run: bool
) -> Iterator[tuple[Executor | None, int | None]]:
    """Executor of the jobs (None: processes of our own), and how many run at a time.

    Raises
    ------
    click.UsageError : if options are given that do not go together
    """
    if scheduler is None:
        yield None, workers
        return
    if workers is not None:
        raise click.UsageError("--workers is for this machine; with --scheduler leave it out")
    if share is not None:
        raise click.UsageError("--job and --scheduler are two ways to use many machines; take one")
    if dry_run:
        yield None, None
        return
    with connected(scheduler, say) as found:
        yield found.executor, found.workers


@contextmanager
def interruptible() -> Iterator[None]:
    """Say on Ctrl-C that the command goes on when it is run again."""
    try:
        yield
    except KeyboardInterrupt:
        say("interrupted: run the same command again to go on")
        raise click.exceptions.Exit(INTERRUPTED) from None
