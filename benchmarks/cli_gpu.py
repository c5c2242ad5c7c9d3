"""The command ``gpu``."""

from __future__ import annotations

import tempfile
from pathlib import Path

import click

from benchmarks import result
from benchmarks.data import DataConfig
from benchmarks.environment import usable_cores
from benchmarks.gpu_budget import Part
from benchmarks.gpu_facts import Facts
from benchmarks.gpu_preflight import is_complete, lines, look
from benchmarks.options import command_line, make_data, say, show
from benchmarks.report_blocks import Table, Text
from benchmarks.report_gpu import gpu_blocks
from shards.console import KnownErrors

__all__ = ["gpu"]

DRY_GB = 0.01


def _only(_: click.Context, __: click.Parameter, value: str | None) -> tuple[Part, ...]:
    from benchmarks.gpu import PARTS

    names = [name.strip() for name in (value or "").split(",") if name.strip()]
    unknown = set(names) - {part.name for part in PARTS}
    if unknown:
        known = ", ".join(part.name for part in PARTS)
        raise click.BadParameter(f"no part {', '.join(sorted(unknown))}; there are {known}")
    return tuple(part for part in PARTS if not names or part.name in names)


@click.command(cls=KnownErrors, epilog="Example: python -m benchmarks gpu --out data/bench-gpu")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("data/bench-gpu"),
    show_default=True,
    help="Folder for gpu.json and a file for each part.",
)
@click.option(
    "--data",
    "data_folder",
    type=click.Path(path_type=Path),
    help="A packed data set, or a parent of such.  [default: made, then removed]",
)
@click.option(
    "--minutes", type=click.FloatRange(0.5, 120), default=8, show_default=True, help="In all."
)
@click.option("--only", "parts", metavar="A,B", callback=_only, help="Only these parts.")
@click.option("--preflight", is_flag=True, help="Only say which packages are there; exit 1 if not.")
@click.pass_context
def gpu(
    ctx: click.Context,
    out: Path,
    data_folder: Path | None,
    minutes: float,
    parts: tuple[Part, ...],
    preflight: bool,
) -> None:
    """Measure our loader on a GPU, all that matters, in one command without a network.

    Pixels against the reference, what DALI decodes at best, our loader beside that and beside both
    zip baselines, training steps and their wait for data, damaged pictures, memory. Each part is
    written as soon as it ends; one that fails is recorded and the rest goes on (exit 1 at the end).
    Without a CUDA device all parts are rehearsed with tiny sizes, and nothing is judged.
    """
    if preflight:
        found = look()
        click.echo("\n".join(lines(found)))
        ctx.exit(0 if is_complete(found) else 1)
    from benchmarks.compare import data_facts
    from benchmarks.gpu import measure_gpu, ok
    from benchmarks.gpu_budget import Budget
    from benchmarks.gpu_process import cuda_devices
    from benchmarks.pairs import pair_config
    from loaders.sets import open_sets

    budget = Budget(60 * minutes, parts)  # what is made first counts too
    device = "cuda" if cuda_devices() else "cpu"
    if device == "cpu":
        say("Note: no CUDA device: a dry run with tiny sizes, whose figures mean nothing")
    with tempfile.TemporaryDirectory(prefix="siamstream-gpu-") as scratch:
        if data_folder is None:
            data_folder = Path(scratch) / "bench"
            make_data(DataConfig(gb=0.1 if device == "cuda" else DRY_GB), data_folder)
        facts = Facts(
            data=str(data_folder),
            derived=str(Path(scratch) / "derived"),
            device=device,
            cores=usable_cores(),
        )
        head = {
            **result.start("gpu", command_line()),
            "data": {"datasets": data_facts(open_sets(pair_config(facts.case())))},
        }
        run = measure_gpu(facts, out, minutes, head, say, budget, parts)
    for block in gpu_blocks(run):
        if isinstance(block, Table):
            click.echo(f"\n{block.caption}")
            show(list(block.rows), block.header, [])
        elif isinstance(block, Text):
            click.echo(f"\n{block.text}")
    say(f"{out / 'gpu.json'}: written; to show it, copy it to benchmarks/results/gpu-NAME.json")
    if not ok(run):
        ctx.exit(1)
