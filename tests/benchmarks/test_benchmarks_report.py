"""The report without a browser: well-formed, escaped, the JSON's figures, the same bytes again."""

from __future__ import annotations

import json
import re
import shutil
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import report_samples as samples
from click.testing import CliRunner

from benchmarks import report, svg, table
from benchmarks.cli import main
from benchmarks.page import PAGE, PLOT, Shown, page, readme_plot
from benchmarks.report_blocks import Section, Table, code, markdown
from benchmarks.report_claims import promises_of
from benchmarks.report_loaders import loaders_blocks, loaders_words
from benchmarks.report_words import number, paired, quartiles, verdict
from benchmarks.runner import summary
from shards.errors import FormatError

ROOT = Path(report.__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
VOID = {"meta", "link", "br"}


class Outline(HTMLParser):
    """Checks that tags close in order; keeps headings, ids, tables and addresses."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.addresses: list[str] = []
        self.headings: list[tuple[str, str]] = []
        self.cells: list[list[list[str]]] = []
        self.scripts = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        facts = dict(attrs)
        if tag not in VOID:
            self.open.append(tag)
        self.ids += [facts["id"] or ""] if "id" in facts else []
        self.addresses += [facts[key] or "" for key in ("href", "src") if key in facts]
        self.scripts += tag == "script"
        assert not [name for name in facts if name.startswith("on")]
        if tag == "table":
            self.cells.append([])
        elif tag == "tr":
            self.cells[-1].append([])
        elif tag in ("td", "th"):
            self.cells[-1][-1].append("")
        elif re.fullmatch("h[1-6]", tag):
            self.headings.append((tag, ""))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if {"td", "th"} & set(self.open):
            self.cells[-1][-1][-1] += data
        elif self.open and re.fullmatch("h[1-6]", self.open[-1]):
            self.headings[-1] = (self.headings[-1][0], self.headings[-1][1] + data)


def outline(text: str) -> Outline:
    found = Outline()
    found.feed(text)
    found.close()
    assert found.open == []
    return found


def read(name: str) -> dict[str, Any]:
    run: dict[str, Any] = json.loads((RESULTS / name).read_text())
    return run


def with_samples() -> list[Shown]:
    """What is committed, and every kind that is not yet."""
    made: Mapping[str, Any] = {
        "sweep": samples.sweep(),
        "gpu": samples.gpu(),
        "scale": samples.scale(),
    }
    plain = {**read("loaders-cpu.json")}
    plain["config"] = {**plain["config"], "work": "plain"}
    sections = []
    for one in report.shown(RESULTS):
        name = one.section.name
        runs = one.runs
        if name in made:
            runs = ((f"{name}.json", made[name]),)
        elif name == "loaders-plain":
            runs = (("loaders-plain-cpu.json", plain),)
        sections.append(Shown(section=one.section, runs=runs))
    return sections


@pytest.fixture(scope="module")
def whole() -> str:
    return page(with_samples())


@pytest.fixture(scope="module")
def committed() -> str:
    return page(report.shown(RESULTS))


def test_the_page_is_well_formed_and_needs_nothing_else(whole: str, committed: str) -> None:
    for text in (whole, committed):
        found = outline(text)
        assert found.scripts == 0
        assert len(set(found.ids)) == len(found.ids)
        inside = {address[1:] for address in found.addresses if address.startswith("#")}
        assert inside <= set(found.ids)
        assert {one for one in found.addresses if not one.startswith("#")} == {"data:,"}
        assert "url(" not in text
        assert "@import" not in text
        assert text.isascii() or "charset" in text
        levels = [int(tag[1]) for tag, _ in found.headings]
        assert levels[0] == 1
        assert levels.count(1) == 1
        assert all(b - a <= 1 for a, b in pairwise(levels))
        assert text.count("<caption>") == text.count("<table>") == len(found.cells)
        for label in re.findall(r'aria-labelledby="([^"]*)"', text):
            assert set(label.split()) <= set(found.ids)


def test_headings_name_every_section(whole: str) -> None:
    titles = [text for _, text in outline(whole).headings]
    for section in report.SECTIONS:
        assert section.title in titles


def test_names_are_escaped(whole: str) -> None:
    assert "<script>" not in whole
    assert "&lt;script&gt;alert(" in whole
    assert len(whole) < 1_000_000  # as much as a commit takes


def test_drawings_are_well_formed_and_their_text_is_inside(whole: str) -> None:
    drawings = re.findall(r"<svg .*?</svg>", whole, re.DOTALL)
    assert len(drawings) > 40
    for drawing in drawings:
        root = ET.fromstring(drawing)
        space = "{http://www.w3.org/2000/svg}"
        width, height = float(root.get("width", 0)), float(root.get("height", 0))
        assert root.get("viewBox") == f"0 0 {svg.num(width)} {svg.num(height)}"
        assert root.find(f"{space}title") is not None
        assert (root.findtext(f"{space}desc") or "").strip()
        for one in root.iter(f"{space}text"):
            words, classes = one.text or "", one.get("class") or ""
            wide = svg.text_width(words, 11.5 if "small" in classes else 13, "bold" in classes)
            left = float(one.get("x", 0)) - (
                wide if "end" in classes else wide / 2 if "mid" in classes else 0
            )
            assert left >= -1, words
            assert left + wide <= width + 1, words
            assert 8 <= float(one.get("y", 0)) <= height


def test_the_same_results_make_the_bytes_that_another_process_made(committed: str) -> None:
    assert committed == (ROOT / PAGE).read_text("utf-8")
    assert readme_plot(report.shown(RESULTS)) == (ROOT / PLOT).read_text("utf-8")


def test_figures_of_a_table_are_the_jsons(committed: str) -> None:
    run = read("loaders-cpu.json")
    rows = [row for cells in outline(committed).cells for row in cells]
    for one in run["contestants"]:
        # Both classes of work have a row of some labels.
        named = [row for row in rows if row and row[0].removesuffix(", own pairs") == one["label"]]
        speed = number(one["summary"]["pairs_per_s"]["median"])
        assert any(row[1].startswith(speed) for row in named), one["label"]
    for expected in table.rows(run):
        assert list(expected) in rows
    for claim in read("bars-cpu.json")["claims"]:
        (row,) = [row for row in rows if row[:2] == [claim["what"], "bars"]]
        assert row[2] == quartiles(claim["summary"], claim["unit"])
        assert row[-1] == {True: "yes", False: "NO", None: "not judged"}[claim["holds"]]


def test_what_is_absent_is_named_with_its_command(tmp_path: Path) -> None:
    text = page(report.shown(tmp_path))
    for section in report.SECTIONS:
        assert section.repeats in text.replace("&#39;", "'")
    assert "There are no GPU results yet." in text
    assert "has been measured yet" in text
    assert "has been measured yet" in readme_plot(report.shown(tmp_path))


def test_make_bench_makes_every_result_in_the_order_of_the_report() -> None:
    text = (ROOT / "Makefile").read_text().partition("\nbench: install\n")[2].partition("\n\n")[0]
    commands = [line.strip().replace("$(PY)", "python") for line in text.splitlines()]
    expected = [section.repeats for section in report.SECTIONS if section.kind != "gpu"]
    quick = "python -m benchmarks quick --no-compare --json benchmarks/results/quick-cpu.json"
    assert commands == [*expected, quick, "python -m benchmarks report"]


def test_a_document_leaves_out_columns_that_the_page_has() -> None:
    run = read("loaders-cpu.json")
    blocks = loaders_blocks(run)
    (shown,) = [block for block in blocks if isinstance(block, Table)]
    assert set(shown.header) > table.PAGE_ONLY
    head, rule, *rows = markdown([shown]).splitlines()
    cells = [cell.strip() for cell in head.strip("|").split("|")]
    assert cells == [name for name in table.HEADER if name not in table.PAGE_ONLY]
    assert {line.count("|") for line in (rule, *rows)} == {head.count("|")}
    assert head.endswith("share of the limit |")


def test_words_say_where_ours_loses() -> None:
    run = read("loaders-cpu.json")
    ours = next(one for one in run["contestants"] if one["name"] == "cpu")
    rival = next(one for one in run["contestants"] if one["name"] == "files")
    before = loaders_words(run)
    assert not [line for line in before if "faster: `files`" in line]
    for one in rival["repeats"]:
        one["pairs_per_s"] = 2 * ours["repeats"][one["repeat"]]["pairs_per_s"]
    rival["summary"]["pairs_per_s"] = summary([one["pairs_per_s"] for one in rival["repeats"]])
    after = loaders_words(run)
    assert "`files`" in after[0]
    assert "Compared with `cpu`, faster: `files` (2.00 times)." in after
    assert "`files` (faster, the full recipe)" in page(
        [Shown(section=report.SECTIONS[1], runs=(("x.json", run),))]
    ).replace('<code class="whole">', "`").replace("</code>", "`")


def test_promises_of_every_kind_are_counted(committed: str) -> None:
    promises = [
        one
        for shown in report.shown(RESULTS)
        for _, run in shown.runs
        for one in promises_of(shown.section.kind, run)
    ]
    held = sum(one.holds is True for one in promises)
    assert f"{held} of {len(promises)} promises hold." in committed
    assert {"bars", "memory", "pack", "step"} <= {one.kind for one in promises}


# ---- documents ----------------------------------------------------------------------------------


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of what the report reads and writes."""
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    shutil.copy(ROOT / "README.md", tmp_path)
    shutil.copytree(RESULTS, tmp_path / "results")
    return tmp_path


def check(root: Path) -> tuple[int, str]:
    arguments = ["report", "--root", str(root), "--results", str(root / "results")]
    outcome = CliRunner().invoke(main, [*arguments, "--check"])
    return outcome.exit_code, outcome.stderr


def test_check_sees_every_stale_file(checkout: Path) -> None:
    report.write(checkout, checkout / "results", check=False)
    assert check(checkout)[0] == 0
    cpu = next(one for one in read("loaders-cpu.json")["contestants"] if one["name"] == "cpu")
    speed = number(cpu["summary"]["pairs_per_s"]["median"])
    by_hand = {PAGE: speed, PLOT: speed, "README.md": speed, "docs/TRACKER.md": "| yes |"}
    for name, figure in by_hand.items():
        path = checkout / name
        text = path.read_text()
        assert figure in text, name
        path.write_text(text.replace(figure, "by hand", 1))
    failed, told = check(checkout)
    assert failed == 1
    assert sorted(told.strip().splitlines()) == sorted(
        f"{checkout / name}: stale, run python -m benchmarks report" for name in by_hand
    )
    report.write(checkout, checkout / "results", check=False)
    (checkout / PAGE).unlink()
    failed, told = check(checkout)
    assert failed == 1
    assert told.strip() == f"{checkout / PAGE}: stale, run python -m benchmarks report"


def test_an_absent_result_is_an_error_in_a_document_that_needs_it(checkout: Path) -> None:
    (checkout / "results" / "memory-cpu.json").unlink()
    with pytest.raises(FormatError, match=r"memory-cpu.json: no such result; make it with"):
        report.write(checkout, checkout / "results", check=False)


def test_a_damaged_result_is_an_error(checkout: Path) -> None:
    (checkout / "results" / "loaders-plain-cpu.json").write_text('{"schema": 3}')
    failed, told = check(checkout)
    assert failed == 1
    assert "loaders-plain-cpu.json" in told
    assert len(told.strip().splitlines()) == 1


def test_the_readmes_plot_stands_alone() -> None:
    root = ET.fromstring(readme_plot(with_samples()))
    space = "{http://www.w3.org/2000/svg}"
    assert [one.tag for one in root][2:4] == [f"{space}style", f"{space}rect"]
    assert len(list(root.iter(f"{space}svg"))) == 3  # itself and one panel a class of work
    assert "prefers-color-scheme:dark" in (root.findtext(f"{space}style") or "")


# ---- small parts --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("a <b>", "a &lt;b&gt;"),
        ("`x<y` **b & c**", '<code class="whole">x&lt;y</code> <strong>b &amp; c</strong>'),
        ("one ` alone", "one ` alone"),
        ("`a` and ` alone", '<code class="whole">a</code> and ` alone'),
        ("2 ** 3", "2 ** 3"),
    ],
)  # fmt: skip
def test_code(text: str, html: str) -> None:
    assert code(text) == html


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (6628261.2, "6,628,261"), (99.96, "100.0"), (1.456, "1.46"), (0.0805, "0.0805"),
     (0.653, "0.653"), (0.00065, "0.00065"), (-3.21, "-3.21")],
)  # fmt: skip
def test_number(value: float, text: str) -> None:
    assert number(value) == text


