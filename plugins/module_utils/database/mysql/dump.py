# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""MariaDB and MySQL: a dump by mysqldump, and the row counts and version rows of exactly that dump."""

from __future__ import annotations

import contextlib
import time
from typing import Any, Dict, Iterator, List

from ...errors import BackupError, DatabaseError
from ...papermerge.releases import ReleaseLine
from ..collected import collected_tables
from ..engine import Database, Dump, Progress, Workspace
from ..view import View
from .client import MAX_PACKET, MYSQL, ClientProgram, MysqlClient, explain
from .rows import DumpedRows
from .session import MysqlView, Session, quote_text, tables_of

#: Storage engines whose tables a transaction can read at one moment. A sequence has no rows that matter.
TRANSACTIONAL = ("InnoDB", "MyRocks", "ROCKSDB", "TokuDB")

DUMP_OPTIONS = (
    "--single-transaction",
    "--quick",
    "--routines",
    "--triggers",
    "--hex-blob",
    "--no-tablespaces",
    "--comments",
    "--extended-insert",
    "--default-character-set=utf8mb4",
    "--max-allowed-packet={0}".format(MAX_PACKET),
)


def dump_options(program: ClientProgram, events: bool) -> List[str]:
    """Return the options of a dump. MySQL's own program has some that MariaDB's does not know."""
    found = list(DUMP_OPTIONS)
    if events:
        # Only then, as it takes a right that an application's account seldom has.
        found.append("--events")
    if program.flavour == MYSQL:
        # Nothing of replication belongs into a snapshot; an older server has no column statistics.
        found.append("--set-gtid-purged=OFF")
        if program.version >= (8, 0):
            found.append("--column-statistics=0")
    return found


def schema_objects(session: Session, schema: str) -> Dict[str, List[str]]:
    """Return the names of what a schema holds besides tables, by kind, as far as the account may know."""
    name = quote_text(schema)
    queries = {
        "view": "select table_name from information_schema.views where table_schema = {0}",
        "trigger": "select trigger_name from information_schema.triggers where trigger_schema = {0}",
        "routine": "select routine_name from information_schema.routines where routine_schema = {0}",
        "event": "select event_name from information_schema.events where event_schema = {0}",
        "sequence": "select table_name from information_schema.tables"
        " where table_type = 'SEQUENCE' and table_schema = {0}",
    }
    found = {kind: sorted(session.column(query.format(name))) for kind, query in queries.items()}
    return {kind: names for kind, names in found.items() if names}


def read_facts(session: Session) -> Dict[str, Any]:
    """Return what a restore has to know of the schema in use besides its dump."""
    encoding, locale = session.row(
        "select default_character_set_name, default_collation_name from information_schema.schemata"
        " where schema_name = database()"
    )
    columns = "select distinct collation_name from information_schema.columns where table_schema = database()"
    tables = "select distinct table_collation from information_schema.tables where table_schema = database()"
    collations = set(session.column(columns)) | set(session.column(tables)) | {locale or ""}
    grants = (
        "select grantee, group_concat(privilege_type order by 1 separator ', ')"
        " from information_schema.schema_privileges where database() like table_schema group by 1 order by 1"
    )
    owner, sql_mode, lower_case, packet = session.row(
        "select current_user(), @@global.sql_mode, @@lower_case_table_names, @@global.max_allowed_packet"
    )
    return {
        "server_version": session.version_words,
        "flavour": session.flavour,
        "version_number": list(session.version),
        "encoding": encoding,
        "locale": locale,
        "collations": sorted(collations - {""}),
        "owner_role": owner,
        "grants": [list(row) for row in session.rows(grants)],
        "sql_mode": sql_mode,
        "lower_case_table_names": int(lower_case or 0),
        "max_allowed_packet": int(packet or 0),
        "not_transactional": not_transactional(session),
        "objects": sorted(schema_objects(session, session.value("select database()"))),
    }


def not_transactional(session: Session) -> List[str]:
    """Return the names of the tables whose rows a transaction does not see at one moment."""
    return sorted(
        session.column(
            "select table_name from information_schema.tables where table_schema = database()"
            " and table_type = 'BASE TABLE' and (engine is null or engine not in ({0}))".format(
                ", ".join(map(quote_text, TRANSACTIONAL))
            )
        )
    )


class MysqlDatabase(Database):
    """A schema of a MariaDB or MySQL server."""

    dump_format = "mysqldump"

    def check(self) -> None:
        MysqlClient(self.place).dump_program()
        with self._session() as session:
            if not tables_of(session):
                raise DatabaseError(
                    "database {0} ({1}) has no table that {2} may see; set papermerge_backup_database_url".format(
                        self.place.url, self.found_in, session.value("select current_user()")
                    )
                )

    def _session(self) -> Session:
        try:
            return Session(self.place)
        except BackupError as error:
            raise type(error)("{0} ({1})".format(error.message, self.found_in), **error.details) from None

    def size(self) -> int:
        with Session(self.place) as session:
            return int(
                session.value(
                    "select coalesce(sum(data_length + index_length), 0) from information_schema.tables"
                    " where table_schema = database()"
                )
            )

    def view(self) -> View:
        return MysqlView(self.place)

    @contextlib.contextmanager
    def dump(self, line: ReleaseLine, workspace: Workspace, progress: Progress) -> Iterator[Dump]:
        del workspace, progress
        client = MysqlClient(self.place)
        with self._session() as session:
            program = client.dump_program(session.flavour)
            facts = {**read_facts(session), "client": program.words}
            self._require_transactional(line, facts["not_transactional"], session)
        size = self.size()
        arguments = dump_options(program, "event" in facts["objects"]) + ["--", self.place.name]
        with contextlib.ExitStack() as stack:
            rows = DumpedRows(self.place.url, collected_tables(line))
            stack.callback(rows.close)
            # Before the dump's transaction: what is written in between counts as later, not as missing.
            moment_ns = time.time_ns()

            def content() -> Iterator[bytes]:
                with contextlib.ExitStack() as programs:
                    run = programs.enter_context(client.start(program, arguments))
                    yield from rows.passing(run.output())
                    status = run.finish()
                    if status != 0:
                        words = run.complaint or "{0} ended with status {1}".format(program.path, status)
                        raise explain(self.place, "dumped", words)
                facts["objects"] = sorted({*facts["objects"], *rows.finish()})

            yield Dump(content, lambda: rows.view, moment_ns, size, facts)

    def _require_transactional(self, line: ReleaseLine, names: List[str], session: Session) -> None:
        """Raise DatabaseError when a table that matters cannot be read at the dump's moment. Any other is a fact."""
        wanted = {*line.count_tables, *line.version_tables, *line.required_tables} or set(tables_of(session))
        found = sorted(wanted.intersection(names))
        if found:
            raise DatabaseError(
                "database {0} cannot be dumped at one moment while it is in use: table {1} is not InnoDB; "
                "change it with {2}".format(
                    self.place.url,
                    ", ".join(found),
                    " ".join("ALTER TABLE `{0}` ENGINE=InnoDB;".format(name) for name in found),
                )
            )
