# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What stands in a dump of mysqldump: the columns of a table, the values of a row.

https://mariadb.com/kb/en/string-literals/, https://dev.mysql.com/doc/refman/8.4/en/string-literals.html
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Collection, Dict, Optional, Pattern, Set, Tuple

from ...errors import DatabaseError

#: The value of a column as the dump has it: None for NULL, the content of a string, the bytes of a hexadecimal number,
#: the digits of any other.
Value = Optional[bytes]
Row = Tuple[Value, ...]

#: Types whose values are long and tell nothing about files: they are never kept.
LONG_TYPES = ("text", "mediumtext", "longtext", "blob", "mediumblob", "longblob", "json", "vector")

NAME = rb"`((?:[^`]|``)+)`"
CREATE_TABLE = re.compile(rb"CREATE TABLE (?:IF NOT EXISTS )?" + NAME + rb"\s*\(")
_COLUMN = re.compile(rb"^\s+" + NAME + rb"\s+([A-Za-z0-9]+)", re.MULTILINE)
_PRIMARY_KEY = re.compile(rb"^\s+PRIMARY KEY \(([^)]*)\)", re.MULTILINE)
NAMES = re.compile(NAME)

#: A whole value. Nothing in it can be taken for the end of it, so a match that fails does so at once.
_TEXT = rb"'[^'\\]*(?:\\[\s\S][^'\\]*)*'"
_PLAIN = rb"[^'\",()\\\s]+"
VALUE = rb"(?:(?:_[a-z0-9]+ ?)?" + _TEXT + rb"|" + _PLAIN + rb")"

_ESCAPED = re.compile(rb"\\([\s\S])|''")
_ESCAPES = {b"0": b"\0", b"n": b"\n", b"r": b"\r", b"t": b"\t", b"b": b"\b", b"Z": b"\x1a", b"%": b"\\%", b"_": b"\\_"}


@dataclass(frozen=True)
class Column:
    """A column and the first word of its type, in small letters."""

    name: str
    type: str


@dataclass(frozen=True)
class Table:
    """A table as its CREATE TABLE tells it."""

    name: str
    columns: Tuple[Column, ...]
    primary_key: Tuple[str, ...]

    @property
    def short_columns(self) -> Tuple[Column, ...]:
        """The columns whose values can be kept."""
        return tuple(column for column in self.columns if column.type not in LONG_TYPES)


def parse_table(statement: bytes) -> Table:
    """Read a CREATE TABLE statement. Raises DatabaseError."""
    head = CREATE_TABLE.match(statement)
    if head is None:
        raise unreadable("a CREATE TABLE", statement)
    columns = tuple(
        Column(unquoted(match.group(1)), match.group(2).decode("ascii").lower())
        for match in _COLUMN.finditer(statement, head.end())
    )
    key = _PRIMARY_KEY.search(statement)
    names = tuple(unquoted(match.group(1)) for match in NAMES.finditer(key.group(1))) if key else ()
    return Table(unquoted(head.group(1)), columns, names)


def parse_value(text: bytes) -> Value:
    """Return the value of a literal."""
    if text[0] == 0x27 and b"\\" not in text:
        return text[1:-1]
    start = text.find(b"'")
    return plain_value(text) if start < 0 else unescaped(text[start + 1 : -1])


def plain_value(text: bytes) -> Value:
    if text == b"NULL":
        return None
    if text[:2] == b"0x":
        return bytes.fromhex(text[2:].decode("ascii"))
    return text


def unescaped(text: bytes) -> bytes:
    if b"\\" not in text and b"'" not in text:
        return text
    return _ESCAPED.sub(lambda found: _ESCAPES.get(found.group(1), found.group(1)) if found.group(1) else b"'", text)


def unquoted(name: bytes) -> str:
    return name.replace(b"``", b"`").decode("utf-8", "surrogateescape")


def unreadable(what: str, text: bytes) -> DatabaseError:
    return DatabaseError(
        "the dump cannot be read at {0}: {1!r}; it is not one of mysqldump or mariadb-dump, or it is damaged".format(
            what, text[:60].decode("utf-8", "replace")
        )
    )


_PATTERNS: Dict[Tuple[int, Tuple[int, ...]], Pattern[bytes]] = {}


def row_pattern(width: int, wanted: Collection[int]) -> Pattern[bytes]:
    """Return what matches a row of so many values: a group for each that is wanted, and one for what comes after."""
    key = width, tuple(sorted(set(wanted)))
    if key not in _PATTERNS:
        values: Set[int] = set(wanted)
        texts = [b"(" + VALUE + b")" if number in values else VALUE for number in range(width)]
        _PATTERNS[key] = re.compile(rb"\s*\(" + b",".join(texts) + rb"\)\s*([,;])")
    return _PATTERNS[key]
