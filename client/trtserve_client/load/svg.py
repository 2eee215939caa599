"""Small charts as SVG text: axes with units, lines, bars with whiskers. Colours are classes that the page defines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from trtserve_client.load.scales import Ordinal, Scale, Tick

_LEFT, _RIGHT, _TOP, _BOTTOM = 52.0, 16.0, 26.0, 44.0
_CHARACTER = 6.6
"""About the width of a character of an axis, to leave out ticks that would touch."""


@dataclass(frozen=True)
class Size:
    """A drawing's size in its own units, which are pixels where it is shown unscaled."""

    width: float
    height: float


WIDE, NARROW = Size(720, 320), Size(340, 280)


@dataclass(frozen=True)
class Axis:
    """A scale and what it shows, with its unit."""

    scale: Scale
    title: str


@dataclass(frozen=True)
class Series:
    """A line: its name, its colour's class, points (x, y) and, where repeated, the lowest and highest y of each."""

    name: str
    colour: str
    points: Sequence[tuple[float, float]]
    spread: Sequence[tuple[float, float]] = ()
    markers: bool = True


@dataclass(frozen=True)
class Bar:
    """A bar with the ends of its whisker and what is written beside it."""

    name: str
    value: float
    low: float
    high: float
    text: str
    colour: str = "c0"


@dataclass(frozen=True)
class Stack:
    """A bar made of parts (colour, value), with what is written at its right."""

    name: str
    parts: Sequence[tuple[str, float]]
    text: str


def line_chart(size: Size, x: Axis, y: Axis, series: Sequence[Series], marks: Sequence[float] = ()) -> str:
    """Lines over two axes; `marks` are places on the x axis that a line is drawn at."""
    frame = _Frame(size)
    parts = _axes(frame, x, y)
    for mark in marks:
        at = frame.x(x.scale.place(mark))
        parts.append(_rule("mark", at, frame.top, at, frame.bottom))
    for each in series:
        parts += _line(frame, x, y, each)
    return _svg(size, parts, f"{y.title} by {x.title}: {', '.join(each.name for each in series)}")


def column_chart(size: Size, x: Axis, y: Axis, bars: Sequence[Bar]) -> str:
    """Upright bars over an ordinal axis, with their whiskers and texts."""
    frame = _Frame(size)
    width = min(48.0, 0.6 * (frame.right - frame.left) / max(len(bars), 1))
    parts = _axes(frame, x, y)
    for index, bar in enumerate(bars):
        middle, top = frame.x(x.scale.place(index)), frame.y(y.scale.place(bar.value))
        parts.append(_rect(bar.colour, middle - width / 2, top, width, frame.bottom - top))
        low, high = frame.y(y.scale.place(bar.low)), frame.y(y.scale.place(bar.high))
        if low > high:
            parts.append(_rule("whisker", middle, low, middle, high))
        parts.append(_text("value", middle, min(top, high) - 7, bar.text, "middle"))
    return _svg(size, parts, f"{y.title} by {x.title}")


def bar_chart(width: float, x: Axis, bars: Sequence[Bar], reference: float | None = None) -> str:
    """Lying bars, one below the other, each under its name; `reference` is marked by a line."""
    rows = _Rows(width, len(bars))
    parts = rows.axis(x)
    for index, bar in enumerate(bars):
        parts += rows.names(index, bar.name, bar.text)
        y, end = rows.bar_y(index), rows.x(x.scale.place(bar.value))
        parts.append(_rect(bar.colour, rows.left, y, end - rows.left, rows.thickness))
        low, high = rows.x(x.scale.place(bar.low)), rows.x(x.scale.place(bar.high))
        if high > low:
            parts.append(_rule("whisker", low, y + rows.thickness / 2, high, y + rows.thickness / 2))
    if reference is not None:
        # Beside the bars alone: over the whole height it would cross their names.
        at = rows.x(x.scale.place(reference))
        tops = [rows.bar_y(index) - 5 for index in range(len(bars))]
        parts += [_rule("reference", at, top, at, top + rows.thickness + 10) for top in tops]
    return _svg(rows.size, parts, x.title)


def stacked_bars(width: float, x: Axis, stacks: Sequence[Stack]) -> str:
    """Lying bars made of parts, one below the other."""
    rows = _Rows(width, len(stacks))
    parts = rows.axis(x)
    for index, stack in enumerate(stacks):
        parts += rows.names(index, stack.name, stack.text)
        total = 0.0
        for colour, value in stack.parts:
            start, end = rows.x(x.scale.place(total)), rows.x(x.scale.place(total + value))
            parts.append(_rect(colour, start, rows.bar_y(index), end - start, rows.thickness, radius=0))
            total += value
    return _svg(rows.size, parts, x.title)


