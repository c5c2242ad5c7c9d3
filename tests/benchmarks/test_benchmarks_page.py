"""The report in a real browser: `make test-services`, skipped by name where there is none."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import NAMES, Browser, browser, installed
from test_benchmarks_report import ROOT, outline, read, with_samples

from benchmarks import report
from benchmarks.cli import RESULTS
from benchmarks.page import PAGE, page, readme_plot
from benchmarks.report_words import number

pytestmark = [
    pytest.mark.services,
    pytest.mark.skipif(
        installed() is None,
        reason=f"browser: none of {', '.join(NAMES)} is there (Debian: apt-get install chromium)",
    ),
]

# Drawings that are shown, and texts that leave their box by more than a pixel or lie on another.
DRAWINGS = """
[...document.querySelectorAll('figure svg')].filter(s => s.getClientRects().length).map(s => {
  const box = s.getBoundingClientRect();
  const texts = [...s.querySelectorAll('text')].map(
    t => [t.textContent, t.getBoundingClientRect()]);
  const out = texts.filter(([, r]) => r.left < box.left - 1 || r.right > box.right + 1 ||
    r.top < box.top - 1 || r.bottom > box.bottom + 1).map(([w]) => w);
  const over = [];
  for (let i = 0; i < texts.length; i++) for (let j = 0; j < i; j++) {
    const [a, b] = [texts[i][1], texts[j][1]];
    const x = Math.min(a.right, b.right) - Math.max(a.left, b.left);
    const y = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
    if (x > 1 && y > 4) over.push(texts[i][0] + ' / ' + texts[j][0]);
  }
  return {name: s.getAttribute('aria-labelledby'), width: box.width, height: box.height,
          right: box.right, out, over};
})
"""
# Parts of the page, not of what scrolls on its own, that reach beyond the window.
BEYOND = """
[...document.querySelectorAll('body *')].filter(e => !e.closest('.scroll') &&
  e.getClientRects().length && e.getBoundingClientRect().right > innerWidth + 1)
  .map(e => e.tagName + ' ' + e.textContent.slice(0, 40))
"""
TABLES = """
[...document.querySelectorAll('table')].map(t => ({caption: t.caption.innerText,
  rows: [...t.rows].map(r => [...r.cells].map(c => c.textContent))}))
"""


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("browser")) as found:
        yield found


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page with every kind of result."""
    path = tmp_path_factory.mktemp("page") / "benchmarks.html"
    path.write_text(page(with_samples()), "utf-8")
    return path


def quiet(tab: Browser) -> None:
    """Nothing was complained of, and nothing was asked of anybody."""
    assert tab.named("Runtime.exceptionThrown") == []
    assert tab.named("Runtime.consoleAPICalled") == []
    assert [one["entry"]["text"] for one in tab.named("Log.entryAdded")] == []
    asked = [one["request"]["url"] for one in tab.named("Network.requestWillBeSent")]
    assert len(asked) >= 1
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    assert len([url for url in asked if url.startswith("file:")]) == 1


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_leaves_its_place(tab: Browser, everything: Path, width: int, dark: bool) -> None:
    tab.open(everything, width, 900, dark)
    quiet(tab)
    assert tab.value("document.documentElement.scrollWidth") == width
    assert tab.value(BEYOND) == []
    drawings = tab.value(DRAWINGS)
    assert len(drawings) > 20
    for one in drawings:
        assert one["width"] > 300, one
        assert one["height"] > 60, one
        assert one["right"] <= width, one
        assert one["out"] == [], one["name"]
        assert one["over"] == [], one["name"]
    suffix = "-w-t" if width > 800 else "-n-t"
    assert all(one["name"].split()[0].endswith(suffix) for one in drawings)


@pytest.mark.parametrize("dark", [False, True])
def test_text_stands_out_from_its_ground(tab: Browser, everything: Path, dark: bool) -> None:
    """Contrast of 4.5 at least (WCAG 2.2, 1.4.3), of what is text on the page's ground."""
    tab.open(everything, 1280, 900, dark)
    ground, inks = tab.value(
        """
        [getComputedStyle(document.body).backgroundColor,
         [...new Set([...document.querySelectorAll('p,a,td,th,li,figcaption,strong,svg text')]
           .filter(e => e.getClientRects().length)
           .map(e => getComputedStyle(e)[e.tagName === 'text' ? 'fill' : 'color']))]]
        """
    )
    assert (sum(_rgb(ground)) < 200) is dark
    assert len(inks) >= 3
    for ink in inks:
        light, dim = sorted((_luminance(_rgb(ink)), _luminance(_rgb(ground))), reverse=True)
        assert (light + 0.05) / (dim + 0.05) >= 4.5, ink


def _rgb(text: str) -> list[float]:
    return [float(part) for part in text[text.index("(") + 1 : -1].split(",")[:3]]


def _luminance(rgb: list[float]) -> float:
    shares = [value / 255 for value in rgb]
    red, green, blue = (
        one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in shares
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_the_committed_page_says_what_the_json_says(tab: Browser) -> None:
    tab.open(ROOT / PAGE, 1280, 900)
    quiet(tab)
    headings = tab.value("[...document.querySelectorAll('h2, h3')].map(h => h.innerText)")
    for title in (section.title for section in report.SECTIONS):
        assert title in headings
    has_gpu = any(RESULTS.glob("gpu-*.json"))
    assert ("There are no GPU results yet." in tab.value("document.body.innerText")) is not has_gpu
    tables = tab.value(TABLES)
    assert all(one["caption"] for one in tables)
    assert len(tables) == len(outline((ROOT / PAGE).read_text("utf-8")).cells)
    rows = [row for one in tables for row in one["rows"]]
    for one in read("loaders-cpu.json")["contestants"]:
        figures = one["summary"]
        speed = number(figures["pairs_per_s"]["median"])
        # Both classes of work have a row of some labels.
        named = [row for row in rows if row[0].removesuffix(", own pairs") == one["label"]]
        (row,) = [row for row in named if row[1].startswith(f"{speed} (") or row[1] == speed]
        assert float(row[4].replace(",", "")) == pytest.approx(
            figures["cpu_ms_per_pair"]["median"], rel=0.01, abs=0.006
        )


def test_a_link_of_the_contents_goes_to_its_part(tab: Browser, everything: Path) -> None:
    tab.open(everything, 1280, 900)
    assert tab.value("scrollY") == 0
    tab.value("document.querySelector('nav a[href=\"#reproduce\"]').click()")
    assert tab.value("document.getElementById('reproduce').getBoundingClientRect().top") < 900
    assert tab.value("scrollY") > 5000


def test_it_prints_on_sheets(tab: Browser, everything: Path, tmp_path: Path) -> None:
    tab.open(everything, 1280, 900)
    tab.print(tmp_path / "page.pdf")
    data = (tmp_path / "page.pdf").read_bytes()
    assert data.startswith(b"%PDF")
    assert 8 < data.count(b"/Type /Page\n") < 80


def test_the_readmes_plot_opens_alone(tab: Browser, tmp_path: Path) -> None:
    path = tmp_path / "plot.svg"
    path.write_text(readme_plot(with_samples()), "utf-8")
    tab.open(path, 1280, 900)
    quiet(tab)
    texts, box = tab.value(
        """
        [[...document.querySelectorAll('text')].map(t => t.getBoundingClientRect().toJSON()),
         document.documentElement.getBoundingClientRect().toJSON()]
        """
    )
    assert len(texts) > 20
    for one in texts:
        assert box["left"] <= one["left"]
        assert one["right"] <= box["right"] + 1
        assert one["bottom"] <= box["bottom"] + 1
