"""Does the tracker learn? A small SPM-AlexNet, from random weights, in minutes on a CPU.

Question: do packer, shards, loader, trainer, model and tracking rule, put together, make a tracker?
A wrong sign anywhere in boxes, grids, targets or deltas would leave losses that fall and a tracker
that does not track. Method, once a seed, by the commands that a user would give:

- *pairs*: train on the packed training sets (``train.py``), keep the checkpoint of every epoch. On
  pairs of sequences that no run has seen, rank the 1,445 anchors by the coarse stage's score: AUC
  of the target's anchors against all others. The same with a template of another object says how
  much of that is the place and shape of anchors alone.
- *unseen*: follow through those sequences, one pass from the first box; average overlap (AO) beside
  that of the first, random weights and of "keep the first box".
- *one sequence*: train on one sequence alone, follow through it.

With ``$SIAMSTREAM_TEST_DATA`` the training sets are its pieces of real data sets and the unseen
sequences those of its ``otb/``; without it all are demo sequences, of one seed for training and
another for judging. Limits: it says nothing about the accuracy of the published model, which is
eight times as wide and is trained a thousand times as long.
"""

from __future__ import annotations

import resource
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from benchmarks import result
from benchmarks.claims import Claim, claims_of
from benchmarks.environment import usable_cores
from benchmarks.learn_data import Material
from configs import strict
from loaders.batch import PairBatch, normalise
from loaders.config import PairConfig
from loaders.loader import PairLoader
from loaders.sampler import PairKinds
from shards.errors import DataError
from shards.geometry import Float
from tracker.files import open_model
from tracker.follow import make_tracker
from tracker.labels import POSITIVE, assign, iou
from tracker.metrics import rules, score_sequence
from tracker.models import build
from tracker.onepass import run_sequence
from tracker.sequences import VideoSequence
from tracker.spm import SPM

__all__ = ["CLAIMS", "PAIRS", "SINGLE", "anchor_auc", "measure_learning"]

ROOT = Path(__file__).parents[1]
CONFIG = "spm_alexnet.yaml"
BATCH = 16
JUDGED = 8  # batches of unseen pairs that the anchors are ranked on
MODEL = ("model.width=0.125", "model.init=random")
OPTIMISER = (
    "train.optimizer=adamw", "train.lr=0.0007", "train.momentum=0", "train.warmup_steps=50",
    "train.heads_only_epochs=0", "train.clip_norm=10", f"train.batch_size={BATCH}",
    "train.threads=1", "data.threads=1",
)  # fmt: skip
# Pictures are many objects, sequences few: two in three pairs come from pictures.
WEIGHTS = "data.weights={coco: 0.67, got10k: 0.11, lasot: 0.11, trackingnet: 0.11}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Schedule:
    """How long one training takes: epochs of so many steps, from `slow_from` on at a tenth."""

    epochs: int
    steps: int
    slow_from: int

    @property
    def overrides(self) -> tuple[str, ...]:
        """Options of ``train.py``."""
        return (
            f"train.epochs={self.epochs}", f"train.lr_steps={self.slow_from}",
            f"data.pairs_per_epoch={self.steps * BATCH}", "train.checkpoint_every=0",
        )  # fmt: skip


PAIRS = Schedule(epochs=5, steps=150, slow_from=3)
SINGLE = Schedule(epochs=2, steps=100, slow_from=1)

CLAIMS = (
    Claim(
        key="auc", what="unseen pairs: AUC of the target's anchors", unit="", bar=0.8, least=True
    ),
    Claim(
        key="single_gain", what="one sequence: AO above keep-first-box", unit="", bar=0.2,
        least=True,
    ),
    Claim(
        key="unseen_gain", what="unseen sequences: AO above keep-first-box", unit="", bar=0.02,
        least=True,
    ),
    Claim(
        key="trained_gain", what="unseen sequences: AO above random weights", unit="", bar=0.02,
        least=True,
    ),
    Claim(key="cpu_minutes", what="all of it, CPU time", unit="min", bar=20),
)  # fmt: skip


