# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""PostgreSQL: a dump, row counts and version rows of exactly one moment.

One REPEATABLE READ transaction exports its snapshot; pg_dump and our own queries read in it
(https://www.postgresql.org/docs/current/functions-admin.html#FUNCTIONS-SNAPSHOT-SYNCHRONIZATION).
"""

from __future__ import annotations

import contextlib
import json
import re
import time
from typing import Any, Dict, Iterator, List, Tuple

from ...errors import DatabaseError, ToolError
from ...papermerge.releases import ReleaseLine
from ..client import Client
from ..engine import Database, Dump, Progress, Workspace
from ..view import View
from .session import Session, client_of, connect, explain

OLDEST_SERVER = 12
PACKAGE = "postgresql-client"

#: Everything about the database itself that pg_dump leaves out, and what a restore has to know beforehand.
_FACTS = """
select json_build_object(
  'server_version', current_setting('server_version'),
  'version_number', current_setting('server_version_num')::int,
  'encoding', pg_encoding_to_char(d.encoding),
  'locale', json_build_object('collate', d.datcollate, 'ctype', d.datctype{provider}),
  'owner_role', pg_get_userbyid(d.datdba),
  'settings', (select coalesce(json_agg(s.entry), '[]') from (
     select unnest(setconfig) as entry from pg_db_role_setting where setdatabase = d.oid and setrole = 0) s),
  'grants', (select json_agg(json_build_array(
       case when a.grantee = 0 then null else pg_get_userbyid(a.grantee) end, a.privilege_type, a.is_grantable))
     from aclexplode(d.datacl) a),
  'roles', (select coalesce(json_agg(distinct r.rolname), '[]') from pg_shdepend s join pg_roles r on r.oid = s.refobjid
     where s.dbid = d.oid and s.refclassid = 'pg_authid'::regclass and s.deptype in ('a', 'r')),
  'extensions', (select coalesce(json_agg(json_build_array(e.extname, e.extversion)), '[]') from pg_extension e
     where e.extname <> 'plpgsql'))
from pg_database d where d.datname = current_database()
"""
#: Which library compares text: named since 15, its locale renamed in 17.
_PROVIDERS = (
    (170000, ", 'provider', d.datlocprovider, 'icu', d.datlocale"),
    (150000, ", 'provider', d.datlocprovider, 'icu', d.daticulocale"),
    (0, ""),
)


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

    def close(self) -> None:
        if self._owned:
            self._session.close()


def open_moment(session: Session) -> None:
    """Begin a transaction that sees one moment and that no timeout ends."""
    session.without_timeouts()
    session.execute("begin transaction isolation level repeatable read, read only")
    # The snapshot is taken by the first query, not by begin.
    session.value("select 1")


def require_no_pooler(session: Session, other: Session) -> None:
    """Raise DatabaseError when two connections that are open at once are one server process: a pooler hands it out.

    In transaction pooling a setting of one statement is lost, or met by a stranger, at the next one.
    """
    query = "select pg_backend_pid()"
    if session.value(query) == other.value(query):
        raise DatabaseError(
            "database {0} is reached through a connection pooler in transaction mode, which a dump does not survive; "
            "set papermerge_backup_database_url to the server itself".format(session.place.url)
        )


def client_version(client: Client, program: str) -> Tuple[int, str]:
    """Return a client program's major version and all that it says of it."""
    with client.start([program, "--version"]) as run:
        words = b"".join(run.output()).decode("utf-8", "replace").strip()
        status = run.finish()
        found = re.search(r"\) (\d+)", words)
        if status != 0 or not found:
            raise ToolError("{0} --version fails with status {1}: {2}".format(program, status, run.complaint or words))
    return int(found.group(1)), words


def read_facts(session: Session) -> Dict[str, Any]:
    """Return what a restore has to know of a database besides its dump."""
    number = session.version
    provider = next(columns for since, columns in _PROVIDERS if number >= since)
    facts: Dict[str, Any] = json.loads(session.value(_FACTS.format(provider=provider)))
    facts["roles"] = sorted(set(facts["roles"]) | {grant[0] for grant in facts["grants"] or [] if grant[0]})
    return facts


class PostgresDatabase(Database):
    """A database of a PostgreSQL server."""

    dump_format = "pgdump"

    def _connect(self) -> Session:
        session = connect(self.place)
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
        with self._connect() as session, self._connect() as other:
            require_no_pooler(session, other)
            self._dump_program(session)

    def size(self) -> int:
        with self._connect() as session:
            return int(session.value("select pg_database_size(current_database())"))

    def view(self) -> View:
        session = self._connect()
        try:
            open_moment(session)
        except BaseException:
            session.close()
            raise
        return PostgresView(session, owned=True)

    def _dump_program(self, session: Session) -> Tuple[Client, str, str]:
        """Return the client, pg_dump and its version. Raises ToolError for one that is older than the server."""
        client = client_of(self.place)
        program = client.require("pg_dump", PACKAGE)
        major, words = client_version(client, program)
        server = session.version // 10000
        if major < server:
            raise ToolError(
                "{0} is of PostgreSQL {1}, older than the server's {2} ({3}); install {4}-{2}".format(
                    program, major, server, self.place.url, PACKAGE
                )
            )
        return client, program, words

    @contextlib.contextmanager
    def dump(self, line: ReleaseLine, workspace: Workspace, progress: Progress) -> Iterator[Dump]:
        del line, workspace, progress
        with self._connect() as session, self._connect() as other:
            require_no_pooler(session, other)
            client, program, words = self._dump_program(session)
            # Before the snapshot: what is written in between counts as later, not as missing.
            moment_ns = time.time_ns()
            open_moment(session)
            name = session.value("select pg_export_snapshot()")
            facts = {**read_facts(session), "client": words}
            argv = [program, "--format=custom", "--compress=0", "--no-password", "--snapshot=" + name]
            size = int(session.value("select pg_database_size(current_database())"))

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
        " where c.relkind in ('r', 'p', 'm', 'v', 'S') and n.nspname <> 'information_schema' and n.nspname !~ '^pg_'"
        " and not exists (select from pg_depend d where d.objid = c.oid and d.deptype = 'e') order by 1"
    )
    return [str(row[0]) for row in session.rows(query)]
