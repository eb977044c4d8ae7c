# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One moment of a database: what a backup asks of it, whatever engine answers."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from typing import Any, Dict, Iterable, Iterator, List, Optional, Tuple, TypeVar

from ..errors import DatabaseError
from ..papermerge.releases import SCHEMA_MARKERS, ExpectedRow, ReleaseLine

#: A key of a version row: a number or a UUID. Anything else never gets into a query.
KEY = re.compile(r"[0-9A-Fa-f-]{1,40}\Z")
#: Keys that one query asks for.
KEYS_BATCH = 500


ViewType = TypeVar("ViewType", bound="View")


class View(ABC):
    """Every query sees the same moment. A context manager: leaving it ends the reading.

    ``name`` is what messages call the database. Every method raises DatabaseError for what the engine refuses.
    """

    name = ""

    @abstractmethod
    def rows(self, query: str) -> Iterator[Tuple[Any, ...]]:
        """Yield the rows of a query, streamed; a value is a text, a number or None."""

    @abstractmethod
    def tables(self) -> Tuple[str, ...]:
        """Return the names of Papermerge's tables, sorted."""

    @abstractmethod
    def close(self) -> None:
        """End the reading."""

    def quoted(self, table: str) -> str:
        """Return a table's name as a query has it."""
        return '"{0}"'.format(table)

    def __enter__(self: ViewType) -> ViewType:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def require_tables(self, line: ReleaseLine) -> None:
        """Raise DatabaseError when a table is missing that every database of this release line has."""
        missing = sorted(set(line.required_tables) - set(self.tables()))
        if missing:
            raise DatabaseError(
                "database {0} is not one of Papermerge {1}: it has no table {2}; set "
                "papermerge_backup_database_url".format(self.name, line.name, ", ".join(missing))
            )

    def row_counts(self, line: ReleaseLine) -> Dict[str, int]:
        """Return the row counts of the release line's tables that exist; of all tables where the line is unknown."""
        present = self.tables()
        wanted = line.count_tables or present
        return {table: self._count(table) for table in wanted if table in present}

    def _count(self, table: str) -> int:
        (row,) = self.rows("select count(*) from {0}".format(self.quoted(table)))
        return int(row[0])

    def schema_marker(self, line: Optional[ReleaseLine]) -> str:
        """Return what tells this schema from its neighbours, such as the name of the last migration; else nothing.

        ``line``: None where it is not known.
        """
        query = line.schema_marker_query if line is not None else ""
        if not query:
            present = self.tables()
            query = next((query for table, query in SCHEMA_MARKERS if table in present), "")
        found = [row[0] for row in self.rows(query)] if query else []
        return str(found[0]) if found and found[0] is not None else ""

    def rows_with_keys(self, line: ReleaseLine, keys: Iterable[str]) -> Iterator[ExpectedRow]:
        """Yield those version rows that exist of the ones with these keys."""
        wanted: List[str] = [key for key in keys if KEY.match(key)]
        for start in range(0, len(wanted), KEYS_BATCH):
            quoted = ", ".join("'{0}'".format(key) for key in wanted[start : start + KEYS_BATCH])
            for row in self.rows("{0} where {1} in ({2})".format(line.rows_query, line.key_column, quoted)):
                yield line.expected_row(row)

    def expected_rows(self, line: ReleaseLine) -> Iterator[ExpectedRow]:
        """Yield the version rows, streamed; none where nobody knows the line's files."""
        if line.rows_query:
            for row in self.rows(line.rows_query):
                yield line.expected_row(row)
