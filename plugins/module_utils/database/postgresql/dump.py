# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""PostgreSQL: a dump, row counts and version rows of exactly one moment.

One REPEATABLE READ transaction exports its snapshot; pg_dump and our own queries read in it
(https://www.postgresql.org/docs/current/functions-admin.html#FUNCTIONS-SNAPSHOT-SYNCHRONIZATION).
"""

from __future__ import annotations

import contextlib
import time
from typing import Any, Iterator, List, Tuple

from ...errors import BackupError, DatabaseError
from ...papermerge.releases import ReleaseLine
from ..engine import Database, Dump, Progress, Workspace
from ..view import View
from .facts import read_facts
from .messages import explain
from .programs import client_of, dump_tool
from .session import Session, connect, quote_name

OLDEST_SERVER = 12
#: A table that is being altered is waited for so long. Without an end, a migration that waits for our session, and
#: pg_dump behind the migration, would wait for each other forever.
LOCK_SECONDS = 60


class PostgresView(View):
    """What a session's transaction sees."""

    def __init__(self, session: Session, owned: bool) -> None:
        self.name = session.place.url
        self._session = session
        self._owned = owned

    def rows(self, query: str) -> Iterator[Tuple[Any, ...]]:
        return self._session.rows(query)

    def tables(self) -> Tuple[str, ...]:
        query = (
            "select c.relname from pg_class c join pg_namespace n on n.oid = c.relnamespace"
            " where c.relkind in ('r', 'p') and pg_table_is_visible(c.oid)"
            " and n.nspname not in ('pg_catalog', 'information_schema')"
            ' order by c.relname collate "C"'
        )
        return tuple(str(row[0]) for row in self._session.rows(query))

    def quoted(self, table: str) -> str:
        return quote_name(table)

    def close(self) -> None:
        if self._owned:
            self._session.close()


def open_moment(session: Session, locks: bool = False) -> None:
    """Begin a transaction that sees one moment. ``locks``: no table can be emptied, altered or dropped meanwhile.

    What TRUNCATE and some ALTER TABLE do is seen by all transactions, also those that began before.
    """
    tables = ", ".join(tables_to_lock(session)) if locks else ""
    session.execute("begin transaction isolation level repeatable read, read only")
    if tables:
        # Before the snapshot, which is taken by the first query.
        session.execute("set local lock_timeout = '{0}s'".format(LOCK_SECONDS))
        session.execute("lock table {0} in access share mode".format(tables))
        session.execute("set local lock_timeout = 0")
    session.value("select 1")


def view_of(session: Session) -> View:
    """Return a moment of a session's database; leaving it closes the session, as does an error here."""
    try:
        open_moment(session)
    except BaseException:
        session.close()
        raise
    return PostgresView(session, owned=True)


def tables_to_lock(session: Session) -> List[str]:
    """Return the names of all tables that a dump holds, as SQL has them."""
    query = (
        "select quote_ident(n.nspname) || '.' || quote_ident(c.relname) from pg_class c"
        " join pg_namespace n on n.oid = c.relnamespace where c.relkind in ('r', 'p')"
        " and n.nspname <> 'information_schema' and n.nspname !~ '^pg_' and not exists (select from pg_depend d"
        " where d.classid = 'pg_class'::regclass and d.objid = c.oid and d.deptype = 'e') order by 1"
    )
    return [str(row[0]) for row in session.rows(query)]


def require_no_pooler(session: Session, other: Session) -> None:
    """Raise DatabaseError when statements of one connection reach several server processes: a pooler hands them out.

    In transaction pooling a setting of one statement is lost, or met by a stranger, at the next one.
    """
    query = "select pg_backend_pid()"
    process = session.value(query)
    # Held by a transaction, a server process is nobody else's: the pooler has to take another one.
    other.execute("begin")
    changes = other.value(query) == process
    if not changes:
        changes = any(session.value(query) != process for _attempt in range(3))
    other.execute("rollback")
    if changes:
        raise DatabaseError(
            "database {0} is reached through a connection pooler in transaction mode, which a dump does not survive; "
            "set papermerge_backup_database_url to the server itself".format(session.place.url)
        )


class PostgresDatabase(Database):
    """A database of a PostgreSQL server."""

    dump_format = "pgdump"

    def _connect(self) -> Session:
        try:
            session = connect(self.place)
        except BackupError as error:
            raise type(error)("{0} ({1})".format(error.message, self.found_in), **error.details) from None
        major = session.version // 10000
        if major < OLDEST_SERVER:
            session.close()
            raise DatabaseError(
                "database {0} ({1}) is on PostgreSQL {2}; {3} or later is needed".format(
                    self.place.url, self.found_in, major, OLDEST_SERVER
                )
            )
        return session

    def check(self) -> None:
        with self._connect() as session:
            self._refuse_pooler(session)
            dump_tool(client_of(self.place), self.place, session.version // 10000)

    def _refuse_pooler(self, session: Session) -> None:
        with self._connect() as other:
            require_no_pooler(session, other)

    def size(self) -> int:
        with self._connect() as session:
            return int(session.value("select pg_database_size(current_database())"))

    def view(self) -> View:
        return view_of(self._connect())

    @contextlib.contextmanager
    def dump(self, line: ReleaseLine, workspace: Workspace, progress: Progress) -> Iterator[Dump]:
        del line, workspace, progress
        with self._connect() as session:
            self._refuse_pooler(session)
            client = client_of(self.place)
            tool = dump_tool(client, self.place, session.version // 10000)
            size = int(session.value("select pg_database_size(current_database())"))
            # Before the snapshot: what is written in between counts as later, not as missing.
            moment_ns = time.time_ns()
            open_moment(session, locks=True)
            facts = {**read_facts(session), "client": tool.words}
            argv = [
                tool.path,
                "--format=custom",
                "--compress=0",
                "--no-password",
                "--lock-wait-timeout={0}".format(LOCK_SECONDS * 1000),
                "--snapshot=" + session.value("select pg_export_snapshot()"),
            ]

            def content() -> Iterator[bytes]:
                with client.start(argv) as run:
                    yield from run.output()
                    status = run.finish()
                    if status != 0:
                        raise explain(
                            self.place, "dumped", run.complaint or "pg_dump ended with status {0}".format(status)
                        )

            yield Dump(content, lambda: PostgresView(session, owned=False), moment_ns, size, facts)


def user_tables(session: Session) -> List[str]:
    """Return the names of all tables of a database that are not PostgreSQL's own."""
    query = (
        "select n.nspname || '.' || c.relname from pg_class c join pg_namespace n on n.oid = c.relnamespace"
        " where c.relkind in ('r', 'p', 'f', 'm', 'v', 'S')"
        " and n.nspname <> 'information_schema' and n.nspname !~ '^pg_'"
        " and not exists (select from pg_depend d where d.classid = 'pg_class'::regclass and"
        " d.objid = c.oid and d.deptype = 'e') order by 1"
    )
    return [str(row[0]) for row in session.rows(query)]
