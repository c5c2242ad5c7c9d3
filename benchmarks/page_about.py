"""What a reader must know to believe the figures: machine, data, method, how to repeat them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from benchmarks.case import WORKS
from benchmarks.contestants import CONTESTANTS, Entry
from benchmarks.report_blocks import Block, Section, Table, Text, bullets
from benchmarks.report_words import number

__all__ = ["Shown", "machine_blocks", "method_blocks", "reproduce_blocks"]

_GROUPS = {
    "ours": "ours",
    "baseline": "baseline",
    "peer": "another library",
    "limit": "limit: does less than a pair",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Shown:
    """A section and the results that are there, by file name."""

    section: Section
    runs: tuple[tuple[str, Mapping[str, Any]], ...]

    @property
    def absence(self) -> str:
        """What is said in place of a result."""
        return self.section.absent or f"Not measured yet; `{self.section.repeats}` does it."


def _values(run: Any, key: str) -> Iterator[Any]:
    """Everything under a key, however deep."""
    if isinstance(run, Mapping):
        for name, value in run.items():
            if name == key:
                yield value
            else:
                yield from _values(value, key)
    elif isinstance(run, list):
        for value in run:
            yield from _values(value, key)


def _others(run: Mapping[str, Any]) -> str:
    """Cores that other programs kept busy while a result was made, median of all its runs."""
    found = [
        value["median"] if isinstance(value, Mapping) else value
        for value in _values(run, "others_cores_busy")
    ]
    return f"{median(found):.2f}" if found else "not recorded"


def machine_blocks(sections: Sequence[Shown]) -> list[Block]:
    """Where, when and with what each result was made, and the statistics of its data."""
    found = [(file, run) for one in sections for file, run in one.runs]
    machines = list(dict.fromkeys(_machine(run["environment"]) for _, run in found))
    several = len(machines) > 1
    rows, versions = [], {}  # type: list[tuple[str, ...]], dict[str, set[str]]
    for file, run in found:
        here = run["environment"]
        changed = " and uncommitted changes" if here["uncommitted_changes"] else ""
        rows.append(
            (
                file,
                run["made_utc"][:16].replace("T", " "),
                f"{here['commit'][:10]}{changed}" if here["commit"] else "none",
                *([chr(ord("A") + machines.index(_machine(here)))] if several else []),
                f"{here['load_1min_at_start']:.1f}",
                _others(run),
            )
        )
        for package, version in here["versions"].items():
            versions.setdefault(package, set()).add(version or "not installed")
    if not rows:
        return [Text(text="No result is there yet.")]
    named = (f"{chr(ord('A') + i)}: " if several else "" for i in range(len(machines)))
    blocks: list[Block] = [
        *bullets(f"{name}{text}." for name, text in zip(named, machines, strict=True)),
        Table(
            caption="When and at which commit each result was made, and who else was busy then",
            header=(
                "result",
                "UTC",
                "commit",
                *(["machine"] if several else []),
                "load at the start",
                "cores busy with other programs",
            ),
            rows=tuple(rows),
            words=4 if several else 3,
        ),
        Text(
            text="The load at the start is the system's average over the minute before, so it "
            "includes what prepared the run. The last column is the median over all timed runs of "
            "the CPU time, in cores, that went to programs other than the contestant."
        ),
        Table(
            caption="Versions; several where results were made with different ones",
            header=("package", "version"),
            rows=tuple((package, ", ".join(sorted(seen))) for package, seen in versions.items()),
            words=2,
        ),
    ]
    return [*blocks, *_data_blocks(sections)]


def _machine(environment: Mapping[str, Any]) -> str:
    gpus = ", ".join(environment["gpus"]) or "no GPU"
    return (
        f"{environment['cpu']}, {environment['cores_usable']} of {environment['cores']} cores "
        f"usable, {environment['memory_bytes'] / 1e9:.0f} GB of memory, {gpus}; "
        f"{environment['system']}, Python {environment['python']}"
    )


def _data_blocks(sections: Sequence[Shown]) -> list[Block]:
    seen: dict[tuple[str, str], tuple[Mapping[str, Any], list[str]]] = {}
    for one in sections:
        for file, run in one.runs:
            for datasets in _values(run, "datasets"):
                for facts in datasets:
                    key = facts["name"], facts["index_sha256"]
                    files = seen.setdefault(key, (facts, []))[1]
                    if file not in files:
                        files.append(file)
    rows = [
        (
            facts["name"],
            "made" if facts["synthetic"] else "real",
            ", ".join(files),
            f"{facts['frames']:,}",
            f"{facts['tracks']:,}",
            f"{facts['categories']:,}",
            f"{facts['crop_px']} px",
            "unknown" if facts["quality"] is None else f"{facts['quality']}",
            number(facts["mean_jpeg_kb"]),
            " to ".join(number(value) for value in facts["p5_p95_jpeg_kb"]),
        )
        for facts, files in seen.values()
    ]
    if not rows:
        return []
    return [
        Table(
            caption="Data sets: JPEG crops, square",
            header=("data set", "pictures", "used by", "crops", "tracks", "categories", "side",
                    "JPEG quality", "mean KB", "KB, 5 % to 95 %"),
            rows=tuple(rows),
            words=3,
        )
    ]  # fmt: skip


def method_blocks(sections: Sequence[Shown]) -> list[Block]:
    """How contestants were compared, and who they are."""
    runs = [run for one in sections if one.section.kind == "loaders" for _, run in one.runs]
    lines = [
        "**Processes**: every contestant has a fresh process in every repeat. In a repeat all run "
        "once, in an order that is shuffled by the repeat's number.",
        "**Clock**: starts after the imports and the batches of warm-up"
        + _cases(runs)
        + ". Batches beyond the last that is counted are planned too, so readers that run ahead "
        "are as busy as in the middle of an epoch.",
        "**Medians and quartiles** of the repeats, never the best. A ratio is taken within a "
        "repeat, where the machine's state is most alike, and then summarised. Where the quartiles "
        "of a ratio include 1, two contestants are called not told apart.",
        "**CPU time** is user and system time of the whole process tree, worker processes and "
        "threads included.",
        "**Decode unit**: the CPU time of one whole simplejpeg decode of the same crops in the "
        "same repeat. A pair that is decoded whole by that decoder costs 2 units before anything "
        "else is done. It makes figures of different machines comparable.",
        "**Memory**: private plus shared memory of the process tree at its peak, less that after "
        "the imports; pages of mapped files are not in it. MB are 10^6 bytes. These are short "
        "runs: what grows over more batches is the matter of the promises about memory.",
        "**Equal for all**: JPEG bytes, side of the crops, batch size, number of threads or worker "
        "processes, and a check that the sample numbers handed over are the planned ones, in "
        "order (limits and those with pairs of their own only count). That a contestant's pixels "
        "are those of `reference` is tested, not measured: `make test` for ours and the baselines, "
        "`make test-services` for the loaders that have to be installed.",
        "**Two classes of work**: `plain` is decode, crop, resize and normalise to float32, which "
        "every loader can do; `recipe` is the whole published augmentation as uint8 "
        "(`zip-published` as float32, as it was published). They are never mixed in one table.",
        "**Not equal**: who reads in order draws pairs of its own; who cannot do a class of work "
        "or is not installed is named as absent, not left out. Ours, `files`, `zip-region` and "
        "`zip-disk` use our region decode where their labels say so; the loaders of others get "
        "whole decodes by simplejpeg or their own. LitData and Streaming are read by sample number "
        "through torch's DataLoader, for pairs are random reads. `files`, FFCV and `zip-published` "
        "plan all pairs before their first batch, the others batch by batch. Ours checks the CRC "
        "of every picture; the zips in memory, SPDL and FFCV check nothing. FFCV hands over memory "
        "that it uses again a few batches later. Limits do less than a pair on purpose: they say "
        "what this machine allows.",
    ]
    return [*bullets(lines), _contestants(runs)]


def _cases(runs: Sequence[Mapping[str, Any]]) -> str:
    said = {
        f"{run['config']['warmup_batches']} batches of {run['config']['batch_size']}, then "
        f"{run['config']['pairs']:,} pairs"
        for run in runs
    }
    return f" ({'; '.join(sorted(said))})" if said else ""


def _contestants(runs: Sequence[Mapping[str, Any]]) -> Table:
    """Everyone on the list, and what became of it in each class of work."""

    def state(entry: Entry, work: str) -> str:
        if work not in entry.works:
            return "cannot do it"
        there = [run for run in runs if run["config"].get("work", "recipe") == work]
        for run in there:
            if any(one["name"] == entry.name for one in run["contestants"]):
                return "measured"
            for one in run["absent"]:
                if one["name"] == entry.name:
                    return f"absent: {one['reason']}"
        return "did not take part" if there else "not measured yet"

    rows = tuple(
        (
            entry.name,
            _GROUPS[entry.group],
            *(state(entry, work) for work in WORKS),
            "the plan's" if entry.pairs == "plan" else "its own, read in order",
        )
        for entry in CONTESTANTS
    )
    return Table(
        caption="Contestants",
        header=("name", "what it is", *WORKS, "pairs"),
        rows=rows,
        ours=frozenset(i for i, entry in enumerate(CONTESTANTS) if entry.group == "ours"),
        words=5,
    )


def reproduce_blocks(sections: Sequence[Shown]) -> list[Block]:
    """Command, time and file of each result."""
    rows = []
    for one in sections:
        for file, run in one.runs:
            took = run.get("took_s")
            time = "not recorded" if took is None else f"{took / 60:,.1f} min"
            rows.append(
                (one.section.title, f"`{run['command']}`", time, f"`benchmarks/results/{file}`")
            )
        if not one.runs:
            file = f"benchmarks/results/{one.section.file}"
            rows.append((one.section.title, f"`{one.section.repeats}`", "not measured yet", file))
    return [
        Text(
            text="In a clone, after `make install`: each command below makes its JSON, and "
            "`python -m benchmarks report` writes this page and the tables of the documents from "
            "all of them. Data are made where a command needs some; `$SIAMSTREAM_TEST_DATA` names "
            "real pictures."
        ),
        Table(
            caption="Commands",
            header=("result", "command", "took", "JSON"),
            rows=tuple(rows),
            words=4,
        ),
        Text(
            text="Machines differ and are noisy: compare ratios, not pairs/s. "
            "`python -m benchmarks --compare A.json B.json` sets two results beside each other."
        ),
    ]
