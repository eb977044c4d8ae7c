# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads a dump of mysqldump as it passes: its tables, the number of their rows, and the values of some of them.

What is understood is what mysqldump and mariadb-dump write with their default quoting, not SQL at large.
Memory stays flat: a value that nobody wants is never held, nor is a row that does not fit into the buffer.
"""

from __future__ import annotations

import re
from typing import Callable, Collection, Dict, Generator, List, Optional, Set, Tuple

from ...errors import DatabaseError
from .literals import (
    NAME,
    NAMES,
    VALUE,
    Row,
    Table,
    Value,
    parse_table,
    parse_value,
    plain_value,
    row_pattern,
    unescaped,
    unquoted,
    unreadable,
)

#: Takes rows of a table: the names of the columns that it gets, and their values.
Store = Callable[["Table", Tuple[str, ...], List[Row]], None]

#: So much is collected before it is looked at, and so much of a row may be held.
READ_BYTES = 1 << 18
ROW_BYTES = 1 << 16
#: Rows that are handed on at once.
ROWS_BATCH = 500
#: So much of a statement tells what it is.
HEAD_BYTES = 400
#: The last words of a dump that is whole.
COMPLETE = b"-- Dump completed"
#: MariaDB puts this before a dump, where its end of statement is missing; older clients cannot read it.
SANDBOX = re.compile(rb"/\*M?!999999\\- enable the sandbox mode \*/[ ]*\n?")

_SPACE = re.compile(rb"\s*")
_INSERT = re.compile(rb"INSERT (?:IGNORE )?INTO " + NAME + rb"\s*(\((?:\s*`(?:[^`]|``)+`\s*,?)+\))?\s*VALUES?\s*")
_DELIMITER = re.compile(rb"DELIMITER[ \t]+(\S+)[ \t]*\r?\n")
#: What a dump may hold besides tables. A view's placeholder is a table in dumps of old programs.
_OBJECT = re.compile(
    rb"(?:/\*M?!\d+ )?CREATE\b(?:(?!\bAS\b|\bBEGIN\b)[\s\S])*?"
    rb"\b(VIEW|TRIGGER|PROCEDURE|FUNCTION|PACKAGE|EVENT|SEQUENCE|TABLE)\b",
    re.IGNORECASE,
)
_OBJECT_KINDS = {b"TABLE": "view", b"PACKAGE": "routine", b"PROCEDURE": "routine", b"FUNCTION": "routine"}
#: A statement that would leave the schema that the dump is loaded into.
_ELSEWHERE = re.compile(
    rb"(?:/\*M?!\d+\s*)?(?:USE|(?:CREATE|DROP|ALTER)\s+(?:/\*!\d+ [^*]*\*/\s*)?(?:DATABASE|SCHEMA))\b", re.I
)

_COUNTED_ROW = re.compile(rb"\s*\(" + VALUE + rb"(?:," + VALUE + rb")*\)\s*([,;])")
_INTRODUCER = re.compile(rb"_[a-z0-9]+\s*(?=')")
_PLAIN_PIECE = re.compile(rb"[^'\",()\\\s]*")

_Steps = Generator[None, bytes, None]


class DumpReader:
    """Takes a dump in pieces (:meth:`feed`), and tells at the end (:meth:`finish`) whether it was whole.

    ``kept``: names of tables whose rows go to ``store``, without their long columns. ``counts``: the number of rows of
    each table so far. ``objects``: which it holds of view, trigger, routine, event, sequence. ``passed``: so many bytes
    were understood; what follows has only been taken. ``home``: refuse what would leave the schema that the dump is
    loaded into. Raises DatabaseError.
    """

    def __init__(self, kept: Collection[str] = (), store: Optional[Store] = None, home: bool = False) -> None:
        self.counts: Dict[str, int] = {}
        self.objects: Set[str] = set()
        self.passed = 0
        self._tables: Dict[str, Table] = {}
        self._kept = frozenset(kept)
        self._store = store
        self._home = home
        self._buffer = b""
        self._position = 0
        self._ended = False
        self._delimiter = b";"
        self._comment = b""
        #: Pieces of a statement that is wanted whole, and where it goes on in the buffer.
        self._record: Optional[List[bytes]] = None
        self._mark = 0
        self._waiting: List[bytes] = []
        self._waiting_bytes = 0
        self._steps = self._statements()
        next(self._steps)

    @property
    def kept_tables(self) -> List[Table]:
        """The tables whose rows are kept, also those without any."""
        return [table for name, table in sorted(self._tables.items()) if name in self._kept]

    def feed(self, data: bytes) -> None:
        """Take the next piece of the dump."""
        self._waiting.append(data)
        self._waiting_bytes += len(data)
        if self._waiting_bytes >= READ_BYTES:
            self._look()

    def flush(self) -> None:
        """Look at everything that was fed."""
        if self._waiting_bytes:
            self._look()

    def _look(self) -> None:
        data = b"".join(self._waiting)
        self._waiting, self._waiting_bytes = [], 0
        self._steps.send(data)

    def finish(self) -> None:
        """Take the end of the dump. Raises DatabaseError when it is not whole."""
        self.flush()
        try:
            self._steps.send(b"")
        except StopIteration:
            self.passed += self._position
        if not self._comment.startswith(COMPLETE):
            raise DatabaseError(
                "the dump ends without its last line ({0!r}): it was cut off".format(COMPLETE.decode("ascii"))
            )

    # -- the buffer ---------------------------------------------------------------------------------------------------

    def _more(self) -> _Steps:
        """Wait for more data; what is before the position is forgotten."""
        if self._record is not None:
            self._record.append(self._buffer[self._mark : self._position])
            self._mark = 0
        self._buffer = self._buffer[self._position :]
        self.passed += self._position
        self._position = 0
        data = yield
        self._buffer += data
        self._ended = not data

    def _ahead(self, size: int) -> _Steps:
        """Wait until so many bytes lie ahead, or the end."""
        while len(self._buffer) - self._position < size and not self._ended:
            yield from self._more()

    def _space(self) -> _Steps:
        """Skip white space, and wait for what comes after."""
        while True:
            self._position = _SPACE.match(self._buffer, self._position).end()  # type: ignore[union-attr]
            if self._position < len(self._buffer) or self._ended:
                return
            yield from self._more()

    def _cut_off(self) -> DatabaseError:
        return DatabaseError("the dump ends within a statement: it was cut off")

    # -- statements ---------------------------------------------------------------------------------------------------

    def _statements(self) -> _Steps:
        yield from self._more()
        while True:
            yield from self._space()
            yield from self._ahead(HEAD_BYTES)
            buffer, position = self._buffer, self._position
            if position == len(buffer):
                return
            if buffer.startswith(b"--", position):
                yield from self._line()
                continue
            sandbox = SANDBOX.match(buffer, position)
            if sandbox:
                self._position = sandbox.end()
                continue
            if buffer.startswith(b"/*", position) and buffer[position + 2 : position + 3] not in (b"!", b"M"):
                yield from self._skip_to(b"*/", 2)
                continue
            # Words after the last line: the last line was not the end.
            self._comment = b""
            delimiter = _DELIMITER.match(buffer, position)
            if delimiter:
                self._delimiter = delimiter.group(1)
                self._position = delimiter.end()
                continue
            if self._delimiter == b";":
                if buffer.startswith(b"INSERT ", position):
                    yield from self._insert()
                    continue
                if buffer.startswith(b"CREATE TABLE ", position):
                    yield from self._create_table()
                    continue
            self._look_at(buffer[position : position + HEAD_BYTES])
            yield from self._statement()

    def _line(self) -> _Steps:
        """Skip a comment, of which the begin is remembered: the last one tells whether the dump is whole."""
        self._comment = self._buffer[self._position : self._position + len(COMPLETE)]
        yield from self._skip_to(b"\n", 0)

    def _skip_to(self, end: bytes, start: int) -> _Steps:
        """Skip to behind the next ``end``, or to the end of everything."""
        self._position += start
        while True:
            found = self._buffer.find(end, self._position)
            if found >= 0:
                self._position = found + len(end)
                return
            if self._ended:
                self._position = len(self._buffer)
                return
            self._position = max(self._position, len(self._buffer) - len(end) + 1)
            yield from self._more()

    def _look_at(self, head: bytes) -> None:
        """Remember what is not a table; refuse what is not for the schema that the dump is loaded into."""
        if self._home and _ELSEWHERE.match(head):
            raise DatabaseError(
                "the dump has a statement for another database ({0!r}); only a dump of one database, made without "
                "--databases, can be restored".format(head[:60].decode("utf-8", "replace"))
            )
        found = _OBJECT.match(head)
        if found:
            word = found.group(1).upper()
            self.objects.add(_OBJECT_KINDS.get(word, word.decode("ascii").lower()))

    def _statement(self) -> _Steps:
        """Skip a statement and its delimiter."""
        interesting = re.compile(rb"['\"`#]|--(?=\s)|/\*(?!M?!)|" + re.escape(self._delimiter))
        while True:
            found = interesting.search(self._buffer, self._position)
            near = len(self._buffer) - len(self._delimiter) - 4
            if not self._ended and (found is None or found.start() > near):
                self._position = max(self._position, found.start() if found else near)
                yield from self._more()
                continue
            if found is None:
                raise self._cut_off()
            self._position, token = found.end(), found.group()
            if token == self._delimiter:
                return
            if token in (b"'", b'"'):
                yield from self._string(token, None)
            elif token == b"`":
                yield from self._skip_to(b"`", 0)
            else:
                yield from self._skip_to(b"*/" if token == b"/*" else b"\n", 0)

    def _create_table(self) -> _Steps:
        self._record, self._mark = [], self._position
        yield from self._statement()
        self._record.append(self._buffer[self._mark : self._position])
        statement, self._record = b"".join(self._record), None
        table = parse_table(statement)
        self._tables[table.name] = table
        self.counts.setdefault(table.name, 0)

    # -- rows ---------------------------------------------------------------------------------------------------------

    def _insert(self) -> _Steps:
        while True:
            head = _INSERT.match(self._buffer, self._position)
            if head and head.end() < len(self._buffer):
                break
            if self._ended or len(self._buffer) - self._position > READ_BYTES:
                raise unreadable("an INSERT", self._buffer[self._position :])
            yield from self._more()
        name = unquoted(head.group(1))
        listed = [unquoted(match.group(1)) for match in NAMES.finditer(head.group(2) or b"")]
        self._position = head.end()
        table = self._tables.get(name)
        if name not in self._kept or self._store is None:
            count = yield from self._count_rows()
        elif table is None:
            raise DatabaseError("the dump has rows of table {0} and does not tell its columns".format(name))
        else:
            count = yield from self._keep_rows(table, listed or [column.name for column in table.columns], self._store)
        self.counts[name] = self.counts.get(name, 0) + count

    def _count_rows(self) -> Generator[None, bytes, int]:
        count = 0
        match = _COUNTED_ROW.match
        while True:
            found = match(self._buffer, self._position)
            if found is not None:
                end = found.group(1)
                self._position = found.end()
            elif len(self._buffer) - self._position < ROW_BYTES and not self._ended:
                yield from self._more()
                continue
            else:
                end = yield from self._row(frozenset(), [])
            count += 1
            if end == b";":
                return count

    def _keep_rows(self, table: Table, names: List[str], store: Store) -> Generator[None, bytes, int]:
        short = {column.name for column in table.short_columns}
        wanted = frozenset(number for number, name in enumerate(names) if name in short)
        columns = tuple(names[number] for number in sorted(wanted))
        match = row_pattern(len(names), wanted).match
        count, rows = 0, []
        while True:
            found = match(self._buffer, self._position)
            if found is not None:
                *texts, end = found.groups()
                rows.append(tuple(map(parse_value, texts)))
                self._position = found.end()
            elif len(self._buffer) - self._position < ROW_BYTES and not self._ended:
                yield from self._more()
                continue
            else:
                values: List[Value] = []
                end = yield from self._row(wanted, values)
                if len(values) != len(columns):
                    raise unreadable("a row of table {0}".format(table.name), self._buffer[self._position :])
                rows.append(tuple(values))
            count += 1
            if len(rows) >= ROWS_BATCH or end == b";":
                store(table, columns, rows)
                rows = []
            if end == b";":
                return count

    def _row(self, wanted: Collection[int], values: List[Value]) -> Generator[None, bytes, bytes]:
        """Read a row value by value: it is longer than what is held. Returns the comma or semicolon after it."""
        yield from self._expect(b"(")
        number = 0
        while True:
            pieces: Optional[List[bytes]] = [] if number in wanted else None
            yield from self._value(pieces, values)
            number += 1
            if (yield from self._expect(b",)")) == b")":
                break
        return (yield from self._expect(b",;"))

    def _expect(self, letters: bytes) -> Generator[None, bytes, bytes]:
        yield from self._space()
        found = self._buffer[self._position : self._position + 1]
        if not found:
            raise self._cut_off()
        if found not in letters:
            raise unreadable("a row", self._buffer[self._position :])
        self._position += 1
        return found

    def _value(self, pieces: Optional[List[bytes]], values: List[Value]) -> _Steps:
        yield from self._space()
        yield from self._ahead(32)
        introducer = _INTRODUCER.match(self._buffer, self._position)
        if introducer:
            self._position = introducer.end()
        if self._buffer.startswith(b"'", self._position):
            self._position += 1
            yield from self._string(b"'", pieces)
            if pieces is not None:
                values.append(unescaped(b"".join(pieces)))
            return
        size = 0
        while True:
            found = _PLAIN_PIECE.match(self._buffer, self._position)
            if found is None:
                raise unreadable("a value", self._buffer[self._position :])
            size += len(found.group())
            if pieces is not None:
                pieces.append(found.group())
            self._position = found.end()
            if self._position < len(self._buffer) or self._ended:
                break
            yield from self._more()
        if not size:
            raise unreadable("a row", self._buffer[self._position :])
        if pieces is not None:
            values.append(plain_value(b"".join(pieces)))

    def _string(self, quote: bytes, pieces: Optional[List[bytes]]) -> _Steps:
        """Read a string to behind its closing quote; the position is behind the opening one."""
        letter = quote[0]
        start = scan = self._position
        while True:
            buffer = self._buffer
            end = buffer.find(quote, scan)
            stop = end if end >= 0 else len(buffer)
            run = stop
            while run > start and buffer[run - 1] == 0x5C:
                run -= 1
            escaped = (stop - run) % 2 == 1
            if end >= 0 and escaped:
                if pieces is not None:
                    pieces.append(buffer[start : end + 1])
                scan = start = end + 1
                continue
            if end >= 0 and (end + 1 < len(buffer) or self._ended):
                if end + 1 < len(buffer) and buffer[end + 1] == letter:
                    # A quote that is doubled is one within.
                    if pieces is not None:
                        pieces.append(buffer[start : end + 2])
                    scan = start = end + 2
                    continue
                if pieces is not None:
                    pieces.append(buffer[start:end])
                self._position = end + 1
                return
            if self._ended:
                raise self._cut_off()
            # An odd backslash at the end, or a quote that may be doubled, is looked at with what follows.
            kept = stop - 1 if end < 0 and escaped else stop
            if pieces is not None:
                pieces.append(buffer[start:kept])
            self._position = kept
            yield from self._more()
            start = scan = 0
