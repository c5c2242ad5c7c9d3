"""``python -m tracker``: convert checkpoints, follow an object through a video, evaluate, tune."""

from __future__ import annotations

import math
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

import click

from shards.console import KnownErrorsGroup, counter, print_json
from shards.errors import SiamstreamError
from tracker.evaluation_cli import eval_command, sweep_command
from tracker.options import CHECKPOINT, DEVICE, JSON, SET

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
    help="Checkpoint as published (.pth), or latest.pth or best.pth of a run; with --imagenet "
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
@JSON
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


@main.command("track", context_settings={"show_default": True})
@CHECKPOINT
@click.option(
    "--video", type=click.Path(path_type=Path), required=True, metavar="FILE|FOLDER",
    help="Video file, or folder of pictures, sorted by the numbers in their names.",
)  # fmt: skip
@click.option(
    "--box", required=True, metavar="X,Y,W,H",
    help="The object in the first frame: left and upper edge, width, height, pixels from 0.",
)  # fmt: skip
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="FILE",
    help="Video with box and score drawn, .mp4 (H.264).",
)  # fmt: skip
@click.option(
    "--txt", type=click.Path(path_type=Path), metavar="FILE",
    help="Text file, one x,y,w,h a frame, the start box first, pixels from 0 as --box.",
)  # fmt: skip
@click.option(
    "--fps", type=click.FloatRange(0.1, 240), show_default=False,
    help="Frames a second of --out.  [default: those of the video, 30 for a folder]",
)  # fmt: skip
@DEVICE
@SET
@JSON
def track_command(
    checkpoint: Path, video: Path, box: str, out: Path | None, txt: Path | None, fps: float | None,
    device: str, overrides: tuple[str, ...], as_json: bool,
) -> None:  # fmt: skip
    r"""Follow one object through a video, from its box in the first frame.

    The numbers of --box and --txt count pixels from 0, the outer corner of the first pixel; those
    of OTB count from 1, so subtract 1 from x and y there. Where a frame cannot be read, the outputs
    hold the frames before it and the command fails.

    \b
    Example:
      python -m tracker track --checkpoint spm_alexnet.safetensors --video clip.mp4 \
          --box 10,20,30,40 --out out.mp4 --txt boxes.txt
    """
    if out is None and txt is None:
        raise click.UsageError("give --out, --txt or both: nothing would be written")
    if fps is not None and math.isnan(fps):
        raise click.BadParameter("not a number", param_hint="--fps")
    start = _box(box)
    import numpy as np

    from tracker import follow, track
    from tracker.files import open_model
    from tracker.video import open_clip

    clip = open_clip(video)
    track.check_paths(out, txt, [checkpoint, video, *clip.pictures])
    where = follow.torch_device(device)
    opened = open_model(checkpoint, overrides, where)
    tracker = follow.make_tracker(opened.model, device=where)
    with ExitStack() as stack:
        shown = clip.count and stack.enter_context(counter("tracking", "frames", clip.count))
        done = track.track(
            clip, tracker, np.array(start), out=out, txt=txt, fps=fps,
            progress=shown.update if shown else lambda _: None,
            tell=lambda note: click.echo(f"Note: {note}", err=True),
        )  # fmt: skip
    model = opened.config.name
    if as_json:
        print_json(
            asdict(done)
            | {"model": model, "grid": opened.config.grid, "sha256": opened.sha256}
            | {"device": str(where), "network_fps": done.frames / done.network_s}
            | {"out": out and str(out), "txt": txt and str(txt)}
        )
        return
    parts = {"reading": done.read_s, "network": done.network_s, "drawing": done.draw_s}
    each = ", ".join(f"{name} {done.frames / max(s, 1e-9):,.0f}" for name, s in parts.items())
    click.echo(
        f"{done.frames:,} frames of {done.width}x{done.height} by {model} on {where}: "
        f"{done.frames / sum(parts.values()):,.1f} frames/s (each part alone: {each})"
    )
    click.echo(f"Written: {', '.join(str(p) for p in (out, txt) if p is not None)}")


def _box(text: str) -> tuple[float, float, float, float]:
    """``x,y,w,h`` as x0, y0, x1, y1."""
    try:
        x, y, w, h = (float(part) for part in text.split(","))
    except ValueError:
        raise click.BadParameter(
            f"{text!r} is not four numbers x,y,w,h with commas", param_hint="--box"
        ) from None
    return x, y, x + w, y + h


for command in (eval_command, sweep_command):
    main.add_command(command)