def test_ratios_are_of_the_same_repeat() -> None:
    one = {"repeats": [{"repeat": 1, "x": 4.0}, {"repeat": 0, "x": 1.0}]}
    other = {"repeats": [{"repeat": 0, "x": 2.0}, {"repeat": 1, "x": 2.0}, {"repeat": 2, "x": 9}]}
    assert paired(one, other, "x") == [2.0, 0.5]
    assert paired(one, {"repeats": [{"repeat": 0}]}, "x") == []


@pytest.mark.parametrize(
    ("ratios", "found"),
    [([1.1, 1.2, 1.3], "above"), ([0.7, 0.8], "below"), ([0.7, 1.2, 1.3], "like"), ([1.0], "like")],
)
def test_verdict(ratios: list[float], found: str) -> None:
    assert verdict(ratios) == found


@pytest.mark.parametrize("values", [(0.2, 7.1), (1600.0,), (0.0, 0.0), (12.0, 1e6), (-3.0, 4.0)])
def test_a_linear_axis_holds_its_values_and_ends_in_round_ones(values: tuple[float, ...]) -> None:
    scale = svg.axis_scale(values, 100, 500)
    assert scale.low <= min(0, *values)
    assert scale.high >= max(values)
    ticks = scale.ticks(5)
    assert 2 <= len(ticks) <= 12
    assert scale(ticks[0]) >= 100
    assert scale(ticks[-1]) <= 500.001


