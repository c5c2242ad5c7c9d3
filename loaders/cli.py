"""``python -m loaders``: see exactly the pairs that training sees."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import get_args

import click

from configs import strict
from loaders.config import BackendName, PairConfig, StorageName
from shards.console import KnownErrorsGroup

__all__ = ["main"]

MAX_SAMPLES = 400


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


@main.command(
    epilog="Example: python -m loaders show --config spm_alexnet.yaml --epoch 3 --sample 12345 "
    "--out pair.png"
)
@click.option(
    "--config",
    "config_path",
    default="spm_alexnet.yaml",
    show_default=True,
    help="Run configuration; its 'data' section is used. A file, or one that comes with us.",
)
@click.option("--data", help="A packed data set, or a parent of such.  [default: data/shards]")
@click.option(
    "--epoch", type=click.IntRange(0, 1 << 32), default=0, show_default=True, help="Which epoch."
)
@click.option("--sample", type=click.IntRange(0), help="Draw this sample of the epoch.")
@click.option("--samples", type=SampleRange(), help="Draw a sheet of the samples A to B-1.")
@click.option("--storage", type=click.Choice(get_args(StorageName)), help="[default: the config's]")
@click.option("--backend", type=click.Choice(get_args(BackendName)), help="[default: the config's]")
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Override a key of the configuration, as in --set data.seed=1. Repeatable.",
)
@click.option("--columns", type=click.IntRange(1, 20), default=4, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Picture to write.")
def show(
    config_path: str,
    data: str | None,
    epoch: int,
    sample: int | None,
    samples: tuple[int, int] | None,
    storage: StorageName | None,
    backend: BackendName | None,
    overrides: tuple[str, ...],
    columns: int,
    out: Path,
) -> None:
    """Draw pairs of an epoch with their boxes: template left, search right.

    A sample of an epoch is the same pair, pixel for pixel, as in training with this configuration
    and data, whatever the batch size or the number of processes.
    """
    if (sample is None) == (samples is None):
        raise click.UsageError("give either --sample I or --samples A:B")
    first, end = samples or (sample or 0, (sample or 0) + 1)
    given = () if data is None else (f"data.path={data}",)
    config = strict.load(PairConfig, config_path, (*overrides, *given), section="data")
    if storage is not None:
        config = replace(config, storage=storage)
    if backend is not None:
        config = replace(config, backend=backend)
    # uint8 pixels are what the other types are computed from
    config = replace(config, pixels="uint8", channels_last=True)
    if end > config.pairs_per_epoch:
        raise click.UsageError(
            f"sample {end - 1}: an epoch has {config.pairs_per_epoch:,} (data.pairs_per_epoch)"
        )
    # torch is imported only now, so that --help stays quick
    from loaders.show import pair_tiles
    from shards.draw import save, sheet

    tiles, positive, warnings = pair_tiles(config, epoch, first, end - first)
    for note in warnings:
        click.echo(f"Warning: {note}", err=True)
    save(sheet(tiles, min(columns, len(tiles))), out)
    for tile in tiles if len(tiles) == 1 else []:
        click.echo(tile.text)
    click.echo(f"{out}: epoch {epoch}, samples {first} to {end - 1}, {positive} positive")


@main.command(epilog="Example: python -m loaders doctor --config spm_alexnet.yaml --out doctor.png")
@click.option(
    "--config",
    "config_path",
    default="spm_alexnet.yaml",
    show_default=True,
    help="Run configuration; its 'data' section is used. A file, or one that comes with us.",
)
@click.option("--data", help="A packed data set, or a parent of such.  [default: data/shards]")
@click.option("--backend", type=click.Choice(get_args(BackendName)), help="[default: the config's]")
@click.option("--batch-size", type=click.IntRange(1, 4096), default=32, show_default=True)
@click.option(
    "--seconds",
    type=click.FloatRange(0, 3600, min_open=True),
    default=6,
    show_default=True,
    help="For all measurements, about.",
)
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Override a key of the configuration, as in --set data.threads=4. Repeatable.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--out", type=click.Path(path_type=Path), help="Also draw it, as PNG or SVG.")
def doctor(
    config_path: str,
    data: str | None,
    backend: BackendName | None,
    batch_size: int,
    seconds: float,
    overrides: tuple[str, ...],
    as_json: bool,
    out: Path | None,
) -> None:
    """Measure storage, decode, augment and hand-over on this machine, and say what to change.

    Each stage is measured alone, for one thread and for the configured number, then the whole
    loader. The data are only read.
    """
    config = strict.load(PairConfig, config_path, overrides, section="data")
    if data is not None:
        config = replace(config, path=data)
    if backend is not None:
        config = replace(config, backend=backend)
    # torch is imported only now, so that --help stays quick
    import torch

    from loaders.doctor import examine
    from loaders.doctor_sheet import lines, plot
    from shards.console import print_json

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    facts = examine(config, device, batch_size, seconds).facts()
    for note in facts["warnings"]:
        click.echo(f"Warning: {note}", err=True)
    if out is not None:
        plot(facts, out)
    if as_json:
        print_json(facts)
    else:
        for line in lines(facts):
            click.echo(line)
        if out is not None:
            click.echo(f"{out}: written")
