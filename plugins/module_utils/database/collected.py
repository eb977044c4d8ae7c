# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rows of a dump that tell of files, in a private SQLite database without a name that answers the same queries."""

from __future__ import annotations

import re
import sqlite3
from typing import Any, Dict, Iterable, Iterator, List, Mapping, Optional, Sequence, Set, Tuple

from ..errors import DatabaseError
from ..papermerge.releases import SCHEMA_MARKERS, ReleaseLine
from ..papermerge.tree import DocumentTree
from .view import View

TEXT, BLOB = "text", "blob"


def collected_tables(line: ReleaseLine, tree: Optional[DocumentTree] = None) -> Set[str]:
    """Return the names of the tables that a release line's queries read.

    With ``tree``, those that it reads for titles and owners instead of those that mark the schema.
    """
    more = tree.tables if tree is not None else tuple(table for table, _query in SCHEMA_MARKERS)
    return set(line.version_tables + more)


def collected_columns(line: ReleaseLine, columns: Sequence[str], tree: Optional[DocumentTree] = None) -> List[str]:
    """Return those columns of such a table that the queries speak of: the others may hold whole documents."""
    queries = [line.rows_query, line.schema_marker_query] + [query for _table, query in SCHEMA_MARKERS]
    if tree is not None:
        queries += [tree.documents, tree.nodes, tree.owners]
    words = set(re.findall(r"\w+", " ".join(queries)))
    return [column for column in columns if column in words]


def _quote(name: str) -> str:
    return '"{0}"'.format(name.replace('"', '""'))


class CollectedView(View):
    """What a dump holds: ``counts`` of its tables by name, and the rows that were added. To be closed.

    It spills to a file that nobody else can open. Values are None, or bytes that are kept as what their column holds;
    texts that are no UTF-8 come through as well.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.counts: Dict[str, int] = {}
        # One thread may fill it and another one ask, one after the other.
        self._connection = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._connection.text_factory = lambda data: data.decode("utf-8", "surrogateescape")
        for pragma in ("journal_mode = off", "synchronous = off", "temp_store = file"):
            self._connection.execute("pragma " + pragma).fetchall()
        self._columns: Dict[str, Mapping[str, str]] = {}
        self._keys: Dict[str, Sequence[str]] = {}
        self._statements: Dict[Tuple[str, Tuple[str, ...]], str] = {}

    def add_table(self, table: str, columns: Mapping[str, str], key: Sequence[str] = ()) -> None:
        """Make a table instead of what it was. ``columns``: SQLite's affinity by name; ``key``: what finds a row."""
        names = ", ".join("{0} {1}".format(_quote(name), affinity) for name, affinity in columns.items())
        self._connection.execute("drop table if exists {0}".format(_quote(table)))
        self._connection.execute("create table {0} ({1})".format(_quote(table), names))
        self._columns[table], self._keys[table] = columns, key
        self._statements = {place: text for place, text in self._statements.items() if place[0] != table}

    def has_table(self, table: str) -> bool:
        """Tell whether a table was made."""
        return table in self._columns

    def add_rows(self, table: str, columns: Tuple[str, ...], rows: Iterable[Sequence[Any]]) -> None:
        """Add rows to a table that was made. They are not counted."""
        statement = self._statements.get((table, columns))
        if statement is None:
            affinities = self._columns[table]
            places = ("?" if affinities[name] == BLOB else "cast(? as text)" for name in columns)
            statement = self._statements[table, columns] = "insert into {0} ({1}) values ({2})".format(
                _quote(table), ", ".join(map(_quote, columns)), ", ".join(places)
            )
        self._connection.execute("begin")
        self._connection.executemany(statement, rows)
        self._connection.execute("commit")

    def index(self) -> None:
        """Make what finds rows by their keys. Once, after all rows."""
        for number, (table, key) in enumerate(sorted(self._keys.items())):
            if key:
                self._connection.execute(
                    'create index "key_{0}" on {1} ({2})'.format(number, _quote(table), ", ".join(map(_quote, key)))
                )

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