def anchor_auc(scores: Tensor, target: Tensor) -> Tensor:
    """Chance that an anchor of the target is ranked above another one (area under the ROC curve).

    Parameters
    ----------
    scores : (B,K) float
    target : (B,K) bool

    Returns
    -------
    (B,) float64, NaN where all anchors are of one kind; equal scores count half
    """
    ordered = scores.double().sort(dim=1).values
    below = torch.searchsorted(ordered, scores.double(), right=False)
    not_above = torch.searchsorted(ordered, scores.double(), right=True)
    rank = (below + not_above + 1).double() / 2  # from 1, the mean of equal ones
    positives = target.sum(dim=1).double()
    others = target.shape[1] - positives
    won = (rank * target).sum(dim=1) - positives * (positives + 1) / 2
    return won / (positives * others)


def unseen_batches(data: Path, *, same: bool, seed: int = 5) -> list[PairBatch]:
    """Pairs of the unseen sequences: of one object each, or of two different ones."""
    config = strict.load(PairConfig, CONFIG, (f"data.path={data}",), section="data")
    kinds = PairKinds(same_instance=float(same), same_category=0.0, any=float(not same))
    sampler = replace(config.sampler, image=kinds, video=kinds)
    config = replace(config, sampler=sampler, seed=seed, pairs_per_epoch=10_000, backend="cpu")
    with PairLoader(config, 0, 1, torch.device("cpu"), batch_size=BATCH) as loader:
        return list(islice(loader, JUDGED))


@torch.inference_mode()
def ranking(model: SPM, batches: Sequence[PairBatch], *, same: bool) -> float:
    """Mean AUC of the target's anchors over the pairs of a kind that have such anchors.

    Parameters
    ----------
    model : in evaluation mode
    batches : of `unseen_batches`
    same : pairs of one object, or of two: then the template is of another object
    """
    found = []
    for batch in batches:
        z, x = (model.features(normalise(one)) for one in (batch.template, batch.search))
        logits = model.coarse(model.kernels(z), x).logits
        overlap = iou(model.anchors, batch.search_box[:, None])
        all_of_them = torch.ones(len(logits), dtype=torch.bool)
        target = assign(overlap, all_of_them, model.config.coarse.assign) == POSITIVE
        area = anchor_auc(logits[..., 1] - logits[..., 0], target)
        found.append(area[batch.positive == same])
    area = torch.cat(found)
    return float(area[area.isfinite()].mean())


def follow_all(model: SPM, sequences: Sequence[VideoSequence]) -> dict[str, float]:
    """AO of one pass through each sequence, the given first box left out."""
    tracker = make_tracker(model)
    return {one.name: average_overlap(run_sequence(tracker, one).boxes, one) for one in sequences}


def keep_first(sequences: Sequence[VideoSequence]) -> dict[str, float]:
    """AO of a tracker that never moves."""
    return {
        one.name: average_overlap(np.repeat(one.boxes[:1], len(one.boxes), axis=0), one)
        for one in sequences
    }


def average_overlap(boxes: Float, sequence: VideoSequence) -> float:
    """Mean overlap with the ground truth over the frames after the first in which there is one."""
    overlap = score_sequence(sequence, boxes, rules("got10k", "otb")).overlap
    return statistics.fmean(one for one in overlap[1:] if one is not None)


