# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a dump of mysqldump holds, collected as it passes.

mysqldump has a moment of its own that no other session can share. What was in the dump is known from the dump alone.
"""

from __future__ import annotations

from typing import Dict, Iterator, List, Optional, Set, Tuple

from ...papermerge.releases import ReleaseLine
from ...papermerge.tree import DocumentTree
from ..collected import BLOB, TEXT, CollectedView, collected_tables
from .literals import Row, Table
from .statements import DumpReader

#: Types of MySQL by the affinity that a column of SQLite gets; any other is a text.
_AFFINITIES: Dict[str, str] = {
    **dict.fromkeys(("tinyint", "smallint", "mediumint", "int", "integer", "bigint", "year"), "integer"),
    **dict.fromkeys(("float", "double", "decimal"), "real"),
    **dict.fromkeys(("binary", "varbinary", "bit", "tinyblob"), BLOB),
}


class DumpedRows:
    """Passes a dump on piece by piece; after its end ``view`` holds what was in it. To be closed."""

    def __init__(self, name: str, tables: Set[str]) -> None:
        self.view = CollectedView(name)
        self._reader = DumpReader(tables, self._store)

    def passing(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        """Yield the pieces of a dump. Raises DatabaseError for one that is not understood."""
        for piece in pieces:
            self._reader.feed(piece)
            yield piece

    def finish(self) -> Set[str]:
        """Return what the dump holds besides tables. Raises DatabaseError for a dump that is not whole."""
        self._reader.finish()
        for table in self._reader.kept_tables:
            self._make(table)
        self.view.index()
        self.view.counts = dict(self._reader.counts)
        return self._reader.objects

    def _make(self, table: Table) -> None:
        if not self.view.has_table(table.name):
            columns = {column.name: _AFFINITIES.get(column.type, TEXT) for column in table.short_columns}
            key = table.primary_key if set(columns).issuperset(table.primary_key) else ()
            self.view.add_table(table.name, columns, key)

    def _store(self, table: Table, columns: Tuple[str, ...], rows: List[Row]) -> None:
        self._make(table)
        self.view.add_rows(table.name, columns, rows)

    def close(self) -> None:
        self.view.close()


def read_dump(
    content: Iterator[bytes], name: str, line: ReleaseLine, tree: Optional[DocumentTree] = None
) -> CollectedView:
    """Return what a stored dump holds; the caller closes it. Raises DatabaseError.

    ``tree``: titles and owners are wanted.
    """
    rows = DumpedRows(name, collected_tables(line, tree))
    try:
        for _piece in rows.passing(content):
            pass
        rows.finish()
    except BaseException:
        rows.close()
        raise
    return rows.view
