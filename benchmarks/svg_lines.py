"""Lines over an axis that was swept: medians, bands between quartiles, every repeat as a dot."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.svg import Canvas, Scale, axis_scale, text_width, wrap
from benchmarks.svg_bars import Mark, Spread

__all__ = ["Line", "LineChart"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """One series.

    Attributes
    ----------
    label : in the key
    points : (x, figure), in order of x
    colour : 0 to 5; 0 is ours
    shape : of its signs, 0 to 5
    signs : every point has a sign; else it is a curve
    """

    label: str
    points: tuple[tuple[float, Spread], ...]
    colour: int
    shape: int = 0
    signs: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class LineChart:
    """Lines with a key above.

    Attributes
    ----------
    name : unique in the page, of letters and hyphens
    title, description : for those who cannot see it
    x_axis, y_axis : what the values are and which side is better
    lines : one at least, with a point at least
    log_x, log_y : logarithmic axes
    zero : a linear y axis begins at 0
    mark : a level that the lines are seen against
    even_ticks : ticks of the x axis are round values, not those that were measured
    """

    name: str
    title: str
    description: str
    x_axis: str
    y_axis: str
    lines: tuple[Line, ...]
    log_x: bool = False
    log_y: bool = False
    zero: bool = True
    mark: Mark | None = None
    even_ticks: bool = False

    def svg(self, width: float, suffix: str = "") -> str:
        """The drawing.

        Parameters
        ----------
        width : px
        suffix : of its name, where a page holds it more than once
        """
        canvas = Canvas(width)
        top = self._key(canvas, width)
        for line in wrap(self.y_axis, width - 8):
            canvas.text(4, top + 12, line, "small")
            top += 15
        top += 12
        bottom = top + (240 if width >= 560 else 200)
        everything = [figure for line in self.lines for _, figure in line.points]
        values = [value for one in everything for value in (*one.values, one.q1, one.q3)]
        values += [self.mark.value] if self.mark else []
        up = axis_scale(values, bottom, top, log=self.log_y, zero=self.zero)
        ticks = up.ticks(6)
        gutter = 12 + max(text_width(f"{tick:,.10g}", 11.5) for tick in ticks)
        across = self._across(gutter, width - 18)
        canvas.strokes((((gutter, up(t)), (width - 8, up(t))) for t in ticks), "grid")
        for tick in ticks:
            canvas.text(gutter - 6, up(tick) + 4, f"{tick:,.10g}", "small end")
        self._x_ticks(canvas, across, bottom)
        if self.mark:
            y = up(self.mark.value)
            canvas.strokes([((gutter, y), (width - 8, y))], "mark")
            canvas.text(width - 10, y - 5, self.mark.label, "end small")
        for line in self.lines:
            _draw(canvas, across, up, line)
        y = bottom + 36
        for words in wrap(self.x_axis, width - 16):
            canvas.text(width / 2, y, words, "mid")
            y += 16
        canvas.height = y - 6
        return canvas.finish(self.name + suffix, self.title, self.description)

    def _across(self, start: float, stop: float) -> Scale:
        xs = sorted({x for line in self.lines for x, _ in line.points})
        low, high = xs[0], xs[-1]
        if low == high:
            low, high = (low / 2, high * 2) if self.log_x else (low - 1, high + 1)
        # room for the signs at both ends
        return Scale(low=low, high=high, start=start + 12, stop=stop, log=self.log_x)

    def _x_ticks(self, canvas: Canvas, across: Scale, bottom: float) -> None:
        """A tick at every value that was measured; those without room for words stay bare."""
        xs = sorted({x for line in self.lines for x, _ in line.points})
        xs = across.ticks(6) if self.even_ticks else xs
        canvas.strokes((((across(x), bottom), (across(x), bottom + 5)) for x in xs), "grid")
        free = 0.0
        for x in xs:
            words, at = f"{x:,.4g}" if x < 1000 else f"{x:,.0f}", across(x)
            half = text_width(words, 11.5) / 2
            middle = min(at, canvas.width - half - 2)
            if middle - half >= free:
                canvas.text(middle, bottom + 18, words, "small mid")
                free = middle + half + 6

    def _key(self, canvas: Canvas, width: float) -> float:
        x, y = 6.0, 14.0
        for line in self.lines:
            bold = " bold" if line.colour == 0 else ""
            needed = 22 + text_width(line.label, bold=bool(bold)) + 14
            if x > 6 and x + needed > width:
                x, y = 6.0, y + 20
            canvas.strokes([((x, y - 4), (x + 16, y - 4))], f"line c{line.colour}")
            if line.signs:
                canvas.shape(x + 8, y - 4, line.shape, f"shape c{line.colour}")
            canvas.text(x + 22, y, line.label, bold.strip())
            x += needed
        return y + 8


def _draw(canvas: Canvas, across: Scale, up: Scale, line: Line) -> None:
    colour = f"c{line.colour}"
    if len(line.points) > 1:
        lower = [(across(x), up(one.q1)) for x, one in line.points]
        upper = [(across(x), up(one.q3)) for x, one in reversed(line.points)]
        if lower != upper[::-1]:
            canvas.path([*lower, *upper], f"band {colour}", closed=True)
        canvas.path([(across(x), up(one.median)) for x, one in line.points], f"line {colour}")
    canvas.dots(
        (across(x), up(value))
        for x, one in line.points
        for value in (one.values if len(one.values) > 1 else ())
    )
    for x, one in line.points if line.signs else ():
        canvas.shape(across(x), up(one.median), line.shape, f"shape {colour}")