@pytest.mark.parametrize("values", [(0.5, 100.0), (4.5, 6684.0), (1.0,), (10.0, 10.0), (2e-6, 3e7)])
def test_a_logarithmic_axis_holds_its_values(values: tuple[float, ...]) -> None:
    scale = svg.axis_scale(values, 0, 300, log=True)
    assert scale.low < min(values)
    assert scale.high > max(values)
    assert scale(min(values)) < scale.stop
    assert 1 <= len(scale.ticks(4)) <= 7


def test_lines_are_broken_to_a_width() -> None:
    lines = svg.wrap("zip-tuned (zip in memory, simplejpeg, our warp), uint8", 120)
    assert len(lines) > 1
    assert all(svg.text_width(line) <= 120 for line in lines)
    assert " ".join(lines) == "zip-tuned (zip in memory, simplejpeg, our warp), uint8"


def test_markdown_has_the_brief_blocks_alone() -> None:
    shown = Table(caption="c", header=("a", "b"), rows=(("1", "2|3"),))
    hidden = Table(caption="c", header=("h",), rows=(("z",),), brief=False)
    assert markdown([shown, hidden]) == "| a | b |\n| --- | ---: |\n| 1 | 2\\|3 |"


def test_commands_of_sections_are_known() -> None:
    section = Section(
        name="x", title="X", file="x.json", kind="x", options="--a 1", blocks=lambda _: []
    )
    assert section.repeats == "python -m benchmarks x --a 1 --json benchmarks/results/x.json"
