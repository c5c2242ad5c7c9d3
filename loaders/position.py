"""The state of a loader: a position, and what the sample stream depends on.

What differs between a state and the loader that wants to go on from it is of two kinds. Data,
their storage and the windows of a stream may be others if somebody says so: the position keeps its
meaning, though the samples are not those that would have followed. The seed, the epoch's length
and how pairs are drawn may not: that is another run.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from loaders.config import PairConfig
from loaders.sets import Chosen
from shards.errors import MismatchError

__all__ = ["after", "compare", "describe", "position"]

NEW_KEYS = {"drawing", "sequential"}  # that a state may lack


def after(at: tuple[int, int], config: PairConfig, batch_size: int) -> tuple[int, int]:
    """Position (epoch, samples consumed of it) one step later.

    The next epoch begins where no whole batch is left.
    """
    epoch, consumed = at[0], at[1] + batch_size
    return (epoch + 1, 0) if consumed + batch_size > config.pairs_per_epoch else (epoch, consumed)


def describe(config: PairConfig, sets: Chosen[Any], epoch: int, consumed: int) -> dict[str, Any]:
    """State of a loader, but for what its works add."""
    drawn = {
        "sampler": asdict(config.sampler),
        "recipe": asdict(config.recipe),
        "px": [config.template_px, config.search_px],
    }
    return {
        "epoch": epoch,
        "consumed": consumed,
        "seed": config.seed,
        "pairs_per_epoch": config.pairs_per_epoch,
        "rules": _sha256({"weights": [one.weight for one in sets.sets], **drawn}),
        # The same without the weights, which change with the data sets that are there.
        "drawing": _sha256(drawn),
        "data": sets.fingerprints(),
    }


def _sha256(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def compare(
    state: Mapping[str, Any],
    own: Mapping[str, Any],
    works: Sequence[str],
    allow_data_change: bool,
) -> tuple[str, ...]:
    """What differs in the data, if that is allowed.

    Parameters
    ----------
    state, own : of the loader that was, and of the one that is
    works : what differs by their `Works`
    allow_data_change : as `PairLoader.load_state_dict` has it

    Raises
    ------
    MismatchError : if it is not allowed, or something else differs
    """
    absent = sorted(own.keys() - state.keys() - NEW_KEYS)
    if absent:
        raise MismatchError(f"not the state of a loader: it lacks {', '.join(absent)}")
    changes = [*works, *_data_changes(state["data"], own["data"])]
    fixed = _fixed_changes(state, own, bool(changes))
    if fixed:
        raise MismatchError(f"cannot go on with this sample stream: {'; '.join(fixed + changes)}")
    if changes and not allow_data_change:
        raise MismatchError(
            f"cannot go on with this sample stream: {'; '.join(changes)}. With --allow-data-change "
            "train.py goes on at the same position, with other samples than would have followed"
        )
    return tuple(changes)


def _data_changes(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    if before.keys() != now.keys():
        former = ",".join(sorted(before))
        return [
            f"it drew from {', '.join(sorted(before))}, now there is {', '.join(sorted(now))} (to "
            f"go on with the former: --set data.datasets={former})"
        ]
    other = [name for name in sorted(before) if before[name] != now[name]]
    return [f"the packed data differ: {', '.join(other)}"] if other else []


def _fixed_changes(state: Mapping[str, Any], own: Mapping[str, Any], other_data: bool) -> list[str]:
    changed = [
        f"data.{key} was {state[key]}, now {own[key]}"
        for key in ("seed", "pairs_per_epoch")
        if state[key] != own[key]
    ]
    if "drawing" in state and state["drawing"] != own["drawing"]:
        changed.append("data.sampler, data.recipe or the sizes of the crops differ")
    elif not other_data and state["rules"] != own["rules"]:
        changed.append("data.weights, data.sampler, data.recipe or the sizes of the crops differ")
    return changed


def position(state: Mapping[str, Any], own: Mapping[str, Any], batch_size: int) -> tuple[int, int]:
    """Epoch, and samples consumed of it, of the next batch.

    Where no whole batch is left of the epoch, the next one begins.

    Raises
    ------
    MismatchError : if it is no position of an epoch
    """
    epoch, consumed, pairs = int(state["epoch"]), int(state["consumed"]), own["pairs_per_epoch"]
    if epoch < 0 or not 0 <= consumed < pairs:
        raise MismatchError(
            f"epoch {epoch}, {consumed} samples consumed: no position in an epoch of {pairs}"
        )
    return (epoch + 1, 0) if consumed + batch_size > pairs else (epoch, consumed)
