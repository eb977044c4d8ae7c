# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""MariaDB and MySQL: a restore into a new schema, counted there, whose tables then move to the target's at once.

``RENAME TABLE`` moves any number of tables between schemas, all or none, and foreign keys follow
(https://mariadb.com/kb/en/rename-table/). Views, triggers and routines cannot be moved so. Papermerge makes none; a
dump that has some is refused.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from typing import Any, Dict, Iterator, List

from ...errors import BackupError, TargetError
from ..engine import ServerTarget
from ..view import View
from .client import MAX_PACKET, MysqlClient, explain
from .dump import schema_objects
from .grants import (
    OWNER_RIGHTS,
    STAGE_RIGHTS,
    TARGET_RIGHTS,
    exactly,
    grant_statement,
    grants_of,
    missing_rights,
)
from .session import MysqlView, Session, quote_name, quote_text
from .statements import SANDBOX, DumpReader

STAGE_PREFIX = "papermerge_backup_"
#: Words of a character set or collation; nothing else gets into a statement.
_WORD = re.compile(r"\w+\Z", re.ASCII)
#: The line that older clients cannot read stands before this.
HEAD_BYTES = 128

LOAD_OPTIONS = (
    "--batch",
    # Backslash commands of the client in a dump are not carried out, and line ends stay as they are.
    "--binary-mode",
    "--default-character-set=utf8mb4",
    "--max-allowed-packet={0}".format(MAX_PACKET),
)


class MysqlTarget(ServerTarget):
    """Where a restore goes on a MariaDB or MySQL server."""

    def _ask(self) -> Session:
        """Connect as the administrator, to no schema."""
        return Session(self.admin, "")

    # -- before anything is written -----------------------------------------------------------------------------------

    def require_fit(self, facts: Dict[str, Any]) -> None:
        problems: List[str] = []
        statements: List[str] = []
        if facts.get("objects"):
            problems.append(_objects_problem(facts["objects"]))
        owner = ""
        if self.place != self.admin:
            try:
                with Session(self.place, "") as session:
                    owner = session.value("select current_user()")
                    lacking = missing_rights(grants_of(session), self.place.name, OWNER_RIGHTS)
                if lacking:
                    problems.append("account {0} lacks {1} on {2}".format(owner, ", ".join(lacking), self.place.name))
                    statements.append(grant_statement(exactly(self.place.name), owner))
            except BackupError as error:
                problems.append(error.message)
        try:
            with self._ask() as session:
                self._look_at_server(session, facts, problems)
                self._look_at_rights(session, problems, statements)
                for collation in facts.get("collations", []):
                    self._look_at_collation(collation, problems)
        except BackupError as error:
            problems.append(error.message)
        if problems:
            advice = "; an administrator can run: " + " ".join(statements) if statements else ""
            raise TargetError(
                "the server of {0} ({1}) is not ready for this snapshot: {2}{3}".format(
                    self.place.url, self.found_in, "; ".join(problems), advice
                )
            )

    def _look_at_server(self, session: Session, facts: Dict[str, Any], problems: List[str]) -> None:
        if not facts:
            return
        source = tuple(facts["version_number"][:2])
        if facts["flavour"] != session.flavour or source > session.version:
            problems.append(
                "it is {0} {1} and the snapshot was taken from {2} {3}".format(
                    session.flavour, session.version_words, facts["flavour"], facts["server_version"]
                )
            )
        lower_case = int(session.value("select @@lower_case_table_names"))
        if lower_case != facts["lower_case_table_names"]:
            problems.append(
                "its lower_case_table_names is {0}, the source's was {1}".format(
                    lower_case, facts["lower_case_table_names"]
                )
            )

    def _look_at_rights(self, session: Session, problems: List[str], statements: List[str]) -> None:
        account = session.value("select current_user()")
        grants = grants_of(session)
        for schema, pattern, rights in (
            (self._stage_prefix + "0" * 8, exactly(STAGE_PREFIX) + "%", STAGE_RIGHTS),
            (self.place.name, exactly(self.place.name), TARGET_RIGHTS),
        ):
            lacking = missing_rights(grants, schema, rights)
            if lacking:
                problems.append("account {0} lacks {1} on {2}".format(account, ", ".join(lacking), pattern))
                statements.append(grant_statement(pattern, account))

    def _look_at_collation(self, collation: str, problems: List[str]) -> None:
        if not _WORD.match(collation):
            problems.append("the snapshot tells of a collation {0!r}".format(collation))
            return
        encoding = collation.partition("_")[0]
        query = "select convert('' using {0}) collate {1}".format(encoding, collation)
        try:
            # A session of its own: the client ends at an error.
            with self._ask() as session:
                session.value(query)
        except BackupError:
            problems.append("it does not know the collation {0} of the snapshot's tables".format(collation))

    def content(self) -> List[str]:
        with self._ask() as session:
            return _tables(session, self.place.name)

    # -- the staging schema -------------------------------------------------------------------------------------------

    @property
    def _stage_prefix(self) -> str:
        digest = hashlib.sha256(self.place.name.encode("utf-8", "surrogateescape")).hexdigest()
        return "{0}{1}_".format(STAGE_PREFIX, digest[:8])

    def abandoned(self) -> List[str]:
        """The name tells the target; whoever asks holds the target, so that no other restore onto it goes on."""
        prefix = self._stage_prefix
        query = (
            "select schema_name from information_schema.schemata where left(schema_name, {0}) = {1} and not exists"
            " (select 1 from information_schema.processlist p where p.db = schema_name) order by 1"
        ).format(len(prefix), quote_text(prefix))
        with self._ask() as session:
            return session.column(query)

    def stage(self, facts: Dict[str, Any]) -> str:
        name = self._stage_prefix + os.urandom(4).hex()
        with self._ask() as session:
            session.execute("create database {0}{1}".format(quote_name(name), _schema_options(facts)))
        return name

    def load(self, stage: str, content: Iterator[bytes]) -> None:
        client = MysqlClient(self.admin)
        reader = DumpReader(home=True)
        arguments = [*LOAD_OPTIONS, "--database=" + stage]
        with client.start(client.shell_program(), arguments) as run:
            held = bytearray()
            written = 0
            for piece in content:
                reader.feed(piece)
                reader.flush()
                _require_tables_only(reader)
                held += piece
                # Nothing that the reader has not understood goes to the server.
                ready = reader.passed - written
                if ready < HEAD_BYTES:
                    continue
                head = bytes(held[:ready])
                if not run.write(head if written else _without_sandbox(head)):
                    break
                del held[:ready]
                written = reader.passed
            else:
                reader.finish()
                _require_tables_only(reader)
                run.write(bytes(held) if written else _without_sandbox(bytes(held)))
            status = run.finish()
            if status != 0:
                words = run.complaint or "the client ended with status {0}".format(status)
                raise explain(self.admin, "restored", words)

    def staged_view(self, stage: str) -> View:
        return MysqlView(self.admin, stage)

    def is_staged(self, stage: str) -> bool:
        """Whether the staging schema still is where the tables are: it outlives its tables for a moment."""
        with self._ask() as session:
            if not _exists(session, stage):
                return False
            return bool(_tables(session, stage)) or not _tables(session, self.place.name)

    def put_in_place(self, stage: str, facts: Dict[str, Any]) -> None:
        name = self.place.name
        with self._ask() as session:
            objects = schema_objects(session, stage)
            if objects:
                raise TargetError(_objects_problem(sorted(objects)))
            options = _schema_options(facts)
            if not _exists(session, name):
                session.execute("create database {0}{1}".format(quote_name(name), options))
            elif options:
                session.execute("alter database {0}{1}".format(quote_name(name), options))
            tables = _tables(session, stage)
            if tables:
                moves = (
                    "{0}.{2} to {1}.{2}".format(quote_name(stage), quote_name(name), quote_name(table))
                    for table in tables
                )
                session.execute("rename table " + ", ".join(moves))
            session.execute("drop database {0}".format(quote_name(stage)))

    def discard(self, stage: str) -> None:
        with self._ask() as session:
            if not _exists(session, stage):
                return
            query = "select id from information_schema.processlist where db = {0} and id <> connection_id()"
            connections = session.column(query.format(quote_text(stage)))
        for number in connections:
            # It may be gone by now.
            with contextlib.suppress(BackupError), self._ask() as session:
                session.execute("kill {0}".format(int(number)))
        with self._ask() as session:
            session.execute("drop database if exists {0}".format(quote_name(stage)))


def _exists(session: Session, schema: str) -> bool:
    query = "select count(*) from information_schema.schemata where schema_name = {0}"
    return session.value(query.format(quote_text(schema))) != "0"


def _tables(session: Session, schema: str) -> List[str]:
    """Return the names of all that stands in a schema like a table, views included, sorted."""
    query = "select table_name from information_schema.tables where table_schema = {0}"
    return sorted(session.column(query.format(quote_text(schema))))


def _schema_options(facts: Dict[str, Any]) -> str:
    """Return the default character set and collation as CREATE DATABASE has them."""
    options = ""
    for words, value in (("character set", facts.get("encoding")), ("collate", facts.get("locale"))):
        if value and _WORD.match(value):
            options += " {0} {1}".format(words, value)
    return options


def _objects_problem(kinds: List[str]) -> str:
    return (
        "the snapshot's database holds more than tables ({0}), which a restore cannot put in place at once; load the "
        "dump by hand".format(", ".join("{0}s".format(kind) for kind in kinds))
    )


def _require_tables_only(reader: DumpReader) -> None:
    if reader.objects:
        raise TargetError(_objects_problem(sorted(reader.objects)))


def _without_sandbox(head: bytes) -> bytes:
    """Return the begin of a dump without the line that clients older than the dump's cannot read."""
    found = SANDBOX.match(head)
    return head[found.end() :] if found else head
