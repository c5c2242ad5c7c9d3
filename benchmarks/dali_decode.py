"""DALI decoding and nothing else: ``mixed`` where there is a GPU, else on the CPU."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nvidia.dali import fn, pipeline_def, types

from benchmarks.case import Case, Served
from benchmarks.derived import dali_folder
from benchmarks.pairs import pair_config, works
from loaders.sets import open_sets
from loaders.work import Work
from shards.format import Manifest, dataset_folders

__all__ = ["WHERE", "decoded_pictures", "decoded_tars"]

GPU = torch.cuda.is_available()
WHERE = "mixed, GPU" if GPU else "CPU"
AHEAD = 4  # batches under way, as ours has
SHUFFLE_BUFFER = 1024  # DALI's default


def _run(case: Case, graph: Callable[[], Any]) -> Iterator[Served]:
    """Batches of a graph of two pictures a pair; the pixels stay with DALI.

    A batch counts when it is complete: results that are asked for without a stream are.
    """
    pipe = pipeline_def(  # type: ignore[call-overload]
        graph,
        batch_size=2 * case.batch_size,
        num_threads=case.threads,
        device_id=torch.cuda.current_device() if GPU else None,
        prefetch_queue_depth=AHEAD,
        seed=case.seed,
    )()
    pipe.build()
    for start in case.starts():
        pipe.run()
        yield Served(list(range(start, start + case.batch_size)), None, None)


def _decode(encoded: Any, region: tuple[Any, Any] | None = None) -> Any:
    how = {
        "device": "mixed" if GPU else "cpu",
        "output_type": types.RGB,
        "adjust_orientation": False,  # as ours decodes
    }
    if region is None:
        return fn.decoders.image(encoded, **how)
    pixels = {"axis_names": "HW", "normalized_anchor": False, "normalized_shape": False}
    return fn.decoders.image_slice(encoded, *region, **pixels, **how)


def _inputs(work: Work) -> tuple[list[Any], Any, Any]:
    """Encoded pictures of a batch, (2B, 2) starts and (2B, 2) sizes (y, x) of their regions."""
    halves = (work.template, work.search)
    encoded = [
        np.frombuffer(crops.read(i), np.uint8) for crops in halves for i in range(len(crops))
    ]
    regions = np.concatenate([crops.params.decoded for crops in halves])
    low, size = regions[:, 1::-1], (regions[:, 2:] - regions[:, :2])[:, ::-1]
    return encoded, np.ascontiguousarray(low, np.int32), np.ascontiguousarray(size, np.int32)


def decoded_pictures(case: Case, by_region: bool) -> Iterator[Served]:
    """Decode the plan's pictures; they are planned and read before the first batch.

    Parameters
    ----------
    case : of the run
    by_region : only what a crop touches, as ours does; else whole pictures
    """
    planned = [_inputs(work) for work in works(case, open_sets(pair_config(case)))]
    again = itertools.cycle(planned)  # DALI asks for batches beyond the last that is taken

    def regions() -> Any:
        encoded, low, size = fn.external_source(source=lambda: next(again), num_outputs=3)
        return _decode(encoded, (low, size))

    def whole() -> Any:
        return _decode(fn.external_source(source=lambda: next(again)[0]))

    yield from _run(case, regions if by_region else whole)


def decoded_tars(case: Case) -> Iterator[Served]:
    """Decode what DALI's own reader draws from the tars, two pictures a pair."""
    tars: list[str] = []
    indexes: list[str] = []
    for folder in dataset_folders(Path(case.data)):
        manifest = Manifest.read(folder)
        own = dali_folder(case.derived_folder, manifest)
        tars += [str(folder / shard.name) for shard in manifest.shards]
        indexes += [str((own / shard.name).with_suffix(".idx")) for shard in manifest.shards]

    def graph() -> Any:
        encoded = fn.readers.webdataset(
            paths=tars,
            index_paths=indexes,
            ext=["jpg"],
            missing_component_behavior="error",
            random_shuffle=True,
            initial_fill=SHUFFLE_BUFFER,
        )
        return _decode(encoded)

    yield from _run(case, graph)
