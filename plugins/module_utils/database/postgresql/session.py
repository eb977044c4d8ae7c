# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A conversation with a PostgreSQL server: through psycopg2, or through psql as a co-process.

Every answer comes by ``COPY (query) TO STDOUT`` in text format
(https://www.postgresql.org/docs/current/sql-copy.html#id-1.9.3.55.9.2), so that both ways give the same values and rows
are streamed.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import threading
from abc import ABC, abstractmethod
from typing import Any, Dict, Iterator, List, Optional, Tuple

from ...errors import BackupError, ToolError
from ..client import Client
from ..place import DatabasePlace
from .messages import explain
from .programs import APPLICATION, CONNECT_SECONDS, LIBPQ_OPTIONS, client_of

try:
    import psycopg2
except ImportError:
    psycopg2 = None  # type: ignore[assignment]

Row = Tuple[Optional[str], ...]

#: What a role or a database may have set otherwise, and what a session of ours needs: no limit that would end a long
#: dump, all rows or an error, and rights to write where a restore has to. A server skips what it does not know.
SETTINGS: Dict[str, str] = {
    "statement_timeout": "0",
    "lock_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "idle_session_timeout": "0",
    "transaction_timeout": "0",
    "row_security": "off",
    "default_transaction_read_only": "off",
    "standard_conforming_strings": "on",
}
#: No conversion from or to this one exists, and a server still checks what it sends as anything else.
NO_ENCODING = "SQL_ASCII"

_ESCAPES = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "\\": "\\"}
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)


def quote_name(name: str) -> str:
    """Return an identifier as SQL has it."""
    return '"{0}"'.format(name.replace('"', '""'))


def quote_text(text: str) -> str:
    """Return a literal as SQL has it, whatever standard_conforming_strings says."""
    escaped = text.replace("'", "''")
    return "E'{0}'".format(escaped.replace("\\", "\\\\")) if "\\" in escaped else "'{0}'".format(escaped)


def parse_copy_line(line: bytes) -> Row:
    r"""Return the values of a line of COPY's text format; ``\N`` is None."""
    return tuple(
        None
        if field == "\\N"
        else field
        if "\\" not in field
        else _ESCAPED.sub(lambda match: _ESCAPES.get(match.group(1), match.group(1)), field)
        for field in line.decode("utf-8", "surrogateescape").split("\t")
    )


class Session(ABC):
    """One connection. Raises what :func:`explain` makes of the server's answer."""

    def __init__(self, place: DatabasePlace) -> None:
        self.place = place

    @abstractmethod
    def execute(self, statement: str) -> None:
        """Run a statement that answers nothing."""

    @abstractmethod
    def lines(self, query: str) -> Iterator[bytes]:
        """Yield the lines of a query's answer in COPY's text format. To be read to the end."""

    @abstractmethod
    def close(self) -> None:
        """End the connection."""

    def rows(self, query: str) -> Iterator[Row]:
        """Yield the rows of a query. To be read to the end."""
        for line in self.lines(query):
            yield parse_copy_line(line)

    def row(self, query: str) -> Row:
        """Return the only row of a query."""
        (found,) = self.rows(query)
        return found

    def value(self, query: str) -> str:
        """Return the only value of a query; empty for null."""
        return self.row(query)[0] or ""

    @property
    def version(self) -> int:
        """The server's version as a number such as 150018."""
        return int(self.value("select current_setting('server_version_num')"))

    def settle_in(self) -> None:
        """Set what a session of ours needs, whatever its role or database has set."""
        # First of all, because the rest takes its time.
        self.execute("set statement_timeout = 0")
        wanted = ", ".join("('{0}', '{1}')".format(*item) for item in SETTINGS.items())
        # Known settings only; set_config with false holds for the whole session.
        query = (
            "select set_config(s.name, w.value, false) from (values {0}) w (name, value)"
            " join pg_settings s on s.name = w.name where s.setting <> w.value".format(wanted)
        )
        for _row in self.rows(query):
            pass
        if self.value("select getdatabaseencoding()") == NO_ENCODING:
            self.execute("set client_encoding to '{0}'".format(NO_ENCODING))

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()


