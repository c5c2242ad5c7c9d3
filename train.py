"""Train a tracker: ``torchrun train.py --config spm_alexnet.yaml``, or ``python train.py ...``.

The file reads from top to bottom as a run goes: options, configuration, data, model, where to go
on, the loop. It composes the packages; nothing imports it.
"""

from __future__ import annotations

import signal
import sys
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import click
import torch

from configs import strict
from loaders.batch import PairBatch, normalise
from loaders.config import PairConfig
from loaders.cpu import usable_cores
from loaders.loader import PairLoader, WaitEnded
from loaders.pipes import from_command_line
from shards.console import KnownErrors, warn
from shards.errors import MismatchError
from shards.rng import uniforms
from tracker import weights
from tracker.anchors import SEARCH_PX
from tracker.compiled import compile_model
from tracker.models import InitReport, ModelConfig, TrackerModel, build, initialise
from tracker.training.config import TrainConfig, free_keys
from tracker.training.due import Due
from tracker.training.flags import config_flags, print_config
from tracker.training.left_out import LeftOutSteps
from tracker.training.lock import FolderLock
from tracker.training.log import RunLog
from tracker.training.meter import Meter, lag_of
from tracker.training.profile import profile_option
from tracker.training.records import dumped, environment, header, write_records
from tracker.training.resume import RandomState, Start, State, begun, find_start, made_with
from tracker.training.run_folder import Checkpoints
from tracker.training.saver import Saver
from tracker.training.step import Stepper
from tracker.training.watch import Watch, check
from tracker.training.world import Interrupt, World

PATIENCE_S = 10.0  # for data, once a signal has come, where other ranks cannot be stopped before
STREAM_TORCH = 100  # of shards.rng: seeds of torch's generators, one row a rank


@dataclass(frozen=True, kw_only=True, slots=True)
class RunConfig:
    """Everything that a run depends on: pairs, model, schedule."""

    data: PairConfig = field(default_factory=PairConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)

    def __post_init__(self) -> None:
        sides = {f"data.{name}": getattr(self.data, name) for name in ("template_px", "search_px")}
        if wrong := [key for key, px in sides.items() if px != SEARCH_PX]:
            given = " and ".join(f"{key} is {sides[key]}" for key in wrong)
            name = self.model.name
            raise strict.Contradiction(f"{name} takes crops of {SEARCH_PX} px; {given}", *wrong)
        if self.train.batch_size > self.data.pairs_per_epoch:
            raise strict.Contradiction(
                f"train.batch_size {self.train.batch_size} is larger than data.pairs_per_epoch "
                f"{self.data.pairs_per_epoch}: an epoch would have no step",
                "train.batch_size", "data.pairs_per_epoch",
            )  # fmt: skip


class Options(NamedTuple):
    """The command line."""

    config: str
    data: str | None = None
    allow_pipe: bool = False
    out: Path | None = None
    steps: int | None = None
    overrides: tuple[str, ...] = ()
    resume: str = "auto"
    print_config: bool = False
    allow_data_change: bool = False
    profile: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """The parts of a run that is about to go on after `start` steps."""

    config: RunConfig
    out: Path
    world: World
    loader: PairLoader
    model: TrackerModel
    stepper: Stepper
    meter: Meter
    left_out: LeftOutSteps
    state: State
    machine: dict[str, Any]
    checkpoints: Checkpoints
    found: Start | None
    data_change: tuple[str, ...]
    watch: Watch
    start: int
    target: int


@click.command(
    cls=KnownErrors,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Example: torchrun --nproc-per-node 2 train.py --config spm_alexnet.yaml --steps 100",
)
@click.option(
    "--config", required=True, metavar="FILE",
    help="Run configuration: a YAML file, or the name of one that comes with us.",
)  # fmt: skip
@click.option(
    "--data", metavar="DIR",
    help="Packed data set, or a parent, or a URL.  [default: data/shards, or $SIAMSTREAM_SHARDS]",
)  # fmt: skip
@click.option("--allow-pipe", is_flag=True, help="Let --data be 'pipe:COMMAND {}', run by a shell.")
@click.option(
    "--out", type=click.Path(path_type=Path), help="Run's folder.  [default: runs/<config name>]"
)
@click.option(
    "--steps", type=click.IntRange(1), help="Stop after so many steps since the start of training."
)
@click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE",
    help="Override a key of the configuration, as in --set data.datasets=lasot. Repeatable.",
)  # fmt: skip
@click.option(
    "--resume", default="auto", show_default=True, metavar="auto|never|PATH",
    help="Go on from the newest checkpoint of the run's folder, from none, or from this one.",
)  # fmt: skip
@config_flags(RunConfig)
@click.option(
    "--allow-data-change", is_flag=True,
    help="Go on at the same position of the epoch although the packed data are others.",
)  # fmt: skip
@profile_option
def main(**options: Any) -> None:
    """Train a tracker on packed pairs, on one process or under torchrun."""
    with World() as world:
        code = run(Options(**options), world)
    sys.exit(code)


