"""The form of every kind of result, as types; `schema_text` makes a JSON Schema of them.

All kinds have an envelope in common: what was run, when, on what. ``loaders`` and ``sweep`` are
typed in full, and what they do not name is an error; of the others the envelope and the claims are.
``python -m benchmarks.schema`` writes ``benchmarks/result.schema.json``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    FiniteFloat,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveInt,
    Tag,
    TypeAdapter,
    ValidationError,
)

from benchmarks.case import Case, WorkName
from benchmarks.contestants import Group
from benchmarks.sweep_axes import AxisName
from shards.sink import FolderSink

__all__ = ["FILE", "fault", "schema_text"]

FILE = Path(__file__).parent / "result.schema.json"


class Open(BaseModel):
    """Keys that are not named here may be there."""

    model_config = ConfigDict(strict=True, extra="allow")


class Closed(BaseModel):
    """No other keys than these."""

    model_config = ConfigDict(strict=True, extra="forbid")


class Summary(Closed):
    """Repeats of one figure."""

    median: FiniteFloat
    q1: FiniteFloat
    q3: FiniteFloat
    min: FiniteFloat
    max: FiniteFloat


class Environment(Open):
    """Machine and software, see `benchmarks.environment`."""

    cpu: str
    cores_usable: PositiveInt
    cores: PositiveInt
    memory_bytes: PositiveInt
    load_1min_at_start: NonNegativeFloat
    gpus: list[str]
    system: str
    python: str
    versions: dict[str, str | None]
    commit: str | None
    uncommitted_changes: bool | None


class Claim(Open):
    """A promise, see `benchmarks.claims`."""

    key: str
    what: str
    unit: str
    bar: FiniteFloat
    least: bool = False
    repeats: list[FiniteFloat]
    summary: Summary
    holds: bool | None


class DataSet(BaseModel):
    """A packed data set; further counts of its manifest are whole numbers."""

    model_config = ConfigDict(strict=True, extra="allow")
    __pydantic_extra__: dict[str, NonNegativeInt] = Field(init=False)

    name: str
    frames: PositiveInt
    weight: NonNegativeFloat
    shards: PositiveInt
    crop_px: PositiveInt
    grid: str
    quality: PositiveInt | None
    mean_jpeg_kb: NonNegativeFloat
    p5_p95_jpeg_kb: Annotated[list[NonNegativeFloat], Field(min_length=2, max_length=2)]
    index_sha256: str
    synthetic: bool


class Data(Closed):
    """What was read."""

    datasets: list[DataSet]
    page_cache: Literal["warm", "not warmed"]
    encoded_kb_per_pair: NonNegativeFloat


class Figures(BaseModel):
    """One run of a contestant; further figures, such as ratios, are numbers."""

    model_config = ConfigDict(strict=True, extra="allow")
    __pydantic_extra__: dict[str, FiniteFloat] = Field(init=False)

    repeat: NonNegativeInt
    place: NonNegativeInt
    pairs: PositiveInt
    wall_s: NonNegativeFloat
    pairs_per_s: NonNegativeFloat
    cpu_ms_per_pair: NonNegativeFloat
    cores_busy: NonNegativeFloat
    others_cores_busy: NonNegativeFloat
    memory_imports_mb: NonNegativeFloat
    memory_peak_beyond_imports_mb: FiniteFloat
    memory_end_beyond_imports_mb: FiniteFloat
    file_pages_peak_mb: NonNegativeFloat
    first_batch_s: NonNegativeFloat
    disk_read_mb: NonNegativeFloat
    pixel_type: str | None
    search_shape: list[PositiveInt] | None


class Contestant(Closed):
    """Who took part."""

    name: str
    label: str
    group: Group
    pairs: Literal["plan", "own"] = "plan"


class LoadersContestant(Contestant):
    """All its runs."""

    repeats: Annotated[list[Figures], Field(min_length=1)]
    summary: dict[str, Summary]


class Absent(Closed):
    """Who could not take part, and why."""

    name: str
    reason: str


class AxisAbsent(Absent):
    """The same on an axis; `point` is None where it is absent from all of it."""

    point: str | None


class Point(Closed):
    """A place on an axis; a category has no value."""

    name: str
    value: FiniteFloat | None


class PointFigures(Closed):
    """All runs of a contestant at a point."""

    point: str
    repeats: Annotated[list[Figures], Field(min_length=1)]
    summary: dict[str, Summary]


class AxisContestant(Contestant):
    """A contestant along an axis."""

    points: list[PointFigures]


class Opened(Closed):
    """Opening the data of a point once."""

    repeat: NonNegativeInt
    place: NonNegativeInt
    open_ms: NonNegativeFloat
    rows: PositiveInt
    memory_mb: FiniteFloat


class Opening(Closed):
    """Opening the data of a point."""

    point: str
    repeats: list[Opened]
    summary: dict[str, Summary]


class Axis(Closed):
    """What was varied, in one class of work."""

    axis: AxisName
    title: str
    unit: str
    scale: Literal["log2", "names"]
    work: WorkName
    case: dict[str, Any]
    data: Data
    points: Annotated[list[Point], Field(min_length=1)]
    contestants: list[AxisContestant]
    openings: list[Opening] | None = None
    absent: list[AxisAbsent]
    notes: list[str]


class SweepConfig(Closed):
    """What was asked for."""

    data: str
    axes: list[AxisName]
    works: list[WorkName]
    contestants: list[str]
    repeats: PositiveInt
    seconds: NonNegativeFloat
    size_gb: NonNegativeFloat
    delay_ms: NonNegativeFloat


class Server(Closed):
    """What stood between the data and the contestants that read them remotely."""

    name: str
    delay_ms: NonNegativeFloat


class Conversion(Closed):
    """What a peer's library took to write its own form of the data, beforehand."""

    seconds: NonNegativeFloat
    pictures: PositiveInt
    files: PositiveInt
    bytes: PositiveInt