def train(data: Path, out: Path, schedule: Schedule, seed: int) -> Path:
    """Train with ``train.py`` in a process of its own, anew; returns the run's folder.

    Raises
    ------
    DataError : if it fails, with its last lines
    """
    shutil.rmtree(out, ignore_errors=True)
    seeds = (f"model.seed={seed}", f"data.seed={seed}", f"train.seed={seed}")
    words = ["--config", CONFIG, "--data", str(data), "--out", str(out)]
    for override in (*MODEL, *OPTIMISER, WEIGHTS, *schedule.overrides, *seeds):
        words += ["--set", override]
    command = [sys.executable, str(ROOT / "train.py"), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    if done.returncode:
        last = " / ".join(done.stderr.strip().splitlines()[-3:])
        raise DataError(f"train.py failed with code {done.returncode}: {last}")
    return out


def checkpoints(run: Path, schedule: Schedule) -> Iterator[tuple[int, SPM]]:
    """Models of a run by number of steps, the first, random weights included."""
    for epoch in range(1, schedule.epochs + 1):
        found = open_model(run / f"epoch_{epoch}.pth")
        if epoch == 1:
            yield 0, build(found.config).eval()
        yield epoch * schedule.steps, found.model


class Pairs(NamedTuple):
    """Unseen pairs of one object each, and of two different ones."""

    same: list[PairBatch]
    other: list[PairBatch]


def measure_seed(material: Material, out: Path, seed: int, batches: Pairs) -> dict[str, Any]:
    """Everything of one seed: curves over the steps, and the figures at the end."""
    pairs_run = train(material.train, out / f"pairs-{seed}", PAIRS, seed)
    curve = []
    for step, model in checkpoints(pairs_run, PAIRS):
        found = follow_all(model, material.unseen)
        curve.append(
            {
                "step": step,
                "auc": ranking(model, batches.same, same=True),
                "auc_other_template": ranking(model, batches.other, same=False),
                "ao": statistics.fmean(found.values()),
                "ao_by_sequence": found,
            }
        )
    single_run = train(material.single_pairs, out / f"single-{seed}", SINGLE, seed)
    last = open_model(single_run / f"epoch_{SINGLE.epochs}.pth")
    single = follow_all(last.model, [material.single])
    return {"seed": seed, "curve": curve, "single_ao": single[material.single.name]}


def measure_learning(
    material: Material,
    out: Path,
    seeds: Sequence[int],
    command: str,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Run the benchmark.

    Parameters
    ----------
    material : data
    out : folder of the runs; those of an earlier time are replaced
    seeds : one training of each kind a seed
    command : that repeats it
    say : told what is done

    Returns
    -------
    the result, as JSON has it
    """
    run = result.start("learn", command)
    batches = Pairs(
        unseen_batches(material.unseen_pairs, same=True),
        unseen_batches(material.unseen_pairs, same=False),
    )
    floor = keep_first(material.unseen)
    single_floor = keep_first([material.single])[material.single.name]

    def one(seed: int) -> dict[str, Any]:
        found = measure_seed(material, out, seed, batches)
        last = found["curve"][-1]
        say(
            f"seed {seed}: AUC {last['auc']:.3f}, AO unseen {last['ao']:.3f}, one sequence "
            f"{found['single_ao']:.3f}"
        )
        return found

    with ThreadPoolExecutor(usable_cores()) as pool, one_torch_thread():
        found = list(pool.map(one, seeds))
    unseen_floor = statistics.fmean(floor.values())
    values = {
        "auc": [one["curve"][-1]["auc"] for one in found],
        "single_gain": [one["single_ao"] - single_floor for one in found],
        "unseen_gain": [one["curve"][-1]["ao"] - unseen_floor for one in found],
        "trained_gain": [one["curve"][-1]["ao"] - one["curve"][0]["ao"] for one in found],
        "cpu_minutes": [_cpu_s() / 60],
    }
    return {
        **run,
        "data": material.label,
        "config": CONFIG,
        "overrides": [*MODEL, *OPTIMISER, WEIGHTS],
        "schedules": {"pairs": asdict(PAIRS), "single": asdict(SINGLE)},
        "pairs_judged": JUDGED * BATCH,
        "single": material.single.name,
        "single_floor_ao": single_floor,
        "unseen_floor_ao": unseen_floor,
        "unseen_floor_by_sequence": floor,
        "seeds": found,
        "claims": claims_of(CLAIMS, values),
    }


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """Give each model one thread of torch: several are judged at a time."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _cpu_s() -> float:
    """CPU seconds of this process since it began, and of its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)
