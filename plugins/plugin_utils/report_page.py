# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A drill as one page for people: no script, nothing from elsewhere."""

from __future__ import annotations

from datetime import timezone
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from ansible_collections.papermerge.backup.plugins.plugin_utils.charts import BYTES, SECONDS, Chart, Reading, chart
from ansible_collections.papermerge.backup.plugins.plugin_utils.drill_report import (
    FAILED,
    PASSED,
    DrillReport,
    PastDrill,
    Phase,
    Value,
)
from ansible_collections.papermerge.backup.plugins.plugin_utils.progress import human_bytes
from ansible_collections.papermerge.backup.plugins.plugin_utils.times import parse_iso

TEMPLATE = Path(__file__).with_name("report_page.html.j2")
#: Thousands are parted by a space that does not break and is narrow.
THIN_SPACE = "\N{NARROW NO-BREAK SPACE}"
SPACE = "\N{NO-BREAK SPACE}"
MINUS = "\N{EN DASH}"


def report_page(report: DrillReport, damaged: list[str]) -> str:
    """Return the HTML. ``damaged``: of each earlier drill that could not be read, its name and why."""
    past = [*report.history, report.as_past()]
    return _template().render(
        report=report,
        passed=report.verdict == PASSED,
        shares=phase_shares(report.phases),
        charts=history_charts(past, report),
        past=past,
        damaged=damaged,
    )


def history_charts(past: list[PastDrill], report: DrillReport) -> list[Chart]:
    """Return the charts of RTO, RPO and size, of drills that are oldest first."""

    def readings(*names: str) -> list[Reading]:
        return [
            Reading(moment(drill.ended), drill.verdict == FAILED, tuple(getattr(drill, name) for name in names))
            for drill in past
        ]

    objectives = report.objectives
    return [
        chart("Time to restore", readings("rto_seconds"), SECONDS, duration, objectives.rto.limit_seconds),
        chart("Age of the snapshot", readings("rpo_seconds"), SECONDS, duration, objectives.rpo.limit_seconds),
        chart("Size", readings("media_bytes", "stored_bytes"), BYTES, size, series=("media", "stored")),
    ]


def phase_shares(phases: list[Phase]) -> list[tuple[float, float]]:
    """Return of each phase where it begins and how wide it is, in percent of all phases together."""
    total = sum(phase.seconds for phase in phases) or 1.0
    found, begun = [], 0.0
    for phase in phases:
        share = 100.0 * phase.seconds / total
        found.append((begun, share))
        begun += share
    return found


def visible(value: Any) -> Any:
    """Return a text with every character that does not print, or turns the direction of text, by its number.

    Narrow and unbreakable spaces are ours; line ends stay for messages.
    """
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return "".join(
        character if character.isprintable() or character in ("\n", THIN_SPACE, SPACE) else _escaped(character)
        for character in value
    )


def _escaped(character: str) -> str:
    return f"\\u{ord(character):04x}"


def number(value: float | None) -> str:
    """Return a number with its thousands parted."""
    if value is None:
        return MINUS
    text = f"{value:,}" if isinstance(value, int) else f"{value:,.3f}".rstrip("0").rstrip(".")
    return text.replace(",", THIN_SPACE)


def size(value: float | None) -> str:
    """Return a size in bytes as people read it."""
    return MINUS if value is None else human_bytes(value).replace(".0 ", " ").replace(" ", SPACE)


def duration(seconds: float | None) -> str:
    """Return a duration in its two largest units, such as ``14 h 3 min``."""
    if seconds is None:
        return MINUS
    if seconds < 0:
        return f"-{duration(-seconds)}"
    if seconds < 59.95:
        return f"{seconds:.1f}".removesuffix(".0") + f"{SPACE}s"
    rest = round(seconds)
    for large, small, name, lower in ((86400, 3600, "d", "h"), (3600, 60, "h", "min"), (60, 1, "min", "s")):
        if rest >= large:
            count, left = divmod(rest, large)
            below = left // small
            return f"{count}{SPACE}{name}" + (f" {below}{SPACE}{lower}" if below else "")
    raise AssertionError("unreachable")


def moment(text: str) -> str:
    """Return a time as people read it; what is no time as it is."""
    try:
        when = parse_iso(text).astimezone(timezone.utc)
    except ValueError:
        return text
    return f"{when:%d} {when:%b} {when:%Y}, {when:%H:%M:%S} UTC"


def figure(value: Value, unit: str) -> str:
    """Return what a check expected or found."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return MINUS if value is None or value == "" else str(value)
    if unit == "bytes":
        return size(value)
    return duration(value) if unit == "seconds" else f"{number(value)} {unit}".strip()


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=visible,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        bytes=size, duration=duration, figure=figure, moment=moment, number=number, percent=lambda share: f"{share:.4g}"
    )
    return environment.from_string(TEMPLATE.read_text("utf-8"))
