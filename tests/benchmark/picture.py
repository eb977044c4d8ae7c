# SPDX-License-Identifier: GPL-3.0-or-later
"""The picture of a report: a bar for each ratio, readable on a light and on a dark page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from xml.sax.saxutils import escape

from tests.benchmark.results import Results, Row, Section

WIDTH = 860
LABELS, FIGURES = 250, 130
BAR, GAP, TITLE, MARGIN = 16, 6, 30, 16
#: Longer bars are cut there; their figure says what they are.
LARGEST_RATIO = 4.0
SITES = {"local": "local", "ssh": "over ssh"}
STYLE = """\
text { font: 12px system-ui, -apple-system, "Segoe UI", sans-serif; fill: #1f2328 }
.title { font-weight: 600; font-size: 13px } .figure, .note { fill: #59636e }
.bar { fill: #afb8c1 } .reference { fill: #6e7781 } .ours { fill: #0969da }
.line { stroke: #59636e; stroke-dasharray: 2 3 }
@media (prefers-color-scheme: dark) {
  text { fill: #f0f6fc } .figure, .note { fill: #9198a1 }
  .bar { fill: #3d444d } .reference { fill: #656c76 } .ours { fill: #4493f8 } .line { stroke: #9198a1 }
}
"""


def picture(reports: Sequence[tuple[dict[str, Any], Results]]) -> str:
    """Return an SVG with one block for each section that has something to compare."""
    blocks: list[str] = []
    top = MARGIN
    for report, results in reports:
        scale = "" if report["scale"] == 1 else f" (scale {report['scale']:g})"
        for section in results.sections():
            rows = [(row, results.ratio(row)) for row in results.rows(section)]
            known = [(row, ratio) for row, ratio in rows if ratio is not None]
            if len(known) > 1:
                blocks.append(_block(section, scale, known, top))
                top += TITLE + len(known) * (BAR + GAP) + MARGIN
    words = "Time as a ratio to the dashed line: shorter is faster. Bars beyond 4 are cut."
    note = f'<text class="note" x="{MARGIN}" y="{top + 12}">{words}</text>'
    height = top + 12 + MARGIN
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'role="img">\n<title>Times of papermerge.backup and other tools, as ratios</title>\n<style>{STYLE}</style>\n'
        + "\n".join([*blocks, note])
        + "\n</svg>\n"
    )


def _block(section: Section, scale: str, rows: Sequence[tuple[Row, float]], top: int) -> str:
    room = WIDTH - LABELS - FIGURES - 2 * MARGIN
    unit = room / min(LARGEST_RATIO, max(1.0, *(ratio for _row, ratio in rows)))
    left = MARGIN + LABELS
    title = f"{section.part}, {section.tree}{scale}, {SITES[section.site]}"
    lines = [f'<text class="title" x="{MARGIN}" y="{top + 18}">{escape(title)}</text>']
    for number, (row, ratio) in enumerate(sorted(rows, key=lambda item: item[1])):
        y = top + TITLE + number * (BAR + GAP)
        kind = "ours" if row.key in ("ours", "playbooks") else "reference" if row.reference else "bar"
        width = min(ratio, LARGEST_RATIO) * unit
        middle = y + BAR - 4
        lines += [
            f'<text x="{left - 8}" y="{middle}" text-anchor="end">{escape(row.name)}</text>',
            f'<rect class="{kind}" x="{left}" y="{y}" width="{width:.1f}" height="{BAR}" rx="2"/>',
            f'<text class="figure" x="{left + width + 6:.1f}" y="{middle}">{ratio:.2f} · {row.seconds:.2f} s</text>',
        ]
    bottom = top + TITLE + len(rows) * (BAR + GAP)
    lines.append(
        f'<line class="line" x1="{left + unit:.1f}" y1="{top + TITLE - 4}" x2="{left + unit:.1f}" y2="{bottom - 2}"/>'
    )
    return "\n".join(lines)
