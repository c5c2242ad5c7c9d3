"""What a run on a GPU says: parity, decoding, loaders, training, damaged pictures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.claims import CLAIMS_HEADER, claim_rows
from benchmarks.compare import sets_text
from benchmarks.gpu_claims import LEAST_REPEATS
from benchmarks.report_blocks import Block, Plot, Table, bullets, made, told
from benchmarks.report_figures import bars
from benchmarks.report_words import number, quartiles
from benchmarks.svg_bars import BAR_LOOK

__all__ = ["gpu_blocks"]


def gpu_blocks(run: Mapping[str, Any]) -> list[Block]:
    """Every part that found something; parts that failed or were left out are named."""
    found: list[Block] = []
    if run["dry_run"]:
        found += told(["A rehearsal on a CPU: none of these figures is a GPU's."])
    if run["claims"] or run["unmeasured"]:
        found.append(_promises(run))
    makers = {
        "environment": _environment,
        "parity": _parity,
        "parity-best": _parity,
        "decode": _decode,
        "loaders": _loaders,
        "train": _train,
        "faults": _faults,
    }
    for part in run["parts"]:
        if part["found"]:
            found += makers[part["name"]](part["found"])
        if part["state"] != "done":
            found += told([f"Part `{part['name']}`: {part['state']} ({part['error']})."])
    asked = {part["name"] for part in run["parts"]}
    never = [f"`{name}`" for name in makers if name not in asked]
    if never:
        found += told(
            [f"Not asked for in this run, and so not known of this GPU: {', '.join(never)}."]
        )
    rows = tuple(
        (
            part["name"],
            part["state"],
            number(part["seconds"]),
            *(_known(part["memory"].get(key)) for key in ("host_peak_mb", "gpu_peak_mb")),
        )
        for part in run["parts"]
    )
    header = ("part", "state", "seconds", "host memory MB", "GPU memory MB")
    parts = Table(caption="Parts of the run", header=header, rows=rows, words=2, brief=False)
    spent = sum(part["seconds"] for part in run["parts"])
    method = told(
        [
            f"{sets_text(run['data']['datasets'])}.",
            f"{spent / 60:.1f} of {run['minutes']:g} minutes.",
            "Memory: peak of the processes of a part or contestant, and of the GPU beyond what was "
            "in use before (MB = 10^6 bytes).",
        ]
    )
    return [*found, parts, *method, made(run)]


def _promises(run: Mapping[str, Any]) -> Table:
    """Claims with the number of their repeats, and those of which there is no measurement."""
    rows = [
        (what, f"{measured} (n = {len(claim['repeats'])})", *rest)
        for claim, (what, measured, *rest) in zip(run["claims"], claim_rows(run), strict=True)
    ]
    for claim in run["unmeasured"]:
        side = "at least" if claim["least"] else "under"
        bar = f"{side} {claim['bar']:g} {claim['unit']}".rstrip()
        rows.append((claim["what"], f"not measured (`{claim['part']}`)", bar, "not measured"))
    return Table(
        caption="Promises, what was measured, and whether they hold; of a rate with fewer than "
        f"{LEAST_REPEATS} repeats none is judged",
        header=CLAIMS_HEADER,
        rows=tuple(rows),
    )


def _known(value: Any) -> str:
    """A figure, or what stands where there is none."""
    return "unknown" if value is None else number(value)


def _environment(found: Mapping[str, Any]) -> list[Block]:
    def fact(key: str) -> str:
        return str(found.get(key) or "unknown")

    said = (
        f"{fact('gpu')}, driver {fact('driver')}, {_known(found.get('gpu_memory_mb'))} MB; "
        f"torch {fact('torch')}, CUDA {fact('torch_cuda')}, DALI {fact('dali')}, nvImageCodec "
        f"{fact('nvimgcodec')}."
    )
    failed = [one for one in found.get("checks", []) if not one["ok"]]
    return told([said, *(f"Not so: {one['what']} ({one['error']})." for one in failed)])


def _parity(found: Mapping[str, Any]) -> list[Block]:
    how = f"{found['mode']} decode, load {found['hw_decoder_load']:g}"
    rows = tuple(
        (f"{half}, {how}", *(number(found[half][key]) for key in ("mean", "p99", "p999", "max")))
        for half in ("template", "search")
        if half in found
    )
    table = Table(
        caption=f"Grey levels between `dali` and `reference` over {found['pairs']:,} pairs; boxes "
        f"{'are equal' if found['boxes_equal'] else 'DIFFER'}",
        header=("crop", "mean", "99th percentile", "99.9th percentile", "largest"),
        rows=rows,
    )
    return [table]


def _decode(found: Mapping[str, Any]) -> list[Block]:
    rows = tuple(
        (
            one["mode"],
            f"{one['hw_decoder_load']:g}",
            f"{one['threads']}",
            f"{one['batch_pairs']}",
            number(one["pairs_per_s"]),
            number(one["cpu_ms_per_pair"]),
            _known(one["jpeg_engine_percent"]),
        )
        for one in found["runs"]
    )
    header = ("decode", "hardware load", "threads", "batch", "pairs/s", "CPU ms a pair", "engine %")
    sweep = Table(
        caption="Decoding alone in DALI, one run for each setting: first the share of the pictures "
        "given to the JPEG engines varies, then the threads, then the batch, each at the best "
        "before",
        header=header,
        rows=rows,
        brief=False,
    )
    best = (
        f"The best with {mode} decode: {number(one['pairs_per_s'])} pairs/s at a hardware load of "
        f"{one['hw_decoder_load']:g}, {one['threads']} thread(s), batches of {one['batch_pairs']}."
        for mode, one in found["best"].items()
    )
    errors = (f"Decoding, {mode}: {text}." for mode, text in found["errors"].items())
    return [*told([*best, *errors]), *([sweep] if rows else [])]


def _label(contestant: Mapping[str, Any]) -> str:
    """Ours takes part with two settings under one label: its name tells them apart."""
    name, label = contestant["name"], contestant["label"]
    return str(label) if name == label else f"{label} ({name})"


def _loaders(found: Mapping[str, Any]) -> list[Block]:
    keys = ("pairs_per_s", "cpu_ms_per_pair", "cores_busy", "host_mb")
    rows = []
    for one in found["contestants"]:
        figures = [one["summary"].get(key) for key in keys]
        rows.append(
            (
                _label(one),
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
                _label(one),
                [repeat["pairs_per_s"] for repeat in one["repeats"]],
                0 if one["name"].startswith("dali") else 3 if one["name"] == "decode-only" else 5,
            )
            for one in found["contestants"]
        ],
    )
    table = Table(
        caption="Loaders on the GPU's machine: median (quartiles)",
        header=("contestant", "pairs/s", "CPU ms a pair", "cores busy", "host MB at the end"),
        rows=tuple(rows),
        ours=frozenset(
            i for i, one in enumerate(found["contestants"]) if one["name"].startswith("dali")
        ),
    )
    return [
        table,
        *bullets(ratios),
        *told(
            [
                f"`dali` plans and reads in {found['workers']} worker processes (`data.workers`), "
                "`dali-one-process` and `dali-default` in none. What `dali` took of the GPU's "
                f"memory: {_known(found.get('gpu_mb'))} MB."
            ]
        ),
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
            f"{found['batch_size']}, {found['workers']} worker processes or one process",
            header=("setting", "fed by", "steps/s", "waiting for data", "of the limit"),
            rows=tuple(rows),
            words=2,
        ),
        *told(f"Left out for want of time: {name}." for name in found["left_out"]),
    ]


def _faults(found: Mapping[str, Any]) -> list[Block]:
    """A case that ended badly has only some of the figures."""
    rows = []
    for one in found["cases"]:
        replaced, last, same = one.get("replaced"), one.get("last_batch"), one.get("same_samples")
        rows.append(
            (
                one["kind"],
                one["outcome"],
                "-" if replaced is None else f"{replaced:,} in {one['batches']:,} batches",
                {True: "yes", False: "NO", None: "-"}[same],
                "-" if last is None else number(last["mean"]),
                "-" if replaced is None else _known(one.get("gpu_growth_mb")),
            )
        )
    header = (
        "damage", "outcome", "pairs replaced", "samples of the reference", "last batch, mean level",
        "GPU growth MB",
    )  # fmt: skip
    table = Table(
        caption="A damaged picture: whether its error names it, and batches with a budget for it",
        header=header,
        rows=tuple(rows),
        words=2,
    )
    errors = [one for one in found["cases"] if one["outcome"] != "named" and one.get("error")]
    return [table, *told(f"{one['kind']}: {one['error']}." for one in errors)]
