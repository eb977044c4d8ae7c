# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A dump of PostgreSQL without a server: its rows, read from the SQL that pg_restore makes of it on the controller."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass

from ansible_collections.papermerge.backup.plugins.module_utils.database.collected import (
    TEXT,
    CollectedView,
    collected_columns,
    collected_tables,
)
from ansible_collections.papermerge.backup.plugins.module_utils.database.place import DatabasePlace
from ansible_collections.papermerge.backup.plugins.module_utils.database.postgresql.archive import read_head
from ansible_collections.papermerge.backup.plugins.module_utils.database.postgresql.programs import (
    client_of,
    restore_tool,
)
from ansible_collections.papermerge.backup.plugins.module_utils.errors import DamageError, ToolError
from ansible_collections.papermerge.backup.plugins.module_utils.papermerge.releases import ReleaseLine
from ansible_collections.papermerge.backup.plugins.module_utils.papermerge.tree import DocumentTree

_BEGIN = re.compile(rb'COPY ("(?:[^"]|"")*"|[^".\s]+)\.("(?:[^"]|"")*"|[^".\s]+) \((.*)\) FROM stdin;\n')
_NAME = re.compile(rb'"((?:[^"]|"")*)"|([^",\s]+)')
_END = b"\\.\n"
_ESCAPED = re.compile(rb"\\(.)", re.DOTALL)
_ESCAPES = {b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t", b"v": b"\v"}
ROWS_BATCH = 2000


@dataclass(frozen=True)
class Wanted:
    """What is wanted of a dump but counts and version rows: titles and owners, by the queries of ``tree``.

    ``needles``: of tables that grow with the documents only rows with one of these texts are needed, as COPY writes
    them; None: all.
    """

    tree: DocumentTree
    needles: tuple[bytes, ...] | None = None

    def needles_of(self, table: str) -> tuple[bytes, ...] | None:
        return self.needles if table in self.tree.growing else None


def read_archive(
    content: Iterator[bytes], name: str, line: ReleaseLine, schemas: list[str], wanted: Wanted | None = None
) -> CollectedView:
    """Return what a dump holds; the caller closes it. Memory stays flat.

    ``schemas``: where tables are looked for by their bare name, first of all; empty where nobody knows. With ``wanted``
    nothing of any other table is read.
    Raises ToolError where no pg_restore reads the dump, DamageError when it stops at an error.
    """
    tree = wanted.tree if wanted is not None else None
    client = client_of(DatabasePlace("postgresql"))
    head, pieces = read_head(content)
    try:
        tool = restore_tool(client, head.reader, 0)
    except ToolError as error:
        raise ToolError(
            f"{name} is read without a server, with pg_restore on the controller: {error.message}"
        ) from None
    view = CollectedView(name)
    problems: list[BaseException] = []
    try:
        only = [f"--table={table}" for table in sorted(collected_tables(line, tree))] if tree is not None else []
        with client.start([tool.path, "--data-only", "--file=-", *only]) as run:

            def feed() -> None:
                try:
                    for piece in pieces:
                        if not run.write(piece):
                            break
                except BaseException as error:  # raised in the thread that reads
                    problems.append(error)
                run.close_input()

            feeder = threading.Thread(target=feed, daemon=True)
            feeder.start()
            _Script(view, line, schemas, wanted).read(run.output())
            feeder.join()
            if problems:
                raise problems[0]
            view.index()
            status = run.finish()
            if status != 0:
                raise DamageError(f"pg_restore cannot read {name}: {run.complaint or f'status {status}'}")
    except BaseException:
        view.close()
        raise
    return view


class _Script:
    """Reads a script of pg_restore: the lines of its COPY blocks are counted, those that matter kept."""

    def __init__(self, view: CollectedView, line: ReleaseLine, schemas: list[str], wanted: Wanted | None) -> None:
        self._view = view
        self._line = line
        self._wanted = wanted
        self._tree = wanted.tree if wanted is not None else None
        self._kept = collected_tables(line, self._tree)
        self._schemas = schemas
        self._ranks: dict[str, int] = {}

    def read(self, pieces: Iterator[bytes]) -> None:
        stream = _Lines(pieces)
        while (text := stream.line()) is not None:
            begin = _BEGIN.fullmatch(text)
            if begin is None:
                continue
            schema, table = _plain(begin.group(1)), _plain(begin.group(2))
            rank = self._schemas.index(schema) if schema in self._schemas else len(self._schemas)
            if (self._schemas and rank == len(self._schemas)) or self._ranks.get(table, rank + 1) <= rank:
                # Nothing that Papermerge would find by this name.
                stream.count_block()
            elif table in self._kept:
                self._ranks[table] = rank
                self._view.counts[table] = self._keep(
                    table, [_unquoted(found) for found in _NAME.finditer(begin[3])], stream
                )
            else:
                self._ranks[table] = rank
                self._view.counts[table] = stream.count_block()

    def _keep(self, table: str, columns: list[str], stream: _Lines) -> int:
        wanted = collected_columns(self._line, columns, self._tree)
        numbers = [columns.index(column) for column in wanted]
        self._view.add_table(table, dict.fromkeys(wanted, TEXT), ("id",) if self._tree and "id" in wanted else ())
        count, rows = 0, []
        needles = self._wanted.needles_of(table) if self._wanted is not None else None
        for text in stream.block() if needles is None else stream.block_with(needles):
            fields = text[:-1].split(b"\t")
            if b"\\" in text:
                rows.append([_value(fields[number]) for number in numbers])
            else:
                rows.append([fields[number] for number in numbers])
            count += 1
            if len(rows) == ROWS_BATCH:
                self._view.add_rows(table, tuple(wanted), rows)
                rows = []
        self._view.add_rows(table, tuple(wanted), rows)
        return count


class _Lines:
    """Lines of a stream, and blocks of them that nobody looks at."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._buffer = b""
        self._position = 0

    def _more(self) -> bool:
        piece = next(self._pieces, b"")
        self._buffer = self._buffer[self._position :] + piece
        self._position = 0
        return bool(piece)

    def line(self) -> bytes | None:
        """Return the next line with its end, None after the last."""
        while True:
            end = self._buffer.find(b"\n", self._position)
            if end >= 0:
                text = self._buffer[self._position : end + 1]
                self._position = end + 1
                return text
            if not self._more():
                return None

    def block(self) -> Iterator[bytes]:
        """Yield the rows of a COPY up to their end, as lines. Raises DamageError."""
        while (text := self.line()) != _END:
            if text is None:
                raise DamageError("the rows of a table end in the middle")
            yield text

    def block_with(self, needles: tuple[bytes, ...]) -> Iterator[bytes]:
        """Yield those rows of a COPY that have one of these texts in them, without a look at the others."""
        while True:
            begin = self._position
            if self._buffer.startswith(_END, begin):
                self._position += len(_END)
                return
            end = self._buffer.find(b"\n" + _END, begin)
            stop = end + 1 if end >= 0 else self._buffer.rfind(b"\n", begin) + 1
            if stop > begin:
                buffer, self._position = self._buffer, stop
                for start in sorted(_line_starts(buffer, needles, begin, stop)):
                    yield buffer[start : buffer.find(b"\n", start) + 1]
            elif not self._more():
                raise DamageError("the rows of a table end in the middle")

    def count_block(self) -> int:
        """Skip the rows of a COPY up to their end. Returns their number. Raises DamageError."""
        count, at_line_start = 0, True
        while True:
            buffer = self._buffer
            if at_line_start and buffer.startswith(_END, self._position):
                self._position += len(_END)
                return count
            end = buffer.find(b"\n" + _END, self._position)
            if end >= 0:
                count += buffer.count(b"\n", self._position, end + 1)
                self._position = end + 1 + len(_END)
                return count
            # What may be the begin of the end stays.
            last = max(self._position, len(buffer) - len(_END))
            if last > self._position:
                count += buffer.count(b"\n", self._position, last)
                at_line_start = buffer[last - 1 : last] == b"\n"
                self._position = last
            if not self._more():
                raise DamageError("the rows of a table end in the middle")


def _line_starts(buffer: bytes, needles: tuple[bytes, ...], begin: int, stop: int) -> set[int]:
    """Return where the lines between two places begin that have one of these texts in them."""
    found = set()
    for needle in needles:
        place = buffer.find(needle, begin, stop)
        while place >= 0:
            found.add(max(buffer.rfind(b"\n", begin, place) + 1, begin))
            place = buffer.find(needle, buffer.find(b"\n", place) + 1, stop)
    return found


def copied(text: str) -> bytes:
    """Return a text as COPY writes it."""
    data = text.encode("utf-8", "surrogateescape").replace(b"\\", b"\\\\")
    for letter, char in _ESCAPES.items():
        data = data.replace(char, b"\\" + letter)
    return data


def _plain(name: bytes) -> str:
    found = _NAME.fullmatch(name)
    return name.decode("utf-8", "surrogateescape") if found is None else _unquoted(found)


def _unquoted(found: re.Match[bytes]) -> str:
    text = found.group(2) if found.group(1) is None else found.group(1).replace(b'""', b'"')
    return text.decode("utf-8", "surrogateescape")


def _value(field: bytes) -> bytes | None:
    if field == b"\\N":
        return None
    if b"\\" not in field:
        return field
    return _ESCAPED.sub(lambda match: _ESCAPES.get(match.group(1), match.group(1)), field)
