"""What a damaged JPEG does where DALI decodes on the GPU.

Each kind of damage is packed into a small data set of its own and tried in its own process:

- ``checksum``: bytes that the index's CRC does not fit: found before any decoder;
- ``no table``: a scan that names a Huffman table that is not there, under a CRC that fits: its
  header is good, so it is a decoder that must refuse it;
- ``scrambled``: noise in mid-stream under a CRC that fits: a decoder may notice nothing.

First with ``max_bad_fraction`` 0: the error must name the sample. Then with a budget: the pair must
be replaced and the loader go on, and a last batch must be as the reference makes it. A decoder that
refuses a picture makes DALI give up its graph, which is built anew; memory of the GPU is looked at
over many of these.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.data import DataConfig, render_track
from benchmarks.gpu_facts import Facts
from benchmarks.gpu_process import Answer, ask, device
from benchmarks.pairs import pair_config
from shards.errors import BadSample, SiamstreamError, TooManyBadSamples
from shards.format import Sample, shard_name
from shards.index import Index
from shards.rng import uniforms
from shards.writer import finish, write_shard

if TYPE_CHECKING:
    from benchmarks.gpu_child import Talk

__all__ = ["KINDS", "case_of", "damaged", "fault", "faults", "pack"]

KINDS = ("checksum", "no table", "scrambled")
FRAMES, BAD_ROW, BATCH = 16, 5, 8
BATCHES, DRY_BATCHES = 100, 8  # with a budget
SETTLED = 4  # batches after which memory is looked at first
TRIES = 60  # batches in which the damaged picture must have come


def damaged(kind: str, data: bytes) -> bytes:
    """A JPEG with a damage."""
    if kind == "no table":
        at = data.index(b"\xff\xda") + 6  # tables of the first component: DC and AC, four bits each
        return data[:at] + b"\x33" + data[at + 1 :]
    at, noise = len(data) // 2, uniforms(5, 1020, 0, 0, 512, 4).ravel() * 255
    return data[:at] + noise.astype(np.uint8).tobytes() + data[at + noise.size :]


def pack(folder: Path, kind: str) -> str:
    """Pack a track with one damaged picture; its key in the data set."""
    config = DataConfig(name="faults", frames_per_track=FRAMES)

    def samples() -> Iterator[tuple[Sample, bytes]]:
        for row, (sample, data) in enumerate(render_track(config, 0)):
            if row != BAD_ROW:
                yield sample, data
            else:
                yield sample, data if kind == "checksum" else damaged(kind, data)

    name = shard_name(config.name, 0)
    part = write_shard(folder, name, samples())
    manifest = finish(
        folder, [part], name=config.name, grid="edge", crop_size=config.side,
        quality=config.quality, stride=config.stride, options={"synthetic": True},
    )  # fmt: skip
    index = Index.checked(folder, manifest)
    if kind == "checksum":  # the shard changes after it was indexed
        at = index.range(BAD_ROW)
        with (folder / name).open("r+b") as shard:
            shard.seek(at.offset)
            data = shard.read(at.size)
            shard.seek(at.offset)
            shard.write(damaged(kind, data))
    return index.key(BAD_ROW)


def faults(facts: Mapping[str, Any], talk: Talk) -> dict[str, Any]:
    """Try every kind; what came of each."""
    own = Facts.read(facts)
    found: dict[str, Any] = {"mode": own.settings.mode, "cases": []}
    folder = Path(tempfile.mkdtemp(prefix="siamstream-faults-"))
    try:
        for kind in KINDS:
            data = folder / kind.replace(" ", "-")
            key = pack(data, kind)
            limit_s = max(10.0, talk.left_s())
            step = replace(own, data=str(data)).step(limit_s, kind=kind, key=key)
            answer = ask("fault", step, limit_s, talk.say, step=True)
            case = case_of(kind, answer)
            found["cases"].append(case)
            talk.say(f"{kind}: {case['outcome']}")
            talk.found(found)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return found


def case_of(kind: str, answer: Answer) -> dict[str, Any]:
    """What came of a kind, as results have it; of a process that ended badly only a part."""
    case = {"kind": kind, "outcome": "crashed", **answer.found, "memory": answer.memory()}
    if answer.error:
        case["error"] = answer.error
        if answer.found:  # it went wrong after the damage had been told
            case["outcome"] = f"{answer.found['outcome']}, then failed"
    return case


def fault(facts: Mapping[str, Any], talk: Talk) -> dict[str, Any]:
    """One kind, in its own process."""
    from loaders.loader import PairLoader

    own = Facts.read(facts)
    case = own.case(batch_size=BATCH, pairs=BATCH, threads=2)
    config = pair_config(case, own.backend)  # type: ignore[arg-type]
    found: dict[str, Any] = {"outcome": "decoded", "error": None}
    with PairLoader(config, device=own.device, batch_size=BATCH) as loader:
        try:
            for _ in range(TRIES):
                next(loader)
        except BadSample as error:
            found["error"] = str(error)
            found["outcome"] = "named" if error.key == own.work["key"] else "unnamed"
        except SiamstreamError as error:
            found |= {"outcome": "unnamed", "error": str(error)}
    talk.found(found)
    found |= _goes_on(own, talk)
    return found


def _goes_on(own: Facts, talk: Talk) -> dict[str, Any]:
    """Batches with a budget, and the last of them beside the reference."""
    import torch

    from benchmarks.gpu_parity import differences, figures
    from loaders.loader import PairLoader

    case = own.case(batch_size=BATCH, pairs=BATCH, threads=2)
    tolerant = replace(pair_config(case, own.backend), max_bad_fraction=0.5)  # type: ignore[arg-type]
    gpu, used = device(), []
    wanted = DRY_BATCHES if own.is_dry else BATCHES
    made, error = 0, None
    with PairLoader(tolerant, device=own.device, batch_size=BATCH) as loader:
        try:
            while made < wanted and (talk.left_s() > 5 or made <= SETTLED):
                batch = next(loader)
                made += 1
                memory = gpu.memory() if gpu else None
                if memory and made >= SETTLED:
                    used.append(memory[0])
        except TooManyBadSamples as refused:
            error = str(refused)
        replaced = int(loader.stats()["bad"])
    found: dict[str, Any] = {
        "batches": made,
        "replaced": replaced,
        "gpu_growth_mb": (used[-1] - used[0]) / 1e6 if used else None,
    }
    if error:
        return {**found, "error": error}
    judge = replace(tolerant, backend="reference", prefetch=1)
    with PairLoader(judge, batch_size=BATCH) as theirs:
        state = {**theirs.state_dict(), "epoch": 0, "consumed": int(batch.sample.min())}
        theirs.load_state_dict(state)
        other = next(theirs)
    same = torch.equal(batch.sample.cpu(), other.sample)
    apart = figures(differences(batch.search, other.search))
    return {**found, "same_samples": same, "last_batch": apart}
