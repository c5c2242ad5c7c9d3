"""Where a run goes on, and the state that it goes on from.

A checkpoint holds, beside the model: optimiser and loss scaler (``stepper``), the position in the
sample stream (``loader``), what every rank has for itself (``ranks``: sums of the metrics, random
numbers), and in ``meta`` the steps done, the configuration, and what it was made with. With all of
it restored, a run that is stopped after any step repeats the one that is not, bit for bit where
machine, versions, threads and number of processes are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from configs import strict
from shards.errors import MismatchError
from tracker.training import checkpoint
from tracker.training.checkpoint import CheckpointError, Unreadable
from tracker.training.run_folder import Checkpoints, begun_from
from tracker.training.world import World

__all__ = [
    "Loader",
    "OfRank",
    "RandomState",
    "Start",
    "State",
    "begun",
    "find_start",
    "made_otherwise",
    "made_with",
    "same_config",
]

MOST_KEYS = 8  # of a configuration that differs, in a message


class Loader(Protocol):
    """Batches whose position is part of a checkpoint, as `loaders.loader.PairLoader`."""

    @property
    def steps_per_epoch(self) -> int:
        """Batches of one epoch."""

    def state_dict(self) -> dict[str, Any]:
        """Position, and what the sample stream depends on."""

    def load_state_dict(
        self, state: Mapping[str, Any], *, allow_data_change: bool = False
    ) -> Sequence[str]:
        """Go on from a position; returns what differs in the data, if that is allowed."""


class Stepper(Protocol):
    """Optimiser and loss scaler."""

    def state_dict(self) -> dict[str, Any]:
        """State after the last step."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from it."""


class OfRank(Protocol):
    """What each rank has for itself."""

    def state_dict(self) -> Any:
        """State of this rank: tensors and plain values."""

    def load_state_dict(self, states: Sequence[Any], rank: int, size: int) -> None:
        """Go on from the states of all ranks that there were; `size` may be another number."""


