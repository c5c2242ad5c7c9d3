"""``python -m tracker``: convert checkpoints, follow an object through a video, evaluate, tune."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

import click

from shards.console import KnownErrorsGroup, counter, print_json

__all__ = ["main"]


@click.group(
    cls=KnownErrorsGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Example: python -m tracker track --checkpoint spm_alexnet.safetensors --video clip.mp4 "
    "--box 10,20,30,40 --out out.mp4",
)
def main() -> None:
    """Trackers: convert published weights, follow, evaluate, tune."""


@main.command("convert", context_settings={"show_default": True})
@click.option(
    "--from", "source", type=click.Path(path_type=Path), required=True, metavar="FILE",
    help="Checkpoint as published (.pth), or latest.pth of a run of train.py.",
)  # fmt: skip
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, metavar="FILE",
    help="Model file to write, .safetensors.",
)  # fmt: skip
@click.option("--model", help="Which model it must be.  [default: found from the tensors]")
@click.option("--force", is_flag=True, help="Replace whatever file is at --out.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def convert_command(source: Path, out: Path, model: str | None, force: bool, as_json: bool) -> None:
    r"""Write a checkpoint as a model file that says what it is.

    The model is found from the names and shapes of the tensors. Published checkpoints are of the
    grid 'corner'; a run's keep their own. Nothing in the file is executed.

    \b
    Example:
      python -m tracker convert --from epoch_50.pth --out spm_alexnet.safetensors
      python -m tracker convert --from runs/spm_alexnet/latest.pth --out mine.safetensors
    """
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


@main.command("track", context_settings={"show_default": True})
@click.option(
    "--checkpoint", type=click.Path(path_type=Path), required=True, metavar="FILE",
    help="Model file (.safetensors), or latest.pth of a run.",
)  # fmt: skip
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
    help="Video with box and score drawn: .mp4 (MPEG-4), or .webm (VP9: slower; for browsers).",
)  # fmt: skip
@click.option(
    "--txt", type=click.Path(path_type=Path), metavar="FILE",
    help="Text file, one x,y,w,h a frame, the start box first, pixels from 0 as --box.",
)  # fmt: skip
@click.option(
    "--fps", type=click.FloatRange(0, 240, min_open=True), show_default=False,
    help="Frames a second of --out.  [default: those of the video, 30 for a folder]",
)  # fmt: skip
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto")
@click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE",
    help="Another value of a key below 'track', such as track.match.window=0.3; repeatable.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
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
    start = _box(box)
    import numpy as np

    from tracker import follow, track
    from tracker.files import open_model
    from tracker.video import open_clip

    track.check_paths(out, txt, [checkpoint, video])
    clip = open_clip(video)
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
    facts = asdict(done) | {
        "network_fps": done.frames / done.network_s,
        "model": opened.config.name,
        "grid": opened.config.grid,
        "device": str(where),
        "sha256": opened.sha256,
        "out": None if out is None else str(out),
        "txt": None if txt is None else str(txt),
    }
    if as_json:
        print_json(facts)
        return
    parts = {"reading": done.read_s, "network": done.network_s, "drawing": done.draw_s}
    each = ", ".join(f"{name} {done.frames / max(s, 1e-9):,.0f}" for name, s in parts.items())
    click.echo(
        f"{done.frames:,} frames of {done.width}x{done.height} by {opened.config.name} on {where}: "
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
