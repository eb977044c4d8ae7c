# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A conversation with a MariaDB or MySQL server through its own client program as a co-process.

Answers come as the client's XML (``--xml``): there a text is never taken for NULL, and no value can look like the
end of the answer.
"""

from __future__ import annotations

import contextlib
import html
import os
import re
from typing import Any, Iterator, List, Optional, Tuple

from ...errors import BackupError
from ..place import DatabasePlace
from ..view import View
from .client import MARIADB, MAX_PACKET, MYSQL, NET_SECONDS, MysqlClient, explain, requires_tls

Row = Tuple[Optional[str], ...]

READ_BYTES = 1 << 16
#: Settings of a session of ours: predictable quoting, and no limit that would end a long reading.
SESSION_SETTINGS = (
    "set session sql_mode = '', net_write_timeout = {0}, net_read_timeout = {0}, wait_timeout = {0},"
    " lock_wait_timeout = 60".format(NET_SECONDS)
)
#: The limit of a statement's time, which each flavour calls otherwise.
_TIME_LIMITS = {MARIADB: "max_statement_time", MYSQL: "max_execution_time"}

_ROW_END = b"</row>"
_ANSWER_END = b"</resultset>"
_FIELD = re.compile(rb'<field name="[^"]*"(?: xsi:nil="true" />|>([^<]*)</field>)')


def quote_name(name: str) -> str:
    """Return an identifier as SQL has it."""
    return "`{0}`".format(name.replace("`", "``"))


def quote_text(text: str) -> str:
    """Return a literal as SQL has it in a session of ours."""
    return "'{0}'".format(text.replace("\\", "\\\\").replace("'", "''"))


def parse_row(text: bytes) -> Row:
    """Return the values of a ``<row>`` of the client's XML."""
    return tuple(
        None if field is None else _unescaped(field) for field in (match.group(1) for match in _FIELD.finditer(text))
    )


def _unescaped(field: bytes) -> str:
    text = field.decode("utf-8", "surrogateescape")
    return html.unescape(text) if "&" in text else text


class Session:
    """One connection. Raises what :func:`explain` makes of the client's complaint. To be closed.

    ``database``: the schema in use; empty for none.
    """

    def __init__(self, place: DatabasePlace, database: Optional[str] = None) -> None:
        self.place = place
        self._stack = contextlib.ExitStack()
        client = MysqlClient(place)
        program = client.shell_program()
        arguments = [
            "--batch",
            "--xml",
            "--quick",
            "--unbuffered",
            "--binary-mode",
            "--skip-reconnect",
            "--default-character-set=utf8mb4",
            "--max-allowed-packet={0}".format(MAX_PACKET),
        ]
        name = place.name if database is None else database
        if name:
            arguments.append("--database=" + name)
        self._program = self._stack.enter_context(client.start(program, arguments))
        try:
            self.version_words = self.value("select version()")
            self.flavour = MARIADB if "mariadb" in self.version_words.lower() else MYSQL
            if requires_tls(place) and not self.row("show session status like 'Ssl_cipher'")[1]:
                raise explain(place, "read", "TLS/SSL error: the server has no TLS, which the URL requires")
            self.execute(SESSION_SETTINGS)
            self.execute("set session {0} = 0".format(_TIME_LIMITS[self.flavour]))
        except BaseException:
            self.close()
            raise

    @property
    def version(self) -> Tuple[int, int]:
        """The server's major and minor version."""
        # Old MariaDB servers put 5.5.5- before their own, for replicas that knew no version of two digits.
        words = re.sub(r"^5\.5\.5-", "", self.version_words)
        major, minor = words.split(".")[:2]
        return int(major), int(re.match(r"\d*", minor).group() or 0)  # type: ignore[union-attr]

    def execute(self, statement: str) -> None:
        """Run a statement that answers nothing."""
        for _row in self._answer("{0};\nselect 1".format(statement)):
            pass

    def rows(self, query: str) -> Iterator[Row]:
        """Yield the rows of a query, streamed. To be read to the end."""
        return self._answer(query)

    def row(self, query: str) -> Row:
        """Return the only row of a query."""
        (found,) = self.rows(query)
        return found

    def value(self, query: str) -> str:
        """Return the only value of a query; empty for null."""
        return self.row(query)[0] or ""

    def column(self, query: str) -> List[str]:
        """Return the first value of each row of a query."""
        return [row[0] or "" for row in self.rows(query)]

    def _answer(self, statement: str) -> Iterator[Row]:
        if not self._program.write((statement + ";\n").encode("utf-8", "surrogateescape")):
            raise self._ended()
        rest = b""
        while True:
            piece = os.read(self._program.stdout.fileno(), READ_BYTES)
            if not piece:
                raise self._ended()
            rows = (rest + piece).split(_ROW_END)
            rest = rows.pop()
            for row in rows:
                yield parse_row(row)
            if _ANSWER_END in rest:
                return

    def _ended(self) -> BackupError:
        status = self._program.finish()
        return explain(self.place, "read", self._program.complaint or "the client ended with status {0}".format(status))

    def close(self) -> None:
        self._stack.close()

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()


def open_moment(session: Session) -> None:
    """Begin a transaction that sees one moment."""
    session.execute("set session transaction isolation level repeatable read")
    session.execute("start transaction with consistent snapshot")


class MysqlView(View):
    """What a transaction of a session of its own sees."""

    def __init__(self, place: DatabasePlace, database: Optional[str] = None) -> None:
        self.name = place.url
        self._session = Session(place, database)
        try:
            open_moment(self._session)
        except BaseException:
            self._session.close()
            raise

    def rows(self, query: str) -> Iterator[Tuple[Any, ...]]:
        return self._session.rows(query)

    def tables(self) -> Tuple[str, ...]:
        return tuple(tables_of(self._session))

    def quoted(self, table: str) -> str:
        return quote_name(table)

    def close(self) -> None:
        self._session.close()


def tables_of(session: Session) -> List[str]:
    """Return the names of the tables of the schema in use, sorted."""
    return sorted(
        session.column(
            "select table_name from information_schema.tables"
            " where table_schema = database() and table_type in ('BASE TABLE', 'SYSTEM VERSIONED')"
        )
    )