def run(options: Options, world: World) -> int:
    """Train as the options say; returns the exit code: 0, or 128 + the signal that ended it."""
    path, command = from_command_line(options.data, options.allow_pipe)
    given = () if path is None else (strict.Given(f"data.path={path}", "--data"),)
    resolved = strict.resolve(RunConfig, options.config, (*options.overrides, *given))
    if options.print_config:
        return print_config(resolved)
    config = resolved.config
    out = options.out or Path("runs") / Path(options.config).stem
    world.use_device(config.train.device)
    world.same_device()
    world.agree(lambda: check(config.train.evaluate))
    prepare_torch(config.train, world)
    with (
        open_loader(config, world, command) as loader,
        FolderLock(out, world.first),
        world.telling(),
    ):
        settings, per_epoch, text = config.train, loader.steps_per_epoch, dumped(config)
        checkpoints = Checkpoints(out, settings.keep, per_epoch, settings.keep_epochs)
        found = find_start(options.resume, checkpoints, text, free_keys(settings), world, warn)
        start, whole = found.step if found else 0, settings.epochs * per_epoch
        target = min(options.steps or whole, whole)
        watch = Watch(
            out, settings, world, steps_per_epoch=per_epoch, start=start, target=target,
            checkpoints=checkpoints, profile=options.profile or 0, found=found,
        )  # fmt: skip
        if start >= target:
            if world.first:
                click.echo(f"{out}: finished, {start:,} steps are done and {target:,} asked for.")
            stopped = watch.make_up(start)
            return 128 + stopped if stopped else 0
        model, report = open_model(config, found, world)
        lag = lag_of(world.device)
        stepper = Stepper(world.share(model), settings, world.device, per_epoch)
        meter = Meter(settings.log_every, settings.batch_size, lag)
        left_out = LeftOutSteps(out, settings.max_bad_steps, lag, warn)
        facts = {"config": text, "init": asdict(report), "begun": begun(options.resume, found)}
        machine = environment(world)
        state = State(
            model=model, stepper=stepper, loader=loader, world=world,
            of_rank={"meter": meter, "left_out": left_out, "random": RandomState(world.device)},
            facts={**facts, "made_with": made_with(machine)},
        )  # fmt: skip
        changed = state.restore(found, options.allow_data_change, warn) if found else ()
        return train(
            Run(
                config=config, out=out, world=world, loader=loader, model=model,
                stepper=stepper, meter=meter, left_out=left_out, state=state, machine=machine,
                checkpoints=checkpoints, found=found, data_change=changed, watch=watch,
                start=start, target=target,
            )
        )  # fmt: skip


