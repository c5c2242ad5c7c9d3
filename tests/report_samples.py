"""Results that are made up, of the kinds that a report shows, with names that want escaping."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gpu_samples

from benchmarks.gpu_claims import claims_from, unmeasured
from benchmarks.runner import summary

HOSTILE = "<script>alert(\"x\")</script> & 'y'"
_ENVIRONMENT = {
    "cpu": f"CPU {HOSTILE}", "cores_usable": 2, "cores": 4, "memory_bytes": 8e9,
    "load_1min_at_start": 0.5, "gpus": [], "system": "Linux", "python": "3.12.0",
    "versions": {"torch": "2.14.1"}, "commit": "0123456789abcdef", "uncommitted_changes": True,
}  # fmt: skip
DATASET = {
    "name": f"set {HOSTILE}", "frames": 2832, "tracks": 59, "categories": 10, "crop_px": 446,
    "quality": None, "mean_jpeg_kb": 34.5, "p5_p95_jpeg_kb": [22.8, 48.5], "synthetic": True,
    "index_sha256": "ab",
}  # fmt: skip


def envelope(kind: str) -> dict[str, Any]:
    """First keys of a result."""
    return {
        "schema": 1,
        "kind": kind,
        "made_utc": "2026-11-25T03:58:13+00:00",
        "command": f"python -m benchmarks {kind} --data '{HOSTILE}'",
        "environment": _ENVIRONMENT,
    }


def _summaries(repeats: Sequence[Mapping[str, float]]) -> dict[str, dict[str, float]]:
    return {key: summary([one[key] for one in repeats]) for key in repeats[0]}


def _figures(repeat: int, rate: float, first: float) -> dict[str, float]:
    rate *= 1 + 0.02 * repeat
    return {
        "repeat": repeat, "pairs_per_s": rate, "cpu_ms_per_pair": 2000 / rate,
        "memory_peak_beyond_imports_mb": 40 + rate / 10, "first_batch_s": 40 / rate,
        "others_cores_busy": 0.03, "pairs_per_s_x_first": rate / first,
        "cpu_ms_per_pair_x_first": first / rate, "memory_x_first": 1.5,
        "first_batch_s_x_first": first / rate,
    }  # fmt: skip


def sweep() -> dict[str, Any]:
    """Workers (numbers) and page cache (names), three contestants, one absent at a point."""
    axes = []
    for axis, scale, points in (
        ("workers", "log2", (("1", 1), ("2", 2), ("4", 4))),
        ("size", "log2", (("1 GB", 1.0), ("8 GB", 8.0))),
        ("cache", "names", (("cold", None), ("warm", None))),
    ):
        contestants = []
        for name, group, rate in (
            ("cpu", "ours", 800.0),
            (f"peer {HOSTILE}", "peer", 700.0),
            ("zip-tuned", "baseline", 600.0),
            ("decode-only", "limit", 1500.0),
        ):
            found = []
            for i, (point, _) in enumerate(points):
                if name == "zip-tuned" and i == 2:
                    continue
                speed = rate * (i + 1) * (1.6 if group == "peer" and i == 2 else 1)
                repeats = [_figures(repeat, speed, rate) for repeat in range(3)]
                found.append({"point": point, "repeats": repeats, "summary": _summaries(repeats)})
            contestants.append({"name": name, "label": name, "group": group, "points": found})
        one = {
            "axis": axis, "title": f"{axis} {HOSTILE}", "unit": "GB" if axis == "size" else "",
            "scale": scale, "work": "recipe", "case": {"batch_size": 32},
            "data": {"datasets": [DATASET], "page_cache": "warm"},
            "points": [{"name": point, "value": value} for point, value in points],
            "contestants": contestants,
            "absent": [{"name": "zip-tuned", "point": points[-1][0], "reason": HOSTILE}],
            "notes": ["The kernel kept 3 % of the pages."],
        }  # fmt: skip
        if axis == "size":
            opened = [{"open_ms": 1.5, "rows": 1000.0}]
            one["openings"] = [{"point": "1 GB", "repeats": opened, "summary": _summaries(opened)}]
        axes.append(one)
    return {**envelope("sweep"), "complete": False, "axes": axes, "config": {}}


def gpu() -> dict[str, Any]:
    """Every part, and one that failed."""
    data = {"datasets": [DATASET]}
    rest = {"dry_run": False, "minutes": 8.0, "device": "cuda", "data": data}
    run = {**envelope("gpu"), **rest, "parts": gpu_samples.parts(HOSTILE)}
    return {**run, "claims": claims_from(run), "unmeasured": unmeasured(run)}


def scale() -> dict[str, Any]:
    """Two storages, four modes, one of which does not fit, 1 to 64 nodes."""
    rows = [
        {
            "mode": mode, "storage": storage, "nodes": nodes, "gpus": 8 * nodes,
            "startup": {"seconds": 12.0 if fits else None, "bytes": 1e9, "memory_gb": 100.0},
            "fits": fits,
            "epochs": [] if not fits else [
                {
                    "epoch": epoch, "reads": 640_000, "bytes_needed": 1.3e10,
                    "bytes_fetched": 1e10 / epoch, "requests": 6e5, "hit_share": 0.1,
                    "wait_share": share * nodes / 64, "wait_s": 3.0, "seconds": 40.0,
                    "pairs_per_s_gpu": 1000.0,
                }
                for epoch in (1, 20)
            ],
            "total": None if not fits else {
                "bytes_fetched": 1e12, "requests": 1e7 * nodes, "hours": 10.0,
                "usd": 4.2 if storage == "s3" else None, "wait_share": share * nodes / 64,
            },
            "sustained_pairs_per_s_gpu": None if mode.startswith("zip") else 500.0 / nodes,
            "by_demand": [
                {"demand_pairs_per_s_gpu": demand, "wait_share": share, "hours": 10.0}
                for demand in (300.0, 1200.0, 4800.0)
                if fits
            ],
        }
        for storage in ("nvme", "s3")
        for mode, share, fits in (
            ("indexed", 0.4, True), ("sequential", 0.1, True),
            ("zip-memory", 0.0, False), ("zip-shared", 0.0, True),
        )
        for nodes in (1, 8, 64)
    ]  # fmt: skip
    return {
        **envelope("scale"),
        "config": {
            "demand_pairs_per_s_gpu": 1200.0, "gpus_per_node": 8, "epochs": 20, "nodes": [1, 8, 64],
            "batch_per_gpu": 8, "pairs_per_epoch": 320_000, "memory_gb": 256.0,
            "demands_pairs_per_s_gpu": [300.0, 1200.0, 4800.0],
            "usd_per_1000_get": 0.0004, "usd_source": HOSTILE,
        },
        "data": [
            {"name": "lasot", "frames": 1_000_000, "jpeg_gb": 34.0, "mean_jpeg_kb": 34.0},
        ],
        "storages": [
            {"name": "nvme", "text": f"NVMe {HOSTILE}"},
            {"name": "s3", "text": "S3, 30 ms"},
        ],
        "rows": rows,
        "checks": [
            {
                "case": "a", "text": HOSTILE, "quantity": "bytes", "unit": "MB", "predicted": 10.0,
                "measured": 10.5, "repeats": [10.5], "error": -0.048, "absolute": False,
                "kind": "prediction", "note": "",
            }
        ],
        "calibration": {
            "stream_frames_per_s": 5e3, "preload_mb_per_s": 1e3, "pair_us": 70.0,
            "request_us": 230.0,
        },
        "zips_gb": {"quality_90": 100.0, "quality_95": 136.0},
    }  # fmt: skip
