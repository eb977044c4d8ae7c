# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The rows of a dump that tell of files, in a private SQLite database without a name that answers the same queries.

mysqldump has a moment of its own that no other session can share. What was in the dump is known from the dump alone.
"""

from __future__ import annotations

import sqlite3
from typing import Any, Dict, Iterator, List, Set, Tuple

from ...errors import DatabaseError
from ...papermerge.releases import SCHEMA_MARKERS, ReleaseLine
from ..view import View
from .literals import Row, Table

#: Types of MySQL by the affinity that a column of SQLite gets; any other is a text.
_AFFINITIES: Dict[str, str] = {
    **dict.fromkeys(("tinyint", "smallint", "mediumint", "int", "integer", "bigint", "year"), "integer"),
    **dict.fromkeys(("float", "double", "decimal"), "real"),
    **dict.fromkeys(("binary", "varbinary", "bit", "tinyblob"), "blob"),
}


def kept_tables(line: ReleaseLine) -> Set[str]:
    """Return the names of the tables that a release line's queries read."""
    return set(line.version_tables) | {table for table, _query in SCHEMA_MARKERS}


def _quote(name: str) -> str:
    return '"{0}"'.format(name.replace('"', '""'))


class DumpedRows:
    """Takes rows (:meth:`store`) and answers queries. It spills to a file that nobody else can open. To be closed."""

    def __init__(self) -> None:
        # The dump may be written by one thread and asked by another, one after the other.
        self._connection = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._connection.text_factory = lambda data: data.decode("utf-8", "surrogateescape")
        for pragma in ("journal_mode = off", "synchronous = off", "temp_store = file"):
            self._connection.execute("pragma " + pragma).fetchall()
        self._statements: Dict[Tuple[str, Tuple[str, ...]], str] = {}
        self._keys: Dict[str, Tuple[str, ...]] = {}

    def store(self, table: Table, columns: Tuple[str, ...], rows: List[Row]) -> None:
        """Take rows of a table."""
        statement = self._statements.get((table.name, columns))
        if statement is None:
            statement = self._prepare(table, columns)
        self._connection.execute("begin")
        self._connection.executemany(statement, rows)
        self._connection.execute("commit")

    def _prepare(self, table: Table, columns: Tuple[str, ...]) -> str:
        affinities = {column.name: _AFFINITIES.get(column.type, "text") for column in table.short_columns}
        self.add_table(table)
        # What comes is bytes, so that a text that is no UTF-8 comes through as well.
        places = ("?" if affinities[name] == "blob" else "cast(? as text)" for name in columns)
        statement = "insert into {0} ({1}) values ({2})".format(
            _quote(table.name), ", ".join(map(_quote, columns)), ", ".join(places)
        )
        self._statements[table.name, columns] = statement
        return statement

    def add_table(self, table: Table) -> None:
        """Make a table unless it is there."""
        if table.name in self._keys:
            return
        affinities = ((column.name, _AFFINITIES.get(column.type, "text")) for column in table.short_columns)
        columns = ", ".join("{0} {1}".format(_quote(name), affinity) for name, affinity in affinities)
        self._connection.execute("create table {0} ({1})".format(_quote(table.name), columns))
        short = {column.name for column in table.short_columns}
        self._keys[table.name] = table.primary_key if short.issuperset(table.primary_key) else ()

    def index(self) -> None:
        """Make what finds rows by their primary key. Once, after all rows."""
        for number, (table, key) in enumerate(sorted(self._keys.items())):
            if key:
                self._connection.execute(
                    'create index "key_{0}" on {1} ({2})'.format(number, _quote(table), ", ".join(map(_quote, key)))
                )

    def rows(self, query: str) -> Iterator[Tuple[Any, ...]]:
        """Yield the rows of a query. Raises DatabaseError."""
        try:
            yield from self._connection.execute(query)
        except sqlite3.Error as error:
            raise DatabaseError("the dump has no answer: {0} ({1})".format(error, query)) from None

    def close(self) -> None:
        self._connection.close()


class DumpView(View):
    """What a dump holds: ``counts`` of all its tables, and the rows that were kept."""

    def __init__(self, name: str, rows: DumpedRows, counts: Dict[str, int]) -> None:
        self.name = name
        self._rows = rows
        self._counts = counts

    def rows(self, query: str) -> Iterator[Tuple[Any, ...]]:
        return self._rows.rows(query)

    def tables(self) -> Tuple[str, ...]:
        return tuple(sorted(self._counts))

    def _count(self, table: str) -> int:
        return self._counts[table]

    def close(self) -> None:
        self._rows.close()
