"""Packed data sets with damaged pictures in known rows, and what must come of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import synthetic
import torch

from loaders.config import PairConfig
from loaders.loader import make_backend
from loaders.plan import Plan, plan_batch, with_substitutes
from loaders.sets import DataSets
from loaders.work import Work, prepare
from shards.format import INDEX_NAME, Sample
from shards.pixels import encode_jpeg
from shards.rng import uniforms
from shards.writer import finish, write_shard

HTML = b"<!DOCTYPE html><html><body><h1>503 Service Unavailable</h1></body></html>\n"
FRAMES = 32


def noise(size: int) -> bytes:
    return (uniforms(5, 96, 0, 0, -(-size // 4), 4).ravel()[:size] * 256).astype("u1").tobytes()


@cache
def grain() -> np.ndarray:
    return uniforms(1, 95, 0, 0, 446 * 446, 4)[:, :3].reshape(446, 446, 3) * 24


@cache
def detailed(seed: int) -> bytes:
    """A picture of some 40 KB, as real ones: 4 kB are a small part of it."""
    picture = synthetic.picture(seed, 446) + np.roll(grain(), 37 * seed, axis=1)
    return encode_jpeg(np.clip(picture, 0, 255).astype(np.uint8), 90)


def in_the_middle(data: bytes, patch: bytes) -> bytes:
    at = len(data) // 2
    return data[:at] + patch + data[at + len(patch) :]


def no_table(data: bytes) -> bytes:
    """A scan that names a Huffman table that is not there: the header is good, decoders refuse."""
    at = data.index(b"\xff\xda") + 6  # of the first component: DC and AC, four bits each
    return data[:at] + b"\x33" + data[at + 1 :]


OTHER = detailed(999)
DAMAGES = {
    "half": lambda data: data[: len(data) // 2],
    "200 bytes": lambda data: data[:200],
    "noise": lambda data: noise(len(data)),
    "empty": lambda data: b"",
    "html": lambda data: HTML,
    "zeroed": lambda data: in_the_middle(data, bytes(4096)),
    "scrambled": lambda data: in_the_middle(data, noise(4096)),
    "another picture": lambda data: OTHER,
    "no table": no_table,
}


@dataclass(frozen=True, kw_only=True)
class Packed:
    """The same data set twice: damaged and whole."""

    damaged: Path
    whole: Path
    rows: frozenset[int]


def pack(folder: Path, damages: dict[int, str], *, same_crc: bool) -> Packed:
    """Pack two sequences of 32 frames, with damages in some rows.

    Without `same_crc` the index holds the checksums of the pictures before they were damaged.
    """

    def rows(damaged: bool) -> Iterator[tuple[Sample, bytes]]:
        row = 0
        for name, category in (("car-1", "car"), ("person-2", "person")):
            for sample, _ in synthetic.samples(name, category, FRAMES, seed=row + 1):
                data = detailed(row)
                yield sample, DAMAGES[damages[row]](data) if damaged and row in damages else data
                row += 1

    for name, damaged in (("damaged", True), ("whole", False)):
        target = folder / name / "lasot"
        parts = [write_shard(target, "lasot-000000.tar", rows(damaged))]
        finish(target, parts, name="lasot", grid="edge", crop_size=446, quality=90, stride=3)
    if not same_crc:
        set_crc(folder / "damaged" / "lasot", folder / "whole" / "lasot")
    return Packed(damaged=folder / "damaged", whole=folder / "whole", rows=frozenset(damages))


def set_crc(folder: Path, source: Path) -> None:
    """Give an index the checksums of another."""
    table = pa.ipc.open_file((folder / INDEX_NAME).read_bytes()).read_all()
    crc = pa.ipc.open_file((source / INDEX_NAME).read_bytes()).read_all()["crc32c"]
    at = table.schema.get_field_index("crc32c")
    with pa.ipc.new_file(str(folder / INDEX_NAME), table.schema) as writer:
        writer.write_table(table.set_column(at, "crc32c", crc))


def holds(plan: Plan, rows: frozenset[int]) -> list[int]:
    """Positions of the pairs that hold one of these rows."""
    return [
        i
        for i, pair in enumerate(zip(plan.template_row, plan.search_row, strict=True))
        if rows & set(map(int, pair))
    ]


def attempts_of(
    sets: DataSets, config: PairConfig, epoch: int, start: int, count: int, rows: frozenset[int]
) -> dict[int, int]:
    """Which substitutes samples must take, found sample by sample."""
    found = {}
    for at in range(count):
        plan = plan_batch(sets.tables, config.seed, epoch, start + at, 1)
        attempt = 0
        while holds(plan, rows):
            attempt += 1
            plan = with_substitutes(sets.tables, config.seed, epoch, plan, {0: attempt})
        if attempt:
            found[at] = attempt
    return found


def expected(
    sets: DataSets, config: PairConfig, epoch: int, start: int, count: int, rows: frozenset[int]
) -> tuple[Work, tuple[torch.Tensor, torch.Tensor]]:
    """What must come out, made from the whole pictures."""
    attempts = attempts_of(sets, config, epoch, start, count, rows)
    work = prepare(sets, config, epoch, start, count, 1, attempts)
    _, backend = make_backend(config, sets, count, torch.device("cpu"))
    try:
        return work, backend.finish(backend.start(work), 60.0)
    finally:
        backend.close()
