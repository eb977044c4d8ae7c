# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The closing table of a play."""

from __future__ import annotations

from typing import Any

from ansible_collections.papermerge.backup.plugins.plugin_utils.progress import human_bytes, human_seconds

#: What a host gets that has left no result: the worst that can be said, for silence must not look like success.
NO_RESULT = {"result": "failed", "msg": "the host has left no result"}


def rows_for_hosts(hosts: list[str], results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the results in the order of the hosts, and a failed row for each host without one.

    A host whose list of snapshots is empty says so with a row that has a host only. A snapshot (``path``) that several
    hosts have looked at is shown once.
    """
    rows: list[dict[str, Any]] = []
    seen: set[str] = set()
    for host in hosts:
        own = [row for row in results if row.get("host") == host]
        for row in own or [{"host": host, **NO_RESULT}]:
            path = str(row.get("path") or "")
            if set(row) == {"host"} or (path and path in seen):
                continue
            seen.add(path)
            rows.append(row)
    return rows


def cell(column: str, value: Any) -> str:
    """Return a value as the table shows it; bytes and seconds by the name of their column."""
    if value is None or value == "":
        return "-"
    if column.endswith("_bytes") and isinstance(value, (int, float)):
        return human_bytes(value)
    if column in ("time", "seconds") and isinstance(value, (int, float)):
        return human_seconds(value)
    return str(value)


def table(columns: list[str], rows: list[dict[str, Any]]) -> list[str]:
    """Return the lines of a table: a head, a rule, a line a row."""
    cells = [[cell(column, row.get(column)) for column in columns] for row in rows]
    heads = [column.replace("_", " ") for column in columns]
    widths = [max(len(line[number]) for line in [heads, *cells]) for number in range(len(columns))]
    numeric = [all(isinstance(row.get(column), (int, float, type(None))) for row in rows) for column in columns]

    def line(values: list[str]) -> str:
        return "  ".join(
            value.rjust(width) if right else value.ljust(width) for value, width, right in zip(values, widths, numeric)
        ).rstrip()

    return [line(heads), line(["-" * width for width in widths]), *map(line, cells)]
