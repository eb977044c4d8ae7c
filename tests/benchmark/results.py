# SPDX-License-Identifier: GPL-3.0-or-later
"""What the runs of one job come to, as a table for people and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from tests.benchmark.measure import Run

#: Processes that never get larger than this, in bytes, are not worth a word.
SMALL = 4_000_000


@dataclass
class Row:
    """The runs of one contender's create or restore; ``stored`` in bytes, 0 for a restore."""

    section: str
    name: str
    reference: bool
    stored: int = 0
    runs: list[Run] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        return median(run.seconds for run in self.runs)

    @property
    def memory(self) -> dict[str, int]:
        """Peaks in bytes by kind of process, the highest of all runs."""
        found: dict[str, int] = {}
        for run in self.runs:
            for name, peak in run.memory.items():
                found[name] = max(found.get(name, 0), peak)
        return dict(sorted(found.items(), key=lambda item: -item[1]))

    @property
    def cpu(self) -> dict[str, float]:
        """CPU seconds by kind of process, medians."""
        names = dict.fromkeys(name for run in self.runs for name in run.cpu)
        return {name: round(median(run.cpu.get(name, 0.0) for run in self.runs), 2) for name in names}


class Results:
    """Rows by section, in the order in which they were added."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str], Row] = {}

    def add(self, section: str, name: str, run: Run, reference: bool, stored: int = 0) -> None:
        row = self._rows.setdefault((section, name), Row(section, name, reference))
        row.runs.append(run)
        row.stored = stored

    def table(self) -> str:
        """Return all rows, each section with the ratios to its reference."""
        lines = []
        for section in dict.fromkeys(section for section, _name in self._rows):
            heads = [section, "runs", "wall s", "ratio", "CPU s", "others", "stored MB", "peak MB of each process"]
            lines += ["", *_aligned([heads, *(self._cells(row) for row in self._section(section))])]
        return "\n".join(lines[1:])

    def as_list(self) -> list[dict[str, Any]]:
        return [
            {
                "section": row.section,
                "name": row.name,
                "seconds": [round(run.seconds, 3) for run in row.runs],
                "median": round(row.seconds, 3),
                "ratio": None if (ratio := self._ratio(row)) is None else round(ratio, 3),
                "stored_bytes": row.stored,
                "peak_bytes": row.memory,
                "cpu_seconds": row.cpu,
                "others": [round(run.others, 2) for run in row.runs],
                "answers": [run.answer for run in row.runs if run.answer],
            }
            for row in self._rows.values()
        ]

    def _section(self, section: str) -> list[Row]:
        return [row for row in self._rows.values() if row.section == section]

    def _ratio(self, row: Row) -> float | None:
        references = [other for other in self._section(row.section) if other.reference]
        return row.seconds / references[0].seconds if references else None

    def _cells(self, row: Row) -> list[str]:
        ratio = self._ratio(row)
        peaks = [f"{name} {peak / 1e6:.0f}" for name, peak in row.memory.items() if peak >= SMALL]
        return [
            row.name,
            str(len(row.runs)),
            f"{row.seconds:.2f}",
            "" if ratio is None else f"{ratio:.2f}",
            f"{sum(row.cpu.values()):.1f}",
            f"{median(run.others for run in row.runs):.1f}",
            f"{row.stored / 1e6:,.0f}" if row.stored else "",
            ", ".join(peaks),
        ]


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    rule = ["-" * width for width in widths]
    last = len(widths) - 1
    return [
        "  ".join(
            cell.ljust(width) if column in (0, last) else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in (rows[0], rule, *rows[1:])
    ]
