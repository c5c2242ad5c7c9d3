"""What a run on a GPU says: parity, decoding, loaders, training, damaged pictures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.report_blocks import Block, Plot, Table, bullets, made, promises, told
from benchmarks.report_figures import bars
from benchmarks.report_words import number, quartiles
from benchmarks.svg_bars import BAR_LOOK, spread
from benchmarks.svg_lines import Line, LineChart

__all__ = ["gpu_blocks"]


def gpu_blocks(run: Mapping[str, Any]) -> list[Block]:
    """Every part that found something; parts that failed or were left out are named."""
    found: list[Block] = []
    if run["dry_run"]:
        found += told(["A rehearsal on a CPU: none of these figures is a GPU's."])
    if run["claims"]:
        found.append(promises(run))
    for part in run["parts"]:
        makers = {
            "parity": _parity,
            "decode": _decode,
            "loaders": _loaders,
            "train": _train,
            "faults": _faults,
            "environment": _environment,
        }
        if part["found"] and part["name"] in makers:
            found += makers[part["name"]](part["found"])
        if part["state"] != "done":
            found += told([f"Part `{part['name']}`: {part['state']} ({part['error']})."])
    rows = tuple(
        (
            part["name"],
            part["state"],
            number(part["seconds"]),
            *(
                "unknown" if part["memory"].get(key) is None else number(part["memory"][key])
                for key in ("host_peak_mb", "gpu_peak_mb")
            ),
        )
        for part in run["parts"]
    )
    header = ("part", "state", "seconds", "host memory MB", "GPU memory MB")
    parts = Table(caption="Parts of the run", header=header, rows=rows, words=2, brief=False)
    return [*found, parts, made(run)]


def _environment(found: Mapping[str, Any]) -> list[Block]:
    return told(
        [
            f"{found['gpu']}, driver {found['driver']}, "
            f"{number(found['gpu_memory_mb'] or 0)} MB; CUDA {found['torch_cuda']}, DALI "
            f"{found['dali']}, nvImageCodec {found['nvimgcodec']}."
        ]
    )


def _parity(found: Mapping[str, Any]) -> list[Block]:
    rows = tuple(
        (name, *(number(found[name][key]) for key in ("mean", "p99", "max")))
        for name in ("template", "search")
    )
    table = Table(
        caption=f"Grey levels between `dali` and `reference` over {found['pairs']:,} pairs; boxes "
        f"{'are equal' if found['boxes_equal'] else 'DIFFER'}",
        header=("crop", "mean", "99th percentile", "largest"),
        rows=rows,
    )
    return [table]


def _decode(found: Mapping[str, Any]) -> list[Block]:
    done = [one for one in found["runs"] if one["error"] is None]
    if not done:
        return told([f"Decoding, {mode}: {text}." for mode, text in found["errors"].items()])
    lines = []
    looks = sorted({(one["mode"], one["batch_pairs"], one["threads"]) for one in done})
    for i, (mode, batch, threads) in enumerate(looks):
        points = sorted(
            (one["hw_decoder_load"], one["pairs_per_s"])
            for one in done
            if (one["mode"], one["batch_pairs"], one["threads"]) == (mode, batch, threads)
        )
        lines.append(
            Line(
                label=f"{mode}, batch {batch}, {threads} thread(s)",
                points=tuple((load, spread([rate])) for load, rate in points),
                colour=(0 if mode == "region" else 1) if len(looks) < 3 else i % 6,
                shape=i % 6,
            )
        )
    best = [
        f"The best with {mode} decode: {number(one['pairs_per_s'])} pairs/s at a hardware load of "
        f"{one['hw_decoder_load']:g}, {one['threads']} thread(s), batches of {one['batch_pairs']}."
        for mode, one in found["best"].items()
    ]
    chart = LineChart(
        name="gpu-decode",
        title="Decoding alone on the GPU",
        description=" ".join(best),
        x_axis="share of the pictures given to the JPEG engines (hw_decoder_load)",
        y_axis="pairs/s, more is better",
        lines=tuple(lines),
    )
    return [
        *bullets(best),
        *told(f"Decoding, {mode}: {text}." for mode, text in found["errors"].items()),
        Plot(chart=chart, caption="Decoding alone, one run for each setting."),
    ]


def _loaders(found: Mapping[str, Any]) -> list[Block]:
    keys = ("pairs_per_s", "cpu_ms_per_pair", "first_batch_s", "host_peak_mb", "gpu_peak_mb")
    rows = []
    for one in found["contestants"]:
        figures = [one["summary"].get(key) for key in keys]
        rows.append(
            (
                one["label"],
                *("-" if figure is None else quartiles(figure) for figure in figures),
            )
        )
    ratios = [
        f"`dali` makes {quartiles(one['summary'])} times the pairs/s of `{name}`."
        for name, one in found["ratios"].items()
    ]
    chart = bars(
        "gpu-loaders",
        "Loaders on the GPU's machine",
        "pairs/s, more is better",
        [
            (
                one["label"],
                [repeat["pairs_per_s"] for repeat in one["repeats"]],
                0 if one["name"].startswith("dali") else 3 if one["name"] == "decode-only" else 5,
            )
            for one in found["contestants"]
        ],
    )
    table = Table(
        caption="Loaders on the GPU's machine: median (quartiles)",
        header=("contestant", "pairs/s", "CPU ms a pair", "first batch s", "host MB", "GPU MB"),
        rows=tuple(rows),
        ours=frozenset(
            i for i, one in enumerate(found["contestants"]) if one["name"].startswith("dali")
        ),
    )
    return [
        table,
        *bullets(ratios),
        Plot(chart=chart, caption=BAR_LOOK),
        *told(f"Absent: {one['name']} ({one['reason']})." for one in found["absent"]),
    ]


def _train(found: Mapping[str, Any]) -> list[Block]:
    rows = [
        (
            one["name"],
            name,
            quartiles(feed["summary"]["steps_per_s"]),
            f"{100 * feed['summary']['wait_share']['median']:.2f} %",
            quartiles(one["share"]["summary"]) if name == "loader" else "1",
        )
        for one in found["settings"]
        for name, feed in one["feeds"].items()
    ]
    return [
        Table(
            caption=f"Training {found['model']}, width {found['width']:g}, batches of "
            f"{found['batch_size']}",
            header=("setting", "fed by", "steps/s", "waiting for data", "of the limit"),
            rows=tuple(rows),
            words=2,
        )
    ]


def _faults(found: Mapping[str, Any]) -> list[Block]:
    rows = tuple(
        (
            one["kind"],
            one["outcome"],
            *(f"{one[key]:,}" for key in ("replaced", "batches_after", "rebuilds")),
            "unknown" if one["gpu_growth_mb"] is None else number(one["gpu_growth_mb"]),
        )
        for one in found["cases"]
    )
    header = ("damage", "outcome", "replaced", "batches after", "rebuilds", "GPU growth MB")
    return [Table(caption="A damaged picture", header=header, rows=rows, words=2)]