class PsqlSession(Session):
    """psql as a co-process: statements go to its input, a marker that it echoes ends each answer."""

    def __init__(self, place: DatabasePlace, client: Client, psql: str) -> None:
        super().__init__(place)
        options = ["-X", "-q", "-A", "-t", "-w", "-v", "ON_ERROR_STOP=1", "-f", "-"]
        self._program = client.start([psql] + options, more={"PGCLIENTENCODING": "UTF8"})
        self._marker = "end-of-answer-" + secrets.token_hex(16)
        try:
            self.settle_in()
        except BaseException:
            self.close()
            raise

    def execute(self, statement: str) -> None:
        for _line in self._answer(statement):
            pass

    def lines(self, query: str) -> Iterator[bytes]:
        return self._answer("copy ({0}) to stdout".format(query))

    def _answer(self, statement: str) -> Iterator[bytes]:
        request = "{0};\n\\echo {1}\n".format(statement, self._marker)
        if self._program.stdin.closed or not self._program.write(request.encode("utf-8", "surrogateescape")):
            raise self._ended()
        end, rest = self._marker.encode("ascii"), b""
        whole = False
        try:
            while not whole:
                piece = os.read(self._program.stdout.fileno(), 1 << 16)
                if not piece:
                    raise self._ended()
                lines = (rest + piece).split(b"\n")
                rest = lines.pop()
                for line in lines:
                    if line == end:
                        whole = True
                        break
                    yield line
        finally:
            if not whole:
                # What is left of the answer must not become the next one.
                self._program.stop()

    def _ended(self) -> BackupError:
        self._program.finish()
        return explain(self.place, "read", self._program.complaint or "psql has closed the connection")

    def close(self) -> None:
        self._program.stop()


class Psycopg2Session(Session):
    """The server reached from this Python."""

    def __init__(self, place: DatabasePlace, database: str) -> None:
        super().__init__(place)
        options = {name: value for name, value in place.options if name in LIBPQ_OPTIONS}
        settings: Dict[str, Any] = {
            "host": place.host,
            "port": place.port,
            "user": place.user,
            "password": place.password,
            "dbname": database,
            "application_name": APPLICATION,
            "connect_timeout": CONNECT_SECONDS,
            **options,
        }
        try:
            self._connection = psycopg2.connect(**{name: value for name, value in settings.items() if value})
            self._connection.autocommit = True
            self._connection.set_client_encoding("UTF8")
        except psycopg2.Error as error:
            raise explain(place, "read", str(error)) from None
        try:
            self.settle_in()
        except BaseException:
            self.close()
            raise

    def execute(self, statement: str) -> None:
        try:
            with self._connection.cursor() as cursor:
                cursor.execute(statement.encode("utf-8", "surrogateescape"))
        except psycopg2.Error as error:
            raise explain(self.place, "read", str(error)) from None

    def lines(self, query: str) -> Iterator[bytes]:
        source, sink = os.pipe()
        problems: List[BaseException] = []
        statement = "copy ({0}) to stdout".format(query).encode("utf-8", "surrogateescape")

        def copy() -> None:
            try:
                # Closing the pipe is what ends the reader.
                with os.fdopen(sink, "wb", buffering=1 << 16) as stream, self._connection.cursor() as cursor:
                    cursor.copy_expert(statement, stream)
            except BaseException as error:  # raised in the thread that reads
                problems.append(error)

        worker = threading.Thread(target=copy, daemon=True)
        worker.start()
        whole = False
        with os.fdopen(source, "rb") as stream:
            try:
                for line in stream:
                    yield line[:-1]
                whole = True
            finally:
                if not whole:
                    with contextlib.suppress(psycopg2.Error):
                        self._connection.cancel()
                    stream.close()
                # Nobody else may use the connection while the thread does.
                worker.join()
        if problems:
            raise explain(self.place, "read", str(problems[0])) from None

    def close(self) -> None:
        self._connection.close()


def connect(place: DatabasePlace, database: str = "") -> Session:
    """Return a connection to a place's database, or to another one of the same server.

    psycopg2 where it can be imported and the server be reached from here; else psql.
    """
    client = client_of(place, database)
    problem: Optional[BackupError] = None
    if psycopg2 is not None and not client.changes_user:
        try:
            return Psycopg2Session(place, database or place.name)
        except BackupError as error:
            if "FATAL:" in error.message:
                # The server has answered: it would not answer psql otherwise.
                raise
            problem = error
    psql = client.find("psql")
    if psql is None:
        raise problem or ToolError(
            "the host has neither Python's psycopg2 nor the program psql; install python3-psycopg2 or postgresql-client"
        )
    return PsqlSession(place, client, psql)
