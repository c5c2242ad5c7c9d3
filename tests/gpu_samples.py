"""What the parts of a run on a GPU find, put together by the functions that write it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from benchmarks.gpu import PARTS, record
from benchmarks.gpu_facts import Facts, Settings
from benchmarks.gpu_faults import KINDS, case_of
from benchmarks.gpu_loaders import found_of
from benchmarks.gpu_parity import figures
from benchmarks.gpu_process import Answer
from benchmarks.runner import summary

LABELS = {
    "decode-only": "limit: DALI's decoder alone",
    "dali": "ours: zip index, DALI on the GPU",
    "dali-default": "ours: zip index, DALI on the GPU",
    "zip-tuned": "zip, tuned",
}
WHOLE = Settings(mode="whole", hw_decoder_load=0.9, threads=4, batch_pairs=64)


def _rounds(count: int) -> list[dict[str, dict[str, Any]]]:
    rates = {"decode-only": 10_000.0, "dali": 9_500.0, "dali-default": 9_000.0, "zip-tuned": 900.0}
    return [
        {
            name: {
                "pairs_per_s": rate + 10 * number, "cpu_ms_per_pair": 0.1,
                "host_mb": 900.0,
                **({} if name == "decode-only" else {"cores_busy": 1.5}),
            }
            for name, rate in rates.items()
        }
        for number in range(count)
    ]  # fmt: skip


def _feed(waits: Sequence[float]) -> dict[str, Any]:
    runs = [{"steps_per_s": 20.0, "wait_share": wait} for wait in waits]
    summaries = {key: summary([run[key] for run in runs]) for key in runs[0]}
    return {"repeats": runs, "summary": summaries}


def _went_on(outcome: str, error: str | None, mean: float) -> dict[str, Any]:
    last = {"mean": mean, "p99": 2.0, "p999": 4.0, "max": 9.0}
    return {
        "outcome": outcome, "error": error, "batches": 100, "replaced": 7 if error else 0,
        "gpu_growth_mb": 1.5, "same_samples": True, "last_batch": last,
    }  # fmt: skip


def answers(rounds: int = 3, error: str = "ended by SIGSEGV: x") -> dict[str, Answer]:
    """Of every part of a run on a GPU where regions fail, by the part's name.

    Parameters
    ----------
    rounds : repeats of what is timed
    error : of what goes wrong
    """
    memory = {"host_peak_mb": 500.0, "gpu_peak_mb": None}
    counts = np.bincount([0] * 900 + [1] * 98 + [5, 40], minlength=256)
    compared = {
        "mode": "whole", "hw_decoder_load": 0.65, "pairs": 64, "crops": 128, "boxes_equal": True,
        "template": figures(counts), "search": figures(counts),
    }  # fmt: skip
    run = {
        **asdict(WHOLE), "pairs_per_s": 10_000.0, "cpu_ms_per_pair": 0.1,
        "jpeg_engine_percent": 80.0, "error": None,
    }  # fmt: skip
    checks = {"torch": None, "whole": None, "region": error, "loader": None}
    own = Facts(data="x", derived="y", device="cuda", cores=16, settings=WHOLE)
    share = [0.99] * rounds
    cases = {
        "checksum": Answer(found=_went_on("named", "lasot/a: CRC-32C", 0.3)),
        "no table": Answer(error=error),
        "scrambled": Answer(found=_went_on("decoded", None, 2.0)),
    }
    found: dict[str, Mapping[str, Any]] = {
        "environment": {
            "gpu": "H100", "driver": "580", "gpu_memory_mb": 80_000.0, "torch": "2.11.0",
            "torch_cuda": "12.8", "dali": "2.4.0", "nvimgcodec": "0.9.0", "mode": "whole",
            "checks": [
                {
                    "name": name, "what": f"{name} works", "ok": wrong is None, "error": wrong,
                    "seconds": 3.0, "memory": memory,
                }
                for name, wrong in checks.items()
            ],
        },
        "parity": compared,
        "decode": {
            "runs": [{**run, "pairs_per_s": 8_000.0, "hw_decoder_load": 0.0}, run],
            "best": {"whole": {**run, "memory": memory}},
            "errors": {"region": error},
        },
        "parity-best": {**compared, "hw_decoder_load": 0.9},
        "loaders": found_of(own, _rounds(rounds), LABELS, {"zip-published": error}),
        "train": {
            "model": "spm_alexnet", "width": 1.0, "batch_size": 32, "workers": 6,
            "settings": [
                {
                    "name": "bf16", "overrides": ["train.amp=bf16"],
                    "feeds": {"ready": _feed([0.0] * rounds), "loader": _feed([0.05] * rounds)},
                    "share": {"repeats": share, "summary": summary(share)},
                }
            ],
            "left_out": ["bf16, channels-last"],
        },
        "faults": {
            "mode": "whole", "cases": [case_of(kind, cases[kind]) for kind in KINDS],
        },
    }  # fmt: skip
    return {
        part.name: Answer(found=dict(found[part.name]), seconds=41.5, host_peak_mb=900.0)
        for part in PARTS
    }


def parts(error: str) -> list[dict[str, Any]]:
    """Records of all parts, one of which failed and found nothing."""
    made = {**answers(error=error), "parity-best": Answer(error=error)}
    return [record(part, 60.0, made[part.name]) for part in PARTS]
