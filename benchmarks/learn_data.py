"""What `benchmarks.learn` trains on and judges by, packed from real pieces or rendered."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from shards.errors import DataError
from shards.format import MANIFEST_NAME
from tracker.sequences import VideoSequence, read_sequences

__all__ = ["Material", "demo_material", "material", "real_material", "write_as_lasot"]

SINGLE = "GOT-10k_Train_000001"  # of the real pieces: it leaves its first box soon
PACKED = ("lasot", "got10k", "trackingnet", "coco")
DEMO_SEEDS = {"seen": 3, "unseen": 4}
DEMO_SEQUENCES = {"seen": 64, "unseen": 8}
DEMO_FRAMES = 48


@dataclass(frozen=True, kw_only=True, slots=True)
class Material:
    """Data of one run of the benchmark.

    Attributes
    ----------
    label : what they are, for the reader
    train : parent of the packed training sets
    unseen : sequences that are never trained on
    unseen_pairs : the same, packed
    single : the one sequence to overfit to
    single_pairs : the same, packed
    """

    label: str
    train: Path
    unseen: tuple[VideoSequence, ...]
    unseen_pairs: Path
    single: VideoSequence
    single_pairs: Path


def material(out: Path, say: Callable[[str], None]) -> Material:
    """Material from ``$SIAMSTREAM_TEST_DATA``, or from the demo if that is not set."""
    raw = os.environ.get("SIAMSTREAM_TEST_DATA")
    if raw:
        return real_material(Path(raw), out / f"real-{_fingerprint(Path(raw))}")
    say(
        "Note: demo sequences, for $SIAMSTREAM_TEST_DATA is not set; let it name a parent of raw "
        f"data sets ({', '.join(PACKED)} and otb) to learn from real ones"
    )
    return demo_material(out / "synthetic")


def real_material(raw: Path, out: Path) -> Material:
    """Material from a parent of raw data sets with ``otb/`` among them.

    Parameters
    ----------
    raw : with lasot, got10k, trackingnet, coco and otb in it, the last for judging alone
    out : folder of the shards, filled at need

    Raises
    ------
    DataError : if something is missing or cannot be packed
    """
    for name in PACKED:
        split = ("--split", "all") if name == "lasot" else ()
        stride = () if name == "coco" else ("--stride", "1")
        _pack(name, raw / name, out / "train" / name, *split, *stride)
    unseen = tuple(read_sequences("otb", raw / "otb", "all").sequences)
    single = _named(read_sequences("got10k", raw / "got10k", "train").sequences, SINGLE)
    return _packed("pieces of real data sets; otb/ unseen", out, out / "train", unseen, single)


def demo_material(out: Path) -> Material:
    """Material without any data: sequences of the demo, of two seeds."""
    for name, seed in DEMO_SEEDS.items():
        root, count = out / "demo" / name, DEMO_SEQUENCES[name]
        if not root.is_dir():
            partial = root.with_name(f".{name}.partial")
            shutil.rmtree(partial, ignore_errors=True)
            _run("packer", "demo", "--root", partial, "--sequences", count, "--frames", DEMO_FRAMES,
                 "--seed", seed)  # fmt: skip
            partial.replace(root)
    _pack("lasot", out / "demo/seen/lasot", out / "train/lasot", "--stride", "1")
    unseen = read_sequences("lasot", out / "demo/unseen/lasot", "all").sequences
    single = read_sequences("lasot", out / "demo/seen/lasot", "all").sequences[0]
    return _packed(
        f"demo sequences of seed {DEMO_SEEDS['seen']}; of seed {DEMO_SEEDS['unseen']} unseen",
        out, out / "train", tuple(unseen), single,
    )  # fmt: skip


def _packed(
    label: str, out: Path, train: Path, unseen: tuple[VideoSequence, ...], single: VideoSequence
) -> Material:
    """Pack what is judged by itself: the unseen sequences, and the single one."""
    folders = {}
    for name, sequences in (("unseen", unseen), ("single", (single,))):
        tree = out / "raw" / name
        if not tree.is_dir():
            write_as_lasot(sequences, tree)
        _pack("lasot", tree, out / name / "lasot", "--split", "all", "--stride", "1")
        folders[name] = out / name
    return Material(
        label=label, train=train, unseen=unseen, unseen_pairs=folders["unseen"],
        single=single, single_pairs=folders["single"],
    )  # fmt: skip


def write_as_lasot(sequences: Sequence[VideoSequence], root: Path) -> None:
    """Copy sequences into LaSOT's layout, so that the packer takes them; whole or not at all.

    Each becomes a class of its own: a pair of two of them is then a pair of two objects.
    """
    partial = root.with_name(f".{root.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    for number, sequence in enumerate(sequences):
        folder = partial / f"s{number:02d}" / f"s{number:02d}-1"
        (folder / "img").mkdir(parents=True)
        for i, frame in enumerate(sequence.frames):
            shutil.copyfile(frame, folder / "img" / f"{i + 1:08d}.jpg")
        corners = np.array(sequence.boxes, np.float64)
        xywh = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)
        lines = [",".join(f"{value:.4f}" for value in box) for box in np.nan_to_num(xywh).tolist()]
        (folder / "groundtruth.txt").write_text("\n".join(lines) + "\n")
        absent = ",".join(str(int(flag)) for flag in sequence.absent) + "\n"
        (folder / "full_occlusion.txt").write_text(absent)
        (folder / "out_of_view.txt").write_text(absent)
    partial.replace(root)


def _fingerprint(raw: Path) -> str:
    """Digits that change with the names and sizes of the files that are packed."""
    digest = hashlib.sha256()
    for name in (*PACKED, "otb"):
        for path in sorted((raw / name).rglob("*")):
            if path.is_file():
                digest.update(f"{path.relative_to(raw)} {path.stat().st_size}\n".encode())
    return digest.hexdigest()[:8]


def _named(sequences: Sequence[VideoSequence], name: str) -> VideoSequence:
    for sequence in sequences:
        if sequence.name == name:
            return sequence
    raise DataError(f"the sequence {name} is not among {', '.join(s.name for s in sequences)}")


def _pack(name: str, root: Path, out: Path, *options: str) -> None:
    if not (out / MANIFEST_NAME).is_file():
        _run("packer", name, "--root", root, "--out", out, *options)


def _run(package: str, *words: object) -> None:
    """Run one of our commands."""
    command = [sys.executable, "-m", package, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise DataError(f"{' '.join(command[1:])}: {last}")
