"""How fast training runs, and what it waits for.

Question: does our loader keep a training step busy? Method: the step of ``train.py`` (pixels to
floats, model, losses, gradients, clipping, optimiser, metrics read without waiting; no lines of
metrics and no checkpoints) on SPM-AlexNet of some widths, with all parameters trained, fed by

- *ready*: a few batches of the plan that are on the device already: the limit;
- *loader*: our loader, on a CPU with the ``cpu`` backend, on a GPU with ``dali``;
- *zip-published*: the published way, `benchmarks.contestants.zip_published`.

Each feed has a process of its own with a model of the same first weights; all live at the same
time, and one of them works while the others sleep. In every repeat each makes a block of steps, in
shuffled order: what its feed made meanwhile is thrown away, a step warms up, the others are
counted, and the device is waited for at the ends alone. Ratios are taken within a repeat; medians
are judged. The first step's loss must be the same from loader and ready-made batches, else they do
not do the same work and the run ends.

*The bars* are those of `benchmarks.train_claims`.

*Settings*: the step with ready-made batches and another setting, against the plain one in the same
repeat, for the first width: torch's own optimiser in place of the fused one, channels-last,
torch.compile, bf16. A setting that cannot run on this machine is named with its reason. What one
brings on a CPU or at a narrow width says nothing about a GPU or width 1.

Limits: random first weights; one process; the files in the page cache.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import result
from benchmarks.case import Case
from benchmarks.compare import data_facts
from benchmarks.derived import ensure, warm
from benchmarks.pairs import pair_config
from benchmarks.runner import ContestantError, shuffled, summary
from benchmarks.train_child import CONFIG, TrainCase
from benchmarks.train_claims import KEEPS_UP, headroom_of, judged
from benchmarks.train_feeds import FEEDS
from benchmarks.train_process import Process, Trainer
from loaders.sets import open_sets
from shards.errors import MismatchError

__all__ = ["SETTINGS", "Plan", "Setting", "default_batch", "default_widths", "measure_train"]

BLOCK_S = 4.0
MOST_STEPS = 200
REPEATS, REPEATS_OF_LONG = 5, 3  # the latter where a step is longer than a block should be
WARM_UP = 1
ALONE_S = 2.0
LOSS_TOLERANCE = 1e-3  # relative


class Setting(NamedTuple):
    """Another way to make the same step."""

    name: str
    overrides: tuple[str, ...] = ()
    fused: bool = True
    devices: tuple[str, ...] = ("cpu", "cuda")


LAYOUT, COMPILED, BF16 = "train.channels_last=true", "train.compile=true", "train.amp=bf16"
SETTINGS = (
    Setting("optimiser not fused", fused=False),
    Setting("channels-last", (LAYOUT,)),
    Setting("compiled", (COMPILED,)),
    Setting("bf16", (BF16,)),
    Setting("channels-last, compiled", (LAYOUT, COMPILED), devices=("cuda",)),
    Setting("bf16, channels-last", (BF16, LAYOUT), devices=("cuda",)),
    Setting("bf16, channels-last, compiled", (BF16, LAYOUT, COMPILED), devices=("cuda",)),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What is measured.

    Attributes
    ----------
    case : data, pairs of a batch, threads, folder of what the baseline reads
    widths : of the model; settings are measured for the first
    repeats : blocks of everything; None: some, fewer for a width with long steps
    steps : of a block; None: as many as take some seconds with ready-made batches
    device : ``cpu`` or ``cuda``
    settings : to be compared
    """

    case: Case
    widths: Sequence[float]
    repeats: int | None
    steps: int | None
    device: str
    settings: Sequence[Setting] = SETTINGS


def measure_train(
    plan: Plan,
    command: str,
    warm_limit_bytes: int,
    told: Callable[[str], None],
    start: Callable[[TrainCase], Trainer] = Process,
) -> dict[str, Any]:
    """Run the benchmark.

    Parameters
    ----------
    plan : what is measured
    command : that repeats it, for the result
    warm_limit_bytes : data larger than this are not read into the page cache beforehand
    told : called with lines of progress
    start : begins a training

    Returns
    -------
    the result, as its JSON has it

    Raises
    ------
    ContestantError : if a training fails
    MismatchError : if two feeds give other batches
    """
    run, case = result.start("train", command), plan.case
    sets = open_sets(pair_config(case))
    for note in sets.warnings:
        told(f"Warning: {note}")
    warm(ensure(Path(case.data), case.derived_folder, ("legacy",)), warm_limit_bytes)
    widths: list[dict[str, Any]] = []
    for width in plan.widths:
        one = _Width(plan, width, first=not widths, told=told, start=start)
        widths.append(one.measure())
    alone = widths[0].pop("alone")
    for one in widths:
        one.update(headroom_of(one, alone["summary"], plan.device))
    return {
        **run,
        "device": plan.device,
        "config": CONFIG,
        "threads": case.threads,
        "batch_size": case.batch_size,
        "seed": case.seed,
        "repeats": plan.repeats,
        "keeps_up": KEEPS_UP[plan.device],
        "data": {"datasets": data_facts(sets)},
        "loader_alone": alone,
        "widths": widths,
        "claims": judged(widths, plan.device),
    }


