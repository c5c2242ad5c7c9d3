"""What a run on a GPU found, as a table and in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.compare import sets_text

__all__ = ["GPU_HEADER", "gpu_lines", "gpu_rows"]

GPU_HEADER = ("part", "what", "measured", "host MB", "GPU MB")


def _mb(memory: Mapping[str, float | None], which: str) -> str:
    value = memory.get(f"{which}_peak_mb")
    return "-" if value is None else f"{value:,.0f}"


def _row(part: str, what: str, measured: str, memory: Mapping[str, Any]) -> tuple[str, ...]:
    return part, what, measured, _mb(memory, "host"), _mb(memory, "gpu")


def gpu_rows(run: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Cells under `GPU_HEADER`."""
    rows: list[tuple[str, ...]] = []
    details = {
        "parity": _parity,
        "decode": _decode,
        "loaders": _loaders,
        "train": _train,
        "faults": _faults,
    }
    for part in run["parts"]:
        name = part["name"]
        if part["state"] != "done" or name == "environment":
            what = part["error"] or "works"
            rows.append(_row(name, what, part["state"], part["memory"]))
        if name in details:
            rows += details[name](part["found"], part["memory"])
    return rows


def _parity(found: Mapping[str, Any], memory: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    for half in ("template", "search"):
        if half in found:
            one = found[half]
            told = f"{one['mean']:.3f} mean, {one['p999']:g} at 99.9 %, {one['max']:g} most"
            what = f"{half} against the reference, grey levels, {found['pairs']} crops"
            yield _row("parity", what, told, memory)


def _decode(found: Mapping[str, Any], _: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    for mode, best in found.get("best", {}).items():
        engine = best["jpeg_engine_percent"]
        busy = "" if engine is None else f", JPEG engine busy {engine:.0f} %"
        what = (
            f"DALI decodes, {mode}, at best: engine's share {best['hw_decoder_load']:g}, "
            f"{best['threads']} threads, batches of {best['batch_pairs']} pairs"
        )
        yield _row("decode", what, f"{best['pairs_per_s']:,.0f} pairs/s{busy}", best["memory"])


def _loaders(found: Mapping[str, Any], _: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    for one in found.get("contestants", []):
        figures = one["summary"]
        told = f"{figures['pairs_per_s']['median']:,.0f} pairs/s"
        ratio = found["ratios"].get(one["name"])
        if ratio:
            told += f", of which ours is {ratio['summary']['median']:.2f} x"
        memory = {key: summary["median"] for key, summary in figures.items()}
        yield _row("loaders", f"{one['name']} ({one['label']})", told, memory)


def _train(found: Mapping[str, Any], memory: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    for one in found.get("settings", []):
        ours = one["feeds"]["loader"]["summary"]
        told = (
            f"{ours['steps_per_s']['median']:,.1f} steps/s, wait {ours['wait_share']['median']:.2%}"
            f", {one['share']['summary']['median']:.3f} of ready-made batches"
        )
        what = f"{found['model']} x{found['width']:g}, {found['batch_size']} pairs, {one['name']}"
        yield _row("train", what, told, memory)


def _faults(found: Mapping[str, Any], _: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    for one in found.get("cases", []):
        told = one["outcome"]
        if "replaced" in one:
            told += f"; {one['replaced']} pairs replaced in {one['batches']} batches"
        if one.get("gpu_growth_mb") is not None:
            told += f", GPU memory {one['gpu_growth_mb']:+.1f} MB"
        yield _row("faults", f"a picture damaged: {one['kind']}", told, one["memory"])


def gpu_lines(run: Mapping[str, Any]) -> list[str]:
    """What a reader must know to read the numbers."""
    machine = run["environment"]
    found: Mapping[str, Any] = next(
        (p["found"] for p in run["parts"] if p["name"] == "environment"), {}
    )
    gpu = found.get("gpu") or "no GPU"
    lines = []
    if run["dry_run"]:
        lines.append("DRY RUN on the CPU: no figure of it means anything, and none is judged.")
    lines.append(
        f"{gpu}, driver {found.get('driver') or '-'}; {machine['cpu']}, "
        f"{machine['cores_usable']} usable cores; Python {machine['python']}, torch "
        f"{machine['versions']['torch']}, DALI {machine['versions']['nvidia-dali-cuda120']}, "
        f"nvImageCodec {machine['versions']['nvidia-nvimgcodec-cu12']}."
    )
    lines.append(f"{sets_text(run['data']['datasets'])}.")
    spent = sum(part["seconds"] for part in run["parts"])
    lines.append(
        f"{spent / 60:.1f} of {run['minutes']:g} minutes. Memory: peak of private and shared "
        "memory of the processes of a part or contestant, and of the GPU beyond what was in use "
        "before (MB = 10^6 bytes)."
    )
    return lines
