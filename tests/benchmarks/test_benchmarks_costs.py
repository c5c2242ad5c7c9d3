"""``python -m benchmarks costs``: the steps are those of the backend, the units relate them."""

from __future__ import annotations

from pathlib import Path
from statistics import median

import pytest

from benchmarks.case import Case
from benchmarks.costs import UNIT, costs_lines, costs_rows, measure_costs


@pytest.mark.slow
def test_costs_of_steps(packed: Path) -> None:
    case = Case(data=str(packed), derived="unused", pairs=32)
    told: list[str] = []
    run = measure_costs(case, 2, "the command", told.append)
    steps = {step["name"]: step for step in run["steps"]}
    assert steps[UNIT]["units"] == [1.0, 1.0]
    assert all(len(step["us"]) == 2 and min(step["us"]) > 0 for step in steps.values())
    small, whole = (
        median(steps[name]["us"])
        for name in ("region decode, 135 of 446 px", "whole decode, Pillow")
    )
    assert small < whole
    assert run["data"]["crops"] == 64
    rows = costs_rows(run)
    assert len(rows) == len(steps)
    assert rows[0] == (UNIT, rows[0][1], "1.000")
    assert "over 64 crops" in costs_lines(run)[0]
    assert "coco (12 crops of 446x446, quality 90, " in costs_lines(run)[0]
    assert len(told) == 3
