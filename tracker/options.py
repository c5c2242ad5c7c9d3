"""Options that several commands of ``python -m tracker`` have."""

from __future__ import annotations

from pathlib import Path

import click

__all__ = ["CHECKPOINT", "CONVENTION", "DATASET", "DEVICE", "JSON", "ROOT", "SET", "WORKERS"]

CHECKPOINT = click.option(
    "--checkpoint", type=click.Path(path_type=Path), required=True, metavar="FILE",
    help="Model file (.safetensors), or latest.pth or best.pth of a run of train.py.",
)  # fmt: skip
DATASET = click.option(
    "--dataset", type=click.Choice(["otb", "lasot", "got10k", "trackingnet"]), required=True
)
ROOT = click.option(
    "--root", type=click.Path(path_type=Path), required=True, metavar="DIR",
    help="Folder of the data set, extracted.",
)  # fmt: skip
CONVENTION = click.option(
    "--convention", type=click.Choice(["got10k", "pysot", "reference"]), show_default=False,
    help="Whose rules scores are counted by.  [default: pysot for lasot, got10k for the others]",
)  # fmt: skip
WORKERS = click.option(
    "--workers", type=click.IntRange(min=1), show_default=False,
    help="Processes; the results do not depend on it.  [default: CPU cores, 1 on a GPU]",
)  # fmt: skip
DEVICE = click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto")
SET = click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE",
    help="Another value of a key below 'track', such as track.match.window=0.3; repeatable.",
)  # fmt: skip
JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
