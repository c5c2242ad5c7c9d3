"""``python -m tracker``: convert checkpoints, follow an object through a video, evaluate, tune."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from shards.console import KnownErrorsGroup, print_json
from shards.errors import SiamstreamError

__all__ = ["main"]


@click.group(
    cls=KnownErrorsGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Example: python -m tracker track --checkpoint spm_alexnet.safetensors --video clip.mp4 "
    "--box 10,20,30,40 --out out.mp4",
)
def main() -> None:
    """Trackers: convert published weights, follow, evaluate, tune."""


@main.command("convert")
@click.option(
    "--from", "source", type=click.Path(path_type=Path), metavar="FILE",
    help="Checkpoint as published (.pth), or latest.pth of a run of train.py; with --imagenet "
    "torchvision's file, or a folder that has it.  [default: with --imagenet its download]",
)  # fmt: skip
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="PATH",
    help="Model file to write, .safetensors; with --imagenet a folder.  [default: with --imagenet "
    "data/pretrained]",
)  # fmt: skip
@click.option("--model", help="Which model it must be.  [default: found from the tensors]")
@click.option("--force", is_flag=True, help="Replace whatever file is at --out.")
@click.option(
    "--imagenet", metavar="NETWORK|all",
    help="Convert torchvision's ImageNet weights of alexnet, resnet18, resnet34, resnet50 or "
    "mobilenet_v2 instead, for model.init of train.py.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def convert_command(
    source: Path | None,
    out: Path | None,
    model: str | None,
    force: bool,
    imagenet: str | None,
    as_json: bool,
) -> None:
    r"""Write a checkpoint as a model file that says what it is, or prepare ImageNet weights.

    The model is found from the names and shapes of the tensors. Published checkpoints are of the
    grid 'corner'; a run's keep their own. Nothing in the file is executed.

    \b
    Example:
      python -m tracker convert --from epoch_50.pth --out spm_alexnet.safetensors
      python -m tracker convert --from runs/spm_alexnet/latest.pth --out mine.safetensors
      python -m tracker convert --imagenet resnet18 --from resnet18-f37072fd.pth
    """
    if imagenet is not None:
        if model is not None or force:
            raise click.UsageError("--model and --force have no meaning with --imagenet.")
        _convert_imagenet(imagenet, source, out or Path("data/pretrained"), as_json)
        return
    if source is None or out is None:
        raise click.UsageError("Give --from and --out, or --imagenet.")
    from tracker import published

    if model is not None and model not in published.MODELS:
        raise click.BadParameter(
            f"{model!r} is not one of {', '.join(published.MODELS)}", param_hint="--model"
        )
    done = published.convert(source, out, model=model, force=force)
    if as_json:
        print_json(asdict(done))
        return
    click.echo(
        f"{out}: {done.model}, grid {done.grid}, {done.tensors} tensors, "
        f"{done.parameters:,} parameters; from {done.origin}"
    )
    for note in done.notes:
        click.echo(f"Note: {note}")


def _convert_imagenet(name: str, source: Path | None, out: Path, as_json: bool) -> None:
    """Convert one backbone or all; with all, each that fails is told in the end."""
    from tracker import imagenet

    known = [*imagenet.BACKBONES, "all"]
    if name not in known:
        raise click.BadParameter(
            f"{name!r} is not one of {', '.join(known)}", param_hint="--imagenet"
        )
    if name == "all" and source is not None and not source.is_dir():
        raise click.BadParameter(
            f"{source} is no folder, and 'all' needs one with torchvision's files",
            param_hint="--from",
        )
    done, failed = [], []
    for label in imagenet.BACKBONES if name == "all" else [name]:
        try:
            done.append(imagenet.convert(label, source, out))
        except SiamstreamError as error:
            failed.append(str(error))
            continue
        if not as_json:
            one = done[-1]
            click.echo(f"{one.out}: {one.tensors} tensors; from {one.source}")
        if done[-1].note:
            click.echo(f"Note: {done[-1].note}", err=True)
    if as_json and done:
        print_json({"converted": [asdict(one) for one in done]})
    if failed:
        raise SiamstreamError("\n".join(failed))
