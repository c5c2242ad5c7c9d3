"""Training steps of SPM-AlexNet on the device, and how long they wait for our loader.

The step is that of ``train.py`` (`benchmarks.train_child`), at width 1 and the published batch of
32, with worker processes that plan and read (`Facts.workers`), and in one setting without. For each
setting two models train in turn, a block of steps each: one on ready-made batches, the limit, and
one on our loader. The share of the wall time that the second waits in the loader is judged. The
device works on queued steps while the loop waits, so some of this wait costs nothing; what is lost
in truth is told by the steps/s of both.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from benchmarks.case import Case
from benchmarks.gpu_claims import CONTRAST
from benchmarks.gpu_facts import Facts
from benchmarks.runner import shuffled, summary
from benchmarks.train_child import CONFIG, TrainCase
from benchmarks.train_feeds import FeedName
from benchmarks.train_process import Process

if TYPE_CHECKING:
    from benchmarks.gpu_child import Talk

__all__ = ["FEEDS", "SETTINGS", "train"]

FEEDS: tuple[FeedName, ...] = ("ready", "loader")


class Setting(NamedTuple):
    """Overrides of the published configuration, and whether worker processes plan and read."""

    overrides: tuple[str, ...]
    has_workers: bool = True


_BF16 = ("train.amp=bf16", "train.channels_last=true")
SETTINGS = {
    "fp32": Setting(()),
    "bf16, channels-last": Setting(_BF16),
    f"bf16, channels-last, {CONTRAST}": Setting(_BF16, has_workers=False),
}
BATCH, DRY_BATCH = 32, 2
WIDTH, DRY_WIDTH = 1.0, 0.0625
BLOCK_S, ROUNDS = 2.0, 3
MOST_STEPS = 400
WARM_UP, TRIAL_STEPS = 3, 10


def train(facts: Mapping[str, Any], talk: Talk) -> dict[str, Any]:
    """Measure setting by setting, as far as there is time."""
    own = Facts.read(facts)
    batch, width = (DRY_BATCH, DRY_WIDTH) if own.is_dry else (BATCH, WIDTH)
    case = own.case(batch_size=batch, pairs=batch, threads=own.cores)
    found: dict[str, Any] = {
        "model": CONFIG.removesuffix(".yaml"),
        "width": width,
        "batch_size": batch,
        "workers": own.workers,
        "settings": [],
        "left_out": [],
    }
    names = list(SETTINGS)[: 2 if own.is_dry else None]
    longest = 0.0
    for name in names:
        if found["settings"] and talk.left_s() < 1.1 * longest:
            found["left_out"] = names[len(found["settings"]) :]
            break
        before = talk.left_s()
        rest = len(names) - len(found["settings"])
        one = _setting(own, case, name, width, talk, before / rest)
        found["settings"].append(one)
        talk.found(found)
        longest = max(longest, before - talk.left_s())
    return found


def _setting(
    own: Facts, case: Case, name: str, width: float, talk: Talk, seconds: float
) -> dict[str, Any]:
    """Blocks of both feeds in one setting, within some seconds."""
    stop_at, setting = talk.left_s() - seconds, SETTINGS[name]
    case = replace(case, workers=own.workers if setting.has_workers else 0)
    figures: dict[FeedName, list[dict[str, Any]]] = {feed: [] for feed in FEEDS}
    trainers: dict[FeedName, Process] = {}
    with ExitStack() as stack:

        def begin(feed: FeedName) -> None:
            what = TrainCase(
                case=case, feed=feed, width=width, overrides=setting.overrides, device=own.device
            )
            trainers[feed] = stack.enter_context(closing(Process(what)))

        with ThreadPoolExecutor(len(FEEDS)) as pool:  # imports take longer than the blocks
            list(pool.map(begin, FEEDS))
        steps = 1
        if not own.is_dry:  # not by its first steps, beside which the other one began
            rate = trainers["ready"].block(TRIAL_STEPS, WARM_UP)["steps_per_s"]
            steps = min(MOST_STEPS, max(5, round(BLOCK_S * rate)))
        took = 0.0
        for number in range(1 if own.is_dry else ROUNDS):
            if number and talk.left_s() - stop_at < 1.1 * took:
                break
            before = talk.left_s()
            for feed in shuffled(list(FEEDS), 7, number):
                block = trainers[feed].block(steps, 1 if own.is_dry else WARM_UP)
                figures[feed].append(block)
                talk.say(
                    f"{name}, {feed}: {block['steps_per_s']:,.1f} steps/s, "
                    f"wait {block['wait_share']:.2%}"
                )
            took = before - talk.left_s()
    share = [
        ours["steps_per_s"] / limit["steps_per_s"]
        for ours, limit in zip(figures["loader"], figures["ready"], strict=True)
    ]
    return {
        "name": name,
        "overrides": list(setting.overrides),
        "feeds": {
            feed: {
                **trainers[feed].facts,
                "repeats": runs,
                "summary": {key: summary([run[key] for run in runs]) for key in runs[0]},
            }
            for feed, runs in figures.items()
        },
        "share": {"repeats": share, "summary": summary(share)},
    }