def prepare_torch(config: TrainConfig, world: World) -> None:
    """Threads, and random numbers that no two ranks share."""
    torch.set_num_threads(config.threads or max(1, usable_cores() // world.local_size))
    torch.backends.cudnn.benchmark = True
    row = uniforms(config.seed, STREAM_TORCH, 0, world.rank, 1, 4)
    torch.manual_seed(int(row[0, 0] * 2**53))


def open_loader(config: RunConfig, world: World, command: str | None = None) -> PairLoader:
    """Pairs of this rank; the cores of a machine are shared among its processes."""
    threads = config.data.threads or max(1, usable_cores() // world.local_size)
    layout = config.data.channels_last or config.train.channels_last
    data = replace(config.data, threads=threads, channels_last=layout)
    given = (world.rank, world.size, world.device)
    loader = PairLoader(data, *given, batch_size=config.train.batch_size, command=command)
    grid = loader.describe()["grid"]
    if grid != config.model.grid:
        loader.close()
        raise MismatchError(
            f"the data are of the grid '{grid}' and model.grid is '{config.model.grid}'; "
            f"give --set model.grid={grid}, or pack the data again"
        )
    return loader


def open_model(
    config: RunConfig, found: Start | None, world: World
) -> tuple[TrackerModel, InitReport]:
    """Model on its device, with the weights of the checkpoint or its first ones.

    Rank 0 alone fetches first weights; DistributedDataParallel hands them on.
    """
    model = build(config.model)
    if found:
        weights.load_model(model, found.state["state_dict"], str(found.path))
        report = InitReport(**found.state["meta"]["init"])
    else:
        report = world.agree(lambda: initialise(model, config.model))
    model.to(world.device)
    if config.train.channels_last:
        model.to(memory_format=torch.channels_last)
    if config.train.compile:
        compile_model(model)
    return model, report


def train(run: Run) -> int:
    """Go on to the target or until a signal; returns the exit code."""
    log = open_log(run) if run.world.first else None
    try:
        with Interrupt() as interrupt, run.watch:
            done, stopped = loop(run, log, interrupt)
            stopped = stopped or run.watch.finish(interrupt)
            if stopped:
                interrupt.linger()
    finally:
        if log:
            log.close()
    if stopped and log:
        click.echo(
            f"Stopped by {signal.Signals(stopped).name} after step {done:,}; "
            "start the same command again to go on.",
            err=True,
        )
    elif log:
        click.echo(f"Done: {done:,} steps; the model is {run.out / 'latest.pth'}.")
    return 128 + stopped if stopped else 0


def loop(run: Run, log: RunLog | None, interrupt: Interrupt) -> tuple[int, int]:
    """Step after step; returns how many are done, and the signal that ended them (0: none)."""
    settings, world, meter = run.config.train, run.world, run.meter
    per_epoch, batches = run.loader.steps_per_epoch, iter(run.loader)
    due = Due(settings.checkpoint_every, settings.checkpoint_minutes, per_epoch)
    saver = Saver(run.state, run.checkpoints, due, run.found, warn)
    run.loader.give_up = interrupt.patience(0 if world.size == 1 else PATIENCE_S)
    done, stopped = run.start, 0
    while done < run.target and not stopped:
        step = done
        vote = world.vote(interrupt.signal or due.wish())  # all ranks act after the same step
        try:
            batch = next(batches)
        except WaitEnded:
            saver.refuse_within_a_step(interrupt.signal)
            stopped, wish = interrupt.signal, 0
        else:
            run.left_out.keep(step, tensors_of(batch))
            inputs = inputs_of(batch)
            report = run.stepper(inputs, step, batch.epoch)
            meter.add(report, step, batch.epoch, batch.stats["wait_s"])
            done, wish = step + 1, vote()
            stopped = wish if wish > Due.WISH else 0
        last = done == run.target or stopped > 0
        saves = done > saver.step and (last or wish > 0 or due.after(done))
        windows, left_out = meter.settle(world, everything=saves)
        run.left_out.judge(left_out, world, saver.step)
        if last and done % settings.log_every and done > step:
            windows.append(meter.window(world))
        if log:
            for window in windows:
                log.write(window.record(settings, per_epoch))
            log.advance(done)
        saved = saves and saver.save(done, last=last)
        if done > step:
            run.watch.step(done, run.model, inputs, log.board if log else None, saved=saved)
        if saved and done % per_epoch == 0 and not settings.evaluate.every:
            saver.judge(done, meter.epoch_loss(world))
    return done, stopped


def inputs_of(batch: PairBatch) -> dict[str, Any]:
    """Arguments of the model's training step."""
    pixels = {"template": normalise(batch.template), "search": normalise(batch.search)}
    return {**tensors_of(batch), **pixels}


def tensors_of(batch: PairBatch) -> dict[str, Any]:
    """What the training step is given, pixels as they are stored."""
    names = ("template", "search", "template_box", "search_box", "positive", "sample", "epoch")
    return {name: getattr(batch, name) for name in names}


def open_log(run: Run) -> RunLog:
    """Make the run's folder with its records, and print the header."""
    record = {"init": run.state.facts["init"], "data": run.loader.describe()}
    record |= {"data_change": run.data_change, **run.machine}
    changes = write_records(run.out, run.state.facts["config"], record, run.start)
    since = f"going on after step {run.start:,}" if run.start else "from the start"
    steps = f"to step {run.target:,}; {run.loader.steps_per_epoch:,} an epoch"
    lines = header(run.config.model.name, run.config.train, record)
    click.echo(
        "\n".join(
            [f"run      {run.out}, {since}, {steps}", *lines, *map("Warning: {}".format, changes)]
        )
    )
    return RunLog(run.out, run.start, run.target)


if __name__ == "__main__":
    main()
