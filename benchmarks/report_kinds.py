"""What the results about parts of the project say: memory, storage, steps, training, packing."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median
from typing import Any

from benchmarks.bars import bars_lines
from benchmarks.costs import COSTS_HEADER, costs_lines, costs_rows
from benchmarks.learn_report import CURVE_HEADER, curve_rows, learn_lines
from benchmarks.memory import memory_lines
from benchmarks.pack import PACK_HEADER, pack_rows, profile_rows
from benchmarks.remote import remote_lines
from benchmarks.report_blocks import Block, Plot, Table, Text, bullets, made, promises, told
from benchmarks.report_figures import bars
from benchmarks.report_words import number
from benchmarks.sequential import SEQUENTIAL_HEADER, sequential_lines, sequential_rows
from benchmarks.step import STEP_HEADER, step_lines, step_rows
from benchmarks.svg_bars import BAR_LOOK, Mark, spread
from benchmarks.svg_lines import Line, LineChart
from benchmarks.train_report import (
    FEEDS_HEADER,
    NAMES,
    SETTINGS_HEADER,
    feeds_rows,
    settings_lines,
    settings_rows,
    train_lines,
)

__all__ = [
    "bars_blocks",
    "costs_blocks",
    "learn_blocks",
    "limits_blocks",
    "memory_blocks",
    "pack_blocks",
    "remote_blocks",
    "sequential_blocks",
    "step_blocks",
    "train_blocks",
]


def limits_blocks(run: Mapping[str, Any]) -> list[Block]:
    """The promises in numbers."""
    return [promises(run), made(run)]


def bars_blocks(run: Mapping[str, Any]) -> list[Block]:
    """The promises about speed, and what they were measured on."""
    return [promises(run), *told(bars_lines(run)), made(run)]


def memory_blocks(run: Mapping[str, Any]) -> list[Block]:
    """The promises about memory, the figures behind them, the course of the soak."""
    peaks: dict[tuple[str, float], list[float]] = {}
    for one in run["runs"]:
        peaks.setdefault((one["name"], one["gb"]), []).append(one["total_mb"])
    sizes = sorted({gb for _, gb in peaks})
    words = [
        f"From {sizes[0]:g} to {sizes[-1]:g} GB of data, `{name}` goes from "
        f"{number(median(peaks[name, sizes[0]]))} to {number(median(peaks[name, sizes[-1]]))} MB."
        for name in dict.fromkeys(name for name, _ in peaks)
        if (name, sizes[0]) in peaks and (name, sizes[-1]) in peaks
    ]
    chart = bars(
        "memory",
        "Memory by size of the data",
        "MB of the process tree, imports included, less is better",
        [
            (f"{name}, {gb:g} GB", values, 0 if name == "cpu" else 5)
            for (name, gb), values in peaks.items()
        ],
    )
    found: list[Block] = [
        promises(run),
        *bullets(words),
        Plot(
            chart=chart,
            caption=f"Peak of private and shared memory. {BAR_LOOK}",
        ),
    ]
    soak = run["soak"]
    if soak is not None:
        points = [(s / 60, spread([mb])) for s, mb in soak["series_s_mb"]]
        course = LineChart(
            name="memory-soak",
            title="Memory over time in the soak",
            description=f"{number(soak['first_third_mb'])} MB in the first third, "
            f"{number(soak['last_third_mb'])} MB in the last.",
            x_axis="minutes",
            y_axis="MB of the process tree, imports included",
            lines=(Line(label="cpu", points=_thinned(points), colour=0, signs=False),),
            even_ticks=True,
        )
        found.append(
            Plot(
                chart=course,
                caption=f"Soak of {soak['minutes']:.3g} minutes, highest memory in each stretch.",
            )
        )
    return [*found, *told(memory_lines(run)), made(run)]


def _thinned(points: list[Any], most: int = 120) -> tuple[Any, ...]:
    """The highest of each stretch of a long series."""
    stretch = -(-len(points) // most)
    return tuple(
        max(points[i : i + stretch], key=lambda point: point[1].median)
        for i in range(0, len(points), stretch)
    )


def remote_blocks(run: Mapping[str, Any]) -> list[Block]:
    """The promises about remote shards, and local, cold and warm beside each other."""
    labels = {
        "local": "from disk",
        "cold": "remote, cache cold",
        "warm": "remote, cache warm",
    }
    plots = []
    for key, title in (
        ("cpu_ms", "CPU ms a pair"),
        ("first_batch_s", "Seconds to the first batch"),
    ):
        rows = [
            (label, [one[name][key] for one in run["runs"]], 0 if name != "local" else 5)
            for name, label in labels.items()
        ]
        chart = bars(f"remote-{key.replace('_', '-')}", title, f"{title}, less is better", rows)
        plots.append(Plot(chart=chart, caption=f"{title}, beside reading from disk. {BAR_LOOK}"))
    medians = run["medians"]
    first = {name: medians[name]["first_batch_s"] for name in labels}
    words = [
        f"The first batch comes after {number(first['local'])} s from disk, "
        f"{number(first['cold'])} s with a cold cache and {number(first['warm'])} s with a warm "
        f"one; a cold one costs {number(medians['cold']['cpu_ms'])} CPU ms a pair against "
        f"{number(medians['local']['cpu_ms'])} from disk.",
        f"Of a run's {medians['cold']['remote_requests']:,.0f} requests "
        f"{medians['cold']['remote_retries']:,.0f} were made again.",
    ]
    return [promises(run), *bullets(words), *plots, *told(remote_lines(run)), made(run)]


def costs_blocks(run: Mapping[str, Any]) -> list[Block]:
    """What each step of a pair costs."""
    chart = bars(
        "costs",
        "Cost of single steps",
        "µs of one thread, logarithmic, less is better",
        [(one["name"], one["us"], 0) for one in run["steps"]],
        log=True,
    )
    return [
        Table(
            caption="CPU time of each step, one thread",
            header=COSTS_HEADER,
            rows=tuple(costs_rows(run)),
        ),
        Plot(
            chart=chart,
            caption="CPU time of each step for one crop, or pair where it says so. Points: "
            "medians; whiskers: quartiles; dots: every repeat.",
        ),
        *told(costs_lines(run)),
        made(run),
    ]


def sequential_blocks(run: Mapping[str, Any]) -> list[Block]:
    """A window's pairs beside the plan's."""
    lines = tuple(
        Line(
            label=one["name"],
            points=tuple(
                (facts["window"], spread([facts["tracks_in_batch"]])) for facts in one["windows"]
            ),
            colour=i % 6,
            shape=i,
        )
        for i, one in enumerate(run["data"])
    )
    planned = median(one["plan"]["tracks_in_batch"] for one in run["data"])
    chart = LineChart(
        name="sequential",
        title="Different tracks in a batch, by window",
        description="; ".join(
            f"{one['name']}: {number(one['windows'][0]['tracks_in_batch'])} with a window of "
            f"{one['windows'][0]['window']:,}, {number(one['windows'][-1]['tracks_in_batch'])} "
            f"with {one['windows'][-1]['window']:,}, {number(one['plan']['tracks_in_batch'])} "
            "planned"
            for one in run["data"]
        ),
        x_axis="tracks in the window (pictures, for images), logarithmic",
        y_axis="different tracks in a batch, more is better",
        lines=lines,
        log_x=True,
        mark=Mark(value=planned, label="plan"),
    )
    return [
        Table(
            caption="Pairs of sequential storage beside the plan's, by data set and window",
            header=SEQUENTIAL_HEADER,
            rows=tuple(sequential_rows(run)),
            words=2,
        ),
        Plot(chart=chart, caption="How many different tracks a batch has, by size of the window."),
        *told(sequential_lines(run)),
        made(run),
    ]


def step_blocks(run: Mapping[str, Any]) -> list[Block]:
    """The training step beside the loop over samples."""
    chart = bars(
        "step",
        "The training step against a loop over samples",
        "times faster than the loop, more is better",
        [
            (
                f"{one['model']}, {one['timed']}, {one['threads']} thread(s)",
                one["ratio_repeats"],
                0 if one["ratio"] >= 1 else 1,
            )
            for one in run["cases"]
        ],
        mark=Mark(value=1.0, label="the loop"),
    )
    return [
        Table(
            caption="Milliseconds of a step, ours and the loop's",
            header=STEP_HEADER,
            rows=tuple(step_rows(run)),
            words=2,
        ),
        Plot(
            chart=chart,
            caption=f"Time of the loop over time of ours. {BAR_LOOK}",
        ),
        *told(step_lines(run)),
        made(run),
    ]


def train_blocks(run: Mapping[str, Any]) -> list[Block]:
    """Training by feed, its settings, and the promises."""
    rows = [
        (
            f"{NAMES.get(name, name)}, width {one['width']:g}",
            [repeat["steps_per_s"] for repeat in feed["repeats"]],
            {"loader": 0, "ready": 3}.get(name, 5),
        )
        for one in run["widths"]
        for name, feed in one["feeds"].items()
    ]
    chart = bars("train", "Steps/s of training, by feed", "steps/s, more is better", rows)
    settings = Table(
        caption="What settings of the step change",
        header=SETTINGS_HEADER,
        rows=tuple(settings_rows(run)),
        words=2,
    )
    return [
        Table(
            caption="Training by feed: speed, and where the time of a step goes",
            header=FEEDS_HEADER,
            rows=tuple(feeds_rows(run)),
            words=2,
        ),
        promises(run),
        *([settings] if settings.rows else []),
        *(Text(text=line) for line in settings_lines(run)),
        Plot(
            chart=chart,
            caption=f"Steps/s with each feed. {BAR_LOOK}",
        ),
        *told(train_lines(run)),
        made(run),
    ]


def learn_blocks(run: Mapping[str, Any]) -> list[Block]:
    """Promises about learning, and the figures by number of steps."""
    steps = [point["step"] for point in run["seeds"][0]["curve"]]
    aos = [[one["curve"][i]["ao"] for one in run["seeds"]] for i in range(len(steps))]
    chart = LineChart(
        name="learn",
        title="Average overlap on unseen sequences, by training steps",
        description="; ".join(
            f"{number(median(found))} after {step:,} steps"
            for step, found in zip(steps, aos, strict=True)
        ),
        x_axis="training steps",
        y_axis="average overlap on unseen sequences, more is better",
        lines=(
            Line(
                label="all seeds, median",
                points=tuple((step, spread(found)) for step, found in zip(steps, aos, strict=True)),
                colour=0,
            ),
        ),
        mark=Mark(value=run["unseen_floor_ao"], label="keep-first-box"),
    )
    return [
        promises(run),
        Table(
            caption="By number of steps: medians over the seeds",
            header=CURVE_HEADER,
            rows=tuple(curve_rows(run)),
        ),
        Plot(chart=chart, caption="Line: median of the seeds; band: quartiles; dots: every seed."),
        *told(learn_lines(run)),
        made(run),
    ]


def pack_blocks(run: Mapping[str, Any]) -> list[Block]:
    """Packing against the obvious loop, and where the time goes."""
    header, profile = profile_rows(run)
    explained = (
        f"{run['frames']} crops a case, median of {run['repeats']} repeats. The obvious loop "
        "decodes the whole frame with OpenCV once for every object, takes the border's colour "
        "with numpy.mean, warps and encodes; the tuned one takes cv2.mean. Below, where the time "
        "of a frame goes."
    )
    behind = [
        f"{one['name']} ({number(one['ratio']['cpu_tuned'])})"
        for one in run["cases"]
        if one["ratio"]["cpu_tuned"] < 1
    ]
    words = (
        [
            "CPU time of the tuned loop over ours is below 1, so the tuned loop needs less, in: "
            f"{', '.join(behind)}."
        ]
        if behind
        else ["Ours needs no more CPU time than the tuned loop in any case."]
    )
    chart = bars(
        "pack",
        "Packing against the obvious loop",
        "CPU time of the obvious loop over ours, more is better",
        [(one["name"], one["ratio_repeats"]["cpu"], 0) for one in run["cases"]],
        mark=Mark(value=1.0, label="the same"),
    )
    return [
        Table(
            caption="Packing beside the obvious and the tuned loop",
            header=PACK_HEADER,
            rows=tuple(pack_rows(run)),
            words=2,
        ),
        *bullets(words),
        Text(text=explained),
        Table(caption="Where the time of a frame goes", header=header, rows=tuple(profile)),
        Plot(
            chart=chart,
            caption=BAR_LOOK,
        ),
        made(run),
    ]
