# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""PostgreSQL: a restore into a new database made from template0, counted there, then renamed into place."""

from __future__ import annotations

import hashlib
import os
from typing import Any, Dict, Iterator, List

from ...errors import BackupError, TargetError
from ..engine import ServerTarget
from ..view import View
from .dump import PACKAGE, PostgresView, client_version, open_moment, user_tables
from .session import Session, client_of, connect, explain, quote_name, quote_text

#: A database that every server has, to ask from while the target's does not exist.
MAINTENANCE = "postgres"
STAGE_PREFIX = "papermerge_backup_"
#: Identifiers are cut after so many bytes (NAMEDATALEN).
MAX_NAME = 63


class PostgresTarget(ServerTarget):
    """Where a restore goes on a PostgreSQL server."""

    def _ask(self, database: str = MAINTENANCE) -> Session:
        """Connect as the administrator."""
        return connect(self.admin, database)

    def _exists(self, session: Session, database: str) -> bool:
        query = "select count(*) from pg_database where datname = {0}".format(quote_text(database))
        return session.value(query) != "0"

    @property
    def _owner(self) -> str:
        return self.place.user or self.admin.user

    def require_fit(self, facts: Dict[str, Any]) -> None:
        problems: List[str] = []
        statements: List[str] = []
        with self._ask() as session:
            owner = self._owner or session.value("select current_user")
            self._look_at_programs(session, facts, problems)
            self._look_at_roles(session, owner, facts, problems, statements)
            self._look_at_rights(session, owner, problems, statements)
            self._look_at_extensions(session, owner, facts, problems, statements)
            if not problems and self.place != self.admin:
                # Whoever owns the database afterwards fills it.
                with connect(self.place, MAINTENANCE):
                    pass
        if problems:
            advice = "; an administrator can run: " + " ".join(statements) if statements else ""
            raise TargetError(
                "the PostgreSQL server of {0} ({1}) is not ready for this snapshot: {2}{3}".format(
                    self.place.url, self.found_in, "; ".join(problems), advice
                )
            )

    def _look_at_programs(self, session: Session, facts: Dict[str, Any], problems: List[str]) -> None:
        client = client_of(self.place)
        major, words = client_version(client, client.require("pg_restore", PACKAGE))
        server, source = session.version // 10000, int(facts.get("version_number", 0)) // 10000
        if server < source:
            problems.append("it is PostgreSQL {0} and the snapshot was taken from {1}".format(server, source))
        if major < source:
            problems.append("its client is {0}; {1}-{2} or later has to be installed".format(words, PACKAGE, source))

    def _look_at_roles(
        self, session: Session, owner: str, facts: Dict[str, Any], problems: List[str], statements: List[str]
    ) -> None:
        # The former owner's rights come back as those of the role that restores.
        wanted = (set(facts.get("roles", [])) - {facts.get("owner_role")}) | {owner}
        for role in sorted(wanted):
            found = session.value("select count(*) from pg_roles where rolname = {0}".format(quote_text(role)))
            if found == "0":
                problems.append("role {0} does not exist".format(role))
                login = " LOGIN PASSWORD '...'" if role == owner else ""
                statements.append("CREATE ROLE {0}{1};".format(quote_name(role), login))

    def _look_at_rights(self, session: Session, owner: str, problems: List[str], statements: List[str]) -> None:
        query = "select rolsuper, rolcreatedb, rolname from pg_roles where rolname = current_user"
        superuser, creates, admin = session.row(query)
        if superuser == "t":
            return
        if creates != "t":
            problems.append("role {0} may not create databases".format(admin))
            statements.append("ALTER ROLE {0} CREATEDB;".format(quote_name(str(admin))))
        known = session.value("select count(*) from pg_roles where rolname = {0}".format(quote_text(owner)))
        if owner != admin and known != "0":
            query = "select pg_has_role(current_user, {0}, 'MEMBER')".format(quote_text(owner))
            if session.value(query) != "t":
                problems.append("role {0} may not make a database for {1}".format(admin, owner))
                statements.append("GRANT {0} TO {1};".format(quote_name(owner), quote_name(str(admin))))

    def _look_at_extensions(
        self, session: Session, owner: str, facts: Dict[str, Any], problems: List[str], statements: List[str]
    ) -> None:
        trust = "bool_or(trusted)" if session.version >= 130000 else "false"
        for name, version in facts.get("extensions", []):
            query = (
                "select count(*), coalesce({0}, false) from pg_available_extension_versions where name = {1}".format(
                    trust, quote_text(name)
                )
            )
            number, trusted = session.row(query)
            if number == "0":
                problems.append("extension {0} {1} is not installed".format(name, version))
                continue
            query = "select count(*) from pg_roles where rolsuper and rolname = {0}".format(quote_text(owner))
            if trusted != "t" and session.value(query) == "0":
                problems.append("extension {0} can be created by a superuser only, not by {1}".format(name, owner))
                statements.append("ALTER ROLE {0} SUPERUSER; -- for the restore only".format(quote_name(owner)))

    def content(self) -> List[str]:
        with self._ask() as session:
            if not self._exists(session, self.place.name):
                return []
        with connect(self.place) as session:
            return user_tables(session)

    # -- the staging database ---------------------------------------------------------------------------------------

    @property
    def _stage_prefix(self) -> str:
        digest = hashlib.sha256(self.place.name.encode("utf-8", "surrogateescape")).hexdigest()
        return "{0}{1}_".format(STAGE_PREFIX, digest[:8])

    def abandoned(self) -> List[str]:
        query = (
            "select d.datname from pg_database d where starts_with(d.datname, {0}) and not exists"
            " (select from pg_stat_activity a where a.datid = d.oid) order by 1".format(quote_text(self._stage_prefix))
        )
        with self._ask() as session:
            return [str(row[0]) for row in session.rows(query)]

    def stage(self, facts: Dict[str, Any]) -> str:
        name = self._stage_prefix + os.urandom(4).hex()
        options = ["template template0"]
        if facts:
            options.append("encoding {0}".format(quote_text(facts["encoding"])))
            options += _locale_options(facts["locale"])
        with self._ask() as session:
            owner = self._owner or session.value("select current_user")
            options.append("owner {0}".format(quote_name(owner)))
            try:
                session.execute("create database {0} with {1}".format(quote_name(name), " ".join(options)))
            except BackupError as error:
                raise TargetError(
                    "a database like the snapshot's cannot be made on {0}: {1}; a locale that is missing has to be "
                    "installed on the server".format(self.place.url, error.message)
                ) from None
        try:
            with self._ask() as session:
                # What is inside is nobody's business until it has its name.
                session.execute("revoke all on database {0} from public".format(quote_name(name)))
                session.execute(
                    "comment on database {0} is {1}".format(
                        quote_name(name), quote_text("unfinished restore of {0}".format(self.place.name))
                    )
                )
        except BaseException:
            self.discard(name)
            raise
        return name

    def load(self, stage: str, content: Iterator[bytes]) -> None:
        client = client_of(self.place, stage)
        argv = [client.require("pg_restore", PACKAGE), "--exit-on-error", "--no-owner", "--no-password"]
        with client.start(argv + ["--dbname=" + stage]) as run:
            for piece in content:
                if not run.write(piece):
                    break
            status = run.finish()
            if status != 0:
                raise explain(
                    self.place, "restored", run.complaint or "pg_restore ended with status {0}".format(status)
                )
        with connect(self.place, stage) as session:
            # The dump has no statistics, without which the first queries are slow.
            session.execute("analyze")

    def staged_view(self, stage: str) -> View:
        session = connect(self.place, stage)
        try:
            open_moment(session)
        except BaseException:
            session.close()
            raise
        return PostgresView(session, owned=True)

    def is_staged(self, stage: str) -> bool:
        with self._ask() as session:
            return self._exists(session, stage)

    def put_in_place(self, stage: str, facts: Dict[str, Any]) -> None:
        name, old = self.place.name, self._stage_prefix + os.urandom(4).hex()
        with self._ask() as session:
            replaces = self._exists(session, name)
            session.execute("begin")
            for statement in _database_statements(stage, facts, self._owner):
                session.execute(statement)
            if replaces:
                session.execute("alter database {0} rename to {1}".format(quote_name(name), quote_name(old)))
            session.execute("alter database {0} rename to {1}".format(quote_name(stage), quote_name(name)))
            session.execute("comment on database {0} is null".format(quote_name(name)))
            session.execute("commit")
        if replaces:
            self.discard(old)

    def discard(self, stage: str) -> None:
        with self._ask() as session:
            if not self._exists(session, stage):
                return
            force = " with (force)" if session.version >= 130000 else ""
            session.execute("drop database {0}{1}".format(quote_name(stage), force))


