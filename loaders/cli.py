"""``python -m loaders``: see exactly the pairs that training sees, and count them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from configs import strict
from configs.strict import ConfigError
from loaders.config import BackendName, PairConfig, StorageName
from loaders.plan import PAIR_KINDS
from shards.console import KnownErrorsGroup, counter, print_json, warn

if TYPE_CHECKING:
    from loaders.work import Work

__all__ = ["main"]

MAX_SAMPLES = 400
KINDS = {name.replace(" ", "-"): number for number, name in enumerate(PAIR_KINDS)}


class SampleRange(click.ParamType[tuple[int, int]]):
    """``A:B``, the samples from A up to but not including B."""

    name = "A:B"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        """Parse the two numbers."""
        match = re.fullmatch(r"(\d+):(\d+)", str(value))
        first, end = (int(part) for part in match.groups()) if match else (0, 0)
        if not 0 < end - first <= MAX_SAMPLES:
            self.fail(f"{value!r}: give two numbers A:B, at most {MAX_SAMPLES} apart", param, ctx)
        return first, end


@click.group(
    cls=KnownErrorsGroup,
    epilog="Example: python -m loaders show --config spm_alexnet.yaml --samples 0:16 --out p.png",
)
def main() -> None:
    """Template/search pairs as training draws them."""


def run_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options of every command that takes a run's configuration."""
    for option in (
        click.option(
            "--set",
            "overrides",
            multiple=True,
            metavar="KEY=VALUE",
            help="Override a key of the configuration, as in --set data.seed=1. Repeatable.",
        ),
        click.option(
            "--data", help="A packed data set, or a parent of such.  [default: data/shards]"
        ),
        click.option(
            "--config",
            "config_path",
            default="spm_alexnet.yaml",
            show_default=True,
            help="Run configuration; its 'data' section is used. A file, or one that comes with "
            "us.",
        ),
    ):
        command = option(command)
    return command


EPOCH = click.option(
    "--epoch", type=click.IntRange(0, 1 << 32), default=0, show_default=True, help="Which epoch."
)


def _configuration(path: str, overrides: tuple[str, ...], data: str | None) -> PairConfig:
    given = () if data is None else (strict.Given(f"data.path={data}", "--data"),)
    return strict.load(PairConfig, path, (*overrides, *given), section="data")


@main.command(
    epilog="Example: python -m loaders show --config spm_alexnet.yaml --epoch 3 --sample 12345 "
    "--out pair.png"
)
@run_options
@EPOCH
@click.option("--sample", type=click.IntRange(0), help="Draw this sample of the epoch.")
@click.option(
    "--samples",
    type=SampleRange(),
    help="Draw a sheet of the samples A to B-1; with a filter, of the first B-A that match from A "
    "on; with --by-type, of as many of every type.",
)
@click.option("--kind", type=click.Choice(list(KINDS)), help="Only pairs drawn in this way.")
@click.option("--positive/--negative", "sign", default=None, help="Only pairs of this sign.")
@click.option("--dataset", metavar="NAME", help="Only pairs of this data set.")
@click.option(
    "--by-type",
    is_flag=True,
    help="A row for every data set and kind of pair, of --samples A:B (default 0:4).",
)
@click.option("--storage", type=click.Choice(get_args(StorageName)), help="[default: the config's]")
@click.option("--backend", type=click.Choice(get_args(BackendName)), help="[default: the config's]")
@click.option("--columns", type=click.IntRange(1, 20), help="Of a sheet.  [default: 4]")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Picture to write.")
def show(
    config_path: str,
    data: str | None,
    epoch: int,
    overrides: tuple[str, ...],
    sample: int | None,
    samples: tuple[int, int] | None,
    kind: str | None,
    sign: bool | None,
    dataset: str | None,
    by_type: bool,
    storage: StorageName | None,
    backend: BackendName | None,
    columns: int | None,
    out: Path,
) -> None:
    """Draw pairs of an epoch with their boxes: template left, search right.

    A sample of an epoch is the same pair, pixel for pixel, as in training with this configuration
    and data, whatever the batch size or the number of processes.
    """
    if by_type and (sample is not None or columns is not None):
        raise click.UsageError("--by-type takes --samples A:B: a row has B-A pairs, from A on")
    if by_type and samples is None:
        samples = (0, 4)
    if (sample is None) == (samples is None):
        raise click.UsageError("give either --sample I or --samples A:B")
    if sample is not None and not (kind is None and sign is None and dataset is None):
        raise click.UsageError("--kind, --positive, --negative and --dataset choose of --samples")
    first, end = samples or (sample or 0, (sample or 0) + 1)
    config = _configuration(config_path, overrides, data)
    if storage is not None:
        config = replace(config, storage=storage)
    if backend is not None:
        config = replace(config, backend=backend)
    # uint8 pixels are what the other types are computed from
    # One process plans and reads: what is drawn is looked for pair by pair.
    config = replace(config, pixels="uint8", channels_last=True, workers=0)
    if end > config.pairs_per_epoch:
        raise click.UsageError(
            f"sample {end - 1}: an epoch has {config.pairs_per_epoch:,} (data.pairs_per_epoch)"
        )
    # torch is imported only now, so that --help stays quick
    from loaders.pick import PairFilter, find, rows_by_type
    from loaders.show import pair_tiles
    from loaders.works import open_works
    from shards.draw import save, sheet

    # A stream draws what a run of one process would; the plan's pairs are those of any run.
    works = open_works(config, 0, 1, 1)
    for note in works.sets.warnings:
        warn(note)
    wanted = PairFilter(kind=None if kind is None else KINDS[kind], positive=sign, dataset=dataset)
    count, notes = end - first, list[str]()
    found: Sequence[Work | None]
    with closing(works):
        if by_type:
            found, notes = rows_by_type(works, config, epoch, first, count, wanted)
        else:
            found = find(works, config, epoch, first, count, wanted)
            notes = [f"only {len(found)} of {count} asked for: no more"] * (len(found) < count)
        for note in notes:
            warn(note)
        tiles, positive = pair_tiles(works, config, found)
    save(sheet(tiles, count if by_type else min(columns or 4, len(found))), out)
    for tile in tiles if len(tiles) == 1 else []:
        click.echo(tile.text)
    drawn = sorted(int(work.plan.sample[0]) for work in found if work is not None)
    what = f"samples {drawn[0]} to {drawn[-1]}"
    if len(drawn) != drawn[-1] - drawn[0] + 1:
        what = f"{len(drawn)} of the {what}"
    click.echo(f"{out}: epoch {epoch}, {what}, {positive} positive")


