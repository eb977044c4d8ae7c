# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the lines, marks and words of a chart stand: numbers for a template that draws SVG."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

WIDTH, HEIGHT = 320, 172
LEFT, RIGHT, TOP, BOTTOM = 52, 10, 16, 26
#: More points than this are a line without a dot each.
MAX_DOTS = 60
#: A limit further away than this many times the largest value would press the line flat.
MAX_LIMIT = 2.5
#: Lines of a grid, besides the one at nothing.
GRID_LINES = 4

MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0
SECONDS = (
    *(0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30),
    *(MINUTE * count for count in (1, 2, 5, 10, 15, 30)),
    *(HOUR * count for count in (1, 2, 3, 6, 12)),
    *(DAY * count * 10**power for power in range(6) for count in (1, 2, 5)),
)
BYTES = tuple(float(1 << power) for power in range(80))


@dataclass(frozen=True)
class Reading:
    """What one drill says in a chart. Series without a value there are None."""

    when: str
    failed: bool
    values: tuple[float | None, ...]


@dataclass(frozen=True)
class Label:
    x: float
    y: float
    text: str
    anchor: str = "start"


@dataclass(frozen=True)
class Mark:
    x: float
    y: float
    failed: bool
    title: str


@dataclass
class Chart:
    """One chart. ``lines`` has a list of SVG paths for each series, interrupted where there is no value."""

    title: str
    summary: str
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = WIDTH - RIGHT
    bottom: int = HEIGHT - BOTTOM
    grid: list[Label] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)
    dots: list[Mark] = field(default_factory=list)
    limit: Label | None = None
    note: str = ""
    dates: list[Label] = field(default_factory=list)
    newest: str = ""
    many: bool = False
    """Whether there are so many readings that everything has to be drawn finer."""

    @property
    def cross(self) -> float:
        """Half the width of a mark."""
        return 2.5 if self.many else 4.0


def chart(
    title: str,
    readings: Sequence[Reading],
    steps: Sequence[float],
    shown: Callable[[float], str],
    limit: float | None = None,
    series: Sequence[str] = ("",),
) -> Chart:
    """Return the chart of readings, oldest first.

    ``shown`` writes a value; ``series`` names the series where there are several.
    """
    known = [value for reading in readings for value in reading.values if value is not None]
    largest = max(known, default=0.0)
    near = limit is not None and (not largest or limit <= MAX_LIMIT * largest)
    top = max(largest * 1.15, limit * 1.1 if near and limit is not None else 0.0) or 1.0
    drawn = Chart(title=title, summary=_summary(title, readings, shown, series))
    width, height = drawn.right - LEFT, drawn.bottom - TOP

    def x(number: int) -> float:
        share = number / (len(readings) - 1) if len(readings) > 1 else 0.5
        return round(LEFT + width * share, 1)

    def y(value: float) -> float:
        return round(drawn.bottom - height * max(value, 0.0) / top, 1)

    step = next((step for step in steps if top / step <= GRID_LINES), steps[-1])
    drawn.grid = [
        Label(LEFT - 7, y(step * count), shown(step * count) if count else "0", "end")
        for count in range(math.floor(top / step) + 1)
    ]
    for column in range(len(series)):
        points = [
            None if (value := reading.values[column]) is None else (x(number), y(value))
            for number, reading in enumerate(readings)
        ]
        drawn.lines.append(_path(points))
    for number, reading in enumerate(readings):
        value = reading.values[0]
        said = "not measured" if value is None else shown(value)
        word = "failed" if reading.failed else "passed"
        mark = Mark(
            x(number), drawn.bottom if value is None else y(value), reading.failed, f"{reading.when}: {said}, {word}"
        )
        if reading.failed:
            drawn.marks.append(mark)
        elif value is not None and (len(readings) <= MAX_DOTS or number == len(readings) - 1):
            drawn.dots.append(mark)
    if limit is not None and near:
        drawn.limit = Label(LEFT + 4, y(limit) - 5, f"objective {shown(limit)}")
    elif limit is not None:
        drawn.note = f"The objective of {shown(limit)} lies above this scale."
    drawn.dates = _dates(drawn, readings)
    drawn.newest = _newest(readings, shown, series)
    drawn.many = len(readings) > MAX_DOTS
    return drawn


def _path(points: Sequence[tuple[float, float] | None]) -> str:
    words, begun = [], False
    for point in points:
        if point is not None:
            words.append(f"{'L' if begun else 'M'}{point[0]:g} {point[1]:g}")
        begun = point is not None
    return " ".join(words)


def _dates(drawn: Chart, readings: Sequence[Reading]) -> list[Label]:
    if not readings:
        return []
    height = drawn.height - 7
    days = [reading.when[:11].strip(" ,") for reading in (readings[0], readings[-1])]
    if len(readings) == 1:
        return [Label((LEFT + drawn.right) / 2, height, days[0], "middle")]
    return [Label(LEFT, height, days[0]), Label(drawn.right, height, days[1], "end")]


def _newest(readings: Sequence[Reading], shown: Callable[[float], str], series: Sequence[str]) -> str:
    """Return what the newest drill measured; empty if it measured nothing."""
    values = readings[-1].values if readings else ()
    return ", ".join(f"{name} {shown(value)}".strip() for name, value in zip(series, values) if value is not None)


def _summary(title: str, readings: Sequence[Reading], shown: Callable[[float], str], series: Sequence[str]) -> str:
    """Return in words what the chart shows."""
    failed = sum(reading.failed for reading in readings)
    words = [f"{title} of {len(readings)} drill{'' if len(readings) == 1 else 's'}, {failed} of them failed."]
    for column, name in enumerate(series):
        values = [value for reading in readings if (value := reading.values[column]) is not None]
        if values:
            text = f"from {shown(min(values))} to {shown(max(values))}, the newest {shown(values[-1])}."
            words.append(f"{name}: {text}" if name else text.capitalize())
    return " ".join(words)
