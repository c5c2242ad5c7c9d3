"""SVG written by hand: the same bytes from the same numbers, whatever is installed.

Text stays text. How wide it will be is estimated from above, with the widths of DejaVu Sans, for
another machine may have any font. Colours are CSS variables, so that one drawing serves a light and
a dark page; `alone` adds the style that a file of its own needs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from html import escape

__all__ = [
    "FONT_PX",
    "PALETTE",
    "STYLE",
    "Canvas",
    "Scale",
    "alone",
    "axis_scale",
    "num",
    "text_width",
    "wrap",
]

FONT_PX = 13.0
Point = tuple[float, float]

# Of Okabe and Ito, told apart by the colour-blind; --s0 is ours.
PALETTE = {
    "light": {
        "page": "#ffffff", "ink": "#1b1f24", "soft": "#5a6370", "rule": "#d5dae0",
        "panel": "#f4f6f8", "s0": "#0067a8", "s1": "#c04f00", "s2": "#00805f", "s3": "#8f3f77",
        "s4": "#7a6a00", "s5": "#5a6370",
    },
    "dark": {
        "page": "#14171b", "ink": "#e6e9ec", "soft": "#a3acb7", "rule": "#3a424c",
        "panel": "#1d2228", "s0": "#5bb5ee", "s1": "#f0934e", "s2": "#35c39b", "s3": "#dd92c3",
        "s4": "#d8c552", "s5": "#a3acb7",
    },
}  # fmt: skip

STYLE = """\
svg text{font:13px system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif;\
fill:var(--ink)}
svg .small{font-size:11.5px;fill:var(--soft)}
svg .bold{font-weight:600}
svg .mid{text-anchor:middle}
svg .end{text-anchor:end}
svg .grid{stroke:var(--rule);stroke-width:1;fill:none}
svg .mark{stroke:var(--ink);stroke-width:1.5;stroke-dasharray:5 3;fill:none}
svg .whisker{stroke:var(--ink);stroke-width:1.3;fill:none}
svg .dots{stroke:var(--ink);stroke-width:4.2;stroke-linecap:round;stroke-opacity:.6;fill:none}
svg .line{stroke-width:2;fill:none}
svg .band{fill-opacity:.16;stroke:none}
svg .bar{fill-opacity:.55}
svg .bar.open{fill-opacity:.3}
svg .c0{--c:var(--s0)}svg .c1{--c:var(--s1)}svg .c2{--c:var(--s2)}
svg .c3{--c:var(--s3)}svg .c4{--c:var(--s4)}svg .c5{--c:var(--s5)}
svg .bar,svg .band,svg .shape{fill:var(--c)}
svg .line{stroke:var(--c)}
"""

_NARROW = set("ijl.,:;'|!()[]/ ftrI-")
_WIDE = set("mwMW%@+=×≥→")


def text_width(text: str, px: float = FONT_PX, bold: bool = False) -> float:
    """Width of a line, px, estimated from above."""
    ems = sum(0.41 if c in _NARROW else 0.97 if c in _WIDE else 0.635 for c in text)
    return ems * px * (1.1 if bold else 1.0)


def wrap(text: str, width: float, px: float = FONT_PX, bold: bool = False) -> list[str]:
    """Break text at spaces into lines of at most `width` px; a longer word has its own line."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and text_width(longer, px, bold) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines or [""]


def num(value: float) -> str:
    """A coordinate, to a tenth of a pixel."""
    text = f"{value:.1f}".removesuffix(".0")
    return "0" if text == "-0" else text


@dataclass(slots=True)
class Canvas:
    """A drawing under way; all lengths are px of its own box.

    Parameters
    ----------
    width, height : of the box; `height` may be set until it is finished
    """

    width: float
    height: float = 0.0
    parts: list[str] = field(default_factory=list)

    def text(self, x: float, y: float, text: str, classes: str = "") -> None:
        """One line with its baseline at y."""
        style = f' class="{classes}"' if classes else ""
        self.parts.append(f'<text x="{num(x)}" y="{num(y)}"{style}>{escape(text)}</text>')

    def rect(self, x: float, y: float, width: float, height: float, classes: str) -> None:
        """A box; of no less than half a pixel, so that it is seen."""
        self.parts.append(
            f'<rect x="{num(x)}" y="{num(y)}" width="{num(max(width, 0.5))}" '
            f'height="{num(height)}" class="{classes}"/>'
        )

    def path(self, points: Iterable[Point], classes: str, closed: bool = False) -> None:
        """Straight lines through points."""
        middle = "L".join(f"{num(x)} {num(y)}" for x, y in points)
        self.parts.append(f'<path d="M{middle}{"Z" if closed else ""}" class="{classes}"/>')

    def strokes(self, lines: Iterable[tuple[Point, Point]], classes: str) -> None:
        """Several straight lines of one look."""
        path = "".join(f"M{num(a)} {num(b)}L{num(c)} {num(d)}" for (a, b), (c, d) in lines)
        if path:
            self.parts.append(f'<path d="{path}" class="{classes}"/>')

    def dots(self, points: Iterable[Point], classes: str = "dots") -> None:
        """Small discs: strokes of no length with round ends."""
        path = "".join(f"M{num(x)} {num(y)}h0" for x, y in points)
        if path:
            self.parts.append(f'<path d="{path}" class="{classes}"/>')

    def shape(self, x: float, y: float, kind: int, classes: str) -> None:
        """Sign of a series: disc, square, triangle, diamond, cross or bar by number."""
        r = 4.2
        if kind % 6 == 0:
            self.parts.append(
                f'<circle cx="{num(x)}" cy="{num(y)}" r="{num(r)}" class="{classes}"/>'
            )
            return
        corners: Sequence[Point] = (
            (),
            ((-r, -r), (r, -r), (r, r), (-r, r)),
            ((0, -r - 1), (r + 1, r), (-r - 1, r)),
            ((0, -r - 2), (r + 2, 0), (0, r + 2), (-r - 2, 0)),
            ((-r - 1, -r), (r + 1, -r), (0, r + 1)),
            ((-r - 2, -1.8), (r + 2, -1.8), (r + 2, 1.8), (-r - 2, 1.8)),
        )[kind % 6]
        self.path([(x + dx, y + dy) for dx, dy in corners], classes, closed=True)

    def finish(self, name: str, title: str, description: str) -> str:
        """The whole drawing, named for those who cannot see it.

        Parameters
        ----------
        name : unique in the page
        title, description : plain text
        """
        body = "\n".join(self.parts)
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {num(self.width)} '
            f'{num(self.height)}" width="{num(self.width)}" height="{num(self.height)}" role="img" '
            f'aria-labelledby="{escape(name)}-t {escape(name)}-d">\n'
            f'<title id="{escape(name)}-t">{escape(title)}</title>\n'
            f'<desc id="{escape(name)}-d">{escape(description)}</desc>\n{body}\n</svg>'
        )


