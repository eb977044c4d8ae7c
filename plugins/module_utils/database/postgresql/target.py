# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""PostgreSQL: a restore into a new database made from template0, counted there, then renamed into place."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from typing import Any, Dict, Iterator, List, Optional, Tuple

from ...errors import BackupError, TargetError
from ..engine import ServerTarget
from ..view import View
from .dump import user_tables, view_of
from .facts import grant_statements, locale_options, setting_statements, settings_of
from .fit import Fit
from .loading import load_archive
from .programs import APPLICATION
from .session import Session, connect, quote_name, quote_text

#: Databases that every server has, to ask from while the target's does not exist or is renamed.
MAINTENANCE = ("postgres", "template1")
STAGE_PREFIX = "papermerge_backup_"
IN_USE = "being accessed by other users"
FORCE_VERSION = 130000


class PostgresTarget(ServerTarget):
    """Where a restore goes on a PostgreSQL server."""

    #: A connection to the staging database, open as long as it is needed: what nobody is connected to is abandoned.
    _guard: Optional[Session] = None

    def _ask(self) -> Session:
        """Connect as the administrator, to a database that is not the target's."""
        return connect(self.admin, self._maintenance)

    @property
    def _maintenance(self) -> str:
        return next(name for name in MAINTENANCE if name != self.place.name)

    def _exists(self, session: Session, database: str) -> bool:
        query = "select count(*) from pg_database where datname = {0}".format(quote_text(database))
        return session.value(query) != "0"

    def _owner(self, session: Session) -> str:
        return self.place.user or session.value("select current_user")

    def require_fit(self, facts: Dict[str, Any]) -> None:
        with self._ask() as session:
            fit = Fit(session, self.place, self._owner(session), facts)
            if fit.problems:
                raise TargetError(
                    "the PostgreSQL server of {0} ({1}) is not ready for this snapshot: {2}".format(
                        self.place.url, self.found_in, fit
                    )
                )
            self._require_unused(session)
        if self.place != self.admin:
            # Whoever owns the database afterwards fills it.
            with connect(self.place, self._maintenance):
                pass

    def _require_unused(self, session: Session) -> None:
        """Raise TargetError when others are connected to the target's database: it could not be renamed."""
        query = (
            "select coalesce(nullif(application_name, ''), 'without a name'), usename, count(*) from pg_stat_activity"
            " where datname = {0} and usename is not null and application_name <> {1} group by 1, 2 order by 1, 2"
        ).format(quote_text(self.place.name), quote_text(APPLICATION))
        found = ["{0} of {1} ({2})".format(number, user, name) for name, user, number in session.rows(query)]
        if found:
            raise TargetError(
                "database {0} is in use; end its sessions first, such as by stopping Papermerge: {1}".format(
                    self.place.url, ", ".join(found)
                )
            )

    def content(self) -> List[str]:
        with self._ask() as session:
            if not self._exists(session, self.place.name):
                return []
        # The owner of an empty database may be another role, and the administrator sees it all the same.
        with connect(self.admin, self.place.name) as session:
            return user_tables(session)

    # -- the staging database ---------------------------------------------------------------------------------------

    @property
    def _stage_prefix(self) -> str:
        digest = hashlib.sha256(self.place.name.encode("utf-8", "surrogateescape")).hexdigest()
        return "{0}{1}_".format(STAGE_PREFIX, digest[:8])

    def abandoned(self) -> List[str]:
        query = (
            "select d.datname from pg_database d where starts_with(d.datname, {0}) and not exists"
            " (select from pg_stat_activity a where a.datid = d.oid and a.usename is not null) order by 1".format(
                quote_text(self._stage_prefix)
            )
        )
        with self._ask() as session:
            return [str(row[0]) for row in session.rows(query)]

    def stage(self, facts: Dict[str, Any]) -> str:
        name = self._stage_prefix + os.urandom(4).hex()
        try:
            with self._ask() as session:
                self._create(session, name, facts)
            self._guard = connect(self.admin, name)
        except BaseException:
            # The first error counts.
            with contextlib.suppress(BackupError):
                self.discard(name)
            raise
        return name

    def _create(self, session: Session, name: str, facts: Dict[str, Any]) -> None:
        options = ["template template0", "owner {0}".format(quote_name(self._owner(session)))]
        if facts:
            options.append("encoding {0}".format(quote_text(facts["encoding"])))
            options += locale_options(facts["locale"], session.version)
        try:
            session.execute("create database {0} with {1}".format(quote_name(name), " ".join(options)))
        except BackupError as error:
            if not re.search(r"locale|encoding|ICU|collat", error.message):
                raise
            raise TargetError(
                "the server of {0} cannot make a database with the snapshot's encoding and locale ({1}); install "
                "what it lacks and restart it: {2}".format(self.place.url, ", ".join(options[2:]), error.message)
            ) from None
        with self._ask() as session:
            # What is inside is nobody's business until it has its name.
            for statement in [
                "revoke all on database {0} from public".format(quote_name(name)),
                "comment on database {0} is {1}".format(
                    quote_name(name), quote_text("unfinished restore of {0}".format(self.place.name))
                ),
            ] + setting_statements(name, self._known(session, facts)):
                session.execute(statement)
            # The grants come with the name. Whether they can be given has to be known before anything else is done.
            session.execute("begin")
            for statement in grant_statements(name, facts):
                session.execute(statement)
            session.execute("rollback")

    def _known(self, session: Session, facts: Dict[str, Any]) -> List[Tuple[str, str]]:
        """Return the settings of a source that this server knows: some disappear from one release to the next."""
        known = {str(row[0]).lower() for row in session.rows("select name from pg_settings")}
        return [item for item in settings_of(facts) if item[0].lower() in known or "." in item[0]]

    def load(self, stage: str, content: Iterator[bytes]) -> None:
        with self._ask() as session:
            server = session.version // 10000
        load_archive(self.place, stage, server, content)
        with connect(self.place, stage) as session:
            # The dump has no statistics, without which the first queries are slow.
            session.execute("analyze")

    def staged_view(self, stage: str) -> View:
        return view_of(connect(self.place, stage))

    def is_staged(self, stage: str) -> bool:
        with self._ask() as session:
            return self._exists(session, stage)

    def _release(self) -> None:
        if self._guard is not None:
            self._guard.close()
            self._guard = None

    def put_in_place(self, stage: str, facts: Dict[str, Any]) -> None:
        name, old = self.place.name, self._stage_prefix + os.urandom(4).hex()
        self._release()
        with self._ask() as session:
            # Nobody has rights on it but us: a pooler may have kept a connection, or a person looks at it.
            _end_sessions(session, stage)
            replaces = self._exists(session, name)
            if replaces:
                self._require_unused(session)
            statements = grant_statements(stage, facts)
            if replaces:
                statements.append("alter database {0} rename to {1}".format(quote_name(name), quote_name(old)))
            statements.append("alter database {0} rename to {1}".format(quote_name(stage), quote_name(name)))
            statements.append("comment on database {0} is null".format(quote_name(name)))
            try:
                session.execute("begin")
                for statement in statements:
                    session.execute(statement)
                session.execute("commit")
            except BackupError as error:
                if IN_USE in error.message:
                    with self._ask() as other:
                        self._require_unused(other)
                raise
        if replaces:
            # It is empty, and the next restore would drop it as well.
            with contextlib.suppress(BackupError):
                self.discard(old)

    def discard(self, stage: str) -> None:
        self._release()
        with self._ask() as session:
            if not self._exists(session, stage):
                return
            force = " with (force)" if session.version >= FORCE_VERSION else ""
            if not force:
                _end_sessions(session, stage)
            session.execute("drop database {0}{1}".format(quote_name(stage), force))


def _end_sessions(session: Session, database: str) -> None:
    query = (
        "select pg_terminate_backend(pid) from pg_stat_activity where datname = {0} and usename is not null"
        " and pg_has_role(usesysid, 'USAGE') and pid <> pg_backend_pid()"
    )
    for _row in session.rows(query.format(quote_text(database))):
        pass
