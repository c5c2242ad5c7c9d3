"""Horizontal bars: median, quartile whiskers, and every repeat as a dot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.runner import summary
from benchmarks.svg import FONT_PX, Canvas, Scale, axis_scale, text_width, wrap

__all__ = ["BAR_LOOK", "Bar", "BarChart", "Mark", "Spread", "spread"]

BAR_LOOK = "Bars: medians; whiskers: quartiles; dots: every repeat."
_LINE = 16.0
_NARROW = 560.0  # below, a label stands above its bar


@dataclass(frozen=True, kw_only=True, slots=True)
class Spread:
    """Median, quartiles and all repeats of one figure."""

    median: float
    q1: float
    q3: float
    values: tuple[float, ...]


def spread(values: Sequence[float], found: Mapping[str, float] | None = None) -> Spread:
    """Spread of some repeats, with their summary as a result has it."""
    facts = found or summary(values)
    return Spread(
        median=facts["median"], q1=facts["q1"], q3=facts["q3"], values=tuple(map(float, values))
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Bar:
    """One bar.

    Attributes
    ----------
    label : at its start
    figure : what it shows
    shown : figure in words, at its end
    colour : 0 to 5; 0 is ours
    open : drawn pale, for what is no contestant
    """

    label: str
    figure: Spread
    shown: str
    colour: int = 5
    open: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Mark:
    """A value that all bars are seen against."""

    value: float
    label: str


@dataclass(frozen=True, kw_only=True, slots=True)
class BarChart:
    """Bars from the top down.

    Attributes
    ----------
    name : unique in the page, of letters and hyphens
    title, description : for those who cannot see it
    axis : what the values are and which side is better
    bars : one at least
    key : (colour, pale, words) of every look that is used
    mark : a line across all bars
    log : logarithmic axis; bars are then points, for they have no beginning
    ends : ends of the axis in place of those of the values; what lies beyond is put on the end
    heading : above all, for a drawing that stands without words around it
    bold : bars of colour 0 have bold words
    """

    name: str
    title: str
    description: str
    axis: str
    bars: tuple[Bar, ...]
    key: tuple[tuple[int, bool, str], ...] = ()
    mark: Mark | None = None
    log: bool = False
    ends: tuple[float, float] | None = None
    heading: str = ""
    bold: bool = True

    def svg(self, width: float, suffix: str = "") -> str:
        """The drawing.

        Parameters
        ----------
        width : px
        suffix : of its name, where a page holds it more than once
        """
        canvas = Canvas(width)
        above = width < _NARROW
        tail = max(text_width(bar.shown, bold=True) for bar in self.bars) + 12
        room = width - 8 if above else 0.42 * width
        labels = [wrap(bar.label, room, bold=self._is_bold(bar)) for bar in self.bars]
        gutter = 6.0
        if not above:
            gutter += 8 + max(
                text_width(line, bold=self._is_bold(bar))
                for bar, lines in zip(self.bars, labels, strict=True)
                for line in lines
            )
        scale = self._scale(gutter, width - tail)
        y = self._key(canvas, width) + (20 if self.mark else 4)
        top, rows = y, []
        for lines in labels:
            height = _LINE * len(lines) + 20 if above else max(26.0, _LINE * len(lines) + 8)
            rows.append((y, height))
            y += height
        self._axis(canvas, scale, top, y)
        for bar, lines, (row, height) in zip(self.bars, labels, rows, strict=True):
            self._row(canvas, scale, bar, lines, row, height, above)
        canvas.text((scale.start + scale.stop) / 2, y + 36, self._axis_text(width, scale), "mid")
        canvas.height = y + 44
        return canvas.finish(self.name + suffix, self.title, self.description)

    def _is_bold(self, bar: Bar) -> bool:
        return self.bold and bar.colour == 0

    def _axis_text(self, width: float, scale: Scale) -> str:
        """The axis' words, shortened to their first part where they would not fit."""
        half = min(scale.start + scale.stop, 2 * width - scale.start - scale.stop) / 2
        fits = text_width(self.axis) / 2 <= half - 2
        return self.axis if fits else self.axis.partition(",")[0]

    def _scale(self, start: float, stop: float) -> Scale:
        if self.ends:
            return Scale(low=self.ends[0], high=self.ends[1], start=start, stop=stop, log=self.log)
        values = [value for bar in self.bars for value in (*bar.figure.values, bar.figure.q3)]
        values += [self.mark.value] if self.mark else []
        return axis_scale(values, start, stop, log=self.log)

    def _key(self, canvas: Canvas, width: float) -> float:
        """Draw heading and what the looks mean; the y below them."""
        x, y = 6.0, 14.0
        for line in wrap(self.heading, width - 12, bold=True) if self.heading else []:
            canvas.text(x, y, line, "bold")
            y += 18
        y += 4 if self.heading else 0
        for colour, pale, words in self.key:
            needed = 18 + text_width(words) + 14
            if x > 6 and x + needed > width:
                x, y = 6.0, y + 20
            canvas.rect(x, y - 10, 12, 12, f"bar c{colour}{' open' if pale else ''}")
            canvas.text(x + 18, y, words)
            x += needed
        return y + 12 if self.key else y - 10

    def _axis(self, canvas: Canvas, scale: Scale, top: float, bottom: float) -> None:
        count = max(2, int((scale.stop - scale.start) / 80))
        ticks = scale.ticks(count)
        canvas.strokes((((scale(t), top), (scale(t), bottom)) for t in ticks), "grid")
        for tick in ticks:
            canvas.text(scale(tick), bottom + 17, f"{tick:,.10g}", "small mid")
        if self.mark:
            x = scale(self.mark.value)
            canvas.strokes([((x, top - 2), (x, bottom))], "mark")
            half = text_width(self.mark.label) / 2
            middle = min(max(x, half + 2), canvas.width - half - 2)
            canvas.text(middle, top - 7, self.mark.label, "mid")

    def _row(
        self,
        canvas: Canvas,
        scale: Scale,
        bar: Bar,
        lines: list[str],
        y: float,
        height: float,
        above: bool,
    ) -> None:
        bold = " bold" if self._is_bold(bar) else ""
        middle = y + height - 12 if above else y + height / 2
        for i, line in enumerate(lines):
            if above:
                canvas.text(4, y + _LINE * (i + 1) - 3, line, bold.strip())
            else:
                baseline = middle + 4.5 + _LINE * (i - (len(lines) - 1) / 2)
                canvas.text(scale.start - 8, baseline, line, f"end{bold}")
        figure, look = bar.figure, f"c{bar.colour}{' open' if bar.open else ''}"
        x = scale(figure.median)
        if self.log:
            canvas.shape(x, middle, 0, f"shape c{bar.colour}")
        else:
            start = scale(max(0.0, scale.low))
            canvas.rect(min(start, x), middle - 7, abs(x - start), 14, f"bar {look}")
        low, high = scale(figure.q1), scale(figure.q3)
        canvas.strokes(
            [
                ((low, middle), (high, middle)),
                ((low, middle - 4), (low, middle + 4)),
                ((high, middle - 4), (high, middle + 4)),
            ],
            "whisker",
        )
        canvas.dots((scale(value), middle) for value in figure.values)
        end = max(x, high, *(scale(value) for value in figure.values)) + 8
        canvas.text(end, middle + 0.36 * FONT_PX, bar.shown, bold.strip())