class Envelope(Closed):
    """What all results have."""

    number: PositiveInt = Field(alias="schema")
    made_utc: AwareDatetime
    took_s: NonNegativeFloat | None = None
    command: str
    environment: Environment


class Loaders(Envelope):
    """Result of ``loaders``."""

    number: Literal[3] = Field(alias="schema")
    kind: Literal["loaders"]
    config: Case
    repeats: PositiveInt
    server: Server | None = None
    conversions: dict[str, Conversion] | None = None
    data: Data
    decode_unit_ms: Summary | None
    contestants: list[LoadersContestant]
    absent: list[Absent]


class Sweep(Envelope):
    """Result of ``sweep``."""

    number: Literal[1] = Field(alias="schema")
    kind: Literal["sweep"]
    config: SweepConfig
    complete: bool
    axes: list[Axis]


TYPED: dict[str, type[BaseModel]] = {"loaders": Loaders, "sweep": Sweep}


class Other(Envelope):
    """Any other result."""

    model_config = ConfigDict(extra="allow")

    kind: str = Field(json_schema_extra={"not": {"enum": list(TYPED)}})
    config: dict[str, Any] | str | None = None
    claims: list[Claim] = []
    medians: dict[str, dict[str, FiniteFloat]] | None = None


def schema_text() -> str:
    """JSON Schema of all results."""
    kinds = [Annotated[model, Tag(kind)] for kind, model in TYPED.items()]
    every: Any = Annotated[Other, Tag("")]
    for kind in kinds:
        every = every | kind
    whole = TypeAdapter(Annotated[every, Discriminator(_tag)]).json_schema()
    head = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A result of python -m benchmarks",
    }
    return json.dumps({**head, **whole}, indent=1) + "\n"


def _tag(run: Any) -> str:
    kind = str(run.get("kind"))
    return kind if kind in TYPED else ""


def fault(text: bytes | str, kind: str) -> str | None:
    """What is wrong with a result, with the path inside; None if nothing is.

    Parameters
    ----------
    text : JSON
    kind : that it should be of
    """
    try:
        TYPED.get(kind, Other).model_validate_json(text)
    except ValidationError as error:
        faults = error.errors(include_url=False)
        first = faults[0]
        where = ".".join(str(part) for part in first["loc"]) or "the whole"
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        return f"{where}: {first['msg']}{more}"
    return None


if __name__ == "__main__":
    FolderSink(FILE.parent).write(FILE.name, schema_text().encode())