@dataclass(frozen=True)
class _Rows:
    """Where lying bars and their axis lie."""

    width: float
    count: int
    left: float = 8.0
    top: float = 8.0
    height: float = 52.0
    thickness: float = 16.0

    @property
    def right(self) -> float:
        return self.width - 24.0

    @property
    def bottom(self) -> float:
        return self.top + self.height * self.count

    @property
    def size(self) -> Size:
        return Size(self.width, self.bottom + 42)

    def x(self, place: float) -> float:
        return self.left + place * (self.right - self.left)

    def bar_y(self, index: int) -> float:
        return self.top + index * self.height + 23

    def names(self, index: int, name: str, text: str) -> list[str]:
        y = self.top + index * self.height + 15
        return [_text("name", self.left, y, name), _text("value", self.right, y, text, "end")]

    def axis(self, x: Axis) -> list[str]:
        parts = []
        for tick in _uncrowded(x.scale, self.right - self.left):
            at = self.x(tick.place)
            parts += [
                _rule("grid", at, self.top, at, self.bottom),
                _text("tick", at, self.bottom + 15, tick.text, "middle"),
            ]
        return [*parts, _text("title", self.right, self.bottom + 34, x.title, "end")]


@dataclass(frozen=True)
class _Frame:
    """Where the axes lie."""

    size: Size

    @property
    def left(self) -> float:
        return _LEFT

    @property
    def right(self) -> float:
        return self.size.width - _RIGHT

    @property
    def top(self) -> float:
        return _TOP

    @property
    def bottom(self) -> float:
        return self.size.height - _BOTTOM

    def x(self, place: float) -> float:
        return self.left + place * (self.right - self.left)

    def y(self, place: float) -> float:
        return self.bottom - place * (self.bottom - self.top)


def _axes(frame: _Frame, x: Axis, y: Axis) -> list[str]:
    parts = [_text("title", 4, 13, y.title)]
    for tick in y.scale.ticks:
        at = frame.y(tick.place)
        parts.append(_rule("grid", frame.left, at, frame.right, at))
        parts.append(_text("tick", frame.left - 8, at + 4, tick.text, "end"))
    for tick in _uncrowded(x.scale, frame.right - frame.left):
        at = frame.x(tick.place)
        if not isinstance(x.scale, Ordinal):
            parts.append(_rule("grid", at, frame.top, at, frame.bottom))
        parts.append(_text("tick", at, frame.bottom + 17, tick.text, "end" if tick.place > 0.97 else "middle"))
    parts.append(_rule("axis", frame.left, frame.bottom, frame.right, frame.bottom))
    parts.append(_text("title", frame.right, frame.size.height - 8, x.title, "end"))
    return parts


def _uncrowded(scale: Scale, width: float) -> list[Tick]:
    """The ticks that have room, the last one always among them."""
    kept: list[Tick] = []
    for tick in reversed(scale.ticks):
        room = (kept[-1].place - tick.place) * width if kept else width
        if not kept or room > (len(tick.text) + len(kept[-1].text)) * _CHARACTER / 2 + 8:
            kept.append(tick)
    return kept[::-1]


def _line(frame: _Frame, x: Axis, y: Axis, series: Series) -> list[str]:
    places = [(frame.x(x.scale.place(a)), frame.y(y.scale.place(b))) for a, b in series.points]
    parts = []
    for (at, _), (low, high) in zip(places, series.spread, strict=False):
        bottom, top = frame.y(y.scale.place(low)), frame.y(y.scale.place(high))
        if bottom > top:
            parts.append(_rule(f"spread {series.colour}", at, bottom, at, top))
    path = "L".join(f"{a:.1f} {b:.1f}" for a, b in places)
    if places:
        parts.append(f'<path class="line {series.colour}" d="M{path}"/>')
    if series.markers:
        for (a, b), (_, value) in zip(places, series.points, strict=True):
            said = f"<title>{escape(series.name)}: {value:.4g}</title>"
            parts.append(f'<circle class="dot {series.colour}" cx="{a:.1f}" cy="{b:.1f}" r="3.5">{said}</circle>')
    return parts


def _text(kind: str, x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _rule(kind: str, x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _rect(colour: str, x: float, y: float, width: float, height: float, radius: float = 3) -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" width="{max(0.0, width):.2f}" height="{max(0.0, height):.2f}"'
    return f'<rect class="fill {colour}" {place} rx="{radius:g}"/>'


def _svg(size: Size, parts: Sequence[str], label: str) -> str:
    box = f"0 0 {size.width:g} {size.height:g}"
    return f'<svg viewBox="{box}" role="img" aria-label="{escape(label)}">{"".join(parts)}</svg>'
