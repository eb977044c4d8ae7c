# SPDX-License-Identifier: GPL-3.0-or-later
"""What the runs come to: rows of sections, as they are kept in a file and shown in tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

from tests.benchmark.measure import Run


@dataclass(frozen=True)
class Section:
    """What is measured together: a part, on a tree, at a site."""

    part: str
    tree: str
    site: str


@dataclass
class Row:
    """One contender's runs in a section, in the order in which they took place.

    ``stored``: bytes that each run has added to what is stored. ``facts``: what a row knows besides, such as the number
    of files that were added before each run.
    """

    section: Section
    key: str
    name: str
    reference: bool
    runs: list[Run] = field(default_factory=list)
    stored: list[int] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        return median(run.seconds for run in self.runs)

    @property
    def cpu(self) -> float:
        return median(run.cpu for run in self.runs)

    @property
    def others(self) -> float:
        return median(run.others for run in self.runs)

    @property
    def stored_bytes(self) -> int | None:
        return int(median(self.stored)) if self.stored else None

    @property
    def moved(self) -> int | None:
        """Bytes over the host's cable."""
        known = [run.moved for run in self.runs if run.moved is not None]
        return int(median(known)) if known else None

    @property
    def memory(self) -> dict[str, int]:
        """Peaks in bytes by kind of process, the highest of all runs."""
        found: dict[str, int] = {}
        for run in self.runs:
            for name, peak in run.memory.items():
                found[name] = max(found.get(name, 0), peak)
        return dict(sorted(found.items(), key=lambda item: -item[1]))

    def answers(self, *path: str) -> list[Any]:
        """Return what the answers of the runs have at a path of keys, where they have it."""
        found = []
        for run in self.runs:
            value: Any = run.answer
            for key in path:
                value = value.get(key) if isinstance(value, dict) else None
            if value is not None:
                found.append(value)
        return found


def streamed(run: Run, without: Sequence[str] = ()) -> int | None:
    """Return the bytes that our streams carried, but those of some operations; None where nobody counted them."""
    moved: dict[str, int] = run.answer.get("moved") or {}
    return sum(count for name, count in moved.items() if name not in without) if moved else None


class Results:
    """Rows by section and contender, in the order in which they were added."""

    def __init__(self) -> None:
        self._rows: dict[tuple[Section, str], Row] = {}

    def add(self, section: Section, key: str, name: str, reference: bool, run: Run, stored: int | None = None) -> Row:
        """Add a run and return its row."""
        row = self._rows.setdefault((section, key), Row(section, key, name, reference))
        row.runs.append(run)
        if stored is not None:
            row.stored.append(stored)
        return row

    def sections(self) -> list[Section]:
        return list(dict.fromkeys(section for section, _key in self._rows))

    def rows(self, section: Section) -> list[Row]:
        return [row for row in self._rows.values() if row.section == section]

    def row(self, section: Section, key: str) -> Row | None:
        return self._rows.get((section, key))

    def ratio(self, row: Row, value: Callable[[Run], float] = lambda run: run.seconds) -> float | None:
        """Return the median of a row's ratios to the reference of its section, run by run."""
        references = [other for other in self.rows(row.section) if other.reference]
        return pairs(row.runs, references[0].runs, value) if references else None

    def as_list(self) -> list[dict[str, Any]]:
        return [asdict(row) for row in self._rows.values()]

    @classmethod
    def from_list(cls, rows: Sequence[dict[str, Any]]) -> Results:
        """Read what :meth:`as_list` wrote."""
        results = cls()
        for fields in rows:
            runs = [Run(**run) for run in fields["runs"]]
            row = Row(**{**fields, "section": Section(**fields["section"]), "runs": runs})
            results._rows[row.section, row.key] = row
        return results


def pairs(
    runs: Sequence[Run], references: Sequence[Run], value: Callable[[Run], float] = lambda run: run.seconds
) -> float:
    """Return the median of the ratios of runs that took place side by side."""
    return median(value(run) / max(value(other), 0.01) for run, other in zip(runs, references, strict=False))