def variables(theme: str) -> str:
    """Colours of a theme as CSS declarations."""
    return ";".join(f"--{name}:{value}" for name, value in PALETTE[theme].items())


def alone(svg: str) -> str:
    """A drawing as a file of its own, on a ground that is light or dark as the reader has it."""
    head, end, rest = svg.partition("</desc>\n")
    style = (
        f"<style>svg{{{variables('light')}}}\n"
        f"@media (prefers-color-scheme:dark){{svg{{{variables('dark')}}}}}\n"
        f"{STYLE}.ground{{fill:var(--page)}}</style>\n"
        '<rect width="100%" height="100%" class="ground"/>\n'
    )
    return f"{head}{end}{style}{rest}\n"


@dataclass(frozen=True, kw_only=True, slots=True)
class Scale:
    """Values to pixels along one axis.

    Parameters
    ----------
    low, high : values at the ends
    start, stop : px there; `stop` is below `start` on an axis that goes up
    log : logarithmic; `low` is above 0
    """

    low: float
    high: float
    start: float
    stop: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """Pixel of a value; those beyond the axis lie on its end."""
        value = min(max(value, self.low), self.high)
        if self.log:
            share = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.stop - self.start)

    def ticks(self, count: int) -> list[float]:
        """About `count` round values from end to end; of a long logarithmic axis powers of ten."""
        if not self.log:
            step = _step((self.high - self.low) / max(count, 1))
            first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
            return [float(f"{i * step:.12g}") for i in range(first, last + 1)]
        low, high = _exponent(self.low), _exponent(self.high)
        for factors in ((1, 2, 5), (1, 3), (1,)):
            found = [
                float(f"{factor}e{power}")
                for power in range(low - 1, high + 2)
                for factor in factors
                if self.low * 0.999 <= float(f"{factor}e{power}") <= self.high * 1.001
            ]
            if len(found) <= count + 2:
                return found
        return found[:: -(-len(found) // count)]


def axis_scale(
    values: Sequence[float], start: float, stop: float, *, log: bool = False, zero: bool = True
) -> Scale:
    """A scale that shows all values, with ends that are round.

    Parameters
    ----------
    values : one at least; on a logarithmic axis above 0
    start, stop : px
    log : logarithmic
    zero : a linear axis begins at 0
    """
    low, high = min(values), max(values)
    if log:
        return Scale(low=_down(low), high=_up(high), start=start, stop=stop, log=True)
    low = min(low, 0.0) if zero else low
    spread = (high - low) or abs(high) or 1.0
    step = _step(spread / 5)
    low = math.floor(low / step) * step
    high = math.ceil((high or spread) / step - 1e-9) * step
    return Scale(low=low, high=high if high > low else low + step, start=start, stop=stop)


def _exponent(value: float) -> int:
    return int(f"{value:e}".partition("e")[2])


def _step(value: float) -> float:
    """The next of 1, 2, 5, 10, ... that is not below a value."""
    power = _exponent(value)
    steps = [float(f"{factor}e{power}") for factor in (1, 2, 5, 10)]
    return next(step for step in steps if step >= value * 0.999999)


def _down(value: float) -> float:
    power = _exponent(value)
    steps = [float(f"{factor}e{power}") for factor in (5, 2, 1)]
    return next((step for step in steps if step < value), float(f"5e{power - 1}"))


def _up(value: float) -> float:
    power = _exponent(value)
    steps = [float(f"{factor}e{power}") for factor in (2, 5, 10, 20)]
    return next(step for step in steps if step > value)