class RandomState:
    """Torch's random numbers of this process, of the CPU and of its device."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def state_dict(self) -> dict[str, torch.Tensor]:
        """State of the generators."""
        state = {"cpu": torch.get_rng_state()}
        if self._device.type == "cuda":
            state["cuda"] = torch.cuda.get_rng_state(self._device)
        return state

    def load_state_dict(
        self, states: Sequence[Mapping[str, torch.Tensor]], rank: int, size: int
    ) -> None:
        """Restore them, as far as there were as many ranks, and devices of this type."""
        if len(states) != size:
            return
        torch.set_rng_state(states[rank]["cpu"])
        if self._device.type == "cuda" and "cuda" in states[rank]:
            torch.cuda.set_rng_state(states[rank]["cuda"], self._device)


@dataclass(slots=True, eq=False)
class Start:
    """A checkpoint to go on from.

    Attributes
    ----------
    path : of the file
    state : its content, empty once it is restored
    step : steps done
    epoch_loss : mean training loss of its epoch so far; None: not known
    """

    path: Path
    state: dict[str, Any]
    step: int = field(init=False)
    epoch_loss: float | None = field(init=False)

    def __post_init__(self) -> None:
        self.step = int(self.state["meta"]["step"])
        meters = [rank["meter"] for rank in self.state["ranks"] if "meter" in rank]
        means = [one["epoch_sum"] / one["epoch_steps"] for one in meters if one["epoch_steps"]]
        self.epoch_loss = sum(means) / len(means) if means else None

    def forget(self) -> None:
        """Let go of the content, as large as model and optimiser."""
        self.state = {}


def begun(resume: str, found: Start | None) -> dict[str, Any] | None:
    """Where the run of a folder was begun, for ``meta`` of its checkpoints.

    Parameters
    ----------
    resume : of this command
    found : what it goes on from; where that is of this run, it was begun as that one says
    """
    if found is None:
        return begun_from(resume, 0)
    if found.path == Path(resume):
        return begun_from(resume, found.step)
    before: dict[str, Any] | None = found.state["meta"].get("begun")
    return before


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class State:
    """Everything of a run that changes with its steps.

    Attributes
    ----------
    model : not wrapped, as names in its state are those of the weights
    stepper, loader : of this rank; rank 0's are stored
    of_rank : by the names that they have in a checkpoint
    world : of the run
    facts : for ``meta``: ``config`` (dumped), ``init``, `begun`, `made_with`
    """

    model: nn.Module
    stepper: Stepper
    loader: Loader
    of_rank: Mapping[str, OfRank]
    world: World
    facts: Mapping[str, Any]

    def collect(self, step: int) -> dict[str, Any]:
        """Content of the checkpoint after `step` steps; every rank must call this."""
        ranks = self.world.gather({name: one.state_dict() for name, one in self.of_rank.items()})
        epoch = step // self.loader.steps_per_epoch
        return {
            "meta": {"step": step, "epoch": epoch, **self.facts},
            "state_dict": self.model.state_dict(),
            "stepper": self.stepper.state_dict(),
            "loader": self.loader.state_dict(),
            "ranks": ranks,
        }

    def restore(
        self, start: Start, allow_data_change: bool, warn: Callable[[str], None]
    ) -> tuple[str, ...]:
        """Put everything but the model into the state of a checkpoint, and forget its content.

        Parameters
        ----------
        start : the checkpoint, whose model is restored already
        allow_data_change : go on at its position of the epoch although the data are others
        warn : told, on rank 0, why what follows is not what would have followed

        Returns
        -------
        what differs in the data, if that is allowed

        Raises
        ------
        MismatchError : if the data are others
        CheckpointError : if the state does not fit this program
        """
        world, ranks = self.world, start.state["ranks"]
        changed = tuple(
            self.loader.load_state_dict(start.state["loader"], allow_data_change=allow_data_change)
        )
        try:
            self.stepper.load_state_dict(start.state["stepper"])
            for name, one in self.of_rank.items():
                one.load_state_dict([rank[name] for rank in ranks], world.rank, world.size)
        except (LookupError, TypeError, ValueError, RuntimeError) as error:
            raise CheckpointError(
                f"{start.path}: its optimiser or counters do not fit this program ({error!r}); go "
                "on with the version that wrote it, or start anew from its weights with --set "
                f"model.init={start.path}"
            ) from error
        otherwise = made_otherwise(start, self.facts["made_with"])
        for text in (*map(_other_data, changed), *otherwise) if world.first else ():
            warn(text)
        start.forget()
        return changed


def _other_data(what: str) -> str:
    return (
        f"other data, as --allow-data-change allows: {what}. The samples that follow are not those "
        "that would have"
    )


def find_start(
    resume: str,
    checkpoints: Checkpoints,
    config: str,
    free: Collection[str],
    world: World,
    warn: Callable[[str], None],
) -> Start | None:
    """Checkpoint to go on from, or None; every rank must call this.

    Parameters
    ----------
    resume : ``auto``, ``never`` or a path
    checkpoints : of the run's folder
    config : dumped configuration of the run
    free : dotted keys of it that may be others in the checkpoint
    world : of the run
    warn : told, on rank 0, of damaged checkpoints that are passed over

    Raises
    ------
    CheckpointError : if there are checkpoints but none can be read
    MismatchError : if the one found is of another configuration, or the folder holds another run
    """
    found: list[dict[str, Any] | None] = []

    def choose() -> tuple[Path | None, tuple[str, ...]]:
        chosen = checkpoints.choose(resume)
        found.append(chosen.state)
        return chosen.path, chosen.warnings

    path, warnings = world.agree(choose)
    for text in warnings if world.first else ():
        warn(text)
    if path is None:
        begun = checkpoints.folder / "config.yaml"
        if begun.is_file():  # it ended before its first checkpoint
            same_config(begun, begun.read_text(encoding="utf-8"), config, free)
        return None
    state = found[0] if found else None
    start = Start(path, _read_too(path) if state is None else state)
    same_config(path, str(start.state["meta"]["config"]), config, free)
    return start


def _read_too(path: Path) -> dict[str, Any]:
    """Read what rank 0 has read."""
    try:
        return checkpoint.read(path)
    except Unreadable as error:
        raise CheckpointError(
            f"{error.problem}; the first process could read it: the run's folder must be the same "
            "on all machines"
        ) from error


def same_config(path: Path, then: str, now: str, free: Collection[str]) -> None:
    """Compare a checkpoint's configuration with that of the run that wants to go on from it.

    Parameters
    ----------
    path : of the checkpoint, for the message
    then, now : dumped configurations
    free : dotted keys that may differ, with all below them

    Raises
    ------
    MismatchError : listing what differs
    """
    before, after = strict.flat(then), strict.flat(now)
    if before.get("model.name") != after.get("model.name"):
        raise MismatchError(
            f"{path} is of the model {before.get('model.name')}, this run is of "
            f"{after.get('model.name')}; give that --config or another --out. Only the weights of "
            "a model of the same kind can be taken over, with --set model.init=PATH"
        )
    differing = [
        f"{key} was {before.get(key)!r}, now {after.get(key)!r}"
        for key in {**before, **after}
        if before.get(key) != after.get(key)
        and not any(key == one or key.startswith(f"{one}.") for one in free)
    ]
    if differing:
        more = len(differing) - MOST_KEYS
        listed = "; ".join(differing[:MOST_KEYS]) + (f" and {more} more" if more > 0 else "")
        raise MismatchError(
            f"{path} is of another configuration: {listed}; give another --out, or "
            "the same configuration"
        )


def made_with(environment: Mapping[str, Any]) -> dict[str, Any]:
    """What the last bits of a run's numbers depend on.

    Parameters
    ----------
    environment : of `tracker.training.records`
    """
    kept = {name: environment[name] for name in ("world_size", "torch_threads", "device")}
    kept["cpu"] = torch.backends.cpu.get_cpu_capability()
    return {**kept, **environment["versions"]}


def made_otherwise(start: Start, now: Mapping[str, Any]) -> list[str]:
    """Warn if a checkpoint was made with something else than the run that goes on from it.

    Parameters
    ----------
    start : its ``meta`` has, or in old ones has not, a ``made_with``
    now : `made_with` of this run
    """
    then = start.state["meta"].get("made_with", {})
    differing = [
        f"{name} {then[name]} (now {now.get(name)})" for name in then if then[name] != now.get(name)
    ]
    if not differing:
        return []
    return [
        f"{start.path} was made with {', '.join(differing)}: what follows may differ in its last "
        "bits from a run without a stop"
    ]