def _locale_options(locale: Dict[str, Any]) -> List[str]:
    """Return the options of CREATE DATABASE that give it the source's order and classes of characters."""
    options = []
    provider = locale.get("provider")
    if provider == "i":
        options += ["locale_provider icu", "icu_locale {0}".format(quote_text(locale["icu"]))]
    elif provider == "b":
        options += ["locale_provider builtin", "builtin_locale {0}".format(quote_text(locale["icu"]))]
    for option, name in (("lc_collate", "collate"), ("lc_ctype", "ctype")):
        if locale.get(name):
            options.append("{0} {1}".format(option, quote_text(locale[name])))
    return options


def _database_statements(stage: str, facts: Dict[str, Any], owner: str) -> List[str]:
    """Return what gives a database the source's settings and grants. Without grants anybody may connect."""
    name = quote_name(stage)
    found = []
    for entry in facts.get("settings", []):
        setting, _equals, value = entry.partition("=")
        found.append(
            "alter database {0} set {1} to {2}".format(name, quote_name(setting), _setting_value(setting, value))
        )
    grants = facts.get("grants")
    if grants is None:
        return found + ["grant connect, temporary on database {0} to public".format(name)]
    for grantee, privilege, grantable in grants:
        if grantee == facts.get("owner_role"):
            # The owner has all rights.
            continue
        found.append(
            "grant {0} on database {1} to {2}{3}".format(
                privilege.lower(),
                name,
                "public" if grantee is None else quote_name(grantee),
                " with grant option" if grantable else "",
            )
        )
    return found


#: Settings that are lists: each element is quoted by itself, as in pg_dumpall.
_LIST_SETTINGS = (
    "search_path",
    "datestyle",
    "session_preload_libraries",
    "local_preload_libraries",
    "temp_tablespaces",
)


def _setting_value(setting: str, value: str) -> str:
    # What stands in the catalog of a list is already in the form that SET takes.
    return value if setting.lower() in _LIST_SETTINGS and value else quote_text(value)
