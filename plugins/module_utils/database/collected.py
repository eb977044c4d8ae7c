# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rows of a dump that tell of files, in a private SQLite database without a name that answers the same queries."""

from __future__ import annotations

import re
import sqlite3
from typing import Any, Dict, Iterable, Iterator, List, Sequence, Set, Tuple

from ..errors import DatabaseError
from ..papermerge.releases import SCHEMA_MARKERS, ReleaseLine
from .view import View


def collected_tables(line: ReleaseLine) -> Set[str]:
    """Return the names of the tables that a release line's queries read."""
    return set(line.version_tables) | {table for table, _query in SCHEMA_MARKERS}


def collected_columns(line: ReleaseLine, columns: Sequence[str]) -> List[str]:
    """Return those columns of such a table that the queries speak of: the others may hold whole documents."""
    queries = [line.rows_query, line.schema_marker_query] + [query for _table, query in SCHEMA_MARKERS]
    words = set(re.findall(r"\w+", " ".join(queries)))
    return [column for column in columns if column in words]


def _quote(name: str) -> str:
    return '"{0}"'.format(name.replace('"', '""'))


class CollectedView(View):
    """What a dump holds: ``counts`` of its tables by name, and the rows that were added. To be closed.

    It spills to a file that nobody else can open. Values are bytes that are kept as text, whatever they are, or None.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.counts: Dict[str, int] = {}
        # One thread may fill it and another one ask, one after the other.
        self._connection = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._connection.text_factory = lambda data: data.decode("utf-8", "surrogateescape")
        for pragma in ("journal_mode = off", "synchronous = off", "temp_store = file"):
            self._connection.execute("pragma " + pragma).fetchall()
        self._statements: Dict[str, str] = {}

    def add_table(self, table: str, columns: Sequence[str]) -> None:
        """Make a table, instead of what it was."""
        names = ", ".join("{0} text".format(_quote(name)) for name in columns)
        self._connection.execute("drop table if exists {0}".format(_quote(table)))
        self._connection.execute("create table {0} ({1})".format(_quote(table), names))
        places = ", ".join(["cast(? as text)"] * len(columns))
        self._statements[table] = "insert into {0} values ({1})".format(_quote(table), places)

    def add_rows(self, table: str, rows: Iterable[Sequence[Any]]) -> None:
        """Add rows to a table that was made. They are not counted."""
        self._connection.execute("begin")
        self._connection.executemany(self._statements[table], rows)
        self._connection.execute("commit")

    def rows(self, query: str) -> Iterator[Tuple[Any, ...]]:
        try:
            yield from self._connection.execute(query)
        except sqlite3.Error as error:
            raise DatabaseError("{0} has no answer: {1} ({2})".format(self.name, error, query)) from None

    def tables(self) -> Tuple[str, ...]:
        return tuple(sorted(self.counts))

    def _count(self, table: str) -> int:
        return self.counts[table]

    def close(self) -> None:
        self._connection.close()
