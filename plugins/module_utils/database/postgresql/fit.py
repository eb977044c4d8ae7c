# Copyright: (c) 2026, the papermerge.backup contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a PostgreSQL server lacks for a snapshot: everything at once, with the statements that change it."""

from __future__ import annotations

import re
from typing import Any, Dict, List

from ...errors import ToolError
from ..place import DatabasePlace
from .archive import loader_major
from .facts import settings_of
from .programs import client_of, restore_tool
from .session import Session, quote_name, quote_text

#: Since then a right to make something for a role is apart from being its member; rights on settings are older.
SET_OPTION_VERSION = 160000
PARAMETER_RIGHTS_VERSION = 150000
TRUSTED_VERSION = 130000


class Fit:
    """Looks at a server as its administrator, who asks through ``session``, for a database that ``owner`` will have.

    ``problems`` and ``statements`` are what was found: the latter are for somebody with more rights.
    """

    def __init__(self, session: Session, place: DatabasePlace, owner: str, facts: Dict[str, Any]) -> None:
        self.problems: List[str] = []
        self.statements: List[str] = []
        self._session = session
        self._place = place
        self._owner = owner
        self._facts = facts
        superuser, creates, self._admin = (
            str(value)
            for value in session.row("select rolsuper, rolcreatedb, rolname from pg_roles where rolname = current_user")
        )
        self._is_superuser, self._creates = superuser == "t", creates == "t"
        self._look_at_programs()
        self._look_at_roles()
        if not self._is_superuser:
            self._look_at_rights()
            self._look_at_settings()
        self._look_at_extensions()

    def __str__(self) -> str:
        advice = "; an administrator can run: " + " ".join(self.statements) if self.statements else ""
        return "; ".join(self.problems) + advice

    def _is_true(self, condition: str) -> bool:
        return self._session.value("select {0}".format(condition)) == "t"

    def _has_role(self, role: str) -> bool:
        return self._is_true("exists (select from pg_roles where rolname = {0})".format(quote_text(role)))

    def _lacks(self, problem: str, statement: str) -> None:
        self.problems.append(problem)
        if statement not in self.statements:
            self.statements.append(statement)

    def _look_at_programs(self) -> None:
        server, source = self._session.version // 10000, int(self._facts.get("version_number", 0)) // 10000
        if server < source:
            self.problems.append("it is PostgreSQL {0} and the snapshot was taken from {1}".format(server, source))
        dumped_by = re.search(r"\) (\d+)", str(self._facts.get("client", "")))
        loader = loader_major(int(dumped_by.group(1)) if dumped_by else 0, source)
        try:
            restore_tool(client_of(self._place), loader, server)
        except ToolError as error:
            self.problems.append(error.message)

    def _look_at_roles(self) -> None:
        for role in sorted({*self._facts.get("roles", []), self._owner}):
            if not self._has_role(role):
                login = " LOGIN PASSWORD '...'" if role == self._owner else ""
                self._lacks(
                    "role {0} does not exist".format(role), "CREATE ROLE {0}{1};".format(quote_name(role), login)
                )

    def _look_at_rights(self) -> None:
        if not self._creates:
            self._lacks(
                "role {0} may not create databases".format(self._admin),
                "ALTER ROLE {0} CREATEDB;".format(quote_name(self._admin)),
            )
        if self._owner != self._admin and self._has_role(self._owner):
            option = "SET" if self._session.version >= SET_OPTION_VERSION else "MEMBER"
            role = quote_text(self._owner)
            if not self._is_true("pg_has_role({0}, '{1}') and pg_has_role({0}, 'USAGE')".format(role, option)):
                self._lacks(
                    "role {0} may not make a database for {1}".format(self._admin, self._owner),
                    "GRANT {0} TO {1};".format(quote_name(self._owner), quote_name(self._admin)),
                )
        query = "exists (select from pg_database where datname = {0} and not pg_has_role(datdba, 'USAGE'))".format(
            quote_text(self._place.name)
        )
        if self._is_true(query):
            self._lacks(
                "role {0} may not rename the empty database {1}".format(self._admin, self._place.name),
                "ALTER DATABASE {0} OWNER TO {1};".format(quote_name(self._place.name), quote_name(self._owner)),
            )

    def _look_at_settings(self) -> None:
        for name, _value in settings_of(self._facts):
            context = self._session.value(
                "select max(context) from pg_settings where name = {0}".format(quote_text(name.lower()))
            )
            # A name with a dot is of an extension; as long as that is not loaded, nobody knows who may set it.
            if context != "superuser" and not (not context and "." in name):
                continue
            statement = "ALTER ROLE {0} SUPERUSER;".format(quote_name(self._admin))
            if self._session.version >= PARAMETER_RIGHTS_VERSION:
                if self._is_true("has_parameter_privilege({0}, 'SET')".format(quote_text(name))):
                    continue
                statement = "GRANT SET ON PARAMETER {0} TO {1};".format(quote_name(name), quote_name(self._admin))
            self._lacks("role {0} may not set {1} of a database".format(self._admin, name), statement)

    def _look_at_extensions(self) -> None:
        trust = "bool_or(trusted)" if self._session.version >= TRUSTED_VERSION else "false"
        query = "exists (select from pg_roles where rolsuper and rolname = {0})".format(quote_text(self._owner))
        owner_is_superuser = self._is_true(query)
        for name, version in self._facts.get("extensions", []):
            number, trusted = self._session.row(
                "select count(*), coalesce({0}, false) from pg_available_extension_versions where name = {1}".format(
                    trust, quote_text(name)
                )
            )
            if number == "0":
                self.problems.append(
                    "extension {0} {1} is not installed on the server (contrib modules are in the package "
                    "postgresql-contrib, others in {2})".format(name, version, "postgresql-VERSION-" + name)
                )
            elif trusted != "t" and not owner_is_superuser:
                self._lacks(
                    "extension {0} can be created by a superuser only, not by {1}".format(name, self._owner),
                    "ALTER ROLE {0} SUPERUSER;".format(quote_name(self._owner)),
                )