@main.command(epilog="Example: python -m loaders stats --config spm_alexnet.yaml --out stats.png")
@run_options
@EPOCH
@click.option(
    "--samples",
    type=click.IntRange(100, 100_000_000),
    default=100_000,
    show_default=True,
    help="How many plans, from sample 0 of the epoch on; may be more than an epoch has.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the facts as one JSON object.")
@click.option("--out", type=click.Path(path_type=Path), help="Plot them into this picture.")
@click.pass_context
def stats(
    ctx: click.Context,
    config_path: str,
    data: str | None,
    epoch: int,
    overrides: tuple[str, ...],
    samples: int,
    as_json: bool,
    out: Path | None,
) -> None:
    """Compare many plans with the probabilities of the configuration.

    Data sets, kinds and signs of pairs, categories, tracks, gaps, and what the recipe does to the
    crops, each by a chi-square test. No picture is read. Exit code 1 if a p-value is below 1e-6.
    """
    config = _configuration(config_path, overrides, data)
    if config.storage == "sequential":
        raise ConfigError(
            "data.storage 'sequential' draws in a window of tracks, without a plan to count; "
            "'python -m benchmarks sequential' compares the two"
        )
    # torch is imported only now, so that --help stays quick
    from loaders.draws import draw_pairs
    from loaders.sets import open_sets
    from loaders.stats import checks, lines
    from loaders.stats_plot import plot

    with closing(open_sets(config)) as sets:
        for note in sets.warnings:
            warn(note)
        with counter("drawing", "plans", samples) as progress:
            drawn = draw_pairs(sets, config, epoch, samples, progress.update)
        found = checks(sets, drawn, config, epoch)
    wrong = [check.name for check in found if check.verdict().wrong]
    title = f"{config_path}, epoch {epoch}, seed {config.seed}: {samples:,} plans"
    if as_json:
        print_json(
            {
                "config": config_path,
                "epoch": epoch,
                "seed": config.seed,
                "samples": samples,
                "checks": [check.facts() for check in found],
                "wrong": wrong,
            }
        )
    else:
        click.echo(title)
        for line in lines(found):
            click.echo(line)
    if out is not None:
        plot(found, out, title)
        click.echo(f"{out}: plots of {len(found)} checks", err=True)
    if wrong:
        click.echo(f"Error: not as the configuration says: {', '.join(wrong)}", err=True)
        ctx.exit(1)


@main.command(epilog="Example: python -m loaders doctor --config spm_alexnet.yaml --out doctor.png")
@run_options
@click.option("--backend", type=click.Choice(get_args(BackendName)), help="[default: the config's]")
@click.option("--batch-size", type=click.IntRange(1, 4096), default=32, show_default=True)
@click.option(
    "--seconds",
    type=click.FloatRange(0.1, 3600),
    default=6,
    show_default=True,
    help="For all measurements, about.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--out", type=click.Path(path_type=Path), help="Also draw it, as PNG or SVG.")
def doctor(
    config_path: str,
    data: str | None,
    overrides: tuple[str, ...],
    backend: BackendName | None,
    batch_size: int,
    seconds: float,
    as_json: bool,
    out: Path | None,
) -> None:
    """Measure storage, decode, augment and hand-over on this machine, and say what to change.

    Each stage is measured alone, for one thread and for the configured number, then the whole
    loader. The data are only read.
    """
    config = _configuration(config_path, overrides, data)
    if backend is not None:
        config = replace(config, backend=backend)
    # torch is imported only now, so that --help stays quick
    import torch

    from loaders.doctor import examine
    from loaders.doctor_sheet import lines, plot

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    facts = examine(config, device, batch_size, seconds).facts()
    for note in facts["warnings"]:
        warn(note)
    if out is not None:
        plot(facts, out)
    if as_json:
        print_json(facts)
    else:
        for line in lines(facts):
            click.echo(line)
        if out is not None:
            click.echo(f"{out}: written")
