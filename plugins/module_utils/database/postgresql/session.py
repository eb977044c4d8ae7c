# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A conversation with a PostgreSQL server: through psycopg2, or through psql as a co-process.

Every answer comes by ``COPY (query) TO STDOUT`` in text format
(https://www.postgresql.org/docs/current/sql-copy.html#id-1.9.3.55.9.2), so that both ways give the same values and rows
are streamed.
"""

from __future__ import annotations

import os
import re
import secrets
import threading
from abc import ABC, abstractmethod
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple

from ...errors import BackupError, DatabaseError, SpaceError, ToolError
from ..client import Client
from ..place import DatabasePlace

try:
    import psycopg2
except ImportError:
    psycopg2 = None  # type: ignore[assignment]

Row = Tuple[Optional[str], ...]

CONNECT_SECONDS = 15
APPLICATION = "papermerge.backup"
#: Debian keeps each major version's programs apart, as do the packages of postgresql.org for other systems.
PROGRAM_DIRECTORIES = ("/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin")
#: Connection options that libpq knows, and the variables by which its programs take them
#: (https://www.postgresql.org/docs/current/libpq-envars.html). What else stands in a URL is for Papermerge's driver.
LIBPQ_OPTIONS: Dict[str, str] = {
    "sslmode": "PGSSLMODE",
    "sslrootcert": "PGSSLROOTCERT",
    "sslcert": "PGSSLCERT",
    "sslkey": "PGSSLKEY",
    "sslcrl": "PGSSLCRL",
    "channel_binding": "PGCHANNELBINDING",
    "gssencmode": "PGGSSENCMODE",
    "krbsrvname": "PGKRBSRVNAME",
    "target_session_attrs": "PGTARGETSESSIONATTRS",
    "connect_timeout": "PGCONNECT_TIMEOUT",
}
#: Timeouts that would end a long dump; those that a server does not know are skipped.
TIMEOUTS = (
    "statement_timeout",
    "lock_timeout",
    "idle_in_transaction_session_timeout",
    "idle_session_timeout",
    "transaction_timeout",
)

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


def environment_of(place: DatabasePlace, database: str) -> Dict[str, str]:
    """Return what tells libpq's programs where to connect; the password among it."""
    found = {
        "PGHOST": place.host,
        "PGPORT": str(place.port) if place.port else "",
        "PGUSER": place.user,
        "PGPASSWORD": place.password,
        "PGDATABASE": database,
        "PGAPPNAME": APPLICATION,
        "PGCONNECT_TIMEOUT": str(CONNECT_SECONDS),
    }
    for name, value in place.options:
        if name in LIBPQ_OPTIONS:
            found[LIBPQ_OPTIONS[name]] = value
    return {name: value for name, value in found.items() if value}


#: What the server or libpq says, the error that it is, and what to do about it.
EXPLANATIONS: Tuple[Tuple[str, Callable[..., BackupError], str], ...] = (
    (r"unsupported startup parameter|pgbouncer", DatabaseError, "a connection pooler is in the way; name the server"),
    (r"server version mismatch", ToolError, "the client is older than the server; install a client of its version"),
    (
        r"password authentication failed|no password supplied|authentication failed for user|no pg_hba\.conf entry",
        DatabaseError,
        "the server refuses the login; correct the user and password of the URL",
    ),
    (r"role \"[^\"]*\" does not exist", DatabaseError, "the server has no such role; correct the user of the URL"),
    (r"database \"[^\"]*\" does not exist", DatabaseError, "the server has no such database; correct the URL's name"),
    (
        r"permission denied|must be owner|must be superuser|not enough rights",
        DatabaseError,
        "the account has not enough rights; use the owner of the database",
    ),
    (r"No space left on device|could not extend file", SpaceError, "the server has no room left; free some"),
    (
        r"closed the connection|terminating connection|shutting down|the database system is|server terminated",
        DatabaseError,
        "the server ended the connection; see its log and run again",
    ),
    (
        r"could not connect|refused|No such file|could not translate|timeout expired|unreachable|is the server running",
        DatabaseError,
        "the server cannot be reached; is it running, and are host and port right?",
    ),
)


def explain(place: DatabasePlace, what: str, words: str) -> BackupError:
    """Return the error for what the server or a client program said, without any password of ours in it."""
    text = " / ".join(line.strip() for line in words.strip().splitlines()[-4:] if line.strip()) or "no reason given"
    for secret in place.secrets:
        text = text.replace(secret, "********")
    for pattern, kind, advice in EXPLANATIONS:
        if re.search(pattern, words, re.IGNORECASE):
            return kind("database {0} cannot be {1}: {2} ({3})".format(place.url, what, advice, text))
    return DatabaseError("database {0} cannot be {1}: {2}".format(place.url, what, text))


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

    def without_timeouts(self) -> None:
        """Switch off what would end a long transaction; within one, for it alone."""
        names = ", ".join(quote_text(name) for name in TIMEOUTS)
        for row in list(self.rows("select name from pg_settings where name in ({0})".format(names))):
            self.execute("set {0} = 0".format(row[0]))

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
            self.execute("select where false")
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
        if not self._program.write(request.encode("utf-8", "surrogateescape")):
            raise self._ended()
        end, rest = self._marker.encode("ascii"), b""
        while True:
            piece = os.read(self._program.stdout.fileno(), 1 << 16)
            if not piece:
                raise self._ended()
            lines = (rest + piece).split(b"\n")
            rest = lines.pop()
            for line in lines:
                if line == end:
                    return
                yield line

    def _ended(self) -> BackupError:
        self._program.finish()
        return explain(self.place, "read", self._program.complaint)

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

    def execute(self, statement: str) -> None:
        try:
            with self._connection.cursor() as cursor:
                cursor.execute(statement)
        except psycopg2.Error as error:
            raise explain(self.place, "read", str(error)) from None

    def lines(self, query: str) -> Iterator[bytes]:
        source, sink = os.pipe()
        problems: List[BaseException] = []

        def copy() -> None:
            # Closing the pipe is what ends the reader.
            with os.fdopen(sink, "wb", buffering=1 << 16) as stream:
                try:
                    with self._connection.cursor() as cursor:
                        cursor.copy_expert("copy ({0}) to stdout".format(query), stream)
                except BrokenPipeError:
                    return
                except BaseException as error:  # raised in the thread that reads
                    problems.append(error)

        worker = threading.Thread(target=copy, daemon=True)
        with os.fdopen(source, "rb") as stream:
            worker.start()
            for line in stream:
                yield line[:-1]
        worker.join()
        if problems:
            raise explain(self.place, "read", str(problems[0])) from None

    def close(self) -> None:
        self._connection.close()


def client_of(place: DatabasePlace, database: str = "") -> Client:
    """Return the client programs for a database of a place: its own, or another one of the same server."""
    return Client(place, environment_of(place, database or place.name), PROGRAM_DIRECTORIES)


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
            problem = error
    psql = client.find("psql")
    if psql is None:
        raise problem or ToolError(
            "the host has neither Python's psycopg2 nor the program psql; install python3-psycopg2 or postgresql-client"
        )
    return PsqlSession(place, client, psql)
