# SPDX-License-Identifier: GPL-3.0-or-later
"""Tables and their rows, without an engine: what a small schema says, and rows that fill in what nobody cares about."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import re
import uuid
from typing import Any

Value = None | bool | int | float | str | bytes | uuid.UUID | datetime.datetime | decimal.Decimal
Row = tuple[Value, ...]

BEGIN = datetime.datetime(2026, 3, 29, 0, 59, 59, 123456, tzinfo=datetime.UTC)


@dataclasses.dataclass(frozen=True)
class Column:
    """`kind` is serial, int, bigint, bool, uuid, text, str or strN, time, float, numeric, blob, vector or enum:NAME.

    `reference` is the (table, column) of a foreign key; `cascade` says whether its rows go with the other's.
    """

    name: str
    kind: str
    is_key: bool
    is_nullable: bool
    is_unique: bool
    cascade: bool
    reference: tuple[str, str] | None


@dataclasses.dataclass(frozen=True)
class Table:
    name: str
    columns: tuple[Column, ...]

    @property
    def key(self) -> int | None:
        """The position of the key column, None for a table without one."""
        return next((number for number, column in enumerate(self.columns) if column.is_key), None)


def parse_tables(text: str) -> tuple[Table, ...]:
    """Read a schema: a line with a table's name, then, indented, a line a column.

    A column is "NAME KIND", then any of key, null, unique, "-> TABLE.COLUMN" and cascade. Lines that begin with # are
    notes.
    """
    tables: list[Table] = []
    for line in text.splitlines():
        words = line.split()
        if not words or words[0] == "#":
            continue
        if not line.startswith(" "):
            tables.append(Table(words[0], ()))
            continue
        name, kind, *rest = words
        target = re.search(r"-> (\w+)\.(\w+)", line)
        column = Column(
            name,
            kind,
            is_key="key" in rest,
            is_nullable="null" in rest,
            is_unique="unique" in rest,
            cascade="cascade" in rest,
            reference=(target[1], target[2]) if target else None,
        )
        tables[-1] = Table(tables[-1].name, (*tables[-1].columns, column))
    return tuple(tables)


class Database:
    """Tables and the rows put into them so far."""

    def __init__(self, tables: tuple[Table, ...]) -> None:
        self.tables = {table.name: table for table in tables}
        self.rows: dict[str, list[Row]] = {table.name: [] for table in tables}
        self._clock = BEGIN

    def add(self, into: str, /, **values: Value) -> Any:
        """Add a row to a table and return its key's value, None where the table has no key.

        A column that is not given is NULL where it may be, else the next number, time or what is empty of its kind.
        Raises KeyError for a column that the table does not have.
        """
        table = self.tables[into]
        row = tuple(
            values.pop(column.name) if column.name in values else self._default(into, column)
            for column in table.columns
        )
        if values:
            raise KeyError(f"{into} has no {', '.join(values)}")
        self.rows[into].append(row)
        return None if table.key is None else row[table.key]

    def counts(self) -> dict[str, int]:
        """The number of rows of each table."""
        return {name: len(rows) for name, rows in self.rows.items()}

    def keys(self, name: str) -> list[Value]:
        """The values of a table's key column, in the order of the rows; empty where it has none."""
        key = self.tables[name].key
        return [] if key is None else [row[key] for row in self.rows[name]]

    def _default(self, name: str, column: Column) -> Value:
        if column.kind == "serial":
            return len(self.rows[name]) + 1
        if column.is_nullable:
            return None
        if column.kind == "time":
            self._clock += datetime.timedelta(seconds=1, microseconds=1)
            return self._clock
        if column.kind in ("int", "bigint"):
            return 0
        if column.kind == "bool":
            return False
        if column.kind == "blob":
            return b""
        if column.kind == "uuid":
            raise KeyError(f"{name}.{column.name} needs a value")
        return ""