class _Width:
    """Trainings of one width, all alive at once."""

    def __init__(
        self,
        plan: Plan,
        width: float,
        *,
        first: bool,
        told: Callable[[str], None],
        start: Callable[[TrainCase], Trainer],
    ) -> None:
        self.plan, self.width, self.first, self._told, self._start = plan, width, first, told, start
        self._trainers: dict[str, Trainer] = {}
        self._repeats = plan.repeats or 0  # known when a step has been measured
        self._steps: dict[str, int] = {}
        self._warm_up: dict[str, int] = {}
        self._absent: dict[str, str] = {}

    def measure(self) -> dict[str, Any]:
        """Figures of all repeats."""
        with ExitStack() as stack:
            for name, what in self._cases():
                self._open(name, what, stack)
            self._compare()
            rounds = [self._round(repeat) for repeat in range(self._repeats)]
        return self._facts(rounds)

    def _cases(self) -> Iterator[tuple[str, TrainCase]]:
        """Everything that is trained; of the feeds, those after the first know its steps."""
        plan, width = self.plan, self.width
        for feed in FEEDS:
            per_block = self._steps.get("ready", 0) + WARM_UP + 4 * plan.case.threads + 1
            pairs = (self._repeats * per_block + 4) * plan.case.batch_size
            case = replace(plan.case, pairs=pairs)
            yield feed, TrainCase(case=case, feed=feed, width=width, device=plan.device)
        for one in plan.settings if self.first else ():
            if plan.device in one.devices:
                yield one.name, TrainCase(
                    case=plan.case, feed="ready", width=width, overrides=one.overrides,
                    fused=one.fused, device=plan.device,
                )  # fmt: skip

    def _open(self, name: str, what: TrainCase, stack: ExitStack) -> None:
        """Start a training; a setting may be one that this machine cannot do."""
        try:
            trainer = stack.enter_context(closing(self._start(what)))
        except ContestantError as error:
            if name in FEEDS:
                raise
            self._absent[name] = str(error)
            self._told(f"width {self.width:g}, {name}: absent, {error}")
            return
        self._trainers[name] = trainer
        given, step_s = self.plan.steps, trainer.facts["step_s"]
        self._repeats = self._repeats or (REPEATS if step_s <= BLOCK_S else REPEATS_OF_LONG)
        long = name not in FEEDS and step_s > BLOCK_S  # one step of it is a block
        fitting = min(max(round(BLOCK_S / step_s), 1), MOST_STEPS)
        alike = self._steps["ready"] if name in FEEDS[1:] else fitting
        self._steps[name], self._warm_up[name] = given or alike, 0 if long else WARM_UP
        self._told(
            f"width {self.width:g}, {name}: first step {trainer.facts['first_step_s']:.1f} s, "
            f"then {step_s:.3g} s; {self._steps[name]} steps a block"
        )

    def _compare(self) -> None:
        """See that our loader and the ready-made batches give the same first loss.

        The published way cannot: it crops the same pairs at places and scales that it draws with
        random numbers of its own, so its pictures, boxes and loss are others.
        """
        ready, loader = (self._trainers[name].facts["first_loss"] for name in ("ready", "loader"))
        if abs(ready - loader) > LOSS_TOLERANCE * abs(ready):
            raise MismatchError(
                f"width {self.width:g}: the first loss is {ready:g} with ready-made batches and "
                f"{loader:g} with our loader: they do not train the same model on the same pairs"
            )

    def _round(self, repeat: int) -> dict[str, dict[str, Any]]:
        plan, figures = self.plan, {}
        for name in shuffled(list(self._trainers), plan.case.seed, repeat):
            found = self._trainers[name].block(self._steps[name], self._warm_up[name])
            figures[name] = found
            self._told(
                f"width {self.width:g}, repeat {repeat + 1}/{self._repeats}, {name}: "
                f"{found['pairs_per_s']:,.1f} pairs/s, wait {found['wait_share']:.1%}"
            )
        if self.first:
            figures["alone"] = self._trainers["loader"].alone(ALONE_S)
        return figures

    def _facts(self, rounds: Sequence[Mapping[str, Mapping[str, Any]]]) -> dict[str, Any]:
        def series(name: str) -> list[dict[str, Any]]:
            return [dict(one[name]) for one in rounds]

        def share(name: str) -> dict[str, Any]:
            repeats = [one[name]["steps_per_s"] / one["ready"]["steps_per_s"] for one in rounds]
            return {"repeats": repeats, "summary": summary(repeats)}

        def setting(one: Setting) -> dict[str, Any]:
            if one.name in self._absent:
                return {"name": one.name, "absent": self._absent[one.name]}
            start = self._trainers[one.name].facts
            facts = {"overrides": list(one.overrides), "fused": one.fused, **start}
            return {
                "name": one.name,
                **facts,
                **_with_summary(series(one.name)),
                "ratio": share(one.name),
            }

        facts: dict[str, Any] = {
            "width": self.width,
            "feeds": {
                name: {**self._trainers[name].facts, **_with_summary(series(name))}
                for name in FEEDS
            },
            "share": {name: share(name) for name in FEEDS[1:]},
            "settings": [
                setting(one)
                for one in self.plan.settings
                if one.name in self._trainers or one.name in self._absent
            ],
        }
        return {**facts, "alone": _with_summary(series("alone"))} if self.first else facts


def _with_summary(repeats: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    numbers = {name: summary([one[name] for one in repeats]) for name in repeats[0]}
    return {"repeats": list(repeats), "summary": numbers}


def default_widths(device: str) -> tuple[float, ...]:
    """Widths that take some minutes on a device."""
    return (1.0, 0.5, 0.125) if device == "cuda" else (0.125, 1.0)


def default_batch(device: str) -> int:
    """Pairs of a batch: on a CPU few, for a step of width 1 takes seconds."""
    return 16 if device == "cuda" else 4
